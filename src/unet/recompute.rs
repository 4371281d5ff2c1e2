//! Gradient checkpointing (Chen et al. 2016): forget a segment's inner values, compute them again when needed.
//!
//! To the gradient tape a segment is one operation. The backward pass runs the segment's layers once more, without a tape, and
//! then back from the last to the first. The parameters stand on the tape as [`Stub`]s of one number, which receive their
//! gradients whole: no copy of the parameters is kept.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, Tensor, TensorId};

use super::layers::ConvLayer;
use super::run::Run;
use crate::Result;
use crate::sparse::{ParameterGradient, SparseConvTensor};

/// A part of the network whose inner values can be forgotten.
pub(super) trait Segment: Clone + Send + Sync + 'static {
    /// All that it is trained by.
    fn parameters(&self) -> Vec<Tensor>;

    /// From `x` and, where there is one, another input to the output.
    fn forward(&self, x: &SparseConvTensor, other: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor>;

    /// Gradients of a training pass that gave `out`, from that of `out`. Running statistics stay as they are.
    fn backward(
        &self,
        x: &SparseConvTensor,
        other: Option<&Tensor>,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<SegmentGradients>;

    /// Runs it forward; in a checkpointed pass as one operation that keeps no inner values.
    fn run(&self, x: &SparseConvTensor, other: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        if !run.checkpoint {
            return self.forward(x, other, run);
        }
        let (x_in, other_in) = (detached(x.clone())?, other.map(Tensor::detach));
        let out = self.forward(&x_in, other_in.as_ref(), &Run { train: true, ..Run::default() })?;
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
        let op = Recompute { segment: self.clone(), x: x_in, other: other_in, output, slots };
        let features = match other {
            None => x.features().apply_op2(&stubs, op)?,
            Some(other) => x.features().apply_op3(other, &stubs, op)?,
        };
        out.replace_feature(features)
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

/// What a convolution gave in a training pass.
pub(super) fn convolved(conv: &ConvLayer, x: &SparseConvTensor) -> Result<SparseConvTensor> {
    conv.forward(x, x.dtype(), &Run { train: true, ..Run::default() })
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

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take())
    }
}

struct Recompute<S> {
    segment: S,
    x: SparseConvTensor,
    other: Option<Tensor>,
    /// The features that the forward pass found, until the operation takes them.
    output: Mutex<Option<Tensor>>,
    slots: Vec<(TensorId, Slot)>,
}

impl<S: Segment> Recompute<S> {
    fn take_output(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        let output = self.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(output) = output else { candle_core::bail!("a checkpointed segment is applied once") };
        let output = output.contiguous()?;
        let shape = output.shape().clone();
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) if layout.start_offset() == 0 => Ok((storage.clone(), shape)),
            _ => candle_core::bail!("gradient checkpointing runs on the CPU"),
        }
    }

    /// Gradients of x and of the other input; those of the parameters go into their slots.
    fn gradients(&self, stubs: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let found = self.segment.backward(&self.x, self.other.as_ref(), &out.detach(), grad)?;
        for (parameter, grad) in found.parameters {
            if let Some((_, slot)) = self.slots.iter().find(|(id, _)| *id == parameter.id()) {
                *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(grad);
            }
        }
        Ok((found.x, found.other, Tensor::zeros(stubs.dims(), DType::F32, stubs.device())?))
    }
}

impl<S: Segment> CustomOp2 for Recompute<S> {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.take_output()
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

impl<S: Segment> CustomOp3 for Recompute<S> {
    fn name(&self) -> &'static str {
        "recompute"
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
        self.take_output()
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
