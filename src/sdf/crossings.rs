//! The edges between the samples of a grid that a surface crosses.
//!
//! An exclusive or of bit masks finds them, and counting bits numbers them.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::cells::{Bits, fill_below, intervals};
use crate::fetch::fetch;
use crate::wide::wide_fn;

/// The number of runs of slices for each thread, so that a late thread leaves work to the others.
const RUNS_PER_THREAD: usize = 8;

/// The crossed edges, numbered in the order of (i, j, axis, k).
pub(super) struct Crossings {
    /// The samples below the level.
    pub inside: Bits,
    /// For each (i, j, axis, word): how many edges that begin in slice i have lower numbers than those that begin at samples of this word.
    first: Vec<u32>,
    /// The number of crossed edges before each slice of samples, and the total.
    before: Vec<usize>,
}

impl Crossings {
    /// The crossed edges, and what `of_edge(first sample, axis)` makes of each, in the order of their numbers. Edges are looked at while
    /// their samples are in cache.
    ///
    /// # Errors
    /// A number of crossed edges (there may be more) that is above `most`.
    pub fn find<V: Send>(
        shape: [usize; 3],
        values: &[f32],
        level: f32,
        most: usize,
        of_edge: impl Fn([usize; 3], usize) -> V + Sync,
    ) -> Result<(Self, Vec<V>), usize> {
        let [nx, ny, nz] = shape;
        let words = nz.div_ceil(64);
        let slice = ny * words;
        let samples = |i: usize| values.get(i * ny * nz..(i + 1) * ny * nz).unwrap_or_default();
        let (mut bits, mut first) = (vec![0; nx * slice], vec![0; 3 * nx * slice]);
        let run = nx.div_ceil(RUNS_PER_THREAD * rayon::current_num_threads());
        let total = AtomicUsize::new(0);
        let of_run = |(number, (mut bits, first)): (usize, (&mut [u64], &mut [u32]))| {
            let (mut counts, mut found) = (Vec::new(), Vec::new());
            // The slice behind the run, which belongs to another job.
            let mut behind = vec![0; slice];
            fill_below(&mut bits[..slice], samples(number * run), nz, level);
            for (i, first) in (number * run..).zip(first.chunks_exact_mut(3 * slice)) {
                let (now, later) = bits.split_at_mut(slice);
                let next = if later.is_empty() { &mut behind[..] } else { &mut later[..slice] };
                fill_below(next, samples(i + 1), nz, level);
                let next = (i + 1 < nx).then_some(&*next);
                let slices = Slices { shape, words, now, next };
                let before = found.len();
                edges(slices, first, samples(i + 2), &mut |j, k, axis| found.push(of_edge([i, j, k], axis)));
                let count = found.len() - before;
                counts.push(count);
                if total.fetch_add(count, Ordering::Relaxed) + count > most {
                    break;
                }
                bits = later;
            }
            (counts, found)
        };
        let runs = bits.par_chunks_mut(run * slice).zip(first.par_chunks_mut(3 * run * slice));
        let runs: Vec<(Vec<usize>, Vec<V>)> = runs.enumerate().map(of_run).collect();
        let total = total.into_inner();
        if total > most {
            return Err(total);
        }
        let (mut before, mut found) = (vec![0], Vec::with_capacity(total));
        for (counts, mut of_run) in runs {
            counts.iter().for_each(|count| before.push(before[before.len() - 1] + count));
            found.append(&mut of_run);
        }
        Ok((Self { inside: Bits { shape, words, bits }, first, before }, found))
    }

    /// The number of crossed edges in the slices of samples before slice i.
    #[inline(always)]
    pub fn before(&self, i: usize) -> usize {
        self.before[i]
    }

    /// Calls `visit(first sample, axis)` for each crossed edge that begins in slice i, in the order of their numbers.
    pub fn of_slice(&self, i: usize, mut visit: impl FnMut([usize; 3], usize)) {
        edges(Slices::of(&self.inside, i), &mut [], &[], &mut |j, k, axis| visit([i, j, k], axis));
    }

    /// The edges of the cells at (i, j), from the first sample of the word on.
    #[inline(always)]
    pub fn around(&self, i: usize, j: usize, word: usize) -> EdgeRows {
        let (near, far) = (self.slice(i), self.slice(i + 1));
        EdgeRows([
            near.row(j, 0, word),
            near.row(j + 1, 0, word),
            near.row(j, 1, word),
            far.row(j, 1, word),
            near.row(j, 2, word),
            near.row(j + 1, 2, word),
            far.row(j, 2, word),
            far.row(j + 1, 2, word),
        ])
    }

    #[inline(always)]
    fn slice(&self, i: usize) -> Slice<'_> {
        let words = 3 * self.inside.shape[1] * self.inside.words;
        let first = &self.first[i * words..(i + 1) * words];
        Slice { slices: Slices::of(&self.inside, i), first, before: self.before(i) as u32 }
    }
}

/// The crossed edges that begin in a slice.
#[derive(Clone, Copy)]
struct Slice<'a> {
    slices: Slices<'a>,
    first: &'a [u32],
    before: u32,
}

impl Slice<'_> {
    /// The mask of a word of the edges along `axis` in row j, and the number of its first edge.
    #[inline(always)]
    fn row(&self, j: usize, axis: usize, word: usize) -> (u64, u32) {
        let first = self.first[(3 * j + axis) * self.slices.words + word];
        (self.slices.mask(j, axis, word), self.before.wrapping_add(first))
    }
}

/// The crossed edges of the cells at (i, j, 64·word..): the mask of a word and the number of its first edge, for the rows of edges along x
/// (at j, j + 1), along y (at i, i + 1), and along z (at (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)).
#[derive(Clone, Copy, Default)]
pub(super) struct EdgeRows([(u64, u32); 8]);

/// How [`EdgeRows`] finds an edge of a cell: twice its row, and one more if the edge begins at k + 1.
pub(super) const fn code(edge: usize) -> u8 {
    let (axis, u, v) = ((edge / 4) as u8, (edge % 4 / 2) as u8, (edge % 2) as u8);
    if axis == 2 { 2 * (4 + 2 * u + v) } else { 2 * (2 * axis + u) + v }
}

impl EdgeRows {
    /// The number of the edge with this [`code`] of the cell at `k`. The edge must be crossed.
    #[inline(always)]
    pub fn number(&self, code: u8, k: usize) -> u32 {
        let (mask, first) = self.0[usize::from(code >> 1) % 8];
        // Edges that begin at k + 1 in the next word are numbered after all of this word.
        let from = (1u64 << (k % 64)) << (code & 1);
        first.wrapping_add((mask & from.wrapping_sub(1)).count_ones())
    }
}

/// The bits of a slice of samples, and of the next one if there is one.
#[derive(Clone, Copy)]
struct Slices<'a> {
    shape: [usize; 3],
    words: usize,
    now: &'a [u64],
    next: Option<&'a [u64]>,
}

impl<'a> Slices<'a> {
    /// Slice i and the next one.
    #[inline(always)]
    fn of(Bits { shape, words, bits }: &'a Bits, i: usize) -> Self {
        let mut slices = bits[i * shape[1] * words..].chunks_exact(shape[1] * words);
        Self { shape: *shape, words: *words, now: slices.next().unwrap_or_default(), next: slices.next() }
    }

    /// The crossed edges along `axis` that begin at samples of a word of row j.
    #[inline(always)]
    fn mask(&self, j: usize, axis: usize, word: usize) -> u64 {
        let at = j * self.words + word;
        match axis {
            0 => self.next.map_or(0, |next| self.now[at] ^ next[at]),
            1 if j + 1 < self.shape[1] => self.now[at] ^ self.now[at + self.words],
            2 => {
                let next = if word + 1 < self.words { self.now[at + 1] << 63 } else { 0 };
                (self.now[at] ^ (self.now[at] >> 1 | next)) & intervals(self.shape[2], word)
            }
            _ => 0,
        }
    }
}

wide_fn! {
    /// Calls `visit(j, k, axis)` for each crossed edge that begins in the first slice, in the order of their numbers. Fills `first` with
    /// the number of edges before each word, as far as it reaches. Meanwhile the samples `soon` are loaded into cache.
    fn edges(slices: Slices, first: &mut [u32], soon: &[f32], visit: &mut impl FnMut(usize, usize, usize)) {
        let [_, ny, nz] = slices.shape;
        let (mut first, mut count) = (first.iter_mut(), 0);
        for j in 0..ny {
            fetch(soon.get(j * nz..(j + 1) * nz).unwrap_or_default());
            for axis in 0..3 {
                for word in 0..slices.words {
                    let mut mask = slices.mask(j, axis, word);
                    if let Some(first) = first.next() {
                        *first = count;
                    }
                    count += mask.count_ones();
                    while mask != 0 {
                        visit(j, 64 * word + mask.trailing_zeros() as usize, axis);
                        mask &= mask - 1;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdf::cells::EDGES;

    #[test]
    fn cells_and_edges_are_those_that_a_plain_search_finds() {
        // Rows that end inside, at and after a word.
        for shape @ [nx, ny, nz] in [[3, 4, 5], [4, 3, 64], [3, 3, 65], [2, 5, 130]] {
            let values: Vec<u32> = (0..(nx * ny * nz) as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 20).collect();
            let is_set = |&v: &u32| v % 5 < 3;
            let bits = Bits::new(shape, &values.iter().map(is_set).collect::<Vec<_>>());
            let samples: Vec<f32> = values.iter().map(|v| if is_set(v) { -1.0 } else { 1.0 }).collect();
            let found = Crossings::find(shape, &samples, 0.0, usize::MAX, |start, axis| (start, axis));
            let (crossings, edges) = found.unwrap_or_else(|_| unreachable!());
            assert!(crossings.inside.bits == bits.bits);
            let at = |[i, j, k]: [usize; 3]| is_set(&values[(i * ny + j) * nz + k]);
            let mut numbers = std::collections::HashMap::new();
            for i in 0..nx {
                crossings.of_slice(i, |start, axis| {
                    let number = numbers.len() as u32;
                    numbers.insert((start, axis), number);
                });
            }
            assert_eq!(numbers.len(), crossings.before(nx));
            assert!(
                edges.iter().zip(0..).all(|(edge, number)| numbers[edge] == number) && edges.len() == numbers.len()
            );
            let too_many = Crossings::find(shape, &samples, 0.0, edges.len() - 1, |_, _| ());
            assert!(too_many.is_err_and(|count| count == edges.len()));
            let none = Crossings::find(shape, &samples, -1.0, 0, |_, _| ());
            assert!(none.is_ok_and(|(_, edges)| edges.is_empty()));
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
                            assert_eq!(rows.number(code(edge), k), number, "{start:?} along {axis} of {shape:?}");
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
