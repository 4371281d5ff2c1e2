//! The transforms by matrix products: they work where tensors are on a GPU, and are differentiable as all products are.
//!
//! A level of a separable transform is a product along each axis. Each row of a matrix is what the processor's transform makes of one
//! sample or one coefficient, so modes and lengths are the same.

use candle_core::{DType, Device, Tensor};

use super::filters::Wavelet;
use super::layout::WaveletLayout;
use super::mode::Mode;
use super::transform::{analyze, synthesize};
use crate::Result;
use crate::sparse::SparseConvTensor;

/// One level of the decomposition along an axis.
pub(super) struct Analysis {
    axis: usize,
    /// (n, 2m): the averages and the details that each sample makes.
    matrix: Tensor,
}

impl Analysis {
    /// For tensors like this one.
    pub fn new(wavelet: &Wavelet, mode: Mode, like: &Tensor, axis: usize) -> Result<Self> {
        let n = like.dim(axis)?;
        let row = |sample| {
            let mut signal = vec![0f64; n];
            signal[sample] = 1.0;
            Ok(analyze(&signal, &[n], wavelet, mode).into_iter().flat_map(|band| band.data).collect())
        };
        Ok(Self { axis, matrix: matrix(n, row, like)? })
    }

    /// The averages and the details.
    pub fn apply(&self, samples: &Tensor) -> Result<[Tensor; 2]> {
        let both = multiplied(samples, self.axis, &self.matrix)?;
        let m = both.dim(self.axis)? / 2;
        Ok([both.narrow(self.axis, 0, m)?, both.narrow(self.axis, m, m)?])
    }
}

/// One level of the reconstruction along an axis.
pub(super) struct Synthesis {
    axis: usize,
    /// (2m, n): the samples that each average and each detail makes.
    matrix: Tensor,
}

impl Synthesis {
    /// For tensors like this one.
    pub fn new(wavelet: &Wavelet, mode: Mode, like: &Tensor, axis: usize) -> Result<Self> {
        let m = like.dim(axis)?;
        let row = |entry| {
            let mut bands = vec![0f64; 2 * m];
            bands[entry] = 1.0;
            let (low, high) = bands.split_at(m);
            Ok(synthesize(&[low, high], &[m], wavelet, mode)?.data)
        };
        Ok(Self { axis, matrix: matrix(2 * m, row, like)? })
    }

    /// Combines the averages and the details, which are a pair.
    pub fn apply(&self, pair: &[Tensor]) -> Result<Tensor> {
        multiplied(&Tensor::cat(pair, self.axis)?, self.axis, &self.matrix)
    }
}

/// A matrix of these rows, with the tensor's type and device.
fn matrix(rows: usize, row: impl Fn(usize) -> Result<Vec<f64>>, like: &Tensor) -> Result<Tensor> {
    let values = (0..rows).map(row).collect::<Result<Vec<_>>>()?.concat();
    let columns = values.len() / rows;
    // Converted here: not every device casts from f64 to every type.
    let matrix = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?.to_dtype(like.dtype())?;
    Ok(matrix.to_device(like.device())?)
}

/// The product along an axis.
fn multiplied(x: &Tensor, axis: usize, matrix: &Tensor) -> Result<Tensor> {
    let last = x.rank() - 1;
    let x = x.transpose(axis, last)?.contiguous()?;
    let (entries, columns) = matrix.dims2()?;
    let mut shape = x.dims().to_vec();
    shape[last] = columns;
    let made = x.reshape((x.elem_count() / entries, entries))?.matmul(matrix)?;
    Ok(made.reshape(shape)?.transpose(axis, last)?)
}

/// The first entries along each axis.
pub(super) fn cropped(x: Tensor, shape: &[usize]) -> Result<Tensor> {
    Ok(shape.iter().enumerate().try_fold(x, |x, (axis, &n)| x.narrow(axis, 0, n))?)
}

/// The grids (batch, nx, ny, nz) of a packed tensor whose features are the unnormalised coefficients, in f32, on the tensor's device.
pub(super) fn decode(packed: &SparseConvTensor, layout: &WaveletLayout) -> Result<Tensor> {
    let cells = packed.dense_channels_last()?.to_dtype(DType::F32)?; // (batch, z, y, x, bands)
    let mut approx = band(&cells, layout, 0)?;
    for level in (1..=layout.level()).rev() {
        let first = layout.details(level);
        let shape = layout.shape(first);
        // A synthesis may return one sample more than the next level has coefficients.
        let mut parts = vec![cropped_grids(approx, shape)?];
        for id in first..first + 7 {
            parts.push(band(&cells, layout, id)?);
        }
        for axis in [3, 2, 1] {
            let synthesis = Synthesis::new(layout.wavelet(), layout.mode(), &parts[0], axis)?;
            parts = parts.chunks_exact(2).map(|pair| synthesis.apply(pair)).collect::<Result<_>>()?;
        }
        approx = parts.swap_remove(0);
    }
    cropped_grids(approx, layout.frame().shape)
}

/// The coefficients of a band, (batch, x, y, z).
fn band(cells: &Tensor, layout: &WaveletLayout, id: usize) -> Result<Tensor> {
    let mut found = cells.narrow(4, id, 1)?.squeeze(4)?.permute((0, 3, 2, 1))?;
    let stride = layout.band_stride(id as i32);
    for (axis, m) in layout.shape(id).into_iter().enumerate() {
        let places: Vec<u32> = (0..m).map(|i| (i * stride) as u32).collect();
        found = found.contiguous()?.index_select(&Tensor::from_vec(places, m, cells.device())?, axis + 1)?;
    }
    Ok(found)
}

fn cropped_grids(grids: Tensor, [x, y, z]: [usize; 3]) -> Result<Tensor> {
    let batch = grids.dim(0)?;
    cropped(grids, &[batch, x, y, z])
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::wavelet::{SparseWavelet, WaveletConfig, decode_features};

    /// Tests grids with odd sides and a batch of two, in modes with other lengths.
    #[test]
    fn products_make_the_grids_and_gradients_of_the_transform() -> Result<()> {
        for (name, mode) in [("bior4.4", Mode::Periodization), ("bior2.2", Mode::Symmetric), ("haar", Mode::Zero)] {
            let shape = [21, 18, 15];
            let grid = crate::sdf::SdfGrid::from_fn(shape, |[x, y, z]| x * y - 0.3 * z.sin())?;
            let config = WaveletConfig::new().wavelet(name.to_string()).level(2).mode(mode).truncation(None);
            let coefficients: SparseWavelet = grid.encode(&config)?;
            let one = coefficients.to_sparse_tensor(&Device::Cpu)?;
            let two = SparseConvTensor::cat_batch(&[one.clone(), one])?;
            let features = Var::from_tensor(two.features())?;
            let packed = two.replace_feature(features.as_tensor().clone())?;
            let (found, wanted) =
                (decode(&packed, coefficients.layout())?, decode_features(&packed, coefficients.layout())?);
            assert_eq!(found.dims(), [2, 21, 18, 15]);
            let largest = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
            assert!(largest(&found, &wanted)? < 1e-5, "{name}");
            let gradient = |grids: &Tensor| -> Result<Tensor> {
                let weights = wanted.sin()?.detach();
                Ok((grids * weights)?.sum_all()?.backward()?.get(&features).cloned().unwrap_or(features.zeros_like()?))
            };
            assert!(largest(&gradient(&found)?, &gradient(&wanted)?)? < 1e-5, "{name}");
        }
        Ok(())
    }
}
