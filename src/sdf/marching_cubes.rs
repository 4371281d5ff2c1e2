//! Marching cubes (Lorensen and Cline, 1987), with a table that is computed here, not copied.
//!
//! The table follows from two rules. The surface cuts the faces of a cell in [loops](LOOPS), on which neighbours agree. The loops are
//! triangulated without diagonals inside a face of the cell wherever possible, so that no two cells put a triangle edge at the same place.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::cells::{Bits, EDGES, LOOPS, cell_faces};
use super::crossings::{Crossings, code};
use super::grid::SdfGrid;
use crate::wide::wide_fn;

/// The vertex on the edge that begins at a sample and runs along an axis, at least `least` of a cell away from the samples.
#[inline(always)]
pub(super) fn vertex(grid: &SdfGrid, level: f32, least: f32, start: [usize; 3], axis: usize) -> [f32; 3] {
    let [_, ny, nz] = grid.shape();
    let (origin, spacing, values) = (grid.origin(), grid.spacing(), grid.values());
    let place = (start[0] * ny + start[1]) * nz + start[2];
    let (a, b) = (values[place], values[place + [ny * nz, nz, 1][axis]]);
    let mut index = start.map(|c| c as f32);
    index[axis] += (part(a.into(), b.into(), level.into()) as f32).clamp(least, 1.0 - least);
    std::array::from_fn(|c| origin[c] + index[c] * spacing[c])
}

/// Where the level lies between value `a` and value `b` along an edge, 0 to 1. In double precision, since differences of single-precision
/// numbers may overflow.
pub(super) fn part(a: f64, b: f64, level: f64) -> f64 {
    ((level - a) / (b - a)).clamp(0.0, 1.0)
}

/// The triangles of the cells whose samples are all `shown`.
pub(super) fn faces(crossings: &Crossings, shown: Option<&Bits>) -> Vec<[u32; 3]> {
    let slices = (0..crossings.inside.shape[0] - 1).into_par_iter();
    slices.map(|i| of_slice(crossings, shown, i)).collect::<Vec<_>>().concat()
}

wide_fn! {
    /// The triangles between the slices i and i + 1 of samples.
    fn of_slice(crossings: &Crossings, shown: Option<&Bits>, i: usize) -> Vec<[u32; 3]> {
        let (inside, table) = (&crossings.inside, &*TABLE);
        // Most surfaces have twice as many triangles as vertices.
        let mut found = Vec::with_capacity(2 * (crossings.before(i + 1) - crossings.before(i)));
        for j in 0..inside.shape[1] - 1 {
            let (mut word, mut rows) = (usize::MAX, Default::default());
            inside.crossed_cells(i, j, shown, |k, case| {
                if word != k / 64 {
                    word = k / 64;
                    rows = crossings.around(i, j, word);
                }
                for &[a, b, c] in table.triangles(case) {
                    let number = |code: u8| rows.number(code, k);
                    found.push([number(a), number(b), number(c)]);
                }
            });
        }
        found
    }
}

/// For each of the 256 sets of inside corners, the triangles as triples of [codes](code) of cell edges.
struct Table {
    first: [usize; 257],
    triangles: Vec<[u8; 3]>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { first: [0; 257], triangles: Vec::new() };
    for (case, loops) in LOOPS.iter().enumerate() {
        loops.iter().for_each(|outline| triangulate(outline, &mut table.triangles));
        table.first[case + 1] = table.triangles.len();
    }
    table.triangles.iter_mut().flatten().for_each(|edge| *edge = code((*edge).into()));
    table
});

impl Table {
    fn triangles(&self, case: usize) -> &[[u8; 3]] {
        &self.triangles[self.first[case]..self.first[case + 1]]
    }
}

/// Appends the triangulation of a loop with the fewest diagonals inside a face of the cell.
fn triangulate(outline: &[u8], triangles: &mut Vec<[u8; 3]>) {
    let n = outline.len();
    let within_a_face = |a: u8, b: u8| {
        let corners = |edge: u8| {
            let (start, axis) = EDGES[edge as usize];
            let low = 4 * start[0] + 2 * start[1] + start[2];
            [low, low + (4 >> axis)]
        };
        let four = [corners(a), corners(b)].concat();
        cell_faces().any(|face| four.iter().all(|corner| face.contains(corner)))
    };
    // best[i][j]: the cost of triangulating the part from i to j, and the corner at which its last triangle ends.
    let mut best = vec![vec![(0usize, 0usize); n]; n];
    for length in 2..n {
        for i in 0..n - length {
            let j = i + length;
            let own = usize::from(length < n - 1 && within_a_face(outline[i], outline[j]));
            let cheapest = (i + 1..j).map(|m| (best[i][m].0 + best[m][j].0 + own, m)).min();
            best[i][j] = cheapest.unwrap_or_default();
        }
    }
    let mut open = vec![(0, n - 1)];
    while let Some((i, j)) = open.pop() {
        if j - i >= 2 {
            let middle = best[i][j].1;
            triangles.push([outline[i], outline[middle], outline[j]]);
            open.extend([(i, middle), (middle, j)]);
        }
    }
}
