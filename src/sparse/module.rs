//! [`SparseModule`]: what every sparse layer is.

use std::sync::Arc;

use super::sync::AllReduce;
use super::tensor::SparseConvTensor;
use crate::Result;

/// A layer from sparse tensor to sparse tensor.
pub trait SparseModule {
    /// Runs the layer; `train` chooses batch statistics over running ones, and the like.
    ///
    /// # Errors
    /// Features, sites or parameters that do not fit the layer.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let norm = BatchNorm::new(1, vb)?;
    /// let training = norm.forward_t(&x, true)?.features().to_vec2::<f32>()?;
    /// assert!((training[1][0] - 1.0).abs() < 1e-4); // by the batch's mean 1.5 and deviation 0.5
    /// let evaluation = norm.forward_t(&x, false)?.features().to_vec2::<f32>()?;
    /// assert_ne!(evaluation, training); // by the running ones
    /// # Ok::<(), Error>(())
    /// ```
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor>;

    /// Runs the layer in evaluation mode.
    ///
    /// # Errors
    /// As [`forward_t`](Self::forward_t).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(Activation::LeakyRelu(0.5).forward(&x)?.features().to_vec2::<f32>()?, [[1.0], [2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    fn forward(&self, x: &SparseConvTensor) -> Result<SparseConvTensor> {
        self.forward_t(x, false)
    }

    /// What the layer is, for cards and summaries.
    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: plain_type_name::<Self>().to_owned(), parameters: 0 }
    }

    /// `torch.nn.SyncBatchNorm.convert_sync_batchnorm`: every [`BatchNorm`](super::BatchNorm) of this module takes its statistics over `group`
    /// from now on, with the parameters that it has. A module of other modules hands the call on to them; the default is for one without.
    fn convert_sync_batchnorm(&self, _group: &Arc<dyn AllReduce>) {}
}

/// Writes a module that is another one behind a pointer.
macro_rules! pointer_module {
    ($pointer:ty) => {
        impl<M: SparseModule + ?Sized> SparseModule for $pointer {
            fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
                (**self).forward_t(x, train)
            }

            fn describe(&self) -> LayerDescription {
                (**self).describe()
            }

            fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
                (**self).convert_sync_batchnorm(group);
            }
        }
    };
}
pointer_module!(&M);
pointer_module!(Box<M>);
pointer_module!(Arc<M>);

/// The name of a type without its path and its own parameters.
pub(super) fn plain_type_name<T: ?Sized>() -> &'static str {
    let name = std::any::type_name::<T>();
    if name.contains("{{closure}}") {
        return "closure";
    }
    let outer = name.split('<').next().unwrap_or(name);
    outer.rsplit("::").next().unwrap_or(outer)
}

/// What a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDescription {
    /// Its type and sizes.
    pub kind: String,
    /// How many numbers it learns.
    pub parameters: usize,
}
