//! From a mesh to its grid: what counts as inside, where the samples are, and grids in slabs.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::distance::{Facet, Signs, distances};
use super::frame::Frame;
use super::grid::{SdfGrid, SignReport};
use super::outer::outer_surface;
use super::walls::ThinWalls;
use super::winding::WindingTree;
use crate::mesh::{Bvh, Mesh, Work};
use crate::{Error, Result, memory};

/// How a mesh becomes a grid.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SdfConfig {
    /// Number of samples along x, y and z, at least two each. Different numbers make an anisotropic grid.
    pub shape: [usize; 3],
    /// The box that the grid spans, in the coordinates of [`Mesh::vertices`]: its corner samples are at the corners. `None` is the cube
    /// around the middle of all used vertices; its side is `margin` times their largest extent (including the shell around them, if there
    /// is one).
    pub bounds: Option<[[f32; 3]; 2]>,
    /// Side of the default cube relative to the mesh's largest extent. With 1.1 the surface stays clear of the border.
    pub margin: f32,
    /// Values are clamped to `-truncation..=truncation` (in the grid's units, where the default cube has side 2).
    pub truncation: Option<f32>,
    /// What counts as inside.
    pub sign: SdfSign,
    /// Whether to leave out walls that lie inside another part, so that distances are those to the surface of the union. Close to where
    /// parts meet, they are exact to half a cell. Each triangle inside the union costs a search.
    pub union: bool,
}

impl Default for SdfConfig {
    fn default() -> Self {
        Self { shape: [64; 3], bounds: None, margin: 1.1, truncation: None, sign: SdfSign::Signed, union: false }
    }
}

setters! {
    SdfConfig {
        shape(shape: [usize; 3]) => shape = shape;
        bounds(bounds: [[f32; 3]; 2]) => bounds = Some(bounds);
        margin(margin: f32) => margin = margin;
        truncation(truncation: f32) => truncation = Some(truncation);
        sign(sign: SdfSign) => sign = sign;
        union(union: bool) => union = union;
    }
}

/// What counts as inside of a mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum SdfSign {
    /// What the triangles enclose, by the generalized winding number. Near the holes of an open mesh this is a guess.
    #[default]
    Signed,
    /// Nothing: distances are never negative. For sheets, open scans and double-sided meshes. Draw the surface of such a grid at a level
    /// above zero.
    Unsigned,
    /// Everything within `radius` (mesh units) of the triangles, which become the middle of a shell. This makes a solid of any mesh, and is
    /// usual for ShapeNet; a radius of at least one cell leaves no holes.
    Thickened {
        /// Half the thickness of the shell, in mesh units; above zero.
        radius: f32,
    },
}

/// The memory for each triangle: its place in the tree, its expansion and its facet.
const BYTES_PER_TRIANGLE: usize = 512;

impl SdfGrid {
    /// The signed distance of a mesh on `resolution`³ samples over the cube around it.
    ///
    /// # Errors
    /// If `resolution` is below two or the mesh has no extent; [`Error::Interrupted`] after a stop.
    ///
    /// ```
    /// use wavemesh::{mesh::Mesh, sdf::SdfGrid};
    /// let tetrahedron = Mesh::new(
    ///     vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [0., 0., 1.]],
    ///     vec![[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]],
    /// )?;
    /// let sdf = SdfGrid::from_mesh(&tetrahedron, 16)?;
    /// assert_eq!(sdf.shape(), [16, 16, 16]);
    /// assert!(sdf.values().iter().any(|&d| d < 0.0));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    #[doc(alias = "mesh_to_sdf")]
    pub fn from_mesh(mesh: &Mesh, resolution: usize) -> Result<Self> {
        Self::from_mesh_with(mesh, &SdfConfig { shape: [resolution; 3], ..Default::default() })
    }

    /// The distance to a mesh, on the grid that `config` describes.
    ///
    /// If the grid cannot show something (walls thinner than a cell, no inside, guessed signs), a warning and [`SdfGrid::notes`] say so,
    /// with the resolution or setting that would help.
    ///
    /// # Errors
    /// If an axis has fewer than two samples, the box has no extent or is not finite, the truncation or radius is not positive, or so many
    /// triangles lie across each other that their distances would take hours; [`Error::Memory`] if the grid does not fit in memory;
    /// [`Error::Interrupted`] after a stop.
    ///
    /// ```
    /// use wavemesh::mesh::Mesh;
    /// use wavemesh::sdf::{SdfConfig, SdfGrid, SdfSign};
    /// let corners = vec![[0., 0., 0.], [1., 0., 0.], [1., 1., 0.], [0., 1., 0.]];
    /// let sheet = Mesh::new(corners, vec![[0, 1, 2], [0, 2, 3]])?;
    /// let config = SdfConfig::new().sign(SdfSign::Thickened { radius: 0.1 });
    /// let plate = SdfGrid::from_mesh_with(&sheet, &config)?.to_mesh()?;
    /// assert!(plate.is_watertight() && (plate.volume() - 0.2).abs() < 0.1);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_mesh_with(mesh: &Mesh, config: &SdfConfig) -> Result<Self> {
        let frame = frame_for(mesh, config)?;
        // The values, and for each triangle its place in the tree, its expansion and its facet.
        let bytes = 4 * frame.shape.iter().product::<usize>() + BYTES_PER_TRIANGLE * mesh.faces().len();
        let parts = "SdfGrid::slabs makes it in parts";
        let what = || format!("a grid of {:?} samples of {} triangles ({parts})", frame.shape, mesh.faces().len());
        memory::check(OP, what, bytes)?;
        let sampled = SampledMesh::new(mesh, config, frame)?;
        let mut grid = sampled.slab(0..frame.shape[0])?;
        grid.note_what_is_missing(mesh, config.sign);
        if let Some(limit) = config.truncation {
            grid.values.par_iter_mut().for_each(|v| *v = v.clamp(-limit, limit));
        }
        Ok(grid)
    }

    /// The grid of [`SdfGrid::from_mesh_with`] in slabs of at most `slices` slices along x, for grids that do not fit in memory. Each slab
    /// is a separate grid, made when it is requested. A slab begins with the last slice of the one before it, so that all surfaces join. A
    /// slab through which no surface passes has none ([`SdfGrid::to_mesh`] is an error there).
    ///
    /// # Errors
    /// The errors of [`SdfGrid::from_mesh_with`]; and if `slices` is below two. A slab is an error if it does not fit in memory, or after a
    /// stop.
    ///
    /// ```
    /// use wavemesh::sdf::{SdfConfig, SdfGrid, shapes::sphere};
    /// let ball = sphere(0.5).to_mesh(32)?;
    /// let config = SdfConfig::new().shape([64; 3]);
    /// let mut lowest = f32::INFINITY;
    /// for slab in SdfGrid::slabs(&ball, &config, 16)? {
    ///     lowest = slab?.values().iter().copied().fold(lowest, f32::min);
    /// }
    /// let whole = SdfGrid::from_mesh_with(&ball, &config)?;
    /// assert!((lowest - whole.values().iter().copied().fold(f32::INFINITY, f32::min)).abs() < 1e-6);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn slabs(mesh: &Mesh, config: &SdfConfig, slices: usize) -> Result<SdfSlabs> {
        const OP: &str = "SdfGrid::slabs";
        if slices < 2 {
            return Err(Error::argument(OP, "slices", slices, "at least 2; slabs share a slice with their neighbours"));
        }
        let frame = frame_for(mesh, config)?;
        let triangles = mesh.faces().len();
        memory::check(OP, || format!("the tree of {triangles} triangles"), BYTES_PER_TRIANGLE * triangles)?;
        Ok(SdfSlabs { sampled: SampledMesh::new(mesh, config, frame)?, slices, truncation: config.truncation, next: 0 })
    }

    /// Notes what the grid cannot show of its mesh, and what would help.
    fn note_what_is_missing(&mut self, mesh: &Mesh, sign: SdfSign) {
        let inside = self.values.iter().any(|&v| v < 0.0);
        let cell = self.frame.spacing.into_iter().fold(0.0, f32::max);
        let sheet = "SdfConfig::sign Unsigned or Thickened measures it as a sheet";
        let mut notes = Vec::new();
        match (sign, self.sign) {
            (SdfSign::Thickened { radius }, _) if radius < cell => notes.push(format!(
                "the shell's radius of {radius} is less than a cell of {cell}, so that it may have holes; a larger radius or a \
                 finer grid closes them"
            )),
            (SdfSign::Signed, Some(report)) => {
                if report.guessed > 0 {
                    let (guessed, all) = (report.guessed, self.values.len());
                    notes.push(format!("the mesh has holes; the side of {guessed} of {all} samples near them is a guess"));
                }
                match report.thin {
                    Some(ThinWalls { share, thickness, resolution }) => notes.push(format!(
                        "walls under {:.0} % of the surface are thinner than a cell ({thickness:.3e} where a cell is {cell:.3e}), so \
                         that parts of them are missing; a resolution of {resolution} shows them",
                        100.0 * share
                    )),
                    None if inside => {}
                    None if !report.closed => {
                        notes.push(format!("no sample is inside, because the mesh is open; {sheet}"));
                    }
                    None if 2 * mesh.check().duplicate_faces == mesh.faces().len() => notes.push(format!(
                        "no sample is inside, because every triangle stands there twice, front and back; mesh.repair() makes it \
                         single, or {sheet}"
                    )),
                    None => notes.push("no sample is inside; a finer grid may resolve the shape".into()),
                }
            }
            _ => {}
        }
        for note in &notes {
            log::warn!("{note}");
        }
        self.notes = notes;
    }
}

/// The slabs of a grid that need not fit in memory as a whole; made by [`SdfGrid::slabs`].
pub struct SdfSlabs {
    sampled: SampledMesh,
    slices: usize,
    truncation: Option<f32>,
    next: usize,
}

impl SdfSlabs {
    /// The frame of the samples of all slabs together.
    pub fn frame(&self) -> Frame {
        self.sampled.frame
    }
}

impl Iterator for SdfSlabs {
    type Item = Result<SdfGrid>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, end) = (self.next, self.sampled.frame.shape[0]);
        if first + 1 >= end {
            return None;
        }
        let slices = first..(first + self.slices).min(end);
        self.next = slices.end - 1;
        let slab = self.sampled.slab(slices).map(|mut slab| {
            if let Some(limit) = self.truncation {
                slab.values.par_iter_mut().for_each(|v| *v = v.clamp(-limit, limit));
            }
            slab
        });
        if slab.is_err() {
            self.next = end;
        }
        Some(slab)
    }
}

impl std::fmt::Debug for SdfSlabs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [nx, ny, nz] = self.sampled.frame.shape;
        write!(f, "SdfSlabs(slices {} of {nx} are next, {ny}×{nz} samples each)", self.next)
    }
}

/// A mesh prepared for computing distances.
struct SampledMesh {
    frame: Frame,
    /// The same samples in the grid's units around its middle, where f32 has enough digits for all geometry.
    samples: Frame,
    sign: SdfSign,
    /// The triangles to which distances are computed, and what each needs for that.
    bvh: Arc<Bvh>,
    facets: Vec<Facet>,
    /// For a grid with signs: the tree for winding numbers, and how far the signs can be trusted.
    signs: Option<(WindingTree, SignReport)>,
    union: bool,
}

impl SampledMesh {
    fn new(mesh: &Mesh, config: &SdfConfig, frame: Frame) -> Result<Self> {
        let middle: [f32; 3] =
            std::array::from_fn(|a| frame.origin[a] + 0.5 * (frame.shape[a] - 1) as f32 * frame.spacing[a]);
        let local = mesh.drop_unused().map_vertices(|v| std::array::from_fn(|a| (v[a] - middle[a]) * frame.scale))?;
        let spacing = frame.spacing.map(|s| s * frame.scale);
        let samples = Frame {
            origin: std::array::from_fn(|a| -0.5 * (frame.shape[a] - 1) as f32 * spacing[a]),
            spacing,
            scale: 1.0,
            ..frame
        };
        let mut bvh = Arc::new(Bvh::new(&local));
        let mut signs = None;
        if config.sign == SdfSign::Signed {
            let cell = spacing.into_iter().fold(0.0, f32::max);
            let closed = local.weld(0.0)?.is_closed();
            let thin = ThinWalls::of(&local, &bvh, cell, 2.0).filter(|_| closed);
            let thin = thin.map(|walls| ThinWalls { thickness: walls.thickness / frame.scale, ..walls });
            let winding = WindingTree::new(bvh.clone());
            if config.union {
                let work = Work::new(samples.shape.iter().product(), bvh.nodes.len());
                bvh = Arc::new(Bvh::new(&outer_surface(&local, &winding, 0.5 * cell, &work)?));
            }
            signs = Some((winding, SignReport { closed, guessed: 0, thin }));
        }
        let facets = Facet::all(&bvh);
        Ok(Self { frame, samples, sign: config.sign, bvh, facets, signs, union: config.union })
    }

    /// The part of the grid between two slices along x.
    fn slab(&self, slices: Range<usize>) -> Result<SdfGrid> {
        let part = |frame: Frame| {
            let ([_, y, z], [_, ny, nz]) = (frame.origin, frame.shape);
            let [x, ..] = frame.position([slices.start, 0, 0]);
            Frame { origin: [x, y, z], shape: [slices.len(), ny, nz], ..frame }
        };
        let signs = match &self.signs {
            None => Signs::None,
            // Where the parts of a union meet, distances do not tell where the side can change.
            Some((winding, report)) if report.closed && !self.union => Signs::Closed(winding),
            Some((winding, _)) => Signs::Open(winding),
        };
        let (mut values, guessed) = distances(&self.bvh, &self.facets, signs, &self.samples, slices.clone())?;
        if let SdfSign::Thickened { radius } = self.sign {
            let radius = radius * self.frame.scale;
            values.par_iter_mut().for_each(|v| *v -= radius);
        }
        let sign = self.signs.as_ref();
        let sign = sign.map(|(_, report)| SignReport { guessed: if report.closed { 0 } else { guessed }, ..*report });
        Ok(SdfGrid { values, frame: part(self.frame), sign, notes: Vec::new() })
    }
}

const OP: &str = "SdfGrid::from_mesh";

fn frame_for(mesh: &Mesh, config: &SdfConfig) -> Result<Frame> {
    let bad = |name, got: String, expected: &str| Error::Argument { op: OP, name, got, expected: expected.into() };
    let shape = config.shape;
    if shape.iter().any(|&n| n < 2) {
        return Err(bad("shape", format!("{shape:?}"), "at least two samples an axis"));
    }
    if let Some(limit) = config.truncation.filter(|t| !(t.is_finite() && *t > 0.0)) {
        return Err(bad("truncation", limit.to_string(), "a positive distance"));
    }
    if !(config.margin.is_finite() && config.margin > 0.0) {
        return Err(bad("margin", config.margin.to_string(), "a positive factor"));
    }
    let radius = match config.sign {
        SdfSign::Thickened { radius } if !(radius.is_finite() && radius > 0.0) => {
            return Err(bad("the radius of sign Thickened", radius.to_string(), "a positive distance"));
        }
        SdfSign::Thickened { radius } => radius,
        _ => 0.0,
    };
    if config.union && config.sign != SdfSign::Signed {
        return Err(bad("union", format!("true with sign {:?}", config.sign), "sign Signed, or no union"));
    }
    let [lo, hi] = match config.bounds {
        Some(bounds) => bounds,
        None => {
            let [lo, hi] = mesh.bounds();
            let side = ((0..3).map(|a| hi[a] - lo[a]).fold(0.0, f32::max) + 2.0 * radius) * config.margin;
            let middle: [f32; 3] = std::array::from_fn(|a| 0.5 * lo[a] + 0.5 * hi[a]);
            [middle.map(|c| c - 0.5 * side), middle.map(|c| c + 0.5 * side)]
        }
    };
    let extent: [f32; 3] = std::array::from_fn(|a| hi[a] - lo[a]);
    let scale = 2.0 / extent.iter().copied().fold(0.0, f32::max);
    if !extent.iter().all(|&e| e > 0.0 && e.is_finite()) || !scale.is_finite() {
        return Err(bad(
            "the box of the grid",
            format!("{lo:?} to {hi:?}"),
            "a finite extent above zero along every axis",
        ));
    }
    let spacing = std::array::from_fn(|a| extent[a] / (shape[a] - 1) as f32);
    let frame = Frame { shape, origin: lo, spacing, scale, offset: mesh.offset() };
    frame.check(OP)?;
    Ok(frame)
}
