//! Memory of complete jobs whose parts have suites of their own: mesh to coefficients and back, and a training pass over layers.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use wavemesh::mesh::Mesh;
use wavemesh::prelude::VarBuilder;
use wavemesh::sdf::SdfGrid;
use wavemesh::sparse::{Activation, ConvConfig, SparseConvTensor, SparseModule, SparseSequential, SubMConv3d};
use wavemesh::wavelet::WaveletConfig;

use crate::work::{Answer, Case, Error, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    match case.op.as_str() {
        "round_trip" => round_trip(case),
        "training_pass" => training_pass(case),
        _ => Err(case.unknown_op()),
    }
}

/// Triangles → distances → sparse coefficients → distances → triangles.
fn round_trip(case: &Case) -> Result<Work> {
    let vertices = case.values::<f32>("vertices")?.as_chunks().0.to_vec();
    let mesh = Mesh::new(vertices, case.values::<u32>("faces")?.as_chunks().0.to_vec())?;
    let resolution = case.param("resolution")?;
    let run = move || {
        let coeffs = SdfGrid::from_mesh(&mesh, resolution)?.encode(&WaveletConfig::default())?;
        Ok::<_, Error>((coeffs.stats(), coeffs.decode()?.to_mesh()?))
    };
    Ok(Work::new(run, |(stats, mesh)| {
        let answer = Answer::default().fact("coefficients", stats.nonzero).fact("as rows, bytes", stats.memory_sparse);
        answer.values("area", &[mesh.area()], &[1])?.values("volume", &[mesh.volume()], &[1])
    }))
}

/// Submanifold layers with ReLUs between them, forward and backward.
fn training_pass(case: &Case) -> Result<Work> {
    let weights = case.tensor("weights")?; // (layers, out, 3, 3, 3, in)
    let (mut net, mut vars) = (SparseSequential::new(), Vec::new());
    for layer in 0..weights.dim(0)? {
        let weight = Var::from_tensor(&weights.get(layer)?)?;
        let (outputs, inputs) = (weight.dim(0)?, weight.dim(4)?);
        let named = HashMap::from([("weight".to_owned(), weight.as_tensor().clone())]);
        let config = ConvConfig::new().bias(false).key("subm");
        let vb = VarBuilder::from_tensors(named, DType::F32, &Device::Cpu);
        net = net.add(SubMConv3d::new(inputs, outputs, 3, config, vb)?).add(Activation::Relu);
        vars.push(weight);
    }
    let (features, indices) = (case.tensor("features")?, case.tensor("indices")?);
    let shape: [usize; 3] = case.param("shape")?;
    let x = SparseConvTensor::new(features, indices, shape, 1)?;
    let run = move || {
        let y = net.forward_t(&x, true)?;
        let grads = y.features().sqr()?.mean_all()?.backward()?;
        let first = grads.get(&vars[0]).ok_or("the first layer got no gradient")?;
        Ok::<_, Error>((y.features().detach(), first.clone()))
    };
    Ok(Work::new(run, |(features, grad): &(Tensor, Tensor)| {
        Answer::default().tensor("features", features)?.tensor("grad", grad)
    }))
}
