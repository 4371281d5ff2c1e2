//! [`DinoV2`]: the image encoder of Oquab et al. 2023 (*DINOv2: Learning Robust Visual Features without Supervision*), for pictures as
//! contexts of a generator.

mod block;
mod config;
mod resize;
mod weights;

use std::path::Path;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Init, LayerNorm, VarBuilder, conv2d, layer_norm};

use crate::import::Checkpoint;
use crate::task::check_interrupt;
use crate::{Error, Result, memory};
use block::Block;
use resize::{Detail, check_floats, resize};
use weights::Weights;

pub use config::{DinoV2Config, FeedForward};
pub use resize::resize_picture;

/// Means and standard deviations of ImageNet's red, green and blue, with which DINOv2 was trained.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// DINOv2's vision transformer (Oquab et al. 2023): a picture as tokens, one for the whole and one for each patch of it. Its numbers are
/// those of `Dinov2Model` and `Dinov2WithRegistersModel` in Hugging Face's transformers.
///
/// The weights are not part of this library. Meta publishes them under the Apache License 2.0, in two forms that [`load`](Self::load) reads:
///
/// | network | hidden size | Hugging Face, `model.safetensors` | Meta, `github.com/facebookresearch/dinov2` |
/// | --- | --- | --- | --- |
/// | ViT-S/14 | 384 | `facebook/dinov2-small` | `dinov2_vits14_pretrain.pth` |
/// | ViT-B/14 | 768 | `facebook/dinov2-base` | `dinov2_vitb14_pretrain.pth` |
/// | ViT-L/14 | 1024 | `facebook/dinov2-large` | `dinov2_vitl14_pretrain.pth` |
/// | ViT-g/14 | 1536 | `facebook/dinov2-giant` | `dinov2_vitg14_pretrain.pth` |
///
/// Each is also published with four register tokens (Darcet et al. 2023): `facebook/dinov2-with-registers-small`,
/// `dinov2_vits14_reg4_pretrain.pth`.
///
/// Pictures may have any size whose sides are multiples of the patch size. Positions are interpolated from those of 518×518 pixels,
/// bicubically, with antialiasing in networks with registers and without it in the others. (In the others, Meta's own code adds 0.1 to the
/// number of patches along each side, so its positions at other sizes differ a little from transformers'.) The network is for inference:
/// no gradient passes through it.
#[derive(Clone, Debug)]
pub struct DinoV2 {
    config: DinoV2Config,
    heads: usize,
    device: Device,
    patches: Conv2d,
    /// The class token with its position, and the registers, which have none: (1, 1 + registers, hidden).
    first: Tensor,
    /// The positions of patches: (hidden, grid, grid).
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl DinoV2 {
    /// Reads the weights of one of the published networks: `model.safetensors` of Hugging Face, or Meta's `.pth`. The shapes in the file
    /// tell the sizes. Half-precision weights become f32.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is damaged or holds another network: it names the first tensor
    /// that is missing or has another shape. [`Error::Argument`] if the hidden size is no multiple of 64: then use
    /// [`from_checkpoint`](Self::from_checkpoint).
    ///
    /// ```no_run
    /// use wavemesh::backbones::DinoV2;
    /// use wavemesh::prelude::*;
    /// let encoder = DinoV2::load("dinov2-small/model.safetensors", &Device::Cpu)?;
    /// let pixels = Tensor::zeros((1, 3, 224, 224), DType::F32, &Device::Cpu)?; // a black picture
    /// assert_eq!(encoder.context(&pixels)?.dims(), [1, 16 * 16, 384]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let weights = Checkpoint::open(path)?;
        Self::from_checkpoint(&weights, &DinoV2Config::of(&weights)?, device)
    }

    /// Like [`load`](Self::load), with a given configuration: for networks whose heads do not have 64 channels, and for files that hold
    /// several networks.
    ///
    /// # Errors
    /// [`Error::Format`] if a tensor is missing or does not fit `config`, [`Error::Argument`] for sizes that do not fit each other.
    ///
    /// ```
    /// use wavemesh::backbones::{DinoV2, DinoV2Config};
    /// use wavemesh::prelude::*;
    /// # let path = std::env::temp_dir().join("wavemesh-dinov2-example.safetensors");
    /// # let variables = VarMap::new();
    /// # let tiny = DinoV2Config::new().hidden_size(24).num_layers(1).num_heads(2).patch_size(4).grid_size(5);
    /// # DinoV2::new(&tiny, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// # variables.save(&path)?;
    /// let weights = Checkpoint::open(&path)?; // a network of hidden size 24
    /// assert!(DinoV2::load(&path, &Device::Cpu).is_err()); // how many heads?
    /// let encoder = DinoV2::from_checkpoint(&weights, &DinoV2Config::of(&weights)?.num_heads(2), &Device::Cpu)?;
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_checkpoint(weights: &Checkpoint, config: &DinoV2Config, device: &Device) -> Result<Self> {
        let weights = Weights::find(weights)?;
        Self::new(config, VarBuilder::from_backend(Box::new(weights), DType::F32, device.clone()))
    }

    /// Builds the network on parameters with the names of Meta's files (`patch_embed.proj.weight`, `blocks.0.attn.qkv.weight`, …).
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes that do not fit each other; parameters that `vb` does not have, or of another shape.
    ///
    /// ```
    /// use wavemesh::backbones::{DinoV2, DinoV2Config};
    /// use wavemesh::prelude::*;
    /// let tiny = DinoV2Config::new().hidden_size(64).num_layers(1).patch_size(4).grid_size(5);
    /// let encoder = DinoV2::new(&tiny, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
    /// assert_eq!(encoder.config(), &tiny);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: &DinoV2Config, vb: VarBuilder) -> Result<Self> {
        let heads = config.checked_heads()?;
        let DinoV2Config { hidden_size: width, patch_size, grid_size, num_registers, .. } = *config;
        let small = Init::Randn { mean: 0.0, stdev: 0.02 };
        let strided = Conv2dConfig { stride: patch_size, ..Default::default() };
        let patches = conv2d(3, width, patch_size, strided, vb.pp("patch_embed.proj"))?;
        let places = grid_size * grid_size;
        let positions = vb.get_with_hints((1, 1 + places, width), "pos_embed", small)?;
        let class = (vb.get_with_hints((1, 1, width), "cls_token", small)? + positions.narrow(1, 0, 1)?)?;
        let first = match num_registers {
            0 => class,
            count => Tensor::cat(&[class, vb.get_with_hints((1, count, width), "register_tokens", small)?], 1)?,
        };
        let positions = positions.narrow(1, 1, places)?.t()?.reshape((width, grid_size, grid_size))?;
        let blocks = (0..config.num_layers).map(|at| Block::new(config, heads, vb.pp("blocks").pp(at)));
        Ok(Self {
            config: config.clone(),
            heads,
            device: vb.device().clone(),
            patches,
            first,
            positions,
            blocks: blocks.collect::<Result<_>>()?,
            norm: layer_norm(width, block::EPS, vb.pp("norm"))?,
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &DinoV2Config {
        &self.config
    }

    /// The last hidden state, after the last normalisation: (batch, 1 + registers + patches, hidden). The first token stands for the whole
    /// picture; patches come row by row.
    ///
    /// `pixels` is (batch, 3, height, width), red, green and blue, normalised: `(x - mean) / deviation` of ImageNet, as
    /// [`context`](Self::context) does. Sides are multiples of the patch size.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape, [`Error::DType`] unless `pixels` is of floats, [`Error::Device`] if it is on another device,
    /// [`Error::Memory`] if so many patches do not fit, [`Error::Interrupted`] if it was stopped.
    ///
    /// ```
    /// use wavemesh::backbones::{DinoV2, DinoV2Config};
    /// use wavemesh::prelude::*;
    /// let tiny = DinoV2Config::new().hidden_size(64).num_layers(1).patch_size(4).grid_size(5).num_registers(2);
    /// let encoder = DinoV2::new(&tiny, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
    /// let pixels = Tensor::randn(0f32, 1.0, (1, 3, 8, 12), &Device::Cpu)?;
    /// assert_eq!(encoder.forward(&pixels)?.dims(), [1, 1 + 2 + 2 * 3, 64]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        self.check("DinoV2::forward", pixels)?;
        self.run(pixels)
    }

    /// The patches of pictures as a context: (batch, patches, hidden), row by row. It is what [`forward`](Self::forward) returns for the
    /// normalised pictures, without the first tokens.
    ///
    /// `pixels` is (batch, 3, height, width), red, green and blue in 0..1; [`resize_picture`] makes one from a picture of any size. Sides are
    /// multiples of the patch size; the published networks were trained with 224 and 518 pixels.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), and [`Error::Argument`] for a pixel outside 0..1.
    ///
    /// ```
    /// use wavemesh::backbones::{DinoV2, DinoV2Config, resize_picture};
    /// use wavemesh::prelude::*;
    /// let tiny = DinoV2Config::new().hidden_size(64).num_layers(1).patch_size(4).grid_size(5);
    /// let encoder = DinoV2::new(&tiny, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
    /// // A picture of depths, in grey.
    /// let ball = shapes::sphere(0.5).to_grid(16)?.depth_image(Viewpoint { azimuth: 0.0, elevation: 20.0 }, 64)?;
    /// let grey = Tensor::from_slice(ball.pixels(), (1, 1, 64, 64), &Device::Cpu)?.repeat((1, 3, 1, 1))?;
    /// assert_eq!(encoder.context(&resize_picture(&grey, [20, 20])?)?.dims(), [1, 5 * 5, 64]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn context(&self, pixels: &Tensor) -> Result<Tensor> {
        const OP: &str = "DinoV2::context";
        let [rows, columns] = self.check(OP, pixels)?;
        let pixels = pixels.to_dtype(DType::F32)?;
        for extreme in [pixels.min_all()?, pixels.max_all()?] {
            let pixel = extreme.to_scalar::<f32>()?;
            if !(0.0..=1.0).contains(&pixel) {
                return Err(Error::argument(OP, "a pixel", pixel, "0 to 1; divide bytes by 255"));
            }
        }
        let colours = |values: [f32; 3]| Tensor::new(&values, &self.device)?.reshape((1, 3, 1, 1));
        let normalised = pixels.broadcast_sub(&colours(MEAN)?)?.broadcast_div(&colours(DEVIATION)?)?;
        let patches = rows * columns;
        Ok(self.run(&normalised)?.narrow(1, self.first.dim(1)?, patches)?.contiguous()?)
    }

    /// Rows and columns of patches, if `pixels` can be read.
    fn check(&self, op: &'static str, pixels: &Tensor) -> Result<[usize; 2]> {
        let patch = self.config.patch_size;
        let fits = |side: usize| side > 0 && side.is_multiple_of(patch);
        let (batch, [height, width]) = match *pixels.dims() {
            [batch, 3, height, width] if batch > 0 && fits(height) && fits(width) => (batch, [height, width]),
            _ => {
                let expected = format!(
                    "(batch, 3, height, width), with sides that are multiples of the patch size {patch}; resize_picture changes sizes"
                );
                return Err(Error::Shape { op, what: "pixels", got: pixels.dims().to_vec(), expected });
            }
        };
        check_floats(op, pixels)?;
        if !pixels.device().same_device(&self.device) {
            let [got, expected] = [pixels.device(), &self.device].map(Device::location);
            return Err(Error::Device { op, what: "pixels", got, other: "the network", expected });
        }
        let [rows, columns] = [height / patch, width / patch];
        if self.device.is_cpu() {
            let tokens = self.first.dim(1)? + rows * columns;
            // The scores of an attention, and their softmax.
            memory::elements::<f32>(op, "attention", &[batch, self.heads, tokens, tokens], size_of::<f32>())?;
        }
        Ok([rows, columns])
    }

    fn run(&self, pixels: &Tensor) -> Result<Tensor> {
        let x = self.patches.forward(&pixels.to_dtype(DType::F32)?.contiguous()?)?; // (batch, hidden, rows, columns)
        let (batch, _, rows, columns) = x.dims4()?;
        let x = x.broadcast_add(&self.positions([rows, columns])?)?.flatten_from(2)?.transpose(1, 2)?;
        let first = self.first.repeat((batch, 1, 1))?;
        let mut x = Tensor::cat(&[first, x.contiguous()?], 1)?; // (batch, tokens, hidden)
        for block in &self.blocks {
            check_interrupt()?;
            x = block.forward(&x)?;
        }
        Ok(self.norm.forward(&x)?.detach())
    }

    /// The positions of patches in rows and columns: (hidden, rows, columns).
    fn positions(&self, shape: [usize; 2]) -> Result<Tensor> {
        let detail = if self.config.num_registers > 0 { Detail::Smoothed } else { Detail::Aliased };
        if shape == [self.config.grid_size; 2] {
            return Ok(self.positions.clone());
        }
        resize(&self.positions, shape, detail)
    }
}
