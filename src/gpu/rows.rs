//! Rows of features beside a line of their batch element.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaStorage, DType, Layout, Shape, Tensor};

use super::{Gpu, Module, arguments, module, with_storage};
use crate::Result;

static MODULE: Module = module!("gpu/rows");

/// The rows of `x` (N, C) followed by the line of `table` (batch, W) of each site's batch element, in f32. `sites` are (batch, z, y, x).
pub(crate) fn join(
    x: (&CudaStorage, &Layout),
    table: (&CudaStorage, &Layout),
    sites: &CudaSlice<i32>,
) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::new(&x.0.device);
    let (rows, channels, width) = (x.1.dims()[0], x.1.dims()[1], table.1.dims()[1]);
    gpu.result((rows, channels + width), DType::F32, |joined| {
        let count = rows * (channels + width);
        let [x, table] = [&gpu.numbers(x)?, &gpu.numbers(table)?];
        let sizes = [channels as i32, width as i32];
        let sites = gpu.slice(sites);
        let arguments = arguments![x, table, &sites, rows as i64, sizes[0], sizes[1], joined];
        gpu.each(&MODULE, "join_lines", count, arguments)
    })
}

/// The gradient of `join`'s table (batch, width) from that of its result: the sum of the rows of each batch element.
pub(crate) fn table_gradient(grad: &Tensor, sites: &CudaSlice<i32>, [batch, width]: [usize; 2]) -> Result<Tensor> {
    let gpu = Gpu::of(grad)?;
    let (rows, columns) = grad.dims2()?;
    let grad = grad.to_dtype(DType::F32)?;
    with_storage([&grad], |[grad]| {
        gpu.tensor((batch, width), DType::F32, |sums| {
            let (grad, sites) = (gpu.numbers(grad)?, gpu.slice(sites));
            let first = (columns - width) as i32;
            let arguments = arguments![&grad, &sites, rows as i64, columns as i32, first, sums];
            gpu.launch(&MODULE, "sum_lines", [width as u32, batch as u32, 1], [256, 1, 1], arguments)
        })
    })
}
