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

#[macro_use]
mod builder;

mod allocator;
pub mod diffusion;
mod error;
mod files;
mod memory;
pub mod mesh;
#[cfg(feature = "notebook")]
pub mod notebook;
pub mod prelude;
mod random;
pub mod sdf;
pub mod sparse;
mod sync;
pub mod task;
#[cfg(feature = "train")]
pub mod train;
pub mod unet;
pub mod wavelet;

pub use error::{Error, Result};

/// The Rust in the book's pages, run by the documentation tests.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/start/rust.md")]
    mod plain_rust {}
    #[doc = include_str!("../docs/how-to/mesh.md")]
    mod mesh {}
    #[doc = include_str!("../docs/how-to/display.md")]
    mod display {}
}
