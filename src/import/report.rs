//! [`ImportReport`]: what an import did, tensor by tensor.

use std::fmt;

use super::format::WeightFormat;

/// One parameter that got its value from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedTensor {
    /// Name of the parameter in the network.
    pub name: String,
    /// Name of the tensor in the file.
    pub from: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// What was done to it: `read`, `axes moved`, or `turned` (for a 1×1×1 weight whose memory was an (in, out) matrix).
    pub change: &'static str,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// The order of the file's convolution weights; `None` if the network has no sparse convolution.
    pub format: Option<WeightFormat>,
    /// The text before the parameters' names in the file: `model_state.backbone_3d.`.
    pub prefix: String,
    /// Parameters that got a value from the file, by name.
    pub read: Vec<ImportedTensor>,
    /// Parameters without a tensor in the file; they kept their values.
    pub missing: Vec<String>,
    /// Tensors under the prefix that belong to no parameter.
    pub unread: Vec<String>,
    /// Number of tensors elsewhere in the file (an optimiser's state, other parts of a model).
    pub elsewhere: usize,
}

impl ImportReport {
    /// Names of the 1×1×1 weights that were turned.
    pub fn turned(&self) -> impl Iterator<Item = &str> {
        self.read.iter().filter(|tensor| tensor.change == "turned").map(|tensor| tensor.name.as_str())
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turned = self.turned().count();
        write!(f, "{} read", self.read.len())?;
        if let Some(format) = self.format {
            write!(f, " as {}", format.describe())?;
        }
        write!(f, ", {turned} of them turned, {} missing, {} unread", self.missing.len(), self.unread.len())?;
        if !self.prefix.is_empty() {
            write!(f, ", from under `{}`", self.prefix.trim_end_matches('.'))?;
        }
        for (what, names) in [("missing", &self.missing), ("unread", &self.unread)] {
            if !names.is_empty() {
                write!(f, "\n{what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}
