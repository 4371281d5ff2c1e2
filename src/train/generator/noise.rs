//! [`Noise`]: the noise from which shapes are drawn.

use crate::random;
use crate::train::representation::Representation;

/// Gaussian noise on every site of each stage's grid. The noise at a site depends on its place, not on which other sites exist.
#[derive(Clone, Default)]
pub struct Noise {
    /// The seeds of the noise, each with its factor. Two seeds are mixed on the sphere.
    pub seeds: Vec<(u64, f32)>,
}

impl Noise {
    pub fn of(seed: u64) -> Self {
        Self { seeds: vec![(seed, 1.0)] }
    }

    /// The noise (sites × channels) of a stage whose grid has `grid` sites along each axis.
    pub fn at(&self, stage: usize, grid: usize, sites: &[[i32; 3]]) -> Vec<f32> {
        let channels = Representation::channels_of(stage);
        let mut out = vec![0f32; sites.len() * channels];
        for &(seed, share) in &self.seeds {
            let mut rng = random::rng(Self::stage_seed(seed, stage), 0);
            let field: Vec<f32> = random::normal(&mut rng).take(grid.pow(3) * channels).collect();
            for (row, &[z, y, x]) in out.chunks_exact_mut(channels).zip(sites) {
                let at = ((z as usize * grid + y as usize) * grid + x as usize) * channels;
                row.iter_mut().zip(&field[at..]).for_each(|(out, z)| *out += share * z);
            }
        }
        out
    }

    /// The seeds of the noise that a sampler adds in a stage, each with its factor.
    pub fn of_steps(&self, stage: usize) -> Vec<(u64, f32)> {
        self.seeds.iter().map(|&(seed, share)| (Self::stage_seed(seed, stage), share)).collect()
    }

    pub fn stage_seed(seed: u64, stage: usize) -> u64 {
        seed.wrapping_mul(16).wrapping_add(stage as u64)
    }
}
