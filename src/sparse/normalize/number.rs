//! Feature types, and the types in which they are computed.

use candle_core::WithDType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A feature type, and the type in which it is computed.
pub(super) trait Number: WithDType {
    type Wide: WithDType + Default;

    /// The values in the wide type: themselves, or converted into `scratch`.
    fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<Self::Wide>) -> &'a [Self::Wide];

    /// Rounds to nearest.
    fn narrow(wide: &[Self::Wide], to: &mut [Self]);

    /// The next larger or smaller value of this type.
    fn beside(self, above: bool) -> Self;
}

macro_rules! wide_number {
    ($type:ty) => {
        impl Number for $type {
            type Wide = Self;

            #[inline(always)]
            fn widen<'a>(values: &'a [Self], _: &'a mut Vec<Self>) -> &'a [Self] {
                values
            }

            #[inline(always)]
            fn narrow(wide: &[Self], to: &mut [Self]) {
                to.copy_from_slice(wide);
            }

            fn beside(self, above: bool) -> Self {
                if above { self.next_up() } else { self.next_down() }
            }
        }
    };
}
wide_number!(f32);
wide_number!(f64);

macro_rules! half_number {
    ($type:ty) => {
        impl Number for $type {
            type Wide = f32;

            #[inline(always)]
            fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [f32] {
                scratch.resize(values.len(), 0.0);
                values.convert_to_f32_slice(scratch);
                scratch
            }

            #[inline(always)]
            fn narrow(wide: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(wide);
            }

            fn beside(self, above: bool) -> Self {
                // For numbers of one sign, the bits have the order of the distances from zero.
                let (zero, positive) = (self == Self::ZERO, self.is_sign_positive());
                Self::from_bits(match (zero, positive == above) {
                    (true, _) => {
                        if above {
                            Self::ZERO.to_bits() + 1
                        } else {
                            Self::NEG_ZERO.to_bits() + 1
                        }
                    }
                    (false, true) => self.to_bits() + 1,
                    (false, false) => self.to_bits() - 1,
                })
            }
        }
    };
}
half_number!(f16);
half_number!(bf16);

/// Runs `$body` with `$X` and `$Y` as the types of the inputs and of the output.
macro_rules! with_types {
    ($x:expr, $y:expr, ($X:ident, $Y:ident) => $body:expr) => {
        with_types!(@match $x, $y, ($X, $Y) => $body;
            (F32, f32, F32, f32) (F32, f32, F16, half::f16) (F32, f32, BF16, half::bf16)
            (F16, half::f16, F16, half::f16) (BF16, half::bf16, BF16, half::bf16) (F64, f64, F64, f64))
    };
    (@match $x:expr, $y:expr, ($X:ident, $Y:ident) => $body:expr; $(($dx:ident, $tx:ty, $dy:ident, $ty:ty))*) => {
        match ($x, $y) {
            $((candle_core::DType::$dx, candle_core::DType::$dy) => {
                type $X = $tx;
                type $Y = $ty;
                $body
            })*
            (got, _) => Err($crate::sparse::normalize::unsupported(got)),
        }
    };
}

/// Runs `$body` with `$X`, `$Y`, `$G` and `$R` as the types of the inputs, of the output, of its gradient, and of the gradients of the
/// inputs: the type of the inputs, or f32 if the gradient of the output is f32.
macro_rules! with_gradient_types {
    ($x:expr, $y:expr, $g:expr, ($X:ident, $Y:ident, $G:ident, $R:ident) => $body:expr) => {
        with_gradient_types!(@match ($x, $y, $g), ($X, $Y, $G, $R) => $body;
            (F32 f32, F32 f32, F32 f32, f32)
            (F64 f64, F64 f64, F64 f64, f64)
            (F16 f16, F16 f16, F16 f16, f16)
            (BF16 bf16, BF16 bf16, BF16 bf16, bf16)
            (F32 f32, F16 f16, F16 f16, f32)
            (F32 f32, BF16 bf16, BF16 bf16, f32)
            (F16 f16, F16 f16, F32 f32, f32)
            (BF16 bf16, BF16 bf16, F32 f32, f32)
            (F16 f16, F32 f32, F32 f32, f32)
            (BF16 bf16, F32 f32, F32 f32, f32))
    };
    (@match $types:expr, ($X:ident, $Y:ident, $G:ident, $R:ident) => $body:expr;
        $(($dx:ident $tx:ty, $dy:ident $ty:ty, $dg:ident $tg:ty, $tr:ty))*) => {{
        use half::{bf16, f16};
        match $types {
            $((candle_core::DType::$dx, candle_core::DType::$dy, candle_core::DType::$dg) => {
                type $X = $tx;
                type $Y = $ty;
                type $G = $tg;
                type $R = $tr;
                $body
            })*
            (got, ..) => Err($crate::sparse::normalize::unsupported(got)),
        }
    }};
}
