//! [`LearningRate`]: the learning rate's course over a training, with PyTorch's formulas.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::optimizer::learning_rate;

/// How the learning rate goes from step to step. Each gives the values of the scheduler of `torch.optim.lr_scheduler` of its name,
/// stepped once after every optimiser step.
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
    /// Always the same.
    Constant(f64),
    /// `StepLR`: times `gamma` after every `every` steps.
    Step {
        /// The rate at its highest.
        rate: f64,
        /// Steps between two cuts.
        every: usize,
        /// What the rate is multiplied by.
        gamma: f64,
    },
    /// `MultiStepLR`: times `gamma` at each of these steps.
    MultiStep {
        /// The rate at its highest.
        rate: f64,
        /// The steps at which it is cut, ascending.
        milestones: Vec<usize>,
        /// What the rate is multiplied by.
        gamma: f64,
    },
    /// `ExponentialLR`: times `gamma` after every step.
    Exponential {
        /// The rate at its highest.
        rate: f64,
        /// What the rate is multiplied by.
        gamma: f64,
    },
    /// `PolynomialLR`: down to 0 at step `total`, as `(1 − step/total)^power`.
    Polynomial {
        /// The rate at its highest.
        rate: f64,
        /// The step at which the course ends.
        total: usize,
        /// The exponent; 1 is a straight line.
        power: f64,
    },
    /// `CosineAnnealingLR`: half a cosine down to `least` at step `total`, which it then keeps.
    Cosine {
        /// The rate at its highest.
        rate: f64,
        /// The step at which the course ends.
        total: usize,
        /// The rate at the end.
        least: f64,
    },
    /// `OneCycleLR` with cosines: up from `rate / div` to `rate` over the first `rise` (a share) of `total` steps, then down to
    /// `rate / (div · final_div)`. PyTorch's own: rise 0.3, div 25, final_div 1e4; OpenPCDet's: rise 0.4, div 10.
    OneCycle {
        /// The rate at its highest.
        rate: f64,
        /// The step at which the course ends.
        total: usize,
        /// Share of the steps in which it rises, 0 to 1.
        rise: f64,
        /// The highest rate over the first.
        div: f64,
        /// The first rate over the last.
        final_div: f64,
    },
    /// A linear rise to `rate` over `warmup` steps, then half a cosine down to `floor · rate` at step `total`: [`learning_rate`].
    WarmUpCosine {
        /// The rate at its highest.
        rate: f64,
        /// Steps of the rise.
        warmup: usize,
        /// The step at which the course ends.
        total: usize,
        /// The last rate over the highest.
        floor: f64,
    },
    /// A linear rise over the first `steps` steps, step `n` getting `(n + 1) / steps` of what `then` gives there.
    WarmUp {
        /// Steps of the rise.
        steps: usize,
        /// The course that is risen into.
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
    fn every_course_is_that_of_pytorch_s_scheduler() {
        let saved = include_str!("../../tests/fixtures/schedules.json");
        let saved: std::collections::HashMap<String, Vec<f64>> = serde_json::from_str(saved).unwrap();
        let (rate, total) = (0.1, 30);
        for (name, course) in [
            ("step", LearningRate::Step { rate, every: 7, gamma: 0.5 }),
            ("multistep", LearningRate::MultiStep { rate, milestones: vec![5, 12, 20], gamma: 0.1 }),
            ("exponential", LearningRate::Exponential { rate, gamma: 0.9 }),
            ("polynomial", LearningRate::Polynomial { rate, total: 25, power: 0.9 }),
            ("cosine", LearningRate::Cosine { rate, total: 29, least: 0.001 }),
            ("onecycle", LearningRate::OneCycle { rate, total, rise: 0.3, div: 25.0, final_div: 1e4 }),
            ("onecycle_openpcdet", LearningRate::OneCycle { rate: 0.003, total, rise: 0.4, div: 10.0, final_div: 1e4 }),
        ] {
            for (step, expected) in saved[name].iter().enumerate() {
                let found = course.at(step);
                assert!((found - expected).abs() < 1e-12, "{name}, step {step}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn a_warm_up_rises_evenly_and_leaves_the_rest_alone() {
        let warm = LearningRate::Constant(2.0).warmed_up(4);
        assert_eq!([0, 1, 3, 4, 100].map(|step| warm.at(step)), [0.5, 1.0, 2.0, 2.0, 2.0]);
    }
}
