//! Parameters on disk: safetensors of our own, and PyTorch checkpoints of the network that this one restates.
//!
//! A file of ours holds every parameter and running statistic under its name (`time_mlp.0.weight`,
//! `encoder.encoder_blocks.0.conv1.weight`, …) with the [`UNetConfig`] as JSON in its header, so that the file alone
//! rebuilds the network. A PyTorch `state_dict` (`.pt`, `.pth`, or safetensors) is read in either of two styles: spconv's,
//! whose names and (out, kz, ky, kx, in) weights are ours, or that of the dense fallback, whose layers wrap
//! `torch.nn` modules (names hold `.conv.` or `.bn.`, weights are (out, in, kz, ky, kx), transposed ones (in, out, …)).

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use super::config::UNetConfig;
use super::network::WaveMeshUNet;
use crate::files::{create_folder_of, write_atomically};
use crate::{Error, Result};

/// Key of the configuration in a file's header.
const CONFIG: &str = "wavemesh.unet";
/// Names that wrappers add in front of, or between, the parts of a parameter's name.
const WRAPPERS: [&str; 6] = ["module", "model", "unet", "layers", "conv", "bn"];

/// How 1×1×1 weights are stored in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PointwiseLayout {
    /// As (out, in) matrices: files of ours and of the dense fallback.
    #[default]
    OutIn,
    /// As spconv uses them: the memory of `[out, 1, 1, 1, in]` holds an (in, out) matrix.
    Spconv,
}

/// How a foreign checkpoint is to be read.
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    /// The entry of a PyTorch file that is the `state_dict`, such as `model_state_dict`; `None` if the file is one.
    pub key: Option<String>,
    /// How 1×1×1 weights are stored.
    pub pointwise: PointwiseLayout,
}

setters! {
    CheckpointOptions {
        key(key: impl Into<String>) => key = Some(key.into());
        pointwise(pointwise: PointwiseLayout) => pointwise = pointwise;
    }
}

impl WaveMeshUNet {
    /// Writes parameters, running statistics and configuration as safetensors in `dtype` (`F16` halves the file).
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written; the old one is then still whole.
    pub fn save(&self, path: impl AsRef<Path>, dtype: DType) -> Result<()> {
        let tensors =
            self.state().iter().map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().to_dtype(dtype)?)));
        let tensors: Vec<(String, Tensor)> = tensors.collect::<Result<_>>()?;
        let config = serde_json::to_string(self.config()).map_err(candle_core::Error::wrap)?;
        let header = HashMap::from([(CONFIG.to_string(), config)]);
        let bytes = safetensors::serialize(tensors, Some(header)).map_err(candle_core::Error::wrap)?;
        create_folder_of(path.as_ref())?;
        write_atomically(path.as_ref(), &bytes)
    }

    /// Rebuilds the network that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Format`] when the file is not one of ours, [`Error::Io`] when it cannot be read.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let invalid = |problem: String| Error::Format { path: path.to_path_buf(), format: "safetensors", problem };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?;
        let Some(config) = header.metadata().as_ref().and_then(|entries| entries.get(CONFIG)) else {
            return Err(invalid(format!(
                "its header has no `{CONFIG}`; build the network from its configuration and use load_weights"
            )));
        };
        let config: UNetConfig =
            serde_json::from_str(config).map_err(|error| invalid(format!("`{CONFIG}` in its header: {error}")))?;
        let network = Self::seeded(&config, 0, device)?;
        network.assign(path, read(path, &CheckpointOptions::default())?, PointwiseLayout::OutIn)?;
        Ok(network)
    }

    /// Takes over the weights of a checkpoint: safetensors, or a PyTorch `state_dict` (`.pt`, `.pth`, `.bin`).
    ///
    /// # Errors
    /// [`Error::Format`] names the first tensor that is missing, unknown or of another shape (with both shapes); the
    /// network is then unchanged.
    pub fn load_weights(&self, path: impl AsRef<Path>, options: &CheckpointOptions) -> Result<()> {
        let path = path.as_ref();
        self.assign(path, read(path, options)?, options.pointwise)
    }

    fn assign(&self, path: &Path, mut tensors: HashMap<String, Tensor>, pointwise: PointwiseLayout) -> Result<()> {
        let problem =
            |problem: String| Error::Format { path: path.to_path_buf(), format: "WaveMeshUNet checkpoint", problem };
        let torch_layout = self.state().iter().any(|(name, var)| {
            let found = tensors.get(name).map(Tensor::dims);
            found.is_some_and(|found| {
                found != var.dims() && permuted(found, from_torch(name)) == Some(var.dims().to_vec())
            })
        });
        let mut values = Vec::with_capacity(self.state().len());
        for (name, var) in self.state() {
            let Some(mut found) = tensors.remove(name) else {
                return Err(problem(format!("tensor `{name}` of shape {:?} is missing", var.dims())));
            };
            if torch_layout && found.rank() == 5 {
                found = found.permute(from_torch(name))?;
            }
            if found.dims() != var.dims() {
                let (got, expected) = (found.dims(), var.dims());
                return Err(problem(format!("tensor `{name}` has shape {got:?}, this network's has {expected:?}")));
            }
            if let (PointwiseLayout::Spconv, &[out, 1, 1, 1, input]) = (pointwise, var.dims()) {
                found = found.reshape((input, out))?.t()?.reshape(var.dims())?;
            }
            values.push(found.to_dtype(var.dtype())?.to_device(self.device())?.contiguous()?);
        }
        if let Some(name) = tensors.keys().min() {
            return Err(problem(format!("tensor `{name}` belongs to no layer of this network")));
        }
        for ((_, var), value) in self.state().iter().zip(values) {
            var.set(&value)?;
        }
        Ok(())
    }
}

/// The axes of a `torch.nn` convolution weight in the order of ours.
fn from_torch(name: &str) -> [usize; 5] {
    if name.contains("upsample_blocks") { [1, 2, 3, 4, 0] } else { [0, 2, 3, 4, 1] }
}

fn permuted(dims: &[usize], axes: [usize; 5]) -> Option<Vec<usize>> {
    (dims.len() == 5).then(|| axes.iter().map(|&axis| dims[axis]).collect())
}

/// The tensors of a file under our names.
fn read(path: &Path, options: &CheckpointOptions) -> Result<HashMap<String, Tensor>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let (format, tensors) = match extension {
        "safetensors" => ("safetensors", candle_core::safetensors::load(path, &Device::Cpu).map(HashMap::into_iter)),
        "pt" | "pth" | "bin" => (
            "PyTorch (zip)",
            candle_core::pickle::read_all_with_key(path, options.key.as_deref())
                .map(|list| list.into_iter().collect::<HashMap<_, _>>().into_iter()),
        ),
        _ => {
            return Err(Error::Unknown {
                kind: "checkpoint extension",
                name: extension.into(),
                known: "safetensors, pt, pth, bin".into(),
            });
        }
    };
    if !path.exists() {
        return Err(Error::io(path)(std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    let tensors = tensors
        .map_err(|error| Error::Format { path: path.to_path_buf(), format, problem: error.to_string() })?
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, tensor)| (plain_name(&name), tensor))
        .collect::<HashMap<_, _>>();
    if tensors.is_empty() {
        let problem = "it holds no tensors; if its state_dict lies under a key, name that in CheckpointOptions::key";
        return Err(Error::Format { path: path.to_path_buf(), format, problem: problem.into() });
    }
    Ok(tensors)
}

/// `module.encoder.input_conv.layers.0.conv.weight` → `encoder.input_conv.0.weight`.
fn plain_name(name: &str) -> String {
    name.split('.').filter(|part| !WRAPPERS.contains(part)).collect::<Vec<_>>().join(".")
}
