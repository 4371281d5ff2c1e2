//! Turns errors of NVIDIA's driver into errors that say what to do.

use candle_core::cuda_backend::CudaError;
use candle_core::cuda_backend::cudarc::cublas::{result::CublasError, sys::cublasStatus_t};
use candle_core::cuda_backend::cudarc::driver::{DriverError, result::mem_get_info, sys::CUresult};

use super::Error;

/// After one of these errors, the driver refuses every call of this process.
const LOST: [CUresult; 14] = [
    CUresult::CUDA_ERROR_DEINITIALIZED,
    CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
    CUresult::CUDA_ERROR_NO_DEVICE,
    CUresult::CUDA_ERROR_INVALID_DEVICE,
    CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
    CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE,
    CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
    CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
    CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
    CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
    CUresult::CUDA_ERROR_LAUNCH_FAILED,
    CUresult::CUDA_ERROR_EXTERNAL_DEVICE,
    CUresult::CUDA_ERROR_UNKNOWN,
];

const AFTER_A_LOSS: &str = "this process can no longer use the GPU: restart it (`:restart` in a notebook); tensors on the CPU still \
                            work, and WAVEMESH_DEVICE=cpu computes without a GPU";

const WITHOUT_BF16: &str = "WaveMesh was compiled for cards from before compute capability 8.0, for which candle has no bf16: use f16, or \
                            compile with CUDA_COMPUTE_CAP=80";

/// A driver error as text: the driver's message, and what to do if that is known.
pub(crate) fn told(error: &DriverError) -> String {
    match LOST.contains(&error.0) {
        true => format!("{error}; {AFTER_A_LOSS}"),
        false => error.to_string(),
    }
}

/// The driver's error inside one of candle's.
pub(crate) fn within(error: &candle_core::Error) -> Option<&DriverError> {
    match cuda(error)? {
        CudaError::Cuda(error) | CudaError::Load { cuda: error, .. } => Some(error),
        _ => None,
    }
}

fn cuda(error: &candle_core::Error) -> Option<&CudaError> {
    use candle_core::Error as Candle;
    match error {
        Candle::Cuda(inner) => inner.downcast_ref(),
        Candle::WithBacktrace { inner, .. } | Candle::Context { inner, .. } | Candle::WithPath { inner, .. } => {
            cuda(inner)
        }
        _ => None,
    }
}

/// This crate's error for an error of candle that a GPU caused: too little memory, or a lost GPU.
pub(super) fn of_candle(error: &candle_core::Error) -> Option<Error> {
    const OP: &str = "an operation on tensors";
    let short = match cuda(error)? {
        CudaError::Cublas(CublasError(status)) => *status == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED,
        _ => within(error).is_some_and(|error| error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY),
    };
    if short {
        let (free, total) = mem_get_info().unwrap_or_default();
        return Some(Error::GpuMemory { op: OP, asked: None, free: free as u64, total: total as u64 });
    }
    let lost = within(error).filter(|error| LOST.contains(&error.0))?;
    Some(Error::Gpu { op: OP, problem: told(lost) })
}

/// What to do about an error of which only the text is known, because it was carried in candle's own types.
pub(crate) fn advice(message: &str) -> Option<String> {
    if ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"].iter().any(|code| message.contains(code)) {
        let (free, total) = mem_get_info().unwrap_or_default();
        let memory = Error::GpuMemory { op: "tensors", asked: None, free: free as u64, total: total as u64 };
        return Some(memory.to_string());
    }
    if message.contains("CUDA_ERROR_NOT_FOUND") && message.contains("bf16") {
        return Some(WITHOUT_BF16.into());
    }
    let lost = LOST.iter().any(|code| message.contains(&format!("{code:?}")));
    (lost && !message.contains(AFTER_A_LOSS)).then(|| AFTER_A_LOSS.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: CUresult) -> candle_core::Error {
        candle_core::Error::from(CudaError::Cuda(DriverError(code))).context("layer 3")
    }

    #[test]
    fn memory_that_is_short_in_an_operation_of_candle_is_an_error_with_figures() {
        let error = Error::from(of(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert!(matches!(error, Error::GpuMemory { asked: None, .. }), "{error:?}");
        let status = CublasError(cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED);
        assert!(matches!(Error::from(candle_core::Error::from(CudaError::Cublas(status))), Error::GpuMemory { .. }));
    }

    #[test]
    fn a_lost_gpu_says_how_to_go_on_and_says_it_once() {
        let text = Error::from(of(CUresult::CUDA_ERROR_UNKNOWN)).to_string();
        assert!(
            text.contains("CUDA_ERROR_UNKNOWN") && text.contains(":restart") && text.contains("WAVEMESH_DEVICE=cpu")
        );
        assert_eq!(advice(&text), None);
        assert_eq!(advice("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"…\")").as_deref(), Some(AFTER_A_LOSS));
    }

    #[test]
    fn other_errors_of_candle_stay_what_they_are() {
        let error = Error::from(of(CUresult::CUDA_ERROR_INVALID_VALUE));
        assert!(matches!(error, Error::Candle(_)), "{error:?}");
        assert_eq!(advice("shape mismatch"), None);
    }

    #[test]
    fn bf16_that_candle_does_not_have_says_how_to_have_it() {
        let missing =
            CudaError::Load { cuda: DriverError(CUresult::CUDA_ERROR_NOT_FOUND), module_name: "badd_bf16".into() };
        assert_eq!(advice(&candle_core::Error::from(missing).to_string()).as_deref(), Some(WITHOUT_BF16));
    }
}
