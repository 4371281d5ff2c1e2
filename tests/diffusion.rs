//! Tests of the diffusion process besides those with fixtures: it recovers known distributions, is reproducible, can be paused, and refuses
//! bad input.

use std::sync::LazyLock;

use candle_core::{Device, Tensor};
use wavemesh::diffusion::{
    BetaSchedule, Clip, Denoiser, DiffusionConfig, GaussianDiffusion, LossHistory, LossOptions, Prediction,
    SampleOptions, Sampler, TimestepSpacing,
};
use wavemesh::sparse::SparseConvTensor;
use wavemesh::{Error, Result};

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

/// `batch` elements of `sites` sites each, with the given features (rows, channels).
fn sparse(batch: usize, sites: usize, channels: usize, features: Vec<f32>) -> SparseConvTensor {
    let device = DEVICE.clone();
    let coords: Vec<i64> = (0..batch)
        .flat_map(|b| (0..sites).flat_map(move |i| [b as i64, 0, (i / 64) as i64, (i % 64) as i64]))
        .collect();
    SparseConvTensor::new(
        Tensor::from_vec(features, (batch * sites, channels), &device).unwrap(),
        Tensor::from_vec(coords, (batch * sites, 4), &device).unwrap(),
        [1, 64, 64],
        batch,
    )
    .unwrap()
}

fn zeros(batch: usize, sites: usize, channels: usize) -> SparseConvTensor {
    sparse(batch, sites, channels, vec![0.0; batch * sites * channels])
}

fn diffusion(prediction: Prediction) -> GaussianDiffusion {
    let config = DiffusionConfig::new().prediction(prediction);
    GaussianDiffusion::new(&config, &DEVICE).unwrap()
}

fn values(x: &SparseConvTensor) -> Vec<f32> {
    x.features().flatten_all().unwrap().to_vec1().unwrap()
}

const MEAN: f64 = 0.6;
const STD: f64 = 0.3;

/// The exact denoiser of data that is Gaussian with mean 0.6 and deviation 0.3, for any kind of prediction.
struct Exact(GaussianDiffusion);

impl Denoiser for Exact {
    fn predict(&self, x: &SparseConvTensor, t: &Tensor, _: Option<&Tensor>, _: bool) -> Result<SparseConvTensor> {
        let t = t.to_vec1::<f32>()?[0] as i64;
        let a = self.0.schedule().alpha_cumprod(t);
        let (signal, scale) = (a.sqrt(), (1.0 - a).sqrt());
        // E[x0 | xt] of a Gaussian: the prior's mean, moved by the observed deviation.
        let gain = signal * STD * STD / (a * STD * STD + 1.0 - a);
        let x0 = (((x.features() - signal * MEAN)? * gain)? + MEAN)?;
        let eps = ((x.features() - (&x0 * signal)?)? / scale)?;
        x.replace_feature(match self.0.config().prediction {
            Prediction::Epsilon => eps,
            Prediction::X0 => x0,
            Prediction::V => ((eps * signal)? - (x0 * scale)?)?,
        })
    }
}

#[test]
fn every_sampler_recovers_a_known_gaussian() {
    let samplers = [
        Sampler::Ddpm { steps: 1000 },
        Sampler::Ddpm { steps: 150 },
        Sampler::Ddim { steps: 100, eta: 0.0 },
        Sampler::Ddim { steps: 300, eta: 1.0 },
        Sampler::Ddim { steps: 600, eta: 0.0 }, // 600 does not divide 1000
        Sampler::Ddim { steps: 137, eta: 0.0 }, // nor does 137
        Sampler::DpmSolverPP { steps: 120, order: 1 },
        Sampler::DpmSolverPP { steps: 100, order: 2 },
        Sampler::DpmSolverPP { steps: 100, order: 3 },
    ];
    for prediction in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
        let diffusion = diffusion(prediction);
        let model = Exact(diffusion.clone());
        for spacing in [TimestepSpacing::Trailing, TimestepSpacing::Linspace] {
            for sampler in samplers {
                let options = SampleOptions::new().spacing(spacing).seed(7);
                let sample = values(&diffusion.sample(&model, &zeros(1, 4096, 1), sampler, options).unwrap());
                let mean = sample.iter().map(|&v| f64::from(v)).sum::<f64>() / 4096.0;
                let std = (sample.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 4096.0).sqrt();
                // 4096 draws: the standard error of the mean is 0.005, that of the standard deviation 0.0033. The last step, to zero noise,
                // returns the mean of the remaining distribution, so a few steps would narrow the result.
                assert!(
                    (mean - MEAN).abs() < 0.025 && (std - STD).abs() < 0.025,
                    "{prediction:?} {spacing:?} {sampler:?}: mean {mean:.4}, deviation {std:.4}"
                );
            }
        }
    }
}

#[test]
fn batch_elements_are_noised_to_their_own_timesteps() {
    let diffusion = diffusion(Prediction::Epsilon);
    let x0 = sparse(2, 3, 2, vec![1.0; 12]);
    let noise = Tensor::zeros((6, 2), candle_core::DType::F32, &DEVICE).unwrap();
    let noised = values(&diffusion.q_sample(&x0, &[100, 999], &noise).unwrap());
    for (i, value) in noised.into_iter().enumerate() {
        let expected = if i < 6 { 0.89514159f64.sqrt() } else { 4.03583e-5f64.sqrt() };
        assert!((f64::from(value) - expected).abs() < 1e-6, "entry {i}: {value}, expected {expected}");
    }
}

#[test]
fn the_loss_of_a_perfect_answer_is_zero_and_its_scale_is_the_squared_error() {
    for prediction in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
        let diffusion = diffusion(prediction);
        let x0 = zeros(2, 50, 3);
        // With x0 = 0 the noise is x_t / √(1−ᾱ), so the exact answers are known; the model is wrong by 0.5 each time.
        let t = vec![200, 700];
        let scales: Vec<f64> = t.iter().map(|&t| (1.0 - diffusion.schedule().alpha_cumprod(t as i64)).sqrt()).collect();
        for offset in [0.0, 0.5] {
            let scales = scales.clone();
            let schedule = diffusion.schedule().clone();
            let times = t.clone();
            let model = move |x: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| {
                let per_row = |f: &dyn Fn(usize) -> f64| -> Vec<f32> {
                    x.coords().iter().map(|site| f(site[0] as usize) as f32).collect()
                };
                let factor = match prediction {
                    Prediction::Epsilon => per_row(&|b| 1.0 / scales[b]),
                    Prediction::X0 => per_row(&|_| 0.0),
                    Prediction::V => per_row(&|b| schedule.alpha_cumprod(times[b] as i64).sqrt() / scales[b]),
                };
                let factor = Tensor::from_vec(factor, (x.len(), 1), x.device())?;
                x.replace_feature((x.features().broadcast_mul(&factor)? + offset)?)
            };
            let options = LossOptions::new().timesteps(t.clone()).seed(1);
            let loss = diffusion.training_loss(&model, &x0, &options).unwrap();
            let value = f64::from(loss.loss.to_scalar::<f32>().unwrap());
            assert!((value - offset * offset).abs() < 1e-5, "{prediction:?}, missed by {offset}: {value}");
        }
    }
}

#[test]
fn min_snr_weights_bound_the_weight_of_easy_timesteps() {
    let config = DiffusionConfig::new().min_snr_gamma(5.0);
    let weighted = GaussianDiffusion::new(&config, &DEVICE).unwrap();
    let x0 = zeros(1, 20, 1);
    let silent =
        |x: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| x.replace_feature(x.features().zeros_like()?);
    let loss = |diffusion: &GaussianDiffusion, t| {
        let options = LossOptions::new().timesteps(vec![t]).seed(3);
        f64::from(diffusion.training_loss(&silent, &x0, &options).unwrap().loss.to_scalar::<f32>().unwrap())
    };
    let plain = diffusion(Prediction::Epsilon);
    for t in [0, 100, 500, 999] {
        let snr = plain.schedule().snr(t);
        let t = t as usize;
        let ratio = loss(&weighted, t) / loss(&plain, t);
        assert!((ratio - snr.min(5.0) / snr).abs() < 1e-5, "t = {t}: {ratio}");
    }
}

#[test]
fn importance_sampling_prefers_timesteps_with_large_losses_and_stays_unbiased() {
    let config = DiffusionConfig::new().timesteps(10);
    let diffusion = GaussianDiffusion::new(&config, &DEVICE).unwrap();
    let x0 = zeros(10, 8, 1);
    // The model is wrong by t/10, so the true mean loss over uniform timesteps is known.
    let model = |x: &SparseConvTensor, t: &Tensor, _: Option<&Tensor>, _: bool| {
        let t = t.to_vec1::<f32>()?;
        let rows: Vec<f32> = x.coords().iter().map(|site| t[site[0] as usize] / 10.0).collect();
        x.replace_feature(Tensor::from_vec(rows, (x.len(), 1), x.device())?)
    };
    let x0_diffusion = GaussianDiffusion::new(&config.prediction(Prediction::X0), &DEVICE).unwrap();
    let mut history = LossHistory::new(10).unwrap();
    let all: Vec<usize> = (0..10).collect();
    for seed in 0..LossHistory::KEPT as u64 {
        assert!(history.probabilities().iter().all(|p| (p - 0.1).abs() < 1e-12), "uniform while warming up");
        let options = LossOptions::new().timesteps(all.clone()).seed(seed);
        history.record(&x0_diffusion.training_loss(&model, &x0, &options).unwrap()).unwrap();
    }
    let probabilities = history.probabilities();
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!(probabilities.windows(2).all(|pair| pair[0] < pair[1]), "{probabilities:?}");
    let mean: f64 = (0..400)
        .map(|seed| {
            let options = LossOptions::new().seed(seed).importance(&history);
            let loss = x0_diffusion.training_loss(&model, &x0, &options).unwrap();
            f64::from(loss.loss.to_scalar::<f32>().unwrap())
        })
        .sum::<f64>()
        / 400.0;
    let truth = (0..10).map(|t| (t as f64 / 10.0).powi(2)).sum::<f64>() / 10.0;
    assert!((mean - truth).abs() < 0.03 * truth, "estimated {mean}, true {truth}");
    assert_eq!(diffusion.schedule().len(), 10);
}

#[test]
fn timesteps_of_a_batch_are_spread_evenly_and_each_is_uniform() {
    let diffusion = diffusion(Prediction::V);
    let (model, x0) = (Exact(diffusion.clone()), zeros(4, 2, 1));
    let mut first = Vec::new();
    for seed in 0..400 {
        let options = LossOptions::new().seed(seed);
        let mut drawn = diffusion.training_loss(&model, &x0, &options).unwrap().timesteps;
        first.push(drawn[0] as f64);
        drawn.sort_unstable();
        assert!(drawn.windows(2).all(|pair| pair[1] - pair[0] == 250), "{drawn:?}");
    }
    let mean = first.iter().sum::<f64>() / 400.0;
    assert!((mean - 499.5).abs() < 45.0, "the mean of 400 uniform draws, whose deviation is 14: {mean}");
}

#[test]
fn a_seed_fixes_the_sample_and_another_seed_changes_it() {
    let diffusion = diffusion(Prediction::V);
    let model = Exact(diffusion.clone());
    let draw = |seed| {
        let options = SampleOptions::new().seed(seed);
        values(&diffusion.sample(&model, &zeros(2, 30, 2), Sampler::Ddpm { steps: 20 }, options).unwrap())
    };
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
}

#[test]
fn with_a_seed_of_its_own_an_element_does_not_depend_on_its_batch() {
    let diffusion = diffusion(Prediction::V);
    let model = Exact(diffusion.clone());
    let draw = |batch: usize, options: SampleOptions| {
        let sampler = Sampler::Ddim { steps: 20, eta: 1.0 };
        Ok::<_, Error>(values(&diffusion.sample(&model, &zeros(batch, 30, 2), sampler, options)?))
    };
    let together = draw(3, SampleOptions::new().seeds(vec![7, 8, 7])).unwrap();
    let alone = [7, 8, 7].map(|seed| draw(1, SampleOptions::new().seed(seed)).unwrap()).concat();
    assert!(together.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{together:?} {alone:?}");
    assert_ne!(together[..60], together[60..120]);
    let wrong = draw(3, SampleOptions::new().seeds(vec![7, 8])).unwrap_err().to_string();
    assert!(wrong.contains("2 seeds") && wrong.contains("each of 3 batch elements"), "{wrong}");
}

#[test]
fn a_paused_run_continues_as_if_it_had_not_been() {
    let diffusion = diffusion(Prediction::Epsilon);
    let model = Exact(diffusion.clone());
    let like = zeros(1, 40, 1);
    for sampler in [Sampler::Ddpm { steps: 12 }, Sampler::DpmSolverPP { steps: 12, order: 3 }] {
        let whole = diffusion.sample(&model, &like, sampler, None).unwrap();
        let mut run = diffusion.start_sampling(&like, sampler, SampleOptions::default()).unwrap();
        for _ in 0..5 {
            run.step(&model).unwrap();
        }
        // A network that fails leaves the run where it was.
        let broken = |_: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| Err(Error::Interrupted);
        assert!(run.step(&broken).is_err());
        assert_eq!(run.done(), 5);
        let mut resumed = run.clone();
        while !resumed.is_done() {
            resumed.step(&model).unwrap();
        }
        assert_eq!(values(resumed.x()), values(&whole), "{sampler:?}");
        assert!(matches!(resumed.step(&model), Err(Error::Argument { .. })));
    }
}

#[test]
fn guidance_stretches_the_step_away_from_the_unconditional_answer() {
    let diffusion = diffusion(Prediction::X0);
    // The network answers 1 with context and 0 without: guidance w must give w.
    let model = |x: &SparseConvTensor, _: &Tensor, context: Option<&Tensor>, _: bool| {
        let ones = x.features().ones_like()?;
        x.replace_feature(if context.is_some() { ones } else { ones.zeros_like()? })
    };
    let context = Tensor::zeros((1, 1, 4), candle_core::DType::F32, &DEVICE).unwrap();
    for (scale, expected) in [(None, 1.0), (Some(1.0), 1.0), (Some(3.0), 3.0), (Some(0.0), 0.0)] {
        let options = SampleOptions::new().context(context.clone()).guidance_scale(scale);
        let sample = diffusion.sample(&model, &zeros(1, 5, 1), Sampler::Ddim { steps: 4, eta: 0.0 }, options).unwrap();
        assert!(values(&sample).iter().all(|v| (v - expected).abs() < 1e-5), "{scale:?}: {:?}", values(&sample));
    }
}

#[test]
fn clipping_keeps_each_channel_in_its_range() {
    let diffusion = diffusion(Prediction::X0);
    let loud = |x: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| {
        let rows = (0..x.len()).flat_map(|i| [i as f32, -2.0 * i as f32]).collect::<Vec<_>>();
        x.replace_feature(Tensor::from_vec(rows, (x.len(), 2), x.device())?)
    };
    let like = zeros(1, 101, 2);
    let run = |clip| {
        let options = SampleOptions::new().clip(clip);
        values(&diffusion.sample(&loud, &like, Sampler::Ddim { steps: 3, eta: 0.0 }, options).unwrap())
    };
    let largest = |v: &[f32], channel: usize| v.iter().skip(channel).step_by(2).fold(0f32, |m, x| m.max(x.abs()));
    let fixed = run(Clip::Static(1.5));
    assert_eq!((largest(&fixed, 0), largest(&fixed, 1)), (1.5, 1.5));
    let own = run(Clip::PerChannel(vec![2.0, 7.0]));
    assert_eq!((largest(&own, 0), largest(&own, 1)), (2.0, 7.0));
    // The 0.5 quantile of 0..=100 is 50: larger values are clipped to it, and all are divided by it.
    let dynamic = run(Clip::Dynamic { quantile: 0.5, max: 1000.0 });
    assert_eq!((dynamic[2 * 25], dynamic[2 * 50], dynamic[2 * 100]), (0.5, 1.0, 1.0));
}

#[test]
fn an_interrupt_stops_sampling_between_steps() {
    let diffusion = diffusion(Prediction::Epsilon);
    let mut seen = 0;
    let options = SampleOptions::new().callback(|step| {
        seen = step.index + 1;
        if seen == 3 { Err(Error::Interrupted) } else { Ok(()) }
    });
    let model = Exact(diffusion.clone());
    let stopped = diffusion.sample(&model, &zeros(1, 4, 1), Sampler::Ddim { steps: 9, eta: 0.0 }, options);
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_eq!(seen, 3);
}

#[test]
fn a_solver_may_take_as_many_steps_as_there_are_timesteps() {
    let config = DiffusionConfig::new().timesteps(60).beta_end(0.2);
    let diffusion = GaussianDiffusion::new(&config, &Device::Cpu).unwrap();
    let model = Exact(diffusion.clone());
    let spacings = [TimestepSpacing::Leading, TimestepSpacing::Trailing, TimestepSpacing::Linspace];
    for sampler in [Sampler::DpmSolverPP { steps: 60, order: 2 }, Sampler::Ddim { steps: 60, eta: 0.0 }] {
        let samples = spacings.map(|spacing| {
            let options = SampleOptions::new().spacing(spacing);
            let run = diffusion.start_sampling(&zeros(1, 16, 1), sampler, options).unwrap();
            assert!(run.timesteps().iter().copied().eq((0..60).rev()), "{sampler:?} {spacing:?}");
            let options = SampleOptions::new().spacing(spacing);
            values(&diffusion.sample(&model, &zeros(1, 16, 1), sampler, options).unwrap())
        });
        assert!(samples.iter().all(|sample| *sample == samples[0] && sample.iter().all(|v| v.is_finite())));
    }
}

#[test]
fn a_prediction_on_other_sites_or_in_another_order_is_an_error() {
    let diffusion = diffusion(Prediction::Epsilon);
    let like = zeros(1, 10, 1);
    let turned = |x: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| {
        let rows: Vec<i64> = (0..x.len() as i64).rev().collect();
        x.select_by_index(&Tensor::from_vec(rows, x.len(), x.device())?)
    };
    let moved = |x: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| {
        let coords = x.coords().iter().map(|&[b, z, y, x]| [b, z, y + 1, x]).collect();
        SparseConvTensor::from_coords(x.features().clone(), coords, x.spatial_shape(), x.batch_size())
    };
    let plain = Sampler::Ddim { steps: 5, eta: 0.0 };
    for said in [
        diffusion.sample(&turned, &like, plain, None).unwrap_err().to_string(),
        diffusion.sample(&moved, &like, plain, None).unwrap_err().to_string(),
        diffusion.training_loss(&turned, &like, &LossOptions::default()).unwrap_err().to_string(),
    ] {
        assert!(said.contains("the network's output is"), "{said}");
        assert!(said.contains("10 sites in another order") || said.contains("0 of which the first has too"), "{said}");
    }
}

#[test]
fn a_sample_has_the_dtype_it_is_like_and_the_steps_are_precise() {
    use candle_core::DType;
    let diffusion = diffusion(Prediction::V);
    let samplers = [
        Sampler::Ddpm { steps: 20 },
        Sampler::Ddim { steps: 20, eta: 0.5 },
        Sampler::DpmSolverPP { steps: 20, order: 3 },
    ];
    for sampler in samplers {
        let sample = |dtype: DType| {
            let like = zeros(1, 64, 2);
            let like = like.replace_feature(like.features().to_dtype(dtype).unwrap()).unwrap();
            // The network computes in f32 and answers in the requested dtype, so that only its rounding differs.
            let model = |x: &SparseConvTensor, t: &Tensor, c: Option<&Tensor>, train: bool| {
                assert_eq!(x.dtype(), dtype);
                let wide = x.replace_feature(x.features().to_dtype(DType::F32)?)?;
                let answer = Exact(diffusion.clone()).predict(&wide, t, c, train)?;
                x.replace_feature(answer.features().to_dtype(dtype)?)
            };
            let options = SampleOptions::new().callback(|step| {
                assert_eq!((step.x.dtype(), step.x0.dtype()), (dtype, dtype));
                Ok(())
            });
            let sample = diffusion.sample(&model, &like, sampler, options).unwrap();
            assert_eq!(sample.dtype(), dtype, "{sampler:?}");
            values(&sample.replace_feature(sample.features().to_dtype(DType::F32).unwrap()).unwrap())
        };
        let exact = sample(DType::F32);
        for (dtype, tolerance) in [(DType::F64, 1e-4), (DType::F16, 0.01), (DType::BF16, 0.05)] {
            let other = sample(dtype);
            let furthest = exact.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest < tolerance, "{sampler:?} {dtype:?}: {furthest}");
        }
    }
}

#[test]
fn a_schedule_may_end_in_pure_noise_or_be_ones_own() {
    let config = DiffusionConfig::new().rescale_betas_zero_snr(true).prediction(Prediction::V);
    let diffusion = GaussianDiffusion::new(&config, &Device::Cpu).unwrap();
    assert_eq!(diffusion.schedule().alpha_cumprod(999), 0.0);
    let model = Exact(diffusion.clone());
    for sampler in [
        Sampler::Ddpm { steps: 250 },
        Sampler::Ddim { steps: 100, eta: 0.0 },
        Sampler::DpmSolverPP { steps: 100, order: 2 },
    ] {
        let sample = values(&diffusion.sample(&model, &zeros(1, 4096, 1), sampler, None).unwrap());
        let mean = sample.iter().map(|&v| f64::from(v)).sum::<f64>() / 4096.0;
        assert!((mean - MEAN).abs() < 0.025, "{sampler:?}: mean {mean}");
    }
    let refused = |config: DiffusionConfig| GaussianDiffusion::new(&config, &Device::Cpu).unwrap_err().to_string();
    let noise = refused(config.prediction(Prediction::Epsilon));
    assert!(noise.contains("prediction is epsilon") && noise.contains("pure noise"), "{noise}");
    let own = |betas: Vec<f64>| DiffusionConfig::new().timesteps(3).trained_betas(betas);
    let made = GaussianDiffusion::new(&own(vec![0.1, 0.2, 0.3]), &Device::Cpu).unwrap();
    assert!((made.schedule().alpha_cumprod(2) - 0.9 * 0.8 * 0.7).abs() < 1e-6);
    assert!(refused(own(vec![0.1, 0.2])).contains("2 values"));
    assert!(refused(own(vec![0.1, 1.0, 0.2])).contains("1 at timestep 1"));
    assert!(refused(own(vec![0.1, f64::NAN, 0.2])).contains("NaN at timestep 1"));
    let text = serde_json::to_string(&own(vec![0.1, 0.2, 0.3])).unwrap();
    assert_eq!(serde_json::from_str::<DiffusionConfig>(&text).unwrap(), own(vec![0.1, 0.2, 0.3]));
}

#[test]
fn bad_input_is_refused_with_its_name() {
    let diffusion = diffusion(Prediction::Epsilon);
    let like = zeros(1, 4, 1);
    let model = Exact(diffusion.clone());
    let refused =
        |sampler, options: SampleOptions| diffusion.sample(&model, &like, sampler, options).unwrap_err().to_string();
    let none = SampleOptions::default;
    assert!(refused(Sampler::Ddpm { steps: 0 }, none()).contains("steps is 0"));
    assert!(refused(Sampler::Ddpm { steps: 1001 }, none()).contains("1 to 1000"));
    assert!(refused(Sampler::Ddim { steps: 5, eta: 1.5 }, none()).contains("eta is 1.5"));
    assert!(refused(Sampler::DpmSolverPP { steps: 5, order: 4 }, none()).contains("order is 4"));
    let plain = Sampler::Ddim { steps: 5, eta: 0.0 };
    let karras = SampleOptions::new().spacing(TimestepSpacing::Karras);
    assert!(refused(plain, karras).contains("DpmSolverPP"));
    let with = |clip| SampleOptions::new().clip(clip);
    assert!(refused(plain, with(Clip::Static(-1.0))).contains("-1"));
    assert!(refused(plain, with(Clip::PerChannel(vec![1.0; 3]))).contains("one for each of 1 channels"));
    assert!(refused(plain, SampleOptions::new().guidance_scale(2.0)).contains("context"));
    assert!(BetaSchedule::from_name("squared").unwrap_err().to_string().contains("scaled_linear"));
    let backwards = DiffusionConfig::new().beta_start(0.5).beta_end(0.1);
    assert!(GaussianDiffusion::new(&backwards, &DEVICE).unwrap_err().to_string().contains("beta_start"));
    assert!(diffusion.posterior(1000).unwrap_err().to_string().contains("0 to 999"));
    let nan =
        |x: &SparseConvTensor, _: &Tensor, _: Option<&Tensor>, _: bool| x.replace_feature((x.features() * f64::NAN)?);
    assert!(diffusion.sample(&nan, &like, plain, None).unwrap_err().to_string().contains("timestep 999"));
    let noise = Tensor::zeros((3, 1), candle_core::DType::F32, &DEVICE).unwrap();
    assert!(diffusion.q_sample(&like, &[1], &noise).unwrap_err().to_string().contains("[3, 1]"));
    assert!(diffusion.q_sample(&like, &[1, 2], &noise).unwrap_err().to_string().contains("2 entries"));
}
