//! Chairs, tables and bookshelves.

use super::draw::{Draw, around, column, post, regular, slab};
use crate::sdf::shapes::{Solid, capsule, prism};

/// Half the thickness of the thinnest leg or bar, which is three samples of a 64³ grid thick.
const THIN: f32 = 0.045;

/// A chair or stool, its back towards +y.
pub(super) fn chair(draw: &mut Draw) -> Solid {
    const FLOOR: f32 = -0.88;
    let (wide, deep) = (draw.between(0.38, 0.58), draw.between(0.38, 0.55));
    let seat = draw.between(-0.25, 0.05);
    let thick = draw.between(0.05, 0.1);
    let round = draw.chance(0.2);
    let mut parts = vec![match round {
        true => column([0.0; 2], wide.min(deep), [seat - thick, seat + thick]),
        false => slab([0.0, 0.0, seat], [wide, deep, thick]),
    }];
    let reach = if round { [0.62 * wide.min(deep); 2] } else { [wide - 0.07, deep - 0.07] };
    match draw.whole(0, 5) {
        0 => parts.extend(swivel(draw, [FLOOR, seat])),
        1 => {
            // One leg on a plate.
            parts.push(column([0.0; 2], draw.between(0.06, 0.11), [FLOOR, seat]));
            parts.push(column([0.0; 2], draw.between(0.32, 0.45), [FLOOR, FLOOR + 0.09]));
        }
        2 if round => {
            let out = draw.between(1.0, 1.4);
            let radius = draw.between(0.05, 0.07);
            parts.extend(
                around(3, 0.25).map(|[c, s]| splayed([c * reach[0], s * reach[0]], out, radius, [FLOOR, seat])),
            );
        }
        _ => parts.extend(four_legs(draw, reach, [FLOOR, seat], 0.25).parts),
    }
    let back = draw.chance(0.88);
    let top = draw.between(0.5, 0.88);
    if back {
        // The back of a round seat is placed where the seat is still wide.
        let (half, y) = if round { (0.55 * wide.min(deep), 0.7 * wide.min(deep)) } else { (wide, deep - 0.06) };
        parts.extend(chair_back(draw, half, y, [seat, top]));
    }
    if back && !round && draw.chance(0.35) {
        let height = seat + draw.between(0.25, 0.38);
        let bar = draw.between(THIN, 0.06);
        let front = -deep + draw.between(0.06, 0.2);
        for x in [bar - wide, wide - bar] {
            parts.push(slab([x, 0.5 * (front + deep) - 0.03, height], [bar, 0.5 * (deep - front) - 0.03, bar]));
            parts.push(post([x, front + bar], [bar, bar], [seat, height]));
        }
    }
    Solid::union_of(parts)
}

/// The back of a chair in the plane at `y`: a panel, upright slats, bars across, or a frame.
fn chair_back(draw: &mut Draw, half: f32, y: f32, [seat, top]: [f32; 2]) -> Vec<Solid> {
    let bar = draw.between(THIN, 0.06);
    let kind = draw.whole(0, 3);
    if kind == 0 {
        return vec![post([0.0, y], [half, bar], [seat, top])];
    }
    let mut parts: Vec<Solid> =
        [-1.0, 1.0].map(|side| post([side * (half - bar), y], [bar, bar], [seat, top])).into_iter().collect();
    let across = |z: f32, height: f32| slab([0.0, y, z], [half, bar, height]);
    match kind {
        1 => {
            parts.push(across(top - 0.06, 0.07));
            let slats = draw.whole(1, 3);
            let width = draw.between(THIN, 0.07);
            let pitch = 2.0 * half / (slats + 1) as f32;
            parts.extend((1..=slats).map(|i| post([i as f32 * pitch - half, y], [width, bar], [seat, top])));
        }
        2 => {
            let bars = draw.whole(2, 4);
            let pitch = (top - seat - 0.1) / bars as f32;
            let height = draw.between(THIN, 0.35 * pitch.max(0.14));
            parts.extend((0..bars).map(|i| across(top - 0.06 - i as f32 * pitch, height)));
        }
        _ => parts.push(slab([0.0, y, top - 0.5 * (top - seat) * 0.55], [half, bar, 0.5 * (top - seat) * 0.55])),
    }
    parts
}

/// A column on a star of three to five feet.
fn swivel(draw: &mut Draw, [floor, top]: [f32; 2]) -> Vec<Solid> {
    let radius = draw.between(0.055, 0.09);
    let (feet, reach) = (draw.whole(3, 5), draw.between(0.4, 0.58));
    let (foot, rise) = (draw.between(0.05, 0.07), draw.between(0.0, 0.16));
    let mut parts = vec![column([0.0; 2], radius, [floor + rise, top])];
    let z = floor + foot;
    parts.extend(
        around(feet, std::f32::consts::FRAC_PI_2)
            .map(|[c, s]| capsule([0.0, 0.0, z + rise], [reach * c, reach * s, z], foot)),
    );
    parts
}

/// A round leg that leans outwards by the factor `out`.
fn splayed([x, y]: [f32; 2], out: f32, radius: f32, [floor, top]: [f32; 2]) -> Solid {
    capsule([x, y, top], [out * x, out * y, floor + radius], radius)
}

/// Four legs, and how far they lean.
struct Legs {
    parts: Vec<Solid>,
    /// The leg's distance from the axis at its lower end, relative to the upper end; 1 for upright legs.
    out: f32,
    /// Their half width.
    half: f32,
    heights: [f32; 2],
}

impl Legs {
    /// The place, at height `z`, of the legs that begin at (±x, ±y).
    fn at(&self, [x, y]: [f32; 2], z: f32) -> [f32; 2] {
        let [floor, top] = [self.heights[0] + self.half, self.heights[1]];
        let spread = 1.0 + (self.out - 1.0) * (top - z) / (top - floor);
        [spread * x, spread * y]
    }
}

/// Four legs under (±x, ±y): square, round or leaning, with or without stretchers.
fn four_legs(draw: &mut Draw, [x, y]: [f32; 2], heights: [f32; 2], bars: f32) -> Legs {
    let half = draw.between(THIN, 0.07);
    let corners = [[-x, -y], [-x, y], [x, -y], [x, y]];
    let out = draw.between(1.0, 1.2);
    let leg = |kind: usize, at: [f32; 2]| match kind {
        0 => splayed(at, out, half, heights),
        1 => column(at, half, heights),
        _ => post(at, [half; 2], heights),
    };
    let kind = draw.whole(0, 3);
    let mut parts: Vec<Solid> = corners.into_iter().map(|at| leg(kind, at)).collect();
    if kind > 0 && draw.chance(2.0 * bars) {
        let z = heights[0] + draw.between(0.25, 0.6) * (heights[1] - heights[0]);
        let across = |y: f32| slab([0.0, y, z], [x, THIN, THIN]);
        let along = |x: f32| slab([x, 0.0, z], [THIN, y, THIN]);
        parts.extend([along(-x), along(x)]);
        match draw.chance(0.5) {
            true => parts.push(across(0.0)),
            false => parts.extend([across(-y), across(y)]),
        }
    }
    Legs { parts, out: if kind == 0 { out } else { 1.0 }, half, heights }
}

/// A table or desk.
pub(super) fn table(draw: &mut Draw) -> Solid {
    const FLOOR: f32 = -0.75;
    let top = draw.between(-0.1, 0.55);
    let thick = draw.between(0.045, 0.09);
    let heights = [FLOOR, top];
    let plate = |z: f32| [z - thick, z + thick];
    let mut parts = Vec::new();
    match draw.whole(0, 4) {
        0 | 1 => {
            // Round or six-sided, on a column or on three or four legs.
            let radius = draw.between(0.5, 0.88);
            parts.push(match draw.chance(0.7) {
                true => column([0.0; 2], radius, plate(top)),
                false => prism(&regular(6, radius, 0.0), thick).translate([0.0, 0.0, top]),
            });
            match draw.whole(0, 2) {
                0 => {
                    let width = draw.between(0.06, 0.16);
                    parts.push(column([0.0; 2], width, heights));
                    parts.push(column([0.0; 2], draw.between(0.3, 0.5), [FLOOR, FLOOR + 0.1]));
                }
                1 => parts.extend(swivel(draw, heights)),
                _ => {
                    let (legs, out) = (draw.whole(3, 4), draw.between(1.0, 1.3));
                    let leg = draw.between(THIN, 0.07);
                    parts.extend(around(legs, 0.6).map(|[c, s]| {
                        let at = 0.62 * radius;
                        splayed([at * c, at * s], out, leg, heights)
                    }));
                }
            }
        }
        kind => {
            let (wide, deep) = (draw.between(0.55, 0.9), draw.between(0.38, 0.7));
            parts.push(slab([0.0, 0.0, top], [wide, deep, thick]));
            let inset = draw.between(0.06, 0.14);
            let [x, y] = [wide - inset, deep - inset];
            if kind == 2 {
                // Two panels and a beam.
                let panel = draw.between(THIN, 0.07);
                parts.extend([-x, x].map(|x| post([x, 0.0], [panel, y], heights)));
                let z = FLOOR + draw.between(0.2, 0.8) * (top - FLOOR);
                parts.push(slab([0.0, 0.0, z], [x, THIN, draw.between(THIN, 0.1)]));
            } else {
                let legs = four_legs(draw, [x, y], heights, 0.15);
                if draw.chance(0.3) {
                    // Bars go from leg to leg, however the legs lean.
                    let z = FLOOR + draw.between(0.15, 0.4) * (top - FLOOR);
                    let [x, y] = legs.at([x, y], z);
                    parts.push(slab([0.0, 0.0, z], [x, y, THIN]));
                }
                parts.extend(legs.parts);
                if draw.chance(0.4) {
                    // A block of drawers under one end.
                    let (width, low) = (draw.between(0.15, 0.3), draw.between(0.2, 0.75));
                    let side = if draw.chance(0.5) { -1.0 } else { 1.0 };
                    let bottom = top - low * (top - FLOOR);
                    parts.push(post([side * (x - width), 0.0], [width, y], [bottom, top]));
                }
            }
        }
    }
    Solid::union_of(parts)
}

/// A bookshelf, open towards -y.
pub(super) fn bookshelf(draw: &mut Draw) -> Solid {
    let (wide, deep, tall) = (draw.between(0.3, 0.8), draw.between(0.18, 0.35), draw.between(0.5, 0.88));
    let board = draw.between(THIN, 0.055);
    let foot = if draw.chance(0.3) { draw.between(0.08, 0.2) } else { 0.0 };
    let floor = -tall + foot;
    let mut parts: Vec<Solid> =
        [board - wide, wide - board].map(|x| post([x, 0.0], [board, deep], [-tall, tall])).into_iter().collect();
    let shelves = draw.whole(2, if tall > 0.7 { 5 } else { 3 });
    let pitch = (2.0 * tall - foot - 2.0 * board) / (shelves - 1).max(1) as f32;
    let height = |i: usize| floor + board + i as f32 * pitch;
    parts.extend((0..shelves).map(|i| slab([0.0, 0.0, height(i)], [wide, deep, board])));
    if draw.chance(0.6) {
        parts.push(post([0.0, deep - board], [wide, board], [floor, tall]));
    }
    let dividers = if wide > 0.5 { draw.whole(0, 2) } else { 0 };
    let bay = 2.0 * wide / (dividers + 1) as f32;
    parts.extend((1..=dividers).map(|i| post([i as f32 * bay - wide, 0.0], [board, deep], [floor, tall])));
    for column in 0..=dividers {
        for row in 0..shelves - 1 {
            if draw.chance(0.2) {
                // A drawer or door fills this bay.
                let x = (column as f32 + 0.5) * bay - wide;
                parts.push(post([x, 0.02], [0.5 * bay, deep - 0.02], [height(row), height(row + 1)]));
            }
        }
    }
    Solid::union_of(parts)
}
