//! Gaussian noise that depends only on a seed.
//!
//! candle's CPU generator cannot be seeded. Here every draw names its stream, so that the noise of step 7 is the same whether steps 0–6 ran
//! in this process or in an earlier one. So sampling and training can be resumed.

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::Result;

/// The generator of `stream` for `seed`; it is independent of every other stream.
pub(crate) fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// The seed of part `index` of something with the seed `seed`.
pub(crate) fn seed_of(seed: u64, index: usize) -> u64 {
    // The finaliser of SplitMix64 (Steele et al. 2014), which makes neighbouring values very different.
    let mut z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// An endless sequence of standard normal numbers.
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> impl Iterator<Item = f32> + '_ {
    StandardNormal.sample_iter(rng)
}

/// Standard normal noise of `shape` (rows, channels) as `f32`. The same state of `rng` gives the same noise on every machine.
pub(crate) fn gaussian(rng: &mut ChaCha8Rng, shape: (usize, usize), device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = normal(rng).take(shape.0 * shape.1).collect();
    Ok(Tensor::from_vec(values, shape, device)?)
}
