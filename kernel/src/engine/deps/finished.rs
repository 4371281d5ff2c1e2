//! Finished builds. A record beside cargo's own files lets the same crates be used without cargo and its lock, which the build of another
//! notebook may hold for minutes.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Build;
use super::cargo::{self, Cargo};
use crate::engine::toolchain::Toolchain;

/// How long a build is used again. After that, cargo looks for newer versions of its crates.
const SERVES: Duration = Duration::from_secs(7 * 24 * 3600);

/// A build, and everything on which it depends.
#[derive(Debug, Serialize, Deserialize)]
struct Finished {
    lines: BTreeSet<String>,
    toolchain: Toolchain,
    env: Vec<(String, String)>,
    /// The content of `Cargo.lock`: the versions of all crates.
    lock: String,
    cargo: Cargo,
}

/// Builds the crates of these lines, unless a finished build has them.
pub fn build(lines: &[String], build: &mut Build) -> Result<Cargo, String> {
    // A local folder or a repository may have changed.
    let may_change = |line: &String| line.contains("\"path\"") || line.contains("\"git\"");
    if lines.is_empty() || lines.iter().any(may_change) {
        return cargo::run(lines, build);
    }
    let (records, lock) = (build.cache.join("finished"), build.folder.join("Cargo.lock"));
    let before = fs::read_to_string(&lock).ok();
    let wanted: BTreeSet<String> = lines.iter().cloned().collect();
    if let Some(found) = find(&records, &wanted, before.as_deref(), build)
        && fs::create_dir_all(build.folder).and_then(|()| fs::write(&lock, &found.lock)).is_ok()
    {
        return Ok(found.cargo);
    }
    let cargo = cargo::run(lines, build)?;
    let finished = Finished {
        lines: wanted,
        toolchain: build.toolchain.clone(),
        env: build.env.to_vec(),
        lock: fs::read_to_string(&lock).unwrap_or_default(),
        cargo,
    };
    finished.keep(&records);
    Ok(finished.cargo)
}

/// A finished build of these lines. A notebook without crates can also use a build with more lines; a notebook that has crates cannot,
/// since it might get a crate with other features.
fn find(records: &Path, wanted: &BTreeSet<String>, lock: Option<&str>, build: &Build) -> Option<Finished> {
    let serves = |finished: &Finished| {
        let has_lines = match lock {
            None => finished.lines.is_superset(wanted),
            Some(lock) => finished.lines == *wanted && packages(&finished.lock).is_superset(&packages(lock)),
        };
        has_lines
            && finished.toolchain == *build.toolchain
            && finished.env == build.env
            && finished.cargo.crates.keys().chain(finished.cargo.externs.values()).all(|file| file.exists())
    };
    let recent = fs::read_dir(records).ok()?.flatten().filter(|entry| {
        let made = entry.metadata().and_then(|metadata| metadata.modified());
        made.is_ok_and(|made| SystemTime::now().duration_since(made).unwrap_or_default() < SERVES)
    });
    let known = recent.filter_map(|entry| serde_json::from_slice::<Finished>(&fs::read(entry.path()).ok()?).ok());
    // Take the build with the fewest extra crates.
    let mut found = known.filter(serves).min_by_key(|finished| finished.lines.len())?;
    let names: BTreeSet<String> =
        wanted.iter().filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_"))).collect();
    found.cargo.externs.retain(|name, _| names.contains(name));
    Some(found)
}

/// The packages of a `Cargo.lock`, with their versions.
fn packages(lock: &str) -> BTreeSet<(String, String)> {
    let table: toml::Table = lock.parse().unwrap_or_default();
    let packages = table.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    packages.filter_map(|package| Some((text(package, "name")?, text(package, "version")?))).collect()
}

impl Finished {
    /// Writes the record. A failure is ignored: without the record the next notebook calls cargo, which only takes longer.
    fn keep(&self, records: &Path) {
        let Ok(text) = serde_json::to_string(self) else { return };
        let written = fs::create_dir_all(records)
            .and_then(|()| tempfile::NamedTempFile::new_in(records))
            .and_then(|file| fs::write(file.path(), text).map(|()| file));
        if let Ok(file) = written {
            let mut name = DefaultHasher::new();
            (&self.lines, &self.toolchain.version, &self.env, &self.lock).hash(&mut name);
            let _ = file.persist(records.join(format!("{:016x}.json", name.finish())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn finished(folder: &Path, toolchain: &Toolchain, names: &[&str]) -> Finished {
        let file = |name: &str| folder.join(format!("lib{name}.rlib"));
        let externs: BTreeMap<_, _> = names.iter().map(|name| ((*name).to_owned(), file(name))).collect();
        externs.values().for_each(|file| fs::write(file, "").unwrap());
        let lock: String =
            names.iter().map(|name| format!("[[package]]\nname = {name:?}\nversion = \"1.0.0\"\n")).collect();
        Finished {
            lines: names.iter().map(|name| format!("{name} = \"1\"")).collect(),
            toolchain: toolchain.clone(),
            env: Vec::new(),
            lock,
            cargo: Cargo { externs, ..Cargo::default() },
        }
    }

    /// The names of the crates that can be built when cargo cannot run.
    fn names_of(build: &mut Build, names: &[&str]) -> Result<Vec<String>, String> {
        let lines: Vec<String> = names.iter().map(|name| format!("{name} = \"1\"")).collect();
        super::build(&lines, build).map(|cargo| cargo.externs.into_keys().collect())
    }

    #[test]
    fn a_finished_build_serves_without_cargo_whoever_has_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut toolchain = Toolchain::discover().unwrap();
        toolchain.cargo = "/nonexistent/cargo".into();
        let records = folder.path().join("finished");
        for names in [&["a", "b", "c"][..], &["a", "b"]] {
            finished(folder.path(), &toolchain, names).keep(&records);
        }
        let notebook = folder.path().join("notebook");
        let mut build = Build {
            folder: &notebook,
            cache: folder.path(),
            toolchain: &toolchain,
            offline: false,
            env: &[],
            bundle: None,
            say: &mut |_| {},
            progress: &mut |_| {},
            compiled: &mut |_| {},
            started: &mut |_| {},
        };
        assert_eq!(names_of(&mut build, &["a"]), Ok(vec!["a".to_owned()]), "others have more");
        // From now on this notebook has crates, and the next build must have exactly its lines.
        assert!(fs::read_to_string(notebook.join("Cargo.lock")).unwrap().contains("\"b\""));
        assert_eq!(names_of(&mut build, &["a", "b"]), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(names_of(&mut build, &["b", "c"]).is_err_and(|error| error.contains("cargo did not start")));
        fs::remove_file(folder.path().join("liba.rlib")).unwrap();
        assert!(names_of(&mut build, &["a", "b"]).is_err(), "a file of it is gone");
    }
}
