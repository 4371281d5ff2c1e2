//! The way down: an input convolution, then residual blocks that halve the grid.

use candle_nn::VarBuilder;

use super::block::{Place, ResidualBlock};
use super::config::UNetConfig;
use super::layers::{ConvLayer, NormLayer};
use crate::Result;

#[derive(Clone, Debug)]
pub(super) struct Encoder {
    pub input_conv: InputConv,
    pub blocks: Vec<ResidualBlock>,
}

/// SubM 3³ → batch normalisation (→ ReLU).
#[derive(Clone, Debug)]
pub(super) struct InputConv {
    pub conv: ConvLayer,
    pub norm: NormLayer,
}

impl Encoder {
    pub fn new(config: &UNetConfig, vb: VarBuilder) -> Result<Self> {
        let channels = &config.encoder_channels;
        let vb_input = vb.pp("input_conv");
        // The time embedding joins the features as channels[0] more channels.
        let input = [config.in_channels + channels[0], channels[0]];
        let input_conv = InputConv {
            conv: ConvLayer::submanifold(input, 3, false, Some(&subm_key(config, 0)), vb_input.pp(0))?,
            norm: NormLayer::new(channels[0], vb_input.pp(1))?,
        };
        let vb = vb.pp("encoder_blocks");
        let blocks = (1..channels.len())
            .map(|stage| {
                let place = Place {
                    in_channels: channels[stage - 1],
                    out_channels: channels[stage],
                    stride: config.encoder_strides[stage],
                    down_key: &down_key(stage),
                    subm_key: &subm_key(config, stage),
                };
                ResidualBlock::new(&place, vb.pp(stage - 1))
            })
            .collect::<Result<_>>()?;
        Ok(Self { input_conv, blocks })
    }
}

/// Key of the strided convolution that leads to `stage`.
pub(super) fn down_key(stage: usize) -> String {
    format!("down{stage}")
}

/// Key of the submanifold convolutions at `stage`. Stages that a stride of 1 joins have the same sites and share it.
pub(super) fn subm_key(config: &UNetConfig, stage: usize) -> String {
    let resolution = config.encoder_strides.iter().take(stage + 1).filter(|&&stride| stride > 1).count();
    format!("subm{resolution}")
}
