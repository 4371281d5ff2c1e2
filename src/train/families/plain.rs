//! Boxes, tori, capsules, and chairs and tables thick enough to be seen on a 32³ grid.

use super::Family;
use super::draw::{Draw, column};
use crate::sdf::shapes::{Solid, capsule, cuboid, torus};

/// A solid of one of the plain families.
pub(super) fn plain(family: Family, draw: &mut Draw) -> Solid {
    let mut draw = |low: f32, high: f32| draw.between(low, high);
    match family {
        Family::Box => {
            let half = [draw(0.25, 0.85), draw(0.25, 0.85), draw(0.25, 0.85)];
            soft(half, draw(0.02, 0.2))
        }
        Family::Torus => {
            let tube = draw(0.12, 0.3);
            torus(draw(0.25 + tube, 0.88 - tube), tube)
        }
        Family::Capsule => {
            let radius = draw(0.15, 0.42);
            let half_length = draw(0.15, 0.85 - radius);
            let axis = draw(0.0, 3.0) as usize;
            let end = |sign: f32| std::array::from_fn(|a| if a == axis { sign * half_length } else { 0.0 });
            capsule(end(-1.0), end(1.0), radius)
        }
        Family::PlainChair => {
            let (wide, deep) = (draw(0.4, 0.62), draw(0.4, 0.62));
            let (seat, thick, leg) = (draw(-0.25, 0.1), draw(0.08, 0.14), draw(0.085, 0.13));
            let (floor, top, back) = (-0.82, draw(0.5, 0.85), draw(0.08, 0.13));
            let mut parts = legs(wide - leg, deep - leg, leg, floor, seat);
            parts.push(slab([0.0, 0.0, seat], [wide, deep, thick]));
            parts.push(slab([0.0, deep - back, 0.5 * (seat + top)], [wide, back, 0.5 * (top - seat)]));
            Solid::union_of(parts)
        }
        _ => {
            let (wide, deep) = (draw(0.5, 0.85), draw(0.5, 0.85));
            let (top, thick) = (draw(0.1, 0.6), draw(0.08, 0.14));
            let floor = -0.7;
            let mut parts = if draw(0.0, 1.0) < 0.5 {
                let leg = draw(0.085, 0.14);
                legs(wide - leg, deep - leg, leg, floor, top)
            } else {
                let (radius, foot) = (draw(0.12, 0.22), draw(0.3, 0.5));
                vec![column([0.0; 2], radius, [floor, top]), column([0.0; 2], foot, [floor - 0.04, floor + 0.12])]
            };
            parts.push(slab([0.0, 0.0, top], [wide, deep, thick]));
            Solid::union_of(parts)
        }
    }
}

/// A box of these half extents with rounded edges.
fn soft(half: [f32; 3], radius: f32) -> Solid {
    cuboid(half.map(|h| h - radius)).rounded(radius)
}

fn slab(centre: [f32; 3], half: [f32; 3]) -> Solid {
    soft(half, 0.03).translate(centre)
}

/// Four square legs around (±x, ±y), from `floor` up to `top`.
fn legs(x: f32, y: f32, half: f32, floor: f32, top: f32) -> Vec<Solid> {
    let leg = |sx: f32, sy: f32| slab([sx * x, sy * y, 0.5 * (floor + top)], [half, half, 0.5 * (top - floor)]);
    vec![leg(-1.0, -1.0), leg(-1.0, 1.0), leg(1.0, -1.0), leg(1.0, 1.0)]
}
