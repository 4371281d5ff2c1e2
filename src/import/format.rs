//! [`WeightFormat`]: the orders in which libraries store the weight of a convolution, and the conversion from each to ours.

use candle_core::Tensor;

use crate::Result;
use crate::sparse::Kind;
use crate::sparse::layers::LayerNote;

/// The library whose order of convolution weights a file has. Ours is (out, z, y, x, in).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightFormat {
    /// WaveMesh: (out, z, y, x, in), also for 1×1×1 weights.
    WaveMesh,
    /// spconv 2: (out, z, y, x, in); 1×1×1 layers of stride 1 hold an (in, out) matrix in that memory.
    Spconv2,
    /// spconv 2 before 2.2 (`RSKC`): (z, y, x, out, in), 1×1×1 layers of stride 1 as in [`Spconv2`](Self::Spconv2).
    Spconv2Rskc,
    /// spconv 1 (`RSCK`): (z, y, x, in, out).
    Spconv1,
    /// Dense layers of PyTorch: (out, in, z, y, x), and (in, out, z, y, x) for transposed and inverse layers.
    TorchDense,
    /// torchsparse: (offsets, in, out), x fastest in odd kernels, z in even ones; parameters are called `kernel`.
    TorchSparse,
    /// MinkowskiEngine: (offsets, in, out), x fastest; parameters are called `kernel`.
    Minkowski,
}

/// How to interpret the memory of a 1×1×1 weight of shape (out, 1, 1, 1, in).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointwise {
    /// As an (in, out) matrix, with which spconv 2 computes.
    InOut,
    /// As an (out, in) matrix, as the shape says; some networks' own 1×1×1 classes compute with it.
    OutIn,
}

impl WeightFormat {
    /// All formats.
    pub(super) const ALL: [Self; 7] = [
        Self::WaveMesh,
        Self::Spconv2,
        Self::Spconv2Rskc,
        Self::Spconv1,
        Self::TorchDense,
        Self::TorchSparse,
        Self::Minkowski,
    ];

    /// The library and its order, as text for users.
    pub fn describe(self) -> &'static str {
        match self {
            Self::WaveMesh => "WaveMesh (out, z, y, x, in)",
            Self::Spconv2 => "spconv 2 (out, z, y, x, in)",
            Self::Spconv2Rskc => "spconv 2 before 2.2 (z, y, x, out, in)",
            Self::Spconv1 => "spconv 1 (z, y, x, in, out)",
            Self::TorchDense => "torch.nn (out, in, z, y, x)",
            Self::TorchSparse => "torchsparse (offsets, in, out)",
            Self::Minkowski => "MinkowskiEngine (offsets, in, out)",
        }
    }

    /// The shape of a layer's weight in this library.
    pub(super) fn shape(self, layer: &LayerNote) -> Vec<usize> {
        let [input, output] = layer.channels;
        let kernel = &layer.kernel[..];
        match self {
            Self::WaveMesh | Self::Spconv2 => [&[output], kernel, &[input]].concat(),
            Self::Spconv2Rskc => [kernel, &[output, input]].concat(),
            Self::Spconv1 => [kernel, &[input, output]].concat(),
            Self::TorchDense if is_transposed(layer) => [&[input, output], kernel].concat(),
            Self::TorchDense => [&[output, input], kernel].concat(),
            Self::TorchSparse | Self::Minkowski => match kernel.iter().product() {
                1 => vec![input, output],
                volume => vec![volume, input, output],
            },
        }
    }

    /// How this library interprets the memory of a 1×1×1 weight of stride 1.
    pub(super) fn pointwise(self) -> Pointwise {
        match self {
            Self::Spconv2 | Self::Spconv2Rskc => Pointwise::InOut,
            _ => Pointwise::OutIn,
        }
    }

    /// A weight of [`shape`](Self::shape) converted to our order, and what was done to it.
    pub(super) fn convert(self, weight: &Tensor, layer: &LayerNote, pointwise: Pointwise) -> Result<(Tensor, Change)> {
        let [input, output] = layer.channels;
        let ours = [&[output], &layer.kernel[..], &[input]].concat();
        let axes = layer.kernel.len();
        if layer.pointwise && pointwise == Pointwise::InOut {
            let turned = weight.contiguous()?.reshape((input, output))?.t()?.reshape(ours)?;
            return Ok((turned.contiguous()?, Change::Turned));
        }
        let order: Vec<usize> = match self {
            Self::WaveMesh | Self::Spconv2 => return Ok((weight.contiguous()?, Change::None)),
            Self::Spconv2Rskc => [axes].into_iter().chain(0..axes).chain([axes + 1]).collect(),
            Self::Spconv1 => [axes + 1].into_iter().chain(0..axes).chain([axes]).collect(),
            Self::TorchDense if is_transposed(layer) => [1].into_iter().chain(2..axes + 2).chain([0]).collect(),
            Self::TorchDense => [0].into_iter().chain(2..axes + 2).chain([1]).collect(),
            Self::TorchSparse | Self::Minkowski => {
                let volume: usize = layer.kernel.iter().product();
                // If x runs fastest, the offsets are in our order (z, y, x); if z does, the axes are reversed.
                let z_fastest = self == Self::TorchSparse && volume.is_multiple_of(2);
                let mut sizes = layer.kernel.clone();
                if z_fastest {
                    sizes.reverse();
                }
                let unfolded = weight.reshape([&sizes[..], &[input, output]].concat())?;
                let spatial: Vec<usize> = if z_fastest { (0..axes).rev().collect() } else { (0..axes).collect() };
                let order: Vec<usize> = [axes + 1].into_iter().chain(spatial).chain([axes]).collect();
                return Ok((unfolded.permute(order)?.contiguous()?, Change::Reordered));
            }
        };
        Ok((weight.permute(order)?.contiguous()?, Change::Reordered))
    }
}

/// What was done to a tensor when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Reordered,
    Turned,
}

fn is_transposed(layer: &LayerNote) -> bool {
    layer.kind == Kind::Transposed || layer.inverse
}
