//! The one inner loop of all transforms: two weighted sums of the same rows.

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
    /// `self · factor + term`, rounded once. Without hardware support it is slow.
    fn fused(self, factor: Self, term: Self) -> Self;
    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;
    /// Widens from this type.
    fn to_f64(self) -> f64;
}

macro_rules! real {
    ($type:ty) => {
        impl Real for $type {
            #[inline(always)]
            fn fused(self, factor: Self, term: Self) -> Self {
                self.mul_add(factor, term)
            }
            fn from_f64(value: f64) -> Self {
                value as Self
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
        }
    };
}
real!(f32);
real!(f64);

/// `out[b][i] = Σ_t weights[b][t] · row(t)[i]` for both b. Every row is at least as long as the outputs.
pub(super) fn combine<'a, T: Real>(row: impl Fn(usize) -> &'a [T], weights: [&[T]; 2], out: [&mut [T]; 2]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn wide<'a, T: Real>(row: impl Fn(usize) -> &'a [T], weights: [&[T]; 2], out: [&mut [T]; 2]) {
            body::<T, true>(row, weights, out);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { wide(row, weights, out) };
        }
    }
    body::<T, false>(row, weights, out);
}

#[inline(always)]
fn body<'a, T: Real, const FMA: bool>(row: impl Fn(usize) -> &'a [T], weights: [&[T]; 2], out: [&mut [T]; 2]) {
    let len = out[0].len();
    assert!(out[1].len() == len && weights[0].len() == weights[1].len());
    let [first, second] = out;
    // Both sums of the widest block fill half of the sixteen AVX registers.
    let mut at = 0;
    while size_of::<T>() == 4 && at + 32 <= len {
        block::<T, FMA, 32>(&row, weights, at, first, second);
        at += 32;
    }
    while at + 16 <= len {
        block::<T, FMA, 16>(&row, weights, at, first, second);
        at += 16;
    }
    while at + 4 <= len {
        block::<T, FMA, 4>(&row, weights, at, first, second);
        at += 4;
    }
    while at < len {
        block::<T, FMA, 1>(&row, weights, at, first, second);
        at += 1;
    }
}

#[inline(always)]
fn block<'a, T: Real, const FMA: bool, const N: usize>(
    row: &impl Fn(usize) -> &'a [T],
    weights: [&[T]; 2],
    at: usize,
    first: &mut [T],
    second: &mut [T],
) {
    let mut a = [T::default(); N];
    let mut b = [T::default(); N];
    for (t, (&wa, &wb)) in weights[0].iter().zip(weights[1]).enumerate() {
        let row = &row(t)[at..at + N];
        for i in 0..N {
            if FMA {
                a[i] = row[i].fused(wa, a[i]);
                b[i] = row[i].fused(wb, b[i]);
            } else {
                a[i] += row[i] * wa;
                b[i] += row[i] * wb;
            }
        }
    }
    first[at..at + N].copy_from_slice(&a);
    second[at..at + N].copy_from_slice(&b);
}
