//! Distinguishes macro calls that make items from those that are statements.

use ra_ap_syntax::ast;
use ra_ap_syntax::{AstNode, Edition, SourceFile, SyntaxNode};

use super::visible::{ITEM_WORDS, publish_tokens};
use super::{Item, Origin, compact, new_item};

/// The item for a macro call that makes items: what it makes is unknown, except statics.
pub fn items_of_macro(node: &SyntaxNode, origin: &Origin) -> Vec<Item> {
    let mut item = new_item(node, origin, compact(node), Vec::new(), true);
    item.names = item.statics.iter().map(|found| found.name.clone()).collect();
    if let [first, ..] = &item.names[..] {
        (item.key, item.title) = (first.clone(), first.clone());
    }
    if item.statics.is_empty()
        && let Some(call) = node.descendants().find_map(ast::MacroCall::cast)
        && let Some(tree) = call.token_tree()
    {
        publish_tokens(&tree, origin, &mut item.edits);
    }
    let curly = node.descendants().find_map(ast::TokenTree::cast).is_some_and(|tree| tree.l_curly_token().is_some());
    if curly && node.text().to_string().ends_with(';') {
        // The semicolon after braces does not belong to the item.
        item.range.end -= 1;
    }
    item.edits.sort_by_key(|edit| edit.range.start);
    vec![item]
}

/// Macros whose calls are always statements or values.
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

/// Whether a macro call in the place of a statement makes items. `rules` returns the text of a macro of the notebook.
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
        // Attributes and starts of repetitions may come before an item, in any order.
        while let Some(rest) = text
            .strip_prefix("$(")
            .or_else(|| text.strip_prefix("#[").and_then(|rest| rest.split_once(']')).map(|(_, rest)| rest))
        {
            text = rest.trim_start();
        }
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

/// Whether a macro of the notebook may bind variables with names that it is given.
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
    use super::*;

    #[test]
    fn a_macro_that_makes_items_is_told_from_one_that_does_something() {
        let rules = |name: &str| {
            let text = match name {
                "mk" => "macro_rules! mk { ($n:ident) => { fn $n() {} } }",
                "types" => "macro_rules! types { ($($n:ident: $t:ty),*) => { $( #[derive(Debug)] struct $n($t); )* } }",
                "say" => "macro_rules! say { ($n:expr) => { println!(\"{}\", $n) } }",
                _ => return None,
            };
            Some(text.to_owned())
        };
        for (source, makes) in [
            ("mk!(eleven);", true),
            ("say!(1);", false),
            ("types!(A: u8);", true),
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
