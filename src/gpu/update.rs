//! Arithmetic on lists of parameters in place, with one launch for many tensors, since most of them are small.

use candle_core::Tensor;

use super::{Argument, Gpu, Module, arguments, module};
use crate::Result;

static MODULE: Module = module!("gpu/update");

/// Tensors in one launch; its arguments have 4 kB.
const MOST: usize = 80;
/// Elements of a block.
const PIECE: usize = 4096;
const BLOCK: u32 = 256;

/// Lists of tensors as kernel arguments, as declared in `kernels/update.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Many {
    at: [[u64; MOST]; 4],
    counts: [i64; MOST],
    firsts: [i32; MOST],
    keep: [f32; MOST],
    tensors: i32,
}

// SAFETY: numbers in the order in which the kernels declare them.
unsafe impl candle_core::cuda_backend::cudarc::driver::DeviceRepr for Many {}

/// `to = to·keep + from·take` for each pair.
pub(crate) fn follow(pairs: &[[&Tensor; 2]], keep: f32, take: f32) -> Result<()> {
    let rows = pairs.iter().map(|&pair| (pair, keep));
    for_many(rows, |gpu, many, blocks| {
        gpu.launch(&MODULE, "follow", [blocks, 1, 1], [BLOCK, 1, 1], &[many.into(), Argument::Float(take)])
    })
}

/// One AdamW update of value, mean, mean square and gradient for each variable; the number is how much of its value stays. `constants` are:
/// how much stays of the mean and the mean square and how much is added, the rate, the correction of the mean square, and epsilon.
pub(crate) fn adam<'a>(rows: impl Iterator<Item = ([&'a Tensor; 4], f32)>, constants: [f32; 7]) -> Result<()> {
    for_many(rows, |gpu, many, blocks| {
        let arguments: Vec<Argument> = std::iter::once(many.into()).chain(constants.map(Argument::Float)).collect();
        gpu.launch(&MODULE, "adam", [blocks, 1, 1], [BLOCK, 1, 1], &arguments)
    })
}

/// The sum of all squares, in an order that depends only on the tensors' sizes.
pub(crate) fn squares(tensors: &[Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else { return Ok(0.0) };
    let gpu = Gpu::of(first)?;
    let mut sum = gpu.zeros::<f64>(1)?;
    for_many(tensors.iter().map(|tensor| ([tensor], 0.0)), |gpu, many, blocks| {
        let mut shares = gpu.alloc::<f64>(blocks as usize)?;
        let (shares, sum) = (gpu.slice_mut(&mut shares), gpu.slice_mut(&mut sum));
        gpu.launch(&MODULE, "square_shares", [blocks, 1, 1], [BLOCK, 1, 1], &[many.into(), (&shares).into()])?;
        gpu.launch(&MODULE, "add_shares", [1; 3], [1024, 1, 1], arguments![&shares, i64::from(blocks), &sum])
    })?;
    Ok(gpu.download(&sum)?[0])
}

/// Calls `launch` with as many rows of tensors as one launch takes. All tensors of a row must have the same number of elements.
fn for_many<'a, const N: usize>(
    rows: impl Iterator<Item = ([&'a Tensor; N], f32)>,
    mut launch: impl FnMut(&Gpu, &Many, u32) -> Result<()>,
) -> Result<()> {
    let mut rows = rows.filter(|(tensors, _)| tensors[0].elem_count() > 0).peekable();
    while let Some((tensors, _)) = rows.peek() {
        let gpu = Gpu::of(tensors[0])?;
        let mut many = Many { at: [[0; MOST]; 4], counts: [0; MOST], firsts: [0; MOST], keep: [0.0; MOST], tensors: 0 };
        let mut blocks = 0;
        for (place, (tensors, keep)) in rows.by_ref().take(MOST).enumerate() {
            for (column, tensor) in tensors.into_iter().enumerate() {
                many.at[column][place] = gpu.address(tensor)?;
            }
            let count = tensors[0].elem_count();
            (many.counts[place], many.firsts[place], many.keep[place]) = (count as i64, blocks, keep);
            many.tensors += 1;
            blocks += i32::try_from(count.div_ceil(PIECE)).map_err(|_| super::too_many(count))?;
        }
        launch(&gpu, &many, blocks.unsigned_abs())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_takes_its_tables_as_arguments() {
        assert!(size_of::<Many>() + 8 * size_of::<f32>() <= 4096);
    }
}
