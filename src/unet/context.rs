//! The context of a pass: rows that are embeddings of something else (a picture, a text), to which the sites attend.

use candle_core::{DType, Module, Tensor};
use candle_nn::{Linear, VarBuilder};

use super::config::UNetConfig;
use super::linear::{linear, zero_linear};
use crate::{Error, Result};

/// Reads each row of a context: linear layers with SiLU between them, or none.
#[derive(Clone, Debug)]
pub(super) struct ContextEncoder {
    context_dim: usize,
    layers: Vec<Linear>,
    /// From the mean of the rows to what is added to the time embedding.
    summary: Option<Linear>,
    /// Whether zeros stand for no context.
    zeros_are_none: bool,
}

/// What the attention of each level reads.
pub(super) struct Context {
    /// (batch, views, width)
    pub rows: Tensor,
    /// (batch, 1): 1 for elements with a context, 0 for those without; `None` if all have one.
    pub told: Option<Tensor>,
    /// (batch, channels of the time embedding): what the whole network hears of the context together with the time.
    pub summary: Option<Tensor>,
}

impl ContextEncoder {
    pub fn new(config: &UNetConfig, vb: VarBuilder) -> Result<Self> {
        let outputs = if config.use_attention { config.context_layers.as_slice() } else { &[] };
        let inputs = [config.context_dim].into_iter().chain(outputs.iter().copied());
        let layers = inputs.zip(outputs).enumerate();
        let is_heard = config.use_attention && config.attention_residual;
        let summary = || zero_linear(Self::width(config), config.encoder_channels[0], vb.pp("summary"));
        Ok(Self {
            summary: is_heard.then(summary).transpose()?,
            context_dim: config.context_dim,
            layers: layers.map(|(at, (from, &to))| linear(from, to, vb.pp(at))).collect::<Result<_>>()?,
            zeros_are_none: config.attention_residual,
        })
    }

    /// Channels of its output.
    pub fn width(config: &UNetConfig) -> usize {
        config.context_layers.last().copied().unwrap_or(config.context_dim)
    }

    /// Reads `context` (batch, views, context_dim).
    pub fn forward(&self, context: &Tensor, batch: usize) -> Result<Context> {
        let fits = matches!(*context.dims(), [b, views, width] if b == batch && views > 0 && width == self.context_dim);
        if !fits {
            return Err(Error::Shape {
                op: "WaveMeshUNet::forward",
                what: "context",
                got: context.dims().to_vec(),
                expected: format!("({batch}, views, {}): batch, views, context_dim", self.context_dim),
            });
        }
        let mut rows = context.to_dtype(DType::F32)?;
        let told = if self.zeros_are_none {
            let largest = rows.abs()?.flatten_from(1)?.max(1)?; // (batch,)
            Some(largest.gt(0f32)?.to_dtype(DType::F32)?.reshape((batch, 1))?)
        } else {
            None
        };
        for (at, layer) in self.layers.iter().enumerate() {
            rows = layer.forward(&if at > 0 { rows.silu()? } else { rows })?;
        }
        let summary = match (&self.summary, &told) {
            (Some(summary), Some(told)) => Some(summary.forward(&rows.mean(1)?)?.broadcast_mul(told)?),
            _ => None,
        };
        Ok(Context { rows, told, summary })
    }
}
