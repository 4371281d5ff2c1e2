//! Joins rows of features with the row of their batch element, and stacks rows of parameters.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor};

use super::{Argument, Gpu, Module, arguments, module, not_there, with_storage};
use crate::Result;

type CandleResult<T> = candle_core::Result<T>;

static MODULE: Module = module!("gpu/rows");

/// The rows of `x` (N, C), each followed by the row of `table` (batch, W) for the site's batch element, in f32. `sites` are (batch, z, y,
/// x).
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

/// The gradient of the table (batch, width) of `join`, from the gradient of its result: the sum of the rows of each batch element.
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

/// Stacks rows of channels, each (C,) or (rows, C) and f32, to (all rows, C). This is one operation of the tape in one launch;
/// `Tensor::stack` needs two for each row.
pub(crate) fn stack(rows: [&Tensor; 2], last: Option<&Tensor>) -> Result<Tensor> {
    let [first, second] = [rows[0].contiguous()?, rows[1].contiguous()?];
    Ok(match last {
        Some(last) => first.apply_op3(&second, &last.contiguous()?, Rows)?,
        None => first.apply_op2(&second, Rows)?,
    })
}

struct Rows;

impl Rows {
    fn forward(operands: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        let gpu = Gpu::new(&operands[0].0.device);
        let channels = operands[0].1.dims().last().copied().unwrap_or_default();
        let counts: Vec<usize> = operands.iter().map(|(_, layout)| layout.shape().elem_count()).collect();
        let count: usize = counts.iter().sum();
        gpu.result((count / channels, channels), DType::F32, |joined| {
            let numbers = operands.iter().map(|&operand| gpu.numbers(operand)).collect::<Result<Vec<_>>>()?;
            let mut arguments = Vec::with_capacity(7);
            for at in 0..3 {
                arguments.push(Argument::from(numbers.get(at)));
                arguments.push(Argument::from(counts.get(at).copied().unwrap_or_default() as i32));
            }
            arguments.push(joined.into());
            gpu.each(&MODULE, "join_three", count, &arguments)
        })
    }

    /// The parts of the gradient that belong to the operands.
    fn backward<const N: usize>(operands: [&Tensor; N], grad: &Tensor) -> CandleResult<[Option<Tensor>; N]> {
        let mut found = [const { None }; N];
        let mut first = 0;
        for (found, operand) in found.iter_mut().zip(operands) {
            let rows = operand.elem_count() / grad.dim(1)?;
            *found = Some(grad.narrow(0, first, rows)?.reshape(operand.shape())?);
            first += rows;
        }
        Ok(found)
    }
}

impl CustomOp2 for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Err(not_there("parameters"))
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        al: &Layout,
        b: &CudaStorage,
        bl: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        Ok(Self::forward(&[(a, al), (b, bl)])?)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = Self::backward([a, b], grad)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Rows {
    fn name(&self) -> &'static str {
        "rows"
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
        Err(not_there("parameters"))
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        al: &Layout,
        b: &CudaStorage,
        bl: &Layout,
        c: &CudaStorage,
        cl: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        Ok(Self::forward(&[(a, al), (b, bl), (c, cl)])?)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = Self::backward([a, b, c], grad)?;
        Ok((a, b, c))
    }
}
