//! What a [`Trainer`](super::Trainer) draws its batches from.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::{Device, Tensor};

use super::dataset::Augmentation;
use super::representation::{Representation, StageCode, stage_batch};
use crate::diffusion::{Denoiser, noise};
use crate::sdf::SdfGrid;
use crate::sparse::SparseConvTensor;
use crate::{Error, Result};

/// Clean samples, and what the network is told beside them.
#[derive(Clone, Debug)]
pub struct TrainingBatch {
    /// The samples, a batch element each.
    pub x0: SparseConvTensor,
    /// Channels (N, K) that the network sees after the noised ones, if any.
    pub condition: Option<Tensor>,
}

/// A source of batches. `seed` fixes every random choice in making one.
pub trait TrainingData: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is nothing to train on.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples of these numbers as one batch.
    fn batch(&self, items: &[usize], seed: u64) -> Result<TrainingBatch>;
}

/// One stage of a [`Representation`] over a list of shapes.
pub struct StageData {
    representation: Representation,
    stage: usize,
    source: Source,
    condition_noise: f64,
    device: Device,
    /// Dense stages have the same sites in every batch of a size; keeping them keeps their kernel maps.
    dense: Mutex<HashMap<usize, SparseConvTensor>>,
}

enum Source {
    /// Encoded once.
    Codes(Vec<StageCode>),
    /// Encoded for each batch, after a random symmetry.
    Grids(Vec<SdfGrid>, Augmentation),
}

impl StageData {
    /// Stage `stage` of `shapes`.
    ///
    /// `condition_noise` is the deviation of noise added to conditions, in sites: it makes the network forgive the
    /// small errors of the stages before it.
    ///
    /// # Errors
    /// [`Error::Argument`] for no shapes or a stage that the representation does not have, [`Error::Shape`] for shapes of
    /// another resolution.
    pub fn new(
        representation: &Representation,
        stage: usize,
        shapes: Vec<SdfGrid>,
        augmentation: Augmentation,
        condition_noise: f64,
        device: &Device,
    ) -> Result<Self> {
        let problem =
            |name, got: String, expected: String| Err(Error::Argument { op: "StageData::new", name, got, expected });
        if shapes.is_empty() {
            return problem("shapes", "none".into(), "at least one".into());
        }
        if stage >= representation.stages() {
            return problem("stage", stage.to_string(), format!("below {}", representation.stages()));
        }
        let source = if augmentation == Augmentation::default() {
            let code = |shape: &SdfGrid| Ok(representation.encode(shape)?.swap_remove(stage));
            Source::Codes(shapes.iter().map(code).collect::<Result<_>>()?)
        } else {
            Source::Grids(shapes, augmentation)
        };
        Ok(Self {
            representation: representation.clone(),
            stage,
            source,
            condition_noise,
            device: device.clone(),
            dense: Mutex::default(),
        })
    }

    fn code(&self, item: usize, seed: u64) -> Result<StageCode> {
        match &self.source {
            Source::Codes(codes) => Ok(codes[item % codes.len()].clone()),
            Source::Grids(grids, augmentation) => {
                let grid = augmentation.apply(&grids[item % grids.len()], seed)?;
                Ok(self.representation.encode(&grid)?.swap_remove(self.stage))
            }
        }
    }
}

impl TrainingData for StageData {
    fn len(&self) -> usize {
        match &self.source {
            Source::Codes(codes) => codes.len(),
            Source::Grids(grids, _) => grids.len(),
        }
    }

    fn batch(&self, items: &[usize], seed: u64) -> Result<TrainingBatch> {
        let code = |(at, &item): (usize, &usize)| self.code(item, seed.wrapping_add(at as u64));
        let codes: Vec<StageCode> = items.iter().enumerate().map(code).collect::<Result<_>>()?;
        let (mut x0, mut condition) =
            stage_batch(&codes.iter().collect::<Vec<_>>(), self.representation.grid_of(self.stage), &self.device)?;
        if self.stage == 0 {
            let mut dense = self.dense.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let template = dense.entry(items.len()).or_insert_with(|| x0.clone());
            x0 = template.replace_feature(x0.features().clone())?;
        }
        if let Some(clean) = condition.as_mut().filter(|_| self.condition_noise > 0.0) {
            let blur = noise::gaussian(&mut noise::rng(seed, 1), clean.dims2()?, &self.device)?;
            *clean = (&*clean + (blur * self.condition_noise)?)?;
        }
        Ok(TrainingBatch { x0, condition })
    }
}

/// A network that sees condition channels beside the noised ones.
pub struct Conditioned<'a, D: ?Sized> {
    /// The network, with as many more input channels as the condition has.
    pub network: &'a D,
    /// (N, K), a row for each site; `None` for nothing.
    pub condition: Option<&'a Tensor>,
}

impl<D: Denoiser + ?Sized> Denoiser for Conditioned<'_, D> {
    fn predict(
        &self,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        train: bool,
    ) -> Result<SparseConvTensor> {
        match self.condition {
            None => self.network.predict(x, timesteps, context, train),
            Some(condition) => {
                let joined = x.replace_feature(Tensor::cat(&[x.features(), condition], 1)?)?;
                self.network.predict(&joined, timesteps, context, train)
            }
        }
    }
}
