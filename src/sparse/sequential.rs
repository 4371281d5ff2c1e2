//! [`SparseSequential`]: layers one after another, sparse ones and those that act on features alone.

use std::any::Any;
use std::time::Instant;

use candle_core::{ModuleT, Tensor};

use super::module::{LayerDescription, SparseModule, plain_type_name};
use super::summary::{SequentialLayer, SequentialSummary};
use super::tensor::SparseConvTensor;
use crate::Result;

/// Layers run one after another, as spconv's `SparseSequential`.
///
/// [`add`](Self::add) takes any [`SparseModule`], and any candle `Module` or `ModuleT` (a `Linear`, a `LayerNorm`, a
/// `candle_nn::Activation`, a closure over tensors), which then acts on the features (N, C).
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::*;
/// # fn main() -> Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let padded = ConvConfig { indice_key: Some("a".into()), ..Default::default() };
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
#[derive(Default)]
pub struct SparseSequential {
    layers: Vec<Box<dyn SparseModule + Send + Sync>>,
}

impl SparseSequential {
    /// No layers: the identity.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a layer.
    #[allow(clippy::should_implement_trait)] // the name that candle's `Sequential` uses
    pub fn add<Kind>(mut self, layer: impl IntoSparseModule<Kind>) -> Self {
        self.layers.push(layer.into_sparse_module());
        self
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
        self.layers.iter().map(|layer| &**layer)
    }

    /// Runs the layers on `x`, in evaluation mode, and says what came out of each: sites, channels, parameters, time.
    ///
    /// # Errors
    /// Those of the layers.
    pub fn summary(&self, x: &SparseConvTensor) -> Result<SequentialSummary> {
        let (mut layers, mut x, input) = (Vec::new(), x.clone(), [x.len(), x.channels()]);
        for layer in &self.layers {
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
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward_t(&x, train))
    }

    fn describe(&self) -> LayerDescription {
        let parameters = self.layers.iter().map(|layer| layer.describe().parameters).sum();
        LayerDescription { kind: format!("SparseSequential({} layers)", self.len()), parameters }
    }
}

/// What [`SparseSequential::add`] takes. `Kind` only tells the two families apart; it is always inferred.
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
