//! [`Voxelizer`]: turns points into voxels by spconv's rules.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::devoxelize::{Interpolation, devoxelize};
use crate::sparse::{Reduce, SparseConvTensor, scatter};
use crate::{Error, Result};

/// How points become voxels. Triples and ranges are (x, y, z), as in configurations of detectors.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct VoxelConfig {
    /// Sides of a voxel (x, y, z), in the unit of the points. Default 0.05.
    pub voxel_size: [f64; 3],
    /// Lowest and highest corner (x, y, z, x, y, z); points outside belong to no voxel. The default holds all points and starts at a
    /// multiple of the voxel size.
    pub range: Option<[f64; 6]>,
    /// How several points in one voxel are reduced. Default their mean.
    pub reduce: Reduce,
    /// How many points of a voxel count; later ones belong to the voxel but do not count, as in spconv. Default all.
    pub max_points_per_voxel: Option<usize>,
    /// The most voxels of one cloud; points that would need another voxel belong to none. Default all.
    pub max_voxels: Option<usize>,
}

impl Default for VoxelConfig {
    fn default() -> Self {
        Self {
            voxel_size: [0.05; 3],
            range: None,
            reduce: Reduce::default(),
            max_points_per_voxel: None,
            max_voxels: None,
        }
    }
}

setters! {
    VoxelConfig {
        voxel_size(voxel_size: [f64; 3]) => voxel_size = voxel_size;
        range(range: [f64; 6]) => range = Some(range);
        reduce(reduce: Reduce) => reduce = reduce;
        max_points_per_voxel(max_points_per_voxel: usize) => max_points_per_voxel = Some(max_points_per_voxel);
        max_voxels(max_voxels: usize) => max_voxels = Some(max_voxels);
    }
}

/// Puts points into voxels: spconv's `PointToVoxel` followed by a reduction, for batches of clouds.
///
/// The voxel of a point is `floor((point − lowest corner) / voxel size)`, computed in f32 like spconv, so that both agree about points on a
/// border. Points with a coordinate that is not finite belong to no voxel.
#[doc(alias = "PointToVoxel")]
#[derive(Clone, Debug)]
pub struct Voxelizer {
    config: VoxelConfig,
}

/// Voxels, and the way back to the points.
#[derive(Clone, Debug)]
pub struct VoxelizedPoints {
    /// One row for each voxel, ascending by (batch, z, y, x); one batch element for each cloud.
    pub tensor: SparseConvTensor,
    /// The row of each point's voxel, cloud after cloud; `None` for points outside the range and beyond `max_voxels`.
    pub inverse: Vec<Option<u32>>,
    /// Number of points that count in each voxel.
    pub counts: Vec<u32>,
    /// The lowest corner of voxel (0, 0, 0), as (x, y, z).
    pub origin: [f64; 3],
    /// Sides of a voxel (x, y, z).
    pub voxel_size: [f64; 3],
    /// Position of each point on the grid: batch, z, y, x; voxel 0 reaches from 0 to 1.
    positions: Vec<[f32; 4]>,
}

impl Voxelizer {
    /// A voxelizer with these settings.
    ///
    /// # Errors
    /// A voxel size that is not positive, a range without extent, or a limit of 0.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let car = VoxelConfig::new().voxel_size([0.05, 0.05, 0.1]).range([0.0, -40.0, -3.0, 70.4, 40.0, 1.0]); // KITTI's
    /// assert!(Voxelizer::new(car.clone()).is_ok());
    /// assert!(Voxelizer::new(car.voxel_size([0.05, 0.05, 0.0])).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: VoxelConfig) -> Result<Self> {
        let argument = |name, got: String, expected: &str| Error::Argument {
            op: "Voxelizer",
            name,
            got,
            expected: expected.into(),
        };
        if config.voxel_size.iter().any(|&size| size <= 0.0 || !size.is_finite()) {
            return Err(argument("voxel_size", format!("{:?}", config.voxel_size), "three positive lengths (x, y, z)"));
        }
        if let Some(range) = config.range
            && !(0..3).all(|a| range[a].is_finite() && range[a + 3].is_finite() && range[a] < range[a + 3])
        {
            return Err(argument("range", format!("{range:?}"), "the lowest corner (x, y, z), then the highest"));
        }
        for (name, limit) in [("max_points_per_voxel", config.max_points_per_voxel), ("max_voxels", config.max_voxels)]
        {
            if limit == Some(0) {
                return Err(argument(name, "0".into(), "1 or more, or None"));
            }
        }
        Ok(Self { config })
    }

    /// The settings.
    pub fn config(&self) -> &VoxelConfig {
        &self.config
    }

    /// The voxels of a batch of clouds, each (points, 3 + C) of floats with x, y, z first. All columns of a point are its features, as in
    /// detectors; [`voxelize_features`](Self::voxelize_features) takes other features.
    ///
    /// # Errors
    /// No clouds, clouds of another shape or type, or a grid that is too large.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let points = Tensor::new(&[[0.1f32, 0.1, 0.1, 5.0], [0.3, 0.1, 0.1, 7.0], [0.9, 0.1, 0.1, 1.0]], &Device::Cpu)?; // x, y, z, intensity
    /// let config = VoxelConfig::new().voxel_size([0.5; 3]).range([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    /// let voxels = Voxelizer::new(config)?.voxelize(&[&points])?;
    /// assert_eq!(voxels.tensor.coords(), [[0, 0, 0, 0], [0, 0, 0, 1]]); // batch, z, y, x
    /// assert_eq!(voxels.tensor.features().get(0)?.to_vec1::<f32>()?, [0.2, 0.1, 0.1, 6.0]); // the mean of two points
    /// assert_eq!(voxels.inverse, [Some(0), Some(0), Some(1)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn voxelize(&self, clouds: &[&Tensor]) -> Result<VoxelizedPoints> {
        self.check(clouds)?;
        let features = Tensor::cat(clouds, 0)?;
        self.voxelize_features(clouds, &features)
    }

    /// Like [`voxelize`](Self::voxelize), with `features` (all points, C) in place of the points' columns. Differentiable in `features`.
    ///
    /// # Errors
    /// The errors of [`voxelize`](Self::voxelize); or features that do not have one row for each point.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let points = Tensor::new(&[[0.1f32, 0.1, 0.1], [0.3, 0.1, 0.1], [0.9, 0.1, 0.1]], &Device::Cpu)?;
    /// let colours = Tensor::new(&[[10f32], [30.0], [50.0]], &Device::Cpu)?;
    /// let voxels = Voxelizer::new(VoxelConfig::new().voxel_size([0.5; 3]))?.voxelize_features(&[&points], &colours)?;
    /// assert_eq!(voxels.tensor.features().to_vec2::<f32>()?, [[20.0], [50.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn voxelize_features(&self, clouds: &[&Tensor], features: &Tensor) -> Result<VoxelizedPoints> {
        self.check(clouds)?;
        let mut points: Vec<[f32; 3]> = Vec::new();
        let mut ends = Vec::new();
        for cloud in clouds {
            let xyz = cloud.narrow(1, 0, 3)?.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            points.extend(xyz.flatten_all()?.to_vec1::<f32>()?.as_chunks::<3>().0);
            ends.push(points.len());
        }
        let frame = Frame::new(&self.config, &points)?;
        let cells: Vec<Option<[i32; 3]>> =
            points.par_iter().with_min_len(1 << 12).map(|&point| frame.cell(point)).collect();
        let mut batches: Vec<Range<usize>> = Vec::new();
        for &end in &ends {
            batches.push(batches.last().map_or(0, |last| last.end)..end);
        }
        let mut coords: Vec<[i32; 4]> = Vec::new();
        let mut inverse = vec![None; points.len()];
        for (batch, range) in batches.iter().enumerate() {
            self.number(batch as i32, range.clone(), &cells, &mut coords, &mut inverse);
        }
        let (counted, counts) = self.counted(&inverse, coords.len());
        let features = scatter(features, &counted, coords.len(), self.config.reduce)?;
        let tensor = SparseConvTensor::from_coords(features, coords, frame.shape, clouds.len())?;
        let mut positions = Vec::with_capacity(points.len());
        for (batch, range) in batches.into_iter().enumerate() {
            positions.extend(points[range].iter().map(|&point| frame.position(batch, point)));
        }
        let (origin, voxel_size) = (frame.low.map(f64::from), self.config.voxel_size);
        Ok(VoxelizedPoints { tensor, inverse, counts, origin, voxel_size, positions })
    }

    fn check(&self, clouds: &[&Tensor]) -> Result<()> {
        const OP: &str = "voxelize";
        let Some(first) = clouds.first() else {
            return Err(Error::Argument { op: OP, name: "clouds", got: "none".into(), expected: "one or more".into() });
        };
        for cloud in clouds {
            if !cloud.dtype().is_float() {
                return Err(Error::DType { op: OP, what: "points", got: cloud.dtype(), expected: "a float type" });
            }
            if !matches!(cloud.dims(), &[_, columns] if columns >= 3 && columns == first.dims()[1]) {
                let (got, expected) =
                    (cloud.dims().to_vec(), "(points, 3 + C), x, y, z first, as many columns in each cloud".into());
                return Err(Error::Shape { op: OP, what: "points", got, expected });
            }
        }
        Ok(())
    }

    /// Gives the voxels of one cloud their rows, in ascending order. With a limit, it takes the voxels that come first.
    fn number(
        &self,
        batch: i32,
        range: Range<usize>,
        cells: &[Option<[i32; 3]>],
        coords: &mut Vec<[i32; 4]>,
        inverse: &mut [Option<u32>],
    ) {
        let mut order: Vec<([i32; 3], u32)> =
            range.clone().filter_map(|point| cells[point].map(|cell| (cell, point as u32))).collect();
        order.par_sort_unstable();
        // Runs of equal cells; each begins with the point that came first.
        let mut runs: Vec<&[([i32; 3], u32)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
        if let Some(most) = self.config.max_voxels.filter(|&most| most < runs.len()) {
            runs.sort_unstable_by_key(|run| run[0].1);
            runs.truncate(most);
            runs.sort_unstable_by_key(|run| run[0].0);
        }
        for run in runs {
            let row = coords.len() as u32;
            let [z, y, x] = run[0].0;
            coords.push([batch, z, y, x]);
            run.iter().for_each(|&(_, point)| inverse[point as usize] = Some(row));
        }
    }

    /// The voxel of each point that counts, and the number of such points in each voxel.
    fn counted(&self, inverse: &[Option<u32>], voxels: usize) -> (Vec<Option<u32>>, Vec<u32>) {
        let most = self.config.max_points_per_voxel.unwrap_or(usize::MAX) as u64;
        let mut counts = vec![0u32; voxels];
        let counted = inverse.iter().map(|&row| {
            row.filter(|&row| {
                let count = &mut counts[row as usize];
                let counts = u64::from(*count) < most;
                *count += u32::from(counts);
                counts
            })
        });
        (counted.collect(), counts)
    }
}

impl VoxelizedPoints {
    /// Features (points, C) of `tensor` at every point. `tensor` must be on the grid of these voxels (a network's output, with rows in any
    /// order). [`Interpolation::Nearest`] gives a point the features of its own voxel; the others blend the features of the voxels whose
    /// centres surround it. Points without a voxel get zeros. Differentiable.
    ///
    /// # Errors
    /// A tensor on a grid of another shape.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let points = Tensor::new(&[[0.1f32, 0.1, 0.1], [0.3, 0.1, 0.1], [0.9, 0.1, 0.1]], &Device::Cpu)?;
    /// let voxels = Voxelizer::new(VoxelConfig::new().voxel_size([0.5; 3]))?.voxelize(&[&points])?;
    /// let scores = voxels.tensor.replace_feature(Tensor::new(&[[10f32], [20.0]], &Device::Cpu)?)?; // a network's
    /// let of_points = voxels.devoxelize(&scores, Interpolation::Nearest)?;
    /// assert_eq!(of_points.to_vec2::<f32>()?, [[10.0], [10.0], [20.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn devoxelize(&self, tensor: &SparseConvTensor, interpolation: Interpolation) -> Result<Tensor> {
        if tensor.spatial_shape() != self.tensor.spatial_shape() || tensor.batch_size() != self.tensor.batch_size() {
            let kind =
                |x: &SparseConvTensor| format!("a {:?} grid of batch size {}", x.spatial_shape(), x.batch_size());
            return Err(Error::Argument {
                op: "devoxelize",
                name: "tensor",
                got: kind(tensor),
                expected: format!("the voxels' grid, {}", kind(&self.tensor)),
            });
        }
        let at: Vec<[f32; 4]> = self
            .positions
            .iter()
            .zip(&self.inverse)
            .map(
                |(&[b, z, y, x], row)| {
                    if row.is_some() { [b, z - 0.5, y - 0.5, x - 0.5] } else { [b, f32::NAN, f32::NAN, f32::NAN] }
                },
            )
            .collect();
        devoxelize(tensor, &Tensor::from_vec(at.concat(), (at.len(), 4), tensor.device())?, interpolation)
    }

    /// Positions (points, 4) on the grid: batch, z, y, x; voxel 0 reaches from 0 to 1.
    ///
    /// # Errors
    /// An error of candle about the device of the tensor.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let points = Tensor::new(&[[0.25f32, 0.5, 0.75]], &Device::Cpu)?; // x, y, z
    /// let config = VoxelConfig::new().voxel_size([0.5; 3]).range([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    /// let voxels = Voxelizer::new(config)?.voxelize(&[&points])?;
    /// assert_eq!(voxels.positions()?.to_vec2::<f32>()?, [[0.0, 1.5, 1.0, 0.5]]); // batch, z, y, x
    /// # Ok::<(), Error>(())
    /// ```
    pub fn positions(&self) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.positions.concat(), (self.positions.len(), 4), self.tensor.device())?)
    }
}

/// The place of the grid.
struct Frame {
    low: [f32; 3],
    size: [f32; 3],
    /// (z, y, x)
    shape: [usize; 3],
}

impl Frame {
    fn new(config: &VoxelConfig, points: &[[f32; 3]]) -> Result<Self> {
        let size = config.voxel_size;
        let (low, cells): ([f64; 3], [f64; 3]) = match config.range {
            Some(range) => {
                let low = [range[0], range[1], range[2]];
                (low, std::array::from_fn(|a| ((range[a + 3] - range[a]) / size[a]).round()))
            }
            None => {
                let mut bounds = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
                for point in points.iter().filter(|point| point.iter().all(|v| v.is_finite())) {
                    for a in 0..3 {
                        bounds[0][a] = bounds[0][a].min(point[a].into());
                        bounds[1][a] = bounds[1][a].max(point[a].into());
                    }
                }
                let [low, high] = if bounds[0][0].is_finite() { bounds } else { [[0.0; 3]; 2] };
                let low: [f64; 3] = std::array::from_fn(|a| (low[a] / size[a]).floor() * size[a]);
                // Rounding to f32 may move the last point one cell too far.
                (low, std::array::from_fn(|a| ((high[a] - low[a]) / size[a]).floor() + 2.0))
            }
        };
        if cells.iter().any(|&n| !(1.0..=f64::from(i32::MAX)).contains(&n)) {
            return Err(Error::Argument {
                op: "voxelize",
                name: "voxel_size",
                got: format!("{size:?} for a range of {cells:?} voxels"),
                expected: format!("1 to {} voxels on each axis", i32::MAX),
            });
        }
        let [x, y, z] = cells.map(|n| n as usize);
        Ok(Self { low: low.map(|v| v as f32), size: size.map(|v| v as f32), shape: [z, y, x] })
    }

    /// (z, y, x) of a point's voxel; `None` outside the grid.
    fn cell(&self, point: [f32; 3]) -> Option<[i32; 3]> {
        let mut cell = [0; 3];
        for a in 0..3 {
            let at = ((point[a] - self.low[a]) / self.size[a]).floor();
            // Written without `||`, so that NaN is outside too.
            let inside = at >= 0.0 && at < self.shape[2 - a] as f32;
            if !inside {
                return None;
            }
            cell[2 - a] = at as i32;
        }
        Some(cell)
    }

    fn position(&self, batch: usize, point: [f32; 3]) -> [f32; 4] {
        let [x, y, z] = std::array::from_fn(|a| (point[a] - self.low[a]) / self.size[a]);
        [batch as f32, z, y, x]
    }
}
