//! Which of the `T` training timesteps a sampler visits.
//!
//! The three spacings of Lin et al. 2023 ("Common Diffusion Noise Schedules and Sample Steps are Flawed", table 2), in
//! diffusers' rounding. Step counts that do not divide `T` are fine.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How `steps` timesteps are spread over `0..T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of `T / steps`, from 0: never visits `T − 1`, where the sample is pure noise.
    Leading,
    /// From `T − 1` downwards in equal strides: the one spacing that starts where the noise is whole, and the default.
    #[default]
    Trailing,
    /// Evenly from `T − 1` to 0, both included (a multistep solver leaves 0 out).
    Linspace,
}

named_as_in_files!(TimestepSpacing);

impl TimestepSpacing {
    /// The spacing called `leading`, `trailing` or `linspace`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "leading" => Ok(Self::Leading),
            "trailing" => Ok(Self::Trailing),
            "linspace" => Ok(Self::Linspace),
            _ => Err(Error::Unknown {
                kind: "timestep spacing",
                name: name.into(),
                known: "leading, trailing, linspace".into(),
            }),
        }
    }

    /// The `steps` timesteps in the order in which they are visited, descending.
    ///
    /// `multistep` says whether the solver takes one more interval and leaves its end (t = 0) out, as diffusers'
    /// DPM-Solver does for `leading` and `linspace`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `1 <= steps <= total` (`steps < total` when `multistep`).
    pub(super) fn timesteps(self, steps: usize, total: usize, multistep: bool) -> Result<Vec<usize>> {
        let intervals = if multistep { steps + 1 } else { steps };
        if steps == 0 || intervals > total {
            return Err(Error::Argument {
                op: "sample",
                name: "steps",
                got: steps.to_string(),
                expected: format!("1 to {} for a schedule of {total} timesteps", total - usize::from(multistep)),
            });
        }
        let first = intervals - steps; // the lowest grid points left out
        Ok(match self {
            Self::Leading => (first..intervals).rev().map(|i| i * (total / intervals)).collect(),
            Self::Trailing => {
                let stride = total as f64 / steps as f64;
                let at = |i: usize| (total as f64 - i as f64 * stride).round_ties_even() as usize;
                (0..steps).map(|i| at(i).saturating_sub(1)).collect()
            }
            Self::Linspace if intervals == 1 => vec![total - 1],
            Self::Linspace => {
                let stride = (total - 1) as f64 / (intervals - 1) as f64;
                (first..intervals).rev().map(|i| (i as f64 * stride).round_ties_even() as usize).collect()
            }
        })
    }
}
