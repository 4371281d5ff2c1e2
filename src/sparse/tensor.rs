//! [`SparseConvTensor`]: features on the occupied sites of a grid, as in spconv.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::backend::Backend;
use super::grid::{Grid, GridShape};
use super::kernel_map::{IndiceData, IndiceDict};
use super::sites::Sites;
use super::tape::noted;
use crate::{Error, Result, memory};

/// A batch of sparse 3D grids: N occupied sites with C features each.
///
/// Cheap to clone: features, sites and kernel maps are shared. Nothing changes a tensor in place.
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
#[derive(Clone)]
pub struct SparseConvTensor {
    features: Tensor,
    sites: Arc<Sites>,
    indice_dict: Arc<IndiceDict>,
    /// The backend of the layers that this tensor goes through, if one was chosen for it.
    backend: Option<Backend>,
    /// Keys that an operation dropped since their maps' sites are no longer these, and that operation.
    dropped: Arc<BTreeMap<String, &'static str>>,
}

impl SparseConvTensor {
    /// Puts `features` on the sites `indices` of `batch_size` grids of `spatial_shape`: `[z, y, x]`, or `[y, x]` or `[x]` for 2-D and
    /// 1-D layers.
    ///
    /// - `features`: (N, C), float; N may be 0.
    /// - `indices`: (N, 4) of `i64`, `i32` or `u32`, rows (batch, z, y, x), in any order; (N, 3) and (N, 2) for 2-D and 1-D. Batch
    ///   elements without sites are allowed.
    ///
    /// # Errors
    /// A shape or dtype that does not fit, features and indices on different devices, a site outside the grid, or one
    /// that occurs twice (see [`coalesce`](Self::coalesce)).
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
    /// As [`new`](Self::new).
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

    /// Like [`new`](Self::new), but rows of equal sites become one row with the sum of their features, as
    /// `torch.Tensor.coalesce` does. Sites come out in ascending (batch, z, y, x) order. Differentiable.
    ///
    /// # Errors
    /// As [`new`](Self::new), but for sites that are there twice.
    pub fn coalesce(
        features: &Tensor,
        indices: &Tensor,
        spatial_shape: impl Into<GridShape>,
        batch_size: usize,
    ) -> Result<Self> {
        const OP: &str = "SparseConvTensor::coalesce";
        let grid = Grid::new(OP, batch_size, spatial_shape)?;
        let coords = read_indices(OP, indices, grid)?;
        check_features(OP, features, Some(coords.len()))?;
        let mut unique = coords.clone();
        unique.sort_unstable();
        unique.dedup();
        let sites = Sites::new(OP, grid, unique)?;
        let rows: Vec<u32> = coords.iter().filter_map(|&site| sites.find(site)).collect();
        let rows = Tensor::from_vec(rows, coords.len(), features.device())?;
        let zeros = Tensor::zeros((sites.len(), features.dim(1)?), features.dtype(), features.device())?;
        let features = if coords.is_empty() { zeros } else { zeros.index_add(&rows, &features.contiguous()?, 0)? };
        Ok(Self::from_parts(features, Arc::new(sites)))
    }

    /// The sites of a dense tensor (batch, z, y, x, C) where any channel is not zero (NaN is not zero), in ascending order; of
    /// (batch, y, x, C) and (batch, x, C) for 2-D and 1-D. Differentiable.
    ///
    /// # Errors
    /// A tensor of another number of axes, or whose grid is too large to number its sites.
    pub fn from_dense(dense: &Tensor) -> Result<Self> {
        const OP: &str = "SparseConvTensor::from_dense";
        let (batch, shape, channels) = match *dense.dims() {
            [batch, d, h, w, channels] => (batch, GridShape::from([d, h, w]), channels),
            [batch, h, w, channels] => (batch, [h, w].into(), channels),
            [batch, w, channels] => (batch, [w].into(), channels),
            _ => {
                return Err(Error::Shape {
                    op: OP,
                    what: "dense",
                    got: dense.dims().to_vec(),
                    expected: "(batch, z, y, x, channels), or without z, or without z and y".into(),
                });
            }
        };
        let [d, h, w] = shape.shape;
        let rows = dense.reshape((batch * d * h * w, channels))?;
        check_features(OP, &rows, None)?;
        let grid = Grid::new(OP, batch, shape)?;
        if batch * d * h * w >= u32::MAX as usize {
            return Err(Error::Shape {
                op: OP,
                what: "dense",
                got: dense.dims().to_vec(),
                expected: format!("fewer than {} cells", u32::MAX),
            });
        }
        let occupied = rows.ne(&rows.zeros_like()?)?.to_dtype(DType::U8)?.to_device(&Device::Cpu)?;
        let occupied: Vec<u32> = occupied
            .to_vec2::<u8>()?
            .iter()
            .zip(0u32..)
            .filter_map(|(row, key)| row.iter().any(|&v| v != 0).then_some(key))
            .collect();
        let coords = occupied.iter().map(|&key| grid.unpack(key as u64)).collect();
        let sites = Sites::new(OP, grid, coords)?;
        let count = occupied.len();
        let features = rows.index_select(&Tensor::from_vec(occupied, count, dense.device())?, 0)?;
        Ok(Self::from_parts(features, Arc::new(sites)))
    }

    /// One batch of all the batch elements of `parts`, in order.
    ///
    /// # Errors
    /// No parts, or parts that differ in spatial shape, channels, dtype or device.
    pub fn cat_batch(parts: &[Self]) -> Result<Self> {
        const OP: &str = "SparseConvTensor::cat_batch";
        let Some(first) = parts.first() else {
            return Err(Error::Argument {
                op: OP,
                name: "parts",
                got: "none".into(),
                expected: "at least one tensor".into(),
            });
        };
        let kind = |t: &Self| format!("{:?} grid, {} channels of {:?}", t.spatial_shape(), t.channels(), t.dtype());
        if let Some(other) = parts.iter().find(|part| kind(part) != kind(first)) {
            return Err(Error::Argument { op: OP, name: "parts", got: kind(other), expected: kind(first) });
        }
        let mut coords = Vec::with_capacity(parts.iter().map(Self::len).sum());
        let mut batch = 0;
        for part in parts {
            coords.extend(part.coords().iter().map(|&[b, z, y, x]| [b + batch as i32, z, y, x]));
            batch += part.batch_size();
        }
        let features = Tensor::cat(&parts.iter().map(|part| &part.features).collect::<Vec<_>>(), 0)?;
        let grid = Grid::new(OP, batch, first.spatial_shape())?.with_axes(first.ndim());
        Ok(Self::from_parts(features, Arc::new(Sites::new(OP, grid, coords)?)))
    }

    pub(super) fn from_parts(features: Tensor, sites: Arc<Sites>) -> Self {
        Self { features: noted(features), sites, indice_dict: Arc::default(), dropped: Arc::default(), backend: None }
    }

    /// What `op` makes of this tensor on other sites: the keys whose maps start or end at this tensor's sites are dropped.
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

    /// The operation that dropped a key, if one did.
    pub(super) fn dropped_by(&self, key: &str) -> Option<&'static str> {
        self.dropped.get(key).copied()
    }

    /// Features (N, C), one row a site.
    pub fn features(&self) -> &Tensor {
        &self.features
    }

    /// Sites (batch, z, y, x), one a row.
    pub fn coords(&self) -> &[[i32; 4]] {
        self.sites.coords()
    }

    /// Sites as an `i64` tensor (N, 4) on the device of the features: batch, z, y, x; (N, 3) and (N, 2) for 2-D and 1-D.
    ///
    /// # Errors
    /// Whatever candle says of the device of the features.
    pub fn indices(&self) -> Result<Tensor> {
        let axes = self.ndim();
        let flat =
            self.coords().iter().flat_map(|site| [&site[..1], &site[4 - axes..]].concat()).map(i64::from).collect();
        Ok(Tensor::from_vec(flat, (self.len(), 1 + axes), self.device())?)
    }

    /// The row of a site (batch, z, y, x); `None` for one that is empty or off the grid.
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

    /// Size of the grid (z, y, x); axes that a 2-D or 1-D tensor does not have are 1.
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

    /// Occupied share of all cells, 0 to 1.
    pub fn occupancy(&self) -> f64 {
        self.len() as f64 / self.sites.grid().cells() as f64
    }

    /// Number of sites of each batch element, (batch_size,).
    ///
    /// # Errors
    /// [`Error::Memory`] for a batch of more elements than there is room for.
    pub fn batch_counts(&self) -> Result<Vec<usize>> {
        let mut counts =
            vec![0; memory::elements::<usize>("SparseConvTensor::batch_counts", "a count", &[self.batch_size()], 0)?];
        for [b, ..] in self.coords() {
            counts[*b as usize] += 1;
        }
        Ok(counts)
    }

    /// The same tensor, whose layers, and the layers after them, are computed by `backend`, on whatever thread they run.
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

    /// The backend of the layers that this tensor goes through: what was chosen [for it](Self::on_backend), else what the thread
    /// ([`with_backend`](super::with_backend)) or the environment asks for.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `WAVEMESH_BACKEND` holds an unknown name.
    pub fn backend(&self) -> Result<Backend> {
        self.backend.map_or_else(|| Backend::for_device(self.device()), Ok)
    }

    /// Kernel maps by `indice_key` that the layers behind this tensor made.
    pub fn indice_dict(&self) -> &IndiceDict {
        &self.indice_dict
    }

    pub(super) fn find_indice(&self, key: &str) -> Option<&IndiceData> {
        self.indice_dict.get(key)
    }

    pub(super) fn sites(&self) -> &Arc<Sites> {
        &self.sites
    }

    /// A tensor with these sites and kernel maps and other features (N, C'); this one stays as it is.
    ///
    /// # Errors
    /// Features that are not a float matrix with one row a site.
    pub fn replace_feature(&self, features: Tensor) -> Result<Self> {
        check_features("SparseConvTensor::replace_feature", &features, Some(self.len()))?;
        Ok(Self { features: noted(features.contiguous()?), ..self.clone() })
    }

    /// A layer's output: other features on other sites, with this tensor's kernel maps and, when given, one more.
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

    /// The sum with another tensor on the same sites, as in a residual connection. Differentiable.
    ///
    /// # Errors
    /// Other sites or other channels.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.expect_same_sites("SparseConvTensor::add", "other", other)?;
        self.replace_feature((&self.features + &other.features)?)
    }

    /// The channels of this tensor followed by those of another on the same sites, as in a skip connection.
    /// Differentiable.
    ///
    /// # Errors
    /// Other sites.
    pub fn cat_channels(&self, other: &Self) -> Result<Self> {
        self.expect_same_sites("SparseConvTensor::cat_channels", "other", other)?;
        self.replace_feature(Tensor::cat(&[&self.features, &other.features], 1)?)
    }

    /// An error that tells how the sites of the argument `name` differ, if they do.
    pub(crate) fn expect_same_sites(&self, op: &'static str, name: &'static str, other: &Self) -> Result<()> {
        if self.same_sites(other) {
            return Ok(());
        }
        Err(self.other_sites(op, name, other))
    }

    /// The dense tensor (batch, C, z, y, x), without z for 2-D and without z and y for 1-D, zero where no site is. Differentiable.
    ///
    /// # Errors
    /// [`Error::Memory`] when memory has no room for the grid.
    pub fn dense(&self) -> Result<Tensor> {
        let axes = self.ndim();
        let order: Vec<usize> = [0, axes + 1].into_iter().chain(1..=axes).collect();
        Ok(self.dense_channels_last()?.permute(order)?.contiguous()?)
    }

    /// The dense tensor (batch, z, y, x, C), without z for 2-D and without z and y for 1-D, zero where no site is. Differentiable.
    ///
    /// # Errors
    /// [`Error::Memory`] when memory has no room for the grid.
    pub fn dense_channels_last(&self) -> Result<Tensor> {
        let grid = self.sites.grid();
        let channels = self.channels();
        if grid.cells() >= u32::MAX as u64 {
            return Err(Error::Argument {
                op: "SparseConvTensor::dense",
                name: "spatial_shape",
                got: format!("{:?} with batch_size {}", grid.shape, grid.batch),
                expected: format!("fewer than {} cells", u32::MAX),
            });
        }
        let shape = [&[grid.batch], grid.dims(), &[channels]].concat();
        // Adding the rows, and putting channels first, each make a second copy.
        memory::elements::<u8>("SparseConvTensor::dense", "a dense tensor", &shape, 0)?;
        memory::check(
            "SparseConvTensor::dense",
            || format!("a dense tensor of shape {shape:?}"),
            2 * shape.iter().product::<usize>() * self.dtype().size_in_bytes(),
        )?;
        let dense = Tensor::zeros((grid.cells() as usize, channels), self.dtype(), self.device())?;
        let dense = if self.is_empty() {
            dense
        } else {
            let keys: Vec<u32> = self.coords().iter().map(|&site| grid.pack(site) as u32).collect();
            dense.index_add(&Tensor::from_vec(keys, self.len(), self.device())?, &self.features, 0)?
        };
        Ok(dense.reshape(shape)?)
    }

    /// Features (M, C) at the sites `indices` (M, 4) (or as many columns as [`indices`](Self::indices) has), zero where a site is empty. Differentiable.
    ///
    /// # Errors
    /// Indices of a wrong shape or dtype, or outside the grid.
    pub fn sample_at_indices(&self, indices: &Tensor) -> Result<Tensor> {
        const OP: &str = "SparseConvTensor::sample_at_indices";
        let grid = self.sites.grid();
        let sites = read_indices(OP, indices, grid)?;
        if let Some(row) = sites.iter().position(|&site| !grid.contains(site)) {
            return Err(Error::Argument {
                op: OP,
                name: "indices",
                got: format!("{:?} (batch, z, y, x) in row {row}", sites[row]),
                expected: format!("sites of {} grids of {:?}", grid.batch, grid.shape),
            });
        }
        let empty = self.len() as u32;
        let rows: Vec<u32> = sites.iter().map(|&site| self.sites.find(site).unwrap_or(empty)).collect();
        let rows = Tensor::from_vec(rows, sites.len(), self.device())?;
        let zero = Tensor::zeros((1, self.channels()), self.dtype(), self.device())?;
        Ok(Tensor::cat(&[&self.features, &zero], 0)?.index_select(&rows, 0)?)
    }

    /// The rows `rows` (M,) of `i64` or `u32`, in that order, without the kernel maps of these sites (their rows would no longer
    /// fit). Differentiable.
    ///
    /// # Errors
    /// A row that does not exist or occurs twice.
    pub fn select_by_index(&self, rows: &Tensor) -> Result<Self> {
        const OP: &str = "SparseConvTensor::select_by_index";
        let picked = match (rows.rank(), rows.dtype()) {
            (1, DType::I64 | DType::U32 | DType::I32) => rows.to_dtype(DType::I64)?.to_vec1::<i64>()?,
            (1, got) => return Err(Error::DType { op: OP, what: "rows", got, expected: "i64, i32 or u32" }),
            _ => {
                return Err(Error::Shape {
                    op: OP,
                    what: "rows",
                    got: rows.dims().to_vec(),
                    expected: "(rows,)".into(),
                });
            }
        };
        let pick = |&row: &i64| usize::try_from(row).ok().and_then(|row| self.coords().get(row).copied());
        if let Some(bad) = picked.iter().find(|row| pick(row).is_none()) {
            return Err(Error::Argument {
                op: OP,
                name: "rows",
                got: bad.to_string(),
                expected: format!("rows 0 to {} (exclusive)", self.len()),
            });
        }
        let sites = Sites::new(OP, self.sites.grid(), picked.iter().filter_map(pick).collect())?;
        let features = self.features.index_select(&rows.to_dtype(DType::I64)?.contiguous()?, 0)?;
        Ok(self.moved(OP, features, &Arc::new(sites)))
    }
}

/// Checks that features are a float matrix, of `rows` rows when that is known.
fn check_features(op: &'static str, features: &Tensor, rows: Option<usize>) -> Result<()> {
    if !features.dtype().is_float() {
        let expected = "a float type (f32, f16, bf16 or f64)";
        return Err(Error::DType { op, what: "features", got: features.dtype(), expected });
    }
    match (features.dims(), rows) {
        (&[_, channels], None) if channels > 0 => Ok(()),
        (&[n, channels], Some(rows)) if n == rows && channels > 0 => Ok(()),
        (got, rows) => Err(Error::Shape {
            op,
            what: "features",
            got: got.to_vec(),
            expected: match rows {
                Some(rows) => format!("({rows}, channels): one row a site, at least one channel"),
                None => "(sites, channels), at least one channel".into(),
            },
        }),
    }
}

/// Reads (N, 1 + axes) integers as sites of a grid with these axes.
pub(super) fn read_indices(op: &'static str, indices: &Tensor, grid: Grid) -> Result<Vec<[i32; 4]>> {
    if !matches!(indices.dtype(), DType::I64 | DType::U32 | DType::I32) {
        return Err(Error::DType { op, what: "indices", got: indices.dtype(), expected: "i64, i32 or u32" });
    }
    let columns = 1 + grid.axes;
    if !matches!(indices.dims(), &[_, found] if found == columns) {
        return Err(Error::Shape {
            op,
            what: "indices",
            got: indices.dims().to_vec(),
            expected: format!("(sites, {columns}): {}", grid.columns()),
        });
    }
    // Sites are kept in the processor's memory, whichever device the features are on.
    let flat = indices.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
    let read = |(row, values): (usize, &[i64])| {
        if values.iter().any(|&v| i32::try_from(v).is_err()) {
            let got = format!("{values:?} ({}) in row {row}", grid.columns());
            return Err(Error::Argument { op, name: "indices", got, expected: "coordinates of a grid".into() });
        }
        let mut site = [0; 4];
        site[0] = values[0] as i32;
        site[4 - grid.axes..].iter_mut().zip(&values[1..]).for_each(|(site, &v)| *site = v as i32);
        Ok(site)
    };
    flat.chunks_exact(columns).enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;

    use super::*;

    fn features(n: usize, channels: usize) -> Tensor {
        Tensor::arange(0f32, (n * channels) as f32, &Device::Cpu).unwrap().reshape((n, channels)).unwrap()
    }

    fn indices(rows: &[[i64; 4]]) -> Tensor {
        Tensor::from_vec(rows.concat(), (rows.len(), 4), &Device::Cpu).unwrap()
    }

    fn tensor(rows: &[[i64; 4]]) -> SparseConvTensor {
        SparseConvTensor::new(features(rows.len(), 2), indices(rows), [3, 4, 5], 2).unwrap()
    }

    fn message(result: Result<SparseConvTensor>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn dense_and_back_keeps_features_and_sites() {
        let x = tensor(&[[0, 1, 2, 3], [1, 0, 0, 1], [1, 2, 3, 4]]);
        // Row 0 holds a zero and a one: a site is kept when any channel is not zero.
        let back = SparseConvTensor::from_dense(&x.dense_channels_last().unwrap()).unwrap();
        assert!(back.same_sites(&x));
        assert_eq!(back.features().to_vec2::<f32>().unwrap(), x.features().to_vec2::<f32>().unwrap());
        let dense = x.dense().unwrap();
        assert_eq!(dense.dims(), [2, 2, 3, 4, 5]);
        assert_eq!(dense.i((1, 0, 2, 3, 4)).unwrap().to_scalar::<f32>().unwrap(), 4.0);
        assert_eq!(dense.sum_all().unwrap().to_scalar::<f32>().unwrap(), 15.0);
    }

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
    fn coalesce_sums_equal_sites_and_sends_gradients_to_each() {
        let f = candle_core::Var::from_tensor(&features(3, 2)).unwrap();
        let rows = indices(&[[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]);
        let x = SparseConvTensor::coalesce(&f, &rows, [3, 4, 5], 1).unwrap();
        assert_eq!(x.coords(), [[0, 0, 0, 0], [0, 1, 0, 0]]);
        assert_eq!(x.features().to_vec2::<f32>().unwrap(), [[2.0, 3.0], [4.0, 6.0]]);
        let grads = x.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let grad = grads.get(&f).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(grad, [[8.0, 12.0], [4.0, 6.0], [8.0, 12.0]]);
    }

    #[test]
    fn sampling_is_zero_where_a_site_is_empty_and_an_error_off_the_grid() {
        let x = tensor(&[[0, 1, 2, 3], [1, 0, 0, 1]]);
        let got = x.sample_at_indices(&indices(&[[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3]])).unwrap();
        assert_eq!(got.to_vec2::<f32>().unwrap(), [[2.0, 3.0], [0.0, 0.0], [0.0, 1.0]]);
        assert!(x.sample_at_indices(&indices(&[[2, 0, 0, 0]])).is_err());
    }

    #[test]
    fn rows_are_selected_in_the_order_asked_for() {
        let x = tensor(&[[0, 1, 2, 3], [1, 0, 0, 1], [1, 2, 3, 4]]);
        let y = x.select_by_index(&Tensor::new(&[2i64, 0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(y.coords(), [[1, 2, 3, 4], [0, 1, 2, 3]]);
        assert_eq!(y.features().to_vec2::<f32>().unwrap(), [[4.0, 5.0], [0.0, 1.0]]);
        for bad in [[0i64, 3], [0, -1], [0, 0]] {
            assert!(x.select_by_index(&Tensor::new(&bad, &Device::Cpu).unwrap()).is_err());
        }
    }

    #[test]
    fn batches_are_concatenated_in_order() {
        let (a, b) = (tensor(&[[1, 1, 2, 3]]), tensor(&[[0, 0, 0, 0], [1, 0, 0, 0]]));
        let both = SparseConvTensor::cat_batch(&[a.clone(), b]).unwrap();
        assert_eq!(both.batch_size(), 4);
        assert_eq!(both.coords(), [[1, 1, 2, 3], [2, 0, 0, 0], [3, 0, 0, 0]]);
        let wide = a.replace_feature(features(1, 3)).unwrap();
        assert!(message(SparseConvTensor::cat_batch(&[a, wide])).contains("3 channels"));
        assert!(SparseConvTensor::cat_batch(&[]).is_err());
    }

    #[test]
    fn tensors_on_other_sites_do_not_add() {
        let (a, b) = (tensor(&[[0, 1, 2, 3]]), tensor(&[[0, 1, 2, 2]]));
        assert!(a.add(&b).is_err() && a.cat_channels(&b).is_err());
        assert_eq!(a.add(&a).unwrap().features().to_vec2::<f32>().unwrap(), [[0.0, 2.0]]);
        assert_eq!(a.cat_channels(&a).unwrap().channels(), 4);
    }
}
