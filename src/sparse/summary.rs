//! [`SequentialSummary`]: what each layer of a [`SparseSequential`](super::SparseSequential) does to one input.

use std::time::Duration;

/// The row of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct SequentialLayer {
    /// Type and sizes, as [`LayerDescription::kind`](super::LayerDescription::kind).
    pub kind: String,
    /// Number of output sites.
    pub sites: usize,
    /// Number of output channels.
    pub channels: usize,
    /// Grid (z, y, x) of the output.
    pub spatial_shape: [usize; 3],
    /// Number of learned parameters.
    pub parameters: usize,
    /// The time that it ran.
    pub time: Duration,
}

/// The layers of a sequence on one input, in the order in which they ran.
#[derive(Clone, Debug, PartialEq)]
pub struct SequentialSummary {
    /// One row for each layer.
    pub layers: Vec<SequentialLayer>,
    /// Number of sites and channels of the input.
    pub input: [usize; 2],
}

impl SequentialSummary {
    /// Number of learned parameters of all layers.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameters).sum()
    }

    /// The time that all layers ran.
    pub fn time(&self) -> Duration {
        self.layers.iter().map(|layer| layer.time).sum()
    }
}
