//! Exponential moving average of a model's variables, which generation uses.

use candle_core::{Tensor, Var};

use super::in_place::follow;
use crate::{Error, Result};

/// A second set of variables that follows a trained one.
///
/// Its decay rises as `(1 + n) / (10 + n)` up to `decay`, so that the first steps are soon forgotten. Running statistics are averaged in
/// the same way as parameters.
#[doc(alias("EMAModel", "AveragedModel"))]
#[derive(Debug)]
pub struct Ema {
    trained: Vec<Var>,
    averaged: Vec<(String, Var)>,
    decay: f64,
    updates: u64,
}

impl Ema {
    /// An average that starts at the present values of `state`, a model's variables by name. `decay` is between 0 and 1; with a larger one
    /// the average follows more slowly.
    ///
    /// # Errors
    /// [`Error::Argument`] for a decay out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::Ema;
    /// let weight = candle_core::Var::new(&[4f32], &Device::Cpu)?;
    /// let state = [("weight".to_string(), weight)];
    /// assert_eq!(Ema::new(&state, 0.999)?.variables()[0].1.to_vec1::<f32>()?, [4.0]);
    /// assert!(Ema::new(&state, 1.0).is_err()); // an average that never moves
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(state: &[(String, Var)], decay: f64) -> Result<Self> {
        let copy =
            |(name, var): &(String, Var)| Ok((name.clone(), Var::from_tensor(&var.as_detached_tensor().copy()?)?));
        Self::into_variables(state, state.iter().map(copy).collect::<Result<_>>()?, decay)
    }

    /// The same, but the average is stored in given variables: those of a second copy of the model.
    pub(super) fn into_variables(state: &[(String, Var)], averaged: Vec<(String, Var)>, decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::argument("Ema", "decay", decay, "0 or more, below 1"));
        }
        let trained: Vec<Var> = state.iter().map(|(_, var)| var.clone()).collect();
        for (from, (_, to)) in trained.iter().zip(&averaged) {
            to.set(&from.as_detached_tensor().copy()?)?;
        }
        Ok(Self { trained, averaged, decay, updates: 0 })
    }

    /// Moves the average towards the present values.
    ///
    /// # Errors
    /// Variables of other types than f32.
    ///
    /// ```
    /// use wavemesh::train::Ema;
    /// use wavemesh::prelude::*;
    /// let weight = candle_core::Var::new(&[0f32], &Device::Cpu)?;
    /// let mut average = Ema::new(&[("weight".into(), weight.clone())], 0.9)?;
    /// weight.set(&Tensor::new(&[10f32], &Device::Cpu)?)?;
    /// average.update()?;
    /// let now = average.variables()[0].1.to_vec1::<f32>()?[0];
    /// assert!(now > 0.0 && now < 10.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn update(&mut self) -> Result<()> {
        let n = self.updates as f64;
        self.updates += 1;
        let decay = self.decay.min((1.0 + n) / (10.0 + n));
        let (keep, take) = (decay as f32, (1.0 - decay) as f32);
        let pairs = self.trained.iter().zip(&self.averaged).map(|(from, (_, to))| [to as &Tensor, from as &Tensor]);
        follow(pairs, keep, take)
    }

    /// The averages by name.
    pub fn variables(&self) -> &[(String, Var)] {
        &self.averaged
    }

    /// Sets the model's variables to their averages, at the end of a training.
    ///
    /// # Errors
    /// An error of candle if it cannot allocate.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::Ema;
    /// let weight = candle_core::Var::new(&[4f32], &Device::Cpu)?;
    /// let average = Ema::new(&[("weight".to_string(), weight.clone())], 0.9)?;
    /// weight.set(&Tensor::new(&[5f32], &Device::Cpu)?)?; // a step of the training, which the average has not seen
    /// average.keep()?;
    /// assert_eq!(weight.to_vec1::<f32>()?, [4.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn keep(&self) -> Result<()> {
        let mut pairs = self.trained.iter().zip(&self.averaged);
        pairs.try_for_each(|(var, (_, average))| Ok(var.set(&average.as_detached_tensor())?))
    }

    /// Runs `body` while the model's variables have their averages; afterwards they have their own values again.
    ///
    /// # Errors
    /// An error of candle if it cannot allocate.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::Ema;
    /// let weight = candle_core::Var::new(&[4f32], &Device::Cpu)?;
    /// let average = Ema::new(&[("weight".to_string(), weight.clone())], 0.9)?;
    /// weight.set(&Tensor::new(&[5f32], &Device::Cpu)?)?;
    /// assert_eq!(average.apply(|| weight.to_vec1::<f32>())??, [4.0]);
    /// assert_eq!(weight.to_vec1::<f32>()?, [5.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn apply<T>(&self, body: impl FnOnce() -> T) -> Result<T> {
        struct Restore<'a>(&'a Ema, Vec<Tensor>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                for (var, value) in self.0.trained.iter().zip(&self.1) {
                    // The value came from this variable, so its shape and type fit.
                    let _ = var.set(value);
                }
            }
        }
        let own = self.trained.iter().map(|var| Ok(var.as_detached_tensor().copy()?)).collect::<Result<_>>()?;
        let _restore = Restore(self, own);
        self.keep()?;
        Ok(body())
    }

    pub(super) fn updates(&self) -> u64 {
        self.updates
    }

    pub(super) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}
