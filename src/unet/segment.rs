//! Segments: parts of the network, each of which is one operation on the gradient tape ([`in_one`](crate::sparse::in_one)).
//!
//! A segment keeps what its backward pass reads, and frees each value after its last use; candle's tape would keep every value to the end,
//! and add up every gradient inside. With gradient checkpointing (Chen et al. 2016) nothing inside a segment is kept: the backward pass runs
//! its layers once more, and then goes back from the last to the first. In half precision the forward pass computes in f32 and keeps rounded
//! copies of what the backward pass will read, as Chakrabarti & Moseley 2019 do with fewer bits. So rounding changes no output, and changes a
//! gradient only where its own layer reads a copy.

use std::sync::Mutex;

use candle_core::{DType, Tensor};

use super::run::Run;
use crate::Result;
use crate::sparse::{PartGradients, SparseConvTensor, in_one};
use crate::sync::lock;

/// A part of the network between two ends, whose values are kept.
pub(super) trait Segment: Clone + Send + Sync + 'static {
    /// What the backward pass needs in addition to the inputs and the output.
    type Inner: Send;

    /// All of its parameters.
    fn parameters(&self) -> Vec<Tensor>;

    /// The output for `x` and, if there is one, another input.
    fn forward(&self, x: &SparseConvTensor, other: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor>;

    /// The same in training, from f32 inputs to an f32 output, without a tape. A repeated pass returns no output.
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

    /// Runs the segment forwards, as one operation if `run` requests that.
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
        let (segment, inner) = (self.clone(), Mutex::new(inner));
        let features = in_one((x.features(), other), out.features(), &self.parameters(), move |outcome| {
            let kept = lock(&inner).take();
            let inner = match kept {
                Some(inner) => inner,
                None => segment.forward_kept(&x_in, other_in.as_ref(), Keep { dtype, again: true })?.1,
            };
            segment.backward(&x_in, other_in.as_ref(), inner, outcome)
        })?;
        out.replace_feature(features)
    }
}

/// How a segment keeps inner values.
#[derive(Clone, Copy)]
pub(super) struct Keep {
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
pub(super) fn detached(x: SparseConvTensor) -> Result<SparseConvTensor> {
    x.replace_feature(x.features().detach())
}

/// The same features in `dtype`.
pub(super) fn rounded(x: &SparseConvTensor, dtype: DType) -> Result<SparseConvTensor> {
    x.replace_feature(x.features().to_dtype(dtype)?)
}
