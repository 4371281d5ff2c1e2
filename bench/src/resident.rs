//! The memory this process holds and has held, as Linux counts it, or, of work on a GPU, as its driver counts it. Elsewhere the numbers
//! are 0, which the table shows as "–".

use std::fs;

#[cfg(feature = "cuda")]
use crate::work::device;

/// The most resident memory since the process began, or since [`reset_peak`], in bytes. Of a GPU's, what its pool has come to hold.
pub fn peak() -> u64 {
    held_by_gpu().unwrap_or_else(|| status("VmHWM:"))
}

#[cfg(feature = "cuda")]
fn held_by_gpu() -> Option<u64> {
    wavemesh::device::gpu_info(&device().ok()?).ok().map(|info| info.held)
}

#[cfg(not(feature = "cuda"))]
fn held_by_gpu() -> Option<u64> {
    None
}

/// Forgets the peak so far; returns the resident memory now, in bytes. What was freed goes back to the system before, so that
/// work which takes it again is seen to.
pub fn reset_peak() -> u64 {
    #[cfg(feature = "cuda")]
    if let Ok(gpu) = device()
        && gpu.is_cuda()
        && wavemesh::device::trim_gpu_memory(&gpu).is_ok()
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
    // Where the kernel forbids this the peak stays that of the preparation, so the difference is too small, never too large.
    let _ = fs::write("/proc/self/clear_refs", "5");
    status("VmRSS:")
}

fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
