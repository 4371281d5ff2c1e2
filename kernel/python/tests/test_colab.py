"""COLAB_SETUP.md, command by command, and the tutorials as Colab opens them, in an emulated Colab."""

import json
import os
import re
import subprocess
import time
from types import SimpleNamespace

import pytest
from colab import ROOT, Colab

SETUP = '%load_ext {get_ipython().run_line_magic("pip", "install -q wavemesh-kernel") or "wavemesh_kernel"}'
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


def test_from_nothing_to_rust_within_a_minute_and_the_first_cell_within_three_seconds(colab, notebook, record_property):
    begun = time.monotonic()
    setup = notebook.run(SETUP).ok()
    first = notebook.run("6 * 7").ok()
    total = time.monotonic() - begun
    assert first.value() == "42"
    candle = notebook.run("let x = Tensor::arange(0f32, 6f32, &Device::Cpu)?.reshape((2, 3))?;\nx").ok()
    print(
        f"setup cell {setup.seconds:.1f} s, first cell {first.seconds:.1f} s, together {total:.1f} s; first with candle {candle.seconds:.1f} s"
    )
    assert "Unpacking" in setup.text()
    assert "[2, 3]" in candle.value()


def test_every_command_of_the_document_runs(colab, notebook):
    ran = 0
    for block in blocks():
        if block.section == FROM_SOURCE:
            continue
        text = block.text.replace("/content", str(colab.content))
        if block.language == "bash":
            subprocess.run(["bash", "-ec", text], env=colab.env, check=True, capture_output=True)
        else:
            assert block.language in ("python", "rust"), block
            assert notebook.run(text).reply["status"] == "ok", (block, notebook.run("%rust doctor").text())
        ran += 1
    assert ran >= 15
    assert list(colab.home.rglob("*wavemesh*")) == [], "uninstalling left something"


def test_the_document_shows_the_setup_cell_that_the_tutorials_have():
    assert blocks()[0].text == SETUP


def test_from_source(tmp_path):
    """The repository's committed state, cloned from here under its public address."""
    colab = Colab(tmp_path)
    (block,) = [block for block in blocks() if block.section == FROM_SOURCE]
    notebook = colab.notebook(
        GIT_CONFIG_COUNT="2",
        GIT_CONFIG_KEY_0=f"url.file://{ROOT}.insteadOf",
        GIT_CONFIG_VALUE_0="https://github.com/wavemesh/wavemesh",
        GIT_CONFIG_KEY_1="safe.directory",
        GIT_CONFIG_VALUE_1="*",
        # Colab has a network, and cargo's downloads and what it compiled of other people's crates may be shared.
        PIP_NO_INDEX="0",
        CARGO_HOME=os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo")),
        CARGO_TARGET_DIR=os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target")),
    )
    try:
        notebook.run(block.text, timeout=3600).ok()
        assert notebook.run("6 * 7").ok().value() == "42"
        assert "[2]" in notebook.run("Tensor::new(&[1f32, 2.], &Device::Cpu)?").ok().value()
    finally:
        notebook.close()
        colab.pip("uninstall", "-y", "-q", "wavemesh-kernel")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_tutorial_runs_as_colab_opens_it(path, tmp_path):
    """Colab does not know the kernelspec `rust`, and opens the notebook with Python."""
    colab = Colab(tmp_path)
    (colab.content / "notebooks").symlink_to(ROOT / "notebooks")
    notebook = colab.notebook()
    notebook.manager.cwd = None
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    try:
        notebook.run(f"import os; os.chdir({str(ROOT / 'notebooks')!r})").ok()
        for number, cell in enumerate(cells, 1):
            ran = notebook.run("".join(cell["source"]), timeout=1200)
            expected = "raises-exception" in cell.get("metadata", {}).get("tags", [])
            assert (ran.reply["status"] == "ok") != expected, f"cell {number}: {ran.reply.get('evalue')}\n{ran.text('stderr')}"
        assert re.search(r"%load_ext", "".join(cells[0]["source"]))
    finally:
        notebook.close()
        colab.pip("uninstall", "-y", "-q", "wavemesh-kernel")
