"""What happens between `pip install` of a wheel and the first cell. A script that notes its calls stands in for the kernel's program."""

import collections
import io
import json
import os
import tarfile

import pytest
from test_toolchain import VERSION, fake_toolchain

from wavemesh_kernel import __version__, bundle, toolchain
from wavemesh_kernel.errors import RustKernelMissing

# `library path` succeeds once a library is there; `import` and `build` make one.
KERNEL = f"""#!/bin/sh
echo "$@" >> "$XDG_DATA_HOME/calls"
library=$XDG_DATA_HOME/wavemesh/{__version__}-made
case "$1 $2" in
  "library path") [ -d "$library" ] && echo "$library" ;;
  "library import") [ -f "$3/lib/libx.so" ] && [ -f "$3/bundle.json" ] && mkdir "$library" && touch "$library/bundle.json" ;;
  "library build") [ ! -f "$XDG_DATA_HOME/broken" ] || {{ echo "error: no space"; exit 1; }}
    mkdir "$library" && touch "$library/bundle.json" ;;
esac
"""


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A wheel's installation on a machine without Rust; returns the calls that the kernel's program gets."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "wavemesh-kernel").write_text(KERNEL)
    (folder / "wavemesh-kernel").chmod(0o755)
    (folder / "bundle.json").write_text(json.dumps({"toolchain": {"version": VERSION}}))
    with tarfile.open(folder / "library.tar.xz", "w:xz") as archive:
        entry = tarfile.TarInfo("lib/libx.so")
        archive.addfile(entry, io.BytesIO())
    for name, file in (("KERNEL", "wavemesh-kernel"), ("LIBRARY", "library.tar.xz"), ("SOURCES", "source"), ("FOLDER", "")):
        monkeypatch.setattr(bundle, name, folder / file)
    monkeypatch.setattr(bundle, "_chosen", None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RUSTUP_HOME", str(tmp_path / "rustup"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(toolchain, "RUSTUP_ROOT", "http://127.0.0.1:9")
    return lambda: (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def test_with_the_right_compiler_the_library_is_unpacked_once(packaged, tmp_path, monkeypatch):
    fake_toolchain(tmp_path / "rustup/toolchains/1.95", VERSION)
    said = []
    bundle.prepare(said.append)
    assert [call.split()[:2] for call in packaged()] == [["library", "path"], ["library", "import"]]
    assert any("Unpacking" in line for line in said)
    assert bundle.environment()["RUSTUP_TOOLCHAIN"] == str(tmp_path / "rustup/toolchains/1.95")
    assert not list((tmp_path / "wavemesh").glob(".unpack-*"))

    monkeypatch.setattr(bundle, "_chosen", None)
    bundle.prepare(said.append)
    assert packaged()[2:] == ["library path"], "the second time there is nothing to do"


def test_with_another_compiler_and_no_network_it_is_compiled_again_and_says_why(packaged, tmp_path):
    fake_toolchain(tmp_path / "rustup/toolchains/newer", "rustc 1.96.0 (x)")
    said = []
    bundle.prepare(said.append)
    assert packaged()[1].startswith("library build ")
    assert any("serves rustc 1.95.0; here is 1.96.0" in line for line in said), said


def test_without_rust_and_network_nothing_is_left_and_the_error_helps(packaged, tmp_path):
    with pytest.raises(RustKernelMissing, match="cannot be fetched(.|\n)*rustup.rs"):
        bundle.prepare(lambda _: None)
    assert not (tmp_path / "wavemesh").exists()
    assert bundle.environment() == {}


def test_a_failed_build_shows_its_last_words_and_is_tried_again(packaged, tmp_path):
    fake_toolchain(tmp_path / "rustup/toolchains/newer", "rustc 1.96.0 (x)")
    (tmp_path / "broken").touch()
    with pytest.raises(RustKernelMissing, match="library build.*failed: error: no space"):
        bundle.prepare(lambda _: None)
    (tmp_path / "broken").unlink()
    bundle.prepare(lambda _: None)
    assert bundle.environment()


def test_a_read_only_disk_is_said(packaged, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(RustKernelMissing, match="cannot write to .*file/wavemesh.*set XDG_DATA_HOME"):
        bundle.prepare(lambda _: None)


def test_a_full_disk_is_said(packaged, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 5 * 2**20))
    with pytest.raises(RustKernelMissing, match="5 MB free and 600 MB are needed"):
        bundle.prepare(lambda _: None)
    assert packaged() == []


def test_removing_leaves_no_trace(packaged, tmp_path):
    fake_toolchain(tmp_path / "rustup/toolchains/1.95", VERSION)
    bundle.prepare(lambda _: None)
    (tmp_path / "cache/wavemesh").mkdir(parents=True)
    bundle.remove(lambda _: None)
    assert not (tmp_path / "wavemesh").exists() and not (tmp_path / "cache/wavemesh").exists()


def test_removing_one_version_leaves_another_alone(packaged, tmp_path):
    fake_toolchain(tmp_path / "rustup/toolchains/1.95", VERSION)
    bundle.prepare(lambda _: None)
    other = tmp_path / "wavemesh/9.9.9-1.95.0-59807616e"
    other.mkdir()
    (other / "bundle.json").touch()
    (tmp_path / "wavemesh/toolchain").mkdir()
    bundle.remove(lambda _: None)
    assert sorted(os.listdir(tmp_path / "wavemesh")) == ["9.9.9-1.95.0-59807616e", "toolchain"]
