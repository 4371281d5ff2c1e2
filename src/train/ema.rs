//! Exponential moving average of a network's tensors: the weights that generate.

use super::in_place::follow;
use crate::unet::WaveMeshUNet;
use crate::{Error, Result};

/// A second network that follows a trained one.
///
/// Its decay rises as `(1 + n) / (10 + n)` up to `decay`, so that the first steps are soon forgotten. Running statistics are
/// averaged like parameters.
#[derive(Debug)]
pub struct Ema {
    network: WaveMeshUNet,
    decay: f64,
    updates: u64,
}

impl Ema {
    /// Starts at the present weights of `network`. `decay` lies in 0 to 1: larger follows more slowly.
    ///
    /// # Errors
    /// [`Error::Argument`] for a decay out of range.
    pub fn new(network: &WaveMeshUNet, decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::Argument {
                op: "Ema::new",
                name: "decay",
                got: decay.to_string(),
                expected: "0 or more, below 1".into(),
            });
        }
        let copy = WaveMeshUNet::seeded(network.config(), 0, network.device())?;
        for ((_, to), (_, from)) in copy.state().iter().zip(network.state()) {
            to.set(&from.as_detached_tensor().copy()?)?;
        }
        Ok(Self { network: copy, decay, updates: 0 })
    }

    /// Moves the average towards the present weights of `network`.
    ///
    /// # Errors
    /// A network of another architecture.
    pub fn update(&mut self, network: &WaveMeshUNet) -> Result<()> {
        let n = self.updates as f64;
        self.updates += 1;
        let decay = self.decay.min((1.0 + n) / (10.0 + n));
        let (keep, take) = (decay as f32, (1.0 - decay) as f32);
        let mut pairs = self.network.state().iter().zip(network.state());
        pairs.try_for_each(|((_, to), (_, from))| follow(to, from, keep, take))
    }

    /// The averaged network.
    pub fn network(&self) -> &WaveMeshUNet {
        &self.network
    }

    /// The averaged network, by value.
    pub fn into_network(self) -> WaveMeshUNet {
        self.network
    }

    pub(super) fn updates(&self) -> u64 {
        self.updates
    }

    pub(super) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}
