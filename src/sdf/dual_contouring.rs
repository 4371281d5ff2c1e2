//! Dual contouring (Ju, Losasso, Schaefer and Warren, "Dual contouring of Hermite data", 2002): a vertex in each cell that the
//! surface crosses, where the planes of its crossings meet, and a quad around each crossed edge. Edges come out sharper.
//!
//! A grid has no normals. Along the crossed edge the slope is a difference; across it there is one to either side, and beside a
//! sharp edge one of them looks over that edge. Of the four pairs the one is taken whose length is nearest to that of a
//! distance's slope.

use rayon::prelude::*;

use super::SdfGrid;
use crate::mesh::{Mesh, vec3};
use crate::{Error, Result, memory};

const NO_VERTEX: u32 = u32::MAX;

/// Directions in which the planes of a cell differ by less than this share of the most do not count.
const FLAT: f64 = 0.1;

/// The surface of the grid's `level`; `allowed` says of a cell whether it is drawn.
pub(crate) fn dual_contouring(grid: &SdfGrid, level: f32, allowed: impl Fn([usize; 3]) -> bool + Sync) -> Result<Mesh> {
    let shape = grid.shape();
    let cells = shape.map(|n| n - 1);
    let count: usize = cells.iter().product();
    memory::check("dual_contouring", || format!("the cells of a grid of {shape:?} samples"), 4 * count)?;
    let field = Field { grid, level, shape };
    let cell_at = |index: usize| [index / (cells[1] * cells[2]), index / cells[2] % cells[1], index % cells[2]];
    let mut vertex_of = vec![NO_VERTEX; count];
    let found: Vec<Vec<(usize, [f32; 3])>> = (0..cells[0])
        .into_par_iter()
        .map(|i| {
            let slice = i * cells[1] * cells[2]..(i + 1) * cells[1] * cells[2];
            slice
                .filter_map(|index| Some((index, field.vertex(cell_at(index)).filter(|_| allowed(cell_at(index)))?)))
                .collect()
        })
        .collect();
    let mut vertices = Vec::new();
    for (index, position) in found.into_iter().flatten() {
        vertex_of[index] = vertices.len() as u32;
        vertices.push(position);
    }
    let vertex = |cell: [usize; 3]| vertex_of[(cell[0] * cells[1] + cell[1]) * cells[2] + cell[2]];
    let faces: Vec<Vec<[u32; 3]>> = (0..shape[0])
        .into_par_iter()
        .map(|i| {
            let mut faces = Vec::new();
            for (j, k) in (0..shape[1]).flat_map(|j| (0..shape[2]).map(move |k| (j, k))) {
                for axis in 0..3 {
                    let Some(crossing) = field.crossing([i, j, k], axis) else { continue };
                    let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
                    let at = [i, j, k];
                    // The four cells around the edge, counter-clockwise seen from its end.
                    let around = [[1, 1], [0, 1], [0, 0], [1, 0]].map(|[back_u, back_v]| {
                        let mut cell = at;
                        cell[u] = cell[u].checked_sub(back_u)?;
                        cell[v] = cell[v].checked_sub(back_v)?;
                        let within = (0..3).all(|a| cell[a] < cells[a]);
                        Some(vertex(cell)).filter(|&vertex| within && vertex != NO_VERTEX)
                    });
                    let [Some(a), Some(b), Some(c), Some(d)] = around else { continue };
                    let quad = if crossing.outwards { [a, b, c, d] } else { [d, c, b, a] };
                    faces.extend(halves(quad, &vertices, crossing.normal.map(|c| c as f32)));
                }
            }
            faces
        })
        .collect();
    let faces = faces.concat();
    if faces.is_empty() {
        let (got, expected) = (level.to_string(), "one that the grid crosses, in cells that the mask leaves".into());
        return Err(Error::Argument { op: "dual_contouring", name: "level", got, expected });
    }
    Ok(Mesh::new(vertices, faces)?.with_offset(grid.frame().offset)?.drop_unused())
}

/// How far along an edge from value `a` to value `b` the level lies, 0 to 1. In double precision, as differences of single numbers
/// may overflow.
pub(crate) fn part(a: f64, b: f64, level: f64) -> f64 {
    ((level - a) / (b - a)).clamp(0.0, 1.0)
}

/// The two triangles of a quad, cut along the diagonal that leaves both facing the surface's way best.
fn halves([a, b, c, d]: [u32; 4], vertices: &[[f32; 3]], normal: [f32; 3]) -> [[u32; 3]; 2] {
    let agreement = |triangles: &[[u32; 3]; 2]| {
        let facing = triangles.map(|t| {
            let [p, q, r] = t.map(|v| vertices[v as usize]);
            vec3::dot(normal, vec3::normalized(vec3::cross(vec3::sub(q, p), vec3::sub(r, p))))
        });
        facing[0].min(facing[1])
    };
    let cuts = [[[a, b, c], [a, c, d]], [[b, c, d], [b, d, a]]];
    if agreement(&cuts[0]) >= agreement(&cuts[1]) { cuts[0] } else { cuts[1] }
}

/// Where the surface crosses an edge of the grid.
struct Crossing {
    /// In mesh units.
    position: [f32; 3],
    /// The surface's normal, towards larger values.
    normal: [f64; 3],
    /// Values grow along the edge.
    outwards: bool,
}

struct Field<'a> {
    grid: &'a SdfGrid,
    level: f32,
    shape: [usize; 3],
}

impl Field<'_> {
    /// In double precision, in which differences and their squares have room.
    fn value(&self, [i, j, k]: [usize; 3]) -> f64 {
        self.grid.values()[(i * self.shape[1] + j) * self.shape[2] + k].into()
    }

    /// The crossing of the edge that begins at a sample and runs along `axis`, if there is one.
    fn crossing(&self, at: [usize; 3], axis: usize) -> Option<Crossing> {
        let mut end = at;
        end[axis] += 1;
        if end[axis] >= self.shape[axis] {
            return None;
        }
        let (a, b) = (self.value(at), self.value(end));
        let level = f64::from(self.level);
        if (a < level) == (b < level) {
            return None;
        }
        let part = part(a, b, level);
        let spacing = self.grid.spacing();
        let mut position = self.grid.position(at);
        position[axis] += part as f32 * spacing[axis];
        let mut best = [0.0; 3];
        best[axis] = (b - a) / f64::from(spacing[axis]);
        let along = best;
        let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
        let mut least = f64::INFINITY;
        for in_u in self.slopes(at, end, part, u).into_iter().flatten() {
            for in_v in self.slopes(at, end, part, v).into_iter().flatten() {
                let mut slope = along;
                (slope[u], slope[v]) = (in_u, in_v);
                let odd = (vec3::dot(slope, slope).sqrt() - f64::from(self.grid.scale())).abs();
                if odd < least {
                    (least, best) = (odd, slope);
                }
            }
        }
        let normal = vec3::scale(best, 1.0 / vec3::dot(best, best).sqrt());
        Some(Crossing { position, normal, outwards: b > a })
    }

    /// The slope along another axis at a crossing, from the samples before and from those behind.
    fn slopes(&self, at: [usize; 3], end: [usize; 3], part: f64, axis: usize) -> [Option<f64>; 2] {
        let step = |from: [usize; 3], forward: bool| {
            let mut to = from;
            to[axis] = if forward { from[axis] + 1 } else { from[axis].checked_sub(1)? };
            let rise = (to[axis] < self.shape[axis]).then(|| self.value(to) - self.value(from))?;
            Some(if forward { rise } else { -rise } / f64::from(self.grid.spacing()[axis]))
        };
        [false, true].map(|forward| Some((1.0 - part) * step(at, forward)? + part * step(end, forward)?))
    }

    /// The point of a cell that is nearest to the planes of all its crossings; `None` when there is none.
    fn vertex(&self, cell: [usize; 3]) -> Option<[f32; 3]> {
        let corner = |bits: usize| std::array::from_fn(|axis| cell[axis] + (bits >> axis & 1));
        let below = (0..8).filter(|&bits| self.value(corner(bits)) < f64::from(self.level)).count();
        if below == 0 || below == 8 {
            return None;
        }
        let spacing = self.grid.spacing();
        let low = self.grid.position(cell);
        let mut crossings = Vec::with_capacity(12);
        for (axis, bits) in (0..3).flat_map(|axis| (0..8).map(move |bits| (axis, bits))) {
            if bits >> axis & 1 == 0 {
                crossings.extend(self.crossing(corner(bits), axis));
            }
        }
        // In cells from the mean of the crossings, where all directions count alike.
        let scaled = |p: [f32; 3]| -> [f64; 3] { std::array::from_fn(|a| f64::from(p[a] / spacing[a])) };
        let count = crossings.len() as f64;
        let sum = crossings.iter().fold([0.0; 3], |sum, crossing| vec3::add(sum, scaled(crossing.position)));
        let mean = vec3::scale(sum, 1.0 / count);
        let mut matrix = [[0.0; 3]; 3];
        let mut right = [0.0; 3];
        for Crossing { position, normal, .. } in &crossings {
            let normal: [f64; 3] = std::array::from_fn(|a| normal[a] * f64::from(spacing[a]));
            let length = vec3::dot(normal, normal).sqrt().max(f64::MIN_POSITIVE);
            let normal = vec3::scale(normal, 1.0 / length);
            let height = vec3::dot(normal, vec3::sub(scaled(*position), mean));
            for r in 0..3 {
                right[r] += normal[r] * height;
                (0..3).for_each(|c| matrix[r][c] += normal[r] * normal[c]);
            }
        }
        let moved = vec3::add(mean, least_move(matrix, right));
        Some(std::array::from_fn(|a| {
            let (low, cell) = (low[a], spacing[a]);
            (moved[a] as f32 * cell).clamp(low, low + cell)
        }))
    }
}

/// The shortest x that solves `matrix · x = right` as well as its strong directions allow, for a symmetric matrix.
fn least_move(matrix: [[f64; 3]; 3], right: [f64; 3]) -> [f64; 3] {
    let (values, vectors) = eigen(matrix);
    let most = values.into_iter().fold(0.0, f64::max);
    let mut moved = [0.0; 3];
    for (value, vector) in values.into_iter().zip(vectors) {
        if value > FLAT * most && value > 0.0 {
            moved = vec3::add(moved, vec3::scale(vector, vec3::dot(vector, right) / value));
        }
    }
    moved
}

/// Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut m: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
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
                assert!((vec3::dot(*row, vector) - value * v).abs() < 1e-12);
            }
            assert!((vec3::dot(vector, vector) - 1.0).abs() < 1e-12);
        }
        let moved = least_move([[2.0, 0.0, 0.0], [0.0, 1e-9, 0.0], [0.0, 0.0, 0.0]], [1.0, 1.0, 0.0]);
        assert_eq!(moved, [0.5, 0.0, 0.0]);
    }
}
