//! [`SparseGlobalMaxPool`], [`SparseGlobalAvgPool`] and [`SparseGlobalSumPool`]: one row for each batch element.

use candle_core::Tensor;

use super::module::SparseModule;
use super::scatter::Reduce;
use super::tensor::SparseConvTensor;
use crate::Result;

/// Writes a global pool: (batch, C) by its own `forward`, and as a module a tensor with one site for each batch element.
macro_rules! global_pool {
    ($pool:ident, $reduce:expr) => {
        impl $pool {
            /// Pools `x` to (batch, C). Differentiable.
            pub fn forward(&self, x: &SparseConvTensor) -> Result<Tensor> {
                x.reduce_elements(x.features(), $reduce)
            }
        }

        /// As a layer of a chain: one site for each batch element, on a grid of one cell.
        impl SparseModule for $pool {
            fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
                let sites = (0..x.batch_size() as i32).map(|b| [b, 0, 0, 0]).collect();
                SparseConvTensor::from_coords(self.forward(x)?, sites, [1; 3], x.batch_size())
            }
        }
    };
}

/// The largest value of each batch element's sites: (batch, C). An element without sites has zeros. The first of tied sites receives
/// the gradient.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalMaxPool;
global_pool!(SparseGlobalMaxPool, Reduce::Max);

/// The mean of each batch element's sites: (batch, C). An element without sites has zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalAvgPool;
global_pool!(SparseGlobalAvgPool, Reduce::Mean);

/// The sum of each batch element's sites: (batch, C).
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalSumPool;
global_pool!(SparseGlobalSumPool, Reduce::Sum);
