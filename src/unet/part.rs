//! [`Part`]: a [`Segment`] of this network, which runs in every mode.

use candle_core::{DType, Tensor};

use super::run::Run;
use crate::Result;
use crate::sparse::{Segment, SparseConvTensor};

/// A segment that has a pass for every [`Run`].
pub(super) trait Part: Segment {
    /// The output for `x` and, if there is one, another input.
    fn forward(&self, x: &SparseConvTensor, other: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor>;

    /// Runs the part forwards, as one operation if `run` requests that.
    fn run(&self, x: &SparseConvTensor, other: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        let dtype = run.precision.dtype();
        match (run.in_segments(), run.checkpoint) {
            (false, _) => self.forward(x, other, run),
            (true, false) => self.as_one(x, other, dtype),
            (true, true) => self.noted((x, other), dtype, |x, other| {
                Ok((self.forward(x, other, &Run { train: true, ..Run::default() })?, None))
            }),
        }
    }
}

/// The same features in `dtype`.
pub(super) fn rounded(x: &SparseConvTensor, dtype: DType) -> Result<SparseConvTensor> {
    x.replace_feature(x.features().to_dtype(dtype)?)
}
