//! Items that the notebook's cells define, read from their text.

use ra_ap_syntax::ast::{self, HasDocComments, HasModuleItem, HasName};
use ra_ap_syntax::{AstNode, Edition, SourceFile, SyntaxNode};

use super::item::{Item, Kind, Member};
use crate::engine::grammar::rust_of;

/// The items of `cells`, which come newest first. If two items have the same name, the newer one counts.
pub fn items<'a>(cells: impl IntoIterator<Item = &'a str>) -> Vec<Item> {
    let mut found: Vec<Item> = Vec::new();
    let mut implementations: Vec<(String, Option<String>, Vec<Member>)> = Vec::new();
    for source in cells {
        let file = SourceFile::parse(&rust_of(source), Edition::Edition2024).tree();
        for node in file.items() {
            if let ast::Item::Impl(block) = &node {
                implementations.extend(implementation(block));
            } else if let Some(item) = item(&node)
                && !found.iter().any(|known| known.path == item.path)
            {
                found.push(item);
            }
        }
    }
    for (ty, of_trait, members) in implementations {
        if let Some(item) = found.iter_mut().find(|item| item.path == ty) {
            item.traits.extend(of_trait);
            for member in members {
                if !item.members.iter().any(|known| known.name == member.name) {
                    item.members.push(member);
                }
            }
        }
    }
    found
}

/// A name that a `use` imports; `*` for all names of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub name: String,
    pub path: String,
}

/// What the `use`s of cells import. If two imports have the same name, the first one counts.
pub fn imports<'a>(cells: impl IntoIterator<Item = &'a str>) -> Vec<Import> {
    let mut found: Vec<Import> = Vec::new();
    for source in cells {
        let file = SourceFile::parse(&rust_of(source), Edition::Edition2024).tree();
        for import in file.syntax().descendants().filter_map(ast::Use::cast) {
            if let Some(tree) = import.use_tree() {
                collect_imports(&tree, "", &mut found);
            }
        }
    }
    found
}

fn collect_imports(tree: &ast::UseTree, above: &str, found: &mut Vec<Import>) {
    let own = tree.path().map(|path| path.syntax().text().to_string().split_whitespace().collect::<String>());
    let path = match own.as_deref() {
        None => above.to_owned(),
        Some("self") => above.to_owned(),
        Some(own) if above.is_empty() => own.trim_start_matches("::").to_owned(),
        Some(own) => format!("{above}::{own}"),
    };
    if let Some(list) = tree.use_tree_list() {
        list.use_trees().for_each(|inner| collect_imports(&inner, &path, found));
        return;
    }
    let renamed = tree.rename().map(|rename| rename.name().map_or("_".to_owned(), |name| name.text().to_string()));
    let last = || path.rsplit("::").next().unwrap_or_default().to_owned();
    let name = if tree.star_token().is_some() { "*".to_owned() } else { renamed.unwrap_or_else(last) };
    let is_known = name != "*" && found.iter().any(|known| known.name == name);
    if name != "_" && !is_known {
        found.push(Import { name, path });
    }
}

/// The code of the newest item called `name`, and of the `impl`s if it is a type. `items` are the texts of all items, oldest first.
pub fn source(items: &[String], name: &str) -> Option<String> {
    let mut own = None;
    let mut blocks = Vec::new();
    for text in items.iter().rev() {
        let file = SourceFile::parse(text, Edition::Edition2024).tree();
        for node in file.items() {
            if let ast::Item::Impl(block) = &node {
                let of = implementation(block).is_some_and(|(ty, _, _)| ty == name);
                blocks.extend(of.then(|| node.syntax().text().to_string()));
            } else if own.is_none() && item(&node).is_some_and(|item| item.path == name) {
                own = Some(node.syntax().text().to_string());
            }
        }
    }
    let own = own?;
    blocks.reverse();
    Some(std::iter::once(own).chain(blocks).collect::<Vec<_>>().join("\n\n"))
}

fn item(node: &ast::Item) -> Option<Item> {
    let (name, kind, docs, members) = match node {
        ast::Item::Fn(item) => (item.name()?, Kind::Function, docs(item), Vec::new()),
        ast::Item::Struct(item) => (item.name()?, Kind::Struct, docs(item), fields(item)),
        ast::Item::Enum(item) => (item.name()?, Kind::Enum, docs(item), variants(item)),
        ast::Item::Trait(item) => {
            let members = item.assoc_item_list().map(|list| methods(list.assoc_items())).unwrap_or_default();
            (item.name()?, Kind::Trait, docs(item), members)
        }
        ast::Item::TypeAlias(item) => (item.name()?, Kind::Alias, docs(item), Vec::new()),
        ast::Item::Const(item) => (item.name()?, Kind::Constant, docs(item), Vec::new()),
        ast::Item::Static(item) => (item.name()?, Kind::Constant, docs(item), Vec::new()),
        ast::Item::MacroRules(item) => (item.name()?, Kind::Macro, docs(item), Vec::new()),
        ast::Item::Module(item) => (item.name()?, Kind::Module, docs(item), Vec::new()),
        _ => return None,
    };
    let declaration = match kind {
        // The declaration alone is enough for these.
        Kind::Function | Kind::Macro | Kind::Module => head(node.syntax()),
        _ => without_docs(node.syntax()),
    };
    Some(Item { path: name.text().to_string(), kind, declaration, docs, members, traits: Vec::new() })
}

fn fields(item: &ast::Struct) -> Vec<Member> {
    let Some(ast::FieldList::RecordFieldList(list)) = item.field_list() else { return Vec::new() };
    let member = |field: ast::RecordField| {
        Some(Member {
            name: field.name()?.text().to_string(),
            kind: Kind::Field,
            declaration: format!("{}: {}", field.name()?.text(), field.ty()?.syntax().text()),
            docs: docs(&field),
        })
    };
    list.fields().filter_map(member).collect()
}

fn variants(item: &ast::Enum) -> Vec<Member> {
    let variants = item.variant_list().into_iter().flat_map(|list| list.variants());
    let member = |variant: ast::Variant| {
        Some(Member {
            name: variant.name()?.text().to_string(),
            kind: Kind::Variant,
            declaration: without_docs(variant.syntax()),
            docs: docs(&variant),
        })
    };
    variants.filter_map(member).collect()
}

fn implementation(block: &ast::Impl) -> Option<(String, Option<String>, Vec<Member>)> {
    let name = |ty: ast::Type| ty.syntax().text().to_string().split('<').next().unwrap_or_default().trim().to_owned();
    Some((name(block.self_ty()?), block.trait_().map(name), methods(block.assoc_item_list()?.assoc_items())))
}

fn methods(items: impl Iterator<Item = ast::AssocItem>) -> Vec<Member> {
    let member = |item: ast::AssocItem| match item {
        ast::AssocItem::Fn(method) => Some(Member {
            name: method.name()?.text().to_string(),
            kind: Kind::Method,
            declaration: head(method.syntax()),
            docs: docs(&method),
        }),
        ast::AssocItem::Const(constant) => Some(Member {
            name: constant.name()?.text().to_string(),
            kind: Kind::Constant,
            declaration: without_docs(constant.syntax()),
            docs: docs(&constant),
        }),
        _ => None,
    };
    items.filter_map(member).collect()
}

fn docs(item: &impl HasDocComments) -> String {
    let lines = item.doc_comments().filter_map(|comment| comment.doc_comment().map(|(text, _)| text.to_owned()));
    let text: Vec<String> = lines.map(|line| line.strip_prefix(' ').unwrap_or(&line).to_owned()).collect();
    text.join("\n").trim().to_owned()
}

/// The item up to its block.
fn head(node: &SyntaxNode) -> String {
    let text = without_docs(node);
    let block = node.children().find(|child| {
        ast::BlockExpr::can_cast(child.kind())
            || ast::TokenTree::can_cast(child.kind())
            || ast::ItemList::can_cast(child.kind())
    });
    match block.and_then(|block| text.find(&block.text().to_string())) {
        Some(at) => text[..at].trim().to_owned(),
        None => text,
    }
}

fn without_docs(node: &SyntaxNode) -> String {
    let text: String = node
        .children_with_tokens()
        .filter(|child| {
            !child.as_token().is_some_and(|token| {
                ast::AstToken::cast(token.clone()).is_some_and(|comment: ast::Comment| comment.is_doc())
            })
        })
        .map(|child| child.to_string())
        .collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_have_their_members_and_docs_and_the_newest_counts() {
        let newest = "/// A point.\nstruct Point {\n    /// Across.\n    x: f64,\n}\nimpl Point {\n    /// Makes it.\n    fn new(x: f64) -> Self { Point { x } }\n}";
        let found = items([
            newest,
            "struct Point { old: u8 }\n/// Twice.\nfn double(x: i32) -> i32 { 2 * x }\nimpl Clone for Point { fn clone(&self) -> Self { todo!() } }",
        ]);
        let point = &found[0];
        assert_eq!((point.path.as_str(), point.docs.as_str()), ("Point", "A point."));
        let names: Vec<&str> = point.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["x", "new", "clone"]);
        assert_eq!(point.members[1].declaration, "fn new(x: f64) -> Self");
        assert_eq!(point.members[0].docs, "Across.");
        assert_eq!(point.traits, ["Clone"]);
        assert_eq!((found[1].declaration.as_str(), found[1].docs.as_str()), ("fn double(x: i32) -> i32", "Twice."));
    }

    #[test]
    fn imports_have_the_names_that_they_bring() {
        let found = imports([
            "use std::{fmt, collections::{self, HashMap as Map, *}};\nlet a = 1;",
            "use other::fmt;\nuse x as _;",
        ]);
        let told: Vec<(&str, &str)> = found.iter().map(|import| (import.name.as_str(), import.path.as_str())).collect();
        let expected = [
            ("fmt", "std::fmt"),
            ("collections", "std::collections"),
            ("Map", "std::collections::HashMap"),
            ("*", "std::collections"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_source_of_a_type_has_its_impls() {
        let items = ["struct P;", "fn f() {}", "impl P { fn g() {} }", "struct P { a: u8 }"].map(str::to_owned);
        assert_eq!(source(&items, "P").as_deref(), Some("struct P { a: u8 }\n\nimpl P { fn g() {} }"));
        assert_eq!((source(&items, "f").as_deref(), source(&items, "g")), (Some("fn f() {}"), None));
    }
}
