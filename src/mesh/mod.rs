//! Triangle meshes: reading, writing and measuring.
//!
//! A [`Mesh`] holds vertices, triangles, and an offset for large coordinates. Readers and writers are in [`format`](MeshFormat), one file
//! for each format; [`metrics`] compares two meshes.

mod axis;
mod bvh;
mod edge_normals;
mod format;
mod geometry;
pub mod metrics;
mod polygon;
mod repair;
mod weld;
mod work;

pub use axis::Axis;
pub(crate) use bvh::{Bvh, DEEPEST, Node as BvhNode};
pub use edge_normals::EdgeNormals;
pub use format::MeshFormat;
pub(crate) use geometry::vec3;
pub use repair::{MeshReport, Repair};
pub(crate) use work::{Share, Work};

use crate::{Error, Result};

/// A triangle mesh: vertex positions and triples of vertex indices, counter-clockwise seen from outside.
///
/// ```
/// use wavemesh::mesh::Mesh;
/// let tetrahedron = Mesh::new(
///     vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [0., 0., 1.]],
///     vec![[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]],
/// )?;
/// assert!(tetrahedron.is_watertight());
/// assert!((tetrahedron.volume() - 1.0 / 6.0).abs() < 1e-6);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone)]
pub struct Mesh {
    vertices: Vec<[f32; 3]>,
    faces: Vec<[u32; 3]>,
    offset: [f64; 3],
    notes: Vec<String>,
}

/// Meshes are equal if their surfaces and places are; notes do not matter.
impl PartialEq for Mesh {
    fn eq(&self, other: &Self) -> bool {
        self.vertices == other.vertices && self.faces == other.faces && self.offset == other.offset
    }
}

impl Mesh {
    /// A mesh from vertex positions and triangles.
    ///
    /// # Errors
    /// If there is no triangle, a coordinate is NaN or infinite, or a triangle names a vertex that does not exist.
    ///
    /// ```
    /// use wavemesh::mesh::Mesh;
    /// let corners = vec![[0.0; 3], [3.0, 0.0, 0.0], [0.0, 4.0, 0.0]];
    /// assert_eq!(Mesh::new(corners.clone(), vec![[0, 1, 2]])?.area(), 6.0);
    /// assert!(Mesh::new(corners, vec![[0, 1, 3]]).is_err()); // there is no fourth vertex
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn new(vertices: Vec<[f32; 3]>, faces: Vec<[u32; 3]>) -> Result<Self> {
        Self::checked(vertices, faces).map_err(|got| Error::Argument {
            op: "Mesh::new",
            name: "the mesh",
            got,
            expected: "finite vertices and at least one triangle whose indices are in range".into(),
        })
    }

    /// [`Mesh::new`], whose error is only the message.
    fn checked(vertices: Vec<[f32; 3]>, faces: Vec<[u32; 3]>) -> Result<Self, String> {
        check_faces(&faces, vertices.len())?;
        if let Some(i) = vertices.iter().position(|v| !v.iter().all(|c| c.is_finite())) {
            return Err(format!("not finite: vertex {i} is {:?}", vertices[i]));
        }
        Ok(Self { vertices, faces, offset: [0.0; 3], notes: Vec::new() })
    }

    /// A mesh from a file's content in double precision. The error is only the message; readers add the path.
    ///
    /// Vertices that no triangle uses may have any value; they are left out if their position is not finite. If single precision would move
    /// a vertex by more than [`LARGEST_ROUNDING`] of the mesh's extent, the mesh gets an offset.
    fn from_file(vertices: Vec<[f64; 3]>, mut faces: Vec<[u32; 3]>, mut notes: Vec<String>) -> Result<Self, String> {
        check_faces(&faces, vertices.len())?;
        let (mut lo, mut hi, mut rounding) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3], 0.0f64);
        let mut used = vec![false; vertices.len()];
        for (i, face) in faces.iter().enumerate() {
            for &v in face.iter().filter(|&&v| !std::mem::replace(&mut used[v as usize], true)) {
                let position = vertices[v as usize];
                if !position.iter().all(|c| c.is_finite()) {
                    return Err(format!("not finite: vertex {v}, of triangle {i}, is {position:?}"));
                }
                for (axis, c) in position.into_iter().enumerate() {
                    (lo[axis], hi[axis]) = (lo[axis].min(c), hi[axis].max(c));
                    rounding = rounding.max((c - f64::from(c as f32)).abs());
                }
            }
        }
        let extent = (0..3).map(|axis| hi[axis] - lo[axis]).fold(0.0, f64::max);
        let mut offset = [0.0; 3];
        if rounding > LARGEST_ROUNDING * extent && extent > 0.0 {
            // A multiple of a power of two near the extent, so that subtracting it loses no digit.
            let unit = extent.log2().ceil().exp2();
            offset = std::array::from_fn(|axis| ((0.5 * lo[axis] + 0.5 * hi[axis]) / unit).round() * unit);
        }
        let local = |p: &[f64; 3]| -> [f32; 3] { std::array::from_fn(|axis| (p[axis] - offset[axis]) as f32) };
        let mut kept: Vec<[f32; 3]> = vertices.iter().map(local).collect();
        let finite = |p: &[f32; 3]| p.iter().all(|c| c.is_finite());
        if let Some(v) = (0..kept.len()).find(|&v| used[v] && !finite(&kept[v])) {
            return Err(format!("too large for single precision: vertex {v} is {:?}", vertices[v]));
        }
        let lost = kept.iter().filter(|p| !finite(p)).count();
        if lost > 0 {
            let place: Vec<u32> = kept
                .iter()
                .scan(0, |count, p| {
                    let own = *count;
                    *count += u32::from(finite(p));
                    Some(own)
                })
                .collect();
            faces.iter_mut().flatten().for_each(|v| *v = place[*v as usize]);
            kept.retain(finite);
            let vertices = if lost == 1 { "vertex" } else { "vertices" };
            notes.push(format!("left out {lost} unused {vertices} without a finite position"));
        }
        Ok(Self { vertices: kept, faces, offset, notes })
    }

    /// An empty mesh at this one's place, with its notes.
    fn clone_frame(&self) -> Self {
        Self { vertices: Vec::new(), faces: Vec::new(), offset: self.offset, notes: self.notes.clone() }
    }

    /// Vertex positions, (x, y, z) in the mesh's own units, relative to its [offset](Mesh::offset).
    pub fn vertices(&self) -> &[[f32; 3]] {
        &self.vertices
    }

    /// Triangles, as indices into [`Mesh::vertices`].
    pub fn faces(&self) -> &[[u32; 3]] {
        &self.faces
    }

    /// The three corners of triangle `face`. Panics if `face` is not below `faces().len()`.
    pub fn triangle(&self, face: usize) -> [[f32; 3]; 3] {
        self.faces[face].map(|v| self.vertices[v as usize])
    }

    /// The origin of [`Mesh::vertices`] in the coordinates of the file. It is zero unless these are so large (a small part in map
    /// coordinates) that single precision would lose the shape. Files are written with it added.
    pub fn offset(&self) -> [f64; 3] {
        self.offset
    }

    /// The same vertices around another origin, which moves the mesh.
    ///
    /// # Errors
    /// If the offset is not finite.
    ///
    /// ```
    /// use wavemesh::mesh::Mesh;
    /// let triangle = Mesh::new(vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], vec![[0, 1, 2]])?;
    /// let placed = triangle.with_offset([500_000.0, 4_000_000.0, 0.0])?; // metres on a map
    /// assert_eq!(placed.vertices()[1], [1.0, 0.0, 0.0]);
    /// assert_eq!(placed.positions().nth(1), Some([500_001.0, 4_000_000.0, 0.0]));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn with_offset(self, offset: [f64; 3]) -> Result<Self> {
        if offset.iter().all(|c| c.is_finite()) {
            return Ok(Self { offset, ..self });
        }
        let expected = "three finite coordinates".into();
        Err(Error::Argument { op: "Mesh::with_offset", name: "offset", got: format!("{offset:?}"), expected })
    }

    /// Vertex positions with the [offset](Mesh::offset) added, in double precision.
    pub fn positions(&self) -> impl Iterator<Item = [f64; 3]> + '_ {
        self.vertices.iter().map(|v| std::array::from_fn(|axis| f64::from(v[axis]) + self.offset[axis]))
    }

    /// The mesh with its vertices relative to another mesh's offset, so that they can be compared with that mesh's.
    pub(crate) fn around(&self, offset: [f64; 3]) -> std::borrow::Cow<'_, Mesh> {
        if self.offset == offset {
            return std::borrow::Cow::Borrowed(self);
        }
        let moved = |p: [f64; 3]| std::array::from_fn(|axis| (p[axis] - offset[axis]) as f32);
        let vertices = self.positions().map(moved).collect();
        std::borrow::Cow::Owned(Self { vertices, faces: self.faces.clone(), offset, notes: self.notes.clone() })
    }

    /// What a reader skipped or mended in the mesh's file, one line each; empty if it took everything unchanged.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The same mesh with every vertex moved by `f`, which gets positions as in [`Mesh::vertices`].
    ///
    /// # Errors
    /// If `f` returns a coordinate that is not finite.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let mesh = Mesh::new(vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], vec![[0, 1, 2]])?;
    /// let doubled = mesh.map_vertices(|corner| corner.map(|v| 2.0 * v))?;
    /// assert_eq!(doubled.vertices()[1], [2.0, 0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn map_vertices(&self, f: impl FnMut([f32; 3]) -> [f32; 3]) -> Result<Self> {
        let moved = Self::new(self.vertices.iter().copied().map(f).collect(), self.faces.clone())?;
        Ok(Self { offset: self.offset, notes: self.notes.clone(), ..moved })
    }
}

/// A mesh gets an offset if rounding to single precision would move a vertex by more than this share of its extent.
const LARGEST_ROUNDING: f64 = 1e-5;

fn check_faces(faces: &[[u32; 3]], vertices: usize) -> Result<(), String> {
    match faces.iter().position(|f| f.iter().any(|&v| v as usize >= vertices)) {
        _ if faces.is_empty() && vertices > 0 => Err(format!(
            "without triangles; a cloud of {vertices} points needs its surface first (Poisson reconstruction in MeshLab or Open3D)"
        )),
        _ if faces.is_empty() => Err("without triangles".into()),
        Some(i) => Err(format!("inconsistent: triangle {i} is {:?} but there are {vertices} vertices", faces[i])),
        None => Ok(()),
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [lo, hi] = self.bounds();
        write!(f, "Mesh({} vertices, {} triangles, bounds {lo:?} to {hi:?})", self.vertices.len(), self.faces.len())
    }
}
