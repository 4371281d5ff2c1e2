//! Keeps the estimate of `x_0` inside the range of the data.
//!
//! Features should be in normalised units, with one channel for each wavelet band. Static clipping is diffusers' `clip_sample`; dynamic
//! thresholding is that of Imagen (Saharia et al. 2022), here applied to each batch element and channel separately.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::sparse::SparseConvTensor;
use crate::{Error, Result};

/// What happens to the estimate of `x_0` at each sampling step.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Clip {
    /// No clipping.
    #[default]
    None,
    /// Every channel is clamped to ± the same limit (diffusers' `clip_sample_range`).
    Static(f64),
    /// Channel `i` is clamped to ± entry `i`: each normalised band keeps its own range.
    PerChannel(Vec<f64>),
    /// The limit is the `quantile` of `|x_0|` over the sites of a batch element and channel, but at least 1 and at most `max`. Values are
    /// clamped to the limit and divided by it.
    Dynamic {
        /// Share of the values that lie within the limit, 0 to 1.
        quantile: f64,
        /// The largest limit.
        max: f64,
    },
}

impl Clip {
    pub(super) fn validate(&self, channels: usize) -> Result<()> {
        let problem = |name, got: String, expected: String| Err(Error::Argument { op: "Clip", name, got, expected });
        match self {
            Self::None => Ok(()),
            Self::Static(limit) if *limit > 0.0 => Ok(()),
            Self::Static(limit) => problem("Static", limit.to_string(), "a limit above 0".into()),
            Self::PerChannel(limits) if limits.len() != channels => problem(
                "PerChannel",
                format!("{} limits", limits.len()),
                format!("one for each of {channels} channels"),
            ),
            Self::PerChannel(limits) if limits.iter().all(|&limit| limit > 0.0) => Ok(()),
            Self::PerChannel(limits) => problem("PerChannel", format!("{limits:?}"), "limits above 0".into()),
            Self::Dynamic { quantile, max } if (0.0..=1.0).contains(quantile) && *max >= 1.0 => Ok(()),
            Self::Dynamic { quantile, max } => problem(
                "Dynamic",
                format!("quantile {quantile}, max {max}"),
                "a quantile of 0 to 1 and a max of at least 1".into(),
            ),
        }
    }

    /// Clips `x0` (N, C), whose rows are the sites of `sites`.
    pub(super) fn apply(&self, x0: &Tensor, sites: &SparseConvTensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x0.clone()),
            Self::Static(limit) => Ok(x0.clamp(-limit, *limit)?),
            Self::PerChannel(limits) => {
                let limits: Vec<f32> = limits.iter().map(|&limit| limit as f32).collect();
                let high = Tensor::from_vec(limits, (1, x0.dim(1)?), x0.device())?.to_dtype(x0.dtype())?;
                Ok(x0.broadcast_minimum(&high)?.broadcast_maximum(&high.neg()?)?)
            }
            Self::Dynamic { quantile, max } => dynamic(x0, sites, *quantile, *max),
        }
    }
}

fn dynamic(x0: &Tensor, sites: &SparseConvTensor, quantile: f64, max: f64) -> Result<Tensor> {
    let channels = x0.dim(1)?;
    let mut values: Vec<f32> = x0.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
    let mut members = vec![Vec::new(); sites.batch_size()];
    for (row, site) in sites.coords().iter().enumerate() {
        members[site[0] as usize].push(row);
    }
    for rows in members.iter().filter(|rows| !rows.is_empty()) {
        for channel in 0..channels {
            let mut sizes: Vec<f32> = rows.iter().map(|&row| values[row * channels + channel].abs()).collect();
            sizes.sort_by(f32::total_cmp);
            // Linear interpolation between the two nearest ranks, as in torch.quantile.
            let rank = quantile * (sizes.len() - 1) as f64;
            let (low, part) = (rank as usize, rank.fract() as f32);
            let at_rank = sizes[low] + (sizes[(low + 1).min(sizes.len() - 1)] - sizes[low]) * part;
            let limit = at_rank.max(1.0).min(max as f32);
            for &row in rows {
                let value = &mut values[row * channels + channel];
                *value = value.clamp(-limit, limit) / limit;
            }
        }
    }
    Ok(Tensor::from_vec(values, x0.dims(), x0.device())?.to_dtype(x0.dtype())?)
}
