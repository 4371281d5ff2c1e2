//! Completion and documentation, from what the session has defined.

use std::sync::Arc;

use serde_json::{Value, json};

use super::session::Shared;
use super::weave::Type;
use super::{Completion, Completions, commands};

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
        if !typed.is_empty() {
            KEYWORDS.iter().for_each(|keyword| add(keyword, "keyword", ""));
        }
    }
    let characters = |bytes: usize| before[..bytes].chars().count();
    Completions { matches, start: characters(start), end: cursor.min(code.chars().count()) }
}

/// What is known of the name at `cursor`, counted in characters.
pub fn inspect(shared: &Arc<Shared>, code: &str, cursor: usize, _detail: u8) -> Option<Value> {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    let characters: Vec<char> = code.chars().collect();
    let cursor = cursor.min(characters.len());
    let start = characters[..cursor].iter().rposition(|c| !is_word(c)).map_or(0, |at| at + 1);
    let end = characters[cursor..].iter().position(|c| !is_word(c)).map_or(characters.len(), |at| cursor + at);
    let word: String = characters[start..end].iter().collect();
    let evaluator = shared.evaluator()?;
    let variable = evaluator.compiler.variables().into_iter().find(|variable| variable.name == word)?;
    let Type::Known(ty) = variable.ty else { return None };
    let size =
        evaluator.pipes.sizes().get(&word).map_or_else(String::new, |&size| format!("\n{}", commands::bytes(size)));
    Some(json!({"text/plain": format!("let {word}: {ty}{size}")}))
}
