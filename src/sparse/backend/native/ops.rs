//! The layers' operations as custom operations of candle, with exact gradients.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, Layout, Shape, Tensor, WithDType};

use super::element::{Element, as_f32, values, with_element, with_storage, with_values};
use super::source::{Features, Source};
use super::tiles::Tiles;
use super::{Walk, convolve, pool};
use crate::Result;
use crate::sparse::backend::Flow;
use crate::sparse::order::Order;

type CandleResult<T> = candle_core::Result<T>;

/// A convolution over a kernel map: features (sources, in), weight (out, kz, ky, kx, in) and, if given, bias (out,).
pub(super) struct Convolution {
    pub flow: Flow,
    /// Whether the result is f32 for every type of features.
    pub wide: bool,
}

impl Convolution {
    /// The result for rows from any source.
    pub fn sums<Y: Element>(
        &self,
        x: &impl Source,
        (weight, layout): (&CpuStorage, &Layout),
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs, volume) = (layout.dims()[0], x.channels(), self.flow.map.geometry.volume());
        let walk = Walk::of(&self.flow);
        let weight = as_f32(weight, layout)?;
        let packed = convolve::Packed::new(volume, [inputs, outputs], |r, input, output| {
            let r = if walk.mirrored { volume - 1 - r } else { r };
            weight[(output * volume + r) * inputs + input]
        });
        let target = self.flow.target();
        let y = convolve::convolve::<_, Y>(&walk.tiles, target.len(), x, &packed, bias);
        Ok((Y::to_cpu_storage_owned(target.order().by_row(y, outputs)), (target.len(), outputs).into()))
    }

    /// The gradient of the source's rows, from the gradient of the result in the order of its numbers.
    fn source_gradient<G: Element, R: Element>(&self, weight: &Tensor, grad: &[G]) -> Result<Tensor> {
        let (outputs, _, _, _, inputs) = weight.dims5()?;
        let (tiles, packed) = self.way_back(weight)?;
        let source = self.flow.source();
        let grad = Features::new(grad, outputs, &Order::default());
        let found = convolve::convolve::<_, R>(&tiles, source.len(), &grad, &packed, None);
        Ok(Tensor::from_vec(source.order().by_row(found, inputs), (source.len(), inputs), weight.device())?)
    }

    /// The gradient of the source's rows in f32, added to `onto` if that is given.
    pub fn wide_source_gradient(&self, weight: &Tensor, grad: &[f32], onto: Option<Tensor>) -> Result<Tensor> {
        match onto {
            None => self.source_gradient::<f32, f32>(weight, grad),
            Some(onto) if !self.flow.source().order().is_scattered() => {
                let (tiles, weights) = self.way_back(weight)?;
                let x = Features::new(grad, weight.dim(0)?, &Order::default());
                onto.inplace_op1(&Onto { tiles, x, weights })?;
                Ok(onto)
            }
            Some(onto) => Ok((onto + self.source_gradient::<f32, f32>(weight, grad)?)?),
        }
    }

    /// Rows of the result's gradient, in the order of their numbers.
    pub fn by_target<'a, G: Element>(&self, grad: &'a [G], weight: &Tensor) -> Result<Cow<'a, [G]>> {
        Ok(self.flow.target().order().by_number(grad, weight.dim(0)?))
    }

    /// The tiles of the reverse map, and the transposed weights.
    fn way_back(&self, weight: &Tensor) -> Result<(Arc<Tiles>, convolve::Packed)> {
        let (outputs, _, _, _, inputs) = weight.dims5()?;
        let volume = self.flow.map.geometry.volume();
        let back = Walk::of(&self.flow.reversed());
        let packed = with_storage(weight, |weight, layout| {
            let weight = as_f32(weight, layout)?;
            Ok(convolve::Packed::new(volume, [outputs, inputs], |r, output, input| {
                let r = if back.mirrored { volume - 1 - r } else { r };
                weight[(output * volume + r) * inputs + input]
            }))
        })?;
        Ok((back.tiles, packed))
    }

    /// The gradient of the weight, from the source's rows and the gradient of the result in the order of its numbers.
    pub fn weight_gradient<G: Element>(&self, x: &impl Source, weight: &Tensor, grad: &[G]) -> Result<Tensor> {
        let (outputs, inputs, volume) = (weight.dim(0)?, x.channels(), self.flow.map.geometry.volume());
        let walk = Walk::of(&self.flow);
        let mut sums = convolve::weight_gradient(&walk.tiles, volume, x, (grad, outputs));
        if walk.mirrored {
            for row in sums.chunks_exact_mut(volume * inputs) {
                mirror(row, inputs);
            }
        }
        Ok(Tensor::from_vec(sums, weight.shape(), weight.device())?.to_dtype(weight.dtype())?)
    }

    fn features<'a, T: Element>(&self, values: &'a [T], channels: usize) -> Features<'a, T> {
        Features::new(values, channels, self.flow.source().order())
    }

    fn forward(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = bias.map(|(bias, layout)| as_f32(bias, layout)).transpose()?;
        with_element!(x.dtype(), T => {
            let x = self.features(values::<T>(x, x_layout)?, weight.1.dims()[4]);
            match self.wide {
                true => self.sums::<f32>(&x, weight, bias.as_deref()),
                false => self.sums::<T>(&x, weight, bias.as_deref()),
            }
        })
    }

    /// The gradients of features and weight, each only if something upstream needs it.
    fn backward(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wanted = [x.track_op(), weight.track_op()];
        with_element!(x.dtype(), T => match self.wide {
            true => self.gradients::<T, f32>(x, weight, grad, wanted),
            false => self.gradients::<T, T>(x, weight, grad, wanted),
        })
    }

    /// The gradients of features and weight in f32, from an f32 gradient; both are always computed. That of the features is added to
    /// `onto`.
    pub fn wide_gradients(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        let channels = x.dim(1)?;
        with_values::<f32, _>(grad, |grad| {
            let grad = &*self.by_target(grad, weight)?;
            let weight_grad = with_element!(x.dtype(), T => with_values::<T, _>(x, |values| {
                self.weight_gradient(&self.features(values, channels), weight, grad)
            }))??;
            Ok([self.wide_source_gradient(weight, grad, onto)?, weight_grad])
        })?
    }

    /// The gradients for features of type `T`, from a gradient of type `G`.
    fn gradients<T: Element, G: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
        wanted: [bool; 2],
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let channels = x.dim(1)?;
        with_values::<G, _>(grad, |grad| {
            let grad = &*self.by_target(grad, weight)?;
            let x_grad = || self.source_gradient::<G, T>(weight, grad);
            let weight_grad = || {
                with_values::<T, _>(x, |values| self.weight_gradient(&self.features(values, channels), weight, grad))?
            };
            Ok((wanted[0].then(x_grad).transpose()?, wanted[1].then(weight_grad).transpose()?))
        })?
    }
}

/// Adds a gradient in place.
struct Onto<'a> {
    tiles: Arc<Tiles>,
    x: Features<'a, f32>,
    weights: convolve::Packed,
}

impl InplaceOp1 for Onto<'_> {
    fn name(&self) -> &'static str {
        "add-sparse-convolution"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
        match (y, layout.contiguous_offsets()) {
            (CpuStorage::F32(y), Some((from, to))) => {
                convolve::convolve_onto(&self.tiles, &self.x, &self.weights, &mut y[from..to]);
                Ok(())
            }
            _ => Err(candle_core::Error::RequiresContiguous { op: self.name() }),
        }
    }
}

/// Reverses the order of the rows of `width` values.
fn mirror(rows: &mut [f32], width: usize) {
    let count = rows.len() / width;
    for r in 0..count / 2 {
        let (head, tail) = rows.split_at_mut((count - 1 - r) * width);
        head[r * width..][..width].swap_with_slice(&mut tail[..width]);
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "sparse-convolution"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.forward((x, xl), (w, wl), None)?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.backward(x, weight, grad)?)
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "sparse-convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.forward((x, xl), (w, wl), Some((b, bl)))?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x_grad, weight_grad) = self.backward(x, weight, grad)?;
        let bias_grad = if bias.track_op() {
            let outputs = grad.dim(1)?;
            let sums = with_element!(grad.dtype(), G => with_values::<G, _>(grad, |grad| {
                convolve::column_sums(grad, outputs)
            }))?;
            Some(Tensor::from_vec(sums, outputs, x.device())?.to_dtype(bias.dtype())?)
        } else {
            None
        };
        Ok((x_grad, weight_grad, bias_grad))
    }
}

/// The orders of the rows that a flow reads, and of those that it writes.
fn orders(flow: &Flow) -> [&Order; 2] {
    [flow.source().order(), flow.target().order()]
}

/// The largest value of each target's sources.
pub(super) struct MaxPool {
    pub flow: Flow,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "sparse-max-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (rows, channels) = (self.flow.target().len(), layout.dims()[1]);
        let tiles = Walk::of(&self.flow).tiles;
        let [source, target] = orders(&self.flow);
        let y = with_element!(x.dtype(), T => {
            let y = pool::max(&tiles, rows, &source.by_number(values::<T>(x, layout)?, channels), channels);
            Ok(T::to_cpu_storage_owned(target.by_row(y, channels)))
        })?;
        Ok((y, (rows, channels).into()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let (rows, channels) = x.dims2()?;
        let tiles = Walk::of(&self.flow.reversed()).tiles;
        let [source, target] = orders(&self.flow);
        Ok(with_element!(x.dtype(), T => with_values::<T, _>(x, |x_values| with_values::<T, _>(y, |y| {
            with_values::<T, _>(grad, |grad| {
                let (x_values, [y, grad]) =
                    (source.by_number(x_values, channels), [y, grad].map(|values| target.by_number(values, channels)));
                let grad = source.by_row(pool::max_gradient(&tiles, &x_values, &y, &grad, channels), channels);
                Ok(Some(Tensor::from_vec(grad, (rows, channels), x.device())?))
            })?
        })?)?)?)
    }
}

/// The mean of each target's sources.
pub(super) struct AvgPool {
    pub flow: Flow,
}

impl CustomOp1 for AvgPool {
    fn name(&self) -> &'static str {
        "sparse-avg-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (rows, channels) = (self.flow.target().len(), layout.dims()[1]);
        let tiles = Walk::of(&self.flow).tiles;
        let [source, target] = orders(&self.flow);
        let y = with_element!(x.dtype(), T => {
            let y = pool::mean(&tiles, rows, &source.by_number(values::<T>(x, layout)?, channels), channels);
            Ok(T::to_cpu_storage_owned(target.by_row(y, channels)))
        })?;
        Ok((y, (rows, channels).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let (rows, channels) = x.dims2()?;
        let counts = pool::counts(&Walk::of(&self.flow).tiles, self.flow.target().len());
        let tiles = Walk::of(&self.flow.reversed()).tiles;
        let [source, target] = orders(&self.flow);
        Ok(with_element!(x.dtype(), T => with_values::<T, _>(grad, |grad| {
            let grad = target.by_number(grad, channels);
            let grad = source.by_row(pool::mean_gradient(&tiles, rows, &grad, &counts, channels), channels);
            Ok(Some(Tensor::from_vec(grad, (rows, channels), x.device())?))
        })?)?)
    }
}
