//! [`SparseMaxPool3d`] and [`SparseAvgPool3d`]: pooling over the active sites of a window, as in spconv.

use candle_core::Tensor;

use super::backend::{Convolve, Engine, Flow};
use super::conv::{Maker, map_for};
use super::elements::wide_of;
use super::geometry::{Geometry, Kind, OutputSites, Size, name_of, three};
use super::module::{LayerDescription, SparseModule};
use super::tensor::SparseConvTensor;
use crate::Result;

/// Options of the pooling layers. Triples are (z, y, x); those of 2-D layers are (y, x).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig<const N: usize = 3> {
    /// Step between windows. `None` (the default) stands for the kernel's size, so that windows do not overlap.
    pub stride: Option<[usize; N]>,
    /// Cells added around the grid. Default 0.
    pub padding: [usize; N],
    /// Distance between neighbouring cells of a window. Default 1.
    pub dilation: [usize; N],
    /// The name under which an inverse convolution finds this layer's kernel map. Default none.
    pub indice_key: Option<String>,
    /// Which output sites the layer has. Default [`OutputSites::Reachable`].
    pub output_sites: OutputSites,
    /// Whether the maximum includes zero for each window, as spconv's does (its pool begins at zero); for checkpoints trained in this way.
    /// Default false: a window of negative values gives the largest of them. An average ignores this.
    pub from_zero: bool,
}

impl<const N: usize> Default for PoolConfig<N> {
    fn default() -> Self {
        Self {
            stride: None,
            padding: [0; N],
            dilation: [1; N],
            indice_key: None,
            output_sites: OutputSites::default(),
            from_zero: false,
        }
    }
}

setters! {
    PoolConfig[const N] {
        stride(stride: impl Into<Size<N>>) => stride = Some(stride.into().0);
        padding(padding: impl Into<Size<N>>) => padding = padding.into().0;
        dilation(dilation: impl Into<Size<N>>) => dilation = dilation.into().0;
        key(key: impl Into<String>) => indice_key = Some(key.into());
        output_sites(output_sites: OutputSites) => output_sites = output_sites;
        from_zero(from_zero: bool) => from_zero = from_zero;
    }
}

#[derive(Clone, Debug)]
struct Pool {
    geometry: Geometry,
    maker: Maker,
    axes: usize,
    from_zero: bool,
}

impl Pool {
    fn new<const N: usize>(layer: &'static str, kernel: Size<N>, config: PoolConfig<N>) -> Result<Self> {
        let PoolConfig { stride, padding, dilation, indice_key, output_sites, from_zero } = config;
        let kernel = kernel.0;
        let stride = stride.unwrap_or(kernel);
        let geometry = Geometry {
            kind: Kind::Regular,
            kernel: three(kernel, 1),
            stride: three(stride, 1),
            padding: three(padding, 0),
            dilation: three(dilation, 1),
            output_sites,
        }
        .checked(layer)?;
        let description =
            format!("{layer}(kernel {kernel:?}, stride {stride:?}, padding {padding:?}, dilation {dilation:?})");
        let maker = Maker { layer, description: description.into(), indice_key };
        Ok(Self { geometry, maker, axes: N, from_zero })
    }

    fn forward(
        &self,
        x: &SparseConvTensor,
        pool: impl FnOnce(&dyn Engine, &Flow, &Tensor) -> Result<Tensor>,
    ) -> Result<SparseConvTensor> {
        self.maker.check_axes(self.axes, x)?;
        let backend = x.backend()?;
        let map = map_for(&self.maker, self.geometry, x, backend)?;
        let features = pool(backend.engine_on(x.device())?, &Flow::forward(&map), x.features())?;
        Ok(x.next(features, &map.target, self.maker.entry(&map)))
    }
}

/// The largest value of each window's active sites, channel by channel. Tied sites all receive the gradient.
///
/// spconv's `SparseMaxPool3d` returns the larger of this value and zero, which differs if all values of a window are negative.
/// [`PoolConfig::from_zero`] does the same.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseMaxPool1d;
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 2], [0, 3], [0, 4]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [3.0], [-4.0]], cpu)?, sites, [6], 1)?;
/// let y = SparseMaxPool1d::new(2, PoolConfig::new())?.forward(&x)?; // windows of cells 0 to 1, 2 to 3, 4 to 5
/// assert_eq!(y.features().to_vec2::<f32>()?, [[3.0], [-4.0]]);
/// assert_eq!(y.indices()?.to_vec2::<i64>()?, [[0, 1], [0, 2]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiMaxPooling")]
#[derive(Clone, Debug)]
pub struct SparseMaxPool<const N: usize>(Pool);

/// [`SparseMaxPool`] on 1-D tensors: spconv's `SparseMaxPool1d`.
pub type SparseMaxPool1d = SparseMaxPool<1>;

/// [`SparseMaxPool`] on 2-D tensors: spconv's `SparseMaxPool2d`.
pub type SparseMaxPool2d = SparseMaxPool<2>;

/// [`SparseMaxPool`] on 3-D tensors: spconv's `SparseMaxPool3d`.
pub type SparseMaxPool3d = SparseMaxPool<3>;

impl<const N: usize> SparseMaxPool<N> {
    /// A layer with windows of `kernel` (one size, `[z, y, x]` or `(z, y, x)`).
    ///
    /// # Errors
    /// Sizes out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let pool = SparseMaxPool3d::new([1, 1, 2], PoolConfig::new())?; // z, y, x
    /// assert_eq!(pool.forward(&x)?.features().to_vec2::<f32>()?, [[2.0]]);
    /// assert!(SparseMaxPool3d::new(0, PoolConfig::new()).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(kernel: impl Into<Size<N>>, config: PoolConfig<N>) -> Result<Self> {
        Pool::new(
            const { name_of::<N>(["SparseMaxPool1d", "SparseMaxPool2d", "SparseMaxPool3d"]) },
            kernel.into(),
            config,
        )
        .map(Self)
    }
}

impl<const N: usize> SparseModule for SparseMaxPool<N> {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.0.forward(x, |engine, flow, features| {
            let largest = engine.max_pool(flow, features)?;
            Ok(if self.0.from_zero { largest.relu()? } else { largest })
        })
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: self.0.maker.description.to_string(), parameters: 0 }
    }
}

/// The mean of each window's active sites, channel by channel: spconv's `SparseAvgPool3d`. Empty cells do not count.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseAvgPool1d;
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 2], [0, 3], [0, 4]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [3.0], [-4.0]], cpu)?, sites, [6], 1)?;
/// let y = SparseAvgPool1d::new(2, PoolConfig::new())?.forward(&x)?; // windows of cells 0 to 1, 2 to 3, 4 to 5
/// assert_eq!(y.features().to_vec2::<f32>()?, [[2.0], [-4.0]]);
/// assert_eq!(y.indices()?.to_vec2::<i64>()?, [[0, 1], [0, 2]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiAvgPooling")]
#[derive(Clone, Debug)]
pub struct SparseAvgPool<const N: usize>(Pool);

/// [`SparseAvgPool`] on 1-D tensors: spconv's `SparseAvgPool1d`.
pub type SparseAvgPool1d = SparseAvgPool<1>;

/// [`SparseAvgPool`] on 2-D tensors: spconv's `SparseAvgPool2d`.
pub type SparseAvgPool2d = SparseAvgPool<2>;

/// [`SparseAvgPool`] on 3-D tensors: spconv's `SparseAvgPool3d`.
pub type SparseAvgPool3d = SparseAvgPool<3>;

impl<const N: usize> SparseAvgPool<N> {
    /// A layer with windows of `kernel` (one size, `[z, y, x]` or `(z, y, x)`).
    ///
    /// # Errors
    /// Sizes out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let pool = SparseAvgPool3d::new([1, 1, 2], PoolConfig::new())?; // z, y, x
    /// assert_eq!(pool.forward(&x)?.features().to_vec2::<f32>()?, [[1.5]]);
    /// assert!(SparseAvgPool3d::new(0, PoolConfig::new()).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(kernel: impl Into<Size<N>>, config: PoolConfig<N>) -> Result<Self> {
        Pool::new(
            const { name_of::<N>(["SparseAvgPool1d", "SparseAvgPool2d", "SparseAvgPool3d"]) },
            kernel.into(),
            config,
        )
        .map(Self)
    }
}

impl<const N: usize> SparseModule for SparseAvgPool<N> {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.0.forward(x, |engine, flow, features| engine.avg_pool(flow, features))
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: self.0.maker.description.to_string(), parameters: 0 }
    }
}

/// The sum of each window's active sites, channel by channel: MinkowskiEngine's `MinkowskiSumPooling`.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::SparseSumPool1d;
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 2], [0, 3], [0, 4]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [3.0], [-4.0]], cpu)?, sites, [6], 1)?;
/// let y = SparseSumPool1d::new(2, PoolConfig::new())?.forward(&x)?; // windows of cells 0 to 1, 2 to 3, 4 to 5
/// assert_eq!(y.features().to_vec2::<f32>()?, [[4.0], [-4.0]]);
/// assert_eq!(y.indices()?.to_vec2::<i64>()?, [[0, 1], [0, 2]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiSumPooling")]
#[derive(Clone, Debug)]
pub struct SparseSumPool<const N: usize>(Pool);

/// [`SparseSumPool`] on 1-D tensors.
pub type SparseSumPool1d = SparseSumPool<1>;

/// [`SparseSumPool`] on 2-D tensors.
pub type SparseSumPool2d = SparseSumPool<2>;

/// [`SparseSumPool`] on 3-D tensors.
pub type SparseSumPool3d = SparseSumPool<3>;

impl<const N: usize> SparseSumPool<N> {
    /// A layer with windows of `kernel` (one size, `[z, y, x]` or `(z, y, x)`).
    ///
    /// # Errors
    /// Sizes out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::SparseSumPool3d;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let pool = SparseSumPool3d::new([1, 1, 2], PoolConfig::new())?; // z, y, x
    /// assert_eq!(pool.forward(&x)?.features().to_vec2::<f32>()?, [[3.0]]);
    /// assert!(SparseSumPool3d::new(0, PoolConfig::new()).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(kernel: impl Into<Size<N>>, config: PoolConfig<N>) -> Result<Self> {
        let name = const { name_of::<N>(["SparseSumPool1d", "SparseSumPool2d", "SparseSumPool3d"]) };
        Pool::new(name, kernel.into(), config).map(Self)
    }
}

impl<const N: usize> SparseModule for SparseSumPool<N> {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.0.forward(x, |engine, flow, features| {
            let counts = counts(engine, flow, self.0.geometry.kernel, features)?;
            let means = engine.avg_pool(flow, features)?.to_dtype(counts.dtype())?;
            Ok(means.broadcast_mul(&counts)?.to_dtype(features.dtype())?)
        })
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: self.0.maker.description.to_string(), parameters: 0 }
    }
}

/// How many sites each row of a flow's result reads, (rows, 1): a convolution of ones with ones.
fn counts(engine: &dyn Engine, flow: &Flow, [kz, ky, kx]: [usize; 3], features: &Tensor) -> Result<Tensor> {
    let (device, dtype) = (features.device(), wide_of(features.dtype()));
    let ones = Tensor::ones((features.dim(0)?, 1), dtype, device)?;
    let weight = Tensor::ones((1, kz, ky, kx, 1), dtype, device)?;
    engine.convolve(&Convolve { flow, weight: &weight, bias: None, beside: None, output: dtype }, &ones)
}

/// Undoes the change of sites of a strided pool or convolution: each of its input sites gets the mean of the windows that contained it (one
/// window, if windows do not overlap), or zeros if none did. MinkowskiEngine's `MinkowskiPoolingTranspose`, spconv's inverse without
/// weights.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::{SparseInversePool1d, SparseSumPool1d};
/// let cpu = &Device::Cpu;
/// let sites = Tensor::new(&[[0i64, 2], [0, 3], [0, 4]], cpu)?; // batch, x
/// let x = SparseConvTensor::new(Tensor::new(&[[1f32], [3.0], [-4.0]], cpu)?, sites, [6], 1)?;
/// let low = SparseSumPool1d::new(2, PoolConfig::new().key("pool"))?.forward(&x)?; // 4, -4
/// let y = SparseInversePool1d::new(2, "pool").forward(&low)?;
/// assert_eq!(y.features().to_vec2::<f32>()?, [[4.0], [4.0], [-4.0]]);
/// assert!(y.same_sites(&x));
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "MinkowskiPoolingTranspose")]
#[derive(Clone, Debug)]
pub struct SparseInversePool<const N: usize> {
    kernel: [usize; 3],
    maker: Maker,
}

/// [`SparseInversePool`] on 1-D tensors.
pub type SparseInversePool1d = SparseInversePool<1>;

/// [`SparseInversePool`] on 2-D tensors.
pub type SparseInversePool2d = SparseInversePool<2>;

/// [`SparseInversePool`] on 3-D tensors.
pub type SparseInversePool3d = SparseInversePool<3>;

impl<const N: usize> SparseInversePool<N> {
    /// A layer that inverts the one with `indice_key`, whose windows or kernel are `kernel`.
    pub fn new(kernel: impl Into<Size<N>>, indice_key: impl Into<String>) -> Self {
        let layer = const { name_of::<N>(["SparseInversePool1d", "SparseInversePool2d", "SparseInversePool3d"]) };
        let kernel = kernel.into().0;
        let description = format!("{layer}(kernel {kernel:?})").into();
        Self { kernel: three(kernel, 1), maker: Maker { layer, description, indice_key: Some(indice_key.into()) } }
    }
}

impl<const N: usize> SparseModule for SparseInversePool<N> {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.maker.check_axes(N, x)?;
        let flow = self.maker.invert_flow(self.kernel, x)?;
        let engine = x.backend()?.engine_on(x.device())?;
        let means = engine.avg_pool(&flow, x.features())?;
        // A site in no window has no mean.
        let held = counts(engine, &flow, self.kernel, x.features())?.gt(0.0)?.broadcast_as(means.shape())?;
        let features = held.where_cond(&means, &means.zeros_like()?)?;
        Ok(x.next(features, &flow.map.source, None))
    }
}
