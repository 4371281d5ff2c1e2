//! The parts of a training of your own network: gradients of every layer in f64, gradient checkpointing, mixed precision, normalisation
//! over a group, and the trainer.

mod checkpointing;
#[path = "../folder/mod.rs"]
mod folder;
mod gradients;
mod group;
mod precision;
mod trainer;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use wavemesh::Result;
use wavemesh::sparse::*;
use wavemesh::train::{Initialization, seeded_builder};

/// Numbers between -1 and 1, well spread; `seed` chooses them.
fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729 + 13) as f64 * 0.618_033_988_75).fract() * 2.0 - 1.0).collect()
}

fn tensor(shape: &[usize], seed: usize) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
}

/// Sites of two batch elements, about a third of a 6 × 5 × 7 grid.
fn sites() -> Vec<[i32; 4]> {
    let cells = (0..2 * 6 * 5 * 7).map(|i| [i / 210, i / 35 % 6, i / 7 % 5, i % 7]);
    cells.enumerate().filter(|(i, _)| ((i * 2_654_435_761) >> 7) % 3 == 0).map(|(_, site)| site).collect()
}

fn input(channels: usize, dtype: DType) -> SparseConvTensor {
    let sites = sites();
    let features = tensor(&[sites.len(), channels], 1).to_dtype(dtype).unwrap();
    SparseConvTensor::from_coords(features, sites, [6, 5, 7], 2).unwrap()
}

fn variables_of<T>(dtype: DType, seed: u64, build: impl FnOnce(VarBuilder) -> Result<T>) -> (T, VarMap) {
    let variables = VarMap::new();
    let built =
        build(seeded_builder(&variables, seed, Initialization::KaimingNormal { fan_out: false }, dtype, &Device::Cpu))
            .unwrap();
    (built, variables)
}

/// The variables of a network by name, without running statistics.
fn parameters(variables: &VarMap) -> Vec<(String, Var)> {
    let data = variables.data().lock().unwrap();
    let mut all: Vec<_> = data
        .iter()
        .filter(|(name, _)| !name.contains("running"))
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

fn scalar(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// The blocks of a network, each wrapped by `wrap`.
fn blocks<M: SparseModule + Send + Sync + 'static>(
    vb: &VarBuilder,
    wrap: impl Fn(SparseSequential) -> M,
) -> Result<SparseSequential> {
    let keyed = |key: &str| ConvConfig::new().bias(false).key(key);
    let first = SparseSequential::new()
        .add(SubMConv3d::new(3, 8, 3, keyed("a"), vb.pp("0"))?)
        .add(BatchNorm::new(8, vb.pp("1"))?)
        .add(Activation::Relu)
        .add(candle_nn::linear(8, 8, vb.pp("2"))?);
    let second = SparseSequential::new()
        .add(SparseConv3d::new(8, 8, 3, keyed("down").stride(2).padding(1), vb.pp("3"))?)
        .add(BatchNorm::new(8, vb.pp("4"))?)
        .add(Activation::Relu);
    let third = SparseSequential::new()
        .add(SparseInverseConv3d::new(8, 4, 3, keyed("down"), vb.pp("5"))?)
        .add(SubMConv3d::new(4, 2, 3, keyed("a"), vb.pp("6"))?);
    Ok(SparseSequential::new().add(wrap(first)).add(wrap(second)).add(wrap(third)))
}
