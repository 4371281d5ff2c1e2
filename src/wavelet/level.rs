//! One level of the transform for any number of dimensions, slab by slab.
//!
//! A decomposition first transforms the later axes of a slab. It keeps as many slabs as the filter is long, and the first axis makes the
//! slabs of the bands from these. A reconstruction goes the other way. So nothing as large as the array is held in between, and the caller
//! of a level decides where its slabs go or come from. A slab may be cut into [tiles] along the second axis, so that everything that is
//! kept fits in cache.

use std::ops::Range;
use std::sync::Mutex;

use super::axis::{Analysis, Scratch, Synthesis};
use super::combine::Real;
use super::filters::Wavelet;
use super::mode::Mode;
use crate::sync::lock;
use crate::{Error, Result};

/// Each thread gets at least this many samples at a time, since waking it takes as long as a few thousand of them.
const LEAST_PER_RANGE: usize = 1 << 15;

/// The number of ranges for each thread, so that a late thread leaves work to the others.
const RANGES_PER_THREAD: usize = 4;

/// Calls `work(index of the first, parts)` for ranges of the parts and returns the results in order, on all threads if there is enough
/// work. A part stands for `samples` samples of work; a range has at least `least` parts. The calling thread starts to work at once,
/// whereas rayon's iterators would first wake a thread of the pool and wait for it.
pub(super) fn in_ranges<P: Send, R: Send>(
    parts: &mut [P],
    samples: usize,
    least: usize,
    work: impl Fn(usize, &mut [P]) -> R + Sync,
) -> Vec<R> {
    let threads = rayon::current_num_threads();
    let even = parts.len().div_ceil(RANGES_PER_THREAD * threads);
    let len = even.max(LEAST_PER_RANGE.div_ceil(samples.max(1))).max(least);
    if parts.len() <= len {
        return vec![work(0, parts)];
    }
    let helpers = threads.min(parts.len().div_ceil(len)) - 1;
    let ranges = Mutex::new(parts.chunks_mut(len).enumerate());
    let results = Mutex::new(Vec::new());
    let take_part = || {
        loop {
            let Some((range, parts)) = lock(&ranges).next() else { return };
            let result = work(range * len, parts);
            lock(&results).push((range, result));
        }
    };
    rayon::in_place_scope(|scope| {
        (0..helpers).for_each(|_| scope.spawn(|_| take_part()));
        take_part();
    });
    let mut results = std::mem::take(&mut *lock(&results));
    results.sort_unstable_by_key(|&(range, _)| range);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The data kept for a tile has at most this many bytes if its rows allow, so that it stays in the cache of a processor.
const IN_CACHE: usize = 512 << 10;

/// Cuts `rows` along the second axis, each of which keeps this many bytes, into tiles: ranges of equal length, except the last.
fn tiles(rows: usize, bytes_per_row: usize) -> Vec<Range<usize>> {
    // At least two tiles for each thread, so that a late thread leaves work to the others.
    let fits =
        (IN_CACHE / bytes_per_row.max(1)).min(rows.div_ceil(2 * rayon::current_num_threads())).clamp(4, rows.max(4));
    let len = rows.div_ceil(rows.div_ceil(fits).max(1)).max(1);
    (0..rows.div_ceil(len)).map(|tile| tile * len..rows.min((tile + 1) * len)).collect()
}

/// Where the coefficients of a line along the last axis go: to bands 2·pair and 2·pair + 1 (among those that differ in the later axes),
/// from `offset` on.
struct Line {
    pair: usize,
    offset: usize,
}

/// The lines of a slab whose axes are decomposed except the last, the low-pass half before the high-pass half. `m` are the lengths of the
/// halves, and that of the last axis.
fn lines(m: &[usize]) -> Vec<Line> {
    let Some((&last, middle)) = m.split_last() else { return Vec::new() };
    (0..middle.iter().map(|m| 2 * m).product())
        .map(|line| {
            let (mut rest, mut pair, mut offset, mut stride) = (line, 0, 0, last);
            for (place, &m) in middle.iter().rev().enumerate() {
                let index = rest % (2 * m);
                rest /= 2 * m;
                pair |= usize::from(index >= m) << place;
                offset += index % m * stride;
                stride *= m;
            }
            Line { pair, offset }
        })
        .collect()
}

/// The decomposition of an array of two dimensions or more.
pub(super) struct AnalysisLevel<'a, T> {
    /// Shape of each band.
    pub m: Vec<usize>,
    shape: &'a [usize],
    axes: Vec<Analysis<T>>,
    /// The array along its first axis, extended beyond its ends.
    slabs: Vec<&'a [T]>,
}

impl<'a, T: Real> AnalysisLevel<'a, T> {
    /// `made` stores the slabs beyond the array.
    pub fn new(data: &'a [T], shape: &'a [usize], wavelet: &Wavelet, mode: Mode, made: &'a mut Vec<T>) -> Self {
        let axes: Vec<Analysis<T>> = shape.iter().map(|&n| Analysis::new(wavelet, mode, n)).collect();
        let m: Vec<usize> = axes.iter().map(|axis| axis.m).collect();
        let slab = shape[1..].iter().product();
        let slabs = axes[0].rows(data, slab, slab, made);
        Self { m, shape, axes, slabs }
    }

    /// Number of samples for the coefficients at one index of the first axis.
    pub fn samples(&self) -> usize {
        2 * self.shape[1..].iter().product::<usize>()
    }

    /// The first slab of an [`AnalysisTile`] costs as much as this many others.
    pub fn slabs_kept(&self) -> usize {
        self.axes[0].taps().div_ceil(2)
    }

    /// The number of entries of the first axis on which two consecutive slabs depend.
    fn entries(&self) -> usize {
        self.axes[0].taps() + 2
    }

    /// The tiles of a slab of coefficients, as ranges along the second axis.
    pub fn tiles(&self) -> Vec<Range<usize>> {
        // Lines are not cut.
        let Some((_, later)) = self.shape[1..].split_first().filter(|(_, later)| !later.is_empty()) else {
            return std::iter::once(0..self.m[1]).collect();
        };
        tiles(self.m[1], 2 * self.entries() * later.iter().product::<usize>() * size_of::<T>())
    }

    /// Starts work on the slabs of one tile.
    pub fn tile(&self, rows: Range<usize>) -> AnalysisTile<'_, 'a, T> {
        let mut m = self.m[1..].to_vec();
        m[0] = rows.len();
        let lines = lines(&m);
        let len: usize = m.iter().product();
        // Slabs at distances of a power of two would push each other out of the cache.
        let stride = (len << (self.m.len() - 1)) + 80;
        let kept = vec![T::default(); stride * self.entries()];
        let [spare, other] = [Vec::new(), Vec::new()];
        AnalysisTile {
            level: self,
            rows,
            len,
            lines,
            stride,
            kept,
            held: 0..0,
            spare,
            other,
            scratch: Scratch::default(),
        }
    }
}

/// A tile of a decomposition, which moves along the first axis.
pub(super) struct AnalysisTile<'l, 'a, T> {
    level: &'l AnalysisLevel<'a, T>,
    /// The tile's place along the second axis of the bands.
    rows: Range<usize>,
    /// Coefficients of a band in a slab of the tile.
    len: usize,
    lines: Vec<Line>,
    /// Slabs whose later axes are decomposed, band by band. The slab of entry e of the first axis is stored at e modulo their number.
    kept: Vec<T>,
    stride: usize,
    /// The entries that are stored.
    held: Range<usize>,
    spare: Vec<T>,
    other: Vec<T>,
    scratch: Scratch<T>,
}

impl<T: Real> AnalysisTile<'_, '_, T> {
    /// The coefficients of each band, in alphabetical order, at indices k..k + K of the first axis; K is 1 or 2. Fast if k goes on where the
    /// last call ended. Two at once share most of the entries that they read.
    pub fn slabs<const K: usize>(&mut self, k: usize, mut bands: [&mut [&mut [T]]; K]) {
        let level = self.level;
        let (first, room) = (&level.axes[0], level.entries());
        let wanted = 2 * k..2 * (k + K - 1) + first.taps();
        let known =
            if (self.held.start..=self.held.end).contains(&wanted.start) { self.held.end } else { wanted.start };
        for entry in known.max(wanted.start)..wanted.end {
            self.later_axes(entry);
        }
        self.held = wanted;
        let half = bands[0].len() / 2;
        for band in 0..half {
            let row = |t: usize| &self.kept[(2 * k + t) % room * self.stride + band * self.len..][..self.len];
            let out = bands.each_mut().map(|bands| {
                let (lows, highs) = bands.split_at_mut(half);
                [&mut *lows[band], &mut *highs[band]]
            });
            first.pairs(row, out);
        }
    }

    /// Decomposes the slab at an entry of the first axis along all other axes, in order.
    fn later_axes(&mut self, entry: usize) {
        let Self { level, spare, other, scratch, .. } = self;
        let (axes, shape) = (&level.axes[1..], &level.shape[1..]);
        let source = level.slabs[entry];
        let (Some((last, middle)), Some(&n_last)) = (axes.split_last(), shape.last()) else { return };
        let kept = &mut self.kept[entry % level.entries() * self.stride..][..self.len << axes.len()];
        let mut bands: Vec<&mut [T]> = kept.chunks_exact_mut(self.len).collect();
        let mut by_line = |source: &[T], scratch: &mut Scratch<T>| {
            for (source, line) in source.chunks_exact(n_last).zip(&self.lines) {
                let [low, high] = [2 * line.pair, 2 * line.pair + 1];
                if let Ok([low, high]) = bands.get_disjoint_mut([low, high]) {
                    let place = line.offset..line.offset + last.m;
                    last.line(source, &mut low[place.clone()], &mut high[place], scratch);
                }
            }
        };
        let Some((second, middle)) = middle.split_first() else { return by_line(source, scratch) };
        // The second axis makes only the tile's rows.
        let mut inner: usize = shape[1..].iter().product();
        spare.resize(2 * self.rows.len() * inner, T::default());
        let next = level.slabs.get(entry + 1).copied().unwrap_or_default();
        second.part([source, next], inner, self.rows.clone(), spare, scratch);
        for (axis, &n) in middle.iter().zip(&shape[1..]) {
            other.resize(spare.len() / n * 2 * axis.m, T::default());
            for (src, dst) in spare.chunks_exact(inner).zip(other.chunks_exact_mut(inner / n * 2 * axis.m)) {
                axis.block(src, inner / n, dst, scratch);
            }
            std::mem::swap(spare, other);
            inner /= n;
        }
        by_line(spare, scratch);
    }
}

/// The reconstruction of an array of two dimensions or more.
pub(super) struct SynthesisLevel<T> {
    /// Shape of the array.
    pub shape: Vec<usize>,
    m: Vec<usize>,
    axes: Vec<Synthesis<T>>,
}

impl<T: Real> SynthesisLevel<T> {
    /// For bands with shape `m`.
    ///
    /// # Errors
    /// If they are too short for the wavelet.
    pub fn new(m: &[usize], wavelet: &Wavelet, mode: Mode) -> Result<Self> {
        let axes: Vec<Synthesis<T>> = m.iter().map(|&m| synthesis(wavelet, mode, m)).collect::<Result<_>>()?;
        Ok(Self { shape: axes.iter().map(|axis| axis.n).collect(), m: m.to_vec(), axes })
    }

    /// Number of samples in the slabs of a pair.
    pub fn samples(&self) -> usize {
        2 * self.shape[1..].iter().product::<usize>()
    }

    /// The number of entries, from the q-th on, from which the slabs 2q and 2q + 1 of the array are made. Two pairs need one more.
    pub fn reach(&self) -> usize {
        self.axes[0].reach()
    }

    /// The index of an entry along the first axis of the bands.
    pub fn index(&self, entry: usize) -> usize {
        self.axes[0].index(entry)
    }

    /// The tiles of a slab of the array, as ranges of pairs of rows along the second axis.
    pub fn tiles(&self) -> Vec<Range<usize>> {
        let pairs = self.shape[1] / 2;
        let Some((_, later)) = self.m[1..].split_first().filter(|(_, later)| !later.is_empty()) else {
            return std::iter::once(0..pairs).collect();
        };
        tiles(pairs, (self.reach() * later.iter().product::<usize>() * size_of::<T>()) << self.m.len())
    }

    /// Starts work on the slabs of one tile.
    pub fn tile(&self, pairs: Range<usize>) -> SynthesisTile<'_, T> {
        let mut runs: Vec<[usize; 3]> = Vec::new();
        if let Some(second) = self.axes[1..].split_last().and_then(|(_, middle)| middle.first()) {
            for (place, entry) in (pairs.start..pairs.end + second.reach() - 1).enumerate() {
                let index = second.index(entry);
                match runs.last_mut() {
                    Some([_, first, len]) if *first + *len == index => *len += 1,
                    _ => runs.push([place, index, 1]),
                }
            }
        } else {
            runs.push([0, 0, self.m[1]]);
        }
        SynthesisTile {
            level: self,
            pairs,
            runs,
            made: Default::default(),
            spare: Vec::new(),
            scratch: Scratch::default(),
        }
    }
}

/// A tile of a reconstruction.
pub(super) struct SynthesisTile<'l, T> {
    level: &'l SynthesisLevel<T>,
    pairs: Range<usize>,
    /// The rows along the bands' second axis on which the tile depends: (place in the tile, first row, number of rows).
    runs: Vec<[usize; 3]>,
    /// Slabs whose first axis is reconstructed, band by band: two pairs.
    made: [[Vec<T>; 2]; 2],
    spare: Vec<T>,
    scratch: Scratch<T>,
}

impl<T: Real> SynthesisTile<'_, T> {
    /// The tile of slabs 2q and 2q + 1, and of the K - 1 pairs behind them; K is 1 or 2. `row(band, entry)` returns the coefficients of a
    /// band at the entry's index.
    pub fn slab_pairs<'a, const K: usize>(
        &mut self,
        q: usize,
        row: impl Fn(usize, usize) -> &'a [T],
        out: [[&mut [T]; 2]; K],
    ) where
        T: 'a,
    {
        let Self { level, pairs, runs, made, spare, scratch } = self;
        // One row along the second axis or, for a line, one coefficient.
        let inner: usize = level.m[2..].iter().product();
        let rows: usize = runs.iter().map(|[.., len]| len).sum();
        let half = 1 << (level.m.len() - 1);
        let Some(made) = made.first_chunk_mut::<K>() else { return };
        for buffer in made.iter_mut().flatten() {
            buffer.resize(half * rows * inner, T::default());
        }
        for band in 0..half {
            for &[place, first, len] in &*runs {
                let own = (band * rows + place) * inner..(band * rows + place + len) * inner;
                let part = |t: usize| &row(band + t % 2 * half, q + t / 2)[first * inner..][..len * inner];
                let out = made.each_mut().map(|pair| pair.each_mut().map(|slab| &mut slab[own.clone()]));
                level.axes[0].pairs(part, out);
            }
        }
        for (bands, out) in made.iter_mut().flatten().zip(out.into_iter().flatten()) {
            Self::later_axes(level, pairs.len(), rows, bands, out, spare, scratch);
        }
    }

    /// Reconstructs all axes of a slab except the first, in order. The bands that differ in these axes are given one after another and are
    /// overwritten.
    fn later_axes(
        level: &SynthesisLevel<T>,
        pairs: usize,
        rows: usize,
        bands: &mut Vec<T>,
        dst: &mut [T],
        spare: &mut Vec<T>,
        scratch: &mut Scratch<T>,
    ) {
        let (axes, m) = (&level.axes[1..], &level.m[1..]);
        let (Some((last, middle)), Some(&m_last)) = (axes.split_last(), m.last()) else { return };
        if let Some((second, middle)) = middle.split_first() {
            let mut inner: usize = m[1..].iter().product();
            spare.resize(bands.len() / (2 * rows) * 2 * pairs, T::default());
            let (low, high) = bands.split_at(bands.len() / 2);
            let parts = low.chunks_exact(rows * inner).zip(high.chunks_exact(rows * inner));
            for ((low, high), dst) in parts.zip(spare.chunks_exact_mut(2 * pairs * inner)) {
                second.entries(low, high, inner, dst);
            }
            std::mem::swap(bands, spare);
            for (axis, &m) in middle.iter().zip(&m[1..]) {
                inner /= m;
                spare.resize(bands.len() / (2 * m) * axis.n, T::default());
                let (low, high) = bands.split_at(bands.len() / 2);
                let parts = low.chunks_exact(m * inner).zip(high.chunks_exact(m * inner));
                for ((low, high), dst) in parts.zip(spare.chunks_exact_mut(axis.n * inner)) {
                    axis.block(low, high, inner, dst);
                }
                std::mem::swap(bands, spare);
            }
        }
        let (low, high) = bands.split_at(bands.len() / 2);
        let lines = low.chunks_exact(m_last).zip(high.chunks_exact(m_last));
        for ((low, high), dst) in lines.zip(dst.chunks_exact_mut(last.n)) {
            last.line(low, high, dst, scratch);
        }
    }
}

/// The reconstruction along one axis of `m` coefficients of each kind.
///
/// # Errors
/// If they are too few for the wavelet.
pub(super) fn synthesis<T: Real>(wavelet: &Wavelet, mode: Mode, m: usize) -> Result<Synthesis<T>> {
    Synthesis::new(wavelet, mode, m).ok_or_else(|| {
        let expected = format!("at least {} coefficients along each axis for {}", wavelet.len() / 2, wavelet.name());
        Error::Shape { op: "waverecn", what: "a band", got: vec![m], expected }
    })
}
