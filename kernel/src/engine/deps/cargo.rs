//! Calls of cargo, and what it tells of the crates that it builds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Build;
use crate::engine::library;

/// A crate that cargo has built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crate {
    pub name: String,
    pub version: String,
    pub features: Vec<String>,
}

/// What cargo told of a build.
#[derive(Default)]
pub struct Cargo {
    /// Libraries that are linked into programs, by file.
    pub crates: BTreeMap<PathBuf, Crate>,
    /// The file of each package's library or procedural macro, by cargo's name for the package.
    files: BTreeMap<String, PathBuf>,
    pub native: Vec<String>,
}

/// Builds the crates of these lines.
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
            (build.progress)(line);
        });
    }
    let status = child.wait();
    (build.started)(None);
    let messages = reading.join().unwrap_or_default();
    if !status.is_ok_and(|status| status.success()) {
        let useful = log.lines().filter(|line| !line.trim_start().starts_with("Compiling"));
        return Err(useful.collect::<Vec<_>>().join("\n"));
    }
    Ok(told_by(&messages))
}

/// cargo in the folder of the build, with what all calls share.
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

fn told_by(messages: &[Value]) -> Cargo {
    let mut cargo = Cargo::default();
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
                cargo.files.insert(package.to_owned(), PathBuf::from(file));
                if !is_macro {
                    let (name, version) = library::package(message);
                    let known = Crate { name, version, features: strings(&message["features"]) };
                    cargo.crates.insert(PathBuf::from(file), known);
                }
            }
            _ => {}
        }
    }
    cargo
}

/// The crates that cells name, with their files.
pub fn externs(told: &Cargo, build: &Build) -> Result<BTreeMap<String, PathBuf>, String> {
    if told.files.is_empty() {
        return Ok(BTreeMap::new());
    }
    let output = cargo(build)
        // Crates for other platforms may not be here.
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
        if let Some(file) = told.files.get(package) {
            externs.insert(name.to_owned(), file.clone());
        }
    }
    Ok(externs)
}

/// cargo ends a line of its progress bar with a carriage return and every other line with a newline.
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
