//! What a network is told about a shape in addition to its class: rows to which the sites attend.

use std::sync::{Arc, OnceLock};

use rand::Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::hex;
use crate::sdf::{DepthImage, SdfGrid, Viewpoint};
use crate::{Result, random};

/// A source of contexts: embeddings of whatever describes a shape, such as pictures of it.
///
/// Pictures may be embedded by [`DinoV2`](crate::backbones::DinoV2), once, before the training:
///
/// ```
/// use wavemesh::backbones::{DinoV2, DinoV2Config};
/// use wavemesh::prelude::*;
/// use wavemesh::train::ContextData;
/// struct Pictures(Vec<Tensor>); // (patches, hidden) of each shape's picture
/// impl ContextData for Pictures {
///     fn dims(&self) -> [usize; 2] {
///         [self.0[0].dims()[0], self.0[0].dims()[1]]
///     }
///     fn context(&self, item: usize, _seed: u64) -> wavemesh::Result<Vec<f32>> {
///         Ok(self.0[item].flatten_all()?.to_vec1()?)
///     }
/// }
/// // In place of `DinoV2::load("model.safetensors", &device)?`: a small network with random weights.
/// let tiny = DinoV2Config::new().hidden_size(64).num_layers(1).patch_size(4).grid_size(5);
/// let encoder = DinoV2::new(&tiny, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
/// let pictures = [0.2f32, 0.8].map(|grey| Tensor::full(grey, (1, 3, 20, 20), &Device::Cpu));
/// let embed = |pixels: Tensor| -> wavemesh::Result<Tensor> { Ok(encoder.context(&pixels)?.squeeze(0)?) };
/// let contexts = Pictures(pictures.into_iter().map(|pixels| embed(pixels?)).collect::<Result<_, _>>()?);
/// assert_eq!((contexts.dims(), contexts.context(1, 0)?.len()), ([25, 64], 25 * 64));
/// # Ok::<(), Error>(())
/// ```
pub trait ContextData: Send + Sync {
    /// Rows and columns of every context.
    fn dims(&self) -> [usize; 2];

    /// The context of shape `item`, row by row. `seed` fixes every random choice.
    ///
    /// # Errors
    /// If it cannot be read or made.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::ContextData;
    /// /// One row: the length of a shape's name.
    /// struct Names(Vec<&'static str>);
    /// impl ContextData for Names {
    ///     fn dims(&self) -> [usize; 2] {
    ///         [1, 1]
    ///     }
    ///     fn context(&self, item: usize, _seed: u64) -> wavemesh::Result<Vec<f32>> {
    ///         Ok(vec![self.0[item].len() as f32])
    ///     }
    /// }
    /// assert_eq!(Names(vec!["mug", "table"]).context(1, 0)?, [5.0]);
    /// # Ok::<(), Error>(())
    /// ```
    fn context(&self, item: usize, seed: u64) -> Result<Vec<f32>>;

    /// A text that differs for other contexts. The processes of a group compare theirs.
    fn fingerprint(&self) -> String {
        format!("{:?}", self.dims())
    }
}

/// A picture with depths in 255 steps.
type Stored = (Viewpoint, Vec<u8>);

/// Depth images of shapes from random viewpoints, as patches ([`DepthImage::patches`]); half of them are silhouettes.
///
/// Each shape has a few viewpoints, all around and up to 45 degrees above the ground; a picture is drawn when it is first used.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::train::{ContextData, ShapeViews};
/// let shapes = vec![shapes::sphere(0.5).to_grid(16)?, shapes::torus(0.5, 0.2).to_grid(16)?];
/// let views = ShapeViews::new(shapes, 3);
/// assert_eq!(views.dims(), [64, 76]);
/// assert_ne!(views.context(0, 1)?, views.context(1, 1)?);
/// assert_eq!(views.context(0, 1)?, views.context(0, 1)?);
/// # Ok::<(), Error>(())
/// ```
pub struct ShapeViews {
    shapes: Arc<[SdfGrid]>,
    /// The pictures of each shape, drawn when they are first used.
    pictures: Vec<Vec<OnceLock<Stored>>>,
}

impl ShapeViews {
    /// Pixels along each side of a picture.
    pub const SIZE: usize = 64;
    /// Patches along each side.
    pub const PATCHES: usize = 8;
    /// Numbers in each patch's row.
    pub const WIDTH: usize = DepthImage::patch_width(Self::SIZE, Self::PATCHES);
    /// Elevations are below this, in degrees.
    const HIGHEST: f32 = 45.0;

    /// `views` pictures of each shape.
    pub fn new(shapes: impl Into<Arc<[SdfGrid]>>, views: usize) -> Self {
        let shapes = shapes.into();
        let of_shape = || (0..views.max(1)).map(|_| OnceLock::new()).collect();
        Self { pictures: shapes.iter().map(|_| of_shape()).collect(), shapes }
    }

    /// Draws all pictures now, so that the first steps of a training need not wait for them.
    ///
    /// # Errors
    /// If a picture does not fit in memory.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::ShapeViews;
    /// ShapeViews::new(vec![shapes::sphere(0.5).to_grid(16)?], 3).prepare()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn prepare(&self) -> Result<()> {
        let views =
            |item: usize| (0..self.pictures[item].len()).try_for_each(|view| self.picture(item, view).map(|_| ()));
        (0..self.shapes.len()).into_par_iter().try_for_each(views)
    }

    /// Picture `view` of a shape.
    fn picture(&self, item: usize, view: usize) -> Result<&Stored> {
        let place = &self.pictures[item][view];
        if let Some(picture) = place.get() {
            return Ok(picture);
        }
        let mut rng = random::rng(random::seed_of(item as u64, view), 5);
        let viewpoint =
            Viewpoint { azimuth: rng.random_range(0.0..360.0), elevation: rng.random_range(0.0..Self::HIGHEST) };
        let image = self.shapes[item].depth_image(viewpoint, Self::SIZE)?;
        let bytes = image.pixels().iter().map(|&depth| (255.0 * depth).ceil() as u8).collect();
        Ok(place.get_or_init(|| (viewpoint, bytes)))
    }
}

impl ContextData for ShapeViews {
    fn dims(&self) -> [usize; 2] {
        [Self::PATCHES * Self::PATCHES, Self::WIDTH]
    }

    fn context(&self, item: usize, seed: u64) -> Result<Vec<f32>> {
        let item = item % self.shapes.len();
        let mut rng = random::rng(seed, 6);
        let (viewpoint, bytes) = self.picture(item, rng.random_range(0..self.pictures[item].len()))?;
        let pixels = bytes.iter().map(|&depth| f32::from(depth) / 255.0).collect();
        let image = DepthImage::from_pixels(pixels, Self::SIZE, *viewpoint)?;
        let image = if rng.random_bool(0.5) { image.silhouette() } else { image };
        image.patch_rows(Self::PATCHES)
    }

    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for shape in self.shapes.iter() {
            shape.values().iter().for_each(|value| hash.update(value.to_le_bytes()));
        }
        format!("{} views of shapes with SHA-256 {}", self.pictures.first().map_or(0, Vec::len), hex(&hash.finalize()))
    }
}
