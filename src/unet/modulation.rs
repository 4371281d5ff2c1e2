//! The timestep at every level: a linear layer computes a scale and a shift for each channel from the time embedding (Perez et al. 2018,
//! "FiLM"; Dhariwal & Nichol 2021, section 3.1, use it in each block of a diffusion network).
//!
//! `y = x·(1 + s) + b` with `(s, b) = Linear(SiLU(time))`: a row for each batch element, which applies to all of its sites.

use candle_core::{DType, Module, Tensor};
use candle_nn::{Linear, VarBuilder};

use super::linear::linear;
use super::run::Run;
use super::summary::LayerSummary;
use crate::Result;
use crate::sparse::{PartGradients, SparseConvTensor, detached, in_one};

#[derive(Clone, Debug)]
pub(super) struct Modulation {
    name: String,
    linear: Linear,
}

impl Modulation {
    /// The modulation of features with `channels` channels by a time embedding with `width` channels.
    pub fn new(width: usize, channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { name: vb.prefix(), linear: linear(width, 2 * channels, vb)? })
    }

    /// `x` (N, C) modulated by `time` (batch, width), in the type of `x`.
    pub fn forward(&self, x: &SparseConvTensor, time: &Tensor, run: &Run) -> Result<SparseConvTensor> {
        let channels = x.channels();
        let factors = self.linear.forward(&time.silu()?)?; // (batch, 2·C): s, then b
        let (given, own) = (detached(x.clone())?, factors.detach());
        let features = given.features().to_dtype(DType::F32)?;
        let out = modulate(&given, &features, &own, true)?.to_dtype(x.dtype())?;
        let y = if run.tape {
            let gradients = move |(_, grad): (&Tensor, &Tensor)| {
                let grad = grad.to_dtype(DType::F32)?.contiguous()?;
                let of_factors =
                    [given.sum_elements(&(&grad * &features)?, channels)?, given.sum_elements(&grad, channels)?];
                let x = modulate(&given, &grad, &own, false)?;
                Ok(PartGradients { x, other: Some(Tensor::cat(&of_factors, 1)?), parameters: Vec::new() })
            };
            x.replace_feature(in_one((x.features(), Some(&factors)), &out, &[], gradients)?)?
        } else {
            x.replace_feature(out)?
        };
        run.report(|| {
            let weight = self.linear.weight().elem_count();
            let parameters = weight + 2 * channels;
            let mult_adds = weight * time.dims()[0] + y.len() * channels;
            LayerSummary::new((&self.name, "Modulation".into()), (&y, y.dtype()), parameters, mult_adds)
        });
        Ok(y)
    }
}

/// `rows` (N, C) of the sites of `x`, times 1 + s and, if they are `shifted`, plus b; `factors` are (batch, 2·C): s, then b. All are f32.
fn modulate(x: &SparseConvTensor, rows: &Tensor, factors: &Tensor, shifted: bool) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if rows.device().is_cuda() {
        return crate::gpu::rows::modulate(rows, factors, &*x.placed()?, shifted);
    }
    let (channels, factors) = (rows.dim(1)?, x.broadcast_elements(factors)?);
    let scaled = (rows * (factors.narrow(1, 0, channels)? + 1.0)?)?;
    if shifted { Ok((scaled + factors.narrow(1, channels, channels)?)?) } else { Ok(scaled) }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::random;

    /// Uses tensors in which each site has its own row: ten sites of three batch elements, one of them without sites.
    #[test]
    fn a_modulation_is_the_formula_site_by_site_and_so_are_its_gradients() -> Result<()> {
        let mut rng = random::rng(5, 0);
        let mut normal = |rows, columns| random::gaussian(&mut rng, (rows, columns), &Device::Cpu);
        let sites: Vec<[i32; 4]> = (0..10).map(|i| [if i < 4 { 0 } else { 2 }, 0, 0, i]).collect();
        let rows = Tensor::new(&[0u32, 0, 0, 0, 2, 2, 2, 2, 2, 2], &Device::Cpu)?;
        let (features, time) = (Var::from_tensor(&normal(10, 6)?)?, Var::from_tensor(&normal(3, 5)?)?);
        let (weight, bias) = (Var::from_tensor(&normal(12, 5)?)?, Var::from_tensor(&normal(1, 12)?.squeeze(0)?)?);
        let wanted = normal(10, 6)?;
        let linear = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
        let modulation = Modulation { name: "modulation".into(), linear: linear.clone() };

        let x = SparseConvTensor::from_coords(features.as_tensor().clone(), sites, [1, 1, 10], 3)?;
        let run = Run { train: true, tape: true, ..Run::default() };
        let got = modulation.forward(&x, &time, &run)?;
        let factors = linear.forward(&time.silu()?)?.index_select(&rows, 0)?;
        let plain = ((features.as_tensor() * (factors.narrow(1, 0, 6)? + 1.0)?)? + factors.narrow(1, 6, 6)?)?;
        let difference = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
        assert!(difference(got.features(), &plain)? < 1e-6);
        let untaped = modulation.forward(&x, &time, &Run::default())?;
        assert_eq!(difference(untaped.features(), got.features())?, 0.0);

        let gradients = |y: &Tensor| (y * &wanted)?.sum_all()?.backward();
        let (own, expected) = (gradients(got.features())?, gradients(&plain)?);
        for variable in [&features, &time, &weight, &bias] {
            let [own, expected] = [&own, &expected].map(|all| all.get(variable).expect("a gradient"));
            assert_eq!(own.dtype(), DType::F32);
            assert!(difference(own, expected)? < 1e-4, "{:?}", variable.dims());
        }
        Ok(())
    }
}
