//! The shape of a [`WaveMeshUNet`](super::WaveMeshUNet).

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The type of features that are kept to be read again later. Everything else is `f32`: parameters, gradients, sums, statistics, and what
/// one layer passes to the next.
///
/// In training, the values inside blocks that the backward pass will read are rounded to this type; the ends of blocks stay `f32`. The
/// output equals that of `F32`, gradients differ a little, and a step takes less than three quarters of the memory of one in `F32` (tested on
/// a shell in a 64³ grid; measured 71%). In evaluation, the values that the decoder will read again are rounded: the results of the input convolution
/// and of the encoder's blocks. A pass without gradients then takes 77% of the memory there.
///
/// The errors below are relative to the largest value of the output or gradient, for the two networks that the tests compare. Other
/// networks may have smaller or larger errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats: three digits. No output in evaluation is off by 1% (tested; measured 0.3%), and no gradient in training (tested;
    /// measured 0.1%).
    F16,
    /// bfloat16: the range of `f32`, but two digits. No output in evaluation is off by 1% (tested; measured 0.2%), and no gradient in
    /// training (tested; measured 0.4%).
    Bf16,
}

impl Precision {
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// More channels than this would not fit in memory anyway, and their sums stay far from overflow.
const MOST_CHANNELS: usize = 1 << 24;

/// Channels, strides, attention and memory options of a [`WaveMeshUNet`](super::WaveMeshUNet).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct UNetConfig {
    /// Channels of the input features.
    pub in_channels: usize,
    /// Channels of the output features.
    pub out_channels: usize,
    /// Channels after the input convolution and after each encoder block.
    pub encoder_channels: Vec<usize>,
    /// Strides of the same stages. The first is that of the input convolution and must be 1.
    pub encoder_strides: Vec<usize>,
    /// Channels from the deepest level upwards: to run the network, they must be the encoder's in reverse order.
    pub decoder_channels: Vec<usize>,
    /// Width of the sinusoidal time embedding.
    pub time_emb_dim: usize,
    /// Whether the timestep also scales and shifts the output of each block, channel by channel. Otherwise it only joins the input.
    pub modulation: bool,
    /// Whether decoder blocks attend to a context.
    pub use_attention: bool,
    /// Attention heads; must divide the channel count of every decoder level with attention.
    pub num_heads: usize,
    /// Channels of the context.
    pub context_dim: usize,
    /// Widths of the layers of a small network that is trained along and reads each row of the context before the attention does; empty for
    /// none. SiLU separates the layers.
    pub context_layers: Vec<usize>,
    /// Whether attention is added to the features themselves, and begins at zero: a network then has the same output with a context as
    /// without until it is trained, and a batch element whose context is all zeros has the output of one without a context. Sites then also
    /// ask with their place, and the mean of the context is added to the time embedding. If not, attention is added to the normalised features, as in the original network.
    pub attention_residual: bool,
    /// Dropout after attention, 0 to 1, only in training.
    pub dropout: f64,
    /// Whether training keeps only the ends of each level and computes the rest again in the backward pass. The gradients are the same;
    /// this takes two thirds of the memory (tested on a shell in a 64³ grid) and one more forward pass.
    pub gradient_checkpointing: bool,
    /// The type in which features are kept.
    pub precision: Precision,
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self {
            in_channels: 1,
            out_channels: 1,
            encoder_channels: vec![32, 64, 128, 256],
            encoder_strides: vec![1, 2, 2, 2],
            decoder_channels: vec![256, 128, 64, 32],
            time_emb_dim: 128,
            modulation: false,
            use_attention: true,
            num_heads: 8,
            context_dim: 768,
            context_layers: Vec::new(),
            attention_residual: false,
            dropout: 0.1,
            gradient_checkpointing: false,
            precision: Precision::F32,
        }
    }
}

setters! {
    UNetConfig {
        in_channels(in_channels: usize) => in_channels = in_channels;
        out_channels(out_channels: usize) => out_channels = out_channels;
        encoder_channels(encoder_channels: impl Into<Vec<usize>>) => encoder_channels = encoder_channels.into();
        encoder_strides(encoder_strides: impl Into<Vec<usize>>) => encoder_strides = encoder_strides.into();
        decoder_channels(decoder_channels: impl Into<Vec<usize>>) => decoder_channels = decoder_channels.into();
        time_emb_dim(time_emb_dim: usize) => time_emb_dim = time_emb_dim;
        modulation(modulation: bool) => modulation = modulation;
        use_attention(use_attention: bool) => use_attention = use_attention;
        num_heads(num_heads: usize) => num_heads = num_heads;
        context_dim(context_dim: usize) => context_dim = context_dim;
        context_layers(context_layers: impl Into<Vec<usize>>) => context_layers = context_layers.into();
        attention_residual(attention_residual: bool) => attention_residual = attention_residual;
        dropout(dropout: f64) => dropout = dropout;
        gradient_checkpointing(gradient_checkpointing: bool) => gradient_checkpointing = gradient_checkpointing;
        precision(precision: Precision) => precision = precision;
    }
}

impl UNetConfig {
    /// A network with these encoder channels, mirrored in the decoder, with strides 1, 2, 2, … and no attention.
    pub fn plain(in_channels: usize, out_channels: usize, channels: &[usize]) -> Self {
        Self {
            in_channels,
            out_channels,
            encoder_channels: channels.to_vec(),
            encoder_strides: (0..channels.len()).map(|level| if level == 0 { 1 } else { 2 }).collect(),
            decoder_channels: channels.iter().rev().copied().collect(),
            use_attention: false,
            ..Self::default()
        }
    }

    /// Checks what building the network requires.
    pub(super) fn validate(&self) -> Result<()> {
        let problem = |name, got: String, expected: &str| {
            Err(Error::Argument { op: "WaveMeshUNet", name, got, expected: expected.into() })
        };
        for (name, channels) in
            [("encoder_channels", &self.encoder_channels), ("decoder_channels", &self.decoder_channels)]
        {
            if channels.is_empty() || channels.contains(&0) {
                return problem(name, format!("{channels:?}"), "at least one channel count, each 1 or more");
            }
        }
        let counts = self.encoder_channels.iter().chain(&self.decoder_channels);
        let counts = counts.chain([&self.in_channels, &self.out_channels, &self.time_emb_dim, &self.context_dim]);
        let counts = counts.chain(&self.context_layers);
        if let Some(count) = counts.copied().find(|&count| count > MOST_CHANNELS) {
            return problem("a number of channels", count.to_string(), "at most 2^24");
        }
        if self.in_channels == 0 || self.out_channels == 0 {
            let got = format!("{} and {}", self.in_channels, self.out_channels);
            return problem("in_channels and out_channels", got, "1 or more");
        }
        if self.time_emb_dim == 0 {
            return problem("time_emb_dim", "0".into(), "1 or more");
        }
        let strides = &self.encoder_strides;
        if strides.len() < self.encoder_channels.len() || strides.contains(&0) || strides.first() != Some(&1) {
            return problem(
                "encoder_strides",
                format!("{strides:?}"),
                "one for each encoder channel count, the first 1",
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return problem("dropout", self.dropout.to_string(), "0 or more, below 1");
        }
        if self.use_attention {
            if self.context_dim == 0 {
                return problem("context_dim", "0".into(), "1 or more, or use_attention: false");
            }
            if self.context_layers.contains(&0) {
                return problem("context_layers", format!("{:?}", self.context_layers), "widths of 1 or more");
            }
            if let Some(channels) =
                self.decoder_channels.iter().skip(1).find(|&c| self.num_heads == 0 || c % self.num_heads != 0)
            {
                let got = format!("{} heads for {channels} channels", self.num_heads);
                return problem("num_heads", got, "a divisor of every decoder channel count but the first");
            }
        }
        Ok(())
    }

    /// Checks what running the network requires: the decoder must undo the encoder.
    pub(super) fn check_runnable(&self) -> Result<()> {
        if self.decoder_channels.iter().eq(self.encoder_channels.iter().rev()) {
            return Ok(());
        }
        Err(Error::Argument {
            op: "WaveMeshUNet::forward",
            name: "decoder_channels",
            got: format!("{:?}", self.decoder_channels),
            expected: format!(
                "the encoder's channels reversed, {:?}, so that skips fit",
                self.encoder_channels.iter().rev().collect::<Vec<_>>()
            ),
        })
    }
}
