//! Marching cubes (Lorensen and Cline, 1987) with a table that is made here, not copied.
//!
//! The table follows from two rules. On a face of a cell whose inside corners lie on a diagonal, each inside corner is
//! cut off by itself: neighbours see the same corners, hence draw the same lines, and the surface has no cracks. The
//! loops of lines are triangulated without diagonals within a face of the cell wherever possible, so that no two
//! cells put a triangle edge at the same place.
//!
//! Rows of the grid are bit masks: a crossing is an exclusive or, a vertex number a count of bits.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::dual_contouring::{dual_contouring, part};
use super::grid::SdfGrid;
use crate::mesh::Mesh;
use crate::{Error, Result};

/// Which surface is drawn, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IsosurfaceConfig {
    /// The value on the surface.
    pub level: f32,
    /// How it is drawn.
    pub method: IsosurfaceMethod,
    /// Vertices keep a thousandth of a cell away from the samples, so that no triangle of marching cubes lacks an area: for
    /// solvers and for texturing. Where samples lie on the surface it moves by as much.
    pub no_zero_area: bool,
    /// One entry a sample, in the order of the values: only cells whose eight samples are all `true` are drawn.
    pub mask: Option<Vec<bool>>,
}

setters! {
    IsosurfaceConfig {
        level(level: f32) => level = level;
        method(method: IsosurfaceMethod) => method = method;
        no_zero_area(no_zero_area: bool) => no_zero_area = no_zero_area;
        mask(mask: Vec<bool>) => mask = Some(mask);
    }
}

/// How a surface is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsosurfaceMethod {
    /// Marching cubes: watertight unless the surface leaves the grid; edges are cut off by up to a cell.
    #[default]
    MarchingCubes,
    /// Dual contouring: edges and corners of solids come out sharper. Closed, but where two sheets pass through one cell they share a
    /// vertex, so that the mesh need not be a manifold there.
    DualContouring,
}

/// The surface of a grid as `config` asks for, in mesh units, facing towards larger values.
///
/// # Errors
/// As [`marching_cubes`]; when the mask does not have one entry a sample, or leaves no surface.
///
/// ```
/// use wavemesh::sdf::{IsosurfaceConfig, IsosurfaceMethod, isosurface, shapes::cuboid};
/// let grid = cuboid([0.51, 0.52, 0.53]).to_grid(24)?;
/// let sharp = IsosurfaceConfig::new().method(IsosurfaceMethod::DualContouring);
/// assert!(isosurface(&grid, &sharp)?.is_closed());
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn isosurface(grid: &SdfGrid, config: &IsosurfaceConfig) -> Result<Mesh> {
    let shape @ [_, ny, nz] = grid.shape();
    if let Some(mask) = config.mask.as_ref().filter(|mask| mask.len() != grid.values().len()) {
        let (got, expected) =
            (format!("{} entries", mask.len()), format!("one for each of {} samples", grid.values().len()));
        return Err(Error::Argument { op: "isosurface", name: "mask", got, expected });
    }
    let mask = config.mask.as_deref();
    match config.method {
        IsosurfaceMethod::MarchingCubes => {
            let mesh = draw(grid, config.level, config.no_zero_area, mask)?;
            Ok(if mask.is_some() { mesh.drop_unused() } else { mesh })
        }
        IsosurfaceMethod::DualContouring => {
            check_shape(shape)?;
            let shown = |[i, j, k]: [usize; 3]| {
                let sample = |bits: usize| ((i + (bits >> 2)) * ny + j + (bits >> 1 & 1)) * nz + k + (bits & 1);
                mask.is_none_or(|mask| (0..8).all(|bits| mask[sample(bits)]))
            };
            dual_contouring(grid, config.level, shown)
        }
    }
}

fn check_shape(shape: [usize; 3]) -> Result<()> {
    if shape.iter().all(|&n| n >= 2) {
        return Ok(());
    }
    let expected = "at least two samples an axis".into();
    Err(Error::Argument { op: "marching_cubes", name: "the grid's shape", got: format!("{shape:?}"), expected })
}

/// The surface on which a grid has the value `level`, in mesh units, facing towards larger values. It is watertight
/// unless it leaves the grid.
///
/// # Errors
/// When the grid has fewer than two samples along an axis, or the surface is empty.
pub fn marching_cubes(grid: &SdfGrid, level: f32) -> Result<Mesh> {
    draw(grid, level, false, None)
}

fn draw(grid: &SdfGrid, level: f32, no_zero_area: bool, mask: Option<&[bool]>) -> Result<Mesh> {
    check_shape(grid.shape())?;
    let rows = Rows::new(grid.shape(), grid.values(), |&v| v < level);
    let crossings = Crossings::new(&rows);
    if crossings.total == 0 {
        let (lo, hi) = grid.values().iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let expected = format!("one that the grid crosses; its values lie in {lo}..={hi}");
        return Err(Error::Argument { op: "marching_cubes", name: "level", got: level.to_string(), expected });
    }
    let shown = mask.map(|mask| Rows::new(grid.shape(), mask, |&shown| shown));
    let faces = faces(&rows, &crossings, shown.as_ref());
    if faces.is_empty() {
        let (got, expected) = ("one that hides the surface".into(), "one that leaves a cell of it".into());
        return Err(Error::Argument { op: "isosurface", name: "mask", got, expected });
    }
    let least = if no_zero_area { LEAST_PART } else { 0.0 };
    let mesh = Mesh::new(vertices(grid, level, least, &crossings), faces)?;
    mesh.with_offset(grid.frame().offset)
}

impl SdfGrid {
    /// The surface where the distance is zero, by marching cubes, in the mesh's own coordinates.
    ///
    /// # Errors
    /// When the grid has fewer than two samples along an axis, or no sample differs in sign from another.
    pub fn to_mesh(&self) -> Result<Mesh> {
        marching_cubes(self, 0.0)
    }
}

/// How near a vertex comes to a sample, in cells, where triangles must have an area. No three edges of a cell have points in a
/// line, so that three vertices within edges always span a triangle.
const LEAST_PART: f32 = 1e-3;

/// Which samples are set (inside, or shown), a bit each; a row of samples along z begins a new word.
struct Rows {
    shape: [usize; 3],
    words: usize,
    bits: Vec<u64>,
}

impl Rows {
    fn new<T: Sync>(shape: [usize; 3], values: &[T], is_set: impl Fn(&T) -> bool + Sync) -> Self {
        let [nx, ny, nz] = shape;
        let words = nz.div_ceil(64);
        let mut bits = vec![0; nx * ny * words];
        bits.par_chunks_mut(ny * words).zip(values.par_chunks(ny * nz)).for_each(|(bits, values)| {
            for (bits, row) in bits.chunks_mut(words).zip(values.chunks(nz)) {
                for (word, samples) in bits.iter_mut().zip(row.chunks(64)) {
                    *word = samples.iter().rev().fold(0, |word, v| word << 1 | u64::from(is_set(v)));
                }
            }
        });
        Self { shape, words, bits }
    }

    fn row(&self, i: usize, j: usize) -> &[u64] {
        let at = (i * self.shape[1] + j) * self.words;
        &self.bits[at..at + self.words]
    }

    /// Bit k is sample 64·word + k + 1 of the row.
    fn next(row: &[u64], word: usize) -> u64 {
        row[word] >> 1 | row.get(word + 1).map_or(0, |next| next << 63)
    }

    /// The bits of a word that stand for an interval (k, k+1) of the row.
    fn intervals(&self, word: usize) -> u64 {
        let count = self.shape[2] - 1 - (64 * word).min(self.shape[2] - 1);
        if count >= 64 { u64::MAX } else { (1 << count) - 1 }
    }
}

/// The edges of the grid that the surface crosses. Each carries one vertex, numbered by (i, j, axis, k).
struct Crossings {
    shape: [usize; 3],
    words: usize,
    /// For each (i, j, axis, word): the crossed edges that begin at samples of that word, and the number of the first.
    masks: Vec<(u64, u32)>,
    total: usize,
}

impl Crossings {
    fn new(rows: &Rows) -> Self {
        let ([nx, ny, _], words) = (rows.shape, rows.words);
        let mut masks = vec![(0u64, 0u32); nx * ny * 3 * words];
        masks.par_chunks_mut(ny * 3 * words).enumerate().for_each(|(i, masks)| {
            for (j, masks) in masks.chunks_mut(3 * words).enumerate() {
                let row = rows.row(i, j);
                for w in 0..words {
                    if i + 1 < nx {
                        masks[w].0 = row[w] ^ rows.row(i + 1, j)[w];
                    }
                    if j + 1 < ny {
                        masks[words + w].0 = row[w] ^ rows.row(i, j + 1)[w];
                    }
                    masks[2 * words + w].0 = (row[w] ^ Rows::next(row, w)) & rows.intervals(w);
                }
            }
        });
        let mut total = 0usize;
        for (mask, first) in &mut masks {
            *first = total as u32;
            total += mask.count_ones() as usize;
        }
        Self { shape: rows.shape, words, masks, total }
    }

    /// The number of the vertex on the edge that begins at sample (i, j, k) and runs along `axis`; it must be crossed.
    fn vertex(&self, [i, j, k]: [usize; 3], axis: usize) -> u32 {
        let (mask, first) = self.masks[((i * self.shape[1] + j) * 3 + axis) * self.words + k / 64];
        first + (mask & ((1 << (k % 64)) - 1)).count_ones()
    }
}

fn vertices(grid: &SdfGrid, level: f32, least: f32, crossings: &Crossings) -> Vec<[f32; 3]> {
    let [_, ny, nz] = grid.shape();
    let (origin, spacing, values) = (grid.origin(), grid.spacing(), grid.values());
    let step = [ny * nz, nz, 1];
    let slice = |(i, masks): (usize, &[(u64, u32)])| {
        let mut found = Vec::with_capacity(masks.iter().map(|m| m.0.count_ones() as usize).sum());
        for (at, &(mut mask, _)) in masks.iter().enumerate() {
            let (j, axis, word) = (at / (3 * crossings.words), at / crossings.words % 3, at % crossings.words);
            while mask != 0 {
                let k = 64 * word + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let place = (i * ny + j) * nz + k;
                let (a, b) = (values[place], values[place + step[axis]]);
                let mut index = [i as f32, j as f32, k as f32];
                let part = part(a.into(), b.into(), level.into()) as f32;
                index[axis] += part.clamp(least, 1.0 - least);
                found.push(std::array::from_fn(|c| origin[c] + index[c] * spacing[c]));
            }
        }
        found
    };
    let slices: Vec<Vec<[f32; 3]>> =
        crossings.masks.par_chunks(ny * 3 * crossings.words).enumerate().map(slice).collect();
    slices.concat()
}

/// The triangles of the cells whose samples are all `shown`.
fn faces(rows: &Rows, crossings: &Crossings, shown: Option<&Rows>) -> Vec<[u32; 3]> {
    let [nx, ny, _] = rows.shape;
    let table = &*TABLE;
    let slice = |i: usize| {
        let mut found = Vec::new();
        for j in 0..ny - 1 {
            // The cell's four rows; corner number 4·di + 2·dj + dk.
            let around = |rows: &Rows, word: usize| -> [u64; 8] {
                let around = [rows.row(i, j), rows.row(i, j + 1), rows.row(i + 1, j), rows.row(i + 1, j + 1)];
                std::array::from_fn(|c| if c & 1 == 0 { around[c / 2][word] } else { Rows::next(around[c / 2], word) })
            };
            for word in 0..rows.words {
                let corners = around(rows, word);
                let some = corners.iter().fold(0, |a, b| a | b);
                let all = corners.iter().fold(u64::MAX, |a, b| a & b);
                let mut mixed = some & !all & rows.intervals(word);
                if let Some(shown) = shown {
                    mixed &= around(shown, word).iter().fold(u64::MAX, |a, b| a & b);
                }
                while mixed != 0 {
                    let bit = mixed.trailing_zeros();
                    mixed &= mixed - 1;
                    let case = (0..8).fold(0, |case, c| case | ((corners[c] >> bit & 1) as usize) << c);
                    let k = 64 * word + bit as usize;
                    let vertex = |edge: u8| {
                        let ([di, dj, dk], axis) = EDGES[edge as usize];
                        crossings.vertex([i + di, j + dj, k + dk], axis)
                    };
                    found.extend(table.triangles(case).iter().map(|t| t.map(vertex)));
                }
            }
        }
        found
    };
    let slices: Vec<Vec<[u32; 3]>> = (0..nx - 1).into_par_iter().map(slice).collect();
    slices.concat()
}

/// The twelve edges of a cell: where each begins, and the axis that it runs along.
const EDGES: [([usize; 3], usize); 12] = {
    let mut edges = [([0; 3], 0); 12];
    let mut e = 0;
    while e < 12 {
        let axis = e / 4;
        let (u, v) = (e % 4 / 2, e % 2);
        edges[e] = (
            if axis == 0 {
                [0, u, v]
            } else if axis == 1 {
                [u, 0, v]
            } else {
                [u, v, 0]
            },
            axis,
        );
        e += 1;
    }
    edges
};

/// For each of the 256 sets of inside corners, the triangles as triples of cell edges.
struct Table {
    first: [usize; 257],
    triangles: Vec<[u8; 3]>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { first: [0; 257], triangles: Vec::new() };
    for case in 0..256 {
        for outline in loops(case) {
            triangulate(&outline, &mut table.triangles);
        }
        table.first[case + 1] = table.triangles.len();
    }
    table
});

impl Table {
    fn triangles(&self, case: usize) -> &[[u8; 3]] {
        &self.triangles[self.first[case]..self.first[case + 1]]
    }
}

/// The edge between two neighbouring corners of a cell (corner 4x + 2y + z).
fn edge_between(a: usize, b: usize) -> u8 {
    let low = a & b;
    let axis = 2 - (a ^ b).trailing_zeros() as usize;
    let start = [low >> 2 & 1, low >> 1 & 1, low & 1];
    EDGES.iter().position(|&edge| edge == (start, axis)).unwrap_or_default() as u8
}

/// The corners of the six faces of a cell, each counter-clockwise seen from outside.
fn cell_faces() -> impl Iterator<Item = [usize; 4]> {
    (0..6).map(|face| {
        let (axis, high) = (face / 2, face % 2);
        let bit = |axis: usize| 4 >> axis;
        let (u, v) = (bit((axis + 1) % 3), bit((axis + 2) % 3));
        let base = high * bit(axis);
        let [second, fourth] = if high == 1 { [u, v] } else { [v, u] };
        [base, base + second, base + u + v, base + fourth]
    })
}

/// The closed lines in which the surface cuts the faces of a cell, as sequences of cell edges.
fn loops(case: usize) -> Vec<Vec<u8>> {
    let inside = |corner: usize| case >> corner & 1 == 1;
    // On each face a line cuts off every run of inside corners; it leads from the edge that enters the run to the one
    // that leaves it.
    let mut next = [None; 12];
    for face in cell_faces() {
        for start in 0..4 {
            if inside(face[start]) && !inside(face[(start + 3) % 4]) {
                let entry = edge_between(face[(start + 3) % 4], face[start]);
                let Some(end) = (start..start + 4).find(|&c| !inside(face[(c + 1) % 4])) else { continue };
                next[entry as usize] = Some(edge_between(face[end % 4], face[(end + 1) % 4]));
            }
        }
    }
    let mut found = Vec::new();
    for start in 0..12u8 {
        let mut outline = Vec::new();
        let mut at = start;
        while let Some(following) = next[at as usize].take() {
            outline.push(at);
            at = following;
        }
        if !outline.is_empty() {
            found.push(outline);
        }
    }
    found
}

/// Appends the triangulation of a loop that has the fewest diagonals within a face of the cell.
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
    // best[i][j]: the cost of triangulating the part from i to j, and the corner that its last triangle ends at.
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
