//! The arithmetic of the backward pass: Ioffe & Szegedy 2015, section 3, in closed form.

use candle_core::WithDType;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::number::Number;
use super::{Normalize, Scaling, Scratch, add_rows, chunk, wide};
use crate::sparse::backend::simd;

pub(super) struct Backward<'a, X, Y> {
    pub op: &'a Normalize,
    pub channels: usize,
    pub parameters: &'a [f64],
    pub x: &'a [X],
    pub shortcut: Option<&'a [X]>,
    pub out: &'a [Y],
    pub grad: &'a [Y],
}

/// Of each channel: the gradient, and the gradient times each normalised input.
pub(super) struct Sums {
    grad: Vec<f64>,
    x: Vec<f64>,
    shortcut: Vec<f64>,
}

impl<X: Number, Y: Number<Wide = X::Wide>> Backward<'_, X, Y> {
    pub fn sums(&self) -> Sums {
        let (size, channels) = (chunk(self.channels), self.channels);
        let means: [Vec<X::Wide>; 2] = [Some(&self.op.x), self.op.shortcut.as_ref()]
            .map(|scaling| wide(scaling.iter().flat_map(|scaling| scaling.mean.iter().copied())));
        let parts: Vec<_> = self
            .grad
            .par_chunks(size)
            .enumerate()
            .map_init(Scratch::default, |scratch, (i, grad)| {
                let at = i * size..i * size + grad.len();
                let shortcut = self.shortcut.filter(|_| self.op.shortcut.is_some());
                simd::dispatch(SumsChunk {
                    grad,
                    mask: self.op.relu.then(|| &self.out[at.clone()]),
                    inputs: [Some(&self.x[at.clone()]), shortcut.map(|shortcut| &shortcut[at])],
                    means: &means,
                    channels,
                    scratch,
                })
            })
            .collect();
        let mut totals = [vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]];
        for part in parts {
            for (total, part) in totals.iter_mut().zip(part) {
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part.to_f64());
            }
        }
        let [grad, mut x, mut shortcut] = totals;
        x.iter_mut().zip(&self.op.x.inverse).for_each(|(sum, inverse)| *sum *= inverse);
        if let Some(scaling) = &self.op.shortcut {
            shortcut.iter_mut().zip(&scaling.inverse).for_each(|(sum, inverse)| *sum *= inverse);
        }
        Sums { grad, x, shortcut }
    }

    pub fn x_gradient(&self, sums: &Sums) -> Vec<X> {
        self.input_gradient(self.x, &self.op.x, &self.parameters[..self.channels], &sums.grad, &sums.x)
    }

    pub fn shortcut_gradient(&self, sums: &Sums) -> Vec<X> {
        match (&self.op.shortcut, self.shortcut) {
            (Some(scaling), Some(shortcut)) => {
                let weight = &self.parameters[2 * self.channels..3 * self.channels];
                self.input_gradient(shortcut, scaling, weight, &sums.grad, &sums.shortcut)
            }
            _ => {
                let mut gradient = vec![X::from_f64(0.0); self.grad.len()];
                let size = chunk(self.channels);
                gradient.par_chunks_mut(size).enumerate().for_each_init(Scratch::default, |scratch, (i, gradient)| {
                    let at = i * size..i * size + gradient.len();
                    let mask = self.op.relu.then(|| &self.out[at.clone()]);
                    simd::dispatch(MaskChunk { grad: &self.grad[at], mask, scratch, gradient });
                });
                gradient
            }
        }
    }

    /// (2, C) or (4, C), as the parameters.
    pub fn parameter_gradients(&self, sums: &Sums) -> Vec<f64> {
        let second = self.op.shortcut.as_ref().map(|_| [&sums.shortcut, &sums.grad]);
        [&sums.x, &sums.grad].into_iter().chain(second.into_iter().flatten()).flatten().copied().collect()
    }

    /// `scale·(g − mean(g) − x̂·mean(g·x̂))`; without the means where the statistics are not those of the batch.
    fn input_gradient(&self, x: &[X], scaling: &Scaling, weight: &[f64], grad: &[f64], normed: &[f64]) -> Vec<X> {
        let channels = self.channels;
        let share = if scaling.of_batch { channels as f64 / x.len() as f64 } else { 0.0 };
        let scale: Vec<f64> = scaling.inverse.iter().zip(weight).map(|(inverse, weight)| inverse * weight).collect();
        let constant = scale.iter().zip(grad).map(|(scale, grad)| -scale * grad * share);
        let slope = scale.iter().zip(normed).zip(&scaling.inverse).map(|((s, n), inverse)| -s * n * inverse * share);
        let [mean, constant, slope]: [Vec<X::Wide>; 3] =
            [wide(scaling.mean.iter().copied()), wide(constant), wide(slope)];
        let scale: Vec<X::Wide> = wide(scale.iter().copied());
        let mut gradient = vec![X::from_f64(0.0); x.len()];
        let size = chunk(channels);
        gradient.par_chunks_mut(size).enumerate().for_each_init(Scratch::default, |scratch, (i, gradient)| {
            let at = i * size..i * size + gradient.len();
            simd::dispatch(GradientChunk {
                grad: &self.grad[at.clone()],
                mask: self.op.relu.then(|| &self.out[at.clone()]),
                x: &x[at],
                mean: &mean,
                scale: &scale,
                constant: &constant,
                slope: &slope,
                scratch,
                gradient,
            });
        });
        gradient
    }
}

/// The gradient where the output is positive, else zero.
#[inline(always)]
fn masked<'a, Y: Number>(
    grad: &'a [Y],
    mask: Option<&[Y]>,
    sums: &'a mut Vec<Y::Wide>,
    [first, second]: [&'a mut Vec<Y::Wide>; 2],
) -> &'a [Y::Wide] {
    let grad = Y::widen(grad, first);
    let Some(mask) = mask else { return grad };
    let zero = Y::Wide::default();
    sums.clear();
    sums.extend(grad.iter().zip(Y::widen(mask, second)).map(|(&grad, &out)| if out > zero { grad } else { zero }));
    sums
}

struct SumsChunk<'a, X: Number, Y> {
    grad: &'a [Y],
    mask: Option<&'a [Y]>,
    inputs: [Option<&'a [X]>; 2],
    means: &'a [Vec<X::Wide>; 2],
    channels: usize,
    scratch: &'a mut Scratch<X::Wide>,
}

impl<X: Number, Y: Number<Wide = X::Wide>> WithSimd for SumsChunk<'_, X, Y> {
    /// Σ g, and Σ g·(x − mean) of each input.
    type Output = [Vec<X::Wide>; 3];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let Self { grad, mask, inputs, means, channels, scratch: Scratch { sums, widened: [a, b, c] } } = self;
        let grad = masked(grad, mask, sums, [a, b]);
        let mut total = vec![X::Wide::default(); channels];
        add_rows(grad, &mut total, |_, g| g);
        let mut of = |input: Option<&[X]>, mean: &[X::Wide]| {
            let mut total = vec![X::Wide::default(); channels];
            let Some(input) = input else { return total };
            let rows = X::widen(input, c);
            let mean = &mean[..channels];
            for (grad, x) in grad.chunks_exact(channels).zip(rows.chunks_exact(channels)) {
                for (c, total) in total.iter_mut().enumerate() {
                    *total += grad[c] * (x[c] - mean[c]);
                }
            }
            total
        };
        let [first, second] = [of(inputs[0], &means[0]), of(inputs[1], &means[1])];
        [total, first, second]
    }
}

struct MaskChunk<'a, X, Y: Number> {
    grad: &'a [Y],
    mask: Option<&'a [Y]>,
    scratch: &'a mut Scratch<Y::Wide>,
    gradient: &'a mut [X],
}

impl<X: Number, Y: Number<Wide = X::Wide>> WithSimd for MaskChunk<'_, X, Y> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { grad, mask, scratch: Scratch { sums, widened: [a, b, _] }, gradient } = self;
        X::narrow(masked(grad, mask, sums, [a, b]), gradient);
    }
}

struct GradientChunk<'a, X: Number, Y> {
    grad: &'a [Y],
    mask: Option<&'a [Y]>,
    x: &'a [X],
    mean: &'a [X::Wide],
    scale: &'a [X::Wide],
    constant: &'a [X::Wide],
    slope: &'a [X::Wide],
    scratch: &'a mut Scratch<X::Wide>,
    gradient: &'a mut [X],
}

impl<X: Number, Y: Number<Wide = X::Wide>> WithSimd for GradientChunk<'_, X, Y> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { grad, mask, x, mean, scale, constant, slope, scratch, gradient } = self;
        let Scratch { sums, widened: [a, b, c] } = scratch;
        let channels = mean.len();
        let (scale, constant, slope) = (&scale[..channels], &constant[..channels], &slope[..channels]);
        // In place of the masked gradient, unless that is the caller's own.
        if mask.is_none() {
            let grad = Y::widen(grad, a);
            sums.clear();
            sums.extend_from_slice(grad);
        } else {
            masked(grad, mask, sums, [a, b]);
        }
        let x = X::widen(x, c);
        for (sum, x) in sums.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for c in 0..channels {
                sum[c] = sum[c] * scale[c] + constant[c] + (x[c] - mean[c]) * slope[c];
            }
        }
        X::narrow(sums, gradient);
    }
}
