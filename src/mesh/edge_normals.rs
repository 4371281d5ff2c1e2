//! [`EdgeNormals`]: how sharp the edges of a surface stay, in degrees.
//!
//! A rounded edge hardly changes the distance between two surfaces, but it changes the normals. So points are drawn from a reference, those
//! near an edge are kept, and the reference's normal at each is compared with the normal of the other surface at its nearest point.

use std::collections::HashMap;

use rayon::prelude::*;

use super::metrics::sample_surface;
use super::vec3::{dot, norm, normalized, sub};
use super::{Bvh, Mesh, Work};
use crate::{Error, Result};

/// Which points count as near an edge, and how many are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EdgeNormals {
    /// A point is near an edge if the reference turns by more than `bend` within this distance. Default 0.05: one and a half samples of a
    /// 64³ grid over the cube [-1, 1]³.
    pub radius: f32,
    /// The angle in degrees, 0 to 150, by which a surface must turn at an edge. If it turns by more than 150, this is the other side of a
    /// thin part. Default 30.
    pub bend: f32,
    /// Number of points drawn from the reference, at most [`MOST`](Self::MOST). Default 8192.
    pub samples: usize,
    /// Seed of the points.
    pub seed: u64,
}

impl Default for EdgeNormals {
    fn default() -> Self {
        Self { radius: 0.05, bend: 30.0, samples: 8192, seed: 0 }
    }
}

setters! {
    EdgeNormals {
        radius(radius: f32) => radius = radius;
        bend(bend: f32) => bend = bend;
        samples(samples: usize) => samples = samples;
        seed(seed: u64) => seed = seed;
    }
}

impl EdgeNormals {
    /// The most points that may be drawn: each is compared with those around it.
    pub const MOST: usize = 1 << 17;
    /// A surface that turns by more than this is the other side of a thin part.
    const OTHER_SIDE: f32 = 150.0;
    const OP: &str = "EdgeNormals";

    /// Mean angle in degrees, 0 to 180, between the normals of `reference` near its edges and those of `mesh` at the nearest points; `None`
    /// if the reference has no edges. If `reference` has many small triangles, as a grid's surface does, a curved part counts as an edge if
    /// it turns enough within the radius.
    ///
    /// ```
    /// use wavemesh::mesh::EdgeNormals;
    /// use wavemesh::sdf::shapes::{cuboid, sphere};
    /// let die = cuboid([0.5; 3]).to_mesh(64)?; // its edges fall between the samples, and are cut off
    /// let rounded = cuboid([0.4; 3]).rounded(0.1).to_mesh(64)?;
    /// let edges = EdgeNormals::new();
    /// let error = edges.error(&rounded, &die)?.unwrap_or_default();
    /// assert!(error > 2.0 * edges.error(&die, &die)?.unwrap_or_default() && error > 5.0);
    /// assert_eq!(edges.error(&die, &sphere(0.5).to_mesh(64)?)?, None); // a ball has no edges
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration out of range, or a mesh without area.
    pub fn error(&self, mesh: &Mesh, reference: &Mesh) -> Result<Option<f64>> {
        self.check()?;
        let drawn = sample_surface(reference, self.samples, self.seed)?;
        let normals: Vec<[f32; 3]> =
            drawn.faces.iter().map(|&face| normalized(reference.scaled_normal(face as usize))).collect();
        let near = self.near_edges(&drawn.points, &normals);
        if near.is_empty() {
            return Ok(None);
        }
        let mesh = &*mesh.around(reference.offset());
        let bvh = Bvh::new(mesh);
        let work = Work::new(near.len(), bvh.nodes.len());
        let angles = near.par_chunks(1024).map(|points| {
            let share = &mut work.share();
            let angle = |&at: &usize| {
                let nearest = bvh.nearest(drawn.points[at], share);
                f64::from(degrees(normals[at], normalized(mesh.scaled_normal(nearest.face as usize))))
            };
            let sum: f64 = points.iter().map(angle).sum();
            work.check(Self::OP, "the mesh")?;
            Ok(sum)
        });
        let sums = angles.collect::<Result<Vec<f64>>>()?;
        Ok(Some(sums.iter().sum::<f64>() / near.len() as f64))
    }

    /// The points near which the surface turns, judged by the points themselves.
    fn near_edges(&self, points: &[[f32; 3]], normals: &[[f32; 3]]) -> Vec<usize> {
        let cell = |point: [f32; 3]| point.map(|x| (x / self.radius).floor() as i64);
        let mut cells: HashMap<[i64; 3], Vec<usize>> = HashMap::new();
        points.iter().enumerate().for_each(|(at, &point)| cells.entry(cell(point)).or_default().push(at));
        let turns = |at: usize, other: usize| {
            norm(sub(points[at], points[other])) <= self.radius
                && (self.bend..Self::OTHER_SIDE).contains(&degrees(normals[at], normals[other]))
        };
        let is_near = |at: &usize| {
            let [x, y, z] = cell(points[*at]);
            let around = (-1..=1).flat_map(|i| (-1..=1).flat_map(move |j| (-1..=1).map(move |k| [i, j, k])));
            around
                .filter_map(|[i, j, k]| cells.get(&[x.saturating_add(i), y.saturating_add(j), z.saturating_add(k)]))
                .flatten()
                .any(|&other| turns(*at, other))
        };
        (0..points.len()).into_par_iter().filter(is_near).collect()
    }

    fn check(&self) -> Result<()> {
        let problem = |name, got: String, expected: String| Err(Error::Argument { op: Self::OP, name, got, expected });
        if !(self.radius.is_finite() && self.radius > 0.0) {
            return problem("radius", self.radius.to_string(), "a number above 0".into());
        }
        if !(0.0..Self::OTHER_SIDE).contains(&self.bend) {
            return problem("bend", self.bend.to_string(), format!("0 to {} degrees", Self::OTHER_SIDE));
        }
        if self.samples == 0 || self.samples > Self::MOST {
            return problem("samples", self.samples.to_string(), format!("1 to {}", Self::MOST));
        }
        Ok(())
    }
}

/// The angle between two directions.
fn degrees(a: [f32; 3], b: [f32; 3]) -> f32 {
    dot(a, b).clamp(-1.0, 1.0).acos().to_degrees()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdf::shapes::cuboid;

    /// A box of twelve triangles, from -half to half.
    fn corners(half: f32) -> Mesh {
        let vertices = (0..8).map(|i| [i & 1, i >> 1 & 1, i >> 2].map(|side| half * (2 * side - 1) as f32)).collect();
        let sides = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
        let faces = sides.iter().flat_map(|&[a, b, c, d]| [[a, b, c], [a, c, d]]).collect();
        Mesh::new(vertices, faces).unwrap()
    }

    #[test]
    fn near_an_edge_is_where_another_side_is_within_the_radius() {
        let die = corners(0.5);
        let edges = EdgeNormals::new().samples(20_000).radius(0.1);
        let drawn = sample_surface(&die, edges.samples, 0).unwrap();
        let normals: Vec<_> = drawn.faces.iter().map(|&face| normalized(die.scaled_normal(face as usize))).collect();
        let near = edges.near_edges(&drawn.points, &normals);
        let to_edge = |at: usize| {
            let mut beyond = drawn.points[at].map(|x| 0.5 - x.abs());
            beyond.sort_by(f32::total_cmp);
            beyond[1] // the distance beyond the side on which it lies is 0
        };
        assert!(near.iter().all(|&at| to_edge(at) <= 0.1));
        // A share of (1 - 0.8²) of the surface; few of the outermost points have no neighbour within reach.
        let share = near.len() as f64 / 20_000.0;
        assert!((0.34..0.37).contains(&share), "{share}");
    }

    #[test]
    fn the_error_is_the_angle_between_the_sides() {
        let die = corners(0.5);
        let edges = EdgeNormals::new();
        assert_eq!(edges.error(&die, &die).unwrap(), Some(0.0));
        // Seen from one large face towards +z, the six sides are turned by 0°, four times by 90°, and by 180°.
        let sheet = vec![[-9.0, -9.0, 0.5], [9.0, -9.0, 0.5], [9.0, 9.0, 0.5], [-9.0, 9.0, 0.5]];
        let sheet = Mesh::new(sheet, vec![[0, 1, 2], [0, 2, 3]]).unwrap();
        let error = edges.error(&sheet, &die).unwrap().unwrap();
        assert!((error - 90.0).abs() < 4.0, "{error}");
        // A grid rounds edges; a finer grid rounds them less.
        let of_grid = |n| edges.error(&cuboid([0.5; 3]).to_mesh(n).unwrap(), &die).unwrap().unwrap();
        let (coarse, fine) = (of_grid(24), of_grid(96));
        assert!(fine < 0.7 * coarse && coarse > 5.0, "{coarse} and {fine}");
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let die = corners(0.5);
        for (edges, name) in [
            (EdgeNormals::new().radius(0.0), "radius"),
            (EdgeNormals::new().radius(f32::NAN), "radius"),
            (EdgeNormals::new().bend(180.0), "bend"),
            (EdgeNormals::new().samples(0), "samples"),
            (EdgeNormals::new().samples(usize::MAX), "samples"),
        ] {
            let error = edges.error(&die, &die).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
