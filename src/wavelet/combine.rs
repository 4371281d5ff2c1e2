//! The inner loop of all transforms: two weighted sums of the same rows, with both sums in registers.

use std::mem::MaybeUninit;

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
    /// Sums like [`combine`] in the widest registers of the processor. Returns false if it has none.
    #[doc(hidden)]
    fn combine_in_registers<const K: usize>(
        rows: &[&[Self]],
        weights: &[[Self; 2]],
        out: &mut [[&mut [Self]; 2]; K],
    ) -> bool;
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
            fn combine_in_registers<const K: usize>(
                rows: &[&[Self]],
                weights: &[[Self; 2]],
                out: &mut [[&mut [Self]; 2]; K],
            ) -> bool {
                #[cfg(target_arch = "x86_64")]
                {
                    if is_x86_feature_detected!("avx512f") {
                        // SAFETY: the feature was just detected.
                        unsafe { x86::$avx512(rows, weights, out) };
                        return true;
                    }
                    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                        // SAFETY: the features were just detected.
                        unsafe { x86::$avx2(rows, weights, out) };
                        return true;
                    }
                }
                // SAFETY: every 64-bit Arm processor for which Rust's standard library is compiled has NEON.
                #[cfg(target_arch = "aarch64")]
                unsafe {
                    neon::$neon(rows, weights, out)
                };
                #[cfg(not(target_arch = "aarch64"))]
                let _ = (rows, weights, out);
                cfg!(target_arch = "aarch64")
            }
        }
    };
}
real!(f32, f32_avx2, f32_avx512, f32_neon);
real!(f64, f64_avx2, f64_avx512, f64_neon);

/// The weights of each row in two sums.
pub(super) fn weights<T: Real>([a, b]: [&[T]; 2]) -> Vec<[T; 2]> {
    a.iter().zip(b).map(|(&a, &b)| [a, b]).collect()
}

/// Filters have at most this many taps, and a pair of sums two rows more; each call looks up each row once.
const MOST_ROWS: usize = 50;

/// `out[k][b][i] = Σ_t weights[t][b] · row(2k + t)[i]` for all k and both b. Every row must be at least as long as the outputs. Several k at
/// once share most of their rows.
pub(super) fn combine<'a, T: Real, const K: usize>(
    row: impl Fn(usize) -> &'a [T],
    weights: &[[T; 2]],
    mut out: [[&mut [T]; 2]; K],
) {
    let Some(len) = out.first().map(|[first, _]| first.len()) else { return };
    let count = weights.len() + 2 * (K - 1);
    assert!(count <= MOST_ROWS && out.iter().flatten().all(|out| out.len() == len));
    // Not cleared first: that takes as long as the sums of a short row.
    let mut room = [const { MaybeUninit::<&[T]>::uninit() }; MOST_ROWS];
    for (t, slot) in room[..count].iter_mut().enumerate() {
        slot.write(&row(t)[..len]);
    }
    // SAFETY: these were just written.
    let rows = unsafe { room[..count].assume_init_ref() };
    if T::combine_in_registers(rows, weights, &mut out) {
        return;
    }
    for (k, [first, second]) in out.into_iter().enumerate() {
        for (i, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let (mut a, mut b) = (T::default(), T::default());
            for (row, &[wa, wb]) in rows[2 * k..].iter().zip(weights) {
                a += row[i] * wa;
                b += row[i] * wb;
            }
            (*first, *second) = (a, b);
        }
    }
}

/// The loop of one kind of register: its lanes, how many hold the values of one sum if K = 2, and the instructions that clear, fill, load,
/// multiply and add, and store it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! in_registers {
    ($name:ident, $features:literal, $type:ty, $lanes:literal, $of_two:literal, $zero:ident, $set:ident, $load:ident, $fma:ident, $store:ident) => {
        #[target_feature(enable = $features)]
        pub fn $name<const K: usize>(rows: &[&[$type]], weights: &[[$type; 2]], out: &mut [[&mut [$type]; 2]; K]) {
            /// Computes `R` registers of each sum, from `at` on.
            ///
            /// # Safety
            /// All rows and outputs must reach at least to `at + R · lanes`.
            #[target_feature(enable = $features)]
            unsafe fn block<const R: usize, const K: usize>(
                rows: &[&[$type]],
                weights: &[[$type; 2]],
                out: &mut [[&mut [$type]; 2]; K],
                at: usize,
            ) {
                let mut sums = [[[$zero(); R]; 2]; K];
                // SAFETY: the caller guarantees that everything loaded and stored exists.
                unsafe {
                    for (t, row) in rows.iter().enumerate() {
                        let row = row.as_ptr().add(at);
                        let mut x = [$zero(); R];
                        for r in 0..R {
                            x[r] = $load(row.add(r * $lanes));
                        }
                        for k in 0..K {
                            let Some(&[a, b]) = weights.get(t.wrapping_sub(2 * k)) else { continue };
                            let (a, b) = ($set(a), $set(b));
                            for r in 0..R {
                                sums[k][0][r] = $fma(x[r], a, sums[k][0][r]);
                                sums[k][1][r] = $fma(x[r], b, sums[k][1][r]);
                            }
                        }
                    }
                    for k in 0..K {
                        for r in 0..R {
                            $store(out[k][0].as_mut_ptr().add(at + r * $lanes), sums[k][0][r]);
                            $store(out[k][1].as_mut_ptr().add(at + r * $lanes), sums[k][1][r]);
                        }
                    }
                }
            }
            let Some(len) = out.first().map(|[first, _]| first.len()) else { return };
            assert!(rows.iter().all(|row| row.len() >= len) && out.iter().flatten().all(|out| out.len() >= len));
            let mut at = 0;
            // The sums of the wider block fill half of the sixteen AVX registers, a quarter to a half of the 32 of AVX-512 and NEON.
            if K == 1 {
                while at + 4 * $lanes <= len {
                    // SAFETY: rows and outputs reach to `len`.
                    unsafe { block::<4, K>(rows, weights, out, at) };
                    at += 4 * $lanes;
                }
            } else {
                while at + $of_two * $lanes <= len {
                    // SAFETY: as above.
                    unsafe { block::<$of_two, K>(rows, weights, out, at) };
                    at += $of_two * $lanes;
                }
            }
            while at + $lanes <= len {
                // SAFETY: as above.
                unsafe { block::<1, K>(rows, weights, out, at) };
                at += $lanes;
            }
            // These are rounded as in registers, so that a value does not depend on its place in a row.
            for (k, [first, second]) in out.iter_mut().enumerate() {
                for i in at..len {
                    let (mut a, mut b) = (0.0, 0.0);
                    for (row, &[wa, wb]) in rows[2 * k..].iter().zip(weights) {
                        a = row[i].mul_add(wa, a);
                        b = row[i].mul_add(wb, b);
                    }
                    (first[i], second[i]) = (a, b);
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    in_registers!(
        f32_avx2,
        "avx2,fma",
        f32,
        8,
        2,
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
        2,
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
        4,
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
        4,
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

    in_registers!(f32_neon, "neon", f32, 4, 4, zero_f32, vdupq_n_f32, vld1q_f32, fma_f32, vst1q_f32);
    in_registers!(f64_neon, "neon", f64, 2, 4, zero_f64, vdupq_n_f64, vld1q_f64, fma_f64, vst1q_f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_same_in_registers_of_any_width_and_without() {
        let rows: Vec<Vec<f32>> =
            (0..7).map(|t| (0..150).map(|i| ((t * 31 + i * 7) % 23) as f32 - 11.0).collect()).collect();
        // Weights of both sums, of one only, and of none.
        let weights = weights([&[0.0f32, 1.0, -2.0, 3.0, 0.0][..], &[0.0f32, 0.5, 0.25, 0.0, -1.0]]);
        let sum = |k: usize, b: usize, i: usize| (0..5).map(|t| weights[t][b] * rows[2 * k + t][i]).sum::<f32>();
        for len in [0, 1, 7, 8, 17, 40, 64, 131, 150] {
            let mut out = vec![vec![9.0; len]; 4];
            let [a, b, c, d] = &mut out[..] else { unreachable!() };
            combine(|t| &rows[t], &weights, [[&mut a[..], &mut b[..]], [&mut c[..], &mut d[..]]]);
            let (mut a, mut b) = (vec![9.0; len], vec![9.0; len]);
            combine(|t| &rows[t], &weights, [[&mut a, &mut b]]);
            assert_eq!([&a, &b], [&out[0], &out[1]]);
            for (number, values) in out.iter().enumerate() {
                for (i, &value) in values.iter().enumerate() {
                    assert_eq!(value, sum(number / 2, number % 2, i), "{i} of {len}");
                }
            }
        }
    }
}
