//! The CUDA backend: kernel maps and layers on an NVIDIA GPU, with deterministic results.
//!
//! A hash table finds sites. A kernel map is a table of the source row for each offset and target ([`table`]) or, for submanifold kernels
//! on Hopper, tiles of neighbouring sites ([`tiles`]). Three methods compute a result from it: [`halo`] over tiles, [`gather`] over tables
//! on tensor cores, and [`plain`] over tables, for any channels and any card. Kernels of one offset are a matrix product ([`pointwise`]).
//! One writer computes each number of a result and adds in a fixed order. The coordinates of sites are kept both on the GPU and in the
//! computer's memory, because the number of output sites must be known there anyway.

mod convolve;
mod gather;
mod halo;
mod halves;
mod kind;
mod pack;
mod padding;
mod plain;
mod pointwise;
mod pool;
mod shares;
mod sites;
mod table;
mod tiles;

use candle_core::{DType, Device, Tensor};

use self::kind::Kind;
pub use self::kind::set_exact_f32;
use self::padding::Padding;
pub(crate) use self::sites::{Placed, placed};
use super::{Convolve, Engine, Flow};
use crate::gpu::Gpu;
use crate::sparse::geometry::Geometry;
use crate::sparse::grid::Grid;
use crate::sparse::sites::Sites;
use crate::{Error, Result};

/// The CUDA backend.
pub(super) struct Cuda;

/// The kernels that convolve on a GPU: those for its compute capability, or for an older one that a test asks for.
pub(super) fn kernels(device: &Device) -> Result<String> {
    let capability = Gpu::on(device)?.capability()?;
    let [major, minor] = capability;
    Ok(format!("kernels for {major}.{minor}: {}", Kind::ways(capability)))
}

impl Engine for Cuda {
    fn output_sites(&self, source: &Sites, geometry: &Geometry, grid: Grid, device: &Device) -> Result<Sites> {
        sites::outputs(&Gpu::on(device)?, source, geometry, grid)
    }

    fn build(&self, flow: &Flow, device: &Device) -> Result<()> {
        if pointwise::serves(&flow.map.geometry) {
            return Ok(());
        }
        convolve::build(&Gpu::on(device)?, flow)
    }

    fn convolve(&self, layer: &Convolve, features: &Tensor) -> Result<Tensor> {
        let &Convolve { flow, weight, bias, beside, output } = layer;
        let [x, weight] = convolve::of_one_type(joined(features, beside)?, weight, output)?;
        let bias = bias.map(|bias| bias.to_dtype(weight.dtype())).transpose()?;
        if pointwise::serves(&flow.map.geometry) {
            return pointwise::convolve(&x, &weight, bias.as_ref());
        }
        let padding = Padding::of(flow, &x, &weight)?;
        let (x, weight) = (padding.inputs(&x)?, padding.weight(&weight)?);
        let op = convolve::Convolution { flow: flow.clone(), output };
        let y = match bias {
            Some(bias) => x.apply_op3(&weight, &padding.outputs(&bias)?.contiguous()?, op)?,
            None => x.apply_op2(&weight, op)?,
        };
        padding.without(y)
    }

    fn convolve_gradients(
        &self,
        layer: &Convolve,
        features: &Tensor,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        let &Convolve { flow, weight, beside, .. } = layer;
        let x = joined(&features.detach(), beside.map(Tensor::detach).as_ref())?;
        let [x, weight_there] = convolve::of_one_type(x, weight, DType::F32)?;
        let [found, weight_grad] = match pointwise::serves(&flow.map.geometry) {
            true => pointwise::gradients(&x, &weight_there, &grad.to_dtype(DType::F32)?)?,
            false => {
                let padding = Padding::of(flow, &x, &weight_there)?;
                let (x, weight, grad) =
                    (padding.inputs(&x)?, padding.weight(&weight_there)?, padding.outputs(grad)?.contiguous()?);
                let found = convolve::source_gradient(flow, &weight, &grad, DType::F32)?;
                let weight_grad = convolve::weight_gradient(flow, &x, &weight, &grad)?;
                [padding.without_inputs(found)?, padding.without_weight(weight_grad)?]
            }
        };
        let weight_grad = weight_grad.to_dtype(weight.dtype())?;
        Ok([onto.map_or_else(|| Ok(found.clone()), |onto| onto + &found)?, weight_grad])
    }

    fn max_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor> {
        Ok(features.contiguous()?.apply_op1(pool::MaxPool { flow: flow.clone() })?)
    }

    fn avg_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor> {
        Ok(features.contiguous()?.apply_op1(pool::AvgPool { flow: flow.clone() })?)
    }
}

/// The features followed by those of `beside`, in a type that can hold both.
fn joined(features: &Tensor, beside: Option<&Tensor>) -> Result<Tensor> {
    if features.dtype() == DType::F64 {
        let expected = "f32, f16 or bf16 (the dense backend also takes f64)";
        return Err(Error::DType { op: "cuda backend", what: "features", got: DType::F64, expected });
    }
    Ok(match beside {
        None => features.contiguous()?,
        Some(beside) if beside.dtype() == features.dtype() => Tensor::cat(&[features, beside], 1)?,
        Some(beside) => Tensor::cat(&[features.to_dtype(DType::F32)?, beside.to_dtype(DType::F32)?], 1)?,
    })
}
