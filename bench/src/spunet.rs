//! SpUNet of Pointcept, of the size that its authors train on ScanNet: a forward pass and a training step with given weights.

use candle_core::{DType, Tensor, Var};
use wavemesh::backbones::{SpUNet, SpUNetConfig};
use wavemesh::prelude::{VarBuilder, VarMap};
use wavemesh::sparse::{SparseConvTensor, SparseModule};
use wavemesh::train::{AdamW, AdamWConfig};

use crate::work::{Answer, Case, Result, Work, device};

pub fn prepare(case: &Case) -> Result<Work> {
    let variables = VarMap::new();
    let network = SpUNet::new(&SpUNetConfig::default(), VarBuilder::from_varmap(&variables, DType::F32, &device()?))?;
    let mut vars: Vec<(String, Var)> = match variables.data().lock() {
        Ok(data) => data.iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
        Err(_) => return Err("the network's variables are gone".into()),
    };
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, var) in &vars {
        var.set(&case.tensor(&format!("w/{name}"))?)?;
    }
    let shape: [usize; 3] = case.param("shape")?;
    let x = SparseConvTensor::new(case.tensor("features")?, case.tensor("indices")?, shape, 1)?;
    if case.op == "forward" {
        return Ok(Work::new(
            move || network.forward(&x).and_then(|y| y.replace_feature(y.features().detach())),
            |y| Answer::default().tensor("out", y.features()),
        ));
    }
    if case.op != "train_step" {
        return Err(case.unknown_op());
    }
    let wanted = vars.iter().find(|(name, _)| name == "conv_input.0.weight").map(|(_, var)| var.clone());
    let wanted = wanted.ok_or("the network has no input convolution")?;
    let trained = vars.into_iter().filter(|(name, _)| !name.contains("running")).map(|(_, var)| var).collect();
    let mut optimizer = AdamW::new(AdamWConfig::default(), trained)?;
    let target = case.tensor("target")?;
    let run = move || -> Result<Tensor> {
        let out = network.forward_t(&x, true)?;
        let grads = (out.features() - &target)?.sqr()?.mean_all()?.backward()?;
        optimizer.step(&optimizer.gradients(&grads)?, 1e-4, 1.0)?;
        Ok(grads.get(&wanted).ok_or("no gradient")?.clone())
    };
    Ok(Work::new(run, |grad| Answer::default().tensor("grad", grad)))
}
