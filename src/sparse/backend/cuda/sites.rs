//! Sites on the GPU: their coordinates, the hash table that finds their rows, and the output sites of a convolution.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::CudaSlice;

use crate::gpu::{Gpu, Module, arguments, module};
use crate::sparse::backend::native;
use crate::sparse::geometry::{Geometry, OutputSites, SourceRule, Steps};
use crate::sparse::grid::Grid;
use crate::sparse::sites::Sites;
use crate::{Error, Result};

pub(super) static MODULE: Module = module!("plain/sites");

/// The most words of 32 cells for the bitmap of new sites, 512 MB. On larger grids, the CPU finds the sites.
const MOST_WORDS: u64 = 1 << 27;
/// Words that one block of the bitmap's kernels handles.
const WORDS: u64 = 1024;

/// Sites in the form that kernels read.
pub(crate) struct Placed {
    /// (batch, z, y, x), row by row.
    pub coords: CudaSlice<i32>,
    /// Whether the rows of each batch element follow those of the element before it.
    pub by_element: bool,
}

/// Maps packed sites to rows. The number of slots is a power of two.
pub(super) struct Table {
    pub keys: CudaSlice<u64>,
    pub rows: CudaSlice<i32>,
    pub mask: u32,
}

/// The coordinates of `sites` on the GPU, copied there at the first use.
pub(crate) fn placed(gpu: &Gpu, sites: &Sites) -> Result<Arc<Placed>> {
    sites.kept().get_or_build(gpu.location(), false, || {
        check(sites.len())?;
        let by_element = sites.coords().is_sorted_by_key(|site| site[0]);
        Ok(Placed { coords: gpu.upload(sites.coords().as_flattened())?, by_element })
    })
}

/// The hash table of `sites`, built at the first use.
pub(super) fn table(gpu: &Gpu, sites: &Sites) -> Result<Arc<Table>> {
    sites.kept().get_or_build(gpu.location(), false, || {
        let placed = placed(gpu, sites)?;
        let slots = (2 * sites.len()).next_power_of_two().max(2);
        let (mut keys, mut rows) = (gpu.zeros::<u64>(slots)?, gpu.alloc::<i32>(slots)?);
        let mask = (slots - 1) as u32;
        {
            let (coords, keys, rows) = (gpu.slice(&placed.coords), gpu.slice_mut(&mut keys), gpu.slice_mut(&mut rows));
            let shape = shape(sites.grid());
            let arguments = arguments![&coords, sites.len() as i32, shape, &keys, &rows, mask as i32];
            gpu.each(&MODULE, "insert_sites", sites.len(), arguments)?;
        }
        Ok(Table { keys, rows, mask })
    })
}

fn check(sites: usize) -> Result<()> {
    if sites <= i32::MAX as usize / 4 {
        return Ok(());
    }
    let (got, expected) = (format!("{sites} rows"), format!("at most {} rows on a GPU", i32::MAX / 4));
    Err(Error::Argument { op: "cuda backend", name: "indices", got, expected })
}

/// The grid's size (z, y, x) as kernel arguments.
pub(super) fn shape(grid: Grid) -> [i64; 3] {
    grid.shape.map(|n| n as i64)
}

/// Stride, padding, dilation, and whether the rule divides, as kernel arguments.
pub(super) fn steps(rule: SourceRule) -> ([[i32; 3]; 3], i32) {
    let (Steps { stride, padding, dilation }, divide) = match rule {
        SourceRule::Multiply(steps) => (steps, 0),
        SourceRule::Divide(steps) => (steps, 1),
    };
    ([stride, padding, dilation].map(ints), divide)
}

/// A triple as a kernel argument. The geometry has checked that its values are small.
pub(super) fn ints(values: [usize; 3]) -> [i32; 3] {
    values.map(|value| value as i32)
}

/// The active sites of the output grid, ascending. Each input marks its outputs in a bitmap, whose bits are then listed. Their number must
/// be known to continue, so this waits for the GPU once.
pub(super) fn outputs(gpu: &Gpu, source: &Sites, geometry: &Geometry, grid: Grid) -> Result<Sites> {
    let words = grid.cells().div_ceil(32);
    if words > MOST_WORDS {
        return Ok(native::output_sites(source, geometry, grid));
    }
    let placed = placed(gpu, source)?;
    let ([stride, padding, dilation], divide) = steps(geometry.gather().reversed());
    let (floor, offsets) = match geometry.output_sites {
        OutputSites::Reachable => (0, geometry.volume()),
        OutputSites::Strided => (1, 1),
    };
    let blocks = words.div_ceil(WORDS) as u32;
    let (mut bits, mut counts) = (gpu.zeros::<u32>(words as usize)?, gpu.alloc::<u32>(blocks as usize + 1)?);
    {
        let (coords, bits, counts) = (gpu.slice(&placed.coords), gpu.slice_mut(&mut bits), gpu.slice_mut(&mut counts));
        let grid_dim = [(source.len() as u32).div_ceil(256), offsets as u32, 1];
        let kernel = ints(geometry.kernel);
        let arguments = arguments![
            &coords,
            source.len() as i32,
            shape(grid),
            kernel,
            stride,
            padding,
            dilation,
            divide,
            floor,
            &bits
        ];
        gpu.launch(&MODULE, "mark_outputs", grid_dim, [256, 1, 1], arguments)?;
        let block = [WORDS as u32, 1, 1];
        gpu.launch(&MODULE, "count_bits", [blocks, 1, 1], block, arguments![&bits, words as i64, &counts])?;
        gpu.launch(&MODULE, "scan_counts", [1; 3], block, arguments![&counts, blocks as i32])?;
    }
    let count = gpu.download(&counts)?[blocks as usize] as usize;
    check(count)?;
    let mut coords = gpu.alloc::<i32>(4 * count)?;
    if count > 0 {
        let (bits, counts, coords) = (gpu.slice(&bits), gpu.slice(&counts), gpu.slice_mut(&mut coords));
        let arguments = arguments![&bits, words as i64, &counts, shape(grid), &coords];
        gpu.launch(&MODULE, "list_bits", [blocks, 1, 1], [WORDS as u32, 1, 1], arguments)?;
    }
    let here = gpu.download(&coords)?.as_chunks::<4>().0.to_vec();
    let sites = Sites::from_ascending(grid, here);
    sites.kept().get_or_build(gpu.location(), false, || Ok::<_, Error>(Placed { coords, by_element: true }))?;
    Ok(sites)
}
