//! [`SequentialSummary`]: what each layer of a [`SparseSequential`](super::SparseSequential) does to one input.

use std::time::Duration;

/// One layer's row.
#[derive(Clone, Debug, PartialEq)]
pub struct SequentialLayer {
    /// Type and sizes, as [`LayerDescription::kind`](super::LayerDescription::kind).
    pub kind: String,
    /// Sites that came out.
    pub sites: usize,
    /// Channels that came out.
    pub channels: usize,
    /// Grid (z, y, x) of what came out.
    pub spatial_shape: [usize; 3],
    /// Numbers that the layer learns.
    pub parameters: usize,
    /// How long it ran.
    pub time: Duration,
}

/// The layers of a sequence on one input, in the order in which they ran.
#[derive(Clone, Debug, PartialEq)]
pub struct SequentialSummary {
    /// One row a layer.
    pub layers: Vec<SequentialLayer>,
    /// Sites and channels of the input.
    pub input: [usize; 2],
}

impl SequentialSummary {
    /// Numbers that all layers learn.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameters).sum()
    }

    /// How long all layers ran.
    pub fn time(&self) -> Duration {
        self.layers.iter().map(|layer| layer.time).sum()
    }
}
