//! Procedural shapes: families of solids, each drawn from a seed, given by their signed distance.
//!
//! Solids are unions of boxes, cylinders, tori and capsules in the cube [-1, 1]³, z upwards, thick enough to be seen on a
//! 32³ grid. Distances of primitives are Quilez's ("Distance functions"); a union takes the least, which is exact outside.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::sdf::SdfGrid;
use crate::{Error, Result, random};

/// A family of procedural solids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// A box with its own extent along each axis and rounded edges.
    Box,
    /// A torus lying in the xy plane.
    Torus,
    /// A capsule along one of the three axes.
    Capsule,
    /// A seat on four legs with a back.
    Chair,
    /// A plate on four legs or on a column with a foot.
    Table,
}

named!(Family);

impl Family {
    /// Every family.
    pub const ALL: [Self; 5] = [Self::Box, Self::Torus, Self::Capsule, Self::Chair, Self::Table];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Torus => "torus",
            Self::Capsule => "capsule",
            Self::Chair => "chair",
            Self::Table => "table",
        }
    }

    /// The family of this name.
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name).ok_or_else(|| Error::Unknown {
            kind: "shape family",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Part {
    RoundBox { centre: [f32; 3], half: [f32; 3], radius: f32 },
    Cylinder { centre: [f32; 3], radius: f32, half_height: f32 },
    Torus { ring: f32, tube: f32 },
    Capsule { axis: usize, half_length: f32, radius: f32 },
}

/// One solid of a family: the same for the same seed, on every machine.
#[derive(Clone, Debug)]
pub struct ProceduralShape {
    family: Family,
    parts: Vec<Part>,
}

impl ProceduralShape {
    /// Draws a solid.
    pub fn new(family: Family, seed: u64) -> Self {
        let mut rng = random::rng(seed, family as u64);
        let mut draw = |low: f32, high: f32| rng.random_range(low..high);
        let parts = match family {
            Family::Box => {
                let half = [draw(0.25, 0.85), draw(0.25, 0.85), draw(0.25, 0.85)];
                vec![Part::RoundBox { centre: [0.0; 3], half, radius: draw(0.02, 0.2) }]
            }
            Family::Torus => {
                let tube = draw(0.12, 0.3);
                vec![Part::Torus { ring: draw(0.25 + tube, 0.88 - tube), tube }]
            }
            Family::Capsule => {
                let radius = draw(0.15, 0.42);
                let half_length = draw(0.15, 0.85 - radius);
                vec![Part::Capsule { axis: draw(0.0, 3.0) as usize, half_length, radius }]
            }
            Family::Chair => {
                let (wide, deep) = (draw(0.4, 0.62), draw(0.4, 0.62));
                let (seat, thick, leg) = (draw(-0.25, 0.1), draw(0.08, 0.14), draw(0.085, 0.13));
                let (floor, top, back) = (-0.82, draw(0.5, 0.85), draw(0.08, 0.13));
                let mut parts = legs(wide - leg, deep - leg, leg, floor, seat);
                parts.push(slab([0.0, 0.0, seat], [wide, deep, thick]));
                parts.push(slab([0.0, deep - back, 0.5 * (seat + top)], [wide, back, 0.5 * (top - seat)]));
                parts
            }
            Family::Table => {
                let (wide, deep) = (draw(0.5, 0.85), draw(0.5, 0.85));
                let (top, thick) = (draw(0.1, 0.6), draw(0.08, 0.14));
                let floor = -0.7;
                let mut parts = if draw(0.0, 1.0) < 0.5 {
                    let leg = draw(0.085, 0.14);
                    legs(wide - leg, deep - leg, leg, floor, top)
                } else {
                    let (column, foot) = (draw(0.12, 0.22), draw(0.3, 0.5));
                    let half_height = 0.5 * (top - floor);
                    vec![
                        Part::Cylinder { centre: [0.0, 0.0, floor + half_height], radius: column, half_height },
                        Part::Cylinder { centre: [0.0, 0.0, floor + 0.04], radius: foot, half_height: 0.08 },
                    ]
                };
                parts.push(slab([0.0, 0.0, top], [wide, deep, thick]));
                parts
            }
        };
        Self { family, parts }
    }

    /// The family it was drawn from.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Signed distance at a point, negative inside.
    pub fn distance(&self, p: [f32; 3]) -> f32 {
        self.parts.iter().map(|part| part.distance(p)).fold(f32::INFINITY, f32::min)
    }

    /// Its signed distance on `resolution`³ samples of the cube [-1, 1]³.
    ///
    /// # Errors
    /// A resolution of zero.
    pub fn sdf(&self, resolution: usize) -> Result<SdfGrid> {
        SdfGrid::from_fn([resolution; 3], |p| self.distance(p))
    }
}

fn slab(centre: [f32; 3], half: [f32; 3]) -> Part {
    Part::RoundBox { centre, half, radius: 0.03 }
}

/// Four square legs around (±x, ±y), from `floor` up to `top`.
fn legs(x: f32, y: f32, half: f32, floor: f32, top: f32) -> Vec<Part> {
    let leg = |sx: f32, sy: f32| slab([sx * x, sy * y, 0.5 * (floor + top)], [half, half, 0.5 * (top - floor)]);
    vec![leg(-1.0, -1.0), leg(-1.0, 1.0), leg(1.0, -1.0), leg(1.0, 1.0)]
}

impl Part {
    fn distance(&self, p: [f32; 3]) -> f32 {
        let length = |v: &[f32]| v.iter().map(|c| c * c).sum::<f32>().sqrt();
        match *self {
            Self::RoundBox { centre, half, radius } => {
                let q: [f32; 3] = std::array::from_fn(|a| (p[a] - centre[a]).abs() - half[a] + radius);
                let outside = length(&q.map(|c| c.max(0.0)));
                outside + q[0].max(q[1]).max(q[2]).min(0.0) - radius
            }
            Self::Cylinder { centre, radius, half_height } => {
                let across = length(&[p[0] - centre[0], p[1] - centre[1]]) - radius;
                let along = (p[2] - centre[2]).abs() - half_height;
                length(&[across.max(0.0), along.max(0.0)]) + across.max(along).min(0.0)
            }
            Self::Torus { ring, tube } => length(&[length(&p[..2]) - ring, p[2]]) - tube,
            Self::Capsule { axis, half_length, radius } => {
                let mut q = p;
                q[axis] -= q[axis].clamp(-half_length, half_length);
                length(&q) - radius
            }
        }
    }
}
