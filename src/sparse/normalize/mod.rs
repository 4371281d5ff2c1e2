//! Batch normalisation's arithmetic, fused with what follows it in a network: `y = relu(norm(x) + shortcut)` in one pass.
//!
//! Composed of candle's operations it is seven tensors, all kept for the backward pass; here the inputs and the output are.
//! Gradients are the closed form of Ioffe & Szegedy 2015, section 3. Sums are made over fixed chunks of rows, and those of the
//! chunks are added in their order, so that results do not depend on the number of threads.

#[macro_use]
mod number;
mod backward;
mod forward;
mod moments;

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, Tensor, WithDType};

use self::backward::Backward;
use self::forward::forward;
pub(super) use self::moments::Moments;
use self::number::Number;
use crate::{Error, Result};

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
    ((2048 / channels.max(1)).max(8) * channels).max(1)
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

#[derive(Default)]
struct Scratch<W> {
    sums: Vec<W>,
    widened: [Vec<W>; 3],
}
