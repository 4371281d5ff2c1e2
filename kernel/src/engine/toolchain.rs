//! The Rust toolchain that compiles cells.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The paths of the tools, and rustc's description of itself.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Toolchain {
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    /// The output of `rustc -Vv`.
    pub version: String,
    /// The folder of the standard library.
    pub libdir: PathBuf,
    /// When rustc itself was installed; a different time means a different compiler.
    modified: Option<Duration>,
}

impl Toolchain {
    /// The toolchain that rustup selects in the working folder, or else the one on the PATH.
    pub fn discover() -> Result<Toolchain> {
        let rustc = tool("rustc")?;
        let ask = |args: &[&str]| -> Result<String> {
            let output =
                Command::new(&rustc).args(args).output().with_context(|| format!("cannot run {}", rustc.display()))?;
            if !output.status.success() {
                bail!("`{} {}` failed: {}", rustc.display(), args.join(" "), String::from_utf8_lossy(&output.stderr));
            }
            Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
        };
        let version = ask(&["-Vv"])?;
        let libdir = PathBuf::from(ask(&["--print", "target-libdir"])?);
        let beside = rustc.with_file_name("cargo");
        let cargo = if beside.exists() { beside } else { tool("cargo")? };
        let modified = modified(&rustc);
        Ok(Toolchain { rustc, cargo, version, libdir, modified })
    }

    /// Whether the compiler on disk is still the one described here.
    pub fn is_current(&self) -> bool {
        self.modified.is_some() && self.modified == modified(&self.rustc) && self.libdir.exists()
    }

    /// `1.95.0-59807616e`: the release and the commit of the compiler.
    pub fn id(&self) -> String {
        let commit: String = self.field("commit-hash:").chars().take(9).collect();
        format!("{}-{commit}", self.field("release:"))
    }

    /// The platform for which it compiles, such as `x86_64-unknown-linux-gnu`.
    pub fn host(&self) -> &str {
        self.field("host:")
    }

    fn field(&self, name: &str) -> &str {
        self.version.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim()
    }

    /// The standard library as a dynamic library.
    pub fn std_library(&self) -> Result<PathBuf> {
        for entry in
            std::fs::read_dir(&self.libdir).with_context(|| format!("cannot read {}", self.libdir.display()))?
        {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("libstd-") && path.extension().is_some_and(|end| end == "so" || end == "dylib") {
                return Ok(path);
            }
        }
        bail!("no libstd in {}", self.libdir.display())
    }

    /// A command for `rustc` or a tool beside it, with unstable options allowed. Its messages are read from its standard error; it does not
    /// see the kernel's own environment.
    pub fn quiet(&self, tool: &str) -> Command {
        let mut command = Command::new(self.rustc.with_file_name(tool));
        command.env("RUSTC_BOOTSTRAP", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for variable in ["RUSTC", "CARGO"] {
            command.env_remove(variable);
        }
        command
    }
}

fn tool(name: &str) -> Result<PathBuf> {
    if let Ok(output) = Command::new("rustup").args(["which", name]).output()
        && output.status.success()
    {
        return Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()));
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    folders.extend(home.map(|home| home.join("bin")));
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no `{name}`: install Rust with rustup (https://rustup.rs), or put it on the PATH")
    })
}

fn modified(path: &Path) -> Option<Duration> {
    std::fs::metadata(path).ok()?.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}
