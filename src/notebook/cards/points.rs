//! The cards of points: of a cloud, and of its voxels.

use super::{Facts, STATISTICS_HEADER, Table, picture_card, statistics_row};
use crate::notebook::html::{count, number};
use crate::notebook::{MimeBundle, PointPlot, Rich, VoxelPlot};
use crate::points::{PointCloud, VoxelizedPoints};

impl Rich for PointCloud {
    fn rich(&self) -> MimeBundle {
        let facts: Facts = vec![("points", count(self.len() as u64)), ("channels", self.channels().len().to_string())];
        let names = ["x", "y", "z"].into_iter().map(String::from).chain(self.channels().iter().cloned());
        let width = 3 + self.channels().len();
        let flat: Vec<f32> = self.points().flatten_all().and_then(|flat| flat.to_vec1()).unwrap_or_default();
        let row = |(column, name)| statistics_row(name, flat.iter().skip(column).step_by(width).copied());
        let table = Table::new(STATISTICS_HEADER.to_vec(), names.enumerate().map(row));
        let picture = (!self.is_empty()).then(|| PointPlot::new(self)?.size(420, 320).picture());
        picture_card("PointCloud", &facts, Some(&table), picture)
    }
}

impl Rich for VoxelizedPoints {
    fn rich(&self) -> MimeBundle {
        let kept = self.inverse.iter().flatten().count();
        let most = self.counts.iter().max().copied().unwrap_or(0);
        let [d, h, w] = self.tensor.spatial_shape();
        let side = self.voxel_size.map(number).join(" × ");
        let facts: Facts = vec![
            ("points", count(self.inverse.len() as u64)),
            ("in voxels", count(kept as u64)),
            ("voxels", count(self.tensor.len() as u64)),
            ("grid", format!("{d}×{h}×{w} (z, y, x)")),
            ("voxel", format!("{side} (x, y, z)")),
            ("most points in one", count(u64::from(most))),
        ];
        let picture = (!self.tensor.is_empty()).then(|| {
            VoxelPlot::new(&self.tensor)?.up(crate::notebook::Axis::Z).fit_occupied().size(420, 320).picture()
        });
        picture_card("Voxels of points", &facts, None, picture)
    }
}
