"""What `kernel/package.sh` makes, and what crates.io would get."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile

import pytest
from colab import ROOT, Colab, needed

LIMIT = 80_000_000  # bytes; the aim for a wheel


@pytest.fixture(scope="module")
def packages():
    return needed("WAVEMESH_PACKAGE")


def only(packages, pattern):
    (path,) = packages.glob(pattern)
    return path


def test_each_file_is_small_and_has_its_sha256_beside_it(packages):
    files = [path for path in packages.iterdir() if path.suffix != ".sha256"]
    assert len(files) == 3
    for path in files:
        digest, name = (path.parent / f"{path.name}.sha256").read_text().split()
        assert (digest, name) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
        assert path.stat().st_size < LIMIT, path


def test_the_wheel_has_every_part(packages):
    wheel = only(packages, "*-py3-none-manylinux_2_35_x86_64.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        bundle = json.loads(archive.read("wavemesh_kernel/bundle/bundle.json"))
        licences = archive.read("wavemesh_kernel/bundle/LICENSES-crates.txt").decode()
        (spec,) = (name for name in names if name.endswith(".data/data/share/jupyter/kernels/wavemesh/kernel.json"))
        argv = json.loads(archive.read(spec))["argv"]
    parts = {
        "wavemesh-kernel",
        "library.tar.xz",
        "source/Cargo.lock",
        "source/LICENSE-MIT",
        "source/src/lib.rs",
        "source/kernel/dylib/src/lib.rs",
    }
    assert {f"wavemesh_kernel/bundle/{part}" for part in parts} <= names
    assert argv[1:] == ["-m", "wavemesh_kernel", "run", "--connection-file", "{connection_file}"]
    assert bundle["toolchain"]["version"].startswith("rustc 1.95.0 ")
    assert str(ROOT) not in json.dumps(bundle), "a path of this machine means nothing on another"
    for crate in ("candle-core ", "plotters ", "tokio ", "ra_ap_parser "):  # of the library and of the kernel
        assert re.search(f"^(.*, )?{crate}", licences, re.MULTILINE), crate
    assert "Permission is hereby granted" in licences
    assert {"candle-core", "candle-nn", "plotters", "serde_json"} <= {name for name, _ in bundle["provides"]}


def test_the_sdist_has_all_that_it_builds_from(packages, tmp_path):
    """Compiling it takes minutes, so here cargo only reads its manifests."""
    with tarfile.open(only(packages, "wavemesh_kernel-*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    env = {**os.environ, "RUSTUP_TOOLCHAIN": rust_toolchain()}
    for manifest in ("rust/Cargo.toml", "rust/kernel/Cargo.toml"):
        command = ["cargo", "metadata", "--locked", "--format-version=1", "--no-deps", "--manifest-path", folder / manifest]
        subprocess.run(command, env=env, check=True, capture_output=True)
    subprocess.run(["bash", folder / "rust/kernel/package.sh", "--sources", tmp_path / "copied"], env=env, check=True)
    assert (folder / "hatch_build.py").exists()
    for part in ["kernel/src/cli/logo", "kernel/runtime/lib.rs", "kernel/licenses.py"]:
        assert (folder / "rust" / part).exists(), part


def rust_toolchain():
    """The toolchain that the scripts use, by kernel/toolchain.sh's rule."""
    script = f'root={ROOT}; . "$root/kernel/toolchain.sh"; find_toolchain && rustc --print sysroot'
    return subprocess.check_output(["bash", "-c", script], text=True, cwd=ROOT).strip()


def test_the_tarball_installs_without_pip_and_uninstalls_without_a_trace(packages, tmp_path):
    colab = Colab(tmp_path)
    with tarfile.open(only(packages, "*-linux.tar.gz")) as archive:
        archive.extractall(colab.content, filter="data")
    (folder,) = colab.content.iterdir()
    env = {**colab.env, "PATH": f"{rust_toolchain()}/bin:/usr/bin:/bin"}
    subprocess.run(["bash", folder / "install.sh"], env=env, check=True, capture_output=True)
    shutil.move(folder, tmp_path / "elsewhere")  # what is installed stands alone
    notebook = colab.rust_notebook()
    try:
        assert notebook.run("6 * 7").ok().value() == "42"
        assert notebook.run("Tensor::new(&[1f32, 2.], &Device::Cpu)?").ok().value("text/html")
    finally:
        notebook.close()
    subprocess.run(["bash", tmp_path / "elsewhere/install.sh", "--uninstall"], env=env, check=True, capture_output=True)
    assert colab.leftovers() == []


@pytest.mark.parametrize(
    ("path", "words"),
    [("/usr/bin:/bin", "there is no Rust: get 1.95.0 from https://rustup.rs"), ("bare", "there is no C linker (cc)")],
)
def test_the_tarballs_script_says_what_is_missing_and_leaves_the_machine_as_it_was(packages, tmp_path, path, words):
    colab = Colab(tmp_path)
    with tarfile.open(only(packages, "*-linux.tar.gz")) as archive:
        archive.extractall(colab.content, filter="data")
    (script,) = colab.content.glob("*/install.sh")
    if path == "bare":
        (tmp_path / "bare").mkdir()
        for program in ("bash", "sed", "head", "dirname", "cut"):
            (tmp_path / "bare" / program).symlink_to(shutil.which(program, path="/usr/bin:/bin"))
        path = str(tmp_path / "bare")
    done = subprocess.run(["/bin/bash", script], env={**colab.env, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and words in done.stderr, done
    assert colab.leftovers() == []


@pytest.mark.parametrize("crate", [".", "kernel"])
def test_a_crate_can_be_published(crate):
    """Names, files, metadata and versions, as crates.io checks them; compiling what was packed takes minutes more and is left out.

    Our integration tests are not packed, for their fixtures are larger than the library.
    """
    command = ["cargo", "publish", "--dry-run", "--no-verify", "--locked", "--allow-dirty"]
    env = {**os.environ, "RUSTUP_TOOLCHAIN": rust_toolchain()}
    done = subprocess.run(command, cwd=ROOT / crate, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "aborting upload due to dry run" in done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ") and "ignoring test" not in line]
    assert warnings == ["warning: aborting upload due to dry run"], done.stderr
