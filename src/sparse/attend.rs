//! [`attend`]: `softmax(q · kᵀ) · v` (Vaswani et al. 2017) as one operation on the gradient tape, which keeps the shares and no other score.

use std::slice::from_ref;

use candle_core::Tensor;

use super::in_one::{PartGradients, in_one};
use super::{attend_here, tape};
use crate::Result;

/// What each query (…, n, C) reads from the values (…, m, C'), by its shares in the keys (…, m, C): (…, n, C'). The `mask`, if any, is added
/// to the scores (…, n, m) before the softmax. All are of one type, f32 or f64, with the same axes in front.
pub(crate) fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let [q, k, v] = [queries, keys, values].map(Tensor::detach);
    let (y, shares) = match attend_here::attend([&q, &k, &v], mask, !tape::is_off())? {
        Some(found) => found,
        None => {
            let scores = q.matmul(&k.t()?)?;
            let shares = softmax(&mask.map_or(Ok(scores.clone()), |mask| scores.broadcast_add(mask))?)?;
            (shares.matmul(&v)?, Some(shares))
        }
    };
    let Some(shares) = shares.filter(|_| !tape::is_off()) else { return Ok(y) };
    let named = values.clone();
    in_one((queries, Some(keys)), &y, from_ref(values), move |(_, grad)| {
        let grad = grad.contiguous()?;
        let scores_grad = softmax_gradient(&shares, &grad.matmul(&v.t()?)?)?;
        let parameters = vec![(named.clone(), shares.t()?.matmul(&grad)?)];
        Ok(PartGradients { x: scores_grad.matmul(&k)?, other: Some(scores_grad.t()?.matmul(&q)?), parameters })
    })
}

/// Whether the GPU has kernels for it.
#[cfg(feature = "cuda")]
fn there(x: &Tensor) -> bool {
    x.device().is_cuda() && x.dtype() == candle_core::DType::F32
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if there(scores) {
        return crate::gpu::lines::softmax(scores);
    }
    Ok(candle_nn::ops::softmax_last_dim(scores)?)
}

/// The gradient of the scores, from their softmax and its gradient.
fn softmax_gradient(shares: &Tensor, grad: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if there(shares) {
        return crate::gpu::lines::softmax_gradient(shares, grad);
    }
    let products = (shares * grad)?;
    let sums = products.sum_keepdim(candle_core::D::Minus1)?;
    Ok((products - shares.broadcast_mul(&sums)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{D, DType, Device, Var};

    use super::*;
    use crate::random;

    #[test]
    fn values_and_gradients_are_those_of_the_formula() -> Result<()> {
        let mut rng = random::rng(4, 0);
        let mut normal = |dims: &[usize]| -> Result<Tensor> {
            let count = dims.iter().product();
            Ok(random::gaussian(&mut rng, (1, count), &Device::Cpu)?.reshape(dims)?.to_dtype(DType::F64)?)
        };
        let [q, k, v] = [[2, 3, 5, 4], [2, 3, 6, 4], [2, 3, 6, 7]];
        let (q, k, v) =
            (Var::from_tensor(&normal(&q)?)?, Var::from_tensor(&normal(&k)?)?, Var::from_tensor(&normal(&v)?)?);
        let (wanted, mask) = (normal(&[2, 3, 5, 7])?, normal(&[2, 1, 1, 6])?);
        let difference = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
        for mask in [None, Some(&mask)] {
            let own = attend(&q, &k, &v, mask)?;
            let scores = q.matmul(&k.t()?)?;
            let scores = mask.map_or(Ok(scores.clone()), |mask| scores.broadcast_add(mask))?;
            let plain = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
            assert!(difference(&own, &plain)? < 1e-12);
            let gradients = |y: Tensor| -> Result<_> { Ok((y * &wanted)?.sum_all()?.backward()?) };
            let (own, plain) = (gradients(own)?, gradients(plain)?);
            for variable in [&q, &k, &v] {
                let [own, plain] = [&own, &plain].map(|all| all.get(variable).expect("a gradient"));
                assert!(difference(own, plain)? < 1e-12, "{:?}", variable.dims());
            }
        }
        Ok(())
    }

    #[test]
    fn single_precision_is_near_double_precision_with_gradients_and_without() -> Result<()> {
        let mut rng = random::rng(5, 0);
        // Groups of one, of less and more than a block of queries and a vector of keys, and of values wider than a vector.
        for [n, m, channels, width] in [[1, 1, 1, 1], [3, 5, 4, 7], [4, 16, 16, 16], [9, 33, 16, 40], [70, 100, 3, 17]]
        {
            let mut normal = |rows: usize, columns: usize| -> Result<Var> {
                let values = random::gaussian(&mut rng, (1, 6 * rows * columns), &Device::Cpu)?;
                Ok(Var::from_tensor(&values.reshape((2, 3, rows, columns))?)?)
            };
            let (q, k, v) = (normal(n, channels)?, normal(m, channels)?, normal(m, width)?);
            let wanted = normal(n, width)?.as_detached_tensor();
            // All but the first key are hidden from the second group, by numbers and by infinity.
            let hidden = |number: usize, j: usize| match (number, j) {
                (0, _) | (_, 0) => 0.0,
                (_, j) => [f32::NEG_INFINITY, -200.0][j % 2],
            };
            let mask: Vec<f32> = (0..2 * m).map(|at| hidden(at / m, at % m)).collect();
            let mask = Tensor::from_vec(mask, (2, 1, 1, m), &Device::Cpu)?;
            for mask in [None, Some(&mask)] {
                let y = attend(&q, &k, &v, mask)?;
                let grads = (&y * &wanted)?.sum_all()?.backward()?;
                let double = |tensor: &Tensor| Ok::<_, crate::Error>(Var::from_tensor(&tensor.to_dtype(DType::F64)?)?);
                let (dq, dk, dv) = (double(&q)?, double(&k)?, double(&v)?);
                let mask64 = mask.map(|mask| mask.to_dtype(DType::F64)).transpose()?;
                let exact = attend(&dq, &dk, &dv, mask64.as_ref())?;
                let exact_grads = (&exact * wanted.to_dtype(DType::F64)?)?.sum_all()?.backward()?;
                let error = |own: &Tensor, exact: &Tensor| -> Result<f64> {
                    let largest = exact.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
                    let off = (own.to_dtype(DType::F64)? - exact)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
                    Ok(off / largest.max(1e-3))
                };
                assert!(error(&y, &exact)? < 3e-6, "{n} × {m}: {}", error(&y, &exact)?);
                for (own, exact) in [(&q, &dq), (&k, &dk), (&v, &dv)] {
                    let [own, exact] = [grads.get(own), exact_grads.get(exact)].map(|grad| grad.expect("a gradient"));
                    assert!(error(own, exact)? < 2e-5, "{n} × {m}: {}", error(own, exact)?);
                }
                let alone = crate::sparse::no_grad(|| attend(&q, &k, &v, mask))?;
                assert!(!alone.track_op() && error(&alone, &y.to_dtype(DType::F64)?)? == 0.0);
            }
        }
        Ok(())
    }
}
