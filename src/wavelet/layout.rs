//! [`WaveletLayout`]: everything except the coefficients that is needed to get back to a grid.

use serde::{Deserialize, Serialize};

use super::{Mode, NdArray, Real, Wavelet, WaveletCoeffs};
use crate::sdf::Frame;
use crate::{Error, Result};

/// The bands, their sizes, and the grid that they decompose.
///
/// Bands have fixed ids: 0 is `aaa`; then come the levels from coarse to fine with seven bands each, `aad`, `ada`, `add`, `daa`, `dad`,
/// `dda`, `ddd` (22 bands at three levels). An id means the same band for every sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct WaveletLayout {
    wavelet: Wavelet,
    mode: Mode,
    frame: Frame,
    truncation: Option<f32>,
    normalization: Option<BandNormalization>,
    /// Shape of each band.
    shapes: Vec<[usize; 3]>,
}

/// A mean and a standard deviation for each band: `normalized = (coefficient - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BandNormalization {
    /// Mean of each band, in the order of the band ids.
    pub mean: Vec<f32>,
    /// Standard deviation of each band, above zero.
    pub std: Vec<f32>,
}

/// The part of a layout that is written to files; the rest follows from it.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    wavelet: String,
    mode: Mode,
    level: usize,
    frame: Frame,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    truncation: Option<f32>,
    normalization: Option<BandNormalization>,
}

impl From<WaveletLayout> for Stored {
    fn from(layout: WaveletLayout) -> Self {
        Self {
            level: layout.level(),
            wavelet: layout.wavelet.name().into(),
            mode: layout.mode,
            frame: layout.frame,
            truncation: layout.truncation,
            normalization: layout.normalization,
        }
    }
}

impl TryFrom<Stored> for WaveletLayout {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        let layout = Self::new(stored.frame, Wavelet::from_name(&stored.wavelet)?, stored.mode, stored.level)?
            .with_truncation(stored.truncation)?;
        match stored.normalization {
            Some(normalization) => layout.with_normalization(normalization),
            None => Ok(layout),
        }
    }
}

/// With more levels than this, any grid that fits in memory has one coefficient left.
const MOST_LEVELS: usize = 20;

/// The default number of levels of a [`WaveletConfig`](super::WaveletConfig).
pub(super) const DEFAULT_LEVEL: usize = 3;

impl WaveletLayout {
    /// The bands of `level` levels of a grid.
    ///
    /// # Errors
    /// If the grid has no samples or more than 2³², its frame is invalid, or there are more than 20 levels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = shapes::sphere(0.5).to_grid(16)?;
    /// let layout = WaveletLayout::new(grid.frame(), Wavelet::from_name("haar")?, Mode::Periodization, 2)?;
    /// assert_eq!((layout.bands(), layout.total()), (15, 16 * 16 * 16));
    /// assert_eq!([layout.band_shape(0), layout.band_shape(14)], [Some([4; 3]), Some([8; 3])]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(frame: Frame, wavelet: Wavelet, mode: Mode, level: usize) -> Result<Self> {
        const OP: &str = "WaveletLayout";
        if level > MOST_LEVELS {
            return Err(Error::argument(OP, "level", level, format!("at most {MOST_LEVELS}")));
        }
        frame.check(OP)?;
        let mut shapes = Vec::new();
        let mut shape = frame.shape;
        for _ in 0..level {
            shape = shape.map(|n| mode.coefficients(n, wavelet.len()));
            shapes.extend([shape; 7]);
        }
        shapes.push(shape);
        shapes.reverse();
        Ok(Self { wavelet, mode, frame, truncation: None, normalization: None, shapes })
    }

    /// The same layout for distances that level off at ±`truncation`; `None` for plain distances.
    ///
    /// # Errors
    /// If it is not a finite number above zero.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = shapes::sphere(0.5).to_grid(16)?;
    /// let layout = WaveletLayout::new(grid.frame(), Wavelet::from_name("haar")?, Mode::Periodization, 2)?;
    /// assert_eq!(layout.clone().with_truncation(Some(0.1))?.truncation(), Some(0.1));
    /// assert!(layout.with_truncation(Some(0.0)).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_truncation(self, truncation: Option<f32>) -> Result<Self> {
        if let Some(limit) = truncation.filter(|limit| !(limit.is_finite() && *limit > 0.0)) {
            return Err(Error::Argument {
                op: "with_truncation",
                name: "truncation",
                got: limit.to_string(),
                expected: "a distance above zero, or None for plain distances".into(),
            });
        }
        Ok(Self { truncation, ..self })
    }

    /// The same layout with a normalisation for each band, which is applied when coefficients become a tensor, and undone on the way back.
    ///
    /// # Errors
    /// If there is not exactly one finite mean and one positive deviation for each band.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::wavelet::BandNormalization;
    /// let grid = shapes::sphere(0.5).to_grid(16)?;
    /// let layout = WaveletLayout::new(grid.frame(), Wavelet::from_name("haar")?, Mode::Periodization, 1)?;
    /// let halved = BandNormalization { mean: vec![0.0; 8], std: vec![2.0; 8] };
    /// assert!(layout.clone().with_normalization(halved).is_ok());
    /// let flat = BandNormalization { mean: vec![0.0; 8], std: vec![0.0; 8] };
    /// assert!(layout.with_normalization(flat).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_normalization(self, normalization: BandNormalization) -> Result<Self> {
        let BandNormalization { mean, std } = &normalization;
        let count = self.bands();
        if mean.len() != count || std.len() != count {
            let expected = format!("one mean and one deviation for each of {count} bands");
            return Err(Error::Shape {
                op: "with_normalization",
                what: "normalization",
                got: vec![mean.len(), std.len()],
                expected,
            });
        }
        if let Some(band) = (0..count).find(|&b| !(mean[b].is_finite() && std[b].is_finite() && std[b] > 0.0)) {
            let got = format!("mean {} and deviation {} for {}", mean[band], std[band], self.band_name(band as i32));
            let expected = "finite numbers, the deviation above zero".into();
            return Err(Error::Argument { op: "with_normalization", name: "normalization", got, expected });
        }
        Ok(Self { normalization: Some(normalization), ..self })
    }

    /// The wavelet.
    pub fn wavelet(&self) -> &Wavelet {
        &self.wavelet
    }

    /// The extension mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Number of levels.
    pub fn level(&self) -> usize {
        self.shapes.len() / 7
    }

    /// The frame of the grid that the coefficients decompose.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// The distance at which the coefficients' distances level off: see [`WaveletConfig::truncation`](super::WaveletConfig::truncation).
    pub fn truncation(&self) -> Option<f32> {
        self.truncation
    }

    /// The normalisation of features, if any.
    pub fn normalization(&self) -> Option<&BandNormalization> {
        self.normalization.as_ref()
    }

    /// Number of bands, 1 + 7 · level. It is also the number of channels of a packed tensor.
    pub fn bands(&self) -> usize {
        self.shapes.len()
    }

    /// Number of coefficients in all bands.
    pub fn total(&self) -> usize {
        self.shapes.iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// Shape of a band along x, y, z; `None` if there is no such band.
    pub fn band_shape(&self, id: i32) -> Option<[usize; 3]> {
        self.shapes.get(usize::try_from(id).ok()?).copied()
    }

    /// Shape of an existing band.
    pub(super) fn shape(&self, band: usize) -> [usize; 3] {
        self.shapes[band]
    }

    /// The first of the seven detail bands of a level; level 1 is the finest.
    pub(super) fn details(&self, level: usize) -> usize {
        1 + 7 * (self.level() - level)
    }

    /// Level of a band as PyWavelets counts: 1 is the finest. The approximation has the coarsest level.
    pub fn band_level(&self, id: i32) -> usize {
        self.level() - (usize::try_from(id.saturating_sub(1)).unwrap_or(0) / 7).min(self.level())
    }

    /// A band's name with its level, such as `aaa3` or `add1`.
    pub fn band_name(&self, id: i32) -> String {
        if !(0..self.bands() as i32).contains(&id) {
            return format!("no band {id}");
        }
        let bits = if id == 0 { 0 } else { (id - 1) % 7 + 1 };
        let letters: String = [4, 2, 1].map(|axis| if bits & axis == 0 { 'a' } else { 'd' }).iter().collect();
        format!("{letters}{}", self.band_level(id))
    }

    /// The band with this name, such as `aaa3` or `daa1`: the inverse of [`band_name`](Self::band_name).
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = shapes::sphere(0.5).to_grid(16)?;
    /// let layout = WaveletLayout::new(grid.frame(), Wavelet::from_name("haar")?, Mode::Periodization, 2)?;
    /// assert_eq!([layout.band("aaa2")?, layout.band("aad2")?, layout.band("ddd1")?], [0, 1, 14]);
    /// assert!(layout.band("ddd3").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn band(&self, name: &str) -> Result<i32> {
        let names = || (0..self.bands() as i32).map(|id| self.band_name(id));
        names().position(|known| known == name).map(|id| id as i32).ok_or_else(|| Error::Unknown {
            kind: "band",
            name: name.into(),
            known: names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Distance of neighbouring coefficients of a band, in sites of the packed tensor: 2^(level - 1).
    pub fn band_stride(&self, id: i32) -> usize {
        1 << self.band_level(id).saturating_sub(1)
    }

    /// Number of sites of the packed tensor along x, y, z: that of the finest details.
    pub fn sites(&self) -> [usize; 3] {
        std::array::from_fn(|axis| {
            let furthest = |(id, shape): (usize, &[usize; 3])| (shape[axis] - 1) * self.band_stride(id as i32) + 1;
            self.shapes.iter().enumerate().map(furthest).max().unwrap_or(1)
        })
    }

    /// Coefficients from the given bands, which come in the order of their ids, in the form that [`waverecn`](super::waverecn) takes.
    pub(super) fn coefficients<T: Real>(&self, bands: Vec<Vec<T>>) -> WaveletCoeffs<T> {
        let mut bands =
            bands.into_iter().zip(&self.shapes).map(|(data, shape)| NdArray { shape: shape.to_vec(), data });
        let approx = bands.next().unwrap_or_else(|| NdArray { shape: Vec::new(), data: Vec::new() });
        WaveletCoeffs {
            shape: self.frame.shape.to_vec(),
            wavelet: self.wavelet.clone(),
            mode: self.mode,
            axes: vec![0, 1, 2],
            approx,
            details: (0..self.level()).map(|_| bands.by_ref().take(7).collect()).collect(),
        }
    }

    /// Zeros for each band.
    pub(super) fn empty_bands(&self) -> Vec<Vec<f32>> {
        self.shapes.iter().map(|shape| vec![0.0; shape.iter().product()]).collect()
    }
}
