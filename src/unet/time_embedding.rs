//! The time embedding: sines and cosines of the timestep (Vaswani et al. 2017), then two linear layers. It is then joined to the features
//! of each site.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Module, Shape, Tensor};
use candle_nn::{Linear, VarBuilder};

use super::linear::linear;
use crate::sparse::SparseConvTensor;
use crate::{Error, Result, memory};

/// Sinusoidal embedding (batch, dim) of `timesteps` (batch,), any number type.
///
/// The first half is `sin(t·fᵢ)`, the second `cos(t·fᵢ)` with `fᵢ = exp(−i·ln 10000 / (half − 1))`; an odd `dim` ends in a zero.
///
/// # Errors
/// [`Error::Shape`] if `timesteps` does not have exactly one axis.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::unet::sinusoidal_embedding;
/// let t = Tensor::new(&[0f32, 1.0], &Device::Cpu)?;
/// let code = sinusoidal_embedding(&t, 4)?.to_vec2::<f32>()?; // sines of t and t / 10000, then cosines
/// assert_eq!(code[0], [0.0, 0.0, 1.0, 1.0]);
/// assert!((code[1][0] - 1f32.sin()).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
pub fn sinusoidal_embedding(timesteps: &Tensor, dim: usize) -> Result<Tensor> {
    let &[batch] = timesteps.dims() else {
        return Err(Error::Shape {
            op: "sinusoidal_embedding",
            what: "timesteps",
            got: timesteps.dims().to_vec(),
            expected: "(batch,)".into(),
        });
    };
    memory::elements::<[f32; 2]>("sinusoidal_embedding", "the embedding", &[batch, dim], 0)?;
    let half = dim / 2;
    let step = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let frequencies: Vec<f32> = (0..half).map(|i| (-(i as f64) * step).exp() as f32).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), timesteps.device())?;
    let angles = timesteps.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?; // (batch, half)
    let mut parts = vec![angles.sin()?, angles.cos()?];
    if dim % 2 == 1 {
        parts.push(Tensor::zeros((batch, 1), DType::F32, timesteps.device())?);
    }
    Ok(Tensor::cat(&parts, 1)?)
}

/// Sinusoidal embedding → Linear → SiLU → Linear, (batch,) → (batch, channels).
#[derive(Clone, Debug)]
pub(super) struct TimeEmbedding {
    dim: usize,
    first: Linear,
    second: Linear,
}

impl TimeEmbedding {
    pub fn new(dim: usize, channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { dim, first: linear(dim, channels, vb.pp(0))?, second: linear(channels, channels, vb.pp(2))? })
    }

    pub fn forward(&self, timesteps: &Tensor) -> Result<Tensor> {
        let embedding = sinusoidal_embedding(timesteps, self.dim)?; // (batch, dim)
        Ok(self.second.forward(&self.first.forward(&embedding)?.silu()?)?)
    }
}

/// The features of `x` (N, C), followed by the row of `time` (batch, c) for each site's batch element: (N, C + c), in f32. This is one
/// operation, which keeps nothing additional for the backward pass.
pub(super) fn with_time(x: &SparseConvTensor, time: &Tensor) -> Result<SparseConvTensor> {
    let features = x.features().to_dtype(DType::F32)?.contiguous()?;
    let op = WithTime { sites: x.clone() };
    x.replace_feature(features.apply_op2(&time.contiguous()?, op)?)
}

/// Gradients of the features and of the embedding, from the gradient of the result of [`with_time`].
pub(super) fn with_time_gradients(x: &SparseConvTensor, time: &Tensor, grad: &Tensor) -> Result<[Tensor; 2]> {
    let x_grad = grad.narrow(1, 0, x.channels())?.contiguous()?.to_dtype(DType::F32)?;
    Ok([x_grad, x.sum_elements(grad, time.dim(1)?)?.to_dtype(time.dtype())?])
}

struct WithTime {
    sites: SparseConvTensor,
}

impl CustomOp2 for WithTime {
    fn name(&self) -> &'static str {
        "with-time"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        time: &CpuStorage,
        tl: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (channels, width) = (xl.dims()[1], tl.dims()[1]);
        let [x, time] = [(x, xl), (time, tl)].map(|(storage, layout)| {
            let values = storage.as_slice::<f32>()?;
            let (from, to) = layout.contiguous_offsets().unwrap_or((0, values.len()));
            Ok::<_, candle_core::Error>(&values[from..to])
        });
        let (x, time) = (x?, time?);
        let sites = self.sites.coords();
        let mut joined = Vec::with_capacity(sites.len() * (channels + width));
        for (site, row) in sites.iter().zip(x.chunks_exact(channels)) {
            joined.extend_from_slice(row);
            joined.extend_from_slice(&time[site[0] as usize * width..][..width]);
        }
        Ok((CpuStorage::F32(joined), (sites.len(), channels + width).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        time: &CudaStorage,
        tl: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        Ok(crate::gpu::rows::join((x, xl), (time, tl), &self.sites.placed()?.coords)?)
    }

    fn bwd(
        &self,
        _x: &Tensor,
        time: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, time] = with_time_gradients(&self.sites, time, grad)?;
        Ok((Some(x), Some(time)))
    }
}
