//! In candle's place: all that the code under loom knows of it.

/// Where a tensor is.
#[derive(Clone, Copy, PartialEq)]
pub enum DeviceLocation {
    /// On the processor.
    Cpu,
    /// On a GPU.
    Cuda {
        /// Its number.
        gpu_id: usize,
    },
}
