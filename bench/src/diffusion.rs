//! Diffusion: complete sampling runs with a network that costs almost nothing, noising a batch, and a training step and sampling with the
//! generator's coarse network.

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{Tensor, Var};
use wavemesh::device::Recording;
use wavemesh::diffusion::{
    BetaSchedule, Denoiser, DiffusionConfig, GaussianDiffusion, Prediction, Recorded, SampleOptions, Sampler,
    TimestepSpacing,
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
    let recorded = case.option("recorded")?;
    if !train {
        let sampler = Sampler::Ddim { steps: case.param("steps")?, eta: 0.0 };
        let start = x.features().clone();
        let sample = move |network: &dyn Denoiser| {
            diffusion.sample(network, &x, sampler, SampleOptions::new().start(start.clone()))
        };
        let answer = move |x: &SparseConvTensor| Ok(shares.facts(answer(x)?));
        return Ok(match recorded {
            false => Work::new(move || sample(&network), answer),
            true => {
                // The network lives until the process ends.
                let network = Recorded::new(Box::leak(Box::new(network)));
                Work::new(move || sample(&network), answer)
            }
        });
    }
    let (noise, steps) = (case.tensor("noise")?, case.values::<i64>("timesteps")?);
    let steps: Vec<usize> = steps.into_iter().map(|t| t as usize).collect();
    let timesteps = case.tensor("timesteps")?;
    let vars: Vec<(String, Var)> = network.parameters().cloned().collect();
    let wanted =
        vars.iter().position(|(name, _)| name == "encoder.input_conv.0.weight").ok_or("no input convolution")?;
    let optimizer = AdamW::new(AdamWConfig::default(), vars.into_iter().map(|(_, var)| var).collect())?;
    let optimizer = Rc::new(RefCell::new(optimizer));
    let share = |of: &dyn Fn(f64) -> f64| -> Result<Tensor> {
        let of = |t: usize| of(diffusion.schedule().alpha_cumprod(t as i64)) as f32;
        let rows: Vec<f32> = x.coords().iter().map(|site| of(steps[site[0] as usize])).collect();
        Ok(Tensor::from_vec(rows, (x.len(), 1), &device()?)?)
    };
    let (signal, scale) = (share(&|a| a.sqrt())?, share(&|a| (1.0 - a).sqrt())?);
    // The inputs of a step: noised features, and the velocity that the network has to predict from them.
    let [noised, velocity] = [x.features(), &noise].map(|like| Var::from_tensor(&like.copy()?));
    let (noised, velocity) = (noised?, velocity?);
    let gradients = {
        let x = x.replace_feature(noised.as_detached_tensor())?;
        let (velocity, optimizer) = (velocity.as_detached_tensor(), optimizer.clone());
        move || {
            let out = network.forward_t(&x, &timesteps, None, true)?;
            let loss = (out.features() - &velocity)?.sqr()?.mean_all()?;
            let mut found = optimizer.borrow().gradients(&loss.backward()?)?;
            found.push(loss.detach().reshape(1)?);
            Ok(found)
        }
    };
    let give = move || -> Result<()> {
        noised.set(diffusion.q_sample(&x, &steps, &noise)?.features())?;
        Ok(velocity.set(&(noise.broadcast_mul(&signal)? - x.features().broadcast_mul(&scale)?)?)?)
    };
    let update = move |found: &[Tensor]| -> Result<[Tensor; 2]> {
        let [grads @ .., loss] = found else { return Err("no loss".into()) };
        optimizer.borrow_mut().step(grads, 1e-4, 1.0)?;
        Ok([loss.clone(), grads[wanted].clone()])
    };
    let answer = move |[loss, grad]: &[Tensor; 2]| {
        Ok(shares.facts(Answer::default().tensor("loss", loss)?.tensor("grad", grad)?))
    };
    Ok(match recorded {
        false => {
            let run = move || {
                give()?;
                update(&gradients()?)
            };
            Work::new(run, answer)
        }
        true => {
            give()?;
            let mut gradients = Recording::new(&device()?, gradients)?;
            let run = move || {
                give()?;
                update(gradients.run()?)
            };
            Work::new(run, answer)
        }
    })
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

/// Features (N, C) on N sites in a row: their places do not matter here.
fn sparse(features: &Tensor) -> Result<SparseConvTensor> {
    let sites = features.dim(0)?;
    let indices: Vec<i64> = (0..sites as i64).flat_map(|x| [0, 0, 0, x]).collect();
    let indices = Tensor::from_vec(indices, (sites, 4), &device()?)?;
    Ok(SparseConvTensor::new(features.clone(), indices, [1, 1, sites], 1)?)
}
