//! Bolts and gears.

use std::f32::consts::{FRAC_PI_2, TAU};

use super::draw::{Draw, around, column, regular, slab};
use crate::mesh::Axis;
use crate::sdf::shapes::{Solid, cylinder, prism, revolution, sphere};

/// A bolt along z, its head up.
pub(super) fn bolt(draw: &mut Draw) -> Solid {
    let (radius, head) = (draw.between(0.14, 0.24), draw.between(0.36, 0.55));
    let (thick, length) = (draw.between(0.1, 0.2), draw.between(0.9, 1.3));
    let top = 0.5 * length + 0.05;
    let angle = draw.between(0.0, TAU / 6.0);
    let lift = |solid: Solid| solid.translate([0.0, 0.0, top]);
    let mut parts = vec![match draw.whole(0, 4) {
        0 | 1 => lift(prism(&regular(6, head, angle), thick)),
        2 => lift(prism(&regular(4, head, angle), thick)),
        3 => {
            // A cylinder with a hexagonal socket.
            let socket = prism(&regular(6, 0.5 * head, angle), thick).translate([0.0, 0.0, 0.8 * thick]);
            lift(cylinder(0.85 * head, thick + 0.04).difference(socket))
        }
        _ => {
            // A dome with a slot.
            let ball = sphere(head).translate([0.0, 0.0, -0.45 * head]);
            let slot = slab([0.0, 0.0, 0.6 * head], [1.0, 0.07, 0.14]).rotate(Axis::Z, angle);
            lift(ball.intersection(cylinder(1.0, head).translate([0.0, 0.0, head])).difference(slot))
        }
    }];
    if draw.chance(0.35) {
        parts.push(column([0.0; 2], head + draw.between(0.05, 0.15), [top - thick - 0.06, top - thick + 0.05]));
    }
    parts.push(shaft(draw, radius, [top - length, top]));
    if draw.chance(0.35) {
        let z = top - length * draw.between(0.5, 0.8);
        parts.push(
            prism(&regular(6, radius + draw.between(0.14, 0.22), angle), draw.between(0.08, 0.13))
                .translate([0.0, 0.0, z]),
        );
    }
    Solid::union_of(parts)
}

/// A shaft with ridges on its lower part, a point or a chamfer at its end.
fn shaft(draw: &mut Draw, radius: f32, [low, high]: [f32; 2]) -> Solid {
    let threaded = if draw.chance(0.75) { draw.between(0.35, 0.9) } else { 0.0 };
    let pitch = draw.between(0.13, 0.17);
    let depth = draw.between(0.05, 0.07);
    let pointed = draw.chance(0.25);
    let end = if pointed { low - 0.6 * radius } else { low };
    let mut profile = vec![[0.0, end], [if pointed { 0.03 } else { 0.75 * radius }, end], [radius, low + 0.08]];
    let first = low + 0.1;
    let ridges = (threaded * (high - low - 0.3) / pitch).max(0.0) as usize;
    for i in 0..ridges {
        let z = first + i as f32 * pitch;
        profile.extend([[radius, z], [radius + depth, z + 0.5 * pitch], [radius, z + pitch]]);
    }
    profile.extend([[radius, high], [0.0, high]]);
    revolution(&profile)
}

/// A gear whose axis is along y.
pub(super) fn gear(draw: &mut Draw) -> Solid {
    let teeth = draw.whole(7, 14);
    let outer = draw.between(0.6, 0.88);
    let root = outer - draw.between(0.12, 0.2);
    let half = draw.between(0.08, 0.22);
    let (foot, tip) = (draw.between(0.28, 0.36), draw.between(0.12, 0.24));
    let step = TAU / teeth as f32;
    let corner = |r: f32, a: f32| [r * a.cos(), r * a.sin()];
    let outline: Vec<[f32; 2]> = (0..teeth)
        .flat_map(|i| {
            let middle = i as f32 * step;
            let [low, high] = [foot * step, tip * step];
            [
                corner(root, middle - low),
                corner(outer, middle - high),
                corner(outer, middle + high),
                corner(root, middle + low),
            ]
        })
        .collect();
    let mut wheel = prism(&outline, half);
    let bore = draw.between(0.1, 0.2);
    let hub = bore + draw.between(0.1, 0.16);
    let rim = root - draw.between(0.1, 0.16);
    match draw.whole(0, 3) {
        0 if rim - hub > 0.14 => {
            // Round holes between hub and rim.
            let (at, radius) = (0.5 * (rim + hub), 0.5 * (rim - hub) - 0.01);
            let count = ((TAU * at / (2.0 * radius + 0.12)) as usize).clamp(3, 6);
            for [c, s] in around(count, 0.0) {
                wheel = wheel.difference(column([at * c, at * s], radius, [-1.0, 1.0]));
            }
        }
        1 if rim - hub > 0.1 => {
            // Spokes.
            let ring = cylinder(rim, 1.0).difference(cylinder(hub, 2.0));
            let spokes = draw.whole(3, 6);
            let bars =
                around(spokes, 0.3).map(|[c, s]| slab([0.5, 0.0, 0.0], [0.5, 0.06, 1.5]).rotate(Axis::Z, s.atan2(c)));
            wheel = wheel.difference(ring.difference(Solid::union_of(bars)));
        }
        2 if half > 0.14 => {
            // A thinner web on both sides.
            let groove = cylinder(rim, 0.5).difference(cylinder(hub, 1.0));
            let depth = 0.5 + draw.between(0.06, half - 0.05);
            wheel = wheel
                .difference(groove.clone().translate([0.0, 0.0, depth]).union(groove.translate([0.0, 0.0, -depth])));
        }
        _ => {}
    }
    if draw.chance(0.4) {
        wheel = wheel.union(cylinder(hub, half + draw.between(0.06, 0.2)));
    }
    match draw.whole(0, 3) {
        0 => wheel = wheel.difference(prism(&regular(6, bore, 0.0), 1.0)),
        1 => {
            let key = slab([0.0, bore, 0.0], [0.05, 0.05, 1.0]);
            wheel = wheel.difference(cylinder(bore, 1.0).union(key));
        }
        2 => wheel = wheel.difference(cylinder(bore, 1.0)),
        _ => {}
    }
    wheel.rotate(Axis::X, FRAC_PI_2)
}
