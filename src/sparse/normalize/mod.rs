//! Batch normalisation's arithmetic, fused with what follows it in a network: `y = relu(norm(x) + shortcut)` in one pass.
//!
//! Composed of candle's operations it would take seven tensors, all kept for the backward pass; here only the inputs and the output are
//! kept. Gradients are the closed form of Ioffe & Szegedy 2015, section 3. Sums are taken over fixed chunks of rows, and the sums of the
//! chunks are added in order, so that results do not depend on the number of threads.

#[macro_use]
mod number;
mod backward;
mod forward;
#[cfg(feature = "cuda")]
mod gpu;
mod kept;
mod moments;

use std::borrow::Cow;
use std::sync::Arc;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, Tensor, WithDType};

use self::backward::Backward;
use self::forward::forward;
pub(super) use self::moments::Moments;
use self::number::Number;
use crate::sparse::sync::Group;
use crate::{Error, Result};

/// How an input is normalised: `(x − mean)·inverse·weight + bias`.
#[derive(Clone, Debug)]
pub(super) struct Scaling {
    /// The mean, for features on the CPU; otherwise empty.
    mean: Vec<f64>,
    /// 1 / √(variance + eps), for features on the CPU; otherwise empty.
    inverse: Vec<f64>,
    /// Both, (2, C), for features on the GPU.
    #[cfg(feature = "cuda")]
    there: Option<Tensor>,
    /// Whether mean and variance were computed from `x` itself, so that gradients flow through them.
    of_batch: bool,
    /// The group with which the statistics of a batch are shared, and this member's share of all rows.
    shared: Option<(Group, f64)>,
    /// Whether the given values are `(x − mean)·inverse` instead of `x`. Gradients are still those of `x`.
    given: bool,
}

impl Scaling {
    pub fn new(moments: Moments, eps: f64, of_batch: bool) -> Result<Self> {
        let inverse = (moments.variance + eps)?.sqrt()?.recip()?;
        #[cfg(feature = "cuda")]
        if inverse.device().is_cuda() {
            return Ok(Self::there(Tensor::stack(&[moments.mean, inverse], 0)?, of_batch));
        }
        Ok(Self::here(moments.mean.to_vec1()?, inverse.to_vec1()?, of_batch))
    }

    /// For features on a GPU: mean and inverse, (2, C) f64.
    #[cfg(feature = "cuda")]
    pub fn there(scaling: Tensor, of_batch: bool) -> Self {
        Self { mean: Vec::new(), inverse: Vec::new(), there: Some(scaling), of_batch, shared: None, given: false }
    }

    /// For features on the CPU.
    fn here(mean: Vec<f64>, inverse: Vec<f64>, of_batch: bool) -> Self {
        Self {
            mean,
            inverse,
            #[cfg(feature = "cuda")]
            there: None,
            of_batch,
            shared: None,
            given: false,
        }
    }

    /// The same for a batch of which this member holds the part `share`, and the other members of `group` the rest.
    pub fn shared(self, group: Group, share: f64) -> Self {
        Self { shared: Some((group, share)), ..self }
    }

    /// What to subtract from a given value, and the factor to multiply the difference by, to normalise it.
    fn reading(&self) -> [Cow<'_, [f64]>; 2] {
        match self.given {
            true => [vec![0.0; self.mean.len()].into(), vec![1.0; self.mean.len()].into()],
            false => [(&self.mean).into(), (&self.inverse).into()],
        }
    }
}

/// `act(norm(x) + shortcut)`. The inputs come in the order x, shortcut, parameters. Parameters are weight and bias, (2, C), or (4, C) if
/// the shortcut is normalised too.
#[derive(Clone, Debug)]
pub(super) struct Normalize {
    pub x: Arc<Scaling>,
    /// How the shortcut is normalised; `None` for a plain shortcut and without one.
    pub shortcut: Option<Arc<Scaling>>,
    pub relu: bool,
    /// Type of the result.
    pub output: DType,
}

/// Parameters of channels, each (C,), stacked as [`Normalize`] expects them.
pub(super) fn stacked(parameters: &[Tensor]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if parameters.iter().all(|parameter| parameter.device().is_cuda() && parameter.dtype() == DType::F32) {
        return gpu::stacked(parameters);
    }
    Ok(Tensor::stack(parameters, 0)?)
}

/// The sums over all rows that gradients need.
pub(super) struct Sums {
    /// Sums over the rows of this member, for the gradients of parameters.
    own: Totals,
    /// Sums over the rows of all members of a group, times this member's share of all rows. Divided by the number of this member's rows,
    /// they give the means that the gradients of inputs need.
    shared: Option<Totals>,
}

impl Sums {
    fn of_inputs(&self) -> &Totals {
        self.shared.as_ref().unwrap_or(&self.own)
    }
}

enum Totals {
    Here(backward::Sums),
    /// On the GPU, (3, C) f64: sums of the gradient, and of the gradient times each normalised input.
    #[cfg(feature = "cuda")]
    There(Tensor),
}

impl Totals {
    /// The sums over all members of a group, times `share`.
    fn over(&self, (Group(group), share): &(Group, f64)) -> Result<Self> {
        match self {
            Self::Here(sums) => {
                let mut sums = sums.clone();
                sums.all(|values| group.all_reduce(values))?;
                sums.all(|values| {
                    values.iter_mut().for_each(|value| *value *= share);
                    Ok(())
                })?;
                Ok(Self::Here(sums))
            }
            #[cfg(feature = "cuda")]
            Self::There(sums) => {
                let mut values: Vec<f64> = sums.flatten_all()?.to_vec1()?;
                group.all_reduce(&mut values)?;
                Ok(Self::There((Tensor::from_vec(values, sums.shape(), sums.device())? * *share)?))
            }
        }
    }
}

impl Normalize {
    pub fn apply(self, x: &Tensor, shortcut: Option<&Tensor>, parameters: &Tensor) -> Result<Tensor> {
        let (x, parameters) = (x.contiguous()?, parameters.contiguous()?);
        Ok(match shortcut {
            Some(shortcut) => x.apply_op3(&shortcut.contiguous()?, &parameters, self)?,
            None => x.apply_op2(&parameters, self)?,
        })
    }

    /// What the backward pass needs: the inputs, normalised without weight and bias, in `dtype`; and the operation that takes these instead
    /// of the inputs. Inputs that have this type are kept as they are. A plain shortcut is not needed. Without a shortcut, the operation can also compute the output again; it is positive
    /// where it was before.
    pub fn kept(
        &self,
        (x, shortcut): (&Tensor, Option<&Tensor>),
        parameters: &Tensor,
        dtype: DType,
    ) -> Result<(Self, Tensor, Option<Tensor>)> {
        let (channels, parameters) = (x.dim(1)?, parameters.contiguous()?);
        let rounded = |scaling: &Scaling, x: &Tensor, has_knee: bool| {
            let x = x.contiguous()?;
            #[cfg(feature = "cuda")]
            if x.device().is_cuda() {
                return gpu::kept(scaling, &x, has_knee.then_some(&parameters), dtype);
            }
            let [x_read, parameters_read] = [&x, &parameters].map(|t| t.storage_and_layout());
            with_types!(x.dtype(), dtype, (X, K) => {
                let parameters = slice::<<X as Number>::Wide>(on_cpu(&parameters_read.0)?, parameters_read.1)?;
                let knee = has_knee.then(|| [&parameters[..channels], &parameters[channels..2 * channels]]);
                let kept = kept::kept::<X, K>(scaling, slice(on_cpu(&x_read.0)?, x_read.1)?, knee);
                Ok(Tensor::from_vec(kept, x.shape(), x.device())?)
            })
        };
        let kept = |scaling: &Arc<Scaling>, x: &Tensor, has_knee: bool| -> Result<(Arc<Scaling>, Tensor)> {
            if x.dtype() == dtype {
                return Ok((scaling.clone(), x.detach()));
            }
            Ok((Arc::new(Scaling { given: true, ..(**scaling).clone() }), rounded(scaling, x, has_knee)?))
        };
        let has_knee = self.relu && shortcut.is_none();
        let shortcut = self.shortcut.as_ref().zip(shortcut);
        let shortcut = shortcut.map(|(scaling, shortcut)| kept(scaling, shortcut, false)).transpose()?;
        let (scaling, x) = kept(&self.x, x, has_knee)?;
        let (shortcut_scaling, shortcut) = shortcut.unzip();
        let op = Self { x: scaling, shortcut: shortcut_scaling.or(self.shortcut.clone()), ..self.clone() };
        Ok((op, x, shortcut))
    }

    /// The gradient of x from that of the output, in the type of x, or in f32 if the gradient of the output is f32. Also returns the sums
    /// over all rows that the other gradients need.
    pub fn gradient(
        &self,
        (x, shortcut): (&Tensor, Option<&Tensor>),
        parameters: &Tensor,
        outcome: (&Tensor, &Tensor),
    ) -> Result<(Tensor, Sums)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let sums = self.sums(Totals::There(gpu::sums(self, (x, shortcut), outcome)?))?;
            let Totals::There(of_inputs) = sums.of_inputs() else { unreachable!("both are there") };
            return Ok((gpu::x_gradient(self, x, parameters, outcome, of_inputs)?, sums));
        }
        with_gradient_types!(x.dtype(), outcome.0.dtype(), outcome.1.dtype(), (X, Y, G, R) => {
            self.with_backward([Some(x), shortcut], parameters, outcome, |work: Backward<X, Y, G>| {
                let sums = self.sums(Totals::Here(work.sums()))?;
                let x_grad = match sums.of_inputs() {
                    Totals::Here(sums) => work.x_gradient::<R>(sums),
                    #[cfg(feature = "cuda")]
                    Totals::There(_) => unreachable!("both are here"),
                };
                Ok((Tensor::from_vec(x_grad, x.shape(), x.device())?, sums))
            })
        })
    }

    /// The sums over this member's rows, and those over all rows if other members hold some.
    fn sums(&self, own: Totals) -> Result<Sums> {
        let shared = self.x.shared.as_ref().map(|shared| own.over(shared)).transpose()?;
        Ok(Sums { own, shared })
    }

    /// The gradient of the shortcut, in its own type or in f32, as above. A plain shortcut is not read.
    pub fn shortcut_gradient(
        &self,
        shortcut: &Tensor,
        parameters: &Tensor,
        outcome: (&Tensor, &Tensor),
        sums: &Sums,
    ) -> Result<Tensor> {
        match sums.of_inputs() {
            Totals::Here(sums) => {
                with_gradient_types!(shortcut.dtype(), outcome.0.dtype(), outcome.1.dtype(), (X, Y, G, R) => {
                    self.with_backward([None, Some(shortcut)], parameters, outcome, |work: Backward<X, Y, G>| {
                        let found = work.shortcut_gradient::<R>(sums);
                        Ok(Tensor::from_vec(found, shortcut.shape(), shortcut.device())?)
                    })
                })
            }
            #[cfg(feature = "cuda")]
            Totals::There(sums) => gpu::shortcut_gradient(self, shortcut, parameters, outcome, sums),
        }
    }

    /// The gradient of the parameters.
    pub fn parameter_gradient(&self, parameters: &Tensor, sums: &Sums) -> Result<Tensor> {
        let found = match &sums.own {
            Totals::Here(sums) => {
                let found = sums.of_parameters(self.shortcut.is_some());
                Tensor::from_vec(found, parameters.dims(), parameters.device())?
            }
            #[cfg(feature = "cuda")]
            Totals::There(sums) => gpu::parameter_gradient(self, sums)?,
        };
        Ok(found.to_dtype(parameters.dtype())?)
    }

    fn with_backward<X: Number, Y: Number, G: Number, T>(
        &self,
        [x, shortcut]: [Option<&Tensor>; 2],
        parameters: &Tensor,
        (out, grad): (&Tensor, &Tensor),
        body: impl FnOnce(Backward<X, Y, G>) -> Result<T>,
    ) -> Result<T> {
        let grad = grad.contiguous()?;
        let parameters: Vec<f64> = parameters.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let [out_read, grad_read] = [out, &grad].map(|t| t.storage_and_layout());
        let shortcut = shortcut.filter(|_| self.shortcut.is_some());
        let inputs_read = [x, shortcut].map(|input| input.map(|t| t.storage_and_layout()));
        let mut inputs = [None, None];
        for (input, read) in inputs.iter_mut().zip(&inputs_read) {
            if let Some((storage, layout)) = read {
                *input = Some(slice(on_cpu(storage)?, layout)?);
            }
        }
        body(Backward {
            op: self,
            channels: out.dim(1)?,
            parameters: &parameters,
            inputs,
            out: slice(on_cpu(&out_read.0)?, out_read.1)?,
            grad: slice(on_cpu(&grad_read.0)?, grad_read.1)?,
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        p: &CudaStorage,
        pl: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        Ok(gpu::forward(self, (x, xl), None, (p, pl))?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, sums) = self.gradient((x, None), parameters, (out, grad))?;
        Ok((Some(x), Some(self.parameter_gradient(parameters, &sums)?)))
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        s: &CudaStorage,
        sl: &Layout,
        p: &CudaStorage,
        pl: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        Ok(gpu::forward(self, (x, xl), Some((s, sl)), (p, pl))?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        shortcut: &Tensor,
        parameters: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, sums) = self.gradient((x, Some(shortcut)), parameters, (out, grad))?;
        let shortcut = self.shortcut_gradient(shortcut, parameters, (out, grad), &sums)?;
        Ok((Some(x), Some(shortcut), Some(self.parameter_gradient(parameters, &sums)?)))
    }
}

fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(Error::Backend {
            backend: "native",
            needs: "it needs tensors on the CPU for batch normalisation; use `to_device`".into(),
        }),
    }
}

fn unsupported(got: DType) -> Error {
    let expected = "f32, f16, bf16 or f64, and a result of that type, or of a half one for f32";
    Error::DType { op: "BatchNorm", what: "features", got, expected }
}

/// The type in which features of `dtype` are computed.
pub(super) fn wide_type(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The values of a contiguous tensor.
fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let all = storage.as_slice::<T>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => Err(Error::Candle(candle_core::Error::RequiresContiguous { op: "batch-norm" })),
    }
}

/// The number of rows that are processed together: as many as fit in the first-level cache. It does not depend on the number of threads.
fn chunk(channels: usize) -> usize {
    ((2048 / channels.max(1)).max(8) * channels).max(1)
}

fn wide<W: WithDType>(values: impl IntoIterator<Item = f64>) -> Vec<W> {
    values.into_iter().map(W::from_f64).collect()
}

/// Adds the rows to `sums`, each value mapped by `of(row number, channel, value)`.
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
