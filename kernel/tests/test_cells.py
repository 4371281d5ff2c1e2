"""The meaning of cells: variables and their types, items, errors at the user's lines, crates, commands, and the losses by a crash."""

import json
import os
import re
import subprocess

import psutil
import pytest


def plain(error):
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))


@pytest.mark.parametrize(
    ("cell", "then", "value"),
    [
        ("let v = vec![1, 2];", "v.len()", "2"),
        ("let (number, mut text) = (1u8, String::from(\"a\"));", "text.push('b'); (number, &text)", '(1, "ab")'),
        ("let map: std::collections::HashMap<_, _> = [(1, \"one\")].into();", "map[&1]", '"one"'),
        ("fn twice(x: i32) -> i32 { 2 * x }\nlet f = twice;", "f(4)", "8"),
        ("let boxed: Box<dyn Fn(i32) -> i32> = Box::new(|x| x + 1);", "boxed(1)", "2"),
        ("struct Own { size: usize }\nlet own = Own { size: 3 };", "own.size", "3"),
        ("let Some(inner) = Some(7) else { panic!() };", "inner", "7"),
        ("let late; late = 5u64;", "late", "5"),
        ("let shadow = 1;\nlet shadow = format!(\"{shadow}!\"); // the last one stays", "shadow", '"1!"'),
    ],
)
def test_a_variable_keeps_its_type_without_being_told(kernel, cell, then, value):
    assert kernel.run(cell).status == "ok"
    assert kernel.value(then) == value


def test_what_cannot_outlive_its_cell_works_in_it_and_is_announced(kernel):
    ran = kernel.run("let words = vec![String::from(\"a\")];\nlet longest = &words[0];\nlet join = |x: &str| x.to_owned() + longest;\njoin(\"b\")")
    assert ran.status == "ok" and ran.value == '"ba"'
    assert "`longest` lives in this cell only" in ran.stream("stderr")
    assert kernel.value("words.len()") == "1"
    error = kernel.run("longest").error
    assert error["ename"] == "E0425" and "borrows" in plain(error)


def test_a_variable_that_was_moved_away_is_named_with_the_cell_that_did_it(kernel):
    kernel.run("let given = vec![1];\nlet stays = vec![2];")
    number = kernel.run("drop(given); stays.len()").reply["content"]["execution_count"]
    error = kernel.run("given.len()").error
    assert error["ename"] == "E0425" and f"`given` was moved away in cell [{number}]" in plain(error)
    assert kernel.value("stays[0]") == "2"


def test_a_cell_that_fails_leaves_the_variable_that_it_has_not_come_to_bind(kernel):
    kernel.run("let kept = String::from(\"old\");")
    assert kernel.run("let kept: i32 = \"z\".parse().unwrap();").error["ename"] == "Panic"
    assert kernel.value("kept") == '"old"'
    assert kernel.run("let kept = kept.len();\n\"z\".parse::<i32>()?;").status == "error"
    assert kernel.value("kept") == "3", "what was bound before the error stays"


def test_a_variable_whose_type_is_defined_anew_is_lost_and_the_others_stay(kernel):
    kernel.run("struct Inner { size: u8 }\nstruct Outer { inner: Inner }\nlet one = Outer { inner: Inner { size: 3 } };\nlet other = 4;")
    again = kernel.run("/// The same layout.\n#[derive(Clone)]\nstruct Inner { size: u8 }")
    assert again.status == "ok" and kernel.value("one.inner.size") == "3"
    assert kernel.run("struct Inner { size: [u64; 64] }\nno_such_name").status == "error", "nothing was defined"
    assert kernel.value("one.inner.size") == "3"
    anew = kernel.run("struct Inner { size: [u64; 64] }")
    assert "`one` is lost" in anew.stream("stderr")
    error = kernel.run("one.inner.size").error
    assert error["ename"] == "E0425" and "defines its type again" in plain(error)
    assert kernel.value("other") == "4"


def test_a_compile_error_points_at_the_users_line_and_column(kernel):
    error = kernel.run("let fine = 1;\n\nlet wrong: i32 = \"text\";").error
    assert error["ename"] == "E0308" and error["evalue"] == "mismatched types"
    text = plain(error)
    # Frontends show colours; they turn other terminal sequences into garbage.
    assert not re.search(r"\x1b(?!\[[0-9;]*m)", "\n".join(error["traceback"]))
    assert re.search(r"In \[\d+\]:3:18", text) and "3 | let wrong: i32 = \"text\";" in text
    assert "expected `i32`, found `&str`" in text


def test_a_panic_names_the_lines_of_every_cell_on_its_way(kernel):
    kernel.run("fn pick(v: &[i32], at: usize) -> i32 {\n    v[at]\n}")
    kernel.run("let kept = 6;")
    error = kernel.run("let v = vec![1];\npick(&v, 9)").error
    text = plain(error)
    assert error["ename"] == "Panic" and "index out of bounds" in error["evalue"]
    assert re.search(r"in pick at In \[\d+\]:2:5", text) and re.search(r"at In \[\d+\]:2:1\b", text)
    assert "rust_begin_unwind" not in text and "/lib.rs" not in text
    assert kernel.value("kept") == "6"
    # Cells that are loaded after the first panic are found too.
    kernel.run("fn later(v: &[i32]) -> i32 {\n    pick(v, 8)\n}")
    text = plain(kernel.run("let v = vec![1];\n\nlater(&v)").error)
    assert re.search(r"in later at In \[\d+\]:2:5", text) and re.search(r"in the cell at In \[\d+\]:3:1\b", text)


def test_an_err_from_a_question_mark_names_its_type_and_line(kernel):
    error = kernel.run("let before = 1;\nlet n: i32 = \"z\".parse()?;").error
    assert error["ename"] == "ParseIntError" and error["evalue"] == "invalid digit found in string"
    assert re.search(r"In \[\d+\]:2:14", plain(error))


def test_a_crash_names_what_it_cost_and_items_stay(kernel):
    kernel.run("fn stays() -> i32 { 11 }\nlet lost_one = 1;")
    for code, reason in [
        ("std::process::abort()", "SIGABRT"),
        ("std::process::exit(3)", "exit status: 3"),
        ("fn down(n: u64) -> u64 { if n == 0 { 0 } else { 1 + down(n + 1) } }\ndown(1)", "stack overflow"),
        ("unsafe { std::ptr::read_volatile(std::hint::black_box(16) as *const u8) }", "segmentation fault"),
    ]:
        kernel.run("let lost_two = 2;")
        error = kernel.run(code).error
        assert error["ename"] == "Terminated" and reason in error["evalue"], error
        assert "lost_two" in error["evalue"]
        assert kernel.value("stays()") == "11"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("let a = 1;\nstd::process::abort();", 2),
        ("let a = 1;\nfn sinks(n: u64) -> u64 { if n == 0 { 0 } else { 1 + sinks(n + 1) } }\nsinks(1)", 2),
        ("fn reads(at: usize) -> u8 {\n    let p = at as *const u8;\n    unsafe { *p }\n}\nreads(16)", 3),
        ("extern \"C\" fn never() {\n    panic!(\"boom\");\n}\nnever();", 2),
        ("let a = 1;\nunsafe extern \"C\" { fn raise(signal: i32) -> i32; }\nunsafe { raise(11) };", 3),
        ("let a = 1;\nstd::thread::spawn(|| {\n    std::process::abort()\n}).join();", 3),
    ],
)
def test_a_crash_names_the_line_it_happened_on(kernel, code, line):
    error = kernel.run(code).error
    assert error["ename"] == "Terminated"
    assert re.search(rf" at In \[\d+\]:{line}:\d+\. ", error["evalue"]), error["evalue"]
    assert code.splitlines()[line - 1].strip() in plain(error), "and shows it"


def test_the_end_of_a_process_that_is_no_crash_names_no_line(kernel):
    assert " at In " not in kernel.run("std::process::exit(3)").error["evalue"]


def test_out_of_memory_is_named_with_what_it_cost_and_the_next_cell_works(fresh):
    fresh.value("fn stays() -> i32 { 11 }\nlet lost_one = 1;")
    child = next(child for child in fresh.process.children() if child.cmdline()[0].endswith("wavemesh-kernel"))
    limit = child.memory_info().vms + (256 << 20)
    child.rlimit(psutil.RLIMIT_AS, (limit, limit))
    error = fresh.run("let hungry: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 16 << 20]).collect();").error
    assert error["ename"] == "Terminated"
    assert re.fullmatch(r"out of memory: an allocation of 16\.0 MiB failed at In \[\d+\]:1:\d+\. Lost variables: lost_one\.", error["evalue"])
    assert fresh.value("stays()") == "11"


def test_an_unknown_command_suggests_the_nearest(kernel):
    assert "`:vars`" in kernel.run(":var").error["evalue"]


def test_vars_is_a_table_with_types_and_sizes(kernel):
    kernel.run("let table = vec![0f32; 1000];")
    shown = kernel.run(":vars").of("execute_result")[0]["data"]
    assert re.search(r"table +std::vec::Vec<f32> +1000 +3\.9 KiB", shown["text/plain"])
    assert "<td" in shown["text/html"] and "Vec&lt;f32&gt;" in shown["text/html"]


def test_vars_knows_the_shapes_of_the_librarys_values(kernel):
    kernel.value("let zeros = candle_core::Tensor::zeros((2, 3), candle_core::DType::F64, &candle_core::Device::Cpu)?;\nlet rows = vec![vec![1.0f32; 4]; 3];")
    shown = kernel.run(":vars").of("execute_result")[0]["data"]["text/plain"]
    assert re.search(r"zeros +\S+ +2 × 3 +\d+ B", shown) and re.search(r"rows +\S+ +3 × 4 ", shown), shown


def test_a_shell_command_streams_and_its_failure_is_an_error(kernel):
    ran = kernel.run("!echo one; echo two >&2; exit 3")
    assert ran.stream() == "one\n" and ran.stream("stderr") == "two\n"
    assert "exit status: 3" in ran.error["evalue"]


def test_time_says_where_the_time_went(kernel):
    assert re.search(r"total \S+ s: analysis \S+ s, rustc \S+ s \(1 build\), link \S+ s, load \S+ s, run \S+ s", kernel.run("%time\n1 + 1").stream())


def test_an_exported_project_builds_and_says_what_the_cells_said(fresh, program, tmp_path):
    folder = tmp_path / "Notes of today"
    fresh.value("use std::collections::BTreeMap;\nfn exported() -> i32 { 1 }\nlet mut counts: BTreeMap<&str, i32> = BTreeMap::new();")
    fresh.value("// the better one\nfn exported() -> i32 { 40 }")
    assert fresh.run("no_such_name").status == "error", "a cell that fails is not exported"
    fresh.value(":opt 1\ncounts.insert(\"two\", \"2\".parse()?);\nlet shape = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?.dims().to_vec();")
    said = fresh.run("println!(\"the sum is {}\", exported() + counts[\"two\"]);\nshape").stream()
    assert fresh.run(f":export {folder}").status == "ok"
    manifest = (folder / "Cargo.toml").read_text()
    assert 'name = "notes_of_today"' in manifest and "wavemesh = { path = " in manifest

    # As cargo would, against the library that is already compiled.
    bundle = subprocess.run([program, "library", "path"], check=True, capture_output=True, text=True).stdout.strip()
    known = json.loads(open(f"{bundle}/bundle.json").read())
    command = [known["toolchain"]["rustc"], "--edition=2024", "-Cprefer-dynamic", f"-Ldependency={bundle}/lib",
               f"--extern=wavemesh={bundle}/lib/{known['file']}", str(folder / "src" / "main.rs"), "-o", str(tmp_path / "notes")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    libraries = os.pathsep.join([f"{bundle}/lib", known["toolchain"]["libdir"]])
    ran = subprocess.run([tmp_path / "notes"], env=os.environ | {"LD_LIBRARY_PATH": libraries}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert said == "the sum is 42\n" and said in ran.stdout and "[2, 3]" in ran.stdout

    # Back into a notebook.
    fresh.value(":clear")
    assert said in fresh.run(f":load {folder}").stream()
    assert fresh.value("counts.len()") == "1"


def test_an_exported_project_has_what_the_notebook_means(fresh, tmp_path):
    (tmp_path / "tool/src").mkdir(parents=True)
    (tmp_path / "tool/Cargo.toml").write_text('[package]\nname = "tool"\nversion = "0.1.0"\nedition = "2024"\n[features]\nmore = []\n')
    (tmp_path / "tool/src/lib.rs").write_text('#[cfg(feature = "more")]\npub fn more() -> i32 { 5 }')
    fresh.value(f':dep tool = {{ path = "{tmp_path}/tool", features = ["more"] }}\nuse std::collections::{{HashMap}};\nlet tool = tool::more();')
    fresh.value("use std::collections::{BTreeMap};\nstruct P;\nimpl P { fn a(&self) -> i32 { 1 } fn b(&self) -> i32 { 2 } }")
    fresh.value("impl P { fn a(&self) -> i32 { 3 } }\nlet maps = (HashMap::<u8, u8>::new(), BTreeMap::<u8, u8>::new());\nP.a() + P.b() + tool")
    assert fresh.run(f":export {tmp_path}/project").status == "ok"
    main, manifest = (tmp_path / "project/src/main.rs").read_text(), (tmp_path / "project/Cargo.toml").read_text()
    # The library takes minutes to compile, and this test is not about it.
    main = main.replace("use wavemesh::prelude::*;", "").replace("wavemesh::notebook::show!", "dbg!")
    (tmp_path / "project/src/main.rs").write_text(main)
    lines = [line for line in manifest.splitlines() if not line.startswith("wavemesh =")]
    (tmp_path / "project/Cargo.toml").write_text("\n".join(lines))
    ran = subprocess.run(["cargo", "run", "--offline", "-q"], cwd=tmp_path / "project", capture_output=True, text=True,
                         env=os.environ | {"CARGO_TARGET_DIR": str(tmp_path / "target")})
    assert ran.returncode == 0 and "= 10" in ran.stderr, main + ran.stderr


def test_a_long_struct_can_be_folded(kernel):
    cell = "#[derive(Debug)]\nstruct Layer { name: &'static str, weights: Vec<f32> }\nLayer { name: \"first\", weights: vec![0.5; 40] }"
    data = kernel.run(cell).of("execute_result")[0]["data"]
    assert data["text/html"].count("<details open><summary>Layer { name: &quot;first&quot;") == 1
    assert data["text/plain"].startswith("Layer {\n    name: \"first\",\n")


def test_any_value_can_be_displayed_before_its_cell_ends(kernel):
    ran = kernel.run("#[derive(Debug)]\nstruct Small(i32);\nnotebook::display!(Small(7));\nnotebook::display!(\"text\");\nnotebook::display!(notebook::markdown(\"*a*\"));")
    assert [shown["data"]["text/plain"] for shown in ran.of("display_data")] == ["Small(7)", '"text"', "*a*"]
    told = plain(kernel.run("notebook::display(Small(7));").error)
    assert "notebook::display!" in told, told


def test_code_is_loaded_from_a_file(kernel, tmp_path):
    (tmp_path / "more.rs").write_text("fn loaded() -> i32 { 21 }\nloaded() * 2")
    assert kernel.value(f":load {tmp_path / 'more.rs'}") == "42"


def test_a_value_whose_type_follows_from_defaults_alone_is_shown(kernel):
    assert kernel.value("let next = |x| x + 1;\nnext(2)") == "3"
    error = kernel.run('"4".parse()?').error
    assert "type annotations needed" in plain(error) and "wavemesh_cell" not in plain(error) and "plainly" not in plain(error)
