//! The choice of the timesteps, among the `T` of the training, that a sampler visits.
//!
//! The three spacings of Lin et al. 2023 ("Common Diffusion Noise Schedules and Sample Steps are Flawed", table 2), rounded as in
//! diffusers, and the spacing of Karras et al. 2022 over noise levels. Step counts that do not divide `T` are allowed.

use serde::{Deserialize, Serialize};

use super::NoiseSchedule;
use crate::{Error, Result};

/// How `steps` timesteps are spread over `0..T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimestepSpacing {
    /// Multiples of `T / steps`, from 0: never visits `T − 1`, where the sample is pure noise.
    Leading,
    /// From `T − 1` downwards in equal strides. Only this spacing starts at full noise; it is the default.
    #[default]
    Trailing,
    /// Evenly from `T − 1` to 0, both included (a multistep solver leaves 0 out). A step of DDIM goes `T / steps` back, rounded, for any
    /// number of steps; if the number divides `T`, this is diffusers' rule.
    Linspace,
    /// Noise levels `σ = √((1−ᾱ)/ᾱ)` from the largest to the smallest, in equal strides of `σ^(1/7)` (Karras et al. 2022, equation 5;
    /// diffusers' `use_karras_sigmas`): most steps are where little noise is left. For DPM-Solver++.
    Karras,
}

named!(TimestepSpacing, crate::builder::name_in_files);

impl TimestepSpacing {
    /// The spacing called `leading`, `trailing`, `linspace` or `karras`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// assert_eq!(TimestepSpacing::from_name("trailing")?, TimestepSpacing::Trailing);
    /// assert!(TimestepSpacing::from_name("uniform").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "leading" => Ok(Self::Leading),
            "trailing" => Ok(Self::Trailing),
            "linspace" => Ok(Self::Linspace),
            "karras" => Ok(Self::Karras),
            _ => Err(Error::Unknown {
                kind: "timestep spacing",
                name: name.into(),
                known: "leading, trailing, linspace, karras".into(),
            }),
        }
    }

    /// The `steps` timesteps in the order in which they are visited, descending.
    ///
    /// `multistep` tells whether the solver takes one more interval and leaves out its end (t = 0), as diffusers' DPM-Solver does for
    /// `leading` and `linspace`.
    ///
    /// If there are as many steps as timesteps, all timesteps are visited, whatever the spacing.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `1 <= steps <= T`.
    pub(super) fn timesteps(self, steps: usize, schedule: &NoiseSchedule, multistep: bool) -> Result<Vec<usize>> {
        let total = schedule.len();
        if steps == 0 || steps > total {
            return Err(Error::Argument {
                op: "sample",
                name: "steps",
                got: steps.to_string(),
                expected: format!("1 to {total} for a schedule of {total} timesteps"),
            });
        }
        if self == Self::Karras {
            return Ok(karras_sigmas(steps, schedule).into_iter().map(|sigma| nearest(sigma, schedule)).collect());
        }
        if steps == total {
            return Ok((0..total).rev().collect());
        }
        let intervals = if multistep { steps + 1 } else { steps };
        let first = intervals - steps; // the number of lowest grid points left out
        Ok(match self {
            Self::Leading => (first..intervals).rev().map(|i| i * (total / intervals)).collect(),
            Self::Trailing => {
                let stride = total as f64 / steps as f64;
                let at = |i: usize| (total as f64 - i as f64 * stride).round_ties_even() as usize;
                (0..steps).map(|i| at(i).saturating_sub(1)).collect()
            }
            _ if intervals == 1 => vec![total - 1],
            _ => {
                let stride = (total - 1) as f64 / (intervals - 1) as f64;
                (first..intervals).rev().map(|i| (i as f64 * stride).round_ties_even() as usize).collect()
            }
        })
    }
}

/// The noise level of a timestep, in the measure of diffusers and Karras.
fn sigma(alpha_cumprod: f64) -> f64 {
    ((1.0 - alpha_cumprod) / alpha_cumprod).sqrt()
}

/// The noise levels of [`TimestepSpacing::Karras`], descending.
pub(super) fn karras_sigmas(steps: usize, schedule: &NoiseSchedule) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let [from, to] =
        [schedule.len() as i64 - 1, 0].map(|t| sigma(schedule.alpha_cumprod_above_zero(t)).powf(1.0 / RHO));
    let gaps = (steps - 1).max(1) as f64;
    (0..steps).map(|i| (from + (to - from) * i as f64 / gaps).powf(RHO)).collect()
}

/// The timestep whose noise level, interpolated in logarithms, is nearest.
fn nearest(level: f64, schedule: &NoiseSchedule) -> usize {
    let log = |t: usize| sigma(schedule.alpha_cumprod_above_zero(t as i64)).ln();
    let last = schedule.len() - 1;
    let (mut low, mut high) = (0, last);
    while low + 1 < high {
        let middle = (low + high) / 2;
        if log(middle) <= level.ln() { low = middle } else { high = middle }
    }
    if low == high {
        return low;
    }
    let share = ((level.ln() - log(low)) / (log(high) - log(low))).clamp(0.0, 1.0);
    (low as f64 + share).round_ties_even() as usize
}
