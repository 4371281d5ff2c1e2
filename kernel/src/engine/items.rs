//! What a cell defines: its items, each under a key by which a later one replaces it.
//!
//! Cells are other crates than the items they use, so an item is made visible: `pub` is added to it, to its fields and to its
//! methods, and a macro is exported. What stands in the braces of a `mod` keeps the privacy that its author gave it, but for
//! `pub(crate)` and its like, which mean all of the notebook.

use std::ops::Range;
use std::path::Path;

use ra_ap_syntax::ast::{self, HasName, HasVisibility};
use ra_ap_syntax::{AstNode, AstToken, Edition, NodeOrToken, SourceFile, SyntaxNode, SyntaxToken, T};

use super::built::Edit;
use super::statics::{self, Static};

/// Something that a cell defines.
#[derive(Clone, Debug)]
pub struct Item {
    /// What a later item of the same key replaces.
    pub key: String,
    /// Names under which other code knows it; empty for impls.
    pub names: Vec<String>,
    /// Where it stands in the cell.
    pub range: Range<usize>,
    /// What makes it visible, ascending.
    pub edits: Vec<Edit>,
    /// The names and places of the methods and constants of an inherent impl, each of which is replaced on its own.
    pub members: Vec<(String, Range<usize>)>,
    /// The statics in it, wherever they stand.
    pub statics: Vec<Static>,
    /// Its text without comments, spaces and derived traits: the layout of a type may rest on it.
    pub text: String,
    /// Its text without comments and spaces: another text is another item.
    pub whole: String,
    /// Whether the layout of a type may rest on it.
    pub shapes: bool,
    /// The text of a `macro_rules!`.
    pub macro_text: Option<String>,
}

impl Item {
    /// What people call it.
    pub fn title(&self) -> &str {
        self.names.first().map_or(&self.key, String::as_str)
    }
}

/// Where a cell's text lies in what was parsed: offsets of nodes count from `base` before it.
pub struct Origin<'a> {
    pub source: &'a str,
    /// Added to a node's offset to get that in `source`.
    pub shift: isize,
    /// The folder in which `mod name;` looks for files.
    pub folder: &'a Path,
}

impl Origin<'_> {
    pub fn at(&self, offset: ra_ap_syntax::TextSize) -> usize {
        usize::from(offset).saturating_add_signed(self.shift).min(self.source.len())
    }

    pub fn range(&self, node: &SyntaxNode) -> Range<usize> {
        self.at(node.text_range().start())..self.at(node.text_range().end())
    }

    fn token(&self, token: &SyntaxToken) -> Range<usize> {
        self.at(token.text_range().start())..self.at(token.text_range().end())
    }
}

/// The items of a node of a cell: one, or one for each name of a `use`; none for what is no item.
pub fn items_of(node: &SyntaxNode, origin: &Origin) -> Vec<Item> {
    if let Some(import) = ast::Use::cast(node.clone()) {
        return imports(&import, origin);
    }
    let Some(item) = ast::Item::cast(node.clone()) else { return Vec::new() };
    let named = |name: Option<ast::Name>| name.map(|name| name.text().to_string());
    let (name, shapes) = match &item {
        ast::Item::Fn(item) => (named(item.name()), false),
        ast::Item::Struct(item) => (named(item.name()), true),
        ast::Item::Enum(item) => (named(item.name()), true),
        ast::Item::Union(item) => (named(item.name()), true),
        ast::Item::Trait(item) => (named(item.name()), true),
        ast::Item::TypeAlias(item) => (named(item.name()), true),
        ast::Item::Const(item) => (named(item.name()), true),
        ast::Item::Static(item) => (named(item.name()), false),
        ast::Item::Module(item) => (named(item.name()), true),
        ast::Item::MacroRules(item) => (named(item.name()), false),
        ast::Item::ExternCrate(item) => (
            named(item.rename().and_then(|rename| rename.name())).or(item.name_ref().map(|n| n.text().to_string())),
            false,
        ),
        _ => (None, false),
    };
    let key = match &item {
        ast::Item::MacroRules(_) => name.as_ref().map(|name| format!("{name}!")),
        ast::Item::Impl(block) => block.self_ty().map(|ty| {
            let ty = compact(ty.syntax());
            block.trait_().map_or_else(|| format!("impl {ty}"), |of| format!("impl {} for {ty}", compact(of.syntax())))
        }),
        _ => name.clone(),
    };
    vec![new_item(node, origin, key.unwrap_or_else(|| compact(node)), name.into_iter().collect(), shapes)]
}

/// A macro call that makes items: they are unknown but for statics.
pub fn items_of_macro(node: &SyntaxNode, origin: &Origin) -> Vec<Item> {
    let mut item = new_item(node, origin, compact(node), Vec::new(), true);
    item.names = item.statics.iter().map(|found| found.name.clone()).collect();
    if let [first, ..] = &item.names[..] {
        item.key = first.clone();
    }
    if item.statics.is_empty()
        && let Some(call) = node.descendants().find_map(ast::MacroCall::cast)
        && let Some(tree) = call.token_tree()
    {
        publish_tokens(&tree, origin, &mut item.edits);
    }
    let curly = node.descendants().find_map(ast::TokenTree::cast).is_some_and(|tree| tree.l_curly_token().is_some());
    if curly && node.text().to_string().ends_with(';') {
        // A semicolon behind braces is no item.
        item.range.end -= 1;
    }
    item.edits.sort_by_key(|edit| edit.range.start);
    vec![item]
}

fn new_item(node: &SyntaxNode, origin: &Origin, key: String, names: Vec<String>, shapes: bool) -> Item {
    let mut edits = Vec::new();
    let mut members = Vec::new();
    publish(node, origin, &mut edits, &mut members);
    for visibility in node.descendants().filter_map(ast::Visibility::cast) {
        if compact(visibility.syntax()) != "pub" {
            edits.push(Edit::replace(origin.range(visibility.syntax()), "pub"));
        }
    }
    edits.extend(absolute_includes(node, origin));
    edits.sort_by_key(|edit| edit.range.start);
    let macro_text = ast::MacroRules::can_cast(node.kind()).then(|| node.text().to_string());
    Item {
        key,
        names,
        range: origin.range(node),
        edits,
        members,
        statics: statics::find(node, origin),
        text: text(node, true),
        whole: text(node, false),
        shapes,
        macro_text,
    }
}

/// Adds what makes an item at the root of the notebook visible.
fn publish(node: &SyntaxNode, origin: &Origin, edits: &mut Vec<Edit>, members: &mut Vec<(String, Range<usize>)>) {
    let mut add = |node: &SyntaxNode, visibility: Option<ast::Visibility>| {
        if visibility.is_none() {
            edits.push(Edit::insert(origin.at(start_after_attributes(node)), "pub "));
        }
    };
    let Some(item) = ast::Item::cast(node.clone()) else { return };
    match &item {
        ast::Item::Impl(block) => {
            if block.trait_().is_none() {
                for member in block.assoc_item_list().into_iter().flat_map(|list| list.assoc_items()) {
                    let (name, visibility) = match &member {
                        ast::AssocItem::Fn(item) => (item.name(), item.visibility()),
                        ast::AssocItem::Const(item) => (item.name(), item.visibility()),
                        ast::AssocItem::TypeAlias(item) => (item.name(), item.visibility()),
                        ast::AssocItem::MacroCall(_) => continue,
                    };
                    add(member.syntax(), visibility);
                    members.extend(name.map(|name| (name.text().to_string(), origin.range(member.syntax()))));
                }
            }
            return;
        }
        ast::Item::MacroRules(rules) => {
            if !node.text().to_string().contains("macro_export") {
                edits.push(Edit::insert(origin.at(start_after_attributes(node)), "#[macro_export] "));
            }
            if let Some(tree) = rules.token_tree() {
                publish_transcribers(&tree, origin, edits);
            }
            return;
        }
        ast::Item::ExternBlock(block) => {
            for inner in block.extern_item_list().into_iter().flat_map(|list| list.extern_items()) {
                let visibility = match &inner {
                    ast::ExternItem::Fn(item) => item.visibility(),
                    ast::ExternItem::Static(item) => item.visibility(),
                    ast::ExternItem::TypeAlias(item) => item.visibility(),
                    ast::ExternItem::MacroCall(_) => continue,
                };
                add(inner.syntax(), visibility);
            }
            return;
        }
        ast::Item::MacroCall(_) | ast::Item::AsmExpr(_) | ast::Item::MacroDef(_) => return,
        _ => {}
    }
    let visibility = node.children().find_map(ast::Visibility::cast);
    add(node, visibility);
    if let ast::Item::Module(module) = &item
        && module.item_list().is_none()
        && let Some(name) = module.name()
        && !node.text().to_string().contains("#[path")
    {
        let name = name.text().to_string();
        let beside = origin.folder.join(format!("{name}.rs"));
        let inside = origin.folder.join(&name).join("mod.rs");
        let file = if inside.exists() && !beside.exists() { inside } else { beside };
        edits.push(Edit::insert(
            origin.at(start_after_attributes(node)),
            format!("#[path = {:?}] ", file.display().to_string()),
        ));
        // Attributes come before `pub`.
        let last = edits.len() - 1;
        edits.swap(last, last - 1);
    }
    for list in node.children() {
        for field in list.children() {
            if ast::RecordField::can_cast(field.kind()) && ast::RecordFieldList::can_cast(list.kind())
                || ast::TupleField::can_cast(field.kind())
            {
                let visibility = field.children().find_map(ast::Visibility::cast);
                if visibility.is_none() {
                    edits.push(Edit::insert(origin.at(start_after_attributes(&field)), "pub "));
                }
            }
        }
    }
}

/// Where a node starts behind its attributes and documentation.
fn start_after_attributes(node: &SyntaxNode) -> ra_ap_syntax::TextSize {
    let first = node.children_with_tokens().find(|child| match child {
        NodeOrToken::Node(node) => !ast::Attr::can_cast(node.kind()),
        NodeOrToken::Token(token) => !token.kind().is_trivia(),
    });
    first.map_or(node.text_range().start(), |first| first.text_range().start())
}

/// Items that a macro's rules make are made visible where they start.
fn publish_transcribers(tree: &ast::TokenTree, origin: &Origin, edits: &mut Vec<Edit>) {
    // Rules are `pattern => body`, so every tree behind an arrow is a body.
    let mut after_arrow = false;
    let mut last = None;
    for element in tree.syntax().children_with_tokens() {
        match element {
            NodeOrToken::Token(token) if token.kind() == T![>] && last == Some(T![=]) => after_arrow = true,
            NodeOrToken::Token(token) if token.kind() == T![=>] => after_arrow = true,
            NodeOrToken::Node(node) if after_arrow => {
                after_arrow = false;
                if let Some(body) = ast::TokenTree::cast(node) {
                    publish_tokens(&body, origin, edits);
                }
            }
            NodeOrToken::Token(token) => {
                if !token.kind().is_trivia() {
                    last = Some(token.kind());
                }
                continue;
            }
            NodeOrToken::Node(_) => {}
        }
        last = None;
    }
}

const ITEM_WORDS: [&str; 12] =
    ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod", "unsafe", "async", "use"];

/// Puts `pub` before each item that starts in a token tree.
fn publish_tokens(tree: &ast::TokenTree, origin: &Origin, edits: &mut Vec<Edit>) {
    let mut start = true;
    let mut first = true;
    let mut in_impl = false;
    for element in tree.syntax().children_with_tokens() {
        match element {
            NodeOrToken::Token(token) if token.kind().is_trivia() => continue,
            NodeOrToken::Token(_) if first => first = false,
            NodeOrToken::Token(token) => {
                let text = token.text();
                if start && ITEM_WORDS.contains(&text) {
                    edits.push(Edit::insert(origin.token(&token).start, "pub "));
                }
                if text == "impl" && start {
                    in_impl = true;
                } else if text == "for" {
                    in_impl = false;
                }
                // `unsafe impl` and `$name` go on; an attribute's `#` too.
                start = text == ";" || (start && (text == "#" || text == "$"));
            }
            NodeOrToken::Node(node) => {
                let Some(inner) = ast::TokenTree::cast(node.clone()) else { continue };
                let open = inner.l_curly_token().is_some();
                let attribute = inner.l_brack_token().is_some();
                let repeated = inner.l_paren_token().is_some() && start;
                if repeated || open && in_impl {
                    publish_tokens(&inner, origin, edits);
                }
                start = (start && (attribute || repeated)) || open;
                if open {
                    in_impl = false;
                }
            }
        }
    }
}

/// Files that `include!` and its like name are looked for in the notebook's folder.
pub fn absolute_includes(node: &SyntaxNode, origin: &Origin) -> Vec<Edit> {
    let tokens: Vec<SyntaxToken> = node
        .descendants_with_tokens()
        .filter_map(NodeOrToken::into_token)
        .filter(|token| !token.kind().is_trivia())
        .collect();
    let mut edits = Vec::new();
    for four in tokens.windows(4) {
        if ["include", "include_str", "include_bytes"].contains(&four[0].text())
            && four[1].kind() == T![!]
            && let Some(string) = ast::String::cast(four[3].clone())
            && let Ok(file) = string.value()
            && Path::new(&*file).is_relative()
        {
            let absolute = origin.folder.join(&*file).display().to_string();
            edits.push(Edit::replace(origin.token(&four[3]), format!("{absolute:?}")));
        }
    }
    edits
}

/// One item for each name that a `use` brings.
fn imports(import: &ast::Use, origin: &Origin) -> Vec<Item> {
    let Some(tree) = import.use_tree() else { return Vec::new() };
    let node = import.syntax();
    if tree.use_tree_list().is_none() {
        let (key, names) = leaf_key("", &tree);
        return vec![Item { key, names, ..new_item(node, origin, String::new(), Vec::new(), true) }];
    }
    let attributes: String = import
        .syntax()
        .children()
        .filter_map(ast::Attr::cast)
        .map(|attr| attr.syntax().text().to_string() + " ")
        .collect();
    let mut leaves = Vec::new();
    collect_leaves("", &tree, &mut leaves);
    leaves
        .into_iter()
        .map(|(prefix, leaf)| {
            let range = origin.range(leaf.syntax());
            let (key, names) = leaf_key(&prefix, &leaf);
            let text = format!("use {prefix} {}", compact(leaf.syntax()));
            Item {
                key,
                names,
                edits: vec![
                    Edit::insert(range.start, format!("{attributes}pub use {prefix}{{")),
                    Edit::insert(range.end, "};"),
                ],
                range,
                members: Vec::new(),
                statics: Vec::new(),
                whole: text.clone(),
                text,
                shapes: true,
                macro_text: None,
            }
        })
        .collect()
}

fn collect_leaves(prefix: &str, tree: &ast::UseTree, leaves: &mut Vec<(String, ast::UseTree)>) {
    let Some(list) = tree.use_tree_list() else {
        leaves.push((prefix.to_owned(), tree.clone()));
        return;
    };
    let path = tree.path().map_or(String::new(), |path| format!("{}::", compact(path.syntax())));
    // `use ::{a, b}` and `use {a, b}` have no path.
    let prefix = format!("{prefix}{path}");
    for inner in list.use_trees() {
        collect_leaves(&prefix, &inner, leaves);
    }
}

fn leaf_key(prefix: &str, leaf: &ast::UseTree) -> (String, Vec<String>) {
    let path = leaf.path().map_or(String::new(), |path| compact(path.syntax()));
    let whole = format!("use {prefix}{}", compact(leaf.syntax()));
    if leaf.star_token().is_some() {
        return (whole, Vec::new());
    }
    let renamed = leaf.rename().map(|rename| rename.name().map_or("_".to_owned(), |name| name.text().to_string()));
    let last = || {
        let path = if path == "self" { prefix.trim_end_matches("::") } else { path.trim_end_matches("::self") };
        path.rsplit("::").next().unwrap_or_default().to_owned()
    };
    let name = renamed.unwrap_or_else(last);
    if name == "_" { (whole, Vec::new()) } else { (name.clone(), vec![name]) }
}

/// A node's tokens without comments and spaces but those that part words.
pub fn compact(node: &SyntaxNode) -> String {
    let mut text = String::new();
    for token in node.descendants_with_tokens().filter_map(NodeOrToken::into_token) {
        if token.kind().is_trivia() {
            continue;
        }
        let wordy = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
        if text.ends_with(wordy) && token.text().starts_with(wordy) {
            text.push(' ');
        }
        text.push_str(token.text());
    }
    text
}

/// A node's tokens without comments; without derived traits either when only the layout counts.
fn text(node: &SyntaxNode, layout: bool) -> String {
    let derives =
        |node: &SyntaxNode| ast::Attr::can_cast(node.kind()) && node.text().to_string().starts_with("#[derive");
    let tokens = node.descendants_with_tokens().filter_map(NodeOrToken::into_token);
    let told = tokens
        .filter(|token| !(token.kind().is_trivia() || layout && token.parent_ancestors().any(|node| derives(&node))));
    let words: Vec<String> = told.map(|token| token.text().to_owned()).collect();
    words.join(" ")
}

/// Macros whose calls are statements or values wherever they stand.
const STATEMENT_MACROS: [&str; 31] = [
    "println",
    "print",
    "eprintln",
    "eprint",
    "dbg",
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
    "panic",
    "todo",
    "unimplemented",
    "unreachable",
    "vec",
    "format",
    "write",
    "writeln",
    "matches",
    "include_str",
    "include_bytes",
    "concat",
    "stringify",
    "env",
    "option_env",
    "json",
    "bail",
    "ensure",
    "anyhow",
    "show",
];

/// Whether a macro call as a statement makes items. `rules` finds the text of a macro of the notebook.
pub fn makes_items(call: &ast::MacroCall, rules: &dyn Fn(&str) -> Option<String>) -> bool {
    let Some(path) = call.path() else { return false };
    let path = compact(path.syntax());
    let name = path.rsplit("::").next().unwrap_or_default();
    if ["thread_local", "lazy_static"].contains(&name) {
        return true;
    }
    if STATEMENT_MACROS.contains(&name) {
        return false;
    }
    let starts_item = |text: &str| {
        let mut text = text.trim_start();
        while let Some(rest) = text.strip_prefix("#[").and_then(|rest| rest.split_once(']')) {
            text = rest.1.trim_start();
        }
        let text = text.trim_start_matches("$(").trim_start();
        let word: &str = text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        ITEM_WORDS.contains(&word) && word != "unsafe" && word != "async"
            || ["pub", "impl", "extern", "macro_rules"].contains(&word)
            || text.starts_with("unsafe impl")
            || text.starts_with("unsafe fn")
            || text.starts_with("async fn")
    };
    if let Some(rules) = rules(name) {
        return bodies(&rules).iter().any(|body| starts_item(body));
    }
    let Some(tree) = call.token_tree() else { return false };
    let text = tree.syntax().text().to_string();
    starts_item(text.get(1..text.len().saturating_sub(1)).unwrap_or_default())
}

/// Whether a macro of the notebook may bind variables whose names it is given.
pub fn may_bind(rules: &str) -> bool {
    bodies(rules).iter().any(|body| body.contains("let $") || body.contains("let mut $") || body.contains("let ($"))
}

/// The bodies of a macro's rules, without their brackets.
fn bodies(rules: &str) -> Vec<String> {
    let file = SourceFile::parse(rules, Edition::Edition2024).tree();
    let Some(tree) = file.syntax().descendants().find_map(ast::MacroRules::cast).and_then(|rules| rules.token_tree())
    else {
        return Vec::new();
    };
    let trees: Vec<SyntaxNode> = tree.syntax().children().collect();
    // Pattern and body alternate.
    trees
        .iter()
        .skip(1)
        .step_by(2)
        .map(|node| node.text().to_string())
        .map(|text| text[1..text.len() - 1].to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use ra_ap_syntax::ast::HasModuleItem;

    use super::*;
    use crate::engine::built::Built;

    fn visible(source: &str) -> (Vec<String>, String) {
        let file = SourceFile::parse(source, Edition::Edition2024).tree();
        let origin = Origin { source, shift: 0, folder: Path::new("/notes") };
        let (mut keys, mut built) = (Vec::new(), Built::default());
        for item in file.items() {
            for item in items_of(item.syntax(), &origin) {
                built.push(source, item.range.clone(), &item.edits);
                keys.push(item.key);
            }
        }
        (keys, built.text)
    }

    #[test]
    fn items_fields_and_methods_become_visible() {
        for (source, key, text) in [
            ("fn f() {}", "f", "pub fn f() {}"),
            (
                "/// Doc.\n#[derive(Debug)]\nstruct P { a: u8, pub b: u8 }",
                "P",
                "/// Doc.\n#[derive(Debug)]\npub struct P { pub a: u8, pub b: u8 }",
            ),
            ("struct W(u8, pub(crate) u8);", "W", "pub struct W(pub u8, pub u8);"),
            ("enum E { A { x: u8 }, B(u8) }", "E", "pub enum E { A { x: u8 }, B(u8) }"),
            ("impl P { fn g(&self) {} }", "impl P", "impl P { pub fn g(&self) {} }"),
            (
                "impl Clone for P { fn clone(&self) -> P { todo!() } }",
                "impl Clone for P",
                "impl Clone for P { fn clone(&self) -> P { todo!() } }",
            ),
            ("mod m { pub(super) fn f() {} fn g() {} }", "m", "pub mod m { pub fn f() {} fn g() {} }"),
            ("mod hello;", "hello", "#[path = \"/notes/hello.rs\"] pub mod hello;"),
            ("const X: &str = include_str!(\"a.txt\");", "X", "pub const X: &str = include_str!(\"/notes/a.txt\");"),
            ("use std::fmt;", "fmt", "pub use std::fmt;"),
            (
                "macro_rules! mk { ($n:ident) => { fn $n() -> i32 { 1 } } }",
                "mk!",
                "#[macro_export] macro_rules! mk { ($n:ident) => { pub fn $n() -> i32 { 1 } } }",
            ),
        ] {
            assert_eq!(visible(source), (vec![key.to_owned()], text.to_owned()), "{source}");
        }
    }

    #[test]
    fn every_name_of_an_import_is_an_item_of_its_own() {
        let (keys, text) = visible("use std::{fmt::{self, Debug as D}, io::*, rc::Rc};");
        assert_eq!(keys, ["fmt", "D", "use std::io::*", "Rc"]);
        assert_eq!(
            text,
            "pub use std::fmt::{self};pub use std::fmt::{Debug as D};pub use std::{io::*};pub use std::{rc::Rc};"
        );
    }

    #[test]
    fn a_macro_that_makes_items_is_told_from_one_that_does_something() {
        let rules = |name: &str| {
            let text = match name {
                "mk" => "macro_rules! mk { ($n:ident) => { fn $n() {} } }",
                "say" => "macro_rules! say { ($n:expr) => { println!(\"{}\", $n) } }",
                _ => return None,
            };
            Some(text.to_owned())
        };
        for (source, makes) in [
            ("mk!(eleven);", true),
            ("say!(1);", false),
            ("println!(\"fn\");", false),
            ("bitflags! { struct F: u8 { const A = 1; } }", true),
            ("thread_local! { static N: u8 = 1; }", true),
            ("html! { <p>{ 1 }</p> }", false),
        ] {
            let parsed = SourceFile::parse(&format!("fn f() {{ {source} }}"), Edition::Edition2024).syntax_node();
            let call = parsed.descendants().find_map(ast::MacroCall::cast);
            assert_eq!(call.map(|call| makes_items(&call, &rules)), Some(makes), "{source}");
        }
    }
}
