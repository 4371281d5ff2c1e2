//! [`SdfGrid`]: the values, where they lie, and how they were made.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::distance::{Signs, distances};
use super::frame::Frame;
use super::outer::outer_surface;
use super::walls::ThinWalls;
use super::winding::WindingTree;
use crate::mesh::{Bvh, Mesh, Work};
use crate::{Error, Result, memory};

/// How a mesh becomes a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct SdfConfig {
    /// Number of samples along x, y and z; at least two each. Different numbers make an anisotropic grid.
    pub shape: [usize; 3],
    /// The box that the grid spans, in the coordinates of [`Mesh::vertices`]: its corner samples lie on the corners. `None` is
    /// the cube around the middle of all vertices in use whose side is `margin` times their largest extent (and that of the
    /// shell around them, when there is one).
    pub bounds: Option<[[f32; 3]; 2]>,
    /// Side of the default cube relative to the mesh's largest extent. 1.1 leaves the surface clear of the border.
    pub margin: f32,
    /// Values are clamped to `-truncation..=truncation` (in the grid's units, where the default cube has side 2).
    pub truncation: Option<f32>,
    /// What counts as inside.
    pub sign: SdfSign,
    /// Walls of overlapping parts that lie within another part are left out, so that distances are to the surface of the
    /// union; next to where parts meet they are exact to half a cell. Triangles inside the union cost a search each.
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
pub enum SdfSign {
    /// What the triangles enclose, by the generalized winding number. For an open mesh this is a guess near its holes.
    #[default]
    Signed,
    /// Nothing: distances are never negative. For sheets, open scans and double-sided meshes. The surface of such a grid is
    /// drawn at a level above zero.
    Unsigned,
    /// Everything at most `radius` (mesh units) from the triangles, which become the middle of a shell. It makes a solid of any
    /// mesh, the usual way for ShapeNet; a radius of a cell or more leaves no holes.
    Thickened {
        /// Half the thickness of the shell, in mesh units; above zero.
        radius: f32,
    },
}

/// How far the signs of a grid can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignReport {
    /// The mesh bounds a volume, so that inside and outside are facts.
    pub closed: bool,
    /// Samples whose winding number lay within 0.25 of the limit of one half. Their sign is a guess; only meshes that are not
    /// closed have such samples.
    pub guessed: usize,
    /// Walls thinner than a cell, of which the grid may miss parts; only closed meshes are searched for them.
    pub thin: Option<ThinWalls>,
}

/// A signed distance function sampled on a regular grid, negative inside.
///
/// The sample (i, j, k) lies at `origin + (i, j, k) · spacing` in the mesh's own coordinates. Values are lengths in
/// mesh units times [`scale`](SdfGrid::scale). By default the grid is the cube [-1, 1]³ of a mesh that was centred and
/// scaled so that its largest extent is 2 / 1.1, and values are distances in that cube.
#[derive(Clone, Debug, PartialEq)]
pub struct SdfGrid {
    values: Vec<f32>,
    frame: Frame,
    sign: Option<SignReport>,
    notes: Vec<String>,
}

impl SdfGrid {
    /// The signed distance of a mesh on `resolution`³ samples over the cube around it.
    ///
    /// # Errors
    /// When `resolution` is below two or the mesh has no extent; [`Error::Interrupted`] when stopped.
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
    pub fn from_mesh(mesh: &Mesh, resolution: usize) -> Result<Self> {
        Self::from_mesh_with(mesh, &SdfConfig { shape: [resolution; 3], ..Default::default() })
    }

    /// The distance to a mesh on the grid that `config` describes.
    ///
    /// What the grid cannot show (walls thinner than a cell, nothing inside, guessed signs) is a warning, with the resolution or the
    /// setting that would do, and is in [`SdfGrid::notes`].
    ///
    /// # Errors
    /// When an axis has fewer than two samples, the box has no extent or is not finite, the truncation or radius is not positive, or so
    /// many triangles lie across each other that their distances would take hours; [`Error::Memory`] when memory has no room for the grid; [`Error::Interrupted`] when stopped.
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
        let bytes = 4 * frame.shape.iter().product::<usize>() + 512 * mesh.faces().len();
        memory::check(
            OP,
            || format!("a grid of {:?} samples of {} triangles", frame.shape, mesh.faces().len()),
            bytes,
        )?;
        // All geometry happens in the grid's units around its middle, where f32 has the digits for it.
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
        let bvh = Arc::new(Bvh::new(&local));
        let cell = spacing.into_iter().fold(0.0, f32::max);
        let mut grid = match config.sign {
            SdfSign::Signed => {
                let winding = WindingTree::new(bvh.clone());
                let closed = local.weld(0.0)?.is_closed();
                let (values, guessed) = if config.union {
                    let work = Work::new(samples.shape.iter().product(), bvh.nodes.len());
                    let outer = Bvh::new(&outer_surface(&local, &winding, 0.5 * cell, &work)?);
                    distances(&outer, Signs::Open(&winding), &samples)?
                } else if closed {
                    distances(&bvh, Signs::Closed(&winding), &samples)?
                } else {
                    distances(&bvh, Signs::Open(&winding), &samples)?
                };
                let guessed = if closed { 0 } else { guessed };
                let thin = ThinWalls::of(&local, &bvh, cell, 2.0).filter(|_| closed);
                let thin = thin.map(|walls| ThinWalls { thickness: walls.thickness / frame.scale, ..walls });
                Self { values, frame, sign: Some(SignReport { closed, guessed, thin }), notes: Vec::new() }
            }
            SdfSign::Unsigned | SdfSign::Thickened { .. } => {
                let (values, _) = distances(&bvh, Signs::None, &samples)?;
                Self { values, frame, sign: None, notes: Vec::new() }
            }
        };
        if let SdfSign::Thickened { radius } = config.sign {
            let radius = radius * frame.scale;
            grid.values.par_iter_mut().for_each(|v| *v -= radius);
        }
        grid.note_what_is_missing(mesh, config.sign);
        if let Some(limit) = config.truncation {
            grid.values.par_iter_mut().for_each(|v| *v = v.clamp(-limit, limit));
        }
        Ok(grid)
    }

    /// Says what the grid cannot show of its mesh, and what would.
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
                    None => notes.push("no sample is inside; a finer grid may show what there is".into()),
                }
            }
            _ => {}
        }
        for note in &notes {
            log::warn!("{note}");
        }
        self.notes = notes;
    }

    /// Samples a function on `linspace(-1, 1, n)` along each axis; `f` takes (x, y, z).
    ///
    /// # Errors
    /// When an axis has no sample, or `f` yields a value that is not finite; [`Error::Memory`] without room for the grid.
    ///
    /// ```
    /// use wavemesh::sdf::SdfGrid;
    /// let ball = SdfGrid::from_fn([32, 32, 32], |[x, y, z]| (x * x + y * y + z * z).sqrt() - 0.5)?;
    /// assert!(ball.to_mesh()?.is_watertight());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_fn(shape: [usize; 3], f: impl Fn([f32; 3]) -> f32 + Sync) -> Result<Self> {
        const OP: &str = "SdfGrid::from_fn";
        let frame = Frame::cube(shape);
        frame.check(OP)?;
        let [_, ny, nz] = shape;
        let mut values = vec![0.0; memory::elements::<f32>(OP, "a grid", &shape, 0)?];
        values.par_chunks_mut(nz).enumerate().for_each(|(row, line)| {
            for (k, value) in line.iter_mut().enumerate() {
                *value = f(frame.position([row / ny, row % ny, k]));
            }
        });
        Self::with_frame(values, frame)
    }

    /// A grid from values in C order (x slowest, z fastest) over the cube [-1, 1]³.
    ///
    /// # Errors
    /// When the number of values is not the product of `shape`, or a value is not finite.
    pub fn from_values(values: Vec<f32>, shape: [usize; 3]) -> Result<Self> {
        Self::with_frame(values, Frame::cube(shape))
    }

    /// A grid from values in C order and the frame they lie in.
    ///
    /// # Errors
    /// As [`SdfGrid::from_values`].
    pub fn with_frame(values: Vec<f32>, frame: Frame) -> Result<Self> {
        const OP: &str = "SdfGrid";
        let len = frame.check(OP)?;
        if values.len() != len {
            let expected = format!("{len} values for the grid {:?}", frame.shape);
            return Err(Error::Shape { op: OP, what: "values", got: vec![values.len()], expected });
        }
        // All are looked at without a branch; only a fault is worth a search.
        let finite = values.iter().fold(true, |finite, v| finite & v.is_finite());
        if let Some(i) = values.iter().position(|v| !finite && !v.is_finite()) {
            let got = format!("{} at index {i}", values[i]);
            return Err(Error::Argument { op: OP, name: "a value", got, expected: "a finite number".into() });
        }
        Ok(Self { values, frame, sign: None, notes: Vec::new() })
    }

    /// The distances in C order: index `(i·ny + j)·nz + k` for the sample (x, y, z) = (i, j, k).
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of samples along x, y, z.
    pub fn shape(&self) -> [usize; 3] {
        self.frame.shape
    }

    /// Position of sample (0, 0, 0), in mesh units.
    pub fn origin(&self) -> [f32; 3] {
        self.frame.origin
    }

    /// Distance between neighbouring samples along x, y, z, in mesh units.
    pub fn spacing(&self) -> [f32; 3] {
        self.frame.spacing
    }

    /// What a length of one mesh unit is as a value of this grid.
    pub fn scale(&self) -> f32 {
        self.frame.scale
    }

    /// Origin, spacing, shape and scale in one.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// What the grid cannot show of its mesh, a line each, with what would; empty for most.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How far the signs can be trusted; `None` for a grid that has no signs, or none from a mesh.
    pub fn sign_report(&self) -> Option<SignReport> {
        self.sign
    }

    /// Position of sample (i, j, k), in mesh units.
    pub fn position(&self, index: [usize; 3]) -> [f32; 3] {
        self.frame.position(index)
    }

    /// The positions of the first and the last sample, in mesh units.
    pub fn corners(&self) -> [[f32; 3]; 2] {
        [self.position([0; 3]), self.position(self.frame.shape.map(|n| n - 1))]
    }

    /// The values as an f32 tensor of shape (nx, ny, nz).
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let [nx, ny, nz] = self.frame.shape;
        Ok(Tensor::from_slice(&self.values, (nx, ny, nz), device)?)
    }

    /// A grid from a floating-point tensor of shape (nx, ny, nz), over the cube [-1, 1]³.
    ///
    /// # Errors
    /// When the tensor does not have three axes, or a value is not finite.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let Ok((nx, ny, nz)) = tensor.dims3() else {
            let got = tensor.dims().to_vec();
            return Err(Error::Shape {
                op: "SdfGrid::from_tensor",
                what: "tensor",
                got,
                expected: "(nx, ny, nz)".into(),
            });
        };
        let values = tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
        Self::from_values(values, [nx, ny, nz])
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
    memory::elements::<f32>(OP, "a grid", &shape, 0)?;
    Ok(frame)
}
