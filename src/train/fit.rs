//! [`fit`]: the loop that trains any network with any loss.

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;
use serde::{Deserialize, Serialize};

use super::clock::processor_seconds;
use super::in_place::norm;
use super::optimizer::{AdamW, AdamWConfig};
use super::rate::LearningRate;
use super::record::StepRecord;
use crate::task::Task;
use crate::{Error, Result};

/// How [`fit`] trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FitConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Losses whose gradients make one step together.
    pub accumulation: usize,
    /// The learning rate's course.
    pub learning_rate: LearningRate,
    /// Constants of AdamW.
    pub adamw: AdamWConfig,
    /// Largest norm of the gradient; `None` for any.
    pub clip_norm: Option<f64>,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            steps: 100,
            accumulation: 1,
            learning_rate: LearningRate::Constant(1e-3),
            adamw: AdamWConfig::default(),
            clip_norm: Some(10.0),
        }
    }
}

/// Trains the variables of a network. `loss` runs the network in training mode on micro-batch number n (0, 1, …) and gives a scalar;
/// `watch` sees every step, and ends the training early with [`ControlFlow::Break`]. Running statistics (`running_mean`, `running_var`)
/// are left to their layers. Can be watched and stopped like every [`Task`].
///
/// ```
/// use std::ops::ControlFlow;
/// use wavemesh::prelude::*;
/// use wavemesh::train::{FitConfig, LearningRate, fit};
/// # fn main() -> Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let conv = SubMConv3d::new(1, 1, 3, ConvConfig::default(), vb)?;
/// let x = SparseConvTensor::from_coords(Tensor::ones((2, 1), DType::F32, &Device::Cpu)?, vec![[0, 1, 1, 1], [0, 1, 1, 2]], [4, 4, 4], 1)?;
/// let config = FitConfig { steps: 60, learning_rate: LearningRate::Constant(0.05), ..Default::default() };
/// let history = fit(&variables, &config, |_| Ok((conv.forward(&x)?.features() - 3.0)?.sqr()?.mean_all()?), |_| Ok(ControlFlow::Continue(())))?;
/// assert!(history[59].loss < 0.01 * history[0].loss);
/// # Ok(()) }
/// ```
///
/// # Errors
/// No variables, no steps, [`Error::Diverged`] when a loss or gradient is not finite (the variables are then as they were before the
/// step), [`Error::Interrupted`], and those of `loss` and `watch`.
pub fn fit(
    variables: &VarMap,
    config: &FitConfig,
    mut loss: impl FnMut(usize) -> Result<Tensor>,
    mut watch: impl FnMut(&StepRecord) -> Result<ControlFlow<()>>,
) -> Result<Vec<StepRecord>> {
    let argument = |name, got: &str, expected: &str| Error::Argument {
        op: "fit",
        name,
        got: got.into(),
        expected: expected.into(),
    };
    if config.steps == 0 || config.accumulation == 0 {
        return Err(argument("config", "no steps, or steps of nothing", "steps and accumulation of 1 or more"));
    }
    let vars = trainable(variables);
    if vars.is_empty() {
        return Err(argument("variables", "an empty VarMap", "the variables of a network that was built before"));
    }
    let mut optimizer = AdamW::new(config.adamw, vars)?;
    let task = Task::new("training", config.steps);
    let mut history = Vec::with_capacity(config.steps);
    for step in 0..config.steps {
        let (started, processor) = (Instant::now(), processor_seconds());
        let (mut sum, mut loss_sum): (Vec<Tensor>, f64) = (Vec::new(), 0.0);
        for part in 0..config.accumulation {
            let loss = loss(step * config.accumulation + part)?;
            loss_sum += loss.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
            let grads = optimizer.gradients(&loss.backward()?)?;
            sum = match sum.is_empty() {
                true => grads,
                false => sum.iter().zip(&grads).map(|(a, b)| Ok((a + b)?)).collect::<Result<_>>()?,
            };
        }
        let parts = config.accumulation as f64;
        let (loss, grad_norm) = (loss_sum / parts, norm(&sum)? / parts);
        if !loss.is_finite() || !grad_norm.is_finite() {
            let what = if loss.is_finite() { "gradient" } else { "loss" };
            return Err(Error::Diverged { what, step: step + 1, checkpoint: None });
        }
        let learning_rate = config.learning_rate.at(step);
        let clipped = config.clip_norm.map_or(1.0, |most| (most / grad_norm).min(1.0));
        optimizer.step(&sum, learning_rate, clipped / parts)?;
        let seconds = started.elapsed().as_secs_f64();
        let processor_seconds = processor.zip(processor_seconds()).map(|(before, after)| after - before);
        let record =
            StepRecord { step: step + 1, loss, grad_norm, learning_rate, validation: None, seconds, processor_seconds };
        history.push(record.clone());
        let going_on = watch(&record)?;
        task.advance(1)?;
        if going_on.is_break() {
            break;
        }
    }
    Ok(history)
}

/// The variables that gradients train, by name, so that sums over all of them are the same in every run.
fn trainable(variables: &VarMap) -> Vec<Var> {
    let data = variables.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut named: Vec<(&String, &Var)> =
        data.iter().filter(|(name, _)| !name.ends_with("running_mean") && !name.ends_with("running_var")).collect();
    named.sort_by_key(|(name, _)| *name);
    named.into_iter().map(|(_, var)| var.clone()).collect()
}
