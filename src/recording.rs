//! [`Recording`]: repeated work that a GPU gets as a single launch.

use candle_core::{Device, Tensor};

use crate::Result;
#[cfg(feature = "cuda")]
use crate::gpu::graph::{self, Graph};

/// The same work on the same tensors again and again. A GPU then gets all of it in one launch, as with PyTorch's `torch.cuda.CUDAGraph`,
/// and by the same means.
///
/// A pass of a small network is hundreds of launches, and its time is limited by their cost on the processor, a few microseconds each. A
/// recording launches them as one. `work` runs when the recording is made, and once more to record it. [`run`](Self::run) then repeats its
/// GPU operations on the same memory: the tensors that it read, with their present content, are its inputs, so give it new ones by
/// [`Var::set`](candle_core::Var::set). Everything that it did on the processor stays fixed: a seed, a learning rate, a choice of kernels.
/// On the CPU, `run` calls `work` each time.
///
/// ```
/// use wavemesh::{candle_core::Var, device::Recording, prelude::*};
/// let device = best_device()?;
/// let x = Var::from_tensor(&Tensor::new(&[1f32, 2.0], &device)?)?;
/// let mut square = Recording::new(&device, || Ok(vec![x.sqr()?]))?;
/// assert_eq!(square.results()[0].to_vec1::<f32>()?, [1.0, 4.0]);
/// x.set(&Tensor::new(&[3f32, 4.0], &device)?)?;
/// assert_eq!(square.run()?[0].to_vec1::<f32>()?, [9.0, 16.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// Kernel maps are built in the first run, so later runs need the same sites. To record training, return the loss and the gradients from
/// `work`, and after each run let the optimiser, which counts its steps, use them.
pub struct Recording<'a> {
    /// Declared before the tensors that it reads, so that it is dropped first.
    #[cfg(feature = "cuda")]
    graph: Option<Graph>,
    results: Vec<Tensor>,
    /// Owns what the work reads.
    work: Box<dyn FnMut() -> Result<Vec<Tensor>> + 'a>,
}

impl<'a> Recording<'a> {
    /// Runs `work`, which computes on `device`, and records it. Meanwhile no other thread may use the device: its work would be recorded
    /// too.
    ///
    /// # Errors
    /// The errors of `work`; on a GPU also [`Error::Argument`](crate::Error::Argument) for work that waits for the GPU, reads its numbers
    /// or copies numbers to it (dropout's masks, the rows of a cross attention), keeps memory that it allocated, or has results on another
    /// device.
    ///
    /// ```
    /// use wavemesh::{device::Recording, prelude::*};
    /// let device = best_device()?;
    /// let x = Tensor::new(&[3f32], &device)?;
    /// let recording = Recording::new(&device, || Ok(vec![x.sqr()?]))?;
    /// assert_eq!(recording.results()[0].to_vec1::<f32>()?, [9.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(device: &Device, work: impl FnMut() -> Result<Vec<Tensor>> + 'a) -> Result<Self> {
        let mut work: Box<dyn FnMut() -> Result<Vec<Tensor>> + 'a> = Box::new(work);
        #[cfg(feature = "cuda")]
        if let Some(gpu) = graph::of(device) {
            let (results, graph) = graph::record(gpu, &mut work)?;
            return Ok(Self { graph: Some(graph), results, work });
        }
        #[cfg(not(feature = "cuda"))]
        let _ = device;
        let results = work()?;
        Ok(Self {
            #[cfg(feature = "cuda")]
            graph: None,
            results,
            work,
        })
    }

    /// Does the work again. On a GPU the results are the same tensors as before with new content: copy what you want to keep.
    ///
    /// # Errors
    /// The driver's errors; on the CPU, the errors of `work`.
    ///
    /// ```
    /// use wavemesh::{candle_core::Var, device::Recording, prelude::*};
    /// let device = best_device()?;
    /// let count = Var::zeros(1, DType::F32, &device)?;
    /// let mut next = Recording::new(&device, || Ok(vec![(count.as_tensor() + 1.0)?]))?;
    /// count.set(&next.results()[0].copy()?)?;
    /// assert_eq!(next.run()?[0].to_vec1::<f32>()?, [2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run(&mut self) -> Result<&[Tensor]> {
        #[cfg(feature = "cuda")]
        if let Some(graph) = &self.graph {
            graph.launch()?;
            return Ok(&self.results);
        }
        self.results = (self.work)()?;
        Ok(&self.results)
    }

    /// The results of the last run.
    pub fn results(&self) -> &[Tensor] {
        &self.results
    }
}

impl std::fmt::Debug for Recording<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Recording").field("results", &self.results).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::Error;

    #[test]
    fn on_the_cpu_the_work_is_done_each_time() {
        let x = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        let mut calls = 0;
        let mut recording = Recording::new(&Device::Cpu, || {
            calls += 1;
            if calls == 3 { Err(Error::Interrupted) } else { Ok(vec![(x.as_tensor() * 2.0)?]) }
        })
        .unwrap();
        assert_eq!(recording.results()[0].to_vec1::<f32>().unwrap(), [2.0, 4.0]);
        x.set(&Tensor::new(&[5f32, 6.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(recording.run().unwrap()[0].to_vec1::<f32>().unwrap(), [10.0, 12.0]);
        assert!(matches!(recording.run(), Err(Error::Interrupted)));
        assert_eq!(recording.results()[0].to_vec1::<f32>().unwrap(), [10.0, 12.0]);
    }
}
