//! [`SparseConvTranspose3d`]: the convolution that refines the grid.

use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer, map_making_layer};
use super::geometry::{Kind, Size, name_of};
use crate::Result;

/// Transposed sparse convolution, spconv's `SparseConvTranspose3d`: every site that the kernel reaches from an active one,
/// in ascending (batch, z, y, x) order; the output's shape is that of PyTorch's `ConvTranspose3d`.
///
/// `y[o] = bias + Σ_r weight[:, r, :] · x[i]` over the sites with `o = i·s − p + r·d`
#[derive(Clone, Debug)]
pub struct SparseConvTranspose<const N: usize>(Conv);

/// [`SparseConvTranspose`] on 1-D tensors: spconv's `SparseConvTranspose1d`.
pub type SparseConvTranspose1d = SparseConvTranspose<1>;

/// [`SparseConvTranspose`] on 2-D tensors: spconv's `SparseConvTranspose2d`.
pub type SparseConvTranspose2d = SparseConvTranspose<2>;

/// [`SparseConvTranspose`] on 3-D tensors: spconv's `SparseConvTranspose3d`.
pub type SparseConvTranspose3d = SparseConvTranspose<3>;

impl<const N: usize> SparseConvTranspose<N> {
    /// A layer from `in_channels` to `out_channels` with a kernel of one size, `[z, y, x]` or `(z, y, x)`.
    ///
    /// # Errors
    /// Sizes out of range, `output_sites: Strided`, zero channels, or parameters of another shape in `vb`.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Size<N>>,
        config: ConvConfig<N>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let channels = [in_channels, out_channels];
        let name = const { name_of::<N>(["SparseConvTranspose1d", "SparseConvTranspose2d", "SparseConvTranspose3d"]) };
        Conv::new(name, Kind::Transposed, channels, kernel.into(), config, vb).map(Self)
    }
}

convolution_layer!(SparseConvTranspose, forward);
map_making_layer!(SparseConvTranspose);
