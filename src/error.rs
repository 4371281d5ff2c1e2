//! The crate's one error type.
//!
//! A variant carries what was found and what was expected, so that the message alone locates the fault and says what to do.

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
        /// The operating system's error.
        error: std::io::Error,
    },

    /// A file was read, but its content breaks its format.
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
        /// The kind of thing that has such names.
        kind: &'static str,
        /// The given name.
        name: String,
        /// The existing names.
        known: String,
    },

    /// A tensor's shape does not fit the operation.
    #[error("{op}: the shape of {what} is {got:?}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The tensor's name in the operation.
        what: &'static str,
        /// The shape that was found.
        got: Vec<usize>,
        /// The shapes that are allowed.
        expected: String,
    },

    /// A tensor's element type does not fit the operation.
    #[error("{op}: the dtype of {what} is {got:?}, expected {expected}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The tensor's name in the operation.
        what: &'static str,
        /// The type that was found.
        got: candle_core::DType,
        /// The types that are allowed.
        expected: &'static str,
    },

    /// An argument is outside its range, or contradicts another.
    #[error("{op}: {name} is {got}, expected {expected}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The name of the argument.
        name: &'static str,
        /// The value that was found.
        got: String,
        /// The values that are allowed.
        expected: String,
    },

    /// A sparse layer found an `indice_key` that an incompatible layer made.
    #[error("{layer}: indice_key `{key}` was made by {made_by}: {problem}")]
    IndiceKey {
        /// The layer that found it.
        layer: String,
        /// The key.
        key: String,
        /// The layer that made the map of the key, with its geometry.
        made_by: String,
        /// What does not fit.
        problem: String,
    },

    /// The requested backend cannot run here.
    #[error("backend `{backend}` is not available: {needs}")]
    Backend {
        /// The backend's name.
        backend: &'static str,
        /// What it needs, or what is wrong.
        needs: String,
    },

    /// An operation needs more memory than there is. Nothing was allocated.
    #[error(
        "{op}: {what} needs {:.1} GB of memory, {}", *needed as f64 / 1e9,
        .available.map_or("which the system does not grant".into(), |n| format!("{:.1} GB are available", n as f64 / 1e9))
    )]
    Memory {
        /// The operation.
        op: &'static str,
        /// What the operation would allocate.
        what: String,
        /// The peak memory of the operation, in bytes.
        needed: u64,
        /// The available bytes, if the system reports fewer than needed.
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
        /// The requested bytes, if known.
        asked: Option<u64>,
        /// Bytes that nothing uses.
        free: u64,
        /// Bytes in total.
        total: u64,
    },

    /// A GPU or its driver refused an operation.
    #[error("{op}: the GPU's driver says: {problem}")]
    Gpu {
        /// The operation.
        op: &'static str,
        /// The driver's message.
        problem: String,
    },

    /// Two tensors of one operation are on different devices.
    #[error("{op}: the device of {what} is {}, that of {other} is {}; use `to_device`", place(got), place(expected))]
    Device {
        /// The operation.
        op: &'static str,
        /// The tensor that is on another device.
        what: &'static str,
        /// Its device.
        got: candle_core::DeviceLocation,
        /// The tensor whose device it should be on.
        other: &'static str,
        /// The device of that tensor.
        expected: candle_core::DeviceLocation,
    },

    /// A stop was requested (by the notebook's stop button or Ctrl-C), and the running loop obeyed it. Everything finished before the stop
    /// is kept.
    #[error("interrupted")]
    Interrupted,

    /// A training found a value that is not finite, and stopped before using it.
    #[error(
        "the {what} of step {step} is not finite; the network is as it was before the step{}; a smaller learning rate or \
         gradient norm usually helps",
        .checkpoint.as_ref().map(|path| format!(", and the last checkpoint is {}", path.display())).unwrap_or_default()
    )]
    Diverged {
        /// Which value is not finite: the loss, or the gradient.
        what: &'static str,
        /// The step, counted from 1.
        step: usize,
        /// The last checkpoint, if the training wrote one.
        checkpoint: Option<PathBuf>,
    },

    /// A group of processes failed, or did not come together. Every process of it gets this error.
    #[error("the group of processes ended: {}{problem}", .rank.map(|rank| format!("rank {rank}: ")).unwrap_or_default())]
    Group {
        /// The rank of the process that caused it, if it was one process.
        rank: Option<usize>,
        /// What is wrong with it.
        problem: String,
    },

    /// An error of candle, passed on.
    #[error(transparent)]
    Candle(candle_core::Error),
}

impl Error {
    /// Adds the path that was being read or written to an I/O error.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |error| Self::Io { path, error }
    }

    /// An error for a wrong argument: `name` of `op` is `got`, and `expected` says which values are allowed.
    ///
    /// ```
    /// let error = wavemesh::Error::argument("Picture::resize", "width", 0, "1 to 8192");
    /// assert_eq!(error.to_string(), "Picture::resize: width is 0, expected 1 to 8192");
    /// ```
    pub fn argument(op: &'static str, name: &'static str, got: impl Display, expected: impl Into<String>) -> Self {
        Self::Argument { op, name, got: got.to_string(), expected: expected.into() }
    }
}

/// The device as people write it: `cpu` or `cuda:0`.
pub(crate) fn place(location: &candle_core::DeviceLocation) -> String {
    match location {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// For a relative path that does not exist: where it was looked for, since most often the working folder is not the expected one.
fn where_looked(path: &Path, error: &std::io::Error) -> String {
    match std::env::current_dir() {
        Ok(folder) if path.is_relative() && error.kind() == std::io::ErrorKind::NotFound => {
            format!("; it was looked for in {}", folder.display())
        }
        _ => String::new(),
    }
}

/// Carries an error of this crate through candle, whose layers and operations return candle's errors, and back unchanged.
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

/// This crate's error inside candle's error, or candle's error unchanged.
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
