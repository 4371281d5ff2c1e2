//! The native backend: multithreaded and exact, with the same results for any number of threads.
//!
//! A convolution goes through its kernel map one tile of output rows at a time ([`tiles`]). For each tile and kernel offset it multiplies
//! the input rows, without moving them, by that offset's weights ([`kernel`]) and adds to the tile, which stays in cache. It needs no
//! scattered writes and no atomics. The gradient of the input is the same procedure over the reversed map; that of the weights uses outer
//! products ([`convolve`]). [`ops`] connects both to candle's autograd. f64 features are computed in a simple way ([`double`]).

mod convolve;
mod double;
mod element;
mod joined;
mod kernel;
mod ops;
mod output_sites;
mod pairs;
mod pool;
mod source;
mod tiles;

use std::convert::Infallible;
use std::sync::Arc;

use candle_core::{DType, Device, DeviceLocation, Tensor};

#[cfg(feature = "cuda")]
pub(super) use self::output_sites::output_sites;
use self::tiles::Tiles;
use super::{Convolve, Engine, Flow};
use crate::Result;
use crate::sparse::geometry::{Geometry, Kind};
use crate::sparse::grid::Grid;
use crate::sparse::sites::Sites;

/// The native backend.
pub(super) struct Native;

impl Engine for Native {
    fn output_sites(&self, source: &Sites, geometry: &Geometry, grid: Grid, _: &Device) -> Result<Sites> {
        Ok(output_sites::output_sites(source, geometry, grid))
    }

    fn build(&self, flow: &Flow, _: &Device) -> Result<()> {
        Walk::of(flow);
        Ok(())
    }

    fn convolve(&self, layer: &Convolve, features: &Tensor) -> Result<Tensor> {
        if features.dtype() == DType::F64 {
            return double::convolve(layer, features);
        }
        let &Convolve { flow, weight, bias, beside, output } = layer;
        let op = ops::Convolution { flow: flow.clone(), wide: output == DType::F32 };
        let (features, weight) = (features.contiguous()?, weight.contiguous()?);
        Ok(match (beside, bias) {
            (Some(beside), _) => features.apply_op3(&beside.contiguous()?, &weight, joined::JoinedConvolution(op))?,
            (None, Some(bias)) => features.apply_op3(&weight, &bias.contiguous()?, op)?,
            (None, None) => features.apply_op2(&weight, op)?,
        })
    }

    fn convolve_gradients(
        &self,
        layer: &Convolve,
        features: &Tensor,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        let &Convolve { flow, weight, beside, .. } = layer;
        let op = ops::Convolution { flow: flow.clone(), wide: true };
        let (features, weight) = (features.contiguous()?, weight.contiguous()?);
        match beside {
            Some(beside) => {
                joined::JoinedConvolution(op).gradients([&features, &beside.contiguous()?], &weight, grad, onto)
            }
            None => op.wide_gradients(&features, &weight, grad, onto),
        }
    }

    fn max_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor> {
        if features.dtype() == DType::F64 {
            return double::max_pool(flow, features);
        }
        Ok(features.contiguous()?.apply_op1(ops::MaxPool { flow: flow.clone() })?)
    }

    fn avg_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor> {
        if features.dtype() == DType::F64 {
            return double::avg_pool(flow, features);
        }
        Ok(features.contiguous()?.apply_op1(ops::AvgPool { flow: flow.clone() })?)
    }
}

/// The tiles of a flow, and whether their kernel offsets count from the other end.
struct Walk {
    tiles: Arc<Tiles>,
    /// A submanifold map is its own reverse with mirrored offsets, so one set of tiles serves both directions.
    mirrored: bool,
}

impl Walk {
    /// The tiles of a flow. They are built at the first use and kept with the map.
    fn of(flow: &Flow) -> Self {
        let mirrored = flow.reversed && flow.map.geometry.kind == Kind::Submanifold;
        let flow = Flow { map: flow.map.clone(), reversed: flow.reversed && !mirrored };
        let build = || Ok::<_, Infallible>(Tiles::new(&flow));
        let Ok(tiles) = flow.map.body.kept.get_or_build(DeviceLocation::Cpu, flow.reversed, build);
        Self { tiles, mirrored }
    }
}
