//! From a notebook to a Cargo project and back: `:export`, `:save`, `:load`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ra_ap_parser::LexedStr;
use ra_ap_syntax::ast::{self, HasModuleItem, HasName};
use ra_ap_syntax::{AstNode, Edition, SourceFile, SyntaxKind, SyntaxNode};
use serde_json::Value;

use super::cell::split_statements;

/// The first line of an exported program.
const MARK: &str = "//! Exported from a notebook.";
const PRELUDE_LINE: &str = "use wavemesh::prelude::*;";

/// What the `main` of a cell is called in an exported program, and a call of it.
const MAIN: &str = "main_of_the_notebook";
const CALL: &str = "main_of_the_notebook(";

/// The cells that ran, and the crates that they asked for.
#[derive(Default)]
pub struct History {
    cells: Vec<String>,
    dependencies: Vec<String>,
    ids: u64,
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

    pub fn depends(&mut self, arguments: &str) {
        self.dependencies.push(arguments.to_owned());
    }

    pub fn clear(&mut self) {
        self.cells.clear();
        self.dependencies.clear();
    }

    /// Writes `folder/Cargo.toml` and `folder/src/main.rs`: items outside of `main`, the newest of each name, and the statements of
    /// all cells in the order in which they ran. `library` is WaveMesh's source. Says what was written.
    pub fn export(&self, folder: &Path, library: Option<&Path>) -> Result<String> {
        ensure!(!self.cells.is_empty(), "no cell has run yet");
        let manifest_path = folder.join("Cargo.toml");
        let is_ours = |text: &str| text.contains("# Exported from a notebook");
        if std::fs::read_to_string(&manifest_path).is_ok_and(|text| !is_ours(&text)) {
            bail!("{} is a project already; choose another folder", folder.display());
        }
        let mut items: Vec<(String, String)> = Vec::new();
        let mut body = String::new();
        for (index, cell) in self.cells.iter().enumerate() {
            // The program's own `main` is that of all cells.
            let cell = &renamed_main(cell);
            let pieces = split_statements(cell);
            let calls_main =
                pieces.iter().any(|(_, text, node)| !ast::Item::can_cast(node.kind()) && text.contains(CALL));
            body.push_str(&format!("    // In [{}]\n", index + 1));
            let last = pieces.len().saturating_sub(1);
            for (place, (_, text, node)) in pieces.into_iter().enumerate() {
                let text = text.trim();
                if let Some(key) = item_key(&node) {
                    if key == MAIN && !calls_main {
                        let fails = text.split('{').next().is_some_and(|head| head.contains("Result"));
                        body.push_str(&indent(&format!("{CALL}){};", if fails { "?" } else { "" })));
                    }
                    items.retain(|(known, _)| *known != key);
                    items.push((key, text.to_owned()));
                } else if place == last && ast::Expr::can_cast(node.kind()) && !is_macro(&node) {
                    body.push_str(&indent(&shown(&node.text().to_string(), library.is_some())));
                } else {
                    let semicolon = if ast::Expr::can_cast(node.kind()) && place == last { ";" } else { "" };
                    body.push_str(&indent(&format!("{text}{semicolon}")));
                }
            }
        }
        let prelude =
            if library.is_some() { format!("#[allow(unused_imports)]\n{PRELUDE_LINE}\n") } else { String::new() };
        let items: String = items.iter().map(|(_, text)| format!("\n{text}\n")).collect();
        let main = format!(
            "{MARK}\n#![allow(dead_code, unused_variables, unused_mut, unused_imports)]\n{prelude}{items}\n\
             fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {{\n{body}    Ok(())\n}}\n"
        );
        std::fs::create_dir_all(folder.join("src")).with_context(|| format!("cannot make {}", folder.display()))?;
        write_whole(&folder.join("src/main.rs"), &main)?;
        write_whole(&manifest_path, &self.manifest(folder, library))?;
        Ok(format!("{} cells are in {}; `cargo run` there runs them", self.cells.len(), folder.display()))
    }

    fn manifest(&self, folder: &Path, library: Option<&Path>) -> String {
        let name: String = folder
            .file_name()
            .map(|name| name.to_string_lossy().to_lowercase())
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .collect();
        let name = if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("notebook-{name}") };
        let mut lines: Vec<String> = Vec::new();
        if let Some(library) = library {
            lines.push(format!("wavemesh = {{ path = {:?} }}", library.display().to_string()));
        }
        for arguments in &self.dependencies {
            lines.push(match arguments.split_once('=') {
                Some((name, version)) => format!("{} = {}", name.trim(), version.trim()),
                None => format!("{} = \"*\"", arguments.trim()),
            });
        }
        lines.dedup();
        format!(
            "# Exported from a notebook\n[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
             [dependencies]\n{}\n",
            lines.join("\n")
        )
    }
}

/// The code of a cell with another name for its `main`, in its definition and in calls.
fn renamed_main(cell: &str) -> String {
    let tokens = LexedStr::new(Edition::Edition2024, cell);
    let mut renamed = String::with_capacity(cell.len());
    for index in 0..tokens.len() {
        let is_call = index + 1 < tokens.len() && tokens.kind(index + 1) == SyntaxKind::L_PAREN;
        // `tokio::main(flavor = …)` is an attribute.
        let of_path = index > 0 && tokens.kind(index - 1) == SyntaxKind::COLON;
        renamed.push_str(if tokens.text(index) == "main" && is_call && !of_path { MAIN } else { tokens.text(index) });
    }
    renamed
}

/// A name under which a later item replaces an earlier one; `None` for what is not an item.
pub fn item_key(node: &SyntaxNode) -> Option<String> {
    let item = ast::Item::cast(node.clone())?;
    let name = match &item {
        ast::Item::Fn(item) => item.name(),
        ast::Item::Struct(item) => item.name(),
        ast::Item::Enum(item) => item.name(),
        ast::Item::Union(item) => item.name(),
        ast::Item::Trait(item) => item.name(),
        ast::Item::TypeAlias(item) => item.name(),
        ast::Item::Const(item) => item.name(),
        ast::Item::Static(item) => item.name(),
        ast::Item::Module(item) => item.name(),
        ast::Item::MacroRules(item) => item.name(),
        ast::Item::MacroCall(_) => return None,
        _ => None,
    };
    let text = node.text().to_string();
    Some(
        name.map_or_else(
            || text.split('{').next().unwrap_or_default().trim().to_owned(),
            |name| name.text().to_string(),
        ),
    )
    .filter(|key| !key.is_empty())
    .or(Some(text))
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

/// The cells of a notebook; a `.rs` file, or an exported project, as one cell.
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

/// What [`History::export`] wrote, as a cell: items, then what is in `main`.
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
            // Cells see it anyway.
            ast::Item::Use(_) if item.syntax().text().to_string().contains(PRELUDE_LINE) => {}
            item => items.push_str(&format!("{}\n", item.syntax().text())),
        }
    }
    items + &body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_of_a_cell_is_called_where_it_ran() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut history = History::default();
        for cell in [
            "#[tokio::main(flavor = \"current_thread\")]\nasync fn main() -> Result<(), E> { Ok(()) }",
            "fn main() { say(\"main()\") }\nmain();",
        ] {
            history.ran(cell);
        }
        history.export(folder.path(), None)?;
        let main = std::fs::read_to_string(folder.path().join("src/main.rs"))?;
        assert!(
            main.contains("    // In [1]\n    main_of_the_notebook()?;\n    // In [2]\n    main_of_the_notebook();\n"),
            "{main}"
        );
        assert!(main.contains("fn main_of_the_notebook() { say(\"main()\") }") && !main.contains("tokio"), "{main}");
        Ok(())
    }

    #[test]
    fn a_later_item_replaces_an_earlier_one_and_statements_stay_in_order() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut history = History::default();
        for cell in ["fn f() -> i32 { 1 }\nlet a = f();", "               \nfn f() -> i32 { 2 }", "a + f()"] {
            history.ran(cell);
        }
        history.depends("regex = \"1\"");
        history.export(&folder.path().join("My notes"), None)?;
        let main = std::fs::read_to_string(folder.path().join("My notes/src/main.rs"))?;
        assert!(main.contains("{ 2 }") && !main.contains("{ 1 }"), "{main}");
        assert!(main.contains("let a = f();") && main.contains("println!(\"{:?}\", a + f());"), "{main}");
        let [again] = &cells_of(&folder.path().join("My notes"))?[..] else { bail!("not one cell") };
        assert!(again.starts_with("fn f() -> i32 { 2 }") && again.contains("    let a = f();"), "{again}");
        assert!(!again.contains("main") && !again.contains("Ok(())"), "{again}");
        let manifest = std::fs::read_to_string(folder.path().join("My notes/Cargo.toml"))?;
        assert!(manifest.contains("name = \"my_notes\"") && manifest.contains("regex = \"1\""), "{manifest}");
        Ok(())
    }
}
