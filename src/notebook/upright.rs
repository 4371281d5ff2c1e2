//! Guesses which axis of a mesh points up: y, as pictures assume, unless the mesh could stand on z but not on y.
//!
//! Files do not tell this: glTF and most OBJ files have y up, CAD programs and most STL files have z up. A mesh can stand on an axis if the
//! centre of its surface is above the part that touches the ground; a mug, a gear or a vase with z up cannot stand on y.

use super::Axis;
use crate::mesh::Mesh;

/// Vertices touch the ground if they are this near to the lowest one, as a share of the extent.
const NEAR: f32 = 0.01;
/// The centre must be at least this far inside the part that touches the ground, as a share of the width: a cylinder does not stand on its
/// side.
const MARGIN: f32 = 0.1;

/// The axis that probably points up.
pub(super) fn upright(mesh: &Mesh) -> Axis {
    if !stands_on(mesh, 1) && stands_on(mesh, 2) { Axis::Z } else { Axis::Y }
}

fn stands_on(mesh: &Mesh, axis: usize) -> bool {
    let flat = |p: [f32; 3]| [p[(axis + 1) % 3], p[(axis + 2) % 3]];
    let corners = || mesh.faces().iter().flatten().map(|&v| mesh.vertices()[v as usize]);
    let ends = |of: fn([f32; 3]) -> f32| {
        corners().map(of).fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let along = [ends(|p| p[0]), ends(|p| p[1]), ends(|p| p[2])];
    let extent = along.map(|(low, high)| high - low);
    let ground = along[axis].0 + NEAR * extent[axis];
    let base = hull(corners().filter(|p| p[axis] <= ground).map(flat).collect());
    let [wide, deep] = flat(extent);
    lies_within(flat(centre(mesh)), &base, MARGIN * wide.max(deep))
}

/// The centre of the surface: each face counts by its area.
fn centre(mesh: &Mesh) -> [f32; 3] {
    let (mut sum, mut total) = ([0f64; 3], 0f64);
    for face in mesh.faces() {
        let [a, b, c] = face.map(|v| mesh.vertices()[v as usize].map(f64::from));
        let side = |to: [f64; 3]| -> [f64; 3] { std::array::from_fn(|i| to[i] - a[i]) };
        let (u, v) = (side(b), side(c));
        let cross = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        let area = cross.iter().map(|c| c * c).sum::<f64>().sqrt();
        total += area;
        (0..3).for_each(|i| sum[i] += area * (a[i] + b[i] + c[i]) / 3.0);
    }
    sum.map(|s| (s / total.max(f64::MIN_POSITIVE)) as f32)
}

fn turn(a: [f32; 2], b: [f32; 2], c: [f32; 2]) -> f32 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// The convex hull, counter-clockwise (Andrew's monotone chain).
fn hull(mut points: Vec<[f32; 2]>) -> Vec<[f32; 2]> {
    points.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup();
    let half = |points: &mut dyn Iterator<Item = [f32; 2]>| {
        let mut chain: Vec<[f32; 2]> = Vec::new();
        for point in points {
            while chain.len() >= 2 && turn(chain[chain.len() - 2], chain[chain.len() - 1], point) <= 0.0 {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut below = half(&mut points.iter().copied());
    below.extend(half(&mut points.iter().rev().copied()));
    below
}

/// Whether a point inside a polygon is at least `margin` away from each of its edges.
fn lies_within(point: [f32; 2], polygon: &[[f32; 2]], margin: f32) -> bool {
    let next = polygon.iter().cycle().skip(1);
    let far = |(&a, &b): (&[f32; 2], &[f32; 2])| turn(a, b, point) >= margin * (b[0] - a[0]).hypot(b[1] - a[1]);
    polygon.len() >= 3 && polygon.iter().zip(next).all(far)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdf::shapes::{cuboid, cylinder, sphere, torus};

    #[test]
    fn what_stands_on_z_alone_has_z_up() {
        let handle = torus(0.3, 0.08).rotate(Axis::X, std::f32::consts::FRAC_PI_2).translate([0.45, 0.0, 0.0]);
        let mug = cylinder(0.45, 0.6).union(handle).difference(cylinder(0.33, 0.6).translate([0.0, 0.0, 0.2]));
        assert_eq!(upright(&mug.to_mesh(40).unwrap()), Axis::Z);
        assert_eq!(upright(&mug.rotate(Axis::X, -std::f32::consts::FRAC_PI_2).to_mesh(40).unwrap()), Axis::Y);
    }

    #[test]
    fn what_stands_on_both_or_on_neither_has_y_up() {
        for mesh in [cuboid([0.5, 0.6, 0.7]).to_mesh(24), sphere(0.7).to_mesh(24)] {
            assert_eq!(upright(&mesh.unwrap()), Axis::Y);
        }
        let bunny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks/meshes/bunny.obj");
        assert_eq!(upright(&Mesh::load(bunny).unwrap()), Axis::Y);
    }
}
