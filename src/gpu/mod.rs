//! NVIDIA GPUs: WaveMesh's kernels, compiled and embedded by `build.rs`, and their launches on candle's tensors.
//!
//! Everything runs on the one stream of candle's device, in the order of the calls. Only operations that read a number back wait.

pub(crate) mod columns;
pub(crate) mod graph;
mod launch;
pub(crate) mod lines;
mod memory;
pub(crate) mod rows;
#[cfg(feature = "notebook")]
pub(crate) mod statistics;
#[cfg(feature = "train")]
pub(crate) mod update;

use std::sync::{Arc, OnceLock};

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, DriverError, LaunchConfig, SyncOnDrop,
    ValidAsZeroBits,
    result::memcpy_dtod_async,
    sys::{CUdevice_attribute, CUresult},
};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, DeviceLocation, Layout, Shape, Storage, Tensor};

pub(crate) use self::launch::{Argument, Module, arguments, module};
pub use self::memory::GpuInfo;
#[cfg(feature = "train")]
pub(crate) use self::memory::count;
#[cfg(feature = "notebook")]
pub(crate) use self::memory::held as memory_held;
pub(crate) use self::memory::{device, info, reset_peak, trim};
use crate::error::driver;
use crate::{Error, Result};

/// Threads per block, if each thread computes its own element.
const BLOCK: u32 = 256;

/// The environment variable that selects the kernels of an older card, such as `7.5`, to test them on a newer one.
const CAPABILITY_VARIABLE: &str = "WAVEMESH_GPU_CAPABILITY";

/// The compute capability from the variable, which is read once.
fn older() -> Result<Option<[i32; 2]>> {
    static ASKED: OnceLock<Option<String>> = OnceLock::new();
    let Some(text) = ASKED.get_or_init(|| std::env::var(CAPABILITY_VARIABLE).ok()) else { return Ok(None) };
    let parts = text.trim().split_once('.').and_then(|(major, minor)| Some([major.parse().ok()?, minor.parse().ok()?]));
    let unknown =
        || Error::Unknown { kind: "compute capability", name: text.clone(), known: "7.5, 8.0, 8.9, 9.0".into() };
    parts.map(Some).ok_or_else(unknown)
}

/// A GPU, as operations see it.
pub(crate) struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
}

impl Gpu {
    pub fn new(device: &CudaDevice) -> Self {
        Self { stream: device.cuda_stream(), device: device.clone() }
    }

    /// The stream on which everything runs.
    #[cfg(feature = "nccl")]
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The location of this GPU.
    pub fn location(&self) -> DeviceLocation {
        self.device.location()
    }

    /// Compute capability, major and minor: that of the card, or the older one that [`CAPABILITY_VARIABLE`] selects.
    pub fn capability(&self) -> Result<[i32; 2]> {
        let own = self.own_capability()?;
        Ok(older()?.map_or(own, |older| older.min(own)))
    }

    fn own_capability(&self) -> Result<[i32; 2]> {
        Ok([
            self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ])
    }

    /// The number of multiprocessors: at least this many blocks run at once.
    pub fn multiprocessors(&self) -> Result<usize> {
        Ok(self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize)
    }

    /// Bytes of shared memory that a block may ask for.
    pub fn most_shared(&self) -> Result<usize> {
        /// The shared memory of cards with compute capability 7.5.
        const OF_75: usize = 64 << 10;
        let most = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
        Ok(if self.capability()? <= [7, 5] { most.min(OF_75) } else { most })
    }

    fn attribute(&self, which: CUdevice_attribute) -> Result<i32> {
        self.stream.context().attribute(which).map_err(|error| self.error("a GPU's description", None, error))
    }

    /// The GPU of a tensor.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        Self::on(tensor.device())
    }

    pub fn on(device: &Device) -> Result<Self> {
        match device {
            Device::Cuda(device) => Ok(Self::new(device)),
            _ => Err(Error::Backend { backend: "cuda", needs: "it needs tensors on a GPU; use `to_device`".into() }),
        }
    }

    /// The numbers of a contiguous tensor.
    pub fn numbers<'a>(&'a self, (storage, layout): (&'a CudaStorage, &Layout)) -> Result<Numbers<'a>> {
        let (from, _) = layout
            .contiguous_offsets()
            .ok_or(Error::Candle(candle_core::Error::RequiresContiguous { op: "a GPU operation" }))?;
        macro_rules! numbers {
            ($($variant:ident),*) => {
                match &storage.slice {
                    $(CudaStorageSlice::$variant(slice) => slice.device_ptr(&self.stream),)*
                    _ => {
                        let expected = "a number type that candle computes in";
                        return Err(Error::DType { op: "a GPU operation", what: "a tensor", got: storage.dtype(), expected });
                    }
                }
            };
        }
        let (start, guard) = numbers!(U8, U32, I16, I32, I64, BF16, F16, F32, F64);
        let dtype = storage.dtype();
        Ok(Numbers { at: start + (from * dtype.size_in_bytes()) as u64, dtype, _guard: guard })
    }

    /// The numbers in memory that does not belong to a tensor.
    pub fn slice<'a, T: DeviceRepr>(&'a self, slice: &'a CudaSlice<T>) -> Slice<'a> {
        let (at, guard) = slice.device_ptr(&self.stream);
        Slice { at, _guard: guard }
    }

    /// The same, for writing.
    pub fn slice_mut<'a, T: DeviceRepr>(&'a self, slice: &'a mut CudaSlice<T>) -> Slice<'a> {
        let (at, guard) = slice.device_ptr_mut(&self.stream);
        Slice { at, _guard: guard }
    }

    /// The address of the numbers of a contiguous f32 tensor on this GPU, to be read or changed in place. The tensor outlives the launch
    /// that uses this address, and the GPU runs launches in order, so no other data is there when they run.
    pub fn address(&self, tensor: &Tensor) -> Result<u64> {
        if tensor.dtype() != DType::F32 {
            return Err(Error::DType { op: "an update", what: "a parameter", got: tensor.dtype(), expected: "f32" });
        }
        let (storage, layout) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) if storage.device.location() == self.location() => {
                Ok(self.numbers((storage, layout))?.at)
            }
            _ => Err(Error::Backend {
                backend: "cuda",
                needs: "it needs parameters all on one GPU to train them".into(),
            }),
        }
    }

    /// Uninitialised memory for `count` numbers.
    pub fn alloc<T: DeviceRepr>(&self, count: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every kernel writes all of its result before anything reads it.
        let alloc = || unsafe { self.stream.alloc(count) };
        let found = alloc().or_else(|error| match error.0 {
            // Try once more without the memory that the pool keeps for later.
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => memory::trim_pool(self.stream.context()).and_then(|()| alloc()),
            _ => Err(error),
        });
        found.map_err(|error| self.error("an operation", Some(count * size_of::<T>()), error))
    }

    /// Memory for `count` zeros.
    pub fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, count: usize) -> Result<CudaSlice<T>> {
        let mut found = self.alloc(count)?;
        let zeroed = self.stream.memset_zeros(&mut found);
        zeroed.map_err(|error| self.error("an operation", None, error))?;
        Ok(found)
    }

    /// A copy of `values` on the GPU.
    pub fn upload<T: DeviceRepr + 'static>(&self, values: &[T]) -> Result<CudaSlice<T>> {
        let mut found = self.alloc(values.len())?;
        self.device.memcpy_htod(values, &mut found)?;
        Ok(found)
    }

    /// A copy of `slice` in the computer's memory. It waits for all earlier work.
    pub fn download<T: DeviceRepr>(&self, slice: &CudaSlice<T>) -> Result<Vec<T>> {
        Ok(self.device.clone_dtoh(slice)?)
    }

    /// Copies `bytes` from one place to another.
    pub fn copy(&self, from: &Numbers, to: &Numbers, bytes: usize) -> Result<()> {
        // SAFETY: both places belong to different tensors on this GPU with at least this many bytes.
        let copied = unsafe { memcpy_dtod_async(to.at, from.at, bytes, self.stream.cu_stream()) };
        copied.map_err(|error| self.error("a copy on the GPU", None, error))
    }

    /// The result of an operation: memory of `dtype`, which `fill` fills.
    pub fn result(
        &self,
        shape: impl Into<Shape>,
        dtype: DType,
        fill: impl FnOnce(&Written) -> Result<()>,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = shape.into();
        let count = shape.elem_count();
        macro_rules! fill {
            ($type:ty) => {{
                let mut slice = self.alloc::<$type>(count)?;
                if count > 0 {
                    fill(&Written { slice: self.slice_mut(&mut slice), dtype })?;
                }
                <$type as CudaDType>::wrap_cuda_slice(slice, self.device.clone())
            }};
        }
        let storage = match dtype {
            DType::F32 => fill!(f32),
            DType::F16 => fill!(half::f16),
            DType::BF16 => fill!(half::bf16),
            DType::F64 => fill!(f64),
            got => return Err(unsupported(got)),
        };
        Ok((storage, shape))
    }

    /// The same as a tensor without history.
    pub fn tensor(
        &self,
        shape: impl Into<Shape>,
        dtype: DType,
        fill: impl FnOnce(&Written) -> Result<()>,
    ) -> Result<Tensor> {
        let (storage, shape) = self.result(shape, dtype, fill)?;
        Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
    }

    /// Runs a kernel with one thread for each of `count` elements.
    pub fn each(&self, module: &'static Module, kernel: &str, count: usize, arguments: &[Argument]) -> Result<()> {
        let blocks = u32::try_from(count.div_ceil(BLOCK as usize)).map_err(|_| too_many(count))?;
        self.launch(module, kernel, [blocks, 1, 1], [BLOCK, 1, 1], arguments)
    }

    /// Runs a kernel in `grid` blocks of `block` threads.
    pub fn launch(
        &self,
        module: &'static Module,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        arguments: &[Argument],
    ) -> Result<()> {
        self.launch_shared(module, kernel, grid, (block, 0), arguments)
    }

    /// The same with `shared` bytes of memory for each block.
    pub fn launch_shared(
        &self,
        module: &'static Module,
        kernel: &str,
        grid: [u32; 3],
        (block, shared_mem_bytes): ([u32; 3], u32),
        arguments: &[Argument],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let function = self.function(module, kernel, shared_mem_bytes)?;
        let [grid_dim, block_dim] = [grid, block].map(|[x, y, z]| (x, y, z));
        let mut builder = self.stream.launch_builder(&function);
        arguments.iter().for_each(|argument| argument.push(&mut builder));
        // SAFETY: the kernels are ours; each call passes the arguments that its kernel declares, with the sizes that it reads and writes.
        let launched = unsafe { builder.launch(LaunchConfig { grid_dim, block_dim, shared_mem_bytes }) };
        launched.map(|_| ()).map_err(|error| self.error("a GPU operation", None, error))
    }

    fn function(&self, module: &'static Module, kernel: &str, shared: u32) -> Result<CudaFunction> {
        module.function(self.stream.context(), kernel, shared).map_err(|error| self.error(module.name, None, error))
    }

    /// The driver's error as one of this crate; a lack of memory is given with figures.
    fn error(&self, op: &'static str, asked: Option<usize>, error: DriverError) -> Error {
        if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let (free, total) = self.stream.context().mem_get_info().unwrap_or_default();
            return Error::GpuMemory {
                op,
                asked: asked.map(|bytes| bytes as u64),
                free: free as u64,
                total: total as u64,
            };
        }
        Error::Gpu { op, problem: driver::told(&error) }
    }
}

/// The numbers of a tensor on the GPU, as a kernel argument. When this is dropped, later work may overwrite them.
pub(crate) struct Numbers<'a> {
    at: u64,
    pub dtype: DType,
    _guard: SyncOnDrop<'a>,
}

/// Memory on the GPU, as a kernel argument.
pub(crate) struct Slice<'a> {
    at: u64,
    _guard: SyncOnDrop<'a>,
}

impl Numbers<'_> {
    /// The address of the numbers.
    #[cfg(feature = "nccl")]
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Slice<'_> {
    /// The address of the memory.
    #[cfg(feature = "nccl")]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The address plus `bytes`.
    pub fn plus(&self, bytes: usize) -> Argument {
        Argument::Address(self.at + bytes as u64)
    }
}

/// A result that is being filled.
pub(crate) struct Written<'a> {
    slice: Slice<'a>,
    pub dtype: DType,
}

/// Calls `body` with the storage of contiguous tensors on a GPU.
pub(crate) fn with_storage<const N: usize, R>(
    tensors: [&Tensor; N],
    body: impl FnOnce([(&CudaStorage, &Layout); N]) -> Result<R>,
) -> Result<R> {
    let tensors = tensors.iter().map(|tensor| tensor.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let read: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut found = Vec::with_capacity(N);
    for (storage, layout) in &read {
        match &**storage {
            Storage::Cuda(storage) => found.push((storage, *layout)),
            _ => {
                return Err(Error::Backend {
                    backend: "cuda",
                    needs: "it needs tensors on a GPU; use `to_device`".into(),
                });
            }
        }
    }
    match found.try_into() {
        Ok(found) => body(found),
        Err(_) => unreachable!("as many are read as are given"),
    }
}

/// The number by which kernels identify a float type.
pub(crate) fn type_code(dtype: DType) -> Result<i32> {
    match dtype {
        DType::F32 => Ok(0),
        DType::F16 => Ok(1),
        DType::BF16 => Ok(2),
        DType::F64 => Ok(3),
        got => Err(unsupported(got)),
    }
}

fn unsupported(got: DType) -> Error {
    Error::DType { op: "a GPU operation", what: "features", got, expected: "f32, f16, bf16 or f64" }
}

fn too_many(count: usize) -> Error {
    let expected = format!("at most {} numbers", u64::from(u32::MAX) * u64::from(BLOCK));
    Error::Argument { op: "a GPU operation", name: "a tensor", got: format!("{count} numbers"), expected }
}

/// A computed result as a tensor without history.
pub(crate) fn tensor_of(storage: CudaStorage, shape: Shape) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// The error of a GPU operation for tensors on the CPU.
pub(crate) fn not_there(what: &str) -> candle_core::Error {
    Error::Backend { backend: "cuda", needs: format!("it needs {what} on a GPU; use `to_device`") }.into()
}
