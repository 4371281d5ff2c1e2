//! Files that a cell brings in, by `mod name;` and `include!`, are read as cells are: their items are items of the notebook, and errors
//! in them are told of their lines. Every file is looked for in the notebook's folder.
//!
//! Modules that such a file declares in turn are left to rustc, which finds them in the folder of that file's name.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use ra_ap_syntax::ast::{self, HasAttrs, HasModuleItem, HasName};
use ra_ap_syntax::{AstNode, AstToken, Edition, NodeOrToken, SourceFile, SyntaxNode, SyntaxToken, T};

use super::{Item, Origin, compact, items_of, statics, text, visible};
use crate::engine::built::Edit;
use crate::engine::grammar::program;

/// A file that a cell brings in.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name without its folder.
    pub name: String,
    pub source: String,
    pub items: Vec<Item>,
}

/// The file of `mod name;`, which is one item: a module with the file's text. `None` for what is no such module or has no file, of which
/// rustc says more.
pub fn module(node: &SyntaxNode, folder: &Path) -> Option<File> {
    let module = ast::Module::cast(node.clone())?;
    if module.item_list().is_some() {
        return None;
    }
    let name = module.name()?.text().to_string();
    let mut attributes = String::new();
    let mut named = None;
    for attribute in module.attrs() {
        let value = attribute
            .syntax()
            .descendants_with_tokens()
            .filter_map(NodeOrToken::into_token)
            .find_map(ast::String::cast);
        match value {
            Some(value) if attribute.simple_name().is_some_and(|name| name == "path") => {
                named = value.value().ok().map(|path| folder.join(&*path));
            }
            _ => attributes.push_str(&format!("{} ", attribute.syntax().text())),
        }
    }
    let (beside, inside) = (folder.join(format!("{name}.rs")), folder.join(&name));
    let (file, inner) = match named {
        Some(file) => (file.clone(), file.parent()?.to_owned()),
        None if !beside.exists() => (inside.join("mod.rs"), inside),
        None => (beside, inside),
    };
    let source = std::fs::read_to_string(&file).ok()?;
    let head = format!("mod {name} {{");
    let parsed = SourceFile::parse(&format!("{head}{source}\n}}"), Edition::Edition2024).tree();
    let node = parsed.items().next()?.syntax().clone();
    let shift = -isize::try_from(head.len()).ok()?;
    let origin = Origin { source: &source, shift, folder: file.parent()? };
    let mut edits = visible::widen(&node, &origin);
    edits.extend(absolute_includes(&node, &origin));
    let (program, to_run) = program::of(&node, &origin);
    edits.extend(to_run);
    edits.sort_by_key(|edit| edit.range.start);
    // A file that is edited makes another module, also where the file itself only declares the one that is.
    let files = fingerprint(&inner);
    let item = Item {
        key: name.clone(),
        title: name.clone(),
        names: vec![name],
        is_value: false,
        range: 0..source.len(),
        edits,
        members: Vec::new(),
        statics: statics::find(&node, &origin),
        around: (format!("{attributes}#[path = {:?}] pub {head}", inner.display().to_string()), "\n}".to_owned()),
        text: format!("{} {files:x}", text(&node, true)),
        whole: format!("{} {files:x}", text(&node, false)),
        shapes: true,
        macro_text: None,
        program,
    };
    let name = file.file_name()?.to_string_lossy().into_owned();
    Some(File { name, source, items: vec![item] })
}

/// The file of an `include!` that is a statement, if items are all that it has.
pub fn included(call: &ast::MacroCall, folder: &Path) -> Option<File> {
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
    let items: Vec<Item> = root.items().flat_map(|item| items_of(item.syntax(), &origin)).collect();
    let name = file.file_name()?.to_string_lossy().into_owned();
    (!items.is_empty()).then_some(File { name, source, items })
}

/// Tells the contents of the Rust files of a folder from any others.
fn fingerprint(folder: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_files(folder, 0, &mut hasher);
    hasher.finish()
}

fn hash_files(folder: &Path, depth: usize, hasher: &mut DefaultHasher) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && depth < 8 {
            hash_files(&path, depth + 1, hasher);
        } else if path.extension().is_some_and(|end| end == "rs") {
            (path.display().to_string(), std::fs::read(&path).ok()).hash(hasher);
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
            built.insert(&item.around.0, item.range.start);
            built.push(&file.source, item.range.clone(), &item.edits);
            built.insert(&item.around.1, item.range.end);
        }
        built.text
    }

    #[test]
    fn a_module_is_its_files_text_and_another_one_when_a_file_below_it_changes() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let notes = folder.path();
        std::fs::create_dir(notes.join("hello"))?;
        std::fs::write(notes.join("hello.rs"), "//! Doc.\npub mod deep;\npub(crate) static N: u8 = 1;\n")?;
        std::fs::write(notes.join("hello/deep.rs"), "pub fn f() {}")?;
        let node = parsed("#[allow(unused)] mod hello;").first_child();
        let read = || node.as_ref().and_then(|node| module(node, notes));
        let Some(file) = read() else { panic!("the file is there") };
        assert_eq!((file.name.as_str(), file.items[0].key.as_str()), ("hello.rs", "hello"));
        assert_eq!(file.items[0].statics[0].path, "hello::N");
        let inner = notes.join("hello").display().to_string();
        let expected = format!(
            "#[allow(unused)] #[path = {inner:?}] pub mod hello {{//! Doc.\npub mod deep;\npub static N: u8 = 1;\n\n}}"
        );
        assert_eq!(built(&file), expected);
        std::fs::write(notes.join("hello/deep.rs"), "pub fn g() {}")?;
        assert_ne!(read().map(|file| file.items[0].whole.clone()), Some(file.items[0].whole.clone()));
        Ok(())
    }

    #[test]
    fn an_included_file_of_items_has_them_and_one_of_an_expression_has_none() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("items.rs"), "fn f() {}\nstruct P { x: u8 }")?;
        std::fs::write(folder.path().join("value.rs"), "[1, 2, 3]")?;
        let read = |source: &str| {
            let call = parsed(source).descendants().find_map(ast::MacroCall::cast);
            call.and_then(|call| included(&call, folder.path()))
        };
        let file = read("include!(\"items.rs\");");
        assert_eq!(file.as_ref().map(built).as_deref(), Some("pub fn f() {}\npub struct P { pub x: u8 }"));
        assert!(read("include!(\"value.rs\");").is_none() && read("include!(\"none.rs\");").is_none());
        Ok(())
    }
}
