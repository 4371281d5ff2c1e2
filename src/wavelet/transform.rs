//! `wavedecn` and `waverecn`: the multilevel transform for any number of dimensions, with PyWavelets' order and values.

use std::ops::Range;

use super::array::{Fresh, NdArray};
use super::axis::{Analysis, Scratch};
use super::combine::Real;
use super::filters::Wavelet;
use super::level::{AnalysisLevel, SynthesisLevel, in_ranges, synthesis};
use super::mode::Mode;
use super::some_axes;
use crate::{Error, Result, memory};

/// The most axes that an array may have.
const MOST_AXES: usize = 16;

/// The result of [`wavedecn`]: an approximation, and the details of each level.
#[derive(Clone, Debug, PartialEq)]
pub struct WaveletCoeffs<T> {
    /// Shape of the array that was decomposed.
    pub shape: Vec<usize>,
    /// The wavelet that decomposed it.
    pub wavelet: Wavelet,
    /// The mode that extended it.
    pub mode: Mode,
    /// The axes along which it was decomposed: all in order, or those that [`wavedecn_axes`] was given.
    pub axes: Vec<usize>,
    /// The band `a…a` of the coarsest level.
    pub approx: NdArray<T>,
    /// The bands from the coarsest level to the finest: `a…ad` to `d…d` in alphabetical order, 2^dims - 1 for each level. Each letter tells
    /// which filter was applied along the axis at the same place of `axes`: `a` low-pass, `d` high-pass.
    pub details: Vec<Vec<NdArray<T>>>,
}

impl<T: Real> WaveletCoeffs<T> {
    /// Number of levels.
    pub fn level(&self) -> usize {
        self.details.len()
    }

    /// All bands in the order of their fixed ids: the approximation, then the levels from coarse to fine.
    pub fn bands(&self) -> impl Iterator<Item = &NdArray<T>> {
        std::iter::once(&self.approx).chain(self.details.iter().flatten())
    }

    /// The band with a name such as `aad` at a level; as in PyWavelets, 1 is the finest. `a…a` is the approximation, whatever the level.
    pub fn band(&self, level: usize, name: &str) -> Option<&NdArray<T>> {
        let id = name.chars().try_fold(0, |id, letter| match letter {
            'a' => Some(2 * id),
            'd' => Some(2 * id + 1),
            _ => None,
        })?;
        match id {
            _ if name.len() != self.axes.len() => None,
            0 => Some(&self.approx),
            _ => self.details.get(self.details.len().checked_sub(level)?)?.get(id - 1),
        }
    }
}

/// The largest useful number of levels for a signal of `len` samples and filters with `taps` taps: beyond it, every coefficient depends on
/// how the signal is extended. 0 if even one level is too many.
///
/// ```
/// use wavemesh::wavelet::dwt_max_level;
/// assert_eq!(dwt_max_level(64, 10), 2);
/// ```
pub fn dwt_max_level(len: usize, taps: usize) -> usize {
    if taps < 2 { 0 } else { (len / (taps - 1)).checked_ilog2().unwrap_or(0) as usize }
}

/// The [`dwt_max_level`] of an array's shortest axis, for the filters of the wavelet. PyWavelets' `dwtn_max_level`.
///
/// ```
/// use wavemesh::wavelet::{Wavelet, dwtn_max_level};
/// assert_eq!(dwtn_max_level(&[64, 128, 64], &Wavelet::from_name("bior4.4")?), 2);
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn dwtn_max_level(shape: &[usize], wavelet: &Wavelet) -> usize {
    shape.iter().map(|&n| dwt_max_level(n, wavelet.len())).min().unwrap_or(0)
}

/// One level in one dimension. Returns (approximation, details).
///
/// # Errors
/// If the signal is empty.
///
/// ```
/// use wavemesh::wavelet::{Mode, Wavelet, dwt};
/// let (approx, details) = dwt(&[1.0f64, 1.0, 3.0, 5.0], &Wavelet::from_name("haar")?, Mode::Periodization)?;
/// assert!((approx[1] - 8.0 / 2f64.sqrt()).abs() < 1e-12 && details[0].abs() < 1e-12);
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn dwt<T: Real>(signal: &[T], wavelet: &Wavelet, mode: Mode) -> Result<(Vec<T>, Vec<T>)> {
    check_shape("dwt", signal.len(), &[signal.len()])?;
    if loses_digits::<T>(mode) {
        let (low, high) = dwt(&widened(signal), wavelet, mode)?;
        return Ok((narrowed(&low), narrowed(&high)));
    }
    let axis = Analysis::new(wavelet, mode, signal.len());
    let mut low = vec![T::default(); axis.m];
    let mut high = vec![T::default(); axis.m];
    axis.line(signal, &mut low, &mut high, &mut Scratch::default());
    Ok((low, high))
}

/// The inverse of [`dwt`]. As in PyWavelets, a signal of odd length comes back with one sample more.
///
/// # Errors
/// If the two parts differ in length or are too short for the wavelet.
///
/// ```
/// use wavemesh::prelude::*;
/// let haar = Wavelet::from_name("haar")?;
/// let signal = [1f64, 3.0, 2.0, 2.0];
/// let (approx, details) = dwt(&signal, &haar, Mode::Symmetric)?;
/// let back = idwt(&approx, &details, &haar, Mode::Symmetric)?;
/// assert!(back.iter().zip(signal).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok::<(), Error>(())
/// ```
pub fn idwt<T: Real>(approx: &[T], details: &[T], wavelet: &Wavelet, mode: Mode) -> Result<Vec<T>> {
    if approx.len() != details.len() || approx.is_empty() {
        let expected = format!("{} values, as the approximation has, and at least one", approx.len());
        return Err(Error::Shape { op: "idwt", what: "details", got: vec![details.len()], expected });
    }
    let axis = synthesis(wavelet, mode, approx.len())?;
    let mut signal = vec![T::default(); axis.n];
    axis.line(approx, details, &mut signal, &mut Scratch::default());
    Ok(signal)
}

/// Straight lines through two samples grow with the length of the filter, and then cancel: single precision would keep few digits, so these
/// decompositions are summed in double precision. Reconstructions extend nothing.
fn loses_digits<T>(mode: Mode) -> bool {
    mode == Mode::Smooth && size_of::<T>() < size_of::<f64>()
}

fn widened<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

fn narrowed<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&v| T::from_f64(v)).collect()
}

impl<T: Real> WaveletCoeffs<T> {
    /// The same coefficients in another precision.
    fn converted<U: Real>(&self, convert: impl Fn(&[T]) -> Vec<U>) -> WaveletCoeffs<U> {
        let band = |band: &NdArray<T>| NdArray { shape: band.shape.clone(), data: convert(&band.data) };
        WaveletCoeffs {
            shape: self.shape.clone(),
            wavelet: self.wavelet.clone(),
            mode: self.mode,
            axes: self.axes.clone(),
            approx: band(&self.approx),
            details: self.details.iter().map(|level| level.iter().map(band).collect()).collect(),
        }
    }
}

/// The multilevel transform of an array with any number of dimensions, as PyWavelets' `wavedecn`. `data` is in C order. A level beyond the
/// [useful](dwt_max_level) ones is computed with a warning; `None` takes all useful levels.
///
/// # Errors
/// If `data` does not have `shape`, an axis has length zero, there are more than 16 axes, or `level` is above 64 (no array has so many);
/// [`Error::Memory`] if the bands do not fit in memory.
///
/// ```
/// use wavemesh::wavelet::{Mode, Wavelet, wavedecn, waverecn};
/// let data: Vec<f32> = (0..8 * 8 * 8).map(|i| (i % 13) as f32).collect();
/// let coeffs = wavedecn(&data, &[8, 8, 8], &Wavelet::from_name("haar")?, Mode::Periodization, 2)?;
/// assert_eq!(coeffs.band(1, "aad").unwrap().shape, [4, 4, 4]);
/// let back = waverecn(&coeffs)?;
/// assert!(back.data.iter().zip(&data).all(|(a, b)| (a - b).abs() < 1e-4));
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[doc(alias("wavedec", "wavedec2"))]
pub fn wavedecn<T: Real>(
    data: &[T],
    shape: &[usize],
    wavelet: &Wavelet,
    mode: Mode,
    level: impl Into<Option<usize>>,
) -> Result<WaveletCoeffs<T>> {
    let axes: Vec<usize> = (0..shape.len()).collect();
    let found = decompose_along("wavedecn", NdArrayRef { data, shape }, &axes, wavelet, mode, level.into())?;
    warn_of_useless_levels(shape, wavelet, mode, found.level());
    Ok(found)
}

/// [`wavedecn`] without its warning.
pub(super) fn decompose<T: Real>(
    data: &[T],
    shape: &[usize],
    wavelet: &Wavelet,
    mode: Mode,
    level: usize,
) -> Result<WaveletCoeffs<T>> {
    let axes: Vec<usize> = (0..shape.len()).collect();
    decompose_along("wavedecn", NdArrayRef { data, shape }, &axes, wavelet, mode, Some(level))
}

/// Like [`wavedecn`] along some axes, in the order in which they name the bands: PyWavelets' argument `axes`. For each index of the other
/// axes, there is a separate array.
///
/// # Errors
/// The errors of [`wavedecn`]; and if an axis does not exist or is named twice.
///
/// ```
/// use wavemesh::wavelet::{Mode, Wavelet, wavedecn_axes, waverecn};
/// let frames: Vec<f32> = (0..3 * 8 * 8).map(|i| (i % 13) as f32).collect();
/// let coeffs = wavedecn_axes(&frames, &[3, 8, 8], &[1, 2], &Wavelet::from_name("haar")?, Mode::Periodization, 2)?;
/// assert_eq!(coeffs.band(1, "ad").unwrap().shape, [3, 4, 4]);
/// assert!(waverecn(&coeffs)?.data.iter().zip(&frames).all(|(a, b)| (a - b).abs() < 1e-4));
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn wavedecn_axes<T: Real>(
    data: &[T],
    shape: &[usize],
    axes: &[usize],
    wavelet: &Wavelet,
    mode: Mode,
    level: impl Into<Option<usize>>,
) -> Result<WaveletCoeffs<T>> {
    some_axes::check("wavedecn_axes", axes, shape.len())?;
    let found = decompose_along("wavedecn_axes", NdArrayRef { data, shape }, axes, wavelet, mode, level.into())?;
    let along: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    warn_of_useless_levels(&along, wavelet, mode, found.level());
    Ok(found)
}

/// A borrowed array.
#[derive(Clone, Copy)]
struct NdArrayRef<'a, T> {
    data: &'a [T],
    shape: &'a [usize],
}

fn decompose_along<T: Real>(
    op: &'static str,
    NdArrayRef { data, shape }: NdArrayRef<T>,
    axes: &[usize],
    wavelet: &Wavelet,
    mode: Mode,
    level: Option<usize>,
) -> Result<WaveletCoeffs<T>> {
    check_shape(op, data.len(), shape)?;
    let along: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let level = chosen_level(op, level, &along, wavelet)?;
    if loses_digits::<T>(mode) {
        let wide = widened(data);
        let wide = decompose_along(op, NdArrayRef { data: &wide, shape }, axes, wavelet, mode, Some(level))?;
        return Ok(wide.converted(narrowed));
    }
    check_bands::<T>(op, shape, axes, wavelet, mode, level)?;
    let mut details = Vec::new();
    let mut approx = None;
    for _ in 0..level {
        let (data, shape) = approx.as_ref().map_or((data, shape), |a: &NdArray<T>| (&a.data, &a.shape));
        let mut bands = if some_axes::are_all(axes, shape.len()) {
            analyze(data, shape, wavelet, mode)
        } else {
            let whole = NdArray { shape: shape.to_vec(), data: data.to_vec() };
            some_axes::apart(&[&whole], axes, |parts, shape| Ok(analyze(parts[0], shape, wavelet, mode)))?
        };
        details.push(bands.split_off(1));
        approx = bands.pop();
    }
    details.reverse();
    let approx = approx.unwrap_or_else(|| NdArray { shape: shape.to_vec(), data: data.to_vec() });
    let (shape, axes, wavelet) = (shape.to_vec(), axes.to_vec(), wavelet.clone());
    Ok(WaveletCoeffs { shape, wavelet, mode, axes, approx, details })
}

/// The level that was asked for, or all useful ones for axes of these lengths.
pub(super) fn chosen_level(
    op: &'static str,
    level: Option<usize>,
    along: &[usize],
    wavelet: &Wavelet,
) -> Result<usize> {
    let level = level.unwrap_or_else(|| dwtn_max_level(along, wavelet));
    if level > usize::BITS as usize {
        let expected = "at most 64; halving an axis more often changes nothing".into();
        return Err(Error::Argument { op, name: "level", got: level.to_string(), expected });
    }
    Ok(level)
}

/// Checks that all bands fit in memory. Each level has 2^axes bands, and filters longer than an axis make it longer: a single number along
/// sixteen axes can become more than any machine holds.
fn check_bands<T>(
    op: &'static str,
    shape: &[usize],
    axes: &[usize],
    wavelet: &Wavelet,
    mode: Mode,
    level: usize,
) -> Result<()> {
    let (mut shape, mut bytes) = (shape.to_vec(), 0usize);
    for _ in 0..level {
        axes.iter().for_each(|&axis| shape[axis] = mode.coefficients(shape[axis], wavelet.len()));
        let band = shape.iter().fold(size_of::<T>(), |bytes, &n| bytes.saturating_mul(n));
        let own = size_of::<NdArray<T>>() + size_of_val(shape.as_slice());
        bytes = bytes.saturating_add(band.saturating_add(own).saturating_mul(1 << axes.len()));
    }
    memory::check(op, || format!("{level} levels along {} axes", axes.len()), bytes)
}

/// Warns as PyWavelets does.
pub(super) fn warn_of_useless_levels(shape: &[usize], wavelet: &Wavelet, mode: Mode, level: usize) {
    let useful = dwtn_max_level(shape, wavelet);
    if level > useful {
        log::warn!(
            "{} allows {useful} levels on a grid of {shape:?}; {level} were asked for, and all coefficients of the levels beyond \
             depend on how the grid is extended ({})",
            wavelet.name(),
            mode.name(),
        );
    }
}

/// The inverse of [`wavedecn`], as PyWavelets' `waverecn`. An axis of odd length comes back with one sample more.
///
/// # Errors
/// If the shapes of the bands do not fit each other, or do not fit the whole array.
///
/// ```
/// use wavemesh::prelude::*;
/// let haar = Wavelet::from_name("haar")?;
/// let mut coeffs = wavedecn(&[1f64, 3.0, 2.0, 2.0], &[4], &haar, Mode::Symmetric, 1)?;
/// coeffs.details[0][0].data.fill(0.0); // without details, pairs become their mean
/// assert!(waverecn(&coeffs)?.data.iter().all(|v| (v - 2.0).abs() < 1e-12));
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("waverec", "waverec2"))]
pub fn waverecn<T: Real>(coeffs: &WaveletCoeffs<T>) -> Result<NdArray<T>> {
    let axes = &coeffs.axes;
    some_axes::check("waverecn", axes, coeffs.approx.shape.len())?;
    let mut approx: Option<NdArray<T>> = None;
    for (place, details) in coeffs.details.iter().enumerate() {
        let level = coeffs.details.len() - place;
        let current = approx.as_ref().unwrap_or(&coeffs.approx);
        let shape = check_level(current, details, axes, level)?;
        // A reconstruction may be one sample longer than the decomposed array.
        let cropped = (current.shape != shape).then(|| current.clone().cropped(&shape));
        let bands: Vec<&NdArray<T>> = std::iter::once(cropped.as_ref().unwrap_or(current)).chain(details).collect();
        let whole = |bands: &[&[T]], m: &[usize]| synthesize(bands, m, &coeffs.wavelet, coeffs.mode);
        approx = if some_axes::are_all(axes, shape.len()) {
            let bands: Vec<&[T]> = bands.iter().map(|band| band.data.as_slice()).collect();
            Some(whole(&bands, &shape)?)
        } else {
            some_axes::apart(&bands, axes, |bands, m| Ok(vec![whole(bands, m)?]))?.pop()
        };
    }
    let found = approx.unwrap_or_else(|| coeffs.approx.clone());
    let longer = usize::from(!coeffs.details.is_empty());
    let fits = |(&found, &shape): (&usize, &usize)| (shape..=shape + longer).contains(&found);
    if found.shape.len() != coeffs.shape.len() || !found.shape.iter().zip(&coeffs.shape).all(fits) {
        let expected = format!("{:?}, which is what its bands make", found.shape);
        return Err(Error::Shape { op: "waverecn", what: "coeffs.shape", got: coeffs.shape.clone(), expected });
    }
    Ok(found)
}

pub(super) fn check_shape(op: &'static str, len: usize, shape: &[usize]) -> Result<()> {
    let wanted = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if shape.is_empty() || shape.len() > MOST_AXES {
        let expected = format!("1 to {MOST_AXES} axes: a level has 2^axes bands");
        return Err(Error::argument(op, "shape", format!("{shape:?}"), expected));
    }
    if len == 0 || wanted != Some(len) {
        let expected = format!("the product of the shape {shape:?}, no axis of which has length 0");
        return Err(Error::Shape { op, what: "data", got: vec![len], expected });
    }
    Ok(())
}

/// The shape of all bands of a level. The approximation may be one longer along an axis.
fn check_level<T>(approx: &NdArray<T>, details: &[NdArray<T>], axes: &[usize], level: usize) -> Result<Vec<usize>> {
    let dims = axes.len();
    let wrong = |got: &[usize], expected: String| {
        Err(Error::Shape {
            op: "waverecn",
            what: "a band",
            got: got.to_vec(),
            expected: format!("{expected} (level {level})"),
        })
    };
    let Some(first) = details.first().filter(|_| details.len() == (1 << dims) - 1) else {
        return wrong(&[details.len()], format!("{} bands of details", (1 << dims) - 1));
    };
    for band in details {
        if band.shape != first.shape || band.data.len() != band.shape.iter().product::<usize>() {
            return wrong(&band.shape, format!("{:?} and as many values", first.shape));
        }
    }
    let longer = |axis: usize| usize::from(axes.contains(&axis));
    let lengths = approx.shape.iter().zip(&first.shape).enumerate();
    let fits = lengths.into_iter().all(|(axis, (&a, &d))| d > 0 && (a == d || a == d + longer(axis)));
    if first.shape.len() != approx.shape.len() || !fits || approx.data.len() != approx.shape.iter().product::<usize>() {
        return wrong(&approx.shape, format!("{:?}, or one more along an axis", first.shape));
    }
    Ok(first.shape.clone())
}

/// One level: the 2^dims bands in alphabetical order.
pub(super) fn analyze<T: Real>(data: &[T], shape: &[usize], wavelet: &Wavelet, mode: Mode) -> Vec<NdArray<T>> {
    if let &[n] = shape {
        let axis = Analysis::new(wavelet, mode, n);
        let [mut low, mut high] = [NdArray::zeros(&[axis.m]), NdArray::zeros(&[axis.m])];
        axis.line(data, &mut low.data, &mut high.data, &mut Scratch::default());
        return vec![low, high];
    }
    let mut made = Vec::new();
    let level = AnalysisLevel::new(data, shape, wavelet, mode, &mut made);
    let tiles = level.tiles();
    let slab: usize = level.m[1..].iter().product();
    let cuts = [slab, slab / level.m[1] * tiles[0].len()];
    NdArray::in_parts(&level.m, 1 << shape.len(), cuts, |parts| {
        let mut jobs = jobs(parts, &tiles, level.slabs_kept());
        in_ranges(&mut jobs, level.samples() * level.m[0] / tiles.len(), 1, |_, jobs| {
            for Job { tile, first, parts } in jobs {
                let mut work = level.tile(tile.clone());
                let parts = std::mem::take(parts).into_iter();
                let mut slabs = parts.map(|bands| bands.into_iter().map(Fresh::zeros).collect::<Vec<_>>());
                let mut k = *first;
                while let Some(mut bands) = slabs.next() {
                    match slabs.next() {
                        Some(mut next) => work.slabs(k, [&mut bands, &mut next]),
                        None => work.slabs(k, [&mut bands]),
                    }
                    k += 2;
                }
            }
        });
    })
}

/// A tile of consecutive slabs, and where its values go.
struct Job<'a, T: Real> {
    tile: Range<usize>,
    first: usize,
    parts: Vec<Vec<Fresh<'a, T>>>,
}

/// Jobs for all slabs of each tile, or for some of these slabs if there are too few tiles for all threads. The parts are ordered by slab,
/// then by tile. A job should be several times as long as the `kept` slabs with which it begins.
fn jobs<'a, T: Real>(parts: Vec<Vec<Fresh<'a, T>>>, tiles: &[Range<usize>], kept: usize) -> Vec<Job<'a, T>> {
    let slabs = parts.len() / tiles.len();
    let wanted = (2 * rayon::current_num_threads()).div_ceil(tiles.len());
    let len = slabs.div_ceil(wanted).max(4 * kept).min(slabs).next_multiple_of(2);
    let per_tile = slabs.div_ceil(len);
    let job = |number: usize| Job {
        tile: tiles[number / per_tile].clone(),
        first: number % per_tile * len,
        parts: Vec::new(),
    };
    let mut jobs: Vec<Job<T>> = (0..tiles.len() * per_tile).map(job).collect();
    for (place, part) in parts.into_iter().enumerate() {
        let (slab, tile) = (place / tiles.len(), place % tiles.len());
        jobs[tile * per_tile + slab / len].parts.push(part);
    }
    jobs
}

/// The inverse of one level.
pub(super) fn synthesize<T: Real>(bands: &[&[T]], m: &[usize], wavelet: &Wavelet, mode: Mode) -> Result<NdArray<T>> {
    if let ([m], [low, high]) = (m, bands) {
        let axis = synthesis(wavelet, mode, *m)?;
        let mut out = NdArray::zeros(&[axis.n]);
        axis.line(low, high, &mut out.data, &mut Scratch::default());
        return Ok(out);
    }
    let level = SynthesisLevel::new(m, wavelet, mode)?;
    let row: usize = m[1..].iter().product();
    let tiles = level.tiles();
    let slab = level.samples() / 2;
    let cuts = [slab, 2 * slab / level.shape[1] * tiles[0].len()];
    let mut out = NdArray::in_parts(&level.shape, 1, cuts, |parts| {
        let mut jobs = jobs(parts, &tiles, 1);
        in_ranges(&mut jobs, level.samples() / 2 * level.shape[0] / tiles.len(), 1, |_, jobs| {
            for Job { tile, first, parts } in jobs {
                let mut work = level.tile(tile.clone());
                let mut slabs = std::mem::take(parts).into_iter().flatten().map(Fresh::zeros);
                let mut pairs = std::iter::from_fn(|| Some([slabs.next()?, slabs.next()?]));
                let coefficients = |band: usize, entry| &bands[band][level.index(entry) * row..][..row];
                let mut q = *first / 2;
                while let Some(pair) = pairs.next() {
                    match pairs.next() {
                        Some(next) => work.slab_pairs(q, coefficients, [pair, next]),
                        None => work.slab_pairs(q, coefficients, [pair]),
                    }
                    q += 2;
                }
            }
        });
    });
    Ok(out.swap_remove(0))
}
