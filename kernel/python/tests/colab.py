"""An emulated Colab: Colab's package versions in a clean environment, two cores, no Rust on the PATH, HOME elsewhere, ipc.

`tests/run.sh` names the environment's interpreter in COLAB_PYTHON and the folder of the wheel in WAVEMESH_PACKAGE.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from notebook import Notebook

ROOT = Path(__file__).parents[3]
STUB = Path(__file__).parent / "colab_stub"
RUST = Path(os.environ.get("RUSTUP_HOME") or Path.home() / ".rustup")
NETWORK = ("SSL_CERT_FILE", "PIP_CERT", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "no_proxy", "NO_PROXY")
PASSED_ON = ("LANG", "WAVEMESH_TRAIN_SECONDS", *NETWORK)
NOWHERE = "http://127.0.0.1:9"  # where nobody listens
TWO_CORES = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))]


def needed(variable):
    """The path that a variable names; without it the test cannot run, which is an error in CI."""
    value = os.environ.get(variable)
    if not value:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{variable} is not set: run kernel/python/tests/run.sh")
    return Path(value)


class Colab:
    """A runtime that was just connected. It has nothing of WaveMesh or, if not `clean`, what an earlier one installed with pip."""

    def __init__(self, folder, clean=True):
        self.python = needed("COLAB_PYTHON")
        self.packages = needed("WAVEMESH_PACKAGE")
        self.home = folder / "home"
        self.content = folder / "content"
        self.home.mkdir()
        self.content.mkdir()
        self.env = {key: os.environ[key] for key in PASSED_ON if key in os.environ} | {
            "HOME": str(self.home),
            "PATH": f"{self.python.parent}:/usr/bin:/bin",
            # The machine's own toolchain stands in for one that rustup installed.
            "RUSTUP_HOME": str(RUST),
            # The tests' network has only package registries. If that toolchain is not found, the failure must not look like a network's.
            "RUSTUP_UPDATE_ROOT": NOWHERE,
            # The wheel is not on PyPI, and Colab has everything that it needs.
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.packages),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONPATH": str(STUB),
        }
        assert shutil.which("rustc", path=self.env["PATH"]) is None, "an emulated Colab has no Rust"
        if clean:
            self.remove_package()

    def pip(self, *arguments):
        """Runs pip in the runtime."""
        subprocess.run([self.python, "-m", "pip", *arguments], env=self.env, check=True, capture_output=True)

    def remove_package(self):
        """Restores the Python environment, which runtimes share."""
        self.pip("uninstall", "-y", "-q", "wavemesh-kernel")

    def notebook(self, **variables):
        """Opens a notebook as Colab opens one whose kernelspec it does not know: with Python."""
        python = [*TWO_CORES, str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return Notebook(self.content, {**self.env, **variables}, python)

    def rust_notebook(self):
        """Opens a notebook with the kernelspec `wavemesh` that `wavemesh-kernel install` wrote, as Colab's server does: from outside."""
        (file,) = self.home.glob(".local/share/jupyter/kernels/wavemesh/kernel.json")
        spec = json.loads(file.read_text())
        env = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", **spec.get("env", {})}
        return Notebook(self.content, env, spec["argv"], spec["interrupt_mode"])

    def leftovers(self):
        """Everything of ours in the home folder."""
        return [path for path in self.home.rglob("*") if "wavemesh" in path.name or path.match("kernels/wavemesh")]
