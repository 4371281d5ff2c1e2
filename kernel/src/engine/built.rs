//! Built code, and where each byte of it came from.
//!
//! Code for rustc is made of pieces of a cell with insertions between them. Every piece keeps the line on which the user wrote it,
//! so that `line!()`, `dbg!` and panics tell the user's lines; [`Built`] tells the bytes.

use std::ops::Range;

/// A change to a cell's text: `text` replaces `range`. An empty range inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub range: Range<usize>,
    pub text: String,
}

impl Edit {
    /// Inserts `text` before the byte `at`.
    pub fn insert(at: usize, text: impl Into<String>) -> Edit {
        Edit { range: at..at, text: text.into() }
    }

    /// Puts `text` in the place of `range`.
    pub fn replace(range: Range<usize>, text: impl Into<String>) -> Edit {
        Edit { range, text: text.into() }
    }
}

/// Code for rustc that was made of a cell.
#[derive(Clone, Debug, Default)]
pub struct Built {
    pub text: String,
    pieces: Vec<Piece>,
    /// The byte of the cell up to which its lines have been counted.
    line_done: usize,
}

#[derive(Clone, Debug)]
struct Piece {
    /// The byte in the built text.
    at: usize,
    /// The byte in the cell.
    source: usize,
    /// Whether this is the cell's own text; otherwise it was inserted at `source`.
    verbatim: bool,
}

impl Built {
    /// Code built from a text that begins at byte `at` of its source.
    pub fn from(at: usize) -> Built {
        Built { line_done: at, ..Built::default() }
    }

    /// Adds a piece of the cell `source` on its own line, changed by `edits`, which ascend and do not overlap. Pieces must come in the
    /// order of the cell.
    pub fn push(&mut self, source: &str, range: Range<usize>, edits: &[Edit]) {
        self.go_to(source, range.start);
        let mut done = range.start;
        for edit in edits {
            self.verbatim(source, done..edit.range.start);
            self.insert(&edit.text, edit.range.start);
            // Text that is left out keeps its line breaks.
            let lines: String = source[edit.range.clone()].chars().filter(|&c| c == '\n').collect();
            let written = edit.text.matches('\n').count();
            self.insert(lines.get(written..).unwrap_or_default(), edit.range.start);
            done = edit.range.end;
        }
        self.verbatim(source, done..range.end);
        self.line_done = self.line_done.max(range.end);
    }

    /// Adds code that is not in the cell, at the place `at` of the cell. It should have no newline.
    pub fn insert(&mut self, code: &str, at: usize) {
        if !code.is_empty() {
            self.pieces.push(Piece { at: self.text.len(), source: at, verbatim: false });
            self.text.push_str(code);
        }
    }

    /// Adds newlines until the built text is on the line of the byte `at`.
    pub fn go_to(&mut self, source: &str, at: usize) {
        if let Some(between) = source.get(self.line_done..at) {
            let lines: String = between.chars().filter(|&c| c == '\n').collect();
            self.insert(&lines, self.line_done);
            self.line_done = at;
        }
    }

    fn verbatim(&mut self, source: &str, range: Range<usize>) {
        if !range.is_empty() {
            self.pieces.push(Piece { at: self.text.len(), source: range.start, verbatim: true });
            self.text.push_str(&source[range]);
        }
    }

    /// The byte in the cell from which a byte of the built text came, and whether the user wrote it.
    pub fn source_of(&self, built: usize) -> Option<(usize, bool)> {
        let index = self.pieces.partition_point(|piece| piece.at <= built).checked_sub(1)?;
        let piece = &self.pieces[index];
        Some((if piece.verbatim { piece.source + (built - piece.at) } else { piece.source }, piece.verbatim))
    }

    /// The range in the cell from which a range of the built text came, and whether the user wrote its first byte.
    pub fn source_range(&self, range: Range<usize>) -> Option<(Range<usize>, bool)> {
        let (start, verbatim) = self.source_of(range.start)?;
        // The end follows from the last byte, because the next byte may belong to another piece.
        let end = match range.end.checked_sub(1).filter(|&last| last >= range.start) {
            Some(last) => self.source_of(last).map_or(start, |(end, verbatim)| end + usize::from(verbatim)),
            None => start,
        };
        Some((start..end.max(start), verbatim))
    }

    /// The byte at a line and a column. Both count from 1; columns count characters.
    pub fn byte(&self, line: usize, column: usize) -> Option<usize> {
        let start: usize = self.text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
        let text = self.text.get(start..)?.lines().next()?;
        Some(start + text.char_indices().nth(column.saturating_sub(1)).map_or(text.len(), |(at, _)| at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_keeps_its_line_and_its_place() {
        let source = "let x = 1;\nstruct P {\n    a: u8,\n}\nx";
        let mut built = Built::default();
        let item = source.find("struct").unwrap_or(0)..source.find("\nx").unwrap_or(0);
        let field = source.find("a: u8").unwrap_or(0);
        built.push(source, item.clone(), &[Edit::insert(item.start, "pub "), Edit::insert(field, "pub ")]);
        assert_eq!(built.text, "\npub struct P {\n    pub a: u8,\n}");
        for word in ["struct", "a: u8", "P {"] {
            let at = built.text.find(word).unwrap_or(0);
            assert_eq!(built.source_of(at), source.find(word).map(|at| (at, true)), "{word}");
        }
        assert_eq!(built.source_of(2), Some((item.start, false)));
        assert_eq!(built.byte(3, 5), built.text.find("pub a"));
    }

    #[test]
    fn what_is_left_out_leaves_its_lines() {
        let source = "static A: u8 =\n    1;\nfn f() {}";
        let end = source.find(";").unwrap_or(0) + 1;
        let mut built = Built::default();
        built.push(source, 0..source.len(), &[Edit::replace(0..end, "declared;")]);
        assert_eq!(built.text, "declared;\n\nfn f() {}");
    }
}
