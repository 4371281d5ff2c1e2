//! From points to labels: a street swept by a LiDAR and a scanned room, made here, segmented by SpUNet and MinkUNet.
//!
//! `cargo run --release --example points -- [SECONDS] [FOLDER]` trains each network for half of SECONDS (default 120), says how many
//! points of an unseen scene get their label, and writes pictures of labels and predictions to FOLDER (default target/points).

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use wavemesh::backbones::{MinkUNet, MinkUNetConfig, SpUNet, SpUNetConfig};
use wavemesh::notebook::contact_sheet;
use wavemesh::points::{VoxelizedPoints, scatter};
use wavemesh::prelude::*;
use wavemesh::train::{FitConfig, Initialization, LearningRate, fit, seeded_builder};

/// Numbers between 0 and 1 that a seed decides (xorshift).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn roll(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.roll()
    }
}

/// A box by its lowest and highest corner (x, y, z), with a label.
type Block = ([f32; 3], [f32; 3], i64);

/// How far along a ray a box begins, if the ray meets it.
fn enter(block: &Block, from: [f32; 3], along: [f32; 3]) -> Option<f32> {
    let (mut near, mut far) = (0f32, f32::INFINITY);
    for a in 0..3 {
        let (p, q) = ((block.0[a] - from[a]) / along[a], (block.1[a] - from[a]) / along[a]);
        near = near.max(p.min(q));
        far = far.min(p.max(q));
    }
    (near < far && near > 0.0).then_some(near)
}

/// A cloud and a label for each of its points.
type Scene = (PointCloud, Tensor);

fn scene(rows: Vec<f32>, labels: Vec<i64>) -> Result<Scene> {
    let count = labels.len();
    let points = Tensor::from_vec(rows, (count, 3), &Device::Cpu)?;
    Ok((PointCloud::new(&points, &[])?, Tensor::from_vec(labels, count, &Device::Cpu)?))
}

/// A street as a scanner 1.8 m above it sees it, 32 beams in 720 directions: road (0), cars (1), houses (2), poles (3).
fn street(seed: u64) -> Result<Scene> {
    let mut dice = Dice::new(seed);
    let mut blocks: Vec<Block> = vec![([-1e3, -1e3, -1.0], [1e3, 1e3, 0.0], 0)];
    for side in [-1f32, 1.0] {
        for i in 0..4 {
            let (x, y) = (dice.between(-20.0, 16.0), side * dice.between(3.5, 5.0));
            blocks.push(([x, y - 0.9, 0.1], [x + 4.2, y + 0.9, 1.5], 1));
            let (x, y) = (i as f32 * 11.0 - 22.0, side * dice.between(9.0, 11.0));
            let (width, height) = (dice.between(6.0, 10.0), dice.between(4.0, 7.0));
            blocks.push(([x, y - 2.0, 0.0], [x + width, y + 2.0, height], 2));
            let (x, y) = (dice.between(-22.0, 22.0), side * 6.8);
            blocks.push(([x, y, 0.0], [x + 0.25, y + 0.25, 5.0], 3));
        }
    }
    let (from, mut rows, mut labels) = ([0.0, 0.0, 1.8], Vec::new(), Vec::new());
    for beam in 0..32 {
        let up = (-24.0 + beam as f32 * 1.1).to_radians();
        for step in 0..720 {
            let around = (step as f32 / 2.0 + 0.01).to_radians();
            let along = [up.cos() * around.cos(), up.cos() * around.sin(), up.sin() + 1e-6];
            let met = blocks.iter().filter_map(|block| Some((enter(block, from, along)?, block.2)));
            let first = met.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(range, _)| *range < 30.0);
            if let Some((range, label)) = first {
                let range = range + dice.between(-0.02, 0.02);
                rows.extend((0..3).map(|a| from[a] + along[a] * range));
                labels.push(label);
            }
        }
    }
    scene(rows, labels)
}

/// A room of 5 × 4 × 2.5 m, every surface with points: floor (0), walls (1), a table (2), chairs (3).
fn room(seed: u64) -> Result<Scene> {
    let mut dice = Dice::new(seed);
    let mut blocks: Vec<Block> = vec![
        ([0.0, 0.0, -0.1], [5.0, 4.0, 0.0], 0),
        ([-0.1, 0.0, 0.0], [0.0, 4.0, 2.5], 1),
        ([0.0, 4.0, 0.0], [5.0, 4.1, 2.5], 1),
    ];
    let (x, y) = (dice.between(1.0, 2.8), dice.between(0.8, 2.0));
    blocks.push(([x, y, 0.7], [x + 1.4, y + 0.8, 0.75], 2));
    for (dx, dy) in [(0.0, 0.0), (1.33, 0.0), (0.0, 0.73), (1.33, 0.73)] {
        blocks.push(([x + dx, y + dy, 0.0], [x + dx + 0.07, y + dy + 0.07, 0.7], 2));
    }
    for _ in 0..3 {
        let (x, y) = (dice.between(0.2, 4.2), dice.between(0.2, 3.2));
        blocks.push(([x, y, 0.42], [x + 0.42, y + 0.42, 0.46], 3));
        blocks.push(([x, y, 0.46], [x + 0.42, y + 0.05, 0.95], 3));
        for (dx, dy) in [(0.0, 0.0), (0.38, 0.0), (0.0, 0.38), (0.38, 0.38)] {
            blocks.push(([x + dx, y + dy, 0.0], [x + dx + 0.04, y + dy + 0.04, 0.42], 3));
        }
    }
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for (low, high, label) in blocks {
        let side: [f32; 3] = std::array::from_fn(|a| high[a] - low[a]);
        for axis in 0..3 {
            let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
            for end in [low[axis], high[axis]] {
                for _ in 0..(side[u] * side[v] * 900.0) as usize + 4 {
                    let mut point = [0f32; 3];
                    point[axis] = end;
                    point[u] = low[u] + side[u] * dice.roll();
                    point[v] = low[v] + side[v] * dice.roll();
                    rows.extend(point.map(|at| at + dice.between(-0.004, 0.004)));
                    labels.push(label);
                }
            }
        }
    }
    scene(rows, labels)
}

/// Voxels of a cloud, and the label of each. Their features are where in its voxel a point lies, and its height: nothing that
/// tells where in the scene it is, which the network would learn by heart.
fn prepare(voxelizer: &Voxelizer, (cloud, labels): &Scene) -> Result<(VoxelizedPoints, Tensor)> {
    let size = Tensor::new(&voxelizer.config().voxel_size.map(|v| v as f32), &Device::Cpu)?;
    let xyz = cloud.xyz()?;
    let cells = xyz.broadcast_div(&size)?;
    let within = ((&cells - cells.floor()?)? - 0.5)?; // (points, 3)
    let features = Tensor::cat(&[&within, &xyz.narrow(1, 2, 1)?], 1)?;
    let voxels = voxelizer.voxelize_features(&[cloud.points()], &features)?;
    let labels = labels.to_dtype(DType::F32)?.unsqueeze(1)?;
    let first = scatter(&labels, &voxels.inverse, voxels.tensor.len(), Reduce::First)?;
    Ok((voxels, first.squeeze(1)?.to_dtype(DType::U32)?))
}

/// Trains a network on eight scenes for some seconds, and judges it on one that it has not seen.
fn segment<N: SparseModule>(
    name: &str,
    seconds: f64,
    (make, voxelizer): (fn(u64) -> Result<Scene>, &Voxelizer),
    build: impl FnOnce(VarBuilder) -> Result<N>,
    folder: &std::path::Path,
) -> Result<()> {
    let scenes = (10..18).map(|seed| prepare(voxelizer, &make(seed)?)).collect::<Result<Vec<_>>>()?;
    let variables = VarMap::new();
    let weights = Initialization::KaimingNormal { fan_out: false };
    let network = build(seeded_builder(&variables, 0, weights, DType::F32, &Device::Cpu))?;
    let learning_rate = LearningRate::Cosine { rate: 5e-3, total: 400, least: 5e-4 };
    let config = FitConfig { steps: 400, learning_rate, ..Default::default() };
    let started = Instant::now();
    let history = fit(
        &variables,
        &config,
        |n| {
            let (voxels, labels) = &scenes[n % scenes.len()];
            let scores = network.forward_t(&voxels.tensor, true)?;
            Ok(candle_nn::loss::cross_entropy(scores.features(), labels)?)
        },
        |_| {
            let going_on = started.elapsed().as_secs_f64() < seconds;
            Ok(if going_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        },
    )?;
    let (cloud, labels) = make(1)?;
    let (voxels, _) = prepare(voxelizer, &(cloud.clone(), labels.clone()))?;
    let scores = no_grad(|| network.forward(&voxels.tensor))?;
    let classes = voxels.devoxelize(&scores, Interpolation::Nearest)?.argmax(1)?.to_dtype(DType::I64)?;
    let right = classes.eq(&labels)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    println!(
        "{name}: {} steps, loss {:.3} to {:.3}; {:.1}% of {} unseen points get their label",
        history.len(),
        history[0].loss,
        history[history.len() - 1].loss,
        100.0 * right,
        cloud.len()
    );
    let plot = |classes: &Tensor, title: &str| {
        PointPlot::new(&cloud)?.classes(classes)?.title(title).view(-60.0, 50.0).size(620, 400).picture()
    };
    let pair = contact_sheet(&[plot(&labels, "labels")?, plot(&classes, "predicted")?], 2)?;
    let path = folder.join(format!("{name}.png"));
    std::fs::create_dir_all(folder).map_err(wavemesh::Error::io(folder))?;
    std::fs::write(&path, pair.rich().png_bytes().unwrap_or_default()).map_err(wavemesh::Error::io(&path))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(120.0);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "target/points".into()));
    let outdoor = Voxelizer::new(VoxelConfig {
        voxel_size: [0.25; 3],
        range: Some([-24.0, -16.0, -1.0, 24.0, 16.0, 7.0]),
        ..Default::default()
    })?;
    let spunet = SpUNetConfig {
        in_channels: 4,
        num_classes: 4,
        base_channels: 16,
        channels: vec![16, 32, 48, 48, 32, 16],
        layers: vec![1; 6],
    };
    segment("street", seconds / 2.0, (street, &outdoor), |vb| SpUNet::new(&spunet, vb), &folder)?;
    let indoor = Voxelizer::new(VoxelConfig {
        voxel_size: [0.06; 3],
        range: Some([-0.3, -0.3, -0.3, 5.3, 4.3, 2.7]),
        ..Default::default()
    })?;
    let minkunet = MinkUNetConfig {
        in_channels: 4,
        num_classes: 4,
        init_dim: 16,
        planes: [16, 32, 32, 48, 32, 32, 16, 16],
        layers: [1; 8],
    };
    segment("room", seconds / 2.0, (room, &indoor), |vb| MinkUNet::new(&minkunet, vb), &folder)
}
