//! [`SparseConvTranspose3d`]: the convolution that refines the grid.

use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer, map_making_layer};
use super::geometry::{Kind, Size3};
use crate::Result;

/// Transposed sparse convolution, spconv's `SparseConvTranspose3d`: every site that the kernel reaches from an active one,
/// in ascending (batch, z, y, x) order; the output's shape is that of PyTorch's `ConvTranspose3d`.
///
/// `y[o] = bias + Σ_r weight[:, r, :] · x[i]` over the sites with `o = i·s − p + r·d`
#[derive(Clone, Debug)]
pub struct SparseConvTranspose3d(Conv);

impl SparseConvTranspose3d {
    /// A layer from `in_channels` to `out_channels` with a kernel of one size, `[z, y, x]` or `(z, y, x)`.
    ///
    /// # Errors
    /// Sizes out of range, `output_sites: Strided`, zero channels, or parameters of another shape in `vb`.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Size3>,
        config: ConvConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        let channels = [in_channels, out_channels];
        Conv::new("SparseConvTranspose3d", Kind::Transposed, channels, kernel.into(), config, vb).map(Self)
    }
}

convolution_layer!(SparseConvTranspose3d, forward);
map_making_layer!(SparseConvTranspose3d);
