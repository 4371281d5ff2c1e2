//! The crate's one error type.
//!
//! A variant carries what was met and what was expected, so that the message alone locates the fault and says what to do.

use std::fmt::Display;
use std::path::{Path, PathBuf};

#[cfg(feature = "cuda")]
pub(crate) mod driver;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in WaveMesh.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a path.
    #[error("{path}: {error}{}", where_looked(path, error))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },

    /// A file was read, and its content is not what its format asks for.
    #[error("{path}: not a valid {format} file: {problem}")]
    Format {
        /// The file; `<bytes>` for bytes in memory.
        path: PathBuf,
        /// The name of the format.
        format: &'static str,
        /// What is wrong and where.
        problem: String,
    },

    /// A name (wavelet, mode, backend, file extension, …) is not one that WaveMesh knows.
    #[error("unknown {kind} `{name}`; known: {known}")]
    Unknown {
        /// What the name would be of.
        kind: &'static str,
        /// The name as it was given.
        name: String,
        /// The names there are.
        known: String,
    },

    /// A tensor's shape does not fit the operation.
    #[error("{op}: the shape of {what} is {got:?}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which of its tensors.
        what: &'static str,
        /// The shape that was met.
        got: Vec<usize>,
        /// The shape that would do.
        expected: String,
    },

    /// A tensor's element type does not fit the operation.
    #[error("{op}: the dtype of {what} is {got:?}, expected {expected}")]
    DType {
        /// The operation.
        op: &'static str,
        /// Which of its tensors.
        what: &'static str,
        /// The type that was met.
        got: candle_core::DType,
        /// The types that would do.
        expected: &'static str,
    },

    /// An argument is outside its range, or contradicts another.
    #[error("{op}: {name} is {got}, expected {expected}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// Which of its arguments.
        name: &'static str,
        /// The value that was met.
        got: String,
        /// The values that would do.
        expected: String,
    },

    /// A sparse layer met an `indice_key` that an incompatible layer made.
    #[error("{layer}: indice_key `{key}` was made by {made_by}: {problem}")]
    IndiceKey {
        /// The layer that met it.
        layer: String,
        /// The key.
        key: String,
        /// The layer that made its map, with its geometry.
        made_by: String,
        /// What does not fit.
        problem: String,
    },

    /// A backend was asked for that cannot run here.
    #[error("backend `{backend}` is not available: {needs}")]
    Backend {
        /// The backend's name.
        backend: &'static str,
        /// What it needs, or what is wrong.
        needs: String,
    },

    /// An operation needs more memory than there is; nothing was allocated.
    #[error(
        "{op}: {what} needs {:.1} GB of memory, {}", *needed as f64 / 1e9,
        .available.map_or("which the system does not grant".into(), |n| format!("{:.1} GB are available", n as f64 / 1e9))
    )]
    Memory {
        /// The operation.
        op: &'static str,
        /// What it would allocate.
        what: String,
        /// Bytes that the operation holds at its peak.
        needed: u64,
        /// Bytes that are available, where the system tells of fewer.
        available: Option<u64>,
    },

    /// A GPU has less free memory than an operation asked for.
    #[error(
        "{op}: the GPU has no memory for {}; {:.1} of {:.1} GB are free; smaller batches, or trim_gpu_memory and fewer tensors, help",
        .asked.map_or("it".into(), |bytes| format!("{:.1} MB more", bytes as f64 / 1e6)), *free as f64 / 1e9, *total as f64 / 1e9
    )]
    GpuMemory {
        /// The operation.
        op: &'static str,
        /// Bytes that were asked for, where that is known.
        asked: Option<u64>,
        /// Bytes that nobody uses.
        free: u64,
        /// Bytes in all.
        total: u64,
    },

    /// A GPU or its driver refused an operation.
    #[error("{op}: the GPU's driver says: {problem}")]
    Gpu {
        /// The operation.
        op: &'static str,
        /// What the driver says.
        problem: String,
    },

    /// Two tensors of one operation are on different devices.
    #[error("{op}: the device of {what} is {}, that of {other} is {}; use `to_device`", place(got), place(expected))]
    Device {
        /// The operation.
        op: &'static str,
        /// The tensor that is elsewhere.
        what: &'static str,
        /// Where it is.
        got: candle_core::DeviceLocation,
        /// The tensor that it is to be with.
        other: &'static str,
        /// Where that one is.
        expected: candle_core::DeviceLocation,
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
    Diverged {
        /// What is not finite: the loss, or the gradient.
        what: &'static str,
        /// The step, counted from 1.
        step: usize,
        /// The last checkpoint, if the training wrote one.
        checkpoint: Option<PathBuf>,
    },

    /// A group of processes ended before its time, or did not come together. Every process of it gets this error.
    #[error("the group of processes ended: {}{problem}", .rank.map(|rank| format!("rank {rank}: ")).unwrap_or_default())]
    Group {
        /// The process that it is about, where it is about one.
        rank: Option<usize>,
        /// What is wrong with it.
        problem: String,
    },

    /// An error of candle, passed on.
    #[error(transparent)]
    Candle(candle_core::Error),
}

impl Error {
    /// Attaches the path that was being read or written to an I/O error.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |error| Self::Io { path, error }
    }

    /// A wrong argument: `name` of `op` is `got`, and `expected` says what it may be.
    ///
    /// ```
    /// let error = wavemesh::Error::argument("Picture::resize", "width", 0, "1 to 8192");
    /// assert_eq!(error.to_string(), "Picture::resize: width is 0, expected 1 to 8192");
    /// ```
    pub fn argument(op: &'static str, name: &'static str, got: impl Display, expected: impl Into<String>) -> Self {
        Self::Argument { op, name, got: got.to_string(), expected: expected.into() }
    }
}

/// `cpu` or `cuda:0`, as people write it.
pub(crate) fn place(location: &candle_core::DeviceLocation) -> String {
    match location {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// Where a relative path that does not exist was looked for: most often the folder is not the one that was thought.
fn where_looked(path: &Path, error: &std::io::Error) -> String {
    match std::env::current_dir() {
        Ok(folder) if path.is_relative() && error.kind() == std::io::ErrorKind::NotFound => {
            format!("; it was looked for in {}", folder.display())
        }
        _ => String::new(),
    }
}

/// An error of this crate on its way through candle, whose layers and operations return candle's errors: it comes out as itself.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            other => Self::Io(std::io::Error::other(other)),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        match own(error) {
            Ok(own) => own,
            #[cfg(feature = "cuda")]
            Err(candle) => driver::of_candle(&candle).unwrap_or(Self::Candle(candle)),
            #[cfg(not(feature = "cuda"))]
            Err(candle) => Self::Candle(candle),
        }
    }
}

/// The error of this crate that candle's carries, or candle's as it was.
fn own(error: candle_core::Error) -> std::result::Result<Error, candle_core::Error> {
    match error {
        candle_core::Error::Io(inner) if inner.get_ref().is_some_and(|inner| inner.is::<Error>()) => {
            let kind = inner.kind();
            match inner.into_inner().map(|inner| inner.downcast::<Error>()) {
                Some(Ok(own)) => Ok(*own),
                _ => Err(candle_core::Error::Io(kind.into())),
            }
        }
        candle_core::Error::WithBacktrace { inner, backtrace } => {
            own(*inner).map_err(|inner| candle_core::Error::WithBacktrace { inner: Box::new(inner), backtrace })
        }
        candle_core::Error::Context { inner, context } => {
            own(*inner).map_err(|inner| candle_core::Error::Context { inner: Box::new(inner), context })
        }
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_comes_out_of_candle_as_itself() {
        let through = |error: Error| Error::from(candle_core::Error::from(error));
        assert!(matches!(through(Error::Interrupted), Error::Interrupted));
        let shape = || Error::Shape { op: "op", what: "x", got: vec![1, 2], expected: "(2, 1)".into() };
        let candle = candle_core::Error::from(shape()).bt().context("layer 3");
        assert!(matches!(Error::from(candle), Error::Shape { got, .. } if got == [1, 2]));
        assert_eq!(candle_core::Error::from(shape()).to_string(), shape().to_string());
        let other = candle_core::Error::Msg("its own".into()).context("layer 3");
        assert!(matches!(Error::from(other), Error::Candle(candle_core::Error::Context { .. })));
        let io = candle_core::Error::Io(std::io::ErrorKind::NotFound.into());
        assert!(matches!(Error::from(io), Error::Candle(candle_core::Error::Io(_))));
    }

    #[test]
    fn a_chain_of_causes_says_nothing_twice() {
        let errors = [
            Error::io("a.obj")(std::io::ErrorKind::NotFound.into()),
            Error::argument("op", "x", 1, "2"),
            Error::from(candle_core::Error::Io(std::io::ErrorKind::NotFound.into())),
        ];
        for error in errors {
            let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
            assert!(causes.all(|cause| !error.to_string().contains(&cause.to_string())), "{error}");
        }
    }
}
