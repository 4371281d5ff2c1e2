//! Cards of layers, of sequences of layers, and of their parameters.

use std::time::Duration;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use candle_nn::VarMap;

use super::{Facts, Table, picture_card};
use crate::Result;
use crate::notebook::html::{bytes, count, number, seconds};
use crate::notebook::{MimeBundle, Rich};
use crate::sparse::{
    Activation, BatchNorm, GradientCheckpoint, GroupNorm, InstanceNorm, LayerNorm, MixedPrecision, SequentialSummary,
    SparseAvgPool, SparseConv, SparseConvTranspose, SparseInverseConv, SparseInversePool, SparseMaxPool, SparseModule,
    SparseSequential, SparseSumPool, SubMConv, SyncBatchNorm,
};
use crate::train::AdamW;
use crate::unet::WaveMeshUNet;

/// A table of named parameters: shape, type and size of each.
fn parameter_table<'a>(parameters: impl ExactSizeIterator<Item = (&'a str, &'a Tensor)>) -> Table {
    let row = |(name, tensor): (&str, &Tensor)| {
        let norm = norm(tensor).map_or_else(|error| error.to_string(), number);
        vec![name.to_owned(), format!("{:?}", tensor.dims()), count(tensor.elem_count() as u64), norm]
    };
    Table::new(vec!["parameter", "shape", "numbers", "norm"], parameters.map(row))
}

/// The square root of the sum of squares.
fn norm(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.detach().to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
}

fn size(tensors: impl Iterator<Item = usize>) -> [usize; 2] {
    tensors.fold([0, 0], |[n, sum], numbers| [n + 1, sum + numbers])
}

/// Names, shapes and norms of the parameters, in the order of their names.
impl Rich for VarMap {
    fn rich(&self) -> MimeBundle {
        let data = self.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut named: Vec<_> = data.iter().map(|(name, var)| (name.as_str(), var.as_tensor())).collect();
        named.sort_unstable_by_key(|(name, _)| *name);
        let [tensors, numbers] = size(named.iter().map(|(_, tensor)| tensor.elem_count()));
        let memory: usize = named.iter().map(|(_, tensor)| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum();
        let facts: Facts =
            vec![("tensors", count(tensors as u64)), ("numbers", count(numbers as u64)), ("", bytes(memory as u64))];
        let table = (!named.is_empty()).then(|| parameter_table(named.into_iter()));
        picture_card("VarMap", &facts, table.as_ref(), None)
    }
}

/// The result of a backward pass. Its card cannot list gradients, since it knows no names: use [`gradients`].
impl Rich for GradStore {
    fn rich(&self) -> MimeBundle {
        let facts: Facts = vec![
            ("of a tensor:", "`found.get(&tensor)`".into()),
            ("of all parameters:", "`notebook::gradients(&variables, &found)`".into()),
        ];
        picture_card("Gradients of a backward pass", &facts, None, None)
    }
}

/// The gradient of each parameter that a backward pass `found`, as a card: its norm, beside the norm of the parameter.
///
/// ```
/// use wavemesh::notebook::{Rich, gradients};
/// use wavemesh::prelude::*;
/// # fn main() -> wavemesh::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let layer = candle_nn::linear(2, 1, vb.pp("head"))?;
/// let found = layer.forward(&Tensor::ones((3, 2), DType::F32, &Device::Cpu)?)?.sum_all()?.backward()?;
/// assert!(gradients(&variables, &found).rich().plain().contains("head.weight"));
/// # Ok(()) }
/// ```
pub fn gradients(variables: &VarMap, found: &GradStore) -> MimeBundle {
    let data = variables.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut named: Vec<_> = data.iter().collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    let shown = |norm: Result<f64>| norm.map_or_else(|error| error.to_string(), number);
    let row = |(name, var): (&String, &candle_core::Var)| {
        let gradient = found.get(var).map_or_else(|| "none".into(), |gradient| shown(norm(gradient)));
        vec![name.clone(), format!("{:?}", var.dims()), gradient, shown(norm(var))]
    };
    let facts: Facts = vec![("parameters", count(named.len() as u64))];
    let header = vec!["parameter", "shape", "gradient's norm", "norm"];
    let table = Table::new(header, named.into_iter().map(row));
    picture_card("Gradients", &facts, Some(&table), None)
}

/// The parts of the network, and its parameters.
impl Rich for WaveMeshUNet {
    fn rich(&self) -> MimeBundle {
        let config = self.config();
        let facts: Facts = vec![
            ("parameters", count(self.num_parameters() as u64)),
            ("channels", format!("{} in, {} out", config.in_channels, config.out_channels)),
            ("encoder", format!("{:?}", config.encoder_channels)),
            ("decoder", format!("{:?}", config.decoder_channels)),
        ];
        let parameters: Vec<_> = self.parameters().map(|(name, var)| (name.as_str(), var.as_tensor())).collect();
        picture_card("WaveMeshUNet", &facts, Some(&parameter_table(parameters.into_iter())), None)
    }
}

impl Rich for AdamW {
    fn rich(&self) -> MimeBundle {
        let config = self.config();
        let facts: Facts = vec![
            ("updates", count(self.updates())),
            ("β₁", number(config.beta1)),
            ("β₂", number(config.beta2)),
            ("ε", number(config.eps)),
            ("weight decay", number(config.weight_decay)),
        ];
        picture_card("AdamW", &facts, None, None)
    }
}

/// The card of one layer: its sizes and, if it learns, its parameters.
fn layer_card(layer: &dyn SparseModule, parameters: &[(&str, &Tensor)]) -> MimeBundle {
    let described = layer.describe();
    let (title, sizes) = match described.kind.split_once('(') {
        Some((title, sizes)) => (title.to_owned(), sizes.trim_end_matches(')').to_owned()),
        None => (described.kind, String::new()),
    };
    let mut facts: Facts = Vec::new();
    if !sizes.is_empty() {
        facts.push(("", sizes));
    }
    if described.parameters > 0 {
        facts.push(("parameters", count(described.parameters as u64)));
    }
    let table = (!parameters.is_empty()).then(|| parameter_table(parameters.iter().copied()));
    picture_card(&title, &facts, table.as_ref(), None)
}

macro_rules! convolution_cards {
    ($($layer:ident)*) => {$(
        impl<const N: usize> Rich for $layer<N> {
            fn rich(&self) -> MimeBundle {
                let bias = self.bias().map(|bias| ("bias", bias));
                layer_card(self, &std::iter::once(("weight", self.weight())).chain(bias).collect::<Vec<_>>())
            }
        }
    )*};
}
convolution_cards!(SubMConv SparseConv SparseInverseConv SparseConvTranspose);

macro_rules! plain_card {
    ($layer:ty $(, $($parameters:tt)+)?) => {
        impl $(<$($parameters)+>)? Rich for $layer {
            fn rich(&self) -> MimeBundle {
                layer_card(self, &[])
            }
        }
    };
}
plain_card!(SparseMaxPool<N>, const N: usize);
plain_card!(SparseAvgPool<N>, const N: usize);
plain_card!(SparseSumPool<N>, const N: usize);
plain_card!(SparseInversePool<N>, const N: usize);
plain_card!(Activation);
plain_card!(GroupNorm);
plain_card!(InstanceNorm);
plain_card!(LayerNorm);
plain_card!(SyncBatchNorm);
plain_card!(GradientCheckpoint<M>, M: SparseModule + Send + Sync + 'static);
plain_card!(MixedPrecision<M>, M: SparseModule);

impl Rich for BatchNorm {
    fn rich(&self) -> MimeBundle {
        layer_card(self, &[("running mean", self.running_mean()), ("running variance", self.running_var())])
    }
}

impl Rich for SparseSequential {
    fn rich(&self) -> MimeBundle {
        let row = |(i, layer): (usize, &(dyn SparseModule + Send + Sync))| {
            let described = layer.describe();
            vec![i.to_string(), described.kind, count(described.parameters as u64)]
        };
        let rows = self.layers().enumerate().map(row);
        let facts: Facts =
            vec![("layers", self.len().to_string()), ("parameters", count(self.describe().parameters as u64))];
        let table = Table::new(vec!["", "layer", "parameters"], rows);
        picture_card("SparseSequential", &facts, Some(&table), None)
    }
}

/// Milliseconds below one second.
fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1.0 => format!("{:.2} ms", 1e3 * s),
        s => seconds(s),
    }
}

impl Rich for SequentialSummary {
    fn rich(&self) -> MimeBundle {
        let [sites, channels] = self.input;
        let facts: Facts = vec![
            ("input", format!("{} sites × {channels}", count(sites as u64))),
            ("parameters", count(self.parameters() as u64)),
            ("time", duration(self.time())),
        ];
        let rows = self.layers.iter().map(|layer| {
            let [z, y, x] = layer.spatial_shape;
            vec![
                layer.kind.clone(),
                format!("{} × {}", count(layer.sites as u64), layer.channels),
                format!("{z}×{y}×{x}"),
                count(layer.parameters as u64),
                duration(layer.time),
            ]
        });
        let header = vec!["layer", "sites × channels", "grid (z, y, x)", "parameters", "time"];
        picture_card("SparseSequential", &facts, Some(&Table::new(header, rows)), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::{ConvConfig, PoolConfig, SparseConv3d, SparseConvTensor, SparseMaxPool3d, SubMConv3d};
    use crate::train::AdamWConfig;
    use candle_core::Device;
    use candle_nn::VarBuilder;

    fn net(variables: &VarMap) -> SparseSequential {
        let vb = VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu);
        SparseSequential::new()
            .add(SubMConv3d::new(2, 4, 3, ConvConfig::default(), vb.pp("conv")).unwrap())
            .add(BatchNorm::new(4, vb.pp("norm")).unwrap())
            .add(Activation::Relu)
            .add(SparseMaxPool3d::new(2, PoolConfig::default()).unwrap())
            .add(candle_nn::linear(4, 3, vb.pp("head")).unwrap())
            .add(|x: &Tensor| x.tanh())
    }

    #[test]
    fn a_sequence_tells_each_layer_and_what_came_out_of_it() {
        let variables = VarMap::new();
        let net = net(&variables);
        let text = net.rich().plain().to_owned();
        let parameters = 2 * 4 * 27 + 4 + 8 + 15;
        assert!(text.starts_with(&format!("SparseSequential | layers 6 · parameters {parameters}")), "{text}");
        for part in ["SubMConv3d `conv`(2 → 4", "BatchNorm(4)", "Relu", "SparseMaxPool3d", "Linear(4 → 3)", "closure"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let features = Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap();
        let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 3, 3, 3]], [4; 3], 1).unwrap();
        let summary = net.summary(&x).unwrap();
        assert_eq!((summary.parameters(), summary.layers.len(), summary.input), (parameters, 6, [2, 2]));
        let text = summary.rich().plain().to_owned();
        assert!(text.contains("2 × 3") && text.contains("2×2×2") && text.contains(" ms"), "{text}");
    }

    #[test]
    fn parameters_have_names_shapes_and_norms() {
        let variables = VarMap::new();
        let _net = net(&variables);
        let text = variables.rich().plain().to_owned();
        assert!(text.contains("head.weight") && text.contains("[4, 3, 3, 3, 2]"), "{text}");
        let row = text.lines().find(|line| line.starts_with("norm.weight")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["norm.weight", "[4]", "4", "2"]);
        assert!(VarMap::new().rich().plain().starts_with("VarMap | tensors 0"));
    }

    #[test]
    fn gradients_stand_beside_their_parameters_and_a_missing_one_is_told() {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let used = candle_nn::linear_no_bias(4, 1, vb.pp("used")).unwrap();
        let _unused = candle_nn::linear_no_bias(4, 1, vb.pp("unused")).unwrap();
        let ones = Tensor::ones((1, 4), DType::F32, &Device::Cpu).unwrap();
        let found = candle_core::Module::forward(&used, &ones).unwrap().sum_all().unwrap().backward().unwrap();
        let text = gradients(&variables, &found).plain().to_owned();
        let cells = |name: &str| -> Vec<String> {
            let row = text.lines().find(|line| line.starts_with(name)).unwrap();
            row.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!((cells("used.weight")[3].as_str(), cells("unused.weight")[3].as_str()), ("2", "none"));
        assert!(found.rich().plain().contains("get(&tensor)"));
    }

    #[test]
    fn layers_and_the_optimiser_are_one_line() {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let conv = SparseConv3d::new(1, 2, 3, ConvConfig { stride: [2; 3], ..Default::default() }, vb).unwrap();
        let text = conv.rich().plain().to_owned();
        assert!(text.starts_with("SparseConv3d | 1 → 2, kernel [3, 3, 3], stride [2, 2, 2]"), "{text}");
        assert!(text.contains("parameters 56") && text.contains("weight"), "{text}");
        assert_eq!(Activation::LeakyRelu(0.1).rich().plain(), "LeakyRelu | 0.1");
        let optimizer = AdamW::new(AdamWConfig::default(), variables.all_vars()).unwrap();
        assert!(optimizer.rich().plain().starts_with("AdamW | updates 0 · β₁ 0.9000"), "{}", optimizer.rich().plain());
    }
}
