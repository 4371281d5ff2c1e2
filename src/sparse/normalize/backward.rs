//! The arithmetic of the backward pass, in closed form (Ioffe & Szegedy 2015, section 3).

use candle_core::WithDType;
use pulp::{Simd, WithSimd};

use super::number::Number;
use super::{Normalize, Scaling, Scratch, add_rows, chunk, wide};
use crate::sparse::backend::simd;
use crate::{Result, parallel};

pub(super) struct Backward<'a, X, Y, G> {
    pub op: &'a Normalize,
    pub channels: usize,
    pub parameters: &'a [f64],
    /// x and the shortcut: both for the sums, otherwise the one whose gradient is wanted. A plain shortcut is not needed.
    pub inputs: [Option<&'a [X]>; 2],
    pub out: &'a [Y],
    pub grad: &'a [G],
}

/// The sums for each channel: of the gradient, and of the gradient times each normalised input.
#[derive(Clone)]
pub(in crate::sparse) struct Sums {
    grad: Vec<f64>,
    x: Vec<f64>,
    shortcut: Vec<f64>,
}

impl Sums {
    /// Changes all of the sums.
    pub fn all(&mut self, mut change: impl FnMut(&mut [f64]) -> Result<()>) -> Result<()> {
        [&mut self.grad, &mut self.x, &mut self.shortcut].into_iter().try_for_each(|sums| change(sums))
    }

    /// The gradients of the parameters: (2, C), or (4, C) with a normalised shortcut.
    pub fn of_parameters(&self, has_normed_shortcut: bool) -> Vec<f64> {
        let second = has_normed_shortcut.then_some([&self.shortcut, &self.grad]);
        [&self.x, &self.grad].into_iter().chain(second.into_iter().flatten()).flatten().copied().collect()
    }
}

impl<X: Number, Y: Number<Wide = X::Wide>, G: Number<Wide = X::Wide>> Backward<'_, X, Y, G> {
    pub fn sums(&self) -> Sums {
        let (size, channels) = (chunk(self.channels), self.channels);
        let readings = [Some(&self.op.x), self.op.shortcut.as_ref()].map(|scaling| scaling.map(|s| s.reading()));
        let means: [Vec<X::Wide>; 2] =
            readings.each_ref().map(|reading| wide(reading.iter().flat_map(|[mean, _]| mean.iter().copied())));
        let mut parts = vec![<[Vec<X::Wide>; 3]>::default(); self.grad.len().div_ceil(size)];
        parallel::chunks_mut_with(&mut parts, 1, &|scratch: &mut Scratch<X::Wide>, i, part| {
            let at = i * size..self.grad.len().min((i + 1) * size);
            part[0] = simd::dispatch(SumsChunk {
                grad: &self.grad[at.clone()],
                mask: self.op.relu.then(|| &self.out[at.clone()]),
                inputs: self.inputs.map(|input| input.map(|input| &input[at.clone()])),
                means: &means,
                channels,
                scratch,
            });
        });
        let mut totals = [vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]];
        for part in parts {
            for (total, part) in totals.iter_mut().zip(part) {
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part.to_f64());
            }
        }
        let [grad, mut x, mut shortcut] = totals;
        for (sums, reading) in [&mut x, &mut shortcut].into_iter().zip(readings) {
            sums.iter_mut().zip(reading.iter().flat_map(|[_, inverse]| inverse.iter())).for_each(|(s, i)| *s *= i);
        }
        Sums { grad, x, shortcut }
    }

    pub fn x_gradient<R: Number<Wide = X::Wide>>(&self, sums: &Sums) -> Vec<R> {
        let x = self.inputs[0].unwrap_or_default();
        self.input_gradient(x, &self.op.x, &self.parameters[..self.channels], &sums.grad, &sums.x)
    }

    pub fn shortcut_gradient<R: Number<Wide = X::Wide>>(&self, sums: &Sums) -> Vec<R> {
        match (&self.op.shortcut, self.inputs[1]) {
            (Some(scaling), Some(shortcut)) => {
                let weight = &self.parameters[2 * self.channels..3 * self.channels];
                self.input_gradient(shortcut, scaling, weight, &sums.grad, &sums.shortcut)
            }
            _ => {
                let mut gradient = vec![R::from_f64(0.0); self.grad.len()];
                let size = chunk(self.channels);
                parallel::chunks_mut_with(&mut gradient, size, &|scratch: &mut Scratch<X::Wide>, i, gradient| {
                    let at = i * size..i * size + gradient.len();
                    let mask = self.op.relu.then(|| &self.out[at.clone()]);
                    simd::dispatch(MaskChunk { grad: &self.grad[at], mask, scratch, gradient });
                });
                gradient
            }
        }
    }

    /// `scale·(g − mean(g) − x̂·mean(g·x̂))`; without the means if the statistics are not those of the batch.
    fn input_gradient<R: Number<Wide = X::Wide>>(
        &self,
        x: &[X],
        scaling: &Scaling,
        weight: &[f64],
        grad: &[f64],
        normed: &[f64],
    ) -> Vec<R> {
        let channels = self.channels;
        let share = if scaling.of_batch { channels as f64 / x.len() as f64 } else { 0.0 };
        let scale: Vec<f64> = scaling.inverse.iter().zip(weight).map(|(inverse, weight)| inverse * weight).collect();
        let constant = scale.iter().zip(grad).map(|(scale, grad)| -scale * grad * share);
        let [mean, inverse] = scaling.reading();
        let slope = scale.iter().zip(normed).zip(&*inverse).map(|((s, n), inverse)| -s * n * inverse * share);
        let [mean, constant, slope]: [Vec<X::Wide>; 3] = [wide(mean.iter().copied()), wide(constant), wide(slope)];
        let scale: Vec<X::Wide> = wide(scale.iter().copied());
        let mut gradient = vec![R::from_f64(0.0); x.len()];
        let size = chunk(channels);
        parallel::chunks_mut_with(&mut gradient, size, &|scratch: &mut Scratch<X::Wide>, i, gradient| {
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
fn masked<'a, Y: Number, G: Number<Wide = Y::Wide>>(
    grad: &'a [G],
    mask: Option<&[Y]>,
    sums: &'a mut Vec<Y::Wide>,
    [first, second]: [&'a mut Vec<Y::Wide>; 2],
) -> &'a [Y::Wide] {
    let grad = G::widen(grad, first);
    let Some(mask) = mask else { return grad };
    let zero = Y::Wide::default();
    sums.clear();
    sums.extend(grad.iter().zip(Y::widen(mask, second)).map(|(&grad, &out)| if out > zero { grad } else { zero }));
    sums
}

struct SumsChunk<'a, X: Number, Y, G> {
    grad: &'a [G],
    mask: Option<&'a [Y]>,
    inputs: [Option<&'a [X]>; 2],
    means: &'a [Vec<X::Wide>; 2],
    channels: usize,
    scratch: &'a mut Scratch<X::Wide>,
}

impl<X: Number, Y: Number<Wide = X::Wide>, G: Number<Wide = X::Wide>> WithSimd for SumsChunk<'_, X, Y, G> {
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

struct MaskChunk<'a, Y: Number, G, R> {
    grad: &'a [G],
    mask: Option<&'a [Y]>,
    scratch: &'a mut Scratch<Y::Wide>,
    gradient: &'a mut [R],
}

impl<Y: Number, G: Number<Wide = Y::Wide>, R: Number<Wide = Y::Wide>> WithSimd for MaskChunk<'_, Y, G, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { grad, mask, scratch: Scratch { sums, widened: [a, b, _] }, gradient } = self;
        R::narrow(masked(grad, mask, sums, [a, b]), gradient);
    }
}

struct GradientChunk<'a, X: Number, Y, G, R> {
    grad: &'a [G],
    mask: Option<&'a [Y]>,
    x: &'a [X],
    mean: &'a [X::Wide],
    scale: &'a [X::Wide],
    constant: &'a [X::Wide],
    slope: &'a [X::Wide],
    scratch: &'a mut Scratch<X::Wide>,
    gradient: &'a mut [R],
}

impl<X, Y, G, R> WithSimd for GradientChunk<'_, X, Y, G, R>
where
    X: Number,
    Y: Number<Wide = X::Wide>,
    G: Number<Wide = X::Wide>,
    R: Number<Wide = X::Wide>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { grad, mask, x, mean, scale, constant, slope, scratch, gradient } = self;
        let Scratch { sums, widened: [a, b, c] } = scratch;
        let channels = mean.len();
        let (scale, constant, slope) = (&scale[..channels], &constant[..channels], &slope[..channels]);
        // In place of the masked gradient, unless that memory belongs to the caller.
        if mask.is_none() {
            let grad = G::widen(grad, a);
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
        R::narrow(sums, gradient);
    }
}
