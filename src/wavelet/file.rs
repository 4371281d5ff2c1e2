//! [`SparseWavelet`] in files: exact in safetensors or npz, or [compressed](SparseWavelet::compress) in wmz, with everything
//! that decoding needs.
//!
//! Exact files hold `indices` (n, 4) as x, y, z, band, and `values` (n). The layout is JSON: the metadata entry `layout` of a safetensors
//! file, or the bytes of the array `layout` in an npz file.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, npy::NpzTensors};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::compress::EXTENSION;
use super::layout::WaveletLayout;
use super::sparse::SparseWavelet;
use crate::files::{replace, write_atomically};
use crate::{Error, Result};

enum Container {
    Safetensors,
    Npz,
    Compressed,
}

fn container(path: &Path) -> Result<Container> {
    match path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).as_deref() {
        Some("safetensors") => Ok(Container::Safetensors),
        Some("npz") => Ok(Container::Npz),
        Some(EXTENSION) => Ok(Container::Compressed),
        _ => {
            let name = path.display().to_string();
            let known = format!("safetensors, npz, and {EXTENSION} for compressed ones");
            Err(Error::Unknown { kind: "extension for wavelet coefficients", name, known })
        }
    }
}

impl SparseWavelet {
    /// Writes the exact coefficients and their layout to a `.safetensors` or `.npz` file, which is written completely or not at all.
    /// [`save_compressed`](Self::save_compressed) writes far smaller files.
    ///
    /// # Errors
    /// [`Error::Unknown`] for another extension, [`Error::Io`] if the file cannot be written.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-coefficients-example.safetensors");
    /// let grid = shapes::sphere(0.5).to_grid(16)?;
    /// let coeffs = grid.encode(&WaveletConfig::fitting(grid.shape()))?;
    /// coeffs.save(&path)?;
    /// assert_eq!(SparseWavelet::load(&path)?.values(), coeffs.values());
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |problem: String| Error::io(path)(std::io::Error::other(problem));
        let layout = serde_json::to_string(self.layout()).map_err(|e| failed(e.to_string()))?;
        match container(path)? {
            Container::Safetensors => {
                let indices: Vec<u8> = self.indices().as_flattened().iter().flat_map(|v| v.to_le_bytes()).collect();
                let values: Vec<u8> = self.values().iter().flat_map(|v| v.to_le_bytes()).collect();
                let view = |dtype, shape, data| TensorView::new(dtype, shape, data).map_err(|e| failed(e.to_string()));
                let tensors = [
                    ("indices", view(Dtype::I32, vec![self.len(), 4], &indices)?),
                    ("values", view(Dtype::F32, vec![self.len()], &values)?),
                ];
                let metadata = HashMap::from([("layout".to_string(), layout)]);
                let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| failed(e.to_string()))?;
                write_atomically(path, &bytes)
            }
            Container::Npz => {
                let indices: Vec<i64> = self.indices().as_flattened().iter().map(|&v| v.into()).collect();
                let tensors = [
                    ("indices", Tensor::from_vec(indices, (self.len(), 4), &Device::Cpu)?),
                    ("values", Tensor::from_slice(self.values(), self.len(), &Device::Cpu)?),
                    ("layout", Tensor::from_slice(layout.as_bytes(), layout.len(), &Device::Cpu)?),
                ];
                replace(path, |temporary| Ok(Tensor::write_npz(&tensors, temporary)?))
            }
            Container::Compressed => Err(Error::Unknown {
                kind: "extension for coefficients as they are",
                name: path.display().to_string(),
                known: "safetensors, npz; SparseWavelet::save_compressed writes a wmz file, with a bound on the error"
                    .into(),
            }),
        }
    }

    /// Reads a file that [`save`](Self::save) or [`save_compressed`](Self::save_compressed) wrote.
    ///
    /// # Errors
    /// [`Error::Unknown`] for another extension, [`Error::Io`] if the file cannot be read, [`Error::Format`] if it does not hold
    /// coefficients that fit its layout.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-coefficients-load-example.npz");
    /// let coefficients = shapes::sphere(0.5).to_grid(16)?.encode(&WaveletConfig::new().level(2))?;
    /// coefficients.save(&path)?;
    /// assert_eq!(SparseWavelet::load(&path)?, coefficients);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (format, parts) = match container(path)? {
            Container::Safetensors => {
                let bytes = std::fs::read(path).map_err(Error::io(path))?;
                ("safetensors", from_safetensors(&bytes))
            }
            Container::Npz => {
                let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
                ("npz", from_npz(path, size))
            }
            Container::Compressed => {
                let bytes = std::fs::read(path).map_err(Error::io(path))?;
                return Self::decompress(&bytes).map_err(|error| match error {
                    Error::Argument { got, .. } => {
                        Error::Format { path: path.to_path_buf(), format: "compressed wavelet (wmz)", problem: got }
                    }
                    other => other,
                });
            }
        };
        parts
            .and_then(|(layout, indices, values)| {
                let layout: WaveletLayout = serde_json::from_str(&layout).map_err(|e| format!("its layout: {e}"))?;
                Self::new(layout, indices, values).map_err(|e| e.to_string())
            })
            .map_err(|problem| Error::Format { path: path.to_path_buf(), format, problem })
    }
}

type Parts = (String, Vec<[i32; 4]>, Vec<f32>);

fn from_safetensors(bytes: &[u8]) -> Result<Parts, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let layout =
        metadata.metadata().as_ref().and_then(|m| m.get("layout")).ok_or("it has no metadata entry `layout`")?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let indices = tensors.tensor("indices").map_err(|e| e.to_string())?;
    let values = tensors.tensor("values").map_err(|e| e.to_string())?;
    let four = matches!(indices.shape(), [_, 4]);
    if indices.dtype() != Dtype::I32 || !four || values.dtype() != Dtype::F32 || values.shape().len() != 1 {
        return Err(format!(
            "expected `indices` as I32 (n, 4) and `values` as F32 (n), found {:?} {:?} and {:?} {:?}",
            indices.dtype(),
            indices.shape(),
            values.dtype(),
            values.shape()
        ));
    }
    let word = |b: &[u8]| [b[0], b[1], b[2], b[3]];
    let row = |row: &[u8]| std::array::from_fn(|i| i32::from_le_bytes(word(&row[4 * i..])));
    let indices = indices.data().chunks_exact(16).map(row).collect();
    Ok((layout.clone(), indices, values.data().chunks_exact(4).map(|b| f32::from_le_bytes(word(b))).collect()))
}

fn from_npz(path: &Path, size: u64) -> Result<Parts, String> {
    // Deflate expands a byte to at most this many; a larger announced shape would only exhaust memory.
    const MOST_EXPANSION: u64 = 1032;
    let file = NpzTensors::new(path).map_err(|e| e.to_string())?;
    let array = |name: &str, dtype: DType| -> Result<Tensor, String> {
        if !file.names().iter().any(|n| *n == name) {
            return Err(format!("it has no array `{name}`"));
        }
        let (shape, found) = file.get_shape_and_dtype(name).map_err(|e| e.to_string())?;
        let bytes = shape.dims().iter().try_fold(8u64, |bytes, &n| bytes.checked_mul(n as u64));
        if found != dtype || bytes.is_none_or(|bytes| bytes > size.saturating_mul(MOST_EXPANSION)) {
            return Err(format!(
                "`{name}` is announced as {found:?} {shape:?}, expected {dtype:?} values that fit in the file"
            ));
        }
        file.get(name).map_err(|e| e.to_string())?.ok_or_else(|| format!("it has no array `{name}`"))
    };
    let layout = array("layout", DType::U8)?.to_vec1().map_err(|e| e.to_string())?;
    let layout = String::from_utf8(layout).map_err(|e| format!("its layout: {e}"))?;
    let rows = array("indices", DType::I64)?.to_vec2::<i64>().map_err(|e| e.to_string())?;
    let narrow = |row: &Vec<i64>| {
        let row: Option<Vec<i32>> = row.iter().map(|&v| i32::try_from(v).ok()).collect();
        row.and_then(|row| <[i32; 4]>::try_from(row).ok()).ok_or("`indices` are not rows of four 32-bit numbers")
    };
    let indices = rows.iter().map(narrow).collect::<Result<_, _>>()?;
    let values = array("values", DType::F32)?.to_vec1().map_err(|e| e.to_string())?;
    Ok((layout, indices, values))
}
