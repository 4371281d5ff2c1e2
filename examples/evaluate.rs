//! Measures a trained generator against held-out shapes; prints docs/generation.md and writes the picture beside it.
//!
//!     cargo run --release --example evaluate -- notebooks/models/shapes.safetensors docs/images/generated.png > docs/generation.md
//!
//! 100 generated shapes (seeds from 1000) against 100 held-out ones, Chamfer distances (squared) between 1024 points of each
//! surface. Beside them: training shapes (the floor that a perfect generator reaches), a Gaussian fitted to the principal
//! components of the training shapes' grids, and the same networks untrained.

use std::path::Path;
use std::process::ExitCode;
use std::slice::from_ref;
use std::time::Instant;

use candle_core::Device;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use wavemesh::Result;
use wavemesh::mesh::Mesh;
use wavemesh::mesh::metrics::sample_surface;
use wavemesh::notebook::{Axis, MeshPlot, contact_sheet};
use wavemesh::sdf::SdfGrid;
use wavemesh::sdf::iou_of_grids;
use wavemesh::train::{
    DatasetConfig, Family, GenerateOptions, Generator, SetComparison, ShapeDataset, Split, StageModel, chamfer_matrix,
};
use wavemesh::unet::WaveMeshUNet;

const SHAPES: usize = 100;
const TRAINED_ON: usize = 800;
const DATA_SEED: u64 = 1;
const SEED: u64 = 1000;
const POINTS: usize = 1024;

type Clouds = Vec<Vec<[f32; 3]>>;

/// Shapes to compare, and how many of their grids had no surface at all.
struct Set {
    name: &'static str,
    meshes: Vec<Mesh>,
    empty: usize,
    seconds: Option<f64>,
}

fn set(name: &'static str, grids: &[SdfGrid], seconds: Option<f64>) -> Set {
    let meshes: Vec<Mesh> = grids.iter().filter_map(|grid| grid.to_mesh().ok()).collect();
    Set { name, empty: grids.len() - meshes.len(), meshes, seconds }
}

fn clouds(meshes: &[Mesh], seed: u64) -> Result<Clouds> {
    meshes.iter().enumerate().map(|(i, m)| Ok(sample_surface(m, POINTS, seed + i as u64)?.points)).collect()
}

fn dataset(count: usize, split: Split) -> Result<Vec<SdfGrid>> {
    // As the shapes were encoded that the shipped generator was trained on.
    let config = DatasetConfig::new().truncation(None).cache("runs/cache");
    ShapeDataset::procedural(&Family::ALL, count, DATA_SEED, split, &config)?.grids()
}

/// Draws from the Gaussian with the mean and the covariance of the training grids: with `z` standard normal, one weight a
/// training shape, `mean + Σ zᵢ (xᵢ − mean) / √(n − 1)` has just that covariance, all principal components included.
fn gaussian(train: &[SdfGrid], seed: u64) -> Result<SdfGrid> {
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let length = train[0].values().len();
    let mut mean = vec![0f32; length];
    train.iter().for_each(|x| mean.iter_mut().zip(x.values()).for_each(|(m, v)| *m += v / train.len() as f32));
    let mut out = mean.clone();
    let scale = 1.0 / ((train.len() - 1) as f32).sqrt();
    for x in train {
        let z: f32 = StandardNormal.sample(&mut rng);
        out.iter_mut().zip(x.values()).zip(&mean).for_each(|((o, v), m)| *o += z * scale * (v - m));
    }
    SdfGrid::from_values(out, train[0].shape())
}

fn untrained(generator: &Generator) -> Result<Generator> {
    let stages = generator.stages().iter().map(|stage| {
        let network = WaveMeshUNet::seeded(stage.network.config(), 7, &Device::Cpu)?;
        Ok(StageModel { network, diffusion: stage.diffusion.clone() })
    });
    Generator::new(generator.representation().clone(), stages.collect::<Result<_>>()?, generator.classes().to_vec())
}

/// Shapes of every class in turn, or, not told any, of whatever comes.
fn generated(name: &'static str, generator: &Generator, told: bool) -> Result<Set> {
    let started = Instant::now();
    let classes = generator.classes();
    let one = |i: usize| -> Result<SdfGrid> {
        let class = classes.get(i % classes.len().max(1)).filter(|_| told).cloned();
        let mut options = GenerateOptions::new().seed(SEED + i as u64);
        options.class = class;
        Ok(generator.generate(1, &options)?.remove(0))
    };
    let grids = (0..SHAPES).map(one).collect::<Result<Vec<_>>>()?;
    Ok(set(name, &grids, Some(started.elapsed().as_secs_f64() / SHAPES as f64)))
}

fn nearest(matrix: &[Vec<f64>]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().copied().fold(f64::INFINITY, f64::min)).collect()
}

/// Median and least of distances, in thousandths.
fn spread(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [values.len() / 2, 0].map(|at| 1e3 * values.get(at).copied().unwrap_or(f64::NAN))
}

fn run(model: &Path, picture: &Path) -> Result<()> {
    let generator = Generator::load(model, &Device::Cpu)?;
    let train = dataset(TRAINED_ON, Split::Train)?;
    let held_out_grids = dataset(SHAPES, Split::HeldOut)?;
    let held_out = set("held-out shapes", &held_out_grids, None);
    let reference = clouds(&held_out.meshes, 1)?;
    let among_reference = chamfer_matrix(&reference, &reference)?;
    let train_clouds = clouds(&set("training shapes", &train, None).meshes, 2)?;

    let normal = (0..SHAPES as u64).map(|i| gaussian(&train, SEED + i)).collect::<Result<Vec<_>>>()?;
    let trained = generated("WaveMesh, families in turn", &generator, true)?;
    let plot = |mesh: &Mesh| MeshPlot::new(mesh).up(Axis::Z).size(150, 150).axes(false).picture();
    contact_sheet(&trained.meshes.iter().take(50).map(plot).collect::<Result<Vec<_>>>()?, 10)?.save(picture)?;
    let sets = [
        trained,
        generated("WaveMesh, no family told", &generator, false)?,
        set("training shapes (the floor)", &train[..SHAPES], None),
        set("Gaussian of principal components", &normal, None),
        generated("the same networks, untrained", &untrained(&generator)?, true)?,
    ];
    println!("{}", include_str!("evaluate.md").trim_end());
    println!(
        "\n| 100 shapes of | 1-NNA | COV | MMD ×10³ | to the nearest training shape ×10³: median, least | watertight | in one part | no surface | s/sample |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for Set { name, meshes, empty, seconds } in &sets {
        let points = clouds(meshes, 3)?;
        let row = if meshes.len() < 2 {
            "| | | | | ".to_string()
        } else {
            let between = chamfer_matrix(&points, &reference)?;
            let score = SetComparison::new(&chamfer_matrix(&points, &points)?, &between, &among_reference)?;
            let [median, least] = spread(nearest(&chamfer_matrix(&points, &train_clouds)?));
            let share = |test: &dyn Fn(&Mesh) -> bool| 100 * meshes.iter().filter(|m| test(m)).count() / meshes.len();
            format!(
                "{:.1} % | {:.0} % | {:.2} | {median:.2}, {least:.2} | {} % | {} %",
                100.0 * score.one_nna,
                100.0 * score.coverage,
                1e3 * score.mmd,
                share(&|m| m.is_watertight()),
                share(&|m| m.components().len() == 1),
            )
        };
        let seconds = seconds.map(|s| format!("{s:.2}")).unwrap_or_default();
        println!("| {name} | {row} | {empty} | {seconds} |");
    }
    let [median, least] = spread(nearest(&chamfer_matrix(&reference, &train_clouds)?));
    let twice = clouds(&held_out.meshes, 9)?;
    let same = twice.iter().zip(&reference).map(|(a, b)| Ok(chamfer_matrix(from_ref(a), from_ref(b))?[0][0]));
    let [itself, _] = spread(same.collect::<Result<_>>()?);
    println!(
        "\nHeld-out shapes lie {median:.2} (median) and {least:.2} (least) ×10⁻³ from their nearest training shape; 1024 points of a surface \
         lie {itself:.2} ×10⁻³ from 1024 others of the same surface, so a copy would show that distance, not 0."
    );
    println!("\n## What the representation itself keeps\n");
    println!("IoU with the shape, mean over the held-out shapes of a family (least of all):\n");
    println!("| written in | {} | least |", Family::ALL.map(Family::name).join(" | "));
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, stages) in [("stage 0 alone", 1), ("both stages", 2)] {
        let mut means = [0f64; Family::ALL.len()];
        let mut least = 1f64;
        for (i, grid) in held_out_grids.iter().enumerate() {
            let codes = generator.representation().encode(grid)?;
            let iou = iou_of_grids(&generator.representation().decode(&codes[..stages])?, grid)?;
            means[i % means.len()] += iou / (SHAPES / means.len()) as f64;
            least = least.min(iou);
        }
        println!("| {name} | {} | {least:.3} |", means.map(|iou| format!("{iou:.3}")).join(" | "));
    }
    Ok(())
}

fn main() -> ExitCode {
    wavemesh::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, picture] = arguments.as_slice() else {
        eprintln!("usage: evaluate GENERATOR PICTURE.png");
        return ExitCode::FAILURE;
    };
    match run(Path::new(model), Path::new(picture)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
