//! Checkpoints of a training: one safetensors file holds everything on which the next step depends.
//!
//! Tensors are named `network/…`, `ema/…`, `mean/…` and `square/…` (AdamW's moments), and `history` (a row of `f64` a step, which
//! JSON would round); the rest is JSON in the header.
//! A file is written beside its place and renamed, so a kill leaves the old or the new, never half. `best.safetensors` is
//! the checkpoint with the smallest validation loss.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grad_scaler::GradScaler;
use super::record::StepRecord;
use crate::{Error, Result, tensor_file};

const HEADER: &str = "wavemesh.trainer";
const VERSION: u32 = 2;
const HISTORY: &str = "history";
const FORMAT: &str = "WaveMesh training checkpoint";

/// The part of a trainer's state that is not a tensor.
#[derive(Serialize, Deserialize)]
pub(super) struct TrainerState {
    pub updates: u64,
    pub ema_updates: u64,
    pub best: Option<f64>,
    #[serde(default)]
    pub scaler: Option<GradScaler>,
    /// The state of the objective.
    #[serde(flatten)]
    pub objective: Map<String, Value>,
}

/// The JSON of the header.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    #[serde(flatten)]
    state: TrainerState,
}

/// Everything on which the next step depends.
pub(super) struct Checkpoint {
    pub state: TrainerState,
    pub tensors: HashMap<String, Tensor>,
    pub history: Vec<StepRecord>,
}

impl Checkpoint {
    /// The content of its file.
    pub fn into_bytes(self) -> Result<Vec<u8>> {
        let Self { state, mut tensors, history } = self;
        let header = serde_json::to_string(&Header { version: VERSION, state }).map_err(candle_core::Error::wrap)?;
        if !history.is_empty() {
            let rows: Vec<f64> = history.iter().flat_map(StepRecord::to_row).collect();
            let shape = (history.len(), StepRecord::FIELDS);
            tensors.insert(HISTORY.into(), Tensor::from_vec(rows, shape, &Device::Cpu)?);
        }
        tensor_file::to_bytes(tensors, (HEADER, header))
    }

    /// Reads the bytes of a file; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let invalid = |problem: String| invalid(path, problem);
        let header = tensor_file::text_of(bytes, path, FORMAT, HEADER)?;
        let header = &header.ok_or_else(|| invalid(format!("its header has no `{HEADER}`")))?;
        let version = serde_json::from_str::<Value>(header).ok().and_then(|s| s["version"].as_u64());
        if version != Some(u64::from(VERSION)) {
            let met = version.map_or("no version".into(), |v| format!("version {v}"));
            return Err(invalid(format!("{met}; this program reads version {VERSION}")));
        }
        let Header { state, .. } = serde_json::from_str(header).map_err(|error| invalid(error.to_string()))?;
        let mut tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        let rows = tensors.remove(HISTORY).map(|rows| rows.to_vec2::<f64>()).transpose()?.unwrap_or_default();
        let history = rows.iter().map(|row| StepRecord::from_row(row)).collect::<Option<Vec<_>>>();
        let history =
            history.ok_or_else(|| invalid(format!("`{HISTORY}` does not have {} columns", StepRecord::FIELDS)))?;
        Ok(Self { state, tensors, history })
    }
}

/// The error for a file that is not a checkpoint, or not one of this training.
pub(super) fn invalid(path: &Path, problem: String) -> Error {
    Error::Format { path: path.to_path_buf(), format: FORMAT, problem }
}

/// The numbered checkpoints of a folder, oldest first.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::train::{FitConfig, checkpoints};
/// # let variables = VarMap::new();
/// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
/// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
/// let folder = std::env::temp_dir().join("wavemesh-checkpoints-example");
/// # std::fs::remove_dir_all(&folder).ok();
/// let config = FitConfig::new().steps(4).checkpoint_every(2).folder(&folder);
/// Trainer::fit(&variables, config, loss)?.run(|_, _| Ok(()))?;
/// let names = |paths: Vec<std::path::PathBuf>| paths.iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>();
/// assert_eq!(names(checkpoints(&folder)?), ["step-0000002.safetensors", "step-0000004.safetensors"]);
/// # std::fs::remove_dir_all(&folder).ok();
/// # Ok::<(), Error>(())
/// ```
pub fn checkpoints(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("step-") && name.ends_with(".safetensors") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
