//! Statistics of all numbers of a tensor, for its card; they are computed on the tensor's device.

use candle_core::{DType, Tensor};

use super::{Gpu, Module, arguments, module, type_code, with_storage};
use crate::Result;

static MODULE: Module = module!("gpu/statistics");

const THREADS: u32 = 256;
const MOST_BLOCKS: usize = 1024;
/// The number of parts into which the range from the smallest to the largest number is divided.
pub(crate) const BINS: usize = 48;

/// Statistics of the numbers of a tensor. All except the counts are about finite numbers only.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub std: f64,
    pub finite: u64,
    pub nan: u64,
    pub zero: u64,
    /// The count of numbers in each of [`BINS`] equal parts of the range.
    pub histogram: Vec<u64>,
}

/// Whether kernels can read numbers of this type.
pub(crate) fn reads(dtype: DType) -> bool {
    code(dtype).is_ok()
}

fn code(dtype: DType) -> Result<i32> {
    match dtype {
        DType::U8 => Ok(4),
        DType::U32 => Ok(5),
        DType::I64 => Ok(6),
        float => type_code(float),
    }
}

/// Statistics of a tensor on a GPU. Only they are copied from there; this waits for the GPU twice.
pub(crate) fn of(x: &Tensor) -> Result<Statistics> {
    let gpu = Gpu::of(x)?;
    let (count, code) = (x.elem_count(), code(x.dtype())?);
    let blocks = count.div_ceil(THREADS as usize).clamp(1, MOST_BLOCKS);
    let (grid, block) = ([blocks as u32, 1, 1], [THREADS, 1, 1]);
    let mut found = gpu.alloc::<f64>(6 * blocks)?;
    with_storage([x], |[x]| {
        let (x, found) = (gpu.numbers(x)?, gpu.slice_mut(&mut found));
        gpu.launch(&MODULE, "ranges", grid, block, arguments![&x, code, count as i64, &found])
    })?;
    let found = gpu.download(&found)?;
    let column = |at: usize| found.iter().skip(at).step_by(6).copied();
    let total = |at: usize| column(at).sum::<f64>();
    let (min, max) = (column(0).fold(f64::INFINITY, f64::min), column(1).fold(f64::NEG_INFINITY, f64::max));
    let [finite, nan, zero] = [3, 4, 5].map(|at| total(at) as u64);
    if finite == 0 {
        let none = f64::NAN;
        return Ok(Statistics {
            min: none,
            max: none,
            mean: none,
            std: none,
            finite,
            nan,
            zero,
            histogram: Vec::new(),
        });
    }
    let mean = total(2) / finite as f64;
    let scale = if max > min { BINS as f64 / (max - min) } else { 0.0 };
    let (mut squares, mut histogram) = (gpu.alloc::<f64>(blocks)?, gpu.zeros::<u64>(BINS)?);
    with_storage([x], |[x]| {
        let (x, squares, histogram) = (gpu.numbers(x)?, gpu.slice_mut(&mut squares), gpu.slice_mut(&mut histogram));
        let arguments = arguments![&x, code, count as i64, mean, min, scale, &squares, &histogram];
        gpu.launch(&MODULE, "spread", grid, block, arguments)
    })?;
    let squares: f64 = gpu.download(&squares)?.iter().sum();
    let std = (squares / finite as f64).sqrt();
    Ok(Statistics { min, max, mean, std, finite, nan, zero, histogram: gpu.download(&histogram)? })
}
