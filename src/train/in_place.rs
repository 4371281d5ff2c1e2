//! Arithmetic on whole lists of parameters without temporaries: each tensor is read once and changed in place.
//!
//! Results do not depend on the number of threads: elements are independent, and sums are taken over fixed pieces.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Storage, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::sparse::dispatch;
use crate::{Error, Result};

/// Elements that one thread takes at a time. For a smaller tensor it is not worth waking another thread.
const PIECE: usize = 1 << 14;

/// `to = to·keep + from·take` element by element, for pairs of `f32` tensors of one shape.
pub(super) fn follow<'a>(pairs: impl Iterator<Item = [&'a Tensor; 2]>, keep: f32, take: f32) -> Result<()> {
    let pairs: Vec<_> = pairs.collect();
    pairs.iter().try_for_each(|[to, from]| same_shape(to, from))?;
    #[cfg(feature = "cuda")]
    if pairs.first().is_some_and(|[to, _]| to.device().is_cuda()) {
        return crate::gpu::update::follow(&pairs, keep, take);
    }
    pairs.iter().try_for_each(|[to, from]| update(to, from, |to, from| to * keep + from * take))
}

/// A variable that AdamW changes.
pub(super) struct Changed<'a> {
    pub value: &'a Tensor,
    /// Mean, and mean square, of its gradient.
    pub moments: [&'a Tensor; 2],
    pub grad: &'a Tensor,
    /// The factor for the old value.
    pub keep: f32,
}

/// The factors of AdamW: how much of the moments stays, how much of the gradient and of its square is added, and how they change the value.
#[derive(Clone, Copy)]
pub(super) struct Adam {
    pub keep: [f32; 2],
    pub take: [f32; 2],
    pub rate: f32,
    pub unbias: f32,
    pub eps: f32,
}

/// Moves the moments towards the gradient and its square, and then `value = value·keep − mean·rate / (√(square·unbias) + eps)`, element by
/// element, for `f32` tensors of one shape.
pub(super) fn adam<'a>(variables: impl Iterator<Item = Changed<'a>>, adam: Adam) -> Result<()> {
    let variables: Vec<_> = variables.collect();
    for Changed { value, moments, grad, .. } in &variables {
        moments.iter().chain([grad]).try_for_each(|other| same_shape(value, other))?;
    }
    let Adam { keep: [keep1, keep2], take: [take1, take2], rate, unbias, eps } = adam;
    #[cfg(feature = "cuda")]
    if variables.first().is_some_and(|variable| variable.value.device().is_cuda()) {
        let rows = variables.iter().map(|v| ([v.value, v.moments[0], v.moments[1], v.grad], v.keep));
        return crate::gpu::update::adam(rows, [keep1, take1, keep2, take2, rate, unbias, eps]);
    }
    for &Changed { value, moments: [mean, square], grad, keep } in &variables {
        update(mean, grad, |mean, grad| mean * keep1 + grad * take1)?;
        update(square, grad, |square, grad| square * keep2 + grad * grad * take2)?;
        let with = |value: f32, mean: f32, square: f32| value * keep - mean * rate / ((square * unbias).sqrt() + eps);
        value.inplace_op3(mean, square, &Each(with))?;
    }
    Ok(())
}

fn update(to: &Tensor, from: &Tensor, with: impl Fn(f32, f32) -> f32 + Sync) -> Result<()> {
    Ok(to.inplace_op2(from, &Each(with))?)
}

/// The square root of the sum of all squared elements.
pub(super) fn norm(tensors: &[Tensor]) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if tensors.first().is_some_and(|tensor| tensor.device().is_cuda()) {
        return Ok(crate::gpu::update::squares(tensors)?.sqrt());
    }
    let mut sum = 0.0;
    for tensor in tensors {
        let tensor = tensor.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { return Err(not_here()) };
        let values = values(storage, layout)?;
        let pieces: Vec<f64> = if values.len() <= PIECE {
            vec![dispatch(Squares(values))]
        } else {
            values.par_chunks(PIECE).map(|values| dispatch(Squares(values))).collect()
        };
        sum += pieces.iter().sum::<f64>();
    }
    Ok(sum.sqrt())
}

fn same_shape(to: &Tensor, from: &Tensor) -> Result<()> {
    if to.dims() == from.dims() {
        return Ok(());
    }
    Err(Error::Shape {
        op: "AdamW::step",
        what: "a gradient",
        got: from.dims().to_vec(),
        expected: format!("{:?}, as its variable", to.dims()),
    })
}

fn not_here() -> Error {
    Error::Backend { backend: "native", needs: "it needs parameters all on one device to train them".into() }
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (from, to) = whole(layout)?;
    Ok(&storage.as_slice::<f32>()?[from..to])
}

fn values_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    let (from, to) = whole(layout)?;
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[from..to]),
        _ => candle_core::bail!("parameters are trained in f32"),
    }
}

fn whole(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "update" })
}

/// A function of each element.
struct Each<F>(F);

impl<F: Fn(f32, f32) -> f32 + Sync> InplaceOp2 for Each<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, tl: &Layout, from: &CpuStorage, fl: &Layout) -> candle_core::Result<()> {
        let (to, from) = (values_mut(to, tl)?, values(from, fl)?);
        let work = |to: &mut [f32], from: &[f32]| dispatch(Pairs { to, from, with: &self.0 });
        if to.len() <= PIECE {
            work(to, from);
        } else {
            to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| work(to, from));
        }
        Ok(())
    }
}

impl<F: Fn(f32, f32, f32) -> f32 + Sync> InplaceOp3 for Each<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        tl: &Layout,
        a: &CpuStorage,
        al: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> candle_core::Result<()> {
        let (to, a, b) = (values_mut(to, tl)?, values(a, al)?, values(b, bl)?);
        let work = |to: &mut [f32], a: &[f32], b: &[f32]| dispatch(Triples { to, a, b, with: &self.0 });
        if to.len() <= PIECE {
            work(to, a, b);
        } else {
            let from = a.par_chunks(PIECE).zip(b.par_chunks(PIECE));
            to.par_chunks_mut(PIECE).zip(from).for_each(|(to, (a, b))| work(to, a, b));
        }
        Ok(())
    }
}

struct Pairs<'a, F> {
    to: &'a mut [f32],
    from: &'a [f32],
    with: &'a F,
}

impl<F: Fn(f32, f32) -> f32> WithSimd for Pairs<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.to.iter_mut().zip(self.from).for_each(|(to, &from)| *to = (self.with)(*to, from));
    }
}

struct Triples<'a, F> {
    to: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
    with: &'a F,
}

impl<F: Fn(f32, f32, f32) -> f32> WithSimd for Triples<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let from = self.a.iter().zip(self.b);
        self.to.iter_mut().zip(from).for_each(|(to, (&a, &b))| *to = (self.with)(*to, a, b));
    }
}

struct Squares<'a>(&'a [f32]);

impl WithSimd for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        // As many partial sums as wide registers hold; they are added in a fixed order.
        let mut sums = [0f64; 16];
        let whole = self.0.chunks_exact(16);
        let rest = whole.remainder().iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        for values in whole {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        sums.iter().sum::<f64>() + rest
    }
}
