//! The layers' operations as candle custom ops with exact gradients.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Tensor, WithDType};

use super::element::{Element, as_f32, values, with_element, with_storage, with_values};
use super::{Walk, allocator, convolve, pool};
use crate::Result;
use crate::sparse::backend::Flow;

type CandleResult<T> = candle_core::Result<T>;

/// A convolution over a kernel map: features (sources, in), weight (out, kz, ky, kx, in) and perhaps bias (out,).
pub(super) struct Convolution {
    pub flow: Flow,
    /// The result is f32 whatever the features' type.
    pub wide: bool,
}

impl Convolution {
    fn forward(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        (weight, weight_layout): (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let weight_dims = weight_layout.dims();
        let [outputs, inputs] = [weight_dims[0], weight_dims[4]];
        let volume = self.flow.map.geometry.volume();
        let walk = Walk::of(&self.flow);
        let weight = as_f32(weight, weight_layout)?;
        let packed = convolve::Packed::new(volume, [inputs, outputs], |r, input, output| {
            let r = if walk.mirrored { volume - 1 - r } else { r };
            weight[(output * volume + r) * inputs + input]
        });
        let bias = bias.map(|(bias, layout)| as_f32(bias, layout)).transpose()?;
        let rows = self.flow.target().len();
        let y = with_element!(x.dtype(), T => {
            let x = values::<T>(x, x_layout)?;
            let bias = bias.as_deref();
            Ok(match self.wide {
                true => f32::to_cpu_storage_owned(convolve::convolve(&walk.tiles, rows, x, &packed, bias)),
                false => T::to_cpu_storage_owned(convolve::convolve(&walk.tiles, rows, x, &packed, bias)),
            })
        })?;
        Ok((y, (rows, outputs).into()))
    }

    /// The gradients of features and weight; those that something upstream wants.
    fn backward(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wanted = [x.track_op(), weight.track_op()];
        with_element!(x.dtype(), T => match self.wide {
            true => self.gradients::<T, f32>(x, weight, grad, wanted),
            false => self.gradients::<T, T>(x, weight, grad, wanted),
        })
    }

    /// The gradients of features and weight, whoever wants them.
    pub fn both_gradients(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<[Tensor; 2]> {
        let found = with_element!(x.dtype(), T => match self.wide {
            true => self.gradients::<T, f32>(x, weight, grad, [true; 2]),
            false => self.gradients::<T, T>(x, weight, grad, [true; 2]),
        })?;
        let (Some(x_grad), Some(weight_grad)) = found else { unreachable!("both are wanted") };
        Ok([x_grad, weight_grad])
    }

    fn gradients<T: Element, G: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
        wanted: [bool; 2],
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        allocator::keep_freed_memory();
        let (outputs, _, _, _, inputs) = weight.dims5()?;
        let volume = self.flow.map.geometry.volume();
        let walk = Walk::of(&self.flow);
        with_values::<G, _>(grad, |grad| {
            let x_grad = if wanted[0] {
                let back = Walk::of(&self.flow.reversed());
                let packed = with_storage(weight, |weight, layout| {
                    let weight = as_f32(weight, layout)?;
                    Ok(convolve::Packed::new(volume, [outputs, inputs], |r, output, input| {
                        let r = if back.mirrored { volume - 1 - r } else { r };
                        weight[(output * volume + r) * inputs + input]
                    }))
                })?;
                let rows = self.flow.source().len();
                let x_grad: Vec<T> = convolve::convolve(&back.tiles, rows, grad, &packed, None);
                Some(Tensor::from_vec(x_grad, (rows, inputs), x.device())?)
            } else {
                None
            };
            let weight_grad = if wanted[1] {
                let mut sums = with_values::<T, _>(x, |x| {
                    convolve::weight_gradient(&walk.tiles, volume, (x, inputs), (grad, outputs))
                })?;
                if walk.mirrored {
                    for row in sums.chunks_exact_mut(volume * inputs) {
                        mirror(row, inputs);
                    }
                }
                Some(Tensor::from_vec(sums, weight.shape(), x.device())?.to_dtype(weight.dtype())?)
            } else {
                None
            };
            Ok((x_grad, weight_grad))
        })?
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
            let sums = with_element!(x.dtype(), T => with_values::<T, _>(grad, |grad| {
                convolve::column_sums(grad, outputs)
            }))?;
            Some(Tensor::from_vec(sums, outputs, x.device())?.to_dtype(bias.dtype())?)
        } else {
            None
        };
        Ok((x_grad, weight_grad, bias_grad))
    }
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
        let y = with_element!(x.dtype(), T => {
            Ok(T::to_cpu_storage_owned(pool::max(&tiles, rows, values::<T>(x, layout)?, channels)))
        })?;
        Ok((y, (rows, channels).into()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let (rows, channels) = x.dims2()?;
        let tiles = Walk::of(&self.flow.reversed()).tiles;
        Ok(with_element!(x.dtype(), T => with_values::<T, _>(x, |x_values| with_values::<T, _>(y, |y| {
            with_values::<T, _>(grad, |grad| {
                let grad = pool::max_gradient(&tiles, x_values, y, grad, channels);
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
        let y = with_element!(x.dtype(), T => {
            Ok(T::to_cpu_storage_owned(pool::mean(&tiles, rows, values::<T>(x, layout)?, channels)))
        })?;
        Ok((y, (rows, channels).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let (rows, channels) = x.dims2()?;
        let counts = pool::counts(&Walk::of(&self.flow).tiles, self.flow.target().len());
        let tiles = Walk::of(&self.flow.reversed()).tiles;
        Ok(with_element!(x.dtype(), T => with_values::<T, _>(grad, |grad| {
            let grad = pool::mean_gradient(&tiles, rows, grad, &counts, channels);
            Ok(Some(Tensor::from_vec(grad, (rows, channels), x.device())?))
        })?)?)
    }
}
