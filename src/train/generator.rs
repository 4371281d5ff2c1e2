//! [`Generator`]: the trained stages together, from a seed to shapes.

use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::data::{Conditioned, one_hot};
use super::representation::{Representation, StageCode, stage_batch};
use crate::diffusion::{Clip, DiffusionConfig, GaussianDiffusion, SampleOptions, SampleStep, Sampler};
use crate::sdf::SdfGrid;
use crate::unet::{UNetConfig, WaveMeshUNet};
use crate::{Error, Result, tensor_file};

const HEADER: &str = "wavemesh.generator";
const FORMAT: &str = "WaveMesh generator";

/// A stage's network and the diffusion that it was trained for.
#[derive(Debug)]
pub struct StageModel {
    /// The network. Its input channels are the stage's, those of its condition, and, in stage 0, one for each class.
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

/// What of a generator is not a tensor.
#[derive(Serialize, Deserialize)]
struct Stored {
    representation: Representation,
    stages: Vec<(UNetConfig, DiffusionConfig)>,
    classes: Vec<String>,
}

/// How shapes are generated.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Sampler of stage 0.
    pub sampler: Sampler,
    /// Sampler of the finer stages, which have little left to decide.
    pub detail_sampler: Sampler,
    /// Limit of the estimate of `x_0`, in deviations of its channel.
    pub clip: Clip,
    /// The class to draw from, one of [`Generator::classes`]; `None` draws from all.
    pub class: Option<String>,
    /// Classifier-free guidance towards the class: above 1 shapes become more typical of it and less varied.
    pub guidance_scale: Option<f64>,
    /// Shape `i` of a call is drawn from `seed + i`, whatever else is drawn.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            sampler: Sampler::Ddim { steps: 50, eta: 0.0 },
            detail_sampler: Sampler::Ddim { steps: 10, eta: 0.0 },
            clip: Clip::Static(6.0),
            class: None,
            guidance_scale: None,
            seed: 0,
        }
    }
}

setters! {
    GenerateOptions {
        sampler(sampler: Sampler) => sampler = sampler;
        detail_sampler(detail_sampler: Sampler) => detail_sampler = detail_sampler;
        clip(clip: Clip) => clip = clip;
        class(class: impl Into<String>) => class = Some(class.into());
        guidance_scale(guidance_scale: impl Into<Option<f64>>) => guidance_scale = guidance_scale.into();
        seed(seed: u64) => seed = seed;
    }
}

impl Generator {
    /// Input and output channels of a stage's network, when stage 0 is told one of `classes` classes.
    pub fn channels_of(stage: usize, classes: usize) -> [usize; 2] {
        let channels = Representation::channels_of(stage);
        let labels = if stage == 0 { classes } else { 0 };
        [channels + Representation::condition_channels_of(stage) + labels, channels]
    }

    /// Puts a generator together. `classes` are the names of the labels that stage 0 was trained with, if it was.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is a network for each stage with the stage's channels.
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

    /// The classes that it can be asked for: see [`GenerateOptions::class`].
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How shapes are written.
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
    /// [`Error::Interrupted`] when stopped; options out of range.
    pub fn generate(&self, count: usize, options: &GenerateOptions) -> Result<Vec<SdfGrid>> {
        self.generate_watched(count, options, |_, _, _| Ok(()))
    }

    /// Like [`generate`](Self::generate); `watch` sees every sampling step: the shape's number, the stage, and the step.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and whatever `watch` returns.
    pub fn generate_watched(
        &self,
        count: usize,
        options: &GenerateOptions,
        mut watch: impl FnMut(usize, usize, &SampleStep) -> Result<()>,
    ) -> Result<Vec<SdfGrid>> {
        let class = options.class.as_ref().map(|name| self.class(name)).transpose()?;
        if let (Some(scale), None) = (options.guidance_scale, class) {
            return Err(Error::Argument {
                op: "generate",
                name: "guidance_scale",
                got: format!("{scale} without a class"),
                expected: format!("a class to be guided to, one of {:?}", self.classes),
            });
        }
        (0..count)
            .map(|shape| {
                let mut codes: Vec<StageCode> = Vec::new();
                for stage in 0..self.stages.len() {
                    let mut code = self.representation.next_sites(&codes)?;
                    if !code.sites.is_empty() {
                        let seed = options.seed.wrapping_add(shape as u64).wrapping_mul(16).wrapping_add(stage as u64);
                        let mut each = |step: &SampleStep| watch(shape, stage, step);
                        code.features = self.sample_stage(stage, &code, class, seed, options, &mut each)?;
                    }
                    codes.push(code);
                }
                self.representation.decode(&codes)
            })
            .collect()
    }

    /// The coarse features of a sampling step of stage 0 as a shape: a preview.
    ///
    /// # Errors
    /// [`Error::Shape`] when the features are not those of stage 0.
    pub fn preview(&self, features: &Tensor) -> Result<SdfGrid> {
        let mut code = self.representation.next_sites(&[])?;
        code.features = features.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        self.representation.decode(&[code])
    }

    fn class(&self, name: &str) -> Result<usize> {
        self.classes.iter().position(|class| class == name).ok_or_else(|| Error::Unknown {
            kind: "class",
            name: name.into(),
            known: if self.classes.is_empty() { "none".into() } else { self.classes.join(", ") },
        })
    }

    fn sample_stage(
        &self,
        stage: usize,
        code: &StageCode,
        class: Option<usize>,
        seed: u64,
        options: &GenerateOptions,
        watch: &mut dyn FnMut(&SampleStep) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let model = &self.stages[stage];
        let channels = Representation::channels_of(stage);
        let blank = StageCode { features: vec![0.0; code.sites.len() * channels], ..code.clone() };
        let device = model.network.device();
        let (like, condition) = stage_batch(&[&blank], self.representation.grid_of(stage), device)?;
        let classes = if stage == 0 { self.classes.len() } else { 0 };
        let network = Conditioned { network: &model.network, condition: Some(&condition), classes };
        let sampler = if stage == 0 { options.sampler } else { options.detail_sampler };
        let context = class.filter(|_| stage == 0).map(|class| one_hot(&[Some(class)], classes, device)).transpose()?;
        let sampling = SampleOptions {
            seed,
            clip: options.clip.clone(),
            use_clipped_model_output: true,
            guidance_scale: options.guidance_scale.filter(|_| context.is_some()),
            context,
            callback: Some(Box::new(|step| watch(step))),
            ..Default::default()
        };
        let sample = model.diffusion.sample(&network, &like, sampler, sampling)?;
        Ok(sample.features().flatten_all()?.to_vec1()?)
    }

    fn tensors(&self) -> impl Iterator<Item = (String, Var)> + '_ {
        self.stages.iter().enumerate().flat_map(|(stage, model)| {
            model.network.state().iter().map(move |(name, var)| (format!("{stage}/{name}"), var.clone()))
        })
    }

    /// Writes everything into one safetensors file in `dtype`: `F16` halves it.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, dtype: DType) -> Result<()> {
        let stages = self.stages.iter().map(|s| (s.network.config().clone(), s.diffusion.config().clone())).collect();
        let stored = Stored { representation: self.representation.clone(), stages, classes: self.classes.clone() };
        let stored = serde_json::to_string(&stored).map_err(candle_core::Error::wrap)?;
        let tensors: Vec<(String, Tensor)> = self
            .tensors()
            .map(|(name, var)| Ok((name, var.as_detached_tensor().to_dtype(dtype)?)))
            .collect::<Result<_>>()?;
        tensor_file::write(path.as_ref(), tensors, (HEADER, stored))
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is something else or damaged.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let invalid = |problem: String| Error::Format { path: path.to_path_buf(), format: FORMAT, problem };
        let (bytes, stored) = tensor_file::read(path, FORMAT, HEADER)?;
        let stored = stored.ok_or_else(|| invalid(format!("its header has no `{HEADER}`")))?;
        let stored: Stored = serde_json::from_str(&stored).map_err(|error| invalid(error.to_string()))?;
        let stages = stored.stages.iter().map(|(unet, diffusion)| {
            let network = WaveMeshUNet::seeded(unet, 0, device)?;
            Ok(StageModel { network, diffusion: GaussianDiffusion::new(diffusion, device)? })
        });
        let generator = Self::new(stored.representation.checked()?, stages.collect::<Result<_>>()?, stored.classes)?;
        let mut found = candle_core::safetensors::load_buffer(&bytes, device)?;
        for (name, var) in generator.tensors() {
            let Some(value) = found.remove(&name) else {
                return Err(invalid(format!("tensor `{name}` of shape {:?} is missing", var.dims())));
            };
            if value.dims() != var.dims() {
                let (got, expected) = (value.dims(), var.dims());
                return Err(invalid(format!("tensor `{name}` has shape {got:?}, its network's has {expected:?}")));
            }
            var.set(&value.to_dtype(var.dtype())?)?;
        }
        Ok(generator)
    }
}
