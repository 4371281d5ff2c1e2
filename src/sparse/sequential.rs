//! [`SparseSequential`]: layers one after another, sparse ones and those that act on features alone.

use candle_core::ModuleT;

use super::module::SparseModule;
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
}

impl SparseModule for SparseSequential {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward_t(&x, train))
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

impl<M: ModuleT> SparseModule for OnFeatures<M> {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        x.replace_feature(self.0.forward_t(x.features(), train)?)
    }
}
