//! Sampling: from noise to a sample, step by step.
//!
//! [`GaussianDiffusion::sample`] runs to the end. [`Sampling`] is a value that can be stepped, watched, interrupted and resumed: it holds
//! everything that a step needs, and the noise of step `i` depends only on the seed and `i`.

use candle_core::{DType, Tensor};

use super::gaussian::{check_same_shape, estimates, noise_from_x0, timestep_tensor};
use super::linear::{combine, is_finite};
use super::noise::element_noise;
use super::solver::Solver;
use super::{Clip, Denoiser, GaussianDiffusion, Sampler, TimestepSpacing};
use crate::sparse::SparseConvTensor;
use crate::task::Task;
use crate::{Error, Result, random};

/// A function that is called after each step. An error from it (or a stop request) ends the sampling.
pub type StepCallback<'a> = Box<dyn FnMut(&SampleStep) -> Result<()> + 'a>;

/// What a sampler does in addition to its formula. The default is unconditional and unclipped, with seed 0.
#[derive(Default)]
#[non_exhaustive]
pub struct SampleOptions<'a> {
    /// Seed of the initial noise and of every step's noise.
    pub seed: u64,
    /// Seeds for each batch element, in place of `seed`: an element's noise is then the same whatever else is in the batch. An element has one
    /// seed with the factor 1, or several, whose noise is added; if the squares of their factors add up to 1, it keeps its deviation.
    pub seeds: Option<Vec<Vec<(u64, f32)>>>,
    /// The choice of timesteps.
    pub spacing: TimestepSpacing,
    /// How the estimate of `x_0` is kept in range.
    pub clip: Clip,
    /// Whether DDIM computes the noise again from the clipped `x_0` (diffusers' `use_clipped_model_output`).
    pub use_clipped_model_output: bool,
    /// What the network is conditioned on.
    pub context: Option<Tensor>,
    /// Classifier-free guidance (Ho & Salimans 2022). `None` and `Some(1.0)` use the conditional prediction. Above 1, the difference from
    /// the unconditional prediction (the network without context) is multiplied by this scale.
    pub guidance_scale: Option<f64>,
    /// Starts from this `x_T` (N, C) instead of seeded noise.
    pub start: Option<Tensor>,
    /// A function that sees every step: for live previews, progress, recording.
    pub callback: Option<StepCallback<'a>>,
}

setters! {
    SampleOptions<'a> {
        seed(seed: u64) => seed = seed;
        seeds(seeds: Vec<u64>) => seeds = Some(seeds.into_iter().map(|seed| vec![(seed, 1.0)]).collect());
        spacing(spacing: TimestepSpacing) => spacing = spacing;
        clip(clip: Clip) => clip = clip;
        use_clipped_model_output(use_clipped_model_output: bool) => use_clipped_model_output = use_clipped_model_output;
        context(context: Tensor) => context = Some(context);
        guidance_scale(guidance_scale: impl Into<Option<f64>>) => guidance_scale = guidance_scale.into();
        start(start: Tensor) => start = Some(start);
        callback(callback: impl FnMut(&SampleStep) -> Result<()> + 'a) => callback = Some(Box::new(callback));
    }
}

/// What a callback receives after a step.
#[derive(Clone, Debug)]
pub struct SampleStep {
    /// Number of this step, from 0.
    pub index: usize,
    /// The total number of steps.
    pub total: usize,
    /// The timestep at which the network ran.
    pub t: usize,
    /// The sample after the step.
    pub x: SparseConvTensor,
    /// The network's (clipped) estimate of the clean sample: the best preview.
    pub x0: SparseConvTensor,
}

/// A sampling run that can be paused after any step.
///
/// It holds everything a step needs except the network, and is `Clone`: keep a copy to go back to.
#[derive(Clone, Debug)]
pub struct Sampling {
    diffusion: GaussianDiffusion,
    solver: Solver,
    noise: NoiseSeeds,
    clip: Clip,
    use_clipped_model_output: bool,
    context: Option<Tensor>,
    guidance_scale: Option<f64>,
    next: usize,
    /// The sample with the dtype of `like`, as the network sees it.
    x: SparseConvTensor,
    /// The same sample in the precision of the steps: single, or double if `like` is double.
    precise: Tensor,
}

/// The seeds of a run's noise.
#[derive(Clone, Debug)]
enum NoiseSeeds {
    /// One for the whole batch.
    Batch(u64),
    /// For each batch element its own, with their factors.
    Elements(Vec<Vec<(u64, f32)>>),
}

impl NoiseSeeds {
    /// Standard normal noise for the rows of `x`: stream 0 for the first sample, and one for each step.
    fn at(&self, stream: u64, x: &SparseConvTensor) -> Result<Tensor> {
        match self {
            Self::Batch(seed) => random::gaussian(&mut random::rng(*seed, stream), (x.len(), x.channels()), x.device()),
            Self::Elements(seeds) => element_noise(seeds, stream, x),
        }
    }
}

impl GaussianDiffusion {
    /// Draws a sample on the sites of `like`; only the number of channels and the dtype of its features matter, not their values. Steps are
    /// computed in at least single precision; the network's input and the result have the dtype of `like`.
    ///
    /// `options` may be `None` or a [`SampleOptions`]. A stop request ends the sampling between steps with [`Error::Interrupted`]. Use
    /// [`GaussianDiffusion::start_sampling`] to keep the finished part after a stop.
    ///
    /// # Errors
    /// [`Error::Argument`] for steps, `eta`, order or clip out of range, for guidance without context, for seeds that are not as many as the
    /// batch elements, or if the network returns values that are not finite; and errors of the network or the callback.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &Device::Cpu)?;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu)?;
    /// let options = SampleOptions::new().seed(1);
    /// let sample = diffusion.sample(&network, &x, Sampler::Ddim { steps: 3, eta: 0.0 }, options)?;
    /// assert!(sample.same_sites(&x));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sample<'a>(
        &self,
        model: &dyn Denoiser,
        like: &SparseConvTensor,
        sampler: Sampler,
        options: impl Into<Option<SampleOptions<'a>>>,
    ) -> Result<SparseConvTensor> {
        let mut options = options.into().unwrap_or_default();
        let mut callback = options.callback.take();
        let mut run = self.start_sampling(like, sampler, options)?;
        let task = Task::new("sampling", run.steps());
        while !run.is_done() {
            match callback.as_mut() {
                Some(callback) => {
                    let step = run.step(model)?;
                    task.advance(1)?;
                    callback(&step)?;
                }
                None => {
                    run.advance(model, false)?;
                    task.advance(1)?;
                }
            }
        }
        Ok(run.into_sample())
    }

    /// A [`Sampling`] before its first step. `options.callback` is only for [`GaussianDiffusion::sample`].
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::Shape`] for options that are out of range or contradict each other.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu)?;
    /// let run = diffusion.start_sampling(&x, Sampler::Ddim { steps: 4, eta: 0.0 }, SampleOptions::new().seed(1))?;
    /// assert_eq!((run.steps(), run.done()), (4, 0));
    /// assert!(run.timesteps().is_sorted_by(|a, b| a > b));
    /// assert!(run.x().same_sites(&x)); // pure noise so far
    /// # Ok::<(), Error>(())
    /// ```
    pub fn start_sampling(
        &self,
        like: &SparseConvTensor,
        sampler: Sampler,
        options: SampleOptions<'_>,
    ) -> Result<Sampling> {
        options.clip.validate(like.channels())?;
        if let Some(scale) = options.guidance_scale.filter(|_| options.context.is_none()) {
            return Err(Error::Argument {
                op: "sample",
                name: "guidance_scale",
                got: format!("{scale} without a context"),
                expected: "a context to be guided by (SampleOptions::context)".into(),
            });
        }
        let noise = match options.seeds {
            Some(seeds) if seeds.len() != like.batch_size() => {
                let expected = format!("one for each of {} batch elements", like.batch_size());
                return Err(Error::argument("sample", "seeds", format!("{} seeds", seeds.len()), expected));
            }
            Some(seeds) => NoiseSeeds::Elements(seeds),
            None => NoiseSeeds::Batch(options.seed),
        };
        let start = match options.start {
            Some(start) => {
                check_same_shape("sample", "start", &start, like.features())?;
                start
            }
            None => noise.at(0, like)?,
        };
        let precise = start.to_dtype(if like.dtype() == DType::F64 { DType::F64 } else { DType::F32 })?.detach();
        Ok(Sampling {
            solver: Solver::new(sampler, options.spacing, self.schedule())?,
            diffusion: self.clone(),
            noise,
            clip: options.clip,
            use_clipped_model_output: options.use_clipped_model_output,
            context: options.context,
            guidance_scale: options.guidance_scale.filter(|&scale| scale != 1.0),
            next: 0,
            x: like.replace_feature(precise.to_dtype(like.dtype())?)?,
            precise,
        })
    }
}

impl Sampling {
    /// The total number of steps.
    pub fn steps(&self) -> usize {
        self.solver.timesteps().len()
    }

    /// The timesteps in the order in which they are visited.
    pub fn timesteps(&self) -> &[usize] {
        self.solver.timesteps()
    }

    /// The number of steps taken.
    pub fn done(&self) -> usize {
        self.next
    }

    /// Whether every step has been taken.
    pub fn is_done(&self) -> bool {
        self.next == self.steps()
    }

    /// The sample so far: `x_T` before the first step, the result after the last.
    pub fn x(&self) -> &SparseConvTensor {
        &self.x
    }

    /// Consumes the run and returns the sample so far.
    pub fn into_sample(self) -> SparseConvTensor {
        self.x
    }

    /// Takes the next step. After an error the run has not moved, so the step can be tried again.
    ///
    /// # Errors
    /// [`Error::Argument`] if all steps are taken, or if the network's output is not finite or not on the sites of its input;
    /// [`Error::Shape`] if it has another shape; and errors of the network.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let knows = |_: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| Ok(x.clone());
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::new().prediction(Prediction::X0), &Device::Cpu)?;
    /// let mut run = diffusion.start_sampling(&x, Sampler::Ddim { steps: 4, eta: 0.0 }, SampleOptions::new())?;
    /// while !run.is_done() {
    ///     let step = run.step(&knows)?;
    ///     assert_eq!(step.x0.features().to_vec2::<f32>()?, [[1.0], [2.0]]); // what the network takes the sample for
    /// }
    /// assert!(run.step(&knows).is_err()); // every step is taken
    /// # Ok::<(), Error>(())
    /// ```
    pub fn step(&mut self, model: &dyn Denoiser) -> Result<SampleStep> {
        let (index, total) = (self.next, self.steps());
        let (t, x0) = self.advance(model, true)?;
        let x0 = x0.to_dtype(self.x.dtype())?;
        Ok(SampleStep { index, total, t, x: self.x.clone(), x0: self.x.replace_feature(x0)? })
    }

    /// Takes the next step and returns its timestep. Also returns the estimate of `x_0` if it is `wanted` or was needed, and otherwise the
    /// new sample. The step is the same in both cases.
    fn advance(&mut self, model: &dyn Denoiser, wanted: bool) -> Result<(usize, Tensor)> {
        let (index, total) = (self.next, self.steps());
        let Some(&t) = self.solver.timesteps().get(index) else {
            return Err(Error::Argument {
                op: "Sampling::step",
                name: "step",
                got: format!("step {index}"),
                expected: format!("at most {total} steps; this run is done"),
            });
        };
        let output = self.predict(model, t)?;
        let (x, level) = (&self.precise, self.solver.level(index));
        let (sum, eps) = estimates(self.diffusion.config().prediction, &output, x, level);
        let taken = self.clip != Clip::None || self.use_clipped_model_output || self.solver.looks_back();
        let x0 = if wanted || taken { Some(self.clip.apply(&combine(&sum)?, &self.x)?) } else { None };
        let sum = match &x0 {
            Some(x0) if taken => vec![(1.0, x0)],
            _ => sum,
        };
        let eps = match &x0 {
            Some(x0) if self.use_clipped_model_output => noise_from_x0(x0, x, level),
            _ => eps,
        };
        let (noise, like) = (&self.noise, &self.x);
        let fresh = || Ok(noise.at(1 + index as u64, like)?.to_dtype(x.dtype())?);
        let next = self.solver.step(self.diffusion.schedule(), index, x, &sum, &eps, fresh)?;
        self.x = self.x.replace_feature(next.to_dtype(self.x.dtype())?)?;
        let x0 = x0.unwrap_or_else(|| next.clone());
        self.precise = next;
        self.next += 1;
        Ok((t, x0))
    }

    /// The network's output (N, C) at timestep `t`, with guidance if requested.
    fn predict(&self, model: &dyn Denoiser, t: usize) -> Result<Tensor> {
        let timesteps = timestep_tensor(&vec![t; self.x.batch_size()], self.diffusion.device())?;
        let ask = |context: Option<&Tensor>| -> Result<Tensor> {
            let output = model.predict(&self.x, &timesteps, context, false)?;
            self.x.expect_same_sites("sample", "the network's output", &output)?;
            check_same_shape("sample", "the network's output", output.features(), self.x.features())?;
            Ok(output.features().detach().to_dtype(self.precise.dtype())?)
        };
        let conditional = ask(self.context.as_ref())?;
        let output = match self.guidance_scale {
            None => conditional,
            Some(scale) => {
                let unconditional = ask(None)?;
                combine(&[(1.0 - scale, &unconditional), (scale, &conditional)])?
            }
        };
        if is_finite(&output)? {
            return Ok(output);
        }
        Err(Error::Argument {
            op: "sample",
            name: "the network's output",
            got: format!("NaN or infinite at timestep {t}"),
            expected: "finite values; was the network trained, and on features in normalised units?".into(),
        })
    }
}
