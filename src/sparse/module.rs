//! [`SparseModule`]: what every sparse layer is.

use super::tensor::SparseConvTensor;
use crate::Result;

/// A layer from sparse tensor to sparse tensor.
pub trait SparseModule {
    /// Runs the layer; `train` chooses batch statistics over running ones, and the like.
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor>;

    /// Runs the layer in evaluation mode.
    fn forward(&self, x: &SparseConvTensor) -> Result<SparseConvTensor> {
        self.forward_t(x, false)
    }
}
