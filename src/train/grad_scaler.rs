//! [`GradScaler`]: loss scaling for f16 features (Micikevicius et al. 2018), as in PyTorch.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the scale of a loss changes, with the arguments and defaults of `torch.amp.GradScaler`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossScale {
    /// The first scale: `init_scale`. Default 65536.
    pub initial: f64,
    /// The factor for the scale after many good steps: `growth_factor`. Default 2.
    pub growth: f64,
    /// The factor for the scale after a step whose gradient is not finite: `backoff_factor`. Default 0.5.
    pub backoff: f64,
    /// Number of good steps before the scale grows: `growth_interval`. Default 2000.
    pub interval: usize,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { initial: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }
}

setters! {
    LossScale {
        initial(initial: f64) => initial = initial;
        growth(growth: f64) => growth = growth;
        backoff(backoff: f64) => backoff = backoff;
        interval(interval: usize) => interval = interval;
    }
}

/// Scales a loss so that the gradients of f16 features do not vanish, and finds the largest scale at which they do not overflow.
///
/// A [`Trainer`](super::Trainer) does this if its configuration has a `loss_scale`. In your own loop:
///
/// ```
/// use wavemesh::prelude::{Device, Tensor};
/// use wavemesh::train::{GradScaler, LossScale};
/// # fn main() -> wavemesh::Result<()> {
/// let mut scaler = GradScaler::new(LossScale::default())?;
/// let loss = Tensor::new(0.5f32, &Device::Cpu)?;
/// let scaled = scaler.scale(&loss)?; // its gradients are 65536 times those of the loss
/// assert_eq!(scaled.to_scalar::<f32>()?, 32768.0);
/// assert!(!scaler.update(f64::INFINITY)); // the norm of the gradient: a step to skip
/// assert_eq!(scaler.get(), 32768.0);
/// assert!(scaler.update(3.0)); // a step to take, with the gradient divided by the scale
/// # Ok(()) }
/// ```
#[doc(alias = "scaler")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradScaler {
    config: LossScale,
    scale: f64,
    /// Good steps since the scale last changed.
    good: usize,
}

impl GradScaler {
    /// A scaler at its first scale.
    ///
    /// # Errors
    /// [`Error::Argument`] for a scale or growth that is not above 0 and finite, a growth below 1, or a backoff outside 0 to 1.
    ///
    /// ```
    /// use wavemesh::train::{GradScaler, LossScale};
    /// assert_eq!(GradScaler::new(LossScale::new().initial(1024.0))?.get(), 1024.0);
    /// assert!(GradScaler::new(LossScale::new().backoff(1.5)).is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn new(config: LossScale) -> Result<Self> {
        let LossScale { initial, growth, backoff, interval } = config;
        let positive = initial.is_finite() && initial > 0.0;
        if !(positive && growth.is_finite() && growth >= 1.0 && backoff > 0.0 && backoff < 1.0 && interval > 0) {
            let expected =
                "an initial scale above 0, a growth of 1 or more, a backoff between 0 and 1, an interval of 1 or more";
            return Err(Error::argument("GradScaler", "config", format!("{config:?}"), expected));
        }
        Ok(Self { config, scale: initial, good: 0 })
    }

    /// The scale, by which gradients must be divided.
    pub fn get(&self) -> f64 {
        self.scale
    }

    /// The loss times the scale, from which to start the backward pass.
    ///
    /// # Errors
    /// An error of candle.
    ///
    /// ```
    /// use wavemesh::prelude::{Device, Tensor};
    /// use wavemesh::train::{GradScaler, LossScale};
    /// let scaler = GradScaler::new(LossScale::new().initial(8.0))?;
    /// assert_eq!(scaler.scale(&Tensor::new(0.5f32, &Device::Cpu)?)?.to_scalar::<f32>()?, 4.0);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn scale(&self, loss: &Tensor) -> Result<Tensor> {
        Ok((loss * self.scale)?)
    }

    /// Changes the scale according to a gradient's norm, and returns whether to take the step: not if the norm is infinite or NaN.
    pub fn update(&mut self, grad_norm: f64) -> bool {
        if !grad_norm.is_finite() {
            self.scale *= self.config.backoff;
            self.good = 0;
            return false;
        }
        self.good += 1;
        if self.good >= self.config.interval {
            self.scale *= self.config.growth;
            self.good = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_grows_after_good_steps_and_shrinks_after_a_bad_one() {
        let mut scaler = GradScaler::new(LossScale { initial: 8.0, interval: 3, ..Default::default() }).unwrap();
        let norms = [1.0, 1.0, 1.0, f64::NAN, 1.0, 1.0, f64::INFINITY, 1.0, 1.0, 1.0];
        // These are the scales of torch.amp.GradScaler(init_scale=8, growth_interval=3).
        let scales = [8.0, 8.0, 16.0, 8.0, 8.0, 8.0, 4.0, 4.0, 4.0, 8.0];
        for (norm, scale) in norms.into_iter().zip(scales) {
            assert_eq!(scaler.update(norm), norm.is_finite());
            assert_eq!(scaler.get(), scale);
        }
        assert!(GradScaler::new(LossScale { backoff: 1.0, ..Default::default() }).is_err());
    }
}
