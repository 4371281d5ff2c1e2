//! GPUs: the one device for each, their properties, and their memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::{self, CUdevice_attribute, CUmemPool_attribute, CUresult};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError};
use candle_core::{CudaDevice, Device};

use super::Gpu;
use crate::error::driver;
use crate::{Error, Result};

/// Properties of a GPU, and how its memory is used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GpuInfo {
    /// Its number among the visible GPUs.
    pub ordinal: usize,
    /// The manufacturer's name for it.
    pub name: String,
    /// Compute capability, such as `9.0`.
    pub capability: String,
    /// The newest CUDA version that the driver supports, such as `13.0`.
    pub cuda: String,
    /// Bytes that nothing uses.
    pub free: u64,
    /// Bytes in total.
    pub total: u64,
    /// Bytes of this process's pool that tensors use.
    pub used: u64,
    /// Bytes of this process's pool, whether used or kept for later.
    pub held: u64,
    /// The most bytes that tensors used at once, since the process began or since
    /// [`reset_gpu_memory_peak`](crate::device::reset_gpu_memory_peak).
    pub peak: u64,
}

static DEVICES: Mutex<Option<HashMap<usize, Device>>> = Mutex::new(None);

/// The device of a GPU: each call returns the same one, with a single stream that all threads share. Freed memory stays in the pool.
///
/// # Errors
/// A GPU that does not exist, or a driver that cannot run the kernels.
pub(crate) fn device(ordinal: usize) -> Result<Device> {
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let devices = devices.get_or_insert_default();
    if let Some(device) = devices.get(&ordinal) {
        return Ok(device.clone());
    }
    let count = CudaContext::device_count().map_err(|error| unusable(ordinal, error))? as usize;
    if ordinal >= count {
        let text = match count {
            0 => "it needs an NVIDIA GPU, and none is visible (CUDA_VISIBLE_DEVICES hides some)".to_string(),
            _ => format!("cuda:{ordinal} does not exist; there are cuda:0 to cuda:{}", count - 1),
        };
        return Err(needs(text));
    }
    check_driver()?;
    let cuda = CudaDevice::new_with_stream(ordinal).map_err(|error| match driver::within(&error) {
        Some(&error) => unusable(ordinal, error),
        None => needs(format!("cuda:{ordinal} needs CUDA's libraries of one version, and one of them says: {error}")),
    })?;
    let context = cuda.cuda_stream().context().clone();
    // cudarc would keep two events for each tensor, and record and wait for them at each launch.
    // SAFETY: all work in this context goes to one stream, which runs it in order.
    unsafe { context.disable_event_tracking() };
    keep_freed_memory(&context).map_err(|error| unusable(ordinal, error))?;
    // Check that the driver accepts our kernels before anything depends on it.
    super::columns::MODULE.function(&context, "column_totals", 0).map_err(|error| unusable(ordinal, error))?;
    let device = Device::Cuda(cuda);
    devices.insert(ordinal, device.clone());
    Ok(device)
}

/// The bytes that this process holds for its tensors on each GPU that it has taken, by its number. A GPU that is lost is left out.
#[cfg(feature = "notebook")]
pub(crate) fn held() -> Vec<(usize, u64)> {
    let devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let infos = devices.iter().flat_map(|devices| devices.values()).filter_map(|device| info(device).ok());
    let mut held: Vec<_> = infos.map(|gpu| (gpu.ordinal, gpu.held)).collect();
    held.sort_unstable();
    held
}

/// The number of visible GPUs.
#[cfg(feature = "train")]
pub(crate) fn count() -> usize {
    CudaContext::device_count().map_or(0, |count| usize::try_from(count).unwrap_or(0))
}

fn needs(needs: String) -> Error {
    Error::Backend { backend: "cuda", needs }
}

/// Checks that the driver supports the CUDA version of this build. An older driver would fail later, with messages that are hard to
/// understand.
fn check_driver() -> Result<()> {
    let mut has = 0;
    // SAFETY: the number is written before it is read.
    let asked = unsafe { sys::cuDriverGetVersion(&mut has).result() };
    asked.map_err(|error| unusable(0, error))?;
    let (has, wanted) = (has / 1000, sys::CUDA_VERSION as i32 / 1000);
    match has < wanted {
        true => {
            Err(needs(format!("it needs a driver for CUDA {wanted}, and this one is for CUDA {has}; install {NEWER}")))
        }
        false => Ok(()),
    }
}

/// A driver that supports everything in this build.
const NEWER: &str = "NVIDIA's driver 580 or later";

fn unusable(ordinal: usize, error: DriverError) -> Error {
    let text = match error.0 {
        CUresult::CUDA_ERROR_NO_DEVICE | CUresult::CUDA_ERROR_INVALID_DEVICE => {
            "it needs an NVIDIA GPU, and none is visible (CUDA_VISIBLE_DEVICES hides some)".into()
        }
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
        | CUresult::CUDA_ERROR_STUB_LIBRARY => {
            format!("it needs {NEWER} for cuda:{ordinal}; install it ({error})")
        }
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => {
            format!("it needs a GPU of compute capability 7.5 or later, and cuda:{ordinal} is older")
        }
        _ => format!("the driver for cuda:{ordinal} says: {error}"),
    };
    needs(text)
}

fn pool(context: &CudaContext) -> Result<sys::CUmemoryPool, DriverError> {
    let mut pool = std::ptr::null_mut();
    // SAFETY: the device is one of the driver's, and the pool is written before it is read.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result()? };
    Ok(pool)
}

/// Without this, the driver returns all freed memory to the system at every wait for the GPU.
fn keep_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    let mut threshold = u64::MAX;
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a 64-bit number.
    unsafe { sys::cuMemPoolSetAttribute(pool(context)?, attribute, (&raw mut threshold).cast()).result() }
}

fn context(device: &Device) -> Result<Arc<CudaContext>> {
    Ok(Gpu::on(device)?.stream.context().clone())
}

/// Returns to the system the memory that the pool of `device` keeps for later.
///
/// # Errors
/// A device that is not a GPU, or a GPU that is lost.
pub(crate) fn trim(device: &Device) -> Result<()> {
    trim_pool(&*context(device)?).map_err(|error| Error::Gpu { op: "trim_gpu_memory", problem: driver::told(&error) })
}

/// Lets the peak of the pool of `device` begin at what is used now.
///
/// # Errors
/// A device that is not a GPU, or a GPU that is lost.
pub(crate) fn reset_peak(device: &Device) -> Result<()> {
    let (context, mut zero) = (context(device)?, 0u64);
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    let mut reset = || {
        // SAFETY: the attribute is a 64-bit number, and may be set to 0.
        unsafe { sys::cuMemPoolSetAttribute(pool(&context)?, attribute, (&raw mut zero).cast()).result() }
    };
    reset().map_err(|error: DriverError| Error::Gpu { op: "reset_gpu_memory_peak", problem: driver::told(&error) })
}

/// Waits until freed memory is available, and returns all of it.
pub(super) fn trim_pool(context: &CudaContext) -> Result<(), DriverError> {
    context.synchronize()?;
    // SAFETY: the pool is the device's own.
    unsafe { sys::cuMemPoolTrimTo(pool(context)?, 0).result() }
}

/// Properties of the GPU of `device`, and the present use of its memory.
///
/// # Errors
/// A device that is not a GPU, or a GPU that is lost.
pub(crate) fn info(device: &Device) -> Result<GpuInfo> {
    let context = context(device)?;
    let read = || {
        let mut version = 0;
        // SAFETY: the number is written before it is read.
        unsafe { sys::cuDriverGetVersion(&mut version).result()? };
        let (free, total) = context.mem_get_info()?;
        let held = |attribute: CUmemPool_attribute| {
            let mut bytes = 0u64;
            // SAFETY: these attributes are 64-bit numbers.
            unsafe { sys::cuMemPoolGetAttribute(pool(&context)?, attribute, (&raw mut bytes).cast()).result()? };
            Ok::<_, DriverError>(bytes)
        };
        let attribute = |which| context.attribute(which);
        let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(GpuInfo {
            ordinal: context.ordinal(),
            name: context.name()?,
            capability: format!("{major}.{minor}"),
            cuda: format!("{}.{}", version / 1000, version % 1000 / 10),
            free: free as u64,
            total: total as u64,
            used: held(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            held: held(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
            peak: held(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
        })
    };
    read().map_err(|error: DriverError| Error::Gpu { op: "gpu_info", problem: driver::told(&error) })
}
