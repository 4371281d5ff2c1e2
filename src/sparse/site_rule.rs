//! [`SiteRule`]: lets your own layer change sites as WaveMesh's layers do.

use std::sync::Arc;

use candle_core::Tensor;

use super::conv::{Conv, ConvConfig, Maker};
use super::geometry::{Geometry, Kind, Size3};
use super::kernel_map::KernelMap;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// How a layer changes sites: its kind, kernel, stride and so on, and the `indice_key` under which it shares its kernel map.
///
/// A layer of your own holds one. It can run a convolution with any weight ([`convolve`](Self::convolve)); or it can ask for the
/// [`map`](Self::map), compute with its [pairs](KernelMap::pairs), and put the results on the map's output sites
/// ([`output`](Self::output)).
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::{ConvKind, SiteRule};
/// /// Halves the grid; each site is the sum of the sites that it stands for.
/// struct SumPool(SiteRule);
///
/// impl SparseModule for SumPool {
///     fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> wavemesh::Result<SparseConvTensor> {
///         let map = self.0.map(x)?;
///         let mut sum = Tensor::zeros((map.output_coords().len(), x.channels()), x.dtype(), x.device())?;
///         for offset in 0..map.kernel_volume() {
///             let pairs = map.pairs(offset); // (row of the input, row of the output)
///             if !pairs.is_empty() {
///                 let from = Tensor::from_iter(pairs.iter().map(|pair| pair.0 as u32), x.device())?;
///                 let to = Tensor::from_iter(pairs.iter().map(|pair| pair.1 as u32), x.device())?;
///                 sum = sum.index_add(&to, &x.features().index_select(&from, 0)?, 0)?;
///             }
///         }
///         self.0.output(x, &map, sum)
///     }
/// }
///
/// let halves = SiteRule::new("SumPool", ConvKind::Regular, 2, ConvConfig::new().stride(2).key("half"))?;
/// let features = Tensor::new(&[[1f32], [2.0], [4.0]], &Device::Cpu)?;
/// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 1, 1], [0, 2, 2, 2]], [4; 3], 1)?;
/// let y = SumPool(halves).forward(&x)?;
/// assert_eq!(y.coords(), [[0, 0, 0, 0], [0, 1, 1, 1]]);
/// assert_eq!(y.features().to_vec2::<f32>()?, [[3.0], [4.0]]);
/// assert!(y.indice_dict().contains_key("half")); // an inverse convolution finds it
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SiteRule {
    geometry: Geometry,
    maker: Maker,
}

impl SiteRule {
    /// The rule for a layer that errors call `layer`. `kernel` is one size, `[z, y, x]` or `(z, y, x)`; `bias` of `config` is ignored.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes out of range, or an even kernel of a submanifold layer.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::{ConvKind, SiteRule};
    /// assert!(SiteRule::new("Halve", ConvKind::Regular, 2, ConvConfig::new().stride(2)).is_ok());
    /// assert!(SiteRule::new("Keep", ConvKind::Submanifold, 2, ConvConfig::new()).is_err()); // an even kernel has no middle
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(layer: &'static str, kind: Kind, kernel: impl Into<Size3>, config: ConvConfig) -> Result<Self> {
        let ConvConfig { stride, padding, dilation, indice_key, output_sites, .. } = config;
        let kernel = kernel.into().0;
        let geometry = Geometry { kind, kernel, stride, padding, dilation, output_sites }.checked(layer)?;
        let description: Arc<str> =
            format!("{layer}(kernel {kernel:?}, stride {:?}, padding {:?})", geometry.stride, geometry.padding).into();
        Ok(Self { geometry, maker: Maker { layer, description, indice_key } })
    }

    /// The kernel map on the sites of `x`: the one under the key if an earlier layer made it, otherwise a new one.
    ///
    /// # Errors
    /// [`Error::IndiceKey`] if the key belongs to another geometry or other sites.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::{ConvKind, SiteRule};
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let halve = SiteRule::new("Halve", ConvKind::Regular, (1, 1, 2), ConvConfig::new().stride((1, 1, 2)))?;
    /// let map = halve.map(&x)?;
    /// assert_eq!(map.output_coords(), [[0, 0, 0, 0]]);
    /// assert_eq!([map.pairs(0), map.pairs(1)], [&[(0, 0)], &[(1, 0)]]); // both sites go there, each through its own weight
    /// # Ok::<(), Error>(())
    /// ```
    pub fn map(&self, x: &SparseConvTensor) -> Result<KernelMap> {
        super::conv::built_map(&self.maker, self.geometry, x)
    }

    /// The output of a layer on `x`: `features` on the output sites of `map`, with the kernel maps of `x` and this one.
    ///
    /// # Errors
    /// [`Error::Shape`] if `features` does not have one row for each output site.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::{ConvKind, SiteRule};
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let halve = SiteRule::new("Halve", ConvKind::Regular, (1, 1, 2), ConvConfig::new().stride((1, 1, 2)).key("half"))?;
    /// let map = halve.map(&x)?;
    /// let y = halve.output(&x, &map, Tensor::new(&[[3f32]], &Device::Cpu)?)?;
    /// assert!(y.coords() == map.output_coords() && y.indice_dict().contains_key("half"));
    /// assert!(halve.output(&x, &map, x.features().clone()).is_err()); // two rows for one site
    /// # Ok::<(), Error>(())
    /// ```
    pub fn output(&self, x: &SparseConvTensor, map: &KernelMap, features: Tensor) -> Result<SparseConvTensor> {
        if features.rank() != 2 || features.dims()[0] != map.target.len() {
            return Err(Error::Shape {
                op: self.maker.layer,
                what: "features",
                got: features.dims().to_vec(),
                expected: format!("({}, channels): a row for each output site", map.target.len()),
            });
        }
        Ok(x.next(features, &map.target, self.maker.entry(map)))
    }

    /// A convolution with any `weight` (out, kz, ky, kx, in) and `bias` (out,), on this tensor's backend. Differentiable in all three.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weight has another kernel, or other channels than `x`; and the errors of [`map`](Self::map).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::{ConvKind, SiteRule};
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let halve = SiteRule::new("Halve", ConvKind::Regular, (1, 1, 2), ConvConfig::new().stride((1, 1, 2)))?;
    /// let weight = Tensor::new(&[10f32, 100.0], &Device::Cpu)?.reshape((1, 1, 1, 2, 1))?; // out, kz, ky, kx, in
    /// let y = halve.convolve(&x, &weight, None)?;
    /// assert_eq!(y.features().to_vec2::<f32>()?, [[10.0 * 1.0 + 100.0 * 2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn convolve(&self, x: &SparseConvTensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<SparseConvTensor> {
        self.conv(weight, bias)?.forward(x, x.dtype())
    }

    /// Like [`convolve`](Self::convolve), but undoes the change of sites of an earlier layer with this key: from its output sites to its
    /// input sites, as [`SparseInverseConv3d`](super::SparseInverseConv3d) does.
    ///
    /// # Errors
    /// [`Error::Argument`] if no layer made the key; and the errors of [`convolve`](Self::convolve).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::{ConvKind, SiteRule};
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let halve = SiteRule::new("Halve", ConvKind::Regular, (1, 1, 2), ConvConfig::new().stride((1, 1, 2)).key("half"))?;
    /// let weight = Tensor::new(&[10f32, 100.0], &Device::Cpu)?.reshape((1, 1, 1, 2, 1))?; // out, kz, ky, kx, in
    /// let low = halve.convolve(&x, &weight, None)?; // 210
    /// let y = halve.convolve_back(&low, &weight, None)?;
    /// assert!(y.same_sites(&x));
    /// assert_eq!(y.features().to_vec2::<f32>()?, [[10.0 * 210.0], [100.0 * 210.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn convolve_back(
        &self,
        x: &SparseConvTensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<SparseConvTensor> {
        self.conv(weight, bias)?.invert(x, x.dtype())
    }

    fn conv(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Conv> {
        let [kz, ky, kx] = self.geometry.kernel;
        let wrong = |what, got: &Tensor, expected: String| {
            Err(Error::Shape { op: self.maker.layer, what, got: got.dims().to_vec(), expected })
        };
        let outputs = match *weight.dims() {
            [outputs, z, y, x, _] if [z, y, x] == self.geometry.kernel => outputs,
            _ => return wrong("the weight", weight, format!("(out, {kz}, {ky}, {kx}, in)")),
        };
        if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
            return wrong("the bias", bias, format!("({outputs},)"));
        }
        let (weight, bias) = (weight.clone(), bias.cloned());
        let taps = weight.clone();
        Ok(Conv { weight, taps, bias, geometry: self.geometry, maker: self.maker.clone(), _note: None })
    }
}
