//! Chooses the device that computes: the first GPU that works, or the processor.
//!
//! Every operation runs on the device of its tensors, and only [`Tensor::to_device`](candle_core::Tensor::to_device) moves tensors. So a
//! program chooses once, where it creates its tensors.

use candle_core::Device;

#[cfg(feature = "cuda")]
use crate::error::driver::advice as advised;
#[cfg(feature = "cuda")]
pub use crate::gpu::GpuInfo;
pub use crate::recording::Recording;
use crate::{Error, Result};

/// The environment variable that chooses the device of [`best_device`]: `cpu`, `cuda`, `cuda:1` or `auto`.
pub const DEVICE_VARIABLE: &str = "WAVEMESH_DEVICE";

/// In this variable the kernel says why the library for GPUs cannot be loaded, when cells use the library for the processor instead.
#[cfg(not(feature = "cuda"))]
const PROBLEM_VARIABLE: &str = "WAVEMESH_GPU_PROBLEM";

/// The choice in the variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Auto,
    Cpu,
    /// The GPU with this number, or this process's first GPU.
    Cuda(Option<usize>),
}

impl Choice {
    fn parse(text: &str) -> Result<Self> {
        let name = text.trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(|n| Self::Cuda(Some(n)))
                .ok_or_else(|| Error::Unknown {
                    kind: "device",
                    name: text.into(),
                    known: "auto, cpu, cuda, cuda:0, cuda:1, …".into(),
                }),
        }
    }

    fn read() -> Result<Self> {
        Self::parse(&std::env::var(DEVICE_VARIABLE).unwrap_or_default())
    }
}

/// The first GPU that works, otherwise the CPU, unless `WAVEMESH_DEVICE` says otherwise. Every call returns the same device, so tensors
/// from different calls can be used together.
///
/// ```
/// use wavemesh::prelude::*;
/// # fn main() -> wavemesh::Result<()> {
/// let device = best_device()?;
/// let x = Tensor::zeros((2, 3), DType::F32, &device)?;
/// assert!(x.device().same_device(&best_device()?));
/// # Ok(()) }
/// ```
///
/// # Errors
/// If `WAVEMESH_DEVICE` holds an unknown name, or requests a GPU that does not exist or cannot be used; the error says what is needed.
pub fn best_device() -> Result<Device> {
    match Choice::read()? {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Auto => Ok(cuda(0).unwrap_or(Device::Cpu)),
        Choice::Cuda(ordinal) => cuda(ordinal.unwrap_or(0)),
    }
}

/// The device of the process with number `local` on its machine: the GPU with that number, counting again from 0 if there are fewer (a
/// launcher may show each process only its own GPU), otherwise the CPU. `WAVEMESH_DEVICE` decides as in [`best_device`]; `cuda` requests a
/// GPU.
#[cfg(feature = "train")]
pub(crate) fn nth_device(local: usize) -> Result<Device> {
    let nth = || cuda(local % gpu_count().max(1));
    match Choice::read()? {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Auto => Ok(nth().unwrap_or(Device::Cpu)),
        Choice::Cuda(None) => nth(),
        Choice::Cuda(Some(ordinal)) => cuda(ordinal),
    }
}

/// Why [`best_device`] is the CPU although this machine has an NVIDIA GPU, and the line that changes this; `None` if it is the GPU or there
/// is none.
pub(crate) fn unused_gpu() -> Option<String> {
    let driver = driver()?;
    let why = match Choice::read() {
        Ok(Choice::Auto) => cuda(0).err()?.to_string(),
        Ok(Choice::Cpu) => format!("{DEVICE_VARIABLE}=cpu; unset it to use the GPU"),
        Ok(Choice::Cuda(ordinal)) => cuda(ordinal.unwrap_or(0)).err()?.to_string(),
        Err(error) => error.to_string(),
    };
    Some(format!("this machine has an NVIDIA GPU (driver {driver}) that is not used: {why}"))
}

/// The version of NVIDIA's kernel driver, if it is loaded.
pub(crate) fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    version_in(&text).map(str::to_string)
}

/// The first word of the driver's description that looks like a version.
fn version_in(text: &str) -> Option<&str> {
    let looks = |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.lines().next()?.split_whitespace().find(looks)
}

#[cfg(all(feature = "cuda", feature = "train"))]
fn gpu_count() -> usize {
    crate::gpu::count()
}

#[cfg(all(not(feature = "cuda"), feature = "train"))]
fn gpu_count() -> usize {
    0
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    crate::gpu::device(ordinal)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device> {
    Err(Error::Backend { backend: "cuda", needs: what_is_missing(std::env::var(PROBLEM_VARIABLE).ok()) })
}

/// What a library that was built only for the processor lacks. `problem` says why the library for GPUs beside it cannot be loaded.
#[cfg(not(feature = "cuda"))]
fn what_is_missing(problem: Option<String>) -> String {
    problem.unwrap_or_else(|| {
        "it needs WaveMesh built for GPUs: `cargo build --features cuda`, or `bash kernel/setup.sh --cuda` for notebooks".into()
    })
}

/// The bytes that this process holds for its tensors on each GPU that it has taken, by its number.
#[cfg(all(feature = "cuda", feature = "notebook"))]
pub(crate) fn gpu_memory_held() -> Vec<(usize, u64)> {
    crate::gpu::memory_held()
}

#[cfg(all(not(feature = "cuda"), feature = "notebook"))]
pub(crate) fn gpu_memory_held() -> Vec<(usize, u64)> {
    Vec::new()
}

/// Properties of the GPU of `device`, and the present use of its memory.
///
/// # Errors
/// A device that is not a GPU, or a GPU that is lost.
///
/// ```no_run
/// use wavemesh::prelude::*;
/// let gpu = gpu_info(&Device::new_cuda(0)?)?;
/// println!("{}: {} of {} bytes are in use", gpu.name, gpu.used, gpu.total);
/// # Ok::<(), Error>(())
/// ```
#[cfg(feature = "cuda")]
pub fn gpu_info(device: &Device) -> Result<GpuInfo> {
    crate::gpu::info(device)
}

/// Returns to the GPU the memory that tensors have freed and that this process keeps for later ones.
///
/// # Errors
/// A device that is not a GPU, or a GPU that is lost.
///
/// ```no_run
/// use wavemesh::prelude::*;
/// trim_gpu_memory(&Device::new_cuda(0)?)?; // another program needs the memory now
/// # Ok::<(), Error>(())
/// ```
#[cfg(feature = "cuda")]
pub fn trim_gpu_memory(device: &Device) -> Result<()> {
    crate::gpu::trim(device)
}

/// Lets `peak` of [`gpu_info`] begin at the memory that tensors use now, as `torch.cuda.reset_peak_memory_stats`.
///
/// # Errors
/// A device that is not a GPU, or a GPU that is lost.
///
/// ```no_run
/// use wavemesh::device::reset_gpu_memory_peak;
/// use wavemesh::prelude::*;
/// let device = best_device()?;
/// reset_gpu_memory_peak(&device)?;
/// let before = gpu_info(&device)?.used;
/// Tensor::ones((1000, 1000), DType::F32, &device)?.sqr()?; // a step of a training, say
/// println!("{} bytes more at once", gpu_info(&device)?.peak - before);
/// # Ok::<(), Error>(())
/// ```
#[cfg(feature = "cuda")]
pub fn reset_gpu_memory_peak(device: &Device) -> Result<()> {
    crate::gpu::reset_peak(device)
}

/// Lets GPUs round the factors of f32 products to TF32 (ten bits), from now on and in every thread: convolutions and matrix products are
/// faster and have errors of 3·10⁻⁴. Large submanifold convolutions on Hopper get the same ten bits from f16 with a common scale; numbers below
/// 2⁻²⁹ of the largest have fewer. Sums, parameters and everything else stay f32. Products on the processor are never rounded.
///
/// ```
/// wavemesh::device::allow_tf32(true); // as torch.backends.cuda.matmul.allow_tf32
/// # wavemesh::device::allow_tf32(false);
/// ```
#[doc(alias = "set_float32_matmul_precision")]
pub fn allow_tf32(allow: bool) {
    candle_core::cuda::set_gemm_reduced_precision_f32(allow);
}

/// What to do about a GPU error of which only the text is known, as for an error that ends a notebook's cell; `None` if there is nothing to
/// add.
///
/// ```
/// assert_eq!(wavemesh::device::advice("shape mismatch"), None);
/// ```
pub fn advice(message: &str) -> Option<String> {
    advised(message)
}

#[cfg(not(feature = "cuda"))]
fn advised(_: &str) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_people_write_them() {
        let parsed = |text| Choice::parse(text).unwrap();
        assert_eq!([parsed(""), parsed(" Auto "), parsed("cpu")], [Choice::Auto, Choice::Auto, Choice::Cpu]);
        assert_eq!([parsed("cuda"), parsed("cuda:3")], [Choice::Cuda(None), Choice::Cuda(Some(3))]);
        for bad in ["gpu", "cuda:", "cuda:-1", "cuda:x"] {
            let error = Choice::parse(bad).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("cuda:1"), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn what_a_gpu_needs_is_what_the_kernel_found_missing() {
        let missing = "libcublas.so.13 of CUDA is missing";
        assert_eq!(what_is_missing(Some(missing.into())), missing);
        assert!(what_is_missing(None).contains("setup.sh --cuda"));
    }

    #[test]
    fn the_drivers_version_is_read_from_its_own_text() {
        let text =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build\nGCC version:  gcc 12";
        assert_eq!(version_in(text), Some("580.159.03"));
        let older = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.86.10  Wed Jul 26 23:20:03 UTC 2023";
        assert_eq!(version_in(older), Some("535.86.10"));
        assert_eq!(version_in(""), None);
    }
}
