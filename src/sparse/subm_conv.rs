//! [`SubMConv3d`]: the convolution that keeps its sites.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer, map_making_layer};
use super::geometry::{Kind, Size3};
use super::tensor::SparseConvTensor;
use crate::Result;

/// Submanifold convolution (Graham & van der Maaten 2017), spconv's `SubMConv3d`: output sites are the input sites, in the
/// same order, and each reads the active ones among its neighbours.
///
/// `y[o] = bias + Σ_r weight[:, r, :] · x[o − d·(k/2) + d·r]`
#[derive(Clone, Debug)]
pub struct SubMConv3d(Conv);

impl SubMConv3d {
    /// Gradients of the features of `x` with those beside them, added to `onto`, and of the weight, from that of the result, all f32
    /// and without a tape.
    pub(crate) fn gradients(
        &self,
        x: &SparseConvTensor,
        beside: Option<&Tensor>,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        let channels = beside.map_or(Ok(0), |beside| beside.dim(1))?;
        self.0.gradients(&self.0.flow(x, x.channels() + channels)?, x, beside, grad, onto)
    }

    /// The sums in f32, whatever the type of `x` is. The channels of `beside`, if there are any, follow those of `x`.
    pub(crate) fn forward_wide(&self, x: &SparseConvTensor, beside: Option<&Tensor>) -> Result<SparseConvTensor> {
        self.0.forward_joined(x, beside, DType::F32)
    }

    /// A layer from `in_channels` to `out_channels` with an odd kernel (one size, `[z, y, x]` or `(z, y, x)`).
    ///
    /// Uses `dilation`, `bias` and `indice_key` of `config`; stride is 1 and padding dilation·(kernel/2), whatever it says.
    /// Layers with the same key must have the same kernel, dilation and sites; they share one kernel map.
    ///
    /// # Errors
    /// An even kernel, zero channels, or parameters of another shape in `vb`.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Size3>,
        config: ConvConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        Conv::new("SubMConv3d", Kind::Submanifold, [in_channels, out_channels], kernel.into(), config, vb).map(Self)
    }
}

convolution_layer!(SubMConv3d, forward);
map_making_layer!(SubMConv3d);
