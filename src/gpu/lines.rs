//! Softmax and layer normalisation along the last axis, and their gradients, each in one launch. All tensors are f32.

use candle_core::{DType, Shape, Tensor};

use super::{Argument, Gpu, Module, columns, module};
use crate::Result;

static MODULE: Module = module!("gpu/lines");

/// Rows in one block.
const LINES: usize = 8;

/// Rows of a tensor, and numbers in each of them.
struct Lines {
    gpu: Gpu,
    rows: usize,
    width: usize,
}

impl Lines {
    fn of(x: &Tensor) -> Result<Self> {
        let width = x.dims().last().copied().unwrap_or(1);
        Ok(Self { gpu: Gpu::of(x)?, rows: x.elem_count() / width.max(1), width })
    }

    /// Runs a kernel that reads `inputs` and writes tensors of the shapes `outputs`. Between these arguments it gets the number of rows, their
    /// width and, if there is one, `eps`.
    fn run<const N: usize>(
        &self,
        kernel: &str,
        inputs: &[&Tensor],
        eps: Option<f64>,
        outputs: [Shape; N],
    ) -> Result<[Tensor; N]> {
        let inputs = inputs.iter().map(|input| input.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
        // The kernel writes every number of its outputs.
        let outputs = outputs.map(|shape| self.gpu.tensor(shape, DType::F32, |_| Ok(())));
        let outputs = outputs.into_iter().collect::<Result<Vec<_>>>()?;
        let at = |tensor: &Tensor| Argument::at(&self.gpu, tensor);
        let mut arguments = inputs.iter().map(at).collect::<Result<Vec<_>>>()?;
        arguments.extend([(self.rows as i64).into(), (self.width as i32).into()]);
        arguments.extend(eps.map(|eps| Argument::from(eps as f32)));
        for output in &outputs {
            arguments.push(at(output)?);
        }
        let grid = [self.rows.div_ceil(LINES) as u32, 1, 1];
        self.gpu.launch(&MODULE, kernel, grid, [32, LINES as u32, 1], &arguments)?;
        let Ok(outputs) = outputs.try_into() else { unreachable!("each shape gave a tensor") };
        Ok(outputs)
    }
}

/// The softmax of each row of `x` (…, C).
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let [y] = Lines::of(x)?.run("softmax", &[x], None, [x.shape().clone()])?;
    Ok(y)
}

/// The gradient of the input of a softmax, from its output `y` (…, C) and the output's gradient.
pub(crate) fn softmax_gradient(y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let [x_grad] = Lines::of(y)?.run("softmax_gradient", &[y, grad], None, [y.shape().clone()])?;
    Ok(x_grad)
}

/// The layer normalisation of `x` (N, C), and its scaling (2, N): mean and 1 / √(variance + eps) of each row.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<[Tensor; 2]> {
    let lines = Lines::of(x)?;
    let scaling = Shape::from((2, lines.rows));
    lines.run("layer_norm", &[x, weight, bias], Some(eps), [x.shape().clone(), scaling])
}

/// The gradients of the input (N, C), the weight and the bias of a layer normalisation.
pub(crate) fn layer_norm_gradients(
    x: &Tensor,
    weight: &Tensor,
    scaling: &Tensor,
    grad: &Tensor,
) -> Result<[Tensor; 3]> {
    let inputs = [x, weight, scaling, grad];
    let [x_grad, product] =
        Lines::of(x)?.run("layer_norm_gradient", &inputs, None, [x.shape(), x.shape()].map(Clone::clone))?;
    let sum = |rows: &Tensor| -> Result<Tensor> { Ok(columns::sums(rows)?.to_dtype(DType::F32)?) };
    Ok([x_grad, sum(&product)?, sum(&grad.contiguous()?)?])
}
