//! How near two surfaces are to each other: Chamfer distance, Hausdorff distance, F-score, normal consistency.
//!
//! Seeded points are drawn evenly by area from each surface, and measured against the other surface itself, not against points drawn from
//! it. So the distance of a surface to itself is zero, and the numbers do not shrink as samples increase.

use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use super::geometry::vec3;
use super::{Bvh, Mesh, Share, Work};
use crate::task::Task;
use crate::{Error, Result};

/// Points on a surface, each with its triangle.
#[derive(Clone, Debug, PartialEq)]
pub struct SurfaceSamples {
    /// Positions, (n, 3).
    pub points: Vec<[f32; 3]>,
    /// Index of the triangle under each point.
    pub faces: Vec<u32>,
}

/// Draws `count` points from the mesh's surface, evenly by area. The same seed gives the same points.
///
/// # Errors
/// If the mesh has no area, or the points do not fit in memory.
///
/// ```
/// # use wavemesh::mesh::{Mesh, metrics::sample_surface};
/// let square = Mesh::new(vec![[0., 0., 0.], [1., 0., 0.], [1., 1., 0.], [0., 1., 0.]], vec![[0, 1, 2], [0, 2, 3]])?;
/// let samples = sample_surface(&square, 100, 7)?;
/// assert!(samples.points.iter().all(|p| p[2] == 0.0 && (0.0..=1.0).contains(&p[0])));
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[doc(alias = "sample_points_uniformly")]
pub fn sample_surface(mesh: &Mesh, count: usize, seed: u64) -> Result<SurfaceSamples> {
    let mut area = 0.0;
    let areas: Vec<f64> = (0..mesh.faces().len())
        .map(|f| {
            area += f64::from(vec3::norm(mesh.scaled_normal(f)));
            area
        })
        .collect();
    if !(area > 0.0 && area.is_finite()) {
        let (got, expected) = (format!("of area {}", area / 2.0), "a surface with a finite area above zero".into());
        return Err(Error::Argument { op: "sample_surface", name: "the mesh", got, expected });
    }
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let mut draw = || {
        let at = rng.random::<f64>() * area;
        let face = areas.partition_point(|&a| a <= at).min(areas.len() - 1);
        // The square root distributes the points evenly over the triangle.
        let (root, v) = (rng.random::<f32>().sqrt(), rng.random::<f32>());
        let weights = [1.0 - root, root * (1.0 - v), root * v];
        let corners = mesh.triangle(face);
        let point = std::array::from_fn(|c| (0..3).map(|i| weights[i] * corners[i][c]).sum());
        (point, face as u32)
    };
    let (mut points, mut faces) = (Vec::new(), Vec::new());
    if points.try_reserve_exact(count).is_err() || faces.try_reserve_exact(count).is_err() {
        let expected = "a number of points that memory has room for".into();
        return Err(Error::Argument { op: "sample_surface", name: "count", got: count.to_string(), expected });
    }
    for _ in 0..count {
        let (point, face) = draw();
        points.push(point);
        faces.push(face);
    }
    Ok(SurfaceSamples { points, faces })
}

/// Measures of two surfaces against each other.
///
/// ```
/// use wavemesh::{mesh::metrics::MeshComparison, sdf::SdfGrid};
/// let ball = |r: f32| SdfGrid::from_fn([32; 3], move |[x, y, z]| (x * x + y * y + z * z).sqrt() - r)?.to_mesh();
/// let (small, large) = (ball(0.5)?, ball(0.6)?);
/// let compared = MeshComparison::new(&small, &large, 1000, 0)?;
/// assert!((compared.chamfer() - 0.2).abs() < 0.01); // 0.1 there and 0.1 back
/// assert_eq!(compared.f_score(0.15), 1.0);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[doc(alias = "chamfer_distance")]
#[derive(Clone, Debug)]
pub struct MeshComparison {
    /// From the first mesh's points to the second's surface, then the other way.
    distances: [Vec<f32>; 2],
    /// Cosine of the angle between the normals at each point and at its nearest point.
    cosines: [Vec<f32>; 2],
}

impl MeshComparison {
    /// Draws `samples` points from each mesh, and finds for each the nearest point of the other's surface. The order of the meshes matters
    /// only to [`precision`](MeshComparison::precision) and [`recall`](MeshComparison::recall): the reference comes second.
    ///
    /// # Errors
    /// If a mesh has no area, or so many triangles across each other that distances would take hours, or if `samples` is zero or more than
    /// fits in memory; [`Error::Interrupted`] after a stop.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let square = |z: f32| Mesh::new(
    ///     vec![[0.0, 0.0, z], [1.0, 0.0, z], [1.0, 1.0, z], [0.0, 1.0, z]],
    ///     vec![[0, 1, 2], [0, 2, 3]],
    /// );
    /// let compared = MeshComparison::new(&square(0.0)?, &square(0.25)?, 100, 0)?;
    /// assert!((compared.chamfer() - (0.25 + 0.25)).abs() < 1e-6); // every point there, and every point back
    /// assert!(MeshComparison::new(&square(0.0)?, &square(0.25)?, 0, 0).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(mesh: &Mesh, reference: &Mesh, samples: usize, seed: u64) -> Result<Self> {
        if samples == 0 {
            let (got, expected) = ("0".into(), "at least one".into());
            return Err(Error::Argument { op: "MeshComparison", name: "samples", got, expected });
        }
        let reference = &*reference.around(mesh.offset());
        // Points between two checks of the time and for a stop.
        const AT_A_TIME: usize = 1024;
        let task = Task::new("surface comparison", samples.saturating_mul(2));
        let one_way = |from: &Mesh, to: &Mesh, seed: u64| -> Result<(Vec<f32>, Vec<f32>)> {
            let drawn = sample_surface(from, samples, seed)?;
            let bvh = Bvh::new(to);
            let work = Work::new(samples, bvh.nodes.len());
            let measure = |(&point, &face): (&[f32; 3], &u32), share: &mut Share| {
                let nearest = bvh.nearest(point, share);
                let normals = [from.scaled_normal(face as usize), to.scaled_normal(nearest.face as usize)];
                let [own, other] = normals.map(vec3::normalized);
                (nearest.distance2.sqrt(), vec3::dot(own, other))
            };
            let mut found = vec![(0.0, 0.0); samples];
            let drawn: Vec<_> = drawn.points.iter().zip(&drawn.faces).collect();
            found.par_chunks_mut(AT_A_TIME).zip(drawn.par_chunks(AT_A_TIME)).try_for_each(|(found, drawn)| {
                let share = &mut work.share();
                found.iter_mut().zip(drawn).for_each(|(found, &sample)| *found = measure(sample, share));
                work.check("MeshComparison", "a mesh")?;
                task.advance(found.len())
            })?;
            Ok(found.into_iter().unzip())
        };
        let (there, cosines_there) = one_way(mesh, reference, seed)?;
        let (back, cosines_back) = one_way(reference, mesh, seed.wrapping_add(1))?;
        Ok(Self { distances: [there, back], cosines: [cosines_there, cosines_back] })
    }

    /// Mean distance from the first to the second surface plus mean distance back.
    pub fn chamfer(&self) -> f64 {
        self.distances.iter().map(|d| mean(d, |d| d)).sum()
    }

    /// Mean squared distance from the first to the second surface plus mean squared distance back.
    pub fn chamfer_squared(&self) -> f64 {
        self.distances.iter().map(|d| mean(d, |d| d * d)).sum()
    }

    /// The largest distance from a drawn point of either surface to the other: a lower bound of the Hausdorff distance.
    pub fn hausdorff(&self) -> f64 {
        self.distances.iter().flatten().fold(0.0, |largest, &d| largest.max(f64::from(d)))
    }

    /// Share of the first mesh's points within `threshold` of the reference, 0 to 1.
    pub fn precision(&self, threshold: f32) -> f64 {
        mean(&self.distances[0], |d| if d <= f64::from(threshold) { 1.0 } else { 0.0 })
    }

    /// Share of the reference's points within `threshold` of the first mesh, 0 to 1.
    pub fn recall(&self, threshold: f32) -> f64 {
        mean(&self.distances[1], |d| if d <= f64::from(threshold) { 1.0 } else { 0.0 })
    }

    /// Harmonic mean of [`precision`](MeshComparison::precision) and [`recall`](MeshComparison::recall), 0 to 1.
    pub fn f_score(&self, threshold: f32) -> f64 {
        let (p, r) = (self.precision(threshold), self.recall(threshold));
        if p + r > 0.0 { 2.0 * p * r / (p + r) } else { 0.0 }
    }

    /// Mean of |cos| between normals at nearest points, in both directions, 0 to 1.
    pub fn normal_consistency(&self) -> f64 {
        self.cosines.iter().map(|c| mean(c, f64::abs)).sum::<f64>() / 2.0
    }
}

fn mean(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    values.iter().map(|&v| f(v.into())).sum::<f64>() / values.len() as f64
}
