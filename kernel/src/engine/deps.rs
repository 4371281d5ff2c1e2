//! Crates that the user adds with `:dep`: built by cargo, once, in the open; then linked by rustc alone.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::shim::RECORDER;
use super::toolchain::Toolchain;

/// The `[dependencies]` of a cell, and what rustc needs to link them.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    /// The section's lines, sorted.
    pub lines: Vec<String>,
    /// `--extern` and `-L` arguments.
    pub rustc_args: Vec<String>,
    newest: Option<SystemTime>,
}

impl Dependencies {
    /// The lines of the `[dependencies]` section that evcxr wrote.
    pub fn lines_of(manifest: &str) -> Vec<String> {
        let section = manifest.split_once("[dependencies]").map_or("", |(_, section)| section);
        let mut lines: Vec<String> =
            section.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Whether what was built still serves `lines`: the same crates, and no file of a local one changed since.
    pub fn serve(&self, lines: &[String]) -> bool {
        self.lines == lines && self.newest == newest_source(lines)
    }
}

/// Builds the crates of `lines` and records the rustc arguments of a crate that uses them. `folder` is this kernel's own, `cache` is
/// shared. `progress` is told cargo's progress line by line; `started` the process to end on an interrupt.
pub fn build(
    lines: Vec<String>,
    folder: &Path,
    cache: &Path,
    toolchain: &Toolchain,
    offline: bool,
    progress: &mut dyn FnMut(&str),
    started: &mut dyn FnMut(Option<u32>),
) -> Result<Dependencies, String> {
    if lines.is_empty() {
        return Ok(Dependencies::default());
    }
    let newest = newest_source(&lines);
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
    // A new text makes cargo call rustc, whose arguments are wanted.
    write("lib.rs", &format!("// {:?}\n", SystemTime::now()))?;
    let record = folder.join("rustc-args");
    let _ = std::fs::remove_file(&record);
    let recorder = folder.parent().unwrap_or(folder).join("bin").join(RECORDER);
    let mut command = Command::new(&toolchain.cargo);
    command
        .arg("build")
        .args(offline.then_some("--offline"))
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", cache)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_WORKSPACE_WRAPPER", recorder)
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "100")
        .env("CARGO_TERM_COLOR", "never")
        .env("RUSTFLAGS", "-Cprefer-dynamic")
        .env_remove("CARGO")
        .env_remove("CARGO_INCREMENTAL")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    toolchain.clean_path(&mut command);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut cargo = command.spawn().map_err(|error| format!("cargo did not start: {error}"))?;
    started(Some(cargo.id()));
    let mut log = String::new();
    if let Some(stderr) = cargo.stderr.take() {
        read_progress(stderr, |line, kept| {
            if kept {
                log.push_str(line);
                log.push('\n');
            }
            progress(line);
        });
    }
    let status = cargo.wait();
    started(None);
    if !status.is_ok_and(|status| status.success()) {
        let useful = log.lines().filter(|line| !line.trim_start().starts_with("Compiling"));
        return Err(useful.collect::<Vec<_>>().join("\n"));
    }
    let recorded = std::fs::read_to_string(&record).map_err(|_| "cargo did not say how it calls rustc".to_owned())?;
    let args: Vec<String> = recorded.lines().map(str::to_owned).collect();
    Ok(Dependencies { lines, rustc_args: link_args(&args), newest })
}

/// Of the arguments of a rustc command, those that name other crates.
fn link_args(args: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    for pair in args.windows(2) {
        if pair[0] == "--extern" || pair[0] == "-L" {
            // cargo names the metadata of a library, which is enough to check; to link takes the library beside it.
            kept.extend([pair[0].clone(), pair[1].replace(".rmeta", ".rlib")]);
        }
    }
    kept
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

/// When a file of a local crate among `lines` last changed.
fn newest_source(lines: &[String]) -> Option<SystemTime> {
    lines
        .iter()
        .filter_map(|line| {
            let path = line.split_once("path")?.1.split('"').nth(1)?;
            newest_in(Path::new(path), 0)
        })
        .max()
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

/// Called for the recorder: notes the arguments of the cell's crate and says what to run.
pub fn record(folder: &Path, args: &[String]) -> Result<(), std::io::Error> {
    let own = args.windows(2).any(|pair| pair[0] == "--crate-name" && pair[1] == "cell");
    if own { std::fs::write(folder.join("rustc-args"), args.join("\n")) } else { Ok(()) }
}
