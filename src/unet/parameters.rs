//! A network's parameters: every tensor that its layers requested, by name, in the order of construction.
//!
//! Unlike that of a `VarMap`, the order is fixed, so that sums over all parameters (such as a gradient's norm) are the same in every run.
//! Each tensor is a variable, wherever it came from, so that a loaded network can be trained further.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::Rng;
use rand_distr::{Distribution, Normal};

use crate::random;
use crate::sync::lock;

type Log = Arc<Mutex<Vec<(String, Var)>>>;

/// Returns what `inner` returns, as variables, and remembers it.
struct Recorder<'a> {
    inner: VarBuilder<'a>,
    log: Log,
}

impl SimpleBackend for Recorder<'_> {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, _device: &Device) -> Result<Tensor> {
        let var = Var::from_tensor(&self.inner.get_with_hints_dtype(shape, name, init, dtype)?)?;
        let tensor = var.as_tensor().clone();
        lock(&self.log).push((name.to_string(), var));
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _device: &Device) -> Result<Tensor> {
        self.inner.get_unchecked_dtype(name, dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.inner.contains_tensor(name)
    }
}

/// Runs `build` with a recording builder. Returns what it built, and the (name, variable) pairs.
pub(super) fn record<T>(
    vb: VarBuilder<'_>,
    build: impl FnOnce(VarBuilder<'_>) -> crate::Result<T>,
) -> crate::Result<(T, Vec<(String, Var)>)> {
    let log = Log::default();
    let (dtype, device) = (vb.dtype(), vb.device().clone());
    let recorder: Box<dyn SimpleBackend + '_> = Box::new(Recorder { inner: vb, log: log.clone() });
    let built = build(VarBuilder::new_with_args(recorder, dtype, &device))?;
    let entries = std::mem::take(&mut *lock(&log));
    Ok((built, entries))
}

/// Initial values that depend only on a seed and the tensor's name.
pub(super) struct SeededInit {
    pub seed: u64,
}

impl SimpleBackend for SeededInit {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        // FNV-1a gives each name its own stream of random numbers.
        let stream =
            name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut rng = random::rng(self.seed, stream);
        let count = shape.elem_count();
        let values: Vec<f32> = match init {
            Init::Const(value) => vec![value as f32; count],
            Init::Uniform { lo, up } => (0..count).map(|_| rng.random_range(lo..up) as f32).collect(),
            Init::Randn { mean, stdev } => {
                let normal = Normal::new(mean, stdev).map_err(candle_core::Error::wrap)?;
                (0..count).map(|_| normal.sample(&mut rng) as f32).collect()
            }
            Init::Kaiming { .. } => candle_core::bail!("{name}: no seeded Kaiming initialisation; use Init::Uniform"),
        };
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _dtype: DType, _device: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: an initial value needs a shape")
    }

    fn contains_tensor(&self, _name: &str) -> bool {
        true
    }
}

/// Whether a tensor with this name is a running statistic, which gradients do not train.
pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}
