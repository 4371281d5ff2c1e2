"""The add-on for NVIDIA GPUs, on a machine whose driver is a file and whose pip is a script."""

import io
import json
import sys
import tarfile

import pytest
from test_bundle import packaged  # noqa: F401
from test_toolchain import VERSION, fake_toolchain

from wavemesh_kernel import __version__, bundle, gpu


def make_addon(folder, version=VERSION):
    """The add-on's package, installed in a folder of Python's."""
    library = folder / gpu.MODULE / "bundle"
    library.mkdir(parents=True)
    (folder / gpu.MODULE / "__init__.py").touch()
    (library / "bundle.json").write_text(json.dumps({"toolchain": {"version": version}, "cuda": True}))
    with tarfile.open(library / "library.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("lib/libx.so"), io.BytesIO())


@pytest.fixture
def machine(packaged, tmp_path, monkeypatch):  # noqa: F811
    """A wheel's installation with a compiler, a driver, and a folder for packages; returns the kernel's calls."""
    fake_toolchain(tmp_path / "rustup/toolchains/1.95", VERSION)
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82  Release Build\n")
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(gpu, "PUBLISHED", True)
    monkeypatch.delenv("WAVEMESH_DEVICE", raising=False)
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    # This pip writes down its arguments, and installs what is in `offered`.
    pip = tmp_path / "python"
    pip.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/pip\n[ -d {tmp_path}/offered ] || {{ echo "ERROR: No matching distribution found" >&2; exit 1; }}\n'
        f"cp -r {tmp_path}/offered/* {tmp_path}/site/\n"
    )
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    return packaged


def imports(calls):
    return [call for call in calls() if call.startswith("library import")]


def test_where_a_gpu_is_seen_the_addon_is_installed_and_unpacked(machine, tmp_path):
    make_addon(tmp_path / "offered")
    said = []
    bundle.prepare(said.append)
    assert f"wavemesh-kernel-cuda=={__version__}" in (tmp_path / "pip").read_text()
    assert len(imports(machine)) == 2, "the library for the processor, and the one for GPUs"
    assert any("NVIDIA GPU" in line for line in said), said


def test_before_the_addon_is_published_nobody_elses_package_is_installed(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PUBLISHED", False)
    make_addon(tmp_path / "offered")
    said = []
    bundle.prepare(said.append)
    assert len(imports(machine)) == 1 and not (tmp_path / "pip").exists()
    assert any("not on PyPI yet" in line and "package.sh --cuda" in line for line in said), said


def test_an_addon_that_is_there_needs_no_pip(machine, tmp_path):
    make_addon(tmp_path / "site")
    bundle.prepare(lambda _: None)
    assert len(imports(machine)) == 2 and not (tmp_path / "pip").exists()


def test_an_addon_that_is_in_place_is_not_looked_for_again(machine, tmp_path):
    (tmp_path / f"wavemesh/{__version__}-x-cuda").mkdir(parents=True)
    (tmp_path / f"wavemesh/{__version__}-x-cuda/bundle.json").touch()
    bundle.prepare(lambda _: None)
    assert len(imports(machine)) == 1 and not (tmp_path / "pip").exists()


def test_an_addon_that_cannot_be_had_is_said_and_costs_nothing(machine):
    said = []
    bundle.prepare(said.append)
    assert len(imports(machine)) == 1
    assert any("No matching distribution" in line for line in said), said
    assert any("compute on the processor" in line for line in said), said
    assert "LD_LIBRARY_PATH" not in bundle.environment()


@pytest.mark.parametrize("reason", ["no driver", "told not to"])
def test_without_a_gpu_nothing_is_installed_or_said(machine, tmp_path, monkeypatch, reason):
    if reason == "no driver":
        (tmp_path / "version").unlink()
    else:
        monkeypatch.setenv("WAVEMESH_DEVICE", "cpu")
    said = []
    bundle.prepare(said.append)
    assert len(imports(machine)) == 1 and not (tmp_path / "pip").exists()
    assert not any("GPU" in line for line in said), said


def test_an_addon_for_another_compiler_is_not_used_and_says_why(machine, tmp_path):
    make_addon(tmp_path / "site", "rustc 1.96.0 (x)")
    said = []
    bundle.prepare(said.append)
    assert len(imports(machine)) == 1
    assert any("serves rustc 1.96.0" in line and "1.95.0" in line for line in said), said


def test_a_damaged_addon_leaves_the_library_for_the_processor(machine, tmp_path):
    make_addon(tmp_path / "site")
    (tmp_path / "site" / gpu.MODULE / "bundle/library.tar.xz").write_bytes(b"cut short")
    said = []
    bundle.prepare(said.append)
    assert bundle.environment() and any("not used" in line and "--force-reinstall wavemesh-kernel-cuda" in line for line in said), (
        said
    )


def test_the_kernel_is_led_to_the_libraries_that_pip_brought(machine, tmp_path, monkeypatch):
    make_addon(tmp_path / "site")
    (tmp_path / "lib/nvidia/cu13/lib").mkdir(parents=True)
    monkeypatch.setattr(gpu.sysconfig, "get_path", lambda _: str(tmp_path / "lib"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    bundle.prepare(lambda _: None)
    assert bundle.environment()["LD_LIBRARY_PATH"] == f"{tmp_path}/lib/nvidia/cu13/lib:/elsewhere"
