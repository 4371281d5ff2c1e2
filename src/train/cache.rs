//! Encoded shapes on disk. The key of each depends on its content and on how it was encoded.
//!
//! An entry is a safetensors file with the coefficients, their layout, and a SHA-256 of both. An entry that is truncated, changed or of
//! another version is detected and made again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::files::{create_folder_of, write_atomically};
use crate::wavelet::{SparseWavelet, WaveletLayout};
use crate::{Error, Result};

/// Part of every key. Change the number when the content of an entry changes its meaning.
const VERSION: &str = "wavemesh shape 2";

/// A folder of encoded shapes.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// The path of the entry for this content, encoded with this configuration.
    pub fn path(&self, content: &[u8], config: &str) -> PathBuf {
        let mut hash = Sha256::new();
        for part in [VERSION.as_bytes(), content, config.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        self.folder.join(format!("{}.safetensors", hex(&hash.finalize())))
    }

    /// The entry, or `None` if there is none or it is damaged.
    pub fn read(path: &Path) -> Option<SparseWavelet> {
        let bytes = std::fs::read(path).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let header = header.metadata().as_ref()?;
        let layout = header.get("layout")?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).ok()?;
        let rows: Vec<i64> = tensors.get("indices")?.flatten_all().ok()?.to_vec1().ok()?;
        let values: Vec<f32> = tensors.get("values")?.to_vec1().ok()?;
        let indices: Vec<[i32; 4]> =
            rows.chunks_exact(4).map(|row| [row[0] as i32, row[1] as i32, row[2] as i32, row[3] as i32]).collect();
        if header.get("sha256")? != &digest(layout, &indices, &values) {
            return None;
        }
        let layout: WaveletLayout = serde_json::from_str(layout).ok()?;
        SparseWavelet::new(layout, indices, values).ok()
    }

    pub fn write(path: &Path, shape: &SparseWavelet) -> Result<()> {
        let wrap = |error: serde_json::Error| Error::Candle(candle_core::Error::wrap(error));
        let layout = serde_json::to_string(shape.layout()).map_err(wrap)?;
        let sha256 = digest(&layout, shape.indices(), shape.values());
        let rows: Vec<i64> = shape.indices().iter().flatten().map(|&i| i64::from(i)).collect();
        let tensors = [
            ("indices", Tensor::from_vec(rows, (shape.len(), 4), &Device::Cpu)?),
            ("values", Tensor::from_slice(shape.values(), shape.len(), &Device::Cpu)?),
        ];
        let header = HashMap::from([("layout".to_string(), layout), ("sha256".to_string(), sha256)]);
        let bytes = safetensors::serialize(tensors, Some(header)).map_err(candle_core::Error::wrap)?;
        create_folder_of(path)?;
        write_atomically(path, &bytes)
    }
}

fn digest(layout: &str, indices: &[[i32; 4]], values: &[f32]) -> String {
    let mut hash = Sha256::new();
    hash.update(layout);
    indices.iter().flatten().for_each(|i| hash.update(i.to_le_bytes()));
    values.iter().for_each(|v| hash.update(v.to_le_bytes()));
    hex(&hash.finalize())
}

/// The bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
