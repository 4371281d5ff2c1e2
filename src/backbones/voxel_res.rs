//! [`VoxelResBackBone8x`]: OpenPCDet's residual backbone for LiDAR detection.

use std::sync::Arc;

use candle_nn::{BatchNormConfig, VarBuilder};

use super::block::{BlockNames, ConvNormRelu, ResidualBlock, norm_config, run_all};
use crate::Result;
use crate::sparse::{AllReduce, BatchNorm, ConvConfig, SparseConv3d, SparseConvTensor, SparseModule, SubMConv3d};

/// Widths of [`VoxelResBackBone8x`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VoxelResConfig {
    /// Channels of the voxels' features. Default 4.
    pub in_channels: usize,
    /// Channels at strides 1, 2, 4 and 8. Default 16, 32, 64, 128.
    pub channels: [usize; 4],
    /// Channels of the output. Default 128.
    pub out_channels: usize,
    /// Padding along z of the last convolution: OpenPCDet's `last_pad`. Default 0.
    pub last_pad: usize,
}

impl Default for VoxelResConfig {
    fn default() -> Self {
        Self { in_channels: 4, channels: [16, 32, 64, 128], out_channels: 128, last_pad: 0 }
    }
}

setters! {
    VoxelResConfig {
        in_channels(in_channels: usize) => in_channels = in_channels;
        channels(channels: [usize; 4]) => channels = channels;
        out_channels(out_channels: usize) => out_channels = out_channels;
        last_pad(last_pad: usize) => last_pad = last_pad;
    }
}

/// The output of [`VoxelResBackBone8x`] for a detection head.
#[derive(Clone, Debug)]
pub struct VoxelResFeatures {
    /// `encoded_spconv_tensor`, at stride 8, and 16 along z.
    pub encoded: SparseConvTensor,
    /// `multi_scale_3d_features`: `x_conv1` to `x_conv4`, at strides 1, 2, 4 and 8.
    pub scales: [SparseConvTensor; 4],
}

struct Stage {
    down: Option<ConvNormRelu<SparseConv3d>>,
    blocks: Vec<ResidualBlock>,
}

/// OpenPCDet's `VoxelResBackBone8x`: from voxels of a LiDAR sweep on a grid (z, y, x), usually `[41, 1600, 1408]`, to features at stride 8.
/// As a module it returns `encoded`; [`features`](Self::features) returns all scales.
pub struct VoxelResBackBone8x {
    input: ConvNormRelu<SubMConv3d>,
    stages: Vec<Stage>,
    output: ConvNormRelu<SparseConv3d>,
}

const NAMES: BlockNames = BlockNames { norms: ["bn1", "bn2"], shortcut: ["downsample.0", "downsample.1"] };

impl VoxelResBackBone8x {
    /// Builds the network. Its parameters have OpenPCDet's names (`conv_input.0.weight`, …).
    ///
    /// # Errors
    /// No channels, or parameters of another shape in `vb`.
    ///
    /// ```
    /// use wavemesh::backbones::{VoxelResBackBone8x, VoxelResConfig};
    /// use wavemesh::prelude::*;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// VoxelResBackBone8x::new(&VoxelResConfig::new().channels([4; 4]).out_channels(4), vb)?;
    /// let weight = variables.data().lock().unwrap()["conv_input.0.weight"].clone();
    /// assert_eq!(weight.dims(), [4, 3, 3, 3, 4]); // out, kz, ky, kx, in
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: &VoxelResConfig, vb: VarBuilder) -> Result<Self> {
        let norm = norm_config(1e-3, 0.01);
        let keyed = |key: &str| ConvConfig { bias: false, indice_key: Some(key.into()), ..Default::default() };
        let first = config.channels[0];
        let input = vb.pp("conv_input");
        let input = ConvNormRelu {
            conv: SubMConv3d::new(config.in_channels, first, 3, keyed("subm1"), input.pp(0))?,
            norm: BatchNorm::with_config(first, norm, input.pp(1))?,
        };
        let stages = (0..4).map(|level| Self::stage(config, level, norm, vb.pp(format!("conv{}", level + 1))));
        let output = vb.pp("conv_out");
        let last = ConvConfig { stride: [2, 1, 1], padding: [config.last_pad; 3], ..keyed("spconv_down2") };
        Ok(Self {
            input,
            stages: stages.collect::<Result<_>>()?,
            output: ConvNormRelu {
                conv: SparseConv3d::new(config.channels[3], config.out_channels, [3, 1, 1], last, output.pp(0))?,
                norm: BatchNorm::with_config(config.out_channels, norm, output.pp(1))?,
            },
        })
    }

    fn stage(config: &VoxelResConfig, level: usize, norm: BatchNormConfig, vb: VarBuilder) -> Result<Stage> {
        let channels = config.channels[level];
        let down = if level == 0 {
            None
        } else {
            let down = ConvConfig {
                stride: [2; 3],
                padding: if level == 3 { [0, 1, 1] } else { [1; 3] },
                bias: false,
                indice_key: Some(format!("spconv{}", level + 1)),
                ..Default::default()
            };
            Some(ConvNormRelu {
                conv: SparseConv3d::new(config.channels[level - 1], channels, 3, down, vb.pp("0.0"))?,
                norm: BatchNorm::with_config(channels, norm, vb.pp("0.1"))?,
            })
        };
        let key = format!("res{}", level + 1);
        let first = usize::from(level > 0);
        let blocks =
            (first..first + 2).map(|i| ResidualBlock::new([channels; 2], (&key, true), norm, &NAMES, vb.pp(i)));
        Ok(Stage { down, blocks: blocks.collect::<Result<_>>()? })
    }

    /// Runs the network; `train` is as in [`SparseModule::forward_t`].
    ///
    /// # Errors
    /// A number of channels other than the configuration's, or a grid too small for the strides.
    ///
    /// ```
    /// use wavemesh::backbones::{VoxelResBackBone8x, VoxelResConfig};
    /// use wavemesh::prelude::*;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let network = VoxelResBackBone8x::new(&VoxelResConfig::new().channels([4; 4]).out_channels(8), vb)?;
    /// let voxel = Tensor::ones((1, 4), DType::F32, &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(voxel, vec![[0, 20, 8, 8]], [41, 16, 16], 1)?;
    /// let found = network.features(&x, false)?;
    /// assert_eq!(found.scales.map(|scale| scale.spatial_shape()), [[41, 16, 16], [21, 8, 8], [11, 4, 4], [5, 2, 2]]);
    /// assert_eq!((found.encoded.spatial_shape(), found.encoded.channels()), ([2, 2, 2], 8));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn features(&self, x: &SparseConvTensor, train: bool) -> Result<VoxelResFeatures> {
        let mut x = self.input.forward_t(x, train)?;
        let mut scales = Vec::with_capacity(4);
        for stage in &self.stages {
            if let Some(down) = &stage.down {
                x = down.forward_t(&x, train)?;
            }
            x = run_all(&stage.blocks, &x, None, train)?;
            scales.push(x.clone());
        }
        let encoded = self.output.forward_t(&x, train)?;
        let scales = scales.try_into().unwrap_or_else(|_| unreachable!("there are four stages"));
        Ok(VoxelResFeatures { encoded, scales })
    }
}

impl SparseModule for VoxelResBackBone8x {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        Ok(self.features(x, train)?.encoded)
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.input.convert_sync_batchnorm(group);
        self.output.convert_sync_batchnorm(group);
        for stage in &self.stages {
            stage.down.iter().for_each(|layer| layer.convert_sync_batchnorm(group));
            stage.blocks.iter().for_each(|block| block.convert_sync_batchnorm(group));
        }
    }
}
