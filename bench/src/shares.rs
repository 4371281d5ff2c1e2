//! Where a network's time goes: kernel maps, convolutions, the rest.
//!
//! Convolutions are timed one by one, apart from the network, with its channels and sites. The time for building maps is how much longer a
//! pass over new sites takes than a pass over known sites. Both are given in percent of a pass.

use std::time::Instant;

use candle_core::{DType, Tensor, Var};
use wavemesh::diffusion::Denoiser;
use wavemesh::prelude::{VarBuilder, VarMap};
use wavemesh::sparse::{
    ConvConfig, OutputSites, SparseConv3d, SparseConvTensor, SparseInverseConv3d, SparseModule, SubMConv3d,
};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};

use crate::work::{Answer, Result};

const RUNS: usize = 5;

/// Shares of a pass, in percent.
pub struct Shares {
    maps: f64,
    convolution: f64,
}

impl Shares {
    /// Measures a pass of `network`, forward or also backward, over the sites of `x`, a tensor whose maps are not built yet.
    pub fn measure(network: &WaveMeshUNet, x: &SparseConvTensor, backward: bool) -> Result<Self> {
        let timesteps = Tensor::full(500f32, x.batch_size(), x.features().device())?;
        let pass = || -> Result<f64> {
            let started = Instant::now();
            let out = network.predict(x, &timesteps, None, backward)?;
            if backward {
                out.features().sqr()?.mean_all()?.backward()?;
            }
            elapsed(started, x)
        };
        let first = pass()?;
        let again = median((0..RUNS).map(|_| pass()).collect::<Result<_>>()?);
        let convolutions = convolutions(network.config(), x, backward)?;
        Ok(Self { maps: (first - again).max(0.0) / first, convolution: (convolutions / again).min(1.0) })
    }

    /// Adds the shares to a line of the table.
    pub fn facts(&self, answer: Answer) -> Answer {
        let percent = |share: f64| (100.0 * share).round();
        answer
            .fact("convolution: % of a pass", percent(self.convolution))
            .fact("rest: %", percent(1.0 - self.convolution))
            .fact("maps: % of a first pass", percent(self.maps))
    }
}

/// Seconds of all convolutions of the network, each timed by itself.
fn convolutions(config: &UNetConfig, x: &SparseConvTensor, backward: bool) -> Result<f64> {
    let c = &config.encoder_channels;
    let mut clock = Clock { backward, seconds: 0.0 };
    let mut levels = vec![x.clone()];
    clock.submanifold(&levels[0], config.in_channels + c[0], c[0], 3, 0)?;
    for level in 1..c.len() {
        let below = clock.strided(&levels[level - 1], c[level - 1], c[level], 3, level)?;
        clock.strided(&levels[level - 1], c[level - 1], c[level], 1, level)?;
        clock.submanifold(&below, c[level], c[level], 3, level)?;
        levels.push(below);
    }
    for level in (1..c.len()).rev() {
        let wide = c[level - 1];
        clock.inverse(&levels[level], c[level], wide, level)?;
        clock.submanifold(&levels[level - 1], 2 * wide, wide, 3, level - 1)?;
        clock.submanifold(&levels[level - 1], 2 * wide, wide, 1, level - 1)?;
        clock.submanifold(&levels[level - 1], wide, wide, 3, level - 1)?;
    }
    clock.submanifold(&levels[0], c[0], config.out_channels, 1, 0)?;
    Ok(clock.seconds)
}

struct Clock {
    backward: bool,
    seconds: f64,
}

/// Fresh parameters for a layer, on the device of `x`.
fn vb(x: &SparseConvTensor) -> VarBuilder<'static> {
    VarBuilder::from_varmap(&VarMap::new(), DType::F32, x.features().device())
}

/// Seconds since `started`, after the device of `x` has finished its work.
fn elapsed(started: Instant, x: &SparseConvTensor) -> Result<f64> {
    x.features().device().synchronize()?;
    Ok(started.elapsed().as_secs_f64())
}

impl Clock {
    fn submanifold(&mut self, x: &SparseConvTensor, from: usize, to: usize, kernel: usize, level: usize) -> Result<()> {
        let config = ConvConfig::new().bias(false);
        let config = if kernel > 1 { config.key(format!("timed{level}")) } else { config };
        let layer = SubMConv3d::new(from, to, kernel, config, vb(x))?;
        self.time(&layer, x, from).map(|_| ())
    }

    fn strided(
        &mut self,
        x: &SparseConvTensor,
        from: usize,
        to: usize,
        kernel: usize,
        level: usize,
    ) -> Result<SparseConvTensor> {
        let config = ConvConfig::new().stride(2).padding(kernel / 2).bias(false).output_sites(OutputSites::Strided);
        let config = if kernel > 1 { config.key(format!("timed_down{level}")) } else { config };
        let layer = SparseConv3d::new(from, to, kernel, config, vb(x))?;
        self.time(&layer, x, from)
    }

    fn inverse(&mut self, x: &SparseConvTensor, from: usize, to: usize, level: usize) -> Result<()> {
        let config = ConvConfig::new().bias(false).key(format!("timed_down{level}"));
        let layer = SparseInverseConv3d::new(from, to, 3, config, vb(x))?;
        self.time(&layer, x, from).map(|_| ())
    }

    /// Adds the layer's time on the sites of `x`, whose maps are built before.
    fn time(&mut self, layer: &impl SparseModule, x: &SparseConvTensor, channels: usize) -> Result<SparseConvTensor> {
        let features = Var::rand(0f32, 1.0, (x.len(), channels), x.features().device())?;
        let x = x.replace_feature(features.as_tensor().clone())?;
        let out = layer.forward_t(&x, self.backward)?;
        let run = || -> Result<f64> {
            let started = Instant::now();
            let out = layer.forward_t(&x, self.backward)?;
            if self.backward {
                out.features().sum_all()?.backward()?;
            }
            elapsed(started, &x)
        };
        self.seconds += median((0..RUNS).map(|_| run()).collect::<Result<_>>()?);
        Ok(out.replace_feature(out.features().detach())?)
    }
}

pub fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
