//! The residual block: two 3³ convolutions beside a shortcut.
//!
//! `relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`. The shortcut is a 1³ convolution with batch normalisation when
//! the channels or the sites change, else the input itself (He et al. 2016).

use candle_core::{DType, Var};
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
        let h = self.first(x, run)?;
        join(&self.second(&h, run)?, &self.straight(x, run)?, x.dtype())
    }

    /// Like [`forward`](Self::forward) in training, keeping for the backward pass only what goes into and comes out of each
    /// convolution with its normalisation.
    pub fn forward_checkpointed(&self, x: &SparseConvTensor, segments: &BlockSegments) -> Result<SparseConvTensor> {
        let block = self.clone();
        let h = segments.first.run(x, None, move |x, _, run| block.first(x, run))?;
        let block = self.clone();
        let h = segments.second.run(&h, None, move |h, _, run| block.second(h, run))?;
        let straight = match self.shortcut {
            Some(_) => {
                let block = self.clone();
                segments.shortcut.run(x, None, move |x, _, run| block.straight(x, run))?
            }
            None => x.clone(),
        };
        join(&h, &straight, x.dtype())
    }

    fn first(&self, x: &SparseConvTensor, run: &Run) -> Result<SparseConvTensor> {
        self.bn1.forward_relu(&self.conv1.forward_wide(x, run)?, x.dtype(), run)
    }

    fn second(&self, h: &SparseConvTensor, run: &Run) -> Result<SparseConvTensor> {
        self.bn2.forward(&self.conv2.forward_wide(h, run)?, run)
    }

    fn straight(&self, x: &SparseConvTensor, run: &Run) -> Result<SparseConvTensor> {
        match &self.shortcut {
            Some((conv, bn)) => bn.forward(&conv.forward_wide(x, run)?, run),
            None => Ok(x.clone()),
        }
    }
}

/// `relu(h + straight)`, summed in the wider type of both and rounded to `dtype`.
fn join(h: &SparseConvTensor, straight: &SparseConvTensor, dtype: DType) -> Result<SparseConvTensor> {
    let straight = straight.features().to_dtype(h.dtype())?;
    h.replace_feature((h.features() + straight)?.relu()?.to_dtype(dtype)?)
}

/// What checkpointing runs as one operation each: the whole block, with what leads to it, and within it the parts whose
/// inner values are worth forgetting.
#[derive(Clone, Debug)]
pub(super) struct BlockSegments {
    pub whole: Segment,
    first: Segment,
    second: Segment,
    shortcut: Segment,
}

impl BlockSegments {
    /// From the parameters found under `prefix`, and those under `before` that the whole takes in too.
    pub fn new(entries: &[(String, Var)], prefix: &str, before: Option<&str>) -> Self {
        let under = |parts: &[String]| {
            let chosen = |name: &str| parts.iter().any(|part| name.starts_with(part));
            Segment::new(entries.iter().filter(|(name, _)| chosen(name)))
        };
        let part = |part: &str| format!("{prefix}.{part}.");
        let mut whole = vec![format!("{prefix}.")];
        whole.extend(before.map(|before| format!("{before}.")));
        Self {
            whole: under(&whole),
            first: under(&[part("conv1"), part("bn1")]),
            second: under(&[part("conv2"), part("bn2")]),
            shortcut: under(&[part("shortcut")]),
        }
    }
}
