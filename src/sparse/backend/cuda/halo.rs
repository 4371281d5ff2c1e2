//! Submanifold kernels within 3³ on Hopper: each tile's rows are loaded into shared memory once, and all offsets read them there.

use candle_core::Tensor;

use super::halves::halves;
use super::kind::{Kind, Plan, largest};
use super::pack::{Index, Weights, pack};
use super::shares::add;
use super::tiles::{CUT_FOR, MOST, Parts};
use crate::Result;
use crate::gpu::{Argument, Gpu, Module, Numbers, Written, arguments, module, with_storage};
use crate::sparse::geometry::{self, Geometry};

static FORWARD: Module = module!("fast/halo");
static WEIGHTS: Module = module!("fast/wgrad");

/// Offsets of the full kernel.
const OFFSETS: usize = 27;
/// From this many numbers on, it pays to make scaled halves of the operands of a TF32 product: they have its eleven bits, and are multiplied
/// twice as fast.
const MANY: usize = 1 << 21;

/// Whether the map's tiles serve a geometry, on a card of this compute capability.
pub(super) fn serves(geometry: &Geometry, capability: [i32; 2]) -> bool {
    capability == [9, 0]
        && geometry.kind == geometry::Kind::Submanifold
        && geometry.dilation == [1; 3]
        && geometry.kernel.iter().all(|&k| k <= 3)
        && geometry.volume() > 1
}

/// For each offset of the kernel, its number among the 27 offsets.
fn places(kernel: [usize; 3]) -> impl Iterator<Item = usize> {
    let [kz, ky, kx] = kernel;
    let at = move |r: usize, k: usize| r + 1 - k / 2;
    (0..kz)
        .flat_map(move |z| (0..ky).flat_map(move |y| (0..kx).map(move |x| at(z, kz) * 9 + at(y, ky) * 3 + at(x, kx))))
}

/// `y = bias + sums` over the tiles of `rows` rows. With `back` it goes from output channels to input channels, for the gradient of the input.
pub(super) fn sums(
    gpu: &Gpu,
    kind: Kind,
    (parts, rows): (&Parts, usize),
    (x, weights, bias): (&Numbers, &Weights, Option<&Numbers>),
    (kernel, back): ([usize; 3], bool),
    y: &Written,
) -> Result<()> {
    let (from, to) = if back { (weights.outputs, weights.inputs) } else { (weights.inputs, weights.outputs) };
    let by_halves = kind == Kind::Tf32 && rows * from >= MANY;
    let operands = if by_halves { Kind::F16 } else { kind };
    let plan = Plan::of_tiles(operands, from, to);
    let mut at = [-1i16; OFFSETS];
    let mut present = 0i32;
    for (offset, place) in places(kernel).enumerate() {
        at[if back { OFFSETS - 1 - place } else { place }] = offset as i16;
        present |= 1 << place;
    }
    let halves = match by_halves {
        true => Some((halves(gpu, x, rows * from, 1)?, halves(gpu, weights.numbers, from * to * weights.volume, 1)?)),
        false => None,
    };
    let halves = halves.as_ref().map(|(x, weights)| (x.there(gpu), weights.there(gpu)));
    let (x, numbers, largest): (Argument, Argument, _) = match &halves {
        Some(([x, largest_x], [weights, largest_w])) => (x.into(), weights.into(), [Some(largest_x), Some(largest_w)]),
        None => (x.into(), weights.numbers.into(), [None; 2]),
    };
    let image = pack(gpu, operands, (numbers, weights), &plan, (&Index::new(at), OFFSETS), back)?;
    let small = plan.columns <= 32 && plan.bytes <= 64;
    let (threads, blocks_each, limit) = if small { (384, 2, 113 << 10) } else { (640, 1, 227 << 10) };
    let fixed = 1056 + 2 * (MOST + 1) * plan.bytes + 5120;
    let stage = plan.columns * plan.bytes * if kind == Kind::F32 { 2 } else { 1 } + 528;
    let stages = ((limit - fixed) / stage).min(10);
    let shared = (fixed + stages * stage) as u32;
    let grid = (4 * parts.tiles * plan.blocks).min(gpu.multiprocessors()? * blocks_each) as u32;
    let image = gpu.slice(&image);
    let [outrow, local] = [gpu.slice(&parts.outrow), gpu.slice(&parts.local)];
    let [mask64, lists, items] = [&parts.mask64, &parts.lists, &parts.items].map(|part| gpu.slice(part));
    let [passes, blocks, most, stages] = [plan.passes, plan.blocks, MOST, stages].map(|size| size as i32);
    let none = None::<&Numbers>;
    let arguments = arguments![
        x, &image, y, &outrow, &mask64, &local, &lists, &items, passes, blocks, present, most, stages, bias, none, 0,
        largest[0], largest[1]
    ];
    let name = if by_halves { "halves" } else { kind.name() };
    let name = format!("wm_halo_{name}_n{}_r{}", plan.columns, plan.bytes);
    gpu.launch_shared(&FORWARD, &name, [grid, 1, 1], ([threads, 1, 1], shared), arguments)
}

/// The gradient of the weights (out, kz, ky, kx, in) in f32. The shares are added in a fixed order, and their number does not depend on the
/// card.
pub(super) fn weight_gradient(
    gpu: &Gpu,
    kind: Kind,
    parts: &Parts,
    [x, grad]: [&Tensor; 2],
    shape: [usize; 5],
) -> Result<Tensor> {
    let [outputs, kz, ky, kx, inputs] = shape;
    let [ci, co] = [inputs, outputs].map(|channels| largest(channels, &[64, 32, 16]));
    let (span, threads) = match (ci, co) {
        (64, 64) => (9, 384),
        (64, 32) => (15, 384),
        (32, 64) => (18, 384),
        _ => (27, 512),
    };
    let combos = OFFSETS.div_ceil(span) * (inputs / ci) * (outputs / co);
    let splits = (CUT_FOR / combos).min(parts.tiles).max(1);
    let stride = (256 * co * 2 + (MOST + 1) * ci * 2 + span * 512).next_multiple_of(1024);
    let shared = (1024 + 2 * stride + 7200) as u32;
    let mut shares = gpu.alloc::<f32>(splits * OFFSETS * inputs * outputs)?;
    let shares = gpu.slice_mut(&mut shares);
    let [outrow, local] = [gpu.slice(&parts.outrow), gpu.slice(&parts.local)];
    let [mask64, lists, items] = [&parts.mask64, &parts.lists, &parts.items].map(|part| gpu.slice(part));
    let present = places([kz, ky, kx]).fold(0i32, |bits, place| bits | 1 << place);
    let [inputs_there, outputs_there, most, stride] = [inputs, outputs, MOST, stride].map(|size| size as i32);
    let multiply = |kind: Kind, x: Argument, grad: Argument, onto: bool| {
        /// After this many tiles, the tensor cores' sums are added to the result and start at zero again.
        const FLUSH: i32 = 16;
        let name = format!("wm_wgrad_{}_i{ci}_o{co}", kind.name());
        let arguments = arguments![
            x,
            grad,
            &shares,
            &outrow,
            &mask64,
            &local,
            &lists,
            &items,
            inputs_there,
            outputs_there,
            present,
            most,
            stride,
            FLUSH,
            i32::from(onto)
        ];
        gpu.launch_shared(&WEIGHTS, &name, [splits as u32, combos as u32, 1], ([threads, 1, 1], shared), arguments)
    };
    let back = Index::new(places([kz, ky, kx]).map(|place| place as i16));
    let (whole, count) = ((shape, OFFSETS), splits);
    with_storage([x, grad], |[x_there, grad_there]| {
        let [x_numbers, grad_numbers] = [&gpu.numbers(x_there)?, &gpu.numbers(grad_there)?];
        // A product of f32 numbers is the sum of products of their scaled halves, the smallest first.
        let pairs: &[[usize; 2]] = match kind {
            Kind::F16 | Kind::Bf16 => {
                multiply(kind, x_numbers.into(), grad_numbers.into(), false)?;
                return add(gpu, &shares, whole, &back, count, None);
            }
            Kind::F32 => &[[0, 1], [1, 0], [0, 0]],
            Kind::Tf32 => &[[0, 0]],
            Kind::Exact => unreachable!("tiles are multiplied on tensor cores"),
        };
        let lengths = [x.elem_count(), grad.elem_count()];
        let many = pairs.len().min(2);
        let (x, grad) = (halves(gpu, x_numbers, lengths[0], many)?, halves(gpu, grad_numbers, lengths[1], many)?);
        let (x_parts, grad_parts) = (gpu.slice(&x.parts), gpu.slice(&grad.parts));
        for (number, [i, j]) in pairs.iter().enumerate() {
            let [x, grad] = [x_parts.plus(2 * i * lengths[0]), grad_parts.plus(2 * j * lengths[1])];
            multiply(Kind::F16, x, grad, number > 0)?;
        }
        add(gpu, &shares, whole, &back, count, Some([&x, &grad]))
    })
}
