//! [`SyncBatchNorm`]: batch normalisation over a batch that several processes hold in parts.

use std::sync::Arc;

use candle_nn::{BatchNormConfig, VarBuilder};

use super::module::{LayerDescription, SparseModule};
use super::norm::BatchNorm;
use super::sync::AllReduce;
use super::tensor::SparseConvTensor;
use crate::Result;

/// `torch.nn.SyncBatchNorm`: a [`BatchNorm`] whose mean, variance and gradients are those of the sites of all members of a group. A member
/// may hold any number of sites, also none. Evaluation does not communicate.
///
/// The gradients of weight and bias are those of the member's own sites, as in torch: the training sums them like all other gradients.
/// Parameters have the same names as in `BatchNorm`.
#[derive(Clone, Debug)]
pub struct SyncBatchNorm(BatchNorm);

impl SyncBatchNorm {
    /// A layer for `channels` channels over a group, with eps 1e-5 and momentum 0.1.
    ///
    /// # Errors
    /// The same errors as [`BatchNorm::with_config`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::{AllReduce, SyncBatchNorm};
    /// # struct Alone;
    /// # impl AllReduce for Alone {
    /// #     fn all_reduce(&self, _values: &mut [f64]) -> wavemesh::Result<()> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// let group: Arc<dyn AllReduce> = Arc::new(Alone); // a group of one, for which it is a BatchNorm
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let y = SyncBatchNorm::new(1, &group, vb)?.forward_t(&x, true)?.features().to_vec2::<f32>()?;
    /// assert!((y[0][0] + 1.0).abs() < 1e-4 && (y[1][0] - 1.0).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(channels: usize, group: &Arc<dyn AllReduce>, vb: VarBuilder) -> Result<Self> {
        Self::with_config(channels, BatchNormConfig::default(), group, vb)
    }

    /// A layer over a group with its own eps or momentum, or without scale and shift.
    ///
    /// # Errors
    /// The same errors as [`BatchNorm::with_config`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::{AllReduce, SyncBatchNorm};
    /// # struct Alone;
    /// # impl AllReduce for Alone {
    /// #     fn all_reduce(&self, _values: &mut [f64]) -> wavemesh::Result<()> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// let group: Arc<dyn AllReduce> = Arc::new(Alone); // a group of one, for which it is a BatchNorm
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let exact = BatchNormConfig { eps: 0.0, affine: false, ..Default::default() };
    /// let y = SyncBatchNorm::with_config(1, exact, &group, vb)?.forward_t(&x, true)?;
    /// assert_eq!(y.features().to_vec2::<f32>()?, [[-1.0], [1.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_config(
        channels: usize,
        config: BatchNormConfig,
        group: &Arc<dyn AllReduce>,
        vb: VarBuilder,
    ) -> Result<Self> {
        Ok(Self::from_batch_norm(BatchNorm::with_config(channels, config, vb)?, group))
    }

    /// A layer that shares the parameters and statistics of `norm`.
    pub fn from_batch_norm(norm: BatchNorm, group: &Arc<dyn AllReduce>) -> Self {
        norm.convert_sync_batchnorm(group);
        Self(norm)
    }
}

impl SparseModule for SyncBatchNorm {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        self.0.forward_t(x, train)
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: format!("SyncBatchNorm({})", self.0.channels()), ..self.0.describe() }
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.0.convert_sync_batchnorm(group);
    }
}
