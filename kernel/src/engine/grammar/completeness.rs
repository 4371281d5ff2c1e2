//! Decides whether a cell is complete or its author wants another line. rust-analyzer's parser answers; it also takes the cells apart.
//!
//! An error at the very end of the code means that something is missing: the cell is incomplete. No further line can mend any other error:
//! the cell is invalid. Commands are always complete, except a `:dep` whose brackets are open.

use ra_ap_syntax::{Edition, SourceFile};

use super::delimiters::Delimiters;
use super::{Part, parts, question, rust_of};

const PRELUDE: &str = "fn cell() {\n";
const INDENT: &str = "    ";

/// The state of a piece of code.
#[derive(Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It can be run.
    Complete,
    /// Another line is expected, indented like this.
    Incomplete { indent: String },
    /// It has an error that no further line can mend.
    Invalid,
}

/// Judges `code`, the text of a cell.
pub fn is_complete(code: &str) -> Completeness {
    if question(code).is_some() {
        return Completeness::Complete;
    }
    if let Some(Part::Command(command)) = parts(code, &|_| false).last()
        && command.goes_on()
    {
        return Completeness::Incomplete { indent: INDENT.to_owned() };
    }
    let code = rust_of(code);
    let delimiters = Delimiters::of(&code);
    let incomplete = || Completeness::Incomplete { indent: INDENT.repeat(delimiters.open.len()) };
    if delimiters.misplaced.is_some() {
        return Completeness::Invalid;
    }
    if delimiters.unterminated.is_some() || !delimiters.open.is_empty() {
        // Errors inside an open block look the same as those that the end of the block would mend.
        return incomplete();
    }
    // The closing brace gets its own line, so that a comment at the end does not swallow it.
    let parsed = SourceFile::parse(&format!("{PRELUDE}{code}\n}}"), Edition::Edition2024);
    let end = PRELUDE.len() + delimiters.end;
    let errors = parsed.errors();
    if errors.is_empty() {
        if delimiters.ends_in_attribute { incomplete() } else { Completeness::Complete }
    } else if errors.iter().all(|error| usize::from(error.range().start()) >= end) {
        incomplete()
    } else {
        Completeness::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indent(depth: usize) -> Completeness {
        Completeness::Incomplete { indent: INDENT.repeat(depth) }
    }

    #[test]
    fn whole_cells_are_complete() {
        for code in [
            "",
            "1 + 1",
            "let x = 5;",
            "let x = 5;\nx * 2",
            "fn f(a: i32) -> i32 {\n    a\n}",
            "use std::collections::HashMap;",
            "struct A { x: f32 }\nimpl A { fn f(&self) -> f32 { self.x } }",
            "println!(\"{}\", '{')",
            "r#\"a \" b\"#",
            "// just a comment",
            "/* and /* another */ */ 1",
            ":dep candle-core = \"0.11\"",
            ":dep rand\nlet x = 1;",
            "!ls -l 'unbalanced",
            "!./run.sh",
            "let x = 1;\n!./run.sh 'x",
            "%time",
            "%time (0..9).sum::<u64>()",
            "%load_ext wavemesh_kernel",
            "?Vec",
            "let f = |x: &'static str| x.len();",
            "#[derive(Debug)]\nstruct A;",
            "macro_rules! m { ($x:expr) => { $x + 1 } }",
            "for i in 0..3 { print!(\"{i}\"); }",
            "std::fs::read(\"x\")?",
            "x.iter().map(|v| v * 2).collect::<Vec<_>>()",
        ] {
            assert_eq!(is_complete(code), Completeness::Complete, "{code}");
        }
    }

    #[test]
    fn open_cells_ask_for_a_line_indented_by_depth() {
        for (code, depth) in [
            ("fn f() {", 1),
            ("fn f() {\n    if true {", 2),
            ("let v = vec![\n    1,", 1),
            ("foo(", 1),
            ("let x =", 0),
            ("1 +", 0),
            ("x.", 0),
            ("let s = \"abc", 0),
            ("let s = r#\"abc", 0),
            ("/* comment", 0),
            ("#[derive(Debug)]", 0),
            ("if true {} else", 0),
            ("struct A", 0),
            ("fn f() // then {", 0),
            (":dep rand\nfn f() {", 1),
            ("%time foo(", 1),
            ("!ls\nlet x =", 0),
        ] {
            assert_eq!(is_complete(code), indent(depth), "{code}");
        }
    }

    #[test]
    fn errors_that_no_line_mends_are_invalid() {
        for code in ["fn 3() {}", "foo(]", "}", "let x = ;", "1 +* 2)", "struct { }", "let x == 3 3;"] {
            assert_eq!(is_complete(code), Completeness::Invalid, "{code}");
        }
    }
}
