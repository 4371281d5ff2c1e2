//! [`ResidualSegment`]: a residual block (He et al. 2016), which is a segment through its layers.
//!
//! `relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))`. The shortcut is a convolution with a normalisation if the channels or the
//! sites change, otherwise the input itself.

use candle_core::Tensor;

use super::in_one::{ParameterGradient, PartGradients};
use super::norm::{BatchNorm, KeptNorm, Shortcut};
use super::segment::{Keep, Segment, SegmentConv, detached};
use super::tensor::SparseConvTensor;
use crate::Result;

/// A block whose layers are known. The channels of the segment's other input, which is on the same sites, follow those of `x`.
pub(crate) trait ResidualSegment: Clone + Send + Sync + 'static {
    /// Its layers.
    fn layers(&self) -> Residual<'_>;
}

impl<B: ResidualSegment> Segment for B {
    type Inner = ResidualInner;

    fn parameters(&self) -> Vec<Tensor> {
        self.layers().parameters()
    }

    fn forward_kept(
        &self,
        x: &SparseConvTensor,
        other: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Option<SparseConvTensor>, ResidualInner)> {
        self.layers().forward_kept(joined(x.clone(), other)?, keep)
    }

    fn backward(
        &self,
        x: &SparseConvTensor,
        other: Option<&Tensor>,
        inner: ResidualInner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<PartGradients> {
        let (grad, parameters) = self.layers().backward(x, other, inner, outcome)?;
        let Some(other) = other else { return Ok(PartGradients { x: grad, other: None, parameters }) };
        let part = |from, count| grad.narrow(1, from, count)?.contiguous();
        let (x, other) = (part(0, x.channels())?, part(x.channels(), other.dim(1)?)?);
        Ok(PartGradients { x, other: Some(other), parameters })
    }
}

/// The features of `x`, followed by those of another input on the same sites.
pub(crate) fn joined(x: SparseConvTensor, other: Option<&Tensor>) -> Result<SparseConvTensor> {
    match other {
        Some(other) => x.replace_feature(Tensor::cat(&[x.features(), other], 1)?),
        None => Ok(x),
    }
}

/// The layers of a block.
pub(crate) struct Residual<'a> {
    pub convs: [&'a dyn SegmentConv; 2],
    pub norms: [&'a BatchNorm; 2],
    pub shortcut: Option<(&'a dyn SegmentConv, &'a BatchNorm)>,
}

/// What a block's backward pass needs in addition to its input and its output.
pub(crate) struct ResidualInner {
    norms: [KeptNorm; 2],
}

impl<'a> Residual<'a> {
    fn parameters(&self) -> Vec<Tensor> {
        let convs = self.convs.into_iter().chain(self.shortcut.map(|(conv, _)| conv));
        let norms = self.norms.into_iter().chain(self.shortcut.map(|(_, norm)| norm));
        let of_convs =
            convs.map(SegmentConv::weight_and_bias).flat_map(|(weight, bias)| std::iter::once(weight).chain(bias));
        of_convs.chain(norms.flat_map(BatchNorm::parameters)).cloned().collect()
    }

    /// The term added to the main path: the normalised convolution of the shortcut, or the input itself.
    pub fn added<'b>(&self, x: &'b SparseConvTensor) -> Shortcut<'b>
    where
        'a: 'b,
    {
        match self.shortcut {
            Some((_, norm)) => Shortcut::Normed(norm, x),
            None => Shortcut::Plain(x),
        }
    }

    /// The output in training, without a tape (none if the pass is repeated), and what the backward pass needs in addition to both.
    pub fn forward_kept(&self, x: SparseConvTensor, keep: Keep) -> Result<(Option<SparseConvTensor>, ResidualInner)> {
        let [conv1, conv2] = self.convs;
        let [norm1, norm2] = self.norms;
        let (h, kept1) = {
            let sums = conv1.sums(&x, None)?;
            let fused = norm1.over_batch(&sums, Shortcut::None, keep)?;
            (detached(fused.forward()?)?, fused.kept(keep.dtype)?)
        };
        let other = match self.shortcut {
            Some((conv, _)) => conv.sums(&x, None)?,
            None => x.clone(),
        };
        drop(x);
        let sums = conv2.sums(&h, None)?;
        drop(h);
        let fused = norm2.over_batch(&sums, self.added(&other), keep)?;
        Ok((keep.output(|| fused.forward())?, ResidualInner { norms: [kept1, fused.kept(keep.dtype)?] }))
    }

    /// Gradients of a training pass from `x` and `beside` to `out`, layer by layer; each value is freed after its last use. The gradient of
    /// the input is that of `x` followed by `beside`.
    fn backward(
        &self,
        x: &SparseConvTensor,
        beside: Option<&Tensor>,
        ResidualInner { norms: [kept1, kept2] }: ResidualInner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<(Tensor, Vec<ParameterGradient>)> {
        let [conv1, conv2] = self.convs;
        let (grad2, mut parameters, shortcut) = kept2.backward(outcome)?;
        let h = kept1.output()?;
        let (h_grad, found) = conv2.backward(&h, None, &grad2, None)?;
        drop(grad2);
        parameters.extend(found);
        let (grad1, found, _) = kept1.backward((h.features(), &h_grad))?;
        drop((h, h_grad));
        parameters.extend(found);
        let (x_grad, found) = conv1.backward(x, beside, &grad1, None)?;
        drop(grad1);
        parameters.extend(found);
        let other_grad = shortcut.backward(outcome)?;
        let Some((conv, _)) = self.shortcut else { return Ok(((x_grad + other_grad)?, parameters)) };
        let (x_grad, found) = conv.backward(x, beside, &other_grad, Some(x_grad))?;
        parameters.extend(found);
        Ok((x_grad, parameters))
    }
}
