//! A convolution over two tensors as if they were joined channel by channel, without ever joining them: half features are converted row by
//! row when they are read, and a row may just as well be read from two places.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};

use super::element::{with_storage, with_values};
use super::ops::Convolution;
use super::source::{AnyFeatures, Joined};
use crate::Result;

/// Takes the first features, the second features and the weight. The result is f32.
pub(super) struct JoinedConvolution(pub Convolution);

impl JoinedConvolution {
    fn joined<'a>(&self, first: (&'a CpuStorage, &Layout), second: (&'a CpuStorage, &Layout)) -> Result<Joined<'a>> {
        let order = self.0.flow.source().order();
        let features = |(storage, layout): (&'a CpuStorage, &Layout)| AnyFeatures::new(storage, layout, order);
        Ok(Joined([features(first)?, features(second)?]))
    }

    /// The gradients in f32, from an f32 gradient, of the features as if they were joined, and of the weight. The gradient of the features
    /// is added to `onto`.
    pub fn gradients(
        &self,
        [first, second]: [&Tensor; 2],
        weight: &Tensor,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        with_values::<f32, _>(grad, |grad| {
            let grad = &*self.0.by_target(grad, weight)?;
            let weight_grad = with_storage(first, |first, fl| {
                with_storage(second, |second, sl| {
                    self.0.weight_gradient(&self.joined((first, fl), (second, sl))?, weight, grad)
                })
            })?;
            Ok([self.0.wide_source_gradient(weight, grad, onto)?, weight_grad])
        })?
    }
}

impl CustomOp3 for JoinedConvolution {
    fn name(&self) -> &'static str {
        "sparse-convolution-of-two"
    }

    fn cpu_fwd(
        &self,
        first: &CpuStorage,
        fl: &Layout,
        second: &CpuStorage,
        sl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(self.0.sums::<f32>(&self.joined((first, fl), (second, sl))?, (weight, wl), None)?)
    }

    fn bwd(
        &self,
        first: &Tensor,
        second: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [joined, weight_grad] = self.gradients([first, second], weight, grad, None)?;
        let part = |from, like: &Tensor| joined.narrow(1, from, like.dim(1)?)?.contiguous()?.to_dtype(like.dtype());
        Ok((Some(part(0, first)?), Some(part(first.dim(1)?, second)?), Some(weight_grad)))
    }
}
