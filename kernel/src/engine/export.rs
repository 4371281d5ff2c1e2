//! From a notebook to a Cargo project and back: `:export`, `:save`, `:load`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ra_ap_parser::LexedStr;
use ra_ap_syntax::ast::{self, HasModuleItem, HasName};
use ra_ap_syntax::{AstNode, Edition, SourceFile, SyntaxKind, SyntaxNode};
use serde_json::Value;

use super::cell::{awaits, split_statements};

/// The first line of an exported program.
const MARK: &str = "//! Exported from a notebook.";
const PRELUDE_LINE: &str = "use wavemesh::prelude::*;";

/// The name that the `main` of a cell gets in an exported program, and a call of it.
const MAIN: &str = "main_of_the_notebook";
const CALL: &str = "main_of_the_notebook(";

/// The cells that ran.
#[derive(Default)]
pub struct History {
    cells: Vec<String>,
    ids: u64,
}

/// What else is exported from a notebook.
pub struct Notebook<'a> {
    /// Its current items.
    pub items: Vec<String>,
    /// The lines of `[dependencies]`.
    pub dependencies: Vec<String>,
    /// The folder of WaveMesh's source.
    pub library: Option<&'a Path>,
}

impl History {
    /// A number that no other run of a cell has.
    pub fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub fn ran(&mut self, code: &str) {
        self.cells.push(code.to_owned());
    }

    pub fn clear(&mut self) {
        self.cells.clear();
    }

    /// Writes `folder/Cargo.toml` and `folder/src/main.rs`: the items, and a `main` with the statements of all cells in the order in which
    /// they ran. Returns a message about what was written.
    pub fn export(&self, folder: &Path, notebook: &Notebook) -> Result<String> {
        ensure!(!self.cells.is_empty(), "no cell has run yet");
        let manifest_path = folder.join("Cargo.toml");
        let is_ours = |text: &str| text.contains("# Exported from a notebook");
        if std::fs::read_to_string(&manifest_path).is_ok_and(|text| !is_ours(&text)) {
            bail!("{} is a project already; choose another folder", folder.display());
        }
        let is_library = notebook.library.is_some();
        let mut body = String::new();
        let mut waits = false;
        for (index, cell) in self.cells.iter().enumerate() {
            // The program's own `main` contains the code of all cells, so the cell's `main` gets another name.
            let cell = &renamed_main(cell);
            let pieces = split_statements(cell);
            let calls_main =
                pieces.iter().any(|(_, text, node)| !ast::Item::can_cast(node.kind()) && text.contains(CALL));
            body.push_str(&format!("    // In [{}]\n", index + 1));
            let last = pieces.len().saturating_sub(1);
            for (place, (_, text, node)) in pieces.into_iter().enumerate() {
                let text = text.trim();
                // Items that a macro call defines are written above `main` already.
                if notebook.items.iter().any(|item| item.trim() == text.trim_end_matches(';'))
                    && !ast::Item::can_cast(node.kind())
                {
                    continue;
                }
                if let Some(item) = ast::Item::cast(node.clone()) {
                    if let Some(call) = call_of_main(&item).filter(|_| !calls_main) {
                        body.push_str(&indent(&call));
                        waits |= call.contains(".await");
                    }
                    continue;
                }
                waits |= awaits(&node);
                if place == last && ast::Expr::can_cast(node.kind()) && !is_macro(&node) {
                    body.push_str(&indent(&shown(&node.text().to_string(), is_library)));
                } else {
                    let semicolon = if ast::Expr::can_cast(node.kind()) && place == last { ";" } else { "" };
                    body.push_str(&indent(&format!("{text}{semicolon}")));
                }
            }
        }
        let prelude = if is_library { format!("#[allow(unused_imports)]\n{PRELUDE_LINE}\n") } else { String::new() };
        let item = |text: &String| format!("\n{}\n", renamed_main(&without_runtime(text)).trim());
        let items: String = notebook.items.iter().map(item).collect();
        let main = if waits { "#[tokio::main]\nasync fn main()" } else { "fn main()" };
        let main = format!(
            "{MARK}\n#![allow(dead_code, unused_variables, unused_mut, unused_imports)]\n{prelude}{items}\n\
             {main} -> std::result::Result<(), Box<dyn std::error::Error>> {{\n{body}    Ok(())\n}}\n"
        );
        std::fs::create_dir_all(folder.join("src")).with_context(|| format!("cannot make {}", folder.display()))?;
        write_whole(&folder.join("src/main.rs"), &main)?;
        write_whole(&manifest_path, &manifest(folder, notebook))?;
        Ok(format!("{} cells are in {}; `cargo run` there runs them", self.cells.len(), folder.display()))
    }
}

fn manifest(folder: &Path, notebook: &Notebook) -> String {
    let name: String = folder
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect();
    let name = if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("notebook-{name}") };
    let library = notebook.library.map(|folder| format!("wavemesh = {{ path = {:?} }}", folder.display().to_string()));
    let is_library = |line: &&String| library.is_some() && line.starts_with("wavemesh = ");
    let mut lines: Vec<&String> = notebook.dependencies.iter().filter(|line| !is_library(line)).collect();
    lines.extend(&library);
    let lines: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    format!(
        "# Exported from a notebook\n[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{lines}"
    )
}

/// A call of the item, if it is the `main` of a cell.
fn call_of_main(item: &ast::Item) -> Option<String> {
    let ast::Item::Fn(function) = item else { return None };
    function.name().filter(|name| name.text() == MAIN)?;
    let waits = if function.async_token().is_some() { ".await" } else { "" };
    let returned = function.ret_type().map(|returned| returned.syntax().text().to_string()).unwrap_or_default();
    let fails = if returned.contains("Result") { "?" } else { "" };
    Some(format!("{CALL}){waits}{fails};"))
}

/// The item without `#[tokio::main]`: the program has one runtime.
fn without_runtime(item: &str) -> String {
    let attribute = item.find("#[tokio::main").and_then(|start| Some(start..start + item[start..].find(']')? + 1));
    attribute.map_or_else(|| item.to_owned(), |range| format!("{}{}", &item[..range.start], &item[range.end..]))
}

/// The code of a cell in which `main` has another name, in its definition and in calls.
fn renamed_main(cell: &str) -> String {
    let tokens = LexedStr::new(Edition::Edition2024, cell);
    let mut renamed = String::with_capacity(cell.len());
    for index in 0..tokens.len() {
        let is_call = index + 1 < tokens.len() && tokens.kind(index + 1) == SyntaxKind::L_PAREN;
        // `tokio::main(flavor = …)` is an attribute, not a call.
        let of_path = index > 0 && tokens.kind(index - 1) == SyntaxKind::COLON;
        renamed.push_str(if tokens.text(index) == "main" && is_call && !of_path { MAIN } else { tokens.text(index) });
    }
    renamed
}

fn is_macro(node: &SyntaxNode) -> bool {
    ast::MacroExpr::can_cast(node.kind())
        || ["()", "for ", "while ", "loop ", "if "].iter().any(|start| node.text().to_string().starts_with(start))
}

fn shown(expression: &str, library: bool) -> String {
    if library {
        format!("wavemesh::notebook::show!({expression});")
    } else {
        format!("println!(\"{{:?}}\", {expression});")
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}

fn write_whole(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("part");
    std::fs::write(&temporary, text).with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

/// The cells of a notebook; a `.rs` file or an exported project is read as one cell.
pub fn cells_of(file: &Path) -> Result<Vec<String>> {
    let file = if file.is_dir() { &file.join("src/main.rs") } else { file };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if file.extension().is_none_or(|extension| extension != "ipynb") {
        return Ok(vec![if text.starts_with(MARK) { cell_again(&text) } else { text }]);
    }
    let notebook: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not a notebook", file.display()))?;
    let cells = notebook["cells"].as_array().with_context(|| format!("{} has no cells", file.display()))?;
    let source = |cell: &Value| match &cell["source"] {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    };
    Ok(cells
        .iter()
        .filter(|cell| cell["cell_type"] == "code")
        .map(source)
        .filter(|text| !text.trim().is_empty())
        .collect())
}

/// The cell for a program that [`History::export`] wrote: its items, then the content of `main`.
fn cell_again(exported: &str) -> String {
    let file = SourceFile::parse(exported, Edition::Edition2024).tree();
    let (mut items, mut body) = (String::new(), String::new());
    for item in file.items() {
        match &item {
            ast::Item::Fn(main) if main.name().is_some_and(|name| name.text() == "main") => {
                let block = main.body().map(|block| block.syntax().text().to_string()).unwrap_or_default();
                let inner = block.trim().trim_start_matches('{').trim_end_matches('}').trim_end();
                body = inner.strip_suffix("Ok(())").unwrap_or(inner).to_owned();
            }
            // Every cell has this import anyway.
            ast::Item::Use(_) if item.syntax().text().to_string().contains(PRELUDE_LINE) => {}
            item => items.push_str(&format!("{}\n", item.syntax().text())),
        }
    }
    items + &body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exports these cells, items and dependencies; returns the program and its manifest.
    fn exported(folder: &Path, cells: &[&str], items: &[&str], dependencies: &[&str]) -> Result<(String, String)> {
        let mut history = History::default();
        cells.iter().for_each(|cell| history.ran(cell));
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let notebook = Notebook { items: owned(items), dependencies: owned(dependencies), library: None };
        history.export(folder, &notebook)?;
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        Ok((read("src/main.rs")?, read("Cargo.toml")?))
    }

    #[test]
    fn the_main_of_a_cell_is_called_where_it_ran() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let newest = "fn main() { say(\"main()\") }";
        let cells = [
            "#[tokio::main(flavor = \"current_thread\")]\nasync fn main() -> Result<(), E> { Ok(()) }",
            "fn main() { say(\"main()\") }\nmain();",
        ];
        let (main, _) = exported(folder.path(), &cells[1..], &[newest], &[])?;
        assert!(main.contains("    // In [1]\n    main_of_the_notebook();\n"), "{main}");
        assert!(main.contains("fn main_of_the_notebook() { say(\"main()\") }") && !main.contains("tokio"), "{main}");
        let (main, _) = exported(folder.path(), &cells[..1], &cells[..1], &[])?;
        assert!(main.contains("    main_of_the_notebook().await?;\n"), "{main}");
        assert!(main.contains("\nasync fn main_of_the_notebook() -> Result<(), E> { Ok(()) }"), "{main}");
        assert!(main.contains("#[tokio::main]\nasync fn main() ") && main.matches("tokio").count() == 1, "{main}");
        Ok(())
    }

    #[test]
    fn items_are_those_of_the_notebook_and_statements_stay_in_order() -> Result<()> {
        let folder = tempfile::tempdir()?.path().join("My notes");
        let cells =
            ["fn f() -> i32 { 1 }\nlet a = f();", "               \nfn f() -> i32 { 2 }", "later().await;\na + f()"];
        let lines = ["regex = \"1\"", "tokio = { version = \"1\", features = [\"full\"] }"];
        let (main, manifest) = exported(&folder, &cells, &["make! { G }", "fn f() -> i32 { 2 }"], &lines)?;
        assert!(main.contains("{ 2 }") && !main.contains("{ 1 }"), "{main}");
        assert!(main.contains("let a = f();") && main.contains("println!(\"{:?}\", a + f());"), "{main}");
        assert!(main.contains("#[tokio::main]\nasync fn main() "), "{main}");
        assert_eq!(main.matches("make! { G }").count(), 1, "{main}");
        let [again] = &cells_of(&folder)?[..] else { bail!("not one cell") };
        assert!(again.starts_with("make! { G }\nfn f() -> i32 { 2 }") && again.contains("    let a = f();"), "{again}");
        assert!(!again.contains("main") && !again.contains("Ok(())"), "{again}");
        assert!(manifest.contains("name = \"my_notes\"") && manifest.contains(&lines.join("\n")), "{manifest}");
        Ok(())
    }
}
