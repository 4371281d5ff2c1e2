//! Asks rustc for the type of an expression in a cell that is still being written.
//!
//! `receiver.` becomes `receiver.wavemesh_probe()`, the open brackets of the cell are closed, and rustc checks it together with the
//! notebook's items and variables. It answers that the type has no such method, and names the type in full. This generates no code, has no
//! effect, and needs nothing but the compiler that cells need anyway.

use std::collections::HashSet;
use std::sync::Mutex;

use anyhow::{Context, Result};
use ra_ap_syntax::{AstNode, Edition, SourceFile, SyntaxNode, ast};
use serde_json::Value;

use crate::engine::cell::{split_statements, words};
use crate::engine::compiler::{BUILT_AS, CALLED, Compiler};
use crate::engine::grammar::rust_of;

const PROBE: &str = "wavemesh_probe";
/// The name of the function that the cell becomes; rustc writes it in the path of an item that the cell itself defines.
const CELL: &str = "wavemesh_probed_cell";

/// Asks rustc, and remembers the last answer, because a name is typed letter by letter.
#[derive(Default)]
pub struct Prober {
    last: Mutex<Option<(String, Option<String>)>>,
}

impl Prober {
    /// The type of the expression that ends with `before`, the text of the cell up to a dot.
    pub fn type_of(&self, compiler: &Compiler, before: &str) -> Option<String> {
        let source = source(compiler, before)?;
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((asked, answer)) = &*last
            && *asked == source
        {
            return answer.clone();
        }
        let answer = ask(compiler, &source).unwrap_or_else(|error| {
            crate::engine::pipes::log(&format!("rustc could not be asked for a type: {error:#}"));
            None
        });
        *last = Some((source, answer.clone()));
        answer
    }
}

/// The notebook's items and variables, and the cell up to the dot, closed so that it parses.
fn source(compiler: &Compiler, before: &str) -> Option<String> {
    let body = closed(&format!("{}.{PROBE}()", rust_of(before).trim()))?;
    // Items of this cell replace those of the notebook with the same name.
    let own: Vec<String> = split_statements(&body).iter().filter_map(|(_, _, node)| item_name(node)).collect();
    let used: HashSet<&str> = words(&body).collect();
    let variables: String = compiler
        .stored_variables()
        .iter()
        // If this cell redefines the type of a variable, the variable is lost.
        .filter(|(name, ty)| {
            used.contains(name.trim_start_matches("r#")) && !words(ty).any(|word| own.iter().any(|item| item == word))
        })
        .map(|(name, ty)| format!("mut {name}: {ty}, "))
        .collect();
    let prelude = if compiler.bundle.is_some() { "use wavemesh::prelude::*;\n" } else { "" };
    let items = if compiler.has_items() { "use this_notebook::*;\n" } else { "" };
    Some(format!(
        "#![allow(warnings)]\n{prelude}fn {CELL}({variables}) -> Result<(), Box<dyn std::error::Error>> {{\n{items}{body}\n}}\n"
    ))
}

/// `code`, which may stop anywhere, completed so that it parses as the statements of a function.
fn closed(code: &str) -> Option<String> {
    let closers = open_brackets(code);
    // After a closing bracket, a statement may end or a block may follow, as in `for x in y.`.
    let mut attempts = vec![code.to_owned()];
    for closer in closers.iter().rev().map(Some).chain([None]) {
        let mut next = Vec::new();
        for attempt in attempts {
            for filler in ["", ";", " {}"] {
                let mut attempt = format!("{attempt}{filler}");
                attempt.extend(closer);
                if closer.is_some() || parses(&attempt) {
                    next.push(attempt);
                }
            }
            // Deeply nested code would need too many attempts.
            if next.len() > 243 {
                break;
            }
        }
        attempts = next;
    }
    attempts.into_iter().next()
}

fn parses(body: &str) -> bool {
    SourceFile::parse(&format!("fn cell() {{ {body} }}"), Edition::Edition2024).errors().is_empty()
}

/// The brackets that would close those open at the end of `code`, the outermost first.
fn open_brackets(code: &str) -> Vec<char> {
    let mut closers = Vec::new();
    let tokens = SourceFile::parse(code, Edition::Edition2024).syntax_node();
    for token in tokens.descendants_with_tokens().filter_map(|element| element.into_token()) {
        match token.text() {
            "(" => closers.push(')'),
            "[" => closers.push(']'),
            "{" => closers.push('}'),
            ")" | "]" | "}" => drop(closers.pop()),
            _ => {}
        }
    }
    closers
}

fn ask(compiler: &Compiler, source: &str) -> Result<Option<String>> {
    let folder = tempfile::Builder::new().prefix("probe-").tempdir_in(&compiler.folder)?;
    std::fs::write(folder.path().join("lib.rs"), source)?;
    let mut command = compiler.toolchain.quiet("rustc");
    command
        .current_dir(folder.path())
        .args([
            "--crate-name=probe",
            "--edition=2024",
            "--crate-type=lib",
            "--emit=metadata",
            "lib.rs",
            "-oprobe.rmeta",
        ])
        .args(["--error-format=json", "--diagnostic-width=100000", "-Ztrim-diagnostic-paths=no"])
        .args(compiler.extern_args());
    let output = command.output().context("cannot run rustc")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    Ok(messages.lines().filter_map(|line| serde_json::from_str(line).ok()).find_map(|message| probed(&message)))
}

/// The type in rustc's answer.
fn probed(message: &Value) -> Option<String> {
    if message["code"]["code"] != "E0599" || !message["message"].as_str()?.contains(PROBE) {
        return None;
    }
    let labels = message["spans"].as_array()?.iter().filter_map(|span| span["label"].as_str());
    let in_label = labels.filter_map(|label| label.strip_prefix("method not found in `")?.strip_suffix('`')).next();
    let found = match in_label {
        Some(ty) => ty.to_owned(),
        None => {
            let (_, after) = message["message"].as_str()?.split_once(" found for ")?;
            after.split('`').nth(1)?.to_owned()
        }
    };
    Some(found.replace(&format!("{CELL}::"), "").replace(BUILT_AS, CALLED).replace("this_notebook::", ""))
}

/// The name of an item.
fn item_name(node: &SyntaxNode) -> Option<String> {
    let name = ast::Item::can_cast(node.kind()).then(|| node.children().find_map(ast::Name::cast))??;
    Some(name.text().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_stops_anywhere_is_closed() {
        for (code, whole) in [
            ("let y = x.p()", "let y = x.p();"),
            ("f(x.p()", "f(x.p())"),
            ("let y = f(g(x.p()", "let y = f(g(x.p()));"),
            ("for i in x.p()", "for i in x.p() {}"),
            ("for i in 0..3 { let s = \"(\"; i.p()", "for i in 0..3 { let s = \"(\"; i.p()}"),
            ("let v = a.map(|x| { x.p()", "let v = a.map(|x| { x.p()});"),
            ("fn f(a: u8) { a.p()", "fn f(a: u8) { a.p()}"),
        ] {
            assert_eq!(closed(code).as_deref(), Some(whole), "{code}");
        }
        assert_eq!(closed("let let x.p()"), None);
    }
}
