//! [`Segment`]: a part of a network that is one operation on the gradient tape ([`in_one`]).
//!
//! A segment keeps what its backward pass reads, and frees each value after its last use; candle's tape would keep every value to the end,
//! and add up every gradient inside. With gradient checkpointing (Chen et al. 2016) nothing inside a segment is kept: the backward pass runs
//! its layers once more, and then goes back from the last to the first. In half precision the forward pass computes in f32 and keeps rounded
//! copies of what the backward pass will read, as Chakrabarti & Moseley 2019 do with fewer bits. So rounding changes no output, and changes a
//! gradient only where its own layer reads a copy.

use std::sync::Mutex;

use candle_core::{DType, Tensor};

use super::backend::with_backend;
use super::column_sums::column_sums;
use super::in_one::{ParameterGradient, PartGradients, in_one};
use super::tape;
use super::tensor::SparseConvTensor;
use crate::Result;
use crate::sync::lock;

/// A part of a network between two ends, whose values are kept.
pub(crate) trait Segment: Clone + Send + Sync + 'static {
    /// What the backward pass needs in addition to the inputs and the output.
    type Inner: Send;

    /// All of its parameters.
    fn parameters(&self) -> Vec<Tensor>;

    /// The output for `x` and, if there is one, another input: in training, from f32 inputs to an f32 output, without a tape. A repeated
    /// pass returns no output.
    fn forward_kept(
        &self,
        x: &SparseConvTensor,
        other: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Option<SparseConvTensor>, Self::Inner)>;

    /// Gradients of a training pass, from its output and the output's gradient.
    fn backward(
        &self,
        x: &SparseConvTensor,
        other: Option<&Tensor>,
        inner: Self::Inner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<PartGradients>;

    /// Whether a training pass over `x` can be one operation: the tape records it, and everything is f32.
    fn is_one(&self, x: &SparseConvTensor) -> bool {
        let plain = |tensor: &Tensor| tensor.dtype() == DType::F32;
        !tape::is_off() && plain(x.features()) && self.parameters().iter().all(plain)
    }

    /// Runs the segment as one operation, which keeps inner values as `dtype`.
    fn as_one(&self, x: &SparseConvTensor, other: Option<&Tensor>, dtype: DType) -> Result<SparseConvTensor> {
        self.noted((x, other), dtype, |x, other| {
            let (out, inner) = self.forward_kept(x, other, Keep { dtype, again: false })?;
            let Some(out) = out else { unreachable!("the pass is made for the first time") };
            Ok((out, Some(inner)))
        })
    }

    /// Runs `forward`, a pass without a tape, as one operation. If `forward` returns no inner values, the backward pass computes them.
    fn noted(
        &self,
        (x, other): (&SparseConvTensor, Option<&Tensor>),
        dtype: DType,
        forward: impl FnOnce(&SparseConvTensor, Option<&Tensor>) -> Result<(SparseConvTensor, Option<Self::Inner>)>,
    ) -> Result<SparseConvTensor> {
        let (x_in, other_in) = (detached(x.clone())?, other.map(Tensor::detach));
        let (out, inner) = forward(&x_in, other_in.as_ref())?;
        let (segment, inner, backend) = (self.clone(), Mutex::new(inner), x.backend()?);
        let backward = move |outcome: (&Tensor, &Tensor)| {
            let kept = lock(&inner).take();
            let inner = match kept {
                Some(inner) => inner,
                None => segment.forward_kept(&x_in, other_in.as_ref(), Keep { dtype, again: true })?.1,
            };
            segment.backward(&x_in, other_in.as_ref(), inner, outcome)
        };
        let backward = move |outcome: (&Tensor, &Tensor)| with_backend(backend, || backward(outcome));
        let features = in_one((x.features(), other), out.features(), &self.parameters(), backward)?;
        out.replace_feature(features)
    }
}

/// A convolution inside a segment. The channels of `beside` (the same sites, more channels) follow those of `x`; only a submanifold layer
/// may have them.
pub(crate) trait SegmentConv {
    /// The result in f32, whatever the type of `x`.
    fn forward_wide(&self, x: &SparseConvTensor, beside: Option<&Tensor>) -> Result<SparseConvTensor>;

    /// Gradients of the features of `x` with those beside them, added to `onto`, and of the weight, from the gradient of the result; all in
    /// f32 and without a tape.
    fn gradients(
        &self,
        x: &SparseConvTensor,
        beside: Option<&Tensor>,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]>;

    /// Its weight and, if it has one, its bias.
    fn weight_and_bias(&self) -> (&Tensor, Option<&Tensor>);

    /// The gradient of the input, as [`gradients`](Self::gradients) returns it, and those of the parameters.
    fn backward(
        &self,
        x: &SparseConvTensor,
        beside: Option<&Tensor>,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<(Tensor, Vec<ParameterGradient>)> {
        let [x_grad, weight_grad] = self.gradients(x, beside, grad, onto)?;
        let (weight, bias) = self.weight_and_bias();
        let mut parameters = vec![(weight.clone(), weight_grad)];
        if let Some(bias) = bias {
            parameters.push((bias.clone(), column_sums(grad)?.to_dtype(bias.dtype())?));
        }
        Ok((x_grad, parameters))
    }

    /// The result without its history.
    fn sums(&self, x: &SparseConvTensor, beside: Option<&Tensor>) -> Result<SparseConvTensor> {
        detached(self.forward_wide(x, beside)?)
    }
}

/// How a segment keeps inner values.
#[derive(Clone, Copy)]
pub(crate) struct Keep {
    pub dtype: DType,
    /// Whether the pass is repeated: running statistics do not change, and the output is known.
    pub again: bool,
}

impl Keep {
    /// The output without its history, unless it is known.
    pub fn output(self, of: impl FnOnce() -> Result<SparseConvTensor>) -> Result<Option<SparseConvTensor>> {
        if self.again { Ok(None) } else { Ok(Some(detached(of()?)?)) }
    }
}

/// The same features without their history.
pub(crate) fn detached(x: SparseConvTensor) -> Result<SparseConvTensor> {
    x.replace_feature(x.features().detach())
}
