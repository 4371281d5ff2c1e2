//! The residual block: two 3³ convolutions and a shortcut.
//!
//! `relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`. The shortcut is a 1³ convolution with batch normalisation if the channels or the
//! sites change, otherwise the input itself (He et al. 2016).

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::layers::{ConvLayer, NormLayer};
use super::run::Run;
use super::segment::{Keep, Segment, detached};
use crate::Result;
use crate::sparse::{AllReduce, KeptNorm, ParameterGradient, PartGradients, Shortcut, SparseConvTensor};

#[derive(Clone, Debug)]
pub(super) struct ResidualBlock {
    conv1: ConvLayer,
    bn1: NormLayer,
    conv2: ConvLayer,
    bn2: NormLayer,
    shortcut: Option<(ConvLayer, NormLayer)>,
}

/// A block's place in the network: its channels, its stride, and the names of its kernel maps.
pub(super) struct Place<'a> {
    pub in_channels: usize,
    pub out_channels: usize,
    pub stride: usize,
    /// Key of the strided convolution, which a decoder inverts.
    pub down_key: &'a str,
    /// Key of the submanifold convolutions on the block's output sites.
    pub subm_key: &'a str,
}

impl ResidualBlock {
    pub fn new(place: &Place, vb: VarBuilder) -> Result<Self> {
        let &Place { in_channels, out_channels, stride, down_key, subm_key } = place;
        let channels = [in_channels, out_channels];
        let conv1 = vb.pp("conv1");
        let conv1 = if stride > 1 {
            ConvLayer::strided(channels, 3, stride, Some(down_key), conv1)?
        } else {
            ConvLayer::submanifold(channels, 3, false, Some(subm_key), conv1)?
        };
        let bn1 = NormLayer::new(out_channels, vb.pp("bn1"))?;
        let conv2 = ConvLayer::submanifold([out_channels; 2], 3, false, Some(subm_key), vb.pp("conv2"))?;
        let bn2 = NormLayer::new(out_channels, vb.pp("bn2"))?;
        let shortcut = vb.pp("shortcut");
        let shortcut = if stride > 1 {
            let conv = ConvLayer::strided(channels, 1, stride, None, shortcut.pp(0))?;
            Some((conv, NormLayer::new(out_channels, shortcut.pp(1))?))
        } else if in_channels != out_channels {
            let conv = ConvLayer::submanifold(channels, 1, false, None, shortcut.pp(0))?;
            Some((conv, NormLayer::new(out_channels, shortcut.pp(1))?))
        } else {
            None
        };
        Ok(Self { conv1, bn1, conv2, bn2, shortcut })
    }

    pub fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        let shortcut = self.shortcut.iter().map(|(_, norm)| norm);
        [&self.bn1, &self.bn2].into_iter().chain(shortcut).for_each(|norm| norm.convert_sync_batchnorm(group));
    }

    /// The output, in the type of `x`. The channels of `skip`, which a block of the decoder may have, follow those of `x`.
    pub fn forward(&self, x: &SparseConvTensor, skip: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        let kept = run.precision.dtype();
        let h = {
            let h = self.bn1.relu(&self.conv1.forward(x, skip, kept, run)?, run)?;
            self.conv2.forward(&h, None, kept, run)?
        };
        let other = match &self.shortcut {
            Some((conv, _)) => &conv.forward(x, skip, kept, run)?,
            None => x,
        };
        self.bn2.join(&h, self.added(other), x.dtype(), run)
    }

    /// The output in f32 for an f32 `x` (none if the pass is repeated), and what the backward pass needs in addition to both.
    pub fn forward_kept(&self, x: SparseConvTensor, keep: Keep) -> Result<(Option<SparseConvTensor>, Inner)> {
        let (h, norm1) = {
            let sums = self.conv1.sums(&x)?;
            let fused = self.bn1.over_batch(&sums, Shortcut::None, keep)?;
            (detached(fused.forward()?)?, fused.kept(keep.dtype)?)
        };
        let other = match &self.shortcut {
            Some((conv, _)) => conv.sums(&x)?,
            None => x.clone(),
        };
        drop(x);
        let sums = self.conv2.sums(&h)?;
        drop(h);
        let fused = self.bn2.over_batch(&sums, self.added(&other), keep)?;
        Ok((keep.output(|| fused.forward())?, Inner { norm1, norm2: fused.kept(keep.dtype)? }))
    }

    pub fn parameters(&self) -> Vec<Tensor> {
        let shortcut = self.shortcut.as_ref();
        let convs = [&self.conv1, &self.conv2].into_iter().chain(shortcut.map(|(conv, _)| conv));
        let norms = [&self.bn1, &self.bn2].into_iter().chain(shortcut.map(|(_, norm)| norm));
        convs.map(ConvLayer::weight).chain(norms.flat_map(NormLayer::parameters)).cloned().collect()
    }

    /// Gradients of a training pass from `x` and `skip` to `out`, layer by layer; each value is freed after its last use. The gradient of
    /// the input is that of `x` followed by `skip`.
    pub fn backward(
        &self,
        x: &SparseConvTensor,
        skip: Option<&Tensor>,
        Inner { norm1, norm2 }: Inner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<(Tensor, Vec<ParameterGradient>)> {
        let (grad2, mut parameters, shortcut) = norm2.backward(outcome)?;
        let h = norm1.output()?;
        let (h_grad, weight) = self.conv2.backward(&h, None, &grad2, None)?;
        drop(grad2);
        parameters.push(weight);
        let (grad1, norm, _) = norm1.backward((h.features(), &h_grad))?;
        drop((h, h_grad));
        parameters.extend(norm);
        let (x_grad, weight) = self.conv1.backward(x, skip, &grad1, None)?;
        drop(grad1);
        parameters.push(weight);
        let other_grad = shortcut.backward(outcome)?;
        let Some((conv, _)) = &self.shortcut else { return Ok(((x_grad + other_grad)?, parameters)) };
        let (x_grad, weight) = conv.backward(x, skip, &other_grad, Some(x_grad))?;
        parameters.push(weight);
        Ok((x_grad, parameters))
    }

    /// The term added to the main path: the normalised convolution of the shortcut, or the input itself.
    fn added<'a>(&'a self, x: &'a SparseConvTensor) -> Shortcut<'a> {
        match &self.shortcut {
            Some((_, norm)) => norm.shortcut(x),
            None => Shortcut::Plain(x),
        }
    }
}

/// What a block's backward pass needs in addition to its input and its output.
pub(super) struct Inner {
    norm1: KeptNorm,
    norm2: KeptNorm,
}

/// A block of the encoder, whose only input is `x`.
impl Segment for ResidualBlock {
    type Inner = Inner;

    fn parameters(&self) -> Vec<Tensor> {
        self.parameters()
    }

    fn forward(&self, x: &SparseConvTensor, _: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        self.forward(x, None, run)
    }

    fn forward_kept(
        &self,
        x: &SparseConvTensor,
        _: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Option<SparseConvTensor>, Self::Inner)> {
        self.forward_kept(x.clone(), keep)
    }

    fn backward(
        &self,
        x: &SparseConvTensor,
        _: Option<&Tensor>,
        inner: Self::Inner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<PartGradients> {
        let (x, parameters) = self.backward(x, None, inner, outcome)?;
        Ok(PartGradients { x, other: None, parameters })
    }
}
