//! Sums over rows, in an order that depends only on the sizes.

use candle_core::{DType, Shape, Tensor};

use super::{Argument, Gpu, Module, Slice, arguments, module, type_code, with_storage};
use crate::Result;

pub(super) static MODULE: Module = module!("gpu/columns");

/// The least number of rows that one block adds.
const LEAST_ROWS: usize = 64;
const MOST_SHARES: usize = 256;
const LANES: u32 = 32;

fn shares(rows: usize) -> usize {
    rows.div_ceil(LEAST_ROWS).clamp(1, MOST_SHARES)
}

/// The grid for a kernel with a line of blocks for each share of the rows.
fn grid(channels: usize, count: usize) -> [u32; 3] {
    [(channels as u32).div_ceil(LANES), count as u32, 1]
}

/// Threads of a block that adds a share.
const BLOCK: [u32; 3] = [LANES, 8, 1];
/// Threads of a block that adds up the shares.
const TOTAL: [u32; 3] = [LANES, 32, 1];

/// The sum of the rows of `x` (N, C): (C,) f64.
pub(crate) fn sums(x: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, channels) = x.dims2()?;
    let count = shares(rows);
    let mut parts = gpu.alloc::<f64>(count * channels)?;
    let parts = gpu.slice_mut(&mut parts);
    with_storage([x], |[x]| {
        let x = gpu.numbers(x)?;
        let arguments = arguments![&x, type_code(x.dtype)?, rows as i64, channels as i32, &parts];
        gpu.launch(&MODULE, "column_shares", grid(channels, count), BLOCK, arguments)
    })?;
    totals(&gpu, &parts, count, channels.into())
}

/// The sum of the shares, which all have this shape.
pub(super) fn totals(gpu: &Gpu, parts: &Slice, count: usize, shape: Shape) -> Result<Tensor> {
    let columns = shape.elem_count();
    gpu.tensor(shape, DType::F64, |sums| {
        let arguments = arguments![parts, count as i32, columns as i32, sums];
        gpu.launch(&MODULE, "column_totals", grid(columns, 1), TOTAL, arguments)
    })
}

/// Calls `body` with the moments of shares of the rows of `x` (N, C), N at least 1, as kernel arguments: shares, their number, N and C.
fn with_moments<R>(gpu: &Gpu, x: &Tensor, body: impl FnOnce([Argument; 4], usize) -> Result<R>) -> Result<R> {
    let (rows, channels) = x.dims2()?;
    let count = shares(rows);
    let mut parts = gpu.alloc::<f64>(2 * count * channels)?;
    let parts = gpu.slice_mut(&mut parts);
    with_storage([x], |[x]| {
        let x = gpu.numbers(x)?;
        let arguments = arguments![&x, type_code(x.dtype)?, rows as i64, channels as i32, &parts];
        gpu.launch(&MODULE, "moment_shares", grid(channels, count), BLOCK, arguments)
    })?;
    body([(&parts).into(), (count as i32).into(), (rows as i64).into(), (channels as i32).into()], channels)
}

/// Mean and biased variance of the rows of `x` (N, C), N at least 1: each (C,) f64.
pub(crate) fn moments(x: &Tensor) -> Result<[Tensor; 2]> {
    let gpu = Gpu::of(x)?;
    with_moments(&gpu, x, |[parts, count, rows, width], channels| {
        let mut variance = None;
        let mean = gpu.tensor(channels, DType::F64, |mean| {
            variance = Some(gpu.tensor(channels, DType::F64, |variance| {
                let arguments = &[parts, count, rows, width, mean.into(), variance.into()];
                gpu.launch(&MODULE, "moment_totals", grid(channels, 1), TOTAL, arguments)
            })?);
            Ok(())
        })?;
        let Some(variance) = variance else { unreachable!("there are channels, so both are filled") };
        Ok([mean, variance])
    })
}

/// A layer's running statistics, f32, which move by `momentum` towards those of a batch.
pub(crate) struct Running<'a> {
    pub mean: &'a Tensor,
    pub variance: &'a Tensor,
    pub momentum: f64,
}

/// What normalises the batch `x` (N, C), N at least 2: mean and 1 / √(variance + eps), (2, C) f64. Also moves `running`.
pub(crate) fn batch_scaling(x: &Tensor, eps: f64, running: Option<Running>) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    with_moments(&gpu, x, |[parts, count, rows, width], channels| {
        gpu.tensor((2, channels), DType::F64, |scaling| {
            let (mean, variance, momentum) = match running {
                Some(Running { mean, variance, momentum }) => {
                    (Argument::at(&gpu, mean)?, Argument::at(&gpu, variance)?, momentum)
                }
                None => (None::<&Slice>.into(), None::<&Slice>.into(), 0.0),
            };
            let arguments = &[parts, count, rows, width, eps.into(), scaling.into(), mean, variance, momentum.into()];
            gpu.launch(&MODULE, "batch_scaling", grid(channels, 1), TOTAL, arguments)
        })
    })
}

/// What normalises by running statistics, each (C,) f32: (2, C) f64, as above.
pub(crate) fn running_scaling(mean: &Tensor, variance: &Tensor, eps: f64) -> Result<Tensor> {
    let (gpu, channels) = (Gpu::of(mean)?, mean.elem_count());
    gpu.tensor((2, channels), DType::F64, |scaling| {
        let [mean, variance] = [Argument::at(&gpu, mean)?, Argument::at(&gpu, variance)?];
        let arguments = &[mean, variance, (channels as i32).into(), eps.into(), scaling.into()];
        gpu.each(&MODULE, "running_scaling", channels, arguments)
    })
}

/// The sums over all rows that the gradients of a normalisation need: for each column the sum of the gradient, of the gradient times the
/// first normalised input, and of the gradient times the second, (3, C) f64. If `out` is given, a gradient counts only where it is
/// positive.
pub(crate) fn gradient_sums(
    grad: &Tensor,
    out: Option<&Tensor>,
    first: (&Tensor, &Tensor),
    second: Option<(&Tensor, &Tensor)>,
) -> Result<Tensor> {
    let gpu = Gpu::of(grad)?;
    let (rows, channels) = grad.dims2()?;
    let count = shares(rows);
    let mut parts = gpu.alloc::<f64>(count * 3 * channels)?;
    // A missing input is never read, so any tensor can replace it.
    let tensors =
        [grad, out.unwrap_or(grad), first.0, first.1, second.map_or(first.0, |s| s.0), second.map_or(first.1, |s| s.1)];
    with_storage(tensors, |operands| {
        let numbers = operands.map(|operand| gpu.numbers(operand));
        let [grad, mask, x, scaling, other, other_scaling] = numbers;
        let (grad, mask, x, scaling) = (grad?, mask?, x?, scaling?);
        let (other, other_scaling) = (other?, other_scaling?);
        let parts_there = gpu.slice_mut(&mut parts);
        let arguments = arguments![
            &grad,
            type_code(grad.dtype)?,
            out.map(|_| &mask),
            type_code(mask.dtype)?,
            &x,
            second.map(|_| &other),
            type_code(x.dtype)?,
            &scaling,
            second.map(|_| &other_scaling),
            rows as i64,
            channels as i32,
            &parts_there,
        ];
        gpu.launch(&MODULE, "gradient_shares", grid(channels, count), BLOCK, arguments)?;
        totals(&gpu, &parts_there, count, (3, channels).into())
    })
}
