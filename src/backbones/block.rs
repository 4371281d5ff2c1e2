//! The parts of the backbones: a convolution with its normalisation, and the residual block (He et al. 2016).

use std::sync::Arc;

use candle_core::DType;
use candle_nn::{BatchNormConfig, VarBuilder};

use crate::Result;
use crate::sparse::{
    AllReduce, BatchNorm, ConvConfig, Residual, ResidualSegment, Segment, SegmentConv, Shortcut, Size3,
    SparseConvTensor, SparseModule, SubMConv3d, joined,
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
        let x = &joined(x.clone(), skip.map(SparseConvTensor::features))?;
        let y = self.conv.forward_t(&self.first.forward_t(x, train)?, train)?;
        match &self.shortcut {
            None => self.norm.relu_t(&y, Shortcut::Plain(x), train),
            Some((conv, norm)) => self.norm.relu_t(&y, Shortcut::Normed(norm, &conv.forward_t(x, train)?), train),
        }
    }

    pub fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.first.convert_sync_batchnorm(group);
        self.norm.convert_sync_batchnorm(group);
        self.shortcut.iter().for_each(|(_, norm)| norm.convert_sync_batchnorm(group));
    }
}

impl ResidualSegment for ResidualBlock {
    fn layers(&self) -> Residual<'_> {
        Residual {
            convs: [&self.first.conv, &self.conv],
            norms: [&self.first.norm, &self.norm],
            shortcut: self.shortcut.as_ref().map(|(conv, norm)| (conv as &dyn SegmentConv, norm)),
        }
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

    use candle_core::{Device, Tensor, Var};
    use candle_nn::VarMap;
    use rand::Rng;

    use super::*;
    use crate::random::rng;
    use crate::sparse::{Backend, with_backend};

    const SITES: i32 = 60;
    const NAMES: BlockNames = BlockNames { norms: ["a", "b"], shortcut: ["c", "d"] };

    /// The output of a block with drawn weights, and the gradients of its weights and biases, of x, and of a skip of `skip_channels`
    /// channels. The forward pass runs on `backend`, the backward pass as any other.
    fn pass(
        [input, output]: [usize; 2],
        skip_channels: usize,
        dtype: DType,
        backend: Backend,
    ) -> Result<Vec<(String, Vec<f64>)>> {
        let cpu = &Device::Cpu;
        let block =
            |vb| ResidualBlock::new([input + skip_channels, output], ("k", true), norm_config(1e-3, 0.1), &NAMES, vb);
        let shapes = VarMap::new();
        block(VarBuilder::from_varmap(&shapes, DType::F32, cpu))?;
        let mut shapes: Vec<(String, Vec<usize>)> =
            shapes.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect();
        shapes.extend([("x", input), ("skip", skip_channels)].map(|(name, c)| (name.into(), vec![SITES as usize, c])));
        shapes.retain(|(_, shape)| shape.iter().all(|&n| n > 0));
        shapes.sort();
        let mut random = rng(3, 0);
        let mut draw = |shape: &[usize]| -> Result<Tensor> {
            let values =
                (0..shape.iter().product()).map(|_| random.random_range(0.1f32..1.0) - 0.5).collect::<Vec<_>>();
            Ok(Tensor::from_vec(values, shape, cpu)?.to_dtype(dtype)?)
        };
        let vars: HashMap<String, Var> = shapes
            .into_iter()
            .map(|(name, shape)| Ok((name, Var::from_tensor(&draw(&shape)?)?)))
            .collect::<Result<_>>()?;
        let held = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let block = block(VarBuilder::from_tensors(held, dtype, cpu))?;
        let sites = (0..SITES).map(|i| [i % 2, i / 2 % 3, i / 6 % 5, i / 30 + i % 2]).collect::<Vec<_>>();
        let x = SparseConvTensor::from_coords(vars["x"].as_tensor().clone(), sites, [4, 6, 6], 2)?;
        let skip = vars.get("skip").map(|skip| x.replace_feature(skip.as_tensor().clone())).transpose()?;
        assert_eq!(block.is_one(&x), dtype == DType::F32);
        let y = with_backend(backend, || block.forward(&x, skip.as_ref(), true))?;
        let found = (y.features() * draw(y.features().dims())?)?.sum_all()?.backward()?;
        let numbers = |t: &Tensor| -> Result<Vec<f64>> { Ok(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?) };
        let mut rows = vec![("y".to_string(), numbers(y.features())?)];
        for (name, var) in &vars {
            if !name.contains("running") {
                let grad = found.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
                rows.push((name.clone(), numbers(grad)?));
            }
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(rows)
    }

    /// In f64 the tape holds every layer, in f32 the block.
    #[test]
    fn a_block_as_one_operation_has_the_gradients_of_its_layers() -> Result<()> {
        for (channels, skip_channels) in [([6, 6], 0), ([6, 4], 0), ([6, 4], 3)] {
            let one = pass(channels, skip_channels, DType::F32, Backend::Native)?;
            let layers = pass(channels, skip_channels, DType::F64, Backend::Native)?;
            for ((name, ours), (_, right)) in one.iter().zip(layers) {
                let scale = right.iter().fold(1.0f64, |most, v| most.max(v.abs()));
                let off = ours.iter().zip(&right).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
                assert!(off < 1e-5 * scale, "{name} of {channels:?} + {skip_channels}: off by {off:.1e} of {scale}");
            }
        }
        Ok(())
    }

    /// The backward pass of a block uses the backend of its forward pass, as that of a layer does.
    #[test]
    fn gradients_come_from_the_backend_of_the_forward_pass() -> Result<()> {
        let outside = pass([6, 4], 3, DType::F32, Backend::Dense)?;
        let inside = with_backend(Backend::Dense, || pass([6, 4], 3, DType::F32, Backend::Dense))?;
        assert_eq!(outside, inside);
        assert_ne!(outside, pass([6, 4], 3, DType::F32, Backend::Native)?);
        Ok(())
    }
}
