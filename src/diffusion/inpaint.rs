//! Completion: samples the unknown part of a sample whose other part is known.
//!
//! RePaint (Lugmayr et al. 2022, algorithm 1) with DDIM's steps. After each step, the known sites are set to their clean values, noised to
//! the step's level. Each step is repeated several times, with noise added back in between, so that the sampled sites come to agree with
//! the known ones. Without these repetitions, a sample agrees only at the border.

use candle_core::Tensor;

use super::gaussian::{check_same_shape, estimates, noise_from_x0, timestep_tensor};
use super::linear::combine;
use super::{Clip, Denoiser, GaussianDiffusion, TimestepSpacing};
use crate::sparse::SparseConvTensor;
use crate::task::Task;
use crate::{Error, Result, random};

/// How a sample is completed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InpaintOptions {
    /// Number of timesteps.
    pub steps: usize,
    /// How many times each step is repeated: more turns agree better, and take longer.
    pub turns: usize,
    /// Seed of all noise.
    pub seed: u64,
    /// How the estimate of `x_0` is kept in range.
    pub clip: Clip,
    /// What the network is conditioned on.
    pub context: Option<Tensor>,
    /// Starts from this `x_T` (N, C) instead of seeded noise.
    pub start: Option<Tensor>,
}

impl Default for InpaintOptions {
    fn default() -> Self {
        Self { steps: 50, turns: 5, seed: 0, clip: Clip::None, context: None, start: None }
    }
}

setters! {
    InpaintOptions {
        steps(steps: usize) => steps = steps;
        turns(turns: usize) => turns = turns;
        seed(seed: u64) => seed = seed;
        clip(clip: Clip) => clip = clip;
        context(context: Tensor) => context = Some(context);
        start(start: Tensor) => start = Some(start);
    }
}

impl GaussianDiffusion {
    /// Draws a sample on the sites of `known`. Where `mask` is true, its features are those of `known`; elsewhere the features of `known`
    /// have no effect.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wavemesh::diffusion::{DiffusionConfig, GaussianDiffusion, InpaintOptions};
    /// use wavemesh::sparse::SparseConvTensor;
    /// use wavemesh::unet::{UNetConfig, WaveMeshUNet};
    /// # fn main() -> wavemesh::Result<()> {
    /// let device = Device::Cpu;
    /// let unet = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4]), 0, &device)?;
    /// let features = Tensor::new(&[[0.5f32], [0.0]], &device)?;
    /// let known = SparseConvTensor::from_coords(features, vec![[0, 1, 1, 1], [0, 1, 1, 2]], [4, 4, 4], 1)?;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &device)?;
    /// let options = InpaintOptions::new().steps(4).turns(2);
    /// let whole = diffusion.inpaint(&unet, &known, &[true, false], &options)?;
    /// assert_eq!(whole.features().to_vec2::<f32>()?[0], [0.5]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the mask does not have one entry per site; [`Error::Argument`] for steps, turns or a clip out of range;
    /// [`Error::Interrupted`] after a stop; and errors of the network.
    pub fn inpaint(
        &self,
        model: &dyn Denoiser,
        known: &SparseConvTensor,
        mask: &[bool],
        options: &InpaintOptions,
    ) -> Result<SparseConvTensor> {
        const OP: &str = "inpaint";
        if mask.len() != known.len() {
            let expected = format!("one entry for each of {} sites", known.len());
            return Err(Error::Shape { op: OP, what: "the mask", got: vec![mask.len()], expected });
        }
        if options.turns == 0 {
            return Err(Error::argument(OP, "turns", 0, "1 or more"));
        }
        options.clip.validate(known.channels())?;
        let shape = (known.len(), known.channels());
        let clean = known.features();
        let fresh = |stream: u64| -> Result<Tensor> {
            let noise = random::gaussian(&mut random::rng(options.seed, stream), shape, self.device())?;
            Ok(noise.to_dtype(clean.dtype())?)
        };
        let kept: Vec<u8> = mask.iter().map(|&known| u8::from(known)).collect();
        let kept = Tensor::from_vec(kept, (shape.0, 1), self.device())?.broadcast_as(shape)?.contiguous()?;
        let mut x = match &options.start {
            Some(start) => {
                check_same_shape(OP, "start", start, clean)?;
                start.clone()
            }
            None => fresh(0)?,
        };
        let timesteps = TimestepSpacing::Trailing.timesteps(options.steps, self.schedule(), false)?;
        let task = Task::new("completing", timesteps.len());
        let mut stream = 0;
        for (i, &t) in timesteps.iter().enumerate() {
            let next = timesteps.get(i + 1).map_or(-1, |&next| next as i64);
            let (level, next_level) = (self.schedule().alpha_cumprod(t as i64), self.schedule().alpha_cumprod(next));
            let turns = if next < 0 { 1 } else { options.turns };
            for turn in 0..turns {
                let asked = known.replace_feature(x.clone())?;
                let when = timestep_tensor(&vec![t; known.batch_size()], self.device())?;
                let output = model.predict(&asked, &when, options.context.as_ref(), false)?;
                known.expect_same_sites(OP, "the network's output", &output)?;
                check_same_shape(OP, "the network's output", output.features(), clean)?;
                let output = output.features().detach();
                let (sum, _) = estimates(self.config().prediction, &output, &x, level);
                let x0 = options.clip.apply(&combine(&sum)?, &asked)?;
                let eps = combine(&noise_from_x0(&x0, &x, level))?;
                let drawn = combine(&[(next_level.sqrt(), &x0), ((1.0 - next_level).sqrt(), &eps)])?;
                stream += 2;
                let given = match next {
                    ..0 => clean.clone(),
                    _ => combine(&[(next_level.sqrt(), clean), ((1.0 - next_level).sqrt(), &fresh(stream)?)])?,
                };
                x = kept.where_cond(&given, &drawn)?;
                if turn + 1 < turns {
                    let ratio = level / next_level;
                    x = combine(&[(ratio.sqrt(), &x), ((1.0 - ratio).sqrt(), &fresh(stream + 1)?)])?;
                }
            }
            task.advance(1)?;
        }
        known.replace_feature(x)
    }
}
