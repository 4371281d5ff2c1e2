//! The training loss, and the choice of its timesteps.
//!
//! Mean squared error between the network's output and its target, averaged within each batch element and then over
//! the elements, so that a shape with few sites counts as much as one with many. Optional weights: min-SNR (Hang et
//! al. 2023) and the reciprocal probability of an importance-sampled timestep (Nichol & Dhariwal 2021, section 3.3).

use candle_core::{DType, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::gaussian::{broadcast_to_sites, check_same_shape, timestep_tensor};
use super::noise::element_noise;
use super::{Denoiser, GaussianDiffusion, NoiseSchedule, Prediction};
use crate::sparse::SparseConvTensor;
use crate::{Error, Result, memory, random};

/// How a training loss is computed. The default is an unconditional training pass with uniform timesteps and seed 0.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LossOptions<'a> {
    /// Seed of timesteps and noise. Use another one for each step of a training.
    pub seed: u64,
    /// These timesteps, one for each batch element; `None` draws them.
    pub timesteps: Option<Vec<usize>>,
    /// Draws timesteps more often where the loss has been large. `None` draws them uniformly, in equal strides within a batch.
    pub importance: Option<&'a LossHistory>,
    /// What the network is conditioned on.
    pub context: Option<&'a Tensor>,
    /// Whether dropout and batch statistics are on (training) or off (validation).
    pub train: bool,
    /// The index of the first element of `x0` in a larger batch, and the size of that batch: the random numbers are then those of that part
    /// of the larger batch. `None` for a whole batch.
    pub part: Option<(usize, usize)>,
}

impl Default for LossOptions<'_> {
    fn default() -> Self {
        Self { seed: 0, timesteps: None, importance: None, context: None, train: true, part: None }
    }
}

setters! {
    LossOptions<'a> {
        seed(seed: u64) => seed = seed;
        timesteps(timesteps: Vec<usize>) => timesteps = Some(timesteps);
        importance(importance: &'a LossHistory) => importance = Some(importance);
        context(context: &'a Tensor) => context = Some(context);
        train(train: bool) => train = train;
        part(part: (usize, usize)) => part = Some(part);
    }
}

/// A training loss and its parts.
#[derive(Clone, Debug)]
pub struct TrainingLoss {
    /// The weighted loss, a scalar to call `backward` on.
    pub loss: Tensor,
    /// The timestep of each batch element.
    pub timesteps: Vec<usize>,
    /// The unweighted mean squared error of each batch element, (batch_size,); 0 for an element without sites.
    pub per_element: Tensor,
}

impl GaussianDiffusion {
    /// Noises `x0`, runs the network, and compares.
    ///
    /// # Errors
    /// [`Error::Argument`] for timesteps out of range or an `x0` without sites; [`Error::Shape`] if the network's output does not have the
    /// shape of `x0`; and errors of the network.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let diffusion = GaussianDiffusion::new(&DiffusionConfig::new().prediction(Prediction::X0), &Device::Cpu)?;
    /// let knows = |_: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| Ok(x.clone());
    /// let doubts = |noised: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| Ok(noised.clone());
    /// let options = LossOptions::new().timesteps(vec![900]);
    /// assert_eq!(diffusion.training_loss(&knows, &x, &options)?.loss.to_scalar::<f32>()?, 0.0);
    /// assert!(diffusion.training_loss(&doubts, &x, &options)?.loss.to_scalar::<f32>()? > 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn training_loss(
        &self,
        model: &dyn Denoiser,
        x0: &SparseConvTensor,
        options: &LossOptions<'_>,
    ) -> Result<TrainingLoss> {
        if x0.is_empty() {
            return Err(Error::Argument {
                op: "training_loss",
                name: "x0",
                got: "no sites".into(),
                expected: "at least one site".into(),
            });
        }
        let mut rng = random::rng(options.seed, 0);
        let batch = x0.batch_size();
        let (first, whole) = options.part.unwrap_or((0, batch));
        if first + batch > whole {
            let got = format!("{batch} elements from {first} on of {whole}");
            return Err(Error::argument("training_loss", "part", got, "elements that the whole batch has"));
        }
        let (timesteps, mut weights) = match (&options.timesteps, options.importance) {
            (Some(timesteps), _) => (timesteps.clone(), vec![1.0; batch]),
            (None, Some(history)) => {
                let (timesteps, weights) = history.draw(whole, &mut rng);
                (timesteps[first..][..batch].to_vec(), weights[first..][..batch].to_vec())
            }
            (None, None) => {
                let timesteps = spread(self.schedule().len(), whole, &mut rng);
                (timesteps[first..][..batch].to_vec(), vec![1.0; batch])
            }
        };
        self.check_timesteps("training_loss", x0, &timesteps)?;
        if let Some(gamma) = self.config().min_snr_gamma {
            for (weight, &t) in weights.iter_mut().zip(&timesteps) {
                *weight *= min_snr_weight(self.schedule(), self.config().prediction, gamma, t);
            }
        }

        /// Data use the streams with smaller numbers.
        const NOISE: u64 = 16;
        let seeds: Vec<_> =
            (0..batch).map(|element| vec![(random::seed_of(options.seed, first + element), 1.0)]).collect();
        let noise = element_noise(&seeds, NOISE, x0)?.to_dtype(x0.features().dtype())?;
        let noised = self.q_sample(x0, &timesteps, &noise)?;
        // What is copied to a GPU goes there before the network runs, because a copy waits for earlier work.
        let target = self.target(x0, &timesteps, &noise)?;
        let counts = x0.batch_counts()?;
        let occupied = counts.iter().filter(|&&n| n > 0).count() as f64;
        let share = |count: usize, weight: f64| (weight / (count.max(1) as f64 * occupied)) as f32;
        let shares: Vec<f32> = counts.iter().zip(&weights).map(|(&n, &w)| share(n, w)).collect();
        let row_weights = broadcast_to_sites(x0, &shares)?.to_dtype(DType::F32)?.squeeze(1)?; // (N,)
        let sizes = Tensor::from_iter(counts.iter().map(|&n| n.max(1) as f32), x0.device())?;
        let t = timestep_tensor(&timesteps, self.device())?;
        let output = model.predict(&noised, &t, options.context, options.train)?;
        x0.expect_same_sites("training_loss", "the network's output", &output)?;
        check_same_shape("training_loss", "the network's output", output.features(), x0.features())?;
        let error = (output.features() - target)?.to_dtype(DType::F32)?.sqr()?.mean(1)?; // (N,)

        let loss = (&error * row_weights)?.sum_all()?;
        let per_element = (x0.sum_elements(&error.detach().unsqueeze(1)?, 1)?.squeeze(1)? / sizes)?;
        Ok(TrainingLoss { loss, timesteps, per_element })
    }
}

/// Uniform timesteps in equal strides from a random first one, so that every batch covers the whole range. Each timestep by itself is
/// uniform, and the loss varies less from batch to batch (Kingma et al. 2021, "Variational Diffusion Models", appendix I.1).
fn spread(timesteps: usize, batch: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let first = rng.random_range(0..timesteps);
    (0..batch).map(|i| (first + i * timesteps / batch) % timesteps).collect()
}

/// Min-SNR-γ weight of the loss at `t` (Hang et al. 2023, section 3.4), for each kind of prediction.
fn min_snr_weight(schedule: &NoiseSchedule, prediction: Prediction, gamma: f64, t: usize) -> f64 {
    let snr = schedule.snr(t as i64);
    match prediction {
        Prediction::Epsilon => snr.min(gamma) / snr,
        Prediction::X0 => snr.min(gamma),
        Prediction::V => snr.min(gamma) / (snr + 1.0),
    }
}

/// The latest losses at every timestep. Timesteps are drawn from them in proportion to `√E[loss²]` (Nichol & Dhariwal 2021, equation 18);
/// the draw is uniform until every timestep has enough losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossHistory {
    /// Up to [`LossHistory::KEPT`] of the latest losses of each timestep, oldest first.
    losses: Vec<Vec<f32>>,
}

impl LossHistory {
    /// How many losses are kept for each timestep. Drawing by importance starts when all timesteps have this many.
    pub const KEPT: usize = 10;
    /// The share of draws that stays uniform, so that every timestep is drawn now and then.
    const UNIFORM: f64 = 1e-3;

    /// An empty history for a schedule of `timesteps` steps.
    ///
    /// # Errors
    /// [`Error::Argument`] for no timesteps, [`Error::Memory`] for more than fit in memory.
    ///
    /// ```
    /// use wavemesh::diffusion::LossHistory;
    /// assert_eq!(LossHistory::new(4)?.probabilities(), [0.25; 4]);
    /// assert!(LossHistory::new(0).is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn new(timesteps: usize) -> Result<Self> {
        const OP: &str = "LossHistory::new";
        if timesteps == 0 {
            return Err(Error::argument(OP, "timesteps", 0, "1 or more"));
        }
        let kept = Self::KEPT * size_of::<f32>();
        let timesteps = memory::elements::<Vec<f32>>(OP, "the table", &[timesteps], kept)?;
        Ok(Self { losses: vec![Vec::new(); timesteps] })
    }

    /// Adds the losses of a [`TrainingLoss`].
    ///
    /// # Errors
    /// [`Error::Argument`] if a timestep is not in this schedule.
    ///
    /// ```
    /// use wavemesh::diffusion::{LossHistory, TrainingLoss};
    /// use wavemesh::prelude::*;
    /// let mut history = LossHistory::new(2)?;
    /// for _ in 0..LossHistory::KEPT {
    ///     let per_element = Tensor::new(&[1f32, 3.0], &Device::Cpu)?;
    ///     history.record(&TrainingLoss { loss: per_element.mean_all()?, timesteps: vec![0, 1], per_element })?;
    /// }
    /// let drawn = history.probabilities(); // 1 to 3, except for a small share that stays uniform
    /// assert!((drawn[1] - 0.75).abs() < 1e-3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn record(&mut self, loss: &TrainingLoss) -> Result<()> {
        let values: Vec<f32> = loss.per_element.to_vec1()?;
        let timesteps = self.losses.len();
        for (&t, value) in loss.timesteps.iter().zip(values) {
            let Some(kept) = self.losses.get_mut(t) else {
                return Err(Error::Argument {
                    op: "LossHistory::record",
                    name: "timestep",
                    got: t.to_string(),
                    expected: format!("0 to {}", timesteps.saturating_sub(1)),
                });
            };
            if kept.len() == Self::KEPT {
                kept.remove(0);
            }
            kept.push(value);
        }
        Ok(())
    }

    /// The probability of each timestep in the next draw.
    pub fn probabilities(&self) -> Vec<f64> {
        let count = self.losses.len() as f64;
        if self.losses.iter().any(|kept| kept.len() < Self::KEPT) {
            return vec![1.0 / count; self.losses.len()];
        }
        let root_mean_square =
            |kept: &Vec<f32>| (kept.iter().map(|&l| f64::from(l).powi(2)).sum::<f64>() / kept.len() as f64).sqrt();
        let sizes: Vec<f64> = self.losses.iter().map(root_mean_square).collect();
        let total: f64 = sizes.iter().sum();
        if total == 0.0 {
            return vec![1.0 / count; self.losses.len()];
        }
        sizes.iter().map(|size| size / total * (1.0 - Self::UNIFORM) + Self::UNIFORM / count).collect()
    }

    /// Draws for each of `batch` elements a timestep and the weight `1 / (T·p)` that makes the loss unbiased.
    fn draw(&self, batch: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, Vec<f64>) {
        let probabilities = self.probabilities();
        let count = probabilities.len();
        (0..batch)
            .map(|_| {
                let mut left: f64 = rng.random();
                let t = probabilities.iter().position(|p| {
                    left -= p;
                    left < 0.0
                });
                let t = t.unwrap_or(count - 1);
                (t, 1.0 / (count as f64 * probabilities[t]))
            })
            .unzip()
    }
}
