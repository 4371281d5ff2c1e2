//! The occupied cells of a sparse tensor; all tensors with these sites share them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use rayon::prelude::*;

use super::geometry::Geometry;
use super::grid::Grid;
use super::kept::Kept;
use super::lookup::{Duplicate, Lookup};
use super::order::Order;
use crate::sync::lock;
use crate::{Error, Result};

/// The part of a kernel map that is kept with its source sites.
#[derive(Debug)]
pub(crate) struct MapBody {
    /// Output sites; `None` for a submanifold map, whose output sites are its input sites.
    pub target: Option<Arc<Sites>>,
    /// What backends have built for it.
    pub kept: Kept,
}

/// Sites in the order of a tensor's rows, their lookup, and the kernel maps that start from them.
#[derive(Debug)]
pub(crate) struct Sites {
    grid: Grid,
    coords: Vec<[i32; 4]>,
    /// Built when it is first needed, unless the sites were found with a lookup.
    lookup: OnceLock<Lookup>,
    /// Maps that were built from these sites, so that a second pass over the same sites (the next step of a sampler, the next epoch) builds
    /// none. A map does not point back here, so there is no cycle.
    maps: Mutex<HashMap<Geometry, Arc<MapBody>>>,
    /// What was built from these sites alone.
    kept: Kept,
}

impl Sites {
    /// Checks that each site (batch, z, y, x) is on the grid and occurs once, and indexes them.
    pub fn new(op: &'static str, grid: Grid, coords: Vec<[i32; 4]>) -> Result<Self> {
        let bad = |got: String, expected: String| Error::Argument { op, name: "indices", got, expected };
        if coords.len() >= u32::MAX as usize {
            return Err(bad(format!("{} rows", coords.len()), format!("fewer than {} rows", u32::MAX)));
        }
        if let Some(row) = coords.par_iter().with_min_len(1 << 14).position_first(|&site| !grid.contains(site)) {
            let [d, h, w] = grid.shape;
            return Err(bad(
                format!("{:?} (batch, z, y, x) in row {row}", coords[row]),
                format!(
                    "a site of the grid: batch in 0..{}, z in 0..{d}, y in 0..{h}, x in 0..{w}; \
                     check spatial_shape, batch_size and the order of the columns",
                    grid.batch
                ),
            ));
        }
        let keys: Vec<u64> = coords.par_iter().with_min_len(1 << 14).map(|&site| grid.pack(site)).collect();
        let lookup = Lookup::new(&keys, grid.cells()).map_err(|Duplicate { first, second }| {
            bad(
                format!("{:?} (batch, z, y, x) in both row {first} and row {second}", coords[first]),
                "each site once; SparseConvTensor::coalesce sums the features of equal sites".into(),
            )
        })?;
        Ok(Self::from_parts(grid, coords, lookup.into()))
    }

    /// Sites that are known to be ascending, distinct and on the grid.
    pub fn from_sorted_keys(grid: Grid, keys: &[u64], lookup: Lookup) -> Self {
        let coords = keys.par_iter().with_min_len(1 << 14).map(|&key| grid.unpack(key)).collect();
        Self::from_parts(grid, coords, lookup.into())
    }

    /// Sites that are known to be ascending, distinct and on the grid, without a lookup so far.
    #[cfg(feature = "cuda")]
    pub fn from_ascending(grid: Grid, coords: Vec<[i32; 4]>) -> Self {
        Self::from_parts(grid, coords, OnceLock::new())
    }

    fn from_parts(grid: Grid, coords: Vec<[i32; 4]>, lookup: OnceLock<Lookup>) -> Self {
        Self { grid, coords, lookup, maps: Mutex::default(), kept: Kept::default() }
    }

    /// The kernel maps that start from these sites.
    pub fn maps(&self) -> MutexGuard<'_, HashMap<Geometry, Arc<MapBody>>> {
        lock(&self.maps)
    }

    /// What was built from these sites alone, for later passes over them.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    pub fn grid(&self) -> Grid {
        self.grid
    }

    pub fn coords(&self) -> &[[i32; 4]] {
        &self.coords
    }

    pub fn lookup(&self) -> &Lookup {
        if let Some(lookup) = self.lookup.get() {
            return lookup;
        }
        // Built without the lock, since this uses threads that may wait for the lock.
        let keys: Vec<u64> = self.coords.par_iter().with_min_len(1 << 14).map(|&site| self.grid.pack(site)).collect();
        let built = Lookup::distinct(&keys, self.grid.cells());
        self.lookup.get_or_init(|| built)
    }

    /// The order of the rows.
    pub fn order(&self) -> &Order {
        self.lookup().order()
    }

    pub fn len(&self) -> usize {
        self.coords.len()
    }

    /// The row of a site, if it is occupied.
    pub fn find(&self, site: [i32; 4]) -> Option<u32> {
        if self.grid.contains(site) { self.lookup().find(self.grid.pack(site)) } else { None }
    }

    /// Whether two sets hold the same sites in the same order on the same grid.
    pub fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.grid == other.grid && self.coords == other.coords)
    }
}
