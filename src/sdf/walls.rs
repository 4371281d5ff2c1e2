//! Finds walls that are thinner than a cell, so that no sample need lie between their sides.
//!
//! Seeded rays go from the surface inwards to the other side of the wall. Only a side that faces the other way counts, so that the edge of
//! a wedge is not a thin wall.

use rand::{Rng, SeedableRng};

use crate::mesh::{Bvh, Mesh, Work, vec3};

/// Rays for a mesh. About ten of them meet a hundredth of the surface.
const RAYS: usize = 1024;

/// Walls under a smaller share of the surface are not reported.
const LEAST_SHARE: f64 = 0.01;

/// The largest cosine between the two sides of a wall: they must face away from each other to within 45 degrees.
const FACING_AWAY: f32 = -0.7;

/// The share of a surface that bounds walls thinner than the cells of its grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThinWalls {
    /// Share of the surface's area, 0 to 1.
    pub share: f64,
    /// The thickness, in mesh units, that nine tenths of these walls reach.
    pub thickness: f32,
    /// Number of samples along the grid's longest side with which such a wall is one cell thick.
    pub resolution: usize,
}

impl ThinWalls {
    /// The thin walls of a mesh that bounds a volume. `None` if they are under a hundredth of the surface or less, or if the search takes
    /// more than [`Work`] allows. `cell` is the longest side of the grid's cells, `side` the grid's longest side, both in mesh units.
    pub(super) fn of(mesh: &Mesh, bvh: &Bvh, cell: f32, side: f32) -> Option<Self> {
        let inwards = if mesh.volume() < 0.0 { 1.0 } else { -1.0 };
        let mut area = 0.0;
        let areas: Vec<f64> = (0..mesh.faces().len())
            .map(|face| {
                area += f64::from(vec3::norm(mesh.scaled_normal(face)));
                area
            })
            .collect();
        let mut rng = rand::rngs::StdRng::seed_from_u64(0);
        let work = Work::new(RAYS, bvh.nodes.len());
        let mut boxes = work.share();
        let mut found: Vec<f32> = (0..RAYS)
            .filter_map(|_| {
                let at = rng.random::<f64>() * area;
                let face = areas.partition_point(|&sum| sum <= at).min(areas.len() - 1);
                let (root, v) = (rng.random::<f32>().sqrt(), rng.random::<f32>());
                let [a, b, c] = mesh.triangle(face);
                let point = vec3::add(
                    vec3::scale(a, 1.0 - root),
                    vec3::add(vec3::scale(b, root * (1.0 - v)), vec3::scale(c, root * v)),
                );
                let normal = vec3::normalized(mesh.scaled_normal(face));
                let (thickness, other) =
                    bvh.first_hit(point, vec3::scale(normal, inwards), cell, face as u32, &mut boxes)?;
                let facing = vec3::dot(normal, vec3::normalized(mesh.scaled_normal(other as usize)));
                // Triangles at one place, front and back, are not a wall.
                (facing < FACING_AWAY && thickness > 1e-6 * side).then_some(thickness)
            })
            .collect();
        let share = found.len() as f64 / RAYS as f64;
        if share <= LEAST_SHARE || boxes.is_over() {
            return None;
        }
        found.sort_unstable_by(f32::total_cmp);
        let thickness = found[found.len() / 10];
        let resolution = (side / thickness.max(f32::MIN_POSITIVE)).ceil() as usize + 1;
        Some(Self { share, thickness, resolution })
    }
}
