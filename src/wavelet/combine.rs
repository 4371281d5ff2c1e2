//! The inner loop of all transforms: two weighted sums of the same rows, with both sums in registers.

/// `f32` or `f64`.
pub trait Real:
    Copy
    + Default
    + Send
    + Sync
    + PartialEq
    + PartialOrd
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::AddAssign
    + 'static
{
    /// Rounds a double to this type.
    fn from_f64(value: f64) -> Self;
    /// Converts this type to a double.
    fn to_f64(self) -> f64;
    /// Sums like [`combine`] in the widest registers of the processor, as long as the values fill them. Returns how many values it has
    /// done.
    #[doc(hidden)]
    fn combine_in_registers(rows: &Rows<Self>, pair: &Pair<Self>, out: &mut [&mut [Self]; 2]) -> usize;
}

macro_rules! real {
    ($type:ty, $avx2:ident, $avx512:ident, $neon:ident) => {
        impl Real for $type {
            fn from_f64(value: f64) -> Self {
                value as Self
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn combine_in_registers(rows: &Rows<Self>, pair: &Pair<Self>, out: &mut [&mut [Self]; 2]) -> usize {
                #[cfg(target_arch = "x86_64")]
                {
                    if is_x86_feature_detected!("avx512f") {
                        // SAFETY: the feature was just detected.
                        return unsafe { x86::$avx512(rows, pair, out) };
                    }
                    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                        // SAFETY: the features were just detected.
                        return unsafe { x86::$avx2(rows, pair, out) };
                    }
                }
                // SAFETY: every 64-bit Arm processor for which Rust's standard library is compiled has NEON.
                #[cfg(target_arch = "aarch64")]
                let done = unsafe { neon::$neon(rows, pair, out) };
                #[cfg(not(target_arch = "aarch64"))]
                let done = {
                    let _ = (rows, pair, out);
                    0
                };
                done
            }
        }
    };
}
real!(f32, f32_avx2, f32_avx512, f32_neon);
real!(f64, f64_avx2, f64_avx512, f64_neon);

/// The weights of two sums over the same rows, without zero weights: the shorter filter of a biorthogonal pair ends in zeros.
#[derive(Debug)]
pub struct Pair<T> {
    /// Rows in both sums, with both weights.
    both: Vec<(usize, [T; 2])>,
    /// Rows in only one sum.
    alone: [Vec<(usize, T)>; 2],
    /// Number of rows.
    rows: usize,
}

impl<T: Real> Pair<T> {
    /// From the weights of each row.
    pub fn new([a, b]: [&[T]; 2]) -> Self {
        let zero = T::default();
        let (mut both, mut alone) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (row, (&a, &b)) in a.iter().zip(b).enumerate() {
            match (a != zero, b != zero) {
                (true, true) => both.push((row, [a, b])),
                (true, false) => alone[0].push((row, a)),
                (false, true) => alone[1].push((row, b)),
                (false, false) => {}
            }
        }
        Self { both, alone, rows: a.len() }
    }
}

/// Filters have at most this many taps; each call looks up each row once.
const MOST_ROWS: usize = 48;

/// Rows that are all at least `len` values long.
#[derive(Debug)]
pub struct Rows<'a, T> {
    rows: [&'a [T]; MOST_ROWS],
    len: usize,
}

/// `out[b][i] = Σ_t weights[b][t] · row(t)[i]` for both b. Every row must be at least as long as the outputs.
pub(super) fn combine<'a, T: Real>(row: impl Fn(usize) -> &'a [T], pair: &Pair<T>, mut out: [&mut [T]; 2]) {
    let len = out[0].len();
    assert!(out[1].len() == len && pair.rows <= MOST_ROWS);
    let mut rows: [&[T]; MOST_ROWS] = [&[]; MOST_ROWS];
    for (t, slot) in rows[..pair.rows].iter_mut().enumerate() {
        *slot = &row(t)[..len];
    }
    let rows = Rows { rows, len };
    let done = T::combine_in_registers(&rows, pair, &mut out);
    let [first, second] = out;
    for i in done..len {
        let (mut a, mut b) = (T::default(), T::default());
        for &(t, [wa, wb]) in &pair.both {
            a += rows.rows[t][i] * wa;
            b += rows.rows[t][i] * wb;
        }
        pair.alone[0].iter().for_each(|&(t, weight)| a += rows.rows[t][i] * weight);
        pair.alone[1].iter().for_each(|&(t, weight)| b += rows.rows[t][i] * weight);
        (first[i], second[i]) = (a, b);
    }
}

/// Starts loading values into cache that are needed soon.
#[inline]
pub(super) fn fetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has this instruction, and it changes only the cache.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    let _ = values;
}

/// The loop of one kind of register: its lanes, and the instructions that clear, fill, load, multiply and add, and store it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! in_registers {
    ($name:ident, $features:literal, $type:ty, $lanes:literal, $zero:ident, $set:ident, $load:ident, $fma:ident, $store:ident) => {
        #[target_feature(enable = $features)]
        pub fn $name(rows: &Rows<$type>, pair: &Pair<$type>, out: &mut [&mut [$type]; 2]) -> usize {
            /// Computes `R` registers of each sum, from `at` on.
            ///
            /// # Safety
            /// All rows and outputs must reach at least to `at + R · lanes`.
            #[target_feature(enable = $features)]
            unsafe fn block<const R: usize>(
                rows: &Rows<$type>,
                pair: &Pair<$type>,
                out: &mut [&mut [$type]; 2],
                at: usize,
            ) {
                let mut a = [$zero(); R];
                let mut b = [$zero(); R];
                // SAFETY: the caller guarantees that everything loaded and stored exists.
                unsafe {
                    for &(t, [wa, wb]) in &pair.both {
                        let row = rows.rows[t].as_ptr().add(at);
                        let (wa, wb) = ($set(wa), $set(wb));
                        for r in 0..R {
                            let x = $load(row.add(r * $lanes));
                            a[r] = $fma(x, wa, a[r]);
                            b[r] = $fma(x, wb, b[r]);
                        }
                    }
                    for &(t, weight) in &pair.alone[0] {
                        let (row, weight) = (rows.rows[t].as_ptr().add(at), $set(weight));
                        for r in 0..R {
                            a[r] = $fma($load(row.add(r * $lanes)), weight, a[r]);
                        }
                    }
                    for &(t, weight) in &pair.alone[1] {
                        let (row, weight) = (rows.rows[t].as_ptr().add(at), $set(weight));
                        for r in 0..R {
                            b[r] = $fma($load(row.add(r * $lanes)), weight, b[r]);
                        }
                    }
                    for r in 0..R {
                        $store(out[0].as_mut_ptr().add(at + r * $lanes), a[r]);
                        $store(out[1].as_mut_ptr().add(at + r * $lanes), b[r]);
                    }
                }
            }
            let len = rows.len.min(out[0].len()).min(out[1].len());
            assert!(rows.rows[..pair.rows].iter().all(|row| row.len() >= len));
            let mut at = 0;
            // Both sums of the wider block fill half of the sixteen AVX registers, a quarter of the 32 of AVX-512 and NEON.
            while at + 4 * $lanes <= len {
                // SAFETY: rows and outputs reach to `len`, and no weight belongs to a row beyond `pair.rows`.
                unsafe { block::<4>(rows, pair, out, at) };
                at += 4 * $lanes;
            }
            while at + $lanes <= len {
                // SAFETY: as above.
                unsafe { block::<1>(rows, pair, out, at) };
                at += $lanes;
            }
            // These are rounded as in registers, so that a value does not depend on its place in a row.
            for i in at..len {
                let (mut a, mut b) = (0.0, 0.0);
                for &(t, [wa, wb]) in &pair.both {
                    a = rows.rows[t][i].mul_add(wa, a);
                    b = rows.rows[t][i].mul_add(wb, b);
                }
                pair.alone[0].iter().for_each(|&(t, weight)| a = rows.rows[t][i].mul_add(weight, a));
                pair.alone[1].iter().for_each(|&(t, weight)| b = rows.rows[t][i].mul_add(weight, b));
                (out[0][i], out[1][i]) = (a, b);
            }
            len
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Pair, Rows};

    in_registers!(
        f32_avx2,
        "avx2,fma",
        f32,
        8,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_fmadd_ps,
        _mm256_storeu_ps
    );
    in_registers!(
        f64_avx2,
        "avx2,fma",
        f64,
        4,
        _mm256_setzero_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_fmadd_pd,
        _mm256_storeu_pd
    );
    in_registers!(
        f32_avx512,
        "avx512f",
        f32,
        16,
        _mm512_setzero_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_fmadd_ps,
        _mm512_storeu_ps
    );
    in_registers!(
        f64_avx512,
        "avx512f",
        f64,
        8,
        _mm512_setzero_pd,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_fmadd_pd,
        _mm512_storeu_pd
    );
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{Pair, Rows};

    /// In the order of arguments of AVX: `x · y + sum`.
    #[target_feature(enable = "neon")]
    fn fma_f32(x: float32x4_t, y: float32x4_t, sum: float32x4_t) -> float32x4_t {
        vfmaq_f32(sum, x, y)
    }

    #[target_feature(enable = "neon")]
    fn fma_f64(x: float64x2_t, y: float64x2_t, sum: float64x2_t) -> float64x2_t {
        vfmaq_f64(sum, x, y)
    }

    #[target_feature(enable = "neon")]
    fn zero_f32() -> float32x4_t {
        vdupq_n_f32(0.0)
    }

    #[target_feature(enable = "neon")]
    fn zero_f64() -> float64x2_t {
        vdupq_n_f64(0.0)
    }

    in_registers!(f32_neon, "neon", f32, 4, zero_f32, vdupq_n_f32, vld1q_f32, fma_f32, vst1q_f32);
    in_registers!(f64_neon, "neon", f64, 2, zero_f64, vdupq_n_f64, vld1q_f64, fma_f64, vst1q_f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_same_in_registers_of_any_width_and_without() {
        let rows: Vec<Vec<f32>> =
            (0..7).map(|t| (0..150).map(|i| ((t * 31 + i * 7) % 23) as f32 - 11.0).collect()).collect();
        // Weights of both sums, of one only, and of none.
        let weights = [[0.0, 1.0, -2.0, 3.0, 0.0, 0.0, 2.0], [0.0, 0.5, 0.25, 0.0, 0.0, -1.0, 4.0]];
        let pair = Pair::new([&weights[0], &weights[1]]);
        for len in [0, 1, 7, 8, 17, 40, 64, 131, 150] {
            let (mut a, mut b) = (vec![9.0; len], vec![9.0; len]);
            combine(|t| &rows[t], &pair, [&mut a, &mut b]);
            for (sum, weights) in [a, b].iter().zip(weights) {
                for (i, &sum) in sum.iter().enumerate() {
                    assert_eq!(sum, (0..7).map(|t| weights[t] * rows[t][i]).sum::<f32>(), "{i} of {len}");
                }
            }
        }
    }
}
