//! [`SparseModule`]: the trait of every sparse layer.

use std::sync::Arc;

use super::sync::AllReduce;
use super::tensor::SparseConvTensor;
use crate::Result;

/// A layer that takes a sparse tensor and returns one.
pub trait SparseModule {
    /// Runs the layer. If `train`, it uses batch statistics instead of running ones, and the like.
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
    /// The same errors as [`forward_t`](Self::forward_t).
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

    /// A description of the layer, for cards and summaries.
    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: plain_type_name::<Self>().to_owned(), parameters: 0 }
    }

    /// `torch.nn.SyncBatchNorm.convert_sync_batchnorm`: from now on every [`BatchNorm`](super::BatchNorm) in this module takes its
    /// statistics over `group`, with its present parameters. A module that contains modules passes the call on to them; the default, for
    /// other modules, does nothing.
    fn convert_sync_batchnorm(&self, _group: &Arc<dyn AllReduce>) {}
}

/// Implements the trait for a pointer to a module.
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

/// The name of a type without its path and without its generic parameters.
pub(super) fn plain_type_name<T: ?Sized>() -> &'static str {
    let name = std::any::type_name::<T>();
    if name.contains("{{closure}}") {
        return "closure";
    }
    let outer = name.split('<').next().unwrap_or(name);
    outer.rsplit("::").next().unwrap_or(outer)
}

/// A description of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDescription {
    /// Its type and sizes.
    pub kind: String,
    /// The number of its learned parameters.
    pub parameters: usize,
}
