//! The cells of a grid through which a surface passes, and the edges between samples that it crosses.
//!
//! Rows of samples along z are bit masks: an exclusive or finds the crossings, counting bits numbers them, and most cells are skipped
//! sixty-four at a time.

use std::sync::LazyLock;

use rayon::prelude::*;

/// The samples that are set (inside, or shown), one bit each. A row of samples along z begins a new word.
pub(super) struct Bits {
    pub shape: [usize; 3],
    pub words: usize,
    bits: Vec<u64>,
}

/// The bits of up to 64 samples, the first sample in the lowest bit.
#[inline(always)]
fn word<T>(samples: &[T], is_set: impl Fn(&T) -> bool) -> u64 {
    let mut set = [0u8; 64];
    set.iter_mut().zip(samples).for_each(|(set, sample)| *set = u8::from(is_set(sample)));
    // The multiplication gathers the lowest bits of eight bytes in its highest byte.
    let gathered = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    set.as_chunks::<8>().0.iter().rev().fold(0, |word, bytes| word << 8 | gathered(bytes))
}

impl Bits {
    pub fn new<T: Sync>(shape: [usize; 3], values: &[T], is_set: impl Fn(&T) -> bool + Sync) -> Self {
        let [nx, ny, nz] = shape;
        let words = nz.div_ceil(64);
        let mut bits = vec![0; nx * ny * words];
        bits.par_chunks_mut(ny * words).zip(values.par_chunks(ny * nz)).for_each(|(bits, values)| {
            for (bits, row) in bits.chunks_exact_mut(words).zip(values.chunks_exact(nz)) {
                let (whole, rest) = row.as_chunks::<64>();
                bits.iter_mut().zip(whole).for_each(|(bits, samples)| *bits = word(samples, &is_set));
                if !rest.is_empty() {
                    bits[words - 1] = word(rest, &is_set);
                }
            }
        });
        Self { shape, words, bits }
    }

    fn row(&self, i: usize, j: usize) -> &[u64] {
        let at = (i * self.shape[1] + j) * self.words;
        &self.bits[at..at + self.words]
    }

    /// The bits of a word that belong to intervals (k, k + 1) of the row.
    fn intervals(&self, word: usize) -> u64 {
        let count = self.shape[2] - 1 - (64 * word).min(self.shape[2] - 1);
        if count >= 64 { u64::MAX } else { (1 << count) - 1 }
    }

    /// The four rows of the cells at (i, j): by larger j, then by larger i.
    #[inline(always)]
    fn around(&self, i: usize, j: usize) -> [&[u64]; 4] {
        [self.row(i, j), self.row(i, j + 1), self.row(i + 1, j), self.row(i + 1, j + 1)]
    }

    /// For a word and the next one in four rows: the bits that some row has, and the bits that all rows have.
    #[inline(always)]
    fn some_and_all(rows: &[&[u64]; 4], word: usize) -> [u64; 2] {
        if word >= rows[0].len() {
            return [0, 0];
        }
        let [a, b, c, d] = rows.map(|row| row[word]);
        [a | b | c | d, a & b & c & d]
    }

    /// Calls `visit(k, case)`, in order, for every cell (i, j, k) with corners of both kinds. Bit 4·di + 2·dj + dk of the case is set if
    /// that corner is. If `shown` is given, only cells count whose corners are all shown.
    #[inline(always)]
    pub fn crossed_cells(&self, i: usize, j: usize, shown: Option<&Bits>, mut visit: impl FnMut(usize, usize)) {
        let rows = self.around(i, j);
        let mut now = Self::some_and_all(&rows, 0);
        for word in 0..self.words {
            let behind = Self::some_and_all(&rows, word + 1);
            let some = now[0] | now[0] >> 1 | behind[0] << 63;
            let all = now[1] & (now[1] >> 1 | behind[1] << 63);
            now = behind;
            let mut mixed = some & !all & self.intervals(word);
            if mixed == 0 {
                continue;
            }
            if let Some(shown) = shown {
                let rows = shown.around(i, j);
                let [[_, now], [_, behind]] = [word, word + 1].map(|word| Self::some_and_all(&rows, word));
                mixed &= now & (now >> 1 | behind << 63);
            }
            let pairs = rows.map(|row| (row[word], row.get(word + 1).map_or(0, |next| next << 1)));
            while mixed != 0 {
                let bit = mixed.trailing_zeros();
                mixed &= mixed - 1;
                let two = |(low, high): (u64, u64)| ((low >> bit | high << (63 - bit)) & 3) as usize;
                let [a, b, c, d] = pairs.map(two);
                visit(64 * word + bit as usize, a | b << 2 | c << 4 | d << 6);
            }
        }
    }
}

/// The grid edges that the surface crosses, numbered in the order of (i, j, axis, k).
pub(super) struct Crossings<'a> {
    inside: &'a Bits,
    /// For each (i, j, axis, word): the number of the first crossed edge that begins at samples of this word.
    first: Vec<u32>,
    /// The number of crossed edges before each slice of samples, and the total.
    before: Vec<usize>,
}

/// The crossed edges of the cells at (i, j, 64·word..): the mask of a word and the number of its first edge, for the rows of edges along x
/// (at j, j + 1), along y (at i, i + 1), and along z (at (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)).
#[derive(Clone, Copy, Default)]
pub(super) struct EdgeRows([(u64, u32); 8]);

impl EdgeRows {
    /// The number of an edge of the cell at `k`. The edge must be crossed.
    #[inline(always)]
    pub fn number(&self, edge: usize, k: usize) -> u32 {
        let (row, far) = ROW_OF_EDGE[edge];
        let (mask, first) = self.0[row as usize];
        // Edges that begin at k + 1 in the next word are numbered after all of this word.
        let before = (1u64 << (k % 64)) - 1;
        first + (mask & if far { before << 1 | 1 } else { before }).count_ones()
    }
}

/// For each edge of a cell: its row in [`EdgeRows`], and whether it begins at k + 1.
const ROW_OF_EDGE: [(u8, bool); 12] = {
    let mut rows = [(0, false); 12];
    let mut edge = 0;
    while edge < 12 {
        let (axis, u, v) = (edge / 4, edge % 4 / 2, edge % 2);
        rows[edge] = if axis == 2 { (4 + 2 * u as u8 + v as u8, false) } else { (2 * axis as u8 + u as u8, v == 1) };
        edge += 1;
    }
    rows
};

impl<'a> Crossings<'a> {
    pub fn new(inside: &'a Bits) -> Self {
        let ([nx, ny, _], words) = (inside.shape, inside.words);
        let mut first = vec![0u32; nx * ny * 3 * words];
        let slices = first.par_chunks_mut(ny * 3 * words).enumerate();
        let counts: Vec<usize> = slices
            .map(|(i, first)| {
                let mut count = 0;
                for (at, first) in first.iter_mut().enumerate() {
                    *first = count;
                    count += mask(inside, [i, at / (3 * words)], at / words % 3, at % words).count_ones();
                }
                count as usize
            })
            .collect();
        let mut before = vec![0];
        counts.iter().for_each(|count| before.push(before[before.len() - 1] + count));
        first.par_chunks_mut(ny * 3 * words).zip(&before).for_each(|(first, &before)| {
            first.iter_mut().for_each(|first| *first = first.wrapping_add(before as u32));
        });
        Self { inside, first, before }
    }

    pub fn len(&self) -> usize {
        self.before[self.inside.shape[0]]
    }

    /// The number of crossed edges in the slices of samples before slice i.
    pub fn before(&self, i: usize) -> usize {
        self.before[i]
    }

    /// The number of crossed edges in each slice of samples.
    pub fn in_slices(&self) -> impl Iterator<Item = usize> {
        self.before.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// Calls `visit(first sample, axis)` for each crossed edge that begins in slice i, in the order of their numbers.
    #[inline(always)]
    pub fn of_slice(&self, i: usize, mut visit: impl FnMut([usize; 3], usize)) {
        for j in 0..self.inside.shape[1] {
            for axis in 0..3 {
                for word in 0..self.inside.words {
                    let mut mask = mask(self.inside, [i, j], axis, word);
                    while mask != 0 {
                        visit([i, j, 64 * word + mask.trailing_zeros() as usize], axis);
                        mask &= mask - 1;
                    }
                }
            }
        }
    }

    /// The edges of the cells at (i, j), from the first sample of the word on.
    #[inline(always)]
    pub fn around(&self, i: usize, j: usize, word: usize) -> EdgeRows {
        let row = |i: usize, j: usize, axis: usize| {
            let first = self.first[((i * self.inside.shape[1] + j) * 3 + axis) * self.inside.words + word];
            (mask(self.inside, [i, j], axis, word), first)
        };
        EdgeRows([
            row(i, j, 0),
            row(i, j + 1, 0),
            row(i, j, 1),
            row(i + 1, j, 1),
            row(i, j, 2),
            row(i, j + 1, 2),
            row(i + 1, j, 2),
            row(i + 1, j + 1, 2),
        ])
    }
}

/// The crossed edges along `axis` that begin at samples of a word of row (i, j).
#[inline(always)]
fn mask(inside: &Bits, [i, j]: [usize; 2], axis: usize, word: usize) -> u64 {
    let [nx, ny, _] = inside.shape;
    let row = inside.row(i, j);
    match axis {
        0 if i + 1 < nx => row[word] ^ inside.row(i + 1, j)[word],
        1 if j + 1 < ny => row[word] ^ inside.row(i, j + 1)[word],
        2 => {
            let next = row[word] >> 1 | row.get(word + 1).map_or(0, |next| next << 63);
            (row[word] ^ next) & inside.intervals(word)
        }
        _ => 0,
    }
}

/// The number of a cell's edge that begins at the corner `start` and runs along `axis`.
pub(super) const fn edge_at(start: [usize; 3], axis: usize) -> usize {
    4 * axis
        + match axis {
            0 => 2 * start[1] + start[2],
            1 => 2 * start[0] + start[2],
            _ => 2 * start[0] + start[1],
        }
}

/// The twelve edges of a cell: the start and the axis of each.
pub(super) const EDGES: [([usize; 3], usize); 12] = {
    let mut edges = [([0; 3], 0); 12];
    let mut corner = 0;
    while corner < 8 {
        let start = [corner >> 2, corner >> 1 & 1, corner & 1];
        let mut axis = 0;
        while axis < 3 {
            if start[axis] == 0 {
                edges[edge_at(start, axis)] = (start, axis);
            }
            axis += 1;
        }
        corner += 1;
    }
    edges
};

/// The corners of the six faces of a cell (corner 4x + 2y + z), each counter-clockwise seen from outside.
pub(super) fn cell_faces() -> impl Iterator<Item = [usize; 4]> {
    (0..6).map(|face| {
        let (axis, high) = (face / 2, face % 2);
        let bit = |axis: usize| 4 >> axis;
        let (u, v) = (bit((axis + 1) % 3), bit((axis + 2) % 3));
        let base = high * bit(axis);
        let [second, fourth] = if high == 1 { [u, v] } else { [v, u] };
        [base, base + second, base + u + v, base + fourth]
    })
}

/// The edge between two neighbouring corners of a cell.
fn edge_between(a: usize, b: usize) -> u8 {
    let low = a & b;
    let axis = 2 - (a ^ b).trailing_zeros() as usize;
    edge_at([low >> 2 & 1, low >> 1 & 1, low & 1], axis) as u8
}

/// For each of the 256 sets of inside corners: the closed lines in which the surface cuts the faces of a cell, as sequences of cell edges.
/// Each line bounds a sheet of the surface.
///
/// If the inside corners of a face lie on a diagonal, each inside corner is cut off separately. Neighbouring cells see the same corners and
/// draw the same lines, so the surface has no cracks.
pub(super) static LOOPS: LazyLock<Vec<Vec<Vec<u8>>>> = LazyLock::new(|| (0..256).map(loops).collect());

fn loops(case: usize) -> Vec<Vec<u8>> {
    let inside = |corner: usize| case >> corner & 1 == 1;
    // On each face, a line cuts off every run of inside corners; it leads from the edge at which the run starts to the edge at which it
    // ends.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_edges_are_those_that_a_plain_search_finds() {
        // Rows that end inside, at and after a word.
        for shape @ [nx, ny, nz] in [[3, 4, 5], [4, 3, 64], [3, 3, 65], [2, 5, 130]] {
            let values: Vec<u32> = (0..(nx * ny * nz) as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 20).collect();
            let is_set = |&v: &u32| v % 5 < 3;
            let bits = Bits::new(shape, &values, is_set);
            let at = |[i, j, k]: [usize; 3]| is_set(&values[(i * ny + j) * nz + k]);
            let crossings = Crossings::new(&bits);
            let mut numbers = std::collections::HashMap::new();
            for i in 0..nx {
                crossings.of_slice(i, |start, axis| {
                    let number = numbers.len() as u32;
                    numbers.insert((start, axis), number);
                });
            }
            assert_eq!(numbers.len(), crossings.len());
            assert_eq!(crossings.in_slices().sum::<usize>(), crossings.len());
            let mut crossed = 0;
            for (i, j) in (0..nx - 1).flat_map(|i| (0..ny - 1).map(move |j| (i, j))) {
                let mut found = Vec::new();
                bits.crossed_cells(i, j, None, |k, case| {
                    found.push((k, case));
                    let rows = crossings.around(i, j, k / 64);
                    for (edge, &([di, dj, dk], axis)) in EDGES.iter().enumerate() {
                        let start = [i + di, j + dj, k + dk];
                        let mut end = start;
                        end[axis] += 1;
                        assert_eq!(at(start) != at(end), numbers.contains_key(&(start, axis)));
                        if let Some(&number) = numbers.get(&(start, axis)) {
                            assert_eq!(rows.number(edge, k), number, "{start:?} along {axis} of {shape:?}");
                        }
                    }
                });
                let case = |k: usize| {
                    (0..8).fold(0, |case, c| case | usize::from(at([i + (c >> 2), j + (c >> 1 & 1), k + (c & 1)])) << c)
                };
                let wanted: Vec<_> = (0..nz - 1).map(|k| (k, case(k))).filter(|&(_, c)| c != 0 && c != 255).collect();
                crossed += wanted.len();
                assert_eq!(found, wanted);
            }
            assert!(crossed > 0);
        }
    }
}
