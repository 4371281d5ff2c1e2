//! The residual block: two 3³ convolutions beside a shortcut.
//!
//! `relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`. The shortcut is a 1³ convolution with batch normalisation when
//! the channels or the sites change, else the input itself (He et al. 2016).

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::layers::{ConvLayer, NormLayer, Straight};
use super::recompute::{Segment, SegmentGradients, convolved, detached};
use super::run::Run;
use crate::Result;
use crate::sparse::{ParameterGradient, SparseConvTensor};

#[derive(Clone, Debug)]
pub(super) struct ResidualBlock {
    conv1: ConvLayer,
    bn1: NormLayer,
    conv2: ConvLayer,
    bn2: NormLayer,
    shortcut: Option<(ConvLayer, NormLayer)>,
}

/// Where a block stands: its channels, its stride, and the names of its kernel maps.
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

    /// The output, of the type of `x`. The channels of `skip`, which a decoder's block may have, follow those of `x`.
    pub fn forward(&self, x: &SparseConvTensor, skip: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        let inner = run.inner(x.dtype());
        let h = {
            let h = self.bn1.relu(&self.conv1.forward_joined(x, skip, inner, run)?, inner, run)?;
            self.conv2.forward(&h, inner, run)?
        };
        let straight = self.shortcut.as_ref().map(|(conv, _)| conv.forward_joined(x, skip, inner, run)).transpose()?;
        self.bn2.join(&h, self.straight(x, straight.as_ref()), x.dtype(), run)
    }

    pub fn parameters(&self) -> Vec<Tensor> {
        let shortcut = self.shortcut.as_ref();
        let convs = [&self.conv1, &self.conv2].into_iter().chain(shortcut.map(|(conv, _)| conv));
        let norms = [&self.bn1, &self.bn2].into_iter().chain(shortcut.map(|(_, norm)| norm));
        convs.map(ConvLayer::weight).chain(norms.flat_map(NormLayer::parameters)).cloned().collect()
    }

    /// Gradients of a training pass from `x` to `out` whose inner values are gone: computes them again, then goes back layer by
    /// layer, letting go of each value when it has served.
    pub fn backward(
        &self,
        x: SparseConvTensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Tensor, Vec<ParameterGradient>)> {
        let dtype = x.dtype();
        let normed1 = convolved(&self.conv1, &x)?;
        let hidden =
            || -> Result<SparseConvTensor> { detached(self.bn1.again(&normed1, Straight::None, dtype)?.forward()?) };
        let (grad2, straight_grad, mut parameters) = {
            let normed2 = convolved(&self.conv2, &hidden()?)?;
            let straight = self.shortcut.as_ref().map(|(conv, _)| convolved(conv, &x)).transpose()?;
            self.bn2.again(&normed2, self.straight(&x, straight.as_ref()), dtype)?.backward(out, grad)?
        };
        let h = hidden()?;
        let (h_grad, weight) = self.conv2.backward(&h, &grad2)?;
        drop(grad2);
        parameters.push(weight);
        let (grad1, _, norm) = self.bn1.again(&normed1, Straight::None, dtype)?.backward(h.features(), &h_grad)?;
        drop((h, h_grad, normed1));
        parameters.extend(norm);
        let (mut x_grad, weight) = self.conv1.backward(&x, &grad1)?;
        drop(grad1);
        parameters.push(weight);
        let straight_grad = match (&self.shortcut, straight_grad) {
            (Some((conv, _)), Some(grad)) => {
                let (grad, weight) = conv.backward(&x, &grad)?;
                parameters.push(weight);
                Some(grad)
            }
            (_, grad) => grad,
        };
        drop(x);
        if let Some(grad) = straight_grad {
            x_grad = (x_grad + grad)?;
        }
        Ok((x_grad, parameters))
    }

    /// What is added to the main path: `convolved`, normalised, or the input itself.
    fn straight<'a>(&'a self, x: &'a SparseConvTensor, convolved: Option<&'a SparseConvTensor>) -> Straight<'a> {
        match (&self.shortcut, convolved) {
            (Some((_, norm)), Some(convolved)) => Straight::Normed(norm, convolved),
            _ => Straight::Plain(x),
        }
    }
}

/// An encoder's block, which has no other input than `x`.
impl Segment for ResidualBlock {
    fn parameters(&self) -> Vec<Tensor> {
        self.parameters()
    }

    fn forward(&self, x: &SparseConvTensor, _: Option<&Tensor>, run: &Run) -> Result<SparseConvTensor> {
        self.forward(x, None, run)
    }

    fn backward(
        &self,
        x: &SparseConvTensor,
        _: Option<&Tensor>,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<SegmentGradients> {
        let (x, parameters) = self.backward(x.clone(), out, grad)?;
        Ok(SegmentGradients { x, other: None, parameters })
    }
}
