//! Wavelet filters, PyWavelets' transforms, and sparse coefficients.
//!
//! [`wavedecn`] and [`waverecn`] agree with PyWavelets in names, order of bands and values. [`SparseWavelet`] keeps the coefficients of an
//! [`SdfGrid`](crate::sdf::SdfGrid) that matter, and packs them for the network.

mod adjoint;
mod array;
mod axis;
mod codec;
mod combine;
mod compress;
mod entropy;
mod file;
mod filter_table;
mod filters;
mod layout;
mod level;
mod levelling;
mod mode;
mod pack;
mod products;
mod some_axes;
mod sparse;
mod stationary;
mod tensors;
mod transform;

pub use array::NdArray;
pub use combine::Real;
pub use filters::Wavelet;
pub use layout::{BandNormalization, WaveletLayout};
#[cfg(feature = "train")]
pub(crate) use levelling::{distance_of, level_off};
pub use mode::Mode;
pub use pack::decode_features;
pub use sparse::{SparseWavelet, Threshold, WaveletConfig, WaveletStats};
pub use stationary::{StationaryCoeffs, StationaryConfig, iswtn, swtn, swtn_with};
pub use tensors::{TensorCoeffs, wavedecn_tensor, waverecn_tensor};
pub use transform::{WaveletCoeffs, dwt, dwt_max_level, dwtn_max_level, idwt, wavedecn, wavedecn_axes, waverecn};
