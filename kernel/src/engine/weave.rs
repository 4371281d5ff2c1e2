//! The last touch on the code that evcxr generates, before rustc sees it.
//!
//! No line is added or removed above the end, because evcxr and our reports count lines. What changes: the text of evcxr's
//! variable store becomes the compiled runtime; markers on standard output become calls of the runtime; placeholders become types;
//! the prelude comes in at the end. And the variables of earlier cells come in, those that the cell may use, and go back to the
//! store: evcxr itself is told to forget every variable, since it would analyse all of them anew with each cell.

use std::ops::Range;

/// What is known of a variable's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// This build will tell.
    Pending,
    /// Its path, valid at the root of a cell.
    Known(String),
    /// The variable cannot outlive its cell; why.
    Fleeting(String),
    /// The cell of this number moved the variable away.
    Moved(u32),
    /// The cell of this number defined its type anew.
    Redefined(u32),
}

/// A variable of the notebook.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub mutable: bool,
    /// The number of the cell that made it, as in `In [3]`.
    pub cell: u32,
    pub ty: Type,
}

/// A variable that the cell binds.
#[derive(Clone, Debug)]
pub struct Bound {
    /// What stands for its type in the cell.
    pub marker: String,
    pub variable: Variable,
    /// Its type must be written down, or rustc would give it one without a name.
    pub written: bool,
}

/// A variable of an earlier cell that comes into this one.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub name: String,
    pub mutable: bool,
    pub ty: String,
    /// Whether it goes back to the store at the end: not when the cell moves it away.
    pub kept: bool,
}

/// What is woven into a build.
pub struct Weave<'a> {
    pub bound: &'a [Bound],
    pub loaded: &'a [Loaded],
    /// Variables of earlier cells whose type is another one now.
    pub lost: &'a [String],
    /// Tells this run of a cell from every other.
    pub run: u64,
    /// Path of a module whose content every cell sees.
    pub prelude: Option<&'a str>,
}

/// The code for rustc, and where in it variables come and go.
#[derive(Default)]
pub struct Woven {
    pub source: String,
    places: Vec<(Range<usize>, Place)>,
}

/// What a piece of woven code does with a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Brings it into the cell.
    Load(String),
    /// Puts it back.
    Keep(String),
    /// Stores it for the first time.
    Store(String),
}

impl Woven {
    /// What stands at a byte.
    pub fn place(&self, byte: usize) -> Option<&Place> {
        self.places.iter().find(|(range, _)| range.contains(&byte)).map(|(_, place)| place)
    }

    fn push(&mut self, code: &str, place: Place) {
        let start = self.source.len();
        self.source.push_str(code);
        self.places.push((start..self.source.len(), place));
    }
}

const PUT: &str = "evcxr_variable_store.put_variable::<";
/// evcxr checks its own variables after the first line, and loads them after the second; it has none.
const CHECKS: &str = "{let mut vars_ok = true;";
const LOADS: &str = "if !vars_ok {return evcxr_variable_store;}}";
/// The value of evcxr's function.
const END: &str = "evcxr_variable_store";

impl Weave<'_> {
    pub fn weave(&self, generated: &str) -> Woven {
        let mut woven = Woven { source: String::with_capacity(generated.len()), places: Vec::new() };
        let end = generated.lines().enumerate().filter(|(_, line)| *line == END).last().map(|(index, _)| index);
        let mut in_store = false;
        let mut in_error = false;
        for (index, line) in generated.lines().enumerate() {
            let trimmed = line.trim();
            if in_store {
                in_store = trimmed != "#[unsafe(no_mangle)]";
            }
            if trimmed == "struct EvcxrUserCodeError {}" {
                in_error = true;
            }
            let code = &mut woven.source;
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
            } else if line == CHECKS {
                code.push_str(line);
                self.check(&mut woven);
            } else if line == LOADS {
                code.push_str(line);
                self.load(&mut woven);
            } else if Some(index) == end {
                self.keep(&mut woven);
                woven.source.push_str(line);
            } else {
                self.weave_line(line, trimmed, &mut woven);
            }
            woven.source.push('\n');
        }
        let code = &mut woven.source;
        code.push_str(&format!("#[unsafe(no_mangle)] pub static WAVEMESH_CELL_RUN: u64 = {};\n", self.run));
        code.push_str("#[allow(unused_imports)] use ::wavemesh_cell::output::{eprint, eprintln, print, println};\n");
        if let Some(prelude) = self.prelude {
            code.push_str(&format!("#[allow(unused_imports)] use {prelude}::*;\n"));
        }
        woven
    }

    fn check(&self, woven: &mut Woven) {
        for name in self.lost {
            woven.source.push_str(&format!(" {END}.drop_variable(stringify!({name}));"));
        }
        for Loaded { name, ty, .. } in self.loaded {
            let code = format!(" vars_ok &= {END}.check_variable::<{ty}>(stringify!({name}));");
            woven.push(&code, Place::Load(name.clone()));
        }
    }

    fn load(&self, woven: &mut Woven) {
        for Loaded { name, ty, mutable, .. } in self.loaded {
            let mutable = if *mutable { "mut " } else { "" };
            let code = format!(" let {mutable}{name} = {END}.take_variable::<{ty}>(stringify!({name}));");
            woven.push(&code, Place::Load(name.clone()));
        }
    }

    fn keep(&self, woven: &mut Woven) {
        for Loaded { name, ty, .. } in self.loaded.iter().filter(|loaded| loaded.kept) {
            let code = format!("{END}.keep_variable::<{ty}>(stringify!({name}), {name}); ");
            woven.push(&code, Place::Keep(name.clone()));
        }
    }

    fn weave_line(&self, line: &str, trimmed: &str, woven: &mut Woven) {
        if let Some(variable) = self.stored_variable(trimmed) {
            let name = &variable.name;
            let code = match &variable.ty {
                // rustc tells the type in a warning of this `drop`.
                Type::Pending => {
                    format!("{{::std::mem::drop(&{name}); {END}.put_variable::<_>(stringify!({name}), {name});}}")
                }
                Type::Known(_) => format!("{END}.put_variable::<_>(stringify!({name}), {name});"),
                Type::Fleeting(_) | Type::Moved(_) | Type::Redefined(_) => {
                    format!("{END}.drop_variable(stringify!({name}));")
                }
            };
            woven.push(&code, Place::Store(name.clone()));
        } else if line.contains("Wm") {
            let typed = self.bound.iter().fold(line.to_owned(), |line, bound| match &bound.variable.ty {
                Type::Known(ty) if bound.written => replace_word(&line, &bound.marker, ty),
                _ => replace_word(&line, &bound.marker, &underscore(&bound.marker)),
            });
            woven.source.push_str(&typed);
        } else {
            woven.source.push_str(line);
        }
    }

    /// The variable that a line of evcxr's own stores: of several of one name the last.
    fn stored_variable(&self, trimmed: &str) -> Option<&Variable> {
        let (_, name) = trimmed.strip_prefix(PUT)?.split_once("(stringify!(")?;
        let name = &name[..name.find(')')?];
        self.bound.iter().rev().map(|bound| &bound.variable).find(|variable| variable.name == name)
    }
}

/// `_`, as long as the placeholder it stands for, so that every byte keeps its place.
pub fn underscore(marker: &str) -> String {
    format!("{:<width$}", "_", width = marker.len())
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
