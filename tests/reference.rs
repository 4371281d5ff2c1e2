//! The reference pages of the book are complete: they name every environment variable that the sources read, every command of the
//! kernel that `:help` lists, every variant of [`Error`](wavemesh::Error), every layer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files in a folder and its subfolders that have this extension.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found
}

/// The texts between two marks, at every place where both occur.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split_once(end).map(|(inside, _)| inside))
}

/// The `names` that do not appear as code in the text of `page`.
fn missing(names: impl IntoIterator<Item = String>, page: &str) -> Vec<String> {
    let page = read(page);
    let text: String = page.split("```").step_by(2).collect::<String>().replace("``", "`");
    let code: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let words = code.iter().flat_map(|code| code.split(|c: char| !(c.is_alphanumeric() || "_:%!".contains(c))));
    let words: BTreeSet<&str> = words.flat_map(|word| word.split("::")).collect();
    names.into_iter().filter(|name| !words.contains(name.as_str())).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn every_variable_of_the_environment_is_in_the_table() {
    // The kernel sets these for its own process of cells; users never set them.
    let own =
        ["WAVEMESH_CHILD_", "WAVEMESH_FRAME_TOKEN", "WAVEMESH_GPU_PROBLEM", "WAVEMESH_CELL_RUN", "WAVEMESH_TEST_"];
    let mut sources = vec![root().join("build.rs")];
    for folder in ["src", "kernel/src", "kernel/runtime"] {
        sources.extend(files(folder, "rs"));
    }
    for folder in ["kernel/python", "kernel/python-cuda"] {
        sources.extend(
            files(folder, "py").into_iter().filter(|path| !path.components().any(|c| c.as_os_str() == "tests")),
        );
    }
    let mut names = Vec::new();
    for source in sources {
        let text = read(&source);
        let found = between(&text, "\"WAVEMESH_", "\"").map(|rest| format!("WAVEMESH_{rest}"));
        names.extend(found.filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')));
    }
    names.retain(|name| !own.iter().any(|own| name.starts_with(own)));
    assert!(names.iter().any(|name| name == "WAVEMESH_BACKEND"));
    assert_eq!(missing(names, "docs/reference/kernel.md"), [""; 0]);
}

#[test]
fn every_command_that_help_lists_is_in_the_table() {
    let table = read("kernel/src/engine/grammar/table.rs");
    let table = between(&table, "pub static COMMANDS", "];").next().unwrap();
    let names: Vec<String> = between(table, " command(", ",")
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| name != "!") // `!command` is the one that is no word
        .collect();
    assert!(names.iter().any(|name| name == ":vars") && names.len() > 20, "{names:?}");
    assert_eq!(missing(names, "docs/reference/kernel.md"), [""; 0]);
}

#[test]
fn every_variant_of_error_is_in_errors_by_message() {
    let source = read("src/error.rs");
    let body = between(&source, "pub enum Error {\n", "\n}\n").next().unwrap();
    let variants: Vec<String> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    ").filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())))
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned())
        .collect();
    assert!(variants.len() >= 16, "{variants:?}");
    assert_eq!(missing(variants, "docs/reference/errors.md"), [""; 0]);
}

#[test]
fn every_layer_is_in_the_page_of_layers() {
    let layer = |text: &str| {
        let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        // The page names only the 3-D variant of layers that exist for several numbers of axes.
        let counted = ["Conv", "Pool", "Transpose"].iter().any(|end| name.ends_with(end)) && !name.contains("Global");
        if counted { format!("{name}3d") } else { name.to_owned() }
    };
    let mut names = Vec::new();
    for source in files("src/sparse", "rs") {
        let text = read(&source);
        let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        for line in text.lines().filter(|line| line.starts_with("impl") && line.contains("SparseModule for ")) {
            names.extend(line.split("SparseModule for ").nth(1).map(layer));
        }
        names.extend(between(text, "pub type ", " =").filter(|name| name.ends_with("3d")).map(str::to_owned));
    }
    names.retain(|name| name != "OnFeatures");
    assert!(names.iter().any(|name| name == "BatchNorm"), "{names:?}");
    assert_eq!(missing(names, "docs/reference/layers.md"), [""; 0]);
}
