//! Random numbers and common parts for drawing the families.

use std::f32::consts::TAU;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::mesh::Axis;
use crate::sdf::shapes::{Solid, cuboid, cylinder};

/// The random numbers of one shape.
pub(super) struct Draw(pub ChaCha8Rng);

impl Draw {
    /// A number from `low` up to `high`, without `high` itself.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        self.0.random_range(low..high)
    }

    /// Whether something with this probability happens.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.between(0.0, 1.0) < probability
    }

    /// A whole number from `low` to `high`, both included.
    pub fn whole(&mut self, low: usize, high: usize) -> usize {
        self.0.random_range(low..=high)
    }
}

/// A box with slightly rounded edges.
pub(super) fn slab(centre: [f32; 3], half: [f32; 3]) -> Solid {
    const EDGE: f32 = 0.02;
    cuboid(half.map(|h| h - EDGE)).rounded(EDGE).translate(centre)
}

/// A box with rounded edges between two heights.
pub(super) fn post([x, y]: [f32; 2], [wide, deep]: [f32; 2], [low, high]: [f32; 2]) -> Solid {
    slab([x, y, 0.5 * (low + high)], [wide, deep, 0.5 * (high - low)])
}

/// An upright cylinder between two heights.
pub(super) fn column([x, y]: [f32; 2], radius: f32, [low, high]: [f32; 2]) -> Solid {
    cylinder(radius, 0.5 * (high - low)).translate([x, y, 0.5 * (low + high)])
}

/// A cylinder through the origin along an axis.
pub(super) fn rod(axis: Axis, radius: f32, half_length: f32) -> Solid {
    match axis {
        Axis::X => cylinder(radius, half_length).rotate(Axis::Y, 0.25 * TAU),
        Axis::Y => cylinder(radius, half_length).rotate(Axis::X, 0.25 * TAU),
        Axis::Z => cylinder(radius, half_length),
    }
}

/// The corners of a regular polygon, the first at `angle` from the x axis.
pub(super) fn regular(corners: usize, radius: f32, angle: f32) -> Vec<[f32; 2]> {
    around(corners, angle).map(|[cos, sin]| [radius * cos, radius * sin]).collect()
}

/// Directions evenly around z as (cos, sin), the first at `angle`.
pub(super) fn around(count: usize, angle: f32) -> impl Iterator<Item = [f32; 2]> {
    (0..count).map(move |i| {
        let (sin, cos) = (angle + TAU * i as f32 / count as f32).sin_cos();
        [cos, sin]
    })
}
