//! One step of a sampler: from `x_t` and the network's output to `x` at the next, cleaner timestep.
//!
//! - DDPM, ancestral sampling: Ho et al. 2020, equation 7.
//! - DDIM: Song et al. 2021, equation 12; `eta` 0 is deterministic, 1 has DDPM's variance.
//! - DPM-Solver++ (multistep, orders 1–3, midpoint): Lu et al. 2022, "DPM-Solver++", algorithm 2.
//!
//! Pairs of steps, the lower orders at the start and the end, and the last `ᾱ = 1` are as in diffusers.

use std::collections::VecDeque;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::linear::{Term, combine};
use super::spacing::karras_sigmas;
use super::{NoiseSchedule, TimestepSpacing};
use crate::{Error, Result};

/// The sampler, and how often it may evaluate the network.
#[doc(alias("DDIMScheduler", "DPMSolverMultistepScheduler"))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020): noise is added back after every step.
    Ddpm {
        /// Evaluations of the network.
        steps: usize,
    },
    /// DDIM (Song et al. 2021). `eta` in 0..=1 is the share of DDPM's noise that is added back.
    Ddim {
        /// Evaluations of the network.
        steps: usize,
        /// Share of DDPM's noise, 0 to 1.
        eta: f64,
    },
    /// DPM-Solver++ (Lu et al. 2022), multistep, of `order` 1, 2 or 3. Deterministic.
    DpmSolverPP {
        /// Evaluations of the network.
        steps: usize,
        /// Order of the solver, 1 to 3.
        order: usize,
    },
}

impl Sampler {
    /// How many times the network is evaluated (twice as often with guidance).
    pub fn steps(&self) -> usize {
        match *self {
            Self::Ddpm { steps } | Self::Ddim { steps, .. } | Self::DpmSolverPP { steps, .. } => steps,
        }
    }

    fn validate(&self) -> Result<()> {
        match *self {
            Self::Ddim { eta, .. } if !(0.0..=1.0).contains(&eta) => Err(Error::Argument {
                op: "Sampler::Ddim",
                name: "eta",
                got: eta.to_string(),
                expected: "0 (deterministic) to 1 (DDPM's noise)".into(),
            }),
            Self::DpmSolverPP { order, .. } if !(1..=3).contains(&order) => Err(Error::Argument {
                op: "Sampler::DpmSolverPP",
                name: "order",
                got: order.to_string(),
                expected: "1, 2 or 3".into(),
            }),
            _ => Ok(()),
        }
    }
}

/// A sampler on one trajectory: its timesteps and, for the multistep solver, its memory.
#[derive(Clone, Debug)]
pub(super) struct Solver {
    sampler: Sampler,
    spacing: TimestepSpacing,
    timesteps: Vec<usize>,
    /// `ᾱ` of the sample before each step.
    levels: Vec<f64>,
    /// The latest estimates of `x_0`, newest first (DPM-Solver++ only).
    memory: VecDeque<Tensor>,
}

impl Solver {
    pub(super) fn new(sampler: Sampler, spacing: TimestepSpacing, schedule: &NoiseSchedule) -> Result<Self> {
        sampler.validate()?;
        let multistep = matches!(sampler, Sampler::DpmSolverPP { .. });
        if spacing == TimestepSpacing::Karras && !multistep {
            return Err(Error::Argument {
                op: "sample",
                name: "spacing",
                got: format!("Karras with {sampler:?}"),
                expected: "Karras with DpmSolverPP, or another spacing".into(),
            });
        }
        let timesteps = spacing.timesteps(sampler.steps(), schedule, multistep)?;
        let levels = match (spacing, multistep) {
            (TimestepSpacing::Karras, _) => {
                let sigmas = karras_sigmas(timesteps.len(), schedule);
                sigmas.into_iter().map(|sigma| 1.0 / (1.0 + sigma * sigma)).collect()
            }
            (_, true) => timesteps.iter().map(|&t| schedule.alpha_cumprod_above_zero(t as i64)).collect(),
            (_, false) => timesteps.iter().map(|&t| schedule.alpha_cumprod(t as i64)).collect(),
        };
        Ok(Self { sampler, spacing, timesteps, levels, memory: VecDeque::new() })
    }

    pub(super) fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// `ᾱ` of the sample before step `index`.
    pub(super) fn level(&self, index: usize) -> f64 {
        self.levels[index]
    }

    /// Whether steps use earlier estimates of `x_0`; these are then best given as one tensor.
    pub(super) fn looks_back(&self) -> bool {
        matches!(self.sampler, Sampler::DpmSolverPP { .. })
    }

    /// Takes step number `index`: from `x` (rows, channels) at its timestep to `x` at the next one. The estimates `x0` (after clipping) and
    /// `eps` are weighted sums of `x` and at most one other tensor. `noise` is called if the step adds noise.
    pub(super) fn step(
        &mut self,
        schedule: &NoiseSchedule,
        index: usize,
        x: &Tensor,
        x0: &[Term],
        eps: &[Term],
        noise: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let t = self.timesteps[index] as i64;
        match self.sampler {
            Sampler::Ddpm { .. } => {
                let posterior = Posterior::new(schedule, t, self.next(index));
                let mut terms = times(posterior.x0_coef, x0);
                terms.push((posterior.xt_coef, x));
                if t == 0 {
                    return combine(&terms);
                }
                let noise = noise()?;
                terms.push((posterior.variance.max(1e-20).sqrt(), &noise));
                combine(&terms)
            }
            Sampler::Ddim { eta, .. } => {
                let previous = self.previous(index, schedule.len());
                let alpha_previous = schedule.alpha_cumprod(previous);
                let variance = Posterior::new(schedule, t, previous).variance;
                let sigma = eta * variance.sqrt();
                let direction = (1.0 - alpha_previous - sigma * sigma).max(0.0).sqrt();
                let mut terms = times(alpha_previous.sqrt(), x0);
                terms.extend(times(direction, eps));
                if sigma == 0.0 {
                    return combine(&terms);
                }
                let noise = noise()?;
                terms.push((sigma, &noise));
                combine(&terms)
            }
            Sampler::DpmSolverPP { order, .. } => {
                self.memory.push_front(combine(x0)?);
                self.memory.truncate(order);
                self.dpm_solver_step(index, order, x)
            }
        }
    }

    /// The next timestep; -1 after the last, where the result is clean.
    fn next(&self, index: usize) -> i64 {
        self.timesteps.get(index + 1).map_or(-1, |&t| t as i64)
    }

    /// The timestep to which DDIM's step `index` leads; negative if the result is clean.
    ///
    /// It is the next visited timestep, which is `T / steps` back for even strides. `Linspace` visits slightly wider strides, but diffusers
    /// still goes `T / steps` back; its numbers are kept. For other counts diffusers rounds `T / steps` down, falls behind the visited
    /// timesteps and leaves noise in the result; here the sum is rounded, not its parts.
    fn previous(&self, index: usize, total: usize) -> i64 {
        if self.spacing != TimestepSpacing::Linspace {
            return self.next(index);
        }
        let steps = self.timesteps.len();
        let stride = (total - 1) as f64 / (steps - 1).max(1) as f64;
        let position = if steps == 1 { (total - 1) as f64 } else { (steps - 1 - index) as f64 * stride };
        (position - total as f64 / steps as f64).round_ties_even() as i64
    }

    fn dpm_solver_step(&self, index: usize, order: usize, x: &Tensor) -> Result<Tensor> {
        // At the end sigma is 0 and λ infinite: only the first-order update has a limit there (it returns x0).
        // With few steps, the step before it stays at order 2, for stability.
        let left = self.timesteps.len() - 1 - index;
        let cap = if left == 0 {
            1
        } else if left == 1 && self.timesteps.len() < 15 {
            2
        } else {
            3
        };
        let order = order.min(cap).min(self.memory.len());
        if left == 0 {
            return Ok(self.memory[0].clone());
        }
        let point = |i: usize| SolverPoint::new(self.levels[i]);
        let (now, next) = (point(index), point(index + 1));
        let h = next.lambda - now.lambda;
        let decay = (-h).exp_m1(); // e^{-h} − 1
        // The weights of x0 and of its first two differences, which are the slopes between the latest estimates.
        let (own, slopes) = match order {
            1 => (-next.alpha * decay, [0.0, 0.0]),
            2 => (-next.alpha * decay, [-0.5 * next.alpha * decay, 0.0]),
            _ => {
                let (r0, r1) = self.ratios(index, h);
                let first = next.alpha * (decay / h + 1.0);
                let second = -next.alpha * ((decay + h) / (h * h) - 0.5);
                let change = (first * r0 + second) / (r0 + r1);
                (-next.alpha * decay, [first + change, -change])
            }
        };
        let carried = next.sigma / now.sigma;
        if order == 1 {
            return combine(&[(carried, x), (own, &self.memory[0])]);
        }
        let (r0, r1) = self.ratios(index, h);
        let slope0 = slopes[0] / r0;
        if order == 2 {
            return combine(&[(carried, x), (own + slope0, &self.memory[0]), (-slope0, &self.memory[1])]);
        }
        let slope1 = slopes[1] / r1;
        combine(&[
            (carried, x),
            (own + slope0, &self.memory[0]),
            (slope1 - slope0, &self.memory[1]),
            (-slope1, &self.memory[2]),
        ])
    }

    /// The last two strides in λ relative to the next one, `h`; the second is 0 if it does not exist.
    fn ratios(&self, index: usize, h: f64) -> (f64, f64) {
        let lambda = |back: usize| SolverPoint::new(self.levels[index - back]).lambda;
        let r1 = if index >= 2 { (lambda(1) - lambda(2)) / h } else { 0.0 };
        ((lambda(0) - lambda(1)) / h, r1)
    }
}

/// A weighted sum times a factor.
fn times<'a>(factor: f64, sum: &[Term<'a>]) -> Vec<Term<'a>> {
    sum.iter().map(|&(own, tensor)| (factor * own, tensor)).collect()
}

/// Signal scale, noise scale and half log-SNR at a level `ᾱ`, in DPM-Solver's terms.
struct SolverPoint {
    alpha: f64,
    sigma: f64,
    lambda: f64,
}

impl SolverPoint {
    fn new(level: f64) -> Self {
        let (alpha, sigma) = (level.sqrt(), (1.0 - level).sqrt());
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

/// The Gaussian `q(x_s | x_t, x_0)` for `s < t` (Ho et al. 2020, equations 6 and 7): mean `x0_coef·x_0 + xt_coef·x_t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Factor of `x_0` in the mean.
    pub x0_coef: f64,
    /// Factor of `x_t` in the mean.
    pub xt_coef: f64,
    /// Variance of every entry.
    pub variance: f64,
}

impl Posterior {
    /// The posterior from timestep `t` to the cleaner `previous` (negative: fully clean).
    pub(super) fn new(schedule: &NoiseSchedule, t: i64, previous: i64) -> Self {
        let (a_t, a_s) = (schedule.alpha_cumprod(t), schedule.alpha_cumprod(previous));
        // Rounded as in diffusers: near t = 0 the rounding shows in the fourth digit of β.
        let alpha = f64::from((a_t / a_s) as f32);
        let beta = 1.0 - alpha;
        Self {
            x0_coef: a_s.sqrt() * beta / (1.0 - a_t),
            xt_coef: alpha.sqrt() * (1.0 - a_s) / (1.0 - a_t),
            variance: (1.0 - a_s) / (1.0 - a_t) * beta,
        }
    }
}
