//! Pooling on the GPU, with its gradients.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Tensor};

use super::table::{self, Walk};
use crate::Result;
use crate::gpu::{self, Gpu, Module, arguments, module, type_code, with_storage};
use crate::sparse::backend::Flow;

type CandleResult<T> = candle_core::Result<T>;

static MODULE: Module = module!("plain/pool");

/// The largest value of each target's sources.
pub(super) struct MaxPool {
    pub flow: Flow,
}

impl MaxPool {
    fn gradient(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let gpu = Gpu::of(x)?;
        let walk = table::of(&gpu, &self.flow.reversed())?;
        let (channels, dtype) = (x.dim(1)?, x.dtype());
        with_storage([x, y, grad], |[x, y, grad]| {
            gpu.tensor((walk.targets, channels), dtype, |gradient| {
                let [x, y, grad] = [&gpu.numbers(x)?, &gpu.numbers(y)?, &gpu.numbers(grad)?];
                let (rows, [sources, offsets]) = (gpu.slice(walk.rows()), sizes(&walk));
                let arguments =
                    arguments![&rows, sources, offsets, x, y, grad, channels as i32, gradient, type_code(dtype)?];
                gpu.each(&MODULE, "max_pool_gradient", walk.targets * channels, arguments)
            })
        })
    }
}

fn sizes(walk: &Walk) -> [i32; 2] {
    [walk.targets as i32, walk.offsets as i32]
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "sparse-max-pool"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Err(gpu::not_there("features"))
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        let gpu = Gpu::new(&x.device);
        let walk = table::of(&gpu, &self.flow)?;
        let (channels, x) = (layout.dims()[1], gpu.numbers((x, layout))?);
        let found = gpu.result((walk.targets, channels), x.dtype, |y| {
            let (rows, [targets, offsets]) = (gpu.slice(walk.rows()), sizes(&walk));
            let arguments = arguments![&rows, targets, offsets, &x, channels as i32, y, type_code(x.dtype)?];
            gpu.each(&MODULE, "max_pool", walk.targets * channels, arguments)
        })?;
        Ok(found)
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        Ok(Some(self.gradient(x, y, grad)?))
    }
}

/// The mean of each target's sources.
pub(super) struct AvgPool {
    pub flow: Flow,
}

impl AvgPool {
    /// The number of sources of each target, (targets,) f32.
    fn counts(&self, gpu: &Gpu) -> Result<Tensor> {
        let walk = table::of(gpu, &self.flow)?;
        gpu.tensor(walk.targets, candle_core::DType::F32, |counts| {
            let (rows, [targets, offsets]) = (gpu.slice(walk.rows()), sizes(&walk));
            gpu.each(&MODULE, "count_sources", walk.targets, arguments![&rows, targets, offsets, counts])
        })
    }

    fn gradient(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let gpu = Gpu::of(x)?;
        let walk = table::of(&gpu, &self.flow.reversed())?;
        let (channels, dtype) = (x.dim(1)?, x.dtype());
        with_storage([grad, &self.counts(&gpu)?], |[grad, counts]| {
            gpu.tensor((walk.targets, channels), dtype, |gradient| {
                let [grad, counts] = [&gpu.numbers(grad)?, &gpu.numbers(counts)?];
                let (rows, [sources, offsets]) = (gpu.slice(walk.rows()), sizes(&walk));
                let arguments =
                    arguments![&rows, sources, offsets, counts, grad, channels as i32, gradient, type_code(dtype)?];
                gpu.each(&MODULE, "avg_pool_gradient", walk.targets * channels, arguments)
            })
        })
    }
}

impl CustomOp1 for AvgPool {
    fn name(&self) -> &'static str {
        "sparse-avg-pool"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Err(gpu::not_there("features"))
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        let gpu = Gpu::new(&x.device);
        let walk = table::of(&gpu, &self.flow)?;
        let (channels, x) = (layout.dims()[1], gpu.numbers((x, layout))?);
        let found = with_storage([&self.counts(&gpu)?], |[counts]| {
            gpu.result((walk.targets, channels), x.dtype, |y| {
                let (rows, [targets, offsets]) = (gpu.slice(walk.rows()), sizes(&walk));
                let counts = &gpu.numbers(counts)?;
                let arguments =
                    arguments![&rows, targets, offsets, counts, &x, channels as i32, y, type_code(x.dtype)?];
                gpu.each(&MODULE, "avg_pool", walk.targets * channels, arguments)
            })
        })?;
        Ok(found)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        Ok(Some(self.gradient(x, grad)?))
    }
}
