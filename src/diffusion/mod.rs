//! Gaussian diffusion: schedules, training loss, samplers.
//!
//! [`GaussianDiffusion`] adds noise to the features of a [`SparseConvTensor`](crate::sparse::SparseConvTensor), trains any [`Denoiser`] to
//! undo this, and samples with DDPM, DDIM or DPM-Solver++. The formulas are those of the papers named in each file; the numbers are those
//! of diffusers.

mod clip;
mod gaussian;
mod inpaint;
mod linear;
mod loss;
mod noise;
mod recorded;
mod sampling;
mod schedule;
mod solver;
mod spacing;

pub use clip::Clip;
pub use gaussian::{Denoiser, DiffusionConfig, GaussianDiffusion, Prediction};
pub use inpaint::InpaintOptions;
pub use loss::{LossHistory, LossOptions, TrainingLoss};
pub use recorded::Recorded;
pub use sampling::{SampleOptions, SampleStep, Sampling, StepCallback};
pub use schedule::{BetaSchedule, NoiseSchedule};
pub use solver::{Posterior, Sampler};
pub use spacing::TimestepSpacing;
