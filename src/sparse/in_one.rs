//! [`in_one`]: a part of a network that is one operation to the gradient tape, so that it decides what is kept for the backward pass.
//!
//! The parameters stand on the tape as [`Stub`]s of one number, which receive their gradients whole: no copy of them is kept.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, Tensor, TensorId};
#[cfg(feature = "cuda")]
use candle_core::{
    CudaStorage,
    backend::{BackendDevice, BackendStorage},
};

use crate::Result;
use crate::sync::lock;

/// A parameter and its gradient.
pub(crate) type ParameterGradient = (Tensor, Tensor);

/// What the backward pass of a part finds.
pub(crate) struct PartGradients {
    pub x: Tensor,
    pub other: Option<Tensor>,
    pub parameters: Vec<ParameterGradient>,
}

/// `output`, which was computed of `x`, `other` and `parameters` without a tape, as one differentiable operation of them. `backward` finds
/// the gradients from the output and its gradient; it runs once for each backward pass.
pub(crate) fn in_one(
    (x, other): (&Tensor, Option<&Tensor>),
    output: &Tensor,
    parameters: &[Tensor],
    backward: impl Fn((&Tensor, &Tensor)) -> Result<PartGradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    let (slots, stubs): (Vec<_>, Vec<_>) = parameters
        .iter()
        .map(|parameter| {
            let slot = Slot::default();
            Ok(((parameter.id(), slot.clone()), parameter.apply_op1(Stub(slot))?))
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    let stubs = if stubs.is_empty() { Tensor::zeros(1, DType::F32, x.device())? } else { Tensor::cat(&stubs, 0)? };
    let op = InOne { backward: Box::new(backward), output: Mutex::new(Some(output.clone())), slots };
    Ok(match other {
        None => x.apply_op2(&stubs, op)?,
        Some(other) => x.apply_op3(other, &stubs, op)?,
    })
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

type BackwardPass = dyn Fn((&Tensor, &Tensor)) -> Result<PartGradients> + Send + Sync;

struct InOne {
    backward: Box<BackwardPass>,
    /// The features that the forward pass found, until the operation takes them.
    output: Mutex<Option<Tensor>>,
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

    /// Gradients of x and of the other input; those of the parameters go into their slots.
    fn gradients(&self, stubs: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let found = (self.backward)((&out.detach(), grad))?;
        for (parameter, grad) in found.parameters {
            if let Some((_, slot)) = self.slots.iter().find(|(id, _)| *id == parameter.id()) {
                *lock(slot) = Some(grad);
            }
        }
        Ok((found.x, found.other, Tensor::zeros(stubs.dims(), DType::F32, stubs.device())?))
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
        let (x, _, stubs) = self.gradients(stubs, out, grad)?;
        Ok((Some(x), Some(stubs)))
    }
}

impl CustomOp3 for InOne {
    fn name(&self) -> &'static str {
        "part-in-one"
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
