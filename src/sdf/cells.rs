//! The cells of a grid through which a surface passes.
//!
//! Rows of samples along z are bit masks, so that most cells are skipped sixty-four at a time.

use std::sync::LazyLock;

use rayon::prelude::*;

use crate::wide::wide_fn;

/// The samples that are set (inside, or shown), one bit each. A row of samples along z begins a new word.
pub(super) struct Bits {
    pub shape: [usize; 3],
    pub words: usize,
    pub bits: Vec<u64>,
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

/// Sets the bits of a slice from its samples, which lie in rows of `nz`.
#[inline(always)]
fn fill<T>(bits: &mut [u64], samples: &[T], nz: usize, is_set: impl Fn(&T) -> bool) {
    for (bits, row) in bits.chunks_exact_mut(nz.div_ceil(64)).zip(samples.chunks_exact(nz)) {
        let (whole, rest) = row.as_chunks::<64>();
        bits.iter_mut().zip(whole).for_each(|(bits, samples)| *bits = word(samples, &is_set));
        if let Some(last) = bits.last_mut().filter(|_| !rest.is_empty()) {
            *last = word(rest, &is_set);
        }
    }
}

wide_fn! {
    /// Sets the bits of the samples that are below `level`.
    pub(super) fn fill_below(bits: &mut [u64], samples: &[f32], nz: usize, level: f32) {
        fill(bits, samples, nz, |&value| value < level);
    }
}

wide_fn! {
    /// Sets the bits of the samples that are `true`.
    fn fill_true(bits: &mut [u64], samples: &[bool], nz: usize) {
        fill(bits, samples, nz, |&value| value);
    }
}

impl Bits {
    /// The samples with a `true`.
    pub fn new(shape: [usize; 3], mask: &[bool]) -> Self {
        let [nx, ny, nz] = shape;
        let words = nz.div_ceil(64);
        let mut bits = vec![0; nx * ny * words];
        let slices = bits.par_chunks_mut(ny * words).zip(mask.par_chunks(ny * nz));
        slices.for_each(|(bits, samples)| fill_true(bits, samples, nz));
        Self { shape, words, bits }
    }

    fn row(&self, i: usize, j: usize) -> &[u64] {
        let at = (i * self.shape[1] + j) * self.words;
        &self.bits[at..at + self.words]
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
        let (a, b, c, d) = (rows[0][word], rows[1][word], rows[2][word], rows[3][word]);
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
            let mut mixed = some & !all & intervals(self.shape[2], word);
            if mixed == 0 {
                continue;
            }
            if let Some(shown) = shown {
                let rows = shown.around(i, j);
                let [[_, now], [_, behind]] = [word, word + 1].map(|word| Self::some_and_all(&rows, word));
                mixed &= now & (now >> 1 | behind << 63);
            }
            let pair = |row: &[u64]| (row[word], row.get(word + 1).map_or(0, |next| next << 1));
            let (a, b, c, d) = (pair(rows[0]), pair(rows[1]), pair(rows[2]), pair(rows[3]));
            while mixed != 0 {
                let bit = mixed.trailing_zeros();
                mixed &= mixed - 1;
                let two = |(low, high): (u64, u64)| ((low >> bit | high << (63 - bit)) & 3) as usize;
                visit(64 * word + bit as usize, two(a) | two(b) << 2 | two(c) << 4 | two(d) << 6);
            }
        }
    }
}

/// The bits of a word that belong to intervals (k, k + 1) of a row of `nz` samples.
#[inline(always)]
pub(super) fn intervals(nz: usize, word: usize) -> u64 {
    let count = nz - 1 - (64 * word).min(nz - 1);
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
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
