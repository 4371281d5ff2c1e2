//! The output sites of regular and transposed convolutions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::tiles::axis_table;
use crate::sparse::geometry::{Geometry, OutputSites};
use crate::sparse::grid::Grid;
use crate::sparse::lookup::Lookup;
use crate::sparse::sites::Sites;

const CHUNK: usize = 1 << 12;

/// The active sites of the output grid, ascending. On small grids each input marks its outputs in a bitmap, which then finds the new sites;
/// on large grids the outputs are sorted.
pub(in crate::sparse::backend) fn output_sites(source: &Sites, geometry: &Geometry, grid: Grid) -> Sites {
    let reached = Reached::new(source, geometry, grid);
    // An input reaches at most one output per offset, and neighbouring inputs share outputs.
    let expected = source.len() as u64 * geometry.volume().min(8) as u64;
    let words = grid.cells().div_ceil(64);
    let (lookup, keys) = if words <= (1 << 16) + 4 * expected {
        let bits: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        source.coords().par_iter().with_min_len(CHUNK).for_each(|&site| {
            reached.by(site, |key| {
                bits[(key / 64) as usize].fetch_or(1 << (key % 64), Relaxed);
            });
        });
        Lookup::from_bitmap(bits.into_iter().map(AtomicU64::into_inner).collect())
    } else {
        let mut keys: Vec<u64> = source
            .coords()
            .par_chunks(CHUNK)
            .flat_map_iter(|sites| {
                let mut keys = Vec::new();
                sites.iter().for_each(|&site| reached.by(site, |key| keys.push(key)));
                keys.sort_unstable();
                keys.dedup();
                keys
            })
            .collect();
        keys.par_sort_unstable();
        keys.dedup();
        (Lookup::distinct(&keys, grid.cells()), keys)
    };
    Sites::from_sorted_keys(grid, &keys, lookup)
}

/// The outputs that an input reaches.
struct Reached {
    /// For each axis and tap, the output coordinate of each input coordinate, or -1.
    tables: [Vec<Vec<i32>>; 3],
    grid: Grid,
}

impl Reached {
    fn new(source: &Sites, geometry: &Geometry, grid: Grid) -> Self {
        let from = source.grid();
        let tables = match geometry.output_sites {
            OutputSites::Reachable => {
                let rule = geometry.gather().reversed();
                std::array::from_fn(|axis| axis_table(rule, axis, geometry.kernel[axis], from, grid))
            }
            OutputSites::Strided => std::array::from_fn(|axis| {
                let inside = |&o: &usize| o < grid.shape[axis];
                let output = |i: usize| Some(i / geometry.stride[axis]).filter(inside).map_or(-1, |o| o as i32);
                vec![(0..from.shape[axis]).map(output).collect()]
            }),
        };
        Self { tables, grid }
    }

    #[inline]
    fn by(&self, [b, z, y, x]: [i32; 4], mut mark: impl FnMut(u64)) {
        let [zs, ys, xs] = &self.tables;
        for z in zs.iter().map(|zs| zs[z as usize]).filter(|&z| z >= 0) {
            for y in ys.iter().map(|ys| ys[y as usize]).filter(|&y| y >= 0) {
                for x in xs.iter().map(|xs| xs[x as usize]).filter(|&x| x >= 0) {
                    mark(self.grid.pack([b, z, y, x]));
                }
            }
        }
    }
}
