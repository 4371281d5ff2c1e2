//! Synthesis by matrix products: it works where tensors are on a GPU, and is differentiable as all products are.
//!
//! A level of a separable transform is a product along each axis. Each row of the matrix is what the processor's transform makes of one
//! coefficient, so modes and lengths are the same.

use candle_core::{DType, Device, Tensor};

use super::filters::Wavelet;
use super::layout::WaveletLayout;
use super::mode::Mode;
use super::transform::synthesize;
use crate::Result;
use crate::sparse::SparseConvTensor;

/// The grids (batch, nx, ny, nz) of a packed tensor whose features are the unnormalised coefficients, in f32, on the tensor's device.
pub(super) fn decode(packed: &SparseConvTensor, layout: &WaveletLayout) -> Result<Tensor> {
    let cells = packed.dense_channels_last()?.to_dtype(DType::F32)?; // (batch, z, y, x, bands)
    let mut approx = band(&cells, layout, 0)?;
    for level in (1..=layout.level()).rev() {
        let first = layout.details(level);
        let shape = layout.shape(first);
        // A synthesis may return one sample more than the next level has coefficients.
        let mut parts = vec![cropped(approx, shape)?];
        for id in first..first + 7 {
            parts.push(band(&cells, layout, id)?);
        }
        for axis in [2, 1, 0] {
            let matrix = synthesis(layout.wavelet(), layout.mode(), shape[axis], cells.device())?;
            parts = parts.chunks_exact(2).map(|pair| along(axis, pair, &matrix)).collect::<Result<_>>()?;
        }
        approx = parts.swap_remove(0);
    }
    cropped(approx, layout.frame().shape)
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

fn cropped(grids: Tensor, shape: [usize; 3]) -> Result<Tensor> {
    let narrow = |grids: Tensor, (axis, n): (usize, usize)| grids.narrow(axis + 1, 0, n);
    Ok(shape.into_iter().enumerate().try_fold(grids, narrow)?)
}

/// Combines averages and details along an axis of (batch, x, y, z).
fn along(axis: usize, pair: &[Tensor], matrix: &Tensor) -> Result<Tensor> {
    let pair =
        pair.iter().map(|part| part.transpose(axis + 1, 3)?.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let both = Tensor::cat(&pair, 3)?; // (batch, ·, ·, 2m)
    let (batch, a, b, entries) = both.dims4()?;
    let made = both.reshape((batch * a * b, entries))?.matmul(matrix)?;
    Ok(made.reshape((batch, a, b, ()))?.transpose(axis + 1, 3)?)
}

/// (2m, n): the samples that each average and each detail makes.
fn synthesis(wavelet: &Wavelet, mode: Mode, m: usize, device: &Device) -> Result<Tensor> {
    let mut rows = Vec::new();
    for entry in 0..2 * m {
        let mut bands = vec![0f32; 2 * m];
        bands[entry] = 1.0;
        let (low, high) = bands.split_at(m);
        rows.extend(synthesize(&[low, high], &[m], wavelet, mode)?.data);
    }
    let n = rows.len() / (2 * m);
    Ok(Tensor::from_vec(rows, (2 * m, n), device)?)
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
