//! The convolution and its gradients over tiles, on plain slices.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::element::Element;
use super::kernel::{Panels, multiply, outer, panels};
use super::source::{Rows, Source};
use super::tiles::{TILE, Tile, Tiles};
use crate::sparse::backend::simd;

/// Weights as one matrix (depth, columns) for each kernel offset, in panels for the kernel.
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
        values.par_chunks_mut(depth * width).enumerate().for_each(|(r, mut values)| {
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

/// `y[t] = bias + Σ_r x[s] · weights[r]` over the pairs (t, s) of each offset. The columns of the weights come out in `P` parts
/// (rows, part of the columns).
pub(super) fn convolve<S: Source, Y: Element, const P: usize>(
    tiles: &Tiles,
    rows: usize,
    x: &S,
    weights: &Packed,
    bias: Option<&[f32]>,
    parts: [usize; P],
) -> [Vec<Y>; P] {
    assert_eq!(tiles.tiles.len(), rows.div_ceil(TILE), "every row belongs to a tile");
    assert_eq!(parts.iter().sum::<usize>(), weights.columns, "every column belongs to a part");
    let mut y = parts.map(|columns| Vec::with_capacity(rows * columns));
    let mut places = Vec::with_capacity(tiles.tiles.len());
    let mut chunks = y.each_mut().map(|y: &mut Vec<Y>| y.spare_capacity_mut());
    for first in (0..rows).step_by(TILE) {
        let count = TILE.min(rows - first);
        let mut part = 0;
        places.push(chunks.each_mut().map(|chunk| {
            let (here, rest) = std::mem::take(chunk).split_at_mut(count * parts[part]);
            (*chunk, part) = (rest, part + 1);
            here
        }));
    }
    let job = |scratch: &mut Scratch, (places, tile): ([&mut [MaybeUninit<Y>]; P], &Tile)| {
        simd::dispatch(ConvolveTile { tile, x, weights, bias, scratch, parts, y: places.map(cleared) });
    };
    places.into_par_iter().zip(&tiles.tiles).for_each_init(Scratch::default, job);
    for (y, columns) in y.iter_mut().zip(parts) {
        // SAFETY: the tiles hold all rows, and each wrote its own.
        unsafe { y.set_len(rows * columns) };
    }
    y
}

/// Zeros in place of what was never written: cleared by the thread that goes on to use them, not all at once before.
fn cleared<T: Element>(places: &mut [MaybeUninit<T>]) -> &mut [T] {
    places.fill(MaybeUninit::new(T::zero()));
    // SAFETY: every element was written just now.
    unsafe { places.assume_init_mut() }
}

struct ConvolveTile<'a, S, Y, const P: usize> {
    tile: &'a Tile,
    x: &'a S,
    weights: &'a Packed,
    bias: Option<&'a [f32]>,
    scratch: &'a mut Scratch,
    parts: [usize; P],
    y: [&'a mut [Y]; P],
}

impl<X: Source, Y: Element, const P: usize> WithSimd for ConvolveTile<'_, X, Y, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, x, weights, bias, scratch: Scratch { tile: sums, rows }, parts, y } = self;
        let width = weights.width;
        sums.clear();
        sums.resize(y[0].len() / parts[0] * width, 0.0);
        if let Some(bias) = bias {
            sums.chunks_exact_mut(width).for_each(|row| row[..weights.columns].copy_from_slice(bias));
        }
        for r in 0..weights.volume {
            let (targets, sources) = tile.pairs(r);
            if !targets.is_empty() {
                let a = x.rows(sources, rows);
                multiply(simd, a, weights.offset(r), (sums, targets));
            }
        }
        let mut first = 0;
        for (y, columns) in y.into_iter().zip(parts) {
            for (y, row) in y.chunks_exact_mut(columns).zip(sums.chunks_exact(width)) {
                Y::narrow(&row[first..first + columns], y);
            }
            first += columns;
        }
    }
}

/// The gradient of the weights (out, volume, in), from the input's rows (sources, in) and the output's gradient (targets, out).
///
/// Tiles are cut into chunks and offsets into groups, whose numbers depend on the sizes alone; the sums of the chunks are
/// added in their order, so the result does not depend on the number of threads. Chunks are few, as each has sums of its own
/// to clear and to add; groups make up for it where tiles are few.
pub(super) fn weight_gradient<S: Source, G: Element>(
    tiles: &Tiles,
    volume: usize,
    x: &S,
    (grad, outputs): (&[G], usize),
) -> Vec<f32> {
    /// Tiles whose products outweigh the sums' passage through memory.
    const LEAST_TILES: usize = 8;
    const MOST_CHUNKS: usize = 32;
    /// Floats that the sums of all chunks may hold.
    const MEMORY: usize = 1 << 20;
    /// Pieces of work to aim at. More groups would read the rows of a tile more often, from ever farther away.
    const PIECES: usize = 16;
    /// Outputs whose sums are transposed together: a cache line.
    const LINE: usize = 16;
    let (inputs, width) = (x.channels(), outputs.next_multiple_of(simd::lanes()));
    let (each, length) = (inputs * width, volume * inputs * width);
    let chunks = (tiles.tiles.len() / LEAST_TILES).min(MEMORY / length).clamp(1, MOST_CHUNKS);
    let per_chunk = tiles.tiles.len().div_ceil(chunks).max(1);
    let per_group = volume.div_ceil(PIECES.div_ceil(chunks));
    let chunks = tiles.tiles.len().div_ceil(per_chunk);
    let mut parts: Vec<f32> = Vec::with_capacity(chunks * length);
    let places = parts.spare_capacity_mut()[..chunks * length].par_chunks_mut(length);
    let chunks_of_rows = tiles.tiles.par_chunks(per_chunk).zip(grad.par_chunks(per_chunk * TILE * outputs));
    places.zip_eq(chunks_of_rows).for_each(|(places, (tiles, grad))| {
        let groups = places.par_chunks_mut(per_group * each).enumerate().with_max_len(1);
        groups.for_each_init(Scratch::default, |scratch, (group, places)| {
            let (first, sums) = (group * per_group, cleared(places));
            for (tile, grad) in tiles.iter().zip(grad.chunks(TILE * outputs)) {
                simd::dispatch(WeightGradient { tile, first, x, grad, outputs, scratch, sums });
            }
        });
    });
    // SAFETY: there are as many chunks as places, and each group cleared its own.
    unsafe { parts.set_len(chunks * length) };
    let mut weights = vec![0.0; outputs * volume * inputs];
    weights.par_chunks_mut(LINE * volume * inputs).enumerate().for_each(|(line, weights)| {
        let columns = line * LINE..width.min((line + 1) * LINE);
        for row in 0..volume * inputs {
            let mut total = [0.0; LINE];
            for part in parts.chunks_exact(length) {
                let part = &part[row * width..][columns.clone()];
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            }
            weights.iter_mut().skip(row).step_by(volume * inputs).zip(total).for_each(|(weight, sum)| *weight = sum);
        }
    });
    weights
}

struct WeightGradient<'a, S, G> {
    tile: &'a Tile,
    /// The first offset of the group.
    first: usize,
    x: &'a S,
    /// The tile's rows of the output's gradient.
    grad: &'a [G],
    outputs: usize,
    scratch: &'a mut Scratch,
    /// (offsets of the group, in, out padded to whole vectors)
    sums: &'a mut [f32],
}

impl<X: Source, G: Element> WithSimd for WeightGradient<'_, X, G> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, first, x, grad, outputs, scratch: Scratch { tile: padded, rows }, sums } = self;
        let inputs = x.channels();
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
        for (r, sums) in sums.chunks_exact_mut(inputs * width).enumerate() {
            let (targets, sources) = tile.pairs(first + r);
            if !targets.is_empty() {
                let a = x.rows(sources, rows);
                outer(simd, a, inputs, (grad, targets), width, sums);
            }
        }
    }
}

/// The sum of all rows (columns,), in an order that does not depend on the number of threads.
pub(super) fn column_sums<T: Element>(rows: &[T], columns: usize) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = rows
        .par_chunks(1024 * columns)
        .map(|rows| {
            let (mut sums, mut wide) = (vec![0.0; columns], vec![0.0; columns]);
            for row in rows.chunks_exact(columns) {
                T::widen(row, &mut wide);
                sums.iter_mut().zip(&wide).for_each(|(sum, value)| *sum += value);
            }
            sums
        })
        .collect();
    let mut total = vec![0.0; columns];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}
