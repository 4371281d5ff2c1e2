//! AdamW (Loshchilov & Hutter 2019) whose state can be saved, gradient clipping, and the learning rate's course.

use candle_core::{Tensor, Var, backprop::GradStore};
use serde::{Deserialize, Serialize};

use crate::Result;

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean squared gradient.
    pub beta2: f64,
    /// Added to the root of the mean squared gradient.
    pub eps: f64,
    /// Decoupled weight decay; not applied to vectors (biases, normalisation).
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-4 }
    }
}

/// The optimiser's state for a list of variables in a fixed order.
#[derive(Debug)]
pub(super) struct AdamW {
    config: AdamWConfig,
    vars: Vec<Var>,
    /// Mean and mean squared gradient of each variable.
    pub moments: Vec<[Var; 2]>,
    /// Updates made.
    pub updates: u64,
}

impl AdamW {
    pub fn new(config: AdamWConfig, vars: Vec<Var>) -> Result<Self> {
        let zeros = |var: &Var| Var::zeros(var.shape(), var.dtype(), var.device());
        let moments = vars.iter().map(|var| Ok([zeros(var)?, zeros(var)?])).collect::<Result<_>>()?;
        Ok(Self { config, vars, moments, updates: 0 })
    }

    /// One update with a gradient for each variable, in order.
    pub fn step(&mut self, grads: &[Tensor], learning_rate: f64) -> Result<()> {
        self.updates += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let correct1 = 1.0 - beta1.powf(self.updates as f64);
        let correct2 = 1.0 - beta2.powf(self.updates as f64);
        for ((var, [mean, square]), grad) in self.vars.iter().zip(&self.moments).zip(grads) {
            mean.set(&((mean.as_tensor() * beta1)? + (grad * (1.0 - beta1))?)?.detach())?;
            square.set(&((square.as_tensor() * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?.detach())?;
            let root = ((square.as_detached_tensor() / correct2)?.sqrt()? + eps)?;
            let change = ((mean.as_detached_tensor() / correct1)? / root)?;
            let decay = if var.rank() > 1 { learning_rate * weight_decay } else { 0.0 };
            let value = (var.as_detached_tensor() * (1.0 - decay))?;
            var.set(&(value - (change * learning_rate)?)?)?;
        }
        Ok(())
    }
}

/// The gradients of `vars` in order (zeros where there is none), and their common norm.
pub(super) fn collect(grads: &GradStore, vars: &[Var]) -> Result<Vec<Tensor>> {
    vars.iter()
        .map(|var| match grads.get(var) {
            Some(grad) => Ok(grad.detach()),
            None => Ok(var.zeros_like()?),
        })
        .collect()
}

/// Scales gradients so that their common norm is at most `limit`; returns the norm that they had.
pub(super) fn clip_norm(grads: &mut [Tensor], limit: f64) -> Result<f64> {
    let mut squares = 0f64;
    for grad in grads.iter() {
        squares += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    let norm = squares.sqrt();
    if norm > limit {
        for grad in grads {
            *grad = (&*grad * (limit / norm))?;
        }
    }
    Ok(norm)
}

/// Linear warm-up over `warmup` steps to `peak`, then half a cosine down to `floor · peak` at step `total`.
pub fn learning_rate(step: usize, warmup: usize, total: usize, peak: f64, floor: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let progress = ((step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64).min(1.0);
    peak * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}
