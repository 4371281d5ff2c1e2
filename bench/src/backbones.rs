//! Ready backbones with given weights: a forward pass in evaluation, and a training pass.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use wavemesh::backbones::{MinkUNet, MinkUNetConfig, SpUNet, SpUNetConfig, VoxelResBackBone8x, VoxelResConfig};
use wavemesh::prelude::VarBuilder;
use wavemesh::sparse::{MixedPrecision, SparseConvTensor, SparseModule, no_grad};

use crate::work::{Answer, Case, Result, Work};

type Network = Box<dyn SparseModule + Send + Sync>;

pub fn prepare(case: &Case) -> Result<Work> {
    let vars: HashMap<String, Var> = case
        .tensors()
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("w/")?.to_string(), tensor)))
        .map(|(name, tensor)| Ok((name, Var::from_tensor(tensor)?)))
        .collect::<Result<_>>()?;
    let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let mut network = network(case, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;
    let shape: Vec<usize> = case.param("shape")?;
    let x =
        SparseConvTensor::new(case.tensor("features")?, case.tensor("indices")?, [shape[0], shape[1], shape[2]], 1)?;
    if case.op == "forward" {
        if case.option("half")? {
            network = Box::new(MixedPrecision::new(network, DType::F16)?);
        }
        no_grad(|| network.forward(&x))?; // the maps
        return Ok(Work::new(
            move || no_grad(|| network.forward(&x)),
            |y| Answer::default().tensor("out", y.features()),
        ));
    }
    if case.op != "train" {
        return Err(case.unknown_op());
    }
    no_grad(|| network.forward(&x))?;
    let watched = vars.get(&case.param::<String>("watched")?).cloned().ok_or("no such weight")?;
    let run = move || -> Result<Tensor> {
        let grads = network.forward_t(&x, true)?.features().sqr()?.mean_all()?.backward()?;
        Ok(grads.get(&watched).ok_or("no gradient")?.clone())
    };
    Ok(Work::new(run, |grad| Answer::default().tensor("grad", grad)))
}

fn network(case: &Case, vb: VarBuilder) -> Result<Network> {
    let list = |name: &str| case.param::<Vec<usize>>(name);
    let fixed = |name: &str| -> Result<[usize; 8]> { list(name)?.try_into().map_err(|_| "not eight numbers".into()) };
    let in_channels = case.param("in_channels")?;
    Ok(match case.param::<String>("network")?.as_str() {
        "spunet" => Box::new(SpUNet::new(
            &SpUNetConfig::new()
                .in_channels(in_channels)
                .num_classes(case.param("num_classes")?)
                .base_channels(case.param("base_channels")?)
                .channels(list("channels")?)
                .layers(list("layers")?),
            vb,
        )?),
        "minkunet" => Box::new(MinkUNet::new(
            &MinkUNetConfig::new()
                .in_channels(in_channels)
                .num_classes(case.param("num_classes")?)
                .init_dim(case.param("init_dim")?)
                .planes(fixed("planes")?)
                .layers(fixed("layers")?),
            vb,
        )?),
        "voxel_res" => {
            let channels = list("channels")?.try_into().map_err(|_| "not four numbers")?;
            let out_channels = case.param("out_channels")?;
            Box::new(VoxelResBackBone8x::new(
                &VoxelResConfig::new()
                    .in_channels(in_channels)
                    .channels(channels)
                    .out_channels(out_channels)
                    .last_pad(0),
                vb,
            )?)
        }
        other => return Err(format!("no network `{other}`").into()),
    })
}
