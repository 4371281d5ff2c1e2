//! AdamW (Loshchilov & Hutter 2019) with a state that can be saved, and the course of the learning rate.

use std::path::Path;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use serde::{Deserialize, Serialize};

use super::in_place::{Adam, Changed, adam};
use crate::{Error, Result, tensor_file};

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdamWConfig {
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean squared gradient.
    pub beta2: f64,
    /// Added to the square root of the mean squared gradient.
    pub eps: f64,
    /// Decoupled weight decay; not applied to vectors (biases, normalisation).
    pub weight_decay: f64,
}

impl AdamWConfig {
    pub(super) fn validate(&self, op: &'static str) -> Result<()> {
        let Self { beta1, beta2, eps, weight_decay } = *self;
        for (name, value) in [("beta1", beta1), ("beta2", beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::argument(op, name, value, "0 or more, below 1"));
            }
        }
        if !(eps.is_finite() && eps > 0.0) {
            return Err(Error::argument(op, "eps", eps, "a number above 0"));
        }
        if !(weight_decay.is_finite() && weight_decay >= 0.0) {
            return Err(Error::argument(op, "weight_decay", weight_decay, "a number of 0 or more"));
        }
        Ok(())
    }
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-4 }
    }
}

setters! {
    AdamWConfig {
        beta1(beta1: f64) => beta1 = beta1;
        beta2(beta2: f64) => beta2 = beta2;
        eps(eps: f64) => eps = eps;
        weight_decay(weight_decay: f64) => weight_decay = weight_decay;
    }
}

/// AdamW for a list of `f32` variables in a fixed order, with moments that can be saved. Each tensor is read and written in place, in three
/// passes per step. The result does not depend on the number of threads.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    vars: Vec<Var>,
    /// Mean and mean squared gradient of each variable.
    pub(super) moments: Vec<[Var; 2]>,
    /// Number of updates so far.
    pub(super) updates: u64,
}

impl AdamW {
    /// An optimiser without history.
    ///
    /// # Errors
    /// [`Error::Argument`] for no variables or a constant out of range; an error of candle if it cannot allocate.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let x = candle_core::Var::new(&[3f32], &Device::Cpu)?;
    /// assert_eq!(AdamW::new(AdamWConfig::new().weight_decay(0.01), vec![x.clone()])?.updates(), 0);
    /// assert!(AdamW::new(AdamWConfig::new().beta1(1.0), vec![x]).is_err());
    /// assert!(AdamW::new(AdamWConfig::new(), Vec::new()).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: AdamWConfig, vars: Vec<Var>) -> Result<Self> {
        config.validate("AdamW::new")?;
        if vars.is_empty() {
            return Err(Error::argument("AdamW::new", "vars", "empty", "at least one variable to train"));
        }
        if let Some(var) = vars.iter().find(|var| var.dtype() != DType::F32) {
            let expected =
                "f32: half features need no half parameters (MixedPrecision), and f64 is for gradient checks";
            return Err(Error::DType { op: "AdamW::new", what: "a variable", got: var.dtype(), expected });
        }
        let zeros = |var: &Var| Var::zeros(var.shape(), var.dtype(), var.device());
        let moments = vars.iter().map(|var| Ok([zeros(var)?, zeros(var)?])).collect::<Result<_>>()?;
        Ok(Self { config, vars, moments, updates: 0 })
    }

    /// The gradient of each variable, in order; zeros for a variable without one.
    ///
    /// # Errors
    /// An error of candle if it cannot allocate.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let [x, unused] = [3f32, 5.0].map(|value| candle_core::Var::new(&[value], &Device::Cpu));
    /// let (x, unused) = (x?, unused?);
    /// let optimizer = AdamW::new(AdamWConfig::default(), vec![x.clone(), unused])?;
    /// let found = x.sqr()?.sum_all()?.backward()?;
    /// let gradients = optimizer.gradients(&found)?;
    /// assert_eq!([gradients[0].to_vec1::<f32>()?, gradients[1].to_vec1::<f32>()?], [[6.0], [0.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gradients(&self, found: &GradStore) -> Result<Vec<Tensor>> {
        self.vars
            .iter()
            .map(|var| match found.get(var) {
                Some(grad) => Ok(grad.detach().contiguous()?),
                None => Ok(var.zeros_like()?),
            })
            .collect()
    }

    /// Makes one update with the gradients of a loss.
    ///
    /// # Errors
    /// An error of candle about the loss, such as for an operation without a gradient.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let x = candle_core::Var::new(&[3f32], &Device::Cpu)?;
    /// let mut optimizer = AdamW::new(AdamWConfig::default(), vec![x.clone()])?;
    /// optimizer.backward_step(&x.sqr()?.sum_all()?, 0.5)?;
    /// // The first step of Adam is as long as the learning rate, against the gradient.
    /// assert!((x.to_vec1::<f32>()?[0] - 2.5).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn backward_step(&mut self, loss: &Tensor, learning_rate: f64) -> Result<()> {
        let gradients = self.gradients(&loss.backward()?)?;
        self.step(&gradients, learning_rate, 1.0)
    }

    /// Its constants.
    pub fn config(&self) -> AdamWConfig {
        self.config
    }

    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Makes one update with `scale` times the given gradients, one for each variable, in order.
    ///
    /// # Errors
    /// A number of gradients other than that of the variables, or gradients with other shapes or types. Then nothing has changed.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let x = candle_core::Var::new(&[3f32], &Device::Cpu)?;
    /// let mut optimizer = AdamW::new(AdamWConfig::default(), vec![x.clone()])?;
    /// let gradient = Tensor::new(&[-8f32], &Device::Cpu)?; // summed over four batches
    /// optimizer.step(&[gradient], 0.5, 0.25)?;
    /// assert!((x.to_vec1::<f32>()?[0] - 3.5).abs() < 1e-6); // the first step is as long as the learning rate
    /// assert!(optimizer.step(&[], 0.5, 1.0).is_err()); // a gradient for each variable
    /// # Ok::<(), Error>(())
    /// ```
    pub fn step(&mut self, grads: &[Tensor], learning_rate: f64, scale: f64) -> Result<()> {
        if grads.len() != self.vars.len() {
            let expected = format!("{}, one for each variable", self.vars.len());
            return Err(Error::argument("AdamW::step", "grads", format!("{} gradients", grads.len()), expected));
        }
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let updates = self.updates + 1;
        let correct1 = 1.0 - beta1.powf(updates as f64);
        let correct2 = 1.0 - beta2.powf(updates as f64);
        let constants = Adam {
            keep: [beta1 as f32, beta2 as f32],
            take: [((1.0 - beta1) * scale) as f32, ((1.0 - beta2) * scale * scale) as f32],
            rate: (learning_rate / correct1) as f32,
            unbias: (1.0 / correct2) as f32,
            eps: eps as f32,
        };
        let variables = self.vars.iter().zip(&self.moments).zip(grads).map(|((var, [mean, square]), grad)| {
            let decay = if var.rank() > 1 { learning_rate * weight_decay } else { 0.0 };
            Changed { value: var, moments: [mean, square], grad, keep: (1.0 - decay) as f32 }
        });
        adam(variables, constants)?;
        self.updates = updates;
        Ok(())
    }
}

/// Key of the state in a file's header.
const HEADER: &str = "wavemesh.adamw";
const FORMAT: &str = "AdamW state";

impl AdamW {
    /// Writes the moments of every variable and the number of updates as safetensors. Together with the parameters this is everything on
    /// which the next step depends.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; an old file is then still intact.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-adamw-save-example.safetensors");
    /// let x = candle_core::Var::new(&[3f32], &Device::Cpu)?;
    /// let mut optimizer = AdamW::new(AdamWConfig::default(), vec![x.clone()])?;
    /// optimizer.backward_step(&x.sqr()?.sum_all()?, 0.1)?;
    /// optimizer.save(&path)?; // beside the parameters
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let named = |(at, [mean, square]): (usize, &[Var; 2])| {
            [(format!("mean/{at}"), mean.as_detached_tensor()), (format!("square/{at}"), square.as_detached_tensor())]
        };
        let tensors: Vec<(String, Tensor)> = self.moments.iter().enumerate().flat_map(named).collect();
        tensor_file::write(path.as_ref(), tensors, (HEADER, self.updates.to_string()))
    }

    /// Continues from the file that [`save`](Self::save) wrote for the same variables in the same order.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is something else or belongs to other variables; the optimiser is then unchanged.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-adamw-load-example.safetensors");
    /// let x = candle_core::Var::new(&[3f32], &Device::Cpu)?;
    /// let mut optimizer = AdamW::new(AdamWConfig::default(), vec![x.clone()])?;
    /// optimizer.backward_step(&x.sqr()?.sum_all()?, 0.1)?;
    /// optimizer.save(&path)?;
    /// let mut later = AdamW::new(AdamWConfig::default(), vec![x])?;
    /// later.load(&path)?;
    /// assert_eq!(later.updates(), 1);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let invalid = |problem: String| Error::Format { path: path.to_path_buf(), format: FORMAT, problem };
        let (bytes, updates) = tensor_file::read(path, FORMAT, HEADER)?;
        let updates = updates.and_then(|updates| updates.parse().ok());
        let updates = updates.ok_or_else(|| invalid(format!("its header has no `{HEADER}`")))?;
        let mut found = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let mut values = Vec::new();
        for (at, moments) in self.moments.iter().enumerate() {
            for (kind, var) in ["mean", "square"].iter().zip(moments) {
                let name = format!("{kind}/{at}");
                match found.remove(&name) {
                    Some(value) if value.dims() == var.dims() => values.push((var, value)),
                    Some(value) => {
                        let (got, expected) = (value.dims(), var.dims());
                        return Err(invalid(format!("`{name}` has shape {got:?}, this optimiser's has {expected:?}")));
                    }
                    None => return Err(invalid(format!("`{name}` of shape {:?} is missing", var.dims()))),
                }
            }
        }
        if let Some(name) = found.keys().min() {
            return Err(invalid(format!("`{name}` belongs to no variable of this optimiser")));
        }
        for (var, value) in values {
            var.set(&value.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        self.updates = updates;
        Ok(())
    }
}

/// A linear warm-up over `warmup` steps to `peak`, then half a cosine down to `floor · peak` at step `total`.
pub fn learning_rate(step: usize, warmup: usize, total: usize, peak: f64, floor: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let progress = ((step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64).min(1.0);
    peak * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optimiser_goes_on_from_its_file() {
        let grad = |n: usize| vec![Tensor::full(n as f32 - 2.5, 3, &Device::Cpu).unwrap()];
        let fresh = || {
            let var = Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
            (AdamW::new(AdamWConfig::default(), vec![var.clone()]).unwrap(), var)
        };
        let path = std::env::temp_dir().join(format!("wavemesh-adamw-{}.safetensors", std::process::id()));
        let (mut whole, expected) = fresh();
        (0..6).for_each(|n| whole.step(&grad(n), 0.1, 1.0).unwrap());

        let (mut first, var) = fresh();
        (0..3).for_each(|n| first.step(&grad(n), 0.1, 1.0).unwrap());
        first.save(&path).unwrap();
        let (mut second, resumed) = fresh();
        resumed.set(&var.as_detached_tensor()).unwrap();
        second.load(&path).unwrap();
        (3..6).for_each(|n| second.step(&grad(n), 0.1, 1.0).unwrap());
        let values = |var: &Var| var.as_detached_tensor().to_vec1::<f32>().unwrap();
        assert_eq!(values(&resumed), values(&expected));

        let other = Var::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut other = AdamW::new(AdamWConfig::default(), vec![other]).unwrap();
        assert!(other.load(&path).unwrap_err().to_string().contains("[3]"));
        std::fs::remove_file(&path).unwrap();
    }
}
