//! Modules whose text is in files: `mod name;` in a cell, and what such a file declares in turn. A module is one item of the notebook,
//! however many files it has. Their texts are the pages of one source, so that statics in any of them keep their homes and errors name the
//! right lines. rustc gets every page as a separate file with the same lines as the user's file.
//!
//! Files are looked for where rustc looks: beside the file that declares them, in the folder of its name, or where `#[path]` says.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ra_ap_syntax::ast::{self, HasAttrs, HasModuleItem, HasName, HasVisibility};
use ra_ap_syntax::{AstNode, AstToken, Edition, NodeOrToken, SourceFile, SyntaxKind, SyntaxNode, SyntaxToken, T};

use super::{File, Item, Origin, absolute_includes, new_item, start_after_attributes, text, types, visible};
use crate::engine::built::Edit;
use crate::engine::cell::Run;
use crate::engine::grammar::program;
use crate::engine::statics;

/// Files that are nested deeper than this are left to rustc.
const DEPTH: usize = 32;

/// A module in a file, as another page of its item declares it.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The page of its text.
    pub page: usize,
    /// Its attribute `#[path = …]`, or the place for one.
    path: Range<usize>,
    /// The semicolon after its name.
    semicolon: Range<usize>,
}

impl Declared {
    /// The edit that lets rustc find the page in `file`.
    pub fn named(&self, file: &Path) -> Edit {
        Edit::replace(self.path.clone(), path_attribute(file))
    }
}

fn path_attribute(file: &Path) -> String {
    format!("#[path = {:?}] ", file.display().to_string())
}

/// The text of a range of an item, in which each module from a file is written with its text in braces.
pub fn with_files(item: &Item, range: &Range<usize>, run: &Run) -> String {
    let mut written = String::new();
    let mut done = range.start;
    for file in item.files.iter().filter(|file| range.start <= file.path.start && file.semicolon.end <= range.end) {
        let Some(page) = run.pages.get(file.page) else { continue };
        written.push_str(&run.source[done..file.path.start]);
        written.push_str(&run.source[file.path.end..file.semicolon.start]);
        written.push_str(&format!(" {{\n{}\n}}", with_files(item, &page.range, run)));
        done = file.semicolon.end;
    }
    written + &run.source[done..range.end]
}

/// A module whose text is in a file, completely or in part. `None` if it is no such module, or if a file is missing (rustc reports that).
pub fn module(node: &SyntaxNode, origin: &Origin) -> Option<File> {
    let module = ast::Module::cast(node.clone())?;
    let name = module.name()?.text().to_string();
    let here = Folders { file: origin.folder.to_owned(), modules: origin.folder.to_owned() };
    let mut reading = Reading { root: origin.folder.to_owned(), ..Reading::default() };
    let item = if module.item_list().is_some() {
        let mut item = new_item(node, origin, name.clone(), vec![name], true);
        reading.source = origin.source.to_owned();
        reading.pages.push((String::new(), 0..origin.source.len()));
        let found = declarations(node, origin, 0, &here);
        if !found.iter().any(|declaration| declaration.file.is_some()) {
            return None;
        }
        reading.declared(found, &mut item);
        item
    } else {
        let declaration = declarations(node, origin, 0, &here).into_iter().next()?;
        let file = declaration.file?;
        let mut item = new_item(node, origin, name.clone(), vec![name.clone()], true);
        // The code from the cell goes before the text of the file.
        (item.edits, item.range, item.text, item.whole) = Default::default();
        let attributes = module.attrs().filter(|attribute| attribute.simple_name().is_none_or(|name| name != "path"));
        let attributes: String = attributes.map(|attribute| format!("{} ", attribute.syntax().text())).collect();
        let modules = path_attribute(&file.folders.modules);
        item.around = (format!("{attributes}{modules}pub mod {name} {{"), "\n}".to_owned());
        reading.page(&file, &[name], &mut item);
        item.range = reading.pages.first()?.1.clone();
        item
    };
    let mut item = item;
    item.edits.sort_by_key(|edit| edit.range.start);
    statics::tell_apart(&mut item.statics);
    let title = reading.pages.last().map_or_else(String::new, |(name, _)| name.clone());
    Some(File { title, pages: reading.pages, source: reading.source, items: vec![item] })
}

/// The folders in which the modules of a file are looked for.
#[derive(Clone, Debug)]
struct Folders {
    /// The folder of the file itself, from which `#[path]` counts.
    file: PathBuf,
    /// The folder of its modules.
    modules: PathBuf,
}

/// The file of a module.
#[derive(Clone, Debug)]
struct Found {
    path: PathBuf,
    /// The folders for the modules that this file declares.
    folders: Folders,
}

/// A declaration `mod name;` in a text.
struct Declaration {
    /// The names of the modules around it, then its own.
    names: Vec<String>,
    file: Option<Found>,
    /// The file that rustc would expect if none exists.
    expected: PathBuf,
    path: Range<usize>,
    semicolon: Range<usize>,
    /// Where `pub` has to be added, if it is missing.
    private: Option<usize>,
}

/// The modules of a text that are in files, also those declared in calls of macros such as `cfg_if!`. The first `heads` modules around a
/// declaration are the modules to which the text itself belongs.
fn declarations(root: &SyntaxNode, origin: &Origin, heads: usize, folders: &Folders) -> Vec<Declaration> {
    let tokens = root.descendants_with_tokens().filter_map(NodeOrToken::into_token);
    let tokens: Vec<SyntaxToken> = tokens.filter(|token| !token.kind().is_trivia()).collect();
    let mut found = Vec::new();
    for (index, three) in tokens.windows(3).enumerate() {
        let [word, name, semicolon] = three else { continue };
        if word.kind() != T![mod] || name.kind() != SyntaxKind::IDENT || semicolon.kind() != T![;] {
            continue;
        }
        let declared = word.parent().and_then(ast::Module::cast);
        // A cell is parsed as the body of a function.
        let ancestors = || word.parent_ancestors().take_while(|outer| root.parent().as_ref() != Some(outer));
        let modules_around = ancestors().filter_map(ast::Module::cast);
        let around: Vec<ast::Module> = modules_around.filter(|one| declared.as_ref() != Some(one)).collect();
        // From the innermost module to the outermost.
        let mut names: Vec<String> =
            around.iter().rev().filter_map(|one| Some(one.name()?.text().to_string())).collect();
        let mut modules = folders.modules.clone();
        for one in around.iter().rev().skip(heads) {
            let folder = one.attrs().find_map(|attribute| path_of(&attribute)).map(|(path, _)| path);
            let name = one.name().map(|name| name.text().trim_start_matches("r#").to_owned());
            modules.push(folder.or(name).unwrap_or_default());
        }
        let is_inline = around.len() > heads;
        let named = declared.as_ref().and_then(|one| one.attrs().find_map(|attribute| path_of(&attribute)));
        // rustc looks for no file for a module inside a function, unless `#[path]` names one.
        if named.is_none() && ancestors().any(|node| ast::BlockExpr::can_cast(node.kind())) {
            continue;
        }
        let start = match &declared {
            Some(one) => origin.at(start_after_attributes(one.syntax())),
            None => origin.token(&tokens[start_of_visibility(&tokens, index)]).start,
        };
        let own = name.text().trim_start_matches("r#").to_owned();
        names.push(name.text().to_owned());
        let (candidates, path) = match &named {
            Some((path, attribute)) => {
                let file = if is_inline { &modules } else { &folders.file }.join(path);
                let folder = file.parent().unwrap_or(&file).to_owned();
                (vec![(file, folder)], origin.range(attribute))
            }
            None => {
                let inside = modules.join(&own);
                (
                    vec![(modules.join(format!("{own}.rs")), inside.clone()), (inside.join("mod.rs"), inside)],
                    start..start,
                )
            }
        };
        let expected = candidates[0].0.clone();
        let file = candidates.into_iter().find(|(path, _)| path.is_file()).map(|(path, modules)| Found {
            folders: Folders { file: path.parent().unwrap_or(&path).to_owned(), modules },
            path,
        });
        let private = declared.filter(|one| one.visibility().is_none()).map(|_| start);
        found.push(Declaration { names, file, expected, path, semicolon: origin.token(semicolon), private });
    }
    found
}

/// The token at which the visibility before the token `at` begins, or `at` itself if there is none.
fn start_of_visibility(tokens: &[SyntaxToken], at: usize) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text());
    let mut start = at;
    if start > 0 && text(start - 1) == ")" {
        while start > 0 && text(start) != "(" {
            start -= 1;
        }
    }
    if start > 0 && text(start - 1) == "pub" { start - 1 } else { at }
}

/// The value of `#[path = "…"]`.
fn path_of(attribute: &ast::Attr) -> Option<(String, SyntaxNode)> {
    if attribute.simple_name().is_none_or(|name| name != "path") {
        return None;
    }
    let tokens = attribute.syntax().descendants_with_tokens().filter_map(NodeOrToken::into_token);
    let value = tokens.filter_map(ast::String::cast).find_map(|text| Some(text.value().ok()?.into_owned()))?;
    Some((value, attribute.syntax().clone()))
}

/// The files read so far, one after the other.
#[derive(Default)]
struct Reading {
    /// The notebook's folder.
    root: PathBuf,
    source: String,
    /// The name and the range of each text.
    pages: Vec<(String, Range<usize>)>,
    /// The files that are being read: each declares the next.
    open: Vec<PathBuf>,
}

impl Reading {
    /// Reads the file of the module `names`, and the files that it declares, into `item`.
    fn page(&mut self, file: &Found, names: &[String], item: &mut Item) -> bool {
        let Ok(code) = std::fs::read_to_string(&file.path) else { return false };
        let path = file.path.canonicalize().unwrap_or_else(|_| file.path.clone());
        if self.open.len() >= DEPTH || self.open.contains(&path) {
            return false;
        }
        let start = self.source.len();
        self.source.push_str(&code);
        let name = file.path.strip_prefix(&self.root).unwrap_or(&file.path);
        self.pages.push((name.display().to_string(), start..self.source.len()));
        self.source.push('\n');
        let head: String = names.iter().map(|name| format!("mod {name} {{")).collect();
        let parsed = SourceFile::parse(&format!("{head}{code}\n{}", "}".repeat(names.len())), Edition::Edition2024);
        let Some(node) = parsed.tree().items().next().map(|item| item.syntax().clone()) else { return false };
        let shift = isize::try_from(start).unwrap_or_default() - isize::try_from(head.len()).unwrap_or_default();
        let origin = Origin { source: &self.source, shift, folder: &file.folders.file };
        item.edits.extend(visible::widen(&node, &origin));
        item.edits.extend(absolute_includes(&node, &origin));
        let (program, to_run) = program::of(&node, &origin);
        // Edits for the modules around the text do not apply to this page.
        item.edits.extend(to_run.into_iter().filter(|edit| edit.range.start >= start));
        item.program.extend(&program);
        item.statics.extend(statics::find(&node, &origin));
        types(&node, &mut item.inner);
        item.text.push_str(&text(&node, true));
        item.whole.push_str(&text(&node, false));
        let declared = declarations(&node, &origin, names.len(), &file.folders);
        self.open.push(path);
        self.declared(declared, item);
        self.open.pop();
        true
    }

    /// Reads the files that a page declares.
    fn declared(&mut self, declarations: Vec<Declaration>, item: &mut Item) {
        for Declaration { names, file, expected, path, semicolon, private } in declarations {
            let page = self.pages.len();
            let tests = item.program.tests.len();
            if file.as_ref().is_some_and(|file| self.page(file, &names, item)) {
                item.files.push(Declared { page, path, semicolon });
                // Tests are called from another crate.
                let to_publish = private.filter(|_| item.program.tests.len() > tests);
                item.edits.extend(to_publish.map(|at| Edit::insert(at, "pub ")));
            } else {
                // rustc then reports the missing file under the user's own path.
                item.edits.push(Edit::replace(path, path_attribute(&expected)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, source: &str) -> Option<File> {
        // This is how a cell is parsed.
        let head = "fn f() {";
        let parsed = SourceFile::parse(&format!("{head}{source}}}"), Edition::Edition2024).syntax_node();
        let node = parsed.descendants().find(|node| ast::Module::can_cast(node.kind()))?;
        module(&node, &Origin { source, shift: -(head.len() as isize), folder })
    }

    fn write(folder: &Path, files: &[(&str, &str)]) -> std::io::Result<()> {
        for (name, text) in files {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap_or(folder))?;
            std::fs::write(file, text)?;
        }
        Ok(())
    }

    #[test]
    fn the_files_of_a_module_are_the_pages_of_one_item() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        write(
            folder.path(),
            &[
                (
                    "a.rs",
                    "//! Doc.\npub mod b;\nmod c { pub mod d; }\n#[path = \"odd.rs\"] mod e;\npub(crate) static N: u8 = 1;\n",
                ),
                ("a/b.rs", "pub mod deep;\nstatic N: u8 = 2;"),
                ("a/b/deep/mod.rs", "fn f() { static N: u8 = 3; }"),
                ("a/c/d.rs", "static N: u8 = 4;"),
                ("odd.rs", "static N: u8 = 5;"),
            ],
        )?;
        let Some(file) = read(folder.path(), "#[allow(unused)] mod a;") else { panic!("the files are there") };
        let names: Vec<&str> = file.pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.rs", "a/b.rs", "a/b/deep/mod.rs", "a/c/d.rs", "odd.rs"]);
        let item = &file.items[0];
        let statics: Vec<&str> = item.statics.iter().map(|found| found.path.as_str()).collect();
        assert_eq!(statics, ["a::N", "a::b::N", "a::b::deep::f::N", "a::c::d::N", "a::e::N"]);
        let inner = folder.path().join("a").display().to_string();
        assert_eq!(item.around.0, format!("#[allow(unused)] #[path = {inner:?}] pub mod a {{"));
        let texts: Vec<&str> = item.statics.iter().map(|found| &file.source[found.range.clone()]).collect();
        let expected = [
            "pub(crate) static N: u8 = 1;",
            "static N: u8 = 2;",
            "static N: u8 = 3;",
            "static N: u8 = 4;",
            "static N: u8 = 5;",
        ];
        assert_eq!(texts, expected);
        Ok(())
    }

    #[test]
    fn a_module_is_told_whole_and_another_one_when_a_file_below_it_changes() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        write(folder.path(), &[("a/b.rs", "mod c;"), ("a/c.rs", "fn f() {}")])?;
        let source = "mod a { #[path = \"b.rs\"] pub mod b; }";
        let read = || read(folder.path(), source).ok_or_else(|| std::io::Error::other("no file"));
        let file = read()?;
        let pages = file.pages.iter().map(|(name, range)| crate::engine::cell::Page {
            name: name.clone(),
            label: name.clone(),
            range: range.clone(),
        });
        let run = Run::new(1, pages.collect(), &file.source);
        let item = &file.items[0];
        assert_eq!(with_files(item, &item.range, &run), "mod a {  pub mod b {\nmod c {\nfn f() {}\n}\n} }");
        write(folder.path(), &[("a/c.rs", "fn g() {}")])?;
        assert_ne!(read()?.items[0].whole, item.whole);
        Ok(())
    }

    #[test]
    fn a_file_that_is_missing_or_declares_itself_is_left_to_rustc() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        write(
            folder.path(),
            &[
                (
                    "a.rs",
                    "mod gone;\n#[path = \"a.rs\"] mod again;\ncfg_if! { if #[cfg(unix)] { pub(super) mod of_macro; } }",
                ),
                ("a/of_macro.rs", ""),
            ],
        )?;
        assert!(read(folder.path(), "mod none;").is_none() && read(folder.path(), "mod none { mod gone; }").is_none());
        let Some(file) = read(folder.path(), "mod a;") else { panic!("the file is there") };
        assert_eq!(file.pages.len(), 2);
        let texts: Vec<String> = file.items[0].edits.iter().map(|edit| edit.text.clone()).collect();
        let path = |name: &str| path_attribute(&folder.path().join(name));
        assert_eq!(texts, [path("a/gone.rs"), path("a.rs")]);
        let declared = file.items[0].files[0].named(Path::new("/x"));
        assert_eq!(&file.source[declared.range.start..][..14], "pub(super) mod");
        Ok(())
    }
}
