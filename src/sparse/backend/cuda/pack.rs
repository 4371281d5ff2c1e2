//! Weights in the order in which the tensor cores' kernels read them.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;

use super::kind::{Kind, Plan};
use crate::Result;
use crate::gpu::{Argument, Gpu, Module, Numbers, arguments, module};

static MODULE: Module = module!("fast/pack");
/// The kernels without tensor cores have their own packing.
pub(super) static EXACT: Module = module!("fast/exact");

/// For each offset of one order, its place in another; −1 for none.
#[derive(Clone)]
pub(super) struct Index(Box<[i16; 128]>);

impl Index {
    /// The largest number of offsets that it can hold.
    pub const MOST: usize = 128;

    pub fn new(at: impl IntoIterator<Item = i16>) -> Self {
        let mut numbers = [-1; Self::MOST];
        numbers.iter_mut().zip(at).for_each(|(number, at)| *number = at);
        Self(Box::new(numbers))
    }

    /// Each offset at its own place or, if `mirrored`, counted from the other end.
    pub fn straight(offsets: usize, mirrored: bool) -> Self {
        Self::new((0..offsets as i16).map(|o| if mirrored { offsets as i16 - 1 - o } else { o }))
    }

    pub fn argument(&self) -> Argument {
        Argument::Index(self.0.clone())
    }
}

/// Weights (out, volume, in).
pub(super) struct Weights<'a> {
    pub numbers: &'a Numbers<'a>,
    pub outputs: usize,
    pub inputs: usize,
    pub volume: usize,
}

/// The packed form of `weights`, whose `numbers` have the kind's type. `index` gives the places of its offsets among `offsets`; `transposed` packs for the gradient of the input.
pub(super) fn pack(
    gpu: &Gpu,
    kind: Kind,
    (numbers, weights): (Argument, &Weights),
    plan: &Plan,
    (index, offsets): (&Index, usize),
    transposed: bool,
) -> Result<CudaSlice<u8>> {
    let &Weights { outputs, inputs, volume, .. } = weights;
    let parts = if kind == Kind::F32 { 2 } else { 1 };
    let mut image = gpu.alloc::<u8>(offsets * inputs * outputs * kind.size() * parts)?;
    {
        let image = gpu.slice_mut(&mut image);
        // The kernels for tensor cores read chunks of 16 bytes; the others read columns.
        let (module, each) = if kind.on_tensor_cores() { (&MODULE, 16) } else { (&EXACT, kind.size()) };
        let count = offsets * inputs * outputs * kind.size() / each;
        let [inputs, outputs, volume, offsets, columns] =
            [inputs, outputs, volume, offsets, plan.columns].map(|size| size as i32);
        let index = index.argument();
        let arguments = arguments![
            numbers,
            &image,
            inputs,
            outputs,
            volume,
            offsets,
            index,
            columns,
            i32::from(transposed),
            count as i32
        ];
        let kernel = format!("wm_pack_{}_r{}", kind.name(), plan.bytes);
        gpu.each(module, &kernel, count, arguments)?;
    }
    Ok(image)
}
