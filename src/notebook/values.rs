//! Values as text: their `Debug` text, laid out for a page.
//!
//! | value | is shown |
//! | --- | --- |
//! | fits a line of 100 columns | on one line |
//! | a list of plain values | on as few lines as it takes |
//! | a matrix (lists of plain values in a list) | a row a line, its columns aligned, as NumPy prints it |
//! | more than 1000 numbers in a list or matrix | its first and last three, in each direction |
//! | a list of other things, a struct, a map | a line an element |
//! | a text longer than 2000 characters | its beginning, and how long it is |
//!
//! If a value takes one line per element, its elements can be folded one by one on pages that show HTML ([`fold`]).

use std::fmt::{Debug, Write};

use super::MimeBundle;

mod fold;

/// The number of columns in a line.
const WIDTH: usize = 100;
/// A list with more values than this is shortened to [`EDGE`] at each end.
const MANY: usize = 1000;
const EDGE: usize = 3;
/// A list of larger things with more elements than this is shortened to [`LARGE_EDGE`] at each end.
const MANY_LARGE: usize = 100;
const LARGE_EDGE: usize = 10;
/// Values are aligned if the lengths of their texts differ by no more than this.
const ALIGNED: usize = 8;
/// How many characters of a text are shown.
const LONG_TEXT: usize = 2000;
/// At most this many bytes are formatted: nobody would read more, and formatting takes time.
const FORMATTED: usize = 8 << 20;
/// At most this many bytes are shown.
const SHOWN: usize = 20_000;

/// The `Debug` text of a value, laid out as this module describes.
pub(crate) fn debug_bundle(value: &dyn Debug) -> MimeBundle {
    let mut line = Limited { text: String::new(), left: FORMATTED };
    let is_whole = write!(line, "{value:?}").is_ok();
    let node = Parser::new(&line.text).whole().filter(|_| !line.text.contains('\n')).map(cut);
    let text = match &node {
        Some(node) => layout(node, 0),
        None if line.text.len() <= WIDTH => line.text,
        None => pretty(value),
    };
    // If formatting stopped early, the end of the value is not known.
    if !is_whole {
        return MimeBundle::text(format!("{}\n… (cut)", shortened(text)));
    }
    let folded = node.filter(|_| text.len() <= SHOWN).and_then(|node| fold::html(&node));
    let bundle = MimeBundle::text(shortened(text));
    match folded {
        Some(html) => bundle.with_html(html),
        None => bundle,
    }
}

/// The standard library's own layout, for text that does not consist of brackets.
fn pretty(value: &dyn Debug) -> String {
    let mut pretty = Limited { text: String::new(), left: SHOWN };
    if write!(pretty, "{value:#?}").is_err() {
        pretty.text.push_str("\n… (cut)");
    }
    pretty.text
}

fn shortened(mut text: String) -> String {
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push_str("\n… (cut)");
    }
    text
}

/// A text that stops growing at a number of bytes, so that formatting a huge value ends early.
struct Limited {
    text: String,
    left: usize,
}

impl Write for Limited {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        if s.len() > self.left {
            self.text.push_str(&s[..s.floor_char_boundary(self.left)]);
            self.left = 0;
            return Err(std::fmt::Error);
        }
        self.left -= s.len();
        self.text.push_str(s);
        Ok(())
    }
}

/// `Name { a: 1 }`, `[1, 2]`, `Some(3)`, `"key": 4`: a text, perhaps followed by a bracket.
#[derive(Debug)]
struct Node {
    text: String,
    group: Option<Group>,
}

#[derive(Debug)]
struct Group {
    open: char,
    items: Vec<Node>,
}

impl Group {
    fn close(&self) -> char {
        match self.open {
            '(' => ')',
            '[' => ']',
            _ => '}',
        }
    }

    fn is_plain(&self) -> bool {
        self.items.iter().all(|item| item.group.is_none())
    }

    fn is_matrix(&self) -> bool {
        let is_row = |item: &Node| {
            item.text.is_empty() && item.group.as_ref().is_some_and(|row| row.open == '[' && row.is_plain())
        };
        self.open == '[' && self.items.iter().filter(|item| !item.is_ellipsis()).all(is_row)
    }
}

impl Node {
    fn plain(text: impl Into<String>) -> Node {
        Node { text: text.into(), group: None }
    }

    fn is_ellipsis(&self) -> bool {
        self.text.starts_with('…')
    }

    /// The number of plain values in it.
    fn count(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.items.iter().map(Node::count).sum())
    }

    fn push_line(&self, line: &mut String) {
        line.push_str(&self.text);
        if let Some(group) = &self.group {
            let space = if group.open == '{' && !self.text.is_empty() && !self.text.ends_with(": ") { " " } else { "" };
            line.push(group.open);
            line.push_str(space);
            for (index, item) in group.items.iter().enumerate() {
                line.push_str(if index > 0 { ", " } else { "" });
                item.push_line(line);
            }
            line.push_str(space);
            line.push(group.close());
        }
    }

    fn line(&self) -> String {
        let mut line = String::new();
        self.push_line(&mut line);
        line
    }
}

/// Parses what derived `Debug` writes.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn new(text: &str) -> Parser<'_> {
        Parser { rest: text }
    }

    /// The whole text as one value; brackets that are open at its end are closed there.
    fn whole(mut self) -> Option<Node> {
        let node = self.node(0)?;
        self.rest.is_empty().then_some(node)
    }

    fn node(&mut self, depth: usize) -> Option<Node> {
        if depth > 100 {
            return None;
        }
        let mut text = String::new();
        loop {
            let end = self.rest.find(['"', '\'', '(', '[', '{', ')', ']', '}', ',']).unwrap_or(self.rest.len());
            text.push_str(&self.rest[..end]);
            self.rest = &self.rest[end..];
            match self.rest.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    let end = quoted(self.rest, quote);
                    text.push_str(&self.rest[..end]);
                    self.rest = &self.rest[end..];
                }
                Some(open @ ('(' | '[' | '{')) => {
                    self.rest = &self.rest[1..];
                    let items = self.items(open, depth)?;
                    // A space separates a struct's name from its brace.
                    let text = if open == '{' && text.ends_with(' ') && !text.ends_with(": ") {
                        format!("{} ", text.trim_end())
                    } else {
                        text
                    };
                    let ends = self.rest.is_empty() || self.rest.starts_with([',', ')', ']', '}', ' ']);
                    return ends.then_some(Node { text, group: Some(Group { open, items }) });
                }
                _ => return Some(Node::plain(text.trim_end())),
            }
        }
    }

    fn items(&mut self, open: char, depth: usize) -> Option<Vec<Node>> {
        let close = match open {
            '(' => ')',
            '[' => ']',
            _ => '}',
        };
        let mut items = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches(' ');
            match self.rest.chars().next() {
                None => return Some(items),
                Some(next) if next == close => {
                    self.rest = &self.rest[1..];
                    return Some(items);
                }
                Some(')' | ']' | '}') => return None,
                Some(',') => self.rest = &self.rest[1..],
                Some(_) => items.push(self.node(depth + 1)?),
            }
        }
    }
}

/// The length of a quoted text with its quotes; if it does not end, the length of the rest.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// The value with its long lists and texts shortened.
fn cut(node: Node) -> Node {
    let size = node.count();
    cut_below(node, size > MANY)
}

fn cut_below(Node { text, group }: Node, is_large: bool) -> Node {
    let characters = text.chars().count();
    let text = if characters > LONG_TEXT {
        let beginning: String = text.chars().take(LONG_TEXT).collect();
        format!("{beginning}… ({characters} characters)")
    } else {
        text
    };
    let group = group.map(|Group { open, items }| {
        let plain = open == '[' && items.iter().all(|item| item.group.is_none() || item.text.is_empty());
        let (many, edge) = if plain && is_large { (2 * EDGE, EDGE) } else { (MANY_LARGE, LARGE_EDGE) };
        let many = if plain && !is_large { MANY } else { many };
        let length = items.len();
        let mut kept: Vec<Node> = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            if length <= many || index < edge || index >= length - edge {
                kept.push(cut_below(item, is_large));
            } else if index == edge {
                kept.push(Node::plain(if plain {
                    "…".to_owned()
                } else {
                    format!("… ({} more)", length - 2 * edge)
                }));
            }
        }
        Group { open, items: kept }
    });
    Node { text, group }
}

fn layout(node: &Node, indent: usize) -> String {
    let line = node.line();
    let Some(group) = &node.group else { return line };
    if indent + line.chars().count() <= WIDTH {
        return line;
    }
    let inner = indent + node.text.chars().count() + 1;
    if group.open == '[' && group.is_plain() {
        return format!("{}[{}]", node.text, filled(&group.items, inner));
    }
    if group.is_matrix() && !group.items.is_empty() {
        return format!("{}[{}]", node.text, rows(&group.items, inner));
    }
    let separator = format!(",\n{}", " ".repeat(indent + 4));
    let items: Vec<String> = group.items.iter().map(|item| layout(item, indent + 4)).collect();
    let (start, end) = (" ".repeat(indent + 4), " ".repeat(indent));
    format!("{}{}\n{start}{},\n{end}{}", node.text, group.open, items.join(&separator), group.close())
}

/// Plain values on as few lines as possible.
fn filled(items: &[Node], indent: usize) -> String {
    let widths = items.iter().filter(|item| !item.is_ellipsis()).map(|item| item.text.chars().count());
    let (least, most) = (widths.clone().min().unwrap_or(0), widths.max().unwrap_or(0));
    // Numbers are aligned in columns, unless that takes much more room.
    let aligned = if most <= least + ALIGNED { most } else { 0 };
    let mut text = String::new();
    let mut column = indent;
    for (index, Node { text: item, .. }) in items.iter().enumerate() {
        let width = item.chars().count().max(aligned) + 2;
        if index > 0 {
            text.push(',');
            if column + width > WIDTH {
                text.push('\n');
                text.push_str(&" ".repeat(indent));
                column = indent;
            } else {
                text.push(' ');
            }
        }
        let _ = write!(text, "{item:>aligned$}");
        column += width;
    }
    text
}

/// One row per line; if all rows have the same length, columns are aligned to the right.
fn rows(items: &[Node], indent: usize) -> String {
    let cells = |item: &Node| item.group.as_ref().map_or(0, |row| row.items.len());
    let width_of = |column: usize| {
        let cell = |item: &Node| Some(item.group.as_ref()?.items.get(column)?.text.chars().count());
        items.iter().filter_map(cell).max().unwrap_or(0)
    };
    let columns = items.iter().map(cells).max().unwrap_or(0);
    let aligned = items.iter().all(|item| item.is_ellipsis() || cells(item) == columns);
    let widths: Vec<usize> = (0..columns).map(|column| if aligned { width_of(column) } else { 0 }).collect();
    let told = |item: &Node| match &item.group {
        None => item.text.clone(),
        Some(row) => {
            let padded: Vec<String> =
                row.items.iter().zip(&widths).map(|(cell, &width)| format!("{:>width$}", cell.text)).collect();
            let line = padded.join(", ");
            if indent + line.chars().count() + 2 <= WIDTH { format!("[{line}]") } else { layout(item, indent) }
        }
    };
    items.iter().map(told).collect::<Vec<_>>().join(&format!(",\n{}", " ".repeat(indent)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn debug_text(value: &dyn Debug) -> String {
        debug_bundle(value).plain().to_owned()
    }

    #[derive(Debug)]
    #[allow(dead_code)]
    struct Point {
        name: &'static str,
        at: Vec<f64>,
        next: Option<Box<Point>>,
    }

    #[test]
    fn what_fits_a_line_is_one() {
        assert_eq!(debug_text(&[1, 2, 3]), "[1, 2, 3]");
        let point = Point { name: "a, {b}", at: vec![1.0, 2.5], next: None };
        assert_eq!(debug_text(&point), "Point { name: \"a, {b}\", at: [1.0, 2.5], next: None }");
        let map = BTreeMap::from([("k", Some(')')), ("l", None)]);
        assert_eq!(debug_text(&map), "{\"k\": Some(')'), \"l\": None}");
        assert_eq!(debug_text(&((), BTreeMap::<u8, u8>::new(), "it's")), "((), {}, \"it's\")");
    }

    #[test]
    fn a_list_of_numbers_takes_few_lines() {
        let text = debug_text(&(0..100).collect::<Vec<u32>>());
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.starts_with("[ 0,  1,  2") && text.ends_with("98, 99]"), "{text}");
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn a_matrix_has_a_row_a_line_and_aligned_columns() {
        let matrix: Vec<Vec<i64>> =
            (0..6).map(|row| (0..6).map(|column| (row * 10i64).pow(column)).collect()).collect();
        let text = debug_text(&matrix);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!(lines[0], "[[1,  0,    0,      0,       0,         0],");
        assert_eq!(lines[5], " [1, 50, 2500, 125000, 6250000, 312500000]]");
    }

    #[test]
    fn a_long_list_is_cut_in_each_direction_as_numpy_does() {
        assert_eq!(debug_text(&(0..5000).collect::<Vec<u32>>()), "[0, 1, 2, …, 4997, 4998, 4999]");
        let matrix = vec![vec![1.5; 100]; 100];
        let row = "[1.5, 1.5, 1.5, …, 1.5, 1.5, 1.5]";
        assert_eq!(debug_text(&matrix).lines().count(), 7);
        assert!(debug_text(&matrix).starts_with(&format!("[{row},\n {row},\n {row},\n …,\n {row}")));
    }

    #[test]
    fn a_long_text_shows_its_beginning() {
        let text = debug_text(&"y".repeat(21_000));
        assert!(text.starts_with("\"yyyy") && text.ends_with("y… (21002 characters)") && text.len() < 2100, "{text}");
    }

    #[test]
    fn a_struct_has_a_line_a_field() {
        let end = Point { name: "end", at: (0..40).map(f64::from).collect(), next: None };
        let text = debug_text(&Point { name: "start", at: vec![], next: Some(Box::new(end)) });
        let start = "Point {\n    name: \"start\",\n    at: [],\n    next: Some(\n        Point {\n            name: \"end\",\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("            next: None,\n        },\n    ),\n}"), "{text}");
    }

    #[test]
    fn a_struct_of_many_lines_can_be_folded_and_a_short_one_or_a_matrix_is_text() {
        let end = Point { name: "<end>", at: (0..40).map(f64::from).collect(), next: None };
        let bundle = debug_bundle(&Point { name: "start", at: vec![], next: Some(Box::new(end)) });
        let html = bundle.get("text/html").unwrap_or_default();
        assert_eq!((html.matches("<details").count(), html.matches("<summary>").count()), (2, 2), "{html}");
        assert!(html.contains("<summary>Point { name: &quot;start&quot;, at: [], next: Some(Point {"), "{html}");
        assert!(
            html.contains("<div>at: []</div>") && html.contains("<div>name: &quot;&lt;end&gt;&quot;</div>"),
            "{html}"
        );
        for plain in [&debug_bundle(&(1, "a")), &debug_bundle(&vec![vec![1234567; 9]; 9]), &debug_bundle(&vec![7; 500])]
        {
            assert_eq!(plain.get("text/html"), None);
        }
    }

    #[test]
    fn what_takes_many_lines_inside_of_another_is_folded_at_first() {
        let rows: BTreeMap<u32, Vec<(&str, u32)>> =
            (0..3).map(|row| (row, vec![("a long enough text", row); 12])).collect();
        let bundle = debug_bundle(&rows);
        let html = bundle.get("text/html").unwrap_or_default();
        assert_eq!((html.matches("<details open>").count(), html.matches("<details>").count()), (1, 3), "{html}");
    }

    #[test]
    fn text_that_is_not_made_of_brackets_stays_as_it_is() {
        struct Odd(&'static str);
        impl Debug for Odd {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        for odd in [")", "a]b", "two\nlines [", "[1)", "x (y"] {
            assert!(debug_text(&Odd(odd)).starts_with(odd.trim_end_matches('(')), "{odd}");
        }
    }

    #[test]
    fn a_huge_value_ends() {
        let long = debug_text(&vec!["abcdefgh"; 2_000_000]);
        assert!(long.ends_with("… (cut)") && long.len() < 21_000, "{}", long.len());
    }
}
