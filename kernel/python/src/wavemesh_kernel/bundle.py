"""What a wheel contains besides Python code: the kernel's program, the compiled library, and the library's sources.

The compiled library works with one compiler only, down to the commit. If this machine has that compiler, the library is unpacked
once into `$XDG_DATA_HOME/wavemesh`, beside those of other versions. If not, the compiler is fetched first, or the library is
compiled again.
"""

import contextlib
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from . import __version__, gpu
from .errors import RustKernelMissing
from .toolchain import Toolchain, fetch, find, find_any

FOLDER = Path(__file__).parent / "bundle"
KERNEL = FOLDER / "wavemesh-kernel"
LIBRARY = FOLDER / "library.tar.xz"
SOURCES = FOLDER / "source"
SHARED = ("cell-*", "names-*", "toolchain", "target", "history.jsonl")  # what all versions use in the data folder
FREE_BYTES = 600 * 1024 * 1024  # for the unpacked library, a second copy while it is put in place, and room to compile cells

_chosen: Toolchain | None = None


def is_packaged():
    """Whether this installation has a kernel of its own (a wheel has, a checkout has not)."""
    return KERNEL.exists()


def data_home():
    """The folder for everything that is made at run time."""
    return base("XDG_DATA_HOME", ".local/share")


def cache_home():
    """Where the kernel keeps crates that cells asked for."""
    return base("XDG_CACHE_HOME", ".cache")


def base(variable, default):
    """WaveMesh's folder in one of the XDG base directories."""
    value = os.environ.get(variable, "")
    return (Path(value) if os.path.isabs(value) else Path.home() / default) / "wavemesh"


def wanted(folder=None):
    """The compiler that made the library in a folder (by default ours), as the output of its `rustc -Vv`."""
    return json.loads(((folder or FOLDER) / "bundle.json").read_text())["toolchain"]["version"]


def environment():
    """The variables with which the kernel is started: they lead it to the compiler, and to CUDA's libraries."""
    return _chosen.environment() | gpu.environment() if _chosen else {}


def prepare(say):
    """Finds or fetches the compiler, and puts the compiled library in place. If that fails, nothing is left behind."""
    global _chosen
    if _chosen is not None:
        return
    try:
        _chosen = made_ready(say)
    except BaseException:
        with contextlib.suppress(OSError):
            data_home().rmdir()  # works only if the folder is empty; then it was not there before
        raise


def made_ready(say):
    """Puts the library in place for a compiler, and returns that compiler."""
    check_room()
    check_linker()
    toolchain = find(wanted(), data_home())
    if toolchain is None:
        toolchain = fetch_or_make_do(say)
    if not library(toolchain, "path"):
        if toolchain.version == wanted():
            unpack(FOLDER, toolchain, say)
        else:
            compile_anew(toolchain, say)
    if gpu.is_seen() and not list(data_home().glob(f"{__version__}-*-cuda/bundle.json")):
        add_gpu(toolchain, say)
    return toolchain


def add_gpu(toolchain, say):
    """Puts the library for GPUs beside the other. If that fails, it says why, and cells compute on the processor."""
    folder = gpu.addon() or gpu.install(say)
    if folder is None:
        return
    if wanted(folder) != toolchain.version:
        say(
            f"The library for GPUs serves rustc {wanted(folder).split()[1]}, and cells are compiled by {toolchain.release()}: not used."
        )
        return
    try:
        unpack(folder, toolchain, say)
    except RustKernelMissing as error:
        say(f"The library for GPUs is not used: {error}")


def fetch_or_make_do(say):
    """Fetches the wanted version of the compiler. If that fails, returns another one on this machine."""
    release = wanted().split()[1]
    other = find_any(data_home())
    try:
        return fetch(release, data_home(), say)
    except RustKernelMissing as error:
        if other is None:
            raise
        say(f"{error}\nThe Rust that is here, {other.release()}, can serve instead.")
        return other


def library(toolchain, *arguments):
    """Runs `wavemesh-kernel library …` with the toolchain. Returns what it prints, or None if it fails."""
    command = [str(KERNEL), "library", *arguments]
    done = subprocess.run(command, env={**os.environ, **toolchain.environment()}, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def unpack(source, toolchain, say):
    """Puts a wheel's library in place; `source` is the folder in which the wheel has it."""
    say("Unpacking the compiled library (once)…")
    home, library = data_home(), source / LIBRARY.name
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=home) as folder:
        try:
            with tarfile.open(library) as archive:
                # Debian 12's Python has no filters yet; the archive is our own.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(folder)
            shutil.copy(source / "bundle.json", folder)
        except (lzma.LZMAError, tarfile.TarError, EOFError):
            package = "wavemesh-kernel" if source == FOLDER else gpu.PACKAGE
            raise RustKernelMissing(f"{library} is damaged: pip install --force-reinstall {package}") from None
        except OSError as error:
            raise RustKernelMissing(
                f"the compiled library cannot be unpacked to {home}: {error.strerror}. "
                "Make room, or set XDG_DATA_HOME to a folder on another disk"
            ) from None
        run_kernel(toolchain, say, "library", "import", folder, "--source", str(SOURCES))


def compile_anew(toolchain, say):
    """Compiles the library from the wheel's sources, for a compiler other than the one it was made with."""
    say(
        f"The compiled library in this package serves rustc {wanted().split()[1]}; here is {toolchain.release()}. "
        "Compiling it again: about ten minutes, once."
    )
    run_kernel(toolchain, say, "library", "build", "--source", str(SOURCES))


def run_kernel(toolchain, say, *arguments):
    """Runs a command of the kernel's program and passes on what it prints; its failure is an error."""
    command = [str(KERNEL), *arguments]
    env = {**os.environ, **toolchain.environment(), "CARGO_TARGET_DIR": str(data_home() / "target")}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = [line.rstrip() for line in process.stdout if not say(line.rstrip())]
    if process.returncode != 0:
        raise RustKernelMissing(f"`wavemesh-kernel {' '.join(arguments)}` failed: " + "\n".join(lines[-15:]))


def check_room():
    """Reports a full or read-only disk at once, not halfway."""
    home = data_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
        free = shutil.disk_usage(home).free
    except OSError as error:
        raise RustKernelMissing(f"cannot write to {home} ({error.strerror}): set XDG_DATA_HOME to a folder of yours") from None
    if free < FREE_BYTES and not any(home.glob(f"{__version__}-*/bundle.json")):
        raise RustKernelMissing(
            f"{home} has {free // 2**20} MB free and {FREE_BYTES // 2**20} MB are needed: "
            "make room, or set XDG_DATA_HOME to a folder on another disk"
        )


def check_linker():
    """rustc links every cell with `cc`. Without it, nothing is fetched or unpacked."""
    if shutil.which("cc") is None:
        raise RustKernelMissing(
            "there is no C linker (cc), and rustc needs one for every cell: on Debian, Ubuntu and Colab "
            "`apt-get install -y build-essential` (with sudo, or `!` in a notebook), then run this again"
        )


def remove(say):
    """Removes what this version made. Also removes what versions share, unless another version that may use it is installed."""
    home = data_home()
    doomed = list(home.glob(f"{__version__}-*"))
    if all(folder.parent in doomed for folder in home.glob("*-*/bundle.json")):
        doomed += [path for pattern in SHARED for path in home.glob(pattern)] + [cache_home()]
    if not is_packaged():
        doomed = [home, cache_home()]  # kernel/setup.sh made all of it
    for path in doomed:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        say(f"Removed {path}")
    with contextlib.suppress(OSError):
        home.rmdir()  # works only if it is empty
