//! Convolutions over any map, with any channels, on any card: f32 products without tensor cores.

use candle_core::{DType, Tensor};

use super::pack::Weights;
use super::table::Walk;
use crate::Result;
use crate::gpu::{Gpu, Module, Numbers, Written, arguments, module, type_code, with_storage};

static MODULE: Module = module!("plain/convolve");

/// Rows and columns of a block's result.
const TILE: usize = 64;

/// `y = bias + sums` over a table. With `back` it goes from output channels to input channels, for the gradient of the input.
pub(super) fn sums(
    gpu: &Gpu,
    walk: &Walk,
    (x, weights, bias): (&Numbers, &Weights, Option<&Numbers>),
    back: bool,
    y: &Written,
) -> Result<()> {
    let &Weights { numbers, outputs, inputs, volume } = weights;
    let whole = (volume * inputs) as i64;
    let (depth, columns, step_n, step_k) = if back { (outputs, inputs, 1, whole) } else { (inputs, outputs, whole, 1) };
    let rows = gpu.slice(walk.rows());
    let types = [x.dtype, numbers.dtype, bias.map_or(DType::F32, |bias| bias.dtype), y.dtype];
    let [x_type, weight_type, bias_type, y_type] = codes(types)?;
    let arguments = arguments![
        &rows,
        walk.targets as i32,
        walk.offsets as i32,
        i32::from(walk.mirrored),
        x,
        x_type,
        depth as i32,
        numbers,
        weight_type,
        columns as i32,
        step_n,
        inputs as i64,
        step_k,
        bias,
        bias_type,
        y,
        y_type,
    ];
    let grid = [walk.targets.div_ceil(TILE) as u32, columns.div_ceil(TILE) as u32, 1];
    gpu.launch(&MODULE, "convolve_table", grid, [256, 1, 1], arguments)
}

fn codes<const N: usize>(types: [DType; N]) -> Result<[i32; N]> {
    let mut codes = [0; N];
    for (code, dtype) in codes.iter_mut().zip(types) {
        *code = type_code(dtype)?;
    }
    Ok(codes)
}

/// The gradient of the weights (out, kz, ky, kx, in) in f32. Shares of the targets are added in a fixed order; only the sizes decide how
/// many there are.
pub(super) fn weight_gradient(gpu: &Gpu, walk: &Walk, [x, grad]: [&Tensor; 2], shape: [usize; 5]) -> Result<Tensor> {
    /// The number of targets whose products are worth one more share in memory.
    const LEAST_TARGETS: usize = 2048;
    /// The most numbers that all shares together may hold.
    const MEMORY: usize = 1 << 25;
    let [outputs, .., inputs] = shape;
    let length = outputs * walk.offsets * inputs;
    let splits = walk.targets.div_ceil(LEAST_TARGETS).min(MEMORY / length).clamp(1, 64);
    let each = walk.targets.div_ceil(splits);
    let mut shares = gpu.alloc::<f32>(splits * length)?;
    with_storage([x, grad], |[x, grad]| {
        let (x, grad, rows) = (gpu.numbers(x)?, gpu.numbers(grad)?, gpu.slice(walk.rows()));
        let [x_type, grad_type] = codes([x.dtype, grad.dtype])?;
        let shares = gpu.slice_mut(&mut shares);
        let arguments = arguments![
            &rows,
            walk.targets as i32,
            walk.offsets as i32,
            i32::from(walk.mirrored),
            &x,
            x_type,
            inputs as i32,
            &grad,
            grad_type,
            outputs as i32,
            each as i32,
            &shares,
        ];
        let pieces = inputs.div_ceil(TILE) * outputs.div_ceil(TILE);
        let grid = [pieces as u32, walk.offsets as u32, splits as u32];
        gpu.launch(&MODULE, "weight_shares", grid, [256, 1, 1], arguments)?;
        gpu.tensor(shape.to_vec(), DType::F32, |sums| {
            gpu.each(&MODULE, "add_shares", length, arguments![&shares, splits as i32, length as i64, sums])
        })
    })
}
