//! The layers in the form that the network uses: sparse convolutions without bias and batch normalisation, each with its name.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::run::Run;
use super::summary::{LayerSummary, count_pairs};
use crate::Result;
use crate::sparse::{
    AllReduce, BatchNorm, ConvConfig, OutputSites, SegmentConv, Shortcut, SparseConv3d, SparseConvTensor,
    SparseInverseConv3d, SparseModule, SubMConv3d,
};

#[derive(Clone, Debug)]
enum Kind {
    SubM(SubMConv3d),
    Strided(SparseConv3d),
    Inverse(SparseInverseConv3d),
}

/// A sparse convolution with its place in the network.
#[derive(Clone, Debug)]
pub(super) struct ConvLayer {
    name: String,
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    parameters: usize,
    kind: Kind,
}

impl ConvLayer {
    /// A submanifold convolution. Layers of one level share their kernel map through `key`.
    pub fn submanifold(
        channels: [usize; 2],
        kernel: usize,
        bias: bool,
        key: Option<&str>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let config = ConvConfig { bias, indice_key: key.map(Into::into), ..Default::default() };
        let name = vb.prefix();
        let layer = SubMConv3d::new(channels[0], channels[1], kernel, config, vb)?;
        Ok(Self::describe(name, channels, kernel, 1, bias, Kind::SubM(layer)))
    }

    /// A strided convolution whose sites are the distinct `floor(site / stride)`, which are the same for kernels 3 and 1.
    pub fn strided(
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        key: Option<&str>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let config = ConvConfig {
            stride: [stride; 3],
            padding: [kernel / 2; 3],
            bias: false,
            indice_key: key.map(Into::into),
            output_sites: OutputSites::Strided,
            ..Default::default()
        };
        let name = vb.prefix();
        let layer = SparseConv3d::new(channels[0], channels[1], kernel, config, vb)?;
        Ok(Self::describe(name, channels, kernel, stride, false, Kind::Strided(layer)))
    }

    /// The inverse of the strided convolution with the key `key`.
    pub fn inverse(channels: [usize; 2], kernel: usize, stride: usize, key: &str, vb: VarBuilder) -> Result<Self> {
        let config = ConvConfig { bias: false, indice_key: Some(key.into()), ..Default::default() };
        let name = vb.prefix();
        let layer = SparseInverseConv3d::new(channels[0], channels[1], kernel, config, vb)?;
        Ok(Self::describe(name, channels, kernel, stride, false, Kind::Inverse(layer)))
    }

    /// The layer without its name.
    pub fn layer(&self) -> &dyn SegmentConv {
        match &self.kind {
            Kind::SubM(layer) => layer,
            Kind::Strided(layer) => layer,
            Kind::Inverse(layer) => layer,
        }
    }

    fn describe(name: String, channels: [usize; 2], kernel: usize, stride: usize, bias: bool, kind: Kind) -> Self {
        let [in_channels, out_channels] = channels;
        let parameters = in_channels * out_channels * kernel.pow(3) + if bias { out_channels } else { 0 };
        Self { name, in_channels, out_channels, kernel, stride, parameters, kind }
    }

    /// The sums in f32, whatever the type of `x`, in the form that `run` needs. The channels of `skip` (on the same sites) follow those of `x`; only a
    /// submanifold layer may have a skip. A training step keeps the sums in `kept`.
    pub fn forward(
        &self,
        x: &SparseConvTensor,
        skip: Option<&Tensor>,
        kept: DType,
        run: &Run,
    ) -> Result<SparseConvTensor> {
        let y = self.layer().forward_wide(x, skip)?;
        run.report(|| {
            let (layer, pairs) = match self.kind {
                Kind::SubM(_) => ("SubMConv3d", count_pairs(x.coords(), y.coords(), self.kernel, 1)),
                Kind::Strided(_) => ("SparseConv3d", count_pairs(x.coords(), y.coords(), self.kernel, self.stride)),
                Kind::Inverse(_) => {
                    ("SparseInverseConv3d", count_pairs(y.coords(), x.coords(), self.kernel, self.stride))
                }
            };
            let mult_adds = pairs * self.in_channels * self.out_channels;
            let kind = format!("{layer} {}³", self.kernel);
            LayerSummary::new((&self.name, kind), (&y, kept), self.parameters, mult_adds)
        });
        run.pass_on(y)
    }
}

/// Batch normalisation, with the sum and the ReLU that follow it.
#[derive(Clone, Debug)]
pub(super) struct NormLayer(BatchNorm);

impl NormLayer {
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self(BatchNorm::new(channels, vb)?))
    }

    /// The layer itself.
    pub fn layer(&self) -> &BatchNorm {
        &self.0
    }

    pub fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.0.convert_sync_batchnorm(group);
    }

    /// `relu(norm(x))` inside a block.
    pub fn relu(&self, x: &SparseConvTensor, run: &Run) -> Result<SparseConvTensor> {
        let y = run.pass_on(self.0.fuse(x, Shortcut::None, true, run.mode(), DType::F32)?.forward()?)?;
        report(&self.0, &y, run.precision.dtype(), run);
        Ok(y)
    }

    /// `relu(norm(x) + shortcut)` at the end of a block, rounded to `dtype`.
    pub fn join(&self, x: &SparseConvTensor, shortcut: Shortcut, dtype: DType, run: &Run) -> Result<SparseConvTensor> {
        let y = run.pass_on(self.0.fuse(x, shortcut, true, run.mode(), dtype)?.forward()?)?;
        report(&self.0, &y, DType::F32, run);
        if let Shortcut::Normed(norm, _) = shortcut {
            report(norm, &y, run.precision.dtype(), run);
        }
        Ok(y)
    }
}

fn report(norm: &BatchNorm, y: &SparseConvTensor, kept: DType, run: &Run) {
    run.report(|| {
        let channels = y.channels();
        LayerSummary::new((norm.name(), "BatchNorm".into()), (y, kept), 2 * channels, 2 * channels * y.len())
    });
}
