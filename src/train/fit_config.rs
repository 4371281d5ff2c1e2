//! [`FitConfig`]: how a training proceeds, for any model and any loss.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::grad_scaler::LossScale;
use super::optimizer::AdamWConfig;
use super::rate::LearningRate;
use crate::{Error, Result};

/// How a network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FitConfig {
    /// The total number of optimiser steps. Default 100.
    pub steps: usize,
    /// Number of losses whose gradients together make one step. Default 1.
    pub accumulation: usize,
    /// The learning rate at each step.
    pub learning_rate: LearningRate,
    /// Constants of AdamW.
    pub adamw: AdamWConfig,
    /// The largest norm of the gradient; `None` for no limit. Default 10.
    pub clip_norm: Option<f64>,
    /// Decay of an exponential moving average of all variables; `None` (the default) for no average.
    pub ema_decay: Option<f64>,
    /// Scaling of the loss, for f16 features. A step whose gradient overflows is skipped. Default none.
    pub loss_scale: Option<LossScale>,
    /// Steps between validations; 0 (the default) for none.
    pub validate_every: usize,
    /// Seconds that a run may take. The training ends after the step in which they are used up, and keeps what it has learnt. Default none.
    pub seconds: Option<f64>,
    /// Early stopping: the training ends after this many validations without a smaller loss. Default none.
    pub patience: Option<usize>,
    /// Steps between checkpoints; 0 (the default) for none but the last.
    pub checkpoint_every: usize,
    /// Number of checkpoints that are kept, in addition to the best one. Default 2.
    pub keep: usize,
    /// Where checkpoints and the log go; `None` (the default) for nowhere.
    pub folder: Option<PathBuf>,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            steps: 100,
            accumulation: 1,
            learning_rate: LearningRate::Constant(1e-3),
            adamw: AdamWConfig::default(),
            clip_norm: Some(10.0),
            ema_decay: None,
            loss_scale: None,
            validate_every: 0,
            seconds: None,
            patience: None,
            checkpoint_every: 0,
            keep: 2,
            folder: None,
        }
    }
}

setters! {
    FitConfig {
        steps(steps: usize) => steps = steps;
        accumulation(accumulation: usize) => accumulation = accumulation;
        learning_rate(learning_rate: LearningRate) => learning_rate = learning_rate;
        adamw(adamw: AdamWConfig) => adamw = adamw;
        clip_norm(clip_norm: Option<f64>) => clip_norm = clip_norm;
        ema_decay(ema_decay: f64) => ema_decay = Some(ema_decay);
        loss_scale(loss_scale: LossScale) => loss_scale = Some(loss_scale);
        validate_every(validate_every: usize) => validate_every = validate_every;
        seconds(seconds: impl Into<Option<f64>>) => seconds = seconds.into();
        patience(patience: usize) => patience = Some(patience);
        checkpoint_every(checkpoint_every: usize) => checkpoint_every = checkpoint_every;
        keep(keep: usize) => keep = keep;
        folder(folder: impl Into<PathBuf>) => folder = Some(folder.into());
    }
}

impl FitConfig {
    pub(super) fn validate(&self) -> Result<()> {
        const OP: &str = "FitConfig";
        for (name, value) in [("steps", self.steps), ("accumulation", self.accumulation), ("keep", self.keep)] {
            if value == 0 {
                return Err(Error::argument(OP, name, 0, "1 or more"));
            }
        }
        if let Some(most) = self.clip_norm.filter(|most| !(most.is_finite() && *most > 0.0)) {
            return Err(Error::argument(OP, "clip_norm", most, "a number above 0, or None"));
        }
        check_seconds(OP, self.seconds)?;
        if self.patience.is_some() && self.validate_every == 0 {
            return Err(Error::argument(
                OP,
                "patience",
                "given without validations",
                "validate_every of 1 or more beside it",
            ));
        }
        self.adamw.validate("FitConfig: adamw")
    }
}

/// Checks that a time limit is valid; NaN is not.
pub(super) fn check_seconds(op: &'static str, seconds: Option<f64>) -> Result<()> {
    match seconds.filter(|seconds| seconds.is_nan() || *seconds <= 0.0) {
        Some(seconds) => Err(Error::argument(op, "seconds", seconds, "a number above 0, or None")),
        None => Ok(()),
    }
}
