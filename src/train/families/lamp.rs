//! Floor and desk lamps.

use super::draw::{Draw, around, column};
use crate::mesh::Axis;
use crate::sdf::shapes::{Solid, capsule, revolution, sphere};

/// A lamp on its foot.
pub(super) fn lamp(draw: &mut Draw) -> Solid {
    const FLOOR: f32 = -0.88;
    let mut parts = Vec::new();
    let pole = draw.between(0.045, 0.065);
    let foot = draw.between(0.25, 0.42);
    match draw.whole(0, 3) {
        0 => parts.push(column([0.0; 2], foot, [FLOOR, FLOOR + draw.between(0.07, 0.14)])),
        1 => {
            let rise = draw.between(0.12, 0.25);
            parts.push(revolution(&[
                [0.0, FLOOR],
                [foot, FLOOR],
                [foot, FLOOR + 0.06],
                [pole, FLOOR + rise],
                [0.0, FLOOR + rise],
            ]));
        }
        2 => {
            let hub = FLOOR + draw.between(0.25, 0.6);
            let feet = around(3, 0.5).map(|[c, s]| capsule([0.0, 0.0, hub], [foot * c, foot * s, FLOOR + pole], pole));
            parts.extend(feet);
        }
        _ => {
            // A pot, as table lamps have.
            let (belly, tall) = (draw.between(0.2, 0.32), draw.between(0.35, 0.6));
            let profile = [[0.0, 0.0], [0.6, 0.0], [0.9, 0.3], [1.0, 0.55], [0.7, 0.85], [0.3, 1.0], [0.0, 1.0]];
            parts.push(revolution(&profile.map(|[r, z]| [r * belly, FLOOR + z * tall])));
        }
    }
    if draw.chance(0.35) {
        // Two arms with a joint, the shade pointing away from the foot.
        let elbow = [draw.between(-0.3, -0.05), 0.0, draw.between(-0.05, 0.25)];
        let tip = [draw.between(0.25, 0.5), 0.0, elbow[2] + draw.between(0.1, 0.35)];
        parts.push(capsule([0.0, 0.0, FLOOR + 0.05], elbow, pole));
        parts.push(capsule(elbow, tip, pole));
        if draw.chance(0.5) {
            parts.push(sphere(pole + 0.04).translate(elbow));
        }
        let size = draw.between(0.75, 1.0);
        let tilt = draw.between(-0.9, 0.2);
        parts.push(shade(draw, 0.32 * size, 0.32 * size).rotate(Axis::Y, tilt).translate(tip));
    } else {
        let top = draw.between(0.35, 0.66);
        parts.push(column([0.0; 2], pole, [FLOOR, top]));
        let radius = draw.between(0.28, 0.55);
        let height = draw.between(0.25, 0.5);
        parts.push(shade(draw, radius, height).translate([0.0, 0.0, top]));
    }
    Solid::union_of(parts)
}

/// A shade whose top is at the origin: a cone or drum that is open below, or a globe.
fn shade(draw: &mut Draw, radius: f32, height: f32) -> Solid {
    const WALL: f32 = 0.09;
    if draw.chance(0.2) {
        return sphere(radius.min(0.3)).translate([0.0, 0.0, -0.05]);
    }
    let narrow = radius * draw.between(0.35, 1.0);
    let top = 0.05;
    revolution(&[
        [0.0, top],
        [narrow, top],
        [radius, top - height],
        [radius - WALL, top - height],
        [(narrow - WALL).max(0.03), top - WALL],
        [0.0, top - WALL],
    ])
}
