//! [`element_noise`]: noise of which each batch element has its own.

use candle_core::Tensor;

use crate::sparse::SparseConvTensor;
use crate::{Result, parallel, random};

/// Normal noise (N, C) for the rows of `x`, on its device, as `f32`. Element `i` has the noise of `stream` for the seeds `seeds[i]`, each
/// with its factor, whatever else is in the batch.
pub(super) fn element_noise(seeds: &[Vec<(u64, f32)>], stream: u64, x: &SparseConvTensor) -> Result<Tensor> {
    let channels = x.channels();
    let counts = x.batch_counts()?;
    let own: Vec<Vec<f32>> = parallel::map(seeds.len(), &|element| {
        let mut sum = vec![0f32; counts[element] * channels];
        for &(seed, factor) in &seeds[element] {
            let mut rng = random::rng(seed, stream);
            sum.iter_mut().zip(random::normal(&mut rng)).for_each(|(sum, drawn)| *sum += factor * drawn);
        }
        sum
    });
    let mut used = vec![0; own.len()];
    let mut values = Vec::with_capacity(x.len() * channels);
    for site in x.coords().iter() {
        let element = site[0] as usize;
        values.extend_from_slice(&own[element][used[element]..][..channels]);
        used[element] += channels;
    }
    Ok(Tensor::from_vec(values, (x.len(), channels), x.device())?)
}
