"""No part of a cell is ignored silently: code besides plain statements does what the user meant, or the kernel says what to do."""

import re

import pytest
from driver import Kernel


@pytest.fixture(scope="module")
def notebook():
    with Kernel() as kernel:
        yield kernel


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def told(error):
    return plain("\n".join(error["traceback"]))


def good(ran):
    assert ran.status == "ok", told(ran.reply["content"])
    return ran


# Brackets.


@pytest.mark.parametrize(
    ("cell", "line", "column", "message"),
    [
        ("}\nprintln!(\"lost?\");", 1, 1, "unexpected closing delimiter: `}`"),
        ("println!(\"lost?\");\n)", 2, 1, "unexpected closing delimiter: `)`"),
        ("println!(\"lost?\");\n  ]\nlet b = 2;", 2, 3, "unexpected closing delimiter: `]`"),
        ("let unused = vec![1, 2);", 1, 23, "mismatched closing delimiter: `)`"),
        ("println!(\"lost?\");\nfn f() {\n    if true {", 2, 8, "unclosed delimiter"),
        ("!echo lost\nlet a = 1;\n}", 3, 1, "unexpected closing delimiter: `}`"),
    ],
)
def test_a_bracket_without_a_partner_is_an_error_there_and_nothing_runs(notebook, cell, line, column, message):
    ran = notebook.run(cell)
    number = ran.reply["content"]["execution_count"]
    assert ran.status == "error" and message in ran.error["evalue"]
    assert f"In [{number}]:{line}:{column}" in told(ran.error)
    assert ran.stream() == "", "nothing of the cell runs"


def test_brackets_in_texts_and_comments_are_no_brackets(notebook):
    assert notebook.value("let b = '}'; // )\nformat!(\"{{{}\", b) /* ] */") == '"{}"'


# Warnings.


@pytest.mark.parametrize(
    ("cell", "line", "message"),
    [
        ("let first = 1;\nstd::fs::write(\"/nonexistent/x\", \"a\");", 2, "unused `Result` that must be used"),
        ("fn save() {\n    std::fs::write(\"/nonexistent/x\", \"a\");\n}", 2, "unused `Result` that must be used"),
        ("async fn later() {}\nlater();", 2, "must be used"),
        ("[1, 2].iter().map(|x| x + 1);\n1", 1, "must be used"),
        ("1 == 2;\n1", 1, "unused comparison that must be used"),
        ("fn early() -> i32 {\n    return 1;\n    println!(\"never\");\n    2\n}", 3, "unreachable statement"),
        ("fn endless(n: u32) -> u32 {\n    endless(n + 1)\n}", 1, "function cannot return without recursing"),
    ],
)
def test_what_is_rarely_meant_is_warned_of_at_its_line(notebook, cell, line, message):
    ran = good(notebook.run(cell))
    number = ran.reply["content"]["execution_count"]
    said = plain(ran.stream("stderr"))
    assert message in said and f"In [{number}]:{line}:" in said, said
    assert said.count("warning:") == 1


def test_a_result_that_nobody_looks_at_says_what_to_do(notebook):
    assert "put `?` behind it" in plain(notebook.run("\"1\".parse::<i32>();").stream("stderr"))


@pytest.mark.parametrize(
    "cell",
    [
        "let unused = 1;\nlet mut needless = 2;",
        "use std::collections::BTreeSet;",
        "fn nobodyCalls() {}\nstruct lower_case;\nconst lower: i32 = 1;",
        "let _ = \"1\".parse::<i32>();",
        "#[allow(unused_must_use)]\nfn silenced() { \"1\".parse::<i32>(); }",
        "fn answer() -> i32 { return 3; }\nanswer()",
        "\"1\".parse::<i32>()",
        "for n in 0..2 { if n == 1 { break; } }",
    ],
)
def test_noise_is_not_shown(notebook, cell):
    assert good(notebook.run(cell)).stream("stderr") == ""


def test_a_warning_comes_once(notebook):
    assert "unused" in notebook.run("fn twice_told() { \"1\".parse::<i32>(); }").stream("stderr")
    assert notebook.run("fn next_one() {}\ntwice_told();").stream("stderr") == ""


# Programs.


def test_a_pasted_main_runs_and_says_so(notebook):
    ran = good(notebook.run("use std::fmt::Display;\n\nfn greet(name: impl Display) { println!(\"hello {name}\"); }\n\nfn main() {\n    greet(\"you\");\n}"))
    assert ran.stream() == "hello you\n"
    assert "`main`" in ran.stream("stderr")
    good(notebook.run("greet(\"again\");"))


def test_the_error_of_main_is_the_cells(notebook):
    cell = "//! A program.\n#![allow(dead_code)]\nfn main() -> Result<(), Box<dyn std::error::Error>> {\n    println!(\"begun\");\n    let n: i32 = \"x\".parse()?;\n    println!(\"{n}\");\n    Ok(())\n}"
    ran = notebook.run(cell)
    assert ran.stream() == "begun\n" and ran.status == "error"
    assert ran.error["evalue"] == "invalid digit found in string"
    panic = notebook.run("fn main() {\n    panic!(\"no\");\n}").error
    assert panic["ename"] == "Panic" and re.search(r"In \[\d+\]:2:5", told(panic))


@pytest.mark.parametrize(
    ("cell", "ename"),
    [
        ("#[derive(Debug)]\nenum Trouble { Found(u8), Lost }\nErr::<(), _>(Trouble::Found(1))?;", "Found"),
        ("Err::<(), _>(Trouble::Lost)?;", "Lost"),
        ("#[derive(Debug)]\nstruct Whole { n: u8 }\nErr::<(), _>(Whole { n: 1 })?;", "Whole"),
        ("Err::<(), Box<dyn std::error::Error>>(\"x\".parse::<i32>().unwrap_err().into())?;", "ParseIntError"),
        ("Err::<(), Box<dyn std::error::Error>>(\"no such thing\".into())?;", "Error"),
        ("std::fs::read(\"/nonexistent\")?;", "std::Error"),
    ],
)
def test_an_error_is_called_by_its_own_name(notebook, cell, ename):
    assert notebook.run(cell).error["ename"] == ename


def test_a_main_that_the_cell_calls_runs_once(notebook):
    ran = good(notebook.run("fn main() { println!(\"once\"); }\nmain();"))
    assert ran.stream() == "once\n" and ran.stream("stderr") == ""
    assert good(notebook.run("let stays = 2;\nfn main() { println!(\"last\"); }\nprintln!(\"first\");")).stream() == "first\nlast\n"
    assert notebook.value("stays") == "2"


def test_a_main_that_returns_the_code_of_a_failure_fails(notebook):
    error = notebook.run("fn main() -> std::process::ExitCode { std::process::ExitCode::from(2) }").error
    assert error["ename"] == "ExitFailure" and "unix_exit_status(2)" in error["evalue"]
    good(notebook.run("fn main() -> std::process::ExitCode { std::process::ExitCode::SUCCESS }"))


def test_an_asynchronous_main_and_test_wait_on_the_notebooks_runtime(fresh):
    ran = good(fresh.run("#[tokio::main]\nasync fn main() {\n    tokio::time::sleep(std::time::Duration::from_millis(10)).await;\n    println!(\"waited\");\n}"))
    assert ran.stream() == "waited\n"
    said = good(fresh.run("#[tokio::test]\nasync fn waits() { tokio::task::yield_now().await; }\n#[tokio::test(flavor = \"multi_thread\")]\n#[should_panic(expected = \"late\")]\nasync fn late() { panic!(\"too late\") }")).stream()
    assert "2 passed; 0 failed" in said


def test_a_prompt_of_evcxr_input_asks(notebook):
    # The crate's `get_string("Name?")` does this.
    msg_id = notebook.send('println!("EVCXR_INPUT_REQUEST:Name?"); let mut name = String::new(); std::io::stdin().read_line(&mut name)?; print!("{}", name.trim());', allow_stdin=True)
    assert notebook.client.get_stdin_msg(timeout=60)["content"]["prompt"] == "Name?"
    notebook.client.input("Ada")
    assert notebook.shell(msg_id)["content"]["status"] == "ok"
    assert "".join(m["content"]["text"] for m in notebook.iopub(msg_id) if m["msg_type"] == "stream") == "Ada"


def test_an_attribute_of_a_whole_crate_is_said_to_have_no_effect(notebook):
    said = good(notebook.run("#![feature(test)]\n#![allow(unused)]\nprintln!(\"runs\");"))
    assert said.stream() == "runs\n"
    assert "`#![feature(test)]` has no effect" in said.stream("stderr") and "allow" not in said.stream("stderr")


TESTS = """fn double(x: i32) -> i32 { 2 * x }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good() { assert_eq!(double(2), 4); }

    #[test]
    fn bad() {
        let three = 3;
        assert_eq!(double(three), 7, "for {three}");
    }

    #[test]
    #[should_panic(expected = "bounds")]
    fn panics() {
        let (empty, at): (Vec<i32>, usize) = (vec![], 3);
        empty[at];
    }

    #[test]
    #[should_panic]
    fn calm() {}

    #[test]
    #[ignore = "slow"]
    fn slow() { loop {} }

    #[test]
    fn refuses() -> Result<(), std::num::ParseIntError> {
        "x".parse::<i32>()?;
        Ok(())
    }
}"""


def test_tests_run_with_a_report_like_cargos(notebook):
    ran = notebook.run(TESTS)
    number = ran.reply["content"]["execution_count"]
    said = ran.stream()
    for line in [
        "running 6 tests",
        "test tests::good ... ok",
        "test tests::bad ... FAILED",
        "test tests::panics - should panic ... ok",
        "test tests::calm - should panic ... FAILED",
        "test tests::slow ... ignored, slow",
        "test tests::refuses ... FAILED",
        "---- tests::bad ----",
        f"panicked at In [{number}]:13:",
        "assertion `left == right` failed: for 3",
        "it did not panic, as it should",
        "Error: ParseIntError",
    ]:
        assert f"\n{line}\n" in f"\n{said}\n" or line in said, (line, said)
    assert "test result: FAILED. 2 passed; 3 failed; 1 ignored" in said
    assert ran.status == "error" and ran.error["ename"] == "TestsFailed"
    assert ran.error["evalue"] == "3 of 5 tests failed: tests::bad, tests::calm, tests::refuses"


def test_the_command_test_runs_them_again_against_the_newest_items(fresh):
    assert "no tests" in fresh.run(":test").error["evalue"]
    good(fresh.run("fn half(x: i32) -> i32 { x / 2 }\n#[test]\nfn halves() { assert_eq!(half(4), 2); }"))
    good(fresh.run("#[test]\nfn other() {}"))
    assert "running 2 tests" in good(fresh.run(":test")).stream()
    good(fresh.run("fn half(x: i32) -> i32 { x / 3 }"))
    failed = fresh.run(":test halves")
    assert "running 1 test\n" in failed.stream() and failed.error["evalue"] == "1 of 1 tests failed: halves"
    assert "`halves`" in fresh.run(":test no_such").error["evalue"]


def test_variables_of_a_cell_outlive_its_failing_tests(notebook):
    assert notebook.run("let before = 5;\n#[test]\nfn hopeless() { panic!(\"no\") }").status == "error"
    assert notebook.value("before") == "5"


def test_an_unknown_attribute_of_a_test_is_an_error(notebook):
    assert "cannot find attribute `rstest`" in notebook.run("#[rstest]\nfn elsewhere() {}").error["evalue"]


# Timing.


def test_timeit_says_how_long_one_run_takes(notebook):
    assert re.fullmatch(r"\S+ (ns|µs|ms) ± \S+ (ns|µs|ms) per loop \(mean ± std. dev. of 7 runs, \d+ loops? each\)\nThe code is not optimised: .*\n", good(notebook.run("%timeit (0..9).sum::<u64>()")).stream())
    ran = good(notebook.run("%%timeit\nlet thrice = 3 * std::hint::black_box(2);\nthrice + 1"))
    assert "per loop" in ran.stream() and ran.value is None
    assert "not optimised" not in good(notebook.run(":opt 2\n%timeit 1 + 1")).stream()


# Values that display themselves.


def test_a_types_own_display_is_shown(notebook):
    good(notebook.run("struct Mat { n: usize }\nimpl Mat { pub fn evcxr_display(&self) { println!(\"EVCXR_BEGIN_CONTENT text/html\\n<b>{}</b>\\nEVCXR_END_CONTENT\", self.n); } }"))
    shown = good(notebook.run("Mat { n: 3 }"))
    assert [shown.of("display_data")[0]["data"]["text/html"].strip(), shown.value] == ["<b>3</b>", None]
    derived = good(notebook.run("#[derive(Debug)]\nstruct Both(i32);\nimpl Both { fn evcxr_display(&self) { println!(\"EVCXR_BEGIN_CONTENT text/html\\n<i>{}</i>\\nEVCXR_END_CONTENT\", self.0); } }\nlet both = Both(4);\nboth"))
    assert derived.of("display_data")[0]["data"]["text/html"].strip() == "<i>4</i>" and derived.value is None
    assert notebook.value("both.0") == "4", "it is not moved"


@pytest.mark.parametrize(
    ("cell", "value"),
    [("Some(1)", "Some(1)"), ("&vec![1, 2]", "[1, 2]"), ("&&&3", "3"), ("&mut 3", "3"), ("\"a\"", '"a"'), ("&[1, 2][..]", "[1, 2]"), ("[String::new()].as_slice()", '[""]'), ("&Some(html(\"<b>x</b>\"))", None)],
)
def test_what_has_no_display_of_its_own_is_shown_as_ever(notebook, cell, value):
    assert good(notebook.run(cell.replace("html", "wavemesh::notebook::html"))).value == value or value is None


def test_dbg_names_the_cell_and_the_line(notebook):
    ran = good(notebook.run("dbg!(1 + 1)"))
    number = ran.reply["content"]["execution_count"]
    assert ran.stream("stderr") == f"[In [{number}]:1] 1 + 1 = 2\n" and ran.value == "2"
    ran = good(notebook.run("let a = 1;\nlet (b, c) = dbg!(a, \"x\");\nstd::dbg!(c); dbg!();"))
    assert re.match(r"\[In \[\d+\]:2\] a = 1\n\[In \[\d+\]:2\] \"x\" = \"x\"\n\[In .*\[In \[\d+\]:3\]\n$", ran.stream("stderr"), re.S)


# First mistakes.


@pytest.mark.parametrize(
    ("cell", "lines"),
    [
        ("HashMap::new()", ["use std::collections::HashMap;"]),
        ("let a = Arc::new(Mutex::new(1));", ["use std::sync::Arc;", "use std::sync::Mutex;"]),
        ("fs::read_to_string(\"x\")?", ["use std::fs;"]),
        ("fn of_items(m: HashMap<u8, u8>) -> Rc<u8> { todo!() }", ["use std::collections::HashMap;", "use std::rc::Rc;"]),
        ("let d: Ordering = todo!();", ["use std::cmp::Ordering;", "use std::sync::atomic::Ordering;"]),
        ("fn shows(f: &mut Formatter) {}", ["use std::fmt::Formatter;"]),
    ],
)
def test_what_is_not_imported_names_the_line_that_imports_it(notebook, cell, lines):
    error = told(notebook.run(cell).error)
    for line in lines:
        assert re.search(rf"^\s*(= help: .*)?{re.escape(line)}$", error, re.M), error
    assert "wavemesh_cell" not in error and "missing a crate" not in error and "nonpoison" not in error


def test_a_crate_that_is_missing_names_its_line_and_a_near_one_is_guessed(notebook):
    assert ":dep widgets = \"*\"" in told(notebook.run("use widgets::Widget;").error)
    assert "did you mean `regex`" in told(notebook.run("regx::Regex::new(\"a\")").error)
    derived = told(notebook.run("#[derive(widgets::Widget)]\nstruct Window;").error)
    assert derived.count(":dep widgets = \"*\"") == 1, derived


def test_a_macro_of_a_crate_that_the_prelude_names_is_imported_by_a_line_that_works(notebook):
    error = told(notebook.run('bail!("no")').error)
    assert "use candle_core::bail;" in error and "crate::" not in error, error
    assert notebook.run('use candle_core::bail;\nbail!("no")').error["evalue"] == "no"
    assert notebook.run("use candle_core::bail;\nlet n = 2;\nif n == 1 { 0 } else { bail!(\"n is {n}\") }").error["evalue"] == "n is 2"


@pytest.mark.parametrize("way", ["return", "return;", "return Ok(())", "return Ok(());"])
def test_a_way_out_may_end_a_cell_with_or_without_its_semicolon(notebook, way):
    assert notebook.run(f"let kept = 3;\n{way}").status == "ok"
    assert notebook.value("kept") == "3"


@pytest.mark.parametrize("way", ["return Err(\"no\".into())", "return Err(\"no\")", "use candle_core::bail; bail!(\"no\")", "use candle_core::bail; bail!(\"no\");"])
def test_an_error_may_end_a_cell_with_or_without_its_semicolon(notebook, way):
    assert notebook.run(f"let kept = 4;\n{way}").error["evalue"] == "no"
    assert notebook.value("kept") == "4"


def test_a_variable_that_is_gone_is_not_taken_for_a_module_of_its_name(fresh):
    fresh.run("struct Form;\nlet shapes = vec![Form];")
    fresh.run("struct Form(u8);")
    error = fresh.run("shapes.len()").error
    assert error["evalue"] == "cannot find value `shapes` in this scope"
    assert "defines its type again" in told(error) and "path separator" not in told(error)


@pytest.mark.parametrize(
    ("cell", "line", "message"),
    [
        ("let a = std::", 1, "expected identifier"),
        ("let a = 5\nlet b = 6;", 1, "expected `;`"),
        ("let a =", 1, "expected expression"),
        ("let a = 5 // comment", 1, "expected `;`, found the end of the cell"),
        ("let b = 1;\nlet text = \"abc;\nb", 2, "unterminated string"),
        ("1 + /* one", 1, "unterminated block comment"),
    ],
)
def test_code_that_cannot_be_read_is_one_error_at_its_line(notebook, cell, line, message):
    ran = notebook.run(cell)
    number = ran.reply["content"]["execution_count"]
    error = told(ran.error)
    assert message in ran.error["evalue"] and f"In [{number}]:{line}:" in error
    assert error.count("error") == 1 and "wavemesh" not in error and "Outcome" not in error, error


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("import numpy as np", "this looks like Python"),
        ("def f(x):\n    return x", "this looks like Python"),
        ("let text = \"12\";\ntext.parse::<i32>() + 1", "`text.parse::<i32>()?`"),
        ("1 + (\"12\".parse::<i32>())", "`(\"12\".parse::<i32>())?`"),
        ("if true { !ls }", "a command of the shell (`!ls`) begins a line"),
        ("fn f() {\n    %time 3\n}", "`%time` is a command. It begins a line"),
        ("struct Shape;\nlet shape = Shape;\nshape.show()", "end the cell with it, without `;`: `shape`"),
        ("?a b", "`?NAME` shows"),
        ("?", "`?NAME` shows"),
    ],
)
def test_a_first_mistake_says_what_to_do(notebook, cell, hint):
    error = notebook.run(cell).error
    assert hint in told(error)


def test_a_suggestion_that_knows_several_ways_tells_them_apart(notebook):
    good(notebook.run("enum Limit { Plain(f64), Share(f64), Count(f64) }\nstruct Setting { limit: Limit }"))
    error = told(notebook.run("let s = Setting { limit: 0.01 };").error)
    assert "Limit::Plain(0.01)" in error and "Limit::Share(0.01)" in error
    assert "Limit::Plain(Limit" not in error
