//! Cells are separate crates from the items that they use, so `pub` is added to an item wherever it is missing.

use std::ops::Range;

use ra_ap_syntax::ast::{self, HasName, HasVisibility};
use ra_ap_syntax::{AstNode, NodeOrToken, SyntaxNode, SyntaxToken, T};

use super::{Origin, compact};
use crate::engine::built::Edit;

/// Adds the edits that make an item at the root of the notebook visible.
pub fn publish(node: &SyntaxNode, origin: &Origin, edits: &mut Vec<Edit>, members: &mut Vec<(String, Range<usize>)>) {
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
    {
        // The file is missing; with this path, rustc reports it at this place.
        let path = origin.folder.join(format!("{}.rs", name.text())).display().to_string();
        // Attributes come before `pub`.
        edits.insert(0, Edit::insert(origin.at(start_after_attributes(node)), format!("#[path = {path:?}] ")));
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

/// Makes what is visible in its crate visible everywhere.
pub fn widen(node: &SyntaxNode, origin: &Origin) -> Vec<Edit> {
    let visibilities = node.descendants().filter_map(ast::Visibility::cast);
    let narrow = visibilities.filter(|visibility| compact(visibility.syntax()) != "pub");
    narrow.map(|visibility| Edit::replace(origin.range(visibility.syntax()), "pub")).collect()
}

/// Where a node starts, after its attributes and documentation.
pub fn start_after_attributes(node: &SyntaxNode) -> ra_ap_syntax::TextSize {
    let first = node.children_with_tokens().find(|child| match child {
        NodeOrToken::Node(node) => !ast::Attr::can_cast(node.kind()),
        NodeOrToken::Token(token) => !token.kind().is_trivia(),
    });
    first.map_or(node.text_range().start(), |first| first.text_range().start())
}

/// Makes items in the rules of a macro visible at their start.
fn publish_transcribers(tree: &ast::TokenTree, origin: &Origin, edits: &mut Vec<Edit>) {
    // Rules have the form `pattern => body`, so every tree after an arrow is a body.
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

/// Words with which an item starts.
pub const ITEM_WORDS: [&str; 12] =
    ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod", "unsafe", "async", "use"];

/// Puts `pub` before each field of a struct; the token tree is its braces or parentheses.
fn publish_fields(tree: &ast::TokenTree, origin: &Origin, edits: &mut Vec<Edit>) {
    let elements: Vec<_> = tree.syntax().children_with_tokens().filter(|element| !element.kind().is_trivia()).collect();
    let is_tuple = tree.l_paren_token().is_some();
    publish_field_list(&elements[1..elements.len().saturating_sub(1).max(1)], is_tuple, origin, edits);
}

fn publish_field_list(
    elements: &[NodeOrToken<SyntaxNode, SyntaxToken>],
    is_tuple: bool,
    origin: &Origin,
    edits: &mut Vec<Edit>,
) {
    let text = |index: usize| elements.get(index).map(|element| element.to_string()).unwrap_or_default();
    let mut start = true;
    for (index, element) in elements.iter().enumerate() {
        let here = text(index);
        if !start {
            start = here == ",";
            continue;
        }
        match element {
            NodeOrToken::Node(node) if index > 0 && text(index - 1) == "$" => {
                // `$( … ),*`: each repetition starts with a field.
                let inner: Vec<_> = node.children_with_tokens().filter(|element| !element.kind().is_trivia()).collect();
                publish_field_list(&inner[1..inner.len().saturating_sub(1).max(1)], is_tuple, origin, edits);
                start = false;
            }
            // An attribute.
            NodeOrToken::Node(_) if index > 0 && text(index - 1) == "#" => {}
            NodeOrToken::Token(_) if here == "#" || here == "$" && text(index + 1).starts_with('(') => {}
            _ => {
                // A field begins with a name and a colon, or `$name` and a colon; in a tuple, with any type. A field with a visibility
                // keeps it.
                let colon = if here == "$" { index + 2 } else { index + 1 };
                if here != "pub" && (is_tuple || text(colon) == ":") {
                    edits.push(Edit::insert(origin.at(element.text_range().start()), "pub "));
                }
                start = false;
            }
        }
    }
}

/// Puts `pub` before each item that starts in a token tree.
pub fn publish_tokens(tree: &ast::TokenTree, origin: &Origin, edits: &mut Vec<Edit>) {
    let mut start = true;
    let mut first = true;
    let mut in_impl = false;
    let mut in_struct = false;
    for element in tree.syntax().children_with_tokens() {
        match element {
            NodeOrToken::Token(token) if token.kind().is_trivia() => continue,
            NodeOrToken::Token(_) if first => first = false,
            NodeOrToken::Token(token) => {
                let text = token.text();
                if start && ITEM_WORDS.contains(&text) {
                    edits.push(Edit::insert(origin.token(&token).start, "pub "));
                }
                in_struct = text != ";" && (in_struct || start && text == "struct");
                if text == "impl" && start {
                    in_impl = true;
                } else if text == "for" {
                    in_impl = false;
                }
                // After `unsafe impl` and `$name` the item goes on, and after the `#` of an attribute too.
                start = text == ";" || (start && (text == "#" || text == "$"));
            }
            NodeOrToken::Node(node) => {
                let Some(inner) = ast::TokenTree::cast(node.clone()) else { continue };
                let open = inner.l_curly_token().is_some();
                let attribute = inner.l_brack_token().is_some();
                if in_struct && !attribute {
                    publish_fields(&inner, origin, edits);
                }
                in_struct &= !open;
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
