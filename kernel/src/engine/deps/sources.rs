//! When the source of a crate on this machine last changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// When a file of each local crate among the lines last changed.
pub fn newest(wanted: &BTreeMap<String, String>) -> BTreeMap<String, SystemTime> {
    let path = |value: &String| -> Option<PathBuf> {
        let line: toml::Table = format!("value = {value}").parse().ok()?;
        line.get("value")?.get("path")?.as_str().map(PathBuf::from)
    };
    let newest = |(name, value): (&String, &String)| Some((name.clone(), newest_in(&path(value)?, 0)?));
    wanted.iter().filter_map(newest).collect()
}

fn newest_in(folder: &Path, depth: usize) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .filter_map(|entry| {
            let path: PathBuf = entry.path();
            let name = entry.file_name();
            let kind = entry.file_type().ok()?;
            if kind.is_dir() && depth < 8 && name != "target" && name != ".git" {
                newest_in(&path, depth + 1)
            } else if path.extension().is_some_and(|end| end == "rs" || end == "toml") {
                entry.metadata().ok()?.modified().ok()
            } else {
                None
            }
        })
        .max()
}
