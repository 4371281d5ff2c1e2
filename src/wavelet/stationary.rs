//! `swtn` and `iswtn`: the stationary transform, with PyWavelets' values.
//!
//! No level halves the array; instead the filters of level l have 2^(l-1) - 1 zeros between their taps. All bands have the shape of the
//! array, which is continued periodically, and they shift when the array shifts. The coefficients are redundant: different arrays may fit
//! parts of them, and the inverse takes the mean over all shifts.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::Range;

use rayon::prelude::*;

use super::array::NdArray;
use super::combine::Real;
use super::filters::Wavelet;
use super::some_axes;
use super::transform::check_shape;
use crate::{Error, Result, memory};

/// How [`swtn_with`] decomposes: PyWavelets' keyword arguments and their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StationaryConfig {
    /// The axes that are transformed, in the order in which they name the bands; `None` (the default) for all. For each index of the other
    /// axes, there is a separate array.
    pub axes: Option<Vec<usize>>,
    /// Whether to leave out the band `a…a` of all levels except the coarsest, since the inverse does not need it. Default no.
    pub trim_approx: bool,
    /// Whether to divide the filters by √2. For an orthogonal wavelet, the coefficients that `trim_approx` keeps then have the same energy
    /// as the array. Default no.
    pub norm: bool,
    /// The number of levels to pass over: the first level has the filters of level `start_level + 1`, and reads the array itself. Default 0.
    pub start_level: usize,
}

setters! {
    StationaryConfig {
        axes(axes: impl Into<Vec<usize>>) => axes = Some(axes.into());
        trim_approx(trim_approx: bool) => trim_approx = trim_approx;
        norm(norm: bool) => norm = norm;
        start_level(start_level: usize) => start_level = start_level;
    }
}

/// The result of [`swtn`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StationaryCoeffs<T> {
    /// The wavelet that decomposed the array.
    pub wavelet: Wavelet,
    /// The axes along which it was decomposed: all in order, or those of [`StationaryConfig::axes`].
    pub axes: Vec<usize>,
    /// Whether the filters were divided by √2.
    pub norm: bool,
    /// The number of levels that were passed over ([`StationaryConfig::start_level`]).
    pub start_level: usize,
    /// The bands from the coarsest level to the finest: `a…a` to `d…d` in alphabetical order, 2^axes for each level, all with the array's
    /// shape. With [`StationaryConfig::trim_approx`], all levels but the first begin with `a…ad`.
    pub levels: Vec<Vec<NdArray<T>>>,
}

impl<T: Real> StationaryCoeffs<T> {
    /// The band with a name such as `aad` at a level; as in PyWavelets, 1 is the finest. Each letter tells which filter was applied along
    /// the axis at the same place of `axes`.
    pub fn band(&self, level: usize, name: &str) -> Option<&NdArray<T>> {
        let bands = self.levels.get(self.levels.len().checked_sub(level)?)?;
        let id = name.chars().try_fold(0usize, |id, letter| match letter {
            'a' => Some(2 * id),
            'd' => Some(2 * id + 1),
            _ => None,
        })?;
        let left_out = 1usize.checked_shl(self.axes.len() as u32)?.checked_sub(bands.len())?;
        (name.len() == self.axes.len()).then(|| bands.get(id.checked_sub(left_out)?)).flatten()
    }
}

/// The stationary transform of an array with any number of dimensions along all its axes, as PyWavelets' `swtn`. `data` is in C order.
///
/// # Errors
/// If `data` does not have `shape`, an axis is not a multiple of 2^level, `level` is zero, or there are more than 16 axes;
/// [`Error::Memory`] if the bands do not fit in memory (each level takes 2^dims times the array's size).
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
#[doc(alias("swt", "swt2"))]
pub fn swtn<T: Real>(data: &[T], shape: &[usize], wavelet: &Wavelet, level: usize) -> Result<StationaryCoeffs<T>> {
    swtn_with(data, shape, wavelet, level, &StationaryConfig::new())
}

/// [`swtn`] with PyWavelets' arguments `axes`, `trim_approx`, `norm` and `start_level`.
///
/// # Errors
/// The errors of [`swtn`], for the axes that are transformed; if such an axis is not a multiple of 2^(start_level + level); and if an axis
/// does not exist or is named twice.
///
/// ```
/// use wavemesh::wavelet::{StationaryConfig, Wavelet, iswtn, swtn_with};
/// let frames: Vec<f64> = (0..3 * 8 * 8).map(|i| (i % 13) as f64).collect();
/// let config = StationaryConfig::new().axes([1, 2]).trim_approx(true).norm(true);
/// let coeffs = swtn_with(&frames, &[3, 8, 8], &Wavelet::from_name("db2")?, 2, &config)?;
/// assert_eq!([coeffs.levels[0].len(), coeffs.levels[1].len()], [4, 3]); // the finer level has no `aa`
/// let energy = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
/// let of_bands: f64 = coeffs.levels.iter().flatten().map(|band| energy(&band.data)).sum();
/// assert!((of_bands / energy(&frames) - 1.0).abs() < 1e-9);
/// assert!(iswtn(&coeffs)?.data.iter().zip(&frames).all(|(a, b)| (a - b).abs() < 1e-9));
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn swtn_with<T: Real>(
    data: &[T],
    shape: &[usize],
    wavelet: &Wavelet,
    level: usize,
    config: &StationaryConfig,
) -> Result<StationaryCoeffs<T>> {
    const OP: &str = "swtn";
    check_shape(OP, data.len(), shape)?;
    let axes = match &config.axes {
        Some(axes) => axes.clone(),
        None => (0..shape.len()).collect(),
    };
    if config.axes.is_some() {
        some_axes::check(OP, &axes, shape.len())?;
    }
    let start = config.start_level;
    check_levels(OP, shape, &axes, start, level)?;
    let count = 1 << axes.len();
    memory::elements::<T>(OP, "the bands", &[&[level, count], shape].concat(), 0)?;
    let factor = if config.norm { FRAC_1_SQRT_2 } else { 1.0 };
    let mut bands = if some_axes::are_all(&axes, shape.len()) {
        decompose(data, shape, wavelet, start..start + level, factor)
    } else {
        let array = NdArray { shape: shape.to_vec(), data: data.to_vec() };
        some_axes::apart(&[&array], &axes, |parts, shape| {
            Ok(decompose(parts[0], shape, wavelet, start..start + level, factor))
        })?
    };
    let mut levels = Vec::new();
    while !bands.is_empty() {
        let rest = bands.split_off(count);
        levels.push(std::mem::replace(&mut bands, rest));
    }
    if config.trim_approx {
        levels[1..].iter_mut().for_each(|bands| drop(bands.remove(0)));
    }
    Ok(StationaryCoeffs { wavelet: wavelet.clone(), axes, norm: config.norm, start_level: start, levels })
}

/// Checks that the filters of all levels fit the axes, `start` levels being passed over.
fn check_levels(op: &'static str, shape: &[usize], axes: &[usize], start: usize, level: usize) -> Result<()> {
    let last = start.checked_add(level).and_then(|last| u32::try_from(last).ok());
    let step = last.and_then(|last| 1usize.checked_shl(last));
    if level > 0 && step.is_some_and(|step| axes.iter().all(|&axis| shape[axis].is_multiple_of(step))) {
        return Ok(());
    }
    let along: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let power = if start == 0 { "2^level" } else { "2^(start_level + level)" };
    let expected =
        format!("1 or more, and axes of {along:?} that are multiples of {power}; pad the array or ask for less");
    Err(Error::Argument { op, name: "level", got: level.to_string(), expected })
}

/// All bands of these levels (the finest is 0), from the coarsest to the finest, with the filters times `factor`.
fn decompose<T: Real>(
    data: &[T],
    shape: &[usize],
    wavelet: &Wavelet,
    which: Range<usize>,
    factor: f64,
) -> Vec<NdArray<T>> {
    let mut levels: Vec<Vec<NdArray<T>>> = Vec::new();
    for step in which.map(|l| 1 << l) {
        let source = levels.last().map_or(data, |bands: &Vec<NdArray<T>>| &bands[0].data);
        let mut bands = vec![NdArray { shape: shape.to_vec(), data: source.to_vec() }];
        for axis in 0..shape.len() {
            let len = wavelet.len();
            let halves = |band: &NdArray<T>| {
                [wavelet.dec_lo(), wavelet.dec_hi()].map(|filter| {
                    let taps = taps(filter, len / 2 * step, step, factor);
                    let mut half = NdArray::zeros(shape);
                    add_filtered(band, axis, &taps, &mut half);
                    half
                })
            };
            bands = bands.iter().flat_map(halves).collect();
        }
        levels.push(bands);
    }
    levels.into_iter().rev().flatten().collect()
}

/// The inverse of [`swtn`] and [`swtn_with`], as PyWavelets' `iswtn`. It ignores the band `a…a` of all levels except the coarsest.
///
/// # Errors
/// If there is no level, a level does not have 2^axes bands (or one fewer, without its `a…a`), the bands differ in shape, or an axis
/// is not a multiple of 2^(start_level + levels).
///
/// ```
/// use wavemesh::wavelet::{Wavelet, iswtn, swtn};
/// let mut coeffs = swtn(&[1f64, 1.0, 5.0, 5.0], &[4], &Wavelet::from_name("haar")?, 1)?;
/// coeffs.levels[0][1].data.fill(0.0); // without details, what is left is smooth
/// assert!(iswtn(&coeffs)?.data.iter().zip([2.0, 2.0, 4.0, 4.0]).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[doc(alias("iswt", "iswt2"))]
pub fn iswtn<T: Real>(coeffs: &StationaryCoeffs<T>) -> Result<NdArray<T>> {
    const OP: &str = "iswtn";
    let StationaryCoeffs { wavelet, axes, norm, start_level, levels } = coeffs;
    let wrong = |got: Vec<usize>, expected: String| Err(Error::Shape { op: OP, what: "coeffs", got, expected });
    let Some(first) = levels.first().and_then(|bands| bands.first()) else {
        return wrong(Vec::new(), "at least one level of bands".into());
    };
    let shape = &first.shape;
    check_shape(OP, first.data.len(), shape)?;
    some_axes::check(OP, axes, shape.len())?;
    check_levels(OP, shape, axes, *start_level, levels.len())?;
    let count = 1usize << axes.len();
    for (number, bands) in levels.iter().enumerate() {
        if bands.len() != count && (number == 0 || bands.len() + 1 != count) {
            return wrong(vec![bands.len()], format!("{count} bands a level"));
        }
        if let Some(band) = bands.iter().find(|band| band.shape != *shape || band.data.len() != first.data.len()) {
            return wrong(band.shape.clone(), format!("{shape:?} in all bands, and as many values"));
        }
    }
    // The approximation, then the details from coarse to fine.
    let details = levels.iter().flat_map(|bands| &bands[bands.len() - (count - 1)..]);
    let bands: Vec<&NdArray<T>> = std::iter::once(first).chain(details).collect();
    // The mean over both shifts.
    let factor = if *norm { 0.5 * SQRT_2 } else { 0.5 };
    let compose = |bands: &[&[T]], shape: &[usize]| compose(bands, shape, wavelet, *start_level, factor);
    if some_axes::are_all(axes, shape.len()) {
        let bands: Vec<&[T]> = bands.iter().map(|band| &band.data[..]).collect();
        return Ok(compose(&bands, shape));
    }
    Ok(some_axes::apart(&bands, axes, |bands, shape| Ok(vec![compose(bands, shape)]))?.swap_remove(0))
}

/// The array for an approximation and the details of each level from `start` on, with the filters times `factor`.
fn compose<T: Real>(bands: &[&[T]], shape: &[usize], wavelet: &Wavelet, start: usize, factor: f64) -> NdArray<T> {
    let array = |data: &[T]| NdArray { shape: shape.to_vec(), data: data.to_vec() };
    let count = (1 << shape.len()) - 1;
    let level = (bands.len() - 1) / count;
    let mut approx = array(bands[0]);
    for (details, step) in bands[1..].chunks(count).zip((start..start + level).rev().map(|l| 1usize << l)) {
        let mut bands: Vec<NdArray<T>> =
            std::iter::once(approx).chain(details.iter().map(|&band| array(band))).collect();
        for axis in (0..shape.len()).rev() {
            let delay = (wavelet.len() / 2 - 1) * step;
            let whole = |halves: &[NdArray<T>]| {
                let mut whole = NdArray::zeros(shape);
                for (half, filter) in halves.iter().zip([wavelet.rec_lo(), wavelet.rec_hi()]) {
                    add_filtered(half, axis, &taps(filter, delay, step, factor), &mut whole);
                }
                whole
            };
            bands = bands.chunks(2).map(whole).collect();
        }
        approx = bands.swap_remove(0);
    }
    approx
}

/// For each tap of a filter: how far behind a sample its factor lies, and the tap.
fn taps<T: Real>(filter: &[f64], delay: usize, step: usize, factor: f64) -> Vec<(isize, T)> {
    let tap = |(t, &weight): (usize, &f64)| (delay as isize - (t * step) as isize, T::from_f64(factor * weight));
    filter.iter().enumerate().map(tap).collect()
}

/// The number of samples summed together while they are in cache.
const AT_ONCE: usize = 1 << 12;

/// Adds to `out` the array filtered along an axis along which it is continued periodically.
fn add_filtered<T: Real>(array: &NdArray<T>, axis: usize, taps: &[(isize, T)], out: &mut NdArray<T>) {
    let inner: usize = array.shape[axis + 1..].iter().product();
    // Along the filtered axis, the rows form a ring; they are stored one after another.
    let ring = array.shape[axis] * inner;
    let sum = |source: &[T], first: usize, out: &mut [T]| {
        for &(shift, weight) in taps {
            let start = (first as isize + shift * inner as isize).rem_euclid(ring as isize) as usize;
            let (before, behind) = out.split_at_mut(out.len().min(ring - start));
            let add = |out: &mut [T], source: &[T]| {
                out.iter_mut().zip(source).for_each(|(out, &value)| *out += value * weight);
            };
            add(before, &source[start..]);
            // A part is at most as long as the ring, so it goes around at most once.
            add(behind, source);
        }
    };
    let rings = out.data.par_chunks_mut(ring).zip(array.data.par_chunks(ring));
    rings.with_min_len(AT_ONCE.div_ceil(ring)).for_each(|(out, source)| {
        let parts = out.par_chunks_mut(AT_ONCE).enumerate().with_min_len(4);
        parts.for_each(|(part, out)| sum(source, part * AT_ONCE, out));
    });
}
