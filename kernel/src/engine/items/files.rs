//! Files that a cell brings in by `mod name;` or `include!` are read like cells: their items become items of the notebook, and errors in
//! them name lines of the file. Every file is looked for in the notebook's folder. For modules see [`super::modules`].

use std::ops::Range;
use std::path::{Path, PathBuf};

use ra_ap_syntax::ast::{self, HasModuleItem};
use ra_ap_syntax::{AstNode, AstToken, Edition, NodeOrToken, SourceFile, SyntaxNode, SyntaxToken, T};

use super::{Item, Origin, compact, items_of, module};
use crate::engine::built::Edit;

/// A file that a cell brings in, together with the files that it declares.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name among the files of the cell.
    pub title: String,
    /// The text of all pages, one after the other.
    pub source: String,
    /// The path of each page, relative to the notebook's folder, and its range in the source. The page with an empty path is the cell's own
    /// text.
    pub pages: Vec<(String, Range<usize>)>,
    pub items: Vec<Item>,
}

/// The file of an `include!` statement, if it contains only items; then its modules that have files.
pub fn included(call: &ast::MacroCall, folder: &Path) -> Vec<File> {
    read(call, folder).unwrap_or_default()
}

fn read(call: &ast::MacroCall, folder: &Path) -> Option<Vec<File>> {
    if compact(call.path()?.syntax()) != "include" {
        return None;
    }
    let path = call
        .token_tree()?
        .syntax()
        .children_with_tokens()
        .filter_map(NodeOrToken::into_token)
        .find_map(ast::String::cast)?;
    let file: PathBuf = folder.join(&*path.value().ok()?);
    let source = std::fs::read_to_string(&file).ok()?;
    let parsed = SourceFile::parse(&source, Edition::Edition2024);
    if !parsed.errors().is_empty() {
        return None;
    }
    let root = parsed.tree();
    if root.syntax().children().any(|node| !ast::Item::can_cast(node.kind()) && !ast::Attr::can_cast(node.kind())) {
        return None;
    }
    let origin = Origin { source: &source, shift: 0, folder: file.parent()? };
    let path = file.strip_prefix(folder).unwrap_or(&file).display().to_string();
    let mut modules: Vec<File> = Vec::new();
    let mut items: Vec<Item> = Vec::new();
    for item in root.items() {
        match module(item.syntax(), &origin) {
            Some(module) => modules.push(module),
            None => items.extend(items_of(item.syntax(), &origin)),
        }
    }
    for file in &mut modules {
        // The text around an inline module is that of this file.
        for (name, _) in file.pages.iter_mut().filter(|(name, _)| name.is_empty()) {
            name.clone_from(&path);
        }
    }
    let pages = vec![(path.clone(), 0..source.len())];
    let own = (!items.is_empty()).then(|| File { title: path, pages, source: source.clone(), items });
    Some(own.into_iter().chain(modules).collect())
}

/// Makes paths in `include!`, `include_str!` and `include_bytes!` absolute; they start at the notebook's folder.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::built::Built;

    fn parsed(source: &str) -> SyntaxNode {
        SourceFile::parse(source, Edition::Edition2024).syntax_node()
    }

    fn built(file: &File) -> String {
        let mut built = Built::default();
        for item in &file.items {
            built.push(&file.source, item.range.clone(), &item.edits);
        }
        built.text
    }

    #[test]
    fn an_included_file_of_items_has_them_and_one_of_an_expression_has_none() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("items.rs"), "fn f() {}\nstruct P { x: u8 }")?;
        std::fs::write(folder.path().join("value.rs"), "[1, 2, 3]")?;
        let read = |source: &str| {
            let call = parsed(source).descendants().find_map(ast::MacroCall::cast);
            call.map_or_else(Vec::new, |call| included(&call, folder.path()))
        };
        let files = read("include!(\"items.rs\");");
        let texts: Vec<String> = files.iter().map(built).collect();
        assert_eq!(texts, ["pub fn f() {}\npub struct P { pub x: u8 }"]);
        assert!(read("include!(\"value.rs\");").is_empty() && read("include!(\"none.rs\");").is_empty());
        Ok(())
    }
}
