//! Noise schedules: how fast noise replaces a clean sample.
//!
//! A schedule gives `β[t]` for `t` in `0..T` (Ho et al. 2020, "Denoising Diffusion Probabilistic Models"); with
//! `α = 1 − β` and `ᾱ[t] = α[0]·…·α[t]`, the noised sample is `x_t = √ᾱ[t]·x_0 + √(1−ᾱ[t])·ε`. Names, formulas and
//! precision (β as `f32`, the product accumulated in `f64`) are those of diffusers.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, memory};

/// The shape of `β` over time. [`BetaSchedule::from_name`] knows the names of diffusers and similar libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BetaSchedule {
    /// `β` rises linearly from `beta_start` to `beta_end` (Ho et al. 2020).
    #[default]
    Linear,
    /// `√β` rises linearly (Rombach et al. 2022); diffusers' `scaled_linear`, elsewhere called `sqrt`.
    #[serde(alias = "sqrt")]
    ScaledLinear,
    /// `ᾱ` follows a squared cosine, `β` capped at 0.999 (Nichol & Dhariwal 2021); diffusers' `squaredcos_cap_v2`.
    /// `beta_start` and `beta_end` have no effect.
    #[serde(alias = "squaredcos_cap_v2")]
    Cosine,
}

named!(BetaSchedule, crate::builder::name_in_files);

impl BetaSchedule {
    /// Linear in `√β`: another name for [`BetaSchedule::ScaledLinear`].
    #[allow(non_upper_case_globals)]
    pub const Sqrt: Self = Self::ScaledLinear;

    /// The schedule called `linear`, `scaled_linear`, `sqrt`, `cosine` or `squaredcos_cap_v2`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// assert_eq!(BetaSchedule::from_name("squaredcos_cap_v2")?, BetaSchedule::Cosine);
    /// assert!(BetaSchedule::from_name("sigmoid").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "linear" => Ok(Self::Linear),
            "scaled_linear" | "scaled-linear" | "sqrt" => Ok(Self::ScaledLinear),
            "cosine" | "squaredcos_cap_v2" => Ok(Self::Cosine),
            _ => Err(Error::Unknown {
                kind: "noise schedule",
                name: name.into(),
                known: "linear, scaled_linear (also sqrt), cosine (also squaredcos_cap_v2)".into(),
            }),
        }
    }

    fn betas(self, timesteps: usize, start: f64, end: f64) -> Vec<f32> {
        let linspace = |from: f64, to: f64| {
            let gaps = (timesteps - 1).max(1) as f64;
            (0..timesteps).map(move |i| from + (to - from) * i as f64 / gaps)
        };
        match self {
            Self::Linear => linspace(start, end).map(|beta| beta as f32).collect(),
            Self::ScaledLinear => linspace(start.sqrt(), end.sqrt()).map(|root| (root * root) as f32).collect(),
            Self::Cosine => {
                let alpha_bar = |t: usize| {
                    ((t as f64 / timesteps as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
                };
                (0..timesteps).map(|t| (1.0 - alpha_bar(t + 1) / alpha_bar(t)).min(0.999) as f32).collect()
            }
        }
    }
}

/// The table of a schedule: `β` and `ᾱ` at each of its `T` timesteps.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f32>,
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// Tabulates `kind` over `timesteps` steps, from `beta_start` to `beta_end` (both in (0, 1)).
    ///
    /// # Errors
    /// [`Error::Argument`] for no timesteps, or betas that are out of range or not in ascending order.
    ///
    /// ```
    /// use wavemesh::diffusion::{BetaSchedule, NoiseSchedule};
    /// let schedule = NoiseSchedule::new(BetaSchedule::Linear, 1000, 1e-4, 0.02)?;
    /// assert!((schedule.alpha_cumprod(100) - 0.89514159).abs() < 1e-6);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn new(kind: BetaSchedule, timesteps: usize, beta_start: f64, beta_end: f64) -> Result<Self> {
        let op = "NoiseSchedule::new";
        if timesteps == 0 {
            return Err(Error::Argument { op, name: "timesteps", got: "0".into(), expected: "1 or more".into() });
        }
        if !(beta_start > 0.0 && beta_start <= beta_end && beta_end < 1.0) {
            return Err(Error::Argument {
                op,
                name: "(beta_start, beta_end)",
                got: format!("({beta_start}, {beta_end})"),
                expected: "0 < beta_start <= beta_end < 1".into(),
            });
        }
        memory::elements::<[f32; 2]>(op, "the table", &[timesteps], 0)?;
        Ok(Self::tabulated(kind.betas(timesteps, beta_start, beta_end)))
    }

    /// A table of given `β`, one for each timestep (diffusers' `trained_betas`).
    ///
    /// # Errors
    /// [`Error::Argument`] for no `β`, or one outside (0, 1); the last may be 1.
    ///
    /// ```
    /// use wavemesh::diffusion::NoiseSchedule;
    /// let schedule = NoiseSchedule::from_betas(&[0.5, 0.75])?;
    /// assert_eq!(schedule.alpha_cumprod(1), 0.5 * 0.25);
    /// assert!(NoiseSchedule::from_betas(&[0.5, -0.1]).is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_betas(betas: &[f64]) -> Result<Self> {
        let last = betas.len().saturating_sub(1);
        let out_of_range = |(t, &beta): (usize, &f64)| !(beta > 0.0 && (beta < 1.0 || (beta == 1.0 && t == last)));
        let bad = betas.iter().enumerate().find(|&entry| out_of_range(entry));
        let got = match bad {
            Some((t, beta)) => format!("{beta} at timestep {t}"),
            None if betas.is_empty() => "empty".into(),
            None => return Ok(Self::tabulated(betas.iter().map(|&beta| beta as f32).collect())),
        };
        let expected = "one or more numbers between 0 and 1".into();
        Err(Error::Argument { op: "NoiseSchedule::from_betas", name: "betas", got, expected })
    }

    /// Rescales the schedule so that its last timestep is pure noise and its first does not change: Lin et al. 2023, algorithm 1.
    ///
    /// # Errors
    /// [`Error::Argument`] if it has only one timestep.
    ///
    /// ```
    /// use wavemesh::diffusion::{BetaSchedule, NoiseSchedule};
    /// let schedule = NoiseSchedule::new(BetaSchedule::Linear, 1000, 1e-4, 0.02)?;
    /// let rescaled = schedule.with_zero_terminal_snr()?;
    /// assert_eq!(rescaled.alpha_cumprod(999), 0.0);
    /// assert!((rescaled.alpha_cumprod(0) - schedule.alpha_cumprod(0)).abs() < 1e-6);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn with_zero_terminal_snr(&self) -> Result<Self> {
        let roots: Vec<f64> = self.alphas_cumprod.iter().map(|&a| f64::from(a).sqrt()).collect();
        let (first, last) = (roots[0], roots[roots.len() - 1]);
        if roots.len() < 2 {
            let expected = "2 or more, of which the last may be pure noise".into();
            return Err(Error::Argument { op: "with_zero_terminal_snr", name: "timesteps", got: "1".into(), expected });
        }
        let levels: Vec<f64> = roots.iter().map(|root| ((root - last) * first / (first - last)).powi(2)).collect();
        let before = std::iter::once(1.0).chain(levels.iter().copied());
        let betas = levels.iter().zip(before).map(|(level, before)| (1.0 - level / before) as f32).collect();
        Ok(Self::tabulated(betas))
    }

    fn tabulated(betas: Vec<f32>) -> Self {
        let mut product = 1.0f64;
        let alphas_cumprod = betas
            .iter()
            .map(|&beta| {
                product *= f64::from(1.0f32 - beta);
                product as f32
            })
            .collect();
        Self { betas, alphas_cumprod }
    }

    /// The number of timesteps, `T`.
    pub fn len(&self) -> usize {
        self.betas.len()
    }

    /// Always false: a schedule has at least one timestep.
    pub fn is_empty(&self) -> bool {
        self.betas.is_empty()
    }

    /// `β[t]` for every `t`.
    pub fn betas(&self) -> &[f32] {
        &self.betas
    }

    /// `ᾱ[t]` for every `t`: the share of the signal's variance that remains.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// `ᾱ[t]`; 1 for `t` outside the table, by which a sampler means "before the first timestep" (clean).
    pub fn alpha_cumprod(&self, t: i64) -> f64 {
        usize::try_from(t).ok().and_then(|t| self.alphas_cumprod.get(t)).map_or(1.0, |&a| f64::from(a))
    }

    /// Like [`alpha_cumprod`](Self::alpha_cumprod), but 2⁻²⁴ where that is zero, so that a solver that takes logarithms gets a finite
    /// number; diffusers does the same.
    pub(super) fn alpha_cumprod_above_zero(&self, t: i64) -> f64 {
        let a = self.alpha_cumprod(t);
        if a == 0.0 { (-24f64).exp2() } else { a }
    }

    /// Signal-to-noise ratio `ᾱ[t] / (1 − ᾱ[t])`.
    pub fn snr(&self, t: i64) -> f64 {
        let a = self.alpha_cumprod(t);
        a / (1.0 - a)
    }
}
