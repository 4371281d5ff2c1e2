//! Is a cell a whole one, or does its author want another line? Answered by rust-analyzer's parser, the one that evcxr
//! splits cells with.
//!
//! An error at the very end of the code means that something is missing: incomplete. Any other error is one that no
//! further line can mend: invalid.

use ra_ap_parser::LexedStr;
use ra_ap_syntax::{Edition, SourceFile, SyntaxKind};
use serde_json::{Value, json};

const PRELUDE: &str = "fn cell() {\n";
const INDENT: &str = "    ";

/// What can be said of a piece of code.
#[derive(Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It can be run.
    Complete,
    /// Another line is expected, indented like this.
    Incomplete { indent: String },
    /// It has an error that no further line mends.
    Invalid,
}

impl Completeness {
    /// The content of `is_complete_reply`.
    pub fn reply(self) -> Value {
        match self {
            Completeness::Complete => json!({ "status": "complete" }),
            Completeness::Incomplete { indent } => json!({ "status": "incomplete", "indent": indent }),
            Completeness::Invalid => json!({ "status": "invalid" }),
        }
    }
}

/// Judges `code`, the text of a cell.
pub fn is_complete(code: &str) -> Completeness {
    let code = without_commands(code);
    let delimiters = Delimiters::of(&code);
    let incomplete = || Completeness::Incomplete { indent: INDENT.repeat(delimiters.open.len()) };
    if delimiters.mismatched {
        return Completeness::Invalid;
    }
    if delimiters.unterminated || !delimiters.open.is_empty() {
        // The errors inside an open block cannot be told from those that its end would mend.
        return incomplete();
    }
    // A body of its own line, so that a comment at the end does not swallow the brace.
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

/// Lines that are commands (`:dep …`, `!ls`, `%time`, `?name`) are complete in themselves. They are blanked, so that
/// the rest keeps its place.
fn without_commands(code: &str) -> String {
    let is_command = |line: &str| {
        let mut chars = line.trim_start().chars();
        match chars.next() {
            Some(':' | '%') => chars.next().is_some_and(|next| next.is_ascii_alphabetic() || next == '%'),
            Some('?') => true,
            Some('!') => chars.next().is_some_and(|next| next.is_ascii_alphabetic()),
            _ => false,
        }
    };
    // Only where a statement may begin: inside brackets or strings such a line is Rust.
    let mut output = String::with_capacity(code.len());
    for line in code.split_inclusive('\n') {
        let at_start = || {
            let before = Delimiters::of(&output);
            before.open.is_empty() && !before.unterminated && before.ends_statement(&output)
        };
        if is_command(line) && at_start() {
            output.extend(line.chars().filter(|c| *c == '\n'));
        } else {
            output.push_str(line);
        }
    }
    output
}

/// The brackets and quotes of a piece of code.
struct Delimiters {
    /// Those that are still open.
    open: Vec<SyntaxKind>,
    /// A bracket is closed by another kind of bracket, or was never opened.
    mismatched: bool,
    /// A string, character or comment does not end.
    unterminated: bool,
    /// Where the last token ends, blanks and comments aside.
    end: usize,
    /// `#[…]` with nothing after it that it could be about.
    ends_in_attribute: bool,
}

impl Delimiters {
    fn of(code: &str) -> Delimiters {
        use SyntaxKind::{COMMENT, L_BRACK, L_CURLY, L_PAREN, POUND, R_BRACK, R_CURLY, R_PAREN, WHITESPACE};
        let mut found =
            Delimiters { open: Vec::new(), mismatched: false, unterminated: false, end: 0, ends_in_attribute: false };
        let tokens = LexedStr::new(Edition::Edition2024, code);
        let mut previous = None;
        let mut attribute_depth = None;
        for index in 0..tokens.len() {
            let kind = tokens.kind(index);
            found.unterminated |= tokens
                .error(index)
                .is_some_and(|error| error.starts_with("Missing trailing") || begins_raw_string(tokens.text(index)));
            if matches!(kind, WHITESPACE | COMMENT) {
                continue;
            }
            found.ends_in_attribute = false;
            match kind {
                L_PAREN | L_BRACK | L_CURLY => {
                    if kind == L_BRACK && previous == Some(POUND) {
                        attribute_depth = Some(found.open.len());
                    }
                    found.open.push(kind);
                }
                R_PAREN | R_BRACK | R_CURLY => {
                    let opener = match kind {
                        R_PAREN => L_PAREN,
                        R_BRACK => L_BRACK,
                        _ => L_CURLY,
                    };
                    if found.open.pop() != Some(opener) {
                        found.mismatched = true;
                        return found;
                    }
                    if attribute_depth == Some(found.open.len()) {
                        attribute_depth = None;
                        found.ends_in_attribute = true;
                    }
                }
                _ => {}
            }
            previous = Some(kind);
            found.end = tokens.text_range(index).end;
        }
        found
    }

    fn ends_statement(&self, code: &str) -> bool {
        let code = &code[..self.end];
        code.is_empty() || code.ends_with([';', '}', ']', ')'])
    }
}

/// Whether an erroneous token is a raw string, which then lacks its end: `r#"…`.
fn begins_raw_string(token: &str) -> bool {
    let marker = token.trim_start_matches(['b', 'c']);
    marker.strip_prefix('r').is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
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
            "%time",
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
