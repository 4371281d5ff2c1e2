//! `Linear` and `LayerNorm` with PyTorch's initial values, both differentiable.

use candle_core::{DType, Tensor};
use candle_nn::{Init, Linear, VarBuilder};

use crate::sparse::{PartGradients, column_sums, in_one, layer_norm};
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

/// The layer on `x` (N, C), followed by further columns `more` (N, c) without a gradient, if there are any. In contrast to that of candle-nn
/// it does not join them, and adds the bias' gradient on a GPU in one pass. N is not 0.
pub(super) fn over_rows(layer: &Linear, x: &Tensor, more: Option<&Tensor>) -> Result<Tensor> {
    let (given, weight, channels) = (x.detach(), layer.weight().detach(), x.dim(1)?);
    let own = weight.narrow(1, 0, channels)?.contiguous()?;
    let mut y = given.matmul(&own.t()?)?;
    if let Some(more) = more {
        y = (y + more.matmul(&weight.narrow(1, channels, more.dim(1)?)?.contiguous()?.t()?)?)?;
    }
    let parameters: Vec<Tensor> = std::iter::once(layer.weight()).chain(layer.bias()).cloned().collect();
    if let Some(bias) = layer.bias() {
        y = y.broadcast_add(&bias.detach())?;
    }
    let (named, more) = (parameters.clone(), more.cloned());
    in_one((x, None), &y, &parameters, move |(_, grad)| {
        let grad = grad.contiguous()?;
        let across = grad.t()?;
        let mut weight = vec![across.matmul(&given)?];
        if let Some(more) = &more {
            weight.push(across.matmul(more)?);
        }
        let gradients = [Tensor::cat(&weight, 1)?, column_sums(&grad)?];
        Ok(PartGradients {
            x: grad.matmul(&own)?,
            other: None,
            parameters: named.iter().cloned().zip(gradients).collect(),
        })
    })
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
        layer_norm(&x.to_dtype(DType::F32)?, &self.weight, &self.bias, Self::EPS)
    }
}
