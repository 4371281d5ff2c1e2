//! What a generator diffuses: a shape as features on sites that need not be given.
//!
//! A wavelet decomposition stores only the places where coefficients are large. These places depend on the shape, so a generator cannot
//! know them beforehand. So a shape is written in stages, from coarse to fine, each with its own sites:
//!
//! - **Stage 0** is dense: the approximation and the seven detail bands of the coarsest level, eight channels on every
//!   site of that small grid. It alone reconstructs the shape at twice the grid's resolution.
//! - **Stage k** holds the seven detail bands of the next finer level, on the sites whose reconstructed distance (from
//!   the stages before, known when its turn comes) is less than `shell` sites from the surface. Away from the surface a
//!   distance is smooth and its details carry nothing. The reconstructed distance itself is the stage's condition.
//!
//! Three choices make the errors of a small network harmless. Distances level off away from the surface
//! ([`truncation`](RepresentationConfig::truncation)), so that the numbers to be learnt tell where the surface is and little else. Channels
//! are normalised over a training set, but keep some of their proportions ([`whitening`](RepresentationConfig::whitening)): bands that
//! hardly move the surface hardly count. And each site gets its position as an input, because all shapes have the same frame.
//!
//! Without a `shell`, encoding and decoding are inverse up to rounding. With one, thin parts lose details whose filters reach beyond it.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::topology::Topology;
use crate::sdf::SdfGrid;
use crate::sparse::SparseConvTensor;
use crate::wavelet::{Mode, NdArray, Wavelet, WaveletCoeffs, distance_of, level_off, wavedecn, waverecn};
use crate::{Error, Result, random};

/// The wavelet stages in which a shape is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RepresentationConfig {
    /// Samples along each axis of a shape's grid; a multiple of `2^levels`.
    pub resolution: usize,
    /// A wavelet's name in PyWavelets.
    pub wavelet: String,
    /// Number of wavelet levels, and of stages: at least 1.
    pub levels: usize,
    /// Half the width of the shell of sites around the surface in the finer stages, in sites; `None` for all sites.
    pub shell: Option<f32>,
    /// Distances `d` are written as `d / √(1 + (d/τ)²)`, which levels off at ±τ (in units of the cube, whose side is 2). `None` writes them
    /// unchanged.
    pub truncation: Option<f32>,
    /// How much the sizes of bands are made equal: 1 gives each band unit standard deviation; 0 keeps their natural proportions (the coarse
    /// bands then come out of the noise first, and weigh most). In between, deviations keep the power `1 − whitening`.
    pub whitening: f32,
}

impl Default for RepresentationConfig {
    fn default() -> Self {
        Self {
            resolution: 32,
            wavelet: "bior2.2".into(),
            levels: 2,
            shell: Some(1.5),
            truncation: Some(0.2),
            whitening: 0.5,
        }
    }
}

setters! {
    RepresentationConfig {
        resolution(resolution: usize) => resolution = resolution;
        wavelet(wavelet: impl Into<String>) => wavelet = wavelet.into();
        levels(levels: usize) => levels = levels;
        shell(shell: Option<f32>) => shell = shell;
        truncation(truncation: Option<f32>) => truncation = truncation;
        whitening(whitening: f32) => whitening = whitening;
    }
}

/// The normalisation of each channel of a stage: its mean is subtracted, then it is divided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelStats {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// The divisor of each channel, above zero: its standard deviation, if [`RepresentationConfig::whitening`] is 1.
    pub std: Vec<f32>,
}

/// One stage of one shape, normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct StageCode {
    /// Sites (z, y, x), ascending.
    pub sites: Vec<[i32; 3]>,
    /// Features, sites × channels: 8 in stage 0, 7 after it.
    pub features: Vec<f32>,
    /// The distance at each site as reconstructed so far, in sites, clamped to ±[`Representation::CONDITION_LIMIT`]. Empty in stage 0.
    pub condition: Vec<f32>,
}

/// Converts shapes to stages of features and back, with the statistics that normalise them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Representation {
    config: RepresentationConfig,
    stats: Vec<ChannelStats>,
    #[serde(default)]
    topology: Option<Topology>,
}

impl Representation {
    /// Conditions are clamped to this distance, in sites.
    pub const CONDITION_LIMIT: f32 = 4.0;

    /// A representation that does not normalise yet: see [`fit`](Self::fit).
    ///
    /// # Errors
    /// An unknown wavelet, no levels, a resolution that is not a multiple of `2^levels`, or a shell that is not positive.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let plain = Representation::new(&RepresentationConfig::new().resolution(64).levels(3))?;
    /// assert_eq!((0..3).map(|stage| plain.grid_of(stage)).collect::<Vec<_>>(), [8, 16, 32]);
    /// assert!(Representation::new(&RepresentationConfig::new().resolution(60).levels(3)).is_err()); // 60 is no multiple of 8
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: &RepresentationConfig) -> Result<Self> {
        let op = "Representation::new";
        Wavelet::from_name(&config.wavelet)?;
        let problem = |name, got: String, expected: String| Err(Error::Argument { op, name, got, expected });
        if config.levels == 0 || config.levels > 8 {
            return problem("levels", config.levels.to_string(), "1 to 8".into());
        }
        let factor = 1usize << config.levels;
        if config.resolution == 0 || !config.resolution.is_multiple_of(factor) {
            return problem("resolution", config.resolution.to_string(), format!("a multiple of {factor}"));
        }
        for (name, limit) in [("shell", config.shell), ("truncation", config.truncation)] {
            if let Some(limit) = limit.filter(|limit| !limit.is_finite() || *limit <= 0.0) {
                return problem(name, limit.to_string(), "a number above 0, or none".into());
            }
        }
        if !(0.0..=1.0).contains(&config.whitening) {
            return problem("whitening", config.whitening.to_string(), "0 to 1".into());
        }
        let plain = |channels| ChannelStats { mean: vec![0.0; channels], std: vec![1.0; channels] };
        let stats = (0..config.levels).map(|stage| plain(Self::channels_of(stage))).collect();
        Ok(Self { config: config.clone(), stats, topology: None })
    }

    /// A representation normalised to these shapes.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new); no shapes, or shapes of another resolution.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let shapes = [shapes::sphere(0.5).to_grid(16)?, shapes::torus(0.5, 0.2).to_grid(16)?];
    /// let config = RepresentationConfig::new().resolution(16).levels(2);
    /// let fitted = Representation::fit(&config, &shapes)?;
    /// assert_ne!(fitted.stats(), Representation::new(&config)?.stats());
    /// assert!(Representation::fit(&config, []).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn fit<'a>(config: &RepresentationConfig, shapes: impl IntoIterator<Item = &'a SdfGrid>) -> Result<Self> {
        let mut fitted = Self::new(config)?;
        let shapes: Vec<&SdfGrid> = shapes.into_iter().collect();
        let own = shapes.par_iter().map(|shape| fitted.sums(shape)).collect::<Result<Vec<_>>>()?;
        fitted.topology = Some(Topology::of(&shapes));
        let mut sums = fitted.stats.iter().map(|s| vec![[0f64; 3]; s.mean.len()]).collect::<Vec<_>>();
        // In the order of the shapes, so that the statistics do not depend on the number of threads.
        for shape in &own {
            let channels = sums.iter_mut().flatten().zip(shape.iter().flatten());
            channels.for_each(|(all, own)| all.iter_mut().zip(own).for_each(|(all, own)| *all += own));
        }
        for (stats, sums) in fitted.stats.iter_mut().zip(&sums) {
            for (channel, [count, sum, squares]) in sums.iter().enumerate() {
                if *count == 0.0 {
                    return Err(Error::Argument {
                        op: "Representation::fit",
                        name: "shapes",
                        got: "none, or none with a surface".into(),
                        expected: "at least one shape".into(),
                    });
                }
                let mean = sum / count;
                stats.mean[channel] = mean as f32;
                stats.std[channel] = (squares / count - mean * mean).max(0.0).sqrt().max(1e-6) as f32;
            }
            let largest = stats.std.iter().copied().fold(0.0, f32::max);
            for std in &mut stats.std {
                *std = std.powf(config.whitening) * largest.powf(1.0 - config.whitening);
            }
        }
        Ok(fitted)
    }

    /// Count, sum and sum of squares of each stage's channels over one shape.
    fn sums(&self, shape: &SdfGrid) -> Result<Vec<Vec<[f64; 3]>>> {
        let of_stage = |(stage, code): (usize, &StageCode)| {
            let mut sums = vec![[0f64; 3]; Self::channels_of(stage)];
            for row in code.features.chunks_exact(sums.len()) {
                for ([count, sum, squares], &value) in sums.iter_mut().zip(row) {
                    *count += 1.0;
                    *sum += f64::from(value);
                    *squares += f64::from(value).powi(2);
                }
            }
            sums
        };
        Ok(self.encode(shape)?.iter().enumerate().map(of_stage).collect())
    }

    /// Checks a representation that was read from a file.
    pub(super) fn checked(self) -> Result<Self> {
        let fresh = Self::new(&self.config)?;
        let sizes = |of: &Self| of.stats.iter().map(|s| [s.mean.len(), s.std.len()]).collect::<Vec<_>>();
        if sizes(&self) == sizes(&fresh) {
            return Ok(self);
        }
        Err(Error::Argument {
            op: "Representation",
            name: "means and deviations of the stages",
            got: format!("{:?}", sizes(&self)),
            expected: format!("{:?}", sizes(&fresh)),
        })
    }

    /// The configuration with which it was made.
    pub fn config(&self) -> &RepresentationConfig {
        &self.config
    }

    /// The normalisation of the channels of each stage.
    pub fn stats(&self) -> &[ChannelStats] {
        &self.stats
    }

    /// What the shapes to which it was [fitted](Self::fit) are like; `None` before that, and from files written before 2026-12-01.
    pub fn topology(&self) -> Option<Topology> {
        self.topology
    }

    /// The same representation with another [`shell`](RepresentationConfig::shell); the normalisation stays.
    ///
    /// # Errors
    /// [`Error::Argument`] for a shell that is not positive.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let ball = shapes::sphere(0.5).to_grid(16)?;
    /// let narrow = Representation::fit(&RepresentationConfig::new().resolution(16).shell(Some(1.0)), [&ball])?;
    /// let wide = narrow.clone().with_shell(Some(2.0))?;
    /// assert!(wide.encode(&ball)?[1].sites.len() > narrow.encode(&ball)?[1].sites.len());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_shell(self, shell: Option<f32>) -> Result<Self> {
        let config = self.config.clone().shell(shell);
        Ok(Self { config: Self::new(&config)?.config, ..self })
    }

    /// The same representation with what these shapes are like as its [`topology`](Self::topology).
    #[must_use]
    pub fn with_topology_of<'a>(mut self, shapes: impl IntoIterator<Item = &'a SdfGrid>) -> Self {
        self.topology = Some(Topology::of(&shapes.into_iter().collect::<Vec<_>>()));
        self
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.config.levels
    }

    /// Channels of a stage's features.
    pub fn channels_of(stage: usize) -> usize {
        if stage == 0 { 8 } else { 7 }
    }

    /// Channels that a stage's network gets in addition to the noised features: the site's place (x, y, z, each −1 to 1) and before it,
    /// from stage 1 on, the distance reconstructed so far.
    pub fn condition_channels_of(stage: usize) -> usize {
        3 + usize::from(stage > 0)
    }

    /// Sites along each axis of a stage's grid.
    pub fn grid_of(&self, stage: usize) -> usize {
        self.config.resolution >> (self.config.levels - stage)
    }

    /// Writes a shape in stages.
    ///
    /// # Errors
    /// [`Error::Shape`] for a grid of another resolution.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grids = [shapes::sphere(0.5).to_grid(32)?, shapes::torus(0.5, 0.2).to_grid(32)?];
    /// let representation = Representation::fit(&RepresentationConfig::default(), &grids)?;
    /// let codes = representation.encode(&grids[0])?; // one a stage
    /// let back = representation.decode(&codes)?;
    /// assert_eq!(back.shape(), [32; 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn encode(&self, shape: &SdfGrid) -> Result<Vec<StageCode>> {
        let coeffs = self.decompose(shape)?;
        let wavelet = &coeffs.wavelet;
        let mut codes = Vec::with_capacity(self.stages());
        let mut low = coeffs.approx.clone();
        for (stage, bands) in coeffs.details.iter().enumerate() {
            codes.push(self.code_of(stage, &low, &low, bands));
            low = raise(&low, bands, wavelet)?;
        }
        Ok(codes)
    }

    /// One stage of a shape, with the sites and the condition that follow if the earlier stages are not quite right: Gaussian noise of
    /// standard deviation `noise` is added to their features. A stage that is trained in this way tolerates the errors of generated earlier
    /// stages (conditioning augmentation: Ho et al. 2022, "Cascaded Diffusion Models").
    ///
    /// ```
    /// use wavemesh::train::{Family, ProceduralShape, Representation, RepresentationConfig};
    /// let shape = ProceduralShape::new(Family::Torus, 1).sdf(32)?;
    /// let representation = Representation::fit(&RepresentationConfig::default(), [&shape])?;
    /// let exact = representation.encode(&shape)?.remove(1);
    /// assert_eq!(representation.encode_noised(&shape, 1, 0.0, 7)?.condition.len(), exact.condition.len());
    /// assert_ne!(representation.encode_noised(&shape, 1, 0.1, 7)?.condition, exact.condition);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] for a grid of another resolution, [`Error::Argument`] for a stage that does not exist.
    pub fn encode_noised(&self, shape: &SdfGrid, stage: usize, noise: f32, seed: u64) -> Result<StageCode> {
        if stage >= self.stages() {
            let expected = format!("below {}", self.stages());
            return Err(Error::argument("Representation::encode_noised", "stage", stage, expected));
        }
        let coeffs = self.decompose(shape)?;
        let mut rng = random::rng(seed, 3);
        let mut low = None;
        for before in 0..stage {
            let bands = &coeffs.details[before];
            let at = low.as_ref().unwrap_or(&coeffs.approx);
            let mut code = self.code_of(before, at, &coeffs.approx, bands);
            code.features.iter_mut().zip(random::normal(&mut rng)).for_each(|(value, z)| *value += noise * z);
            low = Some(self.raise_stage(before, low, Some(&code))?);
        }
        Ok(self.code_of(stage, low.as_ref().unwrap_or(&coeffs.approx), &coeffs.approx, &coeffs.details[stage]))
    }

    /// The features of a shape on given sites of a stage.
    pub(super) fn features_on(&self, shape: &SdfGrid, stage: usize, sites: &[[i32; 3]]) -> Result<Vec<f32>> {
        let coeffs = self.decompose(shape)?;
        let mut channels: Vec<&NdArray<f32>> = coeffs.details[stage].iter().collect();
        if stage == 0 {
            channels.insert(0, &coeffs.approx);
        }
        Ok(self.read(stage, sites, &channels))
    }

    /// Checks that a shape has the representation's resolution.
    pub(super) fn check(&self, shape: &SdfGrid) -> Result<()> {
        let n = self.config.resolution;
        if shape.shape() == [n; 3] {
            return Ok(());
        }
        let (got, expected) = (shape.shape().to_vec(), format!("[{n}, {n}, {n}]"));
        Err(Error::Shape { op: "Representation::encode", what: "the grid", got, expected })
    }

    /// The wavelet coefficients of a shape's written distances.
    fn decompose(&self, shape: &SdfGrid) -> Result<WaveletCoeffs<f32>> {
        self.check(shape)?;
        let n = self.config.resolution;
        let wavelet = Wavelet::from_name(&self.config.wavelet)?;
        let values: Vec<f32> = shape.values().iter().map(|&d| self.level_off(d)).collect();
        wavedecn(&values, &[n; 3], &wavelet, Mode::Periodization, self.stages())
    }

    /// A stage's code on the sites that follow from the approximation `low`. `approx` is the first channel of stage 0.
    fn code_of(&self, stage: usize, low: &NdArray<f32>, approx: &NdArray<f32>, bands: &[NdArray<f32>]) -> StageCode {
        let (sites, condition) = self.sites(stage, low);
        let mut channels: Vec<&NdArray<f32>> = bands.iter().collect();
        if stage == 0 {
            channels.insert(0, approx);
        }
        let features = self.read(stage, &sites, &channels);
        StageCode { sites, features, condition }
    }

    /// The shape that these stages describe. Missing stages count as zero details.
    ///
    /// # Errors
    /// [`Error::Shape`] for features that do not fit their sites.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let ball = shapes::sphere(0.5).to_grid(16)?;
    /// let representation = Representation::fit(&RepresentationConfig::new().resolution(16).levels(2).shell(None), [&ball])?;
    /// let codes = representation.encode(&ball)?;
    /// let furthest = |decoded: SdfGrid| decoded.values().iter().zip(ball.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    /// assert!(furthest(representation.decode(&codes[..1])?) > furthest(representation.decode(&codes)?)); // without details, and with
    /// # Ok::<(), Error>(())
    /// ```
    pub fn decode(&self, codes: &[StageCode]) -> Result<SdfGrid> {
        let mut low = None;
        for stage in 0..self.stages() {
            low = Some(self.raise_stage(stage, low, codes.get(stage))?);
        }
        let n = self.config.resolution;
        let values = low.map(|low| low.data).unwrap_or_default();
        SdfGrid::from_values(values.into_iter().map(|v| self.distance(v)).collect(), [n; 3])
    }

    /// A preview: turns the coarse features of a sampling step of stage 0 into a shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features are not those of stage 0.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let generator = Generator::load("notebooks/models/shapes.safetensors", &Device::Cpu)?;
    /// let few = Sampler::Ddim { steps: 2, eta: 0.0 };
    /// let mut previews = Vec::new();
    /// generator.generate_watched(1, &GenerateOptions::new().sampler(few).detail_sampler(few), |_, stage, step| {
    ///     if stage == 0 {
    ///         previews.push(generator.representation().preview(step.x0.features())?);
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!((previews.len(), previews[0].shape()), (2, [32; 3]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn preview(&self, features: &Tensor) -> Result<SdfGrid> {
        let mut code = self.next_sites(&[])?;
        code.features = features.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        self.decode(&[code])
    }

    /// Sites and condition of the stage after these, as in generation.
    ///
    /// # Errors
    /// The errors of [`decode`](Self::decode); or every stage is given already.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let ball = shapes::sphere(0.5).to_grid(16)?;
    /// let representation = Representation::fit(&RepresentationConfig::new().resolution(16).levels(2), [&ball])?;
    /// let codes = representation.encode(&ball)?;
    /// assert_eq!(representation.next_sites(&[])?.sites.len(), 4 * 4 * 4); // the first stage is dense
    /// assert_eq!(representation.next_sites(&codes[..1])?.sites, codes[1].sites); // the second lies along the surface
    /// assert!(representation.next_sites(&codes).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn next_sites(&self, codes: &[StageCode]) -> Result<StageCode> {
        let stage = codes.len();
        if stage >= self.stages() {
            return Err(Error::Argument {
                op: "Representation::next_sites",
                name: "codes",
                got: format!("{stage} stages"),
                expected: format!("fewer than {}", self.stages()),
            });
        }
        let mut low = None;
        for (stage, code) in codes.iter().enumerate() {
            low = Some(self.raise_stage(stage, low, Some(code))?);
        }
        let empty = NdArray { shape: vec![self.grid_of(0); 3], data: vec![0.0; self.grid_of(0).pow(3)] };
        let (sites, condition) = self.sites(stage, low.as_ref().unwrap_or(&empty));
        Ok(StageCode { sites, features: Vec::new(), condition })
    }

    /// The written form of a distance.
    fn level_off(&self, distance: f32) -> f32 {
        self.config.truncation.map_or(distance, |limit| level_off(distance, limit))
    }

    /// The distance with this written form.
    fn distance(&self, written: f32) -> f32 {
        self.config.truncation.map_or(written, |limit| distance_of(written, limit))
    }

    /// Undoes the normalisation, puts the features on their grid, and goes up one level.
    fn raise_stage(&self, stage: usize, low: Option<NdArray<f32>>, code: Option<&StageCode>) -> Result<NdArray<f32>> {
        let n = self.grid_of(stage);
        let channels = Self::channels_of(stage);
        let zero = || NdArray { shape: vec![n; 3], data: vec![0f32; n.pow(3)] };
        let mut bands: Vec<NdArray<f32>> = (0..channels).map(|_| zero()).collect();
        if let Some(code) = code {
            if code.features.len() != code.sites.len() * channels {
                return Err(Error::Shape {
                    op: "Representation::decode",
                    what: "features",
                    got: vec![code.features.len()],
                    expected: format!("{} sites × {channels} channels", code.sites.len()),
                });
            }
            let ChannelStats { mean, std } = &self.stats[stage];
            for (site, row) in code.sites.iter().zip(code.features.chunks_exact(channels)) {
                let at = place(site, n);
                for (channel, (band, value)) in bands.iter_mut().zip(row).enumerate() {
                    band.data[at] = value * std[channel] + mean[channel];
                }
            }
        }
        let low = if stage == 0 { bands.remove(0) } else { low.unwrap_or_else(zero) };
        raise(&low, &bands, &Wavelet::from_name(&self.config.wavelet)?)
    }

    /// The sites of a stage and their condition, from the approximation on the stage's grid.
    fn sites(&self, stage: usize, low: &NdArray<f32>) -> (Vec<[i32; 3]>, Vec<f32>) {
        let n = self.grid_of(stage);
        let all = (0..n as i32).flat_map(|z| (0..n as i32).flat_map(move |y| (0..n as i32).map(move |x| [z, y, x])));
        if stage == 0 {
            return (all.collect(), Vec::new());
        }
        // The low-pass filter has gain √2 along each axis and level; a site is 2/n wide.
        let levels_above = (self.stages() - stage) as i32;
        let gain = 2f32.sqrt().powi(3 * levels_above);
        let width = 2.0 / n as f32;
        let limit = Self::CONDITION_LIMIT;
        all.map(|site| (site, self.distance(low.data[place(&site, n)] / gain) / width))
            .filter(|(_, distance)| self.config.shell.is_none_or(|shell| distance.abs() <= shell))
            .map(|(site, distance)| (site, distance.clamp(-limit, limit)))
            .unzip()
    }

    fn read(&self, stage: usize, sites: &[[i32; 3]], bands: &[&NdArray<f32>]) -> Vec<f32> {
        let n = self.grid_of(stage);
        let ChannelStats { mean, std } = &self.stats[stage];
        let row = |site: &[i32; 3]| {
            let at = place(site, n);
            bands.iter().enumerate().map(move |(channel, band)| (band.data[at] - mean[channel]) / std[channel])
        };
        sites.iter().flat_map(|site| row(site).collect::<Vec<_>>()).collect()
    }
}

/// Index in a band (x slowest) of a site (z, y, x).
fn place(&[z, y, x]: &[i32; 3], n: usize) -> usize {
    (x as usize * n + y as usize) * n + z as usize
}

/// One level of the inverse transform.
fn raise(low: &NdArray<f32>, bands: &[NdArray<f32>], wavelet: &Wavelet) -> Result<NdArray<f32>> {
    waverecn(&WaveletCoeffs {
        shape: low.shape.iter().map(|n| 2 * n).collect(),
        wavelet: wavelet.clone(),
        mode: Mode::Periodization,
        axes: (0..low.shape.len()).collect(),
        approx: low.clone(),
        details: vec![bands.to_vec()],
    })
}

/// One stage of several shapes as one sparse tensor with a batch element for each shape, and its condition, (N,
/// [`condition_channels_of`](Representation::condition_channels_of) the stage).
///
/// # Errors
/// Features that do not fit their sites.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::train::stage_batch;
/// let ball = shapes::sphere(0.5).to_grid(16)?;
/// let representation = Representation::fit(&RepresentationConfig::new().resolution(16).levels(2), [&ball])?;
/// let codes = representation.encode(&ball)?;
/// let (x, condition) = stage_batch(&[&codes[1], &codes[1]], representation.grid_of(1), &Device::Cpu)?;
/// assert_eq!((x.batch_size(), x.len(), x.channels()), (2, 2 * codes[1].sites.len(), 7));
/// assert_eq!(condition.dims(), [x.len(), Representation::condition_channels_of(1)]);
/// # Ok::<(), Error>(())
/// ```
pub fn stage_batch(codes: &[&StageCode], grid: usize, device: &Device) -> Result<(SparseConvTensor, Tensor)> {
    let coords: Vec<[i32; 4]> = codes
        .iter()
        .enumerate()
        .flat_map(|(b, code)| code.sites.iter().map(move |&[z, y, x]| [b as i32, z, y, x]))
        .collect();
    let rows = coords.len();
    let features: Vec<f32> = codes.iter().flat_map(|code| code.features.iter().copied()).collect();
    let channels = features.len() / rows.max(1);
    let features = Tensor::from_vec(features, (rows, channels), device)?;
    let to_cube = |i: i32| (2 * i + 1) as f32 / grid as f32 - 1.0;
    let condition: Vec<f32> = codes
        .iter()
        .flat_map(|code| {
            code.sites.iter().enumerate().flat_map(move |(row, &[z, y, x])| {
                code.condition.get(row).copied().into_iter().chain([x, y, z].map(to_cube))
            })
        })
        .collect();
    let width = condition.len() / rows.max(1);
    let condition = Tensor::from_vec(condition, (rows, width), device)?;
    Ok((SparseConvTensor::from_coords(features, coords, [grid; 3], codes.len())?, condition))
}
