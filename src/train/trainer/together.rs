//! Training with several processes.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor, Var};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Trainer;
use crate::distributed::ProcessGroup;
use crate::train::cache::hex;
use crate::train::objective::{Objective, is_trained};
use crate::{Error, Result};

/// Variables that gradients do not train, and their new values.
pub(super) type Statistics = Vec<(Var, Tensor)>;

impl<O: Objective> Trainer<O> {
    /// Trains together with the other processes of `group`. Each process builds the same trainer and then calls this; all of them end with
    /// the same network. Losses are weighted by their samples, and gradients are summed over all processes. Every process takes over the
    /// state of rank 0, and only rank 0 writes checkpoints and the log. A group of one changes nothing.
    ///
    /// A network that learns to denoise ([`Trainer::new`]) divides its batches by itself. A closure ([`Trainer::fit`]) must take its
    /// [`share`](ProcessGroup::share) of each batch:
    ///
    /// ```
    /// use wavemesh::distributed::ProcessGroup;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # fn main() -> wavemesh::Result<()> {
    /// let group = ProcessGroup::from_environment()?;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let slope = vb.get_with_hints(1, "slope", candle_nn::Init::Const(0.0))?;
    /// let own = group.share(6); // of a batch of 6 samples
    /// let loss = |_n| {
    ///     let x = Tensor::arange(own.start as f32, own.end as f32, &Device::Cpu)?;
    ///     Ok((x.broadcast_mul(&slope)? - (&x * 2.0)?)?.sqr()?.mean_all()?)
    /// };
    /// let config = FitConfig::new().steps(5);
    /// let mut trainer = Trainer::fit(&variables, config, loss)?.weighted_by(|| own.len() as f64).in_group(&group)?;
    /// trainer.run(|_, record| {
    ///     if group.is_first() {
    ///         println!("step {}: {}", record.step, record.loss); // the loss over all samples
    ///     }
    ///     Ok(())
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Group`] in every process if one of them fails or has another program, configuration, network or other data (the error names
    /// the rank and the difference); and the error of an objective that cannot be shared.
    pub fn in_group(mut self, group: &Arc<ProcessGroup>) -> Result<Self> {
        if group.is_alone() {
            return Ok(self);
        }
        let joined = (|| {
            group.agree("the program", &json!({ "version": env!("CARGO_PKG_VERSION"), "sha256": program() }))?;
            group.agree("the training", &self.facts()?)?;
            self.objective.join(group)
        })();
        joined.inspect_err(|error| group.fail(error))?;
        let state = group.broadcast(|| self.to_bytes())?;
        self.restore(Path::new("the state of rank 0"), &state).inspect_err(|error| group.fail(error))?;
        self.group = Arc::clone(group);
        Ok(self)
    }

    /// What all processes of a group must have in common.
    fn facts(&self) -> Result<Value> {
        let mut plan = self.plan.clone();
        plan.folder = None;
        let plan = serde_json::to_value(plan).map_err(candle_core::Error::wrap)?;
        let variables: Map<String, Value> =
            self.state.iter().map(|(name, var)| (name.clone(), json!(var.dims()))).collect();
        Ok(json!({ "plan": plan, "model": self.objective.facts()?, "variables": variables }))
    }

    /// The group of processes that train together.
    pub fn group(&self) -> &Arc<ProcessGroup> {
        &self.group
    }

    /// Agrees with the other processes after a step: all stop together if one has to stop.
    pub(super) fn agreed(&self, own: Result<ControlFlow<()>>) -> Result<ControlFlow<()>> {
        if self.group.is_alone() {
            return own;
        }
        let mut votes = match own {
            Ok(ControlFlow::Continue(())) => [0.0, 0.0],
            Ok(ControlFlow::Break(())) => [1.0, 0.0],
            Err(Error::Interrupted) => [0.0, 1.0],
            Err(error) => return Err(error),
        };
        self.group.sum(&mut votes)?;
        match votes {
            [_, interrupted] if interrupted > 0.0 => Err(Error::Interrupted),
            [ended, _] if ended > 0.0 => Ok(ControlFlow::Break(())),
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    /// This process's part of the mean loss over all samples of the group, which is to be differentiated; and that mean. A process alone
    /// need not know it before the gradients: on a GPU the number is there when the work is done.
    pub(super) fn over_all(&self, loss: &Tensor) -> Result<(Tensor, Option<f64>)> {
        if self.group.is_alone() {
            return Ok((loss.clone(), None));
        }
        let (samples, own) = (self.objective.samples(), number(loss)?);
        let mut sums = [samples, if samples > 0.0 { samples * own } else { 0.0 }];
        self.group.sum(&mut sums)?;
        let [all, sum] = sums;
        // A batch without samples in any process has no gradient.
        let share = if all > 0.0 { samples / all } else { 0.0 };
        Ok(((loss * share)?, Some(sum / all.max(f64::MIN_POSITIVE))))
    }

    /// The gradient over all processes, and the means of their running statistics, which gradients do not train.
    pub(super) fn sums_over_all(&self, mut gradients: Vec<Tensor>) -> Result<(Vec<Tensor>, Statistics)> {
        if self.group.is_alone() {
            return Ok((gradients, Vec::new()));
        }
        let count = gradients.len();
        let statistics: Vec<&Var> = self
            .state
            .iter()
            .filter(|(name, var)| !is_trained(name) && var.dtype() == DType::F32)
            .map(|(_, v)| v)
            .collect();
        let share = 1.0 / self.group.world_size() as f64;
        for var in &statistics {
            gradients.push((var.as_detached_tensor() * share)?);
        }
        let mut sums = self.group.sum_tensors(gradients)?;
        let means = sums.split_off(count);
        Ok((sums, statistics.into_iter().cloned().zip(means).collect()))
    }
}

/// The number in a tensor.
pub(super) fn number(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.to_scalar()?)
}

/// Identifies this program: the SHA-256 of its file, if that can be read.
fn program() -> Option<String> {
    let file = std::env::current_exe().and_then(std::fs::read).ok()?;
    Some(hex(&Sha256::digest(file)))
}
