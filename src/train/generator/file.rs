//! A generator as one file.

use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Generator, StageModel};
use crate::diffusion::{DiffusionConfig, GaussianDiffusion};
use crate::train::representation::Representation;
use crate::unet::{UNetConfig, WaveMeshUNet};
use crate::{Error, Result, tensor_file};

const HEADER: &str = "wavemesh.generator";
const FORMAT: &str = "WaveMesh generator";

/// The part of a generator that is not a tensor.
#[derive(Serialize, Deserialize)]
struct Stored {
    representation: Representation,
    stages: Vec<(UNetConfig, DiffusionConfig)>,
    classes: Vec<String>,
}

impl Generator {
    fn tensors(&self) -> impl Iterator<Item = (String, Var)> + '_ {
        self.stages.iter().enumerate().flat_map(|(stage, model)| {
            model.network.state().iter().map(move |(name, var)| (format!("{stage}/{name}"), var.clone()))
        })
    }

    /// Writes everything into one safetensors file in `dtype`: `F16` halves it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// let path = std::env::temp_dir().join("wavemesh-generator-example.safetensors");
    /// generator.save(&path, DType::F16)?;
    /// assert_eq!(Generator::load(&path, &Device::Cpu)?.classes(), generator.classes());
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>, dtype: DType) -> Result<()> {
        let stages = self.stages.iter().map(|s| (s.network.config().clone(), s.diffusion.config().clone())).collect();
        let stored = Stored { representation: self.representation.clone(), stages, classes: self.classes.clone() };
        let stored = serde_json::to_string(&stored).map_err(candle_core::Error::wrap)?;
        let tensors: Vec<(String, Tensor)> = self
            .tensors()
            .map(|(name, var)| Ok((name, var.as_detached_tensor().to_dtype(dtype)?)))
            .collect::<Result<_>>()?;
        tensor_file::write(path.as_ref(), tensors, (HEADER, stored))
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is damaged or not a generator.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// assert_eq!(generator.representation().config().resolution, 32);
    /// assert_eq!(generator.stages().len(), generator.representation().stages());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let invalid = |problem: String| Error::Format { path: path.to_path_buf(), format: FORMAT, problem };
        let (bytes, stored) = tensor_file::read(path, FORMAT, HEADER)?;
        let stored = stored.ok_or_else(|| invalid(format!("its header has no `{HEADER}`")))?;
        let stored: Stored = serde_json::from_str(&stored).map_err(|error| invalid(error.to_string()))?;
        let stages = stored.stages.iter().map(|(unet, diffusion)| {
            let network = WaveMeshUNet::seeded(unet, 0, device)?;
            Ok(StageModel { network, diffusion: GaussianDiffusion::new(diffusion, device)? })
        });
        let generator = Self::new(stored.representation.checked()?, stages.collect::<Result<_>>()?, stored.classes)?;
        let mut found = candle_core::safetensors::load_buffer(&bytes, device)?;
        for (name, var) in generator.tensors() {
            let Some(value) = found.remove(&name) else {
                return Err(invalid(format!("tensor `{name}` of shape {:?} is missing", var.dims())));
            };
            if value.dims() != var.dims() {
                let (got, expected) = (value.dims(), var.dims());
                return Err(invalid(format!("tensor `{name}` has shape {got:?}, its network's has {expected:?}")));
            }
            var.set(&value.to_dtype(var.dtype())?)?;
        }
        Ok(generator)
    }
}
