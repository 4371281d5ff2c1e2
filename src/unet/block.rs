//! The residual block: two 3³ convolutions and a shortcut.
//!
//! `relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`. The shortcut is a 1³ convolution with batch normalisation if the channels or the
//! sites change, otherwise the input itself. [`ResidualSegment`] trains it.

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::layers::{ConvLayer, NormLayer};
use super::part::Part;
use super::run::Run;
use crate::Result;
use crate::sparse::{AllReduce, Residual, ResidualSegment, SparseConvTensor};

#[derive(Clone, Debug)]
pub(super) struct ResidualBlock {
    conv1: ConvLayer,
    bn1: NormLayer,
    conv2: ConvLayer,
    bn2: NormLayer,
    shortcut: Option<(ConvLayer, NormLayer)>,
}

/// A block's place in the network: its channels, its stride, and the names of its kernel maps.
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

    pub fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        let shortcut = self.shortcut.iter().map(|(_, norm)| norm);
        [&self.bn1, &self.bn2].into_iter().chain(shortcut).for_each(|norm| norm.convert_sync_batchnorm(group));
    }

    /// The output, in the type of `x`. The channels of `skip`, which a block of the decoder may have, follow those of `x`.
    pub fn forward(&self, x: &SparseConvTensor, skip: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        let kept = run.precision.dtype();
        let h = {
            let h = self.bn1.relu(&self.conv1.forward(x, skip, kept, run)?, run)?;
            self.conv2.forward(&h, None, kept, run)?
        };
        let other = match &self.shortcut {
            Some((conv, _)) => &conv.forward(x, skip, kept, run)?,
            None => x,
        };
        self.bn2.join(&h, self.layers().added(other), x.dtype(), run)
    }
}

impl ResidualSegment for ResidualBlock {
    fn layers(&self) -> Residual<'_> {
        let shortcut = self.shortcut.as_ref();
        Residual {
            convs: [self.conv1.layer(), self.conv2.layer()],
            norms: [self.bn1.layer(), self.bn2.layer()],
            shortcut: shortcut.map(|(conv, norm)| (conv.layer(), norm.layer())),
        }
    }
}

/// A block of the encoder, whose only input is `x`.
impl Part for ResidualBlock {
    fn forward(&self, x: &SparseConvTensor, _: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        self.forward(x, None, run)
    }
}
