//! Values of many lines as HTML in which structs, maps and lists of them can be folded: each is a `<details>` element, which needs no
//! script.
//!
//! A summary is the beginning of the value on one line, so it tells what is folded.

use super::super::escape;
use super::{Node, WIDTH, layout};

/// A value inside another one is folded at first if it takes more lines than this.
const OPEN: usize = 10;
/// The number of columns of a summary.
const SUMMARY: usize = 80;

/// The value as HTML, if something in it can be folded.
pub(super) fn html(node: &Node) -> Option<String> {
    if !is_foldable(node, 0) {
        return None;
    }
    let mut html = "<div style=\"font-family:var(--jp-code-font-family,monospace);white-space:pre-wrap\">".to_owned();
    push(node, 0, &mut html);
    html.push_str("</div>");
    Some(html)
}

/// Whether the value takes one line per element.
fn is_foldable(node: &Node, indent: usize) -> bool {
    node.group.as_ref().is_some_and(|group| {
        !group.items.is_empty()
            && indent + node.line().chars().count() > WIDTH
            && !(group.open == '[' && group.is_plain() || group.is_matrix())
    })
}

fn push(node: &Node, indent: usize, html: &mut String) {
    if !is_foldable(node, indent) {
        html.push_str(&format!("<div>{}</div>", escape(&layout(node, indent))));
        return;
    }
    let is_open = indent == 0 || layout(node, indent).lines().count() <= OPEN;
    let line = node.line();
    let beginning: String = line.chars().take(SUMMARY).collect();
    html.push_str(&format!(
        "<details{}><summary>{}…</summary><div style=\"padding-left:4ch\">",
        if is_open { " open" } else { "" },
        escape(&beginning)
    ));
    for item in inner(node) {
        push(item, indent + 4, html);
    }
    html.push_str("</div></details>");
}

/// The elements of a value; for `Some(Point { … })`, those of the point.
fn inner(node: &Node) -> &[Node] {
    match node.group.as_ref().map(|group| (group.open, &group.items[..])) {
        Some(('(', [only])) if only.group.is_some() => inner(only),
        Some((_, items)) => items,
        None => &[],
    }
}
