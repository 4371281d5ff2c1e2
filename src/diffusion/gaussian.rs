//! The diffusion process itself: noising, what a network may predict, and how its answer is read.
//!
//! `x_t = √ᾱ·x_0 + √(1−ᾱ)·ε`. A network predicts `ε` (Ho et al. 2020), `x_0`, or `v = √ᾱ·ε − √(1−ᾱ)·x_0`
//! (Salimans & Ho 2022); each of the three gives the two others. Timesteps belong to batch elements; every site takes
//! the timestep of the element it lies in.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

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

named_as_in_files!(Prediction);

impl Prediction {
    /// The prediction called `epsilon`, `x0`, `sample`, `v` or `v_prediction`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
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

/// A network that can be trained and sampled: any closure of this signature is one.
/// [`WaveMeshUNet`](crate::unet::WaveMeshUNet).
pub trait Denoiser {
    /// The prediction for `x`, with the same sites in the same order.
    ///
    /// `timesteps` is (batch_size,) `f32`; `context` is whatever the network is conditioned on, `None` when
    /// unconditional; `train` switches dropout and batch statistics on. Only then must the prediction be differentiable.
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

/// How a [`GaussianDiffusion`] noises and what its network predicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    /// `γ` of the min-SNR loss weighting (Hang et al. 2023; 5 is theirs), `None` for an unweighted loss.
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
        min_snr_gamma(min_snr_gamma: f64) => min_snr_gamma = Some(min_snr_gamma);
    }
}

/// Gaussian diffusion over the features of sparse tensors; sites stay as they are.
///
/// ```
/// use wavemesh::diffusion::{DiffusionConfig, GaussianDiffusion};
/// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &candle_core::Device::Cpu)?;
/// assert!((diffusion.posterior(487)?.variance - 0.00979).abs() < 1e-5);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GaussianDiffusion {
    config: DiffusionConfig,
    schedule: Arc<NoiseSchedule>,
    device: Device,
}

impl GaussianDiffusion {
    /// Tabulates the schedule of `config`; tensors made here live on `device`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a schedule without timesteps, betas out of range or a `min_snr_gamma` not above 0.
    pub fn new(config: &DiffusionConfig, device: &Device) -> Result<Self> {
        if let Some(gamma) = config.min_snr_gamma.filter(|&gamma| gamma.is_nan() || gamma <= 0.0) {
            return Err(Error::Argument {
                op: "GaussianDiffusion::new",
                name: "min_snr_gamma",
                got: gamma.to_string(),
                expected: "a number above 0, or none".into(),
            });
        }
        let schedule = NoiseSchedule::new(config.schedule, config.timesteps, config.beta_start, config.beta_end)?;
        Ok(Self { config: config.clone(), schedule: Arc::new(schedule), device: device.clone() })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &DiffusionConfig {
        &self.config
    }

    /// The tabulated schedule.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Where its tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// `q(x_{t−1} | x_t, x_0)`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `t` is below the number of timesteps.
    pub fn posterior(&self, t: usize) -> Result<Posterior> {
        self.posterior_between(t, t as i64 - 1)
    }

    /// `q(x_s | x_t, x_0)` for any cleaner `s < t`; `s < 0` means fully clean.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `s < t` and `t` is below the number of timesteps.
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

    /// Noises `x0` to each batch element's own timestep: `√ᾱ·x_0 + √(1−ᾱ)·noise`.
    ///
    /// `timesteps` has one entry a batch element; `noise` has the shape of the features, (N, C).
    ///
    /// # Errors
    /// [`Error::Argument`] for a timestep outside the schedule or a wrong number of them, [`Error::Shape`] for noise
    /// of another shape.
    pub fn q_sample(&self, x0: &SparseConvTensor, timesteps: &[usize], noise: &Tensor) -> Result<SparseConvTensor> {
        self.check_timesteps("q_sample", x0, timesteps)?;
        check_same_shape("q_sample", "noise", noise, x0.features())?;
        let signal = self.per_row(x0, timesteps, |a| a.sqrt())?;
        let scale = self.per_row(x0, timesteps, |a| (1.0 - a).sqrt())?;
        x0.replace_feature((x0.features().broadcast_mul(&signal)? + noise.broadcast_mul(&scale)?)?)
    }

    /// What the network should output for `x0` noised with `noise`, (N, C).
    pub(super) fn target(&self, x0: &SparseConvTensor, timesteps: &[usize], noise: &Tensor) -> Result<Tensor> {
        Ok(match self.config.prediction {
            Prediction::Epsilon => noise.clone(),
            Prediction::X0 => x0.features().clone(),
            Prediction::V => {
                let signal = self.per_row(x0, timesteps, |a| a.sqrt())?;
                let scale = self.per_row(x0, timesteps, |a| (1.0 - a).sqrt())?;
                (noise.broadcast_mul(&signal)? - x0.features().broadcast_mul(&scale)?)?
            }
        })
    }

    /// Reads the network's `output` at timestep `t` as (`x_0`, `ε`).
    pub(super) fn estimates(&self, output: &Tensor, x: &Tensor, t: usize) -> Result<(Tensor, Tensor)> {
        let alpha = self.schedule.alpha_cumprod(t as i64);
        let (signal, scale) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        Ok(match self.config.prediction {
            Prediction::Epsilon => (((x - (output * scale)?)? / signal)?, output.clone()),
            Prediction::X0 => (output.clone(), self.noise_from_x0(output, x, t)?),
            Prediction::V => (((x * signal)? - (output * scale)?)?, ((output * signal)? + (x * scale)?)?),
        })
    }

    /// The noise that `x` at timestep `t` holds if its clean version is `x0`.
    pub(super) fn noise_from_x0(&self, x0: &Tensor, x: &Tensor, t: usize) -> Result<Tensor> {
        let alpha = self.schedule.alpha_cumprod(t as i64);
        Ok(((x - (x0 * alpha.sqrt())?)? / (1.0 - alpha).sqrt())?)
    }

    /// `f(ᾱ)` of the batch element's timestep for every site, (N, 1).
    fn per_row(&self, x: &SparseConvTensor, timesteps: &[usize], f: impl Fn(f64) -> f64) -> Result<Tensor> {
        let per_element: Vec<f32> =
            timesteps.iter().map(|&t| f(self.schedule.alpha_cumprod(t as i64)) as f32).collect();
        broadcast_to_sites(x, &per_element)
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

/// One number a batch element, repeated for each of its sites: (N, 1) of the features' dtype.
pub(super) fn broadcast_to_sites(x: &SparseConvTensor, per_element: &[f32]) -> Result<Tensor> {
    let rows: Vec<f32> = x.coords().iter().map(|site| per_element[site[0] as usize]).collect();
    Ok(Tensor::from_vec(rows, (x.len(), 1), x.device())?.to_dtype(x.features().dtype())?)
}

/// One timestep for each batch element, as a network takes them: (batch_size,) `f32`.
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
