//! [`Trainer`]: the loop that trains a model by its loss.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor, Var};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::cache::hex;
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
use crate::distributed::ProcessGroup;
use crate::files::{create_folder_of, write_atomically};
use crate::task::{Task, check_interrupt};
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
    group: Arc<ProcessGroup>,
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
            group: ProcessGroup::alone(),
        })
    }

    /// Trains together with the other processes of `group`, all of which call this after they have built the same trainer: the same network
    /// comes out in each. Losses are weighted by their samples, gradients are summed over all; rank 0's state is everybody's, and rank 0
    /// alone writes checkpoints and the log. A group of one changes nothing.
    ///
    /// A network that learns to denoise ([`Trainer::new`]) shares its batches out by itself. A closure ([`Trainer::fit`]) takes its
    /// [`share`](ProcessGroup::share) of each batch:
    ///
    /// ```
    /// use wavemesh::distributed::ProcessGroup;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # fn main() -> wavemesh::Result<()> {
    /// let group = ProcessGroup::from_environment()?;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let slope = vb.get_with_hints(1, "slope", candle_nn::Init::Const(0.0))?;
    /// let own = group.share(6); // of a batch of 6 samples
    /// let loss = |_n| {
    ///     let x = Tensor::arange(own.start as f32, own.end as f32, &Device::Cpu)?;
    ///     Ok((x.broadcast_mul(&slope)? - (&x * 2.0)?)?.sqr()?.mean_all()?)
    /// };
    /// let config = FitConfig::new().steps(5);
    /// let mut trainer = Trainer::fit(&variables, config, loss)?.weighted_by(|| own.len() as f64).in_group(&group)?;
    /// trainer.run(|_, record| {
    ///     if group.is_first() {
    ///         println!("step {}: {}", record.step, record.loss); // the loss over all samples
    ///     }
    ///     Ok(())
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Group`] in every process when one has another program, configuration, network or other data (it names the rank and the
    /// difference), or fails; what the objective says when it cannot be shared.
    pub fn in_group(mut self, group: &Arc<ProcessGroup>) -> Result<Self> {
        if group.is_alone() {
            return Ok(self);
        }
        let joined = (|| {
            group.agree("the program", &json!({ "version": env!("CARGO_PKG_VERSION"), "sha256": program() }))?;
            group.agree("the training", &self.facts()?)?;
            self.objective.join(group)
        })();
        joined.inspect_err(|error| group.fail(error))?;
        let state = group.broadcast(|| self.to_bytes())?;
        self.restore(Path::new("the state of rank 0"), &state).inspect_err(|error| group.fail(error))?;
        self.group = Arc::clone(group);
        Ok(self)
    }

    /// What all processes of a group must have in common.
    fn facts(&self) -> Result<Value> {
        let mut plan = self.plan.clone();
        plan.folder = None;
        let plan = serde_json::to_value(plan).map_err(candle_core::Error::wrap)?;
        let variables: Map<String, Value> =
            self.state.iter().map(|(name, var)| (name.clone(), json!(var.dims()))).collect();
        Ok(json!({ "plan": plan, "model": self.objective.facts()?, "variables": variables }))
    }

    /// The processes that train together.
    pub fn group(&self) -> &Arc<ProcessGroup> {
        &self.group
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
    pub fn run_until(&mut self, watch: impl FnMut(&Self, &StepRecord) -> Result<ControlFlow<()>>) -> Result<()> {
        let group = Arc::clone(&self.group);
        self.run_steps(watch).inspect_err(|error| match error {
            // All processes have come to these together.
            Error::Interrupted | Error::Diverged { .. } => {}
            own => group.fail(own),
        })
    }

    fn run_steps(&mut self, mut watch: impl FnMut(&Self, &StepRecord) -> Result<ControlFlow<()>>) -> Result<()> {
        let first = self.group.is_first();
        let folder = self.plan.folder.as_deref().filter(|_| first);
        let mut log = folder.map(|folder| Log::open(folder, &self.history)).transpose()?;
        let left = self.plan.steps.saturating_sub(self.step_count());
        // One process shows how far all are.
        let task = first.then(|| Task::new("training", left));
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
                task.as_ref().map_or_else(check_interrupt, |task| task.advance(1))?;
                Ok(flow)
            });
            let going_on = self.agreed(going_on);
            if matches!(going_on, Err(Error::Interrupted)) && !due && self.plan.folder.is_some() {
                self.last_checkpoint = Some(self.save_numbered(step)?);
            }
            if going_on?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// What the processes of a group do after a step: they stop together when one is to stop.
    fn agreed(&self, own: Result<ControlFlow<()>>) -> Result<ControlFlow<()>> {
        if self.group.is_alone() {
            return own;
        }
        let mut votes = match own {
            Ok(ControlFlow::Continue(())) => [0.0, 0.0],
            Ok(ControlFlow::Break(())) => [1.0, 0.0],
            Err(Error::Interrupted) => [0.0, 1.0],
            Err(error) => return Err(error),
        };
        self.group.sum(&mut votes)?;
        match votes {
            [_, interrupted] if interrupted > 0.0 => Err(Error::Interrupted),
            [ended, _] if ended > 0.0 => Ok(ControlFlow::Break(())),
            _ => Ok(ControlFlow::Continue(())),
        }
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
    /// [`Error::Diverged`] when the loss or gradient is not finite. In a group, another error of one process ends it in all
    /// ([`Error::Group`]).
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
        let step = self.step_here();
        step.inspect_err(|error| {
            if !matches!(error, Error::Diverged { .. }) {
                self.group.fail(error);
            }
        })
    }

    fn step_here(&mut self) -> Result<StepRecord> {
        let (started, processor) = (Instant::now(), processor_seconds());
        let done = self.step_count();
        let parts = self.plan.accumulation;
        let mut sum: Vec<Tensor> = Vec::new();
        let mut loss_sum = 0f64;
        for part in 0..parts {
            let loss = self.objective.loss(done * parts + part)?;
            let (loss, of_all) = self.over_all(loss)?;
            loss_sum += of_all;
            let loss = self.scaler.as_ref().map_or_else(|| Ok(loss.clone()), |scaler| scaler.scale(&loss))?;
            let grads = self.optimizer.gradients(&loss.backward()?)?;
            if sum.is_empty() {
                sum = grads;
            } else {
                sum = sum.iter().zip(&grads).map(|(a, b)| Ok((a + b)?)).collect::<Result<_>>()?;
            }
        }
        let (sum, statistics) = self.sums_over_all(sum)?;
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
        for (var, mean) in statistics {
            var.set(&mean)?;
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

    /// This process's part of the mean loss over all samples of the group, to be differentiated, and that mean.
    fn over_all(&self, loss: Tensor) -> Result<(Tensor, f64)> {
        let own = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if self.group.is_alone() {
            return Ok((loss, own));
        }
        let samples = self.objective.samples();
        let mut sums = [samples, if samples > 0.0 { samples * own } else { 0.0 }];
        self.group.sum(&mut sums)?;
        let [all, sum] = sums;
        // A batch without samples anywhere has no gradient.
        let share = if all > 0.0 { samples / all } else { 0.0 };
        Ok(((loss * share)?, sum / all.max(f64::MIN_POSITIVE)))
    }

    /// The gradient over all processes, and the means of what each has of the running statistics, which no gradient trains.
    fn sums_over_all(&self, mut gradients: Vec<Tensor>) -> Result<(Vec<Tensor>, Statistics)> {
        if self.group.is_alone() {
            return Ok((gradients, Vec::new()));
        }
        let count = gradients.len();
        let statistics: Vec<&Var> = self
            .state
            .iter()
            .filter(|(name, var)| !is_trained(name) && var.dtype() == DType::F32)
            .map(|(_, v)| v)
            .collect();
        let share = 1.0 / self.group.world_size() as f64;
        for var in &statistics {
            gradients.push((var.as_detached_tensor() * share)?);
        }
        let mut sums = self.group.sum_tensors(gradients)?;
        let means = sums.split_off(count);
        Ok((sums, statistics.into_iter().cloned().zip(means).collect()))
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
        let own = match &self.average {
            Some(average) if !self.average_is_there => average.apply(|| self.objective.validate())??,
            _ => self.objective.validate()?,
        };
        if self.group.is_alone() {
            return Ok(own);
        }
        let first = own.filter(|_| self.group.is_first());
        let mut answer = [f64::from(u8::from(first.is_some())), first.unwrap_or(0.0)];
        self.group.sum(&mut answer)?;
        Ok((answer[0] > 0.0).then_some(answer[1]))
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

    /// Writes a checkpoint. In a group every process may call this, and rank 0 writes.
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
        if !self.group.is_first() {
            return Ok(());
        }
        let path = path.as_ref();
        let bytes = self.to_bytes()?;
        create_folder_of(path)?;
        write_atomically(path, &bytes)
    }

    /// What a checkpoint holds.
    fn to_bytes(&self) -> Result<Vec<u8>> {
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

    /// Goes on from a checkpoint: the next steps are those that the saved training would have taken. In a group, which may have another
    /// number of processes than the one that wrote it, all call this and rank 0 reads.
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
        let bytes = self.group.broadcast(|| std::fs::read(path).map_err(Error::io(path)))?;
        self.restore(path, &bytes)
    }

    /// Goes on from the bytes of a checkpoint.
    fn restore(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
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

/// Variables that no gradient trains, and what they are to be.
type Statistics = Vec<(Var, Tensor)>;

/// What tells this program from others: the SHA-256 of its file, where that can be read.
fn program() -> Option<String> {
    let file = std::env::current_exe().and_then(std::fs::read).ok()?;
    Some(hex(&Sha256::digest(file)))
}
