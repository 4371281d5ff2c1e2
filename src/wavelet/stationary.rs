//! `swtn` and `iswtn`: the stationary transform, PyWavelets' values for its defaults.
//!
//! No level halves the array; instead the filters of level l have 2^(l-1) - 1 zeros between their taps. All bands have the shape
//! of the array, which goes on periodically, and they move with what moves in it. Every coefficient is redundant: of the many
//! arrays that some coefficients may stand for, the inverse is the mean over all shifts.

use rayon::prelude::*;

use super::array::NdArray;
use super::combine::Real;
use super::filters::Wavelet;
use super::transform::check_shape;
use crate::{Error, Result, memory};

/// What [`swtn`] yields.
#[derive(Clone, Debug, PartialEq)]
pub struct StationaryCoeffs<T> {
    /// The wavelet that decomposed the array.
    pub wavelet: Wavelet,
    /// From the coarsest level to the finest: the bands `a…a` to `d…d` in alphabetical order, 2^dims each, all of the array's
    /// shape.
    pub levels: Vec<Vec<NdArray<T>>>,
}

impl<T: Real> StationaryCoeffs<T> {
    /// The band of a name such as `aad`, at a level counted as PyWavelets does: 1 is the finest.
    pub fn band(&self, level: usize, name: &str) -> Option<&NdArray<T>> {
        let bands = self.levels.get(self.levels.len().checked_sub(level)?)?;
        let id = name.chars().try_fold(0, |id, letter| match letter {
            'a' => Some(2 * id),
            'd' => Some(2 * id + 1),
            _ => None,
        })?;
        bands.get(id).filter(|band| band.shape.len() == name.len())
    }
}

/// The stationary transform of an array of any number of dimensions along all its axes, as PyWavelets' `swtn`. `data` is in C order.
///
/// # Errors
/// When `data` does not have `shape`, an axis is not a multiple of 2^level, `level` is zero, or there are more than 16 axes;
/// [`Error::Memory`] when memory has no room for the bands, 2^dims of the array's size a level.
///
/// ```
/// use wavemesh::wavelet::{Wavelet, iswtn, swtn};
/// let data: Vec<f32> = (0..8 * 8).map(|i| (i % 13) as f32).collect();
/// let coeffs = swtn(&data, &[8, 8], &Wavelet::from_name("db2")?, 2)?;
/// assert_eq!(coeffs.band(2, "ad").unwrap().shape, [8, 8]);
/// let back = iswtn(&coeffs)?;
/// assert!(back.data.iter().zip(&data).all(|(a, b)| (a - b).abs() < 1e-4));
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn swtn<T: Real>(data: &[T], shape: &[usize], wavelet: &Wavelet, level: usize) -> Result<StationaryCoeffs<T>> {
    const OP: &str = "swtn";
    check_shape(OP, data.len(), shape)?;
    let fits = |n: &usize| {
        u32::try_from(level).ok().and_then(|l| 1usize.checked_shl(l)).is_some_and(|step| n.is_multiple_of(step))
    };
    if level == 0 || !shape.iter().all(fits) {
        let expected =
            format!("1 or more, and axes of {shape:?} that are multiples of 2^level; pad the array or ask for less");
        return Err(Error::Argument { op: OP, name: "level", got: level.to_string(), expected });
    }
    memory::elements::<T>(OP, "the bands", &[&[level, 1 << shape.len()], shape].concat(), 0)?;
    let mut levels: Vec<Vec<NdArray<T>>> = Vec::new();
    for step in (0..level).map(|l| 1 << l) {
        let source = levels.last().map_or(data, |bands: &Vec<NdArray<T>>| &bands[0].data);
        let mut bands = vec![NdArray { shape: shape.to_vec(), data: source.to_vec() }];
        for axis in 0..shape.len() {
            let len = wavelet.len();
            let halves = |band: &NdArray<T>| {
                [wavelet.dec_lo(), wavelet.dec_hi()].map(|filter| {
                    let taps = taps(filter, len / 2 * step, step, 1.0);
                    let mut half = NdArray::zeros(shape);
                    add_filtered(band, axis, &taps, &mut half);
                    half
                })
            };
            bands = bands.iter().flat_map(halves).collect();
        }
        levels.push(bands);
    }
    levels.reverse();
    Ok(StationaryCoeffs { wavelet: wavelet.clone(), levels })
}

/// The inverse of [`swtn`], as PyWavelets' `iswtn`. Of all levels but the coarsest the band `a…a` does not count.
///
/// # Errors
/// When there is no level, a level does not have 2^dims bands, or the bands differ in shape.
pub fn iswtn<T: Real>(coeffs: &StationaryCoeffs<T>) -> Result<NdArray<T>> {
    let StationaryCoeffs { wavelet, levels } = coeffs;
    let wrong = |got: Vec<usize>, expected: String| Err(Error::Shape { op: "iswtn", what: "coeffs", got, expected });
    let Some(first) = levels.first().and_then(|bands| bands.first()) else {
        return wrong(Vec::new(), "at least one level of bands".into());
    };
    let shape = &first.shape;
    check_shape("iswtn", first.data.len(), shape)?;
    for bands in levels {
        if bands.len() != 1 << shape.len() {
            return wrong(vec![bands.len()], format!("{} bands a level", 1usize << shape.len()));
        }
        if let Some(band) = bands.iter().find(|band| band.shape != *shape || band.data.len() != first.data.len()) {
            return wrong(band.shape.clone(), format!("{shape:?} in all bands, and as many values"));
        }
    }
    let mut approx = first.clone();
    for (bands, step) in levels.iter().zip((0..levels.len()).rev().map(|l| 1usize << l)) {
        let mut bands: Vec<NdArray<T>> = std::iter::once(approx).chain(bands[1..].iter().cloned()).collect();
        for axis in (0..shape.len()).rev() {
            let delay = (wavelet.len() / 2 - 1) * step;
            let whole = |halves: &[NdArray<T>]| {
                let mut whole = NdArray::zeros(shape);
                for (half, filter) in halves.iter().zip([wavelet.rec_lo(), wavelet.rec_hi()]) {
                    // The mean of both shifts.
                    add_filtered(half, axis, &taps(filter, delay, step, 0.5), &mut whole);
                }
                whole
            };
            bands = bands.chunks(2).map(whole).collect();
        }
        approx = bands.swap_remove(0);
    }
    Ok(approx)
}

/// How far behind a sample lies what each tap of a filter is multiplied with, and the tap.
fn taps<T: Real>(filter: &[f64], delay: usize, step: usize, factor: f64) -> Vec<(isize, T)> {
    let tap = |(t, &weight): (usize, &f64)| (delay as isize - (t * step) as isize, T::from_f64(factor * weight));
    filter.iter().enumerate().map(tap).collect()
}

/// Samples that are summed while they are in cache.
const AT_ONCE: usize = 1 << 12;

/// Adds to `out` the array filtered along an axis, where it goes on periodically.
fn add_filtered<T: Real>(array: &NdArray<T>, axis: usize, taps: &[(isize, T)], out: &mut NdArray<T>) {
    let inner: usize = array.shape[axis + 1..].iter().product();
    // What the filter runs along is a ring of rows, which lie one behind the other.
    let ring = array.shape[axis] * inner;
    let sum = |source: &[T], first: usize, out: &mut [T]| {
        for &(shift, weight) in taps {
            let start = (first as isize + shift * inner as isize).rem_euclid(ring as isize) as usize;
            let (before, behind) = out.split_at_mut(out.len().min(ring - start));
            let add = |out: &mut [T], source: &[T]| {
                out.iter_mut().zip(source).for_each(|(out, &value)| *out += value * weight);
            };
            add(before, &source[start..]);
            // A part is at most as long as the ring, so that it goes around once.
            add(behind, source);
        }
    };
    let rings = out.data.par_chunks_mut(ring).zip(array.data.par_chunks(ring));
    rings.with_min_len(AT_ONCE.div_ceil(ring)).for_each(|(out, source)| {
        let parts = out.par_chunks_mut(AT_ONCE).enumerate().with_min_len(4);
        parts.for_each(|(part, out)| sum(source, part * AT_ONCE, out));
    });
}
