//! Calls rustc, one call at a time. A stop ends the call.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::toolchain::Toolchain;

/// Lints whose warnings are shown, because they usually find mistakes.
pub const WARNINGS: [&str; 9] = [
    "unused_must_use",
    "unreachable_code",
    "unreachable_patterns",
    "unconditional_recursion",
    "unused_comparisons",
    "for_loops_over_fallibles",
    "map_unit_fn",
    "invalid_value",
    "suspicious_double_ref_op",
];

/// Groups of lints that mostly report things that are fine in a notebook.
const NOISE: [&str; 3] = ["unused", "nonstandard_style", "deprecated"];

/// Calls rustc.
pub struct Rustc {
    toolchain: Toolchain,
    /// Folders in which compiled code finds the libraries with which it is linked.
    search: Vec<PathBuf>,
    /// The process group of the running compiler, or 0.
    group: AtomicI32,
    interrupted: AtomicBool,
    env: Mutex<Vec<(String, String)>>,
}

/// What to compile.
pub struct Job<'a> {
    /// The folder of `file`.
    pub folder: &'a Path,
    pub file: &'a str,
    pub output: &'a Path,
    pub crate_name: &'a str,
    pub crate_type: &'a str,
    /// `link`, or `metadata` if only messages are wanted.
    pub emit: &'a str,
    pub opt_level: &'a str,
    /// More arguments, including the crates to link with.
    pub args: Vec<String>,
}

/// What rustc said.
pub struct Outcome {
    pub success: bool,
    pub messages: Vec<Value>,
    pub build: Build,
}

/// The time of a build: rustc without the linker, then the linker.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub rustc: Duration,
    pub link: Duration,
}

impl Rustc {
    pub fn new(toolchain: Toolchain, search: Vec<PathBuf>) -> Rustc {
        Rustc {
            toolchain,
            search,
            group: AtomicI32::new(0),
            interrupted: AtomicBool::new(false),
            env: Mutex::default(),
        }
    }

    /// Sets an environment variable for later calls.
    pub fn set_env(&self, name: &str, value: &str) {
        let mut env = self.env.lock().unwrap_or_else(PoisonError::into_inner);
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value.to_owned()));
    }

    /// The variables that were set.
    pub fn env(&self) -> Vec<(String, String)> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets an earlier stop.
    pub fn begin(&self) {
        self.interrupted.store(false, Ordering::SeqCst);
    }

    /// Whether a stop was requested since the last `begin`.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Stops the running process, and every one that would follow. Returns true if one was running.
    pub fn interrupt(&self) -> bool {
        self.interrupted.store(true, Ordering::SeqCst);
        let group = Pid::from_raw(self.group.load(Ordering::SeqCst));
        group.is_some_and(|group| kill_process_group(group, Signal::KILL).is_ok())
    }

    /// Sets the process group that a stop ends, or none.
    pub fn set_group(&self, process: Option<u32>) {
        self.group.store(process.and_then(|id| id.try_into().ok()).unwrap_or(0), Ordering::SeqCst);
        if process.is_some() && self.interrupted() {
            self.interrupt();
        }
    }

    pub fn run(&self, job: &Job) -> Result<Outcome> {
        let start = Instant::now();
        let mut command = self.toolchain.quiet("rustc");
        command
            .envs(self.env())
            .current_dir(job.folder)
            .arg(format!("--crate-name={}", job.crate_name))
            .arg(format!("--crate-type={}", job.crate_type))
            .arg("--edition=2024")
            .arg(job.file)
            .arg("-o")
            .arg(job.output)
            .arg(format!("--emit={}", job.emit))
            .args(["--error-format=json", "--json=diagnostic-rendered-ansi,timings", "--diagnostic-width=100000"])
            .arg("-Zunstable-options")
            // A lint that user code cannot turn off makes rustc print types in full.
            .args(["-Ztrim-diagnostic-paths=no", "--force-warn=dropping_references"])
            // Groups of lints that are noise in a notebook also cost time; other noise is filtered later.
            .args(NOISE.map(|group| format!("-A{group}")))
            .args(WARNINGS.map(|lint| format!("-W{lint}")))
            // Code from `include!` counts like code in the same file.
            .arg("-Amacro_expanded_macro_exports_accessed_by_absolute_paths")
            .args(["-Cprefer-dynamic", "-Cdebug-assertions=on", "-Cdebuginfo=line-tables-only"])
            .arg(format!("-Copt-level={}", job.opt_level))
            .args(self.search.iter().map(|folder| format!("-Clink-arg=-Wl,-rpath,{}", folder.display())))
            .args(&job.args)
            .process_group(0);
        let child = command.spawn().with_context(|| format!("cannot run {}", self.toolchain.rustc.display()))?;
        self.set_group(Some(child.id()));
        let output = child.wait_with_output();
        self.set_group(None);
        let output = output?;
        let text = String::from_utf8_lossy(&output.stderr);
        let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let link = link_time(&messages);
        let build = Build { rustc: start.elapsed().saturating_sub(link), link };
        let success = output.status.success();
        if !success && !self.interrupted() && !messages.iter().any(|message| message["level"] == "error") {
            // rustc failed without saying what is wrong.
            anyhow::bail!("rustc failed ({}): {}", output.status, text.trim());
        }
        Ok(Outcome { success, messages, build })
    }
}

/// The time between rustc's messages about the start and end of linking, in microseconds.
fn link_time(messages: &[Value]) -> Duration {
    let at = |event: &str| {
        let message = messages.iter().find(|message| message["name"] == "link" && message["event"] == event)?;
        message["timestamp"].as_u64()
    };
    at("end").zip(at("start")).map_or(Duration::ZERO, |(end, start)| Duration::from_micros(end.saturating_sub(start)))
}

/// The spans of a message.
pub fn spans(message: &Value) -> &[Value] {
    message["spans"].as_array().map_or(&[][..], Vec::as_slice)
}

/// The file and bytes of a span. For a span in a macro, those where the macro is used in a known file.
pub fn place_in(span: &Value, is_known: impl Fn(&str) -> bool) -> Option<(&str, std::ops::Range<usize>)> {
    let mut span = span;
    while !span["file_name"].as_str().is_some_and(&is_known) {
        span = span["expansion"].get("span")?;
    }
    let byte = |name: &str| span[name].as_u64().and_then(|at| usize::try_from(at).ok());
    Some((span["file_name"].as_str()?, byte("byte_start")?..byte("byte_end")?))
}
