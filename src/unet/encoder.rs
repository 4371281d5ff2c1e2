//! The encoder: an input convolution, then residual blocks that halve the grid.

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::block::{Place, ResidualBlock};
use super::config::UNetConfig;
use super::layers::{ConvLayer, NormLayer};
use super::part::Part;
use super::run::Run;
use super::time_embedding::{with_time, with_time_gradients};
use crate::Result;
use crate::sparse::{AllReduce, Keep, KeptNorm, PartGradients, Segment, Shortcut, SparseConvTensor, detached};

#[derive(Clone, Debug)]
pub(super) struct Encoder {
    pub input_conv: InputConv,
    pub blocks: Vec<ResidualBlock>,
}

/// Joins the time embedding, then SubM 3³ → batch normalisation → ReLU.
#[derive(Clone, Debug)]
pub(super) struct InputConv {
    conv: ConvLayer,
    norm: NormLayer,
}

impl InputConv {
    pub fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.norm.convert_sync_batchnorm(group);
    }
}

/// Its inputs are the network's features and the time embedding.
impl Segment for InputConv {
    type Inner = KeptNorm;

    fn parameters(&self) -> Vec<Tensor> {
        std::iter::once(self.conv.layer().weight_and_bias().0).chain(self.norm.layer().parameters()).cloned().collect()
    }

    fn forward_kept(
        &self,
        x: &SparseConvTensor,
        time: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Option<SparseConvTensor>, KeptNorm)> {
        let sums = self.conv.layer().sums(&with_time(x, the(time))?, None)?;
        let fused = self.norm.layer().over_batch(&sums, Shortcut::None, keep)?;
        Ok((keep.output(|| fused.forward())?, fused.kept(keep.dtype)?))
    }

    fn backward(
        &self,
        x: &SparseConvTensor,
        time: Option<&Tensor>,
        norm: KeptNorm,
        outcome: (&Tensor, &Tensor),
    ) -> Result<PartGradients> {
        let (sums_grad, mut parameters, _) = norm.backward(outcome)?;
        let joined = detached(with_time(x, the(time))?)?;
        let (joined_grad, found) = self.conv.layer().backward(&joined, None, &sums_grad, None)?;
        parameters.extend(found);
        let [x_grad, other] = with_time_gradients(x, the(time), &joined_grad)?;
        Ok(PartGradients { x: x_grad.to_dtype(x.dtype())?, other: Some(other), parameters })
    }
}

impl Part for InputConv {
    fn forward(&self, x: &SparseConvTensor, time: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        let x = run.pass_on(with_time(x, the(time))?)?;
        let sums = self.conv.forward(&x, None, run.precision.dtype(), run)?;
        self.norm.join(&sums, Shortcut::None, run.skips(), run)
    }
}

fn the(time: Option<&Tensor>) -> &Tensor {
    let Some(time) = time else { unreachable!("the network gives the time") };
    time
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

/// Key of the submanifold convolutions at `stage`. Stages joined by a stride of 1 have the same sites and share the key.
pub(super) fn subm_key(config: &UNetConfig, stage: usize) -> String {
    let resolution = config.encoder_strides.iter().take(stage + 1).filter(|&&stride| stride > 1).count();
    format!("subm{resolution}")
}
