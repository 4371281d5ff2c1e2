//! A step of a training, and its validation.

use std::time::Instant;

use candle_core::Tensor;

use super::Trainer;
use super::together::number;
use crate::train::clock::processor_seconds;
use crate::train::ema::Ema;
use crate::train::grad_scaler::GradScaler;
use crate::train::in_place::norm;
use crate::train::objective::Objective;
use crate::train::record::StepRecord;
use crate::{Error, Result};

impl<O: Objective> Trainer<O> {
    /// Takes one step. After an error, the variables and the optimiser are as before it.
    ///
    /// With a scaled loss, a step whose gradient overflows changes only the scale; its `grad_norm` is not finite.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or gradient is not finite. In a group, an error of one process ends the step in all processes
    /// ([`Error::Group`]).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{FitConfig, LearningRate};
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let config = FitConfig::new().steps(5).learning_rate(LearningRate::Constant(0.1));
    /// let mut trainer = Trainer::fit(&variables, config, loss)?; // of (w − 3)², from w = 0
    /// let record = trainer.step()?;
    /// assert_eq!((record.step, record.loss, record.grad_norm), (1, 9.0, 6.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn step(&mut self) -> Result<StepRecord> {
        let step = self.step_here();
        step.inspect_err(|error| {
            if !matches!(error, Error::Diverged { .. }) {
                self.group.fail(error);
            }
        })
    }

    fn step_here(&mut self) -> Result<StepRecord> {
        let (started, processor) = (Instant::now(), processor_seconds());
        let done = self.step_count();
        let parts = self.plan.accumulation;
        let mut sum: Vec<Tensor> = Vec::new();
        let mut loss_sum = 0f64;
        for part in 0..parts {
            let loss = self.objective.loss(done * parts + part)?;
            let (own, mean) = self.over_all(&loss)?;
            let own = self.scaler.as_ref().map_or_else(|| Ok(own.clone()), |scaler| scaler.scale(&own))?;
            let grads = self.optimizer.gradients(&own.backward()?)?;
            loss_sum += mean.map_or_else(|| number(&loss), Ok)?;
            if sum.is_empty() {
                sum = grads;
            } else {
                sum = sum.iter().zip(&grads).map(|(a, b)| Ok((a + b)?)).collect::<Result<_>>()?;
            }
        }
        let (sum, statistics) = self.sums_over_all(sum)?;
        let scale = self.scaler.as_ref().map_or(1.0, GradScaler::get);
        let parts = parts as f64 * scale;
        let loss = loss_sum * scale / parts;
        let grad_norm = norm(&sum)? / parts;
        // If the scale is below 1, the scale is not what makes gradients overflow.
        let skipped = self.scaler.is_some() && scale > 1.0 && !grad_norm.is_finite();
        if !loss.is_finite() || !(grad_norm.is_finite() || skipped) {
            let what = if loss.is_finite() { "gradient" } else { "loss" };
            let kept = self.last_checkpoint.clone();
            return Err(Error::Diverged { what, step: done + 1, checkpoint: kept });
        }
        for (var, mean) in statistics {
            var.set(&mean)?;
        }
        let learning_rate = self.plan.learning_rate.at(done);
        if !skipped {
            let clipped = self.plan.clip_norm.map_or(1.0, |most| (most / grad_norm).min(1.0));
            self.optimizer.step(&sum, learning_rate, clipped / parts)?;
            self.average.as_mut().map_or(Ok(()), Ema::update)?;
        }
        if let Some(scaler) = &mut self.scaler {
            scaler.update(grad_norm);
        }
        let step = done + 1;
        let validates = self.plan.validate_every > 0 && step.is_multiple_of(self.plan.validate_every);
        let validation = if validates { self.validate()? } else { None };
        let seconds = started.elapsed().as_secs_f64();
        let processor_seconds = processor.zip(processor_seconds()).map(|(before, after)| after - before);
        let record = StepRecord { step, loss, grad_norm, learning_rate, validation, seconds, processor_seconds };
        self.history.push(record.clone());
        Ok(record)
    }

    /// The loss on the validation samples, with the averaged variables if there is an average; `None` without samples.
    ///
    /// # Errors
    /// The errors of the objective.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::FitConfig;
    /// # let variables = VarMap::new();
    /// # let weight = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).get(1, "weight")?;
    /// # let loss = |_n| Ok((&weight - 3.0)?.sqr()?.sum_all()?);
    /// let trainer = Trainer::fit(&variables, FitConfig::new().steps(5), loss)?;
    /// assert_eq!(trainer.validate()?, None);
    /// assert_eq!(trainer.validated_by(|| Ok(0.25)).validate()?, Some(0.25));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn validate(&self) -> Result<Option<f64>> {
        let own = match &self.average {
            Some(average) if !self.average_is_there => average.apply(|| self.objective.validate())??,
            _ => self.objective.validate()?,
        };
        if self.group.is_alone() {
            return Ok(own);
        }
        let first = own.filter(|_| self.group.is_first());
        let mut answer = [f64::from(u8::from(first.is_some())), first.unwrap_or(0.0)];
        self.group.sum(&mut answer)?;
        Ok((answer[0] > 0.0).then_some(answer[1]))
    }
}
