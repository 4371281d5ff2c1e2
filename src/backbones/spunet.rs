//! [`SpUNet`]: Pointcept's sparse U-Net for semantic segmentation.

use std::sync::Arc;

use candle_nn::VarBuilder;

use super::block::{BlockNames, ConvNormRelu, ResidualBlock, norm_config, run_all};
use crate::sparse::{
    AllReduce, BatchNorm, ConvConfig, SparseConv3d, SparseConvTensor, SparseInverseConv3d, SparseModule, SubMConv3d,
};
use crate::{Error, Result};

/// Widths and depths of [`SpUNet`]. The default is `SpUNet-v1m1` as its authors train it on ScanNet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpUNetConfig {
    /// Channels of the voxels' features. The default 6 is for colour and normal.
    pub in_channels: usize,
    /// Number of classes. With 0 there is no last layer, and the output is the decoder's features.
    pub num_classes: usize,
    /// Channels of the stem.
    pub base_channels: usize,
    /// Channels of the encoder's levels, then of the decoder's from coarse to fine.
    pub channels: Vec<usize>,
    /// Number of residual blocks of each level.
    pub layers: Vec<usize>,
}

impl Default for SpUNetConfig {
    fn default() -> Self {
        Self {
            in_channels: 6,
            num_classes: 20,
            base_channels: 32,
            channels: vec![32, 64, 128, 256, 256, 128, 96, 96],
            layers: vec![2, 3, 4, 6, 2, 2, 2, 2],
        }
    }
}

setters! {
    SpUNetConfig {
        in_channels(in_channels: usize) => in_channels = in_channels;
        num_classes(num_classes: usize) => num_classes = num_classes;
        base_channels(base_channels: usize) => base_channels = base_channels;
        channels(channels: impl Into<Vec<usize>>) => channels = channels.into();
        layers(layers: impl Into<Vec<usize>>) => layers = layers.into();
    }
}

const NAMES: BlockNames = BlockNames { norms: ["bn1", "bn2"], shortcut: ["proj.0", "proj.1"] };

/// Pointcept's `SpUNet-v1m1`: returns scores (sites, classes) on the sites of the input.
pub struct SpUNet {
    input: ConvNormRelu<SubMConv3d>,
    down: Vec<ConvNormRelu<SparseConv3d>>,
    encoder: Vec<Vec<ResidualBlock>>,
    up: Vec<ConvNormRelu<SparseInverseConv3d>>,
    decoder: Vec<Vec<ResidualBlock>>,
    last: Option<SubMConv3d>,
}

impl SpUNet {
    /// Builds the network. Its parameters have Pointcept's names (`conv_input.0.weight`, `enc.0.block0.conv1.weight`, …).
    ///
    /// # Errors
    /// Numbers of decoder and encoder levels that differ, numbers of layers and channels that differ, or parameters of another shape in
    /// `vb`.
    ///
    /// ```
    /// use wavemesh::backbones::{SpUNet, SpUNetConfig};
    /// use wavemesh::prelude::*;
    /// let points = Tensor::rand(0f32, 1.0, (200, 3), &Device::Cpu)?;
    /// let x = Voxelizer::new(VoxelConfig::new().voxel_size([0.1; 3]))?.voxelize(&[&points])?.tensor;
    /// let config = SpUNetConfig::new().in_channels(3).num_classes(5).base_channels(8).channels([8, 16, 16, 8]).layers([1; 4]);
    /// let network = SpUNet::new(&config, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
    /// assert_eq!(network.forward(&x)?.features().dims(), [x.len(), 5]); // a score for each class of each voxel
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: &SpUNetConfig, vb: VarBuilder) -> Result<Self> {
        let (channels, layers) = (&config.channels, &config.layers);
        if channels.is_empty() || channels.len() % 2 != 0 || channels.len() != layers.len() {
            return Err(Error::Argument {
                op: "SpUNet",
                name: "channels",
                got: format!("{} channels and {} layers", channels.len(), layers.len()),
                expected: "as many of each, twice the number of levels".into(),
            });
        }
        let norm = norm_config(1e-3, 0.01);
        let keyed = |key: String| ConvConfig { bias: false, indice_key: Some(key), ..Default::default() };
        let normed = |channels, vb: &VarBuilder| BatchNorm::with_config(channels, norm, vb.pp(1));
        let blocks = |first: usize, output: usize, level: usize, count: usize, vb: VarBuilder| {
            let key = format!("subm{level}");
            (0..count)
                .map(|i| {
                    let input = if i == 0 { first } else { output };
                    ResidualBlock::new([input, output], (&key, false), norm, &NAMES, vb.pp(format!("block{i}")))
                })
                .collect::<Result<Vec<_>>>()
        };
        let stem = vb.pp("conv_input");
        let input = ConvNormRelu {
            conv: SubMConv3d::new(config.in_channels, config.base_channels, 5, keyed("stem".into()), stem.pp(0))?,
            norm: normed(config.base_channels, &stem)?,
        };
        let levels = channels.len() / 2;
        let (mut down, mut encoder, mut up, mut decoder) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for s in 0..levels {
            let finer = if s == 0 { config.base_channels } else { channels[s - 1] };
            let key = format!("spconv{}", s + 1);
            let here = vb.pp(format!("down.{s}"));
            let strided = ConvConfig { stride: [2; 3], ..keyed(key.clone()) };
            down.push(ConvNormRelu {
                conv: SparseConv3d::new(finer, channels[s], 2, strided, here.pp(0))?,
                norm: normed(channels[s], &here)?,
            });
            encoder.push(blocks(channels[s], channels[s], s + 1, layers[s], vb.pp(format!("enc.{s}")))?);
            // The decoder's level that ends on the sites of the encoder's level s (those of the stem for 0).
            let (from, to) = (channels[2 * levels - s - 2], channels[2 * levels - s - 1]);
            let here = vb.pp(format!("up.{s}"));
            up.push(ConvNormRelu {
                conv: SparseInverseConv3d::new(from, to, 2, keyed(key), here.pp(0))?,
                norm: normed(to, &here)?,
            });
            decoder.push(blocks(to + finer, to, s, layers[2 * levels - s - 1], vb.pp(format!("dec.{s}")))?);
        }
        let out = channels[2 * levels - 1];
        let last = match config.num_classes {
            0 => None,
            classes => Some(SubMConv3d::new(out, classes, 1, ConvConfig::default(), vb.pp("final"))?),
        };
        Ok(Self { input, down, encoder, up, decoder, last })
    }
}

impl SparseModule for SpUNet {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let mut x = self.input.forward_t(x, train)?;
        let mut skips = Vec::with_capacity(self.down.len());
        for (down, blocks) in self.down.iter().zip(&self.encoder) {
            skips.push(x.clone());
            x = run_all(blocks, &down.forward_t(&x, train)?, None, train)?;
        }
        for ((up, blocks), skip) in self.up.iter().zip(&self.decoder).rev().zip(skips.iter().rev()) {
            x = run_all(blocks, &up.forward_t(&x, train)?, Some(skip), train)?;
        }
        match &self.last {
            Some(last) => last.forward_t(&x, train),
            None => Ok(x),
        }
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.input.convert_sync_batchnorm(group);
        self.down.iter().for_each(|layer| layer.convert_sync_batchnorm(group));
        self.up.iter().for_each(|layer| layer.convert_sync_batchnorm(group));
        self.encoder.iter().chain(&self.decoder).flatten().for_each(|block| block.convert_sync_batchnorm(group));
    }
}
