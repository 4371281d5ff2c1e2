//! [`ShapeDataset`]: shapes that are encoded once as sparse wavelet coefficients, cached on disk, and split for training.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::families::{Family, ProceduralShape};
use crate::mesh::Mesh;
use crate::sdf::SdfGrid;
use crate::task::Task;
use crate::wavelet::{SparseWavelet, Threshold, WaveletConfig};
use crate::{Error, Result, random};

/// How shapes are sampled and encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DatasetConfig {
    /// Samples along each axis of the signed distance grid.
    pub resolution: usize,
    /// A wavelet's name in PyWavelets.
    pub wavelet: String,
    /// Number of wavelet levels.
    pub levels: usize,
    /// Detail coefficients up to this size are dropped; the approximation is kept whole.
    pub threshold: f32,
    /// The distance at which distances level off: see [`WaveletConfig::truncation`].
    pub truncation: Option<f32>,
    /// The folder that keeps encoded shapes between runs; `None` keeps none.
    pub cache: Option<PathBuf>,
}

impl Default for DatasetConfig {
    fn default() -> Self {
        Self {
            resolution: 32,
            wavelet: "bior4.4".into(),
            levels: 2,
            threshold: 0.002,
            truncation: WaveletConfig::default().truncation,
            cache: None,
        }
    }
}

setters! {
    DatasetConfig {
        resolution(resolution: usize) => resolution = resolution;
        wavelet(wavelet: impl Into<String>) => wavelet = wavelet.into();
        levels(levels: usize) => levels = levels;
        threshold(threshold: f32) => threshold = threshold;
        truncation(truncation: Option<f32>) => truncation = truncation;
        cache(folder: impl Into<PathBuf>) => cache = Some(folder.into());
    }
}

impl DatasetConfig {
    fn wavelet_config(&self) -> WaveletConfig {
        WaveletConfig {
            wavelet: self.wavelet.clone(),
            level: self.levels,
            threshold: Threshold::KeepApproximation(self.threshold),
            truncation: self.truncation,
            ..Default::default()
        }
    }

    /// A text of everything on which an encoded shape depends, except its content.
    fn key(&self) -> String {
        format!("{} {} {} {} {:?}", self.resolution, self.wavelet, self.levels, self.threshold, self.truncation)
    }
}

/// The part of a procedural set to which a shape belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Shapes for training.
    Train,
    /// Shapes for validation during training.
    Validation,
    /// Shapes that nothing uses before the final comparison.
    HeldOut,
}

impl Split {
    /// Shapes of different splits never have the same seed: each split owns a third of all seeds.
    fn seed(self, base: u64, index: usize) -> u64 {
        base.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64 * 3 + self as u64)
    }
}

/// One shape of a dataset.
#[derive(Clone, Debug)]
pub struct ShapeItem {
    /// Its family and seed, or its file.
    pub name: String,
    /// The family, for a procedural shape.
    pub family: Option<Family>,
    /// Its coefficients.
    pub coefficients: SparseWavelet,
}

/// Encoded shapes, and the files that could not be used.
#[derive(Clone, Debug)]
pub struct ShapeDataset {
    items: Vec<ShapeItem>,
    skipped: Vec<(PathBuf, String)>,
    rebuilt: usize,
}

impl ShapeDataset {
    /// Draws `count` solids, going through `families` in turn. The same seed and split give the same solids.
    ///
    /// ```
    /// use wavemesh::train::{DatasetConfig, Family, ShapeDataset, Split};
    /// let config = DatasetConfig::new().resolution(16).levels(1);
    /// let shapes = ShapeDataset::procedural(&Family::PLAIN, 10, 1, Split::Train, &config)?;
    /// assert_eq!(shapes.len(), 10);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for no families or no shapes; [`Error::Interrupted`] after a stop.
    pub fn procedural(
        families: &[Family],
        count: usize,
        seed: u64,
        split: Split,
        config: &DatasetConfig,
    ) -> Result<Self> {
        let sources = drawn(families, count, seed, split)?.into_iter().map(|(family, seed)| {
            let name = format!("{}-{seed:016x}", family.name());
            let make = move || ProceduralShape::new(family, seed).sdf(config.resolution);
            (name.clone(), name.into_bytes(), make)
        });
        let (items, rebuilt) = encode_all(sources.collect(), config)?;
        let mut items = items.into_iter().collect::<Result<Vec<_>>>()?;
        items.iter_mut().zip(families.iter().cycle()).for_each(|(item, &family)| item.family = Some(family));
        Ok(Self { items, skipped: Vec::new(), rebuilt })
    }

    /// The solids that [`procedural`](Self::procedural) draws, in the same order, as exact distances on `resolution`³ samples. They are not
    /// encoded: if an encoding drops coefficients, specks appear where a surface nearly touches itself, and a generator would learn them.
    ///
    /// ```
    /// use wavemesh::train::{Family, ShapeDataset, Split};
    /// let shapes = ShapeDataset::procedural_grids(&Family::PLAIN, 10, 1, Split::HeldOut, 16)?;
    /// assert_eq!((shapes.len(), shapes[7].shape()), (10, [16; 3])); // the eighth is of the third family
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for no families, no shapes or a resolution of zero; [`Error::Interrupted`] after a stop.
    pub fn procedural_grids(
        families: &[Family],
        count: usize,
        seed: u64,
        split: Split,
        resolution: usize,
    ) -> Result<Vec<SdfGrid>> {
        let all = drawn(families, count, seed, split)?;
        let task = Task::new("sampling shapes", count);
        let sample = |(family, seed): (Family, u64)| {
            let grid = ProceduralShape::new(family, seed).sdf(resolution)?;
            task.advance(1)?;
            Ok(grid)
        };
        all.into_par_iter().map(sample).collect()
    }

    /// Reads every mesh of a folder (obj, stl, ply, off, glb), in the order of the file names. Files that cannot be read are left out;
    /// [`skipped`](Self::skipped) lists them.
    ///
    /// Each shape is centred in the cube [-1, 1]³ and scaled so that its largest extent is 2 / 1.1. Generated shapes have the same frame,
    /// so both can be compared.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read, [`Error::Argument`] if no mesh in it can be read.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let folder = std::env::temp_dir().join("wavemesh-folder-example");
    /// std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    /// shapes::torus(0.5, 0.2).to_mesh(24)?.save(folder.join("ring.obj"))?;
    /// let config = DatasetConfig::new().resolution(16).levels(1).wavelet("bior2.2");
    /// let shapes = ShapeDataset::from_folder(&folder, &config)?;
    /// assert_eq!((shapes.len(), shapes.grid(0)?.shape()), (1, [16; 3]));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_folder(folder: impl AsRef<Path>, config: &DatasetConfig) -> Result<Self> {
        const EXTENSIONS: [&str; 6] = ["obj", "stl", "ply", "off", "glb", "gltf"];
        let folder = folder.as_ref();
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            if EXTENSIONS.contains(&extension.as_str()) {
                paths.push(path);
            }
        }
        paths.sort();
        let sources = paths.iter().map(|path| {
            let content = std::fs::read(path).unwrap_or_default(); // an unreadable file fails below, with its reason
            let make = move || {
                let grid = SdfGrid::from_mesh(&Mesh::load(path)?, config.resolution)?;
                SdfGrid::from_values(grid.values().to_vec(), grid.shape())
            };
            (path.display().to_string(), content, make)
        });
        let (results, rebuilt) = encode_all(sources.collect(), config)?;
        let (mut items, mut skipped) = (Vec::new(), Vec::new());
        for (path, result) in paths.iter().zip(results) {
            match result {
                Ok(item) => items.push(item),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => skipped.push((path.clone(), error.to_string())),
            }
        }
        if items.is_empty() {
            let got = match skipped.first() {
                None => format!("no mesh in {}", folder.display()),
                Some((_, reason)) => {
                    format!("{} meshes in {}, none readable; {reason}", skipped.len(), folder.display())
                }
            };
            return Err(empty(got, "at least one readable mesh (obj, stl, ply, off, glb)"));
        }
        Ok(Self { items, skipped, rebuilt })
    }

    /// The shapes.
    pub fn items(&self) -> &[ShapeItem] {
        &self.items
    }

    /// Number of shapes.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no shapes. This is never true for a dataset that was made without an error.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Files that could not be used, and why.
    pub fn skipped(&self) -> &[(PathBuf, String)] {
        &self.skipped
    }

    /// How many shapes were encoded again because the cache had no intact entry for them.
    pub fn rebuilt(&self) -> usize {
        self.rebuilt
    }

    /// The signed distance of shape `index`.
    ///
    /// # Errors
    /// [`Error::Argument`] for an index out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let config = DatasetConfig::new().resolution(16).levels(1);
    /// let shapes = ShapeDataset::procedural(&Family::PLAIN, 2, 1, Split::Train, &config)?;
    /// assert!(shapes.grid(1)?.to_mesh()?.is_watertight());
    /// assert!(shapes.grid(2).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn grid(&self, index: usize) -> Result<SdfGrid> {
        let Some(item) = self.items.get(index) else {
            return Err(Error::Argument {
                op: "ShapeDataset::grid",
                name: "index",
                got: index.to_string(),
                expected: format!("below {}", self.len()),
            });
        };
        item.coefficients.decode()
    }

    /// For each shape, the index of its family in `families`, as a label for training. `None` if a shape's family is not among them.
    pub fn labels(&self, families: &[Family]) -> Option<Vec<usize>> {
        self.items.iter().map(|item| families.iter().position(|&family| Some(family) == item.family)).collect()
    }

    /// All shapes as signed distance grids, in parallel.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a stop.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let config = DatasetConfig::new().resolution(16).levels(1);
    /// let shapes = ShapeDataset::procedural(&Family::PLAIN, 3, 1, Split::Train, &config)?;
    /// let grids = shapes.grids()?;
    /// assert_eq!((grids.len(), &grids[2]), (3, &shapes.grid(2)?));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn grids(&self) -> Result<Vec<SdfGrid>> {
        let task = Task::new("decoding shapes", self.len());
        (0..self.len())
            .into_par_iter()
            .map(|index| {
                let grid = self.grid(index)?;
                task.advance(1)?;
                Ok(grid)
            })
            .collect()
    }
}

/// Family and seed of each shape of a procedural set, going through the families in turn.
fn drawn(families: &[Family], count: usize, seed: u64, split: Split) -> Result<Vec<(Family, u64)>> {
    if families.is_empty() || count == 0 {
        let got = format!("{count} shapes of {} families", families.len());
        return Err(empty(got, "at least one shape and one family"));
    }
    Ok((0..count).map(|i| (families[i % families.len()], split.seed(seed, i / families.len()))).collect())
}

fn empty(got: String, expected: &str) -> Error {
    Error::Argument { op: "ShapeDataset", name: "the dataset", got, expected: expected.into() }
}

/// Encodes sources (name, content, how to sample it) in parallel; reads those that the cache has.
fn encode_all<F>(sources: Vec<(String, Vec<u8>, F)>, config: &DatasetConfig) -> Result<(Vec<Result<ShapeItem>>, usize)>
where
    F: Fn() -> Result<SdfGrid> + Send + Sync,
{
    let task = Task::new("encoding shapes", sources.len());
    let cache = config.cache.as_deref().map(Cache::new);
    let rebuilt = AtomicUsize::new(0);
    let encode_one = |(name, content, make): (String, Vec<u8>, F)| {
        let path = cache.as_ref().map(|cache| cache.path(&content, &config.key()));
        let cached = path.as_deref().and_then(Cache::read);
        let coefficients = match cached {
            Some(coefficients) => coefficients,
            None => {
                let coefficients = make()?.encode(&config.wavelet_config())?;
                if let Some(path) = path {
                    Cache::write(&path, &coefficients)?;
                }
                rebuilt.fetch_add(1, Ordering::Relaxed);
                coefficients
            }
        };
        Ok(ShapeItem { name, family: None, coefficients })
    };
    // A source that cannot be used also counts as done.
    let encode = |source| {
        let item = task.scope().run(|| encode_one(source));
        task.advance(1).and(item)
    };
    let items: Vec<Result<ShapeItem>> = sources.into_par_iter().map(encode).collect();
    if items.iter().any(|item| matches!(item, Err(Error::Interrupted))) {
        return Err(Error::Interrupted);
    }
    Ok((items, rebuilt.into_inner()))
}

/// Symmetries that training may apply to a shape. z points upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Whether to mirror along x in half of the cases, and likewise along y.
    pub flips: bool,
    /// Whether to turn about z by a multiple of 90°.
    pub rotations: bool,
}

impl Augmentation {
    /// One of the allowed views of a cubic grid, drawn from `seed`.
    ///
    /// # Errors
    /// [`Error::Shape`] for rotations of a grid whose x and y have different lengths.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::Augmentation;
    /// let grid = SdfGrid::from_fn([8; 3], |[x, y, z]| x + 2.0 * y + 4.0 * z)?;
    /// let view = Augmentation { flips: true, rotations: true }.apply(&grid, 3)?;
    /// let sorted = |grid: &SdfGrid| {
    ///     let mut values = grid.values().to_vec();
    ///     values.sort_by(f32::total_cmp);
    ///     values
    /// };
    /// assert_eq!(sorted(&view), sorted(&grid)); // the same values elsewhere
    /// assert_eq!(Augmentation::default().apply(&grid, 3)?, grid);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn apply(&self, grid: &SdfGrid, seed: u64) -> Result<SdfGrid> {
        let mut rng = random::rng(seed, 0);
        let flips: [bool; 2] = [rng.random(), rng.random()].map(|flip: bool| flip && self.flips);
        let turns = if self.rotations { rng.random_range(0..4) } else { 0 };
        let [nx, ny, nz] = grid.shape();
        if self.rotations && nx != ny {
            let expected = "equal lengths along x and y, to be turned about z".into();
            return Err(Error::Shape { op: "Augmentation", what: "the grid", got: vec![nx, ny, nz], expected });
        }
        let mut values = Vec::with_capacity(grid.values().len());
        for x in 0..nx {
            for y in 0..ny {
                let (mut i, mut j) = (x, y);
                for _ in 0..turns {
                    (i, j) = (j, nx - 1 - i);
                }
                if flips[0] {
                    i = nx - 1 - i;
                }
                if flips[1] {
                    j = ny - 1 - j;
                }
                values.extend_from_slice(&grid.values()[(i * ny + j) * nz..][..nz]);
            }
        }
        SdfGrid::with_frame(values, grid.frame())
    }
}
