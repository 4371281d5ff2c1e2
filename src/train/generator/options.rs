//! [`GenerateOptions`]: how shapes are generated.

use candle_core::Tensor;

use crate::diffusion::{Clip, Sampler, TimestepSpacing};

/// How shapes are generated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Sampler of stage 0. Noise at each step (`eta` 1) makes more shapes whole than none (`eta` 0), and takes no longer.
    pub sampler: Sampler,
    /// Sampler of the finer stages, which leave little to decide.
    pub detail_sampler: Sampler,
    /// The timesteps that the sampler of stage 0 visits.
    pub spacing: TimestepSpacing,
    /// Limit for the estimate of `x_0`, in standard deviations of its channel.
    pub clip: Clip,
    /// The class to draw from, one of [`Generator::classes`](super::Generator::classes); `None` draws from all.
    pub class: Option<String>,
    /// What shapes should look like, for a generator that was trained with contexts: the [`patches`](crate::sdf::DepthImage::patches) of a
    /// picture, or whatever embedding it was trained with. (views, width) for all shapes of a call, or (shapes, views, width).
    pub context: Option<Tensor>,
    /// Classifier-free guidance towards the class and the context: above 1, shapes become more typical of them and vary less.
    pub guidance_scale: Option<f64>,
    /// Shape `i` of a call is drawn from `seed + i`, however many shapes the call draws.
    pub seed: u64,
    /// Number of shapes that pass through a network together: more shapes use a GPU better. A watched generation draws the shapes one by
    /// one.
    pub batch_size: usize,
    /// Whether a shape loses what fewer than one training shape in a hundred has: hollows inside, which are filled, and parts of less than 1 %
    /// of the largest. Generators that were saved before 2026-12-01 do not know this about their training shapes and remove nothing.
    pub tidy: bool,
    /// How many times each step of a completion is repeated: see [`Generator::complete`](super::Generator::complete).
    pub turns: usize,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            sampler: Sampler::Ddim { steps: 50, eta: 1.0 },
            detail_sampler: Sampler::Ddim { steps: 10, eta: 0.0 },
            spacing: TimestepSpacing::default(),
            clip: Clip::Static(6.0),
            class: None,
            context: None,
            guidance_scale: None,
            seed: 0,
            batch_size: 1,
            tidy: true,
            turns: 5,
        }
    }
}

setters! {
    GenerateOptions {
        sampler(sampler: Sampler) => sampler = sampler;
        detail_sampler(detail_sampler: Sampler) => detail_sampler = detail_sampler;
        spacing(spacing: TimestepSpacing) => spacing = spacing;
        clip(clip: Clip) => clip = clip;
        class(class: impl Into<String>) => class = Some(class.into());
        context(context: impl Into<Option<Tensor>>) => context = context.into();
        guidance_scale(guidance_scale: impl Into<Option<f64>>) => guidance_scale = guidance_scale.into();
        seed(seed: u64) => seed = seed;
        batch_size(batch_size: usize) => batch_size = batch_size;
        tidy(tidy: bool) => tidy = tidy;
        turns(turns: usize) => turns = turns;
    }
}
