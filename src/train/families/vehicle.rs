//! Aeroplanes and cars.

use super::draw::{Draw, rod, slab};
use crate::mesh::Axis;
use crate::sdf::shapes::{Solid, capsule, prism, revolution};

/// An aeroplane, nose along +x, wings along y.
pub(super) fn aeroplane(draw: &mut Draw) -> Solid {
    let length = draw.between(0.7, 0.9);
    let body = draw.between(0.09, 0.15);
    let nose = draw.between(0.1, 0.3);
    let tail = draw.between(0.3, 0.6);
    let profile = [
        [0.0, -length],
        [0.045, -length],
        [body, -length + tail],
        [body, length - nose],
        [0.8 * body, length - 0.45 * nose],
        [0.045, length],
        [0.0, length],
    ];
    let mut parts = vec![revolution(&profile).rotate(Axis::Y, std::f32::consts::FRAC_PI_2)];
    let span = draw.between(0.6, 0.9);
    let (root, tip) = (draw.between(0.3, 0.48), draw.between(0.12, 0.28));
    let sweep = if draw.chance(0.5) { draw.between(0.1, 0.5) } else { 0.0 };
    let at = draw.between(0.0, 0.3);
    let height = [-0.6, 0.0, 0.75][draw.whole(0, 2)] * body;
    parts.push(wings(span, [root, tip], sweep, 0.045).translate([at, 0.0, height]));
    if sweep == 0.0 && draw.chance(0.3) {
        // A second pair of wings above, on struts.
        let upper = body + draw.between(0.16, 0.25);
        parts.push(wings(span, [root, tip.max(0.2)], 0.0, 0.045).translate([at, 0.0, upper]));
        for y in [-0.6 * span, 0.6 * span] {
            parts.push(capsule([at - 0.08, y, height], [at - 0.08, y, upper], 0.045));
        }
        parts.push(slab([at - 0.1, 0.0, 0.5 * upper], [0.07, 0.05, 0.5 * upper]));
    }
    // Fin and tailplane.
    let back = -length + 0.14;
    let fin = draw.between(0.22, 0.4);
    let lean = draw.between(0.0, 0.15);
    let outline = [[back - 0.12, 0.0], [back + 0.16, 0.0], [back - 0.02 - lean, fin], [back - 0.14 - lean, fin]];
    parts.push(prism(&outline, 0.045).rotate(Axis::X, std::f32::consts::FRAC_PI_2).translate([0.05, 0.0, 0.0]));
    let tailplane = wings(draw.between(0.22, 0.38), [0.2, 0.13], 0.4 * sweep, 0.045);
    let high = if draw.chance(0.3) { fin - 0.03 } else { 0.0 };
    parts.push(tailplane.translate([back + 0.05 - lean * high / fin, 0.0, high]));
    // Engines under the wings.
    let engines = draw.whole(0, 2);
    let (radius, long) = (draw.between(0.06, 0.09), draw.between(0.1, 0.18));
    for i in 1..=engines {
        let y = span * [0.38, 0.68][i - 1];
        let x = at - sweep * y / span + 0.3 * root;
        for side in [-y, y] {
            parts.push(rod(Axis::X, radius, long).translate([x, side, height - 0.045 - 0.6 * radius]));
        }
    }
    if draw.chance(0.3) {
        // A propeller and its hub.
        parts.push(rod(Axis::X, 0.05, 0.06).translate([length, 0.0, 0.0]));
        let blade = draw.between(0.2, 0.3);
        parts.push(slab([length + 0.02, 0.0, 0.0], [0.045, 0.05, blade]));
    }
    Solid::union_of(parts).translate([0.0, 0.0, -0.05])
}

/// A pair of wings in the xy-plane, `root` and `tip` deep, the tips `sweep` further back.
fn wings(span: f32, [root, tip]: [f32; 2], sweep: f32, half_thickness: f32) -> Solid {
    let (front, back) = (0.5 * root, -0.5 * root);
    let [tip_front, tip_back] = [0.5 * tip - sweep, -0.5 * tip - sweep];
    let outline =
        [[front, 0.0], [tip_front, span], [tip_back, span], [back, 0.0], [tip_back, -span], [tip_front, -span]];
    prism(&outline, half_thickness)
}

/// A car, front along +x.
pub(super) fn car(draw: &mut Draw) -> Solid {
    let (long, wide) = (draw.between(0.7, 0.9), draw.between(0.32, 0.42));
    let wheel = draw.between(0.13, 0.18);
    let ground = -0.45;
    let floor = ground + 0.6 * wheel;
    let belt = ground + 2.0 * wheel + draw.between(0.14, 0.24);
    let roof = belt + draw.between(0.2, 0.34);
    let bonnet = belt - draw.between(0.0, 0.04);
    // The outline from the side: x forwards, z upwards.
    let screen = draw.between(0.1, 0.4) * long;
    let rake = draw.between(0.08, 0.25);
    let (rear, boot) = match draw.whole(0, 3) {
        0 => (-0.55 * long, belt - draw.between(0.0, 0.06)),
        1 => (-0.9 * long, belt),
        2 => (-0.12 * long, belt - 0.06),
        _ => (-0.95 * long, roof - 0.05),
    };
    let front = if draw.chance(0.2) { 0.8 * long } else { screen };
    let outline = [
        [-long, floor],
        [long, floor],
        [long, bonnet - 0.05],
        [long - 0.08, bonnet],
        [(front + rake).min(long - 0.1), bonnet + 0.02],
        [front, roof],
        [rear + 0.06, roof],
        [(rear - 0.8 * rake).max(0.02 - long), boot],
        [-long, boot - 0.03],
    ];
    let mut body = prism(&outline, wide).rotate(Axis::X, std::f32::consts::FRAC_PI_2);
    let (fore, aft) = (draw.between(0.55, 0.66) * long, draw.between(-0.66, -0.55) * long);
    if draw.chance(0.7) {
        // Wheel arches on both sides; the middle stays whole.
        for x in [fore, aft] {
            for y in [-wide, wide] {
                let arch = rod(Axis::Y, wheel + 0.045, 0.35 * wide);
                body = body.difference(arch.translate([x, y, ground + wheel]));
            }
        }
    }
    let mut parts = vec![body];
    let tyre = draw.between(0.07, 0.1);
    for x in [fore, aft] {
        for y in [-wide, wide] {
            parts.push(rod(Axis::Y, wheel, tyre).translate([x, y * 0.88, ground + wheel]));
        }
        parts.push(rod(Axis::Y, 0.06, 0.85 * wide).translate([x, 0.0, ground + wheel]));
    }
    if boot < belt + 0.01 && draw.chance(0.25) {
        // A spoiler.
        let z = boot + 0.15;
        parts.push(slab([0.09 - long, 0.0, z], [0.09, wide, 0.045]));
        for y in [-0.6 * wide, 0.6 * wide] {
            parts.push(slab([0.1 - long, y, 0.5 * (boot + z) - 0.03], [0.06, 0.05, 0.5 * (z - boot) + 0.03]));
        }
    }
    if draw.chance(0.25) {
        parts.push(slab([0.5 * (front + rear), 0.0, roof + 0.03], [0.35 * (front - rear).max(0.2), 0.7 * wide, 0.05]));
    }
    Solid::union_of(parts)
}
