"""The phrase book of notebook 05: every row as printed there, in cells that define what the row uses."""

import html
import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_rust_in_notebooks.ipynb"


def rows():
    """Python's side of each row, and the code of Rust's side."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    (text,) = ["".join(cell["source"]) for cell in cells if "## A phrase book" in "".join(cell["source"])]
    found = {}
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| Python |", "| --- |")):
            python, rust = (side.strip() for side in line.strip("|").split(" | ", 1))
            found[python] = [html.unescape(a or b) for a, b in re.findall(r"`([^`]+)`|<code>(.+?)</code>", rust)]
    return found


ROWS = rows()

# The cells for each row, and the output of each: `{0}`, `{1}`, … are the row's own code; a list replaces its `…` one by one.
CASES = {
    "`x = 5`": ([], [("{0}\nx", "5"), ("{1}\nx += 1;\nx", "6")]),
    '`f"{x:.2f}"`': ([], [("let x = 1.234;\n{0}", '"1.23"')]),
    "`print(a, b)`": ([], [("let (a, b) = (1, 2);\n{0}\n{1};\n{2}", "1 2\n1\n")]),
    "`[1, 2, 3]`": ([], [("{0}", "[1, 2, 3]")]),
    "`len(v)`, `v.append(x)`, `v[-1]`": (
        [],
        [("let mut v = vec![1, 2];\nlet x = 3;\n{1};\n{0}", "3"), ("{2}", "Some(3)")],
    ),
    "`v[1:3]`": ([], [("let v = vec![1, 2, 3, 4];\n{0}", "[2, 3]")]),
    '`{"a": 1}`': ([], [("{1}\n{0}", '{"a": 1}')]),
    '`d.get("a", 0)`': ([], [('let d = std::collections::HashMap::from([("b", 1)]);\n{0}', "0")]),
    "`for i, x in enumerate(v):`": (['println!("{i} {x}")'], [("let v = [7, 8];\n{0}", "0 7\n1 8\n")]),
    "`[f(x) for x in v if x > 0]`": (
        [],
        [("fn f(x: i32) -> i32 { 10 * x }\nlet v = vec![-1, 2, 3];\n{0}", "[20, 30]")],
    ),
    "`a if test else b`": ([], [("let (test, a, b) = (false, 1, 2);\n{0}", "2")]),
    "`None`, `x is None`": ([], [("let x: {2} = {0};\n{1}", "true")]),
    "`try: … except E as e: …`": (
        ['println!("{value}")', 'println!("failed: {error}")'],
        [('fn attempt() -> Result<i32, std::num::ParseIntError> { "4x".parse() }\n{0}', "failed: invalid digit found in string\n")],
    ),
    '`raise ValueError("…")`': (
        ["no"],
        [("fn halve(x: i32) -> Result<i32, Box<dyn std::error::Error>> {\n    if x % 2 == 1 {\n        {0}\n    }\n    Ok(x / 2)\n}\nhalve(4)?", "2")],
    ),
    "`def f(x: float) -> float: …`": (["2.0 * x"], [("{0}\nf(1.5)", "3.0")]),
    "`lambda x: x + 1`": ([], [("let next = {0};\nnext(2)", "3")]),
    "`class P: …`": (["x: f64", "fn twice(&self) -> f64 { 2.0 * self.x }"], [("{0}\n{1}\nP { x: 1.5 }.twice()", "3.0")]),
    "`isinstance`, a family of types": (
        [],
        [("{0} Shape { Ball(f64), Box }\n{1} Shape::Ball(2.0) { Shape::Ball(r) => r, Shape::Box => 0.0 }", "2.0")],
    ),
    "`import numpy as np`": ([], [("{0}\nlet t = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;\nt.dims().to_vec()", "[2]")]),
    "`np.zeros((2, 3))`, `a @ b`, `a.sum()`": (
        [],
        [
            ("let a = {0};\na.dims().to_vec()", "[2, 3]"),
            ("let b = Tensor::ones((3, 2), DType::F32, &Device::Cpu)?;\nlet c = {1};\nc.dims().to_vec()", "[2, 2]"),
            ("let sum = {2};\nsum.to_scalar::<f32>()?", "0.0"),
        ],
    ),
    "`a + b`, `a * 2` for arrays": (
        [],
        [("let a = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;\nlet b = a.clone();\nlet c = ({0} + {1})?;\nc.to_vec1::<f32>()?", None)],
    ),
    "`a[0, :, 2]`": ([], [("let a = Tensor::arange(0f32, 24.0, &Device::Cpu)?.reshape((2, 3, 4))?;\nlet c = {0};\nc.to_vec1::<f32>()?", None)]),
    "`for x in tqdm(v):`": (['println!("{x}")'], [("let v = vec![5, 6];\n{0}", "5\n6\n")]),
    "`display(x)`": ([], [('let x = notebook::html("<b>1</b>");\n{1}\n{0}', None)]),
    "`!pip install x`": ([], [("{0}", None)]),
    "`help(f)`, `f?`": ([], [("/// Doubles.\nfn f(x: f64) -> f64 { 2.0 * x }", None), ("{0}", None)]),
}
NUMBERS = {"`a + b`, `a * 2` for arrays": [4.0, 8.0], "`a[0, :, 2]`": [2.0, 6.0, 10.0]}


def test_every_row_of_the_phrase_book_has_a_case():
    assert list(ROWS) == list(CASES)


@pytest.mark.parametrize("row", CASES)
def test_a_row_works_as_it_is_printed(kernel, row):
    fillings, cells = CASES[row]
    code = []
    fillings = iter(fillings)
    for snippet in ROWS[row]:
        code.append(re.sub("…", lambda _: next(fillings), snippet))
    assert next(fillings, None) is None, "the row has fewer gaps than its case"
    shown = None
    for cell, expected in cells:
        for number, snippet in enumerate(code):
            cell = cell.replace(f"{{{number}}}", snippet)
        cell = cell.replace(":dep x =", ":dep itoa =").replace("Option<T>", "Option<i32>")
        shown = kernel.run(cell)
        assert shown.status == "ok", "\n".join(shown.reply["content"]["traceback"])
        if expected is not None:
            assert expected in ((shown.value or ""), shown.stream()), (shown.value, shown.stream())
    if row in NUMBERS:
        assert [float(number) for number in re.findall(r"[\d.]+", shown.value.split("]")[0])] == NUMBERS[row]
    elif "display" in row:
        assert [message["data"]["text/html"] for message in shown.of("display_data")] == ["<b>1</b>"] * 2
    elif "help" in row:
        assert "Doubles." in shown.reply["content"]["payload"][0]["data"]["text/plain"]


def test_what_has_no_display_says_how_it_is_shown(kernel):
    error = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(kernel.run("display(5);").error["traceback"]))
    assert "has no display of its own" in error and 'println!("{:?}", …)' in error
