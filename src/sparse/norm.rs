//! [`BatchNorm`]: batch normalisation over the active sites.
//!
//! `y = (x − mean) / sqrt(var + eps) · weight + bias`, per channel over all N rows of all batch elements, as
//! `torch.nn.BatchNorm1d` on `features` (Ioffe & Szegedy 2015). Training uses the batch's mean and biased variance and
//! moves the running mean and the running unbiased variance by `momentum`; evaluation uses the running ones.

use candle_core::{DType, Tensor, Var};
use candle_nn::{BatchNormConfig, Init, VarBuilder};

use super::module::SparseModule;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// Batch normalisation of features (N, C).
///
/// Parameters: `weight`, `bias`, `running_mean`, `running_var`, each (C,). Statistics are computed in f32 or better whatever
/// the features' type.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    name: String,
    weight_and_bias: Option<(Tensor, Tensor)>,
    running_mean: Var,
    running_var: Var,
    config: BatchNormConfig,
}

impl BatchNorm {
    /// Batch normalisation of `channels` channels with eps 1e-5, momentum 0.1 and learned scale and shift.
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Self::with_config(channels, BatchNormConfig::default(), vb)
    }

    /// Batch normalisation with its own eps, momentum or without scale and shift.
    ///
    /// # Errors
    /// A negative eps, a momentum outside 0 to 1, or `remove_mean: false`, which PyTorch does not have.
    pub fn with_config(channels: usize, config: BatchNormConfig, vb: VarBuilder) -> Result<Self> {
        let momentum_fits = (0.0..=1.0).contains(&config.momentum);
        if config.eps < 0.0 || !momentum_fits || !config.remove_mean {
            return Err(Error::Argument {
                op: "BatchNorm",
                name: "config",
                got: format!("{config:?}"),
                expected: "eps of 0 or more, momentum in 0..=1, remove_mean true".into(),
            });
        }
        let get = |name, value| vb.get_with_hints(channels, name, Init::Const(value));
        Ok(Self {
            name: vb.prefix(),
            weight_and_bias: if config.affine { Some((get("weight", 1.0)?, get("bias", 0.0)?)) } else { None },
            running_mean: Var::from_tensor(&get("running_mean", 0.0)?)?,
            running_var: Var::from_tensor(&get("running_var", 1.0)?)?,
            config,
        })
    }

    /// Number of channels C.
    pub fn channels(&self) -> usize {
        self.running_mean.dims()[0]
    }

    /// Running mean (C,).
    pub fn running_mean(&self) -> &Tensor {
        &self.running_mean
    }

    /// Running variance (C,).
    pub fn running_var(&self) -> &Tensor {
        &self.running_var
    }

    /// Mean and biased variance (1, C) of the batch, which also move the running ones.
    fn batch_statistics(&self, x: &Tensor, rows: usize) -> Result<(Tensor, Tensor)> {
        if rows == 1 {
            return Err(Error::Argument {
                op: "BatchNorm",
                name: "x",
                got: format!("one site in training mode, in layer `{}`", self.name),
                expected: "two or more: one value has no variance".into(),
            });
        }
        let mean = x.mean_keepdim(0)?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
        let momentum = self.config.momentum;
        for (running, batch, scale) in
            [(&self.running_mean, &mean, 1.0), (&self.running_var, &variance, rows as f64 / (rows - 1) as f64)]
        {
            let batch = (batch.detach().flatten_all()?.to_dtype(running.dtype())? * (momentum * scale))?;
            running.set(&((running.as_detached_tensor() * (1.0 - momentum))? + batch)?)?;
        }
        Ok((mean, variance))
    }
}

impl SparseModule for BatchNorm {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        if x.channels() != self.channels() {
            return Err(Error::Shape {
                op: "BatchNorm",
                what: "features",
                got: x.features().dims().to_vec(),
                expected: format!("(sites, {}) in layer `{}`", self.channels(), self.name),
            });
        }
        if x.is_empty() {
            return Ok(x.clone());
        }
        let dtype = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let features = x.features().to_dtype(dtype)?;
        let (mean, variance) = if train {
            self.batch_statistics(&features, x.len())?
        } else {
            let row = |v: &Var| v.as_detached_tensor().to_dtype(dtype)?.unsqueeze(0);
            (row(&self.running_mean)?, row(&self.running_var)?)
        };
        let scale = (variance + self.config.eps)?.sqrt()?;
        let mut y = features.broadcast_sub(&mean)?.broadcast_div(&scale)?;
        if let Some((weight, bias)) = &self.weight_and_bias {
            y = y.broadcast_mul(&weight.to_dtype(dtype)?)?.broadcast_add(&bias.to_dtype(dtype)?)?;
        }
        x.replace_feature(y.to_dtype(x.dtype())?)
    }
}
