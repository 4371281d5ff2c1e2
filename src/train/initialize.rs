//! [`seeded_builder`]: initial values that depend only on a seed and a parameter's name, by the rules of `torch.nn.init`.

use candle_core::{DType, Device, Result as CandleResult, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::random;

/// How weights (parameters called `weight` with two or more axes) are initialised. Biases and normalisations are initialised as their
/// layers say.
///
/// Fans are those of WaveMesh's layers, with weights (out, …kernel, in): fan in is in · kernel cells, fan out is out · kernel cells.
#[doc(alias("kaiming_normal_", "xavier_uniform_", "trunc_normal_"))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Initialization {
    /// As the layer says: PyTorch's default for a convolution, uniform within ±1/√(fan in).
    #[default]
    Layer,
    /// `kaiming_uniform_` for leaky ReLUs of slope `a` (0 for ReLU): within ±√(6 / ((1 + a²) · fan in)).
    KaimingUniform {
        /// Slope of the leaky ReLU that follows.
        a: f64,
    },
    /// `kaiming_normal_` for ReLU, with standard deviation √(2 / fan), for fan in or (`mode="fan_out"`) fan out.
    KaimingNormal {
        /// Whether to use fan out instead of fan in.
        fan_out: bool,
    },
    /// `xavier_uniform_`: within ±gain · √(6 / (fan in + fan out)).
    XavierUniform {
        /// A factor for the activation that follows; 1 for none.
        gain: f64,
    },
    /// `xavier_normal_`: standard deviation gain · √(2 / (fan in + fan out)).
    XavierNormal {
        /// A factor for the activation that follows; 1 for none.
        gain: f64,
    },
    /// `trunc_normal_`: standard deviation `std`; values outside ±2 are drawn again.
    TruncNormal {
        /// The standard deviation.
        std: f64,
    },
}

/// A builder that creates the variables it is asked for in `variables`. Their values depend on `seed` and on each variable's name. So they
/// are the same in every run and for any order of layers, and an additional layer changes no other layer.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::train::{Initialization, seeded_builder};
/// # fn main() -> wavemesh::Result<()> {
/// let weights = |seed| -> wavemesh::Result<Vec<f32>> {
///     let vb = seeded_builder(&VarMap::new(), seed, Initialization::KaimingUniform { a: 0.0 }, DType::F32, &Device::Cpu);
///     Ok(SubMConv3d::new(2, 4, 3, ConvConfig::default(), vb.pp("conv"))?.weight().flatten_all()?.to_vec1()?)
/// };
/// assert_eq!(weights(7)?, weights(7)?);
/// assert_ne!(weights(7)?, weights(8)?);
/// # Ok(()) }
/// ```
pub fn seeded_builder(
    variables: &VarMap,
    seed: u64,
    weights: Initialization,
    dtype: DType,
    device: &Device,
) -> VarBuilder<'static> {
    let backend = Seeded { variables: variables.clone(), seed, weights };
    VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
}

struct Seeded {
    variables: VarMap,
    seed: u64,
    weights: Initialization,
}

impl Seeded {
    fn values(&self, shape: &Shape, name: &str, init: Init) -> CandleResult<Vec<f32>> {
        // FNV-1a gives each name its own stream of random numbers.
        let stream =
            name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut rng = random::rng(self.seed, stream);
        let (dims, count) = (shape.dims(), shape.elem_count());
        let is_weight = name.rsplit('.').next() == Some("weight") && dims.len() >= 2;
        let [fan_in, fan_out] = match dims {
            [output, .., input] => [count / output.max(&1), count / input.max(&1)].map(|fan| fan.max(1) as f64),
            _ => [1.0; 2],
        };
        let draw = match self.weights {
            _ if !is_weight => Draw::of(init, name)?,
            Initialization::Layer => Draw::of(init, name)?,
            Initialization::KaimingUniform { a } => Draw::within((6.0 / ((1.0 + a * a) * fan_in)).sqrt()),
            Initialization::KaimingNormal { fan_out: true } => Draw::Normal(0.0, (2.0 / fan_out).sqrt()),
            Initialization::KaimingNormal { fan_out: false } => Draw::Normal(0.0, (2.0 / fan_in).sqrt()),
            Initialization::XavierUniform { gain } => Draw::within(gain * (6.0 / (fan_in + fan_out)).sqrt()),
            Initialization::XavierNormal { gain } => Draw::Normal(0.0, gain * (2.0 / (fan_in + fan_out)).sqrt()),
            Initialization::TruncNormal { std } => Draw::Truncated(std),
        };
        Ok((0..count).map(|_| draw.one(&mut rng) as f32).collect())
    }
}

/// A distribution.
enum Draw {
    Constant(f64),
    Uniform(f64, f64),
    Normal(f64, f64),
    Truncated(f64),
}

impl Draw {
    fn within(bound: f64) -> Self {
        Self::Uniform(-bound, bound)
    }

    fn of(init: Init, name: &str) -> CandleResult<Self> {
        Ok(match init {
            Init::Const(value) => Self::Constant(value),
            Init::Uniform { lo, up } => Self::Uniform(lo, up),
            Init::Randn { mean, stdev } => Self::Normal(mean, stdev),
            Init::Kaiming { .. } => candle_core::bail!(
                "{name}: candle's Kaiming initialisation has no seeded form; choose an Initialization"
            ),
        })
    }

    fn one(&self, rng: &mut impl Rng) -> f64 {
        let mut normal = || -> f64 { StandardNormal.sample(&mut *rng) };
        match *self {
            Self::Constant(value) => value,
            Self::Normal(mean, deviation) => mean + deviation * normal(),
            Self::Truncated(deviation) => loop {
                let value = deviation * normal();
                if value.abs() <= 2.0 {
                    return value;
                }
            },
            Self::Uniform(low, high) => low + (high - low) * rng.random::<f64>(),
        }
    }
}

impl SimpleBackend for Seeded {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> CandleResult<Tensor> {
        let existing = self.variables.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner()).contains_key(name);
        if !existing {
            let values = Tensor::from_vec(self.values(&shape, name, init)?, shape.clone(), device)?.to_dtype(dtype)?;
            let var = Var::from_tensor(&values)?;
            self.variables.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name.into(), var);
        }
        self.variables.get(shape, name, init, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _dtype: DType, _device: &Device) -> CandleResult<Tensor> {
        match self.variables.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => candle_core::bail!("{name}: an initial value needs a shape"),
        }
    }

    fn contains_tensor(&self, _name: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, standard deviation and largest magnitude of a weight of (out 64, kernel 3×3×3, in 32).
    fn drawn(weights: Initialization) -> [f64; 3] {
        let vb = seeded_builder(&VarMap::new(), 1, weights, DType::F32, &Device::Cpu);
        let bound = 1.0 / (32.0f64 * 27.0).sqrt();
        let weight = vb.get_with_hints((64, 3, 3, 3, 32), "weight", Init::Uniform { lo: -bound, up: bound }).unwrap();
        let values: Vec<f64> = weight.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        [mean, variance.sqrt(), values.iter().fold(0.0, |most, v| v.abs().max(most))]
    }

    #[test]
    fn deviations_and_bounds_are_those_of_torch_nn_init() {
        let (fan_in, fan_out): (f64, f64) = (32.0 * 27.0, 64.0 * 27.0);
        let uniform = |bound: f64| (bound / 3f64.sqrt(), bound);
        let normal = |deviation: f64| (deviation, f64::INFINITY);
        for (weights, (deviation, bound)) in [
            (Initialization::Layer, uniform(1.0 / fan_in.sqrt())),
            (Initialization::KaimingUniform { a: 5f64.sqrt() }, uniform(1.0 / fan_in.sqrt())),
            (Initialization::KaimingUniform { a: 0.0 }, uniform((6.0 / fan_in).sqrt())),
            (Initialization::KaimingNormal { fan_out: false }, normal((2.0 / fan_in).sqrt())),
            (Initialization::KaimingNormal { fan_out: true }, normal((2.0 / fan_out).sqrt())),
            (Initialization::XavierUniform { gain: 2.0 }, uniform(2.0 * (6.0 / (fan_in + fan_out)).sqrt())),
            (Initialization::XavierNormal { gain: 1.0 }, normal((2.0 / (fan_in + fan_out)).sqrt())),
            (Initialization::TruncNormal { std: 0.02 }, normal(0.02)),
            (Initialization::TruncNormal { std: 1.0 }, (0.8796, 2.0)),
        ] {
            let [mean, found, most] = drawn(weights);
            // 55,296 values: the standard error of the mean is 0.43% of the deviation, that of the deviation at most 0.3%.
            assert!(mean.abs() < 0.02 * deviation, "{weights:?}: mean {mean}");
            assert!((found / deviation - 1.0).abs() < 0.015, "{weights:?}: {found}, not {deviation}");
            assert!(most <= bound * (1.0 + 1e-6), "{weights:?}: {most} beyond {bound}");
        }
    }

    #[test]
    fn vectors_begin_as_their_layers_say() {
        let vb = seeded_builder(&VarMap::new(), 1, Initialization::TruncNormal { std: 1.0 }, DType::F32, &Device::Cpu);
        assert_eq!(vb.get_with_hints(3, "norm.weight", Init::Const(1.0)).unwrap().to_vec1::<f32>().unwrap(), [1.0; 3]);
    }
}
