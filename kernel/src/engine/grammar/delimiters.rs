//! The brackets and quotes of a piece of code that may stop anywhere.

use ra_ap_parser::LexedStr;
use ra_ap_syntax::{Edition, SyntaxKind};

/// What is open at the end of a piece of code.
pub struct Delimiters {
    /// The brackets that are still open, each with its byte.
    pub open: Vec<(SyntaxKind, usize)>,
    /// The first closing bracket that matches no open bracket of its kind.
    pub misplaced: Option<Misplaced>,
    /// The byte of the first string, character or comment that does not end.
    pub unterminated: Option<usize>,
    /// Where the last token ends, without trailing blanks and comments.
    pub end: usize,
    /// Whether it ends with `#[…]` and nothing follows to which the attribute could apply.
    pub ends_in_attribute: bool,
}

/// A closing bracket without a matching opening one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// The byte of the closing bracket.
    pub at: usize,
    /// The byte of the bracket that was open there, if any.
    pub open: Option<usize>,
}

impl Delimiters {
    pub fn of(code: &str) -> Delimiters {
        use SyntaxKind::{COMMENT, L_BRACK, L_CURLY, L_PAREN, POUND, R_BRACK, R_CURLY, R_PAREN, WHITESPACE};
        let mut found =
            Delimiters { open: Vec::new(), misplaced: None, unterminated: None, end: 0, ends_in_attribute: false };
        let tokens = LexedStr::new(Edition::Edition2024, code);
        let mut previous = None;
        let mut attribute_depth = None;
        for index in 0..tokens.len() {
            let kind = tokens.kind(index);
            let at = tokens.text_range(index).start;
            let lacks_its_end =
                |error: &str| error.starts_with("Missing trailing") || begins_raw_string(tokens.text(index));
            if tokens.error(index).is_some_and(lacks_its_end) {
                found.unterminated = found.unterminated.or(Some(at));
            }
            if matches!(kind, WHITESPACE | COMMENT) {
                continue;
            }
            found.ends_in_attribute = false;
            match kind {
                L_PAREN | L_BRACK | L_CURLY => {
                    if kind == L_BRACK && previous == Some(POUND) {
                        attribute_depth = Some(found.open.len());
                    }
                    found.open.push((kind, at));
                }
                R_PAREN | R_BRACK | R_CURLY => {
                    let opener = match kind {
                        R_PAREN => L_PAREN,
                        R_BRACK => L_BRACK,
                        _ => L_CURLY,
                    };
                    let last = found.open.pop();
                    if last.is_none_or(|(open, _)| open != opener) {
                        found.misplaced = Some(Misplaced { at, open: last.map(|(_, open)| open) });
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

    /// Whether nothing is open.
    pub fn is_closed(&self) -> bool {
        self.open.is_empty() && self.unterminated.is_none() && self.misplaced.is_none()
    }

    /// Whether a statement may begin after `code`.
    pub fn ends_statement(&self, code: &str) -> bool {
        let code = &code[..self.end];
        self.is_closed() && (code.is_empty() || code.ends_with([';', '}']))
    }
}

/// Whether an erroneous token is a raw string without its end: `r#"…`.
fn begins_raw_string(token: &str) -> bool {
    let marker = token.trim_start_matches(['b', 'c']);
    marker.strip_prefix('r').is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bracket_without_a_partner_is_found_where_it_stands() {
        for (code, at, open) in [
            ("}\nlost();", 0, None),
            ("let a = 1;\n)", 11, None),
            ("f(])", 2, Some(1)),
            ("fn f() { ( }", 11, Some(9)),
            ("'{' \"{\" /* { */ }", 16, None),
        ] {
            assert_eq!(Delimiters::of(code).misplaced, Some(Misplaced { at, open }), "{code}");
        }
        for (code, at) in [("let a = \"x;", 8), ("1 /* a", 2), ("let r = r#\"x\";", 8), ("b'", 0)] {
            assert_eq!(Delimiters::of(code).unterminated, Some(at), "{code}");
        }
        let open = Delimiters::of("fn f() {\n    g(\n");
        assert_eq!(open.open.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [7, 14]);
        assert!(open.misplaced.is_none() && Delimiters::of("fn f() { [(1)] }").is_closed());
    }
}
