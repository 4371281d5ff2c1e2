//! [`Objective`]: a model with its loss.

use candle_core::{Tensor, Var};
use serde_json::{Map, Value};

use crate::Result;

/// What a [`Trainer`](super::Trainer) trains: a model with its loss. Implement it for a training that keeps a state of its own; a closure
/// is enough for others ([`Trainer::fit`](super::Trainer::fit)).
pub trait Objective {
    /// Every variable of the model by name, in an order that is always the same: parameters, and running statistics (names that end in
    /// `running_mean` or `running_var`), which no gradient trains.
    fn state(&self) -> Vec<(String, Var)>;

    /// The loss of micro-batch `part` of the whole training (0, 1, …), a scalar, in training mode. What is random in it should follow from
    /// `part`: a training that is resumed is then the one that was not interrupted.
    ///
    /// # Errors
    /// Whatever the data or the model return; the training stops there, before the step.
    fn loss(&mut self, part: usize) -> Result<Tensor>;

    /// The loss on samples that are not trained on, in evaluation mode; `None` without such samples. The model has its averaged
    /// variables while this runs, unless [`averaged`](Self::averaged) gives a second copy.
    ///
    /// # Errors
    /// Whatever the data or the model return.
    fn validate(&self) -> Result<Option<f64>> {
        Ok(None)
    }

    /// The variables of a second copy of the model, as many and in the order of [`state`](Self::state), that the moving average is written
    /// to; by default the trainer has its own.
    fn averaged(&self) -> Option<Vec<(String, Var)>> {
        None
    }

    /// What a checkpoint must hold beside the tensors.
    fn saved(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Goes on from what [`saved`](Self::saved) gave. A text that says what does not fit leaves everything as it was.
    ///
    /// # Errors
    /// A checkpoint of another model.
    fn resume(&mut self, _saved: &Map<String, Value>) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// Whether gradients train a variable of this name: running statistics belong to their layers.
pub(super) fn is_trained(name: &str) -> bool {
    !name.ends_with("running_mean") && !name.ends_with("running_var")
}
