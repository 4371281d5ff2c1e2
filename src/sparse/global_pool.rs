//! [`SparseGlobalMaxPool`], [`SparseGlobalAvgPool`] and [`SparseGlobalSumPool`]: one row for each batch element.

use candle_core::Tensor;

use super::module::SparseModule;
use super::scatter::Reduce;
use super::tensor::SparseConvTensor;
use crate::Result;

/// Writes a global pool. Its own `forward` returns (batch, C); as a module it returns a tensor with one site for each batch element.
macro_rules! global_pool {
    ($pool:ident, $reduce:expr) => {
        impl $pool {
            /// Pools `x` to (batch, C). Differentiable.
            ///
            /// # Errors
            /// An error of candle about the features.
            ///
            /// ```
            /// use wavemesh::prelude::*;
            #[doc = concat!("use wavemesh::sparse::", stringify!($pool), ";")]
            /// let x = SparseConvTensor::from_coords(Tensor::new(&[[3f32, 7.0]], &Device::Cpu)?, vec![[1, 0, 0, 0]], [2; 3], 2)?;
            #[doc = concat!("let pooled = ", stringify!($pool), ".forward(&x)?; // of an element without sites and one with a single site")]
            /// assert_eq!(pooled.to_vec2::<f32>()?, [[0.0, 0.0], [3.0, 7.0]]);
            /// # Ok::<(), Error>(())
            /// ```
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

/// The largest value of each batch element's sites: (batch, C). An element without sites gets zeros. If sites are tied, the first one
/// receives the gradient.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseGlobalMaxPool;
/// let features = Tensor::new(&[[1f32, -1.0], [3.0, 2.0], [7.0, 7.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], [2; 3], 2)?;
/// assert_eq!(SparseGlobalMaxPool.forward(&x)?.to_vec2::<f32>()?, [[3.0, 2.0], [7.0, 7.0]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiGlobalMaxPooling")]
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalMaxPool;
global_pool!(SparseGlobalMaxPool, Reduce::Max);

/// The mean of each batch element's sites: (batch, C). An element without sites gets zeros.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseGlobalAvgPool;
/// let features = Tensor::new(&[[1f32, -1.0], [3.0, 2.0], [7.0, 7.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], [2; 3], 2)?;
/// assert_eq!(SparseGlobalAvgPool.forward(&x)?.to_vec2::<f32>()?, [[2.0, 0.5], [7.0, 7.0]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiGlobalAvgPooling")]
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalAvgPool;
global_pool!(SparseGlobalAvgPool, Reduce::Mean);

/// The sum of each batch element's sites: (batch, C).
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseGlobalSumPool;
/// let features = Tensor::new(&[[1f32, -1.0], [3.0, 2.0], [7.0, 7.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], [2; 3], 2)?;
/// assert_eq!(SparseGlobalSumPool.forward(&x)?.to_vec2::<f32>()?, [[4.0, 1.0], [7.0, 7.0]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiGlobalSumPooling")]
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalSumPool;
global_pool!(SparseGlobalSumPool, Reduce::Sum);
