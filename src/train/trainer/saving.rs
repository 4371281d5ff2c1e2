//! Saves a training to files, and continues from them.

use std::path::{Path, PathBuf};

use candle_core::Var;

use super::Trainer;
use crate::files::{create_folder_of, write_atomically};
use crate::train::checkpoint::{Checkpoint, TrainerState, checkpoints, invalid};
use crate::train::ema::Ema;
use crate::train::objective::{Objective, is_trained};
use crate::train::record::StepRecord;
use crate::{Error, Result};

impl<O: Objective> Trainer<O> {
    /// Every tensor of a checkpoint, with its name there.
    fn tensors(&self) -> Vec<(String, Var)> {
        let named = |prefix: &str, list: &[(String, Var)]| {
            list.iter().map(|(name, var)| (format!("{prefix}/{name}"), var.clone())).collect::<Vec<_>>()
        };
        let mut all = named("network", &self.state);
        all.extend(self.average.iter().flat_map(|average| named("ema", average.variables())));
        let trained = self.state.iter().filter(|(name, _)| is_trained(name));
        for ((name, _), [mean, square]) in trained.zip(&self.optimizer.moments) {
            all.push((format!("mean/{name}"), mean.clone()));
            all.push((format!("square/{name}"), square.clone()));
        }
        all
    }

    /// Writes a checkpoint. In a group every process may call this; rank 0 writes.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; an old file at `path` is then still intact.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let path = std::env::temp_dir().join("wavemesh-trainer-save-example.safetensors");
    /// let mut trainer = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// trainer.step()?;
    /// trainer.save(&path)?;
    /// let mut later = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// later.resume(&path)?;
    /// assert_eq!(later.step_count(), 1);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        if !self.group.is_first() {
            return Ok(());
        }
        let path = path.as_ref();
        let bytes = self.to_bytes()?;
        create_folder_of(path)?;
        write_atomically(path, &bytes)
    }

    /// The content of a checkpoint.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let state = TrainerState {
            updates: self.optimizer.updates,
            ema_updates: self.average.as_ref().map_or(0, Ema::updates),
            best: self.best,
            scaler: self.scaler.clone(),
            objective: self.objective.saved(),
        };
        let tensors = self.tensors().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
        Checkpoint { state, tensors, history: self.history.clone() }.into_bytes()
    }

    /// Continues from a checkpoint: the next steps are those that the saved training would have taken. In a group all processes call this
    /// and rank 0 reads; the number of processes may differ from the one that wrote the checkpoint.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is not a checkpoint, or is one of another version or another network (the error names the first tensor
    /// that does not fit, with both shapes). The trainer is then unchanged.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let path = std::env::temp_dir().join("wavemesh-trainer-resume-example.safetensors");
    /// let mut whole = Trainer::fit(&variables, FitConfig::new().steps(4), loss)?;
    /// whole.step()?;
    /// whole.save(&path)?;
    /// let uninterrupted = [whole.step()?.loss, whole.step()?.loss];
    /// whole.resume(&path)?; // back to the first step
    /// assert_eq!([whole.step()?.loss, whole.step()?.loss], uninterrupted);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.group.broadcast(|| std::fs::read(path).map_err(Error::io(path)))?;
        self.restore(path, &bytes)
    }

    /// Continues from the bytes of a checkpoint.
    pub(super) fn restore(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let Checkpoint { state, mut tensors, history } = Checkpoint::from_bytes(path, bytes)?;
        let mut values = Vec::new();
        for (name, var) in self.tensors() {
            let Some(value) = tensors.remove(&name) else {
                return Err(invalid(path, format!("tensor `{name}` of shape {:?} is missing", var.dims())));
            };
            if value.dims() != var.dims() {
                let (got, expected) = (value.dims(), var.dims());
                return Err(invalid(
                    path,
                    format!("tensor `{name}` has shape {got:?}, this network's has {expected:?}"),
                ));
            }
            let value = value.to_device(var.device())?;
            values.push((var, value));
        }
        self.objective.resume(&state.objective).map_err(|problem| invalid(path, problem))?;
        for (var, value) in values {
            var.set(&value)?;
        }
        self.optimizer.updates = state.updates;
        if let Some(average) = &mut self.average {
            average.set_updates(state.ema_updates);
        }
        if self.scaler.is_some() && state.scaler.is_some() {
            self.scaler = state.scaler;
        }
        self.history = history;
        self.best = state.best;
        Ok(())
    }

    /// Continues from the newest checkpoint in the configured folder; returns false if there is none.
    ///
    /// # Errors
    /// The errors of [`resume`](Self::resume).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let folder = std::env::temp_dir().join("wavemesh-resume-latest-example");
    /// # std::fs::remove_dir_all(&folder).ok();
    /// let config = FitConfig::new().steps(4).checkpoint_every(2).folder(&folder);
    /// let mut trainer = Trainer::fit(&variables, config, loss)?;
    /// assert!(!trainer.resume_latest()?); // there is nothing yet
    /// trainer.run(|_, _| Ok(()))?;
    /// assert!(trainer.resume_latest()?);
    /// assert_eq!(trainer.step_count(), 4);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn resume_latest(&mut self) -> Result<bool> {
        let newest = || {
            let folder = self.plan.folder.as_deref().filter(|folder| self.group.is_first() && folder.is_dir());
            Ok(folder.map(checkpoints).transpose()?.and_then(|mut all| all.pop()))
        };
        let newest: Option<PathBuf> = newest().inspect_err(|error| self.group.fail(error))?;
        if !self.group.any(newest.is_some())? {
            return Ok(false);
        }
        self.resume(newest.unwrap_or_else(|| "the checkpoint of rank 0".into())).map(|()| true)
    }

    /// Writes the checkpoint of this step, and the best one if this step is the best.
    pub(super) fn save_in_folder(&mut self, record: &StepRecord) -> Result<PathBuf> {
        let loss = match record.validation {
            Some(loss) => Some(loss),
            None => self.validate()?,
        };
        let best = loss.is_some_and(|loss| self.best.is_none_or(|best| loss < best));
        if best {
            self.best = loss;
        }
        let path = self.save_numbered(record.step)?;
        if best {
            self.save(path.with_file_name("best.safetensors"))?;
        }
        Ok(path)
    }

    /// Writes a checkpoint named after the number of the step, and removes the oldest.
    pub(super) fn save_numbered(&self, step: usize) -> Result<PathBuf> {
        let folder = self.plan.folder.clone().unwrap_or_default();
        let path = folder.join(format!("step-{step:07}.safetensors"));
        self.save(&path)?;
        if !self.group.is_first() {
            return Ok(path);
        }
        let mut kept = checkpoints(&folder)?;
        while kept.len() > self.plan.keep {
            let oldest = kept.remove(0);
            std::fs::remove_file(&oldest).map_err(Error::io(&oldest))?;
        }
        Ok(path)
    }
}
