//! [`Trainer`]: the loop that trains a model by its loss.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Tensor, Var};

use super::checkpoint::{Checkpoint, TrainerState, checkpoints, invalid};
use super::clock::processor_seconds;
use super::denoising::Denoising;
use super::ema::Ema;
use super::fit_config::FitConfig;
use super::grad_scaler::GradScaler;
use super::in_place::norm;
use super::log::Log;
use super::objective::{Objective, is_trained};
use super::optimizer::AdamW;
use super::record::StepRecord;
use crate::task::Task;
use crate::{Error, Result};

/// A model in training. What it is and what its loss is, the [`Objective`] says: by default a network that learns to denoise
/// (`Trainer::new`), any network by a closure ([`Trainer::fit`]), or a type of one's own ([`Trainer::with_objective`]).
///
/// It takes AdamW steps at the rates of a course, with accumulated and clipped gradients, keeps a moving average, scales the loss, validates,
/// stops early, writes a log and checkpoints, and goes on from these bit for bit: what [`FitConfig`] says.
pub struct Trainer<O = Denoising> {
    objective: O,
    plan: FitConfig,
    state: Vec<(String, Var)>,
    average: Option<Ema>,
    /// Whether the objective has the averaged variables itself.
    average_is_there: bool,
    optimizer: AdamW,
    scaler: Option<GradScaler>,
    history: Vec<StepRecord>,
    best: Option<f64>,
    last_checkpoint: Option<PathBuf>,
}

impl<O: Objective> Trainer<O> {
    /// Starts a training.
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration out of range or an objective without variables to train.
    ///
    /// ```
    /// use wavemesh::candle_core::Var;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{FitConfig, LearningRate, Objective};
    /// /// One number that is to become 3.
    /// struct Three(Var);
    /// impl Objective for Three {
    ///     fn state(&self) -> Vec<(String, Var)> {
    ///         vec![("number".into(), self.0.clone())]
    ///     }
    ///     fn loss(&mut self, _part: usize) -> wavemesh::Result<Tensor> {
    ///         Ok((self.0.as_tensor() - 3.0)?.sqr()?)
    ///     }
    /// }
    /// let config = FitConfig::new().steps(200).learning_rate(LearningRate::Constant(0.1));
    /// let mut trainer = Trainer::with_objective(Three(Var::new(0f32, &Device::Cpu)?), config)?;
    /// trainer.run(|_, _| Ok(()))?;
    /// assert!((trainer.objective().0.to_scalar::<f32>()? - 3.0).abs() < 0.05);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_objective(objective: O, config: FitConfig) -> Result<Self> {
        config.validate()?;
        let state = objective.state();
        let vars = state.iter().filter(|(name, _)| is_trained(name)).map(|(_, var)| var.clone()).collect();
        let averaged = objective.averaged();
        let average_is_there = averaged.is_some();
        let average = match (config.ema_decay, averaged) {
            (None, _) => None,
            (Some(decay), Some(averaged)) => Some(Ema::into_variables(&state, averaged, decay)?),
            (Some(decay), None) => Some(Ema::new(&state, decay)?),
        };
        Ok(Self {
            optimizer: AdamW::new(config.adamw, vars)?,
            scaler: config.loss_scale.map(GradScaler::new).transpose()?,
            objective,
            plan: config,
            state,
            average,
            average_is_there,
            history: Vec::new(),
            best: None,
            last_checkpoint: None,
        })
    }

    /// What is trained.
    pub fn objective(&self) -> &O {
        &self.objective
    }

    pub(super) fn objective_mut(&mut self) -> &mut O {
        &mut self.objective
    }

    /// What was trained, by value.
    pub fn into_objective(self) -> O {
        self.objective
    }

    /// How it is trained.
    pub fn plan(&self) -> &FitConfig {
        &self.plan
    }

    /// Steps taken so far.
    pub fn step_count(&self) -> usize {
        self.history.last().map_or(0, |record| record.step)
    }

    /// Every step so far.
    pub fn history(&self) -> &[StepRecord] {
        &self.history
    }

    /// The smallest validation loss so far.
    pub fn best_validation(&self) -> Option<f64> {
        self.best
    }

    /// The moving average of all variables, if there is one. [`Ema::apply`] runs the model with it.
    pub fn average(&self) -> Option<&Ema> {
        self.average.as_ref()
    }

    /// The number of numbers that are trained.
    pub fn num_parameters(&self) -> usize {
        self.state.iter().filter(|(name, _)| is_trained(name)).map(|(_, var)| var.elem_count()).sum()
    }

    /// Trains up to the configured number of steps. `watch` sees every step; when it fails, or a stop is requested, training
    /// ends between two steps and everything is kept: call `run` again to go on. A stop also writes a checkpoint, so that
    /// another process can go on from this very step.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a stop, or when `watch` returns it; [`Error::Diverged`] when a loss is not finite; whatever `watch` returns.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let mut trainer = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// let mut steps = Vec::new();
    /// trainer.run(|_, record| Ok(steps.push(record.step)))?;
    /// assert_eq!(steps, [1, 2, 3, 4, 5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run(&mut self, mut watch: impl FnMut(&Self, &StepRecord) -> Result<()>) -> Result<()> {
        self.run_until(|trainer, record| watch(trainer, record).map(ControlFlow::Continue))
    }

    /// Like [`run`](Self::run); `watch` may also end the training early, with [`ControlFlow::Break`].
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let mut trainer = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// let enough = |_: &Trainer<_>, record: &wavemesh::train::StepRecord| {
    ///     Ok(if record.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    /// };
    /// trainer.run_until(enough)?;
    /// assert_eq!(trainer.step_count(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run_until(&mut self, mut watch: impl FnMut(&Self, &StepRecord) -> Result<ControlFlow<()>>) -> Result<()> {
        let mut log = self.plan.folder.as_deref().map(|folder| Log::open(folder, &self.history)).transpose()?;
        let left = self.plan.steps.saturating_sub(self.step_count());
        let task = Task::new("training", left);
        while self.step_count() < self.plan.steps && !self.is_stale() {
            let record = self.step()?;
            if let Some(log) = &mut log {
                log.append(&record)?;
            }
            let (step, every) = (record.step, self.plan.checkpoint_every);
            let due = step == self.plan.steps || (every > 0 && step % every == 0) || self.is_stale();
            if due && self.plan.folder.is_some() {
                self.last_checkpoint = Some(self.save_in_folder(&record)?);
            }
            let going_on = watch(self, &record).and_then(|flow| {
                task.advance(1)?;
                Ok(flow)
            });
            if matches!(going_on, Err(Error::Interrupted)) && !due && self.plan.folder.is_some() {
                self.last_checkpoint = Some(self.save_numbered(step)?);
            }
            if going_on?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether as many validations as the configuration has patience for found no smaller loss.
    fn is_stale(&self) -> bool {
        let Some(patience) = self.plan.patience else { return false };
        let losses: Vec<f64> = self.history.iter().filter_map(|record| record.validation).collect();
        let best = losses.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
        best.is_some_and(|(at, _)| losses.len() - 1 - at >= patience)
    }

    /// Takes one step. After an error the variables and the optimiser are as they were before it.
    ///
    /// With a scaled loss, a step whose gradient overflows changes nothing but the scale; its `grad_norm` is not finite.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the loss or gradient is not finite.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{FitConfig, LearningRate};
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let config = FitConfig::new().steps(5).learning_rate(LearningRate::Constant(0.1));
    /// let mut trainer = Trainer::fit(&variables, config, loss)?; // of (w − 3)², from w = 0
    /// let record = trainer.step()?;
    /// assert_eq!((record.step, record.loss, record.grad_norm), (1, 9.0, 6.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn step(&mut self) -> Result<StepRecord> {
        let (started, processor) = (Instant::now(), processor_seconds());
        let done = self.step_count();
        let parts = self.plan.accumulation;
        let mut sum: Vec<Tensor> = Vec::new();
        let mut loss_sum = 0f64;
        for part in 0..parts {
            let loss = self.objective.loss(done * parts + part)?;
            loss_sum += loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            let loss = self.scaler.as_ref().map_or_else(|| Ok(loss.clone()), |scaler| scaler.scale(&loss))?;
            let grads = self.optimizer.gradients(&loss.backward()?)?;
            if sum.is_empty() {
                sum = grads;
            } else {
                sum = sum.iter().zip(&grads).map(|(a, b)| Ok((a + b)?)).collect::<Result<_>>()?;
            }
        }
        let scale = self.scaler.as_ref().map_or(1.0, GradScaler::get);
        let parts = parts as f64 * scale;
        let loss = loss_sum * scale / parts;
        let grad_norm = norm(&sum)? / parts;
        // Below a scale of 1 it is not the scale that makes gradients overflow.
        let skipped = self.scaler.is_some() && scale > 1.0 && !grad_norm.is_finite();
        if !loss.is_finite() || !(grad_norm.is_finite() || skipped) {
            let what = if loss.is_finite() { "gradient" } else { "loss" };
            let kept = self.last_checkpoint.clone();
            return Err(Error::Diverged { what, step: done + 1, checkpoint: kept });
        }
        let learning_rate = self.plan.learning_rate.at(done);
        if !skipped {
            let clipped = self.plan.clip_norm.map_or(1.0, |most| (most / grad_norm).min(1.0));
            self.optimizer.step(&sum, learning_rate, clipped / parts)?;
            self.average.as_mut().map_or(Ok(()), Ema::update)?;
        }
        if let Some(scaler) = &mut self.scaler {
            scaler.update(grad_norm);
        }
        let step = done + 1;
        let validates = self.plan.validate_every > 0 && step.is_multiple_of(self.plan.validate_every);
        let validation = if validates { self.validate()? } else { None };
        let seconds = started.elapsed().as_secs_f64();
        let processor_seconds = processor.zip(processor_seconds()).map(|(before, after)| after - before);
        let record = StepRecord { step, loss, grad_norm, learning_rate, validation, seconds, processor_seconds };
        self.history.push(record.clone());
        Ok(record)
    }

    /// The loss on the validation samples, with the averaged variables if there is an average; `None` without samples.
    ///
    /// # Errors
    /// Whatever the objective returns.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let trainer = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// assert_eq!(trainer.validate()?, None);
    /// assert_eq!(trainer.validated_by(|| Ok(0.25)).validate()?, Some(0.25));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn validate(&self) -> Result<Option<f64>> {
        match &self.average {
            Some(average) if !self.average_is_there => average.apply(|| self.objective.validate())?,
            _ => self.objective.validate(),
        }
    }

    /// Every tensor that a checkpoint holds, with its name there.
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

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written; an old file at `path` is then still whole.
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
        let state = TrainerState {
            updates: self.optimizer.updates,
            ema_updates: self.average.as_ref().map_or(0, Ema::updates),
            best: self.best,
            scaler: self.scaler.clone(),
            objective: self.objective.saved(),
        };
        let tensors = self.tensors().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
        Checkpoint { state, tensors, history: self.history.clone() }.write(path.as_ref())
    }

    /// Goes on from a checkpoint: the next steps are those that the saved training would have taken.
    ///
    /// # Errors
    /// [`Error::Format`] when the file is not a checkpoint, of another version or of another network (it names the first
    /// tensor that does not fit, with both shapes); the trainer is then unchanged.
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
        let Checkpoint { state, mut tensors, history } = Checkpoint::read(path)?;
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

    /// Goes on from the newest checkpoint in the configuration's folder; false if there is none.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
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
        let Some(folder) = self.plan.folder.as_deref().filter(|folder| folder.is_dir()) else { return Ok(false) };
        match checkpoints(folder)?.pop() {
            Some(path) => self.resume(path).map(|()| true),
            None => Ok(false),
        }
    }

    /// Writes the checkpoint of this step, and the best one if it is that.
    fn save_in_folder(&mut self, record: &StepRecord) -> Result<PathBuf> {
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

    /// Writes a checkpoint under the number of the step and drops the oldest.
    fn save_numbered(&self, step: usize) -> Result<PathBuf> {
        let folder = self.plan.folder.clone().unwrap_or_default();
        let path = folder.join(format!("step-{step:07}.safetensors"));
        self.save(&path)?;
        let mut kept = checkpoints(&folder)?;
        while kept.len() > self.plan.keep {
            let oldest = kept.remove(0);
            std::fs::remove_file(&oldest).map_err(Error::io(&oldest))?;
        }
        Ok(path)
    }
}
