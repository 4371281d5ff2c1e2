//! One pass through the network: in which mode, and who watches.

use std::cell::RefCell;

use candle_core::DType;

use super::summary::LayerSummary;
use crate::Result;
use crate::sparse::SparseConvTensor;

/// How this pass is made.
#[derive(Default)]
pub(super) struct Run {
    /// Batch statistics and dropout.
    pub train: bool,
    /// Whether what comes out can be differentiated. Without, each layer's input is free when the next has read it.
    pub tape: bool,
    /// Keep block ends only and compute the rest again in the backward pass.
    pub checkpoint: bool,
    /// Seed of this pass's dropout.
    pub dropout_seed: u64,
    /// Collects a row for each layer.
    pub watch: Option<RefCell<Vec<LayerSummary>>>,
}

impl Run {
    /// Whether every layer rounds its result to the network's precision. It does where results are kept (for a backward
    /// pass) or counted; in evaluation the input convolution and the encoder's blocks do, whose results are skips.
    pub fn rounds(&self) -> bool {
        self.train || self.watch.is_some()
    }

    /// What a layer hands on: `y`, without the operations that it came from if there is no tape.
    pub fn pass_on(&self, y: SparseConvTensor) -> Result<SparseConvTensor> {
        if self.tape { Ok(y) } else { y.replace_feature(y.features().detach()) }
    }

    /// The type of features that the next layer alone reads, where `dtype` is that of features that are kept.
    pub fn inner(&self, dtype: DType) -> DType {
        if self.rounds() { dtype } else { DType::F32 }
    }

    /// Reports a layer, if somebody watches.
    pub fn report(&self, row: impl FnOnce() -> LayerSummary) {
        if let Some(rows) = &self.watch {
            let row = row();
            rows.borrow_mut().push(row);
        }
    }
}
