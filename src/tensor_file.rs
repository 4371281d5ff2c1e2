//! This library's own safetensors files: tensors, and one text in the header that describes them.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use safetensors::SafeTensors;

use crate::files::{create_folder_of, write_atomically};
use crate::{Error, Result};

/// Writes tensors, and `text` as the entry `key`. The folder is created if it does not exist.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; an older file is then still intact.
pub(crate) fn write(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    text: (&str, String),
) -> Result<()> {
    let bytes = to_bytes(tensors, text)?;
    create_folder_of(path)?;
    write_atomically(path, &bytes)
}

/// The content of such a file.
///
/// # Errors
/// An error of candle if it cannot copy a tensor.
pub(crate) fn to_bytes(
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    (key, text): (&str, String),
) -> Result<Vec<u8>> {
    let header = HashMap::from([(key.to_string(), text)]);
    Ok(safetensors::serialize(tensors, Some(header)).map_err(candle_core::Error::wrap)?)
}

/// The bytes of a file, and the text of its entry `key`; `None` for a safetensors file without that entry.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is not a safetensors file.
pub(crate) fn read(path: &Path, format: &'static str, key: &str) -> Result<(Vec<u8>, Option<String>)> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = text_of(&bytes, path, format, key)?;
    Ok((bytes, text))
}

/// The text of the entry `key` in a file's bytes; `None` if there is none.
///
/// # Errors
/// [`Error::Format`] if the bytes are not those of a safetensors file.
pub(crate) fn text_of(bytes: &[u8], path: &Path, format: &'static str, key: &str) -> Result<Option<String>> {
    let invalid = |error: safetensors::SafeTensorError| Error::Format {
        path: path.to_path_buf(),
        format,
        problem: error.to_string(),
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    Ok(header.metadata().as_ref().and_then(|entries| entries.get(key)).cloned())
}
