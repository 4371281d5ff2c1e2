"""A library for GPUs on a machine that cannot use it: cells compute on the processor, and say why and what to do. The tests need no GPU."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from driver import Kernel

FAULTS = Path(__file__).parents[2] / "tests/gpu/faults.c"
VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Release Build\n"


@pytest.fixture(scope="session")
def preload(tmp_path_factory):
    """A library that makes programs read another description of the driver."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(FAULTS), "-ldl"], check=True)
    return library


@pytest.fixture
def machine(tmp_path, preload):
    """The environment of a machine with both compiled libraries (the one for GPUs is a renamed copy of this machine's) and a driver of a
    given version."""
    here = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "wavemesh"
    data = tmp_path / "data/wavemesh"
    data.mkdir(parents=True)
    libraries = [folder for folder in here.iterdir() if (folder / "bundle.json").exists() and not folder.name.endswith("-cuda")]
    newest = max(libraries, key=lambda folder: (folder / "bundle.json").stat().st_mtime)
    for folder in here.iterdir():
        if folder == newest or folder.name.startswith("cell-"):
            (data / folder.name).symlink_to(folder)
    for_gpus = data / f"{newest.name}-cuda"
    for_gpus.mkdir()
    (for_gpus / "lib").symlink_to(newest / "lib")
    # A version that no machine has.
    described = json.loads((newest / "bundle.json").read_text()) | {"cuda": True, "needs": ["libcublas.so.99", "libcublas.so.13"]}
    (for_gpus / "bundle.json").write_text(json.dumps(described))
    (tmp_path / "cuda").mkdir()

    def environment(driver=None, libraries=()):
        for library in libraries:
            (tmp_path / "cuda" / library).touch()
        if driver:
            (tmp_path / "version").write_text(VERSION.format(driver))
        found = os.environ | {
            "XDG_DATA_HOME": str(data.parent),
            "LD_PRELOAD": str(preload),
            "WAVEMESH_TEST_DRIVER": str(tmp_path / "version"),
            "LD_LIBRARY_PATH": str(tmp_path / "cuda"),
        }
        found.pop("WAVEMESH_DEVICE", None)
        return found

    return environment


CASES = {
    "an old driver": (("535.86.10", ["libcublas.so.99", "libcublas.so.13"]), ["535", "580 or newer", "install a newer driver"]),
    "a missing library": (("580.82", ["libcublas.so.13"]), ["libcublas.so.99", 'pip install "nvidia-cublas==99.*"']),
}


@pytest.mark.parametrize("case", CASES)
def test_cells_compute_on_the_processor_and_say_why(machine, program, case):
    there, words = CASES[case]
    environment = machine(*there)
    with Kernel(env=environment) as kernel:
        assert kernel.value("best_device()?.is_cpu()") == "true"
        assert kernel.value("Tensor::ones(3, DType::F32, &best_device()?)?.sum_all()?.to_scalar::<f32>()?") == "3.0"
        info = kernel.value("backend_info()")
        assert all(word in info for word in [*words, "NVIDIA GPU", there[0]]), info
    with Kernel(env=environment | {"WAVEMESH_DEVICE": "cuda"}) as kernel:
        refused = kernel.run("best_device()?;")
        assert refused.error and all(word in refused.error["evalue"] for word in words), refused.reply
    said = subprocess.run([program, "doctor"], env=environment, capture_output=True, text=True, timeout=200, check=False).stdout
    (line,) = [line for line in said.splitlines() if line.split()[:1] == ["GPU"]]
    assert "FAIL" in line and all(word in line for word in words), said


def test_without_a_driver_nothing_is_said(machine, program):
    environment = machine(libraries=["libcublas.so.99", "libcublas.so.13"])
    with Kernel(env=environment) as kernel:
        ran = kernel.run("backend_info()")
        assert ran.status == "ok" and "GPU" not in ran.value and "NVIDIA" not in ran.value, ran.value
        assert not ran.of("stream"), ran.messages
        assert kernel.value("best_device()?.is_cpu()") == "true"
    said = subprocess.run([program, "doctor"], env=environment, capture_output=True, text=True, timeout=200, check=False).stdout
    assert "GPU" not in said, said
