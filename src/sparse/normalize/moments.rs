//! Mean and variance of a batch.

use candle_core::{Device, Tensor, WithDType};
use pulp::{Simd, WithSimd};

use super::number::Number;
use super::{add_rows, chunk, on_cpu, slice};
use crate::sparse::backend::simd;
use crate::sparse::sync::AllReduce;
use crate::sparse::tensor::SparseConvTensor;
use crate::{Result, parallel};

/// Mean and variance of each channel, (C,) f64, on the device of the features.
#[derive(Clone, Debug)]
pub(in crate::sparse) struct Moments {
    pub mean: Tensor,
    /// The biased variance.
    pub variance: Tensor,
}

impl Moments {
    /// The moments of features (N, C) with at least one row.
    pub fn of(x: &Tensor) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let [mean, variance] = crate::gpu::columns::moments(x)?;
            return Ok(Self { mean, variance });
        }
        let channels = x.dim(1)?;
        let x = x.contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        with_types!(x.dtype(), x.dtype(), (X, _Y) => moments::<X>(slice::<X>(on_cpu(&storage)?, layout)?, channels))
    }
}

impl Moments {
    /// The moments of a batch of which this member of `group` holds the rows of `x`, with their `own` moments if there are any rows; and
    /// the number of all rows. `None` if the batch has no rows.
    pub fn of_all(
        own: Option<Self>,
        x: &SparseConvTensor,
        channels: usize,
        group: &dyn AllReduce,
    ) -> Result<(Option<Self>, f64)> {
        let here = |values: &Tensor| Ok::<_, crate::Error>(values.to_device(&Device::Cpu)?.to_vec1::<f64>()?);
        let [own_mean, own_variance] = match &own {
            Some(own) => [here(&own.mean)?, here(&own.variance)?],
            None => [vec![0.0; channels], vec![0.0; channels]],
        };
        let count = x.len() as f64;
        let mut sums: Vec<f64> = std::iter::once(count).chain(own_mean.iter().map(|mean| mean * count)).collect();
        group.all_reduce(&mut sums)?;
        let rows = sums[0];
        let mean: Vec<f64> = sums[1..].iter().map(|sum| sum / rows.max(1.0)).collect();
        // Squares are taken about the mean of all rows, in a second round: about zero, values far from it would lose their differences.
        let distances = own_mean.iter().zip(&mean).map(|(own, all)| own - all);
        let mut squares: Vec<f64> = distances.zip(&own_variance).map(|(d, var)| count * (var + d * d)).collect();
        group.all_reduce(&mut squares)?;
        if rows == 0.0 {
            return Ok((None, rows));
        }
        let tensor = |values| Tensor::from_vec(values, channels, x.device());
        let variance = squares.into_iter().map(|square| square / rows).collect();
        Ok((Some(Self { mean: tensor(mean)?, variance: tensor(variance)? }), rows))
    }
}

struct ChunkMoments<'a, X: Number> {
    rows: &'a [X],
    channels: usize,
    scratch: &'a mut Vec<X::Wide>,
}

impl<X: Number> WithSimd for ChunkMoments<'_, X> {
    /// The mean, and the sum of squared distances from it.
    type Output = [Vec<X::Wide>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let Self { rows, channels, scratch } = self;
        let share = X::Wide::from_f64(channels as f64 / rows.len() as f64);
        let rows = X::widen(rows, scratch);
        let mut mean = vec![X::Wide::default(); channels];
        let mut squares = mean.clone();
        add_rows(rows, &mut mean, |_, x| x);
        mean.iter_mut().for_each(|mean| *mean *= share);
        let of = &mean[..channels];
        add_rows(rows, &mut squares, |c, x| (x - of[c]) * (x - of[c]));
        [mean, squares]
    }
}

/// Joins the moments of chunks (Chan, Golub & LeVeque 1983).
fn moments<X: Number>(x: &[X], channels: usize) -> Result<Moments> {
    let size = chunk(channels);
    let mut chunks = vec![<[Vec<X::Wide>; 2]>::default(); x.len().div_ceil(size)];
    parallel::chunks_mut_with(&mut chunks, 1, &|scratch, i, chunk| {
        let rows = &x[i * size..x.len().min((i + 1) * size)];
        chunk[0] = simd::dispatch(ChunkMoments::<X> { rows, channels, scratch });
    });
    let (mut mean, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
    let mut before = 0.0;
    for (rows, [chunk_mean, chunk_squares]) in x.chunks(size).zip(chunks) {
        let count = (rows.len() / channels) as f64;
        let total = before + count;
        for c in 0..channels {
            let distance = chunk_mean[c].to_f64() - mean[c];
            mean[c] += distance * count / total;
            squares[c] += chunk_squares[c].to_f64() + distance * distance * before * count / total;
        }
        before = total;
    }
    squares.iter_mut().for_each(|squares| *squares /= before);
    let tensor = |values| Tensor::from_vec(values, channels, &Device::Cpu);
    Ok(Moments { mean: tensor(mean)?, variance: tensor(squares)? })
}
