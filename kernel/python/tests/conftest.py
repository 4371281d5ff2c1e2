"""A notebook with the extension loaded and, in place of the Rust kernel, a stand-in that speaks the same protocol."""

import os
import sys

import pytest

from notebook import Notebook

STAND_IN = """#!/bin/sh
# A Jupyter kernel for Python, called as the Rust kernel is called: run --connection-file FILE
exec {python} -m ipykernel_launcher -f "$3"
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """Any Jupyter kernel can show whether the relay works. ipykernel sends every kind of message."""
    program = tmp_path_factory.mktemp("kernel") / "stand-in"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def relayed(stand_in, tmp_path_factory):
    """Cells of this notebook run in the stand-in."""
    notebook = Notebook(tmp_path_factory.mktemp("work"), {**os.environ, "WAVEMESH_KERNEL": str(stand_in)})
    notebook.run("%load_ext wavemesh_kernel").ok()
    yield notebook
    notebook.close()
