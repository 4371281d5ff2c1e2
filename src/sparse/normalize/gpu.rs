//! The same arithmetic on a GPU, in f32 with sums in f64.

use candle_core::{CudaStorage, DType, Layout, Shape, Tensor};

use super::{Normalize, Scaling, unsupported};
use crate::gpu::{Gpu, Module, arguments, columns, module, rows, type_code, with_storage};
use crate::{Error, Result};

static MODULE: Module = module!("gpu/normalize");

type Operand<'a> = (&'a CudaStorage, &'a Layout);

impl Scaling {
    /// Mean and inverse, (2, C) f64.
    fn values_there(&self) -> Result<&Tensor> {
        self.there.as_ref().ok_or_else(|| Error::Backend {
            backend: "cuda",
            needs: "it needs both inputs of a batch normalisation on the GPU; use `to_device`".into(),
        })
    }

    /// What to subtract from a given value, and the factor to multiply the difference by, to normalise it.
    fn reading_there(&self) -> Result<Tensor> {
        let there = self.values_there()?;
        if !self.given {
            return Ok(there.clone());
        }
        let row = (1, there.dim(1)?);
        Ok(Tensor::cat(
            &[Tensor::zeros(row, DType::F64, there.device())?, Tensor::ones(row, DType::F64, there.device())?],
            0,
        )?)
    }
}

fn check(dtype: DType) -> Result<()> {
    if dtype == DType::F64 { Err(unsupported(dtype)) } else { Ok(()) }
}

/// `act(norm(x) + shortcut)`.
pub(super) fn forward(
    op: &Normalize,
    x: Operand,
    shortcut: Option<Operand>,
    parameters: Operand,
) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::new(&x.0.device);
    let (shape, channels) = (x.1.shape().clone(), x.1.dims()[1]);
    let reading = op.x.reading_there()?;
    let second = op.shortcut.as_ref().map(|scaling| scaling.reading_there()).transpose()?;
    with_storage([&reading, second.as_ref().unwrap_or(&reading)], |[reading, second_reading]| {
        gpu.result(shape.clone(), op.output, |y| {
            let [x, parameters, reading] = [&gpu.numbers(x)?, &gpu.numbers(parameters)?, &gpu.numbers(reading)?];
            check(x.dtype)?;
            let shortcut = shortcut.map(|shortcut| gpu.numbers(shortcut)).transpose()?;
            let second_reading = gpu.numbers(second_reading)?;
            let count = shape.elem_count();
            let arguments = arguments![
                x,
                type_code(x.dtype)?,
                reading,
                parameters,
                shortcut.as_ref(),
                second.as_ref().map(|_| &second_reading),
                i32::from(op.relu),
                count as i64,
                channels as i32,
                y,
                type_code(y.dtype)?,
            ];
            gpu.each(&MODULE, "normalize", count.div_ceil(4), arguments)
        })
    })
}

/// The normalised values of `x`, rounded to `dtype` so that each stays on its side of the knee of these weights and biases.
pub(super) fn kept(scaling: &Scaling, x: &Tensor, knee: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    check(x.dtype())?;
    with_storage([x, scaling.values_there()?, knee.unwrap_or(x)], |[operand, values, parameters]| {
        gpu.tensor(x.shape(), dtype, |kept| {
            let [operand, values] = [&gpu.numbers(operand)?, &gpu.numbers(values)?];
            let parameters = gpu.numbers(parameters)?;
            let count = x.elem_count();
            let arguments = arguments![
                operand,
                type_code(operand.dtype)?,
                values,
                knee.map(|_| &parameters),
                count as i64,
                x.dim(1)? as i32,
                kept,
                type_code(dtype)?,
            ];
            gpu.each(&MODULE, "keep_normalized", count, arguments)
        })
    })
}

/// The sums over all rows that the gradients need.
pub(super) fn sums(
    op: &Normalize,
    (x, shortcut): (&Tensor, Option<&Tensor>),
    (out, grad): (&Tensor, &Tensor),
) -> Result<Tensor> {
    let reading = op.x.reading_there()?;
    let second = match shortcut.zip(op.shortcut.as_ref()) {
        Some((shortcut, scaling)) => Some((shortcut, scaling.reading_there()?)),
        None => None,
    };
    let second = second.as_ref().map(|(shortcut, reading)| (*shortcut, reading));
    columns::gradient_sums(grad, op.relu.then_some(out), (x, &reading), second)
}

/// The type for the gradient of features of `dtype`, given the gradient of the output.
fn gradient_type(dtype: DType, grad: &Tensor) -> DType {
    if grad.dtype() == DType::F32 { DType::F32 } else { dtype }
}

pub(super) fn x_gradient(
    op: &Normalize,
    x: &Tensor,
    parameters: &Tensor,
    outcome: (&Tensor, &Tensor),
    sums: &Tensor,
) -> Result<Tensor> {
    input_gradient(op, Some((x, &op.x, 0, 1)), parameters, outcome, sums, gradient_type(x.dtype(), outcome.1))
}

pub(super) fn shortcut_gradient(
    op: &Normalize,
    shortcut: &Tensor,
    parameters: &Tensor,
    outcome: (&Tensor, &Tensor),
    sums: &Tensor,
) -> Result<Tensor> {
    let input = op.shortcut.as_ref().map(|scaling| (shortcut, &**scaling, 2, 2));
    input_gradient(op, input, parameters, outcome, sums, gradient_type(shortcut.dtype(), outcome.1))
}

/// The gradient of an input with its scaling, the row of its weight and that of its sums; or, without these, of a plain shortcut.
fn input_gradient(
    op: &Normalize,
    input: Option<(&Tensor, &Scaling, usize, usize)>,
    parameters: &Tensor,
    (out, grad): (&Tensor, &Tensor),
    sums: &Tensor,
    dtype: DType,
) -> Result<Tensor> {
    let gpu = Gpu::of(grad)?;
    let (rows, channels) = grad.dims2()?;
    let (x, reading, scale, weight, normed, share) = match input {
        Some((x, scaling, weight, normed)) => (
            x.clone(),
            scaling.reading_there()?,
            scaling.values_there()?.get(1)?,
            parameters.get(weight)?,
            sums.get(normed)?,
            if scaling.of_batch { 1.0 / rows as f64 } else { 0.0 },
        ),
        None => (grad.clone(), sums.clone(), sums.clone(), parameters.clone(), sums.clone(), 0.0),
    };
    let (weight, grad_sums) = (weight.to_dtype(DType::F32)?, sums.get(0)?);
    with_storage([grad, out, &x, &reading, &scale, &weight, &grad_sums, &normed], |operands| {
        gpu.tensor((rows, channels), dtype, |gradient| {
            let [grad, out, x, reading, scale, weight, grad_sums, normed] =
                operands.map(|operand| gpu.numbers(operand));
            let (grad, out, x) = (grad?, out?, x?);
            let count = rows * channels;
            let arguments = arguments![
                &grad,
                type_code(grad.dtype)?,
                op.relu.then_some(&out),
                type_code(out.dtype)?,
                input.map(|_| &x),
                type_code(x.dtype)?,
                &reading?,
                &scale?,
                &weight?,
                &grad_sums?,
                &normed?,
                share,
                count as i64,
                channels as i32,
                gradient,
                type_code(dtype)?,
            ];
            gpu.each(&MODULE, "normalize_gradient", count.div_ceil(4), arguments)
        })
    })
}

/// The gradients of the parameters, (2, C) or (4, C), in f32.
pub(super) fn parameter_gradient(op: &Normalize, sums: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(sums)?;
    let (rows, channels) = (if op.shortcut.is_some() { 4 } else { 2 }, sums.dim(1)?);
    with_storage([sums], |[sums]| {
        gpu.tensor((rows, channels), DType::F32, |gradient| {
            let sums = gpu.numbers(sums)?;
            let arguments = arguments![&sums, rows as i32, channels as i32, gradient];
            gpu.each(&MODULE, "parameter_gradient", rows * channels, arguments)
        })
    })
}

/// Weights and biases, each (C,), stacked as rows.
pub(super) fn stacked(parameters: &[Tensor]) -> Result<Tensor> {
    match parameters {
        [weight, bias] => rows::stack([weight, bias], None),
        [weight, bias, second @ ..] => second
            .chunks(2)
            .try_fold(rows::stack([weight, bias], None)?, |above, pair| rows::stack([&above, &pair[0]], pair.get(1))),
        _ => Ok(Tensor::stack(parameters, 0)?),
    }
}
