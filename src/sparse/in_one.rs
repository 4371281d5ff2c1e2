//! [`in_one`]: makes a part of a network one operation on the gradient tape, so that the part decides what to keep for the backward pass.
//!
//! All inputs but the first are on the tape as [`Stub`]s of one number, through which they receive their whole gradients. So their values
//! are not copied or kept.

use std::sync::{Arc, Mutex};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Shape, Storage, Tensor, TensorId,
};
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
    let inputs: Vec<(Tensor, Slot)> =
        other.into_iter().chain(parameters).map(|input| (input.clone(), Slot::default())).collect();
    let stub = Stub::of(&inputs, x.device())?;
    let mut slots = inputs.into_iter().map(|(input, slot)| (input.id(), slot));
    let other = other.and_then(|_| slots.next()).map(|(_, slot)| slot);
    let op =
        InOne { backward: Box::new(backward), output: Mutex::new(Some(output.clone())), other, slots: slots.collect() };
    Ok(x.apply_op2(&stub, op)?)
}

type Slot = Arc<Mutex<Option<Tensor>>>;

/// Represents inputs on the tape by one number. The gradient of each input is the content of its slot; the input without a slot is an
/// earlier stub, whose number has no gradient.
struct Stub([Option<Slot>; 3]);

impl Stub {
    /// All of these inputs as one stub.
    fn of(inputs: &[(Tensor, Slot)], device: &Device) -> Result<Tensor> {
        let mut chain: Option<Tensor> = None;
        for pair in inputs.chunks(2) {
            let slot = |at: usize| pair.get(at).map(|(_, slot)| slot.clone());
            chain = Some(match (pair, chain) {
                ([(a, _)], None) => a.apply_op1(Self([slot(0), None, None]))?,
                ([(a, _)], Some(before)) => a.apply_op2(&before, Self([slot(0), None, None]))?,
                ([(a, _), (b, _), ..], None) => a.apply_op2(b, Self([slot(0), slot(1), None]))?,
                ([(a, _), (b, _), ..], Some(before)) => a.apply_op3(b, &before, Self([slot(0), slot(1), None]))?,
                ([], _) => unreachable!("chunks are not empty"),
            });
        }
        chain.map_or_else(|| Ok(Tensor::zeros(1, DType::F32, device)?), Ok)
    }

    fn here() -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn there(input: &CudaStorage) -> candle_core::Result<(CudaStorage, Shape)> {
        let shape = Shape::from(1);
        Ok((input.device.zeros_impl(&shape, DType::F32)?, shape))
    }

    fn gradient(&self, at: usize, input: &Tensor) -> candle_core::Result<Option<Tensor>> {
        match &self.0[at] {
            Some(slot) => Ok(lock(slot).take()),
            None => input.zeros_like().map(Some),
        }
    }
}

const STUB: &str = "input-stub";

impl CustomOp1 for Stub {
    fn name(&self) -> &'static str {
        STUB
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Self::here()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, a: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        Self::there(a)
    }

    fn bwd(&self, a: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.gradient(0, a)
    }
}

impl CustomOp2 for Stub {
    fn name(&self) -> &'static str {
        STUB
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Self::here()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        Self::there(a)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(0, a)?, self.gradient(1, b)?))
    }
}

impl CustomOp3 for Stub {
    fn name(&self) -> &'static str {
        STUB
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
        Self::here()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        Self::there(a)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        before: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(0, a)?, self.gradient(1, b)?, self.gradient(2, before)?))
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
        stub: &Tensor,
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
        Ok((Some(found.x), Some(stub.zeros_like()?)))
    }
}
