//! The U-Net: a forward pass and a training step with given weights, with the shares of time that a first pass over new
//! sites (which builds kernel maps) adds.

use std::collections::HashMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use wavemesh::prelude::VarBuilder;
use wavemesh::sparse::SparseConvTensor;
use wavemesh::unet::{UNetConfig, WaveMeshUNet};

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    let state: HashMap<String, Tensor> = case
        .tensors()
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("w/")?.to_string(), tensor.clone())))
        .collect();
    let config = UNetConfig::plain(1, 1, &case.param::<Vec<usize>>("channels")?);
    let unet = WaveMeshUNet::new(&config, VarBuilder::from_tensors(state, DType::F32, &Device::Cpu))?;
    let size = case.param("size")?;
    let (features, indices) = (case.tensor("features")?, case.tensor("indices")?);
    let fresh = move || SparseConvTensor::new(features.clone(), indices.clone(), [size; 3], 1);
    let timesteps = Tensor::new(&[case.param::<f32>("t")?], &Device::Cpu)?;
    let x = fresh()?;
    // What a pass over sites seen for the first time costs above one over sites that remember their maps.
    let seconds = |x: &SparseConvTensor| -> Result<f64> {
        let started = Instant::now();
        unet.forward(x, &timesteps, None)?;
        Ok(started.elapsed().as_secs_f64())
    };
    let (first, again) = (seconds(&x)?, seconds(&x)?);
    let maps_percent = (100.0 * (first - again) / first).max(0.0).round();
    match case.op.as_str() {
        "forward" => Ok(Work::new(
            move || unet.forward(&x, &timesteps, None),
            move |out| {
                Ok(Answer::default().tensor("out", out.features())?.fact("maps: % of a first pass", maps_percent))
            },
        )),
        "train_step" => {
            let target = case.tensor("target")?;
            let vars: Vec<(String, Var)> = unet.parameters().cloned().collect();
            let run = move || -> Result<Tensor> {
                let out = unet.forward_t(&x, &timesteps, None, true)?;
                let grads = (out.features() - &target)?.sqr()?.mean_all()?.backward()?;
                let wanted = vars.iter().find(|(name, _)| name == "encoder.input_conv.0.weight");
                let grad = wanted.and_then(|(_, var)| grads.get(var)).ok_or("no gradient")?;
                Ok(grad.clone())
            };
            Ok(Work::new(run, |grad| Answer::default().tensor("grad", grad)))
        }
        _ => Err(case.unknown_op()),
    }
}
