//! [`SubMConv3d`]: the convolution that keeps its sites.

use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer, map_making_layer};
use super::geometry::{Kind, Size, name_of};
use crate::Result;

/// Submanifold convolution (Graham & van der Maaten 2017), spconv's `SubMConv3d`. The output sites are the input sites, in the same order;
/// each reads the active sites among its neighbours.
///
/// `y[o] = bias + Σ_r weight[:, r, :] · x[o − d·(k/2) + d·r]`
///
/// A 1×1×1 weight is (out, in) here, as its shape says. spconv's files hold an (in, out) matrix in the same shape;
/// [`Checkpoint::load_into`](crate::import::Checkpoint::load_into) turns it.
///
/// ```
/// # use std::collections::HashMap;
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SubMConv1d;
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 1], [0, 2], [0, 4]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [2.0], [4.0]], cpu)?, sites, [6], 1)?;
/// let weight = Tensor::new(&[10f32, 1.0, 100.0], cpu)?.reshape((1, 3, 1))?; // (out, kx, in)
/// let vb = VarBuilder::from_tensors(HashMap::from([("weight".into(), weight)]), DType::F32, cpu);
/// let y = SubMConv1d::new(1, 1, 3, ConvConfig::new().bias(false), vb)?.forward(&x)?;
/// // Site 1 reads itself and site 2, site 2 reads sites 1 and 2, and site 4 is alone.
/// assert_eq!(y.features().to_vec2::<f32>()?, [[1.0 + 200.0], [10.0 + 2.0], [4.0]]);
/// assert!(y.same_sites(&x));
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiConvolution")]
#[derive(Clone, Debug)]
pub struct SubMConv<const N: usize>(Conv);

/// [`SubMConv`] on 1-D tensors: spconv's `SubMConv1d`.
pub type SubMConv1d = SubMConv<1>;

/// [`SubMConv`] on 2-D tensors: spconv's `SubMConv2d`.
pub type SubMConv2d = SubMConv<2>;

/// [`SubMConv`] on 3-D tensors: spconv's `SubMConv3d`.
pub type SubMConv3d = SubMConv<3>;

impl<const N: usize> SubMConv<N> {
    /// A layer from `in_channels` to `out_channels` with an odd kernel (one size, `[z, y, x]` or `(z, y, x)`).
    ///
    /// Of `config`, `dilation`, `bias` and `indice_key` are used; the stride is always 1 and the padding dilation·(kernel/2). Layers with
    /// the same key must have the same kernel, dilation and sites; they share one kernel map.
    ///
    /// # Errors
    /// An even kernel, zero channels, or parameters of another shape in `vb`.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let conv = SubMConv3d::new(2, 8, 3, ConvConfig::new().bias(false), vb.pp("conv"))?;
    /// assert_eq!(conv.weight().dims(), [8, 3, 3, 3, 2]); // out, kz, ky, kx, in
    /// assert!(SubMConv3d::new(2, 8, 2, ConvConfig::new(), vb).is_err()); // an even kernel has no middle
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Size<N>>,
        config: ConvConfig<N>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let name = const { name_of::<N>(["SubMConv1d", "SubMConv2d", "SubMConv3d"]) };
        Conv::new(name, Kind::Submanifold, [in_channels, out_channels], kernel.into(), config, vb).map(Self)
    }
}

convolution_layer!(SubMConv, forward);
map_making_layer!(SubMConv);
