//! Splits a `use` into one item for each name that it imports, so that each can be replaced on its own.

use ra_ap_syntax::AstNode;
use ra_ap_syntax::ast::{self, HasName};

use super::{Item, Origin, compact, new_item};
use crate::engine::built::Edit;
use crate::engine::grammar::program::Program;

/// One item for each name that a `use` imports.
pub fn imports(import: &ast::Use, origin: &Origin) -> Vec<Item> {
    let Some(tree) = import.use_tree() else { return Vec::new() };
    let node = import.syntax();
    if tree.use_tree_list().is_none() {
        let (key, names) = leaf_key("", &tree);
        let title = names.first().unwrap_or(&key).clone();
        return vec![Item { title, key, names, ..new_item(node, origin, String::new(), Vec::new(), true) }];
    }
    let attributes: String = import
        .syntax()
        .children()
        .filter_map(ast::Attr::cast)
        .filter(|attr| compact(attr.syntax()) != "#[cfg(test)]")
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
                title: names.first().unwrap_or(&key).clone(),
                key,
                names,
                is_value: false,
                edits: vec![
                    Edit::insert(range.start, format!("{attributes}pub use {prefix}{{")),
                    Edit::insert(range.end, "};"),
                ],
                range,
                members: Vec::new(),
                statics: Vec::new(),
                inner: Default::default(),
                files: Vec::new(),
                around: Default::default(),
                whole: text.clone(),
                text,
                shapes: true,
                macro_text: None,
                program: Program::default(),
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

#[cfg(test)]
mod tests {
    use crate::engine::items::tests::visible;

    #[test]
    fn every_name_of_an_import_is_an_item_of_its_own() {
        let (keys, text) = visible("use std::{fmt::{self, Debug as D}, io::*, rc::Rc};");
        assert_eq!(keys, ["fmt", "D", "use std::io::*", "Rc"]);
        assert_eq!(
            text,
            "pub use std::fmt::{self};pub use std::fmt::{Debug as D};pub use std::{io::*};pub use std::{rc::Rc};"
        );
    }
}
