//! Sets of sites: combines tensors that have different sites.
//!
//! | MinkowskiEngine, torchsparse, spconv | here |
//! | --- | --- |
//! | `a + b` with other coordinates, spconv's `sparse_add` | [`SparseConvTensor::union_add`] |
//! | `ME.cat` of the same coordinates | [`SparseConvTensor::cat_channels`]; of other coordinates [`SparseConvTensor::union_cat`] |
//! | `MinkowskiPruning` | [`SparseConvTensor::prune`] |
//! | `features_at_coordinates` | [`SparseConvTensor::sample_at_indices`], [`SparseConvTensor::on_sites_of`] |
//! | TRELLIS' `SparseSubdivide` | [`SparseConvTensor::subdivide`] |
//! | `MinkowskiGenerativeConvolutionTranspose` | [`SparseConvTranspose3d`](super::SparseConvTranspose3d): it makes every site that it reaches; then `prune` |
//!
//! Kernel maps by `indice_key` are kept if the result has its tensor's sites in their order. Otherwise the keys whose maps belong to the
//! old sites are dropped, and a layer that asks for one gets an error that says so.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::grid::Grid;
use super::sites::Sites;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

impl SparseConvTensor {
    /// The rows of this tensor in the order of those of `other`, which must have the same set of sites. Differentiable.
    ///
    /// # Errors
    /// Another grid, or a site that only one of the two has.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let turned = x.select_by_index(&Tensor::new(&[1i64, 0], &Device::Cpu)?)?;
    /// assert_eq!(turned.align_to(&x)?.features().to_vec2::<f32>()?, [[1.0], [2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn align_to(&self, other: &Self) -> Result<Self> {
        const OP: &str = "SparseConvTensor::align_to";
        if self.same_sites(other) {
            return Ok(self.clone());
        }
        let rows: Option<Vec<u32>> = other.coords().iter().map(|&site| self.sites().find(site)).collect();
        match rows {
            Some(rows) if self.len() == other.len() && self.sites().grid() == other.sites().grid() => {
                let rows = Tensor::from_vec(rows, self.len(), self.device())?;
                Ok(self.moved(OP, self.features().index_select(&rows, 0)?, other.sites()))
            }
            _ => Err(self.other_sites(OP, "other", other)),
        }
    }

    /// Whether the two have the same sites, in any order.
    pub fn same_site_set(&self, other: &Self) -> bool {
        self.same_sites(other)
            || (self.sites().grid() == other.sites().grid()
                && self.len() == other.len()
                && other.coords().iter().all(|&site| self.sites().find(site).is_some()))
    }

    /// The sum on all sites that either tensor has; a missing site counts as zero. Sites are in ascending order unless both have the same
    /// sites. Differentiable. spconv's `sparse_add`, MinkowskiEngine's `+`.
    ///
    /// # Errors
    /// Another grid or another number of channels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let line = |values: &[f32], first: i32| {
    ///     let sites = (0..values.len() as i32).map(|i| [0, 0, 0, first + i]).collect();
    ///     SparseConvTensor::from_coords(Tensor::new(values, &Device::Cpu)?.unsqueeze(1)?, sites, [1, 1, 4], 1)
    /// };
    /// let (a, b) = (line(&[1.0, 2.0], 0)?, line(&[10.0, 20.0], 1)?); // sites 0 and 1, sites 1 and 2
    /// assert_eq!(a.union_add(&b)?.features().to_vec2::<f32>()?, [[1.0], [12.0], [20.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias("sparse_add", "MinkowskiUnion"))]
    pub fn union_add(&self, other: &Self) -> Result<Self> {
        const OP: &str = "SparseConvTensor::union_add";
        if self.same_sites(other) {
            return self.add(other);
        }
        if self.channels() != other.channels() {
            return Err(Error::Shape {
                op: OP,
                what: "features of other",
                got: other.features().dims().to_vec(),
                expected: format!("(sites, {}): the channels of the first", self.channels()),
            });
        }
        let union = self.union(OP, other)?;
        let [a, b] = [self, other].map(|x| x.rows_on(&union));
        Ok(self.moved(OP, (a? + b?)?, &union))
    }

    /// The channels of this tensor followed by those of `other`, on all sites that either has; zero where one has no site. Sites are in
    /// ascending order unless both have the same sites. Differentiable.
    ///
    /// # Errors
    /// Another grid.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let y = SparseConvTensor::from_coords(Tensor::new(&[[5f32]], &Device::Cpu)?, vec![[0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.union_cat(&y)?.features().to_vec2::<f32>()?, [[1.0, 0.0], [2.0, 5.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn union_cat(&self, other: &Self) -> Result<Self> {
        const OP: &str = "SparseConvTensor::union_cat";
        if self.same_sites(other) {
            return self.cat_channels(other);
        }
        let union = self.union(OP, other)?;
        Ok(self.moved(OP, Tensor::cat(&[self.rows_on(&union)?, other.rows_on(&union)?], 1)?, &union))
    }

    /// The rows whose sites `other` has too, in this tensor's order. Differentiable.
    ///
    /// # Errors
    /// Another grid.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let line = |values: &[f32], first: i32| {
    ///     let sites = (0..values.len() as i32).map(|i| [0, 0, 0, first + i]).collect();
    ///     SparseConvTensor::from_coords(Tensor::new(values, &Device::Cpu)?.unsqueeze(1)?, sites, [1, 1, 4], 1)
    /// };
    /// let (a, b) = (line(&[1.0, 2.0], 0)?, line(&[10.0, 20.0], 1)?); // sites 0 and 1, sites 1 and 2
    /// assert_eq!(a.intersect(&b)?.features().to_vec2::<f32>()?, [[2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn intersect(&self, other: &Self) -> Result<Self> {
        const OP: &str = "SparseConvTensor::intersect";
        self.check_same_grid(OP, other)?;
        let rows = (0..self.len() as u32).filter(|&row| other.sites().find(self.coords()[row as usize]).is_some());
        self.keep(OP, rows.collect())
    }

    /// The rows for which `mask` (sites,) is not 0, in their order: MinkowskiEngine's `MinkowskiPruning`. Differentiable.
    ///
    /// # Errors
    /// A mask of another length or of a float type.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let large = x.features().gt(1.5)?.squeeze(1)?;
    /// assert_eq!(x.prune(&large)?.coords(), [[0, 0, 0, 1]]);
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "MinkowskiPruning")]
    pub fn prune(&self, mask: &Tensor) -> Result<Self> {
        const OP: &str = "SparseConvTensor::prune";
        if mask.dtype().is_float() {
            let expected = "u8 or another integer, as comparisons give: features.gt(0.5)";
            return Err(Error::DType { op: OP, what: "mask", got: mask.dtype(), expected });
        }
        if mask.dims() != [self.len()] {
            let (got, expected) = (mask.dims().to_vec(), format!("({},): one value a site", self.len()));
            return Err(Error::Shape { op: OP, what: "mask", got, expected });
        }
        let mask = mask.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        self.keep(OP, (0..).zip(mask).filter_map(|(row, kept)| (kept != 0).then_some(row)).collect())
    }

    /// The features at the sites of `other`, in its order; zero where this tensor has no site. Both must have the same grid.
    /// Differentiable.
    ///
    /// # Errors
    /// Another grid.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let at = SparseConvTensor::from_coords(Tensor::new(&[[0f32]], &Device::Cpu)?, vec![[0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.on_sites_of(&at)?.features().to_vec2::<f32>()?, [[2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn on_sites_of(&self, other: &Self) -> Result<Self> {
        const OP: &str = "SparseConvTensor::on_sites_of";
        if self.same_sites(other) {
            return Ok(self.clone());
        }
        self.check_same_grid(OP, other)?;
        Ok(self.moved(OP, self.rows_on(other.sites())?, other.sites()))
    }

    /// Splits every site into `factor` × `factor` × `factor` sites on a grid that is finer by this factor. Each new site has the features
    /// of its old site; sites are in ascending order. Differentiable.
    ///
    /// # Errors
    /// A factor of 0, or a grid that would be too large.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let fine = x.subdivide(2)?;
    /// assert_eq!((fine.spatial_shape(), fine.len()), ([2, 2, 4], 2 * 8));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn subdivide(&self, factor: usize) -> Result<Self> {
        const OP: &str = "SparseConvTensor::subdivide";
        let grid = self.sites().grid();
        let factors = grid.factors(factor);
        let shape: Option<Vec<usize>> = (0..3).map(|a| grid.shape[a].checked_mul(factors[a])).collect();
        let Some(&[d, h, w]) = shape.as_deref().filter(|_| factor > 0) else {
            let (got, expected) = (factor.to_string(), "1 or more, with room for the finer grid".into());
            return Err(Error::Argument { op: OP, name: "factor", got, expected });
        };
        let fine = Grid::new(OP, grid.batch, [d, h, w])?.with_axes(grid.axes);
        let [fz, fy, fx] = factors.map(|f| f as i32);
        let mut children: Vec<([i32; 4], u32)> = Vec::with_capacity(self.len() * factors.iter().product::<usize>());
        for (&[b, z, y, x], row) in self.coords().iter().zip(0..) {
            for dz in 0..fz {
                for dy in 0..fy {
                    children.extend((0..fx).map(|dx| ([b, z * fz + dz, y * fy + dy, x * fx + dx], row)));
                }
            }
        }
        children.sort_unstable();
        let (sites, rows): (Vec<_>, Vec<u32>) = children.into_iter().unzip();
        let rows = Tensor::from_vec(rows, sites.len(), self.device())?;
        let sites = Arc::new(Sites::new(OP, fine, sites)?);
        Ok(self.moved(OP, self.features().contiguous()?.index_select(&rows, 0)?, &sites))
    }

    /// A tensor on sites with any coordinates, also negative ones, as in MinkowskiEngine. `indices` (N, 4) are moved by a multiple of
    /// `align` so that the smallest is on the grid. Give the product of a network's strides as `align`: then each
    /// [`OutputSites::Strided`](super::OutputSites::Strided) layer groups the sites as `floor(site / stride)` would have grouped the sites
    /// before they were moved. The grid and the batch size are the smallest that hold all sites. Returns the tensor and what was subtracted
    /// from (z, y, x).
    ///
    /// # Errors
    /// The errors of [`new`](Self::new), `align` of 0, no sites, or a negative batch number.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let sites = Tensor::new(&[[0i64, -3, 0, 0], [0, 1, 0, 0]], &Device::Cpu)?; // batch, z, y, x
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let (x, subtracted) = SparseConvTensor::from_signed(features, &sites, 2)?;
    /// assert_eq!(subtracted, [-4, 0, 0]); // a multiple of 2
    /// assert_eq!(x.coords(), [[0, 1, 0, 0], [0, 5, 0, 0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_signed(features: Tensor, indices: &Tensor, align: usize) -> Result<(Self, [i64; 3])> {
        const OP: &str = "SparseConvTensor::from_signed";
        let argument =
            |name, got: String, expected: &str| Error::Argument { op: OP, name, got, expected: expected.into() };
        let align = i64::try_from(align).ok().filter(|&align| (1..=1 << 30).contains(&align));
        let align =
            align.ok_or_else(|| argument("align", "0 or more than 2^30".into(), "the product of the strides"))?;
        let sites = super::input::read_indices(OP, indices, Grid::new(OP, 1, [1; 3])?)?;
        let Some(&first) = sites.first() else {
            return Err(argument("indices", "no sites".into(), "at least one: the grid follows from them"));
        };
        let (mut low, mut high) = (first, first);
        for site in &sites {
            for a in 0..4 {
                low[a] = low[a].min(site[a]);
                high[a] = high[a].max(site[a]);
            }
        }
        if low[0] < 0 {
            return Err(argument("indices", format!("batch number {}", low[0]), "0 or more"));
        }
        let origin: [i64; 3] = std::array::from_fn(|a| i64::from(low[a + 1]).div_euclid(align) * align);
        let shape: [usize; 3] = std::array::from_fn(|a| (i64::from(high[a + 1]) - origin[a] + 1) as usize);
        if let Some(&size) = shape.iter().find(|&&size| size > i32::MAX as usize) {
            return Err(argument("indices", format!("{size} cells from end to end"), "fewer than 2^31"));
        }
        let moved = sites.iter().map(|&[b, z, y, x]| {
            let [z, y, x] = [(z, 0), (y, 1), (x, 2)].map(|(v, a)| (i64::from(v) - origin[a]) as i32);
            [b, z, y, x]
        });
        Ok((Self::from_coords(features, moved.collect(), shape, high[0] as usize + 1)?, origin))
    }

    /// A tensor of these rows, which must be distinct and exist.
    pub(super) fn keep(&self, op: &'static str, rows: Vec<u32>) -> Result<Self> {
        if rows.len() == self.len() && rows.is_sorted() {
            return Ok(self.clone());
        }
        let sites = rows.iter().map(|&row| self.coords()[row as usize]).collect();
        let sites = Arc::new(Sites::new(op, self.sites().grid(), sites)?);
        let rows = Tensor::from_vec(rows, sites.len(), self.device())?;
        Ok(self.moved(op, self.features().contiguous()?.index_select(&rows, 0)?, &sites))
    }

    /// The features at other sites of the same grid; zero where there are none.
    fn rows_on(&self, sites: &Sites) -> Result<Tensor> {
        let empty = self.len() as u32;
        let rows: Vec<u32> = sites.coords().iter().map(|&site| self.sites().find(site).unwrap_or(empty)).collect();
        let rows = Tensor::from_vec(rows, sites.len(), self.device())?;
        let zero = Tensor::zeros((1, self.channels()), self.dtype(), self.device())?;
        Ok(Tensor::cat(&[self.features(), &zero], 0)?.index_select(&rows, 0)?)
    }

    fn union(&self, op: &'static str, other: &Self) -> Result<Arc<Sites>> {
        self.check_same_grid(op, other)?;
        let mut sites = [self.coords(), other.coords()].concat();
        sites.sort_unstable();
        sites.dedup();
        Ok(Arc::new(Sites::new(op, self.sites().grid(), sites)?))
    }

    fn check_same_grid(&self, op: &'static str, other: &Self) -> Result<()> {
        if self.sites().grid() == other.sites().grid() {
            return Ok(());
        }
        let kind = |x: &Self| format!("a {:?} grid of batch size {}", x.spatial_shape(), x.batch_size());
        Err(Error::Argument { op, name: "other", got: kind(other), expected: kind(self) })
    }

    /// The error for sites that should be the same but are not.
    pub(super) fn other_sites(&self, op: &'static str, name: &'static str, other: &Self) -> Error {
        let kind = |x: &Self| format!("{} sites on a {:?} grid (batch {})", x.len(), x.spatial_shape(), x.batch_size());
        let (got, expected) = if self.sites().grid() != other.sites().grid() {
            (kind(other), format!("the grid of the first, {}", kind(self)))
        } else if self.same_site_set(other) {
            let advice = "the sites of the first in their order; align_to puts the rows in the order of another tensor";
            (format!("the same {} sites in another order", other.len()), advice.into())
        } else {
            let shared = other.coords().iter().filter(|&&site| self.sites().find(site).is_some()).count();
            let got = format!("{}, {shared} of which the first has too", kind(other));
            (
                got,
                format!(
                    "the sites of the first, {}; union_add, union_cat and on_sites_of take other sites",
                    kind(self)
                ),
            )
        };
        Error::Argument { op, name, got, expected }
    }
}
