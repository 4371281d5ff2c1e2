//! From points to labels: SpUNet and MinkUNet segment a street swept by a LiDAR and a scanned room.
//!
//! `cargo run --release --example points -- [SECONDS] [FOLDER]` trains each network for half of SECONDS (default 120), prints how many
//! points of an unseen scene get the right label, and writes pictures of labels and predictions to FOLDER (default target/points).

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use wavemesh::Result;
use wavemesh::backbones::{MinkUNet, MinkUNetConfig, SpUNet, SpUNetConfig};
use wavemesh::notebook::contact_sheet;
use wavemesh::points::{Scene, VoxelizedPoints, room, scatter, street};
use wavemesh::prelude::*;
use wavemesh::train::{FitConfig, Initialization, LearningRate, fit, seeded_builder};

/// The voxels of a cloud, and the label of each. The features are a point's place in its voxel, and its height. They do not tell the place
/// in the scene, because the network would learn it by heart.
fn prepare(voxelizer: &Voxelizer, Scene { cloud, labels, .. }: &Scene) -> Result<(VoxelizedPoints, Tensor)> {
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

/// Trains a network on eight scenes for some seconds, and tests it on a scene that it has not seen.
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
    let config = FitConfig::new().steps(400).learning_rate(learning_rate);
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
    let unseen = make(1)?;
    let (voxels, _) = prepare(voxelizer, &unseen)?;
    let Scene { cloud, labels, .. } = unseen;
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
    let outdoor =
        Voxelizer::new(VoxelConfig::new().voxel_size([0.25; 3]).range([-24.0, -16.0, -1.0, 24.0, 16.0, 7.0]))?;
    let spunet = SpUNetConfig::new()
        .in_channels(4)
        .num_classes(4)
        .base_channels(16)
        .channels([16, 32, 48, 48, 32, 16])
        .layers([1; 6]);
    segment("street", seconds / 2.0, (street, &outdoor), |vb| SpUNet::new(&spunet, vb), &folder)?;
    let indoor = Voxelizer::new(VoxelConfig::new().voxel_size([0.06; 3]).range([-0.3, -0.3, -0.3, 5.3, 4.3, 2.7]))?;
    let minkunet = MinkUNetConfig::new()
        .in_channels(4)
        .num_classes(4)
        .init_dim(16)
        .planes([16, 32, 32, 48, 32, 32, 16, 16])
        .layers([1; 8]);
    segment("room", seconds / 2.0, (room, &indoor), |vb| MinkUNet::new(&minkunet, vb), &folder)
}
