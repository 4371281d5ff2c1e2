"""The extension with the Rust kernel itself."""

import os
import time

import pytest
from colab import Colab

from notebook import Notebook


@pytest.fixture(scope="module")
def rust(tmp_path_factory):
    """A notebook in which cells are Rust: the wheel's kernel, or the program that WAVEMESH_KERNEL names."""
    if os.environ.get("WAVEMESH_KERNEL"):
        notebook = Notebook(tmp_path_factory.mktemp("rust"), dict(os.environ))
    else:
        colab = Colab(tmp_path_factory.mktemp("rust"))
        colab.pip("install", "-q", "wavemesh-kernel")
        notebook = colab.notebook()
    notebook.run("%load_ext wavemesh_kernel").ok()
    yield notebook
    notebook.close()


def test_prints_arrive_while_the_cell_runs(rust):
    ran = rust.run('for i in 0..4 { println!("{i}"); std::thread::sleep(std::time::Duration::from_millis(300)); }').ok()
    times = [at for at, kind, _ in ran.messages if kind == "stream"]
    assert ran.text() == "0\n1\n2\n3\n" and times[-1] - times[0] > 0.6


def test_displays_update_in_place(rust):
    ran = rust.run("let mut bar = notebook::progress(0..5);\nfor _ in bar { }").ok()
    assert ran.of("display_data") and ran.of("update_display_data")
    shown = {content["transient"]["display_id"] for content in ran.of("display_data")}
    assert {content["transient"]["display_id"] for content in ran.of("update_display_data")} <= shown


def test_a_tensor_shows_its_card(rust):
    (result,) = rust.run("Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?").ok().of("execute_result")
    assert "text/html" in result["data"] and "[2, 2]" in result["data"]["text/plain"]


@pytest.mark.parametrize(
    ("code", "ename"),
    [('let x: i32 = "a";', "E0308"), ('panic!("ouch")', "Panic"), ('std::fs::read("/nowhere")?;', None)],
)
def test_errors_are_errors_with_rusts_words(rust, code, ename):
    ran = rust.run(code)
    assert ran.reply["status"] == "error"
    assert ename is None or ran.reply["ename"] == ename
    (error,) = ran.of("error")
    assert "wavemesh_kernel" not in "".join(error["traceback"]) and error["traceback"]


def test_an_interrupt_stops_a_cell_and_keeps_variables(rust):
    rust.run("let kept = 41;").ok()
    code = "loop { std::thread::sleep(std::time::Duration::from_millis(100)); check_interrupt()?; }"
    ran = rust.run(code, interrupt_after=2.0, timeout=30)
    assert ran.reply["status"] == "error"
    assert rust.run("kept + 1").ok().value() == "42"


def test_input_comes_from_the_notebook(rust):
    code = "let mut line = String::new();\nstd::io::stdin().read_line(&mut line)?;\nline.trim().to_uppercase()"
    ran = rust.run(code, answers=["ada"]).ok()
    assert "ADA" in ran.value()


def test_completion_comes_from_rust(rust):
    code = "let s = String::new();\ns.to_upper"
    # The names of a new library are learned in the background.
    deadline = time.monotonic() + 300
    while not (matches := rust.ask("complete", code, len(code))["matches"]):
        assert time.monotonic() < deadline, "no completion came"
        time.sleep(0.5)
    assert any(match.startswith("to_uppercase") for match in matches), matches


def test_inspection_comes_from_rust(rust):
    rust.run("let looked_at: i64 = 7;").ok()
    reply = rust.ask("inspect", "looked_at", 4)
    assert reply["found"] and "i64" in reply["data"]["text/plain"], reply


PUSHED = [
    ("41", "let y = x + 1;", "42"),
    ("2**63", "let y = x + 1;", str(2**63 + 1)),
    ("-1.5e-300", "let y = x * 2.0;", "-3e-300"),
    ("float('nan')", "let y = x.is_nan();", "True"),
    ("float('-inf')", "let y = x;", "-inf"),
    ("True", "let y = !x;", "False"),
    ("'é\\n\"quoted\" 火'", "let y = x.to_uppercase();", "'É\\n\"QUOTED\" 火'"),
    ("numpy.float32(1.5)", "let y = x;", "1.5"),
    ("numpy.arange(6, dtype='float32').reshape(2, 3)", "let y = (x * 2.0)?;", "[[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]]"),
    ("numpy.asfortranarray(numpy.arange(4.0).reshape(2, 2))", "let y = x;", "[[0.0, 1.0], [2.0, 3.0]]"),
    ("numpy.array([1, -2], dtype='int32')", "let y = x;", "[1, -2]"),
    ("numpy.array([True, False])", "let y = x;", "[1, 0]"),
    ("numpy.zeros((0, 3), dtype='float16')", "let y = x.dims()[1];", "3"),
    ("numpy.array([1.0])", "let y = x.to_dtype(DType::BF16)?;", "[1.0]"),
]


@pytest.mark.parametrize(("python", "code", "expected"), PUSHED)
def test_values_go_to_rust_and_come_back(rust, python, code, expected):
    rust.run(f"%%python\nimport numpy\nx = {python}").ok()
    rust.run("%rust_push x").ok()
    rust.run(code).ok()
    rust.run("%rust_pull y").ok()
    assert rust.run("%%python\ny.tolist() if hasattr(y, 'tolist') else y").ok().value() == expected


@pytest.mark.parametrize("value", ["numpy.array([1j])", "object()", "[1, 2]", "2**200"])
def test_what_cannot_be_pushed_is_said(rust, value):
    rust.run(f"%%python\nimport numpy\nx = {value}").ok()
    ran = rust.run("%rust_push x")
    assert ran.reply["ename"] == "RustUsageError" and "x" in ran.reply["evalue"]


def test_what_cannot_be_pulled_is_said(rust):
    rust.run("let list = vec![1, 2, 3];").ok()
    ran = rust.run("%rust_pull list")
    assert ran.reply["ename"] == "RustUsageError" and "candle tensors" in ran.reply["evalue"]
    assert rust.run("%rust_pull nowhere").reply["status"] == "error"


def test_the_process_that_runs_cells_may_die(rust):
    ran = rust.run("std::process::abort()")
    assert ran.reply["status"] == "error"
    assert rust.run("1 + 1").ok().value() == "2"
