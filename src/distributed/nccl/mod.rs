//! [`Nccl`]: NVIDIA's NCCL as the engine of a group, on candle's stream of the process's GPU.
//!
//! Nothing waits inside NCCL: a sum is put on the stream, and the stream is polled until it is done. If the group fails before, the
//! communicator is aborted, which ends kernels that wait for a process that is gone.

mod library;

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Mutex;

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, DriverError};
use candle_core::{CpuStorage, CudaStorage, Device, InplaceOp1, Layout, Tensor};

pub(super) use self::library::Library;
use self::library::{Comm, Config, F32, F64, IN_PROGRESS, Id, SUCCESS, SUM, U8};
use super::engine::{Engine, Waiting};
use super::launch::Place;
use crate::gpu::Gpu;
use crate::sync::lock;
use crate::{Error, Result};

/// The bytes of a broadcast that are on the GPU at the same time.
const PIECE: usize = 64 << 20;

/// A communicator of NCCL and the GPU of this process.
pub(super) struct Nccl {
    library: Library,
    /// `None` after it was aborted.
    comm: Mutex<Option<Handle>>,
    gpu: Gpu,
    rank: usize,
}

#[derive(Clone, Copy)]
struct Handle(Comm);

// SAFETY: NCCL accepts a communicator from any thread, one call at a time, and a group makes one at a time.
unsafe impl Send for Handle {}

/// An id for a new communicator, as text. Rank 0 makes it for all processes.
pub(super) fn new_id(library: &Library) -> Result<String> {
    let mut id = Id([0; 128]);
    // SAFETY: the function writes 128 bytes.
    let code = unsafe { (library.get_unique_id)(&mut id) };
    if code != SUCCESS {
        return Err(failed(library.problem(code, null_mut())));
    }
    Ok(id.0.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn parse(text: &str) -> Option<Id> {
    let mut id = Id([0; 128]);
    (text.len() == 256 && text.is_ascii()).then_some(())?;
    for (at, byte) in id.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..][..2], 16).ok()?;
    }
    Some(id)
}

fn failed(problem: String) -> Error {
    Error::Backend {
        backend: "nccl",
        needs: format!("the GPUs do not reach each other. NCCL says: {problem} (NCCL_DEBUG=INFO tells more)"),
    }
}

impl Nccl {
    /// Joins the communicator with this id, using the process's GPU.
    pub fn start(library: Library, device: &Device, place: Place, id: &str, waiting: Waiting) -> Result<Self> {
        let gpu = Gpu::on(device)?;
        let id = parse(id).ok_or_else(|| failed("rank 0's id is damaged".into()))?;
        let bound = gpu.stream().context().bind_to_thread();
        bound.map_err(|error| driver("the start of NCCL", error))?;
        let (mut comm, mut config) = (null_mut(), Config::AT_ONCE);
        let (count, rank) = (place.world_size as c_int, place.rank as c_int);
        // SAFETY: the call writes the communicator, and takes the other arguments by value or copies them.
        let code = unsafe { (library.init_rank_config)(&mut comm, count, id, rank, &mut config) };
        let nccl = Self { library, comm: Mutex::new(Some(Handle(comm))), gpu, rank: place.rank };
        nccl.settled(code, comm, waiting)?;
        Ok(nccl)
    }

    fn comm(&self) -> Result<Comm> {
        lock(&self.comm).map(|handle| handle.0).ok_or_else(|| failed("the communicator was aborted".into()))
    }

    /// Waits until the operation that a call started is under way.
    fn settled(&self, code: c_int, comm: Comm, waiting: Waiting) -> Result<()> {
        let mut code = code;
        while code == IN_PROGRESS {
            waiting().inspect_err(|_| self.abandon())?;
            std::thread::yield_now();
            // SAFETY: the communicator lives until it is aborted.
            let asked = unsafe { (self.library.async_error)(comm, &mut code) };
            if asked != SUCCESS {
                code = asked;
            }
        }
        if code == SUCCESS { Ok(()) } else { Err(failed(self.library.problem(code, comm))) }
    }

    /// Waits until the stream has done everything that is on it now.
    fn through(&self, waiting: Waiting) -> Result<()> {
        let comm = self.comm()?;
        let event = self.gpu.stream().record_event(None).map_err(|error| driver("a sum over the group", error))?;
        while !event.try_is_complete().map_err(|error| driver("a sum over the group", error))? {
            waiting().inspect_err(|_| self.abandon())?;
            let mut code = SUCCESS;
            // SAFETY: the communicator lives until it is aborted.
            let asked = unsafe { (self.library.async_error)(comm, &mut code) };
            if asked != SUCCESS || (code != SUCCESS && code != IN_PROGRESS) {
                let problem = self.library.problem(if asked == SUCCESS { code } else { asked }, comm);
                self.abandon();
                return Err(failed(problem));
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Puts on the stream a sum of `count` numbers of a kind at an address; the sum replaces them.
    fn start_sum(&self, at: u64, count: usize, kind: c_int, waiting: Waiting) -> Result<()> {
        let comm = self.comm()?;
        let stream = self.gpu.stream().cu_stream();
        // SAFETY: the memory belongs to the caller until the stream is done.
        let code = unsafe { (self.library.all_reduce)(at as *const _, at as *mut _, count, kind, SUM, comm, stream) };
        self.settled(code, comm, waiting)
    }

    fn sum_here<T: DeviceRepr + Copy + 'static>(&self, values: &mut [T], kind: c_int, waiting: Waiting) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let there = self.gpu.upload(values)?;
        self.start_sum(self.gpu.slice(&there).at(), values.len(), kind, waiting)?;
        self.through(waiting)?;
        values.copy_from_slice(&self.gpu.download(&there)?);
        Ok(())
    }
}

impl Engine for Nccl {
    fn name(&self) -> &'static str {
        "nccl"
    }

    fn sum(&self, values: &mut [f64], waiting: Waiting) -> Result<()> {
        self.sum_here(values, F64, waiting)
    }

    fn sum_f32(&self, values: &mut [f32], waiting: Waiting) -> Result<()> {
        self.sum_here(values, F32, waiting)
    }

    fn broadcast(&self, bytes: &mut [u8], waiting: Waiting) -> Result<()> {
        for piece in bytes.chunks_mut(PIECE) {
            let there = self.gpu.upload(piece)?;
            let (at, comm, stream) = (self.gpu.slice(&there).at(), self.comm()?, self.gpu.stream().cu_stream());
            // SAFETY: the memory has as many bytes as the piece, and outlives the stream's work.
            let code =
                unsafe { (self.library.broadcast)(at as *const _, at as *mut _, piece.len(), U8, 0, comm, stream) };
            self.settled(code, comm, waiting)?;
            self.through(waiting)?;
            if self.rank > 0 {
                piece.copy_from_slice(&self.gpu.download(&there)?);
            }
        }
        Ok(())
    }

    fn sum_vectors(&self, vectors: Vec<Tensor>, waiting: Waiting) -> Result<Vec<Tensor>> {
        if !vectors.iter().all(|vector| vector.device().location() == self.gpu.location()) {
            return Err(Error::Backend {
                backend: "nccl",
                needs: "it needs tensors on the GPU of the process; use `local_device`".into(),
            });
        }
        for vector in vectors.iter().filter(|vector| vector.elem_count() > 0) {
            vector.inplace_op1(&InPlace { nccl: self, waiting })?;
        }
        self.through(waiting)?;
        Ok(vectors)
    }

    fn abandon(&self) {
        if let Some(Handle(comm)) = lock(&self.comm).take() {
            // SAFETY: nothing uses the communicator any more.
            unsafe { (self.library.abort)(comm) };
        }
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        let Some(Handle(comm)) = lock(&self.comm).take() else { return };
        // SAFETY: nothing uses the communicator any more.
        unsafe {
            let mut code = (self.library.finalize)(comm);
            while code == IN_PROGRESS && (self.library.async_error)(comm, &mut code) == SUCCESS {
                std::thread::yield_now();
            }
            (self.library.destroy)(comm);
        }
    }
}

fn driver(op: &'static str, error: DriverError) -> Error {
    Error::Gpu { op, problem: error.to_string() }
}

/// The sum over the group, where the numbers are.
struct InPlace<'a> {
    nccl: &'a Nccl,
    waiting: Waiting<'a>,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "sum over a group"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        Err(Error::Backend { backend: "nccl", needs: "it needs tensors on a GPU".into() }.into())
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let numbers = self.nccl.gpu.numbers((&*storage, layout))?;
        Ok(self.nccl.start_sum(numbers.at(), layout.shape().elem_count(), F32, self.waiting)?)
    }
}
