//! The arithmetic of the forward pass.

use candle_core::WithDType;
use pulp::{Simd, WithSimd};

use super::number::Number;
use super::{Normalize, Scaling, Scratch, chunk, wide};
use crate::parallel;
use crate::sparse::backend::simd;

/// `(x − mean)·scale + bias`, in the type used for computing.
struct Affine<W> {
    mean: Vec<W>,
    scale: Vec<W>,
    bias: Vec<W>,
}

impl<W: WithDType> Affine<W> {
    fn new(scaling: &Scaling, weight: &[W], bias: &[W]) -> Self {
        let [mean, inverse] = scaling.reading();
        let scale = inverse.iter().zip(weight).map(|(inverse, weight)| inverse * weight.to_f64());
        Self { mean: wide(mean.iter().copied()), scale: wide(scale), bias: bias.to_vec() }
    }

    #[inline(always)]
    fn rows(&self, x: &[W], y: &mut [W], put: impl Fn(&mut W, W)) {
        let channels = self.mean.len();
        let (mean, scale, bias) = (&self.mean[..channels], &self.scale[..channels], &self.bias[..channels]);
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for c in 0..channels {
                put(&mut y[c], (x[c] - mean[c]) * scale[c] + bias[c]);
            }
        }
    }
}

pub(super) fn forward<X: Number, Y: Number<Wide = X::Wide>>(
    op: &Normalize,
    channels: usize,
    x: &[X],
    shortcut: Option<&[X]>,
    parameters: &[X::Wide],
) -> Vec<Y> {
    let row = |i: usize| &parameters[i * channels..][..channels];
    let main = Affine::new(&op.x, row(0), row(1));
    let second = op.shortcut.as_ref().map(|scaling| Affine::new(scaling, row(2), row(3)));
    let mut y = vec![Y::from_f64(0.0); x.len()];
    let size = chunk(channels);
    parallel::chunks_mut_with(&mut y, size, &|scratch: &mut Scratch<X::Wide>, i, y| {
        let at = i * size..i * size + y.len();
        simd::dispatch(ForwardChunk {
            x: &x[at.clone()],
            shortcut: shortcut.map(|shortcut| &shortcut[at]),
            main: &main,
            second: second.as_ref(),
            relu: op.relu,
            scratch,
            y,
        });
    });
    y
}

struct ForwardChunk<'a, X: Number, Y> {
    x: &'a [X],
    shortcut: Option<&'a [X]>,
    main: &'a Affine<X::Wide>,
    second: Option<&'a Affine<X::Wide>>,
    relu: bool,
    scratch: &'a mut Scratch<X::Wide>,
    y: &'a mut [Y],
}

impl<X: Number, Y: Number<Wide = X::Wide>> WithSimd for ForwardChunk<'_, X, Y> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, shortcut, main, second, relu, scratch: Scratch { sums, widened: [widened, ..] }, y } = self;
        let zero = X::Wide::default();
        sums.resize(x.len(), zero);
        main.rows(X::widen(x, widened), sums, |sum, value| *sum = value);
        if let Some(shortcut) = shortcut {
            let shortcut = X::widen(shortcut, widened);
            match second {
                Some(second) => second.rows(shortcut, sums, |sum, value| *sum += value),
                None => sums.iter_mut().zip(shortcut).for_each(|(sum, &value)| *sum += value),
            }
        }
        if relu {
            // A NaN stays NaN.
            sums.iter_mut().for_each(|sum| *sum = if *sum < zero { zero } else { *sum });
        }
        Y::narrow(sums, y);
    }
}
