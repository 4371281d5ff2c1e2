//! Completion and inspection. rustc tells the types ([`probe`]), rustdoc tells what they offer ([`reference`]), and the notebook's text
//! tells what the notebook itself defines ([`notebook`]). Nothing here waits for the evaluator, so questions are answered while a cell
//! runs.

mod context;
mod item;
mod notebook;
mod page;
mod probe;
mod reference;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ra_ap_syntax::{Edition, SourceFile, SyntaxKind};
use serde_json::{Value, json};

use self::item::{Item, Kind, Member};
use self::notebook::Import;
use self::probe::Prober;
use self::reference::{Library, Reference};
use super::compiler::Compiler;
use super::deps::Named;
use super::grammar::table;
use super::pipes::Pipes;
use super::{Completion, Completions, commands};

const KEYWORDS: [&str; 36] = [
    "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "false", "fn",
    "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "self", "Self",
    "static", "struct", "trait", "true", "type", "use", "where", "while",
];
/// Types whose method calls also reach the value that they hold.
const POINTERS: [&str; 8] = ["Box", "Rc", "Arc", "Ref", "RefMut", "MutexGuard", "RwLockReadGuard", "RwLockWriteGuard"];
/// How long an answer waits for the names of the crates when it would be empty without them.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many letters of a name must be typed before names that are not imported are suggested.
const LETTERS: usize = 3;
/// How many files at most are suggested inside a string.
const FILES: usize = 200;

/// Answers questions about code that has not run.
pub struct Assistant {
    compiler: Arc<Compiler>,
    pipes: Arc<Pipes>,
    library: Library,
    prober: Prober,
}

impl Assistant {
    pub fn new(compiler: Arc<Compiler>, pipes: Arc<Pipes>) -> Arc<Assistant> {
        Arc::new(Assistant { compiler, pipes, library: Library::default(), prober: Prober::default() })
    }

    /// Reads, in the background, the names of the crates that cells can name from now on: the library, `std` and these.
    pub fn learn(self: &Arc<Assistant>, added: &Named) {
        let (update, added) = (self.library.expect_update(), added.clone());
        let assistant = Arc::clone(self);
        let learning = std::thread::Builder::new().name("names".into()).spawn(move || {
            // The priority of this thread alone: cells come first.
            let _ = rustix::process::setpriority_process(None, 19);
            assistant.library.update(update, &assistant.compiler, &added);
        });
        if let Err(error) = learning {
            super::pipes::log(&format!("completion knows the notebook only: {error}"));
        }
    }

    /// Waits until the names of the crates are known. Returns false if that takes longer than `patience`.
    pub fn wait_for_names(&self, patience: Duration) -> bool {
        self.library.complete(patience).is_some()
    }

    /// Ends the background work.
    pub fn stop(&self) {
        self.library.stop();
    }

    /// Suggestions at `cursor`, which counts characters.
    pub fn complete(&self, code: &str, cursor: usize) -> Completions {
        let before: String = code.chars().take(cursor).collect();
        let (mut start, mut matches) = self.suggestions(code, &before);
        if matches.is_empty() && self.learned() {
            (start, matches) = self.suggestions(code, &before);
        }
        let characters = |bytes: usize| before[..bytes].chars().count();
        Completions { matches, start: characters(start), end: cursor.min(code.chars().count()) }
    }

    /// Whether an empty answer is worth a second try: names were still being read, and this has waited for them.
    fn learned(&self) -> bool {
        self.library.is_reading() && self.wait_for_names(PATIENCE)
    }

    /// Suggestions, and the byte of `before` at which the text that they replace begins.
    fn suggestions(&self, code: &str, before: &str) -> (usize, Vec<Completion>) {
        let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
        if line.starts_with([':', '%']) && !line.contains(' ') {
            let listed = table::listed().filter(|command| command.name.starts_with(line));
            let completions = listed.map(|command| completion(command.name, "magic", command.arguments));
            return (before.len() - line.len(), completions.collect());
        }
        if let Some(start) = open_text(before) {
            return files(before, start);
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let start = before.len() - before.chars().rev().take_while(|&c| is_word(c)).map(char::len_utf8).sum::<usize>();
        let (head, typed) = (before[..start].trim_end(), &before[start..]);
        let reference = self.library.current();
        let known = self.known(code, &reference);
        let mut found = Suggested { typed, matches: Vec::new(), names: BTreeSet::new() };
        if context::in_derive(before) {
            context::DERIVES.iter().for_each(|name| found.add(name, "class", ""));
        } else if let Some(path) = context::path_of_use(before) {
            if path.is_empty() {
                reference.roots().for_each(|name| found.add(name, "module", ""));
            } else {
                known.below_path(&path, &mut found);
            }
        } else if let Some(receiver) = head.strip_suffix('.').filter(|receiver| !receiver.ends_with('.')) {
            if let Some(ty) = self.prober.type_of(&self.compiler, receiver) {
                let mut members = known.members(&ty);
                members.retain(|(member, _)| member.follows_dot());
                members
                    .sort_by_key(|&(member, inherent)| (member.kind != Kind::Field, !inherent, member.name.as_str()));
                members.into_iter().for_each(|(member, _)| found.member(member));
            }
        } else if let Some(path) = head.strip_suffix("::") {
            known.below_path(&last_path(path), &mut found);
        } else {
            if let Some(owner) = literal_of(head)
                && let Some(item) = known.find(&owner)
            {
                item.members.iter().filter(|member| member.kind == Kind::Field).for_each(|field| found.member(field));
            }
            if !typed.is_empty() {
                self.names(code, &known, &mut found);
            }
        }
        (start, found.matches)
    }

    fn names(&self, code: &str, known: &Known, found: &mut Suggested) {
        for (name, ty) in self.compiler.stored_variables() {
            found.add(&name, "instance", &ty);
        }
        known.items.iter().for_each(|item| found.item(item.name(), item));
        for Import { name, path } in &known.imports {
            match known.reference.resolve(path) {
                Some(module) if name == "*" => {
                    known.reference.below(&module.path).for_each(|(name, item)| found.item(name, item));
                }
                Some(item) => found.item(name, item),
                None if name == "*" => {}
                None => found.add(name, "instance", path),
            }
        }
        known.reference.visible().for_each(|(name, item)| found.item(name, item));
        let typed = found.typed;
        let words: BTreeSet<&str> = words(code).filter(|word| *word != typed).collect();
        words.into_iter().for_each(|word| found.add(word, "instance", ""));
        known.reference.roots().for_each(|name| found.add(name, "module", ""));
        context::PRELUDE.iter().for_each(|name| found.add(name, "function", ""));
        context::PRIMITIVES.iter().for_each(|name| found.add(name, "class", ""));
        KEYWORDS.iter().for_each(|keyword| found.add(keyword, "keyword", ""));
        // Items of `std` that are not imported, by their whole paths.
        if typed.starts_with(char::is_uppercase) && typed.chars().count() >= LETTERS {
            known.reference.of_std(typed).for_each(|(path, item)| found.whole_path(path, item));
        }
    }

    /// What is known of the name at `cursor`, which counts characters: a variable's type and size, or the declaration and documentation of
    /// an item or a method. Between the parentheses of a call, it describes the function that is called. With `detail` 0, long
    /// documentation is cut short.
    pub fn inspect(&self, code: &str, cursor: usize, detail: u8) -> Option<Value> {
        let at = code.char_indices().nth(cursor).map_or(code.len(), |(at, _)| at);
        // After the exclamation mark of a macro, the question is about the macro's name.
        let at = at - usize::from(code[..at].ends_with('!'));
        let known =
            || self.inspect_at(code, at, detail).or_else(|| self.inspect_at(code, called(&code[..at])?, detail));
        known().or_else(|| if self.learned() { known() } else { None })
    }

    fn inspect_at(&self, code: &str, at: usize, detail: u8) -> Option<Value> {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let start = at - code[..at].chars().rev().take_while(|&c| is_path(c)).map(char::len_utf8).sum::<usize>();
        let end =
            at + code[at..].chars().take_while(|&c| c.is_alphanumeric() || c == '_').map(char::len_utf8).sum::<usize>();
        let path = code[start..end].trim_matches(':');
        if path.is_empty() || path.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let reference = self.library.current();
        let known = self.known(code, &reference);
        let head = code[..start].trim_end();
        if let Some(receiver) = head.strip_suffix('.').filter(|receiver| !receiver.ends_with('.')) {
            let ty = self.prober.type_of(&self.compiler, receiver)?;
            let (member, _) = known.members(&ty).into_iter().find(|(member, _)| member.name == path)?;
            return Some(item::bundle(&format!("// of {ty}\n{}", member.declaration), &member.docs, detail));
        }
        if !path.contains("::") {
            if let Some(found) = self.variable(path, &known, detail) {
                return Some(found);
            }
            // A variable that the cell itself binds; it has not run.
            if path.starts_with(|c: char| c.is_lowercase() || c == '_')
                && known.find(path).is_none()
                && let Some(ty) = self.prober.type_of(&self.compiler, &code[..end])
            {
                return Some(item::bundle(&format!("let {path}: {ty}"), &known.docs_of(&ty), detail));
            }
        }
        let is_macro = code[end..].starts_with('!');
        let name = if is_macro { format!("{path}!") } else { path.to_owned() };
        // With more detail, the item's code, if the notebook defines it.
        if detail > 0
            && let Some(source) = notebook::source(&self.compiler.items(), path)
        {
            return Some(item::bundle(&source, "", detail));
        }
        known.inspect(&name, detail).or_else(|| elsewhere(path))
    }

    fn variable(&self, name: &str, known: &Known, detail: u8) -> Option<Value> {
        let (_, ty) = self.compiler.stored_variables().into_iter().find(|(known, _)| known == name)?;
        let stored = self.pipes.stored();
        let size = stored.get(name).map(|variable| format!("  // {}", commands::bytes(variable.bytes)));
        let size = size.unwrap_or_default();
        Some(item::bundle(&format!("let {name}: {ty}{size}"), &known.docs_of(&ty), detail))
    }

    /// What names mean in this cell: its own items and imports come first, then those of cells that ran.
    fn known<'a>(&self, code: &str, reference: &'a Reference) -> Known<'a> {
        let items = self.compiler.items();
        let cells = || std::iter::once(code).chain(items.iter().rev().map(String::as_str));
        Known { items: notebook::items(cells()), imports: notebook::imports(cells()), reference }
    }
}

/// What names can mean at one moment.
struct Known<'a> {
    items: Vec<Item>,
    imports: Vec<Import>,
    reference: &'a Reference,
}

impl Known<'_> {
    fn find(&self, path: &str) -> Option<&Item> {
        let plain = path.trim_end_matches('!');
        let own = self.items.iter().find(|item| item.path == plain);
        own.or_else(|| self.imported(path)).or_else(|| self.reference.resolve(path))
    }

    /// The item of a path whose first name was imported.
    fn imported(&self, path: &str) -> Option<&Item> {
        let (first, rest) = path.split_at(path.find("::").unwrap_or(path.len()));
        let import = self.imports.iter().find(|import| import.name == first)?;
        self.reference.get(&format!("{}{rest}", import.path))
    }

    /// The members of a value of the type, also those reached through references and pointers, each with whether it is the type's own (and
    /// not a trait's).
    fn members(&self, ty: &str) -> Vec<(&Member, bool)> {
        let mut members: Vec<(&Member, bool)> = Vec::new();
        for name in type_names(ty) {
            let Some(item) = self.find(&name) else { continue };
            let of_traits = item.traits.iter().filter_map(|path| self.find(path)).flat_map(|item| &item.members);
            let all = item.members.iter().map(|member| (member, true)).chain(of_traits.map(|member| (member, false)));
            for (member, inherent) in all {
                if !members.iter().any(|(known, _)| known.name == member.name) {
                    members.push((member, inherent));
                }
            }
        }
        members
    }

    fn docs_of(&self, ty: &str) -> String {
        let item = type_names(ty).iter().find_map(|name| self.find(name));
        item.map(|item| item.docs.clone()).unwrap_or_default()
    }

    /// Suggests what may follow `path::`. `f32` is both a module and a type.
    fn below_path(&self, path: &str, found: &mut Suggested) {
        let mut members = self.members(path);
        members.retain(|(member, _)| member.kind != Kind::Field);
        members.sort_by_key(|&(member, inherent)| {
            (!inherent, member.kind != Kind::Variant, member.follows_dot(), member.name.as_str())
        });
        members.into_iter().for_each(|(member, _)| found.member(member));
        if let Some(item) = self.find(path)
            && item.kind == Kind::Module
        {
            self.reference.below(&item.path).for_each(|(name, item)| found.item(name, item));
        }
    }

    fn inspect(&self, path: &str, detail: u8) -> Option<Value> {
        // The variants that every module can name without a path.
        let owner = ["Option::Some", "Option::None", "Result::Ok", "Result::Err"].into_iter();
        let variant =
            owner.filter(|_| self.find(path).is_none()).find(|variant| variant.rsplit("::").next() == Some(path));
        let path = variant.unwrap_or(path);
        if let Some(item) = self.find(path) {
            let declaration =
                if item.declaration.is_empty() { format!("mod {}", item.path) } else { item.declaration.clone() };
            let heading =
                if item.path.contains("::") { format!("// {}\n{declaration}", item.path) } else { declaration };
            return Some(item::bundle(&heading, &item.docs, detail));
        }
        let (owner, name) = path.rsplit_once("::")?;
        let (member, _) = self.members(owner).into_iter().find(|(member, _)| member.name == name)?;
        Some(item::bundle(&format!("// of {owner}\n{}", member.declaration), &member.docs, detail))
    }
}

/// The suggestions so far.
struct Suggested<'a> {
    typed: &'a str,
    matches: Vec<Completion>,
    names: BTreeSet<String>,
}

impl Suggested<'_> {
    fn add(&mut self, text: &str, kind: &str, signature: &str) {
        if text.starts_with(self.typed) && self.names.insert(text.to_owned()) {
            self.matches.push(completion(text, kind, signature));
        }
    }

    fn item(&mut self, name: &str, item: &Item) {
        let name = name.trim_end_matches('!');
        let text = if item.kind == Kind::Macro { format!("{name}!") } else { name.to_owned() };
        self.add(
            &text,
            item.kind.jupyter(),
            if matches!(item.kind, Kind::Function | Kind::Constant) { &item.declaration } else { "" },
        );
    }

    fn whole_path(&mut self, path: &str, item: &Item) {
        if !self.names.contains(item.name()) && self.names.insert(path.to_owned()) {
            self.matches.push(completion(path, item.kind.jupyter(), &format!("use {path};")));
        }
    }

    fn member(&mut self, member: &Member) {
        self.add(&member.name, member.kind.jupyter(), &member.declaration);
    }
}

fn completion(text: &str, kind: &str, signature: &str) -> Completion {
    // rustdoc breaks long declarations into lines.
    let signature = signature.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(", )", ")");
    Completion { text: text.to_owned(), kind: kind.to_owned(), signature }
}

/// The names under which the members of a type are found. A pointer comes before what it holds.
fn type_names(ty: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = ty.trim();
    loop {
        rest = rest.trim_start_matches('&').trim_start();
        if let Some(after) = rest.strip_prefix('\'') {
            rest = after.split_once(' ').map_or("", |(_, rest)| rest);
        } else if let Some(after) = ["mut ", "dyn ", "impl "].iter().find_map(|word| rest.strip_prefix(word)) {
            rest = after;
        } else if let Some(element) = rest.strip_prefix('[') {
            if element.contains(';') {
                names.push("primitive::array".to_owned());
            }
            names.push("primitive::slice".to_owned());
            return names;
        } else {
            break;
        }
    }
    let (path, arguments) = rest.split_once('<').unwrap_or((rest, ""));
    let path = path.split([' ', '+', '>', ',', '(']).next().unwrap_or_default().trim_end_matches("::");
    match path {
        "" => {}
        "{float}" => names.push("primitive::f64".to_owned()),
        "{integer}" => names.push("primitive::i32".to_owned()),
        _ if !path.contains("::") && path.starts_with(|c: char| c.is_lowercase()) => {
            names.push(format!("primitive::{path}"));
            // The names of modules, functions and crates begin in lower case too.
            names.push(path.to_owned());
        }
        _ => names.push(path.to_owned()),
    }
    if POINTERS.contains(&path.rsplit("::").next().unwrap_or_default()) {
        names.extend(type_names(arguments));
    }
    names
}

/// The path at the end of a text, without the generic arguments in it.
fn last_path(text: &str) -> String {
    let mut depth = 0;
    let mut path: Vec<char> = Vec::new();
    for c in text.trim_end().trim_end_matches("::").chars().rev() {
        match c {
            '>' => depth += 1,
            '<' => depth -= 1,
            _ if depth > 0 => {}
            c if c.is_alphanumeric() || c == '_' || c == ':' => path.push(c),
            _ => break,
        }
        if depth < 0 {
            break;
        }
    }
    let path: String = path.into_iter().rev().collect();
    path.replace("::::", "::").trim_matches(':').to_owned()
}

/// The type whose literal `Type { …` is open at the end of the text, where a field's name fits.
fn literal_of(text: &str) -> Option<String> {
    if !text.ends_with(['{', ',']) {
        return None;
    }
    let mut depth = 0;
    let at = text.char_indices().rev().find(|(_, c)| {
        match c {
            '}' | ')' | ']' => depth += 1,
            '{' | '(' | '[' => depth -= 1,
            _ => {}
        }
        depth < 0
    })?;
    let path = last_path(text[..at.0].trim_end());
    let is_type = path.rsplit("::").next()?.starts_with(char::is_uppercase);
    (at.1 == '{' && is_type && text[..at.0].trim_end().ends_with(&path)).then_some(path)
}

/// Where the name of the called function ends, if the text ends inside its parentheses.
fn called(text: &str) -> Option<usize> {
    let mut depth = 0;
    let (at, _) = text.char_indices().rev().find(|(_, c)| {
        match c {
            '}' | ')' | ']' => depth += 1,
            '{' | '(' | '[' => depth -= 1,
            _ => {}
        }
        depth < 0 && *c == '('
    })?;
    Some(text[..at].trim_end_matches('!').len())
}

/// Where the content of an open string starts, if the text ends inside one.
fn open_text(before: &str) -> Option<usize> {
    let file = SourceFile::parse(before, Edition::Edition2024).syntax_node();
    let last = file.last_token()?;
    let is_open = last.kind() == SyntaxKind::STRING && (last.text().len() < 2 || !last.text().ends_with('"'));
    is_open.then(|| usize::from(last.text_range().start()) + 1)
}

/// Files whose path begins like the string that starts at byte `start`.
fn files(before: &str, start: usize) -> (usize, Vec<Completion>) {
    let typed = &before[start..];
    let (folder, name) = typed.rsplit_once('/').map_or(("", typed), |(folder, name)| (&typed[..=folder.len()], name));
    let place = if folder.is_empty() { Path::new(".") } else { Path::new(folder) };
    let mut matches: Vec<Completion> = std::fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let found = entry.file_name().into_string().ok()?;
            let shown = found.starts_with(name) && (!found.starts_with('.') || name.starts_with('.'));
            let slash = if entry.path().is_dir() { "/" } else { "" };
            shown.then(|| completion(&format!("{folder}{found}{slash}"), "file", ""))
        })
        .take(FILES)
        .collect();
    matches.sort_by(|one, other| one.text.cmp(&other.text));
    (start, matches)
}

/// The identifiers of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(move |c: char| !is_word(c))
        .filter(|word| word.len() > 2 && !word.starts_with(|c: char| c.is_ascii_digit()))
}

/// A link to the documentation of a path that is not known here.
fn elsewhere(path: &str) -> Option<Value> {
    let (root, _) = path.split_once("::")?;
    let place = match root {
        "std" | "core" | "alloc" => format!("https://doc.rust-lang.org/{root}/?search={path}"),
        // Types and modules of the notebook have no page. The names of crates begin in lower case.
        root if root == "wavemesh" || root.starts_with(char::is_uppercase) => return None,
        _ => format!("https://docs.rs/{root}/latest/{root}/?search={path}"),
    };
    Some(json!({"text/plain": format!("{path}\n{place}"), "text/markdown": format!("`{path}`: <{place}>")}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_through_references_and_pointers() {
        assert_eq!(type_names("&'static str"), ["primitive::str", "str"]);
        assert_eq!(type_names("&mut std::vec::Vec<f32>"), ["std::vec::Vec"]);
        assert_eq!(type_names("std::sync::Arc<a::Tensor>"), ["std::sync::Arc", "a::Tensor"]);
        assert_eq!(type_names("[f32; 3]"), ["primitive::array", "primitive::slice"]);
        assert_eq!(type_names("std::boxed::Box<dyn std::ops::Fn(i32) -> i32>")[1], "std::ops::Fn");
    }

    #[test]
    fn paths_literals_and_calls_are_read_backwards() {
        assert_eq!(last_path("let a = Vec::<Vec<f32>>"), "Vec");
        assert_eq!(last_path("f(std::collections"), "std::collections");
        assert_eq!(literal_of("let c = UNetConfig { a: 1,").as_deref(), Some("UNetConfig"));
        assert_eq!(literal_of("UNetConfig { a:"), None);
        assert_eq!(literal_of("if x {"), None);
        assert_eq!(called("Tensor::full(1f32, (3, 4), "), Some("Tensor::full".len()));
        assert_eq!(called("println!(\"a\""), Some("println".len()));
        assert_eq!(open_text("Mesh::load(\"dat"), Some(12));
        assert_eq!(open_text("Mesh::load(\"dat\")"), None);
    }
}
