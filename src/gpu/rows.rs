//! Joins rows of features with the row of their batch element, scales or adds the rows of each element, and stacks rows of parameters.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor};

use super::columns::totals;
use super::{Argument, Gpu, Module, arguments, module, not_there, with_storage};
use crate::Result;
use crate::sparse::Placed;

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

/// The sum of the last `width` columns of the rows (sites, C) of each batch element: (batch, width) f32.
pub(crate) fn element_sums(rows: &Tensor, sites: &Placed, [batch, width]: [usize; 2]) -> Result<Tensor> {
    /// The least rows of an element for one block.
    const LEAST: usize = 512;
    const MOST_SHARES: usize = 64;
    let gpu = Gpu::of(rows)?;
    let (count, columns) = rows.dims2()?;
    let rows = rows.to_dtype(DType::F32)?;
    let shares = count.div_ceil(batch.max(1) * LEAST).clamp(1, MOST_SHARES);
    let mut parts = gpu.alloc::<f64>(shares * batch * width)?;
    let parts = gpu.slice_mut(&mut parts);
    with_storage([&rows], |[rows]| {
        let (rows, coords) = (gpu.numbers(rows)?, gpu.slice(&sites.coords));
        let sizes = [columns, columns - width, width].map(|n| n as i32);
        let by_element = i32::from(sites.by_element);
        let arguments = arguments![&rows, &coords, by_element, count as i64, sizes[0], sizes[1], sizes[2], &parts];
        let grid = [(width as u32).div_ceil(32), batch as u32, shares as u32];
        gpu.launch(&MODULE, "sum_shares", grid, [32, 8, 1], arguments)
    })?;
    Ok(totals(&gpu, &parts, shares, (batch, width).into())?.to_dtype(DType::F32)?)
}

/// The rows of `x` (N, C) times 1 + s and, if `shifted`, plus b; `factors` (batch, 2·C) are s and b of each batch element. All are f32.
pub(crate) fn modulate(x: &Tensor, factors: &Tensor, sites: &Placed, shifted: bool) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, channels) = x.dims2()?;
    with_storage([x, factors], |[x, factors]| {
        let (x, factors, coords) = (gpu.numbers(x)?, gpu.numbers(factors)?, gpu.slice(&sites.coords));
        gpu.tensor((rows, channels), DType::F32, |y| {
            let arguments = arguments![&x, &factors, &coords, rows as i64, channels as i32, i32::from(shifted), y];
            gpu.each(&MODULE, "modulate", rows * channels, arguments)
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
