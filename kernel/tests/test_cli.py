"""The commands: install, uninstall, doctor, cells-from-notebook."""

import json
import os
import subprocess
import sys

import pytest

KERNELS = "share/jupyter/kernels"


@pytest.fixture
def call(program, tmp_path):
    """Runs the program with an empty home."""

    def call(*arguments, **environment):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        known = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "XDG", "VIRTUAL_ENV", "CONDA"))}
        real = os.path.expanduser("~")
        known.setdefault("CARGO_HOME", f"{real}/.cargo")
        known.setdefault("RUSTUP_HOME", f"{real}/.rustup")
        known |= {"HOME": str(home)} | environment
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=known, timeout=300)

    return call


def foreign(folder):
    folder.mkdir(parents=True)
    spec = {"argv": ["evcxr_jupyter", "--control_file", "{connection_file}"], "display_name": "Rust", "language": "rust"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    return folder


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_help_and_version(call):
    assert call("--version").stdout.startswith("wavemesh-kernel ")
    said = call("--help").stdout
    for command in ["install", "uninstall", "doctor", "cells-from-notebook", "run"]:
        assert f"\n  {command}" in said
    wrong = call("instal")
    assert wrong.returncode == 2 and "install" in wrong.stderr


def test_install_writes_what_jupyter_needs(call, program, tmp_path):
    done = call("install")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "home/.local" / KERNELS / "wavemesh"
    assert str(folder) in done.stdout
    spec = json.loads((folder / "kernel.json").read_text())
    assert spec["argv"] == [os.path.realpath(program), "run", "--connection-file", "{connection_file}"]
    assert (spec["display_name"], spec["language"], spec["interrupt_mode"]) == ("Rust (WaveMesh)", "rust", "message")
    assert (folder / "logo-64x64.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(folder)) == ["kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg"]
    assert os.listdir(folder.parent) == ["wavemesh"], "nothing is left of the writing"
    assert call("install").returncode == 0, "our own kernelspec is renewed without being asked"


@pytest.mark.parametrize("where", ["--user", "--sys-prefix", "--prefix"])
def test_install_goes_where_it_is_told(call, tmp_path, where):
    if where == "--prefix":
        done = call("install", "--prefix", tmp_path / "place")
        folder = tmp_path / "place" / KERNELS / "wavemesh"
    elif where == "--sys-prefix":
        done = call("install", where, VIRTUAL_ENV=str(tmp_path / "venv"))
        folder = tmp_path / "venv" / KERNELS / "wavemesh"
    else:
        done = call("install", where, XDG_DATA_HOME=str(tmp_path / "data"))
        folder = tmp_path / "data/jupyter/kernels/wavemesh"
    assert done.returncode == 0, done.stderr
    assert (folder / "kernel.json").is_file()


def test_sys_prefix_is_that_of_python_without_an_environment(call, tmp_path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    python = bin_folder / "python3"
    python.write_text(f"#!/bin/sh\necho {tmp_path}/asked\n")
    python.chmod(0o755)
    assert call("install", "--sys-prefix", PATH=f"{bin_folder}:{os.environ['PATH']}").returncode == 0
    assert (tmp_path / "asked" / KERNELS / "wavemesh/kernel.json").is_file()


def test_a_kernelspec_of_others_is_only_replaced_on_request(call, tmp_path):
    folder = foreign(tmp_path / "place" / KERNELS / "wavemesh")
    before = (folder / "kernel.json").read_text()
    refused = call("install", "--prefix", tmp_path / "place")
    assert refused.returncode == 1
    assert "--replace" in refused.stderr and '"Rust"' in refused.stderr and str(folder) in refused.stderr
    assert (folder / "kernel.json").read_text() == before
    kept = call("uninstall", "--prefix", tmp_path / "place")
    assert kept.returncode == 1 and folder.exists()
    assert call("install", "--prefix", tmp_path / "place", "--replace").returncode == 0
    assert "WaveMesh" in (folder / "kernel.json").read_text()
    assert os.listdir(folder.parent) == ["wavemesh"]


def test_uninstall_removes_what_install_made(call, tmp_path):
    call("install", "--prefix", tmp_path)
    foreign(tmp_path / KERNELS / "other")
    done = call("uninstall", "--prefix", tmp_path)
    assert done.returncode == 0 and os.listdir(tmp_path / KERNELS) == ["other"]
    again = call("uninstall", "--prefix", tmp_path)
    assert again.returncode == 0 and "nothing to remove" in again.stdout


def test_uninstall_leaves_nothing_that_a_kernel_made(call, tmp_path):
    """`doctor` runs a cell, which compiles what cells need. Stand-ins replace the rest: the library, names for completion, and other
    crates."""
    home = tmp_path / "home"
    alone = {"VIRTUAL_ENV": str(tmp_path / "venv")}
    assert call("install", **alone).returncode == 0
    assert "ok    first answer" in call("doctor", **alone).stdout
    data, cache = home / ".local/share/wavemesh", home / ".cache/wavemesh"
    assert list(data.glob("cell-*/libwavemesh_cell.so"))
    version = call("--version").stdout.split()[1]
    for path in [f"{version}-1.0.0-abc/bundle.json", "names-0.json", "history.jsonl"]:
        write(data / path)
    write(cache / "target/release/libother.rlib")
    done = call("uninstall", **alone)
    assert done.returncode == 0 and str(data) in done.stdout, done.stderr
    assert [path for path in home.rglob("*") if path.is_file() or path.name == "wavemesh"] == []


def test_uninstall_leaves_what_others_made_or_need(call, tmp_path):
    home = tmp_path / "home"
    alone = {"VIRTUAL_ENV": str(tmp_path / "venv")}
    data = home / ".local/share/wavemesh"
    version = call("--version").stdout.split()[1]
    shared, own = write(data / "cell-x/lib.so"), write(data / f"{version}-1.0.0-abc/bundle.json")
    others = [write(data / path) for path in ["bin/wavemesh-kernel", "venv/pyvenv.cfg", "9.9.9-1.0.0-abc/bundle.json"]]

    assert call("install", **alone).returncode == 0
    assert call("install", "--name", "second", **alone).returncode == 0
    done = call("uninstall", **alone)
    assert done.returncode == 0 and "second may need it" in done.stdout
    assert own.exists() and shared.exists(), "another kernelspec starts the same kernel"

    assert call("uninstall", "--name", "second", **alone).returncode == 0
    assert not own.parent.exists()
    assert shared.exists() and all(path.exists() for path in others), "the kernel of another version works on"

    others.pop().unlink()
    assert call("uninstall", **alone).returncode == 0
    assert not shared.exists() and all(path.exists() for path in others), "what setup.sh made stays"


def test_names_stay_inside_the_folder(call, tmp_path):
    for name in ["../evil", "", ".hidden", "a/b"]:
        done = call("install", "--prefix", tmp_path, "--name", name)
        assert done.returncode == 1 and "cannot name a kernelspec" in done.stderr
    assert not (tmp_path / "share").exists()


def test_a_file_in_the_way_is_named(call, tmp_path):
    (tmp_path / "share").write_text("a file")
    done = call("install", "--prefix", tmp_path)
    assert done.returncode == 1 and str(tmp_path / "share") in done.stderr


def test_cells_from_notebook(call, tmp_path):
    notebook = tmp_path / "n.ipynb"
    cells = [
        {"cell_type": "markdown", "source": ["# not code"]},
        {"cell_type": "code", "source": ["let x = 1;\n", "x + 1"]},
        {"cell_type": "code", "source": "x * 3"},
    ]
    notebook.write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    expected = "// In[1]\nlet x = 1;\nx + 1\n\n// In[2]\nx * 3\n"
    assert call("cells-from-notebook", notebook).stdout == expected
    assert call("cells-from-notebook", notebook, "-o", tmp_path / "n.rs").returncode == 0
    assert (tmp_path / "n.rs").read_text() == expected
    for content, said in [("{}", "has no list `cells`"), ("not json", "is not a notebook")]:
        notebook.write_text(content)
        done = call("cells-from-notebook", notebook)
        assert done.returncode == 1 and said in done.stderr and str(notebook) in done.stderr
    assert "cannot read" in call("cells-from-notebook", tmp_path / "absent.ipynb").stderr


def test_doctor_finds_everything_in_order(call, program):
    environment = {"JUPYTER_PATH": os.environ["JUPYTER_PATH"], "XDG_DATA_HOME": os.environ.get("XDG_DATA_HOME", os.path.expanduser("~/.local/share"))}
    done = call("doctor", PATH=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything works." in done.stdout and "FAIL" not in done.stdout


def test_doctor_says_what_is_missing_and_how_to_mend_it(call, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = call("doctor", PATH=str(empty), CARGO_HOME=str(empty))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    for name in ["Rust toolchain", "linker", "Jupyter", "kernelspec", "compiled library"]:
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(name))
        assert "FAIL" in lines[at]
        assert any("->" in line for line in lines[at + 1 : at + 5]), f"{name} comes without a way to mend it"


def test_doctor_notices_a_kernelspec_of_another_program_and_mends_it_on_request(call, tmp_path):
    theirs = foreign(tmp_path / "first" / KERNELS / "wavemesh")
    first = str(tmp_path / "first" / "share" / "jupyter")

    def said(path, *arguments):
        lines = call("doctor", *arguments, JUPYTER_PATH=path).stdout.splitlines()
        at = next(i for i, line in enumerate(lines) if line.strip().startswith("kernelspec"))
        return lines[at], lines[at + 1]

    for path in [first, f"{first}:{os.environ['JUPYTER_PATH']}"]:
        found, mend = said(path)
        assert "FAIL" in found and str(theirs) in found and "of another program" in found
        assert "wavemesh-kernel doctor --mend" in mend
    assert "ok" in said(f"{os.environ['JUPYTER_PATH']}:{first}")[0]
    assert "FAIL" not in said(first, "--mend")[0]
    assert "WaveMesh" in (theirs / "kernel.json").read_text()


def test_install_leaves_the_kernelspec_of_evcxr_alone(call, tmp_path):
    """evcxr_jupyter writes it at every start."""
    theirs = foreign(tmp_path / KERNELS / "rust")
    before = (theirs / "kernel.json").read_text()
    assert call("install", "--prefix", tmp_path).returncode == 0
    assert sorted(os.listdir(theirs.parent)) == ["rust", "wavemesh"] and (theirs / "kernel.json").read_text() == before
    assert call("uninstall", "--prefix", tmp_path).returncode == 0
    assert os.listdir(theirs.parent) == ["rust"]


def test_doctor_tries_a_plain_cell_when_there_is_no_library(call):
    """As after `cargo install`: the kernel works, and one line names the only thing that is missing."""
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = call("doctor", JUPYTER_PATH=os.environ["JUPYTER_PATH"], PATH=path)
    lines = [line.strip() for line in done.stdout.splitlines()]
    library, cell = [
        next(line.removeprefix(name).strip() for line in lines if line.startswith(name))
        for name in ["compiled library", "a cell, end to end"]
    ]
    assert library.startswith("FAIL  there is no compiled library")
    assert cell.startswith("ok    first answer after")
    assert cell.endswith("plain Rust; there is no compiled library: run `wavemesh-kernel library build --source FOLDER`")
    assert done.returncode == 1 and done.stdout.count("FAIL") == 1 and "1 of 7 checks failed" in done.stdout, done.stdout
    assert "error" not in done.stdout, done.stdout
