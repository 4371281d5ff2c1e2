//! Adds up the shares of weight gradients that blocks of a kernel have computed, in a fixed order.

use candle_core::{DType, Tensor};

use super::halves::Halves;
use super::pack::Index;
use crate::Result;
use crate::gpu::{Gpu, Module, Slice, arguments, module};

static MODULE: Module = module!("fast/sum");

/// The sum of `shares` of weights with `offsets` offsets, in their order, as (out, kz, ky, kx, in); `back` maps the offsets of the result
/// to those of the shares. `scaled` are the numbers that were split into halves, if the products are of halves.
pub(super) fn add(
    gpu: &Gpu,
    shares: &Slice,
    (shape, offsets): ([usize; 5], usize),
    back: &Index,
    count: usize,
    scaled: Option<[&Halves; 2]>,
) -> Result<Tensor> {
    let [outputs, kz, ky, kx, inputs] = shape;
    let volume = kz * ky * kx;
    let [inputs, outputs, volume, offsets, count] = [inputs, outputs, volume, offsets, count].map(|size| size as i32);
    gpu.tensor(shape.to_vec(), DType::F32, |weights| {
        let back = back.argument();
        let length = shape.iter().product();
        match scaled {
            None => {
                let arguments = arguments![shares, weights, inputs, outputs, volume, offsets, back, count];
                gpu.each(&MODULE, "wm_wgrad_sum", length, arguments)
            }
            Some([x, grad]) => {
                let (x, grad) = (gpu.slice(&x.largest), gpu.slice(&grad.largest));
                let arguments = arguments![shares, weights, inputs, outputs, volume, offsets, back, count, &x, &grad];
                gpu.each(&MODULE, "wm_wgrad_sum_scaled", length, arguments)
            }
        }
    })
}
