//! [`SparseConvTensor`]: features on the occupied sites of a grid, as in spconv.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::backend::Backend;
use super::grid::{Grid, GridShape};
use super::input::{check_features, read_indices};
use super::kernel_map::{IndiceData, IndiceDict};
use super::sites::Sites;
use super::tape::noted;
use crate::{Error, Result, memory};

/// A batch of sparse 3D grids: N occupied sites with C features each.
///
/// Clones are cheap: they share features, sites and kernel maps. No operation changes a tensor in place.
///
/// ```
/// use wavemesh::prelude::*;
/// # fn main() -> wavemesh::Result<()> {
/// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?; // (N, C)
/// let indices = Tensor::new(&[[0i64, 0, 1, 2], [0, 3, 3, 3]], &Device::Cpu)?; // (N, 4): batch, z, y, x
/// let x = SparseConvTensor::new(features, indices, [4, 4, 4], 1)?;
/// assert_eq!((x.len(), x.channels()), (2, 1));
/// assert_eq!(x.dense()?.dims(), [1, 1, 4, 4, 4]); // (batch, C, z, y, x)
/// # Ok(()) }
/// ```
#[doc(alias = "SparseTensor")]
#[derive(Clone)]
pub struct SparseConvTensor {
    features: Tensor,
    sites: Arc<Sites>,
    indice_dict: Arc<IndiceDict>,
    /// The backend chosen for layers that run on this tensor, if any.
    backend: Option<Backend>,
    /// The keys that an operation dropped because it changed the sites of their maps, each with the operation.
    dropped: Arc<BTreeMap<String, &'static str>>,
}

impl SparseConvTensor {
    /// A tensor with `features` on the sites `indices` of `batch_size` grids of `spatial_shape`: `[z, y, x]`, or `[y, x]` or `[x]` for 2-D
    /// and 1-D layers.
    ///
    /// - `features`: (N, C), float; N may be 0.
    /// - `indices`: (N, 4) of `i64`, `i32` or `u32`, rows (batch, z, y, x), in any order; (N, 3) and (N, 2) for 2-D and 1-D. Batch
    ///   elements without sites are allowed.
    ///
    /// # Errors
    /// A shape or dtype that does not fit, features and indices on different devices, a site outside the grid, or a site that occurs twice
    /// (see [`coalesce`](Self::coalesce)).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?; // two sites, two channels
    /// let sites = Tensor::new(&[[0i64, 3, 2, 1], [0, 0, 0, 0]], &Device::Cpu)?; // batch, z, y, x
    /// let x = SparseConvTensor::new(features.clone(), sites, [4, 4, 4], 1)?;
    /// assert_eq!((x.len(), x.channels(), x.find([0, 3, 2, 1])), (2, 2, Some(0)));
    /// let twice = Tensor::new(&[[0i64, 3, 2, 1], [0, 3, 2, 1]], &Device::Cpu)?;
    /// assert!(SparseConvTensor::new(features, twice, [4, 4, 4], 1).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        features: Tensor,
        indices: Tensor,
        spatial_shape: impl Into<GridShape>,
        batch_size: usize,
    ) -> Result<Self> {
        const OP: &str = "SparseConvTensor::new";
        check_features(OP, &features, None)?;
        if !features.device().same_device(indices.device()) {
            return Err(Error::Device {
                op: OP,
                what: "indices",
                got: indices.device().location(),
                other: "the features",
                expected: features.device().location(),
            });
        }
        let grid = Grid::new(OP, batch_size, spatial_shape)?;
        let coords = read_indices(OP, &indices, grid)?;
        check_features(OP, &features, Some(coords.len()))?;
        Ok(Self::from_parts(features.contiguous()?, Arc::new(Sites::new(OP, grid, coords)?)))
    }

    /// Like [`new`](Self::new) from coordinates that are already in a `Vec`.
    ///
    /// # Errors
    /// The same errors as [`new`](Self::new).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [1, 3, 2, 1]], [4; 3], 2)?; // batch, z, y, x
    /// assert_eq!(x.coords(), [[0, 0, 0, 0], [1, 3, 2, 1]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_coords(
        features: Tensor,
        coords: Vec<[i32; 4]>,
        spatial_shape: [usize; 3],
        batch_size: usize,
    ) -> Result<Self> {
        const OP: &str = "SparseConvTensor::from_coords";
        check_features(OP, &features, Some(coords.len()))?;
        let sites = Sites::new(OP, Grid::new(OP, batch_size, spatial_shape)?, coords)?;
        Ok(Self::from_parts(features.contiguous()?, Arc::new(sites)))
    }

    pub(super) fn from_parts(features: Tensor, sites: Arc<Sites>) -> Self {
        Self { features: noted(features), sites, indice_dict: Arc::default(), dropped: Arc::default(), backend: None }
    }

    /// The result of `op` on other sites. Keys are dropped whose maps start or end at this tensor's sites.
    pub(super) fn moved(&self, op: &'static str, features: Tensor, sites: &Arc<Sites>) -> Self {
        let (mut indice_dict, mut dropped) = (self.indice_dict.clone(), self.dropped.clone());
        let stale = |data: &IndiceData| data.map.touches(&self.sites);
        if indice_dict.values().any(stale) {
            for key in indice_dict.iter().filter(|(_, data)| stale(data)).map(|(key, _)| key.clone()) {
                Arc::make_mut(&mut dropped).insert(key, op);
            }
            Arc::make_mut(&mut indice_dict).retain(|_, data| !stale(data));
        }
        Self { features: noted(features), sites: sites.clone(), indice_dict, dropped, backend: self.backend }
    }

    /// The operation that dropped a key, if any.
    pub(super) fn dropped_by(&self, key: &str) -> Option<&'static str> {
        self.dropped.get(key).copied()
    }

    /// Features (N, C), one row per site.
    pub fn features(&self) -> &Tensor {
        &self.features
    }

    /// Sites (batch, z, y, x), one per row.
    pub fn coords(&self) -> &[[i32; 4]] {
        self.sites.coords()
    }

    /// Sites as an `i64` tensor (N, 4) on the device of the features: batch, z, y, x; (N, 3) and (N, 2) for 2-D and 1-D.
    ///
    /// # Errors
    /// An error of candle about the device of the features.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.indices()?.to_vec2::<i64>()?, [[0, 0, 0, 0], [0, 0, 0, 1]]); // batch, z, y, x
    /// # Ok::<(), Error>(())
    /// ```
    pub fn indices(&self) -> Result<Tensor> {
        let axes = self.ndim();
        let flat =
            self.coords().iter().flat_map(|site| [&site[..1], &site[4 - axes..]].concat()).map(i64::from).collect();
        Ok(Tensor::from_vec(flat, (self.len(), 1 + axes), self.device())?)
    }

    /// The row of a site (batch, z, y, x); `None` if the site is empty or outside the grid.
    pub fn find(&self, site: [i32; 4]) -> Option<u32> {
        self.sites.find(site)
    }

    /// Number of sites N.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether there are no sites.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of channels C.
    pub fn channels(&self) -> usize {
        self.features.dims()[1]
    }

    /// Number of spatial axes: 3, or 2 or 1 for tensors of 2-D and 1-D layers.
    pub fn ndim(&self) -> usize {
        self.sites.grid().axes
    }

    /// Size of the grid (z, y, x); missing axes of a 2-D or 1-D tensor have size 1.
    pub fn spatial_shape(&self) -> [usize; 3] {
        self.sites.grid().shape
    }

    /// Number of batch elements, occupied or not.
    pub fn batch_size(&self) -> usize {
        self.sites.grid().batch
    }

    /// Device of the features.
    pub fn device(&self) -> &Device {
        self.features.device()
    }

    /// Element type of the features.
    pub fn dtype(&self) -> DType {
        self.features.dtype()
    }

    /// The share of cells that are occupied, 0 to 1.
    pub fn occupancy(&self) -> f64 {
        self.len() as f64 / self.sites.grid().cells() as f64
    }

    /// Number of sites of each batch element, (batch_size,).
    ///
    /// # Errors
    /// [`Error::Memory`] if the batch has more elements than fit in memory.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[2, 0, 0, 0], [2, 0, 0, 1]], [1, 1, 2], 3)?;
    /// assert_eq!(x.batch_counts()?, [0, 0, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn batch_counts(&self) -> Result<Vec<usize>> {
        let mut counts =
            vec![0; memory::elements::<usize>("SparseConvTensor::batch_counts", "a count", &[self.batch_size()], 0)?];
        for [b, ..] in self.coords() {
            counts[*b as usize] += 1;
        }
        Ok(counts)
    }

    /// The same tensor; `backend` computes the layers that run on it and on their results, on any thread.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::ones((1, 2), DType::F32, &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 1, 1, 1]], [3; 3], 1)?;
    /// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let layer = SubMConv3d::new(2, 4, 3, ConvConfig::new(), vb)?;
    /// let y = layer.forward(&x.on_backend(Backend::Dense))?; // and what comes after it
    /// assert_eq!(y.backend()?, Backend::Dense);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn on_backend(&self, backend: Backend) -> Self {
        Self { backend: Some(backend), ..self.clone() }
    }

    /// The backend for layers that run on this tensor: the one chosen [for it](Self::on_backend), otherwise that of the thread
    /// ([`with_backend`](super::with_backend)) or of the environment.
    ///
    /// # Errors
    /// [`Error::Unknown`] if `WAVEMESH_BACKEND` holds an unknown name.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.on_backend(Backend::Dense).backend()?, Backend::Dense);
    /// assert_eq!(with_backend(Backend::Native, || x.backend())?, Backend::Native);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn backend(&self) -> Result<Backend> {
        self.backend.map_or_else(|| Backend::for_device(self.device()), Ok)
    }

    /// The kernel maps, by `indice_key`, of the layers that made this tensor.
    pub fn indice_dict(&self) -> &IndiceDict {
        &self.indice_dict
    }

    pub(super) fn find_indice(&self, key: &str) -> Option<&IndiceData> {
        self.indice_dict.get(key)
    }

    pub(super) fn sites(&self) -> &Arc<Sites> {
        &self.sites
    }

    /// A value that depends on nothing but the sites; it is built at the first use, for all tensors with these sites.
    pub(crate) fn kept<T: Send + Sync + 'static>(&self, build: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        self.sites.kept().get_or_build(self.device().location(), false, build)
    }

    /// The same for a tensor on the device of the features; `Kind` tells it from others.
    pub(crate) fn kept_tensor<Kind: Send + Sync + 'static>(
        &self,
        build: impl Fn() -> Result<Tensor>,
    ) -> Result<Tensor> {
        struct Named<Kind>(Tensor, PhantomData<Kind>);
        let kept = self.kept(|| Ok(Named::<Kind>(build()?, PhantomData)))?;
        // One GPU may be opened as several devices.
        if kept.0.device().same_device(self.device()) { Ok(kept.0.clone()) } else { build() }
    }

    /// The sites in the form that kernels on the features' GPU read; they are copied there at the first use.
    #[cfg(feature = "cuda")]
    pub(crate) fn placed(&self) -> Result<Arc<super::backend::cuda::Placed>> {
        super::backend::cuda::placed(&crate::gpu::Gpu::of(&self.features)?, &self.sites)
    }

    /// A tensor with the same sites and kernel maps and other features (N, C'). This tensor does not change.
    ///
    /// # Errors
    /// Features that are not a float matrix with one row per site.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let y = x.replace_feature((x.features() * 10.0)?)?;
    /// assert_eq!(y.features().to_vec2::<f32>()?, [[10.0], [20.0]]);
    /// assert!(y.same_sites(&x));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn replace_feature(&self, features: Tensor) -> Result<Self> {
        check_features("SparseConvTensor::replace_feature", &features, Some(self.len()))?;
        Ok(Self { features: noted(features.contiguous()?), ..self.clone() })
    }

    /// A layer's output: new features on new sites, with this tensor's kernel maps and, if given, one more.
    pub(super) fn next(&self, features: Tensor, sites: &Arc<Sites>, key: Option<(&str, IndiceData)>) -> Self {
        let mut indice_dict = self.indice_dict.clone();
        if let Some((key, data)) = key
            && !indice_dict.contains_key(key)
        {
            Arc::make_mut(&mut indice_dict).insert(key.to_string(), data);
        }
        Self {
            features: noted(features),
            sites: sites.clone(),
            indice_dict,
            dropped: self.dropped.clone(),
            backend: self.backend,
        }
    }

    /// Whether `other` has the same sites in the same order on the same grid.
    pub fn same_sites(&self, other: &Self) -> bool {
        self.sites.same(&other.sites)
    }

    /// An error if the sites of the argument `name` differ; it says how.
    pub(crate) fn expect_same_sites(&self, op: &'static str, name: &'static str, other: &Self) -> Result<()> {
        if self.same_sites(other) {
            return Ok(());
        }
        Err(self.other_sites(op, name, other))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;

    use super::*;
    use crate::sparse::testing::{features, indices, message, tensor};

    #[test]
    fn replace_feature_leaves_the_original_alone() {
        let x = tensor(&[[0, 0, 0, 0], [0, 0, 0, 1]]);
        let before = x.features().to_vec2::<f32>().unwrap();
        let y = x.replace_feature(features(2, 7)).unwrap();
        assert_eq!((x.channels(), y.channels()), (2, 7));
        assert_eq!(x.features().to_vec2::<f32>().unwrap(), before);
        assert!(message(x.replace_feature(features(3, 2))).contains("(2, channels)"));
    }

    #[test]
    fn bad_input_is_named() {
        let build = |f: Tensor, i: Tensor| message(SparseConvTensor::new(f, i, [3, 4, 5], 2));
        let text = build(features(2, 1), indices(&[[0, 0, 0, 0], [0, 3, 0, 0]]));
        assert!(text.contains("[0, 3, 0, 0]") && text.contains("row 1") && text.contains("z in 0..3"), "{text}");
        let text = build(features(2, 1), indices(&[[1, 0, 0, 2], [1, 0, 0, 2]]));
        assert!(text.contains("row 0 and row 1") && text.contains("coalesce"), "{text}");
        assert!(build(features(3, 1), indices(&[[0; 4]; 2])).contains("[3, 1]"));
        assert!(build(features(1, 1), indices(&[[0, 0, 0, 1 << 40]])).contains("1099511627776"));
        assert!(build(features(1, 1), indices(&[[0; 4]]).to_dtype(DType::F32).unwrap()).contains("F32"));
        assert!(build(features(1, 1).to_dtype(DType::U8).unwrap(), indices(&[[0; 4]])).contains("U8"));
        assert!(build(features(1, 1), indices(&[[0; 4]]).i((.., 0..3)).unwrap()).contains("[1, 3]"));
        let no_cells = SparseConvTensor::new(features(1, 1), indices(&[[0; 4]]), [0, 4, 5], 2);
        assert!(message(no_cells).contains("spatial_shape"));
    }

    #[test]
    fn zero_sites_and_batch_gaps_are_fine() {
        let none = Tensor::zeros((0, 4), DType::I64, &Device::Cpu).unwrap();
        let x = SparseConvTensor::new(features(0, 3), none.clone(), [2, 2, 2], 3).unwrap();
        assert!(x.is_empty() && x.indices().unwrap().dims() == [0, 4]);
        assert_eq!(x.dense().unwrap().dims(), [3, 3, 2, 2, 2]);
        assert_eq!(SparseConvTensor::coalesce(&features(0, 3), &none, [2, 2, 2], 3).unwrap().len(), 0);
        assert_eq!(SparseConvTensor::from_dense(&x.dense_channels_last().unwrap()).unwrap().len(), 0);
        assert_eq!(x.sample_at_indices(&indices(&[[2, 1, 1, 1]])).unwrap().to_vec2::<f32>().unwrap(), [[0.0; 3]]);
        assert_eq!(tensor(&[[1, 0, 0, 0]]).batch_counts().unwrap(), [0, 1]);
    }

    #[test]
    fn tensors_on_other_sites_do_not_add() {
        let (a, b) = (tensor(&[[0, 1, 2, 3]]), tensor(&[[0, 1, 2, 2]]));
        assert!(a.add(&b).is_err() && a.cat_channels(&b).is_err());
        assert_eq!(a.add(&a).unwrap().features().to_vec2::<f32>().unwrap(), [[0.0, 2.0]]);
        assert_eq!(a.cat_channels(&a).unwrap().channels(), 4);
    }
}
