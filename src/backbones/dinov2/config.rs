//! [`DinoV2Config`]: the sizes of a DINOv2 network, which its file of weights tells.

use super::weights::Weights;
use crate::import::Checkpoint;
use crate::{Error, Result};

/// Sizes of [`DinoV2`](super::DinoV2). The default is ViT-S/14, the smallest of the four published networks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DinoV2Config {
    /// Channels of each token.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Heads of each attention. `None` for heads of 64 channels, which all published networks have.
    pub num_heads: Option<usize>,
    /// Pixels along each side of a patch.
    pub patch_size: usize,
    /// Patches along each side of the pictures for which the positions were trained: 37, for 518 pixels.
    pub grid_size: usize,
    /// Number of register tokens (Darcet et al. 2023): 0, or 4 in networks `reg4`.
    pub num_registers: usize,
    /// The layers after each attention.
    pub feed_forward: FeedForward,
}

/// The layers after each attention, with the number of their inner channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// A linear layer, GELU, a linear layer.
    Gelu(usize),
    /// `W3 (silu(W1 x) · W2 x)` (Shazeer 2020), which the giant network has.
    SwiGlu(usize),
}

impl Default for DinoV2Config {
    fn default() -> Self {
        Self {
            hidden_size: 384,
            num_layers: 12,
            num_heads: None,
            patch_size: 14,
            grid_size: 37,
            num_registers: 0,
            feed_forward: FeedForward::Gelu(4 * 384),
        }
    }
}

setters! {
    DinoV2Config {
        hidden_size(hidden_size: usize) => hidden_size = hidden_size;
        num_layers(num_layers: usize) => num_layers = num_layers;
        num_heads(num_heads: usize) => num_heads = Some(num_heads);
        patch_size(patch_size: usize) => patch_size = patch_size;
        grid_size(grid_size: usize) => grid_size = grid_size;
        num_registers(num_registers: usize) => num_registers = num_registers;
        feed_forward(feed_forward: FeedForward) => feed_forward = feed_forward;
    }
}

impl DinoV2Config {
    /// The sizes of the network in a file, from the shapes of its tensors. The number of heads stays `None`, since no shape tells it.
    ///
    /// # Errors
    /// [`Error::Format`] if a tensor is missing that tells a size, or has a shape that no such network has; or if the file holds several
    /// networks.
    ///
    /// ```
    /// use wavemesh::backbones::{DinoV2, DinoV2Config};
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-dinov2-config-example.safetensors");
    /// let tiny = DinoV2Config::new().hidden_size(64).num_layers(1).patch_size(4).grid_size(5);
    /// let variables = VarMap::new();
    /// DinoV2::new(&tiny, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// variables.save(&path)?;
    /// assert_eq!(DinoV2Config::of(&Checkpoint::open(&path)?)?, tiny);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of(weights: &Checkpoint) -> Result<Self> {
        let weights = Weights::find(weights)?;
        let [hidden_size, _, patch_size, _] = weights.dims("patch_embed.proj.weight")?;
        let [_, positions, _] = weights.dims("pos_embed")?;
        let has_registers = weights.has("register_tokens");
        let num_registers = if has_registers { weights.dims::<3>("register_tokens")?[1] } else { 0 };
        let feed_forward = if weights.has("blocks.0.mlp.w12.weight") {
            FeedForward::SwiGlu(weights.dims::<2>("blocks.0.mlp.w12.weight")?[0] / 2)
        } else {
            FeedForward::Gelu(weights.dims::<2>("blocks.0.mlp.fc1.weight")?[0])
        };
        let grid_size = positions.saturating_sub(1).isqrt();
        if 1 + grid_size * grid_size != positions {
            let text =
                format!("it has {positions} positions, expected one for the class token and a square number of others");
            return Err(weights.problem(text));
        }
        let num_layers = weights.count_blocks();
        Ok(Self { hidden_size, num_layers, num_heads: None, patch_size, grid_size, num_registers, feed_forward })
    }

    /// The number of heads, if all sizes fit each other.
    pub(super) fn checked_heads(&self) -> Result<usize> {
        const OP: &str = "DinoV2";
        let Self { hidden_size, num_layers, patch_size, grid_size, .. } = *self;
        let (FeedForward::Gelu(width) | FeedForward::SwiGlu(width)) = self.feed_forward;
        let sizes = [
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
            ("patch_size", patch_size),
            ("grid_size", grid_size),
            ("feed_forward", width),
        ];
        if let Some((name, size)) = sizes.into_iter().find(|&(_, size)| size == 0) {
            return Err(Error::argument(OP, name, size, "1 or more"));
        }
        match self.num_heads {
            Some(heads) if heads > 0 && hidden_size.is_multiple_of(heads) => Ok(heads),
            Some(heads) => {
                Err(Error::argument(OP, "num_heads", heads, format!("a divisor of hidden_size {hidden_size}")))
            }
            None if hidden_size.is_multiple_of(64) => Ok(hidden_size / 64),
            None => {
                let expected = "a number: only a hidden_size that is a multiple of 64 tells it. Give it with \
                                DinoV2Config::of(&weights)?.num_heads(…) to DinoV2::from_checkpoint";
                Err(Error::argument(
                    OP,
                    "num_heads",
                    format!("not given, with a hidden_size of {hidden_size}"),
                    expected,
                ))
            }
        }
    }
}
