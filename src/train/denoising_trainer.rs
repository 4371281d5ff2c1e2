//! The [`Trainer`] of a network that learns to denoise.

use std::sync::Arc;

use super::config::TrainConfig;
use super::data::TrainingData;
use super::denoising::Denoising;
use super::trainer::Trainer;
use crate::diffusion::{GaussianDiffusion, LossHistory};
use crate::unet::WaveMeshUNet;
use crate::{Error, Result};

impl Trainer<Denoising> {
    /// Starts a training of `network`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration out of range or empty data.
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
        let plan = config.plan();
        let objective = Denoising { config, diffusion, network, averaged, train, validation, importance, next: None };
        Self::with_objective(objective, plan)
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.objective().config
    }

    /// The network as it is being trained.
    pub fn network(&self) -> &WaveMeshUNet {
        &self.objective().network
    }

    /// The averaged network: the one to generate with.
    pub fn ema(&self) -> &WaveMeshUNet {
        &self.objective().averaged
    }

    /// The averaged network, by value.
    pub fn into_ema(self) -> WaveMeshUNet {
        self.into_objective().averaged
    }

    /// The diffusion process.
    pub fn diffusion(&self) -> &GaussianDiffusion {
        &self.objective().diffusion
    }
}
