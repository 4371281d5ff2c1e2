//! Loops compiled for the wide vectors of today's processors, and for their instructions that round and that count and find bits: without
//! these, each rounding is a call of a function, and each count a dozen operations.

/// Whether the processor has AVX2 and what comes with it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_wide() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Defines a function that is also compiled for AVX2 and what processors with AVX2 have besides, and runs that where it can. Functions that
/// it calls must be `#[inline(always)]`.
macro_rules! wide_fn {
    ($(#[$doc:meta])* $visible:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        $visible fn $name($($argument: $type),*) $(-> $result)? {
            // Closures of a generic function are made anew for each of its arguments, so each is called in one place and inlined there.
            #[inline(always)]
            fn anywhere<const WIDE: bool>($($argument: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
                fn wide($($argument: $type),*) $(-> $result)? {
                    anywhere::<true>($($argument),*)
                }
                if $crate::wide::is_wide() {
                    // SAFETY: the features were just detected.
                    return unsafe { wide($($argument),*) };
                }
            }
            anywhere::<false>($($argument),*)
        }
    };
}
pub(crate) use wide_fn;

/// Runs a short loop compiled in that way. The compiler inlines a long one nowhere: those need [`wide_fn!`].
#[inline(always)]
pub(crate) fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if is_wide() {
            // SAFETY: the features were just detected.
            return unsafe { avx2(work) };
        }
    }
    work()
}
