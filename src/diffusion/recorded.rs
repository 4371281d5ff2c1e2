//! [`Recorded`]: a network whose pass over the same sites is recorded once, for sampling on a GPU.

use std::cell::RefCell;

use candle_core::{Tensor, Var};

use super::Denoiser;
use crate::Result;
use crate::device::Recording;
use crate::sparse::SparseConvTensor;

/// A network for samplers, which run it again and again on the same sites. On a GPU its pass is a [`Recording`], which is launched as a
/// whole: a step then takes only the time that the card needs, without the cost of launching hundreds of kernels. On the CPU, and in
/// training, the network runs as usual.
///
/// ```
/// use wavemesh::{diffusion::Recorded, prelude::*};
/// let device = best_device()?;
/// let features = Tensor::zeros((2, 1), DType::F32, &device)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
/// let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &device)?;
/// let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &device)?;
/// let ddim = Sampler::Ddim { steps: 10, eta: 0.0 };
/// let sample = diffusion.sample(&Recorded::new(&network), &x, ddim, None)?;
/// assert!(sample.same_sites(&x));
/// # Ok::<(), Error>(())
/// ```
///
/// Parameters may change between passes if they change in place (training and [`Var::set`] do that). The first pass over other sites, or
/// with another type, is recorded again; meanwhile no other thread may use the device.
pub struct Recorded<'a> {
    network: &'a dyn Denoiser,
    /// Recorded passes over the latest sites, for example with and without a context.
    passes: RefCell<Vec<Pass<'a>>>,
}

/// A pass for inputs of fixed shapes.
struct Pass<'a> {
    x: SparseConvTensor,
    features: Var,
    timesteps: Var,
    context: Option<Var>,
    recording: Recording<'a>,
}

impl<'a> Recorded<'a> {
    /// Wraps `network`, without any recording so far.
    pub fn new(network: &'a dyn Denoiser) -> Self {
        Self { network, passes: RefCell::default() }
    }
}

impl std::fmt::Debug for Recorded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Recorded").field("passes", &self.passes.borrow().len()).finish_non_exhaustive()
    }
}

impl<'a> Pass<'a> {
    fn record(
        network: &'a dyn Denoiser,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
    ) -> Result<Self> {
        let own = |tensor: &Tensor| Var::from_tensor(&tensor.detach().force_contiguous()?);
        let (features, timesteps) = (own(x.features())?, own(timesteps)?);
        let context = context.map(own).transpose()?;
        let x = x.replace_feature(features.as_detached_tensor())?;
        let recording = {
            let (x, timesteps) = (x.clone(), timesteps.as_detached_tensor());
            let context = context.as_ref().map(Var::as_detached_tensor);
            Recording::new(&x.device().clone(), move || {
                Ok(vec![network.predict(&x, &timesteps, context.as_ref(), false)?.features().clone()])
            })?
        };
        Ok(Self { x, features, timesteps, context, recording })
    }

    /// Whether its inputs have the types and shapes of these.
    fn serves(&self, x: &SparseConvTensor, timesteps: &Tensor, context: Option<&Tensor>) -> bool {
        let alike = |a: &Tensor, b: &Tensor| a.dtype() == b.dtype() && a.dims() == b.dims();
        alike(&self.features, x.features())
            && alike(&self.timesteps, timesteps)
            && match (&self.context, context) {
                (Some(a), Some(b)) => alike(a, b),
                (None, None) => true,
                _ => false,
            }
    }
}

impl Denoiser for Recorded<'_> {
    fn predict(
        &self,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        train: bool,
    ) -> Result<SparseConvTensor> {
        if train || !x.device().is_cuda() {
            return self.network.predict(x, timesteps, context, train);
        }
        let mut passes = self.passes.borrow_mut();
        passes.retain(|pass| pass.x.same_sites(x));
        let found = match passes.iter_mut().find(|pass| pass.serves(x, timesteps, context)) {
            Some(pass) => {
                pass.features.set(x.features())?;
                pass.timesteps.set(timesteps)?;
                if let (Some(own), Some(given)) = (&pass.context, context) {
                    own.set(given)?;
                }
                pass.recording.run()?[0].force_contiguous()?
            }
            None => {
                let pass = Pass::record(self.network, x, timesteps, context)?;
                let found = pass.recording.results()[0].force_contiguous()?;
                passes.push(pass);
                found
            }
        };
        x.replace_feature(found)
    }
}
