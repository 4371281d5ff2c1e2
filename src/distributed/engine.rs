//! [`Engine`]: moves numbers between the processes of a group.

use candle_core::{Device, Tensor};

use crate::Result;

/// A function that an engine calls repeatedly while it waits for other processes. If it returns an error, the group has failed: the engine
/// gives up the operation and passes the error on.
pub type Waiting<'a> = &'a dyn Fn() -> Result<()>;

/// Moves numbers between the processes of a group. MPI and NCCL are included (features `mpi` and `nccl`). To use another library, implement
/// this trait and call [`ProcessGroup::with_engine`](super::ProcessGroup::with_engine).
///
/// All processes call the same functions in the same order, with the same number of values. A [`ProcessGroup`](super::ProcessGroup) makes
/// only one call at a time.
pub trait Engine: Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Replaces each value by the sum of the values of all processes.
    ///
    /// # Errors
    /// An error of the library, or that of `waiting`.
    ///
    /// ```
    /// use wavemesh::distributed::{Engine, Waiting};
    /// # use wavemesh::Result;
    /// # struct Two;
    /// # impl Engine for Two {
    /// #     fn name(&self) -> &'static str { "two" }
    /// #     fn sum(&self, values: &mut [f64], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn sum_f32(&self, values: &mut [f32], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn broadcast(&self, _: &mut [u8], _: Waiting) -> Result<()> { Ok(()) }
    /// # }
    /// let mut values = [1.0, 2.0];
    /// Two.sum(&mut values, &|| Ok(()))?; // two processes that hold the same
    /// assert_eq!(values, [2.0, 4.0]);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    fn sum(&self, values: &mut [f64], waiting: Waiting) -> Result<()>;

    /// The same for f32.
    ///
    /// # Errors
    /// The errors of [`sum`](Self::sum).
    ///
    /// ```
    /// use wavemesh::distributed::{Engine, Waiting};
    /// # use wavemesh::Result;
    /// # struct Two;
    /// # impl Engine for Two {
    /// #     fn name(&self) -> &'static str { "two" }
    /// #     fn sum(&self, values: &mut [f64], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn sum_f32(&self, values: &mut [f32], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn broadcast(&self, _: &mut [u8], _: Waiting) -> Result<()> { Ok(()) }
    /// # }
    /// let mut values = [1f32, 2.0];
    /// Two.sum_f32(&mut values, &|| Ok(()))?; // two processes that hold the same
    /// assert_eq!(values, [2.0, 4.0]);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    fn sum_f32(&self, values: &mut [f32], waiting: Waiting) -> Result<()>;

    /// Replaces the bytes of every process by those of rank 0.
    ///
    /// # Errors
    /// The errors of [`sum`](Self::sum).
    ///
    /// ```
    /// use wavemesh::distributed::{Engine, Waiting};
    /// # use wavemesh::Result;
    /// # struct Two;
    /// # impl Engine for Two {
    /// #     fn name(&self) -> &'static str { "two" }
    /// #     fn sum(&self, values: &mut [f64], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn sum_f32(&self, values: &mut [f32], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn broadcast(&self, _: &mut [u8], _: Waiting) -> Result<()> { Ok(()) }
    /// # }
    /// let mut bytes = *b"rank 0";
    /// Two.broadcast(&mut bytes, &|| Ok(()))?;
    /// assert_eq!(&bytes, b"rank 0");
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    fn broadcast(&self, bytes: &mut [u8], waiting: Waiting) -> Result<()>;

    /// Sums vectors of f32 on any device. By default they go through the processor's memory; an engine that can reach a GPU's memory should
    /// start all sums before it waits.
    ///
    /// # Errors
    /// The errors of [`sum`](Self::sum).
    ///
    /// ```
    /// use wavemesh::distributed::{Engine, Waiting};
    /// use wavemesh::prelude::{Device, Tensor};
    /// # use wavemesh::Result;
    /// # struct Two;
    /// # impl Engine for Two {
    /// #     fn name(&self) -> &'static str { "two" }
    /// #     fn sum(&self, values: &mut [f64], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn sum_f32(&self, values: &mut [f32], _: Waiting) -> Result<()> { values.iter_mut().for_each(|v| *v *= 2.0); Ok(()) }
    /// #     fn broadcast(&self, _: &mut [u8], _: Waiting) -> Result<()> { Ok(()) }
    /// # }
    /// let vector = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;
    /// let sums = Two.sum_vectors(vec![vector], &|| Ok(()))?; // two processes that hold the same
    /// assert_eq!(sums[0].to_vec1::<f32>()?, [2.0, 4.0]);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    fn sum_vectors(&self, vectors: Vec<Tensor>, waiting: Waiting) -> Result<Vec<Tensor>> {
        let sum = |vector: Tensor| {
            let device = vector.device().clone();
            let mut values = vector.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
            drop(vector);
            self.sum_f32(&mut values, waiting)?;
            let count = values.len();
            Ok(Tensor::from_vec(values, count, &device)?)
        };
        vectors.into_iter().map(sum).collect()
    }

    /// Notes that the group has failed: when the engine ends, it must skip everything that it would do together with the others.
    fn abandon(&self) {}
}
