"""An emulated Colab: Colab's package versions in a clean environment, no Rust on the PATH, HOME elsewhere, ipc.

`tests/run.sh` names the environment's interpreter in COLAB_PYTHON and the folder of the wheel in WAVEMESH_PACKAGE.
"""

import os
import subprocess
from pathlib import Path

import pytest

from notebook import Notebook

ROOT = Path(__file__).parents[3]
STUB = Path(__file__).parent / "colab_stub"
RUST = Path(os.environ.get("RUSTUP_HOME") or Path.home() / ".rustup")
PASSED_ON = ("LANG", "SSL_CERT_FILE", "PIP_CERT", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "no_proxy", "NO_PROXY")


def needed(variable):
    """The path that a variable names; without it the test cannot run, which is an error in CI."""
    value = os.environ.get(variable)
    if not value:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{variable} is not set: run kernel/python/tests/run.sh")
    return Path(value)


class Colab:
    """A runtime that was just connected: nothing of WaveMesh is on it."""

    def __init__(self, folder):
        self.python = needed("COLAB_PYTHON")
        self.packages = needed("WAVEMESH_PACKAGE")
        self.home = folder / "home"
        self.content = folder / "content"
        self.home.mkdir()
        self.content.mkdir()
        self.env = {key: os.environ[key] for key in PASSED_ON if key in os.environ} | {
            "HOME": str(self.home),
            "PATH": f"{self.python.parent}:/usr/bin:/bin",
            # The machine's own toolchain, where rustup would have put one.
            "RUSTUP_HOME": str(RUST),
            # The wheel is not on PyPI; everything it needs, Colab has.
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.packages),
            "PYTHONPATH": str(STUB),
        }
        self.pip("uninstall", "-y", "-q", "wavemesh-kernel")

    def pip(self, *arguments):
        """Runs pip in the runtime."""
        subprocess.run([self.python, "-m", "pip", *arguments], env=self.env, check=True, capture_output=True)

    def notebook(self, **variables):
        """Opens a notebook."""
        return Notebook(self.content, {**self.env, **variables}, self.python)
