//! [`SparseMaxPool3d`] and [`SparseAvgPool3d`]: pooling over the active sites of a window, as in spconv.

use candle_core::Tensor;

use super::backend::{Engine, Flow};
use super::conv::{Maker, map_for};
use super::geometry::{Geometry, Kind, OutputSites, Size3};
use super::module::{LayerDescription, SparseModule};
use super::tensor::SparseConvTensor;
use crate::Result;

/// Options of the pooling layers. Triples are (z, y, x).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Step between windows; `None` (the default) for the kernel's size, so that windows do not overlap.
    pub stride: Option<[usize; 3]>,
    /// Cells added around the grid. Default 0.
    pub padding: [usize; 3],
    /// Distance of neighbouring cells of a window. Default 1.
    pub dilation: [usize; 3],
    /// The name under which an inverse convolution finds this layer's kernel map. Default none.
    pub indice_key: Option<String>,
    /// Which output sites the layer has. Default [`OutputSites::Reachable`].
    pub output_sites: OutputSites,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { stride: None, padding: [0; 3], dilation: [1; 3], indice_key: None, output_sites: OutputSites::default() }
    }
}

setters! {
    PoolConfig {
        stride(stride: impl Into<Size3>) => stride = Some(stride.into().0);
        padding(padding: impl Into<Size3>) => padding = padding.into().0;
        dilation(dilation: impl Into<Size3>) => dilation = dilation.into().0;
        key(key: impl Into<String>) => indice_key = Some(key.into());
        output_sites(output_sites: OutputSites) => output_sites = output_sites;
    }
}

#[derive(Clone, Debug)]
struct Pool {
    geometry: Geometry,
    maker: Maker,
}

impl Pool {
    fn new(layer: &'static str, kernel: Size3, config: PoolConfig) -> Result<Self> {
        let PoolConfig { stride, padding, dilation, indice_key, output_sites } = config;
        let kernel = kernel.0;
        let stride = stride.unwrap_or(kernel);
        let geometry =
            Geometry { kind: Kind::Regular, kernel, stride, padding, dilation, output_sites }.checked(layer)?;
        let description =
            format!("{layer}(kernel {kernel:?}, stride {stride:?}, padding {padding:?}, dilation {dilation:?})");
        Ok(Self { geometry, maker: Maker { layer, description: description.into(), indice_key } })
    }

    fn forward(
        &self,
        x: &SparseConvTensor,
        pool: impl FnOnce(&dyn Engine, &Flow, &Tensor) -> Result<Tensor>,
    ) -> Result<SparseConvTensor> {
        let backend = x.backend()?;
        let map = map_for(&self.maker, self.geometry, x, backend)?;
        let features = pool(backend.engine()?, &Flow::forward(&map), x.features())?;
        Ok(x.next(features, &map.target, self.maker.entry(&map)))
    }
}

/// The largest value of each window's active sites, channel by channel: spconv's `SparseMaxPool3d`. Tied sites all receive
/// the gradient.
#[derive(Clone, Debug)]
pub struct SparseMaxPool3d(Pool);

impl SparseMaxPool3d {
    /// A layer with windows of `kernel` (one size, `[z, y, x]` or `(z, y, x)`).
    ///
    /// # Errors
    /// Sizes out of range.
    pub fn new(kernel: impl Into<Size3>, config: PoolConfig) -> Result<Self> {
        Pool::new("SparseMaxPool3d", kernel.into(), config).map(Self)
    }
}

impl SparseModule for SparseMaxPool3d {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.0.forward(x, |engine, flow, features| engine.max_pool(flow, features))
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: self.0.maker.description.to_string(), parameters: 0 }
    }
}

/// The mean of each window's active sites, channel by channel: spconv's `SparseAvgPool3d`. Empty cells do not count.
#[derive(Clone, Debug)]
pub struct SparseAvgPool3d(Pool);

impl SparseAvgPool3d {
    /// A layer with windows of `kernel` (one size, `[z, y, x]` or `(z, y, x)`).
    ///
    /// # Errors
    /// Sizes out of range.
    pub fn new(kernel: impl Into<Size3>, config: PoolConfig) -> Result<Self> {
        Pool::new("SparseAvgPool3d", kernel.into(), config).map(Self)
    }
}

impl SparseModule for SparseAvgPool3d {
    fn forward_t(&self, x: &SparseConvTensor, _train: bool) -> Result<SparseConvTensor> {
        self.0.forward(x, |engine, flow, features| engine.avg_pool(flow, features))
    }

    fn describe(&self) -> LayerDescription {
        LayerDescription { kind: self.0.maker.description.to_string(), parameters: 0 }
    }
}
