//! The convolution and its gradients over tiles, on plain slices.

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::element::Element;
use super::kernel::{Panels, multiply, outer, panels};
use super::source::{Rows, Source};
use super::tiles::{TILE, Tile, Tiles};
use crate::parallel;
use crate::sparse::backend::simd;

/// Weights as one matrix (depth, columns) for each kernel offset, in the panels that the kernel reads.
pub(super) struct Packed {
    values: Vec<f32>,
    volume: usize,
    depth: usize,
    columns: usize,
    width: usize,
}

impl Packed {
    /// Packs `volume` matrices whose element (offset, row, column) is `at(offset, row, column)`.
    pub fn new(volume: usize, [depth, columns]: [usize; 2], at: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        let lanes = simd::lanes();
        let width = columns.next_multiple_of(lanes);
        let mut values = vec![0.0; volume * depth * width];
        parallel::chunks_mut(&mut values, depth * width, &|r, mut values| {
            let mut first = 0;
            for panel in panels(width, lanes) {
                let (here, rest) = values.split_at_mut(depth * panel);
                for column in first..columns.min(first + panel) {
                    for row in 0..depth {
                        here[row * panel + column - first] = at(r, row, column);
                    }
                }
                (first, values) = (first + panel, rest);
            }
        });
        Self { values, volume, depth, columns, width }
    }

    fn offset(&self, r: usize) -> Panels<'_> {
        let length = self.depth * self.width;
        Panels { values: &self.values[r * length..][..length], depth: self.depth, width: self.width }
    }
}

#[derive(Default)]
struct Scratch {
    tile: Vec<f32>,
    rows: Rows,
}

/// `y[t] = bias + Σ_r x[s] · weights[r]` over the pairs (t, s) of each offset.
pub(super) fn convolve<S: Source, Y: Element>(
    tiles: &Tiles,
    rows: usize,
    x: &S,
    weights: &Packed,
    bias: Option<&[f32]>,
) -> Vec<Y> {
    let columns = weights.columns;
    let mut y = Vec::with_capacity(rows * columns);
    let start = bias.map_or(Start::Zero, Start::Bias);
    in_tiles(tiles, &mut y.spare_capacity_mut()[..rows * columns], columns, &|scratch, places, tile| {
        simd::dispatch(ConvolveTile { tile, x, weights, start, scratch, y: cleared(places) });
    });
    // SAFETY: the tiles cover all rows, and each tile wrote its own rows.
    unsafe { y.set_len(rows * columns) };
    y
}

/// Adds `Σ_r x[s] · weights[r]` to each row of `y`.
pub(super) fn convolve_onto<S: Source>(tiles: &Tiles, x: &S, weights: &Packed, y: &mut [f32]) {
    in_tiles(tiles, y, weights.columns, &|scratch, y, tile| {
        simd::dispatch(ConvolveTile { tile, x, weights, start: Start::There, scratch, y });
    });
}

/// Calls `job` with the rows of each tile.
fn in_tiles<T: Send>(tiles: &Tiles, y: &mut [T], columns: usize, job: &(dyn Fn(&mut Scratch, &mut [T], &Tile) + Sync)) {
    assert_eq!(tiles.tiles.len(), (y.len() / columns).div_ceil(TILE), "every row belongs to a tile");
    parallel::chunks_mut_with(y, TILE * columns, &|scratch, i, y| job(scratch, y, &tiles.tiles[i]));
}

/// Writes zeros to memory that was never written. The thread that uses the memory next does this, not one thread before all others.
fn cleared<T: Element>(places: &mut [MaybeUninit<T>]) -> &mut [T] {
    places.fill(MaybeUninit::new(T::zero()));
    // SAFETY: every element was written just now.
    unsafe { places.assume_init_mut() }
}

/// The values that sums start with.
#[derive(Clone, Copy)]
enum Start<'a> {
    Zero,
    Bias(&'a [f32]),
    /// The values that are there already.
    There,
}

struct ConvolveTile<'a, S, Y> {
    tile: &'a Tile,
    x: &'a S,
    weights: &'a Packed,
    start: Start<'a>,
    scratch: &'a mut Scratch,
    y: &'a mut [Y],
}

impl<X: Source, Y: Element> WithSimd for ConvolveTile<'_, X, Y> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, x, weights, start, scratch: Scratch { tile: sums, rows }, y } = self;
        let (width, columns) = (weights.width, weights.columns);
        sums.clear();
        sums.resize(y.len() / columns * width, 0.0);
        let starts = sums.chunks_exact_mut(width).map(|row| &mut row[..columns]);
        match start {
            Start::Zero => {}
            Start::Bias(bias) => starts.for_each(|row| row.copy_from_slice(bias)),
            Start::There => starts.zip(y.chunks_exact(columns)).for_each(|(row, y)| Y::widen(y, row)),
        }
        for r in 0..weights.volume {
            let (targets, sources) = tile.pairs(r);
            if !targets.is_empty() {
                let a = x.rows(sources, rows);
                multiply(simd, a, weights.offset(r), (sums, targets));
            }
        }
        for (y, row) in y.chunks_exact_mut(columns).zip(sums.chunks_exact(width)) {
            Y::narrow(&row[..columns], y);
        }
    }
}

/// The gradient of the weights (out, volume, in), from the input's rows (sources, in) and the output's gradient (targets, out).
///
/// The work is cut into pieces by chunks of tiles, blocks of input channels and groups of offsets. The number of chunks depends only on the
/// sizes, and their sums are added in order, so the result does not depend on the number of threads. There are few chunks, since each has
/// its own sums to clear and to add. Blocks are small enough to keep a piece's sums in cache; each block reads the output's gradient once.
/// Every group reads all rows again, so there is more than one group only if there are few tiles.
pub(super) fn weight_gradient<S: Source, G: Element>(
    tiles: &Tiles,
    volume: usize,
    x: &S,
    (grad, outputs): (&[G], usize),
) -> Vec<f32> {
    /// The number of tiles whose products are worth one more set of sums in memory.
    const LEAST_TILES: usize = 8;
    const MOST_CHUNKS: usize = 32;
    /// The most floats that the sums of all chunks may hold.
    const MEMORY: usize = 1 << 20;
    /// Floats of a piece's sums: half of a second-level cache.
    const CACHE: usize = 1 << 17;
    /// The least number of input channels in a block that keeps the multipliers busy.
    const LEAST_BLOCK: usize = 16;
    /// Outputs whose sums are transposed together: one cache line.
    const LINE: usize = 16;
    let (inputs, width) = (x.channels(), outputs.next_multiple_of(simd::lanes()));
    let length = volume * inputs * width;
    let pieces = 4 * rayon::current_num_threads(); // the number to aim at
    let chunks = (tiles.tiles.len() / LEAST_TILES).min(MEMORY / length).clamp(1, MOST_CHUNKS);
    let chunks = 1 << chunks.ilog2(); // a power of two, so that threads share them evenly
    let blocks = length.div_ceil(CACHE).max((pieces / chunks).min(inputs / LEAST_BLOCK)).max(1);
    let blocks = if S::IN_PLACE { blocks } else { 1 };
    let per_chunk = tiles.tiles.len().div_ceil(chunks).max(1);
    let per_block = inputs.div_ceil(blocks);
    let per_group = volume.div_ceil(pieces.div_ceil(chunks * blocks));
    let chunks = tiles.tiles.len().div_ceil(per_chunk);
    let mut parts: Vec<f32> = Vec::with_capacity(chunks * length);
    let places = parts.spare_capacity_mut()[..chunks * length].par_chunks_mut(length);
    let chunks_of_rows = tiles.tiles.par_chunks(per_chunk).zip(grad.par_chunks(per_chunk * TILE * outputs));
    places.zip_eq(chunks_of_rows).for_each(|(places, (tiles, grad))| {
        let blocks = places.par_chunks_mut(volume * per_block * width).enumerate().with_max_len(1);
        blocks.for_each(|(block, places)| {
            let channels = block * per_block..inputs.min((block + 1) * per_block);
            let groups = places.par_chunks_mut(per_group * channels.len() * width).enumerate().with_max_len(1);
            groups.for_each_init(Scratch::default, |scratch, (group, places)| {
                let (first, sums) = (group * per_group, cleared(places));
                for (tile, grad) in tiles.iter().zip(grad.chunks(TILE * outputs)) {
                    let channels = channels.clone();
                    simd::dispatch(WeightGradient { tile, first, x, channels, grad, outputs, scratch, sums });
                }
            });
        });
    });
    // SAFETY: there are as many chunks as places, and each group has cleared its own.
    unsafe { parts.set_len(chunks * length) };
    let mut weights = vec![0.0; outputs * volume * inputs];
    weights.par_chunks_mut(LINE * volume * inputs).enumerate().for_each(|(line, weights)| {
        let columns = line * LINE..width.min((line + 1) * LINE);
        // Rows of the sums are in the order (block, offset, channel of the block).
        let mut row = 0;
        for first in (0..inputs).step_by(per_block) {
            for r in 0..volume {
                for channel in first..inputs.min(first + per_block) {
                    let mut total = [0.0; LINE];
                    for part in parts.chunks_exact(length) {
                        let part = &part[row * width..][columns.clone()];
                        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
                    }
                    let weights = weights.iter_mut().skip(r * inputs + channel).step_by(volume * inputs);
                    weights.zip(total).for_each(|(weight, sum)| *weight = sum);
                    row += 1;
                }
            }
        }
    });
    weights
}

struct WeightGradient<'a, S, G> {
    tile: &'a Tile,
    /// The first offset of the group.
    first: usize,
    x: &'a S,
    /// The input channels of the block.
    channels: Range<usize>,
    /// The tile's rows of the output's gradient.
    grad: &'a [G],
    outputs: usize,
    scratch: &'a mut Scratch,
    /// (offsets of the group, channels of the block, out padded to whole vectors)
    sums: &'a mut [f32],
}

impl<X: Source, G: Element> WithSimd for WeightGradient<'_, X, G> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, first, x, channels, grad, outputs, scratch: Scratch { tile: padded, rows }, sums } = self;
        let width = outputs.next_multiple_of(S::F32_LANES);
        let grad = if G::IS_F32 && width == outputs {
            G::as_f32(grad)
        } else {
            padded.clear();
            padded.resize(grad.len() / outputs * width, 0.0);
            for (row, grad) in padded.chunks_exact_mut(width).zip(grad.chunks_exact(outputs)) {
                G::widen(grad, &mut row[..outputs]);
            }
            padded
        };
        for (r, sums) in sums.chunks_exact_mut(channels.len() * width).enumerate() {
            let (targets, sources) = tile.pairs(first + r);
            if !targets.is_empty() {
                let (a, sources) = x.rows(sources, rows);
                let a = (&a[channels.start..], sources, x.channels());
                outer(simd, a, (grad, targets), [channels.len(), width], sums);
            }
        }
    }
}

/// The sum of all rows (columns,), in an order that does not depend on the number of threads.
pub(super) fn column_sums<T: Element>(rows: &[T], columns: usize) -> Vec<f32> {
    let size = 1024 * columns;
    let parts = parallel::map(rows.len().div_ceil(size), &|i| {
        let (mut sums, mut wide) = (vec![0.0; columns], vec![0.0; columns]);
        for row in rows[i * size..rows.len().min((i + 1) * size)].chunks_exact(columns) {
            T::widen(row, &mut wide);
            sums.iter_mut().zip(&wide).for_each(|(sum, value)| *sum += value);
        }
        sums
    });
    let mut total = vec![0.0; columns];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}
