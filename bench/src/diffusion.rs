//! Diffusion: whole sampling runs with a network that costs next to nothing, noising a batch, and a training step and sampling
//! with the generator's coarse network.

use candle_core::Tensor;
use wavemesh::diffusion::{
    BetaSchedule, DiffusionConfig, GaussianDiffusion, Prediction, SampleOptions, Sampler, TimestepSpacing,
};
use wavemesh::sparse::SparseConvTensor;
use wavemesh::train::{AdamW, AdamWConfig};

use crate::shares::Shares;
use crate::unet;
use crate::work::{Answer, Case, Result, Work, device};

pub fn prepare(case: &Case) -> Result<Work> {
    if ["train_step", "network_ddim"].contains(&case.op.as_str()) {
        return with_network(case);
    }
    let x = sparse(&case.tensor("x")?)?;
    let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &device()?)?;
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
        let options = SampleOptions::new().spacing(spacing).start(x.features().clone());
        diffusion.sample(&model, &x, sampler, options)
    };
    Ok(Work::new(run, answer))
}

/// A training step (v-prediction, cosine schedule, AdamW) of a batch, or DDIM sampling of one shape, all sites occupied.
fn with_network(case: &Case) -> Result<Work> {
    let (network, x) = unet::network(case)?;
    let diffusion = GaussianDiffusion::new(
        &DiffusionConfig::new().schedule(BetaSchedule::Cosine).prediction(Prediction::V),
        &device()?,
    )?;
    let train = case.op == "train_step";
    let shares = Shares::measure(&network, &unet::network(case)?.1, train)?;
    if !train {
        let sampler = Sampler::Ddim { steps: case.param("steps")?, eta: 0.0 };
        let run = move || {
            let options = SampleOptions::new().start(x.features().clone());
            diffusion.sample(&network, &x, sampler, options)
        };
        return Ok(Work::new(run, move |x| Ok(shares.facts(answer(x)?))));
    }
    let (noise, steps) = (case.tensor("noise")?, case.values::<i64>("timesteps")?);
    let steps: Vec<usize> = steps.into_iter().map(|t| t as usize).collect();
    let timesteps = case.tensor("timesteps")?;
    let vars: Vec<_> = network.parameters().map(|(_, var)| var.clone()).collect();
    let wanted = network.parameters().find(|(name, _)| name == "encoder.input_conv.0.weight");
    let wanted = wanted.map(|(_, var)| var.clone()).ok_or("no input convolution")?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), vars)?;
    let share = |of: &dyn Fn(f64) -> f64| -> Result<Tensor> {
        let of = |t: usize| of(diffusion.schedule().alpha_cumprod(t as i64)) as f32;
        let rows: Vec<f32> = x.coords().iter().map(|site| of(steps[site[0] as usize])).collect();
        Ok(Tensor::from_vec(rows, (x.len(), 1), &device()?)?)
    };
    let (signal, scale) = (share(&|a| a.sqrt())?, share(&|a| (1.0 - a).sqrt())?);
    let run = move || -> Result<[Tensor; 2]> {
        let noised = diffusion.q_sample(&x, &steps, &noise)?;
        let velocity = (noise.broadcast_mul(&signal)? - x.features().broadcast_mul(&scale)?)?;
        let out = network.forward_t(&noised, &timesteps, None, true)?;
        let loss = (out.features() - velocity)?.sqr()?.mean_all()?;
        let grads = loss.backward()?;
        optimizer.step(&optimizer.gradients(&grads)?, 1e-4, 1.0)?;
        Ok([loss.detach().reshape(1)?, grads.get(&wanted).ok_or("no gradient")?.clone()])
    };
    Ok(Work::new(run, move |[loss, grad]| {
        Ok(shares.facts(Answer::default().tensor("loss", loss)?.tensor("grad", grad)?))
    }))
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
    let indices = Tensor::from_vec(indices, (sites, 4), &device()?)?;
    Ok(SparseConvTensor::new(features.clone(), indices, [1, 1, sites], 1)?)
}
