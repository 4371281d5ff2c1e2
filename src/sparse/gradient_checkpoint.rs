//! [`GradientCheckpoint`]: a part of a network that keeps only its input for the backward pass (Chen et al. 2016).

use std::sync::Arc;

use candle_core::{Tensor, Var};

use super::backend::with_backend;
use super::in_one::{PartGradients, in_one};
use super::module::{LayerDescription, SparseModule};
use super::sync::AllReduce;
use super::tape;
use super::tensor::SparseConvTensor;
use crate::Result;

/// Gradient checkpointing of any module, as `torch.utils.checkpoint`: the forward pass keeps only the input, and the backward pass runs the
/// module once more. Values and gradients are those of the module, bit for bit; running statistics follow each batch once.
///
/// A training pass takes about a third more time. Its memory holds the inputs of all checkpoints, and the inner tensors of one of them: so
/// wrap each block of a network, not the whole network. The module must compute the same result twice: a layer that draws random numbers
/// (candle's `Dropout`) must draw them from a seed.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::GradientCheckpoint;
/// # fn main() -> wavemesh::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let block = SparseSequential::new()
///     .add(SubMConv3d::new(2, 8, 3, ConvConfig::default(), vb.pp(0))?)
///     .add(BatchNorm::new(8, vb.pp(1))?)
///     .add(Activation::Relu);
/// let block = GradientCheckpoint::new(block);
/// let x = SparseConvTensor::from_coords(Tensor::ones((2, 2), DType::F32, &Device::Cpu)?, vec![[0, 1, 1, 1], [0, 1, 1, 2]], [4, 4, 4], 1)?;
/// let loss = block.forward_t(&x, true)?.features().sqr()?.mean_all()?;
/// let gradients = loss.backward()?;
/// assert!(gradients.get(&vb.pp(0).get((8, 3, 3, 3, 2), "weight")?).is_some());
/// # Ok(()) }
/// ```
#[doc(alias = "checkpoint")]
#[derive(Debug)]
pub struct GradientCheckpoint<M>(Arc<M>);

impl<M: SparseModule + Send + Sync + 'static> GradientCheckpoint<M> {
    /// A checkpoint around `module`.
    pub fn new(module: M) -> Self {
        Self(Arc::new(module))
    }

    /// The module inside.
    pub fn module(&self) -> &M {
        &self.0
    }
}

/// A clone shares the parameters, like a clone of the module itself.
impl<M> Clone for GradientCheckpoint<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: SparseModule + Send + Sync + 'static> SparseModule for GradientCheckpoint<M> {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        if tape::is_off() {
            return self.0.forward_t(x, train);
        }
        let input = x.replace_feature(x.features().detach())?;
        // This pass has a tape, to learn which parameters are used. The tape is freed at the end of this function; the backward pass needs
        // as much.
        let output = self.0.forward_t(&input, train)?;
        let parameters: Vec<Tensor> =
            output.features().sorted_nodes().into_iter().filter(|node| node.is_variable()).cloned().collect();
        let (module, of, backend) = (self.0.clone(), parameters.clone(), x.backend()?);
        let again = move |(_, grad): (&Tensor, &Tensor)| {
            with_backend(backend, || tape::again(|| gradients(&*module, &input, train, &of, grad)))
        };
        let features = in_one((x.features(), None), &output.features().detach(), &parameters, again)?;
        output.replace_feature(features)
    }

    fn describe(&self) -> LayerDescription {
        let LayerDescription { kind, parameters } = self.0.describe();
        LayerDescription { kind: format!("GradientCheckpoint({kind})"), parameters }
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.0.convert_sync_batchnorm(group);
    }
}

/// Gradients of the input and of the parameters, found by a second forward pass.
fn gradients(
    module: &impl SparseModule,
    input: &SparseConvTensor,
    train: bool,
    parameters: &[Tensor],
    grad: &Tensor,
) -> Result<PartGradients> {
    let x = Var::from_tensor(input.features())?;
    let output = module.forward_t(&input.replace_feature(x.as_tensor().clone())?, train)?;
    let mut found = (output.features() * grad)?.sum_all()?.backward()?;
    let found_x = found.remove(&x).map_or_else(|| x.zeros_like(), Ok)?;
    let parameters =
        parameters.iter().filter_map(|parameter| Some((parameter.clone(), found.remove(parameter)?))).collect();
    Ok(PartGradients { x: found_x, other: None, parameters })
}
