//! f32 numbers for the fast path of tensor cores: each is a sum of scaled halves.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;

use crate::Result;
use crate::gpu::{Gpu, Module, Numbers, Slice, arguments, module};

static MODULE: Module = module!("fast/split");

/// f32 numbers as sums of f16 numbers. All are scaled by one power of two, which brings the largest near the top of f16's range.
pub(super) struct Halves {
    pub parts: CudaSlice<u16>,
    /// The bits of the largest magnitude.
    pub largest: CudaSlice<u32>,
}

impl Halves {
    /// Parts and largest magnitude, as kernel arguments.
    pub fn there<'a>(&'a self, gpu: &'a Gpu) -> [Slice<'a>; 2] {
        [gpu.slice(&self.parts), gpu.slice(&self.largest)]
    }
}

/// The `many` (1 or 2) parts of `length` numbers, a multiple of 4.
pub(super) fn halves(gpu: &Gpu, numbers: &Numbers, length: usize, many: usize) -> Result<Halves> {
    let (mut parts, mut largest) = (gpu.alloc::<u16>(many * length)?, gpu.zeros::<u32>(1)?);
    {
        let (parts, largest) = (gpu.slice_mut(&mut parts), gpu.slice_mut(&mut largest));
        let grid = [length.div_ceil(4096).min(1056) as u32, 1, 1];
        gpu.launch(&MODULE, "wm_largest", grid, [256, 1, 1], arguments![numbers, length as i32, &largest])?;
        let arguments = arguments![numbers, &parts, length as i32, many as i32, &largest];
        gpu.launch(&MODULE, "wm_split_half", [length.div_ceil(1024) as u32, 1, 1], [256, 1, 1], arguments)?;
    }
    Ok(Halves { parts, largest })
}
