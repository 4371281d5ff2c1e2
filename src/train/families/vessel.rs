//! Bottles, vases and mugs.

use super::draw::{Draw, column, slab};
use crate::mesh::Axis;
use crate::sdf::shapes::{Solid, capsule, revolution, torus};

/// Walls: three samples of a 64³ grid.
const WALL: f32 = 0.09;

/// A closed bottle, or a vase that is open above.
pub(super) fn bottle(draw: &mut Draw) -> Solid {
    let tall = draw.between(0.55, 0.88);
    let belly = draw.between(0.22, 0.5);
    if draw.chance(0.5) { vase(draw, tall, belly) } else { closed_bottle(draw, tall, belly) }
}

fn closed_bottle(draw: &mut Draw, tall: f32, belly: f32) -> Solid {
    let neck = draw.between(0.08, 0.16);
    let shoulder = tall * draw.between(-0.1, 0.5);
    let slope = draw.between(0.05, 0.4) * (tall - shoulder);
    let waist = if draw.chance(0.3) { draw.between(0.7, 0.95) } else { 1.0 };
    let foot = draw.between(0.8, 1.0);
    let middle = 0.5 * (shoulder - tall);
    let mut profile =
        vec![[0.0, -tall], [foot * belly, -tall], [belly, -tall + 0.1], [waist * belly, middle], [belly, shoulder]];
    // A quarter of an ellipse from the shoulder to the neck.
    profile.extend((1..=4).map(|i| {
        let (sin, cos) = (i as f32 * std::f32::consts::FRAC_PI_8).sin_cos();
        [neck + (belly - neck) * cos, shoulder + slope * sin]
    }));
    profile.extend([[neck, tall], [0.0, tall]]);
    let mut parts = vec![revolution(&profile)];
    if draw.chance(0.6) {
        let cap = draw.between(0.08, 0.2);
        parts.push(column([0.0; 2], neck + draw.between(0.04, 0.08), [tall - cap, tall]));
    }
    Solid::union_of(parts)
}

/// A smooth profile with a wall of even thickness.
fn vase(draw: &mut Draw, tall: f32, belly: f32) -> Solid {
    const STEPS: usize = 10;
    let (foot, mouth) = (draw.between(0.4, 0.95), draw.between(0.5, 1.2));
    let swell = draw.between(0.25, 0.7);
    let neck = draw.between(0.45, 1.0);
    let radius = |t: f32| {
        // Through the foot, the belly, the neck and the mouth.
        let knots = [[0.0, foot], [swell, 1.0], [0.5 * (swell + 1.0) + 0.1, neck], [1.0, mouth]];
        let at = knots.windows(2).find(|pair| t <= pair[1][0]).unwrap_or(&knots[2..]);
        let share = ((t - at[0][0]) / (at[1][0] - at[0][0])).clamp(0.0, 1.0);
        let smooth = share * share * (3.0 - 2.0 * share);
        belly * (at[0][1] + (at[1][1] - at[0][1]) * smooth)
    };
    let height = |t: f32| -tall + 2.0 * tall * t;
    let outer = (0..=STEPS).map(|i| i as f32 / STEPS as f32).map(|t| [radius(t), height(t)]);
    let floor = 1.3 * WALL / (2.0 * tall);
    let inner = (0..=STEPS).rev().map(|i| floor + (1.0 - floor) * i as f32 / STEPS as f32);
    let inner = inner.map(|t| [(radius(t) - WALL).max(0.03), height(t)]);
    let mut profile = vec![[0.0, -tall]];
    profile.extend(outer.chain(inner));
    profile.push([0.0, height(floor)]);
    let body = revolution(&profile);
    if draw.chance(0.25) {
        // Two handles; their inner ends lie within the wall.
        let (middle, ring) = (draw.between(0.45, 0.6), draw.between(0.16, 0.24));
        let at = radius(middle) + 0.02;
        let handle = |side: f32| {
            torus(ring, 0.05).rotate(Axis::X, std::f32::consts::FRAC_PI_2).translate([side * at, 0.0, height(middle)])
        };
        let inside = revolution(&[
            [0.0, -0.98],
            [(belly * neck.min(foot) - WALL).max(0.05), -0.98],
            [(belly * neck.min(foot) - WALL).max(0.05), 0.98],
            [0.0, 0.98],
        ]);
        return body.union(Solid::union_of([handle(-1.0), handle(1.0)]).difference(inside));
    }
    body
}

/// A mug with its handle towards +x.
pub(super) fn mug(draw: &mut Draw) -> Solid {
    let tall = draw.between(0.4, 0.75);
    let rim = draw.between(0.35, 0.52);
    let base = rim * if draw.chance(0.5) { 1.0 } else { draw.between(0.65, 1.1) };
    let wall = draw.between(WALL, 0.12);
    let round = if draw.chance(0.4) { draw.between(0.1, 0.25) } else { 0.03 };
    let shift = -0.22;
    let profile = [
        [0.0, -tall],
        [base - round, -tall],
        [base - 0.3 * round, -tall + 0.3 * round],
        [base, -tall + round],
        [rim, tall],
        [rim - wall, tall],
        [base - wall, -tall + round + wall],
        [(base - round - 0.5 * wall).max(0.05), -tall + 1.2 * wall],
        [0.0, -tall + 1.2 * wall],
    ];
    let cup = revolution(&profile);
    let tube = draw.between(0.05, 0.075);
    let reach = draw.between(0.26, 0.4);
    let half = draw.between(0.4, 0.75) * tall;
    let side = 0.5 * (rim + base) - 0.5 * wall;
    let z = draw.between(-0.1, 0.15) * tall;
    let handle = match draw.whole(0, 2) {
        0 => {
            // An ear of straight pieces around half an ellipse.
            let points: Vec<[f32; 3]> = (0..=8)
                .map(|i| {
                    let (sin, cos) = (std::f32::consts::PI * (i as f32 / 8.0 - 0.5)).sin_cos();
                    [side + reach * cos, 0.0, z + half * sin]
                })
                .collect();
            Solid::union_of(points.windows(2).map(|ends| capsule(ends[0], ends[1], tube)).collect::<Vec<_>>())
        }
        1 => Solid::union_of([
            slab([side + 0.5 * reach, 0.0, z + half], [0.5 * reach + tube, tube, tube]),
            slab([side + 0.5 * reach, 0.0, z - half], [0.5 * reach + tube, tube, tube]),
            slab([side + reach, 0.0, z], [tube, tube, half + tube]),
        ]),
        _ => {
            // From high up, sloping down to the wall.
            let [top, out, low] = [[side, 0.0, z + half], [side + reach, 0.0, z + 0.6 * half], [side, 0.0, z - half]];
            capsule(top, out, tube).union(capsule(out, low, tube))
        }
    };
    // Nothing of the handle reaches into the cup.
    let inner = rim.min(base) - wall;
    let handle = handle.difference(revolution(&[[0.0, -0.99], [inner, -0.99], [inner, 0.99], [0.0, 0.99]]));
    let mut parts = vec![cup, handle];
    if draw.chance(0.25) {
        let plate = rim + draw.between(0.06, 0.15);
        parts.push(column([0.0; 2], plate, [-tall - 0.09, -tall + 0.02]));
    }
    Solid::union_of(parts).translate([shift, 0.0, 0.0])
}
