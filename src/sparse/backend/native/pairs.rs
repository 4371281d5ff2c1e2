//! The pairs of a kernel map, for users. The CPU finds them, whichever backend computes the layers.

use std::sync::Arc;

use super::Walk;
use super::tiles::{TILE, Tiles};
use crate::sparse::backend::Flow;
use crate::sparse::kernel_map::KernelMap;

impl KernelMap {
    fn tiles(&self) -> Arc<Tiles> {
        Walk::of(&Flow::forward(self)).tiles
    }

    /// The rows (input, output) that kernel offset `offset` joins, by ascending output. Offsets are numbered like the weights, (z·ky +
    /// y)·kx + x. Empty if the kernel has no such offset.
    pub fn pairs(&self, offset: usize) -> Vec<(usize, usize)> {
        if offset >= self.geometry.volume() {
            return Vec::new();
        }
        let tiles = self.tiles();
        let [source, target] = [&self.source, &self.target].map(|sites| sites.order().rows());
        let row = |rows: Option<&[u32]>, number| rows.map_or(number, |rows| rows[number] as usize);
        let pairs = tiles.tiles.iter().enumerate().flat_map(|(number, tile)| {
            let (targets, sources) = tile.pairs(offset);
            let pairs = targets.iter().zip(sources);
            pairs.map(move |(&t, &s)| (row(source, s as usize), row(target, number * TILE + t as usize)))
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable_by_key(|&(_, output)| output);
        pairs
    }

    /// Number of pairs of all offsets. A convolution takes this many multiply-adds times its input channels times its output channels.
    pub fn num_pairs(&self) -> usize {
        self.tiles().len()
    }
}
