//! The SIMD instructions of this machine, chosen at run time.

use pulp::{Simd, WithSimd};

/// Runs `op` with the widest instructions that this processor has.
#[inline]
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = pulp::x86::V4::try_new() {
            return Simd::vectorize(simd, op);
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Simd::vectorize(simd, op);
        }
    }
    pulp::Arch::new().dispatch(op)
}

/// How many f32 a vector of [`dispatch`] holds.
pub(crate) fn lanes() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    dispatch(Lanes)
}

/// The instructions that [`dispatch`] uses: `avx512`, `avx2+fma`, `neon` or `scalar`.
pub(crate) fn level() -> &'static str {
    match lanes() {
        16 => "avx512",
        8 => "avx2+fma",
        4 => "neon",
        _ => "scalar",
    }
}
