//! Solids from formulas: primitives, and their union, intersection and difference.
//!
//! A [`Solid`] is a signed distance function over space, negative inside. The primitives' distances are exact (the
//! formulas are Inigo Quilez'), except for [`supershape`]; a combination has the right sign everywhere and a distance that
//! is never too large. [`Solid::to_mesh`] makes the surface, whose distance grid is exact again.

use std::f32::consts::PI;
use std::sync::Arc;

use super::grid::SdfGrid;
use crate::Result;
use crate::mesh::vec3::{add, dot, norm, scale, sub};
use crate::mesh::{Axis, Mesh};

/// A solid, given by its signed distance function.
///
/// ```
/// use wavemesh::sdf::shapes::{cuboid, sphere};
/// let die = cuboid([0.5; 3]).intersection(sphere(0.65)).difference(sphere(0.2).translate([0.0, 0.0, 0.5]));
/// assert!(die.distance([0.0; 3]) < 0.0 && die.distance([0.0, 0.0, 0.5]) > 0.0);
/// assert!(die.to_mesh(32)?.is_watertight());
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone)]
pub struct Solid(Arc<dyn Fn([f32; 3]) -> f32 + Send + Sync>);

impl Solid {
    /// A solid from any signed distance function, negative inside.
    pub fn new(distance: impl Fn([f32; 3]) -> f32 + Send + Sync + 'static) -> Self {
        Self(Arc::new(distance))
    }

    /// The signed distance at (x, y, z).
    pub fn distance(&self, point: [f32; 3]) -> f32 {
        (self.0)(point)
    }

    /// The points in either solid.
    pub fn union(self, other: Solid) -> Solid {
        Self::new(move |p| self.distance(p).min(other.distance(p)))
    }

    /// The points in any of several solids.
    ///
    /// ```
    /// use wavemesh::sdf::shapes::{Solid, sphere};
    /// let row = Solid::union_of((0..3).map(|i| sphere(0.2).translate([0.5 * i as f32, 0.0, 0.0])));
    /// assert!((row.distance([1.4, 0.0, 0.0]) - 0.2).abs() < 1e-6);
    /// ```
    pub fn union_of(solids: impl IntoIterator<Item = Solid>) -> Solid {
        let solids: Vec<Solid> = solids.into_iter().collect();
        Self::new(move |p| solids.iter().map(|solid| solid.distance(p)).fold(f32::INFINITY, f32::min))
    }

    /// The points in both solids.
    pub fn intersection(self, other: Solid) -> Solid {
        Self::new(move |p| self.distance(p).max(other.distance(p)))
    }

    /// The points in the first solid that are not in the second.
    pub fn difference(self, other: Solid) -> Solid {
        Self::new(move |p| self.distance(p).max(-other.distance(p)))
    }

    /// The solid grown by `radius` on all sides, which rounds its edges.
    ///
    /// ```
    /// use wavemesh::sdf::shapes::cuboid;
    /// let soft = cuboid([0.4; 3]).rounded(0.1);
    /// assert!((soft.distance([1.0, 0.0, 0.0]) - 0.5).abs() < 1e-6);
    /// ```
    pub fn rounded(self, radius: f32) -> Solid {
        Self::new(move |p| self.distance(p) - radius)
    }

    /// The solid moved by an offset.
    pub fn translate(self, offset: [f32; 3]) -> Solid {
        Self::new(move |p| self.distance(sub(p, offset)))
    }

    /// The solid enlarged around the origin by a factor above zero.
    pub fn scale(self, factor: f32) -> Solid {
        Self::new(move |p| self.distance(scale(p, 1.0 / factor)) * factor)
    }

    /// The solid turned around an axis by an angle in radians, counter-clockwise seen from the tip of the axis.
    pub fn rotate(self, axis: Axis, angle: f32) -> Solid {
        let (sin, cos) = angle.sin_cos();
        let (u, v) = ((axis.index() + 1) % 3, (axis.index() + 2) % 3);
        Self::new(move |p| {
            let mut back = p;
            (back[u], back[v]) = (cos * p[u] + sin * p[v], cos * p[v] - sin * p[u]);
            self.distance(back)
        })
    }

    /// The distances on `resolution`³ samples of the cube [-1, 1]³.
    ///
    /// # Errors
    /// If `resolution` is zero or the function returns a value that is not finite.
    ///
    /// ```
    /// use wavemesh::sdf::shapes;
    /// let grid = shapes::sphere(0.5).to_grid(3)?; // samples at -1, 0 and 1 along each axis
    /// assert_eq!(grid.values()[13], -0.5); // the middle
    /// assert_eq!(grid.values()[14], 0.5); // (0, 0, 1)
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn to_grid(&self, resolution: usize) -> Result<SdfGrid> {
        SdfGrid::from_fn([resolution; 3], |p| self.distance(p))
    }

    /// The surface inside the cube [-1, 1]³, by marching cubes on `resolution`³ samples.
    ///
    /// # Errors
    /// The errors of [`Solid::to_grid`]; and if no surface passes through the cube.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let ring = shapes::torus(0.5, 0.2).difference(shapes::cuboid([1.0, 1.0, 0.1])).to_mesh(32)?;
    /// assert!(ring.faces().len() > 500);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_mesh(&self, resolution: usize) -> Result<Mesh> {
        self.to_grid(resolution)?.to_mesh()
    }
}

impl std::fmt::Debug for Solid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Solid(distance {:.3} at the origin)", self.distance([0.0; 3]))
    }
}

/// A ball around the origin.
pub fn sphere(radius: f32) -> Solid {
    Solid::new(move |p| norm(p) - radius)
}

/// A box around the origin with the given half extents.
pub fn cuboid(half: [f32; 3]) -> Solid {
    Solid::new(move |p| outside_box(std::array::from_fn::<f32, 3, _>(|i| p[i].abs() - half[i])))
}

/// A ring in the xy-plane: a tube of radius `minor` around a circle of radius `major`.
pub fn torus(major: f32, minor: f32) -> Solid {
    Solid::new(move |[x, y, z]| (x.hypot(y) - major).hypot(z) - minor)
}

/// A cylinder along z, from `-half_height` to `half_height`.
pub fn cylinder(radius: f32, half_height: f32) -> Solid {
    Solid::new(move |[x, y, z]| outside_box([x.hypot(y) - radius, z.abs() - half_height]))
}

/// All points at most `radius` from the segment between `a` and `b`.
pub fn capsule(a: [f32; 3], b: [f32; 3], radius: f32) -> Solid {
    let along = sub(b, a);
    let length2 = dot(along, along);
    Solid::new(move |p| {
        let t = if length2 > 0.0 { (dot(sub(p, a), along) / length2).clamp(0.0, 1.0) } else { 0.0 };
        norm(sub(p, add(a, scale(along, t)))) - radius
    })
}

/// A cone along z with its base of the given radius at `-half_height` and its tip at `half_height`.
pub fn cone(radius: f32, half_height: f32) -> Solid {
    Solid::new(move |[x, y, z]| {
        // In the half plane of the axis: the triangle (0, -h), (r, -h), (0, h).
        let (rho, h) = (x.hypot(y), half_height);
        let to_base = (rho - rho.min(radius)).hypot(z + h);
        let (side_rho, side_z) = (-radius, 2.0 * h);
        let t =
            (((rho - radius) * side_rho + (z + h) * side_z) / (side_rho * side_rho + side_z * side_z)).clamp(0.0, 1.0);
        let to_side = (rho - radius - t * side_rho).hypot(z + h - t * side_z);
        let inside = z > -h && side_z * (rho - radius) - side_rho * (z + h) < 0.0;
        let distance = to_base.min(to_side);
        if inside { -distance } else { distance }
    })
}

/// A column along z from `-half_height` to `half_height` over an outline in the xy-plane: the corners (x, y) of a polygon, in either
/// order. The distance is exact (Quilez' `sdPolygon`, extruded).
///
/// ```
/// use wavemesh::sdf::shapes::prism;
/// let wedge = prism(&[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], 0.5);
/// assert_eq!(wedge.distance([0.25, -0.5, 0.0]), 0.5);
/// assert!(wedge.distance([0.2, 0.2, 0.0]) < 0.0 && wedge.distance([0.6, 0.6, 0.0]) > 0.0);
/// ```
pub fn prism(outline: &[[f32; 2]], half_height: f32) -> Solid {
    let outline = outline.to_vec();
    Solid::new(move |[x, y, z]| outside_box([polygon(&outline, [x, y]), z.abs() - half_height]))
}

/// The solid that a profile sweeps when it turns around z: points (radius, z) from the axis back to the axis. The distance is exact.
///
/// ```
/// use wavemesh::sdf::shapes::revolution;
/// let cylinder = revolution(&[[0.0, -0.5], [0.3, -0.5], [0.3, 0.5], [0.0, 0.5]]);
/// assert!((cylinder.distance([0.5, 0.0, 0.0]) - 0.2).abs() < 1e-6);
/// assert!((cylinder.distance([0.0, 0.0, 0.0]) + 0.3).abs() < 1e-6);
/// ```
pub fn revolution(profile: &[[f32; 2]]) -> Solid {
    // With its mirror image, the outline is closed without an edge along the axis.
    let mirrored = profile.iter().rev().map(|&[r, z]| [-r, z]);
    let outline: Vec<[f32; 2]> = profile.iter().copied().chain(mirrored).collect();
    Solid::new(move |[x, y, z]| polygon(&outline, [x.hypot(y), z]))
}

/// The signed distance to a polygon in the plane.
fn polygon(corners: &[[f32; 2]], [x, y]: [f32; 2]) -> f32 {
    let mut squared = f32::INFINITY;
    let mut inside = false;
    let Some(mut from) = corners.last().copied() else { return f32::INFINITY };
    for &to in corners {
        let (edge, away) = ([from[0] - to[0], from[1] - to[1]], [x - to[0], y - to[1]]);
        let length2 = edge[0] * edge[0] + edge[1] * edge[1];
        let along =
            if length2 > 0.0 { ((away[0] * edge[0] + away[1] * edge[1]) / length2).clamp(0.0, 1.0) } else { 0.0 };
        let off = [away[0] - edge[0] * along, away[1] - edge[1] * along];
        squared = squared.min(off[0] * off[0] + off[1] * off[1]);
        let (above, below) = (y >= to[1], y < from[1]);
        if above == below && (edge[0] * away[1] > edge[1] * away[0]) == above {
            inside = !inside;
        }
        from = to;
    }
    if inside { -squared.sqrt() } else { squared.sqrt() }
}

/// One curve of a [`supershape`]: `r(a) = (|cos(m a / 4)|^n2 + |sin(m a / 4)|^n3)^(-1 / n1)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Superformula {
    /// Rotational symmetry.
    pub m: f32,
    /// How much the curve swells between the corners.
    pub n1: f32,
    /// Exponent of the cosine.
    pub n2: f32,
    /// Exponent of the sine.
    pub n3: f32,
}

impl Superformula {
    fn radius(&self, angle: f32) -> f32 {
        let (sin, cos) = (self.m * angle / 4.0).sin_cos();
        (cos.abs().powf(self.n2) + sin.abs().powf(self.n3)).powf(-1.0 / self.n1)
    }
}

/// Gielis' supershape ("A generic geometric transformation that unifies a wide range of natural and abstract shapes", 2003): one
/// superformula goes around z, the other from pole to pole; `size` scales it. The value is a length along the ray from the origin, not a
/// distance: only its sign and its zeros are exact.
pub fn supershape(around: Superformula, upwards: Superformula, size: f32) -> Solid {
    Solid::new(move |p| {
        let [x, y, z] = p;
        let rho = x.hypot(y);
        let r1 = around.radius(if rho > 0.0 { y.atan2(x) } else { 0.0 });
        let latitude = (z * r1).atan2(rho).clamp(-PI / 2.0, PI / 2.0);
        let (sin, cos) = latitude.sin_cos();
        norm(p) - size * upwards.radius(latitude) * (r1 * cos).hypot(sin)
    })
}

/// The distance to a box, given the distances beyond each of its faces.
fn outside_box<const N: usize>(beyond: [f32; N]) -> f32 {
    let outside: f32 = beyond.iter().map(|d| d.max(0.0).powi(2)).sum();
    outside.sqrt() + beyond.into_iter().fold(f32::NEG_INFINITY, f32::max).min(0.0)
}
