//! One step of a sampler: from `x_t` and what the network says of it to `x` at the next, cleaner timestep.
//!
//! - DDPM, ancestral sampling: Ho et al. 2020, equation 7.
//! - DDIM: Song et al. 2021, equation 12; `eta` 0 is deterministic, 1 has DDPM's variance.
//! - DPM-Solver++ (multistep, orders 1–3, midpoint): Lu et al. 2022, "DPM-Solver++", algorithm 2.
//!
//! Step pairs, lower orders at the start and the end, and the last `ᾱ = 1` are diffusers'.

use std::collections::VecDeque;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{NoiseSchedule, TimestepSpacing};
use crate::{Error, Result};

/// Which sampler, and how many evaluations of the network it may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020): noise is added back after every step.
    Ddpm { steps: usize },
    /// DDIM (Song et al. 2021); `eta` in 0..=1 is the share of DDPM's noise that is added back.
    Ddim { steps: usize, eta: f64 },
    /// DPM-Solver++ (Lu et al. 2022), multistep, of `order` 1, 2 or 3. Deterministic.
    DpmSolverPP { steps: usize, order: usize },
}

impl Sampler {
    /// How many times the network is asked (twice as often under guidance).
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

/// A sampler at work on one trajectory: its timesteps and, for the multistep solver, what it remembers.
#[derive(Clone, Debug)]
pub(super) struct Solver {
    sampler: Sampler,
    timesteps: Vec<usize>,
    /// The latest estimates of `x_0`, newest first (DPM-Solver++ only).
    memory: VecDeque<Tensor>,
}

impl Solver {
    pub(super) fn new(sampler: Sampler, spacing: TimestepSpacing, total: usize) -> Result<Self> {
        sampler.validate()?;
        let multistep = matches!(sampler, Sampler::DpmSolverPP { .. });
        let timesteps = spacing.timesteps(sampler.steps(), total, multistep)?;
        Ok(Self { sampler, timesteps, memory: VecDeque::new() })
    }

    pub(super) fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// Step number `index`: `x` (rows, channels) at its timestep, the estimate `x0` (after clipping) and `eps` (as
    /// the network gave it) to `x` at the next timestep. `noise` is called when the step adds noise.
    pub(super) fn step(
        &mut self,
        schedule: &NoiseSchedule,
        index: usize,
        x: &Tensor,
        x0: Tensor,
        eps: &Tensor,
        noise: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let t = self.timesteps[index] as i64;
        match self.sampler {
            Sampler::Ddpm { .. } => {
                let posterior = Posterior::new(schedule, t, self.previous(index, schedule.len()));
                let mean = combine(posterior.x0_coef, &x0, posterior.xt_coef, x)?;
                if t == 0 {
                    return Ok(mean);
                }
                Ok((mean + (noise()? * posterior.variance.max(1e-20).sqrt())?)?)
            }
            Sampler::Ddim { eta, .. } => {
                let previous = self.previous(index, schedule.len());
                let alpha_previous = schedule.alpha_cumprod(previous);
                let variance = Posterior::new(schedule, t, previous).variance;
                let sigma = eta * variance.sqrt();
                let direction = (1.0 - alpha_previous - sigma * sigma).max(0.0).sqrt();
                let x = combine(alpha_previous.sqrt(), &x0, direction, eps)?;
                if sigma == 0.0 { Ok(x) } else { Ok((x + (noise()? * sigma)?)?) }
            }
            Sampler::DpmSolverPP { order, .. } => {
                self.memory.push_front(x0);
                self.memory.truncate(order);
                self.dpm_solver_step(schedule, index, order, x)
            }
        }
    }

    /// The timestep that DDPM's and DDIM's step `index` leads to; negative when the result is clean.
    ///
    /// diffusers always goes `total / steps` back. That is the next visited timestep when `steps` divides `total`
    /// (for `Linspace` nearly so, and its numbers are kept). Otherwise its rounding falls behind the timesteps
    /// visited and leaves noise in the result, so here the next visited timestep is taken.
    fn previous(&self, index: usize, total: usize) -> i64 {
        let steps = self.timesteps.len();
        if total.is_multiple_of(steps) {
            self.timesteps[index] as i64 - (total / steps) as i64
        } else {
            self.timesteps.get(index + 1).map_or(-1, |&t| t as i64)
        }
    }

    fn dpm_solver_step(&self, schedule: &NoiseSchedule, index: usize, order: usize, x: &Tensor) -> Result<Tensor> {
        // The end has sigma 0, where λ is infinite: only the first-order update has a limit there (it returns x0).
        // With few steps the step before is kept at order 2, for stability.
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
        let point = |i: usize| SolverPoint::new(schedule, self.timesteps[i]);
        let (now, next) = (point(index), point(index + 1));
        let h = next.lambda - now.lambda;
        let decay = (-h).exp_m1(); // e^{-h} − 1
        let mut x = combine(next.sigma / now.sigma, x, -next.alpha * decay, &self.memory[0])?;
        if order == 1 {
            return Ok(x);
        }
        let r0 = (now.lambda - point(index - 1).lambda) / h;
        let slope0 = ((&self.memory[0] - &self.memory[1])? / r0)?;
        if order == 2 {
            x = (x + (slope0 * (-0.5 * next.alpha * decay))?)?;
            return Ok(x);
        }
        let r1 = (point(index - 1).lambda - point(index - 2).lambda) / h;
        let slope1 = ((&self.memory[1] - &self.memory[2])? / r1)?;
        let change = (&slope0 - slope1)?;
        let first = combine(1.0, &slope0, r0 / (r0 + r1), &change)?;
        let second = (change / (r0 + r1))?;
        let curve = combine(decay / h + 1.0, &first, -((decay + h) / (h * h) - 0.5), &second)?;
        combine(1.0, &x, next.alpha, &curve)
    }
}

/// `a·x + b·y`.
fn combine(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    Ok(((x * a)? + (y * b)?)?)
}

/// Signal scale, noise scale and half log-SNR at a timestep, in DPM-Solver's terms.
struct SolverPoint {
    alpha: f64,
    sigma: f64,
    lambda: f64,
}

impl SolverPoint {
    fn new(schedule: &NoiseSchedule, t: usize) -> Self {
        let a = schedule.alpha_cumprod(t as i64);
        let (alpha, sigma) = (a.sqrt(), (1.0 - a).sqrt());
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
    /// From timestep `t` to the cleaner `previous` (negative: fully clean).
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
