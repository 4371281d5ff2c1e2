//! Segments: parts of the network that are one operation each to the gradient tape, so that they decide what is kept for the
//! backward pass.
//!
//! With gradient checkpointing (Chen et al. 2016) nothing within a segment is kept: the backward pass runs its layers once more
//! and then back from the last to the first. In half precision the forward pass computes in f32 and keeps rounded copies of
//! what the backward pass will read, as Chakrabarti & Moseley 2019 do with fewer bits: rounding then touches no output, and a
//! gradient only where its own layer reads the copy.
//!
//! The parameters stand on the tape as [`Stub`]s of one number, which receive their gradients whole: no copy of them is kept.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, Tensor, TensorId};
#[cfg(feature = "cuda")]
use candle_core::{
    CudaStorage,
    backend::{BackendDevice, BackendStorage},
};

use super::run::Run;
use crate::Result;
use crate::sparse::{ParameterGradient, SparseConvTensor};
use crate::sync::lock;

/// A part of the network between two ends that are kept.
pub(super) trait Segment: Clone + Send + Sync + 'static {
    /// What the backward pass needs beside the inputs and the output.
    type Inner: Send;

    /// All that it is trained by.
    fn parameters(&self) -> Vec<Tensor>;

    /// From `x` and, where there is one, another input to the output.
    fn forward(&self, x: &SparseConvTensor, other: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor>;

    /// The same in training from f32 inputs to an f32 output, without a tape. Made again, the pass gives no output.
    fn forward_kept(
        &self,
        x: &SparseConvTensor,
        other: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Option<SparseConvTensor>, Self::Inner)>;

    /// Gradients of a training pass that gave the output, from the output and its gradient.
    fn backward(
        &self,
        x: &SparseConvTensor,
        other: Option<&Tensor>,
        inner: Self::Inner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<SegmentGradients>;

    /// Runs it forward, as one operation if `run` wants that.
    fn run(&self, x: &SparseConvTensor, other: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        if !run.in_segments() {
            return self.forward(x, other, run);
        }
        let (x_in, other_in) = (detached(x.clone())?, other.map(Tensor::detach));
        let dtype = run.precision.dtype();
        let (out, inner) = if run.checkpoint {
            (Some(self.forward(&x_in, other_in.as_ref(), &Run { train: true, ..Run::default() })?), None)
        } else {
            let (out, inner) = self.forward_kept(&x_in, other_in.as_ref(), Keep { dtype, again: false })?;
            (out, Some(inner))
        };
        let Some(out) = out else { unreachable!("the pass is made for the first time") };
        let (slots, stubs): (Vec<_>, Vec<_>) = self
            .parameters()
            .iter()
            .map(|parameter| {
                let slot = Slot::default();
                Ok(((parameter.id(), slot.clone()), parameter.apply_op1(Stub(slot))?))
            })
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        let stubs = Tensor::cat(&stubs, 0)?;
        let output = Mutex::new(Some(out.features().clone()));
        let op =
            InOne { segment: self.clone(), x: x_in, other: other_in, dtype, inner: Mutex::new(inner), output, slots };
        let features = match other {
            None => x.features().apply_op2(&stubs, op)?,
            Some(other) => x.features().apply_op3(other, &stubs, op)?,
        };
        out.replace_feature(features)
    }
}

/// How a segment is to keep inner values.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub dtype: DType,
    /// Whether the pass has been made before: running statistics stay where they are, and the output is known.
    pub again: bool,
}

impl Keep {
    /// The output without the operations that it came from, if it is not known.
    pub fn output(self, of: impl FnOnce() -> Result<SparseConvTensor>) -> Result<Option<SparseConvTensor>> {
        if self.again { Ok(None) } else { Ok(Some(detached(of()?)?)) }
    }
}

/// What a segment's backward pass finds.
pub(super) struct SegmentGradients {
    pub x: Tensor,
    pub other: Option<Tensor>,
    pub parameters: Vec<ParameterGradient>,
}

/// The same features without the operations that they came from.
pub(super) fn detached(x: SparseConvTensor) -> Result<SparseConvTensor> {
    x.replace_feature(x.features().detach())
}

/// The same features in `dtype`.
pub(super) fn rounded(x: &SparseConvTensor, dtype: DType) -> Result<SparseConvTensor> {
    x.replace_feature(x.features().to_dtype(dtype)?)
}

type Slot = Arc<Mutex<Option<Tensor>>>;

/// Stands for a parameter on the tape; its gradient is what lies in the slot.
struct Stub(Slot);

impl CustomOp1 for Stub {
    fn name(&self) -> &'static str {
        "parameter-stub"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, parameter: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let shape = Shape::from(1);
        Ok((parameter.device.zeros_impl(&shape, DType::F32)?, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(lock(&self.0).take())
    }
}

struct InOne<S: Segment> {
    segment: S,
    x: SparseConvTensor,
    other: Option<Tensor>,
    /// In which inner values are kept.
    dtype: DType,
    /// Inner values, unless they are to be computed again; the backward pass takes them.
    inner: Mutex<Option<S::Inner>>,
    /// The features that the forward pass found, until the operation takes them.
    output: Mutex<Option<Tensor>>,
    slots: Vec<(TensorId, Slot)>,
}

impl<S: Segment> InOne<S> {
    fn take_output(&self) -> candle_core::Result<Tensor> {
        let output = lock(&self.output).take();
        let Some(output) = output else { candle_core::bail!("a segment is applied once") };
        output.contiguous()
    }

    fn output_here(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        let output = self.take_output()?;
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) if layout.start_offset() == 0 => Ok((storage.clone(), output.shape().clone())),
            _ => candle_core::bail!("a segment's output is where its input is"),
        }
    }

    #[cfg(feature = "cuda")]
    fn output_there(&self) -> candle_core::Result<(CudaStorage, Shape)> {
        let output = self.take_output()?;
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, output.shape().clone())),
            _ => candle_core::bail!("a segment's output is where its input is"),
        }
    }

    /// Gradients of x and of the other input; those of the parameters go into their slots.
    fn gradients(&self, stubs: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let (x, other) = (&self.x, self.other.as_ref());
        let kept = lock(&self.inner).take();
        let inner = match kept {
            Some(inner) => inner,
            None => self.segment.forward_kept(x, other, Keep { dtype: self.dtype, again: true })?.1,
        };
        let found = self.segment.backward(x, other, inner, (&out.detach(), grad))?;
        for (parameter, grad) in found.parameters {
            if let Some((_, slot)) = self.slots.iter().find(|(id, _)| *id == parameter.id()) {
                *lock(slot) = Some(grad);
            }
        }
        Ok((found.x, found.other, Tensor::zeros(stubs.dims(), DType::F32, stubs.device())?))
    }
}

impl<S: Segment> CustomOp2 for InOne<S> {
    fn name(&self) -> &'static str {
        "segment"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.output_here()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.output_there()
    }

    fn bwd(
        &self,
        _x: &Tensor,
        stubs: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, _, stubs) = self.gradients(stubs, out, grad)?;
        Ok((Some(x), Some(stubs)))
    }
}

impl<S: Segment> CustomOp3 for InOne<S> {
    fn name(&self) -> &'static str {
        "segment"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.output_here()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.output_there()
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _other: &Tensor,
        stubs: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, other, stubs) = self.gradients(stubs, out, grad)?;
        Ok((Some(x), other, Some(stubs)))
    }
}
