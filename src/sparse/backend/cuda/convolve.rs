//! The convolution on the GPU, with its gradients.

use std::sync::Arc;

use candle_core::{CpuStorage, CudaStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor};

use super::kind::Kind;
use super::pack::Weights;
use super::table::{self, Ordered, Walk};
use super::tiles::{self, Tiles};
use super::{gather, halo, plain};
use crate::Result;
use crate::gpu::{self, Gpu, columns, with_storage};
use crate::sparse::backend::Flow;

type CandleResult<T> = candle_core::Result<T>;
type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// A convolution over a kernel map: features (sources, in), weight (out, kz, ky, kx, in) and, if given, bias (out,).
pub(super) struct Convolution {
    pub flow: Flow,
    /// Type of the result.
    pub output: DType,
}

/// The method by which a convolution runs on a card.
enum Way {
    /// Tiles of neighbouring sites, on Hopper.
    Halo(Kind, Arc<Tiles>),
    /// A table of neighbours, for numbers of channels that are multiples of sixteen.
    Gather(Kind, Walk, Arc<Ordered>),
    /// A table of neighbours, for everything else.
    Plain(Walk),
}

/// Channels that tensor cores multiply together.
pub(super) const TOGETHER: usize = 16;

impl Way {
    /// The fastest method for rows of `dtype`, with weights and results of that type too.
    fn of(gpu: &Gpu, flow: &Flow, dtype: DType, channels: [usize; 2]) -> Result<Self> {
        let (geometry, capability) = (&flow.map.geometry, gpu.capability()?);
        let kind = Kind::of(dtype, capability).filter(|_| channels.iter().all(|c| c.is_multiple_of(TOGETHER)));
        if let Some(kind) = kind
            && kind.on_tensor_cores()
            && halo::serves(geometry, capability)
        {
            let tiles = tiles::of(gpu, flow.source())?;
            if tiles.parts().is_some() {
                return Ok(Self::Halo(kind, tiles));
            }
        }
        let walk = table::of(gpu, flow)?;
        Ok(match kind.filter(|_| gather::serves(geometry.volume())) {
            Some(kind) => Self::Gather(kind, walk, table::order(gpu, flow)?),
            None => Self::Plain(walk),
        })
    }
}

/// Builds what a first pass over `flow` needs, for channels that tensor cores multiply.
pub(super) fn build(gpu: &Gpu, flow: &Flow) -> Result<()> {
    Way::of(gpu, flow, DType::F32, [TOGETHER; 2]).map(|_| ())
}

/// Features and weights in the one type that tensor cores multiply: the result's type, or the features' type if the result has that.
pub(super) fn of_one_type(x: Tensor, weight: &Tensor, output: DType) -> Result<[Tensor; 2]> {
    Ok([x.to_dtype(output)?.contiguous()?, weight.to_dtype(output)?.contiguous()?])
}

/// The sums for `flow`'s targets over rows of `x`. With `back` they go from output channels to input channels.
fn sums(
    flow: &Flow,
    x: Operand,
    weight: Operand,
    bias: Option<Operand>,
    back: bool,
    output: DType,
) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::new(&x.0.device);
    let (outputs, inputs) = (weight.1.dims()[0], weight.1.dims()[4]);
    let geometry = &flow.map.geometry;
    gpu.result((flow.target().len(), if back { inputs } else { outputs }), output, |y| {
        let (x, weight) = (&gpu.numbers(x)?, gpu.numbers(weight)?);
        let bias = bias.map(|bias| gpu.numbers(bias)).transpose()?;
        let one_type = x.dtype == output && weight.dtype == output;
        let weights = Weights { numbers: &weight, outputs, inputs, volume: geometry.volume() };
        let operands = (x, &weights, bias.as_ref());
        let way = match one_type {
            true => Way::of(&gpu, flow, output, [inputs, outputs])?,
            false => Way::Plain(table::of(&gpu, flow)?),
        };
        match &way {
            Way::Halo(kind, tiles) => match tiles.parts() {
                Some(parts) => {
                    halo::sums(&gpu, *kind, (parts, flow.source().len()), operands, (geometry.kernel, back), y)
                }
                None => unreachable!("a way over tiles has them"),
            },
            Way::Gather(kind, walk, order) => gather::sums(&gpu, *kind, (walk, order), operands, back, y),
            Way::Plain(walk) => plain::sums(&gpu, walk, operands, back, y),
        }
    })
}

/// The gradient of the source's rows, in `dtype`, from that of the result.
pub(super) fn source_gradient(flow: &Flow, weight: &Tensor, grad: &Tensor, dtype: DType) -> Result<Tensor> {
    with_storage([grad, weight], |[grad, weight]| {
        let (found, shape) = sums(&flow.reversed(), grad, weight, None, true, dtype)?;
        Ok(gpu::tensor_of(found, shape))
    })
}

/// The gradient of the weight, in the weight's type, from the source's rows and the gradient of the result.
pub(super) fn weight_gradient(flow: &Flow, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (outputs, kz, ky, kx, inputs) = weight.dims5()?;
    let shape = [outputs, kz, ky, kx, inputs];
    if flow.target().len() == 0 {
        return Ok(weight.zeros_like()?);
    }
    let way = match x.dtype() == grad.dtype() {
        true => Way::of(&gpu, flow, x.dtype(), [inputs, outputs])?,
        false => Way::Plain(table::of(&gpu, flow)?),
    };
    let found = match &way {
        Way::Halo(kind, tiles) => match tiles.parts() {
            Some(parts) => halo::weight_gradient(&gpu, *kind, parts, [x, grad], shape)?,
            None => unreachable!("a way over tiles has them"),
        },
        Way::Gather(Kind::Exact, walk, _) | Way::Plain(walk) => plain::weight_gradient(&gpu, walk, [x, grad], shape)?,
        Way::Gather(kind, walk, _) => gather::weight_gradient(&gpu, *kind, walk, [x, grad], shape)?,
    };
    Ok(found.to_dtype(weight.dtype())?)
}

impl Convolution {
    /// The gradients of features and weight, each only if something upstream needs it.
    fn backward(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let x_grad = || source_gradient(&self.flow, weight, grad, x.dtype());
        let weight_grad = || weight_gradient(&self.flow, x, weight, grad);
        Ok((x.track_op().then(x_grad).transpose()?, weight.track_op().then(weight_grad).transpose()?))
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "sparse-convolution"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Err(gpu::not_there("features"))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        w: &CudaStorage,
        wl: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        Ok(sums(&self.flow, (x, xl), (w, wl), None, false, self.output)?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.backward(x, weight, grad)?)
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "sparse-convolution"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Err(gpu::not_there("features"))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        w: &CudaStorage,
        wl: &Layout,
        b: &CudaStorage,
        bl: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        Ok(sums(&self.flow, (x, xl), (w, wl), Some((b, bl)), false, self.output)?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x_grad, weight_grad) = self.backward(x, weight, grad)?;
        let bias_grad = if bias.track_op() { Some(columns::sums(grad)?.to_dtype(bias.dtype())?) } else { None };
        Ok((x_grad, weight_grad, bias_grad))
    }
}
