"""The wheel on machines that lack something, or have another version: each says what to do and is left as it was."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from colab import NOWHERE, Colab, needed

from wavemesh_kernel import __version__

LOAD = "%load_ext wavemesh_kernel"


@pytest.fixture
def colab(tmp_path, installed):
    """A runtime with the wheel installed, and a home folder of its own."""
    return Colab(tmp_path, clean=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    colab = Colab(tmp_path_factory.mktemp("installed"))
    colab.pip("install", "-q", "wavemesh-kernel")
    yield
    colab.remove_package()


def fails(notebook, *words):
    """Loading the extension fails with our error and these words, and Python still works."""
    ran = notebook.run(LOAD)
    assert ran.reply["ename"] == "RustKernelMissing", ran.reply
    for word in words:
        assert word in ran.reply["evalue"]
    assert ".py" not in "".join(ran.reply["traceback"]), "a traceback through our Python helps nobody"
    assert notebook.run("[6 * 7]").ok().value() == "[42]"
    assert "%%rust" not in notebook.run("%lsmagic").ok().text()


def works(notebook):
    notebook.run(LOAD).ok()
    assert notebook.run("6 * 7").ok().value() == "42"


def test_without_rust_and_without_network(colab):
    notebook = colab.notebook(RUSTUP_HOME=str(colab.home / "nothing"), RUSTUP_UPDATE_ROOT=NOWHERE)
    try:
        fails(notebook, "Rust 1.95.0 is not on this machine", "could not be downloaded", "RUSTUP_UPDATE_ROOT", "rustup.rs")
        assert colab.leftovers() == []
        notebook.run(f"%env RUSTUP_HOME={colab.env['RUSTUP_HOME']}").ok()
        works(notebook)
    finally:
        notebook.close()


def test_without_a_linker(colab):
    """/usr/bin with everything but compilers."""
    bare = colab.home / "bin"
    bare.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name != "cc":
            (bare / program.name).symlink_to(program)
    notebook = colab.notebook(PATH=f"{colab.python.parent}:{bare}")
    try:
        fails(notebook, "no C linker", "apt-get install -y build-essential")
        assert colab.leftovers() == []
        notebook.run(f"%env PATH={colab.env['PATH']}").ok()
        works(notebook)
    finally:
        notebook.close()


def on_a_disk(colab, options):
    """Asks for the kernel with a small file system as data folder. The script's last word is the number of files in it."""
    script = f'mount -t tmpfs -o {options} none "$1" || exit 77; "$2" -m wavemesh_kernel doctor; status=$?; find "$1" -mindepth 1 | wc -l; exit $status'
    data = colab.home / "data"
    data.mkdir()
    command = ["unshare", "-rm", "sh", "-c", script, "-", str(data), str(colab.python)]
    done = subprocess.run(command, env={**colab.env, "XDG_DATA_HOME": str(data)}, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this machine does not let tests mount a file system: {done.stderr}")
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.split()[-1] == "0", "something was left"
    return done.stderr


def test_on_a_read_only_disk(colab):
    said = on_a_disk(colab, "ro")
    assert "cannot write to" in said and "Read-only file system" in said and "set XDG_DATA_HOME" in said


def test_on_a_disk_that_is_too_small(colab):
    said = on_a_disk(colab, "size=50m")
    assert "50 MB free" in said and "make room" in said


def test_on_a_disk_that_fills_up_while_the_library_is_unpacked(colab):
    """No file may grow beyond 5 MB. To a program, that looks like a full disk."""
    command = ["prlimit", "--fsize=5000000", str(colab.python), "-m", "wavemesh_kernel", "doctor"]
    done = subprocess.run(command, env=colab.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "cannot be unpacked" in done.stderr and "Make room" in done.stderr
    assert colab.leftovers() == []


def test_a_damaged_package_says_so(colab, tmp_path):
    """A copy of the installed package, its archive cut short."""
    where = subprocess.check_output(
        [colab.python, "-c", "import wavemesh_kernel; print(wavemesh_kernel.__path__[0])"], env=colab.env, text=True
    )
    shutil.copytree(where.strip(), tmp_path / "copy/wavemesh_kernel")
    archive = tmp_path / "copy/wavemesh_kernel/bundle/library.tar.xz"
    os.truncate(archive, archive.stat().st_size // 2)
    notebook = colab.notebook(PYTHONPATH=str(tmp_path / "copy"))
    try:
        fails(notebook, "is damaged", "pip install --force-reinstall")
        assert colab.leftovers() == []
    finally:
        notebook.close()


@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="this machine has no Python of its own")
def test_the_systems_own_python_can_set_up(colab):
    """Debian 12 has Python 3.11.2, the oldest of all supported systems. Setting up needs no other package."""
    site = colab.home / "site"
    (wheel,) = colab.packages.glob("*.whl")
    colab.pip("install", "-q", "--no-deps", "--target", site, wheel)
    command = ["/usr/bin/python3", "-c", "from wavemesh_kernel import bundle; bundle.prepare(print)"]
    done = subprocess.run(command, env={**colab.env, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(colab.home.glob(f".local/share/wavemesh/{__version__}-*/lib/libwavemesh_dylib.so"))


def test_two_versions_side_by_side_do_not_mix(colab):
    """A library of another version, newer than ours and broken, is neither used nor removed."""
    other = colab.home / ".local/share/wavemesh/9.9.9-1.95.0-59807616e"
    (other / "lib").mkdir(parents=True)
    (other / "lib/libwavemesh_dylib.so").write_text("not a library")
    (other / "bundle.json").write_text("{}")
    notebook = colab.notebook()
    try:
        works(notebook)
        assert notebook.run("Tensor::new(&[1f32, 2.], &Device::Cpu)?").ok().value("text/html")
    finally:
        notebook.close()
    subprocess.run([colab.python, "-m", "wavemesh_kernel", "uninstall"], env=colab.env, check=True, capture_output=True)
    assert (other / "bundle.json").exists() and not list(other.parent.glob(f"{__version__}-*"))


def test_an_old_pip_refuses_the_wheel_and_leaves_the_environment_as_it_was(tmp_path, colab):
    """pip before 20.3 does not know wheels for manylinux_2_35, nor Python 3.12; the document says what to do."""
    subprocess.run([needed("OLD_PYTHON"), "-m", "venv", tmp_path / "old"], check=True)
    pip = [tmp_path / "old/bin/python", "-m", "pip"]
    subprocess.run([*pip, "install", "-q", "pip==20.2.4"], check=True)
    before = subprocess.check_output([*pip, "freeze", "--all"])
    done = subprocess.run(
        [*pip, "install", "--no-index", "--only-binary=:all:", "-f", colab.packages, "wavemesh-kernel"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "No matching distribution found for wavemesh-kernel" in done.stderr, done
    assert subprocess.check_output([*pip, "freeze", "--all"]) == before
