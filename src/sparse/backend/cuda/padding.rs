//! Adds channels of zeros to a layer where this lets tensor cores compute it: they multiply sixteen channels at once.

use candle_core::Tensor;

use super::convolve::TOGETHER;
use super::pack::Index;
use crate::Result;
use crate::sparse::backend::Flow;

/// The numbers of input channels with and without zeros, and the same for output channels.
pub(super) struct Padding {
    inputs: [usize; 2],
    outputs: [usize; 2],
}

impl Padding {
    /// The padding for a layer with this weight (out, kz, ky, kx, in) and rows `x`.
    pub fn of(flow: &Flow, x: &Tensor, weight: &Tensor) -> Result<Self> {
        /// Zeros must be at most three times as many as the layer's own numbers.
        const LEAST: usize = TOGETHER / 4;
        let (outputs, inputs) = (weight.dim(0)?, weight.dim(4)?);
        let numbers = x.dim(0)? > 0 && flow.target().len() > 0;
        let pays = numbers && inputs.min(outputs) >= LEAST && flow.map.geometry.volume() <= Index::MOST;
        let whole = |channels: usize| if pays { channels.next_multiple_of(TOGETHER) } else { channels };
        Ok(Self { inputs: [inputs, whole(inputs)], outputs: [outputs, whole(outputs)] })
    }

    /// Rows of input channels, with the zeros.
    pub fn inputs(&self, x: &Tensor) -> Result<Tensor> {
        with_zeros(x, 1, self.inputs)
    }

    /// Rows of output channels, or one number for each, with the zeros.
    pub fn outputs(&self, y: &Tensor) -> Result<Tensor> {
        with_zeros(y, y.rank() - 1, self.outputs)
    }

    pub fn weight(&self, weight: &Tensor) -> Result<Tensor> {
        with_zeros(&with_zeros(weight, 4, self.inputs)?, 0, self.outputs)
    }

    /// Rows of output channels, without the zeros.
    pub fn without(&self, y: Tensor) -> Result<Tensor> {
        without_zeros(y, 1, self.outputs)
    }

    pub fn without_inputs(&self, x: Tensor) -> Result<Tensor> {
        without_zeros(x, 1, self.inputs)
    }

    pub fn without_weight(&self, weight: Tensor) -> Result<Tensor> {
        without_zeros(without_zeros(weight, 4, self.inputs)?, 0, self.outputs)
    }
}

fn with_zeros(x: &Tensor, axis: usize, [own, whole]: [usize; 2]) -> Result<Tensor> {
    match own == whole {
        true => Ok(x.clone()),
        false => Ok(x.pad_with_zeros(axis, 0, whole - own)?),
    }
}

fn without_zeros(x: Tensor, axis: usize, [own, whole]: [usize; 2]) -> Result<Tensor> {
    match own == whole {
        true => Ok(x),
        false => Ok(x.narrow(axis, 0, own)?.contiguous()?),
    }
}
