//! [`SparseGlobalMaxPool`] and [`SparseGlobalAvgPool`]: one row for each batch element.

use candle_core::{DType, Tensor};

use super::tensor::SparseConvTensor;
use crate::Result;

/// The largest value of each batch element's sites: (batch, C). An element without sites has zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalMaxPool;

impl SparseGlobalMaxPool {
    /// Pools `x` to (batch, C). Differentiable.
    pub fn forward(&self, x: &SparseConvTensor) -> Result<Tensor> {
        per_element(x, |features| Ok(features.max(0)?))
    }
}

/// The mean of each batch element's sites: (batch, C). An element without sites has zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseGlobalAvgPool;

impl SparseGlobalAvgPool {
    /// Pools `x` to (batch, C). Differentiable.
    pub fn forward(&self, x: &SparseConvTensor) -> Result<Tensor> {
        per_element(x, |features| {
            let wide = if features.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            Ok(features.to_dtype(wide)?.mean(0)?.to_dtype(features.dtype())?)
        })
    }
}

fn per_element(x: &SparseConvTensor, pool: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut rows = vec![Vec::new(); x.batch_size()];
    for (row, [b, ..]) in x.coords().iter().enumerate() {
        rows[*b as usize].push(row as u32);
    }
    let pooled = rows
        .into_iter()
        .map(|rows| match rows.len() {
            0 => Ok(Tensor::zeros(x.channels(), x.dtype(), x.device())?),
            n if n == x.len() => pool(x.features()),
            n => pool(&x.features().index_select(&Tensor::from_vec(rows, n, x.device())?, 0)?),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&pooled, 0)?)
}
