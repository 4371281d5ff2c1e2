//! The U-Net: a forward pass and a training step with given weights, and the shares of their time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use candle_core::{DType, Tensor, Var};
use wavemesh::device::Recording;
use wavemesh::diffusion::Denoiser;
use wavemesh::prelude::VarBuilder;
use wavemesh::sparse::SparseConvTensor;
use wavemesh::train::{AdamW, AdamWConfig};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};

use crate::shares::Shares;
use crate::work::{Answer, Case, Error, Result, Work, device};

pub fn prepare(case: &Case) -> Result<Work> {
    let (unet, x) = network(case)?;
    let timesteps = Tensor::new(&[case.param::<f32>("t")?], &device()?)?;
    let train = case.op == "train_step";
    let shares = Shares::measure(&unet, &network(case)?.1, train)?;
    let recorded = case.option("recorded")?;
    if case.op == "forward" {
        let answer = move |out: &Tensor| Ok(shares.facts(Answer::default().tensor("out", out)?));
        let features = x.features().clone();
        let (input, x) = as_input(&x)?;
        let pass = move || Ok(vec![unet.predict(&x, &timesteps, None, false)?.features().clone()]);
        return Ok(match recorded {
            false => Work::new(move || Ok::<_, Error>(pass()?.remove(0)), answer),
            true => {
                let mut pass = Recording::new(&device()?, pass)?;
                let run = move || -> Result<Tensor> {
                    input.set(&features)?;
                    Ok(pass.run()?[0].clone())
                };
                Work::new(run, answer)
            }
        });
    }
    if !train {
        return Err(case.unknown_op());
    }
    let target = case.tensor("target")?;
    let vars: Vec<(String, Var)> = unet.parameters().cloned().collect();
    let wanted =
        vars.iter().position(|(name, _)| name == "encoder.input_conv.0.weight").ok_or("no input convolution")?;
    let optimizer = AdamW::new(AdamWConfig::default(), vars.into_iter().map(|(_, var)| var).collect())?;
    let optimizer = Rc::new(RefCell::new(optimizer));
    let features = x.features().clone();
    let (input, x) = as_input(&x)?;
    let gradients = {
        let optimizer = optimizer.clone();
        move || {
            let out = unet.forward_t(&x, &timesteps, None, true)?;
            optimizer.borrow().gradients(&(out.features() - &target)?.sqr()?.mean_all()?.backward()?)
        }
    };
    let updates = case.option("adamw")?;
    let update = move |grads: &[Tensor]| -> Result<Tensor> {
        if updates {
            optimizer.borrow_mut().step(grads, 1e-4, 1.0)?;
        }
        Ok(grads[wanted].clone())
    };
    let answer = move |grad: &Tensor| Ok(shares.facts(Answer::default().tensor("grad", grad)?));
    Ok(match recorded {
        false => Work::new(move || update(&gradients()?), answer),
        true => {
            let mut gradients = Recording::new(&device()?, gradients)?;
            let run = move || -> Result<Tensor> {
                input.set(&features)?;
                update(gradients.run()?)
            };
            Work::new(run, answer)
        }
    })
}

/// The same sparse tensor with features that can be overwritten in place.
fn as_input(x: &SparseConvTensor) -> Result<(Var, SparseConvTensor)> {
    let input = Var::from_tensor(&x.features().copy()?)?;
    let x = x.replace_feature(input.as_detached_tensor())?;
    Ok((input, x))
}

/// The case's network with its weights, and its features on their sites, whose maps are not built yet.
pub fn network(case: &Case) -> Result<(WaveMeshUNet, SparseConvTensor)> {
    let state: HashMap<String, Tensor> = case
        .tensors()
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("w/")?.to_string(), tensor.clone())))
        .collect();
    let (features, indices) = (case.tensor("features")?, case.tensor("indices")?);
    let channels = features.dim(1)?;
    let config = (UNetConfig::plain(channels, channels, &case.param::<Vec<usize>>("channels")?))
        .precision(case.option("precision")?)
        .gradient_checkpointing(case.option("checkpointing")?);
    let unet = WaveMeshUNet::new(&config, VarBuilder::from_tensors(state, DType::F32, &device()?))?;
    let batch = indices.get_on_dim(1, 0)?.to_vec1::<i64>()?.into_iter().max().unwrap_or(0) as usize + 1;
    Ok((unet, SparseConvTensor::new(features, indices, [case.param("size")?; 3], batch)?))
}
