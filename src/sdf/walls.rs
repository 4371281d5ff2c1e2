//! Walls that a grid is too coarse for: those thinner than a cell, between whose sides no sample need lie.
//!
//! Seeded rays from the surface inwards find the other side of the wall. Only a side that faces the other way counts, so that
//! the edge of a wedge is no thin wall.

use rand::{Rng, SeedableRng};

use crate::mesh::{Bvh, Mesh, Work, vec3};

/// Rays for a mesh. A share of a hundredth of the surface is met by about ten of them.
const RAYS: usize = 1024;

/// Walls under a smaller share of the surface are not worth a word.
const LEAST_SHARE: f64 = 0.01;

/// Cosine between the two sides of a wall, at most: within 45 degrees of facing away from each other.
const FACING_AWAY: f32 = -0.7;

/// How much of a surface bounds walls that are thinner than the cells of its grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThinWalls {
    /// Share of the surface's area, 0 to 1.
    pub share: f64,
    /// Thickness, in mesh units, that nine tenths of these walls have at least.
    pub thickness: f32,
    /// Samples along the grid's longest side at which such a wall is a cell thick.
    pub resolution: usize,
}

impl ThinWalls {
    /// The thin walls of a mesh that bounds a volume; `None` when a hundredth of the surface or less has any, and when the search takes
    /// more than [`Work`] allows. `cell` is the
    /// longest side of the grid's cells, `side` the grid's longest side, both in mesh units.
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
                // Triangles at one place, front and back, are no wall.
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
