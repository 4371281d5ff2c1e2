//! Cross-attention from sites to a context (Vaswani et al. 2017), within each batch element.
//!
//! With `n = LayerNorm(features)`: queries come from `n`, keys and values from the context, and the output is `n +
//! Dropout(Linear(attention))` (the sum uses the normalised features, as in the original network). A residual attention adds the same to the
//! features themselves, and its queries come from the normalised features and the place of each site.

use candle_core::{DType, Module, Tensor};
use candle_nn::{Linear, VarBuilder};
use rand::Rng;

use super::config::UNetConfig;
use super::context::{Context, ContextEncoder};
use super::linear::{LayerNorm, linear, over_rows, zero_linear};
use super::run::Run;
use super::summary::LayerSummary;
use crate::sparse::{PartGradients, SparseConvTensor, attend, in_one};
use crate::{Result, random};

#[derive(Clone, Debug)]
pub(super) struct CrossAttention {
    name: String,
    heads: usize,
    context_width: usize,
    dropout: f64,
    is_residual: bool,
    norm: LayerNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl CrossAttention {
    pub fn new(channels: usize, config: &UNetConfig, vb: VarBuilder) -> Result<Self> {
        let (width, to_out) = (ContextEncoder::width(config), vb.pp("to_out").pp(0));
        Ok(Self {
            name: vb.prefix(),
            heads: config.num_heads,
            context_width: width,
            dropout: config.dropout,
            is_residual: config.attention_residual,
            norm: LayerNorm::new(channels, vb.pp("norm"))?,
            to_q: linear(channels + if config.attention_residual { 3 } else { 0 }, channels, vb.pp("to_q"))?,
            to_k: linear(width, channels, vb.pp("to_k"))?,
            to_v: linear(width, channels, vb.pp("to_v"))?,
            to_out: if config.attention_residual {
                zero_linear(channels, channels, to_out)?
            } else {
                linear(channels, channels, to_out)?
            },
        })
    }

    pub fn forward(&self, x: &SparseConvTensor, context: &Context, run: &Run) -> Result<SparseConvTensor> {
        let (sites, channels, batch) = (x.len(), x.channels(), x.batch_size());
        if sites == 0 {
            return Ok(x.clone());
        }
        let views = context.rows.dim(1)?;
        let normed = self.norm.forward(x.features())?; // (N, C)
        let head_dim = channels / self.heads;
        let places = if self.is_residual { Some(places(x)?) } else { None };
        let queries = (over_rows(&self.to_q, &normed, places.as_ref())? * (head_dim as f64).powf(-0.5))?;
        let split = |t: Tensor| t.reshape((batch, (), self.heads, head_dim))?.transpose(1, 2)?.contiguous();
        let keys = split(self.to_k.forward(&context.rows)?)?; // (batch, heads, views, head_dim)
        let values = split(self.to_v.forward(&context.rows)?)?;
        let attended = match x.sites_of_each()? {
            // (batch, heads, n, head_dim) at once.
            Some(_) => attend(&split(queries)?, &keys, &values, None)?.transpose(1, 2)?.reshape((sites, channels))?,
            None => self.by_element(x, &queries, [&keys, &values])?,
        };
        let update = over_rows(&self.to_out, &attended, None)?;
        let update = match &context.told {
            Some(told) => only_told(&update, &x.broadcast_elements(told)?)?,
            None => update,
        };
        let update = self.drop(update, x, run)?;
        let onto = if self.is_residual { x.features().to_dtype(DType::F32)? } else { normed };
        let y = run.pass_on(x.replace_feature((onto + update)?.to_dtype(x.dtype())?)?)?;
        run.report(|| {
            let place = if self.is_residual { 3 } else { 0 };
            let linear = 2 * channels * (channels + self.context_width + 3) + place * channels;
            let mult_adds = 2 * channels * (channels * sites + self.context_width * batch * views + sites * views)
                + place * channels * sites;
            LayerSummary::new((&self.name, "CrossAttention".into()), (&y, y.dtype()), linear, mult_adds)
        });
        Ok(y)
    }

    /// What the sites (N, C) read from the context, element by element.
    fn by_element(&self, x: &SparseConvTensor, queries: &Tensor, [keys, values]: [&Tensor; 2]) -> Result<Tensor> {
        let channels = x.channels();
        let head_dim = channels / self.heads;
        let mut rows = vec![Vec::new(); x.batch_size()];
        for (row, site) in x.coords().iter().enumerate() {
            rows[site[0] as usize].push(row as u32);
        }
        let mut order = Vec::with_capacity(x.len());
        let mut parts = Vec::with_capacity(x.batch_size());
        for (element, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let count = rows.len();
            let index = Tensor::new(rows.as_slice(), x.device())?;
            let q = queries.index_select(&index, 0)?.reshape((count, self.heads, head_dim))?;
            let q = q.transpose(0, 1)?.contiguous()?; // (heads, n, head_dim)
            let attended = attend(&q, &keys.get(element)?, &values.get(element)?, None)?; // (heads, n, head_dim)
            parts.push(attended.transpose(0, 1)?.reshape((count, channels))?);
            order.extend(rows);
        }
        let attended = Tensor::cat(&parts, 0)?; // rows grouped by batch element
        if order.is_sorted() {
            return Ok(attended);
        }
        let mut place = vec![0u32; x.len()];
        order.iter().enumerate().for_each(|(at, &row)| place[row as usize] = at as u32);
        Ok(attended.index_select(&Tensor::new(place.as_slice(), x.device())?, 0)?)
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
}

/// `update` (N, C) times `told` (N, 1), which is no variable.
fn only_told(update: &Tensor, told: &Tensor) -> Result<Tensor> {
    let told = told.detach();
    let y = update.detach().broadcast_mul(&told)?;
    in_one((update, None), &y, &[], move |(_, grad)| {
        Ok(PartGradients { x: grad.broadcast_mul(&told)?, other: None, parameters: Vec::new() })
    })
}

/// The places of the sites in their grid, (N, 3): x, y, z from -1 to 1.
fn places(x: &SparseConvTensor) -> Result<Tensor> {
    /// The name of what is kept with the sites.
    enum Places {}
    x.kept_tensor::<Places>(|| {
        let shape = x.spatial_shape();
        let place = |site: &[i32; 4], axis: usize| (2 * site[1 + axis] + 1) as f32 / shape[axis] as f32 - 1.0;
        let rows: Vec<f32> = x.coords().iter().flat_map(|site| [2, 1, 0].map(|axis| place(site, axis))).collect();
        Ok(Tensor::from_vec(rows, (x.len(), 3), x.device())?)
    })
}
