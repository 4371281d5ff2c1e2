//! The parts of the backbones: a convolution with its normalisation, and the residual block (He et al. 2016).

use std::sync::Arc;

use candle_nn::{BatchNormConfig, VarBuilder};

use crate::Result;
use crate::sparse::{AllReduce, BatchNorm, ConvConfig, Shortcut, Size3, SparseConvTensor, SparseModule, SubMConv3d};

/// Batch normalisation with the settings of most of these networks.
pub(super) fn norm_config(eps: f64, momentum: f64) -> BatchNormConfig {
    BatchNormConfig { eps, momentum, ..Default::default() }
}

/// A convolution, its normalisation, and a ReLU.
pub(super) struct ConvNormRelu<C> {
    pub conv: C,
    pub norm: BatchNorm,
}

impl<C: SparseModule> SparseModule for ConvNormRelu<C> {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        self.norm.relu_t(&self.conv.forward_t(x, train)?, Shortcut::None, train)
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.norm.convert_sync_batchnorm(group);
    }
}

/// The names of a residual block's parts in its original network.
pub(super) struct BlockNames {
    pub norms: [&'static str; 2],
    /// The 1×1×1 convolution of the shortcut, and its normalisation.
    pub shortcut: [&'static str; 2],
}

/// `relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))`, submanifold, with a 1×1×1 shortcut if the channels change.
pub(super) struct ResidualBlock {
    first: ConvNormRelu<SubMConv3d>,
    conv: SubMConv3d,
    norm: BatchNorm,
    shortcut: Option<(SubMConv3d, BatchNorm)>,
}

impl ResidualBlock {
    pub fn new(
        channels: [usize; 2],
        (key, bias): (&str, bool),
        norm: BatchNormConfig,
        names: &BlockNames,
        vb: VarBuilder,
    ) -> Result<Self> {
        let [input, output] = channels;
        let config =
            |key: Option<&str>, bias| ConvConfig { indice_key: key.map(str::to_string), bias, ..Default::default() };
        let conv = |channels, name: &str| SubMConv3d::new(channels, output, 3, config(Some(key), bias), vb.pp(name));
        let [norm1, norm2] = names.norms.map(|name| BatchNorm::with_config(output, norm, vb.pp(name)));
        let shortcut = if input == output {
            None
        } else {
            let [conv, normed] = names.shortcut;
            let conv = SubMConv3d::new(input, output, Size3::from(1), config(None, false), vb.pp(conv))?;
            Some((conv, BatchNorm::with_config(output, norm, vb.pp(normed))?))
        };
        let first = ConvNormRelu { conv: conv(input, "conv1")?, norm: norm1? };
        Ok(Self { first, conv: conv(output, "conv2")?, norm: norm2?, shortcut })
    }
}

impl SparseModule for ResidualBlock {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let y = self.conv.forward_t(&self.first.forward_t(x, train)?, train)?;
        match &self.shortcut {
            None => self.norm.relu_t(&y, Shortcut::Plain(x), train),
            Some((conv, norm)) => self.norm.relu_t(&y, Shortcut::Normed(norm, &conv.forward_t(x, train)?), train),
        }
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.first.convert_sync_batchnorm(group);
        self.norm.convert_sync_batchnorm(group);
        self.shortcut.iter().for_each(|(_, norm)| norm.convert_sync_batchnorm(group));
    }
}

/// Runs layers one after another.
pub(super) fn run_all<M: SparseModule>(layers: &[M], x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
    layers.iter().try_fold(x.clone(), |x, layer| layer.forward_t(&x, train))
}
