//! The memory that this process holds now and has held: counted by Linux, or by the driver for work on a GPU. On other systems the numbers
//! are 0, and the table shows "–".

use std::fs;

#[cfg(feature = "cuda")]
use crate::work::device;

/// The most resident memory, in bytes, since the process began or since [`reset_peak`]. For work on a GPU, the most memory that its tensors
/// used at once.
pub fn peak() -> u64 {
    held_by_gpu().unwrap_or_else(|| status("VmHWM:"))
}

#[cfg(feature = "cuda")]
fn held_by_gpu() -> Option<u64> {
    wavemesh::device::gpu_info(&device().ok()?).ok().map(|info| info.peak)
}

#[cfg(not(feature = "cuda"))]
fn held_by_gpu() -> Option<u64> {
    None
}

/// Forgets the peak so far and returns the resident memory now, in bytes. Freed memory first goes back to the system, so that work that
/// takes it again is noticed.
pub fn reset_peak() -> u64 {
    #[cfg(feature = "cuda")]
    if let Ok(gpu) = device()
        && gpu.is_cuda()
        && wavemesh::device::trim_gpu_memory(&gpu).is_ok()
        && wavemesh::device::reset_gpu_memory_peak(&gpu).is_ok()
    {
        return peak();
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
    // If the kernel forbids this, the peak is still that of the preparation, so the difference is too small, never too large.
    let _ = fs::write("/proc/self/clear_refs", "5");
    status("VmRSS:")
}

fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
