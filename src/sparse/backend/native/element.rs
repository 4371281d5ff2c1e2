//! Feature types: f32; and f16 and bf16, which are stored in half the memory and computed in f32.

use std::borrow::Cow;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::{Error, Result};

/// A feature type of the native backend.
pub(super) trait Element: candle_core::WithDType + Default + Send + Sync {
    /// Whether the type is f32, so that rows need no conversion.
    const IS_F32: bool;

    /// Converts rows to f32.
    fn widen(from: &[Self], to: &mut [f32]);

    /// Converts f32 rows, rounding to nearest.
    fn narrow(from: &[f32], to: &mut [Self]);

    /// The values themselves when they are f32.
    fn as_f32(values: &[Self]) -> &[f32];
}

impl Element for f32 {
    const IS_F32: bool = true;

    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn as_f32(values: &[Self]) -> &[f32] {
        values
    }
}

macro_rules! half_element {
    ($type:ty) => {
        impl Element for $type {
            const IS_F32: bool = false;

            fn widen(from: &[Self], to: &mut [f32]) {
                from.convert_to_f32_slice(to);
            }

            fn narrow(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }

            fn as_f32(_: &[Self]) -> &[f32] {
                &[]
            }
        }
    };
}
half_element!(f16);
half_element!(bf16);

/// Runs `$body` with `$T` as the element type of `$dtype`; any other type gives candle's error.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F16 => {
                type $T = half::f16;
                $body
            }
            candle_core::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            got => Err(crate::Error::DType {
                op: "native backend",
                what: "features",
                got,
                expected: "f32, f16, bf16, or f64 in forward passes and their gradients",
            }),
        }
    };
}
pub(super) use with_element;

/// The values of a contiguous tensor on the CPU.
pub(super) fn values<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let all = storage.as_slice::<T>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => Err(Error::Candle(candle_core::Error::RequiresContiguous { op: "sparse layer" })),
    }
}

/// Calls `body` with the storage of a tensor on the CPU, made contiguous if needed.
pub(super) fn with_storage<R>(tensor: &Tensor, body: impl FnOnce(&CpuStorage, &Layout) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => body(storage, layout),
        _ => Err(Error::Backend {
            backend: "native",
            needs: format!(
                "it needs tensors on the CPU, and these are on {:?}; use `to_device`",
                tensor.device().location()
            ),
        }),
    }
}

/// Calls `body` with the values of a tensor on the CPU, made contiguous if needed.
pub(super) fn with_values<T: Element, R>(tensor: &Tensor, body: impl FnOnce(&[T]) -> R) -> Result<R> {
    with_storage(tensor, |storage, layout| Ok(body(values::<T>(storage, layout)?)))
}

/// The values of a contiguous tensor on the CPU as f32: themselves, or converted copies.
pub(super) fn as_f32<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    with_element!(storage.dtype(), T => {
        let from = values::<T>(storage, layout)?;
        if <T as Element>::IS_F32 {
            return Ok(T::as_f32(from).into());
        }
        let mut to = vec![0.0; from.len()];
        T::widen(from, &mut to);
        Ok(to.into())
    })
}
