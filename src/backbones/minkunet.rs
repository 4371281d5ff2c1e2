//! [`MinkUNet`]: MinkowskiEngine's U-Nets for semantic segmentation (Choy et al. 2019).

use std::sync::Arc;

use candle_nn::VarBuilder;

use super::block::{BlockNames, ConvNormRelu, ResidualBlock, norm_config, run_all};
use crate::Result;
use crate::sparse::{
    AllReduce, BatchNorm, ConvConfig, OutputSites, SparseConv3d, SparseConvTensor, SparseInverseConv3d, SparseModule,
    SubMConv3d,
};

/// Widths and depths of [`MinkUNet`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MinkUNetConfig {
    /// Channels of the voxels' features. Default 3.
    pub in_channels: usize,
    /// Number of classes. Default 20.
    pub num_classes: usize,
    /// Channels of the stem: `INIT_DIM`. Default 32.
    pub init_dim: usize,
    /// `PLANES`: channels of the four encoder levels, then of the four decoder levels.
    pub planes: [usize; 8],
    /// `LAYERS`: number of residual blocks of each level.
    pub layers: [usize; 8],
}

setters! {
    MinkUNetConfig {
        in_channels(in_channels: usize) => in_channels = in_channels;
        num_classes(num_classes: usize) => num_classes = num_classes;
        init_dim(init_dim: usize) => init_dim = init_dim;
        planes(planes: [usize; 8]) => planes = planes;
        layers(layers: [usize; 8]) => layers = layers;
    }
}

impl MinkUNetConfig {
    fn named(planes: [usize; 8], layers: [usize; 8]) -> Self {
        Self { in_channels: 3, num_classes: 20, init_dim: 32, planes, layers }
    }

    /// `MinkUNet14A`.
    pub fn minkunet14a() -> Self {
        Self::named([32, 64, 128, 256, 128, 128, 96, 96], [1; 8])
    }

    /// `MinkUNet18A`.
    pub fn minkunet18a() -> Self {
        Self::named([32, 64, 128, 256, 128, 128, 96, 96], [2; 8])
    }

    /// `MinkUNet34A`.
    pub fn minkunet34a() -> Self {
        Self::named([32, 64, 128, 256, 256, 128, 64, 64], [2, 3, 4, 6, 2, 2, 2, 2])
    }

    /// `MinkUNet34C`, the default.
    pub fn minkunet34c() -> Self {
        Self::named([32, 64, 128, 256, 256, 128, 96, 96], [2, 3, 4, 6, 2, 2, 2, 2])
    }
}

impl Default for MinkUNetConfig {
    fn default() -> Self {
        Self::minkunet34c()
    }
}

const NAMES: BlockNames = BlockNames { norms: ["norm1", "norm2"], shortcut: ["downsample.0", "downsample.1"] };

/// MinkowskiEngine's `MinkUNet`: returns scores (sites, classes) on the sites of the input. Coarser levels have the same sites as in
/// MinkowskiEngine ([`OutputSites::Strided`]), so use [`SparseConvTensor::from_signed`] with `align` 16 for sites at negative coordinates.
pub struct MinkUNet {
    input: ConvNormRelu<SubMConv3d>,
    down: Vec<ConvNormRelu<SparseConv3d>>,
    encoder: Vec<Vec<ResidualBlock>>,
    up: Vec<ConvNormRelu<SparseInverseConv3d>>,
    decoder: Vec<Vec<ResidualBlock>>,
    last: SubMConv3d,
}

impl MinkUNet {
    /// Builds the network. Its parameters have the names of MinkowskiEngine's example (`conv0p1s1`, `block1.0.conv1`, `convtr4p16s2`, …);
    /// the importer also finds them as `kernel` and after `bn`.
    ///
    /// # Errors
    /// No channels, or parameters of another shape in `vb`.
    ///
    /// ```
    /// use wavemesh::backbones::{MinkUNet, MinkUNetConfig};
    /// use wavemesh::prelude::*;
    /// let points = Tensor::rand(0f32, 1.0, (200, 3), &Device::Cpu)?;
    /// let x = Voxelizer::new(VoxelConfig::new().voxel_size([0.1; 3]))?.voxelize(&[&points])?.tensor;
    /// let config = MinkUNetConfig::new().in_channels(3).num_classes(5).init_dim(8).planes([8; 8]).layers([1; 8]);
    /// let network = MinkUNet::new(&config, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
    /// assert_eq!(network.forward(&x)?.features().dims(), [x.len(), 5]); // a score for each class of each voxel
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: &MinkUNetConfig, vb: VarBuilder) -> Result<Self> {
        let norm = norm_config(1e-5, 0.1);
        let keyed = |key: String| ConvConfig { bias: false, indice_key: Some(key), ..Default::default() };
        let normed = |channels, name: String| BatchNorm::with_config(channels, norm, vb.pp(name));
        let blocks = |first: usize, output: usize, level: usize, number: usize| {
            let key = format!("s{}", 1 << level);
            let block = vb.pp(format!("block{number}"));
            (0..config.layers[number - 1])
                .map(|i| {
                    let input = if i == 0 { first } else { output };
                    ResidualBlock::new([input, output], (&key, false), norm, &NAMES, block.pp(i))
                })
                .collect::<Result<Vec<_>>>()
        };
        let (planes, init) = (&config.planes, config.init_dim);
        let input = ConvNormRelu {
            conv: SubMConv3d::new(config.in_channels, init, 5, keyed("stem".into()), vb.pp("conv0p1s1"))?,
            norm: normed(init, "bn0".into())?,
        };
        let (mut down, mut encoder, mut up, mut decoder) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut channels = init;
        for (level, &width) in planes[..4].iter().enumerate() {
            let strided =
                ConvConfig { stride: [2; 3], output_sites: OutputSites::Strided, ..keyed(format!("down{level}")) };
            let name = format!("conv{}p{}s2", level + 1, 1 << level);
            down.push(ConvNormRelu {
                conv: SparseConv3d::new(channels, channels, 2, strided, vb.pp(name))?,
                norm: normed(channels, format!("bn{}", level + 1))?,
            });
            encoder.push(blocks(channels, width, level + 1, level + 1)?);
            channels = width;
        }
        for step in 0..4 {
            let (level, output) = (3 - step, planes[4 + step]);
            let name = format!("convtr{}p{}s2", 4 + step, 2 << level);
            up.push(ConvNormRelu {
                conv: SparseInverseConv3d::new(channels, output, 2, keyed(format!("down{level}")), vb.pp(name))?,
                norm: normed(output, format!("bntr{}", 4 + step))?,
            });
            let skip = if level == 0 { init } else { planes[level - 1] };
            decoder.push(blocks(output + skip, output, level, 5 + step)?);
            channels = output;
        }
        let last = SubMConv3d::new(channels, config.num_classes, 1, ConvConfig::default(), vb.pp("final"))?;
        Ok(Self { input, down, encoder, up, decoder, last })
    }
}

impl SparseModule for MinkUNet {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let mut x = self.input.forward_t(x, train)?;
        let mut skips = Vec::with_capacity(4);
        for (down, blocks) in self.down.iter().zip(&self.encoder) {
            skips.push(x.clone());
            x = run_all(blocks, &down.forward_t(&x, train)?, None, train)?;
        }
        for ((up, blocks), skip) in self.up.iter().zip(&self.decoder).zip(skips.iter().rev()) {
            x = run_all(blocks, &up.forward_t(&x, train)?, Some(skip), train)?;
        }
        self.last.forward_t(&x, train)
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.input.convert_sync_batchnorm(group);
        self.down.iter().for_each(|layer| layer.convert_sync_batchnorm(group));
        self.up.iter().for_each(|layer| layer.convert_sync_batchnorm(group));
        self.encoder.iter().chain(&self.decoder).flatten().for_each(|block| block.convert_sync_batchnorm(group));
    }
}
