//! The parts of the backbones: a convolution with its normalisation, and the residual block (He et al. 2016).

use std::sync::Arc;

use candle_core::{DType, Tensor};
use candle_nn::{BatchNormConfig, VarBuilder};

use crate::Result;
use crate::sparse::{
    AllReduce, BatchNorm, ConvConfig, Keep, PartGradients, Residual, ResidualInner, Segment, SegmentConv, Shortcut,
    Size3, SparseConvTensor, SparseModule, SubMConv3d, joined, parted,
};

/// Batch normalisation with the settings of most of these networks.
pub(super) fn norm_config(eps: f64, momentum: f64) -> BatchNormConfig {
    BatchNormConfig { eps, momentum, ..Default::default() }
}

/// A convolution, its normalisation, and a ReLU.
#[derive(Clone)]
pub(super) struct ConvNormRelu<C> {
    pub conv: C,
    pub norm: BatchNorm,
}

impl<C: SparseModule> SparseModule for ConvNormRelu<C> {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        self.norm.relu_t(&self.conv.forward_t(x, train)?, Shortcut::None, train)
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.norm.convert_sync_batchnorm(group);
    }
}

/// The names of a residual block's parts in its original network.
pub(super) struct BlockNames {
    pub norms: [&'static str; 2],
    /// The 1×1×1 convolution of the shortcut, and its normalisation.
    pub shortcut: [&'static str; 2],
}

/// `relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))`, submanifold, with a 1×1×1 shortcut if the channels change. In f32 training it is one
/// operation on the tape.
#[derive(Clone)]
pub(super) struct ResidualBlock {
    first: ConvNormRelu<SubMConv3d>,
    conv: SubMConv3d,
    norm: BatchNorm,
    shortcut: Option<(SubMConv3d, BatchNorm)>,
}

impl ResidualBlock {
    pub fn new(
        channels: [usize; 2],
        (key, bias): (&str, bool),
        norm: BatchNormConfig,
        names: &BlockNames,
        vb: VarBuilder,
    ) -> Result<Self> {
        let [input, output] = channels;
        let config =
            |key: Option<&str>, bias| ConvConfig { indice_key: key.map(str::to_string), bias, ..Default::default() };
        let conv = |channels, name: &str| SubMConv3d::new(channels, output, 3, config(Some(key), bias), vb.pp(name));
        let [norm1, norm2] = names.norms.map(|name| BatchNorm::with_config(output, norm, vb.pp(name)));
        let shortcut = if input == output {
            None
        } else {
            let [conv, normed] = names.shortcut;
            let conv = SubMConv3d::new(input, output, Size3::from(1), config(None, false), vb.pp(conv))?;
            Some((conv, BatchNorm::with_config(output, norm, vb.pp(normed))?))
        };
        let first = ConvNormRelu { conv: conv(input, "conv1")?, norm: norm1? };
        Ok(Self { first, conv: conv(output, "conv2")?, norm: norm2?, shortcut })
    }

    /// The channels of `skip`, a tensor on the same sites, follow those of `x`.
    fn forward(&self, x: &SparseConvTensor, skip: Option<&SparseConvTensor>, train: bool) -> Result<SparseConvTensor> {
        if train && self.is_one(x) {
            return self.as_one(x, skip.map(SparseConvTensor::features), DType::F32);
        }
        let x = &joined(x, skip.map(SparseConvTensor::features))?;
        let y = self.conv.forward_t(&self.first.forward_t(x, train)?, train)?;
        match &self.shortcut {
            None => self.norm.relu_t(&y, Shortcut::Plain(x), train),
            Some((conv, norm)) => self.norm.relu_t(&y, Shortcut::Normed(norm, &conv.forward_t(x, train)?), train),
        }
    }

    fn layers(&self) -> Residual<'_> {
        Residual {
            convs: [&self.first.conv, &self.conv],
            norms: [&self.first.norm, &self.norm],
            shortcut: self.shortcut.as_ref().map(|(conv, norm)| (conv as &dyn SegmentConv, norm)),
        }
    }

    pub fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.first.convert_sync_batchnorm(group);
        self.norm.convert_sync_batchnorm(group);
        self.shortcut.iter().for_each(|(_, norm)| norm.convert_sync_batchnorm(group));
    }
}

/// Its other input is a skip.
impl Segment for ResidualBlock {
    type Inner = ResidualInner;

    fn parameters(&self) -> Vec<Tensor> {
        self.layers().parameters()
    }

    fn forward_kept(
        &self,
        x: &SparseConvTensor,
        skip: Option<&Tensor>,
        keep: Keep,
    ) -> Result<(Option<SparseConvTensor>, ResidualInner)> {
        self.layers().forward_kept(joined(x, skip)?, keep)
    }

    fn backward(
        &self,
        x: &SparseConvTensor,
        skip: Option<&Tensor>,
        inner: ResidualInner,
        outcome: (&Tensor, &Tensor),
    ) -> Result<PartGradients> {
        let (grad, parameters) = self.layers().backward(x, skip, inner, outcome)?;
        let (x, other) = parted(grad, x.channels(), skip)?;
        Ok(PartGradients { x, other, parameters })
    }
}

/// Runs blocks one after another. The first one also reads `skip`.
pub(super) fn run_all(
    blocks: &[ResidualBlock],
    x: &SparseConvTensor,
    skip: Option<&SparseConvTensor>,
    train: bool,
) -> Result<SparseConvTensor> {
    let skips = std::iter::once(skip).chain(std::iter::repeat(None));
    blocks.iter().zip(skips).try_fold(x.clone(), |x, (block, skip)| block.forward(&x, skip, train))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Device, Var};
    use candle_nn::VarMap;

    use super::*;
    use crate::random::rng;
    use rand::Rng;

    /// In f64 the tape holds every layer, in f32 the block: gradients of weights, biases, x and skip agree.
    #[test]
    fn a_block_as_one_operation_has_the_gradients_of_its_layers() {
        let names = BlockNames { norms: ["a", "b"], shortcut: ["c", "d"] };
        let mut random = rng(3, 0);
        let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-1.0..1.0)).collect() };
        let sites: Vec<[i32; 4]> = (0..60).map(|i| [i % 2, i / 2 % 3, i / 6 % 5, i / 30 + i % 2]).collect();
        for (channels, skip_channels) in [([6, 6], 0), ([6, 4], 0), ([6, 4], 3)] {
            let [x_channels, output] = channels;
            let variables = VarMap::new();
            let all = |vb| {
                ResidualBlock::new(
                    [x_channels + skip_channels, output],
                    ("k", true),
                    norm_config(1e-3, 0.1),
                    &names,
                    vb,
                )
            };
            let cpu = &Device::Cpu;
            all(VarBuilder::from_varmap(&variables, DType::F32, cpu)).unwrap();
            let values: HashMap<String, Vec<f32>> = variables
                .data()
                .lock()
                .unwrap()
                .iter()
                .map(|(name, var)| {
                    let fixed = if name.contains("running") { 0.5 } else { 0.0 };
                    (name.clone(), draw(var.elem_count()).into_iter().map(|v| v + fixed * 3.0).collect())
                })
                .collect();
            let shapes: HashMap<String, Vec<usize>> = variables
                .data()
                .lock()
                .unwrap()
                .iter()
                .map(|(name, var)| (name.clone(), var.dims().to_vec()))
                .collect();
            let (x_values, skip_values) = (draw(60 * x_channels), draw(60 * skip_channels));
            let weights = draw(60 * output);
            let run = |dtype: DType| -> Vec<(String, Vec<f64>)> {
                let tensor = |values: &[f32], shape: &[usize]| {
                    Tensor::from_slice(values, shape, cpu).unwrap().to_dtype(dtype).unwrap()
                };
                let vars: HashMap<String, Var> = values
                    .iter()
                    .map(|(name, v)| (name.clone(), Var::from_tensor(&tensor(v, &shapes[name])).unwrap()))
                    .collect();
                let held = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
                let block = all(VarBuilder::from_tensors(held, dtype, cpu)).unwrap();
                let x = Var::from_tensor(&tensor(&x_values, &[60, x_channels])).unwrap();
                let sparse = SparseConvTensor::from_coords(x.as_tensor().clone(), sites.clone(), [4, 6, 6], 2).unwrap();
                let skip =
                    (skip_channels > 0).then(|| Var::from_tensor(&tensor(&skip_values, &[60, skip_channels])).unwrap());
                let beside = skip.as_ref().map(|skip| sparse.replace_feature(skip.as_tensor().clone()).unwrap());
                assert_eq!(block.is_one(&sparse), dtype == DType::F32);
                let y = block.forward(&sparse, beside.as_ref(), true).unwrap();
                let loss = (y.features() * tensor(&weights, &[60, output])).unwrap().sum_all().unwrap();
                let found = loss.backward().unwrap();
                let inputs = [("x".to_string(), x)].into_iter().chain(skip.map(|skip| ("skip".to_string(), skip)));
                let trained = vars.into_iter().filter(|(name, _)| !name.contains("running"));
                let mut rows: Vec<_> = inputs
                    .chain(trained)
                    .map(|(name, var)| {
                        let grad = found.get(&var).unwrap_or_else(|| panic!("{name} has no gradient"));
                        (name, grad.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap())
                    })
                    .collect();
                rows.sort_by(|a: &(String, Vec<f64>), b| a.0.cmp(&b.0));
                rows.push((
                    "y".into(),
                    y.features().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap(),
                ));
                rows
            };
            for ((name, ours), (_, right)) in run(DType::F32).iter().zip(run(DType::F64)) {
                let scale = right.iter().fold(1.0f64, |most, v| most.max(v.abs()));
                let off = ours.iter().zip(&right).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
                assert!(off < 1e-5 * scale, "{name} of {channels:?} + {skip_channels}: off by {off:.1e} of {scale}");
            }
        }
    }
}
