//! Batch normalisation's arithmetic, fused with what follows it in a network: `y = relu(norm(x) + shortcut)` in one pass.
//!
//! Composed of candle's operations it is seven tensors, all kept for the backward pass; here the inputs and the output are.
//! Gradients are the closed form of Ioffe & Szegedy 2015, section 3. Sums are made over fixed chunks of rows, and those of the
//! chunks are added in their order, so that results do not depend on the number of threads.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, Tensor, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::backend::simd;
use crate::{Error, Result};

/// A feature type, and the type that it is computed in.
trait Number: WithDType {
    type Wide: WithDType + Default;

    /// The values in the wide type: themselves, or converted into `scratch`.
    fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<Self::Wide>) -> &'a [Self::Wide];

    /// Rounds to nearest.
    fn narrow(wide: &[Self::Wide], to: &mut [Self]);
}

macro_rules! wide_number {
    ($type:ty) => {
        impl Number for $type {
            type Wide = Self;

            #[inline(always)]
            fn widen<'a>(values: &'a [Self], _: &'a mut Vec<Self>) -> &'a [Self] {
                values
            }

            #[inline(always)]
            fn narrow(wide: &[Self], to: &mut [Self]) {
                to.copy_from_slice(wide);
            }
        }
    };
}
wide_number!(f32);
wide_number!(f64);

macro_rules! half_number {
    ($type:ty) => {
        impl Number for $type {
            type Wide = f32;

            #[inline(always)]
            fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [f32] {
                scratch.resize(values.len(), 0.0);
                values.convert_to_f32_slice(scratch);
                scratch
            }

            #[inline(always)]
            fn narrow(wide: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(wide);
            }
        }
    };
}
half_number!(f16);
half_number!(bf16);

/// Runs `$body` with `$X` and `$Y` as the types of the inputs and of the output.
macro_rules! with_types {
    ($x:expr, $y:expr, ($X:ident, $Y:ident) => $body:expr) => {
        with_types!(@match $x, $y, ($X, $Y) => $body;
            (F32, f32, F32, f32) (F32, f32, F16, f16) (F32, f32, BF16, bf16)
            (F16, f16, F16, f16) (BF16, bf16, BF16, bf16) (F64, f64, F64, f64))
    };
    (@match $x:expr, $y:expr, ($X:ident, $Y:ident) => $body:expr; $(($dx:ident, $tx:ty, $dy:ident, $ty:ty))*) => {
        match ($x, $y) {
            $((DType::$dx, DType::$dy) => {
                type $X = $tx;
                type $Y = $ty;
                $body
            })*
            (got, _) => Err(Error::DType {
                op: "BatchNorm",
                what: "features",
                got,
                expected: "f32, f16, bf16 or f64, and a result of that type, or of a half one for f32",
            }),
        }
    };
}

/// Mean and variance of each channel, in double precision.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    pub mean: Vec<f64>,
    /// Biased.
    pub variance: Vec<f64>,
}

impl Moments {
    /// Of features (N, C) with at least one row.
    pub fn of(x: &Tensor) -> Result<Self> {
        let channels = x.dim(1)?;
        let x = x.contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        with_types!(x.dtype(), x.dtype(), (X, _Y) => moments::<X>(slice::<X>(on_cpu(&storage)?, layout)?, channels))
    }
}

/// How an input is normalised: `(x − mean)·inverse·weight + bias`.
#[derive(Clone, Debug)]
pub(super) struct Scaling {
    mean: Vec<f64>,
    /// 1 / √(variance + eps)
    inverse: Vec<f64>,
    /// Whether mean and variance are those of `x` itself, so that gradients flow through them.
    of_batch: bool,
}

impl Scaling {
    pub fn new(moments: Moments, eps: f64, of_batch: bool) -> Self {
        let inverse = moments.variance.iter().map(|variance| 1.0 / (variance + eps).sqrt()).collect();
        Self { mean: moments.mean, inverse, of_batch }
    }
}

/// `act(norm(x) + shortcut)`, with the inputs in the order x, shortcut, parameters. Parameters are (2, C), weight and bias, and
/// (4, C) when the shortcut is normalised too.
#[derive(Clone, Debug)]
pub(super) struct Normalize {
    pub x: Arc<Scaling>,
    /// How the shortcut, if there is one, is normalised, if it is.
    pub shortcut: Option<Arc<Scaling>>,
    pub relu: bool,
    /// Type of the result.
    pub output: DType,
}

/// Gradients of x, of the shortcut and of the parameters.
pub(super) type Gradients = (Tensor, Option<Tensor>, Tensor);

impl Normalize {
    pub fn apply(self, x: &Tensor, shortcut: Option<&Tensor>, parameters: &Tensor) -> Result<Tensor> {
        let (x, parameters) = (x.contiguous()?, parameters.contiguous()?);
        Ok(match shortcut {
            Some(shortcut) => x.apply_op3(&shortcut.contiguous()?, &parameters, self)?,
            None => x.apply_op2(&parameters, self)?,
        })
    }

    /// Gradients from that of the output.
    pub fn gradients(
        &self,
        (x, shortcut): (&Tensor, Option<&Tensor>),
        parameters: &Tensor,
        (out, grad): (&Tensor, &Tensor),
    ) -> Result<Gradients> {
        let grad = grad.contiguous()?;
        let shape = x.dims2()?;
        let coefficients: Vec<f64> = parameters.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let [x_read, out_read, grad_read] = [x, out, &grad].map(|t| t.storage_and_layout());
        let shortcut_read = shortcut.map(|t| t.storage_and_layout());
        with_types!(x.dtype(), out.dtype(), (X, Y) => {
            let work = Backward::<X, Y> {
                op: self,
                channels: shape.1,
                parameters: &coefficients,
                x: slice(on_cpu(&x_read.0)?, x_read.1)?,
                shortcut: match &shortcut_read {
                    Some((storage, layout)) => Some(slice(on_cpu(storage)?, layout)?),
                    None => None,
                },
                out: slice(on_cpu(&out_read.0)?, out_read.1)?,
                grad: slice(on_cpu(&grad_read.0)?, grad_read.1)?,
            };
            let sums = work.sums();
            let tensor = |values: Vec<X>| Tensor::from_vec(values, shape, x.device());
            let x_grad = tensor(work.x_gradient(&sums))?;
            let shortcut_grad = shortcut.map(|_| tensor(work.shortcut_gradient(&sums))).transpose()?;
            let sums = Tensor::from_vec(work.parameter_gradients(&sums), parameters.dims(), x.device())?;
            Ok((x_grad, shortcut_grad, sums.to_dtype(parameters.dtype())?))
        })
    }

    fn forward(
        &self,
        (x, layout): (&CpuStorage, &Layout),
        shortcut: Option<(&CpuStorage, &Layout)>,
        (parameters, parameters_layout): (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        let channels = layout.dims()[1];
        let y = with_types!(x.dtype(), self.output, (X, Y) => {
            let parameters = slice::<<X as Number>::Wide>(parameters, parameters_layout)?;
            let shortcut = shortcut.map(|(storage, layout)| slice(storage, layout)).transpose()?;
            Ok(Y::to_cpu_storage_owned(forward::<X, Y>(self, channels, slice(x, layout)?, shortcut, parameters)))
        })?;
        Ok((y, layout.shape().clone()))
    }
}

impl CustomOp2 for Normalize {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        p: &CpuStorage,
        pl: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(self.forward((x, xl), None, (p, pl))?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, _, parameters) = self.gradients((x, None), parameters, (out, grad))?;
        Ok((Some(x), Some(parameters)))
    }
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        s: &CpuStorage,
        sl: &Layout,
        p: &CpuStorage,
        pl: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(self.forward((x, xl), Some((s, sl)), (p, pl))?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        shortcut: &Tensor,
        parameters: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, shortcut, parameters) = self.gradients((x, Some(shortcut)), parameters, (out, grad))?;
        Ok((Some(x), shortcut, Some(parameters)))
    }
}

fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(Error::Backend {
            backend: "native",
            needs: "tensors on the CPU for batch normalisation; use `to_device`".into(),
        }),
    }
}

/// The values of a contiguous tensor.
fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let all = storage.as_slice::<T>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => Err(Error::Candle(candle_core::Error::RequiresContiguous { op: "batch-norm" })),
    }
}

/// Rows that are worked on together: as many as stay in the first-level cache, whatever the number of threads.
fn chunk(channels: usize) -> usize {
    (2048 / channels.max(1)).max(8) * channels
}

fn wide<W: WithDType>(values: impl IntoIterator<Item = f64>) -> Vec<W> {
    values.into_iter().map(W::from_f64).collect()
}

/// Adds the rows to `sums`, each value through `of(its row's number, its channel, itself)`.
#[inline(always)]
fn add_rows<W: WithDType>(rows: &[W], sums: &mut [W], of: impl Fn(usize, W) -> W) {
    let channels = sums.len();
    for row in rows.chunks_exact(channels) {
        for (c, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
            *sum += of(c, value);
        }
    }
}

struct ChunkMoments<'a, X: Number> {
    rows: &'a [X],
    channels: usize,
    scratch: &'a mut Vec<X::Wide>,
}

impl<X: Number> WithSimd for ChunkMoments<'_, X> {
    /// The mean, and the sum of squared distances from it.
    type Output = [Vec<X::Wide>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let Self { rows, channels, scratch } = self;
        let share = X::Wide::from_f64(channels as f64 / rows.len() as f64);
        let rows = X::widen(rows, scratch);
        let mut mean = vec![X::Wide::default(); channels];
        let mut squares = mean.clone();
        add_rows(rows, &mut mean, |_, x| x);
        mean.iter_mut().for_each(|mean| *mean *= share);
        let of = &mean[..channels];
        add_rows(rows, &mut squares, |c, x| (x - of[c]) * (x - of[c]));
        [mean, squares]
    }
}

/// Chan, Golub & LeVeque 1983: moments of chunks, joined.
fn moments<X: Number>(x: &[X], channels: usize) -> Result<Moments> {
    let size = chunk(channels);
    let chunks: Vec<_> = x
        .par_chunks(size)
        .map_init(Vec::new, |scratch, rows| simd::dispatch(ChunkMoments::<X> { rows, channels, scratch }))
        .collect();
    let (mut mean, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
    let mut before = 0.0;
    for (rows, [chunk_mean, chunk_squares]) in x.chunks(size).zip(chunks) {
        let count = (rows.len() / channels) as f64;
        let total = before + count;
        for c in 0..channels {
            let distance = chunk_mean[c].to_f64() - mean[c];
            mean[c] += distance * count / total;
            squares[c] += chunk_squares[c].to_f64() + distance * distance * before * count / total;
        }
        before = total;
    }
    Ok(Moments { mean, variance: squares.iter().map(|squares| squares / before).collect() })
}

/// `(x − mean)·scale + bias`, in the type that it is computed in.
struct Affine<W> {
    mean: Vec<W>,
    scale: Vec<W>,
    bias: Vec<W>,
}

impl<W: WithDType> Affine<W> {
    fn new(scaling: &Scaling, weight: &[W], bias: &[W]) -> Self {
        let scale = scaling.inverse.iter().zip(weight).map(|(inverse, weight)| inverse * weight.to_f64());
        Self { mean: wide(scaling.mean.iter().copied()), scale: wide(scale), bias: bias.to_vec() }
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

#[derive(Default)]
struct Scratch<W> {
    sums: Vec<W>,
    widened: [Vec<W>; 3],
}

fn forward<X: Number, Y: Number<Wide = X::Wide>>(
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
    y.par_chunks_mut(size).enumerate().for_each_init(Scratch::default, |scratch, (i, y)| {
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
            // A NaN stays one.
            sums.iter_mut().for_each(|sum| *sum = if *sum < zero { zero } else { *sum });
        }
        Y::narrow(sums, y);
    }
}

struct Backward<'a, X, Y> {
    op: &'a Normalize,
    channels: usize,
    parameters: &'a [f64],
    x: &'a [X],
    shortcut: Option<&'a [X]>,
    out: &'a [Y],
    grad: &'a [Y],
}

/// Of each channel: the gradient, and the gradient times each normalised input.
struct Sums {
    grad: Vec<f64>,
    x: Vec<f64>,
    shortcut: Vec<f64>,
}

impl<X: Number, Y: Number<Wide = X::Wide>> Backward<'_, X, Y> {
    fn sums(&self) -> Sums {
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

    fn x_gradient(&self, sums: &Sums) -> Vec<X> {
        self.input_gradient(self.x, &self.op.x, &self.parameters[..self.channels], &sums.grad, &sums.x)
    }

    fn shortcut_gradient(&self, sums: &Sums) -> Vec<X> {
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
    fn parameter_gradients(&self, sums: &Sums) -> Vec<f64> {
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
