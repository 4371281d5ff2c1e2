//! [`attend`](super::attend::attend) on the processor: some queries at a time, whose scores never leave the cache.

use candle_core::{DType, Storage, Tensor};
use rayon::prelude::*;

use crate::Result;
use crate::wide::wide_fn;

/// Queries that are answered together, and values of a vector.
const ROWS: usize = 4;
const LANES: usize = 16;

/// What queries (…, n, C) read from values (…, m, W) by keys (…, m, C), and with `keep` the shares (…, n, m). The `mask` (batch, 1, 1, m), for
/// four axes, is added to the scores. `None` if the tensors are of another type, on another device, or masked in another way.
pub(super) fn attend(
    [queries, keys, values]: [&Tensor; 3],
    mask: Option<&Tensor>,
    keep: bool,
) -> Result<Option<(Tensor, Option<Tensor>)>> {
    let (&[.., n, channels], &[.., m, width]) = (queries.dims(), values.dims()) else { return Ok(None) };
    let front = &queries.dims()[..queries.rank() - 2];
    let heads: usize = front.iter().product();
    let per_mask = match mask.map(|mask| (mask.dims(), front)) {
        None => heads,
        Some((&[batch, 1, 1, length], &[other, heads])) if batch == other && length == m => heads,
        Some(_) => return Ok(None),
    };
    if n * m * width * channels == 0 {
        return Ok(None);
    }
    let tensors: Vec<&Tensor> = [queries, keys, values].into_iter().chain(mask).collect();
    let (mut y, mut shares) = (vec![0.0; heads * n * width], vec![0.0; if keep { heads * n * m } else { 0 }]);
    let found = with_slices(&tensors, |slices| {
        let shares_of_heads = shares.chunks_mut(n * m).map(Some).chain(std::iter::repeat_with(|| None));
        let mut parts: Vec<_> = y.chunks_mut(n * width).zip(shares_of_heads).collect();
        parts.par_iter_mut().enumerate().for_each_init(Scratch::default, |scratch, (number, (y, shares))| {
            let of_head = |at: usize, size: usize| &slices[at][number * size..(number + 1) * size];
            let head = Head {
                queries: of_head(0, n * channels),
                keys: of_head(1, m * channels),
                values: of_head(2, m * width),
                mask: slices.get(3).map(|mask| &mask[number / per_mask * m..][..m]),
                channels,
                width,
            };
            answer(&head, scratch, shares.as_deref_mut().unwrap_or_default(), y);
        });
    })?;
    if found.is_none() {
        return Ok(None);
    }
    let shape = |last: usize| -> Vec<usize> { front.iter().copied().chain([n, last]).collect() };
    let shares = if keep { Some(Tensor::from_vec(shares, shape(m), queries.device())?) } else { None };
    Ok(Some((Tensor::from_vec(y, shape(width), queries.device())?, shares)))
}

/// What the queries (N, heads · C) of each group of rows read from the values (N, heads · W) of the group by its keys (N, heads · C). Every
/// row is in one group. `None` if the tensors are of another type or on another device.
pub(super) fn attend_in_groups(
    [queries, keys, values]: [&Tensor; 3],
    groups: &[Vec<u32>],
    [heads, channels, width]: [usize; 3],
) -> Result<Option<Tensor>> {
    if heads * channels * width == 0 {
        return Ok(None);
    }
    let found = with_slices(&[queries, keys, values], |slices| {
        let answers: Vec<Vec<f32>> = (0..groups.len() * heads)
            .into_par_iter()
            .map_init(Default::default, |(scratch, own): &mut (Scratch, [Vec<f32>; 3]), number| {
                let (rows, head) = (&groups[number / heads], number % heads);
                for ((own, all), size) in own.iter_mut().zip(slices).zip([channels, channels, width]) {
                    let of_row = |&row: &u32| &all[(row as usize * heads + head) * size..][..size];
                    own.clear();
                    rows.iter().for_each(|row| own.extend_from_slice(of_row(row)));
                }
                let [queries, keys, values] = &*own;
                let mut y = vec![0.0; rows.len() * width];
                answer(&Head { queries, keys, values, mask: None, channels, width }, scratch, &mut [], &mut y);
                y
            })
            .collect();
        let mut y = vec![0.0; slices[2].len()];
        for (number, answers) in answers.iter().enumerate() {
            for (&row, answer) in groups[number / heads].iter().zip(answers.chunks_exact(width)) {
                y[(row as usize * heads + number % heads) * width..][..width].copy_from_slice(answer);
            }
        }
        y
    })?;
    Ok(found.map(|y| Tensor::from_vec(y, values.shape(), values.device())).transpose()?)
}

/// Calls `work` with the values of f32 tensors in C order; `None` if one is of another type or on another device.
fn with_slices<R>(tensors: &[&Tensor], work: impl FnOnce(&[&[f32]]) -> R) -> Result<Option<R>> {
    if tensors.iter().any(|tensor| tensor.dtype() != DType::F32 || !tensor.device().is_cpu()) {
        return Ok(None);
    }
    let tensors: Vec<Tensor> = tensors.iter().map(|tensor| tensor.contiguous()).collect::<candle_core::Result<_>>()?;
    let storages: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let slices = storages.iter().map(|(storage, layout)| match &**storage {
        Storage::Cpu(storage) => {
            Some(&storage.as_slice::<f32>().ok()?[layout.start_offset()..][..layout.shape().elem_count()])
        }
        _ => None,
    });
    Ok(slices.collect::<Option<Vec<&[f32]>>>().map(|slices| work(&slices)))
}

/// One head of attention, row by row.
struct Head<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    mask: Option<&'a [f32]>,
    channels: usize,
    width: usize,
}

/// Memory of a thread.
#[derive(Default)]
struct Scratch {
    /// The keys, channel by channel, each padded to whole vectors.
    keys: Vec<f32>,
    /// The values, with rows padded to whole vectors.
    values: Vec<f32>,
    /// The scores of some queries.
    scores: Vec<f32>,
}

wide_fn! {
    /// Writes what each query reads, and its shares if there is room for them.
    fn answer(head: &Head, scratch: &mut Scratch, shares: &mut [f32], y: &mut [f32]) {
        let &Head { queries, keys, values, mask, channels, width } = head;
        let m = keys.len() / channels;
        let (padded, padded_width) = (m.next_multiple_of(LANES), width.next_multiple_of(LANES));
        let Scratch { keys: by_channel, values: rows, scores } = scratch;
        by_channel.clear();
        by_channel.resize(channels * padded, 0.0);
        for (j, key) in keys.chunks_exact(channels).enumerate() {
            for (c, &value) in key.iter().enumerate() {
                by_channel[c * padded + j] = value;
            }
        }
        rows.clear();
        rows.resize(m * padded_width, 0.0);
        for (row, value) in rows.chunks_exact_mut(padded_width).zip(values.chunks_exact(width)) {
            row[..width].copy_from_slice(value);
        }
        scores.clear();
        scores.resize(ROWS * padded, 0.0);
        let blocks = queries.chunks(ROWS * channels).zip(y.chunks_mut(ROWS * width)).enumerate();
        for (block, (queries, y)) in blocks {
            let count = queries.len() / channels;
            // Missing queries of the last block are replaced by its last one.
            let query = |r: usize| &queries[r.min(count - 1) * channels..][..channels];
            products::<WIDE>([query(0), query(1), query(2), query(3)], by_channel, padded, scores);
            for (r, scores) in scores.chunks_exact_mut(padded).enumerate().take(count) {
                let scores = &mut scores[..m];
                if let Some(mask) = mask {
                    for (score, mask) in scores.iter_mut().zip(mask) {
                        *score += mask;
                    }
                }
                softmax::<WIDE>(scores);
                if let Some(shares) = shares.get_mut((block * ROWS + r) * m..(block * ROWS + r + 1) * m) {
                    shares.copy_from_slice(scores);
                }
            }
            let share = |r: usize| &scores[r.min(count - 1) * padded..][..m];
            for first in (0..padded_width).step_by(LANES) {
                let sums = weighted_sums::<WIDE>([share(0), share(1), share(2), share(3)], rows, padded_width, first);
                let lanes = LANES.min(width - first);
                for (y, sums) in y.chunks_exact_mut(width).zip(&sums) {
                    y[first..first + lanes].copy_from_slice(&sums[..lanes]);
                }
            }
        }
    }
}

/// `a · b + c`, in one step where the processor has it.
#[inline(always)]
fn fused<const WIDE: bool>(a: f32, b: f32, c: f32) -> f32 {
    if WIDE { a.mul_add(b, c) } else { a * b + c }
}

/// `Σ_t weights[r][t] · matrix[t][first..first + LANES]` for each r, with rows of `width` values in the matrix.
#[inline(always)]
fn weighted_sums<const WIDE: bool>(
    weights: [&[f32]; ROWS],
    matrix: &[f32],
    width: usize,
    first: usize,
) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0.0; LANES]; ROWS];
    for (t, row) in matrix.chunks_exact(width).enumerate() {
        let Some(row) = row[first..].first_chunk::<LANES>() else { break };
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = weights[t];
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum = fused::<WIDE>(weight, value, *sum);
            }
        }
    }
    sums
}

/// The products of some rows with a matrix of `width` columns, row by row.
#[inline(always)]
fn products<const WIDE: bool>(rows: [&[f32]; ROWS], matrix: &[f32], width: usize, products: &mut [f32]) {
    for first in (0..width).step_by(LANES) {
        let sums = weighted_sums::<WIDE>(rows, matrix, width, first);
        for (products, sums) in products.chunks_exact_mut(width).zip(&sums) {
            products[first..first + LANES].copy_from_slice(sums);
        }
    }
}

/// Turns scores into shares.
#[inline(always)]
fn softmax<const WIDE: bool>(scores: &mut [f32]) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for scores in scores.chunks(LANES) {
        for (largest, &score) in largest.iter_mut().zip(scores) {
            *largest = if score > *largest { score } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for scores in scores.chunks_mut(LANES) {
        for (sum, score) in sums.iter_mut().zip(scores) {
            *score = exp::<WIDE>(*score - largest);
            *sum += *score;
        }
    }
    let scale = 1.0 / sums.iter().sum::<f32>();
    for score in scores {
        *score *= scale;
    }
}

/// `eˣ` for x up to 0, within two units in the last place (the polynomial is that of Cephes' `expf`). Below −87 it is 0.
#[inline(always)]
fn exp<const WIDE: bool>(x: f32) -> f32 {
    /// Adding it rounds to whole numbers, which then stand in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = fused::<WIDE>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let rest = fused::<WIDE>(n, 2.121_944_4e-4, fused::<WIDE>(n, -0.693_359_4, x));
    let mut sum = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = fused::<WIDE>(sum, rest, coefficient);
    }
    let sum = fused::<WIDE>(sum, rest * rest, rest) + 1.0;
    let scaled = f32::from_bits((rounded.to_bits() << 23).wrapping_add(sum.to_bits()));
    if x < -87.0 { 0.0 } else { scaled }
}
