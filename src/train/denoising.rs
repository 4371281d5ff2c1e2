//! [`Denoising`]: a network that learns to denoise.
//!
//! Everything random in step `n` (which samples, their noise and timesteps, dropout) comes from the seed and `n` alone, so a
//! training that is resumed from a checkpoint takes the very steps that an uninterrupted one would have taken.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use candle_core::{Tensor, Var};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::TrainConfig;
use super::data::{Conditioned, TrainingBatch, TrainingData};
use super::objective::Objective;
use crate::diffusion::{DiffusionConfig, GaussianDiffusion, LossHistory, LossOptions};
use crate::unet::{UNetConfig, WaveMeshUNet};
use crate::{Result, random};

/// The network, told what the batch has beside its samples.
fn conditioned<'a>(network: &'a WaveMeshUNet, batch: &'a TrainingBatch) -> Conditioned<'a, WaveMeshUNet> {
    let classes = batch.labels.as_ref().map_or(0, |labels| labels.dims()[1]);
    Conditioned { network, condition: batch.condition.as_ref(), classes }
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
}

/// A batch that is made while the step before it computes.
pub(super) struct NextBatch {
    part: usize,
    maker: JoinHandle<Result<TrainingBatch>>,
}

/// What a checkpoint says of it.
#[derive(Serialize, Deserialize)]
struct Saved {
    unet: UNetConfig,
    diffusion: DiffusionConfig,
    importance: Option<LossHistory>,
}

impl Denoising {
    /// Timesteps of a validation, as shares of the schedule.
    const VALIDATION_TIMES: [f64; 4] = [0.1, 0.35, 0.6, 0.85];
    /// Validation samples that are looked at.
    const VALIDATION_SAMPLES: usize = 32;

    /// Seed of everything random in a micro-batch.
    fn seed(&self, part: usize) -> u64 {
        self.config.seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(part as u64)
    }

    /// The batch of a part, and a start at the one that follows.
    fn batch(&mut self, part: usize) -> Result<TrainingBatch> {
        let ready = self.next.take().filter(|next| next.part == part).and_then(|next| next.maker.join().ok());
        let batch = ready.unwrap_or_else(|| self.train.batch(&self.samples(part), self.seed(part)));
        let part = part + 1;
        if part < self.config.steps * self.config.accumulation {
            let (data, samples, seed) = (Arc::clone(&self.train), self.samples(part), self.seed(part));
            let maker = Builder::new().name("wavemesh-batch".into()).spawn(move || data.batch(&samples, seed));
            // Without a thread the batch is made when its turn comes.
            self.next = maker.ok().map(|maker| NextBatch { part, maker });
        }
        batch
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
}

impl Objective for Denoising {
    fn state(&self) -> Vec<(String, Var)> {
        self.network.state().to_vec()
    }

    fn loss(&mut self, part: usize) -> Result<Tensor> {
        let seed = self.seed(part);
        let batch = self.batch(part)?;
        self.network.set_dropout_seed(seed);
        let model = conditioned(&self.network, &batch);
        let importance = self.importance.as_ref();
        let options = LossOptions { seed, importance, context: batch.labels.as_ref(), ..Default::default() };
        let found = self.diffusion.training_loss(&model, &batch.x0, &options)?;
        if let Some(history) = &mut self.importance
            && found.loss.to_scalar::<f32>()?.is_finite()
        {
            history.record(&found)?;
        }
        Ok(found.loss)
    }

    /// Loss of the averaged network at fixed timesteps with fixed noise on the validation samples.
    fn validate(&self) -> Result<Option<f64>> {
        let Some(data) = &self.validation else { return Ok(None) };
        let count = data.len().min(Self::VALIDATION_SAMPLES);
        let (mut sum, mut batches) = (0f64, 0f64);
        for start in (0..count).step_by(self.config.batch_size) {
            let items: Vec<usize> = (start..(start + self.config.batch_size).min(count)).collect();
            let batch = data.batch(&items, start as u64)?;
            let model = conditioned(&self.averaged, &batch);
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
