//! Occupied voxels with values, made from any grid-like value; voxel plots and viewers draw these.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::sdf::SdfGrid;
use crate::sparse::SparseConvTensor;
use crate::wavelet::SparseWavelet;
use crate::{Error, Result};

/// Occupied sites of a grid, and the values of each channel there.
///
/// Sites and shape are in the order (x, y, z). The voxel at site `i` fills `i` to `i + 1` along each axis.
#[derive(Clone, Debug)]
pub struct Voxels {
    sites: Vec<[i32; 3]>,
    shape: [usize; 3],
    channels: Vec<Vec<f32>>,
    names: Vec<String>,
}

impl Voxels {
    /// Voxels at `sites` (x, y, z) of a grid of `shape` (x, y, z). Each channel has one value per site; there may be no channels.
    ///
    /// ```
    /// use wavemesh::notebook::Voxels;
    /// let two = Voxels::new(vec![[0, 0, 0], [1, 2, 3]], [4, 4, 4], vec![vec![0.5, -0.5]])?;
    /// assert_eq!(two.len(), 2);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// A site outside the grid, an empty grid, or a channel that does not have one value per site.
    pub fn new(sites: Vec<[i32; 3]>, shape: [usize; 3], channels: Vec<Vec<f32>>) -> Result<Self> {
        const OP: &str = "Voxels::new";
        if shape.iter().any(|&n| n == 0 || n > i32::MAX as usize) {
            let got = format!("{shape:?}");
            return Err(Error::Argument {
                op: OP,
                name: "shape",
                got,
                expected: "1 to 2³¹ − 1 cells along each axis".into(),
            });
        }
        let outside = |site: &&[i32; 3]| site.iter().zip(&shape).any(|(&i, &n)| i < 0 || i as usize >= n);
        if let Some(site) = sites.iter().find(outside) {
            let expected = format!("sites within the grid of shape {shape:?} (x, y, z)");
            return Err(Error::Argument { op: OP, name: "sites", got: format!("{site:?}"), expected });
        }
        if let Some(channel) = channels.iter().find(|channel| channel.len() != sites.len()) {
            let expected = format!("one value for each of {} sites", sites.len());
            return Err(Error::Shape { op: OP, what: "channel", got: vec![channel.len()], expected });
        }
        let names = match channels.len() {
            1 => vec!["value".to_owned()],
            n => (0..n).map(|channel| format!("channel {channel}")).collect(),
        };
        Ok(Self { sites, shape, channels, names })
    }

    /// Names the channels, in their order.
    ///
    /// # Errors
    /// A number of names other than that of channels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let one = Voxels::new(vec![[0, 0, 0]], [4; 3], vec![vec![0.5], vec![2.0]])?.named(["density", "level"])?;
    /// assert_eq!(one.names(), ["density", "level"]);
    /// assert!(VoxelPlot::new(&one)?.channel("level").picture().is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn named<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.len() != self.channels.len() {
            let expected = format!("one for each of {} channels", self.channels.len());
            let got = format!("{} names", names.len());
            return Err(Error::Argument { op: "Voxels::named", name: "names", got, expected });
        }
        self.names = names;
        Ok(self)
    }

    /// The channels' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The sites, (x, y, z).
    pub fn sites(&self) -> &[[i32; 3]] {
        &self.sites
    }

    /// Number of cells of the grid along x, y, z.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The values of each channel.
    pub fn channels(&self) -> &[Vec<f32>] {
        &self.channels
    }

    /// Number of voxels.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether no voxel is occupied.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// The voxels of one batch element of a sparse tensor.
    ///
    /// # Errors
    /// A batch element that does not exist.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [1, 3, 2, 1]], [4; 3], 2)?; // batch, z, y, x
    /// let second = Voxels::of_batch(&x, 1)?;
    /// assert_eq!((second.sites(), second.channels()), (&[[1, 2, 3]][..], &[vec![2.0]][..])); // x, y, z
    /// assert!(Voxels::of_batch(&x, 2).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of_batch(tensor: &SparseConvTensor, batch: usize) -> Result<Self> {
        if batch >= tensor.batch_size() {
            let expected = format!("less than the batch size {}", tensor.batch_size());
            return Err(Error::Argument { op: "Voxels::of_batch", name: "batch", got: batch.to_string(), expected });
        }
        let [d, h, w] = tensor.spatial_shape();
        let rows: Vec<usize> = (0..tensor.len()).filter(|&row| tensor.coords()[row][0] as usize == batch).collect();
        let sites = rows.iter().map(|&row| tensor.coords()[row]).map(|[_, z, y, x]| [x, y, z]).collect();
        let features = tensor.features().detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let features = features.flatten_all()?.to_vec1::<f32>()?;
        let width = tensor.channels();
        let channels = (0..width).map(|c| rows.iter().map(|&row| features[row * width + c]).collect()).collect();
        Self::new(sites, [w, h, d], channels)
    }

    /// Only the voxels whose number `keep` accepts.
    pub(crate) fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.len()).filter(|&i| keep(i)).collect();
        Self {
            sites: kept.iter().map(|&i| self.sites[i]).collect(),
            shape: self.shape,
            channels: self.channels.iter().map(|values| kept.iter().map(|&i| values[i]).collect()).collect(),
            names: self.names.clone(),
        }
    }

    /// The smallest box of cells that contains all voxels: its first and last cell along x, y, z.
    pub(crate) fn occupied_box(&self) -> Option<[[i32; 3]; 2]> {
        let first = *self.sites.first()?;
        Some(self.sites.iter().fold([first, first], |[low, high], site| {
            [std::array::from_fn(|i| low[i].min(site[i])), std::array::from_fn(|i| high[i].max(site[i]))]
        }))
    }
}

/// A value with occupied voxels.
pub trait ToVoxels {
    /// The value's voxels.
    ///
    /// # Errors
    /// If the value has no voxels to show.
    ///
    /// ```
    /// use wavemesh::notebook::ToVoxels;
    /// use wavemesh::prelude::*;
    /// /// The corners of a cube of two cells' side.
    /// struct Corners;
    /// impl ToVoxels for Corners {
    ///     fn to_voxels(&self) -> wavemesh::Result<Voxels> {
    ///         let corners = (0..8).map(|i| [i & 1, i >> 1 & 1, i >> 2]).collect();
    ///         Voxels::new(corners, [2; 3], Vec::new())
    ///     }
    /// }
    /// assert!(VoxelPlot::new(&Corners)?.picture().is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    fn to_voxels(&self) -> Result<Voxels>;
}

impl ToVoxels for Voxels {
    fn to_voxels(&self) -> Result<Voxels> {
        Ok(self.clone())
    }
}

impl<T: ToVoxels + ?Sized> ToVoxels for &T {
    fn to_voxels(&self) -> Result<Voxels> {
        (**self).to_voxels()
    }
}

/// Uses the first batch element; [`Voxels::of_batch`] returns the others.
impl ToVoxels for SparseConvTensor {
    fn to_voxels(&self) -> Result<Voxels> {
        Voxels::of_batch(self, 0)
    }
}

/// A dense grid (z, y, x), or several channels of it (C, z, y, x): the cells at which any channel is not zero.
impl ToVoxels for Tensor {
    fn to_voxels(&self) -> Result<Voxels> {
        let (c, d, h, w) = match *self.dims() {
            [d, h, w] => (1, d, h, w),
            [c, d, h, w] => (c, d, h, w),
            _ => {
                let expected = "(z, y, x) or (C, z, y, x)".into();
                return Err(Error::Shape { op: "to_voxels", what: "tensor", got: self.dims().to_vec(), expected });
            }
        };
        let values = self.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let cells = d * h * w;
        let occupied: Vec<usize> = (0..cells).filter(|&i| (0..c).any(|k| values[k * cells + i] != 0.0)).collect();
        let sites = occupied.iter().map(|&i| [(i % w) as i32, (i / w % h) as i32, (i / w / h) as i32]).collect();
        let channels = (0..c).map(|k| occupied.iter().map(|&i| values[k * cells + i]).collect()).collect();
        Voxels::new(sites, [w, h, d], channels)
    }
}

/// The inside of a shape: the cells with a negative distance, with the distance as value.
impl ToVoxels for SdfGrid {
    fn to_voxels(&self) -> Result<Voxels> {
        let [nx, ny, nz] = self.shape();
        let site = |i: usize| [(i / nz / ny) as i32, (i / nz % ny) as i32, (i % nz) as i32];
        let inside: Vec<usize> = (0..self.values().len()).filter(|&i| self.values()[i] < 0.0).collect();
        let values = inside.iter().map(|&i| self.values()[i]).collect();
        Voxels::new(inside.into_iter().map(site).collect(), [nx, ny, nz], vec![values])?.named(["distance"])
    }
}

/// Each coefficient at its place on the lattice of the finest band (one cell for two samples of the grid along each axis). If several bands
/// have one there, the one with the largest magnitude counts. The channels are its log10 |c| and its level (1 is the finest). Coefficients
/// of a single band ([`SparseWavelet::band`]) are on that band's own lattice, with their values.
impl ToVoxels for SparseWavelet {
    fn to_voxels(&self) -> Result<Voxels> {
        let layout = self.layout();
        if let (Some(&[.., band]), Some(last)) = (self.indices().first(), self.indices().last())
            && band == last[3]
            && let Some(shape) = layout.band_shape(band)
        {
            let sites = self.indices().iter().map(|&[x, y, z, _]| [x, y, z]).collect();
            return Voxels::new(sites, shape, vec![self.values().to_vec()])?.named([layout.band_name(band)]);
        }
        let shape = layout.sites();
        let mut largest: HashMap<[i32; 3], (f32, usize)> = HashMap::new();
        for (&[x, y, z, band], &value) in self.indices().iter().zip(self.values()) {
            let stride = layout.band_stride(band) as i32;
            // Bands in modes that extend the signal reach past the end of the lattice.
            let at = |i: i32, n: usize| (i * stride).min(n as i32 - 1);
            let entry = largest.entry([at(x, shape[0]), at(y, shape[1]), at(z, shape[2])]).or_insert((0.0, 0));
            if value.abs() > entry.0 {
                *entry = (value.abs(), layout.band_level(band));
            }
        }
        let mut found: Vec<_> = largest.into_iter().filter(|(_, (amount, _))| *amount > 0.0).collect();
        found.sort_unstable_by_key(|(site, _)| *site);
        let amounts = found.iter().map(|(_, (amount, _))| amount.log10()).collect();
        let levels = found.iter().map(|(_, (_, level))| *level as f32).collect();
        Voxels::new(found.into_iter().map(|(site, _)| site).collect(), shape, vec![amounts, levels])?
            .named(["log10 |c|", "level"])
    }
}

/// Answers quickly whether a cell is occupied.
pub(crate) struct Occupancy {
    low: [i32; 3],
    size: [usize; 3],
    /// How much a step along each axis adds to a cell's number.
    strides: [u64; 3],
    kind: OccupancyKind,
}

enum OccupancyKind {
    Bits(Vec<u64>),
    /// For boxes that are too large for one bit per cell.
    Set(std::collections::HashSet<u64>),
}

/// A box with more cells than this gets a hash set: a bitmap would take more than 64 MB.
const MAX_BITS: usize = 1 << 29;

impl Occupancy {
    pub fn new(voxels: &Voxels) -> Self {
        let [low, high] = voxels.occupied_box().unwrap_or_default();
        let size: [usize; 3] = std::array::from_fn(|i| (high[i] - low[i]) as usize + 1);
        let cells = size.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        // The axis along which most sites follow each other gets consecutive numbers, so that neighbours in the list lie near in memory.
        let steps = |axis: usize| voxels.sites().windows(2).filter(|two| two[0][axis] != two[1][axis]).count();
        let mut axes = [0, 1, 2];
        axes.sort_by_cached_key(|&axis| std::cmp::Reverse(steps(axis)));
        let mut strides = [1; 3];
        strides[axes[1]] = size[axes[0]] as u64;
        strides[axes[2]] = (size[axes[0]] as u64).wrapping_mul(size[axes[1]] as u64);
        let mut occupancy = Self { low, size, strides, kind: OccupancyKind::Set(Default::default()) };
        let keys = voxels.sites().iter().filter_map(|site| occupancy.key(*site));
        occupancy.kind = match cells.filter(|&cells| cells <= MAX_BITS) {
            Some(cells) => {
                let mut bits = vec![0u64; cells / 64 + 1];
                keys.for_each(|key| bits[(key / 64) as usize] |= 1 << (key % 64));
                OccupancyKind::Bits(bits)
            }
            None => OccupancyKind::Set(keys.collect()),
        };
        occupancy
    }

    #[inline(always)]
    fn key(&self, site: [i32; 3]) -> Option<u64> {
        let mut key = 0u64;
        for (at, (low, (&size, stride))) in site.iter().zip(self.low.iter().zip(self.size.iter().zip(self.strides))) {
            let at = at - low;
            if at < 0 || at as usize >= size {
                return None;
            }
            key = key.wrapping_add((at as u64).wrapping_mul(stride));
        }
        Some(key)
    }

    #[inline(always)]
    pub fn contains(&self, site: [i32; 3]) -> bool {
        let Some(key) = self.key(site) else { return false };
        match &self.kind {
            OccupancyKind::Bits(bits) => bits[(key / 64) as usize] >> (key % 64) & 1 == 1,
            OccupancyKind::Set(set) => set.contains(&key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_turned_from_zyx_to_xyz() {
        let mut values = vec![0f32; 24];
        values[12 + 2 * 4 + 3] = 7.0; // z = 1, y = 2, x = 3 of (2, 3, 4)
        let dense = Tensor::from_vec(values, (2, 3, 4), &Device::Cpu).unwrap();
        let voxels = dense.to_voxels().unwrap();
        assert_eq!((voxels.sites(), voxels.shape()), ([[3, 2, 1]].as_slice(), [4, 3, 2]));
        let sparse = SparseConvTensor::from_dense(&dense.reshape((1, 2, 3, 4, 1)).unwrap()).unwrap();
        let same = sparse.to_voxels().unwrap();
        assert_eq!((same.sites(), same.shape(), same.channels()), (voxels.sites(), voxels.shape(), voxels.channels()));
    }

    #[test]
    fn one_band_stands_on_its_own_lattice_under_its_name() {
        let ball = SdfGrid::from_fn([16; 3], |p| p.iter().map(|v| v * v).sum::<f32>().sqrt() - 0.5).unwrap();
        let config = crate::wavelet::WaveletConfig { level: 2, ..Default::default() };
        let band = ball.encode(&config).unwrap().band("aad2").unwrap();
        let voxels = band.to_voxels().unwrap();
        assert_eq!((voxels.shape(), voxels.names()), ([4; 3], ["aad2".to_owned()].as_slice()));
        assert_eq!(voxels.channels()[0], band.values());
    }

    #[test]
    fn bad_sites_and_channels_are_named() {
        let outside = Voxels::new(vec![[0, 4, 0]], [4, 4, 4], vec![]).unwrap_err().to_string();
        assert!(outside.contains("[0, 4, 0]") && outside.contains("[4, 4, 4]"), "{outside}");
        assert!(Voxels::new(vec![[0, 0, 0]], [4, 4, 4], vec![vec![]]).is_err());
        let batch =
            SparseConvTensor::from_dense(&Tensor::ones((1, 2, 2, 2, 1), DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert!(Voxels::of_batch(&batch, 1).unwrap_err().to_string().contains("batch size 1"));
    }

    #[test]
    fn occupancy_answers_alike_in_small_and_huge_boxes() {
        for reach in [5, 1_000_000] {
            let sites = vec![[0, 0, 0], [reach, reach, 2], [3, 1, 2]];
            let voxels = Voxels::new(sites.clone(), [reach as usize + 1; 3], vec![]).unwrap();
            let occupancy = Occupancy::new(&voxels);
            assert!(sites.iter().all(|site| occupancy.contains(*site)));
            assert!(
                !occupancy.contains([1, 0, 0])
                    && !occupancy.contains([-1, 0, 0])
                    && !occupancy.contains([reach + 1, 0, 0])
            );
        }
    }
}
