//! [`Engine`]: who moves numbers between the processes of a group.

use candle_core::{Device, Tensor};

use crate::Result;

/// What an engine calls again and again while it waits for others. When it returns an error the group has failed: the engine gives up the
/// operation and passes the error on.
pub type Waiting<'a> = &'a dyn Fn() -> Result<()>;

/// Moves numbers between the processes of a group. MPI and NCCL come along, behind the features `mpi` and `nccl`; another library is an
/// implementation of this trait and [`ProcessGroup::with_engine`](super::ProcessGroup::with_engine).
///
/// Every process calls the same functions in the same order with as many numbers. A [`ProcessGroup`](super::ProcessGroup) makes one call
/// at a time.
pub trait Engine: Send + Sync {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Puts in the place of each value the sum of those of all processes.
    ///
    /// # Errors
    /// What the library says, and that of `waiting`.
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
    /// As [`sum`](Self::sum).
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

    /// Puts rank 0's bytes in the place of everybody's.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
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

    /// Sums vectors of f32 wherever they are. By default they go through the processor's memory; an engine that reaches a GPU's memory
    /// starts all of them before it waits.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
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

    /// The group has failed: whatever the library would do together with the others when it ends is to be left out.
    fn abandon(&self) {}
}
