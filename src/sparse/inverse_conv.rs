//! [`SparseInverseConv3d`]: undoes the change of sites of a strided convolution.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::conv::{Conv, ConvConfig, convolution_layer};
use super::geometry::{Kind, Size, name_of};
use super::segment::SegmentConv;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// Inverse convolution, spconv's `SparseInverseConv3d`. It uses the pairs of the layer with its `indice_key`, with input and output
/// exchanged. Its output sites are that layer's input sites, in their order, so skip connections fit.
///
/// `y[i] = bias + Σ_r weight[:, r, :] · x[o]` over the pairs (i, o) of offset r
///
/// ```
/// # use std::collections::HashMap;
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::{SparseConv1d, SparseInverseConv1d};
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 1], [0, 2], [0, 4]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [2.0], [4.0]], cpu)?, sites, [6], 1)?;
/// # let vb = |weight: [f32; 3]| -> wavemesh::Result<_> {
/// #     let weight = Tensor::new(&weight, cpu)?.reshape((1, 3, 1))?;
/// #     Ok(VarBuilder::from_tensors(HashMap::from([("weight".into(), weight)]), DType::F32, cpu))
/// # };
/// let config = ConvConfig::new().stride(2).padding(1).bias(false).key("down");
/// let low = SparseConv1d::new(1, 1, 3, config, vb([10.0, 1.0, 100.0])?)?.forward(&x)?; // 100, 12, 4
/// let back = SparseInverseConv1d::new(1, 1, 3, ConvConfig::new().bias(false).key("down"), vb([1.0, 2.0, 4.0])?)?;
/// let y = back.forward(&low)?;
/// // Site 1 went to output 0 through the last weight and to output 1 through the first; sites 2 and 4 through the middle one.
/// assert_eq!(y.features().to_vec2::<f32>()?, [[4.0 * 100.0 + 12.0], [2.0 * 12.0], [2.0 * 4.0]]);
/// assert!(y.same_sites(&x));
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiConvolutionTranspose")]
#[derive(Clone, Debug)]
pub struct SparseInverseConv<const N: usize>(Conv);

/// [`SparseInverseConv`] on 1-D tensors: spconv's `SparseInverseConv1d`.
pub type SparseInverseConv1d = SparseInverseConv<1>;

/// [`SparseInverseConv`] on 2-D tensors: spconv's `SparseInverseConv2d`.
pub type SparseInverseConv2d = SparseInverseConv<2>;

/// [`SparseInverseConv`] on 3-D tensors: spconv's `SparseInverseConv3d`.
pub type SparseInverseConv3d = SparseInverseConv<3>;

impl<const N: usize> SparseInverseConv<N> {
    /// A layer from `in_channels` to `out_channels`. `config.indice_key` names the layer to invert, and the kernel must have that layer's
    /// size. Of `config`, only `bias` and `indice_key` are used.
    ///
    /// # Errors
    /// No `indice_key`, zero channels, or parameters of another shape in `vb`. Running the layer is an error if no earlier layer made the
    /// key, or if a submanifold layer, one with another kernel, or one on other sites made it.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let up = SparseInverseConv3d::new(8, 4, 2, ConvConfig::new().key("down"), vb.pp("up"))?;
    /// assert_eq!((up.weight().dims(), up.indice_key()), (&[4, 2, 2, 2, 8][..], Some("down"))); // out, kz, ky, kx, in
    /// assert!(SparseInverseConv3d::new(8, 4, 2, ConvConfig::new(), vb).is_err()); // it inverts no layer
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Size<N>>,
        config: ConvConfig<N>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let layer = const { name_of::<N>(["SparseInverseConv1d", "SparseInverseConv2d", "SparseInverseConv3d"]) };
        if config.indice_key.is_none() {
            return Err(Error::Argument {
                op: layer,
                name: "indice_key",
                got: "None".into(),
                expected: "the key of the convolution to invert".into(),
            });
        }
        let config = ConvConfig { bias: config.bias, indice_key: config.indice_key, ..Default::default() };
        Conv::new(layer, Kind::Regular, [in_channels, out_channels], kernel.into(), config, vb).map(Self)
    }
}

convolution_layer!(SparseInverseConv, invert);

/// It has no channels beside those of `x`.
impl SegmentConv for SparseInverseConv<3> {
    fn forward_wide(&self, x: &SparseConvTensor, _: Option<&Tensor>) -> Result<SparseConvTensor> {
        self.0.invert(x, DType::F32)
    }

    fn gradients(
        &self,
        x: &SparseConvTensor,
        _: Option<&Tensor>,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        self.0.gradients(&self.0.invert_flow(x)?, x, None, grad, onto)
    }

    fn weight_and_bias(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.0.weight, self.0.bias.as_ref())
    }
}
