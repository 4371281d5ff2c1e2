//! [`Activation`]: pointwise functions of the features.

use candle_core::Tensor;

use super::module::{LayerDescription, SparseModule};
use super::tensor::SparseConvTensor;
use crate::Result;

/// A pointwise function of the features, with PyTorch's definitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x for x > 0, else slope · x
    LeakyRelu(f64),
    /// x · sigmoid(x)
    Silu,
    /// x · Φ(x), with the error function
    Gelu,
    /// tanh(x)
    Tanh,
    /// 1 / (1 + e^−x)
    Sigmoid,
}

impl Activation {
    /// Applies the function to a tensor of any shape. Differentiable.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match *self {
            Self::Relu => x.relu()?,
            Self::LeakyRelu(slope) => candle_nn::ops::leaky_relu(x, slope)?,
            Self::Silu => x.silu()?,
            Self::Gelu => x.gelu_erf()?,
            Self::Tanh => x.tanh()?,
            Self::Sigmoid => candle_nn::ops::sigmoid(x)?,
        })
    }
}

impl SparseModule for Activation {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        x.replace_feature(self.apply(x.features())?)
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: format!("{self:?}"), parameters: 0 }
    }
}
