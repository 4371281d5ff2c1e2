//! Completes a shape of which a part is given: [`Generator::complete`].

use candle_core::Tensor;

use super::noise::Noise;
use super::{GenerateOptions, Generator, Wish};
use crate::Result;
use crate::diffusion::InpaintOptions;
use crate::sdf::SdfGrid;
use crate::train::representation::{StageCode, stage_batch};

impl Generator {
    /// Draws `count` shapes that agree with `part` at every place (x, y, z in the cube [-1, 1]³) for which `known` is true; the missing
    /// part is drawn separately for each. The values of `part` elsewhere have no effect. In every stage, coefficients are given if their site and
    /// its neighbours are known. The others are drawn around them
    /// ([`GaussianDiffusion::inpaint`](crate::diffusion::GaussianDiffusion::inpaint)), with as many steps as the samplers have.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a grid whose resolution is not the generator's; and the errors of
    /// [`generate`](Self::generate).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// let chair = wavemesh::train::ProceduralShape::new(Family::PlainChair, 1).sdf(32)?;
    /// let few = Sampler::Ddim { steps: 2, eta: 0.0 };
    /// let options = GenerateOptions::new().sampler(few).detail_sampler(few).turns(1);
    /// let completed = generator.complete(&chair, |[_, _, z]| z < 0.0, 2, &options)?; // the lower half is known
    /// assert_eq!(completed.len(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn complete(
        &self,
        part: &SdfGrid,
        known: impl Fn([f32; 3]) -> bool,
        count: usize,
        options: &GenerateOptions,
    ) -> Result<Vec<SdfGrid>> {
        self.representation.check(part)?;
        let wish = self.wish(options, count)?;
        let one = |shape: usize| {
            let seed = options.seed.wrapping_add(shape as u64);
            let wish = wish.part(shape, 1)?;
            let mut codes: Vec<StageCode> = Vec::new();
            for stage in 0..self.stages.len() {
                let mut code = self.representation.next_sites(&codes)?;
                if !code.sites.is_empty() {
                    code.features = self.complete_stage(stage, &code, (part, &known), (&wish, seed), options)?;
                }
                codes.push(code);
            }
            self.decoded(&codes, options)
        };
        (0..count).map(one).collect()
    }

    /// Draws the features of a stage around the known ones.
    fn complete_stage(
        &self,
        stage: usize,
        code: &StageCode,
        (part, known): (&SdfGrid, &impl Fn([f32; 3]) -> bool),
        (wish, seed): (&Wish, u64),
        options: &GenerateOptions,
    ) -> Result<Vec<f32>> {
        let (model, grid) = (&self.stages[stage], self.representation.grid_of(stage));
        let features = self.representation.features_on(part, stage, &code.sites)?;
        let (given, condition) = stage_batch(&[&StageCode { features, ..code.clone() }], grid, model.network.device())?;
        let around = |site: &[i32; 3]| {
            let place = |i: i32, step: i32| (2 * (i + step) + 1) as f32 / grid as f32 - 1.0;
            let steps = (-1..=1).flat_map(|z| (-1..=1).flat_map(move |y| (-1..=1).map(move |x| [x, y, z])));
            steps.into_iter().all(|[x, y, z]| known([place(site[2], x), place(site[1], y), place(site[0], z)]))
        };
        let mask: Vec<bool> = code.sites.iter().map(around).collect();
        let (network, context) = self.told(stage, &condition, wish, 1)?;
        let noise = Noise::of(seed).at(stage, grid, &code.sites);
        let sampler = if stage == 0 { options.sampler } else { options.detail_sampler };
        let inpainting = InpaintOptions {
            steps: sampler.steps(),
            turns: options.turns,
            seed: Noise::stage_seed(seed, stage),
            clip: options.clip.clone(),
            context,
            start: Some(Tensor::from_vec(noise, given.features().dims(), model.network.device())?),
        };
        let whole = model.diffusion.inpaint(&network, &given, &mask, &inpainting)?;
        Ok(whole.features().flatten_all()?.to_vec1()?)
    }
}
