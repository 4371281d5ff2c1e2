//! From a grid to the coefficients above a threshold and back, without an array of all coefficients: each slab's coefficients are selected
//! while they are in cache, and each slab is filled there for decoding.

use std::array::from_fn;
use std::mem::take;

use super::array::NdArray;
use super::layout::{DEFAULT_LEVEL, WaveletLayout};
use super::level::{AnalysisLevel, SynthesisLevel, in_ranges};
use super::mode::Mode;
use super::transform::{decompose, warn_of_useless_levels};
use crate::{Result, memory};

/// Coefficients with their places: rows (x, y, z, band).
pub(super) struct Rows {
    pub indices: Vec<[i32; 4]>,
    pub values: Vec<f32>,
}

impl Rows {
    /// The coefficients that the sieves kept, in order, with their bands.
    fn of(sieves: Vec<(i32, Sieve)>) -> Self {
        let total = sieves.iter().map(|(_, sieve)| sieve.values.len()).sum();
        let (mut indices, mut values) = (vec![[0; 4]; total], vec![0.0; total]);
        let (mut indices_left, mut values_left) = (&mut indices[..], &mut values[..]);
        let mean = total / sieves.len().max(1);
        let mut parts: Vec<_> = sieves
            .into_iter()
            .map(|(band, sieve)| {
                let own = ..sieve.values.len();
                let (indices, values) = (indices_left.split_off_mut(own), values_left.split_off_mut(own));
                (band, sieve, indices.unwrap_or_default(), values.unwrap_or_default())
            })
            .collect();
        in_ranges(&mut parts, mean, 1, |_, parts| {
            for (band, sieve, indices, values) in parts {
                values.copy_from_slice(&sieve.values);
                let mut rows = indices.iter_mut().zip(&sieve.z);
                for &(x, y, count) in &sieve.lines {
                    rows.by_ref().take(count).for_each(|(row, &z)| *row = [x, y, z, *band]);
                }
            }
        });
        Self { indices, values }
    }
}

/// Keeps the coefficients of a band that are above a threshold.
#[derive(Default)]
struct Sieve {
    /// (x, y, number of coefficients kept) of each line that has any.
    lines: Vec<(i32, i32, usize)>,
    z: Vec<i32>,
    values: Vec<f32>,
}

impl Sieve {
    /// Selects from the part of the band at x, which consists of lines of `nz`.
    fn sift(&mut self, x: usize, slab: &[f32], nz: usize, threshold: f32) {
        for (y, line) in slab.chunks_exact(nz).enumerate() {
            // Most lines have nothing to keep. Neither this check nor finding the places uses a branch for each value.
            if !line.iter().fold(false, |any, v| any | (v.abs() > threshold)) {
                continue;
            }
            let start = self.z.len();
            self.z.resize(start + nz, 0);
            let mut count = 0;
            for (z, v) in line.iter().enumerate() {
                self.z[start + count] = z as i32;
                count += usize::from(v.abs() > threshold);
            }
            self.z.truncate(start + count);
            self.values.extend(self.z[start..].iter().map(|&z| line[z as usize]));
            self.lines.push((x as i32, y as i32, count));
        }
    }
}

/// The coefficients whose magnitude is above the threshold of their band, ascending by band, then x, y, z.
///
/// # Errors
/// If the grid does not have the layout's shape.
pub(super) fn encode(grid: &[f32], layout: &WaveletLayout, threshold: impl Fn(usize) -> f32 + Sync) -> Result<Rows> {
    if layout.level() > DEFAULT_LEVEL {
        warn_of_useless_levels(&layout.frame().shape, layout.wavelet(), layout.mode(), layout.level());
    }
    if layout.mode() == Mode::Smooth {
        return encode_in_double(grid, layout, threshold);
    }
    // For each level (finest first) and each range of its slabs: what is kept of the seven bands.
    let mut levels: Vec<Vec<[Sieve; 7]>> = Vec::new();
    let mut approx: Option<NdArray<f32>> = None;
    for level in 1..=layout.level() {
        let shape = layout.frame().shape;
        let (data, shape) = approx.as_ref().map_or((grid, &shape[..]), |approx| (&approx.data, &approx.shape));
        let mut made = Vec::new();
        let analysis = AnalysisLevel::new(data, shape, layout.wavelet(), layout.mode(), &mut made);
        let (first_band, nz) = (layout.details(level), analysis.m[2]);
        let slab = analysis.m[1] * nz;
        let mut next = NdArray::zeros(&analysis.m);
        let mut approx_slabs: Vec<_> = next.data.chunks_exact_mut(slab).collect();
        levels.push(in_ranges(
            &mut approx_slabs,
            analysis.samples(),
            4 * analysis.slabs_kept(),
            |first, approx_slabs| {
                let (mut details, mut work) = (vec![0.0; 14 * slab], analysis.tile(0..analysis.m[1]));
                let mut sieves: [Sieve; 7] = Default::default();
                for (x, approx_slabs) in (first..).step_by(2).zip(approx_slabs.chunks_mut(2)) {
                    let mut details_of_slabs = details.chunks_exact_mut(7 * slab);
                    let bands = |approx| {
                        let details = details_of_slabs.next().unwrap_or_default().chunks_exact_mut(slab);
                        std::iter::once(approx).chain(details).collect::<Vec<_>>()
                    };
                    match approx_slabs {
                        [approx, next] => {
                            let [mut now, mut next] = [&mut **approx, &mut **next].map(bands);
                            work.slabs(x, [&mut now, &mut next]);
                        }
                        [approx] => work.slabs(x, [&mut [&mut **approx].map(bands)[0]]),
                        _ => {}
                    }
                    for (x, details) in (x..x + approx_slabs.len()).zip(details.chunks_exact(7 * slab)) {
                        for ((band, sieve), slab) in (first_band..).zip(&mut sieves).zip(details.chunks_exact(slab)) {
                            sieve.sift(x, slab, nz, threshold(band));
                        }
                    }
                }
                sieves
            },
        ));
        approx = Some(next);
    }
    let [_, ny, nz] = layout.shape(0);
    let mut coarsest = Sieve::default();
    for (x, slab) in approx.as_ref().map_or(grid, |approx| &approx.data).chunks_exact(ny * nz).enumerate() {
        coarsest.sift(x, slab, nz, threshold(0));
    }
    let mut sieves = vec![(0, coarsest)];
    for (level, mut ranges) in levels.into_iter().enumerate().rev() {
        for detail in 0..7 {
            let band = (layout.details(level + 1) + detail) as i32;
            sieves.extend(ranges.iter_mut().map(|sieves| (band, take(&mut sieves[detail]))));
        }
    }
    Ok(Rows::of(sieves))
}

/// Like [`encode`], by the transform that sums in double precision.
fn encode_in_double(grid: &[f32], layout: &WaveletLayout, threshold: impl Fn(usize) -> f32) -> Result<Rows> {
    let coeffs = decompose(grid, &layout.frame().shape, layout.wavelet(), layout.mode(), layout.level())?;
    let mut sieves = Vec::new();
    for (number, band) in coeffs.bands().enumerate() {
        let [_, ny, nz] = layout.shape(number);
        let mut sieve = Sieve::default();
        for (x, slab) in band.data.chunks_exact(ny * nz).enumerate() {
            sieve.sift(x, slab, nz, threshold(number));
        }
        sieves.push((number as i32, sieve));
    }
    Ok(Rows::of(sieves))
}

/// The grid for these coefficients, which must lie within their bands and ascend by band, then x, y, z.
///
/// # Errors
/// If a band is too short for the wavelet; [`Error::Memory`](crate::Error::Memory) if the grid does not fit in memory.
pub(super) fn decode(indices: &[[i32; 4]], values: &[f32], layout: &WaveletLayout) -> Result<Vec<f32>> {
    let frame = layout.frame().shape;
    memory::check("decode", || format!("a grid of {frame:?} samples"), bytes_to_decode(layout))?;
    let start = |band: usize| indices.partition_point(|row| row[3] < band as i32);
    let of_band = |band| {
        let own = start(band)..start(band + 1);
        Sparse { indices: &indices[own.clone()], values: &values[own], shape: layout.shape(band) }
    };
    let mut grid = NdArray::zeros(&layout.shape(0));
    let [_, ny, nz] = layout.shape(0);
    for (x, slab) in grid.data.chunks_exact_mut(ny * nz).enumerate() {
        of_band(0).lay_out(x, slab);
    }
    for level in (1..=layout.level()).rev() {
        let details: [Sparse; 7] = from_fn(|i| of_band(layout.details(level) + i));
        let m = details[0].shape;
        let row = m[1] * m[2];
        // A reconstruction may be one sample longer than the decomposed array.
        let approx = grid.cropped(&m).data;
        let synthesis = SynthesisLevel::new(&m, layout.wavelet(), layout.mode())?;
        let (reach, room) = (synthesis.reach(), synthesis.reach() + 1);
        grid = NdArray::zeros(&synthesis.shape);
        let pairs = grid.data.chunks_mut(synthesis.samples());
        let mut pairs: Vec<[&mut [f32]; 2]> =
            pairs.map(|pair| pair.split_at_mut(synthesis.samples() / 2).into()).collect();
        in_ranges(&mut pairs, synthesis.samples(), 1, |first, pairs| {
            let mut work = synthesis.tile(0..synthesis.shape[1] / 2);
            // The coefficients of the last entries; each entry is stored at its number modulo their number.
            let mut ring = vec![0.0; room * 7 * row];
            let mut laid_out = first;
            for (q, pairs) in (first..).step_by(2).zip(pairs.chunks_mut(2)) {
                let end = q + reach + pairs.len() - 1;
                for entry in laid_out..end {
                    let places = ring[entry % room * 7 * row..].chunks_exact_mut(row);
                    details.iter().zip(places).for_each(|(band, place)| band.lay_out(synthesis.index(entry), place));
                }
                laid_out = end;
                let coefficients = |band: usize, entry: usize| match band.checked_sub(1) {
                    None => &approx[synthesis.index(entry) * row..][..row],
                    Some(detail) => &ring[(entry % room * 7 + detail) * row..][..row],
                };
                match pairs {
                    [pair, next] => work.slab_pairs(q, coefficients, [take(pair), take(next)]),
                    [pair] => work.slab_pairs(q, coefficients, [take(pair)]),
                    _ => {}
                }
            }
        });
    }
    Ok(grid.cropped(&frame).data)
}

/// The peak memory of [`decode`] in bytes, without its arguments.
fn bytes_to_decode(layout: &WaveletLayout) -> usize {
    let taps = layout.wavelet().len();
    let values = |shape: [usize; 3]| size_of::<f32>() * shape.iter().product::<usize>();
    let bytes = |level: usize| {
        let m = layout.shape(layout.details(level));
        let made = m.map(|m| layout.mode().samples(m, taps).unwrap_or_default());
        let wanted = if level == 1 { layout.frame().shape } else { layout.shape(layout.details(level - 1)) };
        let cropped = if made == wanted { 0 } else { values(wanted) };
        // A thread's ring, and its `SynthesisTile`: four of half the bands each, with a few rows twice, and a spare one.
        let threads = rayon::current_num_threads().min(made[0].div_ceil(2));
        let slabs = threads * (7 * (taps / 2 + 2) + 22) * values([1, m[1], m[2]]);
        // For each sample along an axis: half an index, and half a slice for its pair.
        let places = made.iter().sum::<usize>() * (size_of::<usize>() + size_of::<&[f32]>()) / 2;
        values(made) + cropped.max(values(m) + slabs + places)
    };
    (1..=layout.level()).map(bytes).max().unwrap_or(values(layout.frame().shape))
}

/// The coefficients of a band.
struct Sparse<'a> {
    indices: &'a [[i32; 4]],
    values: &'a [f32],
    shape: [usize; 3],
}

impl Sparse<'_> {
    /// Writes the part at x, with zeros where there are no coefficients.
    fn lay_out(&self, x: usize, slab: &mut [f32]) {
        slab.fill(0.0);
        let start = self.indices.partition_point(|row| row[0] < x as i32);
        let rows = self.indices[start..].iter().zip(&self.values[start..]);
        for (&[_, y, z, _], &value) in rows.take_while(|(row, _)| row[0] == x as i32) {
            slab[y as usize * self.shape[2] + z as usize] = value;
        }
    }
}
