//! The brackets and quotes of a piece of code that may stop anywhere.

use ra_ap_parser::LexedStr;
use ra_ap_syntax::{Edition, SyntaxKind};

/// What is open at the end of a piece of code.
pub struct Delimiters {
    /// Brackets that are still open.
    pub open: Vec<SyntaxKind>,
    /// A bracket is closed by another kind of bracket, or was never opened.
    pub mismatched: bool,
    /// A string, character or comment does not end.
    pub unterminated: bool,
    /// Where the last token ends, blanks and comments aside.
    pub end: usize,
    /// `#[…]` with nothing after it that it could be about.
    pub ends_in_attribute: bool,
}

impl Delimiters {
    pub fn of(code: &str) -> Delimiters {
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

    /// Whether nothing is open.
    pub fn is_closed(&self) -> bool {
        self.open.is_empty() && !self.unterminated && !self.mismatched
    }

    /// Whether a statement may begin behind `code`.
    pub fn ends_statement(&self, code: &str) -> bool {
        let code = &code[..self.end];
        self.is_closed() && (code.is_empty() || code.ends_with([';', '}']))
    }
}

/// Whether an erroneous token is a raw string, which then lacks its end: `r#"…`.
fn begins_raw_string(token: &str) -> bool {
    let marker = token.trim_start_matches(['b', 'c']);
    marker.strip_prefix('r').is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
}
