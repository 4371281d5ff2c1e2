//! One pass through the network: in which mode, and who watches.

use std::cell::RefCell;

use candle_core::DType;

use super::config::Precision;
use super::summary::LayerSummary;
use crate::Result;
use crate::sparse::{Mode, SparseConvTensor};

/// How this pass is made.
#[derive(Default)]
pub(super) struct Run {
    /// Batch statistics and dropout.
    pub train: bool,
    /// Whether the output can be differentiated. If not, each layer's input is freed once the next layer has read it.
    pub tape: bool,
    /// Keep block ends only and compute the rest again in the backward pass.
    pub checkpoint: bool,
    /// The type in which values are kept that are read again after the pass has gone on.
    pub precision: Precision,
    /// Seed of this pass's dropout.
    pub dropout_seed: u64,
    /// Number of the batch's first element in the batch that it is a part of.
    pub first_element: usize,
    /// Collects a row for each layer.
    pub watch: Option<RefCell<Vec<LayerSummary>>>,
}

impl Run {
    /// Whether each segment is one operation, which keeps less for the backward pass than the tape would.
    pub fn in_segments(&self) -> bool {
        self.train && (self.checkpoint || self.precision != Precision::F32)
    }

    /// The type of what the decoder will read again. In training the ends of blocks stay f32, as they go through a batch
    /// normalisation once more, which enlarges rounding.
    pub fn skips(&self) -> DType {
        if self.train { DType::F32 } else { self.precision.dtype() }
    }

    /// Whose mean and variance normalise.
    pub fn mode(&self) -> Mode {
        if self.train { Mode::Batch } else { Mode::Running }
    }

    /// What a layer hands on: `y`, without the operations that it came from if there is no tape.
    pub fn pass_on(&self, y: SparseConvTensor) -> Result<SparseConvTensor> {
        if self.tape { Ok(y) } else { y.replace_feature(y.features().detach()) }
    }

    /// Reports a layer, if somebody watches.
    pub fn report(&self, row: impl FnOnce() -> LayerSummary) {
        if let Some(rows) = &self.watch {
            let row = row();
            rows.borrow_mut().push(row);
        }
    }
}
