//! The [`Trainer`] of a network that learns to denoise.

use std::sync::Arc;

use super::config::TrainConfig;
use super::data::TrainingData;
use super::denoising::Denoising;
use super::trainer::Trainer;
use crate::diffusion::{GaussianDiffusion, LossHistory};
use crate::distributed::ProcessGroup;
use crate::unet::WaveMeshUNet;
use crate::{Error, Result};

impl Trainer<Denoising> {
    /// Starts a training of `network`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration out of range, or empty data.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::Augmentation;
    /// let shapes = vec![shapes::sphere(0.5).to_grid(16)?, shapes::torus(0.5, 0.2).to_grid(16)?];
    /// let representation = Representation::fit(&RepresentationConfig::new().resolution(16).levels(2), &shapes)?;
    /// let data = StageData::new(&representation, 0, shapes, Augmentation::default(), 0.0, &Device::Cpu)?;
    /// let [input, output] = Generator::channels_of(0, 0);
    /// let network = WaveMeshUNet::seeded(&UNetConfig::plain(input, output, &[4, 8]), 0, &Device::Cpu)?;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu)?;
    /// let config = TrainConfig::new().steps(2).batch_size(2);
    /// let mut trainer = Trainer::new(network, diffusion, Arc::new(data), None, config)?;
    /// trainer.run(|_, record| Ok(assert!(record.loss.is_finite())))?;
    /// assert_eq!(trainer.step_count(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        mut network: WaveMeshUNet,
        diffusion: GaussianDiffusion,
        train: Arc<dyn TrainingData>,
        validation: Option<Arc<dyn TrainingData>>,
        config: TrainConfig,
    ) -> Result<Self> {
        config.validate()?;
        if train.is_empty() || validation.as_ref().is_some_and(|data| data.is_empty()) {
            return Err(Error::argument("Trainer::new", "data", "an empty set", "at least one sample"));
        }
        network.set_gradient_checkpointing(config.gradient_checkpointing);
        let importance =
            config.importance_sampling.then(|| LossHistory::new(diffusion.schedule().len())).transpose()?;
        let averaged = WaveMeshUNet::seeded(network.config(), 0, network.device())?;
        let (plan, group) = (config.plan(), ProcessGroup::alone());
        let objective = Denoising {
            config,
            diffusion,
            network,
            averaged,
            train,
            validation,
            importance,
            next: None,
            group,
            samples: 0.0,
        };
        Self::with_objective(objective, plan)
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.objective().config
    }

    /// The network in training.
    pub fn network(&self) -> &WaveMeshUNet {
        &self.objective().network
    }

    /// The averaged network: the one to generate with.
    pub fn ema(&self) -> &WaveMeshUNet {
        &self.objective().averaged
    }

    /// Consumes the trainer and returns the averaged network.
    pub fn into_ema(self) -> WaveMeshUNet {
        self.into_objective().averaged
    }

    /// The diffusion process.
    pub fn diffusion(&self) -> &GaussianDiffusion {
        &self.objective().diffusion
    }
}
