//! Backends compute the layers. Every backend gives the same sites in the same order and the same numbers.
//!
//! A backend implements [`Engine`]; the layers know nothing else about it. What it builds for a kernel map or for sites is kept with them
//! ([`Kept`](super::kept::Kept)), and only the backend knows its content. To add a backend: write a folder, return its engine from
//! [`Backend::engine`], and tell [`info`] when it can run and what it needs otherwise.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod dense;
mod info;
mod native;
pub(super) mod simd;

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};

pub use info::{BackendInfo, backend_info};

use super::geometry::{Geometry, SourceRule};
use super::grid::Grid;
use super::kernel_map::KernelMap;
use super::sites::Sites;
use crate::{Error, Result};

/// What computes the sparse layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Multithreaded SIMD kernels in Rust. Exact; the default on the CPU.
    Native,
    /// Dense convolution on the occupied grid. Slow, and its memory grows with the grid; it is the reference for tests.
    Dense,
    /// Kernels for NVIDIA GPUs; the default for tensors there. Needs the cargo feature `cuda`.
    Cuda,
}

/// The environment variable that chooses the backend: `native`, `dense` or `cuda`. It is read only once.
pub const BACKEND_VARIABLE: &str = "WAVEMESH_BACKEND";

thread_local! {
    static SCOPED: Cell<Option<Backend>> = const { Cell::new(None) };
}

impl Backend {
    /// The backend that layers use on this thread for tensors on the CPU: that of the innermost [`with_backend`]; otherwise that of
    /// `WAVEMESH_BACKEND`; otherwise native.
    ///
    /// # Errors
    /// `WAVEMESH_BACKEND` holds an unknown name.
    ///
    /// ```
    /// use wavemesh::sparse::{Backend, with_backend};
    /// assert_eq!(with_backend(Backend::Dense, Backend::current)?, Backend::Dense);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn current() -> Result<Self> {
        Self::for_device(&Device::Cpu)
    }

    /// The backend that layers use on this thread for tensors on `device`: the one asked for, as in [`current`](Self::current); otherwise
    /// native for the CPU and cuda for a GPU.
    ///
    /// # Errors
    /// `WAVEMESH_BACKEND` holds an unknown name.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let asked = || Backend::for_device(&Device::Cpu);
    /// assert_eq!(with_backend(Backend::Native, asked)?, Backend::Native);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn for_device(device: &Device) -> Result<Self> {
        static ASKED: OnceLock<String> = OnceLock::new();
        let asked = ASKED.get_or_init(|| std::env::var(BACKEND_VARIABLE).unwrap_or_default());
        match (SCOPED.get(), asked.trim()) {
            (Some(backend), _) => Ok(backend),
            (None, "") => Ok(if device.is_cuda() { Self::Cuda } else { Self::Native }),
            (None, name) => name.parse(),
        }
    }

    /// Whether this backend can run here.
    ///
    /// # Errors
    /// [`Error::Backend`] if it cannot; the error says what it needs.
    ///
    /// ```
    /// use wavemesh::sparse::Backend;
    /// Backend::Native.check()?;
    /// if let Err(problem) = Backend::Cuda.check() {
    ///     println!("{problem}"); // what a GPU would need
    /// }
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn check(self) -> Result<()> {
        self.engine()?;
        #[cfg(feature = "cuda")]
        if self == Self::Cuda {
            crate::gpu::device(0)?;
        }
        Ok(())
    }

    /// Its engine for tensors on `device`.
    pub(super) fn engine_on(self, device: &Device) -> Result<&'static dyn Engine> {
        let there = device.is_cuda();
        match self {
            Self::Native if there => Err(Error::Backend {
                backend: "native",
                needs: "it needs tensors on the CPU; use `to_device`, or `cuda`".into(),
            }),
            Self::Cuda if !there => {
                self.engine()?;
                Err(Error::Backend {
                    backend: "cuda",
                    needs: "it needs tensors on a GPU; use `to_device`, or `native`".into(),
                })
            }
            _ => self.engine(),
        }
    }

    fn engine(self) -> Result<&'static dyn Engine> {
        match self {
            Self::Native => Ok(&native::Native),
            Self::Dense => Ok(&dense::Dense),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(&cuda::Cuda),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => Err(Error::Backend {
                backend: "cuda",
                needs: "it needs WaveMesh built with the cargo feature `cuda`; use `native` (the default) or `dense`"
                    .into(),
            }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Dense => "dense",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Native, Self::Dense, Self::Cuda]
            .into_iter()
            .find(|backend| backend.name() == name.trim().to_ascii_lowercase())
            .ok_or_else(|| Error::Unknown { kind: "backend", name: name.into(), known: "native, dense, cuda".into() })
    }
}

/// Runs `body` with its layers on `backend`, whatever `WAVEMESH_BACKEND` says. Scopes nest; each thread has its own.
///
/// ```
/// use wavemesh::sparse::{Backend, with_backend};
/// with_backend(Backend::Dense, || assert_eq!(Backend::current().unwrap(), Backend::Dense));
/// ```
pub fn with_backend<T>(backend: Backend, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<Backend>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPED.set(self.0);
        }
    }
    let _restore = Restore(SCOPED.replace(Some(backend)));
    body()
}

/// A kernel map and the direction in which a layer uses it.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub map: KernelMap,
    /// Whether it goes from the map's output to its input, as in an inverse convolution and for a gradient.
    pub reversed: bool,
}

impl Flow {
    pub fn forward(map: &KernelMap) -> Self {
        Self { map: map.clone(), reversed: false }
    }

    pub fn inverse(map: &KernelMap) -> Self {
        Self { map: map.clone(), reversed: true }
    }

    /// The same map in the other direction.
    pub fn reversed(&self) -> Self {
        Self { map: self.map.clone(), reversed: !self.reversed }
    }

    /// The sites that are read.
    pub fn source(&self) -> &Arc<Sites> {
        if self.reversed { &self.map.target } else { &self.map.source }
    }

    /// The sites that are written.
    pub fn target(&self) -> &Arc<Sites> {
        if self.reversed { &self.map.source } else { &self.map.target }
    }

    /// The rule that tells which source each target reads.
    pub fn rule(&self) -> SourceRule {
        let rule = self.map.geometry.gather();
        if self.reversed { rule.reversed() } else { rule }
    }
}

/// What a convolution needs besides its features.
#[derive(Clone, Copy)]
pub(super) struct Convolve<'a> {
    pub flow: &'a Flow,
    pub weight: &'a Tensor,
    pub bias: Option<&'a Tensor>,
    /// More features of the same sites, of any type, whose channels follow those of the features. With them, a layer has no bias and its
    /// result is f32.
    pub beside: Option<&'a Tensor>,
    /// Type of the result: the features' type, or f32 for half features whose sums must not be rounded yet.
    pub output: DType,
}

/// The operations of a backend. Features are (sites, channels); results are differentiable through candle's autograd.
pub(super) trait Engine: Sync {
    /// The active output sites of a regular or transposed convolution on the output's grid, ascending. `device` is that of the features.
    fn output_sites(&self, source: &Sites, geometry: &Geometry, grid: Grid, device: &Device) -> Result<Sites>;

    /// Builds what the first pass of a layer over `flow` would build for its map, for features on `device`.
    fn build(&self, flow: &Flow, device: &Device) -> Result<()>;

    /// `y[t] = bias + Σ_r weight[:, r, :] · x[source of t through r]`, with weights (out, kz, ky, kx, in).
    fn convolve(&self, layer: &Convolve, features: &Tensor) -> Result<Tensor>;

    /// Gradients of [`convolve`](Self::convolve) in f32, from the gradient of its result, without a tape. Returns the gradient of the
    /// features with those beside them, (sites, all channels), added to `onto`; and that of the weight.
    fn convolve_gradients(
        &self,
        layer: &Convolve,
        features: &Tensor,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]>;

    /// The largest source value for each target and channel; tied sources all receive the gradient.
    fn max_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor>;

    /// The mean of each target's active sources.
    fn avg_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor>;
}
