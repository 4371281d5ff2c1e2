//! Buffers outside the document.

use std::path::{Component, Path, PathBuf};

/// A buffer given as a `data:` URI or as a file beside the glTF.
pub(super) fn external(uri: &str, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    use base64::Engine;
    if let Some(data) = uri.strip_prefix("data:") {
        let (kind, encoded) = data.split_once(',').ok_or("a data URI has no data")?;
        if !kind.ends_with(";base64") {
            return Ok(percent_decoded(encoded));
        }
        return base64::engine::general_purpose::STANDARD
            .decode(encoded.trim())
            .map_err(|e| format!("a data URI: {e}"));
    }
    let folder = folder.ok_or_else(|| format!("its buffer `{uri}` is another file; load it by its path"))?;
    // URIs write a space as %20; some writers leave names as they are.
    let names = [String::from_utf8(percent_decoded(uri)).unwrap_or_default(), uri.to_string()];
    let mut error = None;
    for name in names {
        // Only names inside the file's own folder are allowed: a mesh must not make us read anything else.
        let mut parts: Vec<Component> = Path::new(&name).components().collect();
        parts.retain(|part| *part != Component::CurDir);
        if name.contains("://") || parts.is_empty() || !parts.iter().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("its buffer `{uri}` does not lie beside it"));
        }
        match std::fs::read(folder.join(parts.iter().collect::<PathBuf>())) {
            Ok(bytes) => return Ok(bytes),
            Err(e) => error = error.or(Some(e)),
        }
    }
    Err(error.map_or_else(String::new, |e| format!("its buffer `{uri}`: {e}")))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((16 * high + low) as u8);
                bytes = ahead;
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}
