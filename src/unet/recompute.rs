//! Gradient checkpointing (Chen et al. 2016): forget a segment's inner values, compute them again when needed.
//!
//! To the gradient tape a segment is one operation of its inputs and its parameters. The backward pass runs the segment
//! once more, this time with a tape, and back-propagates through it. Running statistics, which a second forward pass
//! would move again, are put back. Segments nest: a level of the network keeps its ends, and while its turn in the
//! backward pass lasts, the ends of the parts within it.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Storage, Tensor, Var};

use super::parameters::is_buffer;
use super::run::Run;
use crate::Result;
use crate::sparse::SparseConvTensor;

/// The parameters and running statistics of a part of the network.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    parameters: Vec<Var>,
    buffers: Vec<Var>,
}

impl Segment {
    pub fn new<'a>(entries: impl Iterator<Item = &'a (String, Var)>) -> Self {
        let (buffers, parameters): (Vec<_>, Vec<_>) = entries.partition(|(name, _)| is_buffer(name));
        let vars = |list: Vec<&(String, Var)>| list.into_iter().map(|(_, var)| var.clone()).collect();
        Self { parameters: vars(parameters), buffers: vars(buffers) }
    }

    /// Runs `body(x, other)` in training mode without keeping its inner values.
    pub fn run<F>(&self, x: &SparseConvTensor, other: Option<&SparseConvTensor>, body: F) -> Result<SparseConvTensor>
    where
        F: Fn(&SparseConvTensor, Option<&SparseConvTensor>, &Run) -> Result<SparseConvTensor> + Send + Sync + 'static,
    {
        let detached = |x: &SparseConvTensor| x.replace_feature(x.features().detach());
        let (x_in, other_in) = (detached(x)?, other.map(detached).transpose()?);
        let out = {
            // Its tape, and with it all inner values, ends here.
            let out = body(&x_in, other_in.as_ref(), &Run { train: true, ..Run::default() })?;
            out.replace_feature(out.features().detach())?
        };
        let output = Mutex::new(Some(out.features().clone()));
        let weights: Vec<Tensor> =
            self.parameters.iter().map(|var| var.as_tensor().flatten_all()).collect::<candle_core::Result<_>>()?;
        let weights = Tensor::cat(&weights, 0)?;
        let op = Recompute { segment: self.clone(), x: x_in, other: other_in, output, body };
        let features = match other {
            None => x.features().apply_op2(&weights, op)?,
            Some(other) => x.features().apply_op3(other.features(), &weights, op)?,
        };
        out.replace_feature(features)
    }
}

struct Recompute<F> {
    segment: Segment,
    x: SparseConvTensor,
    other: Option<SparseConvTensor>,
    /// The features that the forward pass found, until the operation takes them.
    output: Mutex<Option<Tensor>>,
    body: F,
}

impl<F> Recompute<F>
where
    F: Fn(&SparseConvTensor, Option<&SparseConvTensor>, &Run) -> Result<SparseConvTensor> + Send + Sync,
{
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

    /// Gradients of x, of the other input and of the parameters, from the gradient of the output.
    fn gradients(&self, grad: &Tensor) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let kept: Vec<Tensor> = self
            .segment
            .buffers
            .iter()
            .map(|var| var.as_detached_tensor().copy())
            .collect::<candle_core::Result<_>>()?;
        let x = Var::from_tensor(self.x.features())?;
        let x_in = self.x.replace_feature(x.as_tensor().clone())?;
        let other = self.other.as_ref().map(|other| Var::from_tensor(other.features())).transpose()?;
        let other_in = match (&self.other, &other) {
            (Some(sites), Some(var)) => Some(sites.replace_feature(var.as_tensor().clone())?),
            _ => None,
        };
        let out = (self.body)(&x_in, other_in.as_ref(), &Run { train: true, ..Run::default() })?;
        for (var, value) in self.segment.buffers.iter().zip(&kept) {
            var.set(value)?;
        }
        let mut found = (out.features() * grad.detach())?.sum_all()?.backward()?;
        let mut of = |var: &Var| match found.remove(var) {
            // A gradient knows the operations it came from, and would keep this whole tape.
            Some(grad) => Ok(grad.detach()),
            None => var.zeros_like(),
        };
        let x_grad = of(&x)?;
        let other_grad = other.as_ref().map(&mut of).transpose()?;
        let weights: Vec<Tensor> =
            self.segment.parameters.iter().map(|var| of(var)?.flatten_all()).collect::<candle_core::Result<_>>()?;
        Ok((x_grad, other_grad, Tensor::cat(&weights, 0)?))
    }
}

impl<F> CustomOp2 for Recompute<F>
where
    F: Fn(&SparseConvTensor, Option<&SparseConvTensor>, &Run) -> Result<SparseConvTensor> + Send + Sync,
{
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
        _weights: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, _, weights) = self.gradients(grad)?;
        Ok((Some(x), Some(weights)))
    }
}

impl<F> CustomOp3 for Recompute<F>
where
    F: Fn(&SparseConvTensor, Option<&SparseConvTensor>, &Run) -> Result<SparseConvTensor> + Send + Sync,
{
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
        _weights: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, other, weights) = self.gradients(grad)?;
        Ok((Some(x), other, Some(weights)))
    }
}
