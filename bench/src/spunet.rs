//! Pointcept's SpUNet, in the size that its authors train on ScanNet: a forward pass and a training step with given weights.

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{DType, Tensor, Var};
use wavemesh::backbones::{SpUNet, SpUNetConfig};
use wavemesh::device::Recording;
use wavemesh::prelude::{VarBuilder, VarMap};
use wavemesh::sparse::{SparseConvTensor, SparseModule, no_grad};
use wavemesh::train::{AdamW, AdamWConfig};

use crate::work::{Answer, Case, Error, Result, Work, device};

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
    let recorded: bool = case.option("recorded")?;
    if case.op == "forward" {
        let pass = move || Ok(vec![no_grad(|| network.forward(&x))?.features().clone()]);
        let answer = |y: &Tensor| Answer::default().tensor("out", y);
        return Ok(match recorded {
            false => Work::new(move || Ok::<_, Error>(pass()?.remove(0)), answer),
            true => {
                let mut pass = Recording::new(&device()?, pass)?;
                Work::new(move || Ok::<_, Error>(pass.run()?[0].clone()), answer)
            }
        });
    }
    if case.op != "train_step" {
        return Err(case.unknown_op());
    }
    let trained = || vars.iter().filter(|(name, _)| !name.contains("running"));
    let wanted = trained().position(|(name, _)| name == "conv_input.0.weight");
    let wanted = wanted.ok_or("the network has no input convolution")?;
    let optimizer = AdamW::new(AdamWConfig::default(), trained().map(|(_, var)| var.clone()).collect())?;
    let optimizer = Rc::new(RefCell::new(optimizer));
    let target = case.tensor("target")?;
    let gradients = {
        let optimizer = optimizer.clone();
        move || {
            let out = network.forward_t(&x, true)?;
            optimizer.borrow().gradients(&(out.features() - &target)?.sqr()?.mean_all()?.backward()?)
        }
    };
    let update = move |grads: &[Tensor]| -> Result<Tensor> {
        optimizer.borrow_mut().step(grads, 1e-4, 1.0)?;
        Ok(grads[wanted].clone())
    };
    let answer = |grad: &Tensor| Answer::default().tensor("grad", grad);
    Ok(match recorded {
        false => Work::new(move || update(&gradients()?), answer),
        true => {
            let mut gradients = Recording::new(&device()?, gradients)?;
            Work::new(move || update(gradients.run()?), answer)
        }
    })
}
