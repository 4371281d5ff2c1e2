//! The diffusion process: how samples are noised, what a network may predict, and how its output is read.
//!
//! `x_t = √ᾱ·x_0 + √(1−ᾱ)·ε`. A network predicts `ε` (Ho et al. 2020), `x_0`, or `v = √ᾱ·ε − √(1−ᾱ)·x_0` (Salimans & Ho 2022); the other
//! two follow from any one of them. Timesteps belong to batch elements; every site has the timestep of its element.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::linear::{Run, Term, combine_rows};
use super::{BetaSchedule, NoiseSchedule, Posterior};
use crate::sparse::SparseConvTensor;
use crate::{Error, Result};

/// What the network is trained to output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise `ε`.
    #[default]
    Epsilon,
    /// The clean sample `x_0`; diffusers' `sample`.
    #[serde(alias = "sample")]
    X0,
    /// The velocity `v`; diffusers' `v_prediction`.
    #[serde(alias = "v_prediction")]
    V,
}

named!(Prediction, crate::builder::name_in_files);

impl Prediction {
    /// The prediction called `epsilon`, `x0`, `sample`, `v` or `v_prediction`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// assert_eq!(Prediction::from_name("v_prediction")?, Prediction::V);
    /// assert_eq!(Prediction::from_name("score").unwrap_err().to_string(),
    ///     "unknown prediction `score`; known: epsilon, x0 (also sample), v (also v_prediction)");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "epsilon" | "eps" => Ok(Self::Epsilon),
            "x0" | "sample" => Ok(Self::X0),
            "v" | "v_prediction" => Ok(Self::V),
            _ => Err(Error::Unknown {
                kind: "prediction",
                name: name.into(),
                known: "epsilon, x0 (also sample), v (also v_prediction)".into(),
            }),
        }
    }
}

/// A network that can be trained and sampled, such as [`WaveMeshUNet`](crate::unet::WaveMeshUNet). Any closure with this signature is one
/// too.
pub trait Denoiser {
    /// The prediction for `x`, with the same sites in the same order.
    ///
    /// `timesteps` is (batch_size,) `f32`. `context` is the condition of the network, `None` if there is none. `train` switches dropout and
    /// batch statistics on; only then must the prediction be differentiable.
    ///
    /// # Errors
    /// Errors of the network about its input.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let network = |x: &SparseConvTensor, t: &Tensor, _context: Option<&Tensor>, _train: bool| {
    ///     x.replace_feature(x.features().broadcast_mul(t)?)
    /// };
    /// let output = network.predict(&x, &Tensor::new(&[10f32], &Device::Cpu)?, None, false)?;
    /// assert_eq!(output.features().to_vec2::<f32>()?, [[10.0], [20.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    fn predict(
        &self,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        train: bool,
    ) -> Result<SparseConvTensor>;
}

impl<F> Denoiser for F
where
    F: Fn(&SparseConvTensor, &Tensor, Option<&Tensor>, bool) -> Result<SparseConvTensor>,
{
    fn predict(
        &self,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        train: bool,
    ) -> Result<SparseConvTensor> {
        self(x, timesteps, context, train)
    }
}

/// How a [`GaussianDiffusion`] noises, and what its network predicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DiffusionConfig {
    /// Number of timesteps `T`.
    pub timesteps: usize,
    /// Shape of the noise schedule.
    pub schedule: BetaSchedule,
    /// First `β`, in (0, 1).
    pub beta_start: f64,
    /// Last `β`, in (0, 1), not below `beta_start`.
    pub beta_end: f64,
    /// What the network outputs.
    pub prediction: Prediction,
    /// A `β` for each timestep in place of a schedule (diffusers' name). Then `schedule`, `beta_start` and `beta_end` have no effect.
    pub trained_betas: Option<Vec<f64>>,
    /// Rescales the schedule so that the last timestep is pure noise (Lin et al. 2023, algorithm 1; diffusers' name). The network must then
    /// predict `x_0` or `v`: from pure noise, a prediction of the noise tells nothing about `x_0`.
    pub rescale_betas_zero_snr: bool,
    /// `γ` of the min-SNR loss weighting (Hang et al. 2023, who use 5); `None` for an unweighted loss.
    pub min_snr_gamma: Option<f64>,
}

impl Default for DiffusionConfig {
    fn default() -> Self {
        Self {
            timesteps: 1000,
            schedule: BetaSchedule::Linear,
            beta_start: 1e-4,
            beta_end: 0.02,
            prediction: Prediction::Epsilon,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            min_snr_gamma: None,
        }
    }
}

setters! {
    DiffusionConfig {
        timesteps(timesteps: usize) => timesteps = timesteps;
        schedule(schedule: BetaSchedule) => schedule = schedule;
        beta_start(beta_start: f64) => beta_start = beta_start;
        beta_end(beta_end: f64) => beta_end = beta_end;
        prediction(prediction: Prediction) => prediction = prediction;
        trained_betas(trained_betas: Vec<f64>) => trained_betas = Some(trained_betas);
        rescale_betas_zero_snr(rescale: bool) => rescale_betas_zero_snr = rescale;
        min_snr_gamma(min_snr_gamma: f64) => min_snr_gamma = Some(min_snr_gamma);
    }
}

/// Gaussian diffusion of the features of sparse tensors. Sites do not change.
///
/// ```
/// use wavemesh::diffusion::{DiffusionConfig, GaussianDiffusion};
/// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &candle_core::Device::Cpu)?;
/// assert!((diffusion.posterior(487)?.variance - 0.00979).abs() < 1e-5);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[doc(alias = "DDPMScheduler")]
#[derive(Clone, Debug)]
pub struct GaussianDiffusion {
    config: DiffusionConfig,
    schedule: Arc<NoiseSchedule>,
    device: Device,
}

impl GaussianDiffusion {
    /// Tabulates the schedule of `config`. Tensors made by the process are on `device`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a schedule without timesteps, betas that are out of range or not as many as the timesteps, a schedule that
    /// ends in pure noise if noise is predicted, or a `min_snr_gamma` that is not above 0.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let config = DiffusionConfig::new().rescale_betas_zero_snr(true);
    /// assert!(GaussianDiffusion::new(&config, &Device::Cpu).is_err()); // pure noise tells a network that predicts noise nothing
    /// let diffusion = GaussianDiffusion::new(&config.prediction(Prediction::V), &Device::Cpu)?;
    /// assert_eq!(diffusion.schedule().alpha_cumprod(999), 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: &DiffusionConfig, device: &Device) -> Result<Self> {
        if let Some(gamma) = config.min_snr_gamma.filter(|&gamma| gamma.is_nan() || gamma <= 0.0) {
            return Err(Error::Argument {
                op: "GaussianDiffusion::new",
                name: "min_snr_gamma",
                got: gamma.to_string(),
                expected: "a number above 0, or none".into(),
            });
        }
        let bad = |name, got: String, expected: String| {
            Err(Error::Argument { op: "GaussianDiffusion::new", name, got, expected })
        };
        let schedule = match &config.trained_betas {
            Some(betas) if betas.len() != config.timesteps => {
                let (got, expected) =
                    (format!("{} values", betas.len()), format!("one for each of {} timesteps", config.timesteps));
                return bad("trained_betas", got, expected);
            }
            Some(betas) => NoiseSchedule::from_betas(betas)?,
            None => NoiseSchedule::new(config.schedule, config.timesteps, config.beta_start, config.beta_end)?,
        };
        let schedule = if config.rescale_betas_zero_snr { schedule.with_zero_terminal_snr()? } else { schedule };
        if schedule.alpha_cumprod(schedule.len() as i64 - 1) == 0.0 && config.prediction == Prediction::Epsilon {
            let expected = "x0 or v: the schedule ends in pure noise, and there the noise says nothing of x0".into();
            return bad("prediction", "epsilon".into(), expected);
        }
        Ok(Self { config: config.clone(), schedule: Arc::new(schedule), device: device.clone() })
    }

    /// The configuration with which it was made.
    pub fn config(&self) -> &DiffusionConfig {
        &self.config
    }

    /// The tabulated schedule.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The device of its tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The posterior `q(x_{t−1} | x_t, x_0)`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `t` is below the number of timesteps.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::new().timesteps(1000), &Device::Cpu)?;
    /// assert_eq!(diffusion.posterior(0)?.variance, 0.0); // the last step ends at x_0 itself
    /// assert!(diffusion.posterior(1000).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn posterior(&self, t: usize) -> Result<Posterior> {
        self.posterior_between(t, t as i64 - 1)
    }

    /// The posterior `q(x_s | x_t, x_0)` for any cleaner `s < t`; a negative `s` means fully clean.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `s < t` and `t` is below the number of timesteps.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu)?;
    /// assert_eq!(diffusion.posterior_between(487, 486)?.variance, diffusion.posterior(487)?.variance);
    /// assert!(diffusion.posterior_between(487, 400)?.variance > diffusion.posterior(487)?.variance);
    /// assert!(diffusion.posterior_between(400, 487).is_err()); // that way the sample would get noisier
    /// # Ok::<(), Error>(())
    /// ```
    pub fn posterior_between(&self, t: usize, s: i64) -> Result<Posterior> {
        self.check_timestep("posterior", t)?;
        if s >= t as i64 {
            return Err(Error::Argument {
                op: "posterior",
                name: "s",
                got: s.to_string(),
                expected: format!("less than t = {t}"),
            });
        }
        Ok(Posterior::new(&self.schedule, t as i64, s))
    }

    /// Noises each batch element of `x0` to its own timestep: `√ᾱ·x_0 + √(1−ᾱ)·noise`.
    ///
    /// `timesteps` has one entry for each batch element; `noise` has the shape of the features, (N, C).
    ///
    /// # Errors
    /// [`Error::Argument`] for a timestep outside the schedule or a wrong number of them, [`Error::Shape`] for noise
    /// of another shape.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu)?;
    /// let noise = Tensor::ones((2, 1), DType::F32, &Device::Cpu)?;
    /// let noised = diffusion.q_sample(&x, &[500], &noise)?.features().to_vec2::<f32>()?;
    /// let kept = diffusion.schedule().alpha_cumprod(500); // sqrt(ā)·x + sqrt(1 − ā)·noise
    /// assert!((f64::from(noised[1][0]) - (kept.sqrt() * 2.0 + (1.0 - kept).sqrt())).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "add_noise")]
    pub fn q_sample(&self, x0: &SparseConvTensor, timesteps: &[usize], noise: &Tensor) -> Result<SparseConvTensor> {
        self.check_timesteps("q_sample", x0, timesteps)?;
        check_same_shape("q_sample", "noise", noise, x0.features())?;
        x0.replace_feature(combine_rows(&self.levels_of_rows(x0, timesteps), x0.features(), noise)?)
    }

    /// What the network should output for `x0` noised with `noise`, (N, C).
    pub(super) fn target(&self, x0: &SparseConvTensor, timesteps: &[usize], noise: &Tensor) -> Result<Tensor> {
        Ok(match self.config.prediction {
            Prediction::Epsilon => noise.clone(),
            Prediction::X0 => x0.features().clone(),
            Prediction::V => {
                let mut runs = self.levels_of_rows(x0, timesteps);
                runs.iter_mut().for_each(|run| run.factors[1] *= -1.0);
                combine_rows(&runs, noise, x0.features())?
            }
        })
    }

    /// `√ᾱ` and `√(1−ᾱ)` of each site's timestep, as runs of rows: one run if the rows of an element are together.
    fn levels_of_rows(&self, x: &SparseConvTensor, timesteps: &[usize]) -> Vec<Run> {
        let levels = timesteps.iter().map(|&t| self.schedule.alpha_cumprod(t as i64));
        let factors: Vec<[f32; 2]> = levels.map(|a| [a.sqrt() as f32, (1.0 - a).sqrt() as f32]).collect();
        if let &[factors] = factors.as_slice() {
            return vec![Run { end: x.len(), factors }];
        }
        let mut end = 0;
        let of_element = |sites: &[[i32; 4]]| {
            end += sites.len();
            Run { end, factors: factors[sites[0][0] as usize] }
        };
        x.coords().chunk_by(|a, b| a[0] == b[0]).map(of_element).collect()
    }

    pub(super) fn check_timesteps(&self, op: &'static str, x: &SparseConvTensor, timesteps: &[usize]) -> Result<()> {
        if timesteps.len() != x.batch_size() {
            return Err(Error::Argument {
                op,
                name: "timesteps",
                got: format!("{} entries", timesteps.len()),
                expected: format!("one for each of the {} batch elements", x.batch_size()),
            });
        }
        timesteps.iter().try_for_each(|&t| self.check_timestep(op, t))
    }

    fn check_timestep(&self, op: &'static str, t: usize) -> Result<()> {
        if t < self.schedule.len() {
            return Ok(());
        }
        Err(Error::Argument {
            op,
            name: "t",
            got: t.to_string(),
            expected: format!("a timestep of the schedule, 0 to {}", self.schedule.len() - 1),
        })
    }
}

/// Converts the network's `output` for `x` to `x_0` and `ε`, each as a weighted sum of terms; `alpha_cumprod` is `ᾱ` of `x`.
pub(super) fn estimates<'a>(
    prediction: Prediction,
    output: &'a Tensor,
    x: &'a Tensor,
    alpha_cumprod: f64,
) -> (Vec<Term<'a>>, Vec<Term<'a>>) {
    let (signal, scale) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
    match prediction {
        Prediction::Epsilon => (vec![(1.0 / signal, x), (-scale / signal, output)], vec![(1.0, output)]),
        Prediction::X0 => (vec![(1.0, output)], noise_from_x0(output, x, alpha_cumprod)),
        Prediction::V => (vec![(signal, x), (-scale, output)], vec![(signal, output), (scale, x)]),
    }
}

/// The noise in `x` if its clean version is `x0`, as a weighted sum.
pub(super) fn noise_from_x0<'a>(x0: &'a Tensor, x: &'a Tensor, alpha_cumprod: f64) -> Vec<Term<'a>> {
    let (signal, scale) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
    vec![(1.0 / scale, x), (-signal / scale, x0)]
}

/// One number for each batch element, repeated for each of its sites: (N, 1) with the features' dtype.
pub(super) fn broadcast_to_sites(x: &SparseConvTensor, per_element: &[f32]) -> Result<Tensor> {
    let rows: Vec<f32> = x.coords().iter().map(|site| per_element[site[0] as usize]).collect();
    Ok(Tensor::from_vec(rows, (x.len(), 1), x.device())?.to_dtype(x.features().dtype())?)
}

/// One timestep for each batch element, in the form that a network takes: (batch_size,) `f32`.
pub(super) fn timestep_tensor(timesteps: &[usize], device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    Ok(Tensor::from_vec(values, timesteps.len(), device)?.to_dtype(DType::F32)?)
}

pub(super) fn check_same_shape(op: &'static str, what: &'static str, got: &Tensor, expected: &Tensor) -> Result<()> {
    if got.dims() == expected.dims() {
        return Ok(());
    }
    Err(Error::Shape { op, what, got: got.dims().to_vec(), expected: format!("{:?}", expected.dims()) })
}
