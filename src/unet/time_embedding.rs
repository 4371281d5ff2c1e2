//! The time embedding: sines and cosines of the timestep (Vaswani et al. 2017), then two linear layers.

use candle_core::{DType, Module, Tensor};
use candle_nn::{Linear, VarBuilder};

use super::linear::linear;
use crate::{Error, Result};

/// Sinusoidal embedding (batch, dim) of `timesteps` (batch,), any number type.
///
/// The first half is `sin(t·fᵢ)`, the second `cos(t·fᵢ)` with `fᵢ = exp(−i·ln 10000 / (half − 1))`; an odd `dim` ends in a zero.
///
/// # Errors
/// [`Error::Shape`] when `timesteps` has not one axis.
pub fn sinusoidal_embedding(timesteps: &Tensor, dim: usize) -> Result<Tensor> {
    let &[batch] = timesteps.dims() else {
        return Err(Error::Shape {
            op: "sinusoidal_embedding",
            what: "timesteps",
            got: timesteps.dims().to_vec(),
            expected: "(batch,)".into(),
        });
    };
    let half = dim / 2;
    let step = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let frequencies: Vec<f32> = (0..half).map(|i| (-(i as f64) * step).exp() as f32).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), timesteps.device())?;
    let angles = timesteps.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?; // (batch, half)
    let mut parts = vec![angles.sin()?, angles.cos()?];
    if dim % 2 == 1 {
        parts.push(Tensor::zeros((batch, 1), DType::F32, timesteps.device())?);
    }
    Ok(Tensor::cat(&parts, 1)?)
}

/// Sinusoidal embedding → Linear → SiLU → Linear, (batch,) → (batch, channels).
#[derive(Clone, Debug)]
pub(super) struct TimeEmbedding {
    dim: usize,
    first: Linear,
    second: Linear,
}

impl TimeEmbedding {
    pub fn new(dim: usize, channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { dim, first: linear(dim, channels, vb.pp(0))?, second: linear(channels, channels, vb.pp(2))? })
    }

    pub fn forward(&self, timesteps: &Tensor) -> Result<Tensor> {
        let embedding = sinusoidal_embedding(timesteps, self.dim)?; // (batch, dim)
        Ok(self.second.forward(&self.first.forward(&embedding)?.silu()?)?)
    }
}
