"""A kernel for each module of tests, over tcp and over ipc, installed by the kernel's own `install`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))

from driver import Kernel  # noqa: E402

PROGRAM = os.environ.get("WAVEMESH_KERNEL")


# Modules that test how messages travel: they run over each transport, and with each client. The result of a cell is the same for all.
MESSAGES = ["conformance", "lifecycle", "output", "protocol", "security", "startup", "stop", "widgets"]


def about_messages(module):
    return module.__name__.removeprefix("test_") in MESSAGES


def pytest_generate_tests(metafunc):
    if "kernel" in metafunc.fixturenames:
        transports = ["tcp", "ipc"] if about_messages(metafunc.module) else ["tcp"]
        metafunc.parametrize("kernel", transports, indirect=True, scope="module")


def pytest_collection_modifyitems(items):
    for item in items:
        if about_messages(item.module):
            item.add_marker("messages")


def pytest_configure(config):
    config.addinivalue_line("markers", "messages: about how messages come and go")
    if not PROGRAM:
        raise pytest.UsageError("run the tests with `bash kernel/tests/run.sh`, or say in WAVEMESH_KERNEL what to test")


@pytest.fixture(scope="session")
def program():
    return PROGRAM


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory):
    """Installs the kernelspec under a temporary prefix, and gives the history a separate file."""
    prefix = tmp_path_factory.mktemp("prefix")
    subprocess.run([PROGRAM, "install", "--prefix", str(prefix)], check=True, capture_output=True)
    os.environ["JUPYTER_PATH"] = str(prefix / "share" / "jupyter")
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    os.environ["WAVEMESH_HISTORY"] = str(prefix / "history.jsonl")
    # A folder with a short name: the path of a Unix socket may have at most 107 characters.
    os.environ["JUPYTER_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("run"))
    return prefix


@pytest.fixture(scope="module")
def kernel(request):
    with Kernel(transport=request.param) as kernel:
        yield kernel


@pytest.fixture
def fresh():
    """A separate kernel for the test, which the test may break."""
    with Kernel() as kernel:
        yield kernel
