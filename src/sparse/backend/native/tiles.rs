//! Kernel maps in the form that the kernels read: for each tile of output rows and each kernel offset, the pairs
//! (output row, input row).
//!
//! A tile's outputs stay in cache while all offsets pass over them, each output is written by one thread, and the order of
//! additions does not depend on the number of threads.

use rayon::prelude::*;

use crate::sparse::backend::Flow;
use crate::sparse::geometry::SourceRule;
use crate::sparse::grid::Grid;
use crate::sparse::lookup::Word;

/// Output rows of a tile; a row within a tile is a `u8`.
pub(crate) const TILE: usize = 128;

/// The pairs of a kernel map, tile by tile.
#[derive(Debug)]
pub(crate) struct Tiles {
    pub tiles: Vec<Tile>,
}

/// The pairs whose outputs are rows `TILE·t` to `TILE·t + TILE`, offset by offset.
#[derive(Debug)]
pub(crate) struct Tile {
    /// Pairs of offset r are `starts[r]..starts[r + 1]`.
    starts: Vec<u32>,
    targets: Vec<u8>,
    sources: Vec<u32>,
}

impl Tile {
    /// The output rows (within the tile) and input rows that offset `r` joins, ascending.
    #[inline]
    pub fn pairs(&self, r: usize) -> (&[u8], &[u32]) {
        let range = self.starts[r] as usize..self.starts[r + 1] as usize;
        (&self.targets[range.clone()], &self.sources[range])
    }

    /// Number of kernel offsets.
    pub fn volume(&self) -> usize {
        self.starts.len() - 1
    }

    /// Pairs of all offsets.
    pub fn all(&self) -> impl Iterator<Item = (usize, usize)> {
        self.targets.iter().zip(&self.sources).map(|(&t, &s)| (t as usize, s as usize))
    }
}

impl Tiles {
    /// Finds the pairs of a flow, tiles in parallel.
    pub fn new(flow: &Flow) -> Self {
        let search = Search::new(flow);
        let coords = flow.target().coords();
        let tiles = coords.par_chunks(TILE).map_init(|| search.scratch(), |scratch, rows| search.tile(rows, scratch));
        Self { tiles: tiles.collect() }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.tiles.iter().map(|tile| tile.sources.len()).sum()
    }
}

/// For each kernel tap on one axis and each target coordinate, the source coordinate, or -1.
pub(super) fn axis_table(rule: SourceRule, axis: usize, taps: usize, target: Grid, source: Grid) -> Vec<Vec<i32>> {
    let inside = |&s: &i64| (0..source.shape[axis] as i64).contains(&s);
    let source_of = |t, r| rule.source(axis, t, r).filter(inside).map_or(-1, |s| s as i32);
    (0..taps).map(|r| (0..target.shape[axis] as i64).map(|t| source_of(t, r)).collect()).collect()
}

struct Search<'a> {
    flow: &'a Flow,
    tables: [Vec<Vec<i32>>; 3],
}

#[derive(Default)]
struct Scratch {
    /// The word that each (z, y) tap read last: neighbouring sites mostly read it again.
    words: Vec<(u64, Word)>,
    found: Vec<(u32, u8, u32)>,
    counts: Vec<u32>,
}

impl<'a> Search<'a> {
    fn new(flow: &'a Flow) -> Self {
        let [target, source] = [flow.target().grid(), flow.source().grid()];
        let kernel = flow.map.geometry.kernel;
        let tables = std::array::from_fn(|axis| axis_table(flow.rule(), axis, kernel[axis], target, source));
        Self { flow, tables }
    }

    fn scratch(&self) -> Scratch {
        let [zs, ys, _] = &self.tables;
        Scratch { words: vec![(u64::MAX, Word::default()); zs.len() * ys.len()], ..Default::default() }
    }

    fn tile(&self, rows: &[[i32; 4]], Scratch { words, found, counts }: &mut Scratch) -> Tile {
        let [zs, ys, xs] = &self.tables;
        let grid = self.flow.source().grid();
        let [depth, height, width] = grid.shape.map(|n| n as u64);
        let lookup = self.flow.source().lookup();
        let taps = xs.len();
        let volume = zs.len() * ys.len() * xs.len();
        counts.clear();
        counts.resize(volume + 1, 0);
        found.clear();
        for (target, &[b, z, y, x]) in rows.iter().enumerate() {
            let mut line = 0; // (z, y) tap
            for zs in zs {
                let sz = zs[z as usize];
                if sz < 0 {
                    line += ys.len();
                    continue;
                }
                let plane = (b as u64 * depth + sz as u64) * height;
                for ys in ys {
                    let sy = ys[y as usize];
                    if sy >= 0 {
                        let start = (plane + sy as u64) * width;
                        let last = &mut words[line];
                        for (rx, xs) in xs.iter().enumerate() {
                            let sx = xs[x as usize];
                            if sx < 0 {
                                continue;
                            }
                            let key = start + sx as u64;
                            if last.0 != key / 64 {
                                *last = (key / 64, lookup.word(key / 64));
                            }
                            if let Some(rank) = last.1.rank_of((key % 64) as u32) {
                                let r = (line * taps + rx) as u32;
                                found.push((r, target as u8, lookup.row_of_rank(rank)));
                                counts[r as usize] += 1;
                            }
                        }
                    }
                    line += 1;
                }
            }
        }
        // Counting sort by offset; stable, so outputs ascend within an offset.
        let mut starts = Vec::with_capacity(volume + 1);
        let mut next = 0;
        for count in counts.iter_mut() {
            starts.push(next);
            next += std::mem::replace(count, next);
        }
        let (mut targets, mut sources) = (vec![0; found.len()], vec![0; found.len()]);
        for &(r, target, source) in found.iter() {
            let place = &mut counts[r as usize];
            targets[*place as usize] = target;
            sources[*place as usize] = source;
            *place += 1;
        }
        Tile { starts, targets, sources }
    }
}
