//! Sums over rows, in an order that the sizes alone decide.

use candle_core::{CudaStorage, DType, Layout, Tensor};

use super::{Gpu, Module, arguments, module, type_code, with_storage};
use crate::Result;

pub(super) static MODULE: Module = module!("gpu/columns");

/// Rows that one block adds at least.
const LEAST_ROWS: usize = 512;
const MOST_SHARES: usize = 256;
const LANES: u32 = 32;
const LINES: u32 = 8;

fn shares(rows: usize) -> usize {
    rows.div_ceil(LEAST_ROWS).clamp(1, MOST_SHARES)
}

/// The sum of the rows of `x` (N, C): (C,) f64.
pub(crate) fn sums(x: &Tensor) -> Result<Tensor> {
    reduce(x, None, 1.0)
}

/// Mean and biased variance of the rows of `x` (N, C), N at least 1: each (C,) f64.
pub(crate) fn moments(x: &Tensor) -> Result<[Tensor; 2]> {
    let share = 1.0 / x.dim(0)? as f64;
    let mean = reduce(x, None, share)?;
    let variance = reduce(x, Some(&mean), share)?;
    Ok([mean, variance])
}

/// `scale` times the sum of the rows, or of their squared distances from `center`.
fn reduce(x: &Tensor, center: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, channels) = x.dims2()?;
    let count = shares(rows);
    let mut parts = gpu.alloc::<f64>(count * channels)?;
    let mut run = |x: (&CudaStorage, &Layout), center: Option<(&CudaStorage, &Layout)>| {
        let (x, center) = (gpu.numbers(x)?, center.map(|center| gpu.numbers(center)).transpose()?);
        let parts_there = gpu.slice_mut(&mut parts);
        let what = i32::from(center.is_some());
        let arguments =
            arguments![&x, type_code(x.dtype)?, rows as i64, channels as i32, center.as_ref(), what, &parts_there];
        let grid = [(channels as u32).div_ceil(LANES), count as u32, 1];
        gpu.launch(&MODULE, "column_shares", grid, [LANES, LINES, 1], arguments)?;
        gpu.tensor(channels, DType::F64, |sums| {
            let arguments = arguments![&parts_there, count as i32, channels as i32, scale, sums];
            gpu.each(&MODULE, "column_totals", channels, arguments)
        })
    };
    match center {
        Some(center) => with_storage([x, center], |[x, center]| run(x, Some(center))),
        None => with_storage([x], |[x]| run(x, None)),
    }
}

/// What the gradients of a normalisation need of all rows: of each column the sum of the gradient, of the gradient times the first
/// normalised input, and times the second, (3, C) f64. A gradient counts where `out`, if it is given, is positive.
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
    // What is not there is read from nowhere: any tensor stands for it.
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
        let grid = [(channels as u32).div_ceil(LANES), count as u32, 1];
        gpu.launch(&MODULE, "gradient_shares", grid, [LANES, LINES, 1], arguments)?;
        gpu.tensor((3, channels), DType::F64, |sums| {
            let arguments = arguments![&parts_there, count as i32, 3 * channels as i32, 1f64, sums];
            gpu.each(&MODULE, "column_totals", 3 * channels, arguments)
        })
    })
}
