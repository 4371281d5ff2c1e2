//! Cross-attention from sites to a context (Vaswani et al. 2017), within each batch element.
//!
//! With `n = LayerNorm(features)`: queries come from `n`, keys and values from the context, and the output is `n +
//! Dropout(Linear(attention))`. (The sum uses the normalised features, as in the original network.)

use candle_core::{D, DType, Module, Tensor};
use candle_nn::{Linear, VarBuilder};
use rand::Rng;

use super::config::UNetConfig;
use super::linear::{LayerNorm, linear};
use super::run::Run;
use super::summary::LayerSummary;
use crate::sparse::SparseConvTensor;
use crate::{Error, Result, random};

#[derive(Clone, Debug)]
pub(super) struct CrossAttention {
    name: String,
    heads: usize,
    context_dim: usize,
    dropout: f64,
    norm: LayerNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl CrossAttention {
    pub fn new(channels: usize, config: &UNetConfig, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            name: vb.prefix(),
            heads: config.num_heads,
            context_dim: config.context_dim,
            dropout: config.dropout,
            norm: LayerNorm::new(channels, vb.pp("norm"))?,
            to_q: linear(channels, channels, vb.pp("to_q"))?,
            to_k: linear(config.context_dim, channels, vb.pp("to_k"))?,
            to_v: linear(config.context_dim, channels, vb.pp("to_v"))?,
            to_out: linear(channels, channels, vb.pp("to_out").pp(0))?,
        })
    }

    /// `context` is (batch, views, context_dim).
    pub fn forward(&self, x: &SparseConvTensor, context: &Tensor, run: &Run) -> Result<SparseConvTensor> {
        let &[batch, views, width] = context.dims() else { return Err(self.bad_context(x, context)) };
        if batch != x.batch_size() || width != self.context_dim || views == 0 {
            return Err(self.bad_context(x, context));
        }
        let (sites, channels) = (x.len(), x.channels());
        if sites == 0 {
            return Ok(x.clone());
        }
        let normed = self.norm.forward(x.features())?; // (N, C)
        let context = context.to_dtype(DType::F32)?;
        let head_dim = channels / self.heads;
        let queries = (self.to_q.forward(&normed)? * (head_dim as f64).powf(-0.5))?;
        let split = |t: Tensor| t.reshape(((), views, self.heads, head_dim))?.transpose(1, 2)?.contiguous();
        let keys = split(self.to_k.forward(&context)?)?; // (batch, heads, views, head_dim)
        let values = split(self.to_v.forward(&context)?)?;

        let mut rows = vec![Vec::new(); batch];
        for (row, site) in x.coords().iter().enumerate() {
            rows[site[0] as usize].push(row as u32);
        }
        let mut order = Vec::with_capacity(sites);
        let mut parts = Vec::with_capacity(batch);
        for (element, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let count = rows.len();
            let index = Tensor::new(rows.as_slice(), x.device())?;
            let q = queries.index_select(&index, 0)?.reshape((count, self.heads, head_dim))?;
            let q = q.transpose(0, 1)?.contiguous()?; // (heads, n, head_dim)
            let scores = q.matmul(&keys.get(element)?.transpose(1, 2)?.contiguous()?)?; // (heads, n, views)
            let attended = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values.get(element)?)?;
            parts.push(attended.transpose(0, 1)?.reshape((count, channels))?);
            order.extend(rows);
        }
        let mut attended = Tensor::cat(&parts, 0)?; // rows grouped by batch element
        if !order.is_sorted() {
            let mut place = vec![0u32; sites];
            order.iter().enumerate().for_each(|(at, &row)| place[row as usize] = at as u32);
            attended = attended.index_select(&Tensor::new(place.as_slice(), x.device())?, 0)?;
        }
        let update = self.drop(self.to_out.forward(&attended)?, x, run)?;
        let y = run.pass_on(x.replace_feature((normed + update)?.to_dtype(x.dtype())?)?)?;
        run.report(|| {
            let linear = 2 * channels * (channels + self.context_dim + 2);
            let mult_adds = 2 * channels * (channels * sites + self.context_dim * batch * views + sites * views);
            LayerSummary::new((&self.name, "CrossAttention".into()), (&y, y.dtype()), linear + 2 * channels, mult_adds)
        });
        Ok(y)
    }

    /// Applies dropout (only in training) to an update (N, C) of `x`. An element's mask depends on the pass's seed, this layer's name and
    /// the element's number.
    fn drop(&self, update: Tensor, x: &SparseConvTensor, run: &Run) -> Result<Tensor> {
        if !run.train || self.dropout == 0.0 {
            return Ok(update);
        }
        let stream = self.name.bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let rng = |element| random::rng(random::seed_of(run.dropout_seed, run.first_element + element), stream);
        let mut rngs: Vec<_> = (0..x.batch_size()).map(rng).collect();
        let (keep, channels) = ((1.0 / (1.0 - self.dropout)) as f32, update.dim(1)?);
        let mut mask: Vec<f32> = Vec::with_capacity(update.elem_count());
        for site in x.coords().iter() {
            let rng = &mut rngs[site[0] as usize];
            mask.extend((0..channels).map(|_| if rng.random_bool(self.dropout) { 0.0 } else { keep }));
        }
        Ok((&update * Tensor::from_vec(mask, update.dims(), update.device())?)?)
    }

    fn bad_context(&self, x: &SparseConvTensor, context: &Tensor) -> Error {
        Error::Shape {
            op: "WaveMeshUNet::forward",
            what: "context",
            got: context.dims().to_vec(),
            expected: format!("({}, views, {}): batch, views, context_dim", x.batch_size(), self.context_dim),
        }
    }
}
