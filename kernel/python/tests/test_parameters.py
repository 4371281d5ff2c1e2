"""Parameters of papermill in Rust notebooks: what is written for them. `test_frontends.py` runs such a notebook."""

import math

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillException

from wavemesh_kernel.parameters import RustTranslator


def notebook(defaults):
    """A notebook whose cell of defaults has this text. If the text is None, there is no such cell."""
    cells = [nbformat.v4.new_code_cell("steps")]
    if defaults is not None:
        cells.insert(0, nbformat.v4.new_code_cell(defaults, metadata={"tags": ["parameters"]}))
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata.kernelspec = {"name": "wavemesh", "display_name": "Rust", "language": "rust"}
    return book


def injected(defaults, **parameters):
    """The statements that papermill puts after the defaults. It finds the translator by the entry point alone."""
    book = papermill.execute_notebook(notebook(defaults), None, parameters, prepare_only=True, progress_bar=False)
    (cell,) = [cell for cell in book.cells if "injected-parameters" in cell.metadata.tags]
    comment, *lines = cell.source.splitlines()
    assert comment == "// Parameters"
    return "\n".join(lines)


def like(name, value, keyword="let"):
    """The statement for a default whose type only the compiler knows."""
    return f"{keyword} {name} = {{ fn like<T>(_default: &T, new: T) -> T {{ new }} like(&{name}, {value}) }};"


KEPT = [
    ("let x: u16 = 10;", 21, "let x: u16 = 21;"),
    ("let mut x: f32 = 1.0;", 2, "let mut x: f32 = 2.0;"),
    ("let x = 10u16;", 21, "let x = 21_u16;"),
    ("let x = 10;", 21, like("x", "21")),
    ("let mut x = 10;", 21, like("x", "21", "let mut")),
    ("let x = 10;", 5_000_000_000, like("x", "5000000000")),
    ("let x = 1_000_usize;", 1e3, "let x = 1000_usize;"),
    ("let x = 0.1;", 2, like("x", "2.0")),
    ("let x = 1e-3_f32;", 1e-7, "let x = 1e-07_f32;"),
    ("let x = 1e-3;", math.inf, like("x", '"inf".parse()?')),
    ("let x: f32 = 1e-3;", math.nan, "let x: f32 = f32::NAN;"),
    ("let x = f64::INFINITY;", 1, "let x = 1.0_f64;"),
    ("let x = u8::MAX;", 1, "let x = 1_u8;"),
    ("let x = 3 as usize;", 1, "let x = 1_usize;"),
    ("let x = -2i8;", -128, "let x = -128_i8;"),
    ("let x = false;", True, "let x = true;"),
    ("let x = false;", "true", "let x = true;"),
    ("let x = 'a';", "'", "let x = '\\'';"),
    ('let x = "a";', 'say "a"\n\x07é', 'let x = "say \\"a\\"\\n\\u{7}é";'),
    ('let x = r#"a"b"#;', "c", 'let x = "c";'),
    ('let x = String::from("a; // b");', "c", 'let x = String::from("c");'),
    ('let x = "a b".to_string();', "c", 'let x = String::from("c");'),
    ('let x = "a".to_owned();', "c", 'let x = String::from("c");'),
    ("let x = [1, 2];", [3, 4], like("x", "[3, 4]")),
    ("let x = [1.5, 2.];", [3, 4], like("x", "[3.0, 4.0]")),
    ("let x = [0.0f32; 3];", [1, 2, 3], "let x = [1.0_f32, 2.0_f32, 3.0_f32];"),
    ("let x: &[u8] = &[1];", [3, 4], "let x: &[u8] = &[3, 4];"),
    ("let x = vec![1];", "[3, 4]", like("x", "vec![3, 4]")),
    ("let x = vec!['a'];", [], like("x", "vec![]")),
    ("let x: Vec<f32> = Vec::new();", (1, 2.5), "let x: Vec<f32> = vec![1.0, 2.5];"),
    ("let x: Vec<_> = vec![1u8, 2];", [3], "let x = vec![3_u8];"),
    ('let x = vec![("a", 1)];', [["b", 2]], like("x", 'vec![("b", 2)]')),
    ("let x: [[f32; 2]; 1] = [[0., 0.]];", [[1, 2]], "let x: [[f32; 2]; 1] = [[1.0, 2.0]];"),
    ("let x: Option<usize> = None;", 3, "let x: Option<usize> = Some(3);"),
    ("let x = Some(1u8);", None, like("x", "None")),
    ("let x = (1u8, true);", [2, False], "let x = (2_u8, false);"),
    (
        'let x = std::collections::HashMap::from([("a", 1u8)]);',
        {"b": 2},
        'let x = std::collections::HashMap::from([("b", 2_u8)]);',
    ),
    (
        "let x: BTreeMap<String, f64> = BTreeMap::new();",
        {"b": 2},
        'let x: BTreeMap<String, f64> = BTreeMap::from([(String::from("b"), 2.0)]);',
    ),
    ("const x: usize = 4;", 5, "const x: usize = 5;"),
    ('static x: &str = "a";', "b", 'static x: &str = "b";'),
    ('let x = PathBuf::from("a");', "b", like("x", '"b".into()')),
    ("let x = half(20);", 21, like("x", '"21".parse()?')),
    ("let (x, y) = (1, 2);", 21, like("x", '"21".parse()?')),
    ("/* let x = 1u8; */ let x\n    = 2u16 /* two */;", 3, "let x = 3_u16;"),
    (":dep rand\nuse rand::Rng;\nfn f() {}\nlet x = 1u8;", 3, "let x = 3_u8;"),
    ("let x = 1u8; let x = 'a';", "b", "let x = 'b';"),
    ("let r#x = 1u8;", 3, "let x = 3_u8;"),
]


@pytest.mark.parametrize(("default", "value", "statement"), KEPT)
def test_a_parameter_keeps_the_type_of_its_default(default, value, statement):
    assert injected(default, x=value) == statement


PLAIN = [
    (21, "21"),
    (2**40, f"{2**40}_i64"),
    (2**63, f"{2**63}_u64"),
    (0.5, "0.5"),
    (-math.inf, "f64::NEG_INFINITY"),
    (True, "true"),
    ("a", '"a"'),
    ([1, 2], "vec![1, 2]"),
    ([1, 0.5], "vec![1.0, 0.5]"),
    ({"a": 1}, 'std::collections::BTreeMap::from([("a", 1)])'),
]


@pytest.mark.parametrize("defaults", [None, "let y = 1;"])
@pytest.mark.parametrize(("value", "expression"), PLAIN)
def test_a_parameter_without_a_default_is_a_plain_value(defaults, value, expression):
    assert injected(defaults, x=value) == f"let x = {expression};"


def test_defaults_of_a_notebook_that_was_only_looked_at_do_not_count(tmp_path):
    path = tmp_path / "a.ipynb"
    nbformat.write(notebook("let x: u8 = 1;"), path)
    assert papermill.inspect_notebook(str(path))["x"]["inferred_type_name"] == "u8"
    assert injected(None, x=21) == "let x = 21;"


REFUSED = [
    ("let x: u8 = 1;", 300, "300 does not fit into u8, the type of its default, which goes from 0 to 255"),
    ("let x = 1usize;", -1, "-1 does not fit into usize"),
    ("let x = 1;", 2.5, "2.5 was given, and its default 1 is a whole number"),
    ("let x = 1;", "2", "the text '2' was given, and its default 1 is a whole number; give it without quotes"),
    ("let x = 1;", None, "default 1 is a whole number; a default `Some(…)` takes None"),
    ("let x = true;", 1, "its default true is a boolean"),
    ('let x = "1.1";', 1.1, "is text; `-r` in place of `-p`"),
    (
        "let x = [1, 2];",
        [1],
        "1 elements were given, and its default [1, 2] is an array of 2; a default `vec![…]` takes any number",
    ),
    ("let x = vec![1];", "1 2", "is a list; write it as JSON"),
    ("let x = vec![1];", ["a"], "the text 'a' was given"),
    ("let x = vec![1];", object(), "a object cannot be given to Rust"),
    (None, None, "nothing tells which type None stands for; bind it in a cell with the tag `parameters`"),
    (None, [], "it is empty"),
    (None, [1, "a"], "its elements are of several types"),
    (None, 2**200, "more than 128 bits"),
]


@pytest.mark.parametrize(("default", "value", "message"), REFUSED)
def test_a_value_that_is_none_of_its_type_is_an_error_that_says_what_to_do(default, value, message):
    with pytest.raises(PapermillException) as error:
        injected(default, x=value)
    assert str(error.value).startswith("the parameter `x`: ") and message in str(error.value)


def test_names_that_are_keywords_are_raw_and_others_that_cannot_be_are_refused():
    assert injected(None, type=1) == "let r#type = 1;"
    for name in ("self", "a-b", "1a"):
        with pytest.raises(PapermillException, match="cannot be the name of a variable"):
            injected(None, **{name: 1})


def test_inspection_names_type_default_and_help():
    source = '// How it is run.\nlet steps: u16 = 10; // how many\nlet name = "a";\nlet rate =\n    0.5; let file = open(name);\nprintln!("{steps}");'
    parameters = RustTranslator.inspect(nbformat.v4.new_code_cell(source))
    assert [tuple(parameter) for parameter in parameters] == [
        ("steps", "u16", "10", "how many"),
        ("name", "&str", '"a"', ""),
        ("rate", "f64", "0.5", ""),
        ("file", "None", "open(name)", ""),
    ]
