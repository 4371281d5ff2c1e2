//! One pass through the network: its mode, and who watches.

use std::cell::RefCell;

use candle_core::DType;

use super::config::Precision;
use super::summary::LayerSummary;
use crate::Result;
use crate::sparse::{Mode, SparseConvTensor};

/// The settings of a pass.
#[derive(Default)]
pub(super) struct Run {
    /// Whether batch statistics and dropout are on.
    pub train: bool,
    /// Whether the output can be differentiated. If not, each layer's input is freed after the next layer has read it.
    pub tape: bool,
    /// Whether to keep only the ends of blocks and compute the rest again in the backward pass.
    pub checkpoint: bool,
    /// The type of values that are kept to be read again later.
    pub precision: Precision,
    /// Seed of this pass's dropout.
    pub dropout_seed: u64,
    /// The index of the batch's first element in the larger batch, if it is a part of one.
    pub first_element: usize,
    /// Collects a row for each layer.
    pub watch: Option<RefCell<Vec<LayerSummary>>>,
}

impl Run {
    /// Whether each segment is one operation of the tape.
    pub fn in_segments(&self) -> bool {
        self.train && self.tape
    }

    /// The type of values that the decoder reads again. In training the ends of blocks stay f32: they go through another batch
    /// normalisation, which would enlarge rounding errors.
    pub fn skips(&self) -> DType {
        if self.train { DType::F32 } else { self.precision.dtype() }
    }

    /// Which mean and variance are used.
    pub fn mode(&self) -> Mode {
        if self.train { Mode::Batch } else { Mode::Running }
    }

    /// The output that a layer passes on: `y`, without its history if there is no tape.
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
