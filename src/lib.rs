//! WaveMesh: 3D deep learning in Rust, made for notebooks.
//!
//! Each stage takes the previous stage's type and returns the next:
//!
//! ```text
//! mesh file ── mesh ── sdf ── wavelet ── sparse ── unet ── diffusion
//!      ▲        └────── Module A ─────┘   └─ Module B ─┘   Module C
//!      └──── isosurface ◄── inverse wavelet ◄─────────────────┘
//! ```
//!
//! [`notebook`] turns every stage's values into cards, plots and viewers; nothing depends on it.
//!
//! ```
//! use wavemesh::prelude::*;
//! // A shape as signed distances, as wavelet coefficients, and as a sparse tensor.
//! let grid = shapes::torus(0.6, 0.2).to_grid(32)?;
//! let coeffs = grid.encode(&WaveletConfig::new().level(2))?;
//! let x = coeffs.to_sparse_tensor(&Device::Cpu)?;
//! // A network of sparse layers.
//! let unet = WaveMeshUNet::seeded(&UNetConfig::plain(x.channels(), 4, &[8, 16]), 0, &Device::Cpu)?;
//! let y = unet.forward(&x, &Tensor::new(&[10u32], &Device::Cpu)?, None)?;
//! assert!(y.same_sites(&x) && y.channels() == 4);
//! // And all the way back.
//! assert!(coeffs.decode()?.to_mesh()?.is_watertight());
//! # Ok::<(), Error>(())
//! ```
//!
//! # Features
//!
//! All features except `cuda`, `mpi` and `nccl` are on by default. Without any feature, the crate has sparse layers, the network,
//! diffusion, wavelets and grids.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `mesh-io` | glTF, 3MF and compressed files; OBJ, STL, PLY and OFF need nothing |
//! | `train` | data sets, training loop, checkpoints, generator ([`train`]) |
//! | `cuda` | tensors, layers and networks on NVIDIA GPUs ([`device`]); it needs nvcc to build and CUDA's libraries to load |
//! | `mpi` | training over several processes with MPI ([`distributed`]); it needs Open MPI and libclang to build |
//! | `nccl` | training over several GPUs ([`distributed`]); it needs what `cuda` needs, and NCCL to run |
//! | `notebook` | cards, plots, viewers, progress bars ([`notebook`]) |
//!
//! # In a program
//!
//! Calls are safe from any number of threads. You can stop a call and observe its progress without affecting other calls ([`task`]).
//! Warnings go through the crate `log`. Every failure, including a lack of memory, is an [`Error`]. The library changes nothing for the
//! whole process unless you ask for it: [`let_candle_rest`] and [`keep_freed_memory`] make steps of small networks faster.
//!
//! # What a version promises
//!
//! This crate follows semantic versioning. Tensors, devices and parameters are candle's, so its version is part of this crate's: a new
//! minor version of candle (0.11 → 0.12) is a breaking change here. Use the re-exported [`candle_core`] and [`candle_nn`], and the versions
//! always fit. Configurations may gain fields and errors may gain variants in a minor version: build configurations with `new()` and their
//! methods, and end a match on errors with an arm `_`. The book's page on stability has the details.

#![deny(missing_docs, clippy::missing_errors_doc)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

#[macro_use]
mod builder;

mod allocator;
pub mod backbones;
mod candle_threads;
pub mod device;
pub mod diffusion;
#[cfg(feature = "train")]
pub mod distributed;
mod error;
mod fetch;
mod files;
#[cfg(feature = "cuda")]
mod gpu;
pub mod import;
mod memory;
pub mod mesh;
#[cfg(feature = "notebook")]
pub mod notebook;
mod parallel;
pub mod points;
pub mod prelude;
mod random;
mod recording;
pub mod sdf;
pub mod sparse;
mod sync;
pub mod task;
mod tensor_file;
#[cfg(feature = "train")]
pub mod train;
pub mod unet;
pub mod wavelet;
mod wide;

pub use allocator::keep_freed_memory;
pub use candle_threads::let_candle_rest;
pub use error::{Error, Result};
pub use {candle_core, candle_nn};

/// The Rust code of the book's pages, which the documentation tests run.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/start/rust.md")]
    mod plain_rust {}
    #[doc = include_str!("../docs/how-to/mesh.md")]
    mod mesh {}
    #[doc = include_str!("../docs/meshes.md")]
    mod real_files {}
    #[doc = include_str!("../docs/how-to/display.md")]
    mod display {}
    #[doc = include_str!("../docs/how-to/own_layer.md")]
    mod own_layer {}
    #[doc = include_str!("../docs/reference/layers.md")]
    mod layers {}
    #[doc = include_str!("../docs/reference/backends.md")]
    mod backends {}
    #[doc = include_str!("../docs/reference/errors.md")]
    mod errors {}
    #[doc = include_str!("../docs/gpu.md")]
    mod gpu {}
    #[doc = include_str!("../docs/explanation/why-sparse.md")]
    mod why_sparse {}
}
