//! spconv's sparse tensors and layers in pure Rust, with gradients, on a choice of [`Backend`]s.
//!
//! A [`SparseConvTensor`] holds features on the occupied sites of a batch of grids. Layers turn one such tensor into another; layers with
//! the same `indice_key` share a kernel map. Names, arguments and semantics are those of spconv 2; if a layer differs, its documentation
//! says so.
//!
//! | spconv | here |
//! | --- | --- |
//! | `SparseConvTensor(features, indices, spatial_shape, batch_size)` | [`SparseConvTensor::new`] |
//! | `SubMConv3d(16, 32, 3, bias=False, indice_key="a")` | [`SubMConv3d::new`]`(16, 32, 3, ConvConfig::new().bias(false).key("a"), vb)` |
//! | `SparseConv3d(16, 32, 3, stride=2, padding=1)` | [`SparseConv3d::new`]`(16, 32, 3, ConvConfig::new().stride(2).padding(1), vb)` |
//! | `SparseInverseConv3d(32, 16, 3, indice_key="down")` | [`SparseInverseConv3d::new`] |
//! | `SparseSequential(…)` | [`SparseSequential::new`]`().add(…).add(…)` |
//! | `SubMConv2d`, `SparseConv2d`, … | [`SubMConv2d`], [`SparseConv2d`], …, on tensors of indices (N, 3) |
//! | `sparse_add(a, b)` | [`SparseConvTensor::union_add`] |
//! | `torch.no_grad()` | [`no_grad`] |
//!
//! [`import`](crate::import) reads checkpoints; its documentation warns of spconv's 1×1×1 weights.

mod activation;
mod arithmetic;
mod attend;
mod attend_here;
mod attention;
mod backend;
mod column_sums;
mod concat;
mod conv;
mod curve;
mod dense;
mod elements;
mod geometry;
mod global_pool;
mod gradient_checkpoint;
mod grid;
mod group_norm;
mod in_one;
mod input;
mod inverse_conv;
mod kept;
mod kernel_map;
mod layer_norm;
pub(crate) mod layers;
mod lookup;
mod mixed_precision;
mod module;
mod norm;
mod normalize;
mod order;
mod pool;
mod position;
mod residual;
mod rows;
mod scatter;
mod segment;
mod sequential;
mod sets;
mod site_rule;
mod sites;
mod sparse_conv;
mod subm_conv;
mod summary;
mod sync;
mod sync_batch_norm;
mod tape;
mod tensor;
#[cfg(test)]
mod testing;
mod transpose_conv;

pub use activation::Activation;
pub(crate) use attend::attend;
pub use attention::{AttentionGroups, sparse_attention};
#[cfg(feature = "cuda")]
pub(crate) use backend::cuda::Placed;
#[cfg(feature = "cuda")]
pub use backend::cuda::set_exact_f32;
#[cfg(feature = "train")]
pub(crate) use backend::simd::dispatch;
pub use backend::{BACKEND_VARIABLE, Backend, BackendInfo, backend_info, with_backend};
pub use candle_nn::BatchNormConfig;
pub(crate) use column_sums::column_sums;
pub use conv::ConvConfig;
pub use curve::Curve;
pub(crate) use geometry::Kind;
pub use geometry::{Kind as ConvKind, OutputSites, Size, Size3};
pub use global_pool::{SparseGlobalAvgPool, SparseGlobalMaxPool, SparseGlobalSumPool};
pub use gradient_checkpoint::GradientCheckpoint;
pub use grid::GridShape;
pub use group_norm::{GroupNorm, InstanceNorm, LayerNorm};
pub(crate) use in_one::{PartGradients, in_one};
pub use inverse_conv::{SparseInverseConv, SparseInverseConv1d, SparseInverseConv2d, SparseInverseConv3d};
pub use kernel_map::{IndiceData, IndiceDict, KernelMap};
pub(crate) use layer_norm::layer_norm;
pub use mixed_precision::MixedPrecision;
pub use module::{LayerDescription, SparseModule};
pub use norm::BatchNorm;
pub(crate) use norm::{KeptNorm, Mode, Shortcut};
pub use pool::{
    PoolConfig, SparseAvgPool, SparseAvgPool1d, SparseAvgPool2d, SparseAvgPool3d, SparseInversePool,
    SparseInversePool1d, SparseInversePool2d, SparseInversePool3d, SparseMaxPool, SparseMaxPool1d, SparseMaxPool2d,
    SparseMaxPool3d, SparseSumPool, SparseSumPool1d, SparseSumPool2d, SparseSumPool3d,
};
pub(crate) use residual::{Residual, ResidualInner, ResidualSegment, joined};
pub use scatter::{Reduce, scatter};
pub(crate) use segment::{Keep, Segment, SegmentConv, detached};
pub use sequential::{IntoSparseModule, SparseSequential};
pub use site_rule::SiteRule;
pub use sparse_conv::{SparseConv, SparseConv1d, SparseConv2d, SparseConv3d};
pub use subm_conv::{SubMConv, SubMConv1d, SubMConv2d, SubMConv3d};
pub use summary::{SequentialLayer, SequentialSummary};
pub use sync::AllReduce;
pub use sync_batch_norm::SyncBatchNorm;
pub use tape::no_grad;
pub use tensor::SparseConvTensor;
pub use transpose_conv::{SparseConvTranspose, SparseConvTranspose1d, SparseConvTranspose2d, SparseConvTranspose3d};
