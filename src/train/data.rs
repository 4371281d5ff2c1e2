//! The data from which a [`Trainer`](super::Trainer) draws its batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{Device, Tensor};
use rand::Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::hex;
use super::contexts::ContextData;
use super::dataset::Augmentation;
use super::representation::{Representation, StageCode, stage_batch};
use crate::diffusion::Denoiser;
use crate::sdf::SdfGrid;
use crate::sparse::SparseConvTensor;
use crate::sync::lock;
use crate::{Error, Result, random};

/// Clean samples, and the other inputs of the network.
#[derive(Clone, Debug)]
pub struct TrainingBatch {
    /// The samples; each is a batch element.
    pub x0: SparseConvTensor,
    /// Channels (N, K) that are appended to the noised ones for the network, if any.
    pub condition: Option<Tensor>,
    /// The class of each sample, (batch, classes), one-hot; a row of zeros leaves the class open.
    pub labels: Option<Tensor>,
    /// The context of each sample, (batch, views, width), to which its sites attend; zeros leave it out.
    pub context: Option<Tensor>,
}

/// A source of batches.
pub trait TrainingData: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is nothing to train on.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples with these numbers as one batch. `seeds[i]` fixes every random choice for `items[i]`, so that a part of a batch equals
    /// that part of the whole batch.
    ///
    /// # Errors
    /// If a sample cannot be read or made.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{TrainingBatch, TrainingData};
    /// /// Number n is one site with the feature n.
    /// struct Numbers;
    /// impl TrainingData for Numbers {
    ///     fn len(&self) -> usize {
    ///         100
    ///     }
    ///     fn batch(&self, items: &[usize], _seeds: &[u64]) -> wavemesh::Result<TrainingBatch> {
    ///         let features = Tensor::from_iter(items.iter().map(|&n| n as f32), &Device::Cpu)?.unsqueeze(1)?;
    ///         let sites = (0..items.len() as i32).map(|element| [element, 0, 0, 0]).collect();
    ///         let x0 = SparseConvTensor::from_coords(features, sites, [1; 3], items.len())?;
    ///         Ok(TrainingBatch { x0, condition: None, labels: None, context: None })
    ///     }
    /// }
    /// assert_eq!(Numbers.batch(&[7, 3], &[0, 1])?.x0.features().to_vec2::<f32>()?, [[7.0], [3.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    fn batch(&self, items: &[usize], seeds: &[u64]) -> Result<TrainingBatch>;

    /// A text that differs for other data. The processes of a group compare theirs. By default it contains only the number of samples.
    ///
    /// # Errors
    /// If the data cannot be read.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{Augmentation, Representation, RepresentationConfig, StageData, TrainingData};
    /// let shapes = vec![shapes::sphere(0.5).to_grid(16)?, shapes::sphere(0.6).to_grid(16)?];
    /// let representation = Representation::fit(&RepresentationConfig::new().resolution(16), &shapes)?;
    /// let of = |shapes| StageData::new(&representation, 0, shapes, Augmentation::default(), 0.0, &Device::Cpu);
    /// let turned: Vec<_> = shapes.iter().rev().cloned().collect();
    /// assert_ne!(of(shapes)?.fingerprint()?, of(turned)?.fingerprint()?);
    /// # Ok::<(), Error>(())
    /// ```
    fn fingerprint(&self) -> Result<String> {
        Ok(format!("{} samples", self.len()))
    }
}

/// One stage of a [`Representation`] over a list of shapes.
pub struct StageData {
    representation: Representation,
    stage: usize,
    shapes: Arc<[SdfGrid]>,
    augmentation: Augmentation,
    /// The codes that are the same in every batch, encoded when first used.
    codes: Vec<OnceLock<StageCode>>,
    condition_noise: f64,
    coarse_noise: f64,
    labels: Option<Labels>,
    contexts: Option<Contexts>,
    device: Device,
    /// Dense stages have the same sites in every batch of one size. Keeping the tensors keeps their kernel maps.
    dense: Mutex<HashMap<usize, SparseConvTensor>>,
}

/// The class of each shape.
struct Labels {
    of: Vec<usize>,
    classes: usize,
    dropout: f64,
}

/// The context of each shape.
struct Contexts {
    of: Arc<dyn ContextData>,
    dropout: f64,
}

impl StageData {
    /// The data of stage `stage` of `shapes`.
    ///
    /// `condition_noise` is the standard deviation, in sites, of noise that is added to conditions: the network learns to tolerate small
    /// errors of the earlier stages.
    ///
    /// # Errors
    /// [`Error::Argument`] for no shapes or a stage that the representation does not have; [`Error::Shape`] for shapes of another
    /// resolution.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{Augmentation, TrainingData};
    /// let shapes = vec![shapes::sphere(0.5).to_grid(16)?, shapes::torus(0.5, 0.2).to_grid(16)?];
    /// let representation = Representation::fit(&RepresentationConfig::new().resolution(16).levels(2), &shapes)?;
    /// let coarse = StageData::new(&representation, 0, shapes, Augmentation::default(), 0.0, &Device::Cpu)?;
    /// let batch = coarse.batch(&[0, 1], &[0, 1])?;
    /// assert_eq!((batch.x0.len(), batch.x0.channels()), (2 * 4 * 4 * 4, 8)); // every site of both shapes
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        representation: &Representation,
        stage: usize,
        shapes: impl Into<Arc<[SdfGrid]>>,
        augmentation: Augmentation,
        condition_noise: f64,
        device: &Device,
    ) -> Result<Self> {
        let shapes = shapes.into();
        let problem =
            |name, got: String, expected: String| Err(Error::Argument { op: "StageData::new", name, got, expected });
        if shapes.is_empty() {
            return problem("shapes", "none".into(), "at least one".into());
        }
        if stage >= representation.stages() {
            return problem("stage", stage.to_string(), format!("below {}", representation.stages()));
        }
        shapes.iter().try_for_each(|shape| representation.check(shape))?;
        Ok(Self {
            representation: representation.clone(),
            stage,
            codes: shapes.iter().map(|_| OnceLock::new()).collect(),
            shapes,
            augmentation,
            condition_noise,
            coarse_noise: 0.0,
            labels: None,
            contexts: None,
            device: device.clone(),
            dense: Mutex::default(),
        })
    }

    /// Adds noise to the features of the earlier stages: each sample gets a standard deviation between 0 and `most` (see
    /// [`Representation::encode_noised`]). Stage 0 has no earlier stages.
    #[must_use]
    pub fn with_coarse_noise(mut self, most: f64) -> Self {
        self.coarse_noise = if self.stage == 0 { 0.0 } else { most };
        self
    }

    /// Gives the network the class of each shape (`labels[i]`, below `classes`). A share `dropout` of the samples gets no class, so that
    /// the network also learns to work without, as classifier-free guidance needs.
    ///
    /// # Errors
    /// [`Error::Argument`] for labels that do not fit the shapes or the classes, or a dropout outside 0 to 1.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{Augmentation, TrainingData};
    /// let shapes = vec![shapes::sphere(0.5).to_grid(16)?, shapes::torus(0.5, 0.2).to_grid(16)?];
    /// let representation = Representation::fit(&RepresentationConfig::new().resolution(16).levels(2), &shapes)?;
    /// let data = StageData::new(&representation, 0, shapes, Augmentation::default(), 0.0, &Device::Cpu)?;
    /// let data = data.with_labels(vec![0, 1], 2, 0.0)?; // no sample is without its class
    /// assert_eq!(data.batch(&[1, 0], &[0, 1])?.labels.unwrap().to_vec2::<f32>()?, [[0.0, 1.0], [1.0, 0.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_labels(mut self, labels: Vec<usize>, classes: usize, dropout: f64) -> Result<Self> {
        let problem = |name, got: String, expected: String| {
            Err(Error::Argument { op: "StageData::with_labels", name, got, expected })
        };
        if labels.len() != self.len() {
            return problem("labels", labels.len().to_string(), format!("one for each of {} shapes", self.len()));
        }
        if let Some(label) = labels.iter().find(|&&label| label >= classes) {
            return problem("labels", label.to_string(), format!("below the {classes} classes"));
        }
        if !(0.0..=1.0).contains(&dropout) {
            return problem("dropout", dropout.to_string(), "0 to 1".into());
        }
        self.labels = Some(Labels { of: labels, classes, dropout });
        Ok(self)
    }

    /// Gives the network a context for each shape. A share `dropout` of the samples gets zeros, which stand for none.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dropout outside 0 to 1.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{Augmentation, ShapeViews, TrainingData};
    /// let shapes: std::sync::Arc<[SdfGrid]> = vec![shapes::sphere(0.5).to_grid(16)?].into();
    /// let representation = Representation::fit(&RepresentationConfig::new().resolution(16).levels(2), shapes.iter())?;
    /// let data = StageData::new(&representation, 0, shapes.clone(), Augmentation::default(), 0.0, &Device::Cpu)?;
    /// let data = data.with_contexts(std::sync::Arc::new(ShapeViews::new(shapes, 4)), 0.5)?;
    /// assert_eq!(data.batch(&[0, 0], &[0, 1])?.context.unwrap().dims(), [2, 64, 76]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_contexts(mut self, contexts: Arc<dyn ContextData>, dropout: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&dropout) {
            return Err(Error::argument("StageData::with_contexts", "dropout", dropout, "0 to 1"));
        }
        self.contexts = Some(Contexts { of: contexts, dropout });
        Ok(self)
    }

    /// The contexts of some samples, (batch, views, width).
    fn context(&self, Contexts { of, dropout }: &Contexts, items: &[usize], seeds: &[u64]) -> Result<Tensor> {
        let [views, width] = of.dims();
        let context = |(&item, &seed): (&usize, &u64)| {
            if random::rng(seed, 7).random_bool(*dropout) {
                return Ok(vec![0f32; views * width]);
            }
            of.context(item % self.shapes.len(), seed)
        };
        let all = items.par_iter().zip(seeds).map(context).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::from_vec(all.concat(), (items.len(), views, width), &self.device)?)
    }

    fn code(&self, item: usize, seed: u64) -> Result<StageCode> {
        let item = item % self.shapes.len();
        let plain = self.augmentation == Augmentation::default() && self.coarse_noise == 0.0;
        if let Some(code) = self.codes[item].get() {
            return Ok(code.clone());
        }
        let turned = (self.augmentation != Augmentation::default())
            .then(|| self.augmentation.apply(&self.shapes[item], seed))
            .transpose()?;
        let noise = self.coarse_noise as f32 * random::rng(seed, 4).random::<f32>();
        let shape = turned.as_ref().unwrap_or(&self.shapes[item]);
        let code = self.representation.encode_noised(shape, self.stage, noise, seed)?;
        Ok(if plain { self.codes[item].get_or_init(|| code).clone() } else { code })
    }
}

impl TrainingData for StageData {
    fn len(&self) -> usize {
        self.shapes.len()
    }

    fn batch(&self, items: &[usize], seeds: &[u64]) -> Result<TrainingBatch> {
        let code = |(&item, &seed): (&usize, &u64)| self.code(item, seed);
        let mut codes: Vec<StageCode> = items.par_iter().zip(seeds).map(code).collect::<Result<_>>()?;
        if self.condition_noise > 0.0 {
            for (code, &seed) in codes.iter_mut().zip(seeds) {
                let mut rng = random::rng(seed, 1);
                let blur = random::normal(&mut rng);
                code.condition.iter_mut().zip(blur).for_each(|(clean, z)| *clean += self.condition_noise as f32 * z);
            }
        }
        let codes: Vec<&StageCode> = codes.iter().collect();
        let (mut x0, condition) = stage_batch(&codes, self.representation.grid_of(self.stage), &self.device)?;
        if self.stage == 0 {
            let template = {
                let mut dense = lock(&self.dense);
                dense.entry(items.len()).or_insert_with(|| x0.clone()).clone()
            };
            x0 = template.replace_feature(x0.features().clone())?;
        }
        let labels = self.labels.as_ref().map(|labels| {
            let shown = items.iter().zip(seeds).map(|(&item, &seed)| {
                let hidden = random::rng(seed, 2).random_bool(labels.dropout);
                (!hidden).then(|| labels.of[item % labels.of.len()])
            });
            let shown: Vec<_> = shown.collect();
            one_hot(&shown, labels.classes, &self.device)
        });
        let context = self.contexts.as_ref().map(|contexts| self.context(contexts, items, seeds)).transpose()?;
        Ok(TrainingBatch { x0, condition: Some(condition), labels: labels.transpose()?, context })
    }

    fn fingerprint(&self) -> Result<String> {
        let digest = |shape: &SdfGrid| {
            let mut hash = Sha256::new();
            shape.shape().iter().for_each(|side| hash.update(side.to_le_bytes()));
            shape.values().iter().for_each(|value| hash.update(value.to_le_bytes()));
            hash.finalize()
        };
        let shapes: Vec<_> = self.shapes.par_iter().map(digest).collect();
        let mut hash = Sha256::new();
        shapes.iter().for_each(|shape| hash.update(shape));
        let Self { representation, stage, augmentation, condition_noise, coarse_noise, .. } = self;
        let labels = self.labels.as_ref().map(|labels| (&labels.of, labels.classes, labels.dropout));
        let rest = serde_json::to_vec(&(representation, stage, augmentation, condition_noise, coarse_noise, labels));
        hash.update(rest.map_err(candle_core::Error::wrap)?);
        if let Some(Contexts { of, dropout }) = &self.contexts {
            hash.update(format!("{}, dropout {dropout}", of.fingerprint()));
        }
        Ok(format!("{} samples, SHA-256 {}", self.len(), hex(&hash.finalize())))
    }
}

/// Labels as rows of (batch, classes); zeros for `None`.
pub(super) fn one_hot(labels: &[Option<usize>], classes: usize, device: &Device) -> Result<Tensor> {
    let mut rows = vec![0f32; labels.len() * classes];
    for (row, label) in rows.chunks_exact_mut(classes.max(1)).zip(labels) {
        label.iter().for_each(|&label| row[label] = 1.0);
    }
    Ok(Tensor::from_vec(rows, (labels.len(), classes), device)?)
}

/// A network with more inputs than the noised features: a condition for each site, a label for each batch element, and a context to which
/// sites attend. A diffusion passes on one context, which switches the label and the context on together (so that guidance works): the labels
/// if there are classes, and otherwise the context itself.
pub struct Conditioned<'a, D: ?Sized> {
    /// The network; its input has as many additional channels as the condition and the labels.
    pub network: &'a D,
    /// (N, K), a row for each site; `None` for no condition.
    pub condition: Option<&'a Tensor>,
    /// Number of label channels. With 0, the network gets the context of the diffusion.
    pub classes: usize,
    /// (batch, views, width): what a network with classes attends to.
    pub attended: Option<&'a Tensor>,
}

impl<D: Denoiser + ?Sized> Denoiser for Conditioned<'_, D> {
    fn predict(
        &self,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        train: bool,
    ) -> Result<SparseConvTensor> {
        let mut channels = vec![x.features()];
        channels.extend(self.condition);
        let labels;
        if self.classes > 0 {
            labels = match context {
                Some(context) => {
                    let rows: Vec<u32> = x.coords().iter().map(|site| site[0] as u32).collect();
                    context.index_select(&Tensor::from_vec(rows, x.len(), x.device())?, 0)? // (N, classes)
                }
                None => Tensor::zeros((x.len(), self.classes), x.dtype(), x.device())?,
            };
            channels.push(&labels);
        }
        let joined = x.replace_feature(Tensor::cat(&channels, 1)?)?;
        let attended = if self.classes > 0 { context.and(self.attended) } else { context };
        self.network.predict(&joined, timesteps, attended, train)
    }
}
