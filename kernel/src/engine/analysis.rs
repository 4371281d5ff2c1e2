//! Completion and documentation, from what the notebook has defined, the code at the cursor, and the library's source.
//!
//! Names are matched by their first letters; types are not inferred.

use std::sync::Arc;

use serde_json::{Value, json};

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use super::export::item_key;
use super::session::Shared;
use super::weave::Type;
use super::{Completion, Completions, cell, commands};

const KEYWORDS: [&str; 36] = [
    "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "false", "fn",
    "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "self", "Self",
    "static", "struct", "trait", "true", "type", "use", "where", "while",
];

/// Suggestions at `cursor`, counted in characters.
pub fn complete(shared: &Arc<Shared>, code: &str, cursor: usize) -> Completions {
    let before: String = code.chars().take(cursor).collect();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let is_command = line.starts_with([':', '%']) && !line.contains(' ');
    let start = if is_command {
        before.len() - line.len()
    } else {
        before
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))
    };
    let typed = &before[start..];
    let mut matches: Vec<Completion> = Vec::new();
    let mut add = |text: &str, kind: &str, signature: &str| {
        if text.starts_with(typed) && !matches.iter().any(|known| known.text == text) {
            matches.push(Completion { text: text.to_owned(), kind: kind.to_owned(), signature: signature.to_owned() });
        }
    };
    if is_command {
        commands::names().for_each(|name| add(name, "magic", ""));
    } else {
        if let Some(evaluator) = shared.evaluator() {
            for variable in evaluator.compiler.variables() {
                let ty = if let Type::Known(ty) = &variable.ty { ty.as_str() } else { "" };
                add(&variable.name, "instance", ty);
            }
        }
        let after_dot = before[..start].trim_end().ends_with('.');
        if !typed.is_empty() {
            let earlier = shared.evaluator().map(|evaluator| evaluator.compiler.cells()).unwrap_or_default();
            let texts = std::iter::once(code).chain(earlier.iter().rev().take(50).map(|run| run.cell.source.as_str()));
            let words: BTreeSet<&str> = texts.flat_map(words).filter(|word| *word != typed).collect();
            words.into_iter().for_each(|word| add(word, "instance", ""));
            for (name, kind) in library_names(shared).iter().filter(|(_, kind)| !after_dot || *kind == "function") {
                add(name, kind, "");
            }
        }
        if !typed.is_empty() && !after_dot {
            KEYWORDS.iter().for_each(|keyword| add(keyword, "keyword", ""));
        }
    }
    let characters = |bytes: usize| before[..bytes].chars().count();
    Completions { matches, start: characters(start), end: cursor.min(code.chars().count()) }
}

/// The identifiers of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(move |c: char| !is_word(c))
        .filter(|word| word.len() > 2 && !word.starts_with(|c: char| c.is_ascii_digit()))
}

/// The library's public names and their kinds, read once from its source.
fn library_names(shared: &Arc<Shared>) -> &'static BTreeSet<(String, &'static str)> {
    static NAMES: OnceLock<BTreeSet<(String, &'static str)>> = OnceLock::new();
    let source = shared.evaluator().and_then(|evaluator| Some(evaluator.compiler.bundle.as_ref()?.source.join("src")));
    match source {
        Some(source) => NAMES.get_or_init(|| {
            let mut names = BTreeSet::new();
            collect_names(&source, &mut names);
            names
        }),
        None => {
            static NONE: BTreeSet<(String, &'static str)> = BTreeSet::new();
            &NONE
        }
    }
}

fn collect_names(folder: &Path, names: &mut BTreeSet<(String, &'static str)>) {
    const KINDS: [(&str, &str); 7] = [
        ("pub fn ", "function"),
        ("pub struct ", "class"),
        ("pub enum ", "class"),
        ("pub trait ", "class"),
        ("pub type ", "class"),
        ("pub mod ", "module"),
        ("pub const ", "instance"),
    ];
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_names(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for line in text.lines().map(str::trim_start) {
                for (start, kind) in KINDS {
                    if let Some(name) = line.strip_prefix(start).and_then(|rest| words(rest).next()) {
                        names.insert((name.to_owned(), kind));
                    }
                }
            }
        }
    }
}

/// What is known of the name at `cursor`, counted in characters: a variable's type and size, the text of an item that a cell
/// defined, where the documentation of a path is. With `detail` 0 a long item is cut short.
pub fn inspect(shared: &Arc<Shared>, code: &str, cursor: usize, detail: u8) -> Option<Value> {
    let is_path = |c: &char| c.is_alphanumeric() || *c == '_' || *c == ':';
    let characters: Vec<char> = code.chars().collect();
    let cursor = cursor.min(characters.len());
    let start = characters[..cursor].iter().rposition(|c| !is_path(c)).map_or(0, |at| at + 1);
    let end = characters[cursor..].iter().position(|c| !is_path(c)).map_or(characters.len(), |at| cursor + at);
    let path: String = characters[start..end].iter().collect();
    let path = path.trim_matches(':');
    if let Some(evaluator) = shared.evaluator() {
        let found = evaluator.compiler.variables().into_iter().find(|variable| variable.name == path);
        if let Some(Type::Known(ty)) = found.map(|variable| variable.ty) {
            let size = evaluator
                .pipes
                .sizes()
                .get(path)
                .map_or_else(String::new, |&size| format!("\n{}", commands::bytes(size)));
            return Some(json!({"text/plain": format!("let {path}: {ty}{size}")}));
        }
        for run in evaluator.compiler.cells().iter().rev() {
            let (_, start) = cell::split_commands(&run.cell.source);
            let pieces = cell::split_statements(&run.cell.source[start..]);
            if let Some((_, text, _)) = pieces.iter().find(|(_, _, node)| item_key(node).is_some_and(|key| key == path))
            {
                let lines: Vec<&str> = text.trim().lines().collect();
                let shown = if detail == 0 { &lines[..lines.len().min(12)] } else { &lines[..] };
                return Some(json!({"text/plain": format!("In [{}]\n{}", run.number, shown.join("\n"))}));
            }
        }
    }
    let (root, _) = path.split_once("::")?;
    let place = match root {
        "std" | "core" | "alloc" => format!("https://doc.rust-lang.org/{root}/?search={path}"),
        "wavemesh" => return None,
        _ => format!("https://docs.rs/{root}/latest/{root}/?search={path}"),
    };
    Some(json!({
        "text/plain": format!("{path}\n{place}"),
        "text/html": format!("<code>{0}</code>: <a href=\"{1}\">{1}</a>", commands::escape(path), commands::escape(&place)),
    }))
}
