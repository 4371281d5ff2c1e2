//! The diffusion process gives the same numbers as diffusers (tests/fixtures/diffusion.json and diffusion_more.json, made with diffusers
//! 0.42).

use std::sync::LazyLock;

use candle_core::{Device, Tensor};
use serde_json::Value;
use wavemesh::Result;
use wavemesh::diffusion::{
    BetaSchedule, Clip, DiffusionConfig, GaussianDiffusion, NoiseSchedule, Prediction, SampleOptions, Sampler,
    TimestepSpacing,
};
use wavemesh::sparse::SparseConvTensor;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/diffusion.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The model of the fixture: `0.7·x·t/(t+1) + 0.05·sin(3x)`, elementwise.
fn stated_model(
    x: &SparseConvTensor,
    timesteps: &Tensor,
    _context: Option<&Tensor>,
    _train: bool,
) -> Result<SparseConvTensor> {
    let t = f64::from(timesteps.to_vec1::<f32>()?[0]);
    let linear = (x.features() * (0.7 * t / (t + 1.0)))?;
    x.replace_feature((linear + ((x.features() * 3.0)?.sin()? * 0.05)?)?)
}

/// The 24 numbers of the fixture as one channel on 24 sites.
fn start(values: &[f64]) -> SparseConvTensor {
    let features: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let sites: Vec<i64> = (0..24).flat_map(|i| [0, 0, i / 6, i % 6]).collect();
    let device = DEVICE.clone();
    SparseConvTensor::new(
        Tensor::from_vec(features, (24, 1), &device).unwrap(),
        Tensor::from_vec(sites, (24, 4), &device).unwrap(),
        [1, 4, 6],
        1,
    )
    .unwrap()
}

fn assert_close(got: &Tensor, expected: &[f64], what: &str) {
    let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(got.len(), expected.len());
    for (&g, &e) in got.iter().zip(expected) {
        let error = (f64::from(g) - e).abs() / e.abs().max(1.0);
        assert!(error < 1e-5, "{what}: got {g}, expected {e}, relative error {error:.2e}");
    }
}

#[test]
fn schedules_are_those_of_diffusers() {
    let fixture = fixture();
    for (name, table) in fixture["schedules"].as_object().unwrap() {
        let schedule = NoiseSchedule::new(BetaSchedule::from_name(name).unwrap(), 1000, 1e-4, 0.02).unwrap();
        for (got, key) in [(schedule.betas(), "betas"), (schedule.alphas_cumprod(), "alphas_cumprod")] {
            for (t, expected) in table[key].as_object().unwrap() {
                let (got, expected) = (f64::from(got[t.parse::<usize>().unwrap()]), expected.as_f64().unwrap());
                assert!((got / expected - 1.0).abs() < 1e-5, "{name} {key}[{t}]: got {got}, expected {expected}");
            }
        }
    }
}

/// Runs a trajectory of a fixture and compares its timesteps and its first and last samples.
fn assert_trajectory(trajectory: &Value, start: &SparseConvTensor, betas: Option<Vec<f64>>) {
    let config = &trajectory["config"];
    let text = |key: &str, default: &'static str| config[key].as_str().unwrap_or(default);
    let flag = |key: &str| config.get(key).is_some_and(|v| v == "True" || v == true);
    let steps = trajectory["steps"].as_u64().unwrap() as usize;
    let what = format!("{} {} {config}", trajectory["name"], trajectory["scheduler"]);
    let order = config["solver_order"].as_u64().or_else(|| config["solver_order"].as_str()?.parse().ok());
    let sampler = match trajectory["scheduler"].as_str().unwrap() {
        "DDIMScheduler" => Sampler::Ddim { steps, eta: 0.0 },
        "DPMSolverMultistepScheduler" => Sampler::DpmSolverPP { steps, order: order.unwrap() as usize },
        other => panic!("unknown scheduler {other}"),
    };
    let mut diffusion_config = DiffusionConfig::new()
        .schedule(BetaSchedule::from_name(text("beta_schedule", "linear")).unwrap())
        .prediction(Prediction::from_name(text("prediction_type", "")).unwrap())
        .timesteps(betas.as_ref().map_or(1000, Vec::len))
        .rescale_betas_zero_snr(flag("rescale_betas_zero_snr"));
    diffusion_config.trained_betas = betas;
    let diffusion = GaussianDiffusion::new(&diffusion_config, &DEVICE).unwrap();
    let spacing = if flag("use_karras_sigmas") { "karras" } else { text("timestep_spacing", "") };
    let mut visited = Vec::new();
    let mut after_first = None;
    let options = SampleOptions::new()
        .spacing(TimestepSpacing::from_name(spacing).unwrap())
        .clip(if flag("clip_sample") { Clip::Static(1.0) } else { Clip::None })
        .start(start.features().clone())
        .callback(|step| {
            visited.push(step.t as f64);
            after_first.get_or_insert_with(|| step.x.features().clone());
            Ok(())
        });
    let last = diffusion.sample(&stated_model, start, sampler, options).unwrap();
    assert_eq!(visited, numbers(&trajectory["timesteps"]), "{what}");
    assert_close(&after_first.unwrap(), &numbers(&trajectory["after_first"]), &format!("{what}, first step"));
    assert_close(last.features(), &numbers(&trajectory["after_last"]), &format!("{what}, last step"));
}

#[test]
fn every_trajectory_is_that_of_diffusers() {
    let fixture = fixture();
    let start = start(&numbers(&fixture["x_init"]));
    let trajectories = fixture["trajectories"].as_array().unwrap();
    assert_eq!(trajectories.len(), 11);
    trajectories.iter().for_each(|trajectory| assert_trajectory(trajectory, &start, None));
}

#[test]
fn pure_noise_own_betas_and_karras_levels_are_those_of_diffusers() {
    let more: Value = serde_json::from_str(include_str!("fixtures/diffusion_more.json")).unwrap();
    let start = start(&numbers(&fixture()["x_init"]));
    let schedule =
        NoiseSchedule::new(BetaSchedule::Linear, 1000, 1e-4, 0.02).unwrap().with_zero_terminal_snr().unwrap();
    for (t, expected) in more["zero_snr_alphas_cumprod"].as_object().unwrap() {
        let (got, expected) = (schedule.alpha_cumprod(t.parse().unwrap()), expected.as_f64().unwrap());
        assert!((got - expected).abs() <= 1e-5 * expected, "t = {t}: got {got}, expected {expected}");
    }
    let trajectories = more["trajectories"].as_array().unwrap();
    assert_eq!(trajectories.len(), 12);
    for trajectory in trajectories {
        assert_trajectory(trajectory, &start, (trajectory["own_betas"] == true).then(|| numbers(&more["betas"])));
    }
}

#[test]
fn posterior_variances_are_those_of_diffusers() {
    let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &DEVICE).unwrap();
    for entry in fixture()["ddpm_posterior"].as_array().unwrap() {
        let (t, expected) = (entry["t"].as_u64().unwrap() as usize, entry["variance"].as_f64().unwrap());
        let got = diffusion.posterior(t).unwrap().variance;
        assert!((got / expected - 1.0).abs() < 1e-5, "t = {t}: got {got}, expected {expected}");
    }
    let ddim = diffusion.posterior_between(420, 400).unwrap().variance;
    assert!((ddim - 0.14771).abs() < 1e-5, "DDIM's variance 420→400: {ddim}");
}
