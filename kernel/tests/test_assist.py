"""Completion and inspection of names from the notebook, from its imports and from the standard library, right from the start."""

import os
import uuid
from pathlib import Path

import pytest
from driver import Kernel


@pytest.fixture(scope="module")
def notebook():
    with Kernel() as kernel:
        # rustdoc reads the crates once, which takes long on a busy machine; a cell that asks waits for it.
        for _ in range(8):
            page = kernel.run("?println!").reply["content"]["payload"][0]["data"]["text/plain"]
            if "still being read" not in page:
                break
        assert "println" in page and "Nothing is known" not in page, page
        yield kernel


def complete(kernel, code):
    return kernel.ask("complete_request", {"code": code, "cursor_pos": len(code)})["content"]["matches"]


def page(kernel, cell):
    return kernel.run(cell).reply["content"]["payload"][0]["data"]["text/plain"]


def test_names_are_there_right_after_the_start(notebook):
    with Kernel() as kernel:
        assert "PI" in complete(kernel, "std::f64::consts::P")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("use std::collections::HashMap;\nlet m = HashM", "HashMap"),
        ("use std::collections::HashMap as Dictionary;\nlet m = Dictionary::with_cap", "with_capacity"),
        ("use std::collections::{BTreeMap, Hash", "HashMap"),
        ("use std::{fmt, collections::{BTreeMap, Hash", "HashSet"),
        ("use std::{coll", "collections"),
        ("use std::collections::*;\nlet m = BTreeM", "BTreeMap"),
        ("let m: HashM", "std::collections::HashMap"),
        ("let a = Som", "Some"),
        ("let a = Er", "Err"),
        ("let a: usi", "usize"),
        ("let a = ve", "vec!"),
        ("#[derive(Debug, Par", "PartialEq"),
        ("#[derive(Debug, Par", "PartialOrd"),
        ("let s = String::fro", "from_utf8"),
        (":tes", ":test"),
        ("%tim", "%timeit"),
    ],
)
def test_what_stands_there_is_completed(notebook, code, expected):
    assert expected in complete(notebook, code)


def test_names_of_a_crate_are_completed_as_soon_as_its_cell_has_run_and_kept_for_the_next_notebook(tmp_path):
    """A late answer is better than none."""
    (tmp_path / "src").mkdir()
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "toolbox"\nversion = "0.1.0"\nedition = "2024"\n')
    tool = f"hammer_{uuid.uuid4().hex}"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "wavemesh"

    def used(tool):
        with Kernel() as kernel:
            assert kernel.run(f":dep {tmp_path}\ntoolbox::{tool}();").status == "ok"
            for _ in range(12):  # each waits ten seconds, on a busy machine
                if found := complete(kernel, "toolbox::"):
                    return found

    (tmp_path / "src/lib.rs").write_text(f"/// Hits.\npub fn {tool}() {{}}")
    assert used(tool) == [tool]
    assert used(tool) == [tool]
    kept = [file for file in data.glob("names-*.json") if tool in file.read_text()]
    assert len(kept) == 1, "the second notebook reads what the first one kept"
    (tmp_path / "src/lib.rs").write_text(f"/// Hits.\npub fn {tool}() {{}}\n/// Turns.\npub fn wrench() {{}}")
    assert used("wrench") == [tool, "wrench"]


def test_names_of_an_earlier_cells_imports_are_completed(notebook):
    assert notebook.run("use std::sync::mpsc::channel as tube;").status == "ok"
    assert "tube" in complete(notebook, "let (a, b) = tub")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("?println!", ["macro_rules! println", "Prints to the standard output"]),
        ("?vec!", ["vec", "Creates a `Vec`"]),
        ("?Vec::push", ["pub fn push(&mut self, value: T)", "Appends an element"]),
        ("?Some", ["Some(T)", "Some value of type"]),
        ("?String::from", ["fn from(", "of String"]),
        ("?String::from_utf8", ["from_utf8", "Converts a vector of bytes"]),
        ("?i32", ["primitive::i32"]),
        ("?std::collections", ["collections", "Collection types"]),
        ("?no_such_name", ["Nothing is known about `no_such_name`"]),
        ("?Vec::no_such_method", ["Nothing is known about `Vec::no_such_method`"]),
    ],
)
def test_a_question_is_answered_with_documentation(notebook, cell, words):
    shown = page(notebook, cell)
    for word in words:
        assert word in shown


def test_two_question_marks_show_the_source(notebook):
    assert notebook.run("/// Doubles it.\nfn doubled(x: i32) -> i32 {\n    2 * x\n}\nstruct Pair(i32, i32);").status == "ok"
    assert notebook.run("impl Pair { fn sum(&self) -> i32 { self.0 + self.1 } }").status == "ok"
    short, whole = page(notebook, "?doubled"), page(notebook, "??doubled")
    assert "fn doubled(x: i32) -> i32" in short and "Doubles it." in short and "2 * x" not in short
    assert "2 * x" in whole and "Doubles it." in whole
    assert "self.0 + self.1" in page(notebook, "??Pair")
