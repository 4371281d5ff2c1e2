//! One pass through the network: in which mode, and who watches.

use std::cell::RefCell;

use super::summary::LayerSummary;

/// How this pass is made.
#[derive(Default)]
pub(super) struct Run {
    /// Batch statistics and dropout.
    pub train: bool,
    /// Keep block ends only and compute the rest again in the backward pass.
    pub checkpoint: bool,
    /// Seed of this pass's dropout.
    pub dropout_seed: u64,
    /// Collects a row for each layer.
    pub watch: Option<RefCell<Vec<LayerSummary>>>,
}

impl Run {
    /// Reports a layer, if somebody watches.
    pub fn report(&self, row: impl FnOnce() -> LayerSummary) {
        if let Some(rows) = &self.watch {
            let row = row();
            rows.borrow_mut().push(row);
        }
    }
}
