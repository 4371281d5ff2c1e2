//! Runs cargo, and reads what it says about the crates that it builds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Build;
use crate::engine::library;

/// A crate that cargo has built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crate {
    pub name: String,
    pub version: String,
    pub features: Vec<String>,
}

/// What cargo reported about a build.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cargo {
    /// Libraries that are linked into programs, by file.
    pub crates: BTreeMap<PathBuf, Crate>,
    /// The crates that cells name, with their files.
    pub externs: BTreeMap<String, PathBuf>,
    pub native: Vec<String>,
}

/// The file of each package's library or procedural macro, by cargo's name for the package.
type Files = BTreeMap<String, PathBuf>;

/// Builds the crates of these lines of `[dependencies]`.
pub fn run(lines: &[String], build: &mut Build) -> Result<Cargo, String> {
    if lines.is_empty() {
        return Ok(Cargo::default());
    }
    let folder = build.folder;
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).map_err(|error| format!("cannot write {name}: {error}"))
    };
    std::fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    write(
        "Cargo.toml",
        &format!(
            "[workspace]\n[package]\nname = \"cell\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n\
             [profile.dev]\nopt-level = 2\ndebug = false\nincremental = false\n[dependencies]\n{}\n",
            lines.join("\n")
        ),
    )?;
    write("lib.rs", "")?;
    let mut command = cargo(build);
    command
        .args(["build", "--message-format=json-render-diagnostics"])
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "100")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|error| format!("cargo did not start: {error}"))?;
    (build.started)(Some(child.id()));
    let stdout = child.stdout.take();
    let reading = std::thread::spawn(move || {
        let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
        lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect::<Vec<Value>>()
    });
    let mut log = String::new();
    if let Some(stderr) = child.stderr.take() {
        read_progress(stderr, |line, kept| {
            if kept {
                log.push_str(line);
                log.push('\n');
            }
            if let Some(line) = told(line) {
                (build.progress)(&line);
            }
        });
    }
    let status = child.wait();
    (build.started)(None);
    let messages = reading.join().unwrap_or_default();
    if !status.is_ok_and(|status| status.success()) {
        return Err(told_of_failure(&log, folder));
    }
    let (mut cargo, files) = told_by(&messages);
    cargo.externs = externs(&files, build)?;
    Ok(cargo)
}

/// A cargo command in the folder of the build, with the options that all calls share.
fn cargo(build: &Build) -> Command {
    let mut command = Command::new(&build.toolchain.cargo);
    command
        .current_dir(build.folder)
        .env("CARGO_TARGET_DIR", build.cache)
        .env("RUSTC", &build.toolchain.rustc)
        .env("CARGO_TERM_COLOR", "never")
        .env("RUSTFLAGS", "-Cprefer-dynamic")
        .env_remove("CARGO")
        .env_remove("CARGO_INCREMENTAL")
        .envs(build.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    if build.offline {
        command.env("CARGO_NET_OFFLINE", "true");
    }
    command
}

fn told_by(messages: &[Value]) -> (Cargo, Files) {
    let (mut cargo, mut found) = (Cargo::default(), Files::new());
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    for message in messages {
        match message["reason"].as_str() {
            Some("build-script-executed") => cargo.native.extend(strings(&message["linked_paths"])),
            Some("compiler-artifact") => {
                let package = message["package_id"].as_str().unwrap_or_default();
                let kinds = strings(&message["target"]["kind"]);
                if kinds.iter().any(|kind| kind == "custom-build" || kind == "bin") || package.contains("#cell@0.0.0") {
                    continue;
                }
                let files = strings(&message["filenames"]);
                let is_macro = kinds.iter().any(|kind| kind == "proc-macro");
                let end = if is_macro { ".so" } else { ".rlib" };
                let Some(file) = files.iter().find(|file| file.ends_with(end)) else { continue };
                found.insert(package.to_owned(), PathBuf::from(file));
                if !is_macro {
                    let (name, version) = library::package(message);
                    let known = Crate { name, version, features: strings(&message["features"]) };
                    cargo.crates.insert(PathBuf::from(file), known);
                }
            }
            _ => {}
        }
    }
    (cargo, found)
}

/// The crates that cells name, with their files.
fn externs(files: &Files, build: &Build) -> Result<BTreeMap<String, PathBuf>, String> {
    if files.is_empty() {
        return Ok(BTreeMap::new());
    }
    let output = cargo(build)
        // Crates for other platforms may be missing here.
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform", build.toolchain.host()])
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("cargo did not start: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("cargo did not tell its crates: {}", String::from_utf8_lossy(&output.stderr)))?;
    let root = &metadata["resolve"]["root"];
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let node = nodes.into_iter().find(|node| node["id"] == *root).cloned().unwrap_or_default();
    let mut externs = BTreeMap::new();
    for dependency in node["deps"].as_array().into_iter().flatten() {
        let (name, package) =
            (dependency["name"].as_str().unwrap_or_default(), dependency["pkg"].as_str().unwrap_or_default());
        if let Some(file) = files.get(package) {
            externs.insert(name.to_owned(), file.clone());
        }
    }
    Ok(externs)
}

/// The words with which cargo's progress lines begin.
const PROGRESS: [&str; 8] =
    ["Updating", "Locking", "Adding", "Downloading", "Downloaded", "Compiling", "Building", "Blocking"];

fn is_progress(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|verb| PROGRESS.contains(&verb))
}

/// cargo's message about a failure, without its progress lines and without the kernel's own crate and folder.
fn told_of_failure(log: &str, folder: &Path) -> String {
    // A longer line is a list of all versions of a crate.
    const LONGEST: usize = 200;
    let own = ["required by package `cell v0.0.0", "failed to load manifest for workspace"];
    let useful = log.lines().filter(|line| !is_progress(line) && !own.iter().any(|start| line.contains(start)));
    let manifest = format!("`{}`", folder.join("Cargo.toml").display());
    let package = format!("package `cell v0.0.0 ({})`", folder.display());
    let told = |line: &str| {
        let line = line
            .replace(&manifest, "the lines of `:dep`")
            .replace(&package, "the notebook")
            .replace("package `cell` depends", "the notebook depends");
        match line.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    };
    useful.map(told).collect::<Vec<_>>().join("\n")
}

/// A line of cargo's progress for the user; `None` for other lines, and for progress of the kernel's own crate.
fn told(line: &str) -> Option<String> {
    let line = line.trim();
    if line.starts_with("Blocking waiting for file lock") {
        return Some("another notebook's crates are being built; these are next".to_owned());
    }
    if !is_progress(line) || line.starts_with("Compiling cell v0.0.0") {
        return None;
    }
    let Some((counts, names)) =
        line.strip_prefix("Building [").and_then(|bar| bar.split_once("] ")?.1.split_once(": "))
    else {
        return Some(line.to_owned());
    };
    let (done, all) = counts.split_once('/')?;
    let names: Vec<&str> = names.split(", ").filter(|name| *name != "cell").collect();
    // One step is the kernel's own crate.
    let all = all.trim().parse::<usize>().ok()?.saturating_sub(1);
    (!names.is_empty()).then(|| format!("{done} of {all} steps done, compiling {}", names.join(", ")))
}

/// Reads progress: cargo ends a line of its progress bar with a carriage return and every other line with a newline.
fn read_progress(stderr: impl Read, mut line: impl FnMut(&str, bool)) {
    let mut reader = BufReader::new(stderr);
    let mut text = Vec::new();
    let mut bytes = [0u8; 4096];
    while let Ok(read) = reader.read(&mut bytes) {
        if read == 0 {
            break;
        }
        for &byte in &bytes[..read] {
            if byte == b'\n' || byte == b'\r' {
                let decoded = String::from_utf8_lossy(&text).trim_end().to_owned();
                if !decoded.trim().is_empty() {
                    line(&decoded, byte == b'\n' && !decoded.trim_start().starts_with("Building ["));
                }
                text.clear();
            } else {
                text.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_without_what_is_of_the_kernel() {
        let log = "    Updating crates.io index\nerror: no matching package named `zzz` found\nlocation searched: crates.io index\n\
                   required by package `cell v0.0.0 (/tmp/k/deps)`";
        let said = "error: no matching package named `zzz` found\nlocation searched: crates.io index";
        assert_eq!(told_of_failure(log, Path::new("/tmp/k/deps")), said);
        let log = "error: failed to get `tool` as a dependency of package `cell v0.0.0 (/tmp/k/deps)`";
        let said = "error: failed to get `tool` as a dependency of the notebook";
        assert_eq!(told_of_failure(log, Path::new("/tmp/k/deps")), said);
        let log = "error: failed to parse manifest at `/tmp/k/deps/Cargo.toml`\n\nCaused by:\n  invalid url `/nope`";
        let said = told_of_failure(log, Path::new("/tmp/k/deps"));
        assert!(said.starts_with("error: failed to parse manifest at the lines of `:dep`"), "{said}");
    }

    #[test]
    fn progress_says_what_is_compiled_and_how_much_is_left() {
        for (line, said) in [
            ("    Building [======>      ] 1/4: anyhow(build)", Some("1 of 3 steps done, compiling anyhow(build)")),
            (
                "    Building [======>      ] 12/40: serde, cell, regex",
                Some("12 of 39 steps done, compiling serde, regex"),
            ),
            ("    Building [===========> ] 3/4: cell", None),
            ("error: no matching package named `zzz` found", None),
            ("   Compiling cell v0.0.0 (/tmp/wavemesh-kernel-1/deps)", None),
            ("   Compiling anyhow v1.0.105", Some("Compiling anyhow v1.0.105")),
            (
                "    Blocking waiting for file lock on build directory",
                Some("another notebook's crates are being built; these are next"),
            ),
        ] {
            assert_eq!(told(line).as_deref(), said, "{line}");
        }
    }
}
