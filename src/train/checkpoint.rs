//! Checkpoints of a training: all that the next step depends on, in one safetensors file.
//!
//! Tensors are named `network/…`, `ema/…`, `mean/…` and `square/…` (AdamW's moments), and `history` (a row of `f64` a step, which
//! JSON would round); the rest is JSON in the header.
//! A file is written beside its place and renamed, so a kill leaves the old or the new, never half. `best.safetensors` is
//! the checkpoint with the smallest validation loss.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::files::write_atomically;
use super::trainer::{StepRecord, Trainer};
use crate::diffusion::{DiffusionConfig, LossHistory};
use crate::unet::UNetConfig;
use crate::{Error, Result};

const HEADER: &str = "wavemesh.trainer";
const VERSION: u32 = 2;
const HISTORY: &str = "history";
const FORMAT: &str = "WaveMesh training checkpoint";

/// What of a trainer is not a tensor.
#[derive(Serialize, Deserialize)]
pub(super) struct TrainerState {
    version: u32,
    unet: UNetConfig,
    diffusion: DiffusionConfig,
    pub updates: u64,
    pub ema_updates: u64,
    pub importance: Option<LossHistory>,
    pub best: Option<f64>,
}

impl Trainer {
    /// Every tensor that a checkpoint holds, with its name there.
    fn tensors(&self) -> Vec<(String, Var)> {
        let (network, ema, optimizer, _) = self.parts();
        let named = |prefix: &str, list: &[(String, Var)]| {
            list.iter().map(|(name, var)| (format!("{prefix}/{name}"), var.clone())).collect::<Vec<_>>()
        };
        let mut all = named("network", network.state());
        all.extend(named("ema", ema.network().state()));
        for ((name, _), [mean, square]) in network.parameters().zip(&optimizer.moments) {
            all.push((format!("mean/{name}"), mean.clone()));
            all.push((format!("square/{name}"), square.clone()));
        }
        all
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written; an old file at `path` is then still whole.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (network, ema, optimizer, importance) = self.parts();
        let state = TrainerState {
            version: VERSION,
            unet: network.config().clone(),
            diffusion: self.diffusion().config().clone(),
            updates: optimizer.updates,
            ema_updates: ema.updates(),
            importance: importance.cloned(),
            best: self.best_validation(),
        };
        let state = serde_json::to_string(&state).map_err(candle_core::Error::wrap)?;
        let mut tensors: Vec<(String, Tensor)> =
            self.tensors().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
        if !self.history().is_empty() {
            let rows: Vec<f64> = self.history().iter().flat_map(StepRecord::to_row).collect();
            let shape = (self.history().len(), StepRecord::FIELDS);
            tensors.push((HISTORY.into(), Tensor::from_vec(rows, shape, &Device::Cpu)?));
        }
        let header = HashMap::from([(HEADER.to_string(), state)]);
        let bytes = safetensors::serialize(tensors, Some(header)).map_err(candle_core::Error::wrap)?;
        write_atomically(path.as_ref(), &bytes)
    }

    /// Goes on from a checkpoint: the next steps are those that the saved training would have taken.
    ///
    /// # Errors
    /// [`Error::Format`] when the file is not a checkpoint, of another version or of another network (it names the first
    /// tensor that does not fit, with both shapes); the trainer is then unchanged.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let invalid = |problem: String| Error::Format { path: path.to_path_buf(), format: FORMAT, problem };
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?;
        let Some(state) = metadata.metadata().as_ref().and_then(|entries| entries.get(HEADER)) else {
            return Err(invalid(format!("its header has no `{HEADER}`")));
        };
        let version = serde_json::from_str::<serde_json::Value>(state).ok().and_then(|s| s["version"].as_u64());
        if version != Some(u64::from(VERSION)) {
            let met = version.map_or("no version".into(), |v| format!("version {v}"));
            return Err(invalid(format!("{met}; this program reads version {VERSION}")));
        }
        let state: TrainerState = serde_json::from_str(state).map_err(|error| invalid(error.to_string()))?;
        let mut found = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let rows = found.remove(HISTORY).map(|rows| rows.to_vec2::<f64>()).transpose()?.unwrap_or_default();
        let history = rows.iter().map(|row| StepRecord::from_row(row)).collect::<Option<Vec<_>>>();
        let history = history.ok_or_else(|| invalid(format!("`{HISTORY}` has not {} columns", StepRecord::FIELDS)))?;
        let mut values = Vec::new();
        for (name, var) in self.tensors() {
            let Some(value) = found.remove(&name) else {
                return Err(invalid(format!("tensor `{name}` of shape {:?} is missing", var.dims())));
            };
            if value.dims() != var.dims() {
                let (got, expected) = (value.dims(), var.dims());
                return Err(invalid(format!("tensor `{name}` has shape {got:?}, this network's has {expected:?}")));
            }
            values.push((var, value));
        }
        if state.diffusion != *self.diffusion().config() {
            return Err(invalid(format!(
                "it was trained with {:?}, this trainer has {:?}",
                state.diffusion,
                self.diffusion().config()
            )));
        }
        for (var, value) in values {
            var.set(&value)?;
        }
        self.restore(state, history);
        Ok(())
    }

    /// Writes the checkpoint of this step, and the best one if it is that.
    pub(super) fn save_in_folder(&mut self, record: &StepRecord) -> Result<PathBuf> {
        let loss = match record.validation {
            Some(loss) => Some(loss),
            None => self.validate()?,
        };
        let best = loss.is_some_and(|loss| self.note_best(loss));
        let path = self.save_numbered(record.step)?;
        if best {
            self.save(path.with_file_name("best.safetensors"))?;
        }
        Ok(path)
    }

    /// Writes a checkpoint under the number of the step and drops the oldest.
    pub(super) fn save_numbered(&self, step: usize) -> Result<PathBuf> {
        let folder = self.config().folder.clone().unwrap_or_default();
        let path = folder.join(format!("step-{step:07}.safetensors"));
        self.save(&path)?;
        let mut kept = checkpoints(&folder)?;
        while kept.len() > self.config().keep {
            let oldest = kept.remove(0);
            std::fs::remove_file(&oldest).map_err(Error::io(&oldest))?;
        }
        Ok(path)
    }
}

/// The numbered checkpoints of a folder, oldest first.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be read.
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
