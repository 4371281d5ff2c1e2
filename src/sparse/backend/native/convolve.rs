//! The convolution and its gradients over tiles, on plain slices.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::element::Element;
use super::kernel::{Panels, columns_per_panel, multiply, outer};
use super::tiles::{TILE, Tile, Tiles};
use crate::sparse::backend::simd;

/// Weights as one matrix (depth, columns) for each kernel offset, in panels for the kernel.
pub(super) struct Packed {
    values: Vec<f32>,
    depth: usize,
    columns: usize,
    panel: usize,
}

impl Packed {
    /// Packs `volume` matrices whose element (offset, row, column) is `at(offset, row, column)`.
    pub fn new(volume: usize, [depth, columns]: [usize; 2], at: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        let panel = panel_for(columns);
        let width = columns.next_multiple_of(panel);
        let mut values = vec![0.0; volume * depth * width];
        values.par_chunks_mut(depth * panel).enumerate().for_each(|(i, values)| {
            let (r, first) = (i / (width / panel), i % (width / panel) * panel);
            for (row, values) in values.chunks_exact_mut(panel).enumerate() {
                for (value, column) in values.iter_mut().zip(first..columns) {
                    *value = at(r, row, column);
                }
            }
        });
        Self { values, depth, columns, panel }
    }

    fn offset(&self, r: usize) -> Panels<'_> {
        let length = self.depth * self.width();
        Panels { values: &self.values[r * length..][..length], depth: self.depth, panel: self.panel }
    }

    fn width(&self) -> usize {
        self.columns.next_multiple_of(self.panel)
    }

    fn volume(&self) -> usize {
        self.values.len() / (self.depth * self.width())
    }
}

fn panel_for(columns: usize) -> usize {
    struct Panel(usize);
    impl WithSimd for Panel {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            columns_per_panel::<S>(self.0)
        }
    }
    simd::dispatch(Panel(columns))
}

#[derive(Default)]
struct Scratch {
    tile: Vec<f32>,
    rows: Rows,
}

/// The input rows of one offset in f32: the features themselves, or converted copies of those rows.
#[derive(Default)]
struct Rows {
    values: Vec<f32>,
    numbers: Vec<u32>,
}

impl Rows {
    fn of<'a, T: Element>(&'a mut self, x: &'a [T], channels: usize, sources: &'a [u32]) -> (&'a [f32], &'a [u32]) {
        if T::IS_F32 {
            return (T::as_f32(x), sources);
        }
        self.values.resize(sources.len() * channels, 0.0);
        for (row, &source) in self.values.chunks_exact_mut(channels).zip(sources) {
            T::widen(&x[source as usize * channels..][..channels], row);
        }
        self.numbers.clear();
        self.numbers.extend(0..sources.len() as u32);
        (&self.values, &self.numbers)
    }
}

/// `y[t] = bias + Σ_r x[s] · weights[r]` over the pairs (t, s) of each offset: (rows, columns of the weights).
pub(super) fn convolve<T: Element, Y: Element>(
    tiles: &Tiles,
    rows: usize,
    x: &[T],
    weights: &Packed,
    bias: Option<&[f32]>,
) -> Vec<Y> {
    let mut y = vec![Y::zero(); rows * weights.columns];
    let job = |scratch: &mut Scratch, (y, tile): (&mut [Y], &Tile)| {
        simd::dispatch(ConvolveTile { tile, x, weights, bias, scratch, y });
    };
    y.par_chunks_mut(TILE * weights.columns).zip(&tiles.tiles).for_each_init(Scratch::default, job);
    y
}

struct ConvolveTile<'a, T, Y> {
    tile: &'a Tile,
    x: &'a [T],
    weights: &'a Packed,
    bias: Option<&'a [f32]>,
    scratch: &'a mut Scratch,
    y: &'a mut [Y],
}

impl<T: Element, Y: Element> WithSimd for ConvolveTile<'_, T, Y> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, x, weights, bias, scratch: Scratch { tile: sums, rows }, y } = self;
        let (columns, width) = (weights.columns, weights.width());
        sums.clear();
        sums.resize(y.len() / columns * width, 0.0);
        if let Some(bias) = bias {
            sums.chunks_exact_mut(width).for_each(|row| row[..columns].copy_from_slice(bias));
        }
        for r in 0..weights.volume() {
            let (targets, sources) = tile.pairs(r);
            if !targets.is_empty() {
                let a = rows.of(x, weights.depth, sources);
                multiply(simd, a, weights.offset(r), (sums, targets), width);
            }
        }
        for (y, row) in y.chunks_exact_mut(columns).zip(sums.chunks_exact(width)) {
            Y::narrow(&row[..columns], y);
        }
    }
}

/// The gradient of the weights (out, volume, in), from the input rows (sources, in) and the output's gradient (targets, out).
///
/// Tiles are cut into chunks whose number depends on the sizes alone; the sums of the chunks are added in their order, so
/// the result does not depend on the number of threads.
pub(super) fn weight_gradient<T: Element, G: Element>(
    tiles: &Tiles,
    volume: usize,
    (x, inputs): (&[T], usize),
    (grad, outputs): (&[G], usize),
) -> Vec<f32> {
    const MEMORY: usize = 4 << 20;
    let panel = panel_for(outputs);
    let width = outputs.next_multiple_of(panel);
    let length = volume * inputs * width;
    let chunks = (MEMORY / 4 / length).clamp(4, 32).min(tiles.tiles.len()).max(1);
    let per_chunk = tiles.tiles.len().div_ceil(chunks).max(1);
    let mut parts: Vec<Vec<f32>> = tiles
        .tiles
        .par_chunks(per_chunk)
        .zip(grad.par_chunks(per_chunk * TILE * outputs))
        .with_max_len(1)
        .map(|(tiles, grad)| {
            let mut sums = vec![0.0; length];
            let mut scratch = Scratch::default();
            for (tile, grad) in tiles.iter().zip(grad.chunks(TILE * outputs)) {
                simd::dispatch(WeightGradient {
                    tile,
                    x,
                    grad,
                    outputs,
                    panel,
                    scratch: &mut scratch,
                    sums: &mut sums,
                });
            }
            sums
        })
        .collect();
    let Some((total, rest)) = parts.split_first_mut() else {
        return vec![0.0; outputs * volume * inputs];
    };
    const SLICE: usize = 1 << 12;
    total.par_chunks_mut(SLICE).enumerate().for_each(|(i, total)| {
        for part in rest.iter() {
            total.iter_mut().zip(&part[i * SLICE..]).for_each(|(total, part)| *total += part);
        }
    });
    let mut weights = vec![0.0; outputs * volume * inputs];
    weights.par_chunks_mut(volume * inputs).enumerate().for_each(|(output, weights)| {
        weights.iter_mut().zip(total.iter().skip(output).step_by(width)).for_each(|(weight, &sum)| *weight = sum);
    });
    weights
}

struct WeightGradient<'a, T, G> {
    tile: &'a Tile,
    x: &'a [T],
    /// The tile's rows of the output's gradient.
    grad: &'a [G],
    outputs: usize,
    panel: usize,
    scratch: &'a mut Scratch,
    /// (volume, in, out padded to panels)
    sums: &'a mut [f32],
}

impl<T: Element, G: Element> WithSimd for WeightGradient<'_, T, G> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, x, grad, outputs, panel, scratch: Scratch { tile: padded, rows }, sums } = self;
        let width = outputs.next_multiple_of(panel);
        padded.clear();
        padded.resize(grad.len() / outputs * width, 0.0);
        for (row, grad) in padded.chunks_exact_mut(width).zip(grad.chunks_exact(outputs)) {
            G::widen(grad, &mut row[..outputs]);
        }
        let volume = tile.volume();
        let inputs = sums.len() / (volume * width);
        for (r, sums) in sums.chunks_exact_mut(inputs * width).enumerate() {
            let (targets, sources) = tile.pairs(r);
            if !targets.is_empty() {
                let a = rows.of(x, inputs, sources);
                outer(simd, a, inputs, (padded, targets), (width, panel), sums);
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
