//! The crate's one error type.
//!
//! A variant carries what was met and what was expected, so that the message alone locates the fault and says what to do.

use std::path::{Path, PathBuf};

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in WaveMesh.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a path.
    #[error("{path}: {source}{}", where_looked(path, source))]
    Io { path: PathBuf, source: std::io::Error },

    /// A file was read, and its content is not what its format asks for.
    #[error("{path}: not a valid {format} file: {problem}")]
    Format { path: PathBuf, format: &'static str, problem: String },

    /// A name (wavelet, mode, backend, file extension, …) is not one that WaveMesh knows.
    #[error("unknown {kind} `{name}`; known: {known}")]
    Unknown { kind: &'static str, name: String, known: String },

    /// A tensor's shape does not fit the operation.
    #[error("{op}: {what} has shape {got:?}, expected {expected}")]
    Shape { op: &'static str, what: &'static str, got: Vec<usize>, expected: String },

    /// A tensor's element type does not fit the operation.
    #[error("{op}: {what} has dtype {got:?}, expected {expected}")]
    DType { op: &'static str, what: &'static str, got: candle_core::DType, expected: &'static str },

    /// An argument is outside its range, or contradicts another.
    #[error("{op}: {name} is {got}, expected {expected}")]
    Argument { op: &'static str, name: &'static str, got: String, expected: String },

    /// A sparse layer met an `indice_key` that an incompatible layer made.
    #[error("{layer}: indice_key `{key}` was made by {made_by}: {problem}")]
    IndiceKey { layer: String, key: String, made_by: String, problem: String },

    /// A backend was asked for that cannot run here.
    #[error("backend `{backend}` is not available: {needs}")]
    Backend { backend: &'static str, needs: String },

    /// An operation needs more memory than there is; nothing was allocated.
    #[error(
        "{op}: {what} needs {:.1} GB of memory, {}", *needed as f64 / 1e9,
        .available.map_or("which the system does not grant".into(), |n| format!("{:.1} GB are available", n as f64 / 1e9))
    )]
    Memory {
        op: &'static str,
        what: String,
        /// Bytes that the operation holds at its peak.
        needed: u64,
        /// Bytes that are available, where the system tells of fewer.
        available: Option<u64>,
    },

    /// A cooperative stop was requested (the notebook's interrupt button, Ctrl-C) and the running loop obeyed it.
    /// Nothing that was finished before the stop is lost.
    #[error("interrupted")]
    Interrupted,

    /// A training met a value that is not finite and stopped before using it.
    #[error(
        "the {what} of step {step} is not finite; the network is as it was before the step{}; a smaller learning rate or \
         gradient norm usually helps",
        .checkpoint.as_ref().map(|path| format!(", and the last checkpoint is {}", path.display())).unwrap_or_default()
    )]
    Diverged { what: &'static str, step: usize, checkpoint: Option<PathBuf> },

    /// An error of candle, passed on.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// Attaches the path that was being read or written to an I/O error.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// Where a relative path that does not exist was looked for: most often the folder is not the one that was thought.
fn where_looked(path: &Path, source: &std::io::Error) -> String {
    match std::env::current_dir() {
        Ok(folder) if path.is_relative() && source.kind() == std::io::ErrorKind::NotFound => {
            format!("; it was looked for in {}", folder.display())
        }
        _ => String::new(),
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}
