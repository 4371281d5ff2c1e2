//! [`Denoising`]: a network that learns to denoise.
//!
//! Everything random in step `n` (the choice of samples, their noise and timesteps, dropout) depends only on the seed and `n`. So a
//! training that is resumed from a checkpoint takes exactly the steps of an uninterrupted one. Each sample has its own random numbers, so
//! that the processes of a group together take the steps of a single process.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use candle_core::{Device, Tensor, Var};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::TrainConfig;
use super::data::{Conditioned, TrainingBatch, TrainingData};
use super::objective::Objective;
use crate::diffusion::{DiffusionConfig, GaussianDiffusion, LossHistory, LossOptions, TrainingLoss};
use crate::distributed::ProcessGroup;
use crate::sparse::AllReduce;
use crate::unet::{UNetConfig, WaveMeshUNet};
use crate::{Error, Result, random};

/// The network with the batch's condition, labels and context.
fn conditioned<'a>(network: &'a WaveMeshUNet, batch: &'a TrainingBatch) -> Conditioned<'a, WaveMeshUNet> {
    let classes = batch.labels.as_ref().map_or(0, |labels| labels.dims()[1]);
    Conditioned { network, condition: batch.condition.as_ref(), classes, attended: batch.context.as_ref() }
}

/// What switches the conditions on.
fn told(batch: &TrainingBatch) -> Option<&Tensor> {
    batch.labels.as_ref().or(batch.context.as_ref())
}

/// The objective of diffusion: a [`WaveMeshUNet`] that predicts what [`GaussianDiffusion`] asks of it.
pub struct Denoising {
    pub(super) config: TrainConfig,
    pub(super) diffusion: GaussianDiffusion,
    pub(super) network: WaveMeshUNet,
    pub(super) averaged: WaveMeshUNet,
    pub(super) train: Arc<dyn TrainingData>,
    pub(super) validation: Option<Arc<dyn TrainingData>>,
    pub(super) importance: Option<LossHistory>,
    pub(super) next: Option<NextBatch>,
    pub(super) group: Arc<ProcessGroup>,
    /// The number of samples of the last batch that have sites.
    pub(super) samples: f64,
}

/// A batch that is made while the step before it computes.
pub(super) struct NextBatch {
    part: usize,
    maker: JoinHandle<Result<TrainingBatch>>,
}

/// The objective's part of a checkpoint.
#[derive(Serialize, Deserialize)]
struct Saved {
    unet: UNetConfig,
    diffusion: DiffusionConfig,
    importance: Option<LossHistory>,
}

impl Denoising {
    /// Timesteps of a validation, as shares of the schedule.
    const VALIDATION_TIMES: [f64; 4] = [0.1, 0.35, 0.6, 0.85];
    /// The number of validation samples that are used.
    const VALIDATION_SAMPLES: usize = 32;

    /// The seed of everything random in a micro-batch.
    fn seed(&self, part: usize) -> u64 {
        self.config.seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(part as u64)
    }

    /// The batch of a part; starts to make the next one.
    fn batch(&mut self, part: usize) -> Result<TrainingBatch> {
        let ready = self.next.take().filter(|next| next.part == part).and_then(|next| next.maker.join().ok());
        let batch = ready.unwrap_or_else(|| {
            let (samples, seeds) = self.own_samples(part);
            self.train.batch(&samples, &seeds)
        });
        let part = part + 1;
        if part < self.config.steps * self.config.accumulation {
            let (data, (samples, seeds)) = (Arc::clone(&self.train), self.own_samples(part));
            let maker = Builder::new().name("wavemesh-batch".into()).spawn(move || data.batch(&samples, &seeds));
            // If no thread can be started, the batch is made when it is needed.
            self.next = maker.ok().map(|maker| NextBatch { part, maker });
        }
        batch
    }

    /// This process's samples of a micro-batch, and a seed for each.
    fn own_samples(&self, part: usize) -> (Vec<usize>, Vec<u64>) {
        let (all, seed) = (self.all_samples(part), self.seed(part));
        self.group.share(all.len()).map(|at| (all[at], random::seed_of(seed, at))).unzip()
    }

    /// The samples of a micro-batch. Each epoch visits all samples in its own order.
    fn all_samples(&self, part: usize) -> Vec<usize> {
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

    /// Stores the losses of a micro-batch's elements, including those of the other processes.
    fn remember(&mut self, found: &TrainingLoss) -> Result<()> {
        let Some(history) = &mut self.importance else { return Ok(()) };
        let (count, own) = (self.config.batch_size, self.group.share(self.config.batch_size));
        let mut all = vec![0f64; 2 * count];
        let losses: Vec<f32> = found.per_element.to_vec1()?;
        for (at, (&timestep, loss)) in own.zip(found.timesteps.iter().zip(losses)) {
            (all[at], all[count + at]) = (timestep as f64, f64::from(loss));
        }
        self.group.sum(&mut all)?;
        let timesteps = all[..count].iter().map(|&t| t as usize).collect();
        let losses: Vec<f32> = all[count..].iter().map(|&loss| loss as f32).collect();
        if losses.iter().any(|loss| !loss.is_finite()) {
            return Ok(());
        }
        let per_element = Tensor::from_vec(losses, count, &Device::Cpu)?;
        history.record(&TrainingLoss { loss: found.loss.clone(), timesteps, per_element })
    }
}

impl Objective for Denoising {
    fn state(&self) -> Vec<(String, Var)> {
        self.network.state().to_vec()
    }

    fn loss(&mut self, part: usize) -> Result<Tensor> {
        let seed = self.seed(part);
        let batch = self.batch(part)?;
        let first = self.group.share(self.config.batch_size).start;
        self.network.set_dropout_part(seed, first);
        let model = conditioned(&self.network, &batch);
        let importance = self.importance.as_ref();
        let part = Some((first, self.config.batch_size));
        let options = LossOptions { seed, importance, context: told(&batch), part, ..Default::default() };
        let found = self.diffusion.training_loss(&model, &batch.x0, &options)?;
        self.samples = batch.x0.batch_counts()?.iter().filter(|&&count| count > 0).count() as f64;
        self.remember(&found)?;
        Ok(found.loss)
    }

    fn samples(&self) -> f64 {
        self.samples
    }

    fn join(&mut self, group: &Arc<ProcessGroup>) -> Result<()> {
        if self.config.batch_size < group.world_size() {
            let expected = format!("a sample or more for each of {} processes", group.world_size());
            return Err(Error::argument("Trainer::in_group", "batch_size", self.config.batch_size, expected));
        }
        if self.config.sync_batch_norm {
            self.network.convert_sync_batchnorm(&(Arc::clone(group) as Arc<dyn AllReduce>));
        }
        self.next = None;
        self.group = Arc::clone(group);
        Ok(())
    }

    fn facts(&self) -> Result<Map<String, Value>> {
        let mut facts = self.saved();
        // State from a checkpoint may differ between processes: that of rank 0 counts.
        facts.remove("importance");
        let mut config = self.config.clone();
        config.folder = None;
        facts.insert("config".into(), serde_json::to_value(config).map_err(candle_core::Error::wrap)?);
        facts.insert("data".into(), self.train.fingerprint()?.into());
        let validation = self.validation.as_ref().map(|data| data.fingerprint()).transpose()?;
        facts.insert("validation data".into(), validation.into());
        Ok(facts)
    }

    /// The loss of the averaged network at fixed timesteps with fixed noise on the validation samples; each process computes a part of
    /// them.
    fn validate(&self) -> Result<Option<f64>> {
        let Some(data) = &self.validation else { return Ok(None) };
        let count = data.len().min(Self::VALIDATION_SAMPLES);
        let (own, size) = (self.group.share(count), self.group.share(self.config.batch_size).len());
        let mut sums = [0f64, 0f64];
        for start in own.clone().step_by(size.max(1)) {
            let items: Vec<usize> = (start..(start + size.max(1)).min(own.end)).collect();
            let seeds: Vec<u64> = items.iter().map(|&item| item as u64).collect();
            let batch = data.batch(&items, &seeds)?;
            let model = conditioned(&self.averaged, &batch);
            for (i, share) in Self::VALIDATION_TIMES.iter().enumerate() {
                let t = (share * self.diffusion.schedule().len() as f64) as usize;
                let options = LossOptions {
                    seed: i as u64,
                    timesteps: Some(vec![t; items.len()]),
                    context: told(&batch),
                    train: false,
                    part: Some((start, count)),
                    ..Default::default()
                };
                let loss = self.diffusion.training_loss(&model, &batch.x0, &options)?;
                sums[0] += f64::from(loss.loss.to_scalar::<f32>()?) * items.len() as f64;
                sums[1] += items.len() as f64;
            }
        }
        self.group.sum(&mut sums)?;
        Ok(Some(sums[0] / sums[1]))
    }

    fn averaged(&self) -> Option<Vec<(String, Var)>> {
        Some(self.averaged.state().to_vec())
    }

    fn saved(&self) -> Map<String, Value> {
        let saved = Saved {
            unet: self.network.config().clone(),
            diffusion: self.diffusion.config().clone(),
            importance: self.importance.clone(),
        };
        match serde_json::to_value(saved) {
            Ok(Value::Object(saved)) => saved,
            _ => unreachable!("configurations are JSON objects"),
        }
    }

    fn resume(&mut self, saved: &Map<String, Value>) -> std::result::Result<(), String> {
        let saved: Saved = serde_json::from_value(Value::Object(saved.clone())).map_err(|error| error.to_string())?;
        if saved.diffusion != *self.diffusion.config() {
            let (got, own) = (saved.diffusion, self.diffusion.config());
            return Err(format!("it was trained with {got:?}, this trainer has {own:?}"));
        }
        self.importance = saved.importance;
        Ok(())
    }
}
