//! Trains any network with any loss: [`Trainer::fit`] and [`fit`].

use std::ops::ControlFlow;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;

use super::fit_config::FitConfig;
use super::objective::Objective;
use super::record::StepRecord;
use super::trainer::Trainer;
use crate::{Error, Result};

/// An [`Objective`] made of a `VarMap` and closures.
pub struct LossFn<'a> {
    state: Vec<(String, Var)>,
    loss: Box<dyn FnMut(usize) -> Result<Tensor> + 'a>,
    samples: Option<Box<dyn Fn() -> f64 + 'a>>,
    validation: Option<Box<dyn Fn() -> Result<f64> + 'a>>,
}

impl Objective for LossFn<'_> {
    fn state(&self) -> Vec<(String, Var)> {
        self.state.clone()
    }

    fn loss(&mut self, part: usize) -> Result<Tensor> {
        (self.loss)(part)
    }

    fn samples(&self) -> f64 {
        self.samples.as_ref().map_or(1.0, |samples| samples())
    }

    fn validate(&self) -> Result<Option<f64>> {
        self.validation.as_ref().map(|validation| validation()).transpose()
    }
}

impl<'a> Trainer<LossFn<'a>> {
    /// A training of the variables of any network, which must be built before. `loss` runs the network in training mode on micro-batch
    /// number n (0, 1, …) and returns a scalar.
    ///
    /// ```
    /// use wavemesh::backbones::{SpUNet, SpUNetConfig};
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{FitConfig, LearningRate};
    /// # fn main() -> wavemesh::Result<()> {
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let (channels, layers) = (vec![4, 4], vec![1, 1]);
    /// let network = SpUNet::new(&SpUNetConfig::new().in_channels(1).num_classes(2).base_channels(4).channels(channels).layers(layers), vb)?;
    /// // Two rows of four voxels; the class is the row.
    /// let sites = (0..8).map(|i| [0, 1, 1 + i / 4, i % 4]).collect();
    /// let x = SparseConvTensor::from_coords(Tensor::arange(0f32, 8.0, &Device::Cpu)?.reshape((8, 1))?, sites, [4; 3], 1)?;
    /// let labels = Tensor::new(&[0u32, 0, 0, 0, 1, 1, 1, 1], &Device::Cpu)?;
    /// let loss = |train| Ok(candle_nn::loss::cross_entropy(network.forward_t(&x, train)?.features(), &labels)?);
    ///
    /// let config = FitConfig::new().steps(20).learning_rate(LearningRate::Constant(0.02)).ema_decay(0.9).validate_every(10);
    /// let mut trainer = Trainer::fit(&variables, config, |_n| loss(true))?
    ///     .validated_by(|| Ok(f64::from(no_grad(|| loss(false))?.to_scalar::<f32>()?)));
    /// trainer.run(|_, _| Ok(()))?;
    /// assert!(trainer.history()[19].loss < trainer.history()[0].loss);
    /// assert!(trainer.history()[9].validation.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// If the configuration has a `folder`, checkpoints and a log go there, and [`resume_latest`](Self::resume_latest) continues from the
    /// newest one. If `loss` depends only on n, the next steps equal those of a training without interruption, bit for bit.
    ///
    /// # Errors
    /// No variables, or a configuration out of range.
    pub fn fit(variables: &VarMap, config: FitConfig, loss: impl FnMut(usize) -> Result<Tensor> + 'a) -> Result<Self> {
        let data = variables.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut state: Vec<(String, Var)> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        drop(data);
        if state.is_empty() {
            let expected = "the variables of a network that was built before";
            return Err(Error::argument("fit", "variables", "an empty VarMap", expected));
        }
        // Sorted by name, so that sums over all of them are the same in every run.
        state.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self::with_objective(LossFn { state, loss: Box::new(loss), samples: None, validation: None }, config)
    }

    /// Adds a validation: the loss on samples that are not used for training, or any number that is better when smaller. It runs every
    /// `validate_every` steps and with each checkpoint, and uses the averaged variables if there is an average.
    pub fn validated_by(mut self, validation: impl Fn() -> Result<f64> + 'a) -> Self {
        self.objective_mut().validation = Some(Box::new(validation));
        self
    }

    /// For a group whose processes have unequal parts: `samples` returns how many samples the last loss is the mean of. See
    /// [`in_group`](Self::in_group).
    pub fn weighted_by(mut self, samples: impl Fn() -> f64 + 'a) -> Self {
        self.objective_mut().samples = Some(Box::new(samples));
        self
    }
}

/// Trains the variables of a network: [`Trainer::fit`] in one call. `watch` is called after every step, and can end the training early with
/// [`ControlFlow::Break`]. Running statistics (`running_mean`, `running_var`) are left to their layers. Like every [`task`](crate::task),
/// it can be watched and stopped.
///
/// ```
/// use std::ops::ControlFlow;
/// use wavemesh::prelude::*;
/// use wavemesh::train::{FitConfig, LearningRate, fit};
/// # fn main() -> wavemesh::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let conv = SubMConv3d::new(1, 1, 3, ConvConfig::default(), vb)?;
/// let x = SparseConvTensor::from_coords(Tensor::ones((2, 1), DType::F32, &Device::Cpu)?, vec![[0, 1, 1, 1], [0, 1, 1, 2]], [4, 4, 4], 1)?;
/// let config = FitConfig::new().steps(60).learning_rate(LearningRate::Constant(0.05));
/// let history = fit(&variables, &config, |_| Ok((conv.forward(&x)?.features() - 3.0)?.sqr()?.mean_all()?), |_| Ok(ControlFlow::Continue(())))?;
/// assert!(history[59].loss < 0.01 * history[0].loss);
/// # Ok(()) }
/// ```
///
/// # Errors
/// No variables or no steps; [`Error::Diverged`] if a loss or gradient is not finite (the variables are then as they were before the step);
/// [`Error::Interrupted`]; and the errors of `loss` and `watch`.
pub fn fit(
    variables: &VarMap,
    config: &FitConfig,
    loss: impl FnMut(usize) -> Result<Tensor>,
    mut watch: impl FnMut(&StepRecord) -> Result<ControlFlow<()>>,
) -> Result<Vec<StepRecord>> {
    let mut trainer = Trainer::fit(variables, config.clone(), loss)?;
    trainer.run_until(|_, record| watch(record))?;
    Ok(trainer.history().to_vec())
}
