//! The network's layers as it uses them: sparse convolutions without bias and batch normalisation, each knowing its name.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::run::Run;
use super::summary::{LayerSummary, count_pairs};
use crate::Result;
use crate::sparse::{
    BatchNorm, ConvConfig, Fused, Mode, OutputSites, ParameterGradient, Shortcut, SparseConv3d, SparseConvTensor,
    SparseInverseConv3d, SubMConv3d,
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
    /// A submanifold convolution; layers of one level share their kernel map through `key`.
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

    /// A strided convolution whose sites are the unique `floor(site / stride)`: the same for kernels 3 and 1.
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

    /// The way back over the strided convolution of `key`.
    pub fn inverse(channels: [usize; 2], kernel: usize, stride: usize, key: &str, vb: VarBuilder) -> Result<Self> {
        let config = ConvConfig { bias: false, indice_key: Some(key.into()), ..Default::default() };
        let name = vb.prefix();
        let layer = SparseInverseConv3d::new(channels[0], channels[1], kernel, config, vb)?;
        Ok(Self::describe(name, channels, kernel, stride, false, Kind::Inverse(layer)))
    }

    pub fn weight(&self) -> &Tensor {
        match &self.kind {
            Kind::SubM(layer) => layer.weight(),
            Kind::Strided(layer) => layer.weight(),
            Kind::Inverse(layer) => layer.weight(),
        }
    }

    /// The gradient of the features of `x`, and the weight with its own, from that of the result in training.
    pub fn backward(&self, x: &SparseConvTensor, grad: &Tensor) -> Result<(Tensor, ParameterGradient)> {
        let [x_grad, weight_grad] = match &self.kind {
            Kind::SubM(layer) => layer.gradients(x, grad),
            Kind::Strided(layer) => layer.gradients(x, grad),
            Kind::Inverse(layer) => layer.gradients(x, grad),
        }?;
        Ok((x_grad, (self.weight().clone(), weight_grad)))
    }

    fn describe(name: String, channels: [usize; 2], kernel: usize, stride: usize, bias: bool, kind: Kind) -> Self {
        let [in_channels, out_channels] = channels;
        let parameters = in_channels * out_channels * kernel.pow(3) + if bias { out_channels } else { 0 };
        Self { name, in_channels, out_channels, kernel, stride, parameters, kind }
    }

    /// The result in `dtype`: that of `x`, or f32 sums of half features, which are not rounded then.
    pub fn forward(&self, x: &SparseConvTensor, dtype: DType, run: &Run) -> Result<SparseConvTensor> {
        self.forward_joined(x, None, dtype, run)
    }

    /// Like [`forward`](Self::forward), with the channels of `skip` (of the same sites) after those of `x`. A submanifold
    /// layer alone has a skip.
    pub fn forward_joined(
        &self,
        x: &SparseConvTensor,
        skip: Option<&Tensor>,
        dtype: DType,
        run: &Run,
    ) -> Result<SparseConvTensor> {
        let y = match &self.kind {
            Kind::SubM(layer) => layer.forward_joined(x, skip, dtype),
            Kind::Strided(layer) => layer.forward_as(x, dtype),
            Kind::Inverse(layer) => layer.forward_as(x, dtype),
        }?;
        run.report(|| {
            let (layer, pairs) = match self.kind {
                Kind::SubM(_) => ("SubMConv3d", count_pairs(x.coords(), y.coords(), self.kernel, 1)),
                Kind::Strided(_) => ("SparseConv3d", count_pairs(x.coords(), y.coords(), self.kernel, self.stride)),
                Kind::Inverse(_) => {
                    ("SparseInverseConv3d", count_pairs(y.coords(), x.coords(), self.kernel, self.stride))
                }
            };
            let mult_adds = pairs * self.in_channels * self.out_channels;
            LayerSummary::new(&self.name, format!("{layer} {}³", self.kernel), &y, self.parameters, mult_adds)
        });
        run.pass_on(y)
    }
}

/// Batch normalisation, with the sum and the ReLU after it.
#[derive(Clone, Debug)]
pub(super) struct NormLayer {
    name: String,
    norm: BatchNorm,
}

impl NormLayer {
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { name: vb.prefix(), norm: BatchNorm::new(channels, vb)? })
    }

    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.norm.parameters()
    }

    /// `relu(norm(x))`, rounded to `dtype`.
    pub fn relu(&self, x: &SparseConvTensor, dtype: DType, run: &Run) -> Result<SparseConvTensor> {
        self.join(x, Straight::None, dtype, run)
    }

    /// `relu(norm(x) + straight)`, summed in the wider type and rounded to `dtype`.
    pub fn join(&self, x: &SparseConvTensor, straight: Straight, dtype: DType, run: &Run) -> Result<SparseConvTensor> {
        let mode = if run.train { Mode::Batch } else { Mode::Running };
        let y = run.pass_on(self.fuse(x, straight, dtype, mode)?.forward()?)?;
        self.report(&y, run);
        if let Straight::Normed(norm, _) = straight {
            norm.report(&y, run);
        }
        Ok(y)
    }

    /// The same over a batch whose statistics have been followed, for another forward pass or for a backward pass.
    pub fn again<'a>(&'a self, x: &'a SparseConvTensor, straight: Straight<'a>, dtype: DType) -> Result<Fused<'a>> {
        self.fuse(x, straight, dtype, Mode::BatchAgain)
    }

    fn fuse<'a>(
        &'a self,
        x: &'a SparseConvTensor,
        straight: Straight<'a>,
        dtype: DType,
        mode: Mode,
    ) -> Result<Fused<'a>> {
        let shortcut = match straight {
            Straight::None => Shortcut::None,
            Straight::Plain(other) => Shortcut::Plain(other),
            Straight::Normed(norm, other) => Shortcut::Normed(&norm.norm, other),
        };
        self.norm.fuse(x, shortcut, true, mode, dtype)
    }

    fn report(&self, y: &SparseConvTensor, run: &Run) {
        run.report(|| {
            let channels = y.channels();
            LayerSummary::new(&self.name, "BatchNorm".into(), y, 2 * channels, 2 * channels * y.len())
        });
    }
}

/// The other end of a residual connection.
#[derive(Clone, Copy)]
pub(super) enum Straight<'a> {
    None,
    Plain(&'a SparseConvTensor),
    Normed(&'a NormLayer, &'a SparseConvTensor),
}
