//! [`SparseConv3d`]: the convolution whose sites grow or, with a stride, coarsen.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer, map_making_layer};
use super::geometry::{Kind, Size3};
use super::tensor::SparseConvTensor;
use crate::Result;

/// Sparse convolution, spconv's `SparseConv3d`. Output sites follow [`ConvConfig::output_sites`], in ascending
/// (batch, z, y, x) order; the output's shape is that of PyTorch's `Conv3d`.
///
/// `y[o] = bias + Σ_r weight[:, r, :] · x[o·s − p + r·d]`
#[derive(Clone, Debug)]
pub struct SparseConv3d(Conv);

impl SparseConv3d {
    /// Gradients of the features of `x`, added to `onto`, and of the weight, from that of the result, all f32 and without a tape.
    pub(crate) fn gradients(&self, x: &SparseConvTensor, grad: &Tensor, onto: Option<Tensor>) -> Result<[Tensor; 2]> {
        self.0.gradients(&self.0.flow(x, x.channels())?, x, None, grad, onto)
    }

    /// The sums in f32, whatever the type of `x` is.
    pub(crate) fn forward_wide(&self, x: &SparseConvTensor) -> Result<SparseConvTensor> {
        self.0.forward(x, DType::F32)
    }

    /// A layer from `in_channels` to `out_channels` with a kernel of one size, `[z, y, x]` or `(z, y, x)`.
    ///
    /// # Errors
    /// Sizes out of range, zero channels, or parameters of another shape in `vb`.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Size3>,
        config: ConvConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        Conv::new("SparseConv3d", Kind::Regular, [in_channels, out_channels], kernel.into(), config, vb).map(Self)
    }
}

convolution_layer!(SparseConv3d, forward);
map_making_layer!(SparseConv3d);
