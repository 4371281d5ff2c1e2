//! Every public function that returns a `Result` has a section `# Errors` and an example of its own, which the documentation tests run.
//!
//! The test reads the sources as text, formatted by `cargo fmt`. A function is public if its type, or the function itself, can be reached
//! from `lib.rs` through `pub mod` and `pub use`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The text of a file without its unit tests.
fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("\n#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}

/// Every file of the library.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The file of the module `name` that the module in `file` declares.
fn child(file: &Path, name: &str) -> Option<PathBuf> {
    let folder = match file.file_stem().unwrap().to_str().unwrap() {
        "lib" | "mod" => file.parent().unwrap().to_path_buf(),
        stem => file.with_file_name(stem),
    };
    [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")].into_iter().find(|path| path.exists())
}

/// The paths of a tree such as `a::{b, c::d as e}`; a renamed item keeps the name that its own file uses.
fn tree(text: &str) -> Vec<Vec<String>> {
    let text = text.trim();
    if let Some(inside) = text.strip_prefix('{') {
        let inside = inside.strip_suffix('}').unwrap_or(inside);
        let mut depth = 0;
        let parts = inside.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        return parts.flat_map(tree).collect();
    }
    match text.split_once("::") {
        Some((first, rest)) => {
            tree(rest).into_iter().map(|path| [vec![first.trim().to_owned()], path].concat()).collect()
        }
        None if text.is_empty() => Vec::new(),
        None => vec![vec![text.split(" as ").next().unwrap().to_owned()]],
    }
}

/// Names of each file that can be reached from outside of the crate.
#[derive(Default)]
struct Public {
    names: BTreeMap<PathBuf, BTreeSet<String>>,
    modules: BTreeSet<PathBuf>,
}

impl Public {
    /// Adds everything public that the module in `file` declares or re-exports.
    fn module(&mut self, file: &Path) {
        if !self.modules.insert(file.to_path_buf()) {
            return;
        }
        let text = read(file);
        for line in text.lines() {
            let Some(item) = line.strip_prefix("pub ") else { continue };
            if let Some(name) = item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                self.module(&child(file, name).unwrap());
            } else if let Some(name) = item_name(item) {
                self.name(file, &name);
            }
        }
        for path in passed_on(&text) {
            self.follow(file, &path);
        }
    }

    /// Adds the item at `path`, seen from the module in `file`.
    fn follow(&mut self, file: &Path, path: &[String]) {
        match path {
            [only] if only == "*" => self.module(file),
            [first, rest @ ..] if matches!(first.as_str(), "self" | "crate") => {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
                self.follow(if first == "self" { file } else { &root }, rest);
            }
            [first, rest @ ..] => {
                if let Some(module) = child(file, first) {
                    if rest.is_empty() { self.module(&module) } else { self.follow(&module, rest) }
                } else if rest.is_empty() {
                    self.name(file, first);
                }
            }
            [] => {}
        }
    }

    /// Adds `name`, which the module in `file` defines or re-exports.
    fn name(&mut self, file: &Path, name: &str) {
        if self.names.entry(file.to_path_buf()).or_default().insert(name.to_owned()) {
            for path in passed_on(&read(file)) {
                if path.last().unwrap() == name {
                    self.follow(file, &path);
                }
            }
        }
    }
}

/// The paths of all `pub use` of a file.
fn passed_on(text: &str) -> Vec<Vec<String>> {
    let statements = text.split("\npub use ").skip(1).filter_map(|rest| rest.split_once(';'));
    statements.flat_map(|(statement, _)| tree(&statement.replace('\n', " "))).collect()
}

/// The name in a line such as `struct Mesh<T> {`.
fn item_name(item: &str) -> Option<String> {
    let words: Vec<&str> = item.split_whitespace().skip_while(|word| matches!(*word, "const" | "unsafe")).collect();
    let [kind, name, ..] = words[..] else { return None };
    matches!(kind, "struct" | "enum" | "trait" | "fn" | "type")
        .then(|| name.split(['<', '(', ';', ':']).next().unwrap().to_owned())
}

/// An item's line without `pub` or `pub(…)`.
fn without_visibility(line: &str) -> &str {
    match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ').map_or("", |(_, item)| item),
        None => line,
    }
}

/// A public function that can fail.
struct Function {
    place: String,
    documentation: String,
}

/// The type of an `impl` line, `Mesh` for `impl<T> Mesh<T> {`; none for an implementation of a trait.
fn implemented(line: &str) -> Option<String> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        })?;
        rest = &rest[end + 1..];
    }
    let name = rest.trim().split(['<', ' ']).next()?;
    (!rest.contains(" for ")).then(|| name.to_owned())
}

/// The public functions of a file that return a `Result`: its free functions that are in `names`, and the functions of the types in
/// `types`, which other files may define.
fn fallible(file: &Path, names: &BTreeSet<String>, types: &BTreeSet<String>) -> Vec<Function> {
    let text = read(file);
    let lines: Vec<&str> = text.lines().collect();
    let own: BTreeSet<String> = lines.iter().filter_map(|line| item_name(without_visibility(line))).collect();
    let mut found = Vec::new();
    let mut owner: Option<String> = None; // the type or trait that the lines belong to
    let mut in_trait = false;
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        if line.starts_with("impl") || (code.starts_with("impl") && code.contains('$')) {
            (owner, in_trait) = (implemented(code), false);
        } else if !line.starts_with([' ', '}', '/', '#', ')']) && !line.is_empty() {
            owner = line.strip_prefix("pub ").filter(|item| item.starts_with("trait ")).and_then(item_name);
            in_trait = owner.is_some();
        }
        let Some(declared) = code.strip_prefix("pub ").or(in_trait.then_some(code)) else { continue };
        if !declared.starts_with("fn ") && !declared.starts_with("const fn ") {
            continue;
        }
        let name = item_name(declared).unwrap();
        let public = match &owner {
            _ if !line.starts_with(' ') => names.contains(&name),
            Some(owner) if own.contains(owner) => names.contains(owner),
            Some(owner) => owner.starts_with('$') || types.contains(owner),
            None => false,
        };
        let length = lines[at..].iter().position(|line| line.ends_with(['{', ';', '}'])).unwrap();
        let signature = lines[at..=at + length].join(" ");
        let returned = signature.rsplit_once(") ->").map_or("", |(_, returned)| returned);
        if !public || !returned.contains("Result<") {
            continue;
        }
        let above: Vec<&str> = lines[..at]
            .iter()
            .rev()
            .map(|line| line.trim_start())
            .take_while(|line| line.starts_with("///") || line.starts_with("#["))
            .collect();
        let owner =
            owner.as_ref().filter(|_| line.starts_with(' ')).map_or(String::new(), |owner| format!("{owner}::"));
        let place = format!("{}:{}: {owner}{name}", file.display(), at + 1);
        found.push(Function { place, documentation: above.into_iter().rev().collect::<Vec<_>>().join("\n") });
    }
    found
}

fn public_functions_that_can_fail() -> Vec<Function> {
    let mut public = Public::default();
    public.module(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let types: BTreeSet<String> = public.names.values().flatten().cloned().collect();
    let none = BTreeSet::new();
    let found = files().into_iter().flat_map(|file| fallible(&file, public.names.get(&file).unwrap_or(&none), &types));
    let functions: Vec<Function> = found.collect();
    assert!(functions.len() > 200, "only {} functions found", functions.len());
    functions
}

/// The places of the functions whose documentation does not contain `part`.
fn without(part: &str) -> String {
    let functions = public_functions_that_can_fail();
    let lacking = functions.into_iter().filter(|function| !function.documentation.contains(part));
    lacking.map(|function| function.place).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_public_function_that_can_fail_says_when() {
    let lacking = without("# Errors");
    assert!(lacking.is_empty(), "these have no section `# Errors`:\n{lacking}");
}

#[test]
fn every_public_function_that_can_fail_has_an_example() {
    let lacking = without("```");
    assert!(lacking.is_empty(), "these have no example:\n{lacking}");
}
