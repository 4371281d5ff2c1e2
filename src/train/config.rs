//! [`TrainConfig`]: how a network is trained to denoise.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::fit_config::{FitConfig, check_seconds};
use super::grad_scaler::LossScale;
use super::optimizer::AdamWConfig;
use super::rate::LearningRate;
use crate::{Error, Result};

/// How a network is trained to denoise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// The total number of optimiser steps.
    pub steps: usize,
    /// Samples per micro-batch. In a group this counts the samples of all processes; each process computes its part of them.
    pub batch_size: usize,
    /// Micro-batches whose gradients make one step.
    pub accumulation: usize,
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises to it.
    pub warmup: usize,
    /// Share of the largest learning rate that is left at the last step.
    pub final_learning_rate: f64,
    /// Constants of AdamW.
    pub adamw: AdamWConfig,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
    /// Decay of the exponential moving average.
    pub ema_decay: f64,
    /// Scales the loss, so that small gradients of a network with f16 features do not vanish. `None` does not scale.
    pub loss_scale: Option<LossScale>,
    /// Whether to recompute activations in the backward pass instead of keeping them.
    pub gradient_checkpointing: bool,
    /// In a group of processes: whether to normalise over the samples of all processes. The network is then the one that a single process
    /// would train. Otherwise each process normalises over its own samples, which is faster if these are many.
    pub sync_batch_norm: bool,
    /// Whether to draw timesteps by the size of their loss.
    pub importance_sampling: bool,
    /// Seconds that a run may take. The training ends after the step in which they are used up, and keeps what it has learnt.
    pub seconds: Option<f64>,
    /// Steps between validations; 0 for none.
    pub validate_every: usize,
    /// Steps between checkpoints; 0 for none but the last.
    pub checkpoint_every: usize,
    /// Number of checkpoints that are kept, in addition to the best one.
    pub keep: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Where checkpoints and the log go; `None` for nowhere.
    pub folder: Option<PathBuf>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch_size: 8,
            accumulation: 1,
            learning_rate: 1e-4,
            warmup: 50,
            final_learning_rate: 0.05,
            adamw: AdamWConfig::default(),
            clip_norm: 1.0,
            ema_decay: 0.999,
            loss_scale: None,
            gradient_checkpointing: false,
            sync_batch_norm: true,
            importance_sampling: false,
            seconds: None,
            validate_every: 100,
            checkpoint_every: 200,
            keep: 2,
            seed: 0,
            folder: None,
        }
    }
}

setters! {
    TrainConfig {
        steps(steps: usize) => steps = steps;
        batch_size(batch_size: usize) => batch_size = batch_size;
        accumulation(accumulation: usize) => accumulation = accumulation;
        learning_rate(learning_rate: f64) => learning_rate = learning_rate;
        warmup(warmup: usize) => warmup = warmup;
        final_learning_rate(final_learning_rate: f64) => final_learning_rate = final_learning_rate;
        adamw(adamw: AdamWConfig) => adamw = adamw;
        clip_norm(clip_norm: f64) => clip_norm = clip_norm;
        ema_decay(ema_decay: f64) => ema_decay = ema_decay;
        loss_scale(loss_scale: impl Into<Option<LossScale>>) => loss_scale = loss_scale.into();
        gradient_checkpointing(gradient_checkpointing: bool) => gradient_checkpointing = gradient_checkpointing;
        sync_batch_norm(sync_batch_norm: bool) => sync_batch_norm = sync_batch_norm;
        importance_sampling(importance_sampling: bool) => importance_sampling = importance_sampling;
        seconds(seconds: impl Into<Option<f64>>) => seconds = seconds.into();
        validate_every(validate_every: usize) => validate_every = validate_every;
        checkpoint_every(checkpoint_every: usize) => checkpoint_every = checkpoint_every;
        keep(keep: usize) => keep = keep;
        seed(seed: u64) => seed = seed;
        folder(folder: impl Into<PathBuf>) => folder = Some(folder.into());
    }
}

impl TrainConfig {
    /// The part of the configuration that the trainer uses.
    pub(super) fn plan(&self) -> FitConfig {
        FitConfig {
            steps: self.steps,
            accumulation: self.accumulation,
            learning_rate: LearningRate::WarmUpCosine {
                rate: self.learning_rate,
                warmup: self.warmup,
                total: self.steps,
                floor: self.final_learning_rate,
            },
            adamw: self.adamw,
            clip_norm: Some(self.clip_norm),
            ema_decay: Some(self.ema_decay),
            loss_scale: self.loss_scale,
            validate_every: self.validate_every,
            seconds: self.seconds,
            patience: None,
            checkpoint_every: self.checkpoint_every,
            keep: self.keep,
            folder: self.folder.clone(),
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let problem = |name, got: String, expected: &str| {
            Err(Error::Argument { op: "TrainConfig", name, got, expected: expected.into() })
        };
        for (name, value) in [
            ("steps", self.steps),
            ("batch_size", self.batch_size),
            ("accumulation", self.accumulation),
            ("keep", self.keep),
        ] {
            if value == 0 {
                return problem(name, "0".into(), "1 or more");
            }
        }
        for (name, value) in [("learning_rate", self.learning_rate), ("clip_norm", self.clip_norm)] {
            if !(value.is_finite() && value > 0.0) {
                return problem(name, value.to_string(), "a number above 0");
            }
        }
        check_seconds("TrainConfig", self.seconds)?;
        self.adamw.validate("TrainConfig: adamw")?;
        if !(0.0..=1.0).contains(&self.final_learning_rate) {
            return problem("final_learning_rate", self.final_learning_rate.to_string(), "a share, 0 to 1");
        }
        Ok(())
    }
}
