//! [`WaveMeshUNet`]: encoder, decoder and output convolution, put together.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

use super::config::UNetConfig;
use super::context::ContextEncoder;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::layers::ConvLayer;
use super::modulation::Modulation;
use super::parameters::{self, SeededInit, is_buffer};
use super::part::Part;
use super::run::Run;
use super::summary::ModelSummary;
use super::time_embedding::TimeEmbedding;
use crate::diffusion::Denoiser;
use crate::sparse::{AllReduce, SparseConvTensor};
use crate::{Error, Result};

/// An input for a network: a sparse tensor, or a dense (batch, C, z, y, x) tensor whose non-zero cells are the sites.
pub trait AsSparse {
    /// The input as a sparse tensor.
    ///
    /// # Errors
    /// A tensor, timesteps or a context that do not fit the network.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::unet::AsSparse;
    /// let dense = Tensor::new(&[0f32, 3.0], &Device::Cpu)?.reshape((1, 1, 1, 1, 2))?; // batch, C, z, y, x
    /// assert_eq!(dense.as_sparse()?.coords(), [[0, 0, 0, 1]]);
    /// # Ok::<(), Error>(())
    /// ```
    fn as_sparse(&self) -> Result<Cow<'_, SparseConvTensor>>;
}

impl AsSparse for SparseConvTensor {
    fn as_sparse(&self) -> Result<Cow<'_, SparseConvTensor>> {
        Ok(Cow::Borrowed(self))
    }
}

impl AsSparse for Tensor {
    fn as_sparse(&self) -> Result<Cow<'_, SparseConvTensor>> {
        if self.rank() != 5 {
            return Err(Error::Shape {
                op: "WaveMeshUNet::forward",
                what: "the dense input",
                got: self.dims().to_vec(),
                expected: "(batch, C, z, y, x)".into(),
            });
        }
        Ok(Cow::Owned(SparseConvTensor::from_dense(&self.permute((0, 2, 3, 4, 1))?.contiguous()?)?))
    }
}

/// A U-Net over the sites of a sparse tensor. Its further inputs are the diffusion timestep and, if it is built for one, a context.
///
/// Output sites are the input sites, in their order.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wavemesh::sparse::SparseConvTensor;
/// use wavemesh::unet::{UNetConfig, WaveMeshUNet};
/// # fn main() -> wavemesh::Result<()> {
/// let device = Device::Cpu;
/// let unet = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &device)?;
/// assert_eq!(unet.num_parameters(), 5_977);
/// let sites = Tensor::new(&[[0i64, 1, 2, 3], [0, 1, 2, 4]], &device)?; // batch, z, y, x
/// let x = SparseConvTensor::new(Tensor::ones((2, 1), candle_core::DType::F32, &device)?, sites, [8, 8, 8], 1)?;
/// let y = unet.forward(&x, &Tensor::new(&[500f32], &device)?, None)?;
/// assert_eq!(y.features().dims(), [2, 1]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct WaveMeshUNet {
    config: UNetConfig,
    device: Device,
    time: TimeEmbedding,
    encoder: Encoder,
    decoder: Decoder,
    /// The modulations after each block of the encoder and of the decoder; may be empty.
    modulations: [Vec<Modulation>; 2],
    context: ContextEncoder,
    output_conv: ConvLayer,
    /// Every tensor by name, in the order of construction.
    entries: Vec<(String, Var)>,
    dropout_seed: AtomicU64,
    first_element: AtomicUsize,
}

impl WaveMeshUNet {
    /// Builds the network with the parameters of `vb` (for their names see the module's documentation of checkpoints).
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration that contradicts itself; an error for parameters that are missing or have another shape.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let network = WaveMeshUNet::new(&UNetConfig::plain(1, 1, &[4, 8]), vb.pp("unet"))?;
    /// assert!(variables.data().lock().unwrap().keys().all(|name| name.starts_with("unet.")));
    /// assert_eq!(network.num_parameters(), 5_977);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: &UNetConfig, vb: VarBuilder) -> Result<Self> {
        config.validate()?;
        let device = vb.device().clone();
        let root = vb.prefix();
        let (parts, entries) = parameters::record(vb, |vb| {
            let channels = &config.encoder_channels;
            let time = TimeEmbedding::new(config.time_emb_dim, channels[0], vb.pp("time_mlp"))?;
            let encoder = Encoder::new(config, vb.pp("encoder"))?;
            let decoder = Decoder::new(config, vb.pp("decoder"))?;
            let last = config.decoder_channels[config.decoder_channels.len() - 1];
            let output_conv = ConvLayer::submanifold([last, config.out_channels], 1, true, None, vb.pp("output_conv"))?;
            let modulation = |part: &'static str, channels: &[usize]| {
                let vb = vb.pp("modulation").pp(part);
                let levels = channels.iter().skip(1).filter(|_| config.modulation).enumerate();
                levels
                    .map(|(at, &channels)| Modulation::new(config.encoder_channels[0], channels, vb.pp(at)))
                    .collect::<Result<Vec<_>>>()
            };
            let modulations = [modulation("encoder", channels)?, modulation("decoder", &config.decoder_channels)?];
            let context = ContextEncoder::new(config, vb.pp("context"))?;
            Ok((time, encoder, decoder, modulations, context, output_conv))
        })
        .map_err(|error| name_the_root(error, &root))?;
        let (time, encoder, decoder, modulations, context, output_conv) = parts;
        let (dropout_seed, first_element) = (AtomicU64::new(0), AtomicUsize::new(0));
        Ok(Self {
            config: config.clone(),
            device,
            time,
            encoder,
            decoder,
            modulations,
            context,
            output_conv,
            entries,
            dropout_seed,
            first_element,
        })
    }

    /// Builds the network with initial parameters that depend only on `seed`, with PyTorch's distributions.
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration that contradicts itself.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let first = |seed| -> wavemesh::Result<f32> {
    ///     let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), seed, &Device::Cpu)?;
    ///     Ok(network.state()[0].1.flatten_all()?.get(0)?.to_scalar()?)
    /// };
    /// assert_eq!(first(1)?, first(1)?);
    /// assert_ne!(first(1)?, first(2)?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn seeded(config: &UNetConfig, seed: u64, device: &Device) -> Result<Self> {
        let init: Box<dyn SimpleBackend> = Box::new(SeededInit { seed });
        Self::new(config, VarBuilder::new_with_args(init, DType::F32, device))
    }

    /// The configuration with which it was built.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The device of its parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Switches gradient checkpointing on or off.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.config.gradient_checkpointing = on;
    }

    /// Fixes the dropout masks of later training passes. Each pass increases the seed by one.
    pub fn set_dropout_seed(&self, seed: u64) {
        self.set_dropout_part(seed, 0);
    }

    /// The same if later batches are parts of larger ones: their first element is element `first` there, and each element gets the mask
    /// that it has in the larger batch.
    pub fn set_dropout_part(&self, seed: u64, first: usize) {
        self.dropout_seed.store(seed, Ordering::Relaxed);
        self.first_element.store(first, Ordering::Relaxed);
    }

    /// Makes every batch normalisation take its training statistics over `group` from now on: see
    /// [`SparseModule::convert_sync_batchnorm`](crate::sparse::SparseModule::convert_sync_batchnorm).
    pub fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        self.encoder.input_conv.convert_sync_batchnorm(group);
        self.encoder.blocks.iter().for_each(|block| block.convert_sync_batchnorm(group));
        self.decoder.levels.iter().for_each(|level| level.block.convert_sync_batchnorm(group));
    }

    /// Every tensor of the network by name, parameters and running statistics, in a fixed order.
    pub fn state(&self) -> &[(String, Var)] {
        &self.entries
    }

    /// The trainable tensors by name, in a fixed order.
    pub fn parameters(&self) -> impl Iterator<Item = &(String, Var)> {
        self.entries.iter().filter(|(name, _)| !is_buffer(name))
    }

    /// Takes every tensor that `other` has under the same name and with the same shape, and returns the names of the rest, which stay as
    /// they are. So a training can go on from a smaller network.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let config = UNetConfig::plain(1, 1, &[4, 8]);
    /// let small = WaveMeshUNet::seeded(&config, 1, &Device::Cpu)?;
    /// let told = config.use_attention(true).num_heads(2).context_dim(3).attention_residual(true);
    /// let larger = WaveMeshUNet::seeded(&told, 2, &Device::Cpu)?;
    /// let new = larger.start_from(&small)?;
    /// assert!(new.iter().all(|name| name.starts_with("decoder.attention_blocks.") || name.starts_with("context.")));
    /// let x = Tensor::ones((1, 1, 4, 4, 4), DType::F32, &Device::Cpu)?; // batch, C, z, y, x
    /// let [context, t] = [Tensor::ones((1, 5, 3), DType::F32, &Device::Cpu)?, Tensor::new(&[9f32], &Device::Cpu)?];
    /// let [before, after] = [small.forward(&x, &t, None)?, larger.forward(&x, &t, Some(&context))?];
    /// assert_eq!(before.features().to_vec2::<f32>()?, after.features().to_vec2::<f32>()?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn start_from(&self, other: &Self) -> Result<Vec<String>> {
        let mut rest = Vec::new();
        for (name, var) in &self.entries {
            let same = other.entries.iter().find(|(known, value)| known == name && value.dims() == var.dims());
            match same {
                Some((_, value)) => var.set(&value.as_detached_tensor().to_device(&self.device)?)?,
                None => rest.push(name.clone()),
            }
        }
        Ok(rest)
    }

    /// The number of trainable numbers.
    pub fn num_parameters(&self) -> usize {
        self.parameters().map(|(_, var)| var.elem_count()).sum()
    }

    /// The output for `x` in evaluation mode: features (N, out_channels) on the sites of `x`.
    ///
    /// - `x`: a [`SparseConvTensor`] with `in_channels` channels, or a dense (batch, C, z, y, x) tensor.
    /// - `timesteps`: (batch,), any number type.
    /// - `context`: (batch, views, context_dim), or `None` to leave attention out. With `attention_residual`, an element whose rows are all
    ///   zero is left out too.
    ///
    /// # Errors
    /// [`Error::Shape`] for channels, timesteps or context that do not fit, [`Error::Argument`] for a configuration whose
    /// decoder does not mirror its encoder, or for a context without attention.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 2, &[4, 8]), 0, &Device::Cpu)?;
    /// let dense = Tensor::ones((1, 1, 2, 2, 2), DType::F32, &Device::Cpu)?; // batch, C, z, y, x
    /// let y = network.forward(&dense, &Tensor::new(&[10u32], &Device::Cpu)?, None)?;
    /// assert_eq!((y.len(), y.channels()), (8, 2));
    /// assert!(network.forward(&dense, &Tensor::new(&[10u32, 20], &Device::Cpu)?, None).is_err()); // two timesteps for one element
    /// # Ok::<(), Error>(())
    /// ```
    pub fn forward(&self, x: &impl AsSparse, timesteps: &Tensor, context: Option<&Tensor>) -> Result<SparseConvTensor> {
        self.forward_t(x, timesteps, context, false)
    }

    /// Like [`forward`](Self::forward); `train` switches batch statistics and dropout on.
    ///
    /// # Errors
    /// The errors of [`forward`](Self::forward).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let x = Tensor::ones((1, 1, 4, 4, 4), DType::F32, &Device::Cpu)?; // batch, C, z, y, x
    /// let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &Device::Cpu)?;
    /// let y = network.forward_t(&x, &Tensor::new(&[10u32], &Device::Cpu)?, None, true)?;
    /// let gradients = y.features().sqr()?.sum_all()?.backward()?;
    /// assert!(network.parameters().all(|(_, parameter)| gradients.get(parameter).is_some()));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn forward_t(
        &self,
        x: &impl AsSparse,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        train: bool,
    ) -> Result<SparseConvTensor> {
        self.pass(x.as_sparse()?.as_ref(), timesteps, context, &self.mode(train, true))
    }

    fn mode(&self, train: bool, tape: bool) -> Run {
        Run {
            train,
            tape,
            checkpoint: self.config.gradient_checkpointing,
            precision: self.config.precision,
            dropout_seed: if train { self.dropout_seed.fetch_add(1, Ordering::Relaxed) } else { 0 },
            first_element: self.first_element.load(Ordering::Relaxed),
            watch: None,
        }
    }

    /// Layers, output sites and channels, parameters, mult-adds and memory of a forward pass over `x`.
    ///
    /// # Errors
    /// The errors of [`forward`](Self::forward).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &Device::Cpu)?;
    /// println!("{}", network.summary(&x)?); // a row for each layer: sites, channels, parameters, multiplications
    /// # Ok::<(), Error>(())
    /// ```
    pub fn summary(&self, x: &impl AsSparse) -> Result<ModelSummary> {
        let x = x.as_sparse()?;
        let watch = Some(RefCell::default());
        let run = Run { precision: self.config.precision, watch, ..Run::default() };
        let timesteps = Tensor::zeros(x.batch_size(), DType::F32, &self.device)?;
        let context = if self.config.use_attention {
            Some(Tensor::zeros((x.batch_size(), 1, self.config.context_dim), DType::F32, &self.device)?)
        } else {
            None
        };
        self.pass(x.as_ref(), &timesteps, context.as_ref(), &run)?;
        Ok(ModelSummary {
            layers: run.watch.map(RefCell::into_inner).unwrap_or_default(),
            parameters: self.num_parameters(),
            parameter_bytes: self.entries.iter().map(|(_, v)| v.elem_count() * v.dtype().size_in_bytes()).sum(),
            input: [x.len(), x.channels()],
        })
    }

    fn pass(
        &self,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        run: &Run,
    ) -> Result<SparseConvTensor> {
        self.check_input(x, timesteps, context)?;
        let time = self.time.forward(timesteps)?; // (batch, c0)
        let context = context.map(|context| self.context.forward(context, x.batch_size())).transpose()?;
        let time = match context.as_ref().and_then(|context| context.summary.as_ref()) {
            Some(summary) => (time + summary)?,
            None => time,
        };
        let mut h = self.encoder.input_conv.run(x, Some(&time), run)?;

        let [on_the_way_down, on_the_way_up] = &self.modulations;
        let modulated = |h: SparseConvTensor, modulation: Option<&Modulation>| match modulation {
            Some(modulation) => modulation.forward(&h, &time, run),
            None => Ok(h),
        };
        let mut skips = Vec::with_capacity(self.encoder.blocks.len());
        for (at, block) in self.encoder.blocks.iter().enumerate() {
            let deeper = modulated(block.run(&h, None, run)?, on_the_way_down.get(at))?;
            skips.push(std::mem::replace(&mut h, deeper));
        }
        for (at, level) in self.decoder.levels.iter().enumerate() {
            let finer = level.run(&h, skips.pop().as_ref().map(SparseConvTensor::features), run)?;
            h = modulated(finer, on_the_way_up.get(at))?;
            if let (Some(attention), Some(context)) = (&level.attention, &context) {
                h = attention.forward(&h, context, run)?;
            }
        }
        self.output_conv.forward(&h, None, DType::F32, run)
    }

    fn check_input(&self, x: &SparseConvTensor, timesteps: &Tensor, context: Option<&Tensor>) -> Result<()> {
        let op = "WaveMeshUNet::forward";
        self.config.check_runnable()?;
        if x.channels() != self.config.in_channels {
            let expected = format!("(sites, {}): in_channels of the network", self.config.in_channels);
            return Err(Error::Shape { op, what: "features", got: x.features().dims().to_vec(), expected });
        }
        for (what, device) in [("x", x.device()), ("timesteps", timesteps.device())] {
            if !device.same_device(&self.device) {
                let [got, expected] = [device, &self.device].map(Device::location);
                return Err(Error::Device { op, what, got, other: "the network", expected });
            }
        }
        if timesteps.dims() != [x.batch_size()] {
            let expected = format!("({},): one timestep for each batch element", x.batch_size());
            return Err(Error::Shape { op, what: "timesteps", got: timesteps.dims().to_vec(), expected });
        }
        if let Some(context) = context.filter(|_| !self.config.use_attention) {
            return Err(Error::Argument {
                op,
                name: "context",
                got: format!("{:?}", context.dims()),
                expected: "none: this network was built with use_attention: false".into(),
            });
        }
        Ok(())
    }
}

/// Like [`forward_t`](WaveMeshUNet::forward_t), but records gradients only for training, which takes less memory otherwise.
impl Denoiser for WaveMeshUNet {
    fn predict(
        &self,
        x: &SparseConvTensor,
        timesteps: &Tensor,
        context: Option<&Tensor>,
        train: bool,
    ) -> Result<SparseConvTensor> {
        self.pass(x, timesteps, context, &self.mode(train, train))
    }
}

/// Parameters are named from the network's own root; an error should name the root too.
fn name_the_root(error: Error, root: &str) -> Error {
    match error {
        Error::Candle(inner) if !root.is_empty() => Error::Candle(inner.context(format!("under `{root}`"))),
        other => other,
    }
}
