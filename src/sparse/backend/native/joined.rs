//! A convolution over two tensors as if they were joined channel by channel, which they never are: half features are converted
//! row by row as they are read, and a row can as well be read from two places.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};

use super::element::{Element, values, with_element, with_values};
use super::ops::Convolution;
use super::source::{Features, Joined};
use crate::Result;
use crate::allocator;

/// Of the first features, the second and the weight. The first are of the result's type: that of the second, or f32.
pub(super) struct JoinedConvolution(pub Convolution);

type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl JoinedConvolution {
    fn forward<A: Element, B: Element>(
        &self,
        (first, first_layout): (&CpuStorage, &Layout),
        (second, second_layout): (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        let first = Features { values: values::<A>(first, first_layout)?, channels: first_layout.dims()[1] };
        let second = Features { values: values::<B>(second, second_layout)?, channels: second_layout.dims()[1] };
        self.0.sums::<A>(&Joined(first, second), weight, None)
    }

    fn gradients<A: Element, B: Element>(
        &self,
        [first, second, weight]: [&Tensor; 3],
        grad: &Tensor,
    ) -> Result<Gradients> {
        allocator::keep_freed_memory();
        let parts = [first.dim(1)?, second.dim(1)?];
        with_values::<A, _>(grad, |grad| {
            let mut found = self.0.source_gradient::<A, A, 2>(weight, grad, parts)?.into_iter();
            let first_grad = found.next().filter(|_| first.track_op());
            let second_grad = found.next().filter(|_| second.track_op());
            let second_grad = second_grad.map(|grad| grad.to_dtype(second.dtype())).transpose()?;
            let weight_grad = || {
                with_values::<A, _>(first, |first| {
                    with_values::<B, _>(second, |second| {
                        let first = Features { values: first, channels: parts[0] };
                        let second = Features { values: second, channels: parts[1] };
                        self.0.weight_gradient(&Joined(first, second), weight, grad)
                    })
                })??
            };
            Ok((first_grad, second_grad, weight.track_op().then(weight_grad).transpose()?))
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
        let (first, second, weight) = ((first, fl), (second, sl), (weight, wl));
        Ok(with_element!(second.0.dtype(), B => match self.0.wide {
            true => self.forward::<f32, B>(first, second, weight),
            false => self.forward::<B, B>(first, second, weight),
        })?)
    }

    fn bwd(
        &self,
        first: &Tensor,
        second: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Gradients> {
        let inputs = [first, second, weight];
        Ok(with_element!(second.dtype(), B => match self.0.wide {
            true => self.gradients::<f32, B>(inputs, grad),
            false => self.gradients::<B, B>(inputs, grad),
        })?)
    }
}
