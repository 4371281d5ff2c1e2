//! [`DistanceQuery`]: distances of any points.

use std::sync::Arc;

use super::distance::{Facet, distances_of};
use super::winding::WindingTree;
use crate::mesh::{Bvh, Mesh, Work};
use crate::task::Task;
use crate::{Error, Result};

/// Points between two checks for a stop.
const AT_A_TIME: usize = 1 << 14;

/// A mesh prepared for distance queries of any points, as often as needed.
///
/// ```
/// use wavemesh::sdf::{DistanceQuery, shapes::sphere};
/// let query = DistanceQuery::new(&sphere(0.5).to_mesh(48)?);
/// let points = [[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]];
/// let signed = query.signed_distance(&points)?;
/// assert!((signed[0] + 0.5).abs() < 0.01 && (signed[1] - 1.5).abs() < 0.01);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[doc(alias = "RaycastingScene")]
pub struct DistanceQuery {
    bvh: Arc<Bvh>,
    facets: Vec<Facet>,
    winding: WindingTree,
    /// What is subtracted from positions, so that a mesh far from the origin keeps its digits.
    middle: [f32; 3],
}

impl DistanceQuery {
    /// Builds the tree of the mesh's triangles.
    pub fn new(mesh: &Mesh) -> Self {
        let [lo, hi] = mesh.bounds();
        let middle: [f32; 3] = std::array::from_fn(|axis| 0.5 * lo[axis] + 0.5 * hi[axis]);
        let bvh = Arc::new(Bvh::of(
            (0..mesh.faces().len())
                .map(|face| mesh.triangle(face).map(|p| std::array::from_fn(|axis| p[axis] - middle[axis]))),
        ));
        let facets = Facet::all(&bvh);
        Self { winding: WindingTree::new(bvh.clone()), bvh, facets, middle }
    }

    /// The distance of each point to the nearest triangle, in mesh units; never negative. Points are positions as in [`Mesh::vertices`].
    ///
    /// # Errors
    /// If a coordinate is not finite, or so many triangles lie across each other that the distances would take hours;
    /// [`Error::Interrupted`] after a stop.
    ///
    /// ```
    /// use wavemesh::mesh::Mesh;
    /// use wavemesh::sdf::DistanceQuery;
    /// let triangle = Mesh::new(vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], vec![[0, 1, 2]])?;
    /// let query = DistanceQuery::new(&triangle);
    /// assert_eq!(query.distance(&[[0.25, 0.25, 2.0], [0.0, -3.0, 0.0]])?, [2.0, 3.0]);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn distance(&self, points: &[[f32; 3]]) -> Result<Vec<f32>> {
        let local = self.local(points)?;
        distances_of(&self.bvh, &self.facets, &local)
    }

    /// Like [`distance`](Self::distance), but negative where the generalized winding number says inside.
    ///
    /// # Errors
    /// The errors of [`distance`](Self::distance).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sdf::DistanceQuery;
    /// let cube = Mesh::from_bytes(
    ///     b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nv 1 1 1\nv 0 1 1\n\
    ///       f 4 3 2 1\nf 5 6 7 8\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8\n",
    ///     mesh::MeshFormat::Obj,
    /// )?;
    /// let query = DistanceQuery::new(&cube);
    /// assert_eq!(query.signed_distance(&[[0.5, 0.5, 0.25], [0.5, 0.5, 3.0]])?, [-0.25, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn signed_distance(&self, points: &[[f32; 3]]) -> Result<Vec<f32>> {
        use rayon::prelude::*;
        let local = self.local(points)?;
        let mut distances = distances_of(&self.bvh, &self.facets, &local)?;
        let task = Task::new("sides", points.len());
        let work = Work::new(points.len(), self.bvh.nodes.len());
        distances.par_chunks_mut(AT_A_TIME).zip(local.par_chunks(AT_A_TIME)).try_for_each(|(distances, points)| {
            let share = &mut work.share();
            for (distance, &point) in distances.iter_mut().zip(points) {
                if self.winding.winding_number(point, share).abs() > 0.5 {
                    *distance = -*distance;
                }
            }
            work.check("DistanceQuery", "the mesh")?;
            task.advance(points.len())
        })?;
        Ok(distances)
    }

    fn local(&self, points: &[[f32; 3]]) -> Result<Vec<[f32; 3]>> {
        if let Some(bad) = points.iter().position(|p| !p.iter().all(|c| c.is_finite())) {
            let got = format!("{:?} at index {bad}", points[bad]);
            return Err(Error::Argument {
                op: "DistanceQuery",
                name: "a point",
                got,
                expected: "finite coordinates".into(),
            });
        }
        Ok(points.iter().map(|p| std::array::from_fn(|axis| p[axis] - self.middle[axis])).collect())
    }
}

impl std::fmt::Debug for DistanceQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DistanceQuery({} triangles)", self.bvh.triangles.len())
    }
}
