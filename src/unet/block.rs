//! The residual block: two 3³ convolutions beside a shortcut.
//!
//! `relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`. The shortcut is a 1³ convolution with batch normalisation when
//! the channels or the sites change, else the input itself (He et al. 2016).

use candle_core::Var;
use candle_nn::VarBuilder;

use super::layers::{ConvLayer, NormLayer};
use super::recompute::Segment;
use super::run::Run;
use crate::Result;
use crate::sparse::SparseConvTensor;

#[derive(Clone, Debug)]
pub(super) struct ResidualBlock {
    conv1: ConvLayer,
    bn1: NormLayer,
    conv2: ConvLayer,
    bn2: NormLayer,
    shortcut: Option<(ConvLayer, NormLayer)>,
}

/// Where a block stands: its channels, its stride, and the names of its kernel maps.
pub(super) struct Place<'a> {
    pub in_channels: usize,
    pub out_channels: usize,
    pub stride: usize,
    /// Key of the strided convolution, which a decoder inverts.
    pub down_key: &'a str,
    /// Key of the submanifold convolutions on the block's output sites.
    pub subm_key: &'a str,
}

impl ResidualBlock {
    pub fn new(place: &Place, vb: VarBuilder) -> Result<Self> {
        let &Place { in_channels, out_channels, stride, down_key, subm_key } = place;
        let channels = [in_channels, out_channels];
        let conv1 = vb.pp("conv1");
        let conv1 = if stride > 1 {
            ConvLayer::strided(channels, 3, stride, Some(down_key), conv1)?
        } else {
            ConvLayer::submanifold(channels, 3, false, Some(subm_key), conv1)?
        };
        let bn1 = NormLayer::new(out_channels, vb.pp("bn1"))?;
        let conv2 = ConvLayer::submanifold([out_channels; 2], 3, false, Some(subm_key), vb.pp("conv2"))?;
        let bn2 = NormLayer::new(out_channels, vb.pp("bn2"))?;
        let shortcut = vb.pp("shortcut");
        let shortcut = if stride > 1 {
            let conv = ConvLayer::strided(channels, 1, stride, None, shortcut.pp(0))?;
            Some((conv, NormLayer::new(out_channels, shortcut.pp(1))?))
        } else if in_channels != out_channels {
            let conv = ConvLayer::submanifold(channels, 1, false, None, shortcut.pp(0))?;
            Some((conv, NormLayer::new(out_channels, shortcut.pp(1))?))
        } else {
            None
        };
        Ok(Self { conv1, bn1, conv2, bn2, shortcut })
    }

    pub fn forward(&self, x: &SparseConvTensor, run: &Run) -> Result<SparseConvTensor> {
        let h = self.first_half(x, run)?;
        self.second_half(&h, x, run)
    }

    /// Like [`forward`](Self::forward), keeping only what goes into each half for the backward pass.
    pub fn forward_checkpointed(&self, x: &SparseConvTensor, halves: &[Segment; 2]) -> Result<SparseConvTensor> {
        let [first, second] = halves;
        let block = self.clone();
        let h = first.run(x, None, move |x, _, run| block.first_half(x, run))?;
        let block = self.clone();
        second.run(&h, Some(x), move |h, x, run| block.second_half(h, x.unwrap_or(h), run))
    }

    fn first_half(&self, x: &SparseConvTensor, run: &Run) -> Result<SparseConvTensor> {
        self.bn1.forward_relu(&self.conv1.forward(x, run)?, run)
    }

    fn second_half(&self, h: &SparseConvTensor, x: &SparseConvTensor, run: &Run) -> Result<SparseConvTensor> {
        let h = self.bn2.forward(&self.conv2.forward(h, run)?, run)?;
        let straight = match &self.shortcut {
            Some((conv, bn)) => bn.forward(&conv.forward(x, run)?, run)?,
            None => x.clone(),
        };
        h.replace_feature((h.features() + straight.features())?.relu()?)
    }
}

/// The segments of a block's two halves, from the parameters found under `prefix`.
pub(super) fn block_segments(entries: &[(String, Var)], prefix: &str) -> [Segment; 2] {
    let under = |parts: &[&str]| {
        let chosen = |name: &str| parts.iter().any(|part| name.starts_with(&format!("{prefix}.{part}.")));
        Segment::new(entries.iter().filter(|(name, _)| chosen(name)))
    };
    [under(&["conv1", "bn1"]), under(&["conv2", "bn2", "shortcut"])]
}
