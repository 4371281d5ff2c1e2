//! Checks the dependencies in `src/`: rooms depend on each other in one direction, and the files of a room do not depend on each other in
//! circles.
//!
//! The test reads the sources as text. A path that begins with `crate::`, `super::` or a child module leads from its file to the file that
//! defines the name, through the `pub use` of a `mod.rs`. Unit tests at the end of a file may use anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Small rooms that every room may use. Each of them may use only those before it in this list.
const SMALL: [&str; 16] = [
    "error",
    "gpu",
    "recording",
    "device",
    "builder",
    "sync",
    "allocator",
    "candle_threads",
    "files",
    "tensor_file",
    "memory",
    "random",
    "parallel",
    "wide",
    "fetch",
    "task",
];

/// The other rooms, with the rooms that each may use.
const ARROWS: [(&str, &[&str]); 12] = [
    ("mesh", &[]),
    ("sdf", &["mesh"]),
    ("sparse", &[]),
    ("points", &["mesh", "sparse"]),
    ("import", &["sparse"]),
    ("backbones", &["sparse", "import"]),
    ("wavelet", &["sdf", "sparse"]),
    ("diffusion", &["sparse"]),
    ("unet", &["sparse", "diffusion", "import"]),
    ("distributed", &["sparse"]),
    ("train", &["mesh", "sdf", "wavelet", "sparse", "diffusion", "unet", "distributed"]),
    ("notebook", &["mesh", "sdf", "wavelet", "sparse", "points", "import", "backbones", "diffusion", "unet", "train"]),
];

/// Names of a room that `lib.rs` re-exports.
const AT_THE_ROOT: [(&str, &str); 4] = [
    ("Error", "error"),
    ("Result", "error"),
    ("keep_freed_memory", "allocator"),
    ("let_candle_rest", "candle_threads"),
];

/// A module's path, such as `["sdf", "grid"]` for `src/sdf/grid.rs`; a folder's `mod.rs` counts as the folder.
type Module = Vec<String>;

struct Sources {
    /// The text of each file, without comments and unit tests.
    files: BTreeMap<Module, String>,
    /// For each `mod.rs`: the child module that a re-exported name comes from.
    exports: BTreeMap<Module, BTreeMap<String, String>>,
}

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = Self { files: BTreeMap::new(), exports: BTreeMap::new() };
        sources.visit(&root, &Vec::new());
        assert!(sources.files.len() > 100, "only {} files found in {}", sources.files.len(), root.display());
        sources
    }

    fn visit(&mut self, folder: &Path, module: &Module) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let child = [module.as_slice(), std::slice::from_ref(&name)].concat();
            if path.is_dir() {
                self.visit(&path, &child);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = without_comments_and_tests(&std::fs::read_to_string(&path).unwrap());
                match name.as_str() {
                    "lib" | "prelude" if module.is_empty() => {}
                    "mod" => {
                        self.exports.insert(module.clone(), exports(&text));
                        self.files.insert(module.clone(), text);
                    }
                    _ => {
                        self.files.insert(child, text);
                    }
                }
            }
        }
    }

    /// The files that the paths in a file lead to.
    fn used_by(&self, file: &Module) -> BTreeSet<Module> {
        let is_folder = self.exports.contains_key(file);
        let parent = || file[..file.len() - 1].to_vec();
        let text = &self.files[file];
        let mut found = BTreeSet::new();
        for (start, _) in text.match_indices("::") {
            let first = word_before(text, start);
            let before = text[..start - first.len()].trim_end();
            if before.ends_with("::") {
                continue; // the middle of a path
            }
            let base = match first {
                "crate" => Vec::new(),
                "self" => file.clone(),
                "super" => parent(),
                child if is_folder && self.files.contains_key(&joined(file, child)) => {
                    let statement = &before[before.rfind([';', '}', '{']).map_or(0, |at| at + 1)..];
                    if statement.contains("pub") && statement.trim_end().ends_with("use") {
                        continue; // a re-export
                    }
                    joined(file, child)
                }
                _ => continue,
            };
            for path in tree(&text[start + 2..]) {
                found.extend(self.resolve(base.clone(), &path));
            }
        }
        // A folder holds one idea: its files may use the definitions of its `mod.rs`.
        found.retain(|used| !file.starts_with(used));
        found
    }

    /// The file that defines the item at `path` under the module `at`.
    fn resolve(&self, mut at: Module, path: &[String]) -> Option<Module> {
        for name in path {
            if name == "super" {
                at.pop();
                continue;
            }
            let child = joined(&at, name);
            if self.files.contains_key(&child) || self.exports.contains_key(&child) {
                at = child;
            } else if let Some(from) = self.exports.get(&at).and_then(|exports| exports.get(name)) {
                let exported = self.resolve(at.clone(), &from.split("::").map(str::to_owned).collect::<Vec<_>>());
                let from = exported.filter(|from| *from != at)?; // otherwise the name comes from another crate
                return self.resolve(from, std::slice::from_ref(name));
            } else if at.is_empty() {
                let (_, room) = AT_THE_ROOT.iter().find(|(known, _)| known == name)?;
                return Some(vec![(*room).to_owned()]);
            } else {
                break; // an item of this file
            }
        }
        Some(at)
    }
}

fn joined(module: &Module, name: &str) -> Module {
    [module.as_slice(), &[name.to_owned()]].concat()
}

fn without_comments_and_tests(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn word_before(text: &str, end: usize) -> &str {
    let start = text[..end].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    &text[start..end]
}

/// The paths of a tree such as `a::{b, c::{d as e}}`, at the start of `text`.
fn tree(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(inside) = text.strip_prefix('{') {
        let mut depth = 1;
        let mut start = 0;
        let mut found = Vec::new();
        for (at, c) in inside.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                found.extend(tree(&inside[start..at]));
                start = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
        return found;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let name = text[..end].to_owned();
    match text[end..].strip_prefix("::") {
        _ if name.is_empty() => Vec::new(),
        Some(rest) if rest.starts_with(['<', '*']) => vec![vec![name]],
        Some(rest) => tree(rest).into_iter().map(|path| [vec![name.clone()], path].concat()).collect(),
        None => vec![vec![name]],
    }
}

/// Name → child path, of each `pub use child::{…}`.
fn exports(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for statement in text.split(';') {
        let Some(at) = statement.find("pub") else { continue };
        let Some(tree_text) = statement[at..].split_once(" use ").map(|(_, tree)| tree) else { continue };
        for path in tree(tree_text) {
            if let [folders @ .., name] = path.as_slice()
                && !folders.is_empty()
            {
                found.insert(name.clone(), folders.join("::"));
            }
        }
    }
    found
}

#[test]
fn rooms_depend_one_way() {
    let sources = Sources::read();
    let mut wrong = BTreeSet::new();
    for file in sources.files.keys() {
        let room = &file[0];
        let allowed: Vec<&str> = match SMALL.iter().position(|small| small == room) {
            Some(at) => SMALL[..at].to_vec(),
            None => match ARROWS.iter().find(|(known, _)| known == room) {
                Some((_, arrows)) => [&SMALL[..], arrows].concat(),
                None => panic!("the room `{room}` is new: give it a place in the table of {}", file!()),
            },
        };
        for used in sources.used_by(file) {
            if used[0] != *room && !allowed.contains(&used[0].as_str()) {
                wrong.insert(format!("src/{} uses {}", file.join("/"), used.join("/")));
            }
        }
    }
    assert!(wrong.is_empty(), "these arrows point back:\n{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_table_has_no_circle() {
    for (at, (room, arrows)) in ARROWS.iter().enumerate() {
        for arrow in *arrows {
            assert!(
                ARROWS[..at].iter().any(|(known, _)| known == arrow),
                "{room} stands before {arrow}, which it uses"
            );
        }
    }
}

#[test]
fn files_of_a_room_do_not_depend_on_each_other_in_circles() {
    let sources = Sources::read();
    let edges: BTreeMap<&Module, BTreeSet<Module>> =
        sources.files.keys().map(|file| (file, sources.used_by(file))).collect();
    // The files that can be reached from each file.
    let reach = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<Module> = edges[from].iter().cloned().collect();
        while let Some(at) = open.pop() {
            if seen.insert(at.clone()) {
                open.extend(edges.get(&at).into_iter().flatten().cloned());
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> = edges.keys().map(|&file| (file, reach(file))).collect();
    let mut circles = BTreeSet::new();
    for (&file, seen) in &reached {
        if seen.contains(file) {
            let circle: Vec<String> =
                seen.iter().filter(|other| reached[other].contains(file)).map(|other| other.join("/")).collect();
            circles.insert(circle.join(" ↔ "));
        }
    }
    assert!(
        circles.is_empty(),
        "these files depend on each other:\n{}",
        circles.into_iter().collect::<Vec<_>>().join("\n")
    );
}
