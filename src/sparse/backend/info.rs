//! Describes what runs the layers, and what would run them faster.

use std::fmt;

use candle_core::Device;

use super::{Backend, simd};
#[cfg(feature = "cuda")]
use crate::device::driver;
use crate::device::{best_device, unused_gpu};

/// The answer to "what will my layers run on?".
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackendInfo {
    /// `native`, `dense`, `cuda` or `unavailable`.
    pub backend: String,
    /// WaveMesh's version.
    pub version: String,
    /// The device of [`best_device`](crate::device::best_device): `cpu` and its architecture, or `cuda:0` and a description of the GPU.
    pub device: String,
    /// Worker threads.
    pub threads: usize,
    /// SIMD instructions chosen at run time: `avx512`, `avx2+fma`, `neon` or `scalar`.
    pub simd: String,
    /// What speed to expect.
    pub performance: String,
    /// What would be faster and what that needs; `None` if nothing would be.
    pub note: Option<String>,
}

/// Describes the backend that layers use on this thread for tensors on the best device. If `WAVEMESH_BACKEND` holds an unknown name, or one
/// that cannot run here, the backend is `unavailable` and the note says why; layers then return that error.
///
/// ```
/// let info = wavemesh::sparse::backend_info();
/// println!("{info}");
/// assert!(info.threads >= 1);
/// ```
pub fn backend_info() -> BackendInfo {
    let device = best_device().unwrap_or(Device::Cpu);
    let backend = Backend::for_device(&device).and_then(|backend| backend.check().map(|()| backend));
    let threads = rayon::current_num_threads();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let simd = simd::level();
    let mut notes = Vec::new();
    let performance = match &backend {
        Ok(Backend::Native) if device.is_cuda() => {
            notes.push(format!("unset {} so that the GPU computes", super::BACKEND_VARIABLE));
            "layers return an error for tensors on the GPU, and run at full speed on the CPU"
        }
        Ok(Backend::Native | Backend::Cuda) => {
            "full speed: only active sites are computed, time grows with their number"
        }
        Err(error) => {
            notes.push(error.to_string());
            "none: layers return an error"
        }
        Ok(Backend::Dense) => {
            notes.push(format!("`native` is far faster: unset {} or set it to `native`", super::BACKEND_VARIABLE));
            "slow: every cell of the grid is computed, time and memory grow with its volume"
        }
    };
    notes.extend(unused_gpu());
    if threads < cores {
        notes.push(format!("{threads} of {cores} cores are used: raise RAYON_NUM_THREADS to use them all"));
    }
    if simd == "scalar" {
        notes.push("this processor has no SIMD unit that the kernels know (AVX2 with FMA, AVX-512, NEON)".into());
    }
    BackendInfo {
        backend: backend.map_or("unavailable".into(), |backend| backend.to_string()),
        version: env!("CARGO_PKG_VERSION").into(),
        device: describe(&device),
        threads,
        simd: simd.into(),
        performance: performance.into(),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

/// The GPU with its memory, driver and kernels, or the kind of processor.
fn describe(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Ok(info) = crate::gpu::info(device) {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let driver = driver().map_or(String::new(), |version| format!(", driver {version}"));
        return format!(
            "cuda:{} ({}, compute capability {}, {:.1} of {:.1} GB free{driver}, CUDA {}; {})",
            info.ordinal,
            info.name,
            info.capability,
            gigabytes(info.free),
            gigabytes(info.total),
            info.cuda,
            super::cuda::kernels(device).unwrap_or_else(|error| error.to_string()),
        );
    }
    match device {
        Device::Cpu => format!("cpu ({})", std::env::consts::ARCH),
        other => format!("{:?}", other.location()),
    }
}

impl fmt::Display for BackendInfo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "backend      {} (WaveMesh {})", self.backend, self.version)?;
        writeln!(f, "device       {}, {} threads, {}", self.device, self.threads, self.simd)?;
        write!(f, "performance  {}", self.performance)?;
        match &self.note {
            Some(note) => write!(f, "\nnote         {note}"),
            None => Ok(()),
        }
    }
}
