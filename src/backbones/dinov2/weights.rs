//! The tensors of a DINOv2 file, by Meta's names, whoever wrote it.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, var_builder::SimpleBackend};

use crate::import::Checkpoint;
use crate::{Error, Result};

/// Parts of Meta's names, and of Hugging Face's.
const HUGGING_FACE: [(&str, &str); 11] = [
    (".cls_token.", ".embeddings.cls_token."),
    (".register_tokens.", ".embeddings.register_tokens."),
    (".pos_embed.", ".embeddings.position_embeddings."),
    (".patch_embed.proj.", ".embeddings.patch_embeddings.projection."),
    (".blocks.", ".encoder.layer."),
    (".attn.proj.", ".attention.output.dense."),
    (".ls1.gamma.", ".layer_scale1.lambda1."),
    (".ls2.gamma.", ".layer_scale2.lambda1."),
    (".mlp.w12.", ".mlp.weights_in."),
    (".mlp.w3.", ".mlp.weights_out."),
    (".norm.", ".layernorm."),
];

const WHOLE_FILE: &str = "take the whole file of a DINOv2 network, as Meta or Hugging Face publish it";

/// Who named the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Meta,
    HuggingFace,
}

impl Writer {
    /// The names of what Meta calls `name`. Hugging Face's queries, keys and values are a tensor each.
    fn names(self, name: &str) -> Vec<String> {
        if self == Self::Meta {
            return vec![name.to_string()];
        }
        let name = HUGGING_FACE.iter().fold(format!(".{name}."), |name, (ours, theirs)| name.replace(ours, theirs));
        let name = name.trim_matches('.');
        match name.split_once(".attn.qkv.") {
            Some((block, leaf)) => {
                ["query", "key", "value"].map(|part| format!("{block}.attention.attention.{part}.{leaf}")).to_vec()
            }
            None => vec![name.to_string()],
        }
    }
}

/// The network in a file.
pub(super) struct Weights<'a> {
    file: &'a Checkpoint,
    writer: Writer,
    /// The text before its names: empty, or ending in a dot.
    prefix: String,
}

impl<'a> Weights<'a> {
    /// Finds the network by its class token.
    pub fn find(file: &'a Checkpoint) -> Result<Self> {
        let mut found: Vec<Self> = file.names().filter_map(|name| Self::with_class_token(file, name)).collect();
        let text = match found.len() {
            0 => format!("neither tensor `cls_token` nor `embeddings.cls_token` is there; {WHOLE_FILE}"),
            1 => return Ok(found.remove(0)),
            _ => {
                let prefixes = found.iter().map(|one| format!("`{}`", one.prefix.trim_end_matches('.')));
                format!(
                    "it holds networks under {}; take one with Checkpoint::under and give it to DinoV2::from_checkpoint",
                    prefixes.collect::<Vec<_>>().join(" and "),
                )
            }
        };
        Err(problem(file, text))
    }

    /// The network whose class token has this name.
    fn with_class_token(file: &'a Checkpoint, name: &str) -> Option<Self> {
        let is_whole = |prefix: &&str| prefix.is_empty() || prefix.ends_with('.');
        let (writer, prefix) = match name.strip_suffix("embeddings.cls_token").filter(is_whole) {
            Some(prefix) => (Writer::HuggingFace, prefix),
            None => (Writer::Meta, name.strip_suffix("cls_token").filter(is_whole)?),
        };
        Some(Self { file, writer, prefix: prefix.to_string() })
    }

    /// Names in the file of what Meta calls `name`.
    fn names(&self, name: &str) -> impl Iterator<Item = String> {
        self.writer.names(name).into_iter().map(|name| format!("{}{name}", self.prefix))
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.names(name).all(|name| self.file.get(&name).is_some())
    }

    /// The shape of a tensor of `N` axes that Hugging Face does not divide.
    pub fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let name = self.names(name).next().unwrap_or_default();
        let dims = self.tensor(&name)?.dims();
        dims.try_into().map_err(|_| self.problem(format!("tensor `{name}` has shape {dims:?}, expected {N} axes")))
    }

    /// One more than the largest number of a block, so that a block that is missing between others is found missing.
    pub fn count_blocks(&self) -> usize {
        let start = self.names("blocks").next().unwrap_or_default();
        let number =
            |name: &str| name.strip_prefix(&start)?.strip_prefix('.')?.split('.').next()?.parse::<usize>().ok();
        self.file.names().filter_map(number).max().map_or(0, |last| last.saturating_add(1))
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.file.get(name).ok_or_else(|| self.problem(format!("tensor `{name}` is missing; {WHOLE_FILE}")))
    }

    /// An error that names the file.
    pub fn problem(&self, text: String) -> Error {
        problem(self.file, text)
    }
}

fn problem(file: &Checkpoint, problem: String) -> Error {
    Error::Format { path: file.path().to_path_buf(), format: "DINOv2", problem }
}

impl SimpleBackend for Weights<'_> {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let names: Vec<String> = self.names(name).collect();
        let mut expected = shape.into_dims();
        if names.len() > 1 {
            expected[0] /= names.len();
        }
        let part = |name: &String| -> candle_core::Result<Tensor> {
            let tensor = self.tensor(name)?;
            if tensor.dims() != expected {
                let got = tensor.dims();
                let text = format!("tensor `{name}` has shape {got:?}, but {expected:?} fits the other tensors");
                return Err(self.problem(text).into());
            }
            tensor.to_dtype(dtype)?.to_device(device)
        };
        match names.as_slice() {
            [only] => part(only),
            several => Tensor::cat(&several.iter().map(part).collect::<candle_core::Result<Vec<_>>>()?, 0),
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let parts = self.names(name).map(|name| self.tensor(&name).cloned()).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts, 0)?.to_dtype(dtype)?.to_device(device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.has(name)
    }
}
