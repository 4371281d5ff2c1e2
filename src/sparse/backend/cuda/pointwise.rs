//! Submanifold kernels of one offset: each site reads only itself, so the convolution is a matrix product, for which cuBLAS is used.

use candle_core::Tensor;

use crate::Result;
use crate::gpu::Gpu;
use crate::sparse::geometry::{Geometry, Kind};

/// Whether a geometry amounts to a matrix product.
pub(super) fn serves(geometry: &Geometry) -> bool {
    geometry.kind == Kind::Submanifold && geometry.volume() == 1
}

/// `x · weightᵀ + bias`, differentiable: from (N, in), (out, 1, 1, 1, in) and (out,) to (N, out).
pub(super) fn convolve(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = (weight.dim(0)?, weight.dim(4)?);
    if x.dim(0)? == 0 {
        return Ok(Tensor::zeros((0, outputs), x.dtype(), x.device())?);
    }
    // If memory is short, candle neither says how much it asked for nor frees what the pool keeps. This allocation does both.
    drop(Gpu::of(x)?.alloc::<u8>(x.dim(0)? * outputs * x.dtype().size_in_bytes())?);
    let y = x.matmul(&weight.reshape((outputs, inputs))?.t()?)?;
    Ok(bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))?)
}

/// The gradients of x and of the weight, from that of the result.
pub(super) fn gradients(x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<[Tensor; 2]> {
    let (outputs, inputs) = (weight.dim(0)?, weight.dim(4)?);
    if x.dim(0)? == 0 {
        return Ok([x.zeros_like()?, weight.zeros_like()?]);
    }
    let of_weight = grad.t()?.matmul(x)?.reshape(weight.shape())?;
    Ok([grad.matmul(&weight.reshape((outputs, inputs))?)?, of_weight])
}
