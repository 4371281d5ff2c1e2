//! Cylinder3D's network (Zhu et al. 2021, `Asymm_3d_spconv`) as an example of a port; it also measures the memory of a training pass.
//!
//! `cargo run --release --example cylinder3d -- MODE [SWEEPS]` makes one forward and backward pass over SWEEPS synthetic LiDAR sweeps
//! (default 6), all on one grid of 480 × 360 × 32 cells. It prints how long the pass took and how much memory the process held at most.
//! MODE is `plain`, or `checkpoint` for gradient checkpointing of each block.
//!
//! Parameters have the original's names. Some layers there share a key although their kernels differ; here such layers have different keys.
//! docs/porting.md says how their weights are read.

use std::time::Instant;

use wavemesh::Result;
use wavemesh::points::street;
use wavemesh::prelude::*;
use wavemesh::sparse::GradientCheckpoint;
use wavemesh::train::{Initialization, seeded_builder};

type Module = Box<dyn SparseModule + Send + Sync>;

/// How to wrap the blocks.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Checkpoint,
}

impl Mode {
    fn wrap(self, module: impl SparseModule + Send + Sync + 'static) -> Module {
        match self {
            Self::Plain => Box::new(module),
            Self::Checkpoint => Box::new(GradientCheckpoint::new(module)),
        }
    }
}

/// A submanifold convolution, leaky ReLU and normalisation; `names` are the names of the convolution and of the normalisation.
fn layer(
    [input, output]: [usize; 2],
    kernel: [usize; 3],
    key: &str,
    names: [&str; 2],
    vb: &VarBuilder,
) -> Result<SparseSequential> {
    let config = ConvConfig::new().bias(false).key(format!("{key}{kernel:?}"));
    Ok(SparseSequential::new()
        .add(SubMConv3d::new(input, output, kernel, config, vb.pp(names[0]))?)
        .add(Activation::LeakyRelu(0.01))
        .add(BatchNorm::new(output, vb.pp(names[1]))?))
}

/// The sum of two branches: `ResContextBlock`, and `ResBlock` without its pool.
struct Branches([SparseSequential; 2]);

impl Branches {
    /// `first` is the first kernel of the shortcut; the other branch begins with the other kernel.
    fn new([input, output]: [usize; 2], first: [usize; 3], key: &str, vb: VarBuilder) -> Result<Self> {
        let second = if first == [1, 3, 3] { [3, 1, 3] } else { [1, 3, 3] };
        let branch = |kernels: [[usize; 3]; 2], names: [[&str; 2]; 2]| {
            let head = layer([input, output], kernels[0], key, names[0], &vb)?;
            Ok::<_, Error>(SparseSequential::new().add(head).add(layer([output; 2], kernels[1], key, names[1], &vb)?))
        };
        Ok(Self([
            branch([first, second], [["conv1", "bn0"], ["conv1_2", "bn0_2"]])?,
            branch([second, first], [["conv2", "bn1"], ["conv3", "bn2"]])?,
        ]))
    }
}

impl SparseModule for Branches {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let shortcut = self.0[0].forward_t(x, train)?;
        self.0[1].forward_t(x, train)?.add(&shortcut)
    }
}

/// `ReconBlock`: the input multiplied by the sum of three gates.
struct Recon(Vec<SparseSequential>);

impl Recon {
    fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let gates = [([3, 1, 1], "conv1", "bn0"), ([1, 3, 1], "conv1_2", "bn0_2"), ([1, 1, 3], "conv1_3", "bn0_3")];
        let gate = |(kernel, conv, norm): ([usize; 3], &str, &str)| {
            let config = ConvConfig::new().bias(false).key(format!("recon{kernel:?}"));
            Ok(SparseSequential::new()
                .add(SubMConv3d::new(channels, channels, kernel, config, vb.pp(conv))?)
                .add(BatchNorm::new(channels, vb.pp(norm))?)
                .add(Activation::Sigmoid))
        };
        Ok(Self(gates.into_iter().map(gate).collect::<Result<_>>()?))
    }
}

impl SparseModule for Recon {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let mut sum = self.0[0].forward_t(x, train)?;
        for gate in &self.0[1..] {
            sum = sum.add(&gate.forward_t(x, train)?)?;
        }
        sum.replace_feature((sum.features() * x.features())?)
    }
}

struct Down {
    block: Module,
    pool: SparseConv3d,
}

struct Up {
    /// Goes to the finer sites.
    up: Module,
    /// Follows the addition of the skip connection.
    block: Module,
}

/// `Asymm_3d_spconv`: features of cylindrical voxels to scores.
struct Cylinder3d {
    context: Module,
    down: Vec<Down>,
    up: Vec<Up>,
    recon: Module,
    logits: SubMConv3d,
}

impl Cylinder3d {
    fn new(input: usize, classes: usize, init: usize, mode: Mode, vb: VarBuilder) -> Result<Self> {
        let context = Branches::new([input, init], [1, 3, 3], "pre", vb.pp("downCntx"))?;
        let down = (0..4).map(|level| {
            let (from, to, vb) = (init << level, init << (level + 1), vb.pp(format!("resBlock{}", level + 2)));
            let block = mode.wrap(Branches::new([from, to], [3, 1, 3], &format!("level{level}"), vb.clone())?);
            // The lower two levels keep their height.
            let config = ConvConfig::new().stride(if level < 2 { [2; 3] } else { [2, 2, 1] }).padding(1).bias(false);
            let pool = SparseConv3d::new(to, to, 3, config.key(format!("down{level}")), vb.pp("pool"))?;
            Ok(Down { block, pool })
        });
        let up = (0..4).map(|step| {
            let (level, vb) = (3 - step, vb.pp(format!("upBlock{step}")));
            let (from, to) = (if step == 0 { init << 4 } else { init << (level + 2) }, init << (level + 1));
            let back = ConvConfig::new().bias(false).key(format!("down{level}"));
            let up = SparseSequential::new()
                .add(layer([from, to], [3; 3], &format!("low{level}"), ["trans_dilao", "trans_bn"], &vb)?)
                .add(SparseInverseConv3d::new(to, to, 3, back, vb.pp("up_subm"))?);
            let key = format!("level{level}");
            let block = SparseSequential::new()
                .add(layer([to; 2], [1, 3, 3], &key, ["conv1", "bn1"], &vb)?)
                .add(layer([to; 2], [3, 1, 3], &key, ["conv2", "bn2"], &vb)?)
                .add(layer([to; 2], [3; 3], &key, ["conv3", "bn3"], &vb)?);
            Ok(Up { up: mode.wrap(up), block: mode.wrap(block) })
        });
        Ok(Self {
            context: mode.wrap(context),
            down: down.collect::<Result<_>>()?,
            up: up.collect::<Result<_>>()?,
            recon: mode.wrap(Recon::new(2 * init, vb.pp("ReconNet"))?),
            logits: SubMConv3d::new(4 * init, classes, 3, ConvConfig::new().key("logits"), vb.pp("logits"))?,
        })
    }
}

impl SparseModule for Cylinder3d {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let mut x = self.context.forward_t(x, train)?;
        let mut skips = Vec::new();
        for Down { block, pool } in &self.down {
            let skip = block.forward_t(&x, train)?;
            x = pool.forward_t(&skip, train)?;
            skips.push(skip);
        }
        for Up { up, block } in &self.up {
            let Some(skip) = skips.pop() else { break };
            x = block.forward_t(&up.forward_t(&x, train)?.add(&skip)?, train)?;
        }
        self.logits.forward_t(&self.recon.forward_t(&x, train)?.cat_channels(&x)?, train)
    }
}

/// Sweeps of streets on one grid, in cylindrical coordinates: each has about as many voxels as a sweep of SemanticKITTI.
fn sweeps(count: u64) -> Result<SparseConvTensor> {
    let mut rows = Vec::new();
    for seed in 0..count {
        let points: Vec<f32> = street(seed)?.cloud.xyz()?.flatten_all()?.to_vec1()?;
        rows.extend(points.as_chunks::<3>().0.iter().flat_map(|&[x, y, z]| [x.hypot(y), y.atan2(x), z, x, y, z]));
    }
    let points = rows.len() / 6;
    let points = Tensor::from_vec(rows, (points, 6), &Device::Cpu)?;
    let (far, half, low, high) = (30.0, std::f64::consts::PI, -1.0, 7.0);
    let voxel_size = [far / 480.0, 2.0 * half / 360.0, (high - low) / 32.0];
    let config = VoxelConfig::new().voxel_size(voxel_size).range([0.0, -half, low, far, half, high]);
    // The network's axes are (radius, angle, height), the voxelizer's are (z, y, x).
    let voxels = Voxelizer::new(config)?.voxelize(&[&points])?.tensor;
    let sites = voxels.coords().iter().map(|&[b, z, angle, radius]| [b, radius, angle, z]).collect();
    SparseConvTensor::from_coords(voxels.features().clone(), sites, [480, 360, 32], 1)
}

/// The most memory that the process has held, in GB; `None` if the system does not tell it.
fn peak() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1e6)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = match arguments.next().as_deref() {
        Some("plain") => Mode::Plain,
        Some("checkpoint") => Mode::Checkpoint,
        _ => return Err(Error::argument("cylinder3d", "MODE", "none or another", "plain or checkpoint")),
    };
    let x = sweeps(arguments.next().and_then(|count| count.parse().ok()).unwrap_or(6))?;
    let variables = VarMap::new();
    let vb = seeded_builder(&variables, 0, Initialization::Layer, DType::F32, &Device::Cpu);
    let network = Cylinder3d::new(x.channels(), 20, 32, mode, vb)?;
    let started = Instant::now();
    let scores = network.forward_t(&x, true)?;
    let labels: Vec<u32> = (0..x.len() as u32).map(|i| i % 20).collect();
    let labels = Tensor::from_vec(labels, x.len(), &Device::Cpu)?;
    let loss = candle_nn::loss::cross_entropy(scores.features(), &labels)?;
    let gradients = loss.backward()?;
    let reached = variables.all_vars().iter().filter(|var| gradients.get(var).is_some()).count();
    println!(
        "{} voxels, loss {}, gradients of {reached} variables, {:.1} s, at most {:.2} GB",
        x.len(),
        loss.to_scalar::<f32>()?,
        started.elapsed().as_secs_f64(),
        peak().unwrap_or(f64::NAN)
    );
    Ok(())
}
