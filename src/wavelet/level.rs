//! One level of the transform in any number of dimensions, slab by slab.
//!
//! In both directions the first axis comes first, read straight from the array or the bands; what it yields for one index is a
//! slab that fits in cache, where the other axes follow. So nothing as large as the array is held in between, and whoever
//! drives a level decides where its slabs go to or come from.

use std::sync::Mutex;

use super::axis::{Analysis, Scratch, Synthesis};
use super::combine::Real;
use super::filters::Wavelet;
use super::mode::Mode;
use crate::sync::lock;
use crate::{Error, Result};

/// A thread is given at least this many samples at a time: waking it takes as long as a few thousand.
const LEAST_PER_RANGE: usize = 1 << 15;

/// Ranges that each thread is given, so that one that comes late leaves work to the others.
const RANGES_PER_THREAD: usize = 4;

/// Calls `work(index of the first, parts)` for ranges of the parts, on all threads when there is enough to do, and returns the
/// results in order. A part stands for `samples` samples of work. The calling thread takes part at once, where rayon's
/// iterators would first wake one of the pool and wait for it.
pub(super) fn in_ranges<P: Send, R: Send>(
    parts: &mut [P],
    samples: usize,
    work: impl Fn(usize, &mut [P]) -> R + Sync,
) -> Vec<R> {
    let threads = rayon::current_num_threads();
    let even = parts.len().div_ceil(RANGES_PER_THREAD * threads);
    let len = even.max(LEAST_PER_RANGE.div_ceil(samples.max(1)));
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

/// What a thread needs to work on slabs.
#[derive(Default)]
pub(super) struct Slabs<T> {
    pair: [Vec<T>; 2],
    spare: Vec<T>,
    scratch: Scratch<T>,
}

/// Where the coefficients of a line along the last axis go: to the bands 2·pair and 2·pair + 1 (of those that differ in
/// the later axes), from `offset` on.
struct Line {
    pair: usize,
    offset: usize,
}

/// The lines of a slab of which all axes but the last are decomposed, the low-pass half before the high-pass; `m` are
/// the lengths of the halves, and that of the last axis.
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
    /// The array along its first axis, extended.
    rows: Vec<&'a [T]>,
    lines: Vec<Line>,
}

impl<'a, T: Real> AnalysisLevel<'a, T> {
    /// `made` keeps what lies beyond the array.
    pub fn new(data: &'a [T], shape: &'a [usize], wavelet: &Wavelet, mode: Mode, made: &'a mut Vec<T>) -> Self {
        let axes: Vec<Analysis<T>> = shape.iter().map(|&n| Analysis::new(wavelet, mode, n)).collect();
        let m: Vec<usize> = axes.iter().map(|axis| axis.m).collect();
        let slab = shape[1..].iter().product();
        let (rows, lines) = (axes[0].rows(data, slab, slab, made), lines(&m[1..]));
        Self { m, shape, axes, rows, lines }
    }

    /// Number of samples that the coefficients at one index of the first axis stand for.
    pub fn samples(&self) -> usize {
        2 * self.shape[1..].iter().product::<usize>()
    }

    /// The coefficients at index k of the first axis, of each band in alphabetical order.
    pub fn slab(&self, k: usize, bands: &mut [&mut [T]], Slabs { pair, spare, scratch }: &mut Slabs<T>) {
        pair.iter_mut().for_each(|slab| slab.resize(self.samples() / 2, T::default()));
        let [low, high] = pair;
        self.axes[0].row_pair(&self.rows, k, low, high);
        let half = bands.len() / 2;
        for (slab, bands) in pair.iter_mut().zip(bands.chunks_exact_mut(half)) {
            self.later_axes(slab, bands, spare, scratch);
        }
    }

    /// All axes of a slab but the first, in order. The slab is used up.
    fn later_axes(&self, slab: &mut Vec<T>, bands: &mut [&mut [T]], spare: &mut Vec<T>, scratch: &mut Scratch<T>) {
        let (axes, shape) = (&self.axes[1..], &self.shape[1..]);
        let (Some((last, middle)), Some(&n_last)) = (axes.split_last(), shape.last()) else { return };
        let mut inner = slab.len();
        for (axis, &n) in middle.iter().zip(shape) {
            spare.resize(slab.len() / n * 2 * axis.m, T::default());
            for (src, dst) in slab.chunks_exact(inner).zip(spare.chunks_exact_mut(inner / n * 2 * axis.m)) {
                axis.block(src, inner / n, dst, scratch);
            }
            std::mem::swap(slab, spare);
            inner /= n;
        }
        for (src, line) in slab.chunks_exact(n_last).zip(&self.lines) {
            let [low, high] = [2 * line.pair, 2 * line.pair + 1];
            if let Ok([low, high]) = bands.get_disjoint_mut([low, high]) {
                let place = line.offset..line.offset + last.m;
                last.line(src, &mut low[place.clone()], &mut high[place], scratch);
            }
        }
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
    /// For bands of shape `m`.
    ///
    /// # Errors
    /// When they are too short for the wavelet.
    pub fn new(m: &[usize], wavelet: &Wavelet, mode: Mode) -> Result<Self> {
        let axes: Vec<Synthesis<T>> = m.iter().map(|&m| synthesis(wavelet, mode, m)).collect::<Result<_>>()?;
        Ok(Self { shape: axes.iter().map(|axis| axis.n).collect(), m: m.to_vec(), axes })
    }

    /// Number of samples in the slabs of a pair.
    pub fn samples(&self) -> usize {
        2 * self.shape[1..].iter().product::<usize>()
    }

    /// The slabs 2q and 2q + 1 of the array are made of this many entries from the q-th on.
    pub fn reach(&self) -> usize {
        self.axes[0].reach()
    }

    /// The index along the first axis of the bands that an entry stands for.
    pub fn index(&self, entry: usize) -> usize {
        self.axes[0].index(entry)
    }

    /// Slabs 2q and 2q + 1; `row(band, entry)` are the coefficients of a band at the entry's index.
    pub fn slab_pair<'a>(
        &self,
        q: usize,
        row: impl Fn(usize, usize) -> &'a [T],
        out: &mut [T],
        Slabs { pair, spare, scratch }: &mut Slabs<T>,
    ) where
        T: 'a,
    {
        let (half, len) = (1 << (self.m.len() - 1), self.m[1..].iter().product());
        pair.iter_mut().for_each(|buffer| buffer.resize(half * len, T::default()));
        let [even, odd] = &mut *pair;
        for (band, (even, odd)) in even.chunks_exact_mut(len).zip(odd.chunks_exact_mut(len)).enumerate() {
            let rows: Vec<&[T]> =
                (q..q + self.reach()).flat_map(|entry| [row(band, entry), row(half + band, entry)]).collect();
            self.axes[0].row_pair(&rows, even, odd);
        }
        for (coefficients, out) in pair.iter_mut().zip(out.chunks_exact_mut(self.samples() / 2)) {
            self.later_axes(coefficients, out, spare, scratch);
        }
    }

    /// All axes of a slab but the first, in order: from the bands that differ in these axes, one behind the other, which are
    /// used up.
    fn later_axes(&self, bands: &mut Vec<T>, dst: &mut [T], spare: &mut Vec<T>, scratch: &mut Scratch<T>) {
        let (axes, m) = (&self.axes[1..], &self.m[1..]);
        let (Some((last, middle)), Some(&m_last)) = (axes.split_last(), m.last()) else { return };
        let mut inner: usize = m.iter().product();
        for (axis, &m) in middle.iter().zip(m) {
            inner /= m;
            spare.resize(bands.len() / (2 * m) * axis.n, T::default());
            let (low, high) = bands.split_at(bands.len() / 2);
            let parts = low.chunks_exact(m * inner).zip(high.chunks_exact(m * inner));
            for ((low, high), dst) in parts.zip(spare.chunks_exact_mut(axis.n * inner)) {
                axis.block(low, high, inner, dst, scratch);
            }
            std::mem::swap(bands, spare);
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
/// When they are too few for the wavelet.
pub(super) fn synthesis<T: Real>(wavelet: &Wavelet, mode: Mode, m: usize) -> Result<Synthesis<T>> {
    Synthesis::new(wavelet, mode, m).ok_or_else(|| {
        let expected = format!("at least {} coefficients along each axis for {}", wavelet.len() / 2, wavelet.name());
        Error::Shape { op: "waverecn", what: "a band", got: vec![m], expected }
    })
}
