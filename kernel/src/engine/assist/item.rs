//! What can be named in a cell, as completion and inspection show it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Module,
    Struct,
    Enum,
    Trait,
    Alias,
    Function,
    Macro,
    Constant,
    Primitive,
    Field,
    Variant,
    Method,
}

impl Kind {
    /// Jupyter's name for this kind.
    pub fn jupyter(self) -> &'static str {
        match self {
            Kind::Module => "module",
            Kind::Struct | Kind::Enum | Kind::Trait | Kind::Alias | Kind::Primitive => "class",
            Kind::Function | Kind::Method | Kind::Macro => "function",
            Kind::Constant | Kind::Field | Kind::Variant => "instance",
        }
    }
}

/// A type, function, macro, …
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Item {
    /// `wavemesh::mesh::Mesh`.
    pub path: String,
    pub kind: Kind,
    /// As in Rust.
    pub declaration: String,
    /// In Markdown.
    pub docs: String,
    pub members: Vec<Member>,
    /// The paths of the traits that a type has.
    pub traits: Vec<String>,
}

/// A field, variant, method or constant of an [`Item`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub kind: Kind,
    pub declaration: String,
    pub docs: String,
}

impl Item {
    /// The last part of the path; for a macro, without its exclamation mark.
    pub fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap_or(&self.path).trim_end_matches('!')
    }
}

impl Member {
    /// Whether the member follows a dot: a field, or a method that takes `self`.
    pub fn follows_dot(&self) -> bool {
        match self.kind {
            Kind::Field => true,
            Kind::Method => self.arguments().is_some_and(|arguments| {
                let first = arguments.trim_start_matches(|c: char| c == '(' || c == '&' || c.is_whitespace());
                // `&'a self`
                let first =
                    if first.starts_with('\'') { first.split_once(' ').map_or("", |(_, rest)| rest) } else { first };
                let first = first.strip_prefix("mut ").unwrap_or(first);
                first.strip_prefix("self").is_some_and(|rest| rest.starts_with([',', ')', ':', ' ']))
            }),
            _ => false,
        }
    }

    /// The declaration from the parenthesis of its arguments on. A generic parameter before it may have parentheses of its own.
    fn arguments(&self) -> Option<&str> {
        let after = &self.declaration[self.declaration.find(&format!("fn {}", self.name))? + 3 + self.name.len()..];
        let mut depth = 0;
        let at = after.char_indices().find(|&(at, c)| {
            match c {
                '<' => depth += 1,
                '>' if !after[..at].ends_with('-') => depth -= 1,
                _ => {}
            }
            c == '(' && depth == 0
        });
        at.map(|(at, _)| &after[at..])
    }
}

/// A declaration and its documentation as a mime bundle. With `detail` 0, long documentation is cut after its first paragraphs.
pub fn bundle(declaration: &str, docs: &str, detail: u8) -> Value {
    let docs = if detail == 0 { beginning(docs) } else { docs };
    let text = format!("{declaration}\n\n{docs}");
    json!({"text/plain": text.trim_end(), "text/markdown": format!("```rust\n{declaration}\n```\n\n{docs}").trim_end()})
}

/// The first paragraphs, to about twenty lines.
fn beginning(docs: &str) -> &str {
    let mut end = 0;
    let mut in_code = false;
    for (count, line) in docs.split_inclusive('\n').enumerate() {
        in_code ^= line.starts_with("```");
        if count >= 20 && line.trim().is_empty() && !in_code {
            return docs[..end].trim_end();
        }
        end += line.len();
    }
    docs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_take_self_follow_a_dot() {
        let method = |declaration: &str| Member {
            name: "f".into(),
            kind: Kind::Method,
            declaration: declaration.into(),
            docs: String::new(),
        };
        for declaration in [
            "pub fn f(&self)",
            "fn f<B, F: Fn(B) -> B>(self, f: F)",
            "fn f(&'a mut self)",
            "fn f(self: Arc<Self>)",
            "fn f(mut self)",
        ] {
            assert!(method(declaration).follows_dot(), "{declaration}");
        }
        for declaration in ["pub fn f()", "fn f(selfish: u8)", "fn f<F: Fn(&Self)>(f: F)"] {
            assert!(!method(declaration).follows_dot(), "{declaration}");
        }
    }
}
