//! The visible faces of voxels, as polygons.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::draw::{Polygon, Projector, Scale};
use super::voxels::{Occupancy, Voxels};
use crate::sparse::dispatch;

/// How many voxels a thread takes at a time.
const PART: usize = 1 << 12;

/// Voxels as cubes of equal size.
pub(crate) struct Cubes<'a> {
    pub voxels: &'a Voxels,
    /// The value that each voxel's colour shows.
    pub values: &'a [f32],
    /// The side of a cube; with 1, neighbours touch.
    pub side: f32,
    pub alpha: f32,
}

impl Cubes<'_> {
    /// Adds the visible faces: those without a voxel in front of them that are turned to the eye.
    pub fn add_faces(&self, projector: &Projector, scale: &Scale, polygons: &mut Vec<Polygon>) {
        let occupancy = Occupancy::new(self.voxels);
        let outlined = projector.pixels_per_unit() * self.side >= 5.0;
        let alpha = (self.alpha * 255.0).round().max(1.0) as u8;
        let brightness: [[f32; 2]; 3] = std::array::from_fn(|axis| {
            [-1.0, 1.0].map(|sign| {
                let mut normal = [0.0; 3];
                normal[axis] = sign;
                projector.brightness(normal)
            })
        });
        let mut order: Vec<usize> = (0..self.voxels.len()).collect();
        if alpha < 255 {
            sort_far_to_near(&mut order, self.voxels, projector);
        }
        let faces = Faces { cubes: self, projector, scale, occupancy, brightness, outlined, alpha };
        // In parallel; the parts stay in order.
        let parts: Vec<Vec<Polygon>> =
            order.par_chunks(PART).map(|part| dispatch(FacesOf { faces: &faces, part })).collect();
        polygons.reserve(parts.iter().map(Vec::len).sum());
        parts.iter().for_each(|part| polygons.extend_from_slice(part));
    }
}

/// What the faces of all cubes have in common.
struct Faces<'a> {
    cubes: &'a Cubes<'a>,
    projector: &'a Projector,
    scale: &'a Scale,
    occupancy: Occupancy,
    /// The brightness of the two faces on each axis.
    brightness: [[f32; 2]; 3],
    outlined: bool,
    alpha: u8,
}

/// The visible faces of some voxels, compiled for the widest instructions: a call for each rounding would take longer than the rest.
struct FacesOf<'a> {
    faces: &'a Faces<'a>,
    part: &'a [usize],
}

impl WithSimd for FacesOf<'_> {
    type Output = Vec<Polygon>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<Polygon> {
        let Self { faces, part } = self;
        let Faces { cubes, projector, .. } = faces;
        let touching = cubes.side >= 1.0;
        let gap = (1.0 - cubes.side) / 2.0;
        let mut polygons = Vec::with_capacity(part.len());
        for &i in part {
            let site = cubes.voxels.sites()[i];
            let ends = |axis: usize| [site[axis] as f32 + gap, site[axis] as f32 + 1.0 - gap];
            let is_visible = |axis: usize, side: usize| {
                let sign = if side == 1 { 1 } else { -1 };
                let mut next = site;
                next[axis] += sign;
                projector.towards_eye_along(axis, ends(axis)[side]) * sign as f32 > 0.0
                    && !(touching && faces.occupancy.contains(next))
            };
            let mut visible = [false; 6];
            for (face, visible) in visible.iter_mut().enumerate() {
                *visible = is_visible(face / 2, face % 2);
            }
            if visible == [false; 6] {
                continue;
            }
            let base = faces.scale.color(cubes.values[i]);
            let mut shares = [[[0.0; 3]; 2]; 3];
            for (axis, shares) in shares.iter_mut().enumerate() {
                let [low, high] = ends(axis);
                *shares = [projector.share(axis, low), projector.share(axis, high)];
            }
            for (face, _) in visible.iter().enumerate().filter(|(_, visible)| **visible) {
                let (axis, side) = (face / 2, face % 2);
                let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
                let corner = |end_u: usize, end_v: usize| {
                    let mut ends = [side; 3];
                    (ends[u], ends[v]) = (end_u, end_v);
                    projector.place([shares[0][ends[0]], shares[1][ends[1]], shares[2][ends[2]]])
                };
                let points = [corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)];
                let bright = faces.brightness[axis][side];
                let color = base.map(|c| (f32::from(c) * bright) as u8);
                polygons.push(Polygon::quad(points, color, faces.alpha, faces.outlined));
            }
        }
        polygons
    }
}

/// Orders the cubes of a grid so that no cube comes before one that it hides: by distance from the eye's cell, axis by axis.
fn sort_far_to_near(order: &mut [usize], voxels: &Voxels, projector: &Projector) {
    let eye: [f32; 3] = projector.towards_eye([0.5; 3]);
    let perspective_eye: [f32; 3] = std::array::from_fn(|i| eye[i] + 0.5);
    let far = |site: [i32; 3]| -> [i64; 3] {
        std::array::from_fn(|axis| {
            let at = site[axis] as f32;
            let distance = if projector.is_perspective() {
                (at + 0.5 - perspective_eye[axis]).abs()
            } else {
                -at * eye[axis].signum()
            };
            -(distance * 2.0).round() as i64
        })
    };
    order.sort_by_cached_key(|&i| far(voxels.sites()[i]));
}
