//! [`LearningRate`]: the course of the learning rate over a training, with PyTorch's formulas.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::optimizer::learning_rate;

/// How the learning rate changes from step to step. Each course has the values of the scheduler in `torch.optim.lr_scheduler` with its
/// name, stepped once after every optimiser step.
///
/// ```
/// use wavemesh::train::LearningRate;
/// let rate = LearningRate::Step { rate: 0.1, every: 30, gamma: 0.1 };
/// assert_eq!(rate.at(0), 0.1);
/// assert!((rate.at(60) - 0.001).abs() < 1e-12);
/// let warm = rate.warmed_up(10);
/// assert!((warm.at(4) - 0.05).abs() < 1e-12);
/// ```
#[doc(alias = "lr_scheduler")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LearningRate {
    /// The same rate at every step.
    Constant(f64),
    /// `StepLR`: multiplies the rate by `gamma` after every `every` steps.
    Step {
        /// The highest rate.
        rate: f64,
        /// Steps between two cuts.
        every: usize,
        /// The factor for the rate.
        gamma: f64,
    },
    /// `MultiStepLR`: multiplies the rate by `gamma` at each of these steps.
    MultiStep {
        /// The highest rate.
        rate: f64,
        /// The steps at which the rate is cut, ascending.
        milestones: Vec<usize>,
        /// The factor for the rate.
        gamma: f64,
    },
    /// `ExponentialLR`: multiplies the rate by `gamma` after every step.
    Exponential {
        /// The highest rate.
        rate: f64,
        /// The factor for the rate.
        gamma: f64,
    },
    /// `PolynomialLR`: falls to 0 at step `total`, as `(1 − step/total)^power`.
    Polynomial {
        /// The highest rate.
        rate: f64,
        /// The step at which the course ends.
        total: usize,
        /// The exponent; 1 is a straight line.
        power: f64,
    },
    /// `CosineAnnealingLR`: falls by half a cosine to `least` at step `total`, and then stays there.
    Cosine {
        /// The highest rate.
        rate: f64,
        /// The step at which the course ends.
        total: usize,
        /// The rate at the end.
        least: f64,
    },
    /// `OneCycleLR` with cosines: rises from `rate / div` to `rate` over the first share `rise` of `total` steps, then falls to `rate /
    /// (div · final_div)`. PyTorch's defaults are rise 0.3, div 25 and final_div 1e4; OpenPCDet uses rise 0.4 and div 10.
    OneCycle {
        /// The highest rate.
        rate: f64,
        /// The step at which the course ends.
        total: usize,
        /// Share of the steps in which the rate rises, 0 to 1.
        rise: f64,
        /// The highest rate divided by the first.
        div: f64,
        /// The first rate divided by the last.
        final_div: f64,
    },
    /// Rises linearly to `rate` over `warmup` steps, then falls by half a cosine to `floor · rate` at step `total`: [`learning_rate`].
    WarmUpCosine {
        /// The highest rate.
        rate: f64,
        /// Steps of the rise.
        warmup: usize,
        /// The step at which the course ends.
        total: usize,
        /// The last rate divided by the highest.
        floor: f64,
    },
    /// Rises linearly over the first `steps` steps: step `n` gets `(n + 1) / steps` of the rate of `then`.
    WarmUp {
        /// Steps of the rise.
        steps: usize,
        /// The course after the rise; its rates also count during the rise.
        then: Box<LearningRate>,
    },
}

impl LearningRate {
    /// The learning rate of step `step`, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        let n = step as f64;
        match *self {
            Self::Constant(rate) => rate,
            Self::Step { rate, every, gamma } => rate * gamma.powf((step / every.max(1)) as f64),
            Self::MultiStep { rate, ref milestones, gamma } => {
                rate * gamma.powf(milestones.iter().filter(|&&milestone| step >= milestone).count() as f64)
            }
            Self::Exponential { rate, gamma } => rate * gamma.powf(n),
            Self::Polynomial { rate, total, power } => rate * (1.0 - (n / total.max(1) as f64).min(1.0)).powf(power),
            Self::Cosine { rate, total, least } => cosine(rate, least, n / total.max(1) as f64),
            Self::OneCycle { rate, total, rise, div, final_div } => {
                let first = rate / div;
                let top = (rise * total as f64 - 1.0).max(0.0);
                let last = (total as f64 - 1.0).max(top);
                if n <= top && top > 0.0 {
                    cosine(first, rate, n / top)
                } else {
                    cosine(rate, first / final_div, if last > top { (n - top) / (last - top) } else { 1.0 })
                }
            }
            Self::WarmUpCosine { rate, warmup, total, floor } => learning_rate(step, warmup, total, rate, floor),
            Self::WarmUp { steps, ref then } => then.at(step) * ((n + 1.0) / steps.max(1) as f64).min(1.0),
        }
    }

    /// This course after a linear rise over its first `steps` steps.
    pub fn warmed_up(self, steps: usize) -> Self {
        Self::WarmUp { steps, then: Box::new(self) }
    }
}

/// Half a cosine from `from` to `to`, for shares 0 to 1.
fn cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * share.clamp(0.0, 1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_rises_evenly_and_leaves_the_rest_alone() {
        let warm = LearningRate::Constant(2.0).warmed_up(4);
        assert_eq!([0, 1, 3, 4, 100].map(|step| warm.at(step)), [0.5, 1.0, 2.0, 2.0, 2.0]);
    }
}
