//! One page of rustdoc's HTML as an [`Item`]: declaration, documentation as Markdown, fields, variants, methods, traits.
//!
//! rustdoc's HTML, unlike its JSON, follows re-exports into compiled crates, so metadata alone is enough to make it and no source is
//! needed. The reader looks only for the few marks that rustdoc has not changed for years, and leaves out what it does not understand.

use super::item::{Item, Kind, Member};

/// Longer documentation is cut here, in bytes.
const LONGEST: usize = 6000;
/// Traits that every type has and nobody looks for.
const DULL: [&str; 7] = [
    "any::Any",
    "borrow::Borrow",
    "borrow::BorrowMut",
    "convert::TryFrom",
    "clone::CloneToUninit",
    "fmt::Debug",
    "hash::Hash",
];

/// Reads the page of the item at `path`; `root` is the name of the documented crate.
pub fn read(html: &str, path: &str, kind: Kind, root: &str) -> Item {
    let main = html.find("<section id=\"main-content\"").map_or("", |at| &html[at..]);
    let declaration =
        between(main, "<pre class=\"rust item-decl\"><code>", "</code></pre>").map(text).unwrap_or_default();
    let docs = main
        .find("<details class=\"toggle top-doc\"")
        .and_then(|at| docblock(&main[at + main[at..].find("<div class=\"docblock\">")?..]))
        .unwrap_or_default();
    // Implementations of traits come after a type's own members, implementors after a trait's.
    let own_end = [
        "trait-implementations",
        "synthetic-implementations",
        "blanket-implementations",
        "implementors",
        "foreign-impls",
    ]
    .iter()
    .filter_map(|id| main.find(&format!("<h2 id=\"{id}\"")))
    .min()
    .unwrap_or(main.len());
    let traits = if kind == Kind::Trait { Vec::new() } else { traits(&main[own_end..], root) };
    Item { path: path.to_owned(), kind, declaration, docs, members: members(&main[..own_end]), traits }
}

fn members(html: &str) -> Vec<Member> {
    // Each mark is looked for once: a page of a crate for mathematics has a thousand members in five megabytes.
    let mut marks: Vec<(usize, &str)> =
        ["<section id=\"", "<span id=\"structfield."].iter().flat_map(|mark| html.match_indices(mark)).collect();
    marks.sort_unstable();
    let ends = marks.iter().skip(1).map(|(at, _)| *at).chain([html.len()]);
    let mut found: Vec<Member> = Vec::new();
    for (&(at, mark), end) in marks.iter().zip(ends) {
        let is_field = mark.starts_with("<span");
        let block = &html[at + mark.len()..end];
        let id = block.split('"').next().unwrap_or_default();
        let (kind, name) = if is_field { ("structfield", id) } else { id.split_once('.').unwrap_or(("", id)) };
        let kind = match kind {
            "structfield" => Kind::Field,
            "variant" if !name.contains('.') => Kind::Variant,
            "method" | "tymethod" => Kind::Method,
            "associatedconstant" => Kind::Constant,
            _ => continue,
        };
        // `new-1` is the second method `new` of the page.
        let name = name.split('-').next().unwrap_or(name);
        let declaration = if is_field {
            between(block, "<code>", "</code>")
        } else {
            between(block, "class=\"code-header\">", if kind == Kind::Variant { "</h3>" } else { "</h4>" })
        };
        let head_end = block.find("<div class=\"docblock\">").unwrap_or(block.len());
        let is_new = !found.iter().any(|known| known.name == name && known.kind == kind);
        if is_new && !block[..head_end].contains("stab unstable") {
            found.push(Member {
                name: name.to_owned(),
                kind,
                declaration: declaration.map(text).unwrap_or_default(),
                docs: docblock(&block[head_end..]).unwrap_or_default(),
            });
        }
    }
    found
}

/// The paths of the traits that a type has. A trait of `std` on another crate's page is given by its name only, since rustdoc writes its
/// internal path.
fn traits(html: &str, root: &str) -> Vec<String> {
    let own = format!("{root}::");
    let mut found: Vec<String> = Vec::new();
    for block in html.split("<section id=\"impl-").skip(1) {
        let head = between(block, "class=\"code-header\">", "</h3>").unwrap_or_default();
        // `impl Add<Tensor> for f32` is on the page, but the trait is not the type's own.
        let implemented = head.split(" for ").next().unwrap_or_default();
        let Some(path) = between(implemented, "title=\"trait ", "\"") else { continue };
        let of_std = ["std::", "core::", "alloc::"].iter().any(|start| path.starts_with(start));
        let path = match path.strip_prefix(&own) {
            Some(path) => path,
            None if of_std => path.rsplit("::").next().unwrap_or(path),
            None => continue,
        };
        // Every type has this impl.
        let is_dull = text(head).trim() == "impl<T> From<T> for T"
            || DULL.iter().any(|dull| {
                path == *dull || path.ends_with(&format!("::{dull}")) || dull.ends_with(&format!("::{path}"))
            });
        if !is_dull && !found.iter().any(|known| known == path) {
            found.push(path.to_owned());
        }
    }
    found
}

fn between<'a>(html: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &html[html.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}

/// The first documentation in `html`, as Markdown.
fn docblock(html: &str) -> Option<String> {
    let start = "<div class=\"docblock\">";
    let html = html.strip_prefix(start)?;
    let (mut depth, mut at) = (1, 0);
    while depth > 0 {
        let tag = at + html[at..].find('<')?;
        if html[tag..].starts_with("<div") {
            depth += 1;
        } else if html[tag..].starts_with("</div") {
            depth -= 1;
        }
        at = tag + 1;
    }
    let mut markdown = markdown(&html[..at - 1]);
    if markdown.len() > LONGEST {
        let cut = markdown[..markdown.floor_char_boundary(LONGEST)].rfind('\n').unwrap_or(0);
        markdown.truncate(cut);
        // The cut may lie inside a code block; this closes the block.
        let open = markdown.matches("```").count() % 2 == 1;
        markdown.push_str(if open { "\n```\n…" } else { "\n…" });
    }
    Some(markdown)
}

/// HTML as plain text: without tags, with entities replaced by characters.
fn text(html: &str) -> String {
    let html = html
        .replace("<div class=\"where\">", "\n")
        .replace("ⓘ", "")
        .replace("<div class=\"code-attribute\">", "")
        .replace("</div>", "\n");
    let mut text = String::with_capacity(html.len());
    let mut rest = html.as_str();
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        rest = rest[at..].find('>').map_or("", |end| &rest[at + end + 1..]);
    }
    text.push_str(rest);
    unescape(&text).trim().to_owned()
}

fn unescape(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&nbsp;", " "), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

fn markdown(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut in_code = false;
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        out.push_str(&unescape(&rest[..at]));
        let Some(end) = rest[at..].find('>') else { break };
        let tag = &rest[at + 1..at + end];
        rest = &rest[at + end + 1..];
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        match (name, tag.strip_prefix('/')) {
            ("a", _) if tag.contains("doc-anchor") => rest = rest.find("</a>").map_or("", |end| &rest[end + 4..]),
            ("pre", _) => {
                in_code = true;
                out.push_str("\n```rust\n");
            }
            (_, Some("pre")) => {
                in_code = false;
                out.push_str("\n```\n\n");
            }
            ("code", _) | (_, Some("code")) if !in_code => out.push('`'),
            ("li", _) => out.push_str("- "),
            ("em", _) | (_, Some("em")) if !in_code => out.push('*'),
            ("strong" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6", _) => out.push_str("**"),
            (_, Some("strong")) => out.push_str("**"),
            (_, Some("h1" | "h2" | "h3" | "h4" | "h5" | "h6")) => out.push_str("**\n\n"),
            ("td" | "th", _) => out.push_str(" | "),
            (_, Some("p")) => out.push_str("\n\n"),
            (_, Some("li" | "tr" | "ul" | "ol")) | ("br", _) => out.push('\n'),
            _ => {}
        }
    }
    out.push_str(&unescape(rest));
    let mut lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r##"<section id="main-content"><pre class="rust item-decl"><code>pub struct <b>Grid</b>&lt;T&gt; { /* … */ }</code></pre><details class="toggle top-doc" open><summary></summary><div class="docblock"><p>A <code>grid</code>.</p>
<div class="example-wrap"><pre class="rust"><code><span class="kw">let</span> a = b &lt; c;</code></pre></div></div></details><h2 id="fields"></h2><span id="structfield.n" class="x"><a href="#">§</a><code>n: usize</code></span><div class="docblock"><p>How many.</p></div><h2 id="implementations"></h2><section id="impl-Grid" class="impl"><h3 class="code-header">impl Grid</h3></section><details><summary><section id="method.new" class="method"><h4 class="code-header">pub fn <a href="#">new</a>(n: usize) -&gt; Self</h4></section></summary><div class="docblock"><p>Makes one.</p></div></details><section id="method.odd" class="method"><h4 class="code-header">pub fn odd(&amp;self)</h4></section><span class="item-info"><div class="stab unstable">x</div></span><h2 id="trait-implementations"></h2><section id="impl-Clone-for-Grid" class="impl"><h3 class="code-header">impl <a class="trait" title="trait names::std::clone::Clone">Clone</a> for Grid</h3></section><section id="method.clone"><h4 class="code-header">fn clone(&amp;self)</h4></section>"##;

    #[test]
    fn a_page_gives_its_members_its_docs_and_the_traits_of_its_type() {
        let item = read(PAGE, "a::Grid", Kind::Struct, "names");
        assert_eq!(item.declaration, "pub struct Grid<T> { /* … */ }");
        assert_eq!(item.docs, "A `grid`.\n\n```rust\nlet a = b < c;\n```");
        let names: Vec<(&str, Kind)> = item.members.iter().map(|member| (member.name.as_str(), member.kind)).collect();
        assert_eq!(names, [("n", Kind::Field), ("new", Kind::Method)]);
        assert_eq!(item.members[1].declaration, "pub fn new(n: usize) -> Self");
        assert_eq!(item.members[1].docs, "Makes one.");
        assert_eq!(item.traits, ["std::clone::Clone"]);
    }
}
