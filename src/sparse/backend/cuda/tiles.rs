//! The map of a submanifold kernel within 3³ for the Hopper kernels: tiles of 256 neighbouring sites, the rows that each tile reads, and
//! the place of each site's neighbours among them. `kernels/README.md` describes the parts.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::CudaSlice;

use super::sites::placed;
use crate::Result;
use crate::gpu::{Gpu, Module, arguments, module};
use crate::sparse::grid::Grid;
use crate::sparse::sites::Sites;

static INDEX: Module = module!("fast/sites");
static MAP: Module = module!("fast/tiles");

/// The most rows that a tile, or a part of one, reads.
pub(super) const MOST: usize = 576;
/// The number of multiprocessors for which work is cut. It does not depend on the card, because sums follow the cuts.
pub(super) const CUT_FOR: usize = 132;

/// A map, or `None` if the sites do not fit one.
pub(super) struct Tiles(Option<Parts>);

pub(super) struct Parts {
    pub tiles: usize,
    pub outrow: CudaSlice<i32>,
    pub mask64: CudaSlice<u32>,
    pub local: CudaSlice<u16>,
    pub lists: CudaSlice<u32>,
    pub items: CudaSlice<u32>,
}

impl Tiles {
    /// The map's parts, if the sites fit.
    pub fn parts(&self) -> Option<&Parts> {
        self.0.as_ref()
    }
}

/// The number of bits for the numbers 0 to `count` − 1.
fn bits_of(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

/// The numbers of bits for a coordinate and for the batch, if a key can hold them.
fn key_bits(grid: Grid, sites: usize) -> Option<(u32, u32)> {
    let bits = grid.shape.map(bits_of).into_iter().max().unwrap_or(0).max(2);
    let batch = bits_of(grid.batch);
    (3 * bits + batch <= 63 && sites < 1 << 29).then_some((bits, batch))
}

/// The map of `sites`, built at the first use. It must be known whether they fit, so this waits for the GPU once.
pub(super) fn of(gpu: &Gpu, sites: &Sites) -> Result<Arc<Tiles>> {
    sites.kept().get_or_build(gpu.location(), false, || match key_bits(sites.grid(), sites.len()) {
        Some(bits) if sites.len() > 0 => build(gpu, sites, bits).map(Tiles),
        _ => Ok(Tiles(None)),
    })
}

fn build(gpu: &Gpu, sites: &Sites, (bits, batch_bits): (u32, u32)) -> Result<Option<Parts>> {
    let n = sites.len();
    let coords = placed(gpu, sites)?;
    let passes = (3 * bits + batch_bits).saturating_sub(6).div_ceil(8).max(1) as usize;
    let cap = (4 * n).div_ceil(3).next_power_of_two().max(1024);
    let blocks = n.div_ceil(2048);
    let look_length = (256 * passes + 1) * blocks;

    let mut table = gpu.alloc::<u32>(8 * cap)?;
    let (mut order, mut keys) = (gpu.alloc::<i32>(n)?, gpu.alloc::<u64>(n)?);
    let tiles = n.div_ceil(256);
    let mut parts = Parts {
        tiles,
        outrow: gpu.alloc(256 * tiles)?,
        mask64: gpu.alloc(4 * tiles)?,
        local: gpu.alloc(27 * 256 * tiles)?,
        lists: gpu.alloc(1024 * tiles)?,
        items: gpu.alloc(4 * (4 * tiles + 1))?,
    };
    let mut fill = gpu.zeros::<u32>(2)?;
    {
        let [table, order, keys] = [gpu.slice_mut(&mut table), gpu.slice_mut(&mut order), gpu.slice_mut(&mut keys)];
        let mut state = gpu.alloc::<u32>(2112)?;
        let mut look = gpu.alloc::<u32>(look_length)?;
        let [mut bricks0, mut bricks1] = [gpu.alloc::<u64>(n)?, gpu.alloc::<u64>(n)?];
        let [mut places0, mut places1] = [gpu.alloc::<u32>(n)?, gpu.alloc::<u32>(n)?];
        let mut brick_of = gpu.alloc::<u32>(n)?;
        let coords = gpu.slice(&coords.coords);
        let [state, look, brick_of] =
            [gpu.slice_mut(&mut state), gpu.slice_mut(&mut look), gpu.slice_mut(&mut brick_of)];
        let bricks = [gpu.slice_mut(&mut bricks0), gpu.slice_mut(&mut bricks1)];
        let places = [gpu.slice_mut(&mut places0), gpu.slice_mut(&mut places1)];
        let [count, bits, cap_there] = [n as i32, bits as i32, cap as i32];
        let block = [256, 1, 1];
        let grid = |blocks: usize| [blocks as u32, 1, 1];

        let length = look_length as i32;
        let arguments = arguments![&table, cap_there, &state, &look, length];
        gpu.launch(&INDEX, "wm_index_clear", grid(cap.div_ceil(256).min(1056)), block, arguments)?;
        let arguments = arguments![&coords, count, bits, &table, cap_there, &bricks[0], &places[0], &brick_of, &state];
        gpu.launch(&INDEX, "wm_index_insert", grid(n.div_ceil(256)), block, arguments)?;
        let arguments = arguments![&bricks[0], &state, passes as i32];
        gpu.launch(&INDEX, "wm_sort_histogram", grid(blocks.min(CUT_FOR)), block, arguments)?;
        for pass in 0..passes {
            let (from, to) = (pass % 2, 1 - pass % 2);
            let look = look.plus(256 * pass * blocks * size_of::<u32>());
            let arguments =
                arguments![&bricks[from], &places[from], &bricks[to], &places[to], &state, pass as i32, look];
            gpu.launch(&INDEX, "wm_sort_pass", grid(blocks), block, arguments)?;
        }
        let look = look.plus(256 * passes * blocks * size_of::<u32>());
        let arguments = arguments![&places[passes % 2], &table, &state, look];
        gpu.launch(&INDEX, "wm_index_base", grid(blocks), block, arguments)?;
        let arguments = arguments![&coords, count, bits, &brick_of, &table, &order, &keys];
        gpu.launch(&INDEX, "wm_index_rank", grid(n.div_ceil(256)), block, arguments)?;

        // Split tiles into parts if whole tiles would leave multiprocessors idle.
        let least = [4, 2].into_iter().find(|parts| tiles * parts <= CUT_FOR).unwrap_or(1);
        let mut parts_of = gpu.alloc::<u64>(4 * tiles)?;
        let parts_of = gpu.slice_mut(&mut parts_of);
        let Parts { outrow, mask64, local, lists, items, .. } = &mut parts;
        let [outrow, local] = [gpu.slice_mut(outrow), gpu.slice_mut(local)];
        let [mask64, lists, items] = [gpu.slice_mut(mask64), gpu.slice_mut(lists), gpu.slice_mut(items)];
        let fill = gpu.slice_mut(&mut fill);
        let [most, least, room] = [MOST, least, 1024 * tiles].map(|size| size as i32);
        let arguments = arguments![
            &keys, &order, count, bits, &table, cap_there, most, least, &outrow, &mask64, &local, &lists, room,
            &parts_of, &fill
        ];
        gpu.launch(&MAP, "wm_tiles", grid(tiles), block, arguments)?;
        let arguments = arguments![&mask64, &parts_of, tiles as i32, &items];
        gpu.launch(&MAP, "wm_schedule", [1; 3], [1024, 1, 1], arguments)?;
    }
    Ok((gpu.download(&fill)?[1] == 0).then_some(parts))
}
