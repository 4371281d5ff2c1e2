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

/// `out[b][i] = Σ_j weights[b][j] · rows[j][i]` for both b. Every row is at least as long as the outputs.
pub(super) fn combine<T: Real>(rows: &[&[T]], weights: [&[T]; 2], out: [&mut [T]; 2]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn wide<T: Real>(rows: &[&[T]], weights: [&[T]; 2], out: [&mut [T]; 2]) {
            body::<T, true>(rows, weights, out);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { wide(rows, weights, out) };
        }
    }
    body::<T, false>(rows, weights, out);
}

#[inline(always)]
fn body<T: Real, const FMA: bool>(rows: &[&[T]], weights: [&[T]; 2], [first, second]: [&mut [T]; 2]) {
    let len = first.len();
    assert!(second.len() == len && rows.iter().all(|row| row.len() >= len));
    assert!(weights.iter().all(|w| w.len() == rows.len()));
    let mut at = 0;
    while at + 32 <= len {
        block::<T, FMA, 32>(rows, weights, at, first, second);
        at += 32;
    }
    while at + 8 <= len {
        block::<T, FMA, 8>(rows, weights, at, first, second);
        at += 8;
    }
    while at < len {
        block::<T, FMA, 1>(rows, weights, at, first, second);
        at += 1;
    }
}

#[inline(always)]
fn block<T: Real, const FMA: bool, const N: usize>(
    rows: &[&[T]],
    weights: [&[T]; 2],
    at: usize,
    first: &mut [T],
    second: &mut [T],
) {
    let mut a = [T::default(); N];
    let mut b = [T::default(); N];
    for ((row, &wa), &wb) in rows.iter().zip(weights[0]).zip(weights[1]) {
        let row = &row[at..at + N];
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
