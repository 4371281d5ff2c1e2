//! The sparse U-Net of the pipeline, [`WaveMeshUNet`], and its blocks.
//!
//! ```text
//! features ─┐                                   sites   channels
//! timestep ─┴─ concat ─ input_conv ────────────── S0 ──── c0 ──────────────┐ skip
//!                          └─ encoder block ───── S1 ──── c1 ───────┐      │
//!                               └─ encoder block ─ S2 ─── c2        │      │
//!                               ┌─ inverse conv ── S2 → S1 ─ concat ┴─ block ─ attention
//!                          ┌────┘ inverse conv ─── S1 → S0 ─ concat ──────┴─── block ─ attention ─ output_conv
//! ```
//!
//! An inverse convolution restores exactly the sites from which its encoder block started, so the skips always fit.

mod attention;
mod block;
mod checkpoint;
mod config;
mod context;
mod decoder;
mod encoder;
mod layers;
mod linear;
mod modulation;
mod network;
mod parameters;
mod part;
mod run;
mod summary;
mod time_embedding;

pub use config::{Precision, UNetConfig};
pub use network::{AsSparse, WaveMeshUNet};
pub use summary::{LayerSummary, ModelSummary};
pub use time_embedding::sinusoidal_embedding;
