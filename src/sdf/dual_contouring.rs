//! Dual contouring (Ju, Losasso, Schaefer and Warren, "Dual contouring of Hermite data", 2002). Each sheet of the surface in a cell has a
//! vertex where the planes of its crossings meet, and each crossed edge has a quad around it. Edges come out sharp.
//!
//! A grid of distances has no normals. Beside a sharp edge, neither its zeros nor its slopes are those of a face: values there are
//! distances to the other face or to the edge. But a few samples further, each face has cells in which the distance is linear, and these
//! give the face's plane exactly. So beside an edge a crossing takes its place and its normal from the plane of a flat cell nearby
//! ([`Field::on_a_flat_cell`]), and elsewhere from the samples around it.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::SdfGrid;
use super::cells::{Bits, EDGES, LOOPS, edge_at};
use super::crossings::{Crossings, code};
use super::marching_cubes::part;
use crate::mesh::vec3::{add, cross, dot, normalized, scale, sub};

/// Directions in which the planes of a cell differ by less than this share of the sum do not count. Beside an edge, where planes are exact,
/// normals within eight degrees belong to one face; elsewhere, a curved surface has no edge to find.
const FLAT_AT_AN_EDGE: f64 = 0.02;
const FLAT: f64 = 0.1;

/// If the slope (of a slope of one) changes by no more than this from one sample to the next, there is no edge.
const BEND: f64 = 0.05;

/// A cell is flat if a plane comes this near to all its values, in cells, and the slope at one of its corners changes by less than this
/// share of the change at the crossing: on a ball all samples are bent alike, but beside an edge those of a face are not.
const FLAT_CELL: f64 = 0.04;
const OF_THE_BEND: f64 = 0.2;

/// Planes whose normals have a larger dot product belong to the same face.
const SAME_FACE: f64 = 0.95;

/// How far beyond the ends of an edge, in cells, a plane may cross its line; the crossing is then at the end.
const BEYOND: f64 = 0.1;

type Vector = [f64; 3];
type Surface = (Vec<[f32; 3]>, Vec<[u32; 3]>);

/// The vertices and triangles of the surface whose [planes](Field::crossing) at the crossed edges are given.
pub(super) fn dual_contouring(field: &Field, crossings: &Crossings, planes: &[Plane], shown: Option<&Bits>) -> Surface {
    let inside = &crossings.inside;
    let slices: Vec<Slice> =
        (0..inside.shape[0] - 1).into_par_iter().map(|i| Slice::new(field, i, crossings, shown, planes)).collect();
    let mut before = vec![0u32];
    slices.iter().for_each(|slice| before.push(before[before.len() - 1] + slice.vertices.len() as u32));
    let vertices: Vec<[f32; 3]> = slices.iter().flat_map(|slice| &slice.vertices).copied().collect();
    // The vertex of the sheet that crosses an edge of a cell.
    let vertex = |[i, j, k]: [usize; 3], edge: usize| {
        let (case, first) = slices.get(i)?.cell(j, k)?;
        Some(before[i] + first + u32::from(SHEETS[usize::from(case)][edge]))
    };
    let faces: Vec<Vec<[u32; 3]>> = (0..inside.shape[0])
        .into_par_iter()
        .map(|i| {
            let mut faces = Vec::new();
            let mut number = crossings.before(i);
            crossings.of_slice(i, |start, axis| {
                let normal = planes[number].normal.map(|c| c as f32);
                number += 1;
                let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
                // The four cells around the edge, counter-clockwise when seen from its end.
                let around = [[1, 1], [0, 1], [0, 0], [1, 0]].map(|[back_u, back_v]| {
                    let (mut cell, mut corner) = (start, [0; 3]);
                    (corner[u], corner[v]) = (back_u, back_v);
                    cell[u] = cell[u].checked_sub(back_u)?;
                    cell[v] = cell[v].checked_sub(back_v)?;
                    vertex(cell, edge_at(corner, axis))
                });
                let [Some(a), Some(b), Some(c), Some(d)] = around else { return };
                let outwards = field.value(start) < field.level;
                faces.extend(halves(if outwards { [a, b, c, d] } else { [d, c, b, a] }, &vertices, normal));
            });
            faces
        })
        .collect();
    (vertices, faces.concat())
}

/// For each case of a cell and each crossed edge: the sheet of the cell that crosses it.
static SHEETS: LazyLock<Vec<[u8; 12]>> = LazyLock::new(|| {
    let sheets = |loops: &Vec<Vec<u8>>| {
        let mut of_edge = [0; 12];
        for (sheet, outline) in loops.iter().enumerate() {
            outline.iter().for_each(|&edge| of_edge[usize::from(edge)] = sheet as u8);
        }
        of_edge
    };
    LOOPS.iter().map(sheets).collect()
});

/// The cells between two slices of samples through which the surface passes.
struct Slice {
    vertices: Vec<[f32; 3]>,
    /// For each cell: k, its case, and the number of its first vertex in the slice.
    cells: Vec<(u32, u8, u32)>,
    /// Where the cells of each j begin.
    rows: Vec<u32>,
}

impl Slice {
    fn new(field: &Field, i: usize, crossings: &Crossings, shown: Option<&Bits>, planes: &[Plane]) -> Self {
        let inside = &crossings.inside;
        let mut slice = Self { vertices: Vec::new(), cells: Vec::new(), rows: vec![0] };
        for j in 0..inside.shape[1] - 1 {
            inside.crossed_cells(i, j, shown, |k, case| {
                let rows = crossings.around(i, j, k / 64);
                slice.cells.push((k as u32, case as u8, slice.vertices.len() as u32));
                for outline in &LOOPS[case] {
                    let mut sheet = [(Vector::default(), Vector::default()); 12];
                    let mut flat = FLAT;
                    for (at, &edge) in sheet.iter_mut().zip(outline) {
                        let (start, axis) = EDGES[usize::from(edge)];
                        let plane = planes[rows.number(code(edge.into()), k) as usize];
                        let mut position = start.map(|c| c as f64);
                        position[axis] += plane.part;
                        *at = (position, plane.normal);
                        if plane.beside_an_edge {
                            flat = FLAT_AT_AN_EDGE;
                        }
                    }
                    let within = meeting_point(&sheet[..outline.len()], flat);
                    slice.vertices.push(field.position([i, j, k], within));
                }
            });
            slice.rows.push(slice.cells.len() as u32);
        }
        slice
    }

    /// The case of a cell and its first vertex, if the surface passes through it.
    fn cell(&self, j: usize, k: usize) -> Option<(u8, u32)> {
        let row = &self.cells[*self.rows.get(j)? as usize..*self.rows.get(j + 1)? as usize];
        let at = row.binary_search_by_key(&(k as u32), |&(k, ..)| k).ok()?;
        Some((row[at].1, row[at].2))
    }
}

/// The two triangles of a quad, cut along the diagonal with which both face the surface's direction best.
fn halves([a, b, c, d]: [u32; 4], vertices: &[[f32; 3]], normal: [f32; 3]) -> [[u32; 3]; 2] {
    let agreement = |triangles: &[[u32; 3]; 2]| {
        let facing = triangles.map(|t| {
            let [p, q, r] = t.map(|v| vertices[v as usize]);
            dot(normal, normalized(cross(sub(q, p), sub(r, p))))
        });
        facing[0].min(facing[1])
    };
    let cuts = [[[a, b, c], [a, c, d]], [[b, c, d], [b, d, a]]];
    if agreement(&cuts[0]) >= agreement(&cuts[1]) { cuts[0] } else { cuts[1] }
}

/// Where the surface crosses a grid edge: the position along the edge, and the unit normal there, in cells.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    part: f64,
    normal: Vector,
    beside_an_edge: bool,
}

/// A cell whose values are those of a plane, and so give the plane of the face near it.
#[derive(Clone, Copy)]
struct FlatCell {
    cell: [usize; 3],
    /// The plane's values at the beginning and the end of the current edge, minus the level.
    ends: [f64; 2],
    normal: Vector,
    /// How little it can be trusted: by its deviation from a plane and its distance.
    doubt: f64,
}

impl FlatCell {
    /// Where its plane crosses the edge, if it does.
    fn part(&self) -> Option<f64> {
        let part = self.ends[0] / (self.ends[0] - self.ends[1]);
        (-BEYOND..=1.0 + BEYOND).contains(&part).then(|| part.clamp(0.0, 1.0))
    }
}

/// The grid, in units of its cells.
pub(super) struct Field<'a> {
    grid: &'a SdfGrid,
    level: f64,
}

impl<'a> Field<'a> {
    pub fn new(grid: &'a SdfGrid, level: f32) -> Self {
        Self { grid, level: level.into() }
    }

    /// In double precision, so that differences and their squares do not overflow.
    fn value(&self, [i, j, k]: [usize; 3]) -> f64 {
        let [_, ny, nz] = self.grid.shape();
        self.grid.values()[(i * ny + j) * nz + k].into()
    }

    /// The value at a sample some steps along an axis, if it exists.
    fn stepped(&self, at: [usize; 3], axis: usize, steps: isize) -> Option<f64> {
        let mut to = at;
        to[axis] = at[axis].checked_add_signed(steps).filter(|&c| c < self.grid.shape()[axis])?;
        Some(self.value(to))
    }

    /// A point of a cell in mesh units.
    fn position(&self, cell: [usize; 3], within: Vector) -> [f32; 3] {
        let (origin, spacing) = (self.grid.origin(), self.grid.spacing());
        std::array::from_fn(|a| origin[a] + (cell[a] as f64 + within[a]) as f32 * spacing[a])
    }

    /// The crossing of the edge that begins at a sample and runs along `axis`.
    pub fn crossing(&self, start: [usize; 3], axis: usize) -> Plane {
        let mut end = start;
        end[axis] += 1;
        let bend = self.bend(start).max(self.bend(end));
        if bend > BEND
            && let Some(plane) = self.on_a_flat_cell(start, end, axis, bend)
        {
            return plane;
        }
        let (a, b) = (self.value(start), self.value(end));
        let part = part(a, b, self.level);
        let slope = std::array::from_fn(|direction| {
            if direction == axis {
                return b - a;
            }
            let slope = |at: [usize; 3], value: f64| {
                let [back, on] = [-1, 1].map(|steps| self.stepped(at, direction, steps));
                match (back, on) {
                    (Some(back), Some(on)) => 0.5 * on - 0.5 * back,
                    (None, Some(on)) => on - value,
                    (Some(back), None) => value - back,
                    (None, None) => 0.0,
                }
            };
            (1.0 - part) * slope(start, a) + part * slope(end, b)
        });
        Plane { part, normal: unit(slope), beside_an_edge: false }
    }

    /// The largest change of the slope (of a slope of one) along any axis at a sample.
    fn bend(&self, at: [usize; 3]) -> f64 {
        let value = self.value(at);
        let along = |axis: usize| {
            let (back, on) = (self.stepped(at, axis, -1)?, self.stepped(at, axis, 1)?);
            let cell = f64::from(self.grid.spacing()[axis]) * f64::from(self.grid.scale());
            Some(((back - value) + (on - value)).abs() / cell)
        };
        (0..3).filter_map(along).fold(0.0, f64::max)
    }

    /// The crossing of an edge from the plane of a flat cell at most two cells away. If the planes of two faces cross the edge, the nearer
    /// one counts if the solid is convex there, otherwise the farther one; the values at the ends of the edge tell which case it is.
    fn on_a_flat_cell(&self, start: [usize; 3], end: [usize; 3], axis: usize, bend: f64) -> Option<Plane> {
        let values = [start, end].map(|at| self.value(at) - self.level);
        let outwards = values[0] < 0.0;
        let mut flat: Vec<FlatCell> = self.flat_cells(start, axis).collect();
        flat.sort_by(|a, b| a.doubt.total_cmp(&b.doubt));
        // The best cell for each face.
        let mut faces: Vec<FlatCell> = Vec::new();
        for cell in flat {
            let is_other = faces.iter().all(|face| dot(face.normal, cell.normal) < SAME_FACE);
            if is_other && corners(cell.cell).into_iter().any(|corner| self.bend(corner) <= OF_THE_BEND * bend) {
                faces.push(cell);
            }
        }
        let crossing = |face: &FlatCell| {
            // Only faces that face the direction in which the values grow.
            let part = face.part().filter(|_| (face.ends[1] > face.ends[0]) == outwards)?;
            Some(Plane { part, normal: face.normal, beside_an_edge: true })
        };
        let mut planes: Vec<Plane> = faces.iter().filter_map(crossing).collect();
        planes.sort_by(|a, b| a.part.total_cmp(&b.part));
        let (Some(&first), Some(&last)) = (planes.first(), planes.last()) else { return None };
        // Inside a convex edge the distance is that of the nearest plane, the largest of all; outside a concave edge it is the smallest.
        let fold = |end: usize, most: fn(f64, f64) -> f64| {
            faces.iter().filter(|face| crossing(face).is_some()).map(|face| face.ends[end]).reduce(most).unwrap_or(0.0)
        };
        let (within, beyond) = if outwards { (0, 1) } else { (1, 0) };
        let convex = (fold(within, f64::max) - values[within]).abs() <= (fold(beyond, f64::min) - values[beyond]).abs();
        Some(if convex == outwards { first } else { last })
    }

    /// The cells around an edge whose values are nearly those of a plane.
    fn flat_cells(&self, start: [usize; 3], axis: usize) -> impl Iterator<Item = FlatCell> {
        let shape = self.grid.shape();
        // Two cells on each side of the edge, and two beyond its ends.
        let range = |a: usize| {
            let behind = if a == axis { 3 } else { 2 };
            start[a].saturating_sub(2)..(start[a] + behind).min(shape[a] - 1)
        };
        let [along_x, along_y, along_z] = [range(0), range(1), range(2)];
        along_x
            .flat_map(move |i| {
                let along_z = along_z.clone();
                along_y.clone().flat_map(move |j| along_z.clone().map(move |k| [i, j, k]))
            })
            .filter_map(move |cell| self.flat_cell(cell, start, axis))
    }

    fn flat_cell(&self, cell: [usize; 3], start: [usize; 3], axis: usize) -> Option<FlatCell> {
        let values = corners(cell).map(|corner| self.value(corner));
        // The least-squares plane.
        let side = |bits: usize, axis: usize| if bits >> (2 - axis) & 1 == 1 { 1.0 } else { -1.0 };
        let slope: Vector = std::array::from_fn(|axis| (0..8).map(|bits| 0.25 * side(bits, axis) * values[bits]).sum());
        let mean = values.iter().map(|value| 0.125 * value).sum::<f64>() - self.level;
        let length = dot(slope, slope).sqrt();
        let off = |bits: usize| {
            let linear = (0..3).map(|axis| 0.5 * side(bits, axis) * slope[axis]).sum::<f64>() + mean;
            (values[bits] - self.level - linear).abs()
        };
        let off = (0..8).map(off).fold(0.0, f64::max);
        // Written as a comparison that also excludes NaN.
        if !(off <= FLAT_CELL * length && length > 0.0) {
            return None;
        }
        let to_start: Vector = std::array::from_fn(|a| start[a] as f64 - cell[a] as f64 - 0.5);
        let at_start = mean + dot(slope, to_start);
        let mut to_middle = to_start;
        to_middle[axis] += 0.5;
        let doubt = 10.0 * off / length + 0.02 * dot(to_middle, to_middle);
        Some(FlatCell { cell, ends: [at_start, at_start + slope[axis]], normal: scale(slope, 1.0 / length), doubt })
    }
}

/// The corners of a cell, number 4·di + 2·dj + dk.
fn corners([i, j, k]: [usize; 3]) -> [[usize; 3]; 8] {
    std::array::from_fn(|bits| [i + (bits >> 2), j + (bits >> 1 & 1), k + (bits & 1)])
}

/// The vector scaled to length one. A vector without length does not change, and has no influence.
fn unit(v: Vector) -> Vector {
    let length = dot(v, v).sqrt();
    if length > 0.0 && length.is_finite() { scale(v, 1.0 / length) } else { v.map(|_| 0.0) }
}

/// The point of the unit cell nearest to planes, each given by a point and a unit normal. If several are nearest, the one closest to the
/// mean of the points. Directions in which the planes differ by less than the share `flat` of the sum do not count.
fn meeting_point(planes: &[(Vector, Vector)], flat: f64) -> Vector {
    let sum = planes.iter().fold([0.0; 3], |sum, &(point, _)| add(sum, point));
    let mean = scale(sum, 1.0 / planes.len() as f64);
    let mut quadric = Quadric { matrix: [[0.0; 3]; 3], right: [0.0; 3], flat };
    for &(point, normal) in planes {
        let height = dot(normal, sub(point, mean));
        for r in 0..3 {
            quadric.right[r] += normal[r] * height;
            (0..3).for_each(|c| quadric.matrix[r][c] += normal[r] * normal[c]);
        }
    }
    let within = |point: Vector| point.iter().all(|c| (0.0..=1.0).contains(c));
    let free = add(mean, quadric.least_move([None; 3]));
    if within(free) {
        return free;
    }
    // The best point lies on the border: on a face, an edge or a corner of the cell, and is free along the other axes.
    let mut best = (f64::INFINITY, mean);
    for choice in 1..27 {
        let fixed = [choice % 3, choice / 3 % 3, choice / 9].map(|c| [None, Some(0.0), Some(1.0)][c]);
        let fixed: [Option<f64>; 3] = std::array::from_fn(|a| fixed[a].map(|border| border - mean[a]));
        let moved = quadric.least_move(fixed);
        // Rounding may move it off the border.
        let point = add(mean, moved);
        let cost = quadric.cost(moved) + 1e-9 * dot(moved, moved);
        if point.iter().all(|c| (-1e-9..=1.0 + 1e-9).contains(c)) && cost < best.0 {
            best = (cost, point.map(|c| c.clamp(0.0, 1.0)));
        }
    }
    best.1
}

/// The sum of squared distances to planes, as `x · matrix · x - 2 right · x` and a constant.
struct Quadric {
    matrix: [[f64; 3]; 3],
    right: Vector,
    /// Directions with a smaller share of the matrix's trace do not count.
    flat: f64,
}

impl Quadric {
    fn cost(&self, x: Vector) -> f64 {
        dot(x, self.matrix.map(|row| dot(row, x))) - 2.0 * dot(self.right, x)
    }

    /// The shortest x of the least cost, with some coordinates fixed, using only the matrix's strong directions.
    fn least_move(&self, fixed: [Option<f64>; 3]) -> Vector {
        let mut moved = fixed.map(|c| c.unwrap_or(0.0));
        let is_free = |a: usize| fixed[a].is_none();
        // What remains for the other coordinates after the fixed ones.
        let taken = self.matrix.map(|row| dot(row, moved));
        let right: Vector = std::array::from_fn(|r| if is_free(r) { self.right[r] - taken[r] } else { 0.0 });
        let matrix = std::array::from_fn(|r| {
            std::array::from_fn(|c| if is_free(r) && is_free(c) { self.matrix[r][c] } else { 0.0 })
        });
        let (values, vectors) = eigen(matrix);
        let most = (0..3).map(|a| self.matrix[a][a]).sum::<f64>();
        for (value, vector) in values.into_iter().zip(vectors) {
            if value > self.flat * most && value > 0.0 {
                moved = add(moved, scale(vector, dot(vector, right) / value));
            }
        }
        moved
    }
}

/// Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut m: [[f64; 3]; 3]) -> (Vector, [Vector; 3]) {
    let mut vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..8 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if m[p][q] == 0.0 {
                continue;
            }
            let theta = (m[q][q] - m[p][p]) / (2.0 * m[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
            let cos = 1.0 / (t * t + 1.0).sqrt();
            let sin = t * cos;
            for row in &mut m {
                (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
            }
            for k in 0..3 {
                (m[p][k], m[q][k]) = (cos * m[p][k] - sin * m[q][k], sin * m[p][k] + cos * m[q][k]);
                (vectors[p][k], vectors[q][k]) =
                    (cos * vectors[p][k] - sin * vectors[q][k], sin * vectors[p][k] + cos * vectors[q][k]);
            }
        }
    }
    ([m[0][0], m[1][1], m[2][2]], vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_solve_their_equation() {
        let m = [[4.0, 1.0, -2.0], [1.0, 3.0, 0.5], [-2.0, 0.5, 5.0]];
        let (values, vectors) = eigen(m);
        for (value, vector) in values.into_iter().zip(vectors) {
            for (row, v) in m.iter().zip(vector) {
                assert!((dot(*row, vector) - value * v).abs() < 1e-12);
            }
            assert!((dot(vector, vector) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn planes_meet_in_a_point_of_the_cell() {
        let (x, y, z) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        let near = |a: Vector, b: Vector| assert!(sub(a, b).iter().all(|c| c.abs() < 1e-9), "{a:?} and {b:?}");
        near(meeting_point(&[([0.2, 0.0, 0.0], x), ([0.0, 0.3, 0.0], y), ([0.0, 0.0, 0.9], z)], FLAT), [0.2, 0.3, 0.9]);
        // An edge along z passes through the middle of its points.
        near(meeting_point(&[([0.2, 0.0, 0.4], x), ([0.0, 0.3, 0.8], y)], FLAT), [0.2, 0.3, 0.6]);
        // Planes that meet outside the cell: the nearest point of the border, which is on the plane that cuts the cell.
        near(meeting_point(&[([0.5, 0.0, 0.0], x), ([0.0, 1.5, 0.0], y)], FLAT), [0.5, 1.0, 0.0]);
        // No normal has influence: the mean.
        near(meeting_point(&[([0.5, 0.0, 0.0], [0.0; 3]), ([0.5, 1.0, 0.0], [0.0; 3])], FLAT), [0.5, 0.5, 0.0]);
    }
}
