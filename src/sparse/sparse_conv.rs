//! [`SparseConv3d`]: the convolution that adds sites or, with a stride, makes the grid coarser.

use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer, map_making_layer};
use super::geometry::{Kind, Size, name_of};
use crate::Result;

/// Sparse convolution, spconv's `SparseConv3d`. [`ConvConfig::output_sites`] decides the output sites, which are in ascending (batch, z, y,
/// x) order. The output's shape is that of PyTorch's `Conv3d`.
///
/// `y[o] = bias + Σ_r weight[:, r, :] · x[o·s − p + r·d]`
///
/// A 1×1×1 weight is (out, in) here, as its shape says. If the stride is 1, spconv's files hold an (in, out) matrix in the same shape;
/// [`Checkpoint::load_into`](crate::import::Checkpoint::load_into) turns it.
///
/// ```
/// # use std::collections::HashMap;
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseConv1d;
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 1], [0, 2], [0, 4]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [2.0], [4.0]], cpu)?, sites, [6], 1)?;
/// let weight = Tensor::new(&[10f32, 1.0, 100.0], cpu)?.reshape((1, 3, 1))?; // (out, kx, in)
/// let vb = VarBuilder::from_tensors(HashMap::from([("weight".into(), weight)]), DType::F32, cpu);
/// let config = ConvConfig::new().stride(2).padding(1).bias(false);
/// let y = SparseConv1d::new(1, 1, 3, config, vb)?.forward(&x)?;
/// // Output 0 reads sites -1 to 1, output 1 sites 1 to 3, output 2 sites 3 to 5.
/// assert_eq!(y.features().to_vec2::<f32>()?, [[100.0], [10.0 + 2.0], [4.0]]);
/// assert_eq!(y.indices()?.to_vec2::<i64>()?, [[0, 0], [0, 1], [0, 2]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiConvolution")]
#[derive(Clone, Debug)]
pub struct SparseConv<const N: usize>(Conv);

/// [`SparseConv`] on 1-D tensors: spconv's `SparseConv1d`.
pub type SparseConv1d = SparseConv<1>;

/// [`SparseConv`] on 2-D tensors: spconv's `SparseConv2d`.
pub type SparseConv2d = SparseConv<2>;

/// [`SparseConv`] on 3-D tensors: spconv's `SparseConv3d`.
pub type SparseConv3d = SparseConv<3>;

impl<const N: usize> SparseConv<N> {
    /// A layer from `in_channels` to `out_channels`. The kernel is one size, `[z, y, x]` or `(z, y, x)`.
    ///
    /// # Errors
    /// Sizes out of range, zero channels, or parameters of another shape in `vb`.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let flat = SparseConv3d::new(2, 8, (1, 3, 3), ConvConfig::new().stride((1, 2, 2)), vb.pp("flat"))?;
    /// assert_eq!(flat.weight().dims(), [8, 1, 3, 3, 2]); // out, kz, ky, kx, in
    /// assert!(SparseConv3d::new(2, 8, 3, ConvConfig::new().stride(0), vb).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Size<N>>,
        config: ConvConfig<N>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let name = const { name_of::<N>(["SparseConv1d", "SparseConv2d", "SparseConv3d"]) };
        Conv::new(name, Kind::Regular, [in_channels, out_channels], kernel.into(), config, vb).map(Self)
    }
}

convolution_layer!(SparseConv, forward);
map_making_layer!(SparseConv);
