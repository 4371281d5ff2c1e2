//! Convolutions over any map of up to 128 offsets: by a table of neighbours, on tensor cores or in plain f32.

use candle_core::Tensor;

use super::kind::{Kind, Plan, largest};
use super::pack::{EXACT, Index, Weights, pack};
use super::shares::add;
use super::table::{Ordered, Walk};
use crate::Result;
use crate::gpu::{Gpu, Module, Numbers, Written, arguments, module, with_storage};

static FORWARD: Module = module!("fast/gather");
static WEIGHTS: Module = module!("fast/gather_wgrad");

/// Rows of a block.
const ROWS: usize = 128;
/// Stages of the ring through which rows and weights arrive.
const STAGES: usize = 2;

/// Whether a kernel has few enough offsets.
pub(super) fn serves(offsets: usize) -> bool {
    offsets <= Index::MOST
}

/// `y = bias + sums` over a table. With `back` it goes from output channels to input channels, for the gradient of the input.
pub(super) fn sums(
    gpu: &Gpu,
    kind: Kind,
    (walk, order): (&Walk, &Ordered),
    (x, weights, bias): (&Numbers, &Weights, Option<&Numbers>),
    back: bool,
    y: &Written,
) -> Result<()> {
    let (from, to) = if back { (weights.outputs, weights.inputs) } else { (weights.inputs, weights.outputs) };
    let (offsets, most) = (walk.offsets, gpu.most_shared()?);
    let plan = Plan::of_tables(kind, from, to, |plan| shared(kind, plan, offsets) <= most);
    let image = pack(
        gpu,
        kind,
        (weights.numbers.into(), weights),
        &plan,
        (&Index::straight(offsets, walk.mirrored), offsets),
        back,
    )?;
    let shared = shared(kind, &plan, offsets) as u32;
    let (module, threads) = match kind {
        Kind::Exact => (&EXACT, 128),
        _ => (&FORWARD, if plan.columns >= 64 { 256 } else { 128 }),
    };
    let (table, order, image) = (gpu.slice(walk.rows()), gpu.slice(&order.targets), gpu.slice(&image));
    let none = None::<&Numbers>;
    let [targets, passes, offsets] = [walk.targets, plan.passes, offsets].map(|size| size as i32);
    let arguments = arguments![x, &image, y, &table, &order, targets, passes, offsets, bias, none, 0];
    let name = format!("wm_gather_{}_n{}_r{}", kind.name(), plan.columns, plan.bytes);
    let grid = [walk.targets.div_ceil(ROWS) as u32, plan.blocks as u32, 1];
    gpu.launch_shared(module, &name, grid, ([threads, 1, 1], shared), arguments)
}

/// Bytes of shared memory of a block.
fn shared(kind: Kind, plan: &Plan, offsets: usize) -> usize {
    let images = if kind == Kind::F32 { 2 } else { 1 };
    1024 + offsets * 516 + STAGES * (ROWS + images * plan.columns) * plan.bytes
}

/// The gradient of the weights (out, kz, ky, kx, in) in f32. The shares are added in a fixed order, and their number does not depend on the
/// card.
pub(super) fn weight_gradient(
    gpu: &Gpu,
    kind: Kind,
    walk: &Walk,
    tensors: [&Tensor; 2],
    shape: [usize; 5],
) -> Result<Tensor> {
    let [outputs, _, _, _, inputs] = shape;
    let shared = |[ci, co]: [usize; 2]| 4 * (64 * (ci + co) * kind.size() + 512);
    let sizes: &[usize] = match kind.size() {
        2 if shared([64; 2]) <= gpu.most_shared()? => &[64, 32, 16],
        _ => &[32, 16],
    };
    let [ci, co] = [inputs, outputs].map(|channels| largest(channels, sizes));
    let (offsets, pieces) = (walk.offsets, (inputs / ci) * (outputs / co));
    let blocks = (1056 / (offsets * pieces)).min(walk.targets.div_ceil(128)).max(1);
    let shared = shared([ci, co]) as u32;
    let count = 4 * blocks;
    let mut shares = gpu.alloc::<f32>(count * offsets * inputs * outputs)?;
    let shares = gpu.slice_mut(&mut shares);
    with_storage(tensors, |[x, grad]| {
        let ([x, grad], table) = ([&gpu.numbers(x)?, &gpu.numbers(grad)?], &gpu.slice(walk.rows()));
        let [targets, inputs, outputs] = [walk.targets, inputs, outputs].map(|size| size as i32);
        let arguments = arguments![x, grad, &shares, table, targets, inputs, outputs];
        let name = format!("wm_gather_wgrad_{}_i{ci}_o{co}", kind.name());
        let grid = [blocks as u32, offsets as u32, pieces as u32];
        gpu.launch_shared(&WEIGHTS, &name, grid, ([128, 1, 1], shared), arguments)
    })?;
    add(gpu, &shares, (shape, offsets), &Index::straight(offsets, walk.mirrored), count, None)
}
