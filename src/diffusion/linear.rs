//! Weighted sums of tensors in one pass over memory: a sampler's step, and noising, consist of these.
//!
//! On the CPU in single precision, tensors without gradients are read and written once, on all threads. Other tensors use candle's
//! operations, one for each product and sum.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

use crate::Result;

/// Each thread gets at least this many numbers, since waking it takes as long as a few thousand of them.
const LEAST_PER_THREAD: usize = 1 << 15;

/// A factor and the tensor that it multiplies.
pub(super) type Term<'a> = (f64, &'a Tensor);

/// `Σ factor · tensor` for one to four tensors with the same shape and dtype. Terms with the same tensor are joined.
pub(super) fn combine(all: &[Term]) -> Result<Tensor> {
    let mut terms: Vec<Term> = Vec::with_capacity(all.len());
    for &(factor, tensor) in all {
        match terms.iter_mut().find(|known| known.1.id() == tensor.id()) {
            Some(known) => known.0 += factor,
            None => terms.push((factor, tensor)),
        }
    }
    terms.retain(|&(factor, _)| factor != 0.0);
    match *terms.as_slice() {
        [(1.0, only)] => Ok(only.clone()),
        [a] => sum([a]),
        [a, b] => sum([a, b]),
        [a, b, c] => sum([a, b, c]),
        [a, b, c, d] => sum([a, b, c, d]),
        _ => by_operations(&terms),
    }
}

fn sum<const K: usize>(terms: [Term; K]) -> Result<Tensor> {
    let tensors = terms.map(|term| term.1);
    if !tensors.iter().all(|tensor| is_plain(tensor)) {
        return by_operations(&terms);
    }
    let factors = terms.map(|term| term.0 as f32);
    pointwise(tensors, |_, inputs, out| {
        for (i, out) in out.iter_mut().enumerate() {
            let mut total = factors[0] * inputs[0][i];
            for k in 1..K {
                total += factors[k] * inputs[k][i];
            }
            out.write(total);
        }
    })
}

fn by_operations(terms: &[Term]) -> Result<Tensor> {
    let mut products = terms.iter().map(|&(factor, tensor)| tensor * factor);
    let Some(first) = products.next() else {
        return Err(crate::Error::Argument {
            op: "combine",
            name: "terms",
            got: "no factor but zero".into(),
            expected: "at least one other".into(),
        });
    };
    Ok(products.try_fold(first?, |total, product| total + product?)?)
}

/// Consecutive rows, up to `end`, with the same factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub end: usize,
    pub factors: [f32; 2],
}

/// `a · x + b · y` for x and y of shape (rows, channels), with the factors a and b of each row's run. The runs must reach to the last row.
pub(super) fn combine_rows(runs: &[Run], x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (rows, channels) = x.dims2()?;
    if !is_plain(x) || !is_plain(y) {
        let column = |which: usize| {
            let mut values = Vec::with_capacity(rows);
            runs.iter().for_each(|run| values.resize(run.end, run.factors[which]));
            Tensor::from_vec(values, (rows, 1), x.device())?.to_dtype(x.dtype())
        };
        return Ok((x.broadcast_mul(&column(0)?)? + y.broadcast_mul(&column(1)?)?)?);
    }
    pointwise([x, y], |first, [x, y], out| {
        let behind = runs.partition_point(|run| run.end * channels <= first);
        let mut done = 0;
        for &Run { end, factors: [a, b] } in &runs[behind..] {
            let end = (end * channels - first).min(out.len());
            for ((out, &x), &y) in out[done..end].iter_mut().zip(&x[done..end]).zip(&y[done..end]) {
                out.write(a * x + b * y);
            }
            done = end;
            if done == out.len() {
                break;
            }
        }
        // The part that no run reaches, which should be empty.
        out[done..].fill(MaybeUninit::new(0.0));
    })
}

/// Whether every number is finite.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool> {
    if !is_plain(tensor) {
        return Ok(tensor.abs()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?.is_finite());
    }
    with_numbers([tensor], |[numbers]| {
        // Without a branch for each number, so that it is as fast as memory.
        let finite = |numbers: &[f32]| numbers.iter().fold(true, |finite, v| finite & v.is_finite());
        numbers.par_chunks(LEAST_PER_THREAD).all(finite)
    })
}

/// Whether the numbers can be read in place, and no gradients are recorded for them.
fn is_plain(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous() && !tensor.track_op()
}

/// A tensor with the shape of the inputs, written in parts: `write(index of the part's first number, the inputs' parts, the part)` must
/// write every number of the part.
fn pointwise<const K: usize>(
    inputs: [&Tensor; K],
    write: impl Fn(usize, [&[f32]; K], &mut [MaybeUninit<f32>]) + Sync,
) -> Result<Tensor> {
    let shape = inputs[0].shape().clone();
    for input in &inputs[1..] {
        if input.shape() != &shape {
            let (lhs, rhs) = (shape, input.shape().clone());
            return Err(candle_core::Error::ShapeMismatchBinaryOp { lhs, rhs, op: "combine" }.into());
        }
    }
    let count = shape.elem_count();
    let mut out: Vec<f32> = Vec::with_capacity(count);
    with_numbers(inputs, |inputs| {
        let parts = out.spare_capacity_mut()[..count].par_chunks_mut(LEAST_PER_THREAD).enumerate();
        parts.for_each(|(part, out)| {
            let first = part * LEAST_PER_THREAD;
            write(first, inputs.map(|numbers| &numbers[first..first + out.len()]), out);
        });
    })?;
    // SAFETY: `write` has written each of the `count` numbers, as its contract demands, and they are within the capacity.
    unsafe { out.set_len(count) };
    Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
}

/// Calls `work` with the numbers of tensors that are [plain](is_plain).
fn with_numbers<const K: usize, R>(tensors: [&Tensor; K], work: impl FnOnce([&[f32]; K]) -> R) -> Result<R> {
    let held = tensors.map(Tensor::storage_and_layout);
    let mut numbers: [&[f32]; K] = [&[]; K];
    for (numbers, (storage, layout)) in numbers.iter_mut().zip(&held) {
        let Storage::Cpu(CpuStorage::F32(values)) = &**storage else {
            return Err(candle_core::Error::Msg("expected f32 numbers on the CPU".into()).into());
        };
        *numbers = &values[layout.start_offset()..][..layout.shape().elem_count()];
    }
    Ok(work(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
    }

    fn tensor(rows: usize, channels: usize, seed: u64) -> Tensor {
        Tensor::from_vec(numbers(rows * channels, seed), (rows, channels), &Device::Cpu).unwrap()
    }

    fn assert_same(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        let [a, b] = [a, b].map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} and {b:?}");
    }

    #[test]
    fn one_pass_gives_what_the_operations_give() {
        // More numbers than one part has, in rows that do not end where parts end.
        let t: Vec<Tensor> = (0..4).map(|seed| tensor(5000, 7, seed)).collect();
        let factors = [0.5, -1.5, 2.0, 0.25];
        for count in 1..=4 {
            let terms: Vec<Term> = factors.into_iter().zip(&t).take(count).collect();
            assert_same(&combine(&terms).unwrap(), &by_operations(&terms).unwrap());
        }
        // Views, other dtypes and tensors with gradients use candle's operations.
        let view = tensor(7, 5000, 9).t().unwrap();
        assert_same(&combine(&[(2.0, &view), (1.0, &t[0])]).unwrap(), &((&view * 2.0).unwrap() + &t[0]).unwrap());
        let part = tensor(5001, 7, 3).narrow(0, 1, 5000).unwrap();
        assert_same(&combine(&[(2.0, &part)]).unwrap(), &(&part * 2.0).unwrap());
        let var = Var::from_tensor(&t[0]).unwrap();
        let total = combine(&[(3.0, var.as_tensor()), (1.0, &t[1])]).unwrap().sum_all().unwrap();
        assert_eq!(total.backward().unwrap().get(&var).unwrap().to_vec2::<f32>().unwrap()[0][0], 3.0);
        assert_eq!(combine(&[(1.0, &t[0].to_dtype(DType::F64).unwrap())]).unwrap().dtype(), DType::F64);
        assert!(combine(&[(1.0, &t[0]), (1.0, &view.t().unwrap())]).is_err());
        assert!(combine(&[(0.0, &t[0])]).is_err());
        assert_same(
            &combine(&[(2.0, &t[0]), (1.0, &t[1]), (-0.5, &t[0])]).unwrap(),
            &((&t[0] * 1.5).unwrap() + &t[1]).unwrap(),
        );
    }

    #[test]
    fn rows_have_factors_of_their_own() {
        let (x, y) = (tensor(5000, 7, 1), tensor(5000, 7, 2));
        // Runs of one row and of many rows, which end inside parts and after them.
        let ends = [1, 2, 700, 4681, 4682, 5000];
        let runs: Vec<Run> = ends.iter().map(|&end| Run { end, factors: [end as f32 / 5000.0, -0.5] }).collect();
        let fused = combine_rows(&runs, &x, &y).unwrap();
        let view = y.t().unwrap().contiguous().unwrap().t().unwrap();
        assert!(!is_plain(&view));
        assert_same(&fused, &combine_rows(&runs, &x, &view).unwrap());
    }

    #[test]
    fn one_number_that_is_not_finite_is_found() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = numbers(100_000, 0);
            assert!(is_finite(&Tensor::from_slice(&values, 100_000, &Device::Cpu).unwrap()).unwrap());
            values[99_999] = bad;
            let tensor = Tensor::from_slice(&values, 100_000, &Device::Cpu).unwrap();
            assert!(!is_finite(&tensor).unwrap());
            assert!(!is_finite(&tensor.to_dtype(DType::F64).unwrap()).unwrap());
        }
    }
}
