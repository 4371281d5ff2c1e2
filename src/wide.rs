//! Loops compiled for the wide vectors of today's processors, and for their instructions that round and that count and find bits: without
//! these, each rounding is a call of a function, and each count a dozen operations.

/// Whether the processor has AVX2 and what comes with it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_wide() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Defines a function that is also compiled for AVX2 and what processors with AVX2 have besides, and runs that where it can.
///
/// What it calls counts only if it is inlined. So functions that it calls must be `#[inline(always)]` and, if they have closures, generic:
/// the constant `WIDE` is there to be passed on. Closures of a generic function are made anew for each of its arguments, so each is called
/// from one place, and the compiler inlines it there.
macro_rules! wide_fn {
    (
        $(#[$doc:meta])*
        $visible:vis fn $name:ident $(<$($generic:ident: $bound:path),+>)? ($($argument:ident: $type:ty),* $(,)?)
        $(-> $result:ty)? $body:block
    ) => {
        $(#[$doc])*
        $visible fn $name $(<$($generic: $bound),+>)? ($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn anywhere<const WIDE: bool $(, $($generic: $bound),+)?>($($argument: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                fn wide $(<$($generic: $bound),+>)? ($($argument: $type),*) $(-> $result)? {
                    anywhere::<true $(, $($generic),+)?>($($argument),*)
                }
                if $crate::wide::is_wide() {
                    // SAFETY: the features were just detected.
                    return unsafe { wide($($argument),*) };
                }
            }
            anywhere::<false $(, $($generic),+)?>($($argument),*)
        }
    };
}
pub(crate) use wide_fn;
