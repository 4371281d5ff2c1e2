"""The add-on for NVIDIA GPUs: the package `wavemesh-kernel-cuda`. Once it is on PyPI, it is installed on machines with a GPU."""

import importlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from . import __version__

PACKAGE = "wavemesh-kernel-cuda"
MODULE = "wavemesh_kernel_cuda"
PUBLISHED = False  # until we publish it, a package of that name on PyPI is somebody else's
DRIVER = Path("/proc/driver/nvidia/version")  # exists while NVIDIA's driver is loaded
TIMEOUT = 900  # seconds for pip


def is_seen():
    """Whether this machine has an NVIDIA GPU that cells may use."""
    return DRIVER.exists() and os.environ.get("WAVEMESH_DEVICE", "").strip().lower() != "cpu"


def addon():
    """The folder of the library that the add-on brought, or None."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "bundle"
    return folder if (folder / "bundle.json").exists() else None


def install(say):
    """Installs the add-on with pip and returns its folder, or says why not and returns None. Cells compute without it too."""
    if not PUBLISHED:
        say(
            f"There is an NVIDIA GPU. {PACKAGE}, which lets cells use it, is not on PyPI yet: install the wheel that `bash kernel/package.sh --cuda` makes."
        )
        return None
    say(f"There is an NVIDIA GPU: installing {PACKAGE} (once)…")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{PACKAGE}=={__version__}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
        reason = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = [str(error)]
    folder = addon()
    if folder is None:
        say("".join(reason) or f"{PACKAGE} is not where this Python finds packages")
        say(f"Cells compute on the processor; `pip install {PACKAGE}` and a restart let them use the GPU.")
    return folder


def library_folders():
    """Where pip has put CUDA's libraries."""
    return [str(folder) for folder in sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("*/lib"))]


def environment():
    """The variables that lead the kernel to CUDA's libraries; none without the add-on."""
    folders = library_folders() if addon() else []
    if not folders:
        return {}
    before = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": os.pathsep.join([*folders, *([before] if before else [])])}
