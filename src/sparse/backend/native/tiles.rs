//! Kernel maps in the form that the kernels read: for each tile of outputs and each kernel offset, the pairs (output, input).
//! Both are numbered in the order of their sites, whatever the order of the tensor's rows ([`Order`](crate::sparse::order::Order)).
//!
//! A tile's outputs stay in cache while all offsets pass over them, each output is written by one thread, and the order of
//! additions does not depend on the number of threads.

use rayon::prelude::*;

use crate::allocator;
use crate::sparse::backend::Flow;
use crate::sparse::geometry::SourceRule;
use crate::sparse::grid::Grid;
use crate::sparse::lookup::Word;

/// Outputs of a tile; one within a tile is a `u8`.
pub(crate) const TILE: usize = 128;

/// The pairs of a kernel map, tile by tile.
#[derive(Debug)]
pub(crate) struct Tiles {
    pub tiles: Vec<Tile>,
}

/// The pairs of the outputs `TILE·t` to `TILE·t + TILE`, offset by offset.
#[derive(Debug)]
pub(crate) struct Tile {
    /// Pairs of offset r are `starts[r]..starts[r + 1]`.
    starts: Vec<u32>,
    targets: Vec<u8>,
    sources: Vec<u32>,
}

impl Tile {
    /// The outputs (within the tile) and inputs that offset `r` joins, ascending.
    #[inline]
    pub fn pairs(&self, r: usize) -> (&[u8], &[u32]) {
        let range = self.starts[r] as usize..self.starts[r + 1] as usize;
        (&self.targets[range.clone()], &self.sources[range])
    }

    /// Pairs of all offsets.
    pub fn all(&self) -> impl Iterator<Item = (usize, usize)> {
        self.targets.iter().zip(&self.sources).map(|(&t, &s)| (t as usize, s as usize))
    }
}

impl Tiles {
    /// Finds the pairs of a flow, tiles in parallel.
    pub fn new(flow: &Flow) -> Self {
        allocator::keep_freed_memory();
        let search = Search::new(flow);
        let target = flow.target();
        let rows = target.order().rows();
        let tile = |scratch: &mut Scratch, number: usize| {
            let outputs = number * TILE..target.len().min((number + 1) * TILE);
            let site = |output| target.coords()[rows.map_or(output, |rows| rows[output] as usize)];
            search.tile(outputs.map(site), scratch)
        };
        let tiles = (0..target.len().div_ceil(TILE)).into_par_iter().map_init(|| search.scratch(), tile);
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
    /// The number of each rank of the source, unless all are their own.
    numbers: Option<&'a [u32]>,
    /// Where the taps along x read cells side by side: tap 0 of target x reads cell `step·x − before`.
    run: Option<(i64, i64)>,
}

/// What the search of a tile works in.
#[derive(Default)]
struct Scratch {
    /// The word that each (z, y) tap read last: neighbouring sites mostly read it again.
    words: Vec<(u64, Word)>,
    /// The pairs of each offset: `counts[r]` of them, from place `r · TILE`.
    targets: Vec<u8>,
    sources: Vec<u32>,
    counts: Vec<u32>,
}

impl Scratch {
    #[inline]
    fn push(&mut self, r: usize, target: usize, source: u32) {
        let place = r * TILE + self.counts[r] as usize;
        self.targets[place] = target as u8;
        self.sources[place] = source;
        self.counts[r] += 1;
    }
}

impl<'a> Search<'a> {
    fn new(flow: &'a Flow) -> Self {
        let [target, source] = [flow.target().grid(), flow.source().grid()];
        let kernel = flow.map.geometry.kernel;
        let tables = std::array::from_fn(|axis| axis_table(flow.rule(), axis, kernel[axis], target, source));
        let run = match flow.rule() {
            SourceRule::Multiply(steps) if steps.dilation[2] == 1 && kernel[2] <= 32 => {
                Some((steps.stride[2] as i64, steps.padding[2] as i64))
            }
            _ => None,
        };
        Self { flow, tables, numbers: flow.source().order().numbers(), run }
    }

    #[inline]
    fn number(&self, rank: u32) -> u32 {
        self.numbers.map_or(rank, |numbers| numbers[rank as usize])
    }

    fn scratch(&self) -> Scratch {
        let [zs, ys, xs] = &self.tables;
        let lines = zs.len() * ys.len();
        let volume = lines * xs.len();
        Scratch {
            words: vec![(u64::MAX, Word::default()); lines],
            targets: vec![0; volume * TILE],
            sources: vec![0; volume * TILE],
            counts: vec![0; volume],
        }
    }

    fn tile(&self, sites: impl Iterator<Item = [i32; 4]>, scratch: &mut Scratch) -> Tile {
        let [zs, ys, xs] = &self.tables;
        let [depth, height, width] = self.flow.source().grid().shape.map(|n| n as u64);
        scratch.counts.fill(0);
        for (target, [b, z, y, x]) in sites.enumerate() {
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
                        match self.run {
                            Some((step, before)) => {
                                let first = x as i64 * step - before;
                                let tap = (-first).max(0);
                                let count = (width as i64 - first).min(xs.len() as i64) - tap;
                                if count > 0 {
                                    let cells = (start + (first + tap) as u64, count as u32);
                                    self.side_by_side(scratch, target, line, tap as usize, cells);
                                }
                            }
                            None => self.one_by_one(scratch, target, line, x as usize, start),
                        }
                    }
                    line += 1;
                }
            }
        }
        let Scratch { targets, sources, counts, .. } = scratch;
        let mut starts = Vec::with_capacity(counts.len() + 1);
        starts.push(0);
        starts.extend(counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }));
        let pairs = starts[counts.len()] as usize;
        let mut tile = Tile { starts, targets: Vec::with_capacity(pairs), sources: Vec::with_capacity(pairs) };
        for (r, &count) in counts.iter().enumerate() {
            let range = r * TILE..r * TILE + count as usize;
            tile.targets.extend_from_slice(&targets[range.clone()]);
            tile.sources.extend_from_slice(&sources[range]);
        }
        tile
    }

    /// The pairs of `count` taps that read the cells from `key` on: one word or two hold them all, and their ranks follow
    /// one another.
    #[inline]
    fn side_by_side(&self, scratch: &mut Scratch, target: usize, line: usize, tap: usize, (key, count): (u64, u32)) {
        let lookup = self.flow.source().lookup();
        let (number, bit) = (key / 64, (key % 64) as u32);
        let word = self.word(scratch, line, number);
        let mut bits = word.bits >> bit;
        let mut rank = word.rank + (word.bits & ((1 << bit) - 1)).count_ones();
        if bit + count > 64 {
            let next = lookup.word(number + 1);
            if bits == 0 {
                rank = next.rank;
            }
            bits |= next.bits << (64 - bit);
        }
        bits &= (1 << count) - 1;
        let r = line * self.tables[2].len() + tap;
        while bits != 0 {
            scratch.push(r + bits.trailing_zeros() as usize, target, self.number(rank));
            rank += 1;
            bits &= bits - 1;
        }
    }

    /// The pairs of the taps along x whose cells lie apart, on the line of cells that begins at `start`.
    #[inline]
    fn one_by_one(&self, scratch: &mut Scratch, target: usize, line: usize, x: usize, start: u64) {
        let xs = &self.tables[2];
        for (tap, cells) in xs.iter().enumerate() {
            let sx = cells[x];
            if sx < 0 {
                continue;
            }
            let key = start + sx as u64;
            let word = self.word(scratch, line, key / 64);
            if let Some(rank) = word.rank_of((key % 64) as u32) {
                scratch.push(line * xs.len() + tap, target, self.number(rank));
            }
        }
    }

    #[inline]
    fn word(&self, scratch: &mut Scratch, line: usize, number: u64) -> Word {
        let last = &mut scratch.words[line];
        if last.0 != number {
            *last = (number, self.flow.source().lookup().word(number));
        }
        last.1
    }
}
