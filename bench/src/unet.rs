//! The U-Net: a forward pass and a training step with given weights, with shares of their time.

use std::collections::HashMap;

use candle_core::{DType, Tensor, Var};
use wavemesh::diffusion::Denoiser;
use wavemesh::prelude::VarBuilder;
use wavemesh::sparse::SparseConvTensor;
use wavemesh::train::{AdamW, AdamWConfig};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};

use crate::shares::Shares;
use crate::work::{Answer, Case, Result, Work, device};

pub fn prepare(case: &Case) -> Result<Work> {
    let (unet, x) = network(case)?;
    let timesteps = Tensor::new(&[case.param::<f32>("t")?], &device()?)?;
    let train = case.op == "train_step";
    let shares = Shares::measure(&unet, &network(case)?.1, train)?;
    if case.op == "forward" {
        return Ok(Work::new(
            move || unet.predict(&x, &timesteps, None, false),
            move |out| Ok(shares.facts(Answer::default().tensor("out", out.features())?)),
        ));
    }
    if !train {
        return Err(case.unknown_op());
    }
    let target = case.tensor("target")?;
    let vars: Vec<(String, Var)> = unet.parameters().cloned().collect();
    let mut optimizer = match case.option("adamw")? {
        true => Some(AdamW::new(AdamWConfig::default(), vars.iter().map(|(_, var)| var.clone()).collect())?),
        false => None,
    };
    let run = move || -> Result<Tensor> {
        let out = unet.forward_t(&x, &timesteps, None, true)?;
        let grads = (out.features() - &target)?.sqr()?.mean_all()?.backward()?;
        if let Some(optimizer) = &mut optimizer {
            optimizer.step(&optimizer.gradients(&grads)?, 1e-4, 1.0)?;
        }
        let wanted = vars.iter().find(|(name, _)| name == "encoder.input_conv.0.weight");
        let grad = wanted.and_then(|(_, var)| grads.get(var)).ok_or("no gradient")?;
        Ok(grad.clone())
    };
    Ok(Work::new(run, move |grad| Ok(shares.facts(Answer::default().tensor("grad", grad)?))))
}

/// The case's network with its weights, and its features on its sites, whose maps are not built yet.
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
