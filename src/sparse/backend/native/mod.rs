//! The native backend: multithreaded, exact, deterministic for any number of threads.
//!
//! A convolution walks its kernel map tile by tile of output rows ([`tiles`]); for each tile and kernel offset it multiplies
//! the input rows, where they are, by that offset's weights ([`kernel`]) and adds to the tile, which stays in cache. Nothing is
//! scattered, nothing is atomic. The input's gradient is the same walk over the reversed map, the weights' gradient a walk
//! of outer products ([`convolve`]). [`ops`] joins both to candle's autograd.

mod convolve;
mod element;
mod joined;
mod kernel;
mod ops;
mod output_sites;
mod pool;
mod source;
pub(crate) mod tiles;

use std::sync::Arc;

use candle_core::{DType, Tensor};

use self::tiles::Tiles;
use super::{Convolve, Engine, Flow};
use crate::Result;
use crate::sparse::geometry::{Geometry, Kind};
use crate::sparse::grid::Grid;
use crate::sparse::sites::Sites;

/// The native backend.
pub(super) struct Native;

impl Engine for Native {
    fn output_sites(&self, source: &Sites, geometry: &Geometry, grid: Grid) -> Result<Sites> {
        Ok(output_sites::output_sites(source, geometry, grid))
    }

    fn convolve(&self, layer: &Convolve, features: &Tensor) -> Result<Tensor> {
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
        Ok(features.contiguous()?.apply_op1(ops::MaxPool { flow: flow.clone() })?)
    }

    fn avg_pool(&self, flow: &Flow, features: &Tensor) -> Result<Tensor> {
        Ok(features.contiguous()?.apply_op1(ops::AvgPool { flow: flow.clone() })?)
    }
}

/// The tiles of a flow, and whether they name the kernel offsets from the other end.
struct Walk {
    tiles: Arc<Tiles>,
    /// A submanifold map is its own reverse with the offsets mirrored: one set of tiles serves both directions.
    mirrored: bool,
}

impl Walk {
    /// The tiles of a flow, built at the first use and kept with the map.
    ///
    /// The search runs on all threads, so it runs outside the cell's lock: a thread that waited inside for the pool could take up
    /// a job that waits for the same cell. Threads that come at once each search, and all keep what the first has set.
    fn of(flow: &Flow) -> Self {
        let body = &flow.map.body;
        let submanifold = flow.map.geometry.kind == Kind::Submanifold;
        let mirrored = flow.reversed && submanifold;
        let (cell, flow) = if flow.reversed && !submanifold {
            (&body.backward, flow.clone())
        } else {
            (&body.forward, Flow::forward(&flow.map))
        };
        let tiles = match cell.get() {
            Some(tiles) => tiles.clone(),
            None => {
                let found = Arc::new(Tiles::new(&flow));
                cell.get_or_init(|| found).clone()
            }
        };
        Self { tiles, mirrored }
    }
}

/// The pairs of a map, output by output.
pub(crate) fn forward_tiles(flow: &Flow) -> Arc<Tiles> {
    Walk::of(flow).tiles
}

impl Flow {
    fn reversed(&self) -> Self {
        Self { map: self.map.clone(), reversed: !self.reversed }
    }
}
