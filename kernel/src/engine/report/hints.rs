//! Hints for common first mistakes: what to do where rustc's message alone does not help a newcomer.

use std::ops::Range;

use ra_ap_syntax::ast::{self, BinaryOp};
use ra_ap_syntax::{AstNode, Edition, SourceFile};

use crate::engine::grammar::table;

/// The most used crates, to recognise names that are almost right.
const CRATES: [&str; 44] = [
    "anyhow",
    "bitflags",
    "bytes",
    "charming",
    "chrono",
    "clap",
    "crossbeam",
    "csv",
    "env_logger",
    "futures",
    "half",
    "image",
    "indicatif",
    "itertools",
    "log",
    "nalgebra",
    "ndarray",
    "num",
    "num_traits",
    "once_cell",
    "parking_lot",
    "petgraph",
    "plotly",
    "plotters",
    "poloto",
    "polars",
    "prettytable",
    "rand",
    "rand_distr",
    "rayon",
    "regex",
    "reqwest",
    "rusqlite",
    "serde",
    "serde_json",
    "statrs",
    "tempfile",
    "thiserror",
    "tokio",
    "toml",
    "tracing",
    "url",
    "uuid",
    "walkdir",
];

/// What to do about a crate that does not exist.
pub fn missing_crate(name: &str) -> String {
    let near = CRATES.iter().map(|known| (strsim::damerau_levenshtein(known, name), *known)).min();
    match near {
        Some((1..=2, near)) if name.len() > 3 || near.len() == name.len() + 1 => {
            format!(
                "there is no crate `{name}` here; did you mean `{near}`? `:dep {near} = \"*\"` in a line above adds it"
            )
        }
        _ => format!(
            "if `{name}` is a crate, `:dep {name} = \"*\"` in a line above adds it; a version instead of `*` pins it"
        ),
    }
}

/// The same for a message in which rustc gives no advice, for example about a `derive`.
pub fn unnamed_crate(message: &str) -> Option<String> {
    let (name, _) = message.strip_prefix("cannot find module or crate `")?.split_once('`')?;
    Some(missing_crate(name))
}

/// What to do about an error with this message at this place of a cell.
pub fn of(message: &str, source: &str, at: &Range<usize>) -> Option<String> {
    python(message, source)
        .or_else(|| command(source, at))
        .or_else(|| operand(message, source, at))
        .or_else(|| display(message, source, at))
        .or_else(|| literal(message, source, at))
}

/// Python that was pasted into a Rust cell.
fn python(message: &str, source: &str) -> Option<String> {
    let is_python = |line: &str| {
        let first = line.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        match first {
            "import" => !line.ends_with(';'),
            "from" => line.contains(" import "),
            "def" | "class" | "elif" | "except" => line.ends_with(':'),
            "for" | "while" | "if" | "with" | "else" | "try" => line.ends_with(':'),
            _ => false,
        }
    };
    let unread = message.starts_with("expected") || message.starts_with("missing");
    (unread && source.lines().any(|line| is_python(line.trim()))).then(|| {
        "this looks like Python, and this cell is read as Rust. Where Python and Rust share a notebook, a cell that begins with \
         `%%python` is Python."
            .to_owned()
    })
}

/// A command inside Rust, where commands cannot be.
fn command(source: &str, at: &Range<usize>) -> Option<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (before, from) = (source.get(..at.start)?, source.get(at.start..)?);
    let named = from.strip_prefix('%').and_then(|rest| rest.split(|c| !is_word(c)).next());
    if let Some(found) = named.and_then(|name| table::find(&format!("%{name}"))) {
        let name = found.name;
        return Some(format!("`{name}` is a command. It begins a line, outside of brackets: `{name} EXPRESSION`"));
    }
    let word = from.split(|c| !is_word(c)).next().filter(|word| !word.is_empty())?;
    let begins = before.strip_suffix('!')?.trim_end_matches(' ');
    // In `a !b` or `a != b` this is no command.
    (begins.is_empty() || begins.ends_with(['\n', '{', '=', ';'])).then(|| {
        format!(
            "a command of the shell (`!{word}`) begins a line, outside of brackets; Rust runs one by \
             `std::process::Command::new(\"{word}\")`"
        )
    })
}

/// An operator that has a `Result` as operand: where to put `?`.
fn operand(message: &str, source: &str, at: &Range<usize>) -> Option<String> {
    let is_result = |text: &str| text.trim_start_matches(['`', '&']).starts_with("Result<");
    let (left, right) =
        if let Some(rest) = message.strip_prefix("cannot add ").or(message.strip_prefix("cannot subtract ")) {
            let (right, left) = rest.split_once("` to ").or_else(|| rest.split_once("` from "))?;
            (is_result(left), is_result(right))
        } else if let Some(rest) = message.strip_prefix("cannot multiply ").or(message.strip_prefix("cannot divide ")) {
            let (left, right) = rest.split_once("` by ")?;
            (is_result(left), is_result(right))
        } else {
            let rest = message.strip_prefix("binary operation `")?;
            (is_result(rest.split_once("type ")?.1), false)
        };
    let sides = operation(source, at.start)?;
    let value = if left { sides.0 } else { sides.1.filter(|_| right)? };
    let simple = !value.contains(' ') || value.ends_with(')');
    let mended = if simple { format!("{value}?") } else { format!("({value})?") };
    Some(format!("`{value}` is a `Result`. `?` takes its value, or ends the cell with its error: `{mended}`"))
}

/// The operands of the operator at a byte.
fn operation(source: &str, at: usize) -> Option<(String, Option<String>)> {
    const PRELUDE: &str = "fn f(){";
    let parsed = SourceFile::parse(&format!("{PRELUDE}{source}\n}}"), Edition::Edition2024);
    let operations = parsed.syntax_node().descendants().filter_map(ast::BinExpr::cast).collect::<Vec<_>>();
    let found = operations.into_iter().find(|operation| {
        let token = operation.op_token();
        let start = token.map(|token| usize::from(token.text_range().start()));
        let left = operation.lhs().map(|left| usize::from(left.syntax().text_range().start()));
        let is_value = !matches!(operation.op_kind(), None | Some(BinaryOp::Assignment { op: None }));
        is_value && (start == Some(at + PRELUDE.len()) || left == Some(at + PRELUDE.len()))
    })?;
    let text = |side: ast::Expr| side.syntax().text().to_string();
    Some((text(found.lhs()?), found.rhs().map(text)))
}

/// A method that shows values in other languages.
fn display(message: &str, source: &str, at: &Range<usize>) -> Option<String> {
    let rest = message.strip_prefix("no method named `")?;
    let (method, _) = rest.split_once('`')?;
    if !["show", "display", "print", "plot", "head", "describe", "view"].contains(&method) {
        return None;
    }
    let before = source.get(..at.start)?.trim_end().strip_suffix('.')?;
    let value =
        before.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').next().filter(|value| !value.is_empty());
    let value = value.unwrap_or("the value");
    Some(format!("to show a value, end the cell with it, without `;`: `{value}`"))
}

/// A struct literal of options that may gain fields later; these are built with methods.
fn literal(message: &str, source: &str, at: &Range<usize>) -> Option<String> {
    if !message.starts_with("cannot create non-exhaustive struct") {
        return None;
    }
    let (name, fields) = source.get(at.clone())?.split_once('{')?;
    let name = name.trim();
    let field = fields.split(':').next()?.trim();
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let are_options = name.ends_with("Config") || name.ends_with("Options");
    (are_options && is_name(field))
        .then(|| format!("`{name}` is built by methods, one for each field: `{name}::new().{field}(…)`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(message: &str, source: &str, at: &str) -> Option<String> {
        let start = source.find(at).unwrap_or_default();
        of(message, source, &(start..start + at.len()))
    }

    #[test]
    fn python_is_told_from_rust() {
        let unread = "expected one of `!`, `.`, `::`, found `numpy`";
        for source in
            ["import numpy as np", "def f(x):\n    return x", "for i in range(3):\n    print(i)", "from a import b"]
        {
            assert!(hint(unread, source, "").is_some_and(|hint| hint.contains("Python")), "{source}");
        }
        for source in ["for i in 0..3 {\n    let = 1;\n}", "struct A {\n    a: u8\n    b: u8\n}", "match x { A: 1 }"] {
            assert_eq!(hint(unread, source, ""), None, "{source}");
        }
    }

    #[test]
    fn the_side_that_is_a_result_is_told_where_its_question_mark_goes() {
        let source = "let t = a(); (&a + 1.0) * 2.0";
        let told = hint("cannot multiply `Result<Tensor, Error>` by `{float}`", source, "* 2.0").unwrap_or_default();
        assert!(told.ends_with("`(&a + 1.0)?`"), "{told}");
        let told = hint("cannot add `Result<i32, E>` to `i32`", "1 + parse(x)", "+").unwrap_or_default();
        assert!(told.ends_with("`parse(x)?`"), "{told}");
        let told = hint("binary operation `==` cannot be applied to type `Result<i32, E>`", "f() == 1", "==")
            .unwrap_or_default();
        assert!(told.ends_with("`f()?`"), "{told}");
        assert_eq!(hint("cannot add `&str` to `i32`", "1 + \"a\"", "+"), None);
    }

    #[test]
    fn a_method_that_shows_says_how_cells_show() {
        let told = hint(
            "no method named `show` found for struct `Tensor` in the current scope",
            "let a = t;\na.b.show()",
            "show",
        );
        assert!(told.is_some_and(|told| told.ends_with("`a.b`")));
    }

    #[test]
    fn options_written_as_a_literal_are_told_their_methods() {
        let message = "cannot create non-exhaustive struct using struct expression";
        let source = "let c = WaveletConfig { threshold: 0.01, ..Default::default() };";
        let told = hint(message, source, &source[8..source.len() - 1]).unwrap_or_default();
        assert!(told.ends_with("`WaveletConfig::new().threshold(…)`"), "{told}");
        assert_eq!(hint(message, "Other { a: 1 }", "Other { a: 1 }"), None);
        assert_eq!(hint(message, "MyConfig { ..x }", "MyConfig { ..x }"), None);
    }

    #[test]
    fn a_command_among_rust_says_where_commands_stand() {
        let unread = "expected expression, found `%`";
        for (source, at) in [("let z = %time 3;", "%"), ("fn g() {\n    %timeit f()\n}", "%")] {
            assert!(hint(unread, source, at).is_some_and(|hint| hint.contains("begins a line")), "{source}");
        }
        let unknown = "cannot find value `ls` in this scope";
        for source in ["if true { !ls }", "let files = !ls;", "for x in y {\n    !ls -l\n}"] {
            let told = hint(unknown, source, "ls").unwrap_or_default();
            assert!(told.contains("`!ls`") && told.contains("Command::new(\"ls\")"), "{source}: {told}");
        }
        assert_eq!(hint(unknown, "if ready && !ls { }", "ls"), None);
        assert_eq!(hint(unread, "let a = 7 %;", "%"), None);
    }

    #[test]
    fn a_crate_that_is_missing_names_its_line_and_one_nearly_named_is_guessed() {
        assert!(missing_crate("widgets").contains(":dep widgets = \"*\""));
        assert!(missing_crate("rnd").contains("`rand`") && missing_crate("sere").contains("`serde`"));
        assert!(!missing_crate("rand").contains("did you mean"));
    }
}
