//! [`SparseSequential`]: layers one after another, sparse ones and those that act on features alone.

use std::any::Any;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, ModuleT, Tensor};

use super::module::{LayerDescription, SparseModule, plain_type_name};
use super::summary::{SequentialLayer, SequentialSummary};
use super::sync::AllReduce;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// Runs layers one after another, as spconv's `SparseSequential`.
///
/// [`add`](Self::add) takes any [`SparseModule`], and any candle `Module` or `ModuleT` (a `Linear`, a `LayerNorm`, a
/// `candle_nn::Activation`, a closure over tensors), which then acts on the features (N, C).
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::*;
/// # fn main() -> wavemesh::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let padded = ConvConfig::new().key("a");
/// let net = SparseSequential::new()
///     .add(SubMConv3d::new(2, 16, 3, padded, vb.pp(0))?)
///     .add(BatchNorm::new(16, vb.pp(1))?)
///     .add(Activation::Relu)
///     .add(candle_nn::linear(16, 4, vb.pp(3))?)
///     .add(|features: &Tensor| features.tanh());
/// let x = SparseConvTensor::from_coords(Tensor::ones((2, 2), DType::F32, &Device::Cpu)?,
///     vec![[0, 1, 2, 3], [0, 1, 2, 2]], [4, 4, 4], 1)?;
/// assert_eq!(net.forward(&x)?.features().dims(), [2, 4]);
/// # Ok(()) }
/// ```
///
/// Layers have names. The default is their number; [`add_named`](Self::add_named) gives another. `{:?}` lists them.
#[derive(Default)]
pub struct SparseSequential {
    layers: Vec<(String, Box<dyn SparseModule + Send + Sync>)>,
}

impl SparseSequential {
    /// A sequence without layers: the identity.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a layer.
    #[allow(clippy::should_implement_trait)] // the name that candle's `Sequential` uses
    pub fn add<Kind>(self, layer: impl IntoSparseModule<Kind>) -> Self {
        let name = self.len().to_string();
        self.add_named(name, layer)
    }

    /// Appends a layer under a name, as an `OrderedDict` does in PyTorch.
    pub fn add_named<Kind>(mut self, name: impl Into<String>, layer: impl IntoSparseModule<Kind>) -> Self {
        self.layers.push((name.into(), layer.into_sparse_module()));
        self
    }

    /// The layer with this name; the last one if there are several.
    pub fn get(&self, name: &str) -> Option<&(dyn SparseModule + Send + Sync)> {
        self.layers.iter().rev().find(|(other, _)| other == name).map(|(_, layer)| &**layer)
    }

    /// Names of the layers, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|(name, _)| name.as_str())
    }

    /// Runs the layers up to and including the one with this name, in evaluation mode, as a feature extractor does.
    ///
    /// # Errors
    /// [`Error::Unknown`] lists the existing names; or the errors of the layers.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let double = |features: &Tensor| features * 2.0;
    /// let net = SparseSequential::new().add_named("first", double).add_named("second", double);
    /// assert_eq!(net.forward_to("first", &x)?.features().to_vec2::<f32>()?, [[2.0], [4.0]]);
    /// assert_eq!(net.forward_to("third", &x).unwrap_err().to_string(), "unknown layer `third`; known: first, second");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn forward_to(&self, name: &str, x: &SparseConvTensor) -> Result<SparseConvTensor> {
        let Some(last) = self.layers.iter().rposition(|(other, _)| other == name) else {
            let known = self.names().collect::<Vec<_>>().join(", ");
            return Err(Error::Unknown { kind: "layer", name: name.into(), known });
        };
        self.layers[..=last].iter().try_fold(x.clone(), |x, (_, layer)| layer.forward(&x))
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The layers, in order.
    pub fn layers(&self) -> impl Iterator<Item = &(dyn SparseModule + Send + Sync)> {
        self.layers.iter().map(|(_, layer)| &**layer)
    }

    /// Runs the layers on `x` in evaluation mode, and reports for each its sites, channels, parameters and time.
    ///
    /// # Errors
    /// The errors of the layers.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let net = SparseSequential::new().add(SubMConv3d::new(1, 4, 3, ConvConfig::new(), vb)?).add(Activation::Relu);
    /// let summary = net.summary(&x)?;
    /// assert_eq!((summary.layers[0].channels, summary.layers[0].parameters), (4, 27 * 4 + 4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn summary(&self, x: &SparseConvTensor) -> Result<SequentialSummary> {
        let (mut layers, mut x, input) = (Vec::new(), x.clone(), [x.len(), x.channels()]);
        for (_, layer) in &self.layers {
            let start = Instant::now();
            x = layer.forward(&x)?;
            let (time, LayerDescription { kind, parameters }) = (start.elapsed(), layer.describe());
            let (sites, channels, spatial_shape) = (x.len(), x.channels(), x.spatial_shape());
            layers.push(SequentialLayer { kind, sites, channels, spatial_shape, parameters, time });
        }
        Ok(SequentialSummary { layers, input })
    }
}

impl SparseModule for SparseSequential {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        self.layers.iter().try_fold(x.clone(), |x, (_, layer)| layer.forward_t(&x, train))
    }

    fn describe(&self) -> LayerDescription {
        let parameters = self.layers().map(|layer| layer.describe().parameters).sum();
        LayerDescription { kind: format!("SparseSequential({} layers)", self.len()), parameters }
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.layers().for_each(|layer| layer.convert_sync_batchnorm(group));
    }
}

impl fmt::Debug for SparseSequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "SparseSequential(")?;
        for (name, layer) in &self.layers {
            writeln!(f, "  ({name}): {}", layer.describe().kind)?;
        }
        f.write_str(")")
    }
}

impl Index<usize> for SparseSequential {
    type Output = dyn SparseModule + Send + Sync;

    fn index(&self, layer: usize) -> &Self::Output {
        &*self.layers[layer].1
    }
}

/// The types that [`SparseSequential::add`] takes. `Kind` only distinguishes the two families; it is always inferred.
pub trait IntoSparseModule<Kind> {
    /// The layer, boxed.
    fn into_sparse_module(self) -> Box<dyn SparseModule + Send + Sync>;
}

/// The family of [`SparseModule`]s.
pub struct Sparse;

/// The family of candle's modules, which act on features.
pub struct OnFeatures<M = ()>(M);

impl<M: SparseModule + Send + Sync + 'static> IntoSparseModule<Sparse> for M {
    fn into_sparse_module(self) -> Box<dyn SparseModule + Send + Sync> {
        Box::new(self)
    }
}

impl<M: ModuleT + Send + Sync + 'static> IntoSparseModule<OnFeatures> for M {
    fn into_sparse_module(self) -> Box<dyn SparseModule + Send + Sync> {
        Box::new(OnFeatures(self))
    }
}

impl<M: ModuleT + 'static> SparseModule for OnFeatures<M> {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let module: &dyn Any = &self.0;
        let weight = module.downcast_ref::<candle_nn::Linear>().map(candle_nn::Linear::weight);
        let weight = weight.or_else(|| module.downcast_ref::<candle_nn::LayerNorm>().map(candle_nn::LayerNorm::weight));
        // With mixed precision, half features meet f32 weights, but candle's layers need one type.
        let dtype = weight.map_or(x.dtype(), Tensor::dtype);
        if dtype == DType::F32 && matches!(x.dtype(), DType::F16 | DType::BF16) {
            let y = self.0.forward_t(&x.features().to_dtype(dtype)?, train)?;
            return x.replace_feature(y.to_dtype(x.dtype())?);
        }
        x.replace_feature(self.0.forward_t(x.features(), train)?)
    }

    fn describe(&self) -> LayerDescription {
        let module: &dyn Any = &self.0;
        let of = |kind: String, weight: &Tensor, bias: Option<&Tensor>| LayerDescription {
            kind,
            parameters: weight.elem_count() + bias.map_or(0, Tensor::elem_count),
        };
        if let Some(linear) = module.downcast_ref::<candle_nn::Linear>() {
            let dims = linear.weight().dims();
            let sizes = dims.iter().rev().map(usize::to_string).collect::<Vec<_>>().join(" → ");
            return of(format!("Linear({sizes})"), linear.weight(), linear.bias());
        }
        if let Some(norm) = module.downcast_ref::<candle_nn::LayerNorm>() {
            return of(format!("LayerNorm({})", norm.weight().elem_count()), norm.weight(), norm.bias());
        }
        LayerDescription { kind: plain_type_name::<M>().to_owned(), parameters: 0 }
    }
}
