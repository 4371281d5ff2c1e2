//! Arithmetic on parameters where they stand.

use candle_core::{CudaStorage, Layout, Tensor};

use super::{Argument, Gpu, Module, arguments, module, with_storage};
use crate::Result;

pub(crate) static MODULE: Module = module!("gpu/update");

/// Runs `kernel` over the elements of `to`: its first arguments are the addresses of `to` and `from` and their length, then `constants`.
pub(crate) fn run(
    kernel: &str,
    to: (&CudaStorage, &Layout),
    from: &[(&CudaStorage, &Layout)],
    constants: &[f32],
) -> Result<()> {
    let gpu = Gpu::new(&to.0.device);
    let count = to.1.shape().elem_count();
    let numbers = std::iter::once(&to).chain(from).map(|&of| gpu.numbers(of)).collect::<Result<Vec<_>>>()?;
    let mut arguments: Vec<Argument> = numbers.iter().map(Argument::from).collect();
    arguments.push(Argument::Long(count as i64));
    arguments.extend(constants.iter().map(|&constant| Argument::Float(constant)));
    gpu.each(&MODULE, kernel, count, &arguments)
}

/// The sum of all squares, in the order of the tensors.
pub(crate) fn squares(tensors: &[Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else { return Ok(0.0) };
    let gpu = Gpu::of(first)?;
    let mut sum = gpu.zeros::<f64>(1)?;
    for tensor in tensors {
        with_storage([tensor], |[values]| {
            let (count, values) = (tensor.elem_count() as i64, gpu.numbers(values)?);
            gpu.launch(
                &MODULE,
                "add_squares",
                [1; 3],
                [1024, 1, 1],
                arguments![&values, count, &gpu.slice_mut(&mut sum)],
            )
        })?;
    }
    Ok(gpu.download(&sum)?[0])
}
