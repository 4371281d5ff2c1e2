//! [`BatchNorm`]: batch normalisation over the active sites.
//!
//! `y = (x − mean) / sqrt(var + eps) · weight + bias`, per channel over all N rows of all batch elements, as `torch.nn.BatchNorm1d` on
//! `features` (Ioffe & Szegedy 2015). Training uses the batch's mean and biased variance, and moves the running mean and the running
//! unbiased variance towards those of the batch by `momentum`. Evaluation uses the running ones.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Tensor, Var};
use candle_nn::{BatchNormConfig, Init, VarBuilder};

use super::in_one::ParameterGradient;
use super::module::{LayerDescription, SparseModule};
use super::normalize::{Moments, Normalize, Scaling, Sums, stacked, wide_type};
use super::segment::Keep;
use super::sync::{AllReduce, Group};
use super::tape;
use super::tensor::SparseConvTensor;
use crate::sync::lock;
use crate::{Error, Result, memory};

/// Batch normalisation of features (N, C).
///
/// Parameters: `weight`, `bias`, `running_mean`, `running_var`, each (C,). Statistics are computed in f32 or better whatever
/// the features' type.
///
/// ```
/// use wavemesh::prelude::*;
/// let features = Tensor::new(&[[1f32], [3.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [2; 3], 1)?;
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let norm = BatchNorm::with_config(1, BatchNormConfig { eps: 0.0, momentum: 0.5, ..Default::default() }, vb)?;
/// // In training the mean 2 and the variance 1 of the batch count, and the running ones go half the way towards them.
/// assert_eq!(norm.forward_t(&x, true)?.features().to_vec2::<f32>()?, [[-1.0], [1.0]]);
/// assert_eq!(norm.running_mean().to_vec1::<f32>()?, [1.0]);
/// assert_eq!(norm.running_var().to_vec1::<f32>()?, [1.5]); // halfway from 1 to 2: the unbiased variance, as in PyTorch
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("BatchNorm1d", "MinkowskiBatchNorm"))]
#[derive(Clone, Debug)]
pub struct BatchNorm {
    name: String,
    weight_and_bias: Option<(Tensor, Tensor)>,
    running_mean: Var,
    running_var: Var,
    /// Locked while the running statistics are read, moved and written, so that batches of several threads all count.
    moving: Arc<Mutex<()>>,
    /// The group with which it shares its batches; all copies have the same.
    group: Arc<Mutex<Option<Group>>>,
    config: BatchNormConfig,
}

impl BatchNorm {
    /// A layer for `channels` channels with eps 1e-5, momentum 0.1, and learned scale and shift.
    ///
    /// # Errors
    /// The same errors as [`with_config`](Self::with_config).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// assert_eq!(BatchNorm::new(6, vb.pp("norm"))?.channels(), 6);
    /// assert_eq!(variables.data().lock().unwrap()["norm.running_var"].to_vec1::<f32>()?, [1.0; 6]);
    /// assert!(BatchNorm::new(0, vb).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Self::with_config(channels, BatchNormConfig::default(), vb)
    }

    /// A layer with its own eps or momentum, or without scale and shift.
    ///
    /// # Errors
    /// No channels or more than memory holds, an eps that is negative or not finite, a momentum outside 0 to 1, or `remove_mean: false`,
    /// which PyTorch does not have.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let plain = BatchNormConfig { affine: false, ..Default::default() };
    /// assert_eq!(BatchNorm::with_config(6, plain, vb.clone())?.describe().parameters, 0);
    /// let wrong = BatchNormConfig { eps: f64::NAN, ..Default::default() };
    /// assert!(BatchNorm::with_config(6, wrong, vb).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_config(channels: usize, config: BatchNormConfig, vb: VarBuilder) -> Result<Self> {
        const OP: &str = "BatchNorm";
        if channels == 0 {
            return Err(Error::argument(OP, "channels", 0, "1 or more"));
        }
        let momentum_fits = (0.0..=1.0).contains(&config.momentum);
        if !(config.eps.is_finite() && config.eps >= 0.0 && momentum_fits && config.remove_mean) {
            let expected = "an eps of 0 or more, a momentum of 0 to 1, and remove_mean true";
            return Err(Error::argument(OP, "config", format!("{config:?}"), expected));
        }
        memory::elements::<f32>(OP, "a parameter", &[channels], 4 * size_of::<f32>())?;
        let get = |name, value| vb.get_with_hints(channels, name, Init::Const(value));
        Ok(Self {
            name: vb.prefix(),
            weight_and_bias: if config.affine { Some((get("weight", 1.0)?, get("bias", 0.0)?)) } else { None },
            running_mean: Var::from_tensor(&get("running_mean", 0.0)?)?,
            running_var: Var::from_tensor(&get("running_var", 1.0)?)?,
            moving: Arc::default(),
            group: Arc::default(),
            config,
        })
    }

    /// Number of channels C.
    pub fn channels(&self) -> usize {
        self.running_mean.dims()[0]
    }

    /// Running mean (C,).
    pub fn running_mean(&self) -> &Tensor {
        &self.running_mean
    }

    /// Running variance (C,).
    pub fn running_var(&self) -> &Tensor {
        &self.running_var
    }

    /// Its place in the network.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Weight and bias, if it has them.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.weight_and_bias.iter().flat_map(|(weight, bias)| [weight, bias])
    }

    /// Moves the running statistics towards those of a batch of `rows` rows.
    fn follow(&self, batch: &Moments, rows: f64) -> Result<()> {
        let momentum = self.config.momentum;
        let unbiased = rows / (rows - 1.0);
        let _moving = lock(&self.moving);
        for (running, batch, scale) in
            [(&self.running_mean, &batch.mean, 1.0), (&self.running_var, &batch.variance, unbiased)]
        {
            let old = running.as_detached_tensor().to_dtype(DType::F64)?;
            let moved = ((old * (1.0 - momentum))? + ((batch * scale)? * momentum)?)?;
            running.set(&moved.to_dtype(running.dtype())?)?;
        }
        Ok(())
    }

    fn check(&self, x: &SparseConvTensor) -> Result<()> {
        if x.channels() != self.channels() {
            return Err(Error::Shape {
                op: "BatchNorm",
                what: "features",
                got: x.features().dims().to_vec(),
                expected: format!("(sites, {}) in layer `{}`", self.channels(), self.name),
            });
        }
        if !x.device().same_device(self.running_mean.device()) {
            return Err(Error::Device {
                op: "BatchNorm",
                what: "x",
                got: x.device().location(),
                other: "its parameters",
                expected: self.running_mean.device().location(),
            });
        }
        Ok(())
    }

    fn scaling(&self, x: &SparseConvTensor, mode: Mode) -> Result<Arc<Scaling>> {
        self.check(x)?;
        let group = lock(&self.group).clone().filter(|_| mode != Mode::Running);
        #[cfg(feature = "cuda")]
        if group.is_none() && x.device().is_cuda() && self.running_mean.dtype() == DType::F32 {
            return Ok(Arc::new(self.scaling_there(x, mode)?));
        }
        let own = if mode == Mode::Running || x.is_empty() { None } else { Some(Moments::of(x.features())?) };
        let (moments, rows) = match &group {
            Some(Group(group)) => Moments::of_all(own, x, self.channels(), &**group)?,
            None => (own, x.len() as f64),
        };
        let moments = match moments {
            Some(moments) => {
                self.check_rows(rows)?;
                if mode == Mode::Batch {
                    self.follow(&moments, rows)?;
                }
                moments
            }
            None => {
                let values = |v: &Var| v.as_detached_tensor().to_dtype(DType::F64);
                Moments { mean: values(&self.running_mean)?, variance: values(&self.running_var)? }
            }
        };
        let scaling = Scaling::new(moments, self.config.eps, mode != Mode::Running)?;
        Ok(Arc::new(match group {
            Some(group) => scaling.shared(group, x.len() as f64 / rows.max(1.0)),
            None => scaling,
        }))
    }

    /// The same on a GPU without a group: statistics, running statistics and the scaling take two launches.
    #[cfg(feature = "cuda")]
    fn scaling_there(&self, x: &SparseConvTensor, mode: Mode) -> Result<Scaling> {
        use crate::gpu::columns::{Running, batch_scaling, running_scaling};
        let (mean, variance) = (self.running_mean.as_tensor(), self.running_var.as_tensor());
        let BatchNormConfig { eps, momentum, .. } = self.config;
        if mode == Mode::Running || x.is_empty() {
            return Ok(Scaling::there(running_scaling(mean, variance, eps)?, mode != Mode::Running));
        }
        self.check_rows(x.len() as f64)?;
        let _moving = lock(&self.moving);
        let running = (mode == Mode::Batch).then_some(Running { mean, variance, momentum });
        Ok(Scaling::there(batch_scaling(x.features(), eps, running)?, true))
    }

    /// Checks that the batch has more than one row: one row has no variance.
    fn check_rows(&self, rows: f64) -> Result<()> {
        if rows != 1.0 {
            return Ok(());
        }
        let got = format!("one site in training mode, in layer `{}`", self.name);
        Err(Error::argument("BatchNorm", "x", got, "two or more: one value has no variance"))
    }

    /// Weight and bias, each (C,).
    fn affine(&self, dtype: DType) -> Result<[Tensor; 2]> {
        Ok(match &self.weight_and_bias {
            Some((weight, bias)) => [weight.to_dtype(dtype)?, bias.to_dtype(dtype)?],
            None => {
                let (channels, device) = (self.channels(), self.running_mean.device());
                [Tensor::ones(channels, dtype, device)?, Tensor::zeros(channels, dtype, device)?]
            }
        })
    }

    /// `relu(norm(x) + shortcut)` as one operation, which keeps only its inputs and its output for the backward pass.
    pub(crate) fn relu_t(&self, x: &SparseConvTensor, shortcut: Shortcut, train: bool) -> Result<SparseConvTensor> {
        self.fuse(x, shortcut, true, Mode::of(train), x.dtype())?.forward()
    }

    /// `relu(norm(x) + shortcut)` in f32 over a batch, inside a segment.
    pub(crate) fn over_batch<'a>(
        &'a self,
        x: &'a SparseConvTensor,
        shortcut: Shortcut<'a>,
        keep: Keep,
    ) -> Result<Fused<'a>> {
        self.fuse(x, shortcut, true, if keep.again { Mode::BatchAgain } else { Mode::of(true) }, DType::F32)
    }

    /// `y = relu(norm(x) + shortcut)` with type `output`, as one operation that is ready to run.
    pub(crate) fn fuse<'a>(
        &'a self,
        x: &'a SparseConvTensor,
        shortcut: Shortcut<'a>,
        relu: bool,
        mode: Mode,
        output: DType,
    ) -> Result<Fused<'a>> {
        let wide = wide_type(x.dtype());
        let main = self.scaling(x, mode)?;
        let mut parameters = self.affine(wide)?.to_vec();
        let mut norms = vec![self];
        let (shortcut, second) = match shortcut {
            Shortcut::None => (None, None),
            Shortcut::Plain(other) => (Some(other.features().to_dtype(x.dtype())?), None),
            Shortcut::Normed(norm, other) => {
                parameters.extend(norm.affine(wide)?);
                norms.push(norm);
                (Some(other.features().clone()), Some(norm.scaling(other, mode)?))
            }
        };
        let op = Normalize { x: main, shortcut: second, relu, output };
        Ok(Fused { op, x, shortcut, parameters: stacked(&parameters)?, norms })
    }
}

/// Which mean and variance are used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The running statistics.
    Running,
    /// Those of the batch; the running statistics follow them.
    Batch,
    /// Those of a batch that the running statistics have followed already: a repeated forward pass.
    BatchAgain,
}

impl Mode {
    /// The mode of a layer's pass.
    fn of(train: bool) -> Self {
        match (train, tape::is_again()) {
            (false, _) => Self::Running,
            (true, false) => Self::Batch,
            (true, true) => Self::BatchAgain,
        }
    }
}

/// What is added to the normalised features: the other end of a residual connection.
#[derive(Clone, Copy)]
pub(crate) enum Shortcut<'a> {
    None,
    /// The features of this tensor.
    Plain(&'a SparseConvTensor),
    /// The normalised features of this tensor.
    Normed(&'a BatchNorm, &'a SparseConvTensor),
}

/// A normalisation of given features, with its shortcut and activation.
pub(crate) struct Fused<'a> {
    op: Normalize,
    x: &'a SparseConvTensor,
    shortcut: Option<Tensor>,
    parameters: Tensor,
    norms: Vec<&'a BatchNorm>,
}

impl Fused<'_> {
    /// Runs the operation, differentiably.
    pub fn forward(&self) -> Result<SparseConvTensor> {
        let y = self.op.clone().apply(self.x.features(), self.shortcut.as_ref(), &self.parameters)?;
        self.x.replace_feature(y)
    }

    /// What its backward pass needs besides the output, rounded to `dtype`. The normalised inputs are rounded, so it does not matter how
    /// far the inputs lie from zero.
    pub fn kept(&self, dtype: DType) -> Result<KeptNorm> {
        let inputs = (self.x.features(), self.shortcut.as_ref());
        let (op, x, shortcut) = self.op.kept(inputs, &self.parameters, dtype)?;
        let norms = self.norms.iter().map(|&norm| norm.clone()).collect();
        Ok(KeptNorm { op, x: self.x.replace_feature(x)?, shortcut, parameters: self.parameters.detach(), norms })
    }
}

/// What the backward pass of a normalisation needs.
pub(crate) struct KeptNorm {
    op: Normalize,
    x: SparseConvTensor,
    shortcut: Option<Tensor>,
    parameters: Tensor,
    norms: Vec<BatchNorm>,
}

impl KeptNorm {
    /// The output of a normalisation without shortcut, computed again and rounded to the type that is kept.
    pub fn output(&self) -> Result<SparseConvTensor> {
        let op = Normalize { output: self.x.dtype(), ..self.op.clone() };
        self.x.replace_feature(op.apply(self.x.features(), None, &self.parameters)?)
    }

    /// The gradients of x, and of weights and biases (each with its parameter), from the output and its gradient. Also returns what the
    /// gradient of the shortcut needs, which can be computed later.
    pub fn backward(self, outcome: (&Tensor, &Tensor)) -> Result<(Tensor, Vec<ParameterGradient>, KeptShortcut)> {
        let Self { op, x, shortcut, parameters, norms } = self;
        let (x_grad, sums) = op.gradient((x.features(), shortcut.as_ref()), &parameters, outcome)?;
        let rows = op.parameter_gradient(&parameters, &sums)?;
        let mut found = Vec::new();
        for (i, norm) in norms.iter().enumerate() {
            if let Some((weight, bias)) = &norm.weight_and_bias {
                for (row, parameter) in [(2 * i, weight), (2 * i + 1, bias)] {
                    found.push((parameter.clone(), rows.get(row)?.to_dtype(parameter.dtype())?));
                }
            }
        }
        Ok((x_grad, found, KeptShortcut { op, shortcut, parameters, sums }))
    }
}

/// What the gradient of a normalisation's shortcut still needs.
pub(crate) struct KeptShortcut {
    op: Normalize,
    shortcut: Option<Tensor>,
    parameters: Tensor,
    sums: Sums,
}

impl KeptShortcut {
    /// The gradient of the shortcut, from the output and its gradient.
    pub fn backward(self, outcome: (&Tensor, &Tensor)) -> Result<Tensor> {
        let shortcut = self.shortcut.as_ref().unwrap_or(outcome.0);
        self.op.shortcut_gradient(shortcut, &self.parameters, outcome, &self.sums)
    }
}

impl SparseModule for BatchNorm {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        self.fuse(x, Shortcut::None, false, Mode::of(train), x.dtype())?.forward()
    }

    fn describe(&self) -> LayerDescription {
        let parameters = if self.weight_and_bias.is_some() { 2 * self.channels() } else { 0 };
        LayerDescription { kind: format!("BatchNorm({})", self.channels()), parameters }
    }

    fn convert_sync_batchnorm(&self, group: &Arc<dyn AllReduce>) {
        *lock(&self.group) = Some(Group(group.clone()));
    }
}
