//! A summary of a network for a given input, layer by layer, like torchinfo.

use std::collections::HashSet;
use std::fmt;

use candle_core::DType;
use serde::Serialize;

use crate::sparse::SparseConvTensor;

/// The row of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// Name of its parameters.
    pub name: String,
    /// Type of the layer.
    pub kind: String,
    /// Number of output sites.
    pub sites: usize,
    /// Number of output channels.
    pub channels: usize,
    /// Trainable parameters.
    pub parameters: usize,
    /// Number of multiply-adds; a convolution counts the pairs of sites that exist.
    pub mult_adds: usize,
    /// Bytes of the output features, in the type in which a training step keeps them.
    pub bytes: usize,
}

impl LayerSummary {
    /// The row of a layer with the result `out`, which a training step keeps as `kept`.
    pub(super) fn new(
        (name, kind): (&str, String),
        (out, kept): (&SparseConvTensor, DType),
        parameters: usize,
        mult_adds: usize,
    ) -> Self {
        let (sites, channels) = (out.len(), out.channels());
        let bytes = sites * channels * kept.size_in_bytes();
        Self { name: name.into(), kind, sites, channels, parameters, mult_adds, bytes }
    }
}

/// The layers of a network on one input, and their sums. Prints as a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSummary {
    /// One row for each layer, in the order in which they ran.
    pub layers: Vec<LayerSummary>,
    /// Trainable parameters of the whole network, including layers that this input did not reach.
    pub parameters: usize,
    /// Bytes of parameters and running statistics.
    pub parameter_bytes: usize,
    /// Sites and channels of the input.
    pub input: [usize; 2],
}

impl ModelSummary {
    /// Number of multiply-adds of one forward pass.
    pub fn mult_adds(&self) -> usize {
        self.layers.iter().map(|layer| layer.mult_adds).sum()
    }

    /// Bytes of all layers' outputs: about what a training step without gradient checkpointing keeps for its backward pass.
    pub fn activation_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }
}

impl fmt::Display for ModelSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = "─".repeat(102);
        let [sites, channels] = self.input;
        writeln!(f, "WaveMeshUNet on {} sites × {channels} channels", thousands(sites))?;
        writeln!(
            f,
            "{line}\n{:<44}{:<22}{:>14}{:>11}{:>11}\n{line}",
            "layer", "kind", "output", "params", "mult-adds"
        )?;
        for layer in &self.layers {
            let output = format!("{} × {}", thousands(layer.sites), layer.channels);
            let (parameters, mult_adds) = (thousands(layer.parameters), short(layer.mult_adds));
            writeln!(f, "{:<44}{:<22}{output:>14}{parameters:>11}{mult_adds:>11}", layer.name, layer.kind)?;
        }
        writeln!(f, "{line}\nparameters        {}", thousands(self.parameters))?;
        writeln!(f, "mult-adds         {}", short(self.mult_adds()))?;
        writeln!(f, "parameter memory  {:.2} MB", self.parameter_bytes as f64 / 1e6)?;
        write!(f, "activations       {:.2} MB", self.activation_bytes() as f64 / 1e6)
    }
}

/// 1234567 as 1,234,567.
fn thousands(value: usize) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

/// 1234567 as 1.23 M.
fn short(value: usize) -> String {
    let value = value as f64;
    match value {
        v if v >= 1e9 => format!("{:.2} G", v / 1e9),
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e3 => format!("{:.2} k", v / 1e3),
        v => format!("{v}"),
    }
}

/// The number of pairs (fine, coarse) that a convolution with this kernel and stride and with padding `kernel / 2` joins.
pub(super) fn count_pairs(fine: &[[i32; 4]], coarse: &[[i32; 4]], kernel: usize, stride: usize) -> usize {
    if kernel == 1 && stride == 1 {
        return fine.len();
    }
    let occupied: HashSet<[i32; 4]> = fine.iter().copied().collect();
    let (kernel, stride) = (kernel as i32, stride as i32);
    let offsets: Vec<i32> = (0..kernel).map(|r| r - kernel / 2).collect();
    let mut pairs = 0;
    for &[b, z, y, x] in coarse {
        for dz in &offsets {
            for dy in &offsets {
                for dx in &offsets {
                    pairs += usize::from(occupied.contains(&[b, z * stride + dz, y * stride + dy, x * stride + dx]));
                }
            }
        }
    }
    pairs
}
