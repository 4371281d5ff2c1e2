//! The transform along one axis: a polyphase filter bank over extended rows.
//!
//! A row holds the values at one index of the axis: a contiguous run of the later axes or, along the last axis, a shifted view of a line
//! that was split into its even and odd samples. [`combine`] computes both cases.

use std::ops::Range;

use super::combine::{Real, combine, weights};
use super::filters::Wavelet;
use super::mode::{Extended, Mode};
use crate::fetch::fetch;

/// One axis of a decomposition, from `n` samples to `m` coefficients of each kind.
pub(super) struct Analysis<T> {
    pub m: usize,
    taps: usize,
    /// The low- and high-pass filters, reversed.
    weights: Vec<[T; 2]>,
    /// The entries of the extended signal: coefficient k is made of entries 2k..2k + taps.
    table: Vec<Extended>,
    /// Position of the first entry of the table, in samples before the signal.
    before: usize,
}

/// One axis of a reconstruction, from `m` coefficients of each kind to `n` samples.
pub(super) struct Synthesis<T> {
    pub n: usize,
    /// Number of coefficients of each kind that a pair of samples depends on.
    reach: usize,
    /// For even and for odd samples: the weights of low- and high-pass coefficients, alternating.
    weights: Vec<[T; 2]>,
    /// The order of the coefficients: samples 2q and 2q + 1 are made of entries q..q + reach.
    table: Vec<usize>,
    /// Position of coefficient 0 in the table; the others follow it.
    before: usize,
}

/// Memory for working on a line.
#[derive(Default)]
pub(super) struct Scratch<T> {
    even: Vec<T>,
    odd: Vec<T>,
}

/// Rows at every entry of an extension table. Rows that are sums of samples are stored in `made`.
fn extended_rows<'a, T: Real>(
    src: &'a [T],
    stride: usize,
    inner: usize,
    table: &[Extended],
    made: &'a mut Vec<T>,
) -> Vec<&'a [T]> {
    let row = |i: usize| &src[i * stride..i * stride + inner];
    made.clear();
    for entry in table {
        if let Extended::Sum(parts) = entry {
            let start = made.len();
            made.resize(start + inner, T::default());
            for &(i, weight) in parts {
                let weight = T::from_f64(weight);
                made[start..].iter_mut().zip(row(i)).for_each(|(sum, &x)| *sum += x * weight);
            }
        }
    }
    let mut sums = made.chunks_exact(inner);
    table
        .iter()
        .map(|entry| match entry {
            Extended::Sample(i) => row(*i),
            Extended::Sum(_) => sums.next().unwrap_or_default(),
        })
        .collect()
}

/// The first `len` values, and the others.
fn halves<T>(values: &mut [T], len: usize) -> [&mut [T]; 2] {
    let (first, second) = values.split_at_mut(len.min(values.len()));
    [first, second]
}

/// Takes rows from both buffers alternately, each time starting one entry later: the content after a line's samples.
fn in_turn<'a, T>(first: &'a [T], second: &'a [T]) -> impl Fn(usize) -> &'a [T] {
    move |t| if t % 2 == 0 { &first[t / 2..] } else { &second[t / 2..] }
}

impl<T: Real> Analysis<T> {
    pub fn new(wavelet: &Wavelet, mode: Mode, n: usize) -> Self {
        let taps = wavelet.len();
        let m = mode.coefficients(n, taps);
        let before = if mode == Mode::Periodization { taps / 2 - 1 } else { taps - 2 };
        let table = (0..2 * (m - 1) + taps).map(|e| mode.extend(e as isize - before as isize, n)).collect();
        let backwards = |filter: &[f64]| filter.iter().rev().map(|&c| T::from_f64(c)).collect::<Vec<T>>();
        let weights = weights([&backwards(wavelet.dec_lo())[..], &backwards(wavelet.dec_hi())]);
        Self { m, taps, weights, table, before }
    }

    /// The extended signal, as rows of `inner` samples that lie `stride` apart in `src`.
    pub fn rows<'a>(&self, src: &'a [T], stride: usize, inner: usize, made: &'a mut Vec<T>) -> Vec<&'a [T]> {
        extended_rows(src, stride, inner, &self.table, made)
    }

    /// Number of entries that a coefficient depends on.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Coefficients [low, high] for `K` consecutive indices, from the entries on which they depend.
    pub fn pairs<'a, const K: usize>(&self, row: impl Fn(usize) -> &'a [T], out: [[&mut [T]; 2]; K])
    where
        T: 'a,
    {
        combine(row, &self.weights, out);
    }

    /// From (n, inner) to the coefficients in a range: their low-pass rows, then their high-pass rows. Meanwhile `next` is loaded into
    /// cache.
    pub fn part(
        &self,
        [src, next]: [&[T]; 2],
        inner: usize,
        range: Range<usize>,
        dst: &mut [T],
        scratch: &mut Scratch<T>,
    ) {
        let (low, high) = dst.split_at_mut(range.len() * inner);
        let entries = 2 * range.start..2 * (range.end - 1) + self.taps;
        let rows = extended_rows(src, inner, inner, &self.table[entries], &mut scratch.even);
        let two = low.chunks_mut(2 * inner).zip(high.chunks_mut(2 * inner));
        for (k, (low, high)) in (0..range.len()).step_by(2).zip(two) {
            let soon = 2 * (range.start + k) * inner..2 * (range.start + k + 2) * inner;
            fetch(next.get(soon).unwrap_or_default());
            let row = |t: usize| rows[2 * k + t];
            let ([low, next_low], [high, next_high]) = (halves(low, inner), halves(high, inner));
            if next_low.is_empty() {
                self.pairs(row, [[low, high]]);
            } else {
                self.pairs(row, [[low, high], [next_low, next_high]]);
            }
        }
    }

    /// From (n, inner) to (2m, inner): the low-pass rows, then the high-pass rows.
    pub fn block(&self, src: &[T], inner: usize, dst: &mut [T], scratch: &mut Scratch<T>) {
        self.part([src, &[]], inner, 0..self.m, dst, scratch);
    }

    /// From n contiguous samples to m coefficients of each kind.
    pub fn line(&self, src: &[T], low: &mut [T], high: &mut [T], Scratch { even, odd }: &mut Scratch<T>) {
        let half = self.table.len() / 2;
        even.resize(half, T::default());
        odd.resize(half, T::default());
        // Pairs inside the signal are copied; the others are looked up.
        let first = self.before.div_ceil(2).min(half);
        let pairs = src.get(2 * first - self.before..).unwrap_or_default().chunks_exact(2);
        let last = (first + pairs.len()).min(half);
        for ((pair, even), odd) in pairs.zip(&mut even[first..last]).zip(&mut odd[first..last]) {
            (*even, *odd) = (pair[0], pair[1]);
        }
        let value = |entry: &Extended| match entry {
            Extended::Sample(i) => src[*i],
            Extended::Sum(parts) => parts.iter().fold(T::default(), |sum, &(i, w)| sum + src[i] * T::from_f64(w)),
        };
        for i in (0..first).chain(last..half) {
            (even[i], odd[i]) = (value(&self.table[2 * i]), value(&self.table[2 * i + 1]));
        }
        combine(in_turn(even, odd), &self.weights, [[low, high]]);
    }
}

impl<T: Real> Synthesis<T> {
    /// `None` if `m` coefficients are too few for a reconstruction with this wavelet.
    pub fn new(wavelet: &Wavelet, mode: Mode, m: usize) -> Option<Self> {
        let half = wavelet.len() / 2;
        // Samples 2q + b are sums of `taps[b][t] · coefficient[q + centre[b] - t]`.
        let n = mode.samples(m, wavelet.len())?;
        let periodization = mode == Mode::Periodization;
        let (parity, centre) = match (periodization, half % 2) {
            (false, _) => ([0, 1], [half - 1; 2]),
            (true, 1) => ([0, 1], [half / 2; 2]),
            (true, _) => ([1, 0], [half / 2 - 1, half / 2]),
        };
        let reach = half + centre[1] - centre[0];
        let weights = [0, 1].map(|b| {
            let mut weights = vec![T::default(); 2 * reach];
            for t in 0..half {
                let entry = half - 1 - t + centre[b] - centre[0];
                weights[2 * entry] = T::from_f64(wavelet.rec_lo()[2 * t + parity[b]]);
                weights[2 * entry + 1] = T::from_f64(wavelet.rec_hi()[2 * t + parity[b]]);
            }
            weights
        });
        let before = half - 1 - centre[0];
        let index = |e: usize| (e as isize - before as isize).rem_euclid(m as isize) as usize;
        let table = (0..n / 2 + reach - 1).map(index).collect();
        let weights = self::weights([&weights[0][..], &weights[1]]);
        Some(Self { n, reach, weights, table, before })
    }

    /// Number of entries that a pair of samples depends on.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// The index of the coefficients at an entry.
    pub fn index(&self, entry: usize) -> usize {
        self.table[entry]
    }

    /// `K` consecutive pairs of samples from the coefficients at the entries on which they depend, low- and high-pass alternating.
    pub fn pairs<'a, const K: usize>(&self, row: impl Fn(usize) -> &'a [T], out: [[&mut [T]; 2]; K])
    where
        T: 'a,
    {
        combine(row, &self.weights, out);
    }

    /// From rows of coefficients of each kind, at consecutive entries, to the pairs of rows of samples that they make.
    pub fn entries(&self, low: &[T], high: &[T], inner: usize, dst: &mut [T]) {
        self.by_entry(low, high, inner, |entry| entry, dst);
    }

    /// From (m, inner) of each kind to (n, inner).
    pub fn block(&self, low: &[T], high: &[T], inner: usize, dst: &mut [T]) {
        self.by_entry(low, high, inner, |entry| self.table[entry], dst);
    }

    fn by_entry(&self, low: &[T], high: &[T], inner: usize, index: impl Fn(usize) -> usize, dst: &mut [T]) {
        for (q, pairs) in (0..).step_by(2).zip(dst.chunks_mut(4 * inner)) {
            let row = |t: usize| &[low, high][t % 2][index(q + t / 2) * inner..][..inner];
            let [pair, next] = halves(pairs, 2 * inner);
            let (pair, next) = (halves(pair, inner), halves(next, inner));
            if next[0].is_empty() {
                self.pairs(row, [pair]);
            } else {
                self.pairs(row, [pair, next]);
            }
        }
    }

    /// From m coefficients of each kind to n samples; all are contiguous.
    pub fn line(&self, low: &[T], high: &[T], dst: &mut [T], Scratch { even, odd }: &mut Scratch<T>) {
        let (half, entries) = (self.n / 2, self.table.len());
        let within = self.before..(self.before + low.len()).min(entries);
        // Each buffer holds the extended coefficients, followed by the samples made from them.
        for (buffer, coefficients) in [(&mut *even, low), (&mut *odd, high)] {
            buffer.resize(entries + half, T::default());
            buffer[within.clone()].copy_from_slice(&coefficients[..within.len()]);
            for entry in (0..within.start).chain(within.end..entries) {
                buffer[entry] = coefficients[self.table[entry]];
            }
        }
        let (low, even) = even.split_at_mut(entries);
        let (high, odd) = odd.split_at_mut(entries);
        combine(in_turn(low, high), &self.weights, [[&mut *even, &mut *odd]]);
        for ((pair, &e), &o) in dst.chunks_exact_mut(2).zip(&*even).zip(&*odd) {
            (pair[0], pair[1]) = (e, o);
        }
    }
}
