//! Diffusion: whole sampling runs with a network that costs next to nothing, and noising a batch.

use candle_core::{Device, Tensor};
use wavemesh::diffusion::{DiffusionConfig, GaussianDiffusion, SampleOptions, Sampler, TimestepSpacing};
use wavemesh::sparse::SparseConvTensor;

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    let x = sparse(&case.tensor("x")?)?;
    let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu)?;
    if case.op == "q_sample" {
        let noise = case.tensor("noise")?;
        let timesteps = vec![case.param::<usize>("t")?];
        return Ok(Work::new(move || diffusion.q_sample(&x, &timesteps, &noise), answer));
    }
    let steps = case.param("steps")?;
    let sampler = match case.op.as_str() {
        "ddim" => Sampler::Ddim { steps, eta: 0.0 },
        "dpm_solver_pp" => Sampler::DpmSolverPP { steps, order: case.param("order")? },
        _ => return Err(case.unknown_op()),
    };
    let spacing = TimestepSpacing::from_name(&case.param::<String>("spacing")?)?;
    let run = move || {
        let options = SampleOptions { spacing, start: Some(x.features().clone()), ..Default::default() };
        diffusion.sample(&model, &x, sampler, options)
    };
    Ok(Work::new(run, answer))
}

fn answer(x: &SparseConvTensor) -> Result<Answer> {
    Answer::default().tensor("x", x.features())
}

/// The stated network: `0.7·x·t/(t+1)`.
fn model(
    x: &SparseConvTensor,
    timesteps: &Tensor,
    _context: Option<&Tensor>,
    _train: bool,
) -> wavemesh::Result<SparseConvTensor> {
    let t = f64::from(timesteps.to_vec1::<f32>()?[0]);
    x.replace_feature((x.features() * (0.7 * t / (t + 1.0)))?)
}

/// Features (N, C) on N sites in a row: where they are does not matter here.
fn sparse(features: &Tensor) -> Result<SparseConvTensor> {
    let sites = features.dim(0)?;
    let indices: Vec<i64> = (0..sites as i64).flat_map(|x| [0, 0, 0, x]).collect();
    let indices = Tensor::from_vec(indices, (sites, 4), &Device::Cpu)?;
    Ok(SparseConvTensor::new(features.clone(), indices, [1, 1, sites], 1)?)
}
