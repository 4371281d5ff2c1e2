//! [`Activation`]: pointwise functions of the features.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::module::{LayerDescription, SparseModule};
use super::tensor::SparseConvTensor;
use crate::Result;

/// A pointwise function of the features, with PyTorch's definitions.
///
/// ```
/// use wavemesh::prelude::*;
/// let x = Tensor::new(&[-2f32, 0.0, 3.0], &Device::Cpu)?;
/// assert_eq!(Activation::Relu.apply(&x)?.to_vec1::<f32>()?, [0.0, 0.0, 3.0]);
/// assert_eq!(Activation::LeakyRelu(0.5).apply(&x)?.to_vec1::<f32>()?, [-1.0, 0.0, 3.0]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("ReLU", "MinkowskiReLU"))]
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
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
    ///
    /// # Errors
    /// An error of candle, such as for a type without arithmetic.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let x = Tensor::new(&[-1f32, 0.0, 2.0], &Device::Cpu)?;
    /// assert_eq!(Activation::LeakyRelu(0.1).apply(&x)?.to_vec1::<f32>()?, [-0.1, 0.0, 2.0]);
    /// assert_eq!(Activation::Sigmoid.apply(&x)?.to_vec1::<f32>()?[1], 0.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match *self {
            Self::Relu => x.relu()?,
            Self::LeakyRelu(slope) if x.device().is_cpu() => x.contiguous()?.apply_op1(LeakyRelu(slope))?,
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

/// The leaky ReLU as one operation, which keeps only its input for the backward pass. Composed of candle's operations it would keep five
/// tensors.
struct LeakyRelu(f64);

impl LeakyRelu {
    fn of<T: WithDType>(&self, x: &[T], layout: &Layout) -> candle_core::Result<(Vec<T>, Shape)> {
        let Some((from, to)) = layout.contiguous_offsets() else {
            return Err(candle_core::Error::RequiresContiguous { op: self.name() });
        };
        let (zero, slope) = (T::from_f64(0.0), T::from_f64(self.0));
        let leak = |&x: &T| if x < zero { x * slope } else { x };
        Ok((x[from..to].par_iter().with_min_len(1 << 14).map(leak).collect(), layout.shape().clone()))
    }
}

impl CustomOp1 for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky-relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        macro_rules! of {
            ($($kind:ident)*) => {
                match storage {
                    $(CpuStorage::$kind(x) => self.of(x, layout).map(|(y, shape)| (CpuStorage::$kind(y), shape)),)*
                    other => Err(candle_core::Error::UnsupportedDTypeForOp(other.dtype(), self.name())),
                }
            };
        }
        of!(F32 F64 F16 BF16)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(x.lt(0.0)?.where_cond(&(grad * self.0)?, grad)?))
    }
}
