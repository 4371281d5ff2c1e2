//! [`column_sums`]: the gradient of a bias.

use candle_core::{DType, Tensor};

use crate::Result;

/// The sum of the rows of `x` (N, C), f32.
pub(crate) fn column_sums(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return Ok(crate::gpu::columns::sums(x)?.to_dtype(DType::F32)?);
    }
    Ok(x.to_dtype(DType::F32)?.sum(0)?)
}
