//! A kernel map on the GPU: for each offset and target, the source row.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::CudaSlice;

use super::sites::{self, MODULE, ints, placed, shape, steps};
use crate::Result;
use crate::gpu::{Gpu, Module, arguments, module};
use crate::sparse::backend::Flow;
use crate::sparse::geometry::Kind;

static ORDER: Module = module!("fast/order");

/// The source row of each (offset, target), or −1.
pub(super) struct Neighbours {
    rows: CudaSlice<i32>,
}

/// The targets of a table, ordered so that targets with the same offsets are next to each other.
pub(super) struct Ordered {
    pub targets: CudaSlice<i32>,
}

/// A table of neighbours, as a flow uses it.
pub(super) struct Walk {
    table: Arc<Neighbours>,
    /// A submanifold map is its own reverse with mirrored offsets, so one table serves both directions.
    pub mirrored: bool,
    pub targets: usize,
    pub offsets: usize,
}

impl Walk {
    /// The table's memory.
    pub fn rows(&self) -> &CudaSlice<i32> {
        &self.table.rows
    }
}

/// A flow whose table can serve `flow`, and whether that table is mirrored.
fn served_by(flow: &Flow) -> (Flow, bool) {
    let mirrored = flow.reversed && flow.map.geometry.kind == Kind::Submanifold;
    (Flow { map: flow.map.clone(), reversed: flow.reversed && !mirrored }, mirrored)
}

/// The order of a flow's targets. It is built at the first use and kept with the map.
pub(super) fn order(gpu: &Gpu, flow: &Flow) -> Result<Arc<Ordered>> {
    /// Targets of one block of the kernel; it orders them among themselves.
    const WINDOW: usize = 1024;
    let walk = of(gpu, flow)?;
    let (flow, _) = served_by(flow);
    flow.map.body.kept.get_or_build(gpu.location(), flow.reversed, || {
        let mut targets = gpu.alloc::<i32>(walk.targets)?;
        {
            let (rows, targets) = (gpu.slice(walk.rows()), gpu.slice_mut(&mut targets));
            let arguments = arguments![&rows, walk.targets as i32, walk.offsets as i32, &targets];
            let grid = [walk.targets.div_ceil(WINDOW) as u32, 1, 1];
            gpu.launch(&ORDER, "wm_gather_order", grid, [WINDOW as u32, 1, 1], arguments)?;
        }
        Ok(Ordered { targets })
    })
}

/// The table of a flow. It is built at the first use and kept with the map.
pub(super) fn of(gpu: &Gpu, flow: &Flow) -> Result<Walk> {
    let geometry = &flow.map.geometry;
    let (flow, mirrored) = served_by(flow);
    let (targets, offsets) = (flow.target().len(), geometry.volume());
    let table = flow.map.body.kept.get_or_build(gpu.location(), flow.reversed, || {
        let (coords, table) = (placed(gpu, flow.target())?, sites::table(gpu, flow.source())?);
        let mut rows = gpu.alloc::<i32>(offsets * targets)?;
        {
            let ([stride, padding, dilation], divide) = steps(flow.rule());
            let source = shape(flow.source().grid());
            let (coords, keys, found) = (gpu.slice(&coords.coords), gpu.slice(&table.keys), gpu.slice(&table.rows));
            let rows = gpu.slice_mut(&mut rows);
            let (count, mask, kernel) = (targets as i32, table.mask as i32, ints(geometry.kernel));
            let arguments = arguments![
                &coords, count, source, &keys, &found, mask, kernel, stride, padding, dilation, divide, &rows
            ];
            let grid = [(targets as u32).div_ceil(256), offsets as u32, 1];
            gpu.launch(&MODULE, "find_neighbours", grid, [256, 1, 1], arguments)?;
        }
        Ok::<_, crate::Error>(Neighbours { rows })
    })?;
    Ok(Walk { table, mirrored, targets, offsets })
}
