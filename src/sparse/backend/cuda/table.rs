//! A kernel map on the GPU: for each offset and target, the source row.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::CudaSlice;

use super::sites::{self, MODULE, ints, placed, shape, steps};
use crate::Result;
use crate::gpu::{Gpu, arguments};
use crate::sparse::backend::Flow;
use crate::sparse::geometry::Kind;

/// The source row of each (offset, target), or −1.
pub(super) struct Neighbours {
    rows: CudaSlice<i32>,
}

/// A table of neighbours as a flow walks it.
pub(super) struct Walk {
    table: Arc<Neighbours>,
    /// A submanifold map is its own reverse with the offsets mirrored: one table serves both directions.
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

/// The table of a flow, built at the first use and kept with the map.
pub(super) fn of(gpu: &Gpu, flow: &Flow) -> Result<Walk> {
    let geometry = &flow.map.geometry;
    let mirrored = flow.reversed && geometry.kind == Kind::Submanifold;
    let flow = Flow { map: flow.map.clone(), reversed: flow.reversed && !mirrored };
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
