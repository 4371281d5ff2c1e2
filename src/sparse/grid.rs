//! The grid on which sites lie, and the packing of a site into one `u64`.
//!
//! A packed site is its row-major index over (batch, z, y, x), so ascending keys mean ascending (batch, z, y, x).

use crate::{Error, Result};

/// A batch of equal boxes of voxels: `batch` × `shape[0]` × `shape[1]` × `shape[2]` cells (batch, z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grid {
    pub batch: usize,
    pub shape: [usize; 3],
    /// Number of axes that users see: the last ones of (z, y, x). The others have one cell.
    pub axes: usize,
}

/// Size of a grid: `[z, y, x]`, or `[y, x]` or `[x]` for 2-D and 1-D tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridShape {
    pub(super) shape: [usize; 3],
    pub(super) axes: usize,
}

impl From<[usize; 3]> for GridShape {
    fn from(shape: [usize; 3]) -> Self {
        Self { shape, axes: 3 }
    }
}

impl From<[usize; 2]> for GridShape {
    fn from([h, w]: [usize; 2]) -> Self {
        Self { shape: [1, h, w], axes: 2 }
    }
}

impl From<[usize; 1]> for GridShape {
    fn from([w]: [usize; 1]) -> Self {
        Self { shape: [1, 1, w], axes: 1 }
    }
}

impl Grid {
    /// Checks that the grid has cells and that a packed site fits in 62 bits.
    pub fn new(op: &'static str, batch: usize, shape: impl Into<GridShape>) -> Result<Self> {
        let GridShape { shape, axes } = shape.into();
        if batch == 0 || batch > i32::MAX as usize {
            return Err(Error::Argument {
                op,
                name: "batch_size",
                got: batch.to_string(),
                expected: format!("1 to {}", i32::MAX),
            });
        }
        let fits = |n: &usize| (1..=i32::MAX as usize).contains(n);
        let cells = shape.iter().fold(batch as u128, |cells, &n| cells.saturating_mul(n as u128));
        if !shape.iter().all(fits) || cells >= 1 << 62 {
            return Err(Error::Argument {
                op,
                name: "spatial_shape",
                got: format!("{shape:?} with batch_size {batch}"),
                expected: format!("three sizes of 1 to {} and fewer than 2^62 cells in all", i32::MAX),
            });
        }
        Ok(Self { batch, shape, axes })
    }

    /// The same grid, of which users see the last `axes` of (z, y, x).
    pub fn with_axes(self, axes: usize) -> Self {
        Self { axes, ..self }
    }

    /// The sizes of the axes that users see.
    pub fn dims(&self) -> &[usize] {
        &self.shape[3 - self.axes..]
    }

    /// `factor` for the axes that users see, 1 for the others.
    pub fn factors(&self, factor: usize) -> [usize; 3] {
        std::array::from_fn(|axis| if axis + self.axes >= 3 { factor } else { 1 })
    }

    /// Names of the columns of sites.
    pub fn columns(&self) -> &'static str {
        ["batch, x", "batch, y, x", "batch, z, y, x"][self.axes - 1]
    }

    /// Number of cells in all batch elements.
    pub fn cells(&self) -> u64 {
        self.shape.iter().fold(self.batch as u64, |cells, &n| cells * n as u64)
    }

    /// The packed form of a site that is known to be inside.
    #[inline]
    pub fn pack(&self, [b, z, y, x]: [i32; 4]) -> u64 {
        let [d, h, w] = self.shape.map(|n| n as u64);
        ((b as u64 * d + z as u64) * h + y as u64) * w + x as u64
    }

    /// The site of a packed key.
    #[inline]
    pub fn unpack(&self, key: u64) -> [i32; 4] {
        let [d, h, w] = self.shape.map(|n| n as u64);
        let (rest, x) = (key / w, key % w);
        let (rest, y) = (rest / h, rest % h);
        [(rest / d) as i32, (rest % d) as i32, y as i32, x as i32]
    }

    /// Whether a site is inside the grid.
    #[inline]
    pub fn contains(&self, [b, z, y, x]: [i32; 4]) -> bool {
        let inside = |v: i32, n: usize| v >= 0 && (v as usize) < n;
        inside(b, self.batch) && inside(z, self.shape[0]) && inside(y, self.shape[1]) && inside(x, self.shape[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_a_bijection_that_keeps_the_order() {
        let grid = Grid::new("test", 2, [3, 4, 5]).unwrap();
        let sites: Vec<_> = (0..grid.cells()).map(|key| grid.unpack(key)).collect();
        assert!(sites.is_sorted() && sites.iter().all(|&site| grid.contains(site)));
        assert!(sites.iter().enumerate().all(|(key, &site)| grid.pack(site) == key as u64));
        assert!(!grid.contains([2, 0, 0, 0]) && !grid.contains([0, 0, -1, 0]) && !grid.contains([0, 0, 0, 5]));
    }

    #[test]
    fn a_grid_without_cells_or_with_too_many_is_refused() {
        assert!(Grid::new("test", 0, [1, 1, 1]).is_err());
        assert!(Grid::new("test", 1, [1, 0, 1]).is_err());
        assert!(Grid::new("test", 1, [1 << 21, 1 << 21, 1 << 21]).is_err());
    }
}
