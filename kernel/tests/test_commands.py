"""Commands: where they may stand, what `%time` measures, and what a notebook of another kernel gets."""

import json

import pytest

from driver import SETUP


def test_commands_stand_wherever_a_statement_may_begin(kernel):
    ran = kernel.run("let first = 20;\n!echo between\nlet second = first + 1;\nsecond * 2")
    assert ran.status == "ok", ran.error
    assert ran.stream() == "between\n" and ran.value == "42"


def test_an_error_below_a_command_is_on_the_users_line(kernel):
    error = kernel.run("let fine = 1;\n!echo\nlet wrong: i32 = \"text\";").error
    assert ":3:18" in "\n".join(error["traceback"])


def test_a_negation_is_not_a_shell_command(kernel):
    assert kernel.value("let done = 1 == 2;\n!done") == "true"
    assert kernel.value("let other = 1;\n!done") == "true", "a variable of an earlier cell"
    assert kernel.value("!matches!(1, 2)") == "true"


def test_time_shows_the_value_of_its_expression_and_the_time(kernel):
    ran = kernel.run("%time (0..9).sum::<u64>()")
    assert ran.value == "36" and "total" in ran.stream()
    ran = kernel.run("let numbers = vec![1, 2];\n%time numbers.len()")
    assert ran.value == "2" and ran.stream().count("total") == 1


def test_help_of_one_command_has_a_line_to_copy(kernel):
    for asked in [":help dep", ":help :dep"]:
        shown = kernel.value(asked)
        assert "Add a crate" in shown and ':dep rand = { version = "0.9"' in shown and ":vars" not in shown
    assert "Your variables" in kernel.value(":help %whos")
    assert "`:help` lists all" in kernel.run(":help nonsense").error["evalue"]


def test_magics_of_ipython_say_what_does_it_here(kernel):
    for magic, here in [("%reset", ":clear"), ("%%bash", "`!`"), ("%run a.rs", ":load"), ("%timit 1", "%timeit"), ("%pwd", "`!pwd`")]:
        assert here in kernel.run(magic).error["evalue"], magic
    assert "Variable" in kernel.value("%whos")


def test_explain_takes_a_code(kernel):
    assert kernel.value(":explain E0308").startswith("Expected type did not match the received type.")
    assert "a code like E0308" in kernel.run(":explain everything").error["evalue"]
    assert "no error with this code" in kernel.run(":explain E9999").error["evalue"]


@pytest.mark.parametrize("cell", ["%matplotlib inline", "%%python\nprint(1)", ":no_such_command"])
def test_what_is_not_known_here_is_an_error_that_says_so(kernel, cell):
    error = kernel.run(cell).error
    assert error["ename"] == "CommandError" and cell.split("\n")[0].split(" ")[0] in error["evalue"]


def test_a_notebook_with_its_set_up_cell_is_loaded(kernel, tmp_path):
    def cell(source, kind="code"):
        return {"cell_type": kind, "metadata": {}, "source": source, "outputs": [], "execution_count": None}

    cells = [cell(SETUP), cell("# A title", "markdown"), cell("fn of_the_notebook() -> i32 { 3 }"), cell("%%rust\nof_the_notebook() + 1")]
    file = tmp_path / "book.ipynb"
    file.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    assert kernel.value(f":load {file}") == "4"


def test_commands_are_completed_with_what_they_take(kernel):
    reply = kernel.ask("complete_request", {"code": "let x = 1;\n  :gr", "cursor_pos": 16})["content"]
    assert reply["matches"] == [":grace"]
    assert reply["metadata"]["_jupyter_types_experimental"][0]["signature"] == "SECONDS"


def test_a_shell_command_is_a_whole_cell(kernel):
    for code in ["!./run.sh", "let x = 1;\n!./run.sh 'x", "%time", SETUP]:
        assert kernel.ask("is_complete_request", {"code": code})["content"]["status"] == "complete", code
