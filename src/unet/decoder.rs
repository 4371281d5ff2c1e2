//! The decoder: inverse convolutions that restore the encoder's sites, skips, residual blocks, attention.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::attention::CrossAttention;
use super::block::{Place, ResidualBlock};
use super::config::UNetConfig;
use super::encoder::{down_key, subm_key};
use super::layers::ConvLayer;
use super::part::{Part, rounded};
use super::run::Run;
use crate::Result;
use crate::sparse::{Keep, PartGradients, ResidualInner, ResidualSegment, Segment, SparseConvTensor, joined};

#[derive(Clone, Debug)]
pub(super) struct Decoder {
    pub levels: Vec<DecoderLevel>,
}

#[derive(Clone, Debug)]
pub(super) struct DecoderLevel {
    pub upsample: ConvLayer,
    pub block: ResidualBlock,
    pub attention: Option<CrossAttention>,
}

/// The level without its attention: its inputs are `x` from below and the encoder's features at the finer sites.
impl Segment for DecoderLevel {
    /// The features from below on the finer sites, and the inner values of the block.
    type Inner = (SparseConvTensor, ResidualInner);

    fn parameters(&self) -> Vec<Tensor> {
        let mut all = self.block.parameters();
        all.push(self.upsample.layer().weight_and_bias().0.clone());
        all
    }

    fn forward_kept(
        &self,
        x: &SparseConvTensor,
        skip: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Option<SparseConvTensor>, Self::Inner)> {
        let up = self.upsample.layer().sums(x, None)?;
        let kept = rounded(&up, keep.dtype)?;
        let (out, inner) = self.block.layers().forward_kept(joined(up, skip)?, keep)?;
        Ok((out, (kept, inner)))
    }

    fn backward(
        &self,
        x: &SparseConvTensor,
        skip: Option<&Tensor>,
        (up, inner): Self::Inner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<PartGradients> {
        let PartGradients { x: up_grad, other, mut parameters } =
            Segment::backward(&self.block, &up, skip, inner, outcome)?;
        drop(up);
        let (x, found) = self.upsample.layer().backward(x, None, &up_grad, None)?;
        parameters.extend(found);
        Ok(PartGradients { x, other, parameters })
    }
}

impl Part for DecoderLevel {
    fn forward(&self, x: &SparseConvTensor, skip: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        let up = self.upsample.forward(x, None, run.precision.dtype(), run)?;
        match skip {
            // If they were joined, they would be kept twice; and half rows are copied anyway when they are read.
            Some(skip) if skip.dtype() != DType::F32 => self.block.forward(&up, Some(skip), run),
            _ => self.block.forward(&joined(up, skip)?, None, run),
        }
    }
}

impl Decoder {
    pub fn new(config: &UNetConfig, vb: VarBuilder) -> Result<Self> {
        let stages = config.encoder_channels.len();
        let levels = config.decoder_channels.windows(2).enumerate().map(|(level, pair)| {
            let (from, to) = (pair[0], pair[1]);
            // The encoder stage whose block this level undoes. A decoder longer than its encoder can be built, but not run.
            let stage = (stages - 1).saturating_sub(level);
            let stride = config.encoder_strides[stage];
            let (down, subm) = (down_key(stage), subm_key(config, stage.saturating_sub(1)));
            let vb_up = vb.pp("upsample_blocks").pp(level);
            let upsample = if stride > 1 {
                ConvLayer::inverse([from, to], 3, stride, &down, vb_up)?
            } else {
                ConvLayer::submanifold([from, to], 3, false, Some(&subm), vb_up)?
            };
            let place = Place { in_channels: 2 * to, out_channels: to, stride: 1, down_key: &down, subm_key: &subm };
            let block = ResidualBlock::new(&place, vb.pp("decoder_blocks").pp(level))?;
            let attention = if config.use_attention {
                Some(CrossAttention::new(to, config, vb.pp("attention_blocks").pp(level))?)
            } else {
                None
            };
            Ok(DecoderLevel { upsample, block, attention })
        });
        Ok(Self { levels: levels.collect::<Result<_>>()? })
    }
}
