//! [`SparseWavelet`]: the coefficients of a grid above a threshold, as rows (x, y, z, band) with a value each.

use std::borrow::Cow;

use rayon::prelude::*;

use super::codec::{self, Rows};
use super::layout::{DEFAULT_LEVEL, WaveletLayout};
use super::levelling::{distance_of, level_off};
use super::transform::decompose;
use super::{BandNormalization, Mode, Wavelet, dwtn_max_level};
use crate::sdf::SdfGrid;
use crate::{Error, Result};

/// Which coefficients are kept. All comparisons are strict: `|c| > t`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Threshold {
    /// Those with magnitude above `t`, in every band.
    Plain(f32),
    /// Those above `t`; of the approximation, all that are not zero.
    KeepApproximation(f32),
    /// Those above `t`; of the approximation, those above `t / 10`.
    Adaptive(f32),
    /// All coefficients, also zeros: decoding restores the grid.
    Lossless,
    /// The `k` largest; among equal ones, those in earlier rows.
    Largest(usize),
    /// As few of the largest as possible, with a root mean square error of the decoded grid of at most this value.
    RmsError(f32),
    /// As few of the largest as possible, with a maximum error of the decoded grid of at most this value.
    MaxError(f32),
}

/// A number alone is [`Threshold::Plain`].
impl From<f32> for Threshold {
    fn from(t: f32) -> Self {
        Self::Plain(t)
    }
}

/// How a grid is encoded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WaveletConfig {
    /// A wavelet's name in PyWavelets, see [`Wavelet`].
    pub wavelet: String,
    /// Number of levels.
    pub level: usize,
    /// How the grid continues beyond its border.
    pub mode: Mode,
    /// Which coefficients are kept.
    pub threshold: Threshold,
    /// Distances `d` are written as `d / √(1 + (d/τ)²)`, which equals `d` at the surface and levels off at ±τ (in the grid's units: the
    /// default cube has side 2); [`SparseWavelet::decode`] undoes this. A threshold then keeps what shapes the surface and not what lies
    /// far from it. `None` writes plain distances. The thresholds that promise something about the grid itself also do:
    /// [`Lossless`](Threshold::Lossless), [`RmsError`](Threshold::RmsError) and [`MaxError`](Threshold::MaxError).
    pub truncation: Option<f32>,
}

impl Default for WaveletConfig {
    fn default() -> Self {
        Self {
            wavelet: "bior4.4".into(),
            level: DEFAULT_LEVEL,
            mode: Mode::Periodization,
            threshold: Threshold::Plain(0.01),
            truncation: Some(0.2),
        }
    }
}

setters! {
    WaveletConfig {
        wavelet(wavelet: impl Into<String>) => wavelet = wavelet.into();
        level(level: usize) => level = level;
        mode(mode: Mode) => mode = mode;
        threshold(threshold: impl Into<Threshold>) => threshold = threshold.into();
        truncation(truncation: Option<f32>) => truncation = truncation;
    }
}

impl WaveletConfig {
    /// The default with as many levels as are useful on a grid of this shape, at most three. Coarser levels would depend only on the
    /// extension beyond the border.
    ///
    /// ```
    /// use wavemesh::wavelet::WaveletConfig;
    /// assert_eq!([32, 64, 256].map(|n| WaveletConfig::fitting([n; 3]).level), [1, 2, 3]);
    /// ```
    pub fn fitting(shape: [usize; 3]) -> Self {
        let default = Self::default();
        let useful = Wavelet::from_name(&default.wavelet).map_or(0, |wavelet| dwtn_max_level(&shape, &wavelet));
        Self { level: useful.min(default.level), ..default }
    }
}

/// The kept wavelet coefficients of a signed distance grid.
///
/// ```
/// use wavemesh::{sdf::SdfGrid, wavelet::{Threshold, WaveletConfig}};
/// let ball = SdfGrid::from_fn([32, 32, 32], |[x, y, z]| (x * x + y * y + z * z).sqrt() - 0.5)?;
/// let coeffs = ball.encode(&WaveletConfig::new().level(1).threshold(Threshold::MaxError(0.01)))?;
/// let back = coeffs.decode()?;
/// assert!(ball.values().iter().zip(back.values()).all(|(a, b)| (a - b).abs() <= 0.01));
/// assert!(coeffs.stats().compression_ratio > 1.0);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SparseWavelet {
    layout: WaveletLayout,
    indices: Vec<[i32; 4]>,
    values: Vec<f32>,
}

/// How many coefficients were kept, and their memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WaveletStats {
    /// Number of coefficients in the transform.
    pub total: usize,
    /// Number of coefficients kept.
    pub nonzero: usize,
    /// Share of coefficients that were dropped, 0 to 1.
    pub sparsity_ratio: f64,
    /// `memory_dense / memory_sparse`.
    pub compression_ratio: f64,
    /// Bytes of the grid: 4 per sample.
    pub memory_dense: usize,
    /// Bytes of the kept coefficients: 20 each, four i32 for the place and an f32 for the value.
    pub memory_sparse: usize,
}

impl SdfGrid {
    /// Decomposes the grid, and keeps the coefficients that the threshold selects.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an unknown wavelet; an error if the threshold is negative or not a number, the truncation is not above zero,
    /// or the requested error is smaller than rounding allows.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = shapes::torus(0.5, 0.2).to_grid(32)?;
    /// let coeffs = grid.encode(&WaveletConfig::fitting(grid.shape()))?;
    /// assert!(coeffs.len() < 32 * 32 * 32 / 4); // most coefficients are nearly zero and left out
    /// # Ok::<(), Error>(())
    /// ```
    pub fn encode(&self, config: &WaveletConfig) -> Result<SparseWavelet> {
        let wavelet = Wavelet::from_name(&config.wavelet)?;
        let of_grid = matches!(config.threshold, Threshold::Lossless | Threshold::RmsError(_) | Threshold::MaxError(_));
        let layout = WaveletLayout::new(self.frame(), wavelet, config.mode, config.level)?
            .with_truncation(config.truncation.filter(|_| !of_grid))?;
        let written: Cow<[f32]> = match layout.truncation() {
            Some(limit) => self.values().par_iter().map(|&d| level_off(d, limit)).collect(),
            None => self.values().into(),
        };
        let bad = |got: String, expected: &str| {
            Err(Error::Argument { op: "encode", name: "threshold", got, expected: expected.into() })
        };
        let (in_approx, in_details) = match config.threshold {
            Threshold::Plain(t) => (t, t),
            Threshold::KeepApproximation(t) => (0.0, t),
            Threshold::Adaptive(t) => (t / 10.0, t),
            Threshold::Lossless => (-1.0, -1.0),
            Threshold::Largest(_) => (0.0, 0.0),
            Threshold::RmsError(t) | Threshold::MaxError(t) => (t, t),
        };
        if !in_details.is_finite() || (in_details < 0.0 && config.threshold != Threshold::Lossless) {
            return bad(in_details.to_string(), "a number that is not negative");
        }
        let encode = |in_approx: f32, in_details: f32| {
            let Rows { indices, values } =
                codec::encode(&written, &layout, |band| if band == 0 { in_approx } else { in_details })?;
            Ok::<_, Error>(SparseWavelet { layout: layout.clone(), indices, values })
        };
        let by_size = |t| matches!(t, Threshold::Largest(_) | Threshold::RmsError(_) | Threshold::MaxError(_));
        if !by_size(config.threshold) {
            return encode(in_approx, in_details);
        }
        // Magnitudes in descending order. The bits of non-negative floats have the order of their values.
        let coeffs = decompose(&written, &self.shape(), layout.wavelet(), config.mode, config.level)?;
        let mut magnitudes: Vec<u32> = coeffs.bands().flat_map(|band| &band.data).map(|v| v.abs().to_bits()).collect();
        drop(coeffs);
        magnitudes.par_sort_unstable_by(|a, b| b.cmp(a));
        let largest = |count: usize| {
            let smallest = count.checked_sub(1).map_or(f32::INFINITY, |last| f32::from_bits(magnitudes[last]));
            Ok::<_, Error>(encode(smallest.next_down(), smallest.next_down())?.without_ties(smallest, count))
        };
        if let Threshold::Largest(count) = config.threshold {
            return largest(count.min(magnitudes.len()));
        }
        let error = if matches!(config.threshold, Threshold::RmsError(_)) { rms_error } else { max_error };
        // The error falls as the number of coefficients rises, so bisection finds the number that is needed.
        let reached = |count: usize| {
            let decoded = largest(count)?.decode()?;
            Ok::<bool, Error>(error(self.values(), decoded.values()) <= f64::from(in_details))
        };
        let (mut few, mut enough) = (0, magnitudes.len());
        if !reached(enough)? {
            return bad(
                in_details.to_string(),
                "an error that all coefficients together reach; rounding allows no less",
            );
        }
        if reached(0)? {
            enough = 0;
        }
        while enough > few + 1 {
            let middle = few + (enough - few) / 2;
            if reached(middle)? { enough = middle } else { few = middle }
        }
        largest(enough)
    }
}

fn rms_error(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

fn max_error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

impl SparseWavelet {
    /// Coefficients from rows (x, y, z, band) and their values, in any order.
    ///
    /// # Errors
    /// If there are not as many values as rows, a row lies outside its band or occurs twice, or a value is not finite.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = SdfGrid::from_fn([4; 3], |_| 0.0)?;
    /// let layout = WaveletLayout::new(grid.frame(), Wavelet::from_name("haar")?, Mode::Periodization, 2)?;
    /// let mean = SparseWavelet::new(layout.clone(), vec![[0, 0, 0, 0]], vec![8.0])?; // one coefficient: the grid's sum / 8
    /// assert!(mean.decode()?.values().iter().all(|value| (value - 1.0).abs() < 1e-6));
    /// assert!(SparseWavelet::new(layout, vec![[1, 0, 0, 0]], vec![8.0]).is_err()); // the band has one place
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(layout: WaveletLayout, indices: Vec<[i32; 4]>, values: Vec<f32>) -> Result<Self> {
        const OP: &str = "SparseWavelet::new";
        if indices.len() != values.len() {
            let expected = format!("{} values, one a row", indices.len());
            return Err(Error::Shape { op: OP, what: "values", got: vec![values.len()], expected });
        }
        let bad = |name, got: String, expected: String| Err(Error::Argument { op: OP, name, got, expected });
        if let Some(row) = indices.iter().find(|row| place_in_band(&layout, row).is_none()) {
            let shape = layout.band_shape(row[3]);
            let expected =
                shape.map_or(format!("a band below {}", layout.bands()), |s| format!("a place within {s:?}"));
            return bad("a row (x, y, z, band)", format!("{row:?}"), expected);
        }
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return bad("a value", format!("{} in row {i}", values[i]), "a finite number".into());
        }
        let place = |&[x, y, z, band]: &[i32; 4]| [band, x, y, z];
        let (mut indices, mut values) = (indices, values);
        if !indices.is_sorted_by_key(place) {
            let mut rows: Vec<_> = indices.into_iter().zip(values).collect();
            rows.sort_unstable_by_key(|(row, _)| place(row));
            (indices, values) = rows.into_iter().unzip();
        }
        if let Some(pair) = indices.windows(2).find(|pair| pair[0] == pair[1]) {
            return bad("a row (x, y, z, band)", format!("{:?} twice", pair[0]), "each row once".into());
        }
        Ok(Self { layout, indices, values })
    }

    /// Keeps `count` rows: all whose magnitude is above `smallest`, and the first of those that have exactly this magnitude.
    fn without_ties(mut self, smallest: f32, count: usize) -> Self {
        let mut room = count.saturating_sub(self.values.iter().filter(|v| v.abs() > smallest).count());
        let mut stays = |value: f32| {
            let tie = value.abs() == smallest;
            let stays = !tie || room > 0;
            room -= usize::from(tie && stays);
            stays
        };
        let stays: Vec<bool> = self.values.iter().map(|&value| stays(value)).collect();
        let mut of_row = stays.iter();
        self.indices.retain(|_| of_row.next() == Some(&true));
        let mut of_value = stays.iter();
        self.values.retain(|_| of_value.next() == Some(&true));
        self
    }

    /// Rows (x, y, z, band) in the band's own coordinates, ascending by band, then x, y, z.
    pub fn indices(&self) -> &[[i32; 4]] {
        &self.indices
    }

    /// The coefficient of each row of [`SparseWavelet::indices`].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of coefficients kept.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no coefficient was kept.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Everything needed in addition to the coefficients to decode them.
    pub fn layout(&self) -> &WaveletLayout {
        &self.layout
    }

    /// The name of a band, such as `aaa3` or `add1`; 1 is the finest level.
    pub fn band_name(&self, id: i32) -> String {
        self.layout.band_name(id)
    }

    /// How many coefficients were kept, and their memory in bytes.
    pub fn stats(&self) -> WaveletStats {
        let (total, nonzero) = (self.layout.total(), self.values.len());
        let memory_dense = self.layout.frame().shape.iter().product::<usize>() * size_of::<f32>();
        let memory_sparse = nonzero * (size_of::<[i32; 4]>() + size_of::<f32>());
        WaveletStats {
            total,
            nonzero,
            sparsity_ratio: 1.0 - nonzero as f64 / total as f64,
            compression_ratio: memory_dense as f64 / memory_sparse as f64,
            memory_dense,
            memory_sparse,
        }
    }

    /// The grid that the kept coefficients describe, in the frame of the encoded grid.
    ///
    /// # Errors
    /// If the values overflow; [`Error::Memory`] if the layout, which may come from a file, needs a grid that does not fit in memory.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = shapes::sphere(0.5).to_grid(32)?;
    /// let back = grid.encode(&WaveletConfig::fitting(grid.shape()))?.decode()?;
    /// assert!(back.values().iter().zip(grid.values()).all(|(a, b)| (a - b).abs() < 0.05));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn decode(&self) -> Result<SdfGrid> {
        let mut values = self.written()?;
        if let Some(limit) = self.layout.truncation() {
            values.par_iter_mut().for_each(|value| *value = distance_of(*value, limit));
        }
        SdfGrid::with_frame(values, self.layout.frame())
    }

    /// The written values that the coefficients describe: with a truncation they level off.
    pub(super) fn written(&self) -> Result<Vec<f32>> {
        codec::decode(&self.indices, &self.values, &self.layout)
    }

    /// Only the coefficients of one band, such as `aaa3` or `daa1`: to inspect them, or to decode what they contribute.
    ///
    /// ```
    /// use wavemesh::{sdf::SdfGrid, wavelet::WaveletConfig};
    /// let ball = SdfGrid::from_fn([32; 3], |[x, y, z]| (x * x + y * y + z * z).sqrt() - 0.5)?;
    /// let band = ball.encode(&WaveletConfig::default())?.band("daa1")?;
    /// assert!(band.indices().iter().all(|&[.., id]| band.band_name(id) == "daa1"));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unknown`] if no band has this name.
    pub fn band(&self, name: &str) -> Result<Self> {
        let band = self.layout.band(name)?;
        let own = self.indices.partition_point(|row| row[3] < band)..self.indices.partition_point(|row| row[3] <= band);
        Ok(Self {
            layout: self.layout.clone(),
            indices: self.indices[own.clone()].to_vec(),
            values: self.values[own].to_vec(),
        })
    }

    /// The same coefficients with another normalisation in their layout.
    ///
    /// # Errors
    /// The errors of [`WaveletLayout::with_normalization`].
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::wavelet::BandNormalization;
    /// let coefficients = shapes::sphere(0.5).to_grid(16)?.encode(&WaveletConfig::new().level(2))?;
    /// let fitted = BandNormalization::fit([&coefficients])?;
    /// let stored = coefficients.with_normalization(fitted.clone())?;
    /// assert_eq!(stored.layout().normalization(), Some(&fitted));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_normalization(self, normalization: BandNormalization) -> Result<Self> {
        Ok(Self { layout: self.layout.with_normalization(normalization)?, ..self })
    }
}

impl BandNormalization {
    /// Mean and standard deviation of the kept coefficients of each band over several samples. A band with fewer than
    /// two different coefficients has deviation 1.
    ///
    /// # Errors
    /// If there are no samples, or the samples differ in their numbers of bands.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::wavelet::BandNormalization;
    /// let grid = SdfGrid::from_fn([4; 3], |_| 0.0)?;
    /// let layout = WaveletLayout::new(grid.frame(), Wavelet::from_name("haar")?, Mode::Periodization, 1)?;
    /// let sample = SparseWavelet::new(layout, vec![[0, 0, 0, 0], [1, 0, 0, 0]], vec![1.0, 5.0])?; // both of band 0
    /// let fitted = BandNormalization::fit([&sample])?;
    /// assert_eq!((fitted.mean[0], fitted.std[0]), (3.0, 2.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn fit<'a>(samples: impl IntoIterator<Item = &'a SparseWavelet>) -> Result<Self> {
        let mut sums: Vec<[f64; 3]> = Vec::new();
        for sample in samples {
            let bands = sample.layout.bands();
            if sums.is_empty() {
                sums.resize(bands, [0.0; 3]);
            }
            if sums.len() != bands {
                let expected = format!("{} bands, as the samples before", sums.len());
                return Err(Error::Shape {
                    op: "BandNormalization::fit",
                    what: "a sample",
                    got: vec![bands],
                    expected,
                });
            }
            for (row, &value) in sample.indices.iter().zip(&sample.values) {
                let value = f64::from(value);
                let [count, sum, squares] = &mut sums[row[3] as usize];
                *count += 1.0;
                *sum += value;
                *squares += value * value;
            }
        }
        if sums.is_empty() {
            let (got, expected) = ("none".into(), "at least one sample".into());
            return Err(Error::Argument { op: "BandNormalization::fit", name: "samples", got, expected });
        }
        let moments = |[count, sum, squares]: [f64; 3]| {
            let mean = sum / count.max(1.0);
            let std = (squares / count.max(1.0) - mean * mean).max(0.0).sqrt();
            (mean as f32, if std > 1e-6 * mean.abs() && std > 0.0 { std as f32 } else { 1.0 })
        };
        let (mean, std) = sums.into_iter().map(moments).unzip();
        Ok(Self { mean, std })
    }
}

/// The index of a row's coefficient among the values of its band; `None` if it lies outside.
fn place_in_band(layout: &WaveletLayout, &[x, y, z, band]: &[i32; 4]) -> Option<usize> {
    let shape = layout.band_shape(band)?;
    let [x, y, z] = [x, y, z].map(|c| usize::try_from(c).unwrap_or(usize::MAX));
    (x < shape[0] && y < shape[1] && z < shape[2]).then(|| (x * shape[1] + y) * shape[2] + z)
}
