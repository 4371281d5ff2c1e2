//! [`layer_norm`]: `y = (x − mean) / √(variance + eps) · weight + bias` with mean and variance of each row (Ba et al. 2016), as one operation
//! on the gradient tape.

use candle_core::Tensor;

use super::in_one::{PartGradients, in_one};
use crate::Result;

/// Normalises the rows of `x` (N, C), f32 or f64, as `weight` and `bias` (C,) are.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let (given, factor) = (x.detach(), weight.detach());
    let (y, scaling) = forward(&given, &factor, &bias.detach(), eps)?;
    let parameters = [weight.clone(), bias.clone()];
    let [weight, bias] = parameters.clone();
    in_one((x, None), &y, &parameters, move |(_, grad)| {
        let [x, weight_grad, bias_grad] = backward(&given, &factor, &scaling, grad)?;
        let parameters = vec![(weight.clone(), weight_grad), (bias.clone(), bias_grad)];
        Ok(PartGradients { x, other: None, parameters })
    })
}

/// Whether the GPU has kernels for it.
#[cfg(feature = "cuda")]
fn there(x: &Tensor) -> bool {
    x.device().is_cuda() && x.dtype() == candle_core::DType::F32
}

/// The output, and the mean and 1 / √(variance + eps) of each row: (2, N).
fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if there(x) {
        let [y, scaling] = crate::gpu::lines::layer_norm(x, weight, bias, eps)?;
        return Ok((y, scaling));
    }
    let mean = x.mean(1)?;
    let centred = x.broadcast_sub(&mean.unsqueeze(1)?)?;
    let inverse = (centred.sqr()?.mean(1)? + eps)?.sqrt()?.recip()?;
    let y = centred.broadcast_mul(&inverse.unsqueeze(1)?)?.broadcast_mul(weight)?.broadcast_add(bias)?;
    Ok((y, Tensor::stack(&[mean, inverse], 0)?))
}

/// The gradients of input, weight and bias.
fn backward(x: &Tensor, weight: &Tensor, scaling: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
    #[cfg(feature = "cuda")]
    if there(x) {
        return crate::gpu::lines::layer_norm_gradients(x, weight, scaling, grad);
    }
    let column = |row: usize| scaling.get(row)?.unsqueeze(1);
    let (mean, inverse) = (column(0)?, column(1)?);
    let normed = x.broadcast_sub(&mean)?.broadcast_mul(&inverse)?;
    let weighted = grad.broadcast_mul(weight)?;
    let along = normed.broadcast_mul(&(&weighted * &normed)?.mean_keepdim(1)?)?;
    let x_grad = (weighted.broadcast_sub(&weighted.mean_keepdim(1)?)? - along)?.broadcast_mul(&inverse)?;
    Ok([x_grad, (grad * &normed)?.sum(0)?, grad.sum(0)?])
}

#[cfg(test)]
mod tests {
    use candle_core::{D, DType, Device, Var};

    use super::*;
    use crate::random;

    #[test]
    fn values_and_gradients_are_those_of_the_formula() -> Result<()> {
        let mut rng = random::rng(3, 0);
        let mut normal =
            |rows, columns| random::gaussian(&mut rng, (rows, columns), &Device::Cpu)?.to_dtype(DType::F64);
        let x = Var::from_tensor(&(normal(7, 5)? * 3.0)?)?;
        let [weight, bias] =
            [Var::from_tensor(&normal(1, 5)?.squeeze(0)?)?, Var::from_tensor(&normal(1, 5)?.squeeze(0)?)?];
        let wanted = normal(7, 5)?;
        let own = layer_norm(&x, &weight, &bias, 1e-3)?;
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + 1e-3)?.sqrt()?;
        let plain = centred.broadcast_div(&deviation)?.broadcast_mul(&weight)?.broadcast_add(&bias)?;
        let difference = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
        assert!(difference(&own, &plain)? < 1e-12);
        let [own, plain] = [own, plain].map(|y| (y * &wanted)?.sum_all()?.backward());
        let (own, plain) = (own?, plain?);
        for variable in [&x, &weight, &bias] {
            let [own, plain] = [&own, &plain].map(|all| all.get(variable).expect("a gradient"));
            assert!(difference(own, plain)? < 1e-12, "{:?}", variable.dims());
        }
        Ok(())
    }
}
