//! Everything that a notebook cell needs, in one `use wavemesh::prelude::*;`.
//!
//! It re-exports `candle_core`, `candle_nn`, `plotters` and `serde_json`, so that a cell needs no `:dep` for them. Names of Rust's own
//! prelude keep their meaning: the library's result is `wavemesh::Result`.

pub use crate::device::best_device;
#[cfg(feature = "cuda")]
pub use crate::device::{gpu_info, trim_gpu_memory};
pub use crate::diffusion::{
    BetaSchedule, Clip, Denoiser, DiffusionConfig, GaussianDiffusion, LossOptions, Prediction, SampleOptions, Sampler,
    TimestepSpacing,
};
pub use crate::import::{Checkpoint, ImportOptions};
pub use crate::mesh::{self, Mesh, metrics::MeshComparison};
#[cfg(feature = "notebook")]
pub use crate::notebook::{
    self, Axis, Camera, ColorBy, Colormap, EvcxrDisplay, LivePlot, MeshPlot, MeshViewer, MimeBundle, Plot, PointPlot,
    PointViewer, ProgressBar, Rich, ShapeSheet, SliceGrid, Titled, VoxelPlot, VoxelViewer, Voxels, bars, clear_output,
    display, figure, histogram, hstack, plot, progress, scatter,
};
pub use crate::points::{Interpolation, PointCloud, Reduce, VoxelConfig, Voxelizer};
pub use crate::sdf::{DepthImage, SdfConfig, SdfGrid, Viewpoint, shapes};
pub use crate::sparse::{
    Activation, Backend, BatchNorm, BatchNormConfig, ConvConfig, OutputSites, PoolConfig, SparseAvgPool3d,
    SparseConv3d, SparseConvTensor, SparseConvTranspose3d, SparseGlobalAvgPool, SparseGlobalMaxPool,
    SparseInverseConv3d, SparseMaxPool3d, SparseModule, SparseSequential, SubMConv3d, backend_info, no_grad,
    with_backend,
};
#[cfg(feature = "train")]
pub use crate::train::{
    AdamW, AdamWConfig, DatasetConfig, Family, GenerateOptions, Generator, Representation, RepresentationConfig,
    ShapeDataset, Split, StageData, StageModel, TrainConfig, Trainer,
};
pub use crate::unet::{UNetConfig, WaveMeshUNet};
pub use crate::wavelet::{
    Mode, SparseWavelet, Threshold, Wavelet, WaveletConfig, WaveletLayout, dwt, idwt, wavedecn, waverecn,
};
pub use crate::{Error, task::check_interrupt};
pub use candle_core::{DType, Device, IndexOp, Module, Tensor};
pub use candle_nn::{VarBuilder, VarMap};
#[cfg(feature = "notebook")]
pub use plotters;
pub use {candle_core, candle_nn, serde_json};
