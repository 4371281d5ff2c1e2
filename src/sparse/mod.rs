//! spconv's sparse tensors and layers, with automatic backends.

#![allow(dead_code)] // until the layers land

mod geometry;
mod grid;
mod kernel_map;
mod lookup;
mod sites;
mod tensor;

pub use geometry::{OutputSites, Size3};
pub use kernel_map::{IndiceData, IndiceDict, KernelMap};
pub use tensor::SparseConvTensor;
