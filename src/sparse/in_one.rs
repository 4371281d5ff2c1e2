//! [`in_one`]: makes a part of a network one operation on the gradient tape, so that the part decides what to keep for the backward pass.
//!
//! All inputs but the first are on the tape as [`Stub`]s of one number, which receive their whole gradients. So their values are not copied
//! or kept.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Storage, Tensor, TensorId};
#[cfg(feature = "cuda")]
use candle_core::{
    CudaStorage,
    backend::{BackendDevice, BackendStorage},
};

use crate::Result;
use crate::sync::lock;

/// A parameter and its gradient.
pub(crate) type ParameterGradient = (Tensor, Tensor);

/// The gradients that the backward pass of a part finds.
pub(crate) struct PartGradients {
    pub x: Tensor,
    pub other: Option<Tensor>,
    pub parameters: Vec<ParameterGradient>,
}

/// Makes `output`, which was computed from `x`, `other` and `parameters` without a tape, one differentiable operation of these. `backward`
/// finds the gradients from the output and its gradient; it runs once for each backward pass.
pub(crate) fn in_one(
    (x, other): (&Tensor, Option<&Tensor>),
    output: &Tensor,
    parameters: &[Tensor],
    backward: impl Fn((&Tensor, &Tensor)) -> Result<PartGradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    let mut stubs = Vec::new();
    let mut stub = |input: &Tensor| -> Result<Slot> {
        let slot = Slot::default();
        stubs.push(input.apply_op1(Stub(slot.clone()))?);
        Ok(slot)
    };
    let other = other.map(&mut stub).transpose()?;
    let slots =
        parameters.iter().map(|parameter| Ok((parameter.id(), stub(parameter)?))).collect::<Result<Vec<_>>>()?;
    let stubs = if stubs.is_empty() { Tensor::zeros(1, DType::F32, x.device())? } else { Tensor::cat(&stubs, 0)? };
    let op = InOne { backward: Box::new(backward), output: Mutex::new(Some(output.clone())), other, slots };
    Ok(x.apply_op2(&stubs, op)?)
}

type Slot = Arc<Mutex<Option<Tensor>>>;

/// Represents an input on the tape; its gradient is the content of the slot.
struct Stub(Slot);

impl CustomOp1 for Stub {
    fn name(&self) -> &'static str {
        "input-stub"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, input: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let shape = Shape::from(1);
        Ok((input.device.zeros_impl(&shape, DType::F32)?, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(lock(&self.0).take())
    }
}

type BackwardPass = dyn Fn((&Tensor, &Tensor)) -> Result<PartGradients> + Send + Sync;

struct InOne {
    backward: Box<BackwardPass>,
    /// The features that the forward pass computed, until the operation takes them.
    output: Mutex<Option<Tensor>>,
    other: Option<Slot>,
    /// The slots of the parameters.
    slots: Vec<(TensorId, Slot)>,
}

impl InOne {
    fn take_output(&self) -> candle_core::Result<Tensor> {
        let output = lock(&self.output).take();
        let Some(output) = output else { candle_core::bail!("a part is applied once") };
        output.contiguous()
    }

    fn output_here(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        let output = self.take_output()?;
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) if layout.start_offset() == 0 => Ok((storage.clone(), output.shape().clone())),
            _ => candle_core::bail!("a part's output is where its input is"),
        }
    }

    #[cfg(feature = "cuda")]
    fn output_there(&self) -> candle_core::Result<(CudaStorage, Shape)> {
        let output = self.take_output()?;
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, output.shape().clone())),
            _ => candle_core::bail!("a part's output is where its input is"),
        }
    }
}

impl CustomOp2 for InOne {
    fn name(&self) -> &'static str {
        "part-in-one"
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
        let found = (self.backward)((&out.detach(), grad))?;
        if let Some(slot) = &self.other {
            *lock(slot) = found.other;
        }
        for (parameter, grad) in found.parameters {
            if let Some((_, slot)) = self.slots.iter().find(|(id, _)| *id == parameter.id()) {
                *lock(slot) = Some(grad);
            }
        }
        Ok((Some(found.x), Some(stubs.zeros_like()?)))
    }
}
