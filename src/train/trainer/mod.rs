//! [`Trainer`]: the loop that trains a model by its loss.

mod saving;
mod step;
mod together;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Var;

use super::denoising::Denoising;
use super::ema::Ema;
use super::fit_config::FitConfig;
use super::grad_scaler::GradScaler;
use super::log::Log;
use super::objective::{Objective, is_trained};
use super::optimizer::AdamW;
use super::record::StepRecord;
use crate::distributed::ProcessGroup;
use crate::task::{Task, check_interrupt};
use crate::{Error, Result};

/// A model in training. The [`Objective`] defines the model and its loss: by default a network that learns to denoise (`Trainer::new`), any
/// network by a closure ([`Trainer::fit`]), or a type of your own ([`Trainer::with_objective`]).
///
/// It takes AdamW steps with scheduled learning rates and accumulated, clipped gradients. As [`FitConfig`] says, it keeps a moving average,
/// scales the loss, validates, stops early, and writes a log and checkpoints, from which it continues bit for bit.
pub struct Trainer<O = Denoising> {
    objective: O,
    plan: FitConfig,
    state: Vec<(String, Var)>,
    average: Option<Ema>,
    /// Whether the objective itself has the averaged variables.
    average_is_there: bool,
    optimizer: AdamW,
    scaler: Option<GradScaler>,
    history: Vec<StepRecord>,
    best: Option<f64>,
    last_checkpoint: Option<PathBuf>,
    group: Arc<ProcessGroup>,
}

impl<O: Objective> Trainer<O> {
    /// Starts a training.
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration out of range or an objective without variables to train.
    ///
    /// ```
    /// use wavemesh::candle_core::Var;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{FitConfig, LearningRate, Objective};
    /// /// One number that is to become 3.
    /// struct Three(Var);
    /// impl Objective for Three {
    ///     fn state(&self) -> Vec<(String, Var)> {
    ///         vec![("number".into(), self.0.clone())]
    ///     }
    ///     fn loss(&mut self, _part: usize) -> wavemesh::Result<Tensor> {
    ///         Ok((self.0.as_tensor() - 3.0)?.sqr()?)
    ///     }
    /// }
    /// let config = FitConfig::new().steps(200).learning_rate(LearningRate::Constant(0.1));
    /// let mut trainer = Trainer::with_objective(Three(Var::new(0f32, &Device::Cpu)?), config)?;
    /// trainer.run(|_, _| Ok(()))?;
    /// assert!((trainer.objective().0.to_scalar::<f32>()? - 3.0).abs() < 0.05);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_objective(objective: O, config: FitConfig) -> Result<Self> {
        config.validate()?;
        let state = objective.state();
        let vars = state.iter().filter(|(name, _)| is_trained(name)).map(|(_, var)| var.clone()).collect();
        let averaged = objective.averaged();
        let average_is_there = averaged.is_some();
        let average = match (config.ema_decay, averaged) {
            (None, _) => None,
            (Some(decay), Some(averaged)) => Some(Ema::into_variables(&state, averaged, decay)?),
            (Some(decay), None) => Some(Ema::new(&state, decay)?),
        };
        Ok(Self {
            optimizer: AdamW::new(config.adamw, vars)?,
            scaler: config.loss_scale.map(GradScaler::new).transpose()?,
            objective,
            plan: config,
            state,
            average,
            average_is_there,
            history: Vec::new(),
            best: None,
            last_checkpoint: None,
            group: ProcessGroup::alone(),
        })
    }

    /// The objective in training.
    pub fn objective(&self) -> &O {
        &self.objective
    }

    pub(super) fn objective_mut(&mut self) -> &mut O {
        &mut self.objective
    }

    /// Consumes the trainer and returns the objective.
    pub fn into_objective(self) -> O {
        self.objective
    }

    /// The configuration of the training.
    pub fn plan(&self) -> &FitConfig {
        &self.plan
    }

    /// Steps taken so far.
    pub fn step_count(&self) -> usize {
        self.history.last().map_or(0, |record| record.step)
    }

    /// The records of all steps so far.
    pub fn history(&self) -> &[StepRecord] {
        &self.history
    }

    /// The smallest validation loss so far.
    pub fn best_validation(&self) -> Option<f64> {
        self.best
    }

    /// The moving average of all variables, if there is one. [`Ema::apply`] runs the model with it.
    pub fn average(&self) -> Option<&Ema> {
        self.average.as_ref()
    }

    /// The number of trained parameters.
    pub fn num_parameters(&self) -> usize {
        self.state.iter().filter(|(name, _)| is_trained(name)).map(|(_, var)| var.elem_count()).sum()
    }

    /// Trains up to the configured number of steps. `watch` is called after every step. If it fails or a stop is requested, training ends
    /// between two steps and keeps everything: call `run` again to continue. A stop also writes a checkpoint, so that another process can
    /// continue from this very step; so does the configured time limit (`seconds`), which is no error.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a stop; [`Error::Diverged`] if a loss is not finite; and any error that `watch` returns.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let mut trainer = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// let mut steps = Vec::new();
    /// trainer.run(|_, record| Ok(steps.push(record.step)))?;
    /// assert_eq!(steps, [1, 2, 3, 4, 5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run(&mut self, mut watch: impl FnMut(&Self, &StepRecord) -> Result<()>) -> Result<()> {
        self.run_until(|trainer, record| watch(trainer, record).map(ControlFlow::Continue))
    }

    /// Like [`run`](Self::run); `watch` may also end the training early, with [`ControlFlow::Break`].
    ///
    /// # Errors
    /// The errors of [`run`](Self::run).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let mut trainer = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// let enough = |_: &Trainer<_>, record: &wavemesh::train::StepRecord| {
    ///     Ok(if record.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    /// };
    /// trainer.run_until(enough)?;
    /// assert_eq!(trainer.step_count(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run_until(&mut self, watch: impl FnMut(&Self, &StepRecord) -> Result<ControlFlow<()>>) -> Result<()> {
        let group = Arc::clone(&self.group);
        self.run_steps(watch).inspect_err(|error| match error {
            // All processes have met these errors together.
            Error::Interrupted | Error::Diverged { .. } => {}
            own => group.fail(own),
        })
    }

    fn run_steps(&mut self, mut watch: impl FnMut(&Self, &StepRecord) -> Result<ControlFlow<()>>) -> Result<()> {
        let first = self.group.is_first();
        let folder = self.plan.folder.as_deref().filter(|_| first);
        let mut log = folder.map(|folder| Log::open(folder, &self.history)).transpose()?;
        let left = self.plan.steps.saturating_sub(self.step_count());
        // Only one process shows the progress of all.
        let task = first.then(|| Task::new("training", left));
        let started = Instant::now();
        while self.step_count() < self.plan.steps && !self.is_stale() {
            let record = self.step()?;
            if let Some(log) = &mut log {
                log.append(&record)?;
            }
            let (step, every) = (record.step, self.plan.checkpoint_every);
            let due = step == self.plan.steps || (every > 0 && step % every == 0) || self.is_stale();
            if due && self.plan.folder.is_some() {
                self.last_checkpoint = Some(self.save_in_folder(&record)?);
            }
            let going_on = watch(self, &record).and_then(|flow| {
                task.as_ref().map_or_else(check_interrupt, |task| task.advance(1))?;
                let is_over = self.plan.seconds.is_some_and(|most| started.elapsed().as_secs_f64() >= most);
                Ok(if is_over { ControlFlow::Break(()) } else { flow })
            });
            let going_on = self.agreed(going_on);
            let is_cut = match &going_on {
                Ok(flow) => flow.is_break() && self.plan.seconds.is_some(),
                Err(error) => matches!(error, Error::Interrupted),
            };
            if is_cut && !due && self.plan.folder.is_some() {
                self.last_checkpoint = Some(self.save_numbered(step)?);
            }
            if going_on?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether the last validations, as many as the configured patience, found no smaller loss.
    fn is_stale(&self) -> bool {
        let Some(patience) = self.plan.patience else { return false };
        let losses: Vec<f64> = self.history.iter().filter_map(|record| record.validation).collect();
        let best = losses.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
        best.is_some_and(|(at, _)| losses.len() - 1 - at >= patience)
    }
}
