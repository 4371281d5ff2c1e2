//! What a cell defines: its items. Each has a key; a later item with the same key replaces it.
//!
//! Cells are separate crates from the items they use, so every item is made visible: `pub` is added to the item, its fields and its
//! methods, and macros are exported. What is inside the braces of a `mod` keeps its privacy, but `pub(crate)` and the like become `pub`,
//! since they mean the whole notebook.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use ra_ap_syntax::ast::{self, HasGenericParams, HasName};
use ra_ap_syntax::{AstNode, NodeOrToken, SyntaxNode, SyntaxToken};

use self::imports::imports;
use super::built::Edit;
use super::cell::words;
use super::grammar::program::{self, Program};
use super::statics::{self, Static};

mod files;
mod imports;
mod macros;
mod modules;
mod visible;

pub use self::files::{File, absolute_includes, included};
pub use self::macros::{items_of_macro, makes_items, may_bind};
pub use self::modules::{Declared, module, with_files};
pub use self::visible::start_after_attributes;

/// Something that a cell defines.
#[derive(Clone, Debug)]
pub struct Item {
    /// An item with the same key replaces this one.
    pub key: String,
    /// How messages call it.
    pub title: String,
    /// The names by which other code refers to it; empty for impls.
    pub names: Vec<String>,
    /// Whether its name names a value, as a variable's does: a function, a constant, or a static.
    pub is_value: bool,
    /// Its range in the cell.
    pub range: Range<usize>,
    /// The edits that make it visible, in ascending order.
    pub edits: Vec<Edit>,
    /// The methods and constants of an inherent impl, with their names and places; each can be replaced on its own.
    pub members: Vec<(String, Range<usize>)>,
    /// The statics anywhere in it.
    pub statics: Vec<Static>,
    /// The types in it, by name and with their text: the layout of its statics may depend on them.
    pub inner: BTreeMap<String, String>,
    /// The modules in it whose text is on other pages of its run.
    pub files: Vec<Declared>,
    /// The code before and after it, if it is the text of a file.
    pub around: (String, String),
    /// Its text without comments, spaces and derived traits, which the layout of a type may depend on.
    pub text: String,
    /// Its text without comments and spaces. If this text changes, the item has changed.
    pub whole: String,
    /// Whether the layout of a type may depend on it.
    pub shapes: bool,
    /// The text of a `macro_rules!`.
    pub macro_text: Option<String>,
    /// The parts of it that are meant to be run.
    pub program: Program,
}

/// Where a cell's text is in the parsed text: the offsets of nodes include what was parsed before it.
pub struct Origin<'a> {
    pub source: &'a str,
    /// What to add to a node's offset to get the offset in `source`.
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

    pub fn token(&self, token: &SyntaxToken) -> Range<usize> {
        self.at(token.text_range().start())..self.at(token.text_range().end())
    }
}

/// The items of one node of a cell. A `use` gives one for each name; a node that is no item gives none.
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
        ast::Item::Impl(block) => head(block),
        _ => name.clone(),
    };
    let key = key.unwrap_or_else(|| compact(node));
    let mut made = new_item(node, origin, key, name.into_iter().collect(), shapes);
    made.is_value = matches!(item, ast::Item::Fn(_) | ast::Item::Const(_) | ast::Item::Static(_));
    if let ast::Item::Impl(block) = &item {
        made.key = with_numbered_parameters(block, &made.key);
    }
    vec![made]
}

/// `impl Trait for Type`, without parameters and bounds.
fn head(block: &ast::Impl) -> Option<String> {
    let ty = compact(block.self_ty()?.syntax());
    Some(block.trait_().map_or_else(|| format!("impl {ty}"), |of| format!("impl {} for {ty}", compact(of.syntax()))))
}

/// The head of an impl with its parameters numbered, so that `impl<T> P<T>` and `impl<U> P<U>` are the same.
fn with_numbered_parameters(block: &ast::Impl, head: &str) -> String {
    let parameters = block.generic_param_list().into_iter().flat_map(|list| list.generic_params());
    let names: Vec<String> = parameters
        .filter_map(|parameter| match parameter {
            ast::GenericParam::TypeParam(one) => Some(one.name()?.text().to_string()),
            ast::GenericParam::ConstParam(one) => Some(one.name()?.text().to_string()),
            ast::GenericParam::LifetimeParam(one) => Some(one.lifetime()?.text().trim_start_matches('\'').to_string()),
        })
        .collect();
    let mut key = String::new();
    let mut word = String::new();
    // The extra space ends the last word.
    for c in head.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        match names.iter().position(|name| *name == word) {
            Some(number) => key.push_str(&format!("#{number}")),
            None => key.push_str(&word),
        }
        word.clear();
        key.push(c);
    }
    key.trim_end().to_owned()
}

fn new_item(node: &SyntaxNode, origin: &Origin, key: String, names: Vec<String>, shapes: bool) -> Item {
    let mut edits = Vec::new();
    let mut members = Vec::new();
    visible::publish(node, origin, &mut edits, &mut members);
    edits.extend(visible::widen(node, origin));
    edits.extend(absolute_includes(node, origin));
    let (program, to_run) = program::of(node, origin);
    edits.extend(to_run);
    edits.sort_by_key(|edit| edit.range.start);
    let macro_text = ast::MacroRules::can_cast(node.kind()).then(|| node.text().to_string());
    let mut found = statics::find(node, origin);
    statics::tell_apart(&mut found);
    let mut inner = BTreeMap::new();
    types(node, &mut inner);
    Item {
        title: names.first().unwrap_or(&key).clone(),
        key,
        names,
        is_value: false,
        range: origin.range(node),
        edits,
        members,
        statics: found,
        inner,
        files: Vec::new(),
        around: Default::default(),
        text: text(node, true),
        whole: text(node, false),
        shapes,
        macro_text,
        program,
    }
}

/// Adds the inner items of a node that the layout of a type may depend on, by name. If a name occurs twice, both texts count.
fn types(node: &SyntaxNode, found: &mut BTreeMap<String, String>) {
    for inner in node.descendants().skip(1) {
        let Some(item) = ast::Item::cast(inner.clone()) else { continue };
        let name = match &item {
            ast::Item::Struct(item) => item.name(),
            ast::Item::Enum(item) => item.name(),
            ast::Item::Union(item) => item.name(),
            ast::Item::Trait(item) => item.name(),
            ast::Item::TypeAlias(item) => item.name(),
            ast::Item::Const(item) => item.name(),
            ast::Item::MacroRules(item) => item.name(),
            ast::Item::Use(_) => {
                // Any word in it may be the imported name.
                let told = text(&inner, true);
                for word in words(&told) {
                    found.entry(word.to_owned()).or_default().push_str(&told);
                }
                continue;
            }
            _ => None,
        };
        if let Some(name) = name {
            found.entry(name.text().to_string()).or_default().push_str(&text(&inner, true));
        }
    }
}

/// A node's tokens without comments, and with spaces only between words.
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

/// A node's tokens without comments. If `layout`, also without derived traits.
fn text(node: &SyntaxNode, layout: bool) -> String {
    let derives =
        |node: &SyntaxNode| ast::Attr::can_cast(node.kind()) && node.text().to_string().starts_with("#[derive");
    let tokens = node.descendants_with_tokens().filter_map(NodeOrToken::into_token);
    let told = tokens
        .filter(|token| !(token.kind().is_trivia() || layout && token.parent_ancestors().any(|node| derives(&node))));
    let words: Vec<String> = told.map(|token| token.text().to_owned()).collect();
    words.join(" ")
}

#[cfg(test)]
pub mod tests {
    use ra_ap_syntax::ast::HasModuleItem;
    use ra_ap_syntax::{Edition, SourceFile};

    use super::*;
    use crate::engine::built::Built;

    pub fn visible(source: &str) -> (Vec<String>, String) {
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
            (
                "impl<T: Clone, 'a> P<'a, T> { fn g() {} }",
                "impl P<'#1,#0>",
                "impl<T: Clone, 'a> P<'a, T> { pub fn g() {} }",
            ),
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
                "macro_rules! s { ($s:ident $v:vis) => { struct $s { $(#[a] $f: $t),* , pub x: u8, $v y: u8 } struct T(u8, $t); } }",
                "s!",
                "#[macro_export] macro_rules! s { ($s:ident $v:vis) => { pub struct $s { $(#[a] pub $f: $t),* , pub x: u8, $v y: u8 } \
                 pub struct T(pub u8, pub $t); } }",
            ),
            (
                "macro_rules! mk { ($n:ident) => { fn $n() -> i32 { 1 } } }",
                "mk!",
                "#[macro_export] macro_rules! mk { ($n:ident) => { pub fn $n() -> i32 { 1 } } }",
            ),
        ] {
            assert_eq!(visible(source), (vec![key.to_owned()], text.to_owned()), "{source}");
        }
    }
}
