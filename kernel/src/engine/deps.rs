//! Crates that the user adds with `:dep`: built by cargo, once, in the open, and present in the process once.
//!
//! cargo builds them as it does for any program. Then a small crate that holds them all is linked as a dynamic library, and cells and
//! definitions are linked with that: so there is one copy of each crate's code and statics, whatever cell uses it. A later `:dep` makes
//! another such library, which stands on those before and holds what is new. When cargo builds a crate that is there already once more,
//! because the new crates ask for more of its features or for another version, all begin anew in a library of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::Value;

use super::library::Bundle;
use super::toolchain::Toolchain;

/// The features with which the runtime behind `.await` is built from the start.
const RUNTIME: &str = "{ version = \"1\", features = [\"full\"] }";

/// The `[dependencies]` of a notebook, and what rustc needs to link them.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    wanted: BTreeMap<String, String>,
    /// Those of the last build.
    built: BTreeMap<String, String>,
    /// When a file of each local crate among them last changed.
    newest: BTreeMap<String, SystemTime>,
    /// `--extern`, `-L` and linker arguments.
    pub rustc_args: Vec<String>,
    /// The libraries that hold the crates, each of which stands on those before.
    chain: Vec<Holder>,
    /// Counts these libraries.
    holders: u64,
}

/// A dynamic library that holds crates.
#[derive(Clone, Debug)]
struct Holder {
    name: String,
    file: PathBuf,
    crates: BTreeMap<PathBuf, Crate>,
    /// Whether the runtime behind `.await` is here.
    runtime: bool,
}

/// A crate that cargo has built.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Crate {
    name: String,
    version: String,
    features: Vec<String>,
}

/// What a build of dependencies needs and tells.
pub struct Build<'a> {
    /// This kernel's own folder for it.
    pub folder: &'a Path,
    /// Where cargo builds; shared by kernels.
    pub cache: &'a Path,
    pub toolchain: &'a Toolchain,
    pub offline: bool,
    /// More variables of the environment.
    pub env: &'a [(String, String)],
    /// The compiled library, whose crates need not be built.
    pub bundle: Option<&'a Bundle>,
    /// Takes what is to be said to the user.
    pub say: &'a mut dyn FnMut(String),
    /// Is told cargo's progress line by line.
    pub progress: &'a mut dyn FnMut(&str),
    /// Is told the process to end on an interrupt.
    pub started: &'a mut dyn FnMut(Option<u32>),
}

impl Dependencies {
    /// Adds a crate, as a line of `[dependencies]`.
    pub fn want(&mut self, name: &str, value: &str) {
        let value = if name == "tokio" { with_all_of_tokio(value) } else { value.to_owned() };
        self.wanted.insert(name.to_owned(), value);
    }

    /// Adds the runtime behind `.await`, unless the user has added it.
    pub fn want_runtime(&mut self) {
        self.wanted.entry("tokio".to_owned()).or_insert_with(|| RUNTIME.to_owned());
    }

    /// The lines of `[dependencies]`.
    pub fn lines(&self) -> Vec<String> {
        self.wanted.iter().map(|(name, value)| format!("{name} = {value}")).collect()
    }

    /// The names of the crates that cells can use.
    pub fn names(&self) -> Vec<String> {
        self.built.keys().map(|name| name.replace('-', "_")).collect()
    }

    /// Whether what was built is what is wanted, and no file of a local crate has changed since.
    pub fn are_built(&self) -> bool {
        self.wanted == self.built && self.newest == newest_source(&self.wanted)
    }

    /// What cannot be built is not wanted any more.
    pub fn forget_unbuilt(&mut self) {
        self.wanted = self.built.clone();
    }

    /// Wanted crates that the compiled library holds, with their files; and those that it holds but otherwise, with the reason.
    fn held(&self, bundle: Option<&Bundle>) -> (BTreeMap<String, PathBuf>, Vec<(String, String)>) {
        let (mut held, mut apart) = (BTreeMap::new(), Vec::new());
        for (name, value) in &self.wanted {
            let Some((bundle, known)) = bundle.and_then(|bundle| Some((bundle, bundle.held(name)?))) else { continue };
            match known.serves(value) {
                Ok(()) => drop(held.insert(name.clone(), bundle.lib_dir().join(&known.file))),
                Err(why) => apart.push((name.clone(), why)),
            }
        }
        (held, apart)
    }

    fn lines_but(&self, held: &BTreeMap<String, PathBuf>) -> Vec<String> {
        let wanted = self.wanted.iter().filter(|(name, _)| !held.contains_key(*name));
        wanted.map(|(name, value)| format!("{name} = {value}")).collect()
    }

    fn runtime(&self) -> Option<&Holder> {
        self.chain.iter().find(|holder| holder.runtime)
    }

    /// Path of the function that waits for a future.
    pub fn block_on(&self) -> Option<String> {
        self.runtime().map(|holder| format!("::{}::block_on", holder.name))
    }

    /// An expression that lives as long as a cell runs, so that it can start tasks.
    pub fn within(&self) -> Option<String> {
        self.runtime().map(|holder| format!("::{}::enter()", holder.name))
    }

    /// Builds what is wanted. Returns the crates that were there and are built anew, with the reason.
    pub fn build(&mut self, build: &mut Build) -> Result<Vec<(String, String)>, String> {
        let newest = newest_source(&self.wanted);
        let (mut held, mut apart) = self.held(build.bundle);
        let mut cargo = run_cargo(&self.lines_but(&held), build)?;
        let doubled: Vec<String> =
            cargo.crates.values().map(|built| built.name.clone()).filter(|name| held.contains_key(name)).collect();
        if !doubled.is_empty() {
            // A crate that is built stands on one that the library holds, and would have another of it than cells.
            let why = format!("another crate of `:dep` stands on {}", doubled.join(", "));
            apart.extend(held.keys().map(|name| (name.clone(), why.clone())));
            held.clear();
            cargo = run_cargo(&self.lines(), build)?;
        }
        let mut externs = externs(&cargo, build)?;
        externs.extend(held.iter().map(|(name, file)| (name.replace('-', "_"), file.clone())));
        for (name, why) in apart {
            if !self.built.contains_key(&name) {
                (build.say)(format!("note: {name} is built apart from that of the compiled library: {why}."));
            }
        }
        let mut replaced = Vec::new();
        for crates in self.chain.iter().map(|holder| &holder.crates) {
            for (file, known) in crates.iter().filter(|(file, _)| !cargo.crates.contains_key(*file)) {
                let now = cargo.crates.values().find(|now| now.name == known.name);
                let why = match now {
                    Some(now) if now.version != known.version => {
                        format!("version {} took the place of {}", now.version, known.version)
                    }
                    Some(now) if now.features != known.features => {
                        let more: Vec<&str> = now
                            .features
                            .iter()
                            .filter(|feature| !known.features.contains(feature))
                            .map(String::as_str)
                            .collect();
                        format!("a later `:dep` asks for its features {}", more.join(", "))
                    }
                    Some(_) => "a crate that it stands on was built anew".to_owned(),
                    // It is not wanted any more.
                    None => continue,
                };
                let _ = file;
                replaced.push((known.name.replace('-', "_"), why));
            }
        }
        for (name, _) in self.newest.iter().filter(|(name, time)| newest.get(*name).is_some_and(|now| now != *time)) {
            replaced.push((name.replace('-', "_"), "its source changed".to_owned()));
        }
        let mut chain = if replaced.is_empty() { self.chain.clone() } else { Vec::new() };
        let held: BTreeSet<&PathBuf> = chain.iter().flat_map(|holder| holder.crates.keys()).collect();
        let new: BTreeMap<PathBuf, Crate> = cargo
            .crates
            .iter()
            .filter(|(file, _)| !held.contains(file))
            .map(|(file, known)| (file.clone(), known.clone()))
            .collect();
        let mut args = vec![format!("-Ldependency={}", build.cache.join("debug/deps").display())];
        args.push(format!("-Ldependency={}", build.folder.display()));
        args.extend(cargo.native.iter().map(|folder| format!("-L{folder}")));
        args.extend(externs.iter().map(|(name, file)| format!("--extern={name}={}", file.display())));
        args.push(format!("-Clink-arg=-Wl,-rpath,{}", build.folder.display()));
        if !new.is_empty() {
            self.holders += 1;
            let holder = hold(self.holders, new, &chain, &externs, &args, build)?;
            chain.push(holder);
        }
        for (index, holder) in chain.iter().enumerate() {
            // The last one is there for every cell, so that crates come from it; the others where they are named.
            let force = if index + 1 == chain.len() { "force:" } else { "" };
            args.push(format!("--extern={force}{}={}", holder.name, holder.file.display()));
        }
        (self.chain, self.rustc_args, self.newest) = (chain, args, newest);
        self.built = self.wanted.clone();
        replaced.dedup();
        Ok(replaced)
    }
}

/// tokio's line with all of its features: the runtime behind `.await` would otherwise be built anew for each that comes later.
fn with_all_of_tokio(value: &str) -> String {
    let parsed: Result<toml::Table, _> = format!("tokio = {value}").parse();
    let Some(mut entry) = parsed.ok().and_then(|mut table| table.remove("tokio")) else { return value.to_owned() };
    if let toml::Value::String(version) = entry {
        entry = toml::Value::Table([("version".to_owned(), toml::Value::String(version))].into_iter().collect());
    }
    let Some(table) = entry.as_table_mut() else { return value.to_owned() };
    let features = table.entry("features").or_insert_with(|| toml::Value::Array(Vec::new()));
    if let Some(features) = features.as_array_mut()
        && !features.iter().any(|feature| feature.as_str() == Some("full"))
    {
        features.push(toml::Value::String("full".to_owned()));
    }
    inline(&entry)
}

/// A value as it stands in a line of its own.
fn inline(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(table) => {
            let pairs: Vec<String> = table.iter().map(|(key, value)| format!("{key:?} = {}", inline(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        toml::Value::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The name and the value of what stands behind `:dep`: `name = "1"`, `name = { … }`, `name`, or the path of a crate. Paths count from
/// `home`.
pub fn parse(arguments: &str, home: &Path) -> Result<(String, String), String> {
    let arguments = arguments.trim().trim_end_matches(';').trim();
    if arguments.starts_with(['.', '/']) {
        let folder = home.join(arguments);
        let manifest = folder.join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest)
            .map_err(|error| format!("cannot read {}: {error}", manifest.display()))?;
        let table: toml::Table = text.parse().map_err(|error| format!("{}: {error}", manifest.display()))?;
        let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
        let name = name.ok_or_else(|| format!("{} names no package", manifest.display()))?;
        let folder = folder.canonicalize().unwrap_or(folder);
        return Ok((name.to_owned(), format!("{{ path = {:?} }}", folder.display().to_string())));
    }
    let Some((name, value)) = arguments.split_once('=') else {
        // `name@1.2` is how `cargo add` takes it.
        let (name, version) = arguments.split_once('@').unwrap_or((arguments, "*"));
        return check(name, format!("{version:?}"));
    };
    let table: toml::Table = format!("dependency = {value}")
        .parse()
        .map_err(|error: toml::de::Error| format!("`{}`: {}", value.trim(), error.message()))?;
    let mut value = table.get("dependency").cloned().unwrap_or(toml::Value::String("*".to_owned()));
    if let Some(path) = value.get_mut("path")
        && let Some(text) = path.as_str()
    {
        let folder = home.join(text);
        *path = toml::Value::String(folder.canonicalize().unwrap_or(folder).display().to_string());
    }
    check(name, inline(&value))
}

fn check(name: &str, value: String) -> Result<(String, String), String> {
    let name = name.trim().trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("`{name}` is no name of a crate: `:dep regex = \"1\"`"));
    }
    Ok((name.to_owned(), value))
}

/// What cargo told of a build.
#[derive(Default)]
struct Cargo {
    /// Libraries that are linked into programs, by file.
    crates: BTreeMap<PathBuf, Crate>,
    /// The file of each package's library or procedural macro, by cargo's name for the package.
    files: BTreeMap<String, PathBuf>,
    native: Vec<String>,
}

fn run_cargo(lines: &[String], build: &mut Build) -> Result<Cargo, String> {
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
                    let (name, version) = super::library::package(message);
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
fn externs(told: &Cargo, build: &Build) -> Result<Vec<(String, PathBuf)>, String> {
    if told.files.is_empty() {
        return Ok(Vec::new());
    }
    let output = cargo(build)
        .args(["metadata", "--format-version=1", "--offline"])
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("cargo did not start: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("cargo did not tell its crates: {}", String::from_utf8_lossy(&output.stderr)))?;
    let root = &metadata["resolve"]["root"];
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let node = nodes.into_iter().find(|node| node["id"] == *root).cloned().unwrap_or_default();
    let mut externs = Vec::new();
    for dependency in node["deps"].as_array().into_iter().flatten() {
        let (name, package) =
            (dependency["name"].as_str().unwrap_or_default(), dependency["pkg"].as_str().unwrap_or_default());
        if let Some(file) = told.files.get(package) {
            externs.push((name.to_owned(), file.clone()));
        }
    }
    Ok(externs)
}

/// Links the crates that are new as a dynamic library, which stands on those before.
fn hold(
    number: u64,
    crates: BTreeMap<PathBuf, Crate>,
    before: &[Holder],
    externs: &[(String, PathBuf)],
    args: &[String],
    build: &mut Build,
) -> Result<Holder, String> {
    let name = format!("wm_deps_{number}");
    let file = build.folder.join(format!("lib{name}.so"));
    let has_runtime = before.iter().any(|holder| holder.runtime);
    let runtime = !has_runtime && externs.iter().any(|(name, _)| name == "tokio");
    let mut source = String::new();
    for (name, _) in externs.iter().filter(|(_, file)| file.extension().is_some_and(|end| end == "rlib")) {
        source.push_str(&format!("pub extern crate {name};\n"));
    }
    if runtime {
        source.push_str(
            "static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {\n    \
             tokio::runtime::Builder::new_multi_thread().enable_all().build().expect(\"tokio's runtime did not start\")\n});\n\
             pub fn block_on<F: Future>(future: F) -> F::Output {\n    RUNTIME.block_on(future)\n}\n\
             pub fn enter() -> tokio::runtime::EnterGuard<'static> {\n    RUNTIME.enter()\n}\n",
        );
    }
    let path = build.folder.join(format!("{name}.rs"));
    std::fs::write(&path, source).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    (build.progress)("linking");
    let mut command = build.toolchain.quiet("rustc");
    command
        .current_dir(build.folder)
        .args([
            &format!("--crate-name={name}"),
            "--edition=2024",
            "--crate-type=dylib",
            "-Cprefer-dynamic",
            "-Zunstable-options",
        ])
        .arg(&path)
        .arg("-o")
        .arg(&file)
        .args(args)
        .arg(format!("-Clink-arg=-Wl,-soname,lib{name}.so"))
        .arg(format!("-Clink-arg=-Wl,-rpath,{}", build.toolchain.libdir.display()));
    for (index, holder) in before.iter().enumerate() {
        let force = if index + 1 == before.len() { "force:" } else { "" };
        command.arg(format!("--extern={force}{}={}", holder.name, holder.file.display()));
    }
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|error| format!("rustc did not start: {error}"))?;
    (build.started)(Some(child.id()));
    let output = child.wait_with_output();
    (build.started)(None);
    let output = output.map_err(|error| format!("rustc did not end: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the crates cannot be linked as one library:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(Holder { name, file, crates, runtime })
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

/// When a file of each local crate among the lines last changed.
fn newest_source(wanted: &BTreeMap<String, String>) -> BTreeMap<String, SystemTime> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dep_line_is_one_of_cargo() {
        let home = Path::new("/notes");
        for (line, name, value) in [
            ("regex", "regex", "\"*\""),
            ("regex = \"1\"", "regex", "\"1\""),
            ("regex@1.2", "regex", "\"1.2\""),
            ("my = { path = \"../my\" }", "my", "{ \"path\" = \"/notes/../my\" }"),
            (
                "s = { version = \"1\", features = [\"derive\"] }",
                "s",
                "{ \"features\" = [\"derive\"], \"version\" = \"1\" }",
            ),
        ] {
            assert_eq!(parse(line, home), Ok((name.to_owned(), value.to_owned())), "{line}");
        }
        assert!(parse("regex = 1 2", home).is_err() && parse("not a name", home).is_err());
    }

    #[test]
    fn tokio_has_all_its_features_from_the_start() {
        let mut dependencies = Dependencies::default();
        dependencies.want("tokio", "\"1.2\"");
        assert_eq!(dependencies.lines(), ["tokio = { \"features\" = [\"full\"], \"version\" = \"1.2\" }"]);
        let mut asked = Dependencies::default();
        asked.want_runtime();
        assert_eq!(asked.lines(), [format!("tokio = {RUNTIME}")]);
    }
}
