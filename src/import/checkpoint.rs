//! [`Checkpoint`]: the named tensors of a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use safetensors::SafeTensors;

use super::torch;
use crate::{Error, Result};

/// The writer of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// PyTorch.
    Pickle,
    /// WaveMesh, according to the header of the safetensors.
    WaveMesh,
    /// Any other writer of safetensors.
    Safetensors,
}

/// The tensors of a file of weights, each under its full name, on the CPU and in the type of the file.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    origin: Origin,
}

impl Checkpoint {
    /// Reads a safetensors file or a file that `torch.save` wrote: a `state_dict`, a training checkpoint with one under some key, or a
    /// whole module. The content decides, not the extension. No code from the file runs.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is of another kind, damaged, or has no tensors.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-checkpoint-example.safetensors");
    /// let bias = Tensor::new(&[2f32, 3.0], &Device::Cpu)?;
    /// candle_core::safetensors::save(&HashMap::from([("model.bias", bias)]), &path)?;
    /// let weights = Checkpoint::open(&path)?;
    /// assert_eq!(weights.names().collect::<Vec<_>>(), ["model.bias"]);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::from_bytes(path, &bytes)
    }

    /// Like [`open`](Self::open) for bytes in memory; errors name them `path`.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open), except those of reading a file.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// // Safetensors: the length of a header, the header, and the numbers.
    /// let header = br#"{"model.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &2f32.to_le_bytes()].concat();
    /// let weights = Checkpoint::from_bytes("model.safetensors", &bytes)?;
    /// assert_eq!(weights.get("model.bias").unwrap().to_vec1::<f32>()?, [2.0]);
    /// assert!(Checkpoint::from_bytes("model.safetensors", &bytes[..20]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let invalid = |format, problem| Error::Format { path: path.clone(), format, problem };
        // A safetensors file begins with the length of its header in eight bytes; the header begins with a brace.
        let pickled = bytes.get(8) != Some(&b'{');
        let (tensors, origin): (BTreeMap<String, Tensor>, Origin) = if pickled {
            (torch::read(bytes).map_err(|problem| invalid("PyTorch", problem))?, Origin::Pickle)
        } else {
            let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu);
            let tensors = tensors.map_err(|error| invalid("safetensors", error.to_string()))?;
            let header = SafeTensors::read_metadata(bytes).ok().and_then(|(_, header)| header.metadata().clone());
            let ours = header.is_some_and(|header| header.keys().any(|key| key.starts_with("wavemesh.")));
            (tensors.into_iter().collect(), if ours { Origin::WaveMesh } else { Origin::Safetensors })
        };
        if tensors.is_empty() {
            let format = if pickled { "PyTorch" } else { "safetensors" };
            return Err(invalid(format, "it holds no tensors".into()));
        }
        Ok(Self { path, tensors, origin })
    }

    /// Names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors. A file that was opened has at least one.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// A tensor by its full name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The first parts of the names, with the number of tensors under each: `model_state`, `optimizer_state`, ….
    pub fn groups(&self) -> Vec<(&str, usize)> {
        let mut groups: Vec<(&str, usize)> = Vec::new();
        for name in self.names() {
            let group = name.split('.').next().unwrap_or(name);
            match groups.last_mut() {
                Some((last, count)) if *last == group => *count += 1,
                _ => groups.push((group, 1)),
            }
        }
        groups
    }

    /// The tensors whose names begin with `prefix` and a dot, under their names without these.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there are none.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// # let header = br#"{"model.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// # let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &2f32.to_le_bytes()].concat();
    /// let weights = Checkpoint::from_bytes("model.safetensors", &bytes)?; // of one tensor, `model.bias`
    /// assert_eq!(weights.under("model")?.names().collect::<Vec<_>>(), ["bias"]);
    /// assert!(weights.under("optimizer").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn under(&self, prefix: &str) -> Result<Self> {
        let inside = |name: &str| Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_string());
        let tensors: BTreeMap<_, _> =
            self.tensors.iter().filter_map(|(name, tensor)| Some((inside(name)?, tensor.clone()))).collect();
        if tensors.is_empty() {
            return Err(Error::Unknown {
                kind: "prefix of a checkpoint",
                name: prefix.into(),
                known: self.groups().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", "),
            });
        }
        Ok(Self { tensors, ..self.clone() })
    }

    /// The tensors under new names: those for which `rename` returns one.
    ///
    /// # Errors
    /// [`Error::Format`] if two tensors get the same name.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// # let header = br#"{"model.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// # let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &2f32.to_le_bytes()].concat();
    /// let weights = Checkpoint::from_bytes("model.safetensors", &bytes)?; // of one tensor, `model.bias`
    /// let weights = weights.renamed(|name| Some(name.replace("model.", "backbone.")))?;
    /// assert_eq!(weights.names().collect::<Vec<_>>(), ["backbone.bias"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            if let Some(new) = rename(name)
                && tensors.insert(new.clone(), tensor.clone()).is_some()
            {
                return Err(self.problem(format!("`{name}` and another tensor are both renamed to `{new}`")));
            }
        }
        Ok(Self { tensors, ..self.clone() })
    }

    /// The same names with changed tensors: for example to cut, reshape or scale a weight before it is loaded.
    ///
    /// # Errors
    /// The errors of `change`.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// # let header = br#"{"model.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// # let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &2f32.to_le_bytes()].concat();
    /// let weights = Checkpoint::from_bytes("model.safetensors", &bytes)?; // of one tensor, `model.bias`, which is 2
    /// let scaled = weights.mapped(|_name, tensor| Ok((tensor * 0.5)?))?;
    /// assert_eq!(scaled.get("model.bias").unwrap().to_vec1::<f32>()?, [1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mapped(&self, change: impl Fn(&str, &Tensor) -> Result<Tensor>) -> Result<Self> {
        let tensors = self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), change(name, tensor)?)));
        Ok(Self { tensors: tensors.collect::<Result<_>>()?, ..self.clone() })
    }

    /// A builder of constants from these tensors without conversion, for networks whose weights are in our order: fast and without a tape.
    /// To read weights of another library, load them into variables first ([`load_into`](Self::load_into)).
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_tensors(self.tensors.clone().into_iter().collect(), dtype, device)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn problem(&self, problem: String) -> Error {
        Error::Format { path: self.path.clone(), format: "checkpoint", problem }
    }
}
