"""The files in which evcxr's users keep code for every notebook run before the first cell."""

import os

from driver import Kernel


def with_files(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    return Kernel(cwd=str(tmp_path), env={**os.environ, "EVCXR_CONFIG_DIR": str(tmp_path)})


def test_commands_and_prelude_run_before_the_first_cell_and_again_after_clear(tmp_path):
    with with_files(tmp_path, init_evcxr=":opt 1\nconst FROM_INIT: i32 = 40;", prelude_rs="fn two() -> i32 { 2 }") as kernel:
        assert kernel.value("FROM_INIT + two()") == "42"
        assert kernel.value(":opt") == "cells are built at opt-level 1"
        kernel.run(":clear")
        assert kernel.value("FROM_INIT + two()") == "42"
        (tmp_path / "prelude.rs").write_text("fn two() -> i32 { 3 }")
        kernel.run(":load_config")
        assert kernel.value("FROM_INIT + two()") == "43"


def test_what_fails_there_is_a_line_and_costs_nothing_else(tmp_path):
    with with_files(tmp_path, init_evcxr=":cache 500\n:no_such", prelude_rs="fn broken( {}") as kernel:
        ran = kernel.run("1 + 1")
        assert ran.value == "2"
        lines = ran.stream("stderr").splitlines()
        assert len(lines) == 3 and [":cache", ":no_such"] == [name for name in (":cache", ":no_such") if name in ran.stream("stderr")], lines
        assert lines[2].startswith(str(tmp_path / "prelude.rs"))
        assert kernel.run("2").stream("stderr") == "", "it is said once"


def test_settings_beside_the_notebook(tmp_path):
    with with_files(tmp_path, evcxr_toml='[evcxr]\nprelude = "fn one() -> i32 { 1 }"\nopt_level = "2"\n') as kernel:
        assert kernel.value("one()") == "1"
        assert kernel.value(":opt") == "cells are built at opt-level 2"
