//! [`MixedPrecision`]: a part of a network that computes on half-precision features (Micikevicius et al. 2018).

use std::sync::Arc;

use candle_core::DType;

use super::module::{LayerDescription, SparseModule};
use super::sync::AllReduce;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// Mixed precision for any module, as `torch.autocast`: its features are f16 or bf16, while its parameters, sums and statistics stay f32.
/// The output has the type of the input.
///
/// Features take half the memory. bf16 has the range of f32 and needs nothing more. Gradients of f16 features vanish below 6e-8, so scale
/// the loss ([`GradScaler`](crate::train::GradScaler), or `loss_scale` in a training's configuration).
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::MixedPrecision;
/// # fn main() -> wavemesh::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let conv = SubMConv3d::new(2, 8, 3, ConvConfig::default(), vb)?;
/// let x = SparseConvTensor::from_coords(Tensor::ones((1, 2), DType::F32, &Device::Cpu)?, vec![[0, 1, 1, 1]], [4, 4, 4], 1)?;
/// let exact = conv.forward(&x)?;
/// let rounded = MixedPrecision::new(conv, DType::BF16)?.forward(&x)?;
/// assert_eq!(rounded.dtype(), DType::F32);
/// let difference = (exact.features() - rounded.features())?.abs()?.max_all()?.to_scalar::<f32>()?;
/// assert!(difference < 0.01);
/// # Ok(()) }
/// ```
#[doc(alias = "autocast")]
#[derive(Clone, Debug)]
pub struct MixedPrecision<M> {
    module: M,
    dtype: DType,
}

impl<M: SparseModule> MixedPrecision<M> {
    /// Runs `module` on features of type `dtype`.
    ///
    /// # Errors
    /// A type other than [`DType::F16`] and [`DType::BF16`].
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::MixedPrecision;
    /// assert!(MixedPrecision::new(Activation::Relu, DType::F16).is_ok());
    /// assert!(MixedPrecision::new(Activation::Relu, DType::F64).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(module: M, dtype: DType) -> Result<Self> {
        match dtype {
            DType::F16 | DType::BF16 => Ok(Self { module, dtype }),
            got => Err(Error::DType { op: "MixedPrecision", what: "features", got, expected: "f16 or bf16" }),
        }
    }

    /// The module inside.
    pub fn module(&self) -> &M {
        &self.module
    }
}

impl<M: SparseModule> SparseModule for MixedPrecision<M> {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let half = x.replace_feature(x.features().to_dtype(self.dtype)?)?;
        let y = self.module.forward_t(&half, train)?;
        y.replace_feature(y.features().to_dtype(x.dtype())?)
    }

    fn describe(&self) -> LayerDescription {
        let LayerDescription { kind, parameters } = self.module.describe();
        LayerDescription { kind: format!("MixedPrecision({:?}, {kind})", self.dtype), parameters }
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.module.convert_sync_batchnorm(group);
    }
}
