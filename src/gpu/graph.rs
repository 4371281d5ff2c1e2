//! CUDA graphs: the GPU operations of some work, recorded once and launched as a whole.

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::{
    self, CUgraphInstantiate_flags, CUgraphNodeType, CUmemorytype, CUstreamCaptureMode,
};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaStream, DriverError};
use candle_core::{CudaDevice, Device, Storage, Tensor};

use super::Gpu;
use crate::{Error, Result};

const OP: &str = "Recording";

/// Allows only one recording at a time, since they share the stream.
static ONE: Mutex<()> = Mutex::new(());

/// Recorded work. It stays on the thread that recorded it, because it reads that thread's constants.
pub(crate) struct Graph(CudaGraph);

/// Runs `work` once, with memory of its own for the results, and then records it so that it puts its results there again.
pub(crate) fn record(
    device: &CudaDevice,
    mut work: impl FnMut() -> Result<Vec<Tensor>>,
) -> Result<(Vec<Tensor>, Graph)> {
    // Small constants that operations upload are kept on the GPU from here on, so that a recording reads them there.
    let _constants = device.enable_cuda_graph_htod_cache();
    let found =
        work()?.iter().map(|found| found.detach().force_contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let gpu = Gpu::new(device);
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let capture = Capture::begin(&gpu)?;
    let recorded = work().and_then(|again| put(&gpu, &again, &found));
    let graph = capture.end();
    if recorded.is_err() || graph.is_err() {
        // Freeing what was dropped during the recording may have failed, as it never existed; the next call must not report this.
        gpu.stream.context().check_err().ok();
    }
    recorded.map_err(|error| match error {
        told @ Error::Argument { op: OP, .. } => told,
        other => refused(&other.to_string()),
    })?;
    let graph = graph?;
    check(&graph).map_err(|error| refused(&error.to_string()))??;
    Ok((found, Graph(graph)))
}

impl Graph {
    /// Launches all of the recorded work.
    pub fn launch(&self) -> Result<()> {
        self.0.launch().map_err(|error| Error::Gpu { op: OP, problem: error.to_string() })
    }
}

fn refused(problem: &str) -> Error {
    let expected = "work on one GPU that waits for nothing and copies nothing from or to the computer's memory".into();
    Error::Argument { op: OP, name: "work", got: format!("what cannot be recorded ({problem})"), expected }
}

/// Copies each result to the place of the earlier one.
fn put(gpu: &Gpu, from: &[Tensor], to: &[Tensor]) -> Result<()> {
    if from.len() != to.len() || from.iter().zip(to).any(|(a, b)| a.dtype() != b.dtype() || a.dims() != b.dims()) {
        return Err(refused("another run of it gives other results"));
    }
    for (from, to) in from.iter().zip(to) {
        let from = from.detach().contiguous()?;
        let (from, to) = (from.storage_and_layout(), to.storage_and_layout());
        let (Storage::Cuda(from_there), Storage::Cuda(to_there)) = (&*from.0, &*to.0) else {
            return Err(refused("a result is not on the GPU"));
        };
        let bytes = from.1.shape().elem_count() * to.0.dtype().size_in_bytes();
        let (from, to) = (gpu.numbers((from_there, from.1))?, gpu.numbers((to_there, to.1))?);
        gpu.copy(&from, &to, bytes)?;
    }
    Ok(())
}

/// The stream while it records. Dropping this ends the recording.
struct Capture {
    stream: Arc<CudaStream>,
}

impl Capture {
    fn begin(gpu: &Gpu) -> Result<Self> {
        let begun = gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
        begun.map_err(|error| refused(&format!("{error}; `best_device()` gives a device that records")))?;
        Ok(Self { stream: gpu.stream.clone() })
    }

    fn end(self) -> Result<CudaGraph> {
        let ended = self.stream.end_capture(CUgraphInstantiate_flags(0));
        std::mem::forget(self);
        match ended {
            Ok(Some(graph)) => Ok(graph),
            Ok(None) => Err(refused("it asks nothing of the GPU")),
            Err(error) => Err(refused(&error.to_string())),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        drop(self.stream.end_capture(CUgraphInstantiate_flags(0)));
        self.stream.context().check_err().ok();
    }
}

/// Checks that a graph can be launched repeatedly: it must free what it allocates, and must not read the computer's memory, which would be
/// gone.
fn check(graph: &CudaGraph) -> std::result::Result<Result<()>, DriverError> {
    let mut count = 0;
    // SAFETY: without a place for nodes, their number is written.
    unsafe { sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &mut count).result()? };
    let mut nodes = vec![std::ptr::null_mut(); count];
    // SAFETY: there is room for `count` nodes.
    unsafe { sys::cuGraphGetNodes(graph.cu_graph(), nodes.as_mut_ptr(), &mut count).result()? };
    let mut kept = 0i64;
    for node in nodes {
        let mut kind = MaybeUninit::uninit();
        // SAFETY: the node belongs to the graph; its type is written before it is read.
        let kind = unsafe {
            sys::cuGraphNodeGetType(node, kind.as_mut_ptr()).result()?;
            kind.assume_init()
        };
        match kind {
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC => kept += 1,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE => kept -= 1,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY => {
                let mut copy = MaybeUninit::uninit();
                // SAFETY: the node is a copy, and its description is written before it is read.
                let copy = unsafe {
                    sys::cuGraphMemcpyNodeGetParams(node, copy.as_mut_ptr()).result()?;
                    copy.assume_init()
                };
                let here = CUmemorytype::CU_MEMORYTYPE_HOST;
                if copy.srcMemoryType == here || copy.dstMemoryType == here {
                    return Ok(Err(refused("it copies from or to the computer's memory")));
                }
            }
            _ => {}
        }
    }
    if kept == 0 { Ok(Ok(())) } else { Ok(Err(refused("it keeps memory of the GPU that it does not return"))) }
}

/// The GPU of a device, if it is one.
pub(crate) fn of(device: &Device) -> Option<&CudaDevice> {
    match device {
        Device::Cuda(device) => Some(device),
        _ => None,
    }
}
