//! [`Trainer`]: the loop that trains a network to denoise.
//!
//! Everything random in step `n` (which samples, their noise and timesteps, dropout) comes from the seed and `n` alone, so a
//! training that is resumed from a checkpoint takes the very steps that an uninterrupted one would have taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::{Tensor, Var};
use rand::seq::SliceRandom;

use super::checkpoint::{Checkpoint, TrainerState, checkpoints, invalid};
use super::clock::processor_seconds;
use super::config::TrainConfig;
use super::data::{Conditioned, TrainingBatch, TrainingData};
use super::ema::Ema;
use super::in_place::norm;
use super::log::Log;
use super::optimizer::{AdamW, learning_rate};
use super::record::StepRecord;
use crate::diffusion::{GaussianDiffusion, LossHistory, LossOptions};
use crate::task::Task;
use crate::unet::WaveMeshUNet;
use crate::{Error, Result, random};

/// The network, told what the batch has beside its samples.
fn conditioned<'a>(network: &'a WaveMeshUNet, batch: &'a TrainingBatch) -> Conditioned<'a, WaveMeshUNet> {
    let classes = batch.labels.as_ref().map_or(0, |labels| labels.dims()[1]);
    Conditioned { network, condition: batch.condition.as_ref(), classes }
}

/// A network in training.
pub struct Trainer {
    config: TrainConfig,
    diffusion: GaussianDiffusion,
    network: WaveMeshUNet,
    ema: Ema,
    optimizer: AdamW,
    train: Arc<dyn TrainingData>,
    validation: Option<Arc<dyn TrainingData>>,
    importance: Option<LossHistory>,
    history: Vec<StepRecord>,
    best: Option<f64>,
    last_checkpoint: Option<PathBuf>,
}

impl Trainer {
    /// Timesteps of a validation, as shares of the schedule.
    const VALIDATION_TIMES: [f64; 4] = [0.1, 0.35, 0.6, 0.85];
    /// Validation samples that are looked at.
    const VALIDATION_SAMPLES: usize = 32;

    /// Starts a training of `network`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration out of range or empty data.
    pub fn new(
        mut network: WaveMeshUNet,
        diffusion: GaussianDiffusion,
        train: Arc<dyn TrainingData>,
        validation: Option<Arc<dyn TrainingData>>,
        config: TrainConfig,
    ) -> Result<Self> {
        config.validate()?;
        if train.is_empty() || validation.as_ref().is_some_and(|data| data.is_empty()) {
            return Err(Error::Argument {
                op: "Trainer::new",
                name: "data",
                got: "an empty set".into(),
                expected: "at least one sample".into(),
            });
        }
        network.set_gradient_checkpointing(config.gradient_checkpointing);
        let vars: Vec<Var> = network.parameters().map(|(_, var)| var.clone()).collect();
        let importance =
            config.importance_sampling.then(|| LossHistory::new(diffusion.schedule().len())).transpose()?;
        Ok(Self {
            ema: Ema::new(&network, config.ema_decay)?,
            optimizer: AdamW::new(config.adamw, vars)?,
            config,
            diffusion,
            network,
            train,
            validation,
            importance,
            history: Vec::new(),
            best: None,
            last_checkpoint: None,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Steps taken so far.
    pub fn step_count(&self) -> usize {
        self.history.last().map_or(0, |record| record.step)
    }

    /// Every step so far.
    pub fn history(&self) -> &[StepRecord] {
        &self.history
    }

    /// The network as it is being trained.
    pub fn network(&self) -> &WaveMeshUNet {
        &self.network
    }

    /// The averaged network: the one to generate with.
    pub fn ema(&self) -> &WaveMeshUNet {
        self.ema.network()
    }

    /// The averaged network, by value.
    pub fn into_ema(self) -> WaveMeshUNet {
        self.ema.into_network()
    }

    /// The diffusion process.
    pub fn diffusion(&self) -> &GaussianDiffusion {
        &self.diffusion
    }

    /// The smallest validation loss so far.
    pub fn best_validation(&self) -> Option<f64> {
        self.best
    }

    /// Trains up to the configured number of steps. `watch` sees every step; when it fails, or a stop is requested, training
    /// ends between two steps and everything is kept: call `run` again to go on. A stop also writes a checkpoint, so that
    /// another process can go on from this very step.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a stop, or when `watch` returns it; [`Error::Diverged`] when a loss is not finite; whatever `watch` returns.
    pub fn run(&mut self, mut watch: impl FnMut(&Self, &StepRecord) -> Result<()>) -> Result<()> {
        let mut log = self.config.folder.as_deref().map(|folder| Log::open(folder, &self.history)).transpose()?;
        let left = self.config.steps.saturating_sub(self.step_count());
        let task = Task::new("training", left);
        while self.step_count() < self.config.steps {
            let record = self.step()?;
            if let Some(log) = &mut log {
                log.append(&record)?;
            }
            let (step, every) = (record.step, self.config.checkpoint_every);
            let due = step == self.config.steps || (every > 0 && step % every == 0);
            if due && self.config.folder.is_some() {
                self.last_checkpoint = Some(self.save_in_folder(&record)?);
            }
            let going_on = watch(self, &record).and_then(|()| task.advance(1));
            if matches!(going_on, Err(Error::Interrupted)) && !due && self.config.folder.is_some() {
                self.last_checkpoint = Some(self.save_numbered(step)?);
            }
            going_on?;
        }
        Ok(())
    }

    /// Takes one step. After an error the network and optimiser are as they were before it.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the loss or gradient is not finite.
    pub fn step(&mut self) -> Result<StepRecord> {
        let (started, processor) = (Instant::now(), processor_seconds());
        let done = self.step_count();
        let parts = self.config.accumulation;
        let mut sum: Vec<Tensor> = Vec::new();
        let mut loss_sum = 0f64;
        for part in 0..parts {
            let (loss, grads) = self.gradients(done * parts + part)?;
            loss_sum += loss;
            if sum.is_empty() {
                sum = grads;
            } else {
                sum = sum.iter().zip(&grads).map(|(a, b)| Ok((a + b)?)).collect::<Result<_>>()?;
            }
        }
        let loss = loss_sum / parts as f64;
        let grad_norm = norm(&sum)? / parts as f64;
        if !loss.is_finite() || !grad_norm.is_finite() {
            let what = if loss.is_finite() { "gradient" } else { "loss" };
            let kept = self.last_checkpoint.clone();
            return Err(Error::Diverged { what, step: done + 1, checkpoint: kept });
        }
        let c = &self.config;
        let rate = learning_rate(done, c.warmup, c.steps, c.learning_rate, c.final_learning_rate);
        let clipped = (c.clip_norm / grad_norm).min(1.0);
        self.optimizer.step(&sum, rate, clipped / parts as f64)?;
        self.ema.update(&self.network)?;
        let step = done + 1;
        let validates = self.config.validate_every > 0 && step.is_multiple_of(self.config.validate_every);
        let validation = if validates { self.validate()? } else { None };
        let seconds = started.elapsed().as_secs_f64();
        let processor_seconds = processor.zip(processor_seconds()).map(|(before, after)| after - before);
        let record = StepRecord { step, loss, grad_norm, learning_rate: rate, validation, seconds, processor_seconds };
        self.history.push(record.clone());
        Ok(record)
    }

    /// Loss of the averaged network at fixed timesteps with fixed noise on the validation samples.
    ///
    /// # Errors
    /// Whatever the data or the network return.
    pub fn validate(&self) -> Result<Option<f64>> {
        let Some(data) = &self.validation else { return Ok(None) };
        let count = data.len().min(Self::VALIDATION_SAMPLES);
        let (mut sum, mut batches) = (0f64, 0f64);
        for start in (0..count).step_by(self.config.batch_size) {
            let items: Vec<usize> = (start..(start + self.config.batch_size).min(count)).collect();
            let batch = data.batch(&items, start as u64)?;
            let model = conditioned(self.ema.network(), &batch);
            for (i, share) in Self::VALIDATION_TIMES.iter().enumerate() {
                let t = (share * self.diffusion.schedule().len() as f64) as usize;
                let options = LossOptions {
                    seed: (start * 16 + i) as u64,
                    timesteps: Some(vec![t; items.len()]),
                    context: batch.labels.as_ref(),
                    train: false,
                    ..Default::default()
                };
                let loss = self.diffusion.training_loss(&model, &batch.x0, &options)?;
                sum += f64::from(loss.loss.to_scalar::<f32>()?) * items.len() as f64;
                batches += items.len() as f64;
            }
        }
        Ok(Some(sum / batches))
    }

    /// Loss and gradients of micro-batch number `part` of the whole training.
    fn gradients(&mut self, part: usize) -> Result<(f64, Vec<Tensor>)> {
        let seed = self.config.seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(part as u64);
        let batch = self.train.batch(&self.samples(part), seed)?;
        self.network.set_dropout_seed(seed);
        let model = conditioned(&self.network, &batch);
        let importance = self.importance.as_ref();
        let options = LossOptions { seed, importance, context: batch.labels.as_ref(), ..Default::default() };
        let found = self.diffusion.training_loss(&model, &batch.x0, &options)?;
        let loss = f64::from(found.loss.to_scalar::<f32>()?);
        let grads = self.optimizer.gradients(&found.loss.backward()?)?;
        if let Some(history) = self.importance.as_mut().filter(|_| loss.is_finite()) {
            history.record(&found)?;
        }
        Ok((loss, grads))
    }

    /// The samples of a micro-batch: each epoch visits all in an order of its own.
    fn samples(&self, part: usize) -> Vec<usize> {
        let (count, size) = (self.train.len(), self.config.batch_size);
        let mut samples = Vec::with_capacity(size);
        let mut order = (usize::MAX, Vec::new());
        for at in part * size..(part + 1) * size {
            let epoch = at / count;
            if order.0 != epoch {
                let mut items: Vec<usize> = (0..count).collect();
                items.shuffle(&mut random::rng(self.config.seed, 1 + epoch as u64));
                order = (epoch, items);
            }
            samples.push(order.1[at % count]);
        }
        samples
    }

    /// Every tensor that a checkpoint holds, with its name there.
    fn tensors(&self) -> Vec<(String, Var)> {
        let named = |prefix: &str, list: &[(String, Var)]| {
            list.iter().map(|(name, var)| (format!("{prefix}/{name}"), var.clone())).collect::<Vec<_>>()
        };
        let mut all = named("network", self.network.state());
        all.extend(named("ema", self.ema.network().state()));
        for ((name, _), [mean, square]) in self.network.parameters().zip(&self.optimizer.moments) {
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
        let state = TrainerState {
            unet: self.network.config().clone(),
            diffusion: self.diffusion.config().clone(),
            updates: self.optimizer.updates,
            ema_updates: self.ema.updates(),
            importance: self.importance.clone(),
            best: self.best,
        };
        let tensors = self.tensors().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
        Checkpoint { state, tensors, history: self.history.clone() }.write(path.as_ref())
    }

    /// Goes on from a checkpoint: the next steps are those that the saved training would have taken.
    ///
    /// # Errors
    /// [`Error::Format`] when the file is not a checkpoint, of another version or of another network (it names the first
    /// tensor that does not fit, with both shapes); the trainer is then unchanged.
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
        if state.diffusion != *self.diffusion.config() {
            return Err(invalid(
                path,
                format!("it was trained with {:?}, this trainer has {:?}", state.diffusion, self.diffusion.config()),
            ));
        }
        for (var, value) in values {
            var.set(&value)?;
        }
        self.optimizer.updates = state.updates;
        self.ema.set_updates(state.ema_updates);
        self.importance = state.importance;
        self.history = history;
        self.best = state.best;
        Ok(())
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
        let folder = self.config.folder.clone().unwrap_or_default();
        let path = folder.join(format!("step-{step:07}.safetensors"));
        self.save(&path)?;
        let mut kept = checkpoints(&folder)?;
        while kept.len() > self.config.keep {
            let oldest = kept.remove(0);
            std::fs::remove_file(&oldest).map_err(Error::io(&oldest))?;
        }
        Ok(path)
    }
}
