//! [`SparseConvTranspose3d`]: the convolution that makes the grid finer.

use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer, map_making_layer};
use super::geometry::{Kind, Size, name_of};
use crate::Result;

/// Transposed sparse convolution, spconv's `SparseConvTranspose3d`. Its output sites are all sites that the kernel reaches from an active
/// site, in ascending (batch, z, y, x) order. The output's shape is that of PyTorch's `ConvTranspose3d`.
///
/// `y[o] = bias + Σ_r weight[:, r, :] · x[i]` over the sites with `o = i·s − p + r·d`
///
/// ```
/// # use std::collections::HashMap;
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseConvTranspose1d;
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 0], [0, 1]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [2.0]], cpu)?, sites, [2], 1)?;
/// let weight = Tensor::new(&[10f32, 1.0, 100.0], cpu)?.reshape((1, 3, 1))?; // (out, kx, in)
/// let vb = VarBuilder::from_tensors(HashMap::from([("weight".into(), weight)]), DType::F32, cpu);
/// let y = SparseConvTranspose1d::new(1, 1, 3, ConvConfig::new().stride(2).bias(false), vb)?.forward(&x)?;
/// // Both reach output 2: the first through the last weight, the second through the first.
/// assert_eq!(y.features().to_vec2::<f32>()?, [[10.0], [1.0], [100.0 + 20.0], [2.0], [200.0]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiGenerativeConvolutionTranspose")]
#[derive(Clone, Debug)]
pub struct SparseConvTranspose<const N: usize>(Conv);

/// [`SparseConvTranspose`] on 1-D tensors: spconv's `SparseConvTranspose1d`.
pub type SparseConvTranspose1d = SparseConvTranspose<1>;

/// [`SparseConvTranspose`] on 2-D tensors: spconv's `SparseConvTranspose2d`.
pub type SparseConvTranspose2d = SparseConvTranspose<2>;

/// [`SparseConvTranspose`] on 3-D tensors: spconv's `SparseConvTranspose3d`.
pub type SparseConvTranspose3d = SparseConvTranspose<3>;

impl<const N: usize> SparseConvTranspose<N> {
    /// A layer from `in_channels` to `out_channels`. The kernel is one size, `[z, y, x]` or `(z, y, x)`.
    ///
    /// # Errors
    /// Sizes out of range, `output_sites: Strided`, zero channels, or parameters of another shape in `vb`.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let up = SparseConvTranspose3d::new(8, 2, 2, ConvConfig::new().stride(2), vb.pp("up"))?;
    /// assert_eq!(up.weight().dims(), [2, 2, 2, 2, 8]); // out, kz, ky, kx, in
    /// assert!(SparseConvTranspose3d::new(8, 0, 2, ConvConfig::new(), vb).is_err());
    /// # Ok::<(), Error>(())
    /// ```
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
