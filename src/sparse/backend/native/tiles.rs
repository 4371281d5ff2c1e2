//! Kernel maps in the form that the kernels read: for each tile of outputs and each kernel offset, the pairs (output, input). Outputs and
//! inputs are numbered in the order of their sites, whatever the order of the tensor's rows ([`Order`](crate::sparse::order::Order)).
//!
//! A tile's outputs stay in cache while all offsets are applied to them. One thread writes each output, and the order of additions does not
//! depend on the number of threads.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::sparse::backend::{Flow, simd};
use crate::sparse::geometry::{Kind, SourceRule};
use crate::sparse::grid::Grid;
use crate::sparse::lookup::Word;

/// Outputs per tile; an output's place in its tile fits a `u8`.
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

    /// The pairs of all offsets.
    pub fn all(&self) -> impl Iterator<Item = (usize, usize)> {
        self.targets.iter().zip(&self.sources).map(|(&t, &s)| (t as usize, s as usize))
    }
}

impl Tiles {
    /// Finds the pairs of a flow, tiles in parallel.
    pub fn new(flow: &Flow) -> Self {
        // If numbers ascend with the sites, the second half of a submanifold kernel follows from its first half.
        if flow.map.geometry.kind == Kind::Submanifold && flow.source().order().numbers().is_none() {
            let centre = flow.map.geometry.volume() / 2;
            let halves = Self::search(flow, centre);
            return Self { tiles: mirrored(&halves, centre, flow.target().len()) };
        }
        Self { tiles: Self::search(flow, flow.map.geometry.volume()) }
    }

    /// The pairs of the first `offsets` offsets.
    fn search(flow: &Flow, offsets: usize) -> Vec<Tile> {
        let search = Search::new(flow, offsets);
        let target = flow.target();
        let rows = target.order().rows();
        let tile = |scratch: &mut Scratch, number: usize| {
            let site = |output| target.coords()[rows.map_or(output, |rows| rows[output] as usize)];
            simd::dispatch(TileSearch { search: &search, sites: outputs(number, target.len()).map(site), scratch })
        };
        (0..target.len().div_ceil(TILE)).into_par_iter().map_init(|| search.scratch(), tile).collect()
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.tiles.iter().map(|tile| tile.sources.len()).sum()
    }
}

/// The outputs of tile `number` of `count` outputs in all.
fn outputs(number: usize, count: usize) -> Range<usize> {
    number * TILE..count.min((number + 1) * TILE)
}

/// The tiles of a submanifold map of `count` sites, from those of its first `centre` offsets.
///
/// The centre joins each site to itself. If offset r joins output t to input s, then offset `2·centre − r` joins output s to input t. A
/// step that is the same for all sites keeps their order: if outputs ascend, so do inputs. So the pairs of the mirrored offset are those of
/// the first one, in the same order, cut where inputs pass into the next tile.
fn mirrored(halves: &[Tile], centre: usize, count: usize) -> Vec<Tile> {
    // For each offset and tile, the number of inputs reached by this tile and those before it.
    let reached: Vec<Vec<u32>> = (0..centre)
        .map(|r| {
            let ends = halves.iter().scan(0, |end, half| {
                *end = half.pairs(r).1.last().map_or(*end, |&last| last + 1);
                Some(*end)
            });
            ends.collect()
        })
        .collect();
    let tile = |number: usize| {
        let (own, outputs) = (&halves[number], outputs(number, count));
        let pairs = own.sources.len();
        let mut tile = Tile {
            starts: Vec::with_capacity(2 * centre + 2),
            targets: Vec::with_capacity(2 * pairs + 2 * TILE),
            sources: Vec::with_capacity(2 * pairs + 2 * TILE),
        };
        tile.starts.extend_from_slice(&own.starts);
        tile.targets.extend_from_slice(&own.targets);
        tile.sources.extend_from_slice(&own.sources);
        tile.targets.extend((0..outputs.len()).map(|output| output as u8));
        tile.sources.extend(outputs.clone().map(|output| output as u32));
        tile.starts.push(tile.sources.len() as u32);
        let (first, end) = (outputs.start as u32, outputs.end as u32);
        for r in (0..centre).rev() {
            let nearest = reached[r].partition_point(|&reached| reached <= first);
            for (other, half) in halves.iter().enumerate().skip(nearest) {
                let (targets, sources) = half.pairs(r);
                let from = sources.partition_point(|&source| source < first);
                let to = sources.partition_point(|&source| source < end);
                tile.targets.extend(sources[from..to].iter().map(|&source| (source - first) as u8));
                tile.sources.extend(targets[from..to].iter().map(|&target| (other * TILE) as u32 + u32::from(target)));
                if reached[r][other] >= end {
                    break;
                }
            }
            tile.starts.push(tile.sources.len() as u32);
        }
        tile
    };
    (0..halves.len()).into_par_iter().map(tile).collect()
}

/// For each kernel tap on one axis and each target coordinate, the source coordinate, or -1.
pub(super) fn axis_table(rule: SourceRule, axis: usize, taps: usize, target: Grid, source: Grid) -> Vec<Vec<i32>> {
    let inside = |&s: &i64| (0..source.shape[axis] as i64).contains(&s);
    let source_of = |t, r| rule.source(axis, t, r).filter(inside).map_or(-1, |s| s as i32);
    (0..taps).map(|r| (0..target.shape[axis] as i64).map(|t| source_of(t, r)).collect()).collect()
}

struct Search<'a> {
    flow: &'a Flow,
    /// How many offsets to find, starting with the first.
    offsets: usize,
    tables: [Vec<Vec<i32>>; 3],
    /// The number of each rank of the source; `None` if they are equal.
    numbers: Option<&'a [u32]>,
    /// Set if the taps along x read neighbouring cells: tap 0 of target x reads cell `step·x − before`.
    run: Option<(i64, i64)>,
}

/// Working memory for the search of a tile.
#[derive(Default)]
struct Scratch {
    /// The word that each (z, y) tap read last: neighbouring sites usually read it again.
    words: Vec<(u64, Word)>,
    /// The pairs of each offset.
    offsets: Vec<Pairs>,
}

/// The pairs of one offset in a tile.
#[derive(Clone)]
struct Pairs {
    count: usize,
    targets: [u8; TILE],
    sources: [u32; TILE],
}

impl Pairs {
    const NONE: Self = Self { count: 0, targets: [0; TILE], sources: [0; TILE] };

    /// Adds a pair if `there` is 1 and nothing if `there` is 0, without a branch, since no processor can predict it. Each target is given
    /// at most once, so there is room.
    #[inline(always)]
    fn put(&mut self, target: usize, source: u32, there: usize) {
        let place = self.count % TILE;
        self.targets[place] = target as u8;
        self.sources[place] = source;
        self.count += there;
    }
}

/// The search of a tile, compiled for processors that count bits with one instruction.
struct TileSearch<'a, I> {
    search: &'a Search<'a>,
    sites: I,
    scratch: &'a mut Scratch,
}

impl<I: Iterator<Item = [i32; 4]>> WithSimd for TileSearch<'_, I> {
    type Output = Tile;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Tile {
        self.search.tile(self.sites, self.scratch)
    }
}

impl<'a> Search<'a> {
    fn new(flow: &'a Flow, offsets: usize) -> Self {
        let [target, source] = [flow.target().grid(), flow.source().grid()];
        let kernel = flow.map.geometry.kernel;
        let tables = std::array::from_fn(|axis| axis_table(flow.rule(), axis, kernel[axis], target, source));
        let run = match flow.rule() {
            SourceRule::Multiply(steps) if steps.dilation[2] == 1 && kernel[2] <= 32 => {
                Some((steps.stride[2] as i64, steps.padding[2] as i64))
            }
            _ => None,
        };
        Self { flow, offsets, tables, numbers: flow.source().order().numbers(), run }
    }

    /// The number of a rank; any number for a rank that no site has.
    #[inline(always)]
    fn number(&self, rank: u32) -> u32 {
        self.numbers.map_or(rank, |numbers| numbers.get(rank as usize).copied().unwrap_or(rank))
    }

    fn scratch(&self) -> Scratch {
        let lines = self.tables[0].len() * self.tables[1].len();
        Scratch { words: vec![(u64::MAX, Word::default()); lines], offsets: vec![Pairs::NONE; self.offsets] }
    }

    #[inline(always)]
    fn tile(&self, sites: impl Iterator<Item = [i32; 4]>, scratch: &mut Scratch) -> Tile {
        let [zs, ys, xs] = &self.tables;
        let lines = self.offsets.div_ceil(xs.len());
        let [depth, height, width] = self.flow.source().grid().shape.map(|n| n as u64);
        scratch.offsets.iter_mut().for_each(|pairs| pairs.count = 0);
        for (target, [b, z, y, x]) in sites.enumerate() {
            let mut line = 0; // counts the (z, y) taps
            for zs in zs {
                let sz = zs[z as usize];
                if sz < 0 {
                    line += ys.len();
                    continue;
                }
                let plane = (b as u64 * depth + sz as u64) * height;
                for ys in &ys[..ys.len().min(lines.saturating_sub(line))] {
                    let sy = ys[y as usize];
                    let taps = xs.len().min(self.offsets - line * xs.len());
                    if sy >= 0 {
                        let start = (plane + sy as u64) * width;
                        match self.run {
                            Some((step, before)) => {
                                let first = x as i64 * step - before;
                                let tap = (-first).max(0);
                                let count = (width as i64 - first).min(taps as i64) - tap;
                                if count > 0 {
                                    let cells = (start + (first + tap) as u64, count as u32);
                                    self.side_by_side(scratch, target, line, tap as usize, cells);
                                }
                            }
                            None => self.one_by_one(scratch, target, (line, taps), x as usize, start),
                        }
                    }
                    line += 1;
                }
            }
        }
        let offsets = &scratch.offsets;
        let count = offsets.iter().map(|pairs| pairs.count).sum();
        let mut starts = Vec::with_capacity(offsets.len() + 1);
        let (mut targets, mut sources) = (Vec::with_capacity(count), Vec::with_capacity(count));
        starts.push(0);
        for pairs in offsets {
            targets.extend_from_slice(&pairs.targets[..pairs.count]);
            sources.extend_from_slice(&pairs.sources[..pairs.count]);
            starts.push(sources.len() as u32);
        }
        Tile { starts, targets, sources }
    }

    /// Adds the pairs of `count` taps that read consecutive cells from `key` on: one or two words hold them all, and their ranks are
    /// consecutive.
    #[inline(always)]
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
        let first = line * self.tables[2].len() + tap;
        for pairs in &mut scratch.offsets[first..first + count as usize] {
            let there = bits as u32 & 1;
            pairs.put(target, self.number(rank), there as usize);
            rank += there;
            bits >>= 1;
        }
    }

    /// Adds the pairs of the taps along x whose cells lie apart, on the line of cells that begins at `start`.
    #[inline(always)]
    fn one_by_one(&self, scratch: &mut Scratch, target: usize, (line, taps): (usize, usize), x: usize, start: u64) {
        let xs = &self.tables[2];
        for (tap, cells) in xs[..taps].iter().enumerate() {
            let sx = cells[x];
            if sx < 0 {
                continue;
            }
            let key = start + sx as u64;
            let word = self.word(scratch, line, key / 64);
            if let Some(rank) = word.rank_of((key % 64) as u32) {
                scratch.offsets[line * xs.len() + tap].put(target, self.number(rank), 1);
            }
        }
    }

    #[inline(always)]
    fn word(&self, scratch: &mut Scratch, line: usize, number: u64) -> Word {
        let last = &mut scratch.words[line];
        if last.0 != number {
            *last = (number, self.flow.source().lookup().word(number));
        }
        last.1
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::sparse::{ConvConfig, SparseConvTensor, SubMConv3d};
    use candle_core::{DType, Device, Tensor};
    use candle_nn::VarBuilder;

    #[test]
    fn what_is_mirrored_is_what_a_search_finds() {
        let mut rng = StdRng::seed_from_u64(5);
        for (share, kernel, dilation) in [
            (0.3, [3, 3, 3], [1; 3]),
            (0.02, [3, 3, 3], [1; 3]),
            (0.9, [5, 3, 1], [1, 2, 1]),
            (0.5, [3, 1, 5], [2, 1, 2]),
            (0.2, [1, 1, 1], [1; 3]),
            (0.0, [3, 3, 3], [1; 3]),
        ] {
            let shape = [13, 11, 17];
            let cells = (0..2 * 13 * 11 * 17).filter(|_| rng.random_bool(share));
            let site = |k: usize| [k / (13 * 11 * 17), k / (11 * 17) % 13, k / 17 % 11, k % 17].map(|v| v as i32);
            let coords: Vec<[i32; 4]> = cells.map(site).collect();
            let features = Tensor::zeros((coords.len(), 1), DType::F32, &Device::Cpu).unwrap();
            let x = SparseConvTensor::from_coords(features, coords, shape, 2).unwrap();
            let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
            let config = ConvConfig { dilation, ..Default::default() };
            let map = SubMConv3d::new(1, 1, kernel, config, vb).unwrap().kernel_map(&x).unwrap();
            let flow = Flow::forward(&map);
            let volume = kernel.iter().product();
            let (got, expected) = (Tiles::new(&flow), Tiles { tiles: Tiles::search(&flow, volume) });
            assert_eq!(got.tiles.len(), expected.tiles.len());
            assert_eq!(share > 0.0, got.len() > 0);
            for (got, expected) in got.tiles.iter().zip(&expected.tiles) {
                for r in 0..volume {
                    assert_eq!(got.pairs(r), expected.pairs(r), "offset {r} of {kernel:?}");
                }
            }
        }
    }
}
