//! Parameters on disk: our own safetensors, and PyTorch checkpoints of the original network.
//!
//! A file of ours holds every parameter and running statistic under its name (`time_mlp.0.weight`,
//! `encoder.encoder_blocks.0.conv1.weight`, …) with the [`UNetConfig`] as JSON in its header, so that the file alone
//! rebuilds the network. A PyTorch `state_dict` (`.pt`, `.pth`, or safetensors) is read in either of two styles: spconv's,
//! whose names and (out, kz, ky, kx, in) weights are ours, or that of the dense fallback, whose layers wrap
//! `torch.nn` modules (names hold `.conv.` or `.bn.`, weights are (out, in, kz, ky, kx), transposed ones (in, out, …)).

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::config::UNetConfig;
use super::network::WaveMeshUNet;
use crate::import::{Checkpoint, ImportOptions, ImportReport};
use crate::{Error, Result, tensor_file};

/// The key of the configuration in a file's header.
const CONFIG: &str = "wavemesh.unet";
const FORMAT: &str = "safetensors";
/// Names that wrappers add between the parts of a parameter's name.
const WRAPPERS: [&str; 3] = ["layers", "conv", "bn"];

impl WaveMeshUNet {
    /// Writes parameters, running statistics and configuration as safetensors in `dtype` (`F16` halves the file).
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; an old file is then still intact.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-unet-example.safetensors");
    /// let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &Device::Cpu)?;
    /// network.save(&path, DType::F32)?;
    /// assert_eq!(WaveMeshUNet::load(&path, &Device::Cpu)?.num_parameters(), network.num_parameters());
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>, dtype: DType) -> Result<()> {
        let tensors =
            self.state().iter().map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().to_dtype(dtype)?)));
        let tensors: Vec<(String, Tensor)> = tensors.collect::<Result<_>>()?;
        let config = serde_json::to_string(self.config()).map_err(candle_core::Error::wrap)?;
        tensor_file::write(path.as_ref(), tensors, (CONFIG, config))
    }

    /// Rebuilds a network from a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is not one of ours, [`Error::Io`] if it cannot be read.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-unet-load-example.safetensors");
    /// WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &Device::Cpu)?.save(&path, DType::F32)?;
    /// let network = WaveMeshUNet::load(&path, &Device::Cpu)?;
    /// assert_eq!(network.config(), &UNetConfig::plain(1, 1, &[4, 8]));
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let invalid = |problem: String| Error::Format { path: path.to_path_buf(), format: FORMAT, problem };
        let (_, Some(config)) = tensor_file::read(path, FORMAT, CONFIG)? else {
            return Err(invalid(format!(
                "its header has no `{CONFIG}`; build the network from its configuration and use load_weights"
            )));
        };
        let config: UNetConfig =
            serde_json::from_str(&config).map_err(|error| invalid(format!("`{CONFIG}` in its header: {error}")))?;
        let network = Self::seeded(&config, 0, device)?;
        network.load_weights(path, &ImportOptions::default())?;
        Ok(network)
    }

    /// Loads the weights of a checkpoint: safetensors, or a file that PyTorch saved (a `state_dict`, alone or under a key). It finds the
    /// prefix of names and the order of weights itself; see [`import`](crate::import) for what the options change.
    ///
    /// # Errors
    /// [`Error::Format`], which names the first tensor that is missing or has another shape (with both shapes); the network is then
    /// unchanged.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-unet-weights-example.safetensors");
    /// let config = UNetConfig::plain(1, 1, &[4, 8]);
    /// WaveMeshUNet::seeded(&config, 1, &Device::Cpu)?.save(&path, DType::F32)?;
    /// let network = WaveMeshUNet::seeded(&config, 2, &Device::Cpu)?;
    /// let report = network.load_weights(&path, &ImportOptions::default())?;
    /// assert_eq!(report.read.len(), network.state().len());
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load_weights(&self, path: impl AsRef<Path>, options: &ImportOptions) -> Result<ImportReport> {
        Checkpoint::open(path)?.renamed(|name| Some(plain_name(name)))?.load_variables(self.state(), options)
    }
}

/// `module.encoder.input_conv.layers.0.conv.weight` → `module.encoder.input_conv.0.weight`.
fn plain_name(name: &str) -> String {
    name.split('.').filter(|part| !WRAPPERS.contains(part)).collect::<Vec<_>>().join(".")
}
