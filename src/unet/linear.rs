//! `Linear` and `LayerNorm` with PyTorch's initial values, both differentiable.

use candle_core::{DType, Tensor};
use candle_nn::{Init, Linear, VarBuilder};

use crate::{Result, memory};

/// `y = x·Wᵀ + b`, with W and b initialised uniformly within ±1/√in, as `torch.nn.Linear`.
pub(super) fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    let bound = 1.0 / (in_dim as f64).sqrt();
    let init = Init::Uniform { lo: -bound, up: bound };
    // The initialisation draws its numbers in f64.
    memory::elements::<f32>("WaveMeshUNet", "a weight", &[out_dim, in_dim], size_of::<f64>())?;
    let weight = vb.get_with_hints((out_dim, in_dim), "weight", init)?;
    let bias = vb.get_with_hints(out_dim, "bias", init)?;
    Ok(Linear::new(weight, Some(bias)))
}

/// A linear layer whose output is zero until it is trained.
pub(super) fn zero_linear(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    let weight = vb.get_with_hints((out_dim, in_dim), "weight", Init::Const(0.0))?;
    Ok(Linear::new(weight, Some(vb.get_with_hints(out_dim, "bias", Init::Const(0.0))?)))
}

/// Layer normalisation over the last axis, as `torch.nn.LayerNorm`. (That of candle-nn takes a fused path without gradients.)
#[derive(Clone, Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    const EPS: f64 = 1e-5;

    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
        })
    }

    /// Normalises `x` (N, channels) in `f32`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(DType::F32)?;
        let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let scale = (centred.sqr()?.mean_keepdim(1)? + Self::EPS)?.sqrt()?; // (N, 1)
        Ok(centred.broadcast_div(&scale)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}
