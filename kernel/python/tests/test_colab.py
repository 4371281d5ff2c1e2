"""COLAB_SETUP.md, command by command, and the tutorials as Colab opens them, in an emulated Colab."""

import json
import os
import subprocess
import time
from types import SimpleNamespace

import pytest
from colab import ROOT, RUST, Colab

SETUP = (
    '%load_ext {__import__("importlib.util").util.find_spec("wavemesh_kernel") and "wavemesh_kernel" \\\n'
    '    or print("Install WaveMesh first: COLAB_SETUP.md says how.") or ""}'
)
FROM_SOURCE = "The setup cell, from source"


def blocks():
    """The code of COLAB_SETUP.md: (section, language, text), in order."""
    section, language, lines, found = "", None, [], []
    for line in (ROOT / "COLAB_SETUP.md").read_text().splitlines():
        if language is None and line.startswith("## "):
            section = line[3:]
        elif language is None and line.startswith("```"):
            language, lines = line[3:], []
        elif line == "```":
            found.append(SimpleNamespace(section=section, language=language, text="\n".join(lines)))
            language = None
        elif language is not None:
            lines.append(line)
    return found


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    return Colab(tmp_path_factory.mktemp("colab"))


@pytest.fixture(scope="module")
def notebook(colab):
    notebook = colab.notebook()
    yield notebook
    notebook.close()


def test_without_the_package_the_setup_cell_says_what_to_do_and_installs_nothing(tmp_path):
    """Anybody can publish a package of that name, so it is not taken from an index, not even where pip would find it."""
    colab = Colab(tmp_path)
    notebook = colab.notebook()
    try:
        ran = notebook.run(SETUP)
        assert ran.reply["status"] == "error" and "COLAB_SETUP.md" in ran.text(), ran.messages
        assert "Traceback" not in ran.text("stderr"), "a sentence, no traceback"
        notebook.run("import importlib.util; assert importlib.util.find_spec('wavemesh_kernel') is None").ok()
    finally:
        notebook.close()


def test_from_nothing_to_rust(notebook):
    """The times are printed; README's are those of a quiet machine."""
    begun = time.monotonic()
    notebook.run("%pip install -q wavemesh-kernel").ok()
    setup = notebook.run(SETUP).ok()
    first = notebook.run("6 * 7").ok()
    total = time.monotonic() - begun
    candle = notebook.run("let x = Tensor::arange(0f32, 6f32, &Device::Cpu)?.reshape((2, 3))?;\nx").ok()
    print(
        f"\nsetup cell {setup.seconds:.1f} s, first cell {first.seconds:.1f} s, together {total:.1f} s; first with candle {candle.seconds:.1f} s"
    )
    assert first.value() == "42" and "[2, 3]" in candle.value()
    assert "Unpacking" in setup.text(), "something was there already"


TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_to_its_end(path, colab, notebook):
    """After the test above the package is there, as it is in every notebook of a runtime but the first."""
    notebook = colab.notebook()
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert "".join(cells[0]["source"]) == SETUP
    try:
        notebook.run(f"import os; os.chdir({str(path.parent)!r})").ok()
        for number, cell in enumerate(cells, 1):
            ran = notebook.run("".join(cell["source"]), timeout=1200)
            expected = "raises-exception" in cell["metadata"].get("tags", [])
            assert (ran.reply["status"] == "ok") != expected, f"cell {number}: {ran.reply.get('evalue')}\n{ran.text('stderr')}"
            for output in cell["outputs"]:
                picture = {"image/png", "image/svg+xml"} & set(output.get("data", {}))
                shown = ran.of("execute_result") + ran.of("display_data")
                assert not picture or any(picture & set(content["data"]) for content in shown), f"cell {number} shows no picture"
    finally:
        notebook.close()


def test_every_command_of_the_document_runs(colab, notebook):
    """The block that builds from source has a test of its own. Drive is a folder."""
    ran = 0
    for block in blocks():
        if block.section == FROM_SOURCE:
            continue
        text = block.text.replace("/content", str(colab.content))
        if block.language == "bash":
            subprocess.run(["bash", "-ec", text], env=colab.env, check=True, capture_output=True)
        else:
            assert block.language in ("python", "rust"), block
            done = notebook.run(text)
            assert done.reply["status"] == "ok", (block, done.reply, done.text())
        if block.text == "!wavemesh-kernel install":
            the_kernelspec_works(colab)
        ran += 1
    assert ran >= 15
    assert colab.leftovers() == [], "uninstalling left something"


def the_kernelspec_works(colab):
    rust = colab.rust_notebook()
    try:
        assert rust.run("6 * 7").ok().value() == "42"
        rust.run(SETUP).ok()
        assert rust.run("Tensor::new(&[1f32, 2.], &Device::Cpu)?").ok().value("text/html")
    finally:
        rust.close()


def test_the_document_shows_the_setup_cell_that_the_tutorials_have():
    assert blocks()[0].text == SETUP


def test_from_source(tmp_path):
    """Clones the repository's committed state from here under its public address. rustup is already installed.

    Other people's crates are compiled already, and WaveMesh itself is compiled with no effort: two cells compute with it.
    """
    colab = Colab(tmp_path)
    (block,) = [block for block in blocks() if block.section == FROM_SOURCE]
    (colab.home / ".cargo").mkdir()
    (colab.home / ".cargo/bin").symlink_to(RUST.parent / ".cargo/bin")
    notebook = colab.notebook(
        GIT_CONFIG_COUNT="2",
        GIT_CONFIG_KEY_0=f"url.file://{ROOT}.insteadOf",
        GIT_CONFIG_VALUE_0="https://github.com/wavemesh/wavemesh",
        GIT_CONFIG_KEY_1="safe.directory",
        GIT_CONFIG_VALUE_1="*",
        # Colab has a network. cargo's downloads may be shared, and so may other people's crates that it has compiled.
        PIP_NO_INDEX="0",
        CARGO_HOME=os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo")),
        CARGO_TARGET_DIR=os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target")),
        RUSTC_WORKSPACE_WRAPPER=str(ROOT / "tests/little_effort.sh"),
        # rustup leaves the toolchain alone, since the tests beside this one use it.
        RUSTUP_AUTO_INSTALL="0",
        # A crate that asks for this variable would be compiled again without it.
        **{name: os.environ[name] for name in ["CI"] if name in os.environ},
    )
    try:
        done = notebook.run(block.text, timeout=3600).ok()
        print(f"\nfrom source, other people's crates compiled: {done.seconds:.0f} s")
        assert notebook.run("6 * 7").ok().value() == "42"
        assert "[2]" in notebook.run("Tensor::new(&[1f32, 2.], &Device::Cpu)?").ok().value()
        subprocess.run([colab.python.with_name("wavemesh-kernel"), "uninstall"], env=colab.env, check=True)
        assert colab.leftovers() == []
    finally:
        notebook.close()
        colab.remove_package()
