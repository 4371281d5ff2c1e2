//! Pooling over tiles, on plain slices (rows, channels). Gradients use the reversed tiles, so that each row has one writer.

use rayon::prelude::*;

use super::element::Element;
use super::tiles::{TILE, Tile, Tiles};

/// Computes each row of (rows, channels) from its pairs. `start` fills a tile's f32 rows; `pair` adds one pair (target row in the tile,
/// target number overall, target values, source row).
fn walk<T: Element>(
    tiles: &Tiles,
    rows: usize,
    channels: usize,
    start: f32,
    pair: impl Fn(usize, &mut [f32], usize, &mut [f32]) + Sync,
    finish: impl Fn(&Tile, &mut [f32]) + Sync,
) -> Vec<T> {
    let mut y = vec![T::zero(); rows * channels];
    y.par_chunks_mut(TILE * channels).zip(&tiles.tiles).enumerate().for_each_init(
        || (Vec::new(), vec![0.0; channels]),
        |(sums, wide), (number, (y, tile))| {
            sums.clear();
            sums.resize(y.len(), start);
            for (target, source) in tile.all() {
                pair(number * TILE + target, &mut sums[target * channels..][..channels], source, wide);
            }
            finish(tile, sums);
            T::narrow(sums, y);
        },
    );
    y
}

fn row<T>(values: &[T], row: usize, channels: usize) -> &[T] {
    &values[row * channels..][..channels]
}

/// The largest value of each target's sources. NaN wins, as in PyTorch.
pub(super) fn max<T: Element>(tiles: &Tiles, rows: usize, x: &[T], channels: usize) -> Vec<T> {
    let pair = |_, largest: &mut [f32], source, wide: &mut [f32]| {
        T::widen(row(x, source, channels), wide);
        for (largest, &value) in largest.iter_mut().zip(&*wide) {
            if value > *largest || value.is_nan() {
                *largest = value;
            }
        }
    };
    walk(tiles, rows, channels, f32::NEG_INFINITY, pair, |_, _| {})
}

/// Each source's share of its targets' gradients, over the reversed tiles: the whole gradient where the source is the largest.
pub(super) fn max_gradient<T: Element>(reversed: &Tiles, x: &[T], y: &[T], grad: &[T], channels: usize) -> Vec<T> {
    let pair = |source, sums: &mut [f32], target, wide: &mut [f32]| {
        T::widen(row(grad, target, channels), wide);
        let (x, y) = (row(x, source, channels), row(y, target, channels));
        for (c, sum) in sums.iter_mut().enumerate() {
            if x[c] == y[c] {
                *sum += wide[c];
            }
        }
    };
    walk(reversed, x.len() / channels, channels, 0.0, pair, |_, _| {})
}

/// The mean of each target's sources.
pub(super) fn mean<T: Element>(tiles: &Tiles, rows: usize, x: &[T], channels: usize) -> Vec<T> {
    let pair = |_, sums: &mut [f32], source, wide: &mut [f32]| {
        T::widen(row(x, source, channels), wide);
        sums.iter_mut().zip(&*wide).for_each(|(sum, value)| *sum += value);
    };
    let divide = |tile: &Tile, sums: &mut [f32]| {
        for (sums, count) in sums.chunks_exact_mut(channels).zip(tile_counts(tile)) {
            sums.iter_mut().for_each(|sum| *sum /= count);
        }
    };
    walk(tiles, rows, channels, 0.0, pair, divide)
}

/// Each source's share of its targets' gradients, over the reversed tiles.
pub(super) fn mean_gradient<T: Element>(
    reversed: &Tiles,
    rows: usize,
    grad: &[T],
    counts: &[f32],
    channels: usize,
) -> Vec<T> {
    let pair = |_, sums: &mut [f32], target: usize, wide: &mut [f32]| {
        T::widen(row(grad, target, channels), wide);
        sums.iter_mut().zip(&*wide).for_each(|(sum, value)| *sum += value / counts[target]);
    };
    walk(reversed, rows, channels, 0.0, pair, |_, _| {})
}

fn tile_counts(tile: &Tile) -> [f32; TILE] {
    let mut counts = [0.0; TILE];
    tile.all().for_each(|(target, _)| counts[target] += 1.0);
    counts
}

/// The number of sources of each target.
pub(super) fn counts(tiles: &Tiles, rows: usize) -> Vec<f32> {
    let mut counts: Vec<f32> = tiles.tiles.iter().flat_map(tile_counts).collect();
    counts.truncate(rows);
    counts
}
