//! [`GroupNorm`], [`InstanceNorm`] and [`LayerNorm`]: normalisations that keep the elements of a batch apart.
//!
//! `y = (x − mean) / sqrt(var + eps) · weight + bias`, with the mean and biased variance of a group of values. The group is some channels
//! of all sites of one batch element (Wu & He 2018), one channel of them (Ulyanov et al. 2016), or all channels of one site (Ba et al.
//! 2016). A batch element never sees another one's values, and no statistics are kept: training and evaluation are the same.

use candle_core::{D, Tensor};
use candle_nn::{Init, VarBuilder};

use super::elements::wide_of;
use super::layer_norm::layer_norm;
use super::module::{LayerDescription, SparseModule};
use super::scatter::Reduce;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// A learned scale and shift for each channel.
#[derive(Clone, Debug)]
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    fn new(channels: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
        })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.weight.to_dtype(x.dtype())?, self.bias.to_dtype(x.dtype())?);
        Ok(x.broadcast_mul(&weight)?.broadcast_add(&bias)?)
    }
}

/// Normalises groups of channels over all sites of each batch element: `torch.nn.GroupNorm` on each element's features, TRELLIS'
/// `SparseGroupNorm`.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::GroupNorm;
/// let features = Tensor::new(&[[1f32, 1.0], [3.0, 3.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [2; 3], 1)?;
/// let [weight, bias] = [Tensor::new(&[1f32, 10.0], &Device::Cpu)?, Tensor::new(&[0f32, 0.5], &Device::Cpu)?];
/// let parameters = [("weight".into(), weight), ("bias".into(), bias)].into();
/// let vb = VarBuilder::from_tensors(parameters, DType::F32, &Device::Cpu);
/// let y = GroupNorm::new(1, 2, 0.0, vb)?.forward(&x)?;
/// // One group of both channels: mean 2, variance 1.
/// assert_eq!(y.features().to_vec2::<f32>()?, [[-1.0, -10.0 + 0.5], [1.0, 10.0 + 0.5]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GroupNorm {
    groups: usize,
    channels: usize,
    eps: f64,
    affine: Option<Affine>,
}

impl GroupNorm {
    /// A layer for `channels` channels in `groups` equal groups, with `weight` and `bias` (channels,). PyTorch's eps is 1e-5.
    ///
    /// # Errors
    /// Channels that cannot be divided into the groups, a negative eps, or parameters of another shape in `vb`.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::GroupNorm;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// assert_eq!(GroupNorm::new(2, 6, 1e-5, vb.clone())?.describe().parameters, 12); // a weight and a bias for each channel
    /// assert!(GroupNorm::new(4, 6, 1e-5, vb).is_err()); // 6 channels are no 4 equal groups
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(groups: usize, channels: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let norm = Self::plain("GroupNorm", groups, channels, eps)?;
        Ok(Self { affine: Some(Affine::new(channels, &vb)?), ..norm })
    }

    fn plain(op: &'static str, groups: usize, channels: usize, eps: f64) -> Result<Self> {
        if groups == 0 || channels == 0 || !channels.is_multiple_of(groups) || eps.is_nan() || eps < 0.0 {
            return Err(Error::Argument {
                op,
                name: "groups",
                got: format!("{groups} groups of {channels} channels with eps {eps}"),
                expected: "a number of channels that the groups divide, and an eps of 0 or more".into(),
            });
        }
        Ok(Self { groups, channels, eps, affine: None })
    }

    fn parameters(&self) -> usize {
        if self.affine.is_some() { 2 * self.channels } else { 0 }
    }

    fn normalize(&self, op: &'static str, x: &SparseConvTensor) -> Result<SparseConvTensor> {
        if x.channels() != self.channels {
            let (got, expected) = (x.features().dims().to_vec(), format!("(sites, {})", self.channels));
            return Err(Error::Shape { op, what: "features", got, expected });
        }
        let features = x.features().to_dtype(wide_of(x.dtype()))?;
        let width = self.channels / self.groups;
        let sizes: Vec<f64> = x.batch_counts()?.iter().map(|&count| (count.max(1) * width) as f64).collect();
        let sizes = Tensor::from_vec(sizes, (x.batch_size(), 1), x.device())?.to_dtype(features.dtype())?;
        // The mean of each element's groups, repeated for each of its sites.
        let mean = |values: &Tensor| -> Result<Tensor> {
            let sums = x.reduce_elements(values, Reduce::Sum)?; // (batch, C)
            let sums = sums.reshape((x.batch_size(), self.groups, width))?.sum(D::Minus1)?; // (batch, groups)
            let means = x.broadcast_elements(&sums.broadcast_div(&sizes)?)?; // (sites, groups)
            let shape = (x.len(), self.groups, width);
            Ok(means.unsqueeze(2)?.broadcast_as(shape)?.reshape((x.len(), self.channels))?)
        };
        let centred = (&features - mean(&features)?)?;
        let y = (&centred / (mean(&centred.sqr()?)? + self.eps)?.sqrt()?)?;
        let y = self.affine.as_ref().map_or(Ok(y.clone()), |affine| affine.apply(&y))?;
        x.replace_feature(y.to_dtype(x.dtype())?)
    }
}

impl SparseModule for GroupNorm {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.normalize("GroupNorm", x)
    }

    fn describe(&self) -> LayerDescription {
        let kind = format!("GroupNorm({} groups of {} channels)", self.groups, self.channels / self.groups);
        LayerDescription { kind, parameters: self.parameters() }
    }
}

/// Normalises each channel over all sites of each batch element: `torch.nn.InstanceNorm1d`, MinkowskiEngine's `MinkowskiInstanceNorm`.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::InstanceNorm;
/// let features = Tensor::new(&[[1f32, 2.0], [3.0, 6.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [2; 3], 1)?;
/// let [weight, bias] = [Tensor::new(&[1f32, 10.0], &Device::Cpu)?, Tensor::new(&[0f32, 0.5], &Device::Cpu)?];
/// let parameters = [("weight".into(), weight), ("bias".into(), bias)].into();
/// let vb = VarBuilder::from_tensors(parameters, DType::F32, &Device::Cpu);
/// let y = InstanceNorm::new(2, 0.0, vb)?.forward(&x)?;
/// // Each channel by itself: means 2 and 4, deviations 1 and 2.
/// assert_eq!(y.features().to_vec2::<f32>()?, [[-1.0, -10.0 + 0.5], [1.0, 10.0 + 0.5]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiInstanceNorm")]
#[derive(Clone, Debug)]
pub struct InstanceNorm(GroupNorm);

impl InstanceNorm {
    /// A layer for `channels` channels, with `weight` and `bias` (channels,).
    ///
    /// # Errors
    /// The same errors as [`GroupNorm::new`].
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::InstanceNorm;
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// assert_eq!(InstanceNorm::new(6, 1e-5, vb.clone())?.describe().parameters, 12);
    /// assert!(InstanceNorm::new(6, -1.0, vb).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(channels: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        GroupNorm::new(channels, channels, eps, vb).map(Self)
    }

    /// A layer without scale and shift: PyTorch's default.
    ///
    /// # Errors
    /// No channels, or a negative eps.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::InstanceNorm;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let y = InstanceNorm::without_affine(1, 0.0)?.forward(&x)?;
    /// assert_eq!(y.features().to_vec2::<f32>()?, [[-1.0], [1.0]]); // mean 1.5, deviation 0.5
    /// # Ok::<(), Error>(())
    /// ```
    pub fn without_affine(channels: usize, eps: f64) -> Result<Self> {
        GroupNorm::plain("InstanceNorm", channels, channels, eps).map(Self)
    }
}

impl SparseModule for InstanceNorm {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.0.normalize("InstanceNorm", x)
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: format!("InstanceNorm({})", self.0.channels), parameters: self.0.parameters() }
    }
}

/// Normalises each site over its channels: `torch.nn.LayerNorm`.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::LayerNorm;
/// let features = Tensor::new(&[[1f32, 3.0], [6.0, 2.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [2; 3], 1)?;
/// let [weight, bias] = [Tensor::new(&[1f32, 10.0], &Device::Cpu)?, Tensor::new(&[0f32, 0.5], &Device::Cpu)?];
/// let parameters = [("weight".into(), weight), ("bias".into(), bias)].into();
/// let vb = VarBuilder::from_tensors(parameters, DType::F32, &Device::Cpu);
/// let y = LayerNorm::new(2, 0.0, vb)?.forward(&x)?;
/// // Each site by itself: means 2 and 4, deviations 1 and 2.
/// assert_eq!(y.features().to_vec2::<f32>()?, [[-1.0, 10.0 + 0.5], [1.0, -10.0 + 0.5]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    eps: f64,
    affine: Affine,
}

impl LayerNorm {
    /// A layer for `channels` channels, with `weight` and `bias` (channels,).
    ///
    /// # Errors
    /// Parameters of another shape in `vb`.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::LayerNorm;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// LayerNorm::new(6, 1e-5, vb.pp("norm"))?;
    /// assert_eq!(variables.data().lock().unwrap()["norm.weight"].to_vec1::<f32>()?, [1.0; 6]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(channels: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(Self { eps, affine: Affine::new(channels, &vb)? })
    }
}

impl SparseModule for LayerNorm {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        let channels = self.affine.weight.elem_count();
        if x.channels() != channels {
            let (got, expected) = (x.features().dims().to_vec(), format!("(sites, {channels})"));
            return Err(Error::Shape { op: "LayerNorm", what: "features", got, expected });
        }
        let features = x.features().to_dtype(wide_of(x.dtype()))?;
        let [weight, bias] = [&self.affine.weight, &self.affine.bias].map(|t| t.to_dtype(features.dtype()));
        x.replace_feature(layer_norm(&features, &weight?, &bias?, self.eps)?.to_dtype(x.dtype())?)
    }

    fn describe(&self) -> LayerDescription {
        let channels = self.affine.weight.elem_count();
        LayerDescription { kind: format!("LayerNorm({channels})"), parameters: 2 * channels }
    }
}
