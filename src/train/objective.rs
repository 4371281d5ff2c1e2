//! [`Objective`]: a model with its loss.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use serde_json::{Map, Value};

use crate::Result;
use crate::distributed::ProcessGroup;

/// What a [`Trainer`](super::Trainer) trains: a model with its loss. Implement this trait for a training that keeps its own state; for
/// others a closure is enough ([`Trainer::fit`](super::Trainer::fit)).
pub trait Objective {
    /// All variables of the model by name, always in the same order: parameters, and running statistics (names that end in `running_mean`
    /// or `running_var`), which gradients do not train.
    fn state(&self) -> Vec<(String, Var)>;

    /// The loss of micro-batch `part` (0, 1, …) of the whole training, a scalar, in training mode. Random choices should depend only on
    /// `part`: then a resumed training equals one without interruption.
    ///
    /// # Errors
    /// Errors of the data or the model. The training stops before the step.
    ///
    /// ```
    /// use wavemesh::candle_core::Var;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::Objective;
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
    /// let mut objective = Three(Var::new(1f32, &Device::Cpu)?);
    /// assert_eq!(objective.loss(0)?.to_scalar::<f32>()?, 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    fn loss(&mut self, part: usize) -> Result<Tensor>;

    /// How many samples the last [`loss`](Self::loss) is the mean of. A group weights the losses of its processes by this number, so that
    /// its loss is the mean over all samples. By default every process counts the same.
    fn samples(&self) -> f64 {
        1.0
    }

    /// Joins a group: from now on [`loss`](Self::loss) returns the loss of this process's [`share`](ProcessGroup::share) of a micro-batch.
    ///
    /// # Errors
    /// If the work cannot be divided among so many processes.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wavemesh::distributed::ProcessGroup;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{FitConfig, Objective};
    /// /// The mean of numbers, of which each process holds its part.
    /// struct Mean(candle_core::Var, std::ops::Range<usize>);
    /// impl Objective for Mean {
    ///     fn state(&self) -> Vec<(String, candle_core::Var)> {
    ///         vec![("mean".into(), self.0.clone())]
    ///     }
    ///     fn loss(&mut self, _part: usize) -> wavemesh::Result<Tensor> {
    ///         let own = Tensor::arange(self.1.start as f32, self.1.end as f32, &Device::Cpu)?;
    ///         Ok(own.broadcast_sub(&self.0)?.sqr()?.mean_all()?)
    ///     }
    ///     fn samples(&self) -> f64 {
    ///         self.1.len() as f64
    ///     }
    ///     fn join(&mut self, group: &Arc<ProcessGroup>) -> wavemesh::Result<()> {
    ///         self.1 = group.share(10);
    ///         Ok(())
    ///     }
    /// }
    /// let mean = Mean(candle_core::Var::zeros(1, DType::F32, &Device::Cpu)?, 0..10);
    /// let group = ProcessGroup::from_environment()?;
    /// let mut trainer = Trainer::with_objective(mean, FitConfig::new().steps(1))?.in_group(&group)?;
    /// assert_eq!(trainer.step()?.loss, 28.5);
    /// # Ok::<(), Error>(())
    /// ```
    fn join(&mut self, _group: &Arc<ProcessGroup>) -> Result<()> {
        Ok(())
    }

    /// What all processes of a group must have in common besides the variables' shapes: configurations, and a text that differs for other
    /// data.
    ///
    /// # Errors
    /// If the data cannot be read.
    ///
    /// ```
    /// use wavemesh::distributed::ProcessGroup;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::{FitConfig, Objective};
    /// /// The mean of numbers, of which each process holds its part.
    /// struct Mean(candle_core::Var, std::ops::Range<usize>);
    /// impl Objective for Mean {
    ///     fn state(&self) -> Vec<(String, candle_core::Var)> {
    ///         vec![("mean".into(), self.0.clone())]
    ///     }
    ///     fn loss(&mut self, _part: usize) -> wavemesh::Result<Tensor> {
    ///         let own = Tensor::arange(self.1.start as f32, self.1.end as f32, &Device::Cpu)?;
    ///         Ok(own.broadcast_sub(&self.0)?.sqr()?.mean_all()?)
    ///     }
    ///     fn samples(&self) -> f64 {
    ///         self.1.len() as f64
    ///     }
    ///     fn facts(&self) -> wavemesh::Result<serde_json::Map<String, serde_json::Value>> {
    ///         Ok([("numbers".to_string(), 10.into())].into_iter().collect())
    ///     }
    /// }
    /// let mean = Mean(candle_core::Var::zeros(1, DType::F32, &Device::Cpu)?, 0..10);
    /// let group = ProcessGroup::from_environment()?;
    /// let mut trainer = Trainer::with_objective(mean, FitConfig::new().steps(1))?.in_group(&group)?;
    /// assert_eq!(trainer.step()?.loss, 28.5);
    /// # Ok::<(), Error>(())
    /// ```
    fn facts(&self) -> Result<Map<String, Value>> {
        Ok(self.saved())
    }

    /// The loss in evaluation mode on samples that are not used for training; `None` without such samples. Meanwhile the model has its
    /// averaged variables, unless [`averaged`](Self::averaged) returns a second copy. In a group every process is asked, and the answer of
    /// rank 0 counts.
    ///
    /// # Errors
    /// Errors of the data or the model.
    ///
    /// ```
    /// use wavemesh::candle_core::Var;
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::Objective;
    /// # struct Three(Var);
    /// impl Objective for Three {
    /// #     fn state(&self) -> Vec<(String, Var)> {
    /// #         vec![("number".into(), self.0.clone())]
    /// #     }
    /// #     fn loss(&mut self, _part: usize) -> wavemesh::Result<Tensor> {
    /// #         Ok((self.0.as_tensor() - 3.0)?.sqr()?)
    /// #     }
    ///     // … and state and loss
    ///     fn validate(&self) -> wavemesh::Result<Option<f64>> {
    ///         Ok(Some(f64::from(self.0.to_scalar::<f32>()? - 3.0).abs()))
    ///     }
    /// }
    /// assert_eq!(Three(Var::new(1f32, &Device::Cpu)?).validate()?, Some(2.0));
    /// # Ok::<(), Error>(())
    /// ```
    fn validate(&self) -> Result<Option<f64>> {
        Ok(None)
    }

    /// The variables of a second copy of the model, which receive the moving average: the same number and order as in
    /// [`state`](Self::state). By default the trainer keeps its own average.
    fn averaged(&self) -> Option<Vec<(String, Var)>> {
        None
    }

    /// The state that a checkpoint must hold in addition to the tensors.
    fn saved(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Continues from the state that [`saved`](Self::saved) returned. On an error, a text says what does not fit and nothing has changed.
    ///
    /// # Errors
    /// A checkpoint of another model.
    ///
    /// ```
    /// use wavemesh::candle_core::Var;
    /// use wavemesh::prelude::*;
    /// use wavemesh::prelude::serde_json::{Map, Value};
    /// use wavemesh::train::Objective;
    /// /// A training that counts the samples it has seen.
    /// struct Counting {
    ///     seen: u64,
    /// }
    /// impl Objective for Counting {
    /// #     fn state(&self) -> Vec<(String, Var)> {
    /// #         Vec::new()
    /// #     }
    /// #     fn loss(&mut self, _part: usize) -> wavemesh::Result<Tensor> {
    /// #         Ok(Tensor::new(0f32, &Device::Cpu)?)
    /// #     }
    ///     // … and state and loss
    ///     fn saved(&self) -> Map<String, Value> {
    ///         Map::from_iter([("seen".into(), self.seen.into())])
    ///     }
    ///     fn resume(&mut self, saved: &Map<String, Value>) -> Result<(), String> {
    ///         self.seen = saved.get("seen").and_then(Value::as_u64).ok_or("without the number of samples")?;
    ///         Ok(())
    ///     }
    /// }
    /// let mut resumed = Counting { seen: 0 };
    /// resumed.resume(&Counting { seen: 640 }.saved()).unwrap();
    /// assert_eq!(resumed.seen, 640);
    /// assert!(resumed.resume(&Map::new()).is_err());
    /// ```
    fn resume(&mut self, _saved: &Map<String, Value>) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// Whether gradients train a variable with this name. They do not train running statistics, which belong to their layers.
pub(super) fn is_trained(name: &str) -> bool {
    !name.ends_with("running_mean") && !name.ends_with("running_var")
}
