//! Replaces candle: everything that the code under loom needs from it.

/// The device of a tensor.
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
