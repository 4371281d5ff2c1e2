//! [`StepRecord`]: what a training records about each step.

use serde::{Deserialize, Serialize};

/// What happened in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: usize,
    /// Training loss.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Loss of the averaged network on the validation samples, in steps with a validation.
    pub validation: Option<f64>,
    /// Seconds that the step took on the clock.
    pub seconds: f64,
    /// Seconds that all threads of the process together computed in the step; `None` if the system does not tell. Other programs on the
    /// machine, or a pause, lengthen the clock's seconds, but not these.
    pub processor_seconds: Option<f64>,
}

impl StepRecord {
    pub(super) const FIELDS: usize = 7;

    /// The record as numbers; missing values are NaN.
    pub(super) fn to_row(&self) -> [f64; Self::FIELDS] {
        let Self { step, loss, grad_norm, learning_rate, validation, seconds, processor_seconds } = *self;
        let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
        [step as f64, loss, grad_norm, learning_rate, or_nan(validation), seconds, or_nan(processor_seconds)]
    }

    /// What [`to_row`](Self::to_row) wrote.
    pub(super) fn from_row(row: &[f64]) -> Option<Self> {
        let &[step, loss, grad_norm, learning_rate, validation, seconds, processor_seconds] = row else { return None };
        let known = |value: f64| (!value.is_nan()).then_some(value);
        let (validation, processor_seconds) = (known(validation), known(processor_seconds));
        Some(Self { step: step as usize, loss, grad_norm, learning_rate, validation, seconds, processor_seconds })
    }
}
