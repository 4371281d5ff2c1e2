//! A block of a vision transformer (Dosovitskiy et al. 2021), with layer scale (Touvron et al. 2021).

use candle_core::{D, Module, Tensor};
use candle_nn::{Init, LayerNorm, Linear, VarBuilder, layer_norm, linear, ops::softmax_last_dim};

use super::config::{DinoV2Config, FeedForward};
use crate::Result;

/// What layer normalisations add to a variance.
pub(super) const EPS: f64 = 1e-6;

/// `x + γ₁ · attention(norm₁(x))`, then `x + γ₂ · mlp(norm₂(x))`.
#[derive(Clone, Debug)]
pub(super) struct Block {
    norms: [LayerNorm; 2],
    attention: Attention,
    mlp: Mlp,
    /// γ₁ and γ₂, (hidden,) each.
    scales: [Tensor; 2],
}

impl Block {
    pub fn new(config: &DinoV2Config, heads: usize, vb: VarBuilder) -> Result<Self> {
        let width = config.hidden_size;
        let norm = |name| layer_norm(width, EPS, vb.pp(name));
        let scale = |name| vb.pp(name).get_with_hints(width, "gamma", Init::Const(1.0));
        Ok(Self {
            norms: [norm("norm1")?, norm("norm2")?],
            attention: Attention::new(width, heads, vb.pp("attn"))?,
            mlp: Mlp::new(width, config.feed_forward, vb.pp("mlp"))?,
            scales: [scale("ls1")?, scale("ls2")?],
        })
    }

    /// `x` is (batch, tokens, hidden), and so is the result.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [norm1, norm2] = &self.norms;
        let [scale1, scale2] = &self.scales;
        let x = (x + self.attention.forward(&norm1.forward(x)?)?.broadcast_mul(scale1)?)?;
        Ok((&x + self.mlp.forward(&norm2.forward(&x)?)?.broadcast_mul(scale2)?)?)
    }
}

/// Attention of all tokens to all (Vaswani et al. 2017).
#[derive(Clone, Debug)]
struct Attention {
    heads: usize,
    /// Queries, keys and values of all heads: (3 · hidden, hidden).
    qkv: Linear,
    proj: Linear,
}

impl Attention {
    fn new(width: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { heads, qkv: linear(width, 3 * width, vb.pp("qkv"))?, proj: linear(width, width, vb.pp("proj"))? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let head = width / self.heads;
        let qkv = self.qkv.forward(x)?.reshape((batch, tokens, 3, self.heads, head))?;
        let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?; // (3, batch, heads, tokens, head)
        let (q, k, v) = ((qkv.get(0)? * (head as f64).powf(-0.5))?, qkv.get(1)?, qkv.get(2)?);
        let shares = softmax_last_dim(&q.matmul(&k.t()?)?)?; // (batch, heads, tokens, tokens)
        let y = shares.matmul(&v)?.transpose(1, 2)?; // (batch, tokens, heads, head)
        Ok(self.proj.forward(&y.reshape((batch, tokens, width))?)?)
    }
}

#[derive(Clone, Debug)]
enum Mlp {
    Gelu(Linear, Linear),
    SwiGlu(Linear, Linear),
}

impl Mlp {
    fn new(width: usize, kind: FeedForward, vb: VarBuilder) -> Result<Self> {
        Ok(match kind {
            FeedForward::Gelu(inner) => {
                Self::Gelu(linear(width, inner, vb.pp("fc1"))?, linear(inner, width, vb.pp("fc2"))?)
            }
            FeedForward::SwiGlu(inner) => {
                Self::SwiGlu(linear(width, 2 * inner, vb.pp("w12"))?, linear(inner, width, vb.pp("w3"))?)
            }
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu(first, last) => last.forward(&first.forward(x)?.gelu_erf()?)?,
            Self::SwiGlu(first, last) => {
                let halves = first.forward(x)?.chunk(2, D::Minus1)?; // (batch, tokens, inner) each
                last.forward(&(halves[0].silu()? * &halves[1])?)?
            }
        })
    }
}
