//! [`Generator`]: all trained stages together, which turn a seed into shapes.

mod complete;
mod file;
mod noise;
mod options;

use candle_core::{DType, Tensor};
use noise::Noise;
pub use options::GenerateOptions;
use rayon::prelude::*;

use super::data::{Conditioned, one_hot};
use super::representation::{Representation, StageCode, stage_batch};
use crate::diffusion::{GaussianDiffusion, SampleOptions, SampleStep, TimestepSpacing};
use crate::sdf::SdfGrid;
use crate::unet::WaveMeshUNet;
use crate::{Error, Result};

/// What fewer than this share of the training shapes has is removed from generated shapes.
const RARE: f64 = 0.01;
/// Parts below this share of the largest are removed.
const SPECK: f64 = 0.01;

/// What the shapes of a call should be.
struct Wish {
    /// The number of their class.
    class: Option<usize>,
    /// (shapes, views, width)
    context: Option<Tensor>,
}

impl Wish {
    /// The wish for `count` of the shapes, from number `first`.
    fn part(&self, first: usize, count: usize) -> Result<Self> {
        let context = self.context.as_ref().map(|context| context.narrow(0, first, count)).transpose()?;
        Ok(Self { class: self.class, context })
    }
}

/// A stage's network, and the diffusion for which it was trained.
#[derive(Debug)]
pub struct StageModel {
    /// The network. Its input has the stage's channels, those of its condition and, in stage 0, one for each class.
    pub network: WaveMeshUNet,
    /// Its diffusion process.
    pub diffusion: GaussianDiffusion,
}

/// A representation and a trained network for each of its stages.
#[derive(Debug)]
pub struct Generator {
    representation: Representation,
    stages: Vec<StageModel>,
    classes: Vec<String>,
}

impl Generator {
    /// Input and output channels of a stage's network if stage 0 knows `classes` classes.
    pub fn channels_of(stage: usize, classes: usize) -> [usize; 2] {
        let channels = Representation::channels_of(stage);
        let labels = if stage == 0 { classes } else { 0 };
        [channels + Representation::condition_channels_of(stage) + labels, channels]
    }

    /// Puts a generator together. `classes` are the names of the labels with which stage 0 was trained; they may be empty.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one network for each stage, with the stage's channels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let representation = Representation::new(&RepresentationConfig::new().resolution(16).levels(2))?;
    /// let stage = |stage| -> wavemesh::Result<StageModel> {
    ///     let [input, output] = Generator::channels_of(stage, 0);
    ///     let network = WaveMeshUNet::seeded(&UNetConfig::plain(input, output, &[4, 8]), 0, &Device::Cpu)?; // trained, in real life
    ///     Ok(StageModel { network, diffusion: GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu)? })
    /// };
    /// assert!(Generator::new(representation.clone(), vec![stage(0)?, stage(1)?], Vec::new()).is_ok());
    /// assert!(Generator::new(representation, vec![stage(0)?], Vec::new()).is_err()); // its last stage has no network
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(representation: Representation, stages: Vec<StageModel>, classes: Vec<String>) -> Result<Self> {
        let expected: Vec<[usize; 2]> =
            (0..representation.stages()).map(|stage| Self::channels_of(stage, classes.len())).collect();
        let got: Vec<[usize; 2]> =
            stages.iter().map(|s| [s.network.config().in_channels, s.network.config().out_channels]).collect();
        if got != expected {
            return Err(Error::Argument {
                op: "Generator::new",
                name: "[in, out] channels of the stages",
                got: format!("{got:?}"),
                expected: format!("{expected:?}"),
            });
        }
        Ok(Self { representation, stages, classes })
    }

    /// The classes that can be asked for: see [`GenerateOptions::class`].
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The representation in which shapes are written.
    pub fn representation(&self) -> &Representation {
        &self.representation
    }

    /// The trained stages, coarse to fine.
    pub fn stages(&self) -> &[StageModel] {
        &self.stages
    }

    /// Generates `count` shapes as signed distance grids.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a stop; an error for options out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// let options = GenerateOptions::new().sampler(Sampler::Ddim { steps: 2, eta: 0.0 }).seed(1); // 50 steps give better shapes
    /// let grids = generator.generate(2, &options)?;
    /// assert_eq!((grids.len(), grids[0].shape()), (2, [32; 3]));
    /// assert!(generator.generate(1, &options.class("teapot")).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn generate(&self, count: usize, options: &GenerateOptions) -> Result<Vec<SdfGrid>> {
        self.finish(vec![Vec::new(); count], options)
    }

    /// Generates shapes whose first stages are given, in the form that [`Representation::encode`] writes: only the later stages are drawn.
    /// Every shape must give the same number of stages.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shapes do not give the same stages; and the errors of [`generate`](Self::generate).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// let chair = wavemesh::train::ProceduralShape::new(Family::PlainChair, 1).sdf(32)?;
    /// let coarse = generator.representation().encode(&chair)?[..1].to_vec(); // details are left out
    /// let options = GenerateOptions::new().detail_sampler(Sampler::Ddim { steps: 2, eta: 0.0 });
    /// assert_eq!(generator.refine(vec![coarse], &options)?[0].shape(), [32; 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn refine(&self, coarse: Vec<Vec<StageCode>>, options: &GenerateOptions) -> Result<Vec<SdfGrid>> {
        let given = coarse.first().map_or(0, Vec::len);
        if given > self.stages.len() || coarse.iter().any(|stages| stages.len() != given) {
            let got = format!("{:?}", coarse.iter().map(Vec::len).collect::<Vec<_>>());
            let expected = format!("the same number of stages of each, up to {}", self.stages.len());
            return Err(Error::argument("refine", "the stages given", got, expected));
        }
        self.finish(coarse, options)
    }

    /// Draws the missing stages, batch by batch.
    fn finish(&self, given: Vec<Vec<StageCode>>, options: &GenerateOptions) -> Result<Vec<SdfGrid>> {
        let wish = self.wish(options, given.len())?;
        let noises = (0..given.len()).map(|shape| Noise::of(options.seed.wrapping_add(shape as u64)));
        let mut all: Vec<(Noise, Vec<StageCode>)> = noises.zip(given).collect();
        let mut grids = Vec::with_capacity(all.len());
        for batch in all.chunks_mut(options.batch_size.max(1)) {
            let (noises, codes): (Vec<Noise>, Vec<_>) = batch.iter_mut().map(std::mem::take).unzip();
            let wish = wish.part(grids.len(), noises.len())?;
            grids.extend(self.run(&noises, codes, &wish, options, &mut |_, _| Ok(()))?);
        }
        Ok(grids)
    }

    /// Like [`generate`](Self::generate). `watch` is called at every sampling step with the shape's number, the stage and the step.
    ///
    /// # Errors
    /// The errors of [`generate`](Self::generate), and those that `watch` returns.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// let few = Sampler::Ddim { steps: 2, eta: 0.0 };
    /// let mut seen = Vec::new();
    /// generator.generate_watched(1, &GenerateOptions::new().sampler(few).detail_sampler(few), |shape, stage, step| {
    ///     seen.push((shape, stage, step.index));
    ///     Ok(())
    /// })?;
    /// assert_eq!(seen[..3], [(0, 0, 0), (0, 0, 1), (0, 1, 0)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn generate_watched(
        &self,
        count: usize,
        options: &GenerateOptions,
        mut watch: impl FnMut(usize, usize, &SampleStep) -> Result<()>,
    ) -> Result<Vec<SdfGrid>> {
        let wish = self.wish(options, count)?;
        let mut grids = Vec::with_capacity(count);
        for shape in 0..count {
            let noise = Noise::of(options.seed.wrapping_add(shape as u64));
            grids.extend(self.run(
                &[noise],
                vec![Vec::new()],
                &wish.part(shape, 1)?,
                options,
                &mut |stage, step| watch(shape, stage, step),
            )?);
        }
        Ok(grids)
    }

    /// `count` shapes between the one generated from `seeds[0]` and the one from `seeds[1]`, both included: the noise from which a shape is
    /// drawn turns gradually from one to the other. `options.seed` has no effect.
    ///
    /// # Errors
    /// [`Error::Argument`] for fewer than two shapes; and the errors of [`generate`](Self::generate).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// let few = Sampler::Ddim { steps: 2, eta: 0.0 };
    /// let options = GenerateOptions::new().sampler(few).detail_sampler(few);
    /// let way = generator.interpolate([1, 2], 3, &options)?;
    /// assert_eq!(way.len(), 3);
    /// assert_eq!(way[0], generator.generate(1, &options.seed(1))?[0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn interpolate(&self, seeds: [u64; 2], count: usize, options: &GenerateOptions) -> Result<Vec<SdfGrid>> {
        if count < 2 {
            return Err(Error::argument("interpolate", "count", count, "at least the two ends"));
        }
        let wish = self.wish(options, count)?;
        let mut grids = Vec::with_capacity(count);
        for i in 0..count {
            // Independent Gaussian fields are orthogonal, so mixing them with the sine and cosine of an angle keeps their standard
            // deviation.
            let (sin, cos) = (std::f32::consts::FRAC_PI_2 * i as f32 / (count - 1) as f32).sin_cos();
            let noise = match i {
                0 => Noise::of(seeds[0]),
                _ if i == count - 1 => Noise::of(seeds[1]),
                _ => Noise { seeds: vec![(seeds[0], cos), (seeds[1], sin)] },
            };
            grids.extend(self.run(&[noise], vec![Vec::new()], &wish.part(i, 1)?, options, &mut |_, _| Ok(()))?);
        }
        Ok(grids)
    }

    /// A stage's network with its condition, and the diffusion's context, which tells the network of stage 0 what `count` shapes should be.
    fn told<'a>(
        &'a self,
        stage: usize,
        condition: &'a Tensor,
        wish: &'a Wish,
        count: usize,
    ) -> Result<(Conditioned<'a, WaveMeshUNet>, Option<Tensor>)> {
        let network = &self.stages[stage].network;
        if stage > 0 || (wish.class.is_none() && wish.context.is_none()) {
            let classes = if stage == 0 { self.classes.len() } else { 0 };
            return Ok((Conditioned { network, condition: Some(condition), classes, attended: None }, None));
        }
        let classes = self.classes.len();
        let attended = wish.context.as_ref();
        let context = if classes > 0 {
            Some(one_hot(&vec![wish.class; count], classes, network.device())?)
        } else {
            attended.cloned()
        };
        Ok((Conditioned { network, condition: Some(condition), classes, attended }, context))
    }

    /// The options' wish for `count` shapes.
    fn wish(&self, options: &GenerateOptions, count: usize) -> Result<Wish> {
        let class = options.class.as_ref().map(|name| self.class(name)).transpose()?;
        if let (Some(scale), None, None) = (options.guidance_scale, class, &options.context) {
            return Err(Error::Argument {
                op: "generate",
                name: "guidance_scale",
                got: format!("{scale} without a class or a context"),
                expected: format!("a class to be guided to, one of {:?}, or a context", self.classes),
            });
        }
        let context = options.context.as_ref().map(|context| self.context_of_each(context, count)).transpose()?;
        Ok(Wish { class, context })
    }

    /// A context (views, width) or (shapes, views, width) as one for each of `count` shapes.
    fn context_of_each(&self, context: &Tensor, count: usize) -> Result<Tensor> {
        let network = &self.stages[0].network;
        let width = network.config().context_dim;
        if !network.config().use_attention {
            let expected = "none: this generator was trained without contexts";
            return Err(Error::argument("generate", "context", format!("{:?}", context.dims()), expected));
        }
        let fits = match *context.dims() {
            [views, own] => views > 0 && own == width,
            [shapes, views, own] => shapes == count && views > 0 && own == width,
            _ => false,
        };
        if !fits {
            let expected = format!("(views, {width}) for all shapes, or ({count}, views, {width})");
            return Err(Error::Shape { op: "generate", what: "context", got: context.dims().to_vec(), expected });
        }
        let context = context.to_device(network.device())?.to_dtype(DType::F32)?;
        Ok(if context.rank() == 2 { context.broadcast_left(count)? } else { context })
    }

    /// A shape without what fewer than one training shape in a hundred has, as [`GenerateOptions::tidy`] leaves it.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes64.safetensors", &Device::Cpu)?;
    /// let hollow = shapes::sphere(0.6).difference(shapes::sphere(0.4)).to_grid(64)?;
    /// assert_eq!(generator.tidied(hollow).count_hollows(), 0); // its training shapes are solid
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn tidied(&self, grid: SdfGrid) -> SdfGrid {
        let Some(topology) = self.representation.topology() else { return grid };
        let grid = if topology.with_hollows < RARE { grid.without_hollows() } else { grid };
        if topology.in_parts < RARE { grid.without_specks(SPECK) } else { grid }
    }

    /// The shape that the stages describe, tidied if the options ask for it.
    fn decoded(&self, codes: &[StageCode], options: &GenerateOptions) -> Result<SdfGrid> {
        let grid = self.representation.decode(codes)?;
        Ok(if options.tidy { self.tidied(grid) } else { grid })
    }

    /// Draws a shape for each noise, all together, after the stages that are given.
    fn run(
        &self,
        noises: &[Noise],
        mut codes: Vec<Vec<StageCode>>,
        wish: &Wish,
        options: &GenerateOptions,
        watch: &mut dyn FnMut(usize, &SampleStep) -> Result<()>,
    ) -> Result<Vec<SdfGrid>> {
        for stage in codes.first().map_or(0, Vec::len)..self.stages.len() {
            let next =
                codes.par_iter().map(|codes| self.representation.next_sites(codes)).collect::<Result<Vec<_>>>()?;
            let features = self.sample_stage(stage, &next, noises, wish, options, &mut |step| watch(stage, step))?;
            for ((codes, mut code), features) in codes.iter_mut().zip(next).zip(features) {
                code.features = features;
                codes.push(code);
            }
        }
        codes.par_iter().map(|codes| self.decoded(codes, options)).collect()
    }

    fn class(&self, name: &str) -> Result<usize> {
        self.classes.iter().position(|class| class == name).ok_or_else(|| Error::Unknown {
            kind: "class",
            name: name.into(),
            known: if self.classes.is_empty() { "none".into() } else { self.classes.join(", ") },
        })
    }

    /// Draws the features of a stage for several shapes, each on its own sites.
    fn sample_stage(
        &self,
        stage: usize,
        codes: &[StageCode],
        noises: &[Noise],
        wish: &Wish,
        options: &GenerateOptions,
        watch: &mut dyn FnMut(&SampleStep) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let model = &self.stages[stage];
        let (channels, grid) = (Representation::channels_of(stage), self.representation.grid_of(stage));
        if codes.iter().all(|code| code.sites.is_empty()) {
            return Ok(vec![Vec::new(); codes.len()]);
        }
        let device = model.network.device();
        let noised: Vec<StageCode> = codes
            .par_iter()
            .zip(noises)
            .map(|(code, noise)| StageCode { features: noise.at(stage, grid, &code.sites), ..code.clone() })
            .collect();
        let (like, condition) = stage_batch(&noised.iter().collect::<Vec<_>>(), grid, device)?;
        let (network, context) = self.told(stage, &condition, wish, codes.len())?;
        let (sampler, spacing) = match stage {
            0 => (options.sampler, options.spacing),
            _ => (options.detail_sampler, TimestepSpacing::default()),
        };
        let sampling = SampleOptions {
            seeds: Some(noises.iter().map(|noise| noise.of_steps(stage)).collect()),
            spacing,
            start: Some(like.features().clone()),
            clip: options.clip.clone(),
            use_clipped_model_output: true,
            guidance_scale: options.guidance_scale.filter(|_| context.is_some()),
            context,
            callback: Some(Box::new(|step| watch(step))),
            ..Default::default()
        };
        let sample = model.diffusion.sample(&network, &like, sampler, sampling)?;
        let all: Vec<f32> = sample.features().flatten_all()?.to_vec1()?;
        let mut rest = all.as_slice();
        let take = |code: &StageCode| {
            let (own, others) = rest.split_at(code.sites.len() * channels);
            rest = others;
            own.to_vec()
        };
        Ok(codes.iter().map(take).collect())
    }
}
