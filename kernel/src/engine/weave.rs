//! The last touch on the code that evcxr generates, before rustc sees it.
//!
//! No line is added or removed above the end, because evcxr and our reports count lines. What changes: the text of evcxr's
//! variable store becomes the compiled runtime; markers on standard output become calls of the runtime; placeholders become types;
//! variables that the cell does not mention stay in the store; the prelude comes in at the end.

use std::collections::HashMap;

use super::cell::mentions;

/// What is known of a variable's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// This build will tell.
    Pending,
    /// Its path, valid at the root of a cell.
    Known(String),
    /// The variable cannot outlive its cell; why.
    Fleeting(String),
}

/// A variable behind a placeholder.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    /// The number of the cell that made it, as in `In [3]`.
    pub cell: u32,
    /// Tells one run of a cell from every other.
    pub run: u64,
    pub ty: Type,
}

/// What is woven into a build.
pub struct Weave<'a> {
    pub variables: &'a HashMap<String, Variable>,
    /// The cell as the user wrote it.
    pub cell: &'a str,
    /// Tells this run of a cell from every other.
    pub run: u64,
    /// Path of a module whose content every cell sees.
    pub prelude: Option<&'a str>,
}

const CHECK: &str = "vars_ok &= evcxr_variable_store.check_variable::<";
const TAKE: &str = "evcxr_variable_store.take_variable::<";
const PUT: &str = "evcxr_variable_store.put_variable::<";

impl Weave<'_> {
    /// The code for rustc.
    pub fn weave(&self, generated: &str) -> String {
        let mut code = String::with_capacity(generated.len());
        let mut in_store = false;
        let mut in_error = false;
        for line in generated.lines() {
            let trimmed = line.trim();
            if in_store {
                in_store = trimmed != "#[unsafe(no_mangle)]";
            }
            if trimmed == "struct EvcxrUserCodeError {}" {
                in_error = true;
            }
            if in_store {
            } else if trimmed == "mod evcxr_internal_runtime {" {
                code.push_str("mod evcxr_internal_runtime { pub use ::wavemesh_cell::store::*; }");
                in_store = true;
            } else if trimmed == r#"println!("EVCXR_PANIC_NOTIFICATION");"# {
                code.push_str("::wavemesh_cell::panicked();");
            } else if in_error && trimmed == "fn from(error: T) -> Self {" {
                code.push_str("#[track_caller] fn from(error: T) -> Self {");
            } else if let (true, Some(format)) = (in_error, trimmed.strip_prefix("eprintln!(")) {
                let format = format.strip_suffix(", error);").unwrap_or("\"{}\"");
                code.push_str(&format!(
                    "::wavemesh_cell::failed(&format!({format}, error), ::std::any::type_name::<T>(), \
                     ::std::panic::Location::caller());"
                ));
            } else if in_error && trimmed.contains("USER_ERROR_OCCURRED") {
                in_error = false;
            } else {
                self.weave_line(line, trimmed, &mut code);
            }
            code.push('\n');
        }
        code.push_str(&format!("#[unsafe(no_mangle)] pub static WAVEMESH_CELL_RUN: u64 = {};\n", self.run));
        code.push_str("#[allow(unused_imports)] use ::wavemesh_cell::output::{eprint, eprintln, print, println};\n");
        if let Some(prelude) = self.prelude {
            code.push_str(&format!("#[allow(unused_imports)] use {prelude}::*;\n"));
        }
        code
    }

    fn weave_line(&self, line: &str, trimmed: &str, code: &mut String) {
        if !line.contains("Wm") {
            code.push_str(line);
            return;
        }
        if let Some((marker, variable)) = self.stored_variable(trimmed) {
            let name = &variable.name;
            match &variable.ty {
                Type::Fleeting(_) => {}
                Type::Pending => code.push_str(&format!(
                    "{{::std::mem::drop(&{name}); evcxr_variable_store.put_variable::<_>(stringify!({name}), {name});}}"
                )),
                Type::Known(ty) if mentions(self.cell, name) => code.push_str(&line.replace(marker, ty)),
                Type::Known(_) => {}
            }
            return;
        }
        let mut line = line.to_owned();
        for (marker, variable) in self.variables {
            if mentions(&line, marker) {
                line = match &variable.ty {
                    Type::Known(ty) => replace_word(&line, marker, ty),
                    _ => replace_word(&line, marker, &underscore(marker)),
                };
            }
        }
        code.push_str(&line);
    }

    /// The variable that a line of evcxr's own loads, checks or stores.
    fn stored_variable<'l>(&self, trimmed: &'l str) -> Option<(&'l str, &Variable)> {
        let after = [CHECK, TAKE, PUT].iter().find_map(|call| {
            let at = trimmed.find(call)?;
            (at == 0 || trimmed.starts_with("let ") && *call == TAKE).then(|| &trimmed[at + call.len()..])
        })?;
        let marker = &after[..after.find('>')?];
        self.variables.get(marker).map(|variable| (marker, variable))
    }
}

/// `_`, as long as the placeholder it stands for, so that every byte keeps its place.
pub fn underscore(marker: &str) -> String {
    format!("{:<width$}", "_", width = marker.len())
}

/// The variable whose storing stands on a woven line.
pub fn variable_stored_on(line: &str) -> Option<&str> {
    let line = line.trim();
    let start = line.strip_prefix("{::std::mem::drop(&").map(|_| ()).or_else(|| line.starts_with(PUT).then_some(()));
    start?;
    let after = &line[line.find("stringify!(")? + "stringify!(".len()..];
    Some(&after[..after.find(')')?])
}

fn replace_word(line: &str, word: &str, with: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(word) {
        let end = at + word.len();
        out.push_str(&rest[..at]);
        let whole = !rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        out.push_str(if whole { with } else { word });
        rest = &rest[end..];
    }
    out + rest
}
