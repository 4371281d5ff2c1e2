//! Triangle meshes: reading, writing and measuring.
//!
//! [`Mesh`] is vertices and triangles and nothing else. Readers and writers are in [`format`](MeshFormat), a file a
//! format; [`metrics`] compares two meshes.

mod axis;
mod bvh;
mod format;
mod geometry;
pub mod metrics;
mod polygon;

pub use axis::Axis;
pub(crate) use bvh::{Bvh, Node as BvhNode};
pub use format::MeshFormat;
#[cfg(feature = "mesh-io")]
pub(crate) use format::check_ply_count;
pub(crate) use geometry::vec3;

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
#[derive(Clone, PartialEq)]
pub struct Mesh {
    vertices: Vec<[f32; 3]>,
    faces: Vec<[u32; 3]>,
}

impl Mesh {
    /// A mesh from vertex positions and triangles.
    ///
    /// # Errors
    /// When there is no triangle, a coordinate is NaN or infinite, or a triangle names a vertex that is not there.
    pub fn new(vertices: Vec<[f32; 3]>, faces: Vec<[u32; 3]>) -> Result<Self> {
        Self::checked(vertices, faces).map_err(|got| Error::Argument {
            op: "Mesh::new",
            name: "the mesh",
            got,
            expected: "finite vertices and at least one triangle whose indices are in range".into(),
        })
    }

    /// [`Mesh::new`] with the complaint alone, for the readers to put a path beside.
    fn checked(vertices: Vec<[f32; 3]>, faces: Vec<[u32; 3]>) -> Result<Self, String> {
        if faces.is_empty() {
            return Err("without triangles".into());
        }
        if let Some(i) = vertices.iter().position(|v| !v.iter().all(|c| c.is_finite())) {
            return Err(format!("not finite: vertex {i} is {:?}", vertices[i]));
        }
        if let Some(i) = faces.iter().position(|f| f.iter().any(|&v| v as usize >= vertices.len())) {
            return Err(format!(
                "inconsistent: triangle {i} is {:?} but there are {} vertices",
                faces[i],
                vertices.len()
            ));
        }
        Ok(Self { vertices, faces })
    }

    /// Vertex positions, (x, y, z) in the mesh's own units.
    pub fn vertices(&self) -> &[[f32; 3]] {
        &self.vertices
    }

    /// Triangles, as indices into [`Mesh::vertices`].
    pub fn faces(&self) -> &[[u32; 3]] {
        &self.faces
    }

    /// The three corners of triangle `face`. Panics when `face` is not below `faces().len()`.
    pub fn triangle(&self, face: usize) -> [[f32; 3]; 3] {
        self.faces[face].map(|v| self.vertices[v as usize])
    }

    /// The same mesh with every vertex moved by `f`.
    ///
    /// # Errors
    /// When `f` yields a coordinate that is not finite.
    pub fn map_vertices(&self, f: impl FnMut([f32; 3]) -> [f32; 3]) -> Result<Self> {
        Self::new(self.vertices.iter().copied().map(f).collect(), self.faces.clone())
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [lo, hi] = self.bounds();
        write!(f, "Mesh({} vertices, {} triangles, bounds {lo:?} to {hi:?})", self.vertices.len(), self.faces.len())
    }
}
