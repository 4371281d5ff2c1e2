//! Measures a trained generator against held-out shapes and writes a table and a picture.
//!
//!     cargo run --release --example evaluate -- runs/shapes/generator.safetensors FOLDER
//!
//! 100 generated shapes (seeds 1000 to 1099) against 100 held-out ones, Chamfer distances (squared) between 1024 points of
//! each surface. Beside them: training shapes (the floor that a perfect generator reaches), a Gaussian fitted to the principal
//! components of the training shapes' grids, and the same networks untrained.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use candle_core::Device;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use wavemesh::mesh::Mesh;
use wavemesh::mesh::metrics::sample_surface;
use wavemesh::sdf::SdfGrid;
use wavemesh::train::{
    DatasetConfig, Family, GenerateOptions, Generator, SetComparison, ShapeDataset, Split, StageModel, chamfer_matrix,
};
use wavemesh::unet::WaveMeshUNet;
use wavemesh::{Error, Result};

const SHAPES: usize = 100;
const TRAINED_ON: usize = 800;
const DATA_SEED: u64 = 1;
const SEED: u64 = 1000;
const POINTS: usize = 1024;

type Clouds = Vec<Vec<[f32; 3]>>;

/// Generated shapes, and how many grids had no surface at all.
struct Set {
    name: &'static str,
    meshes: Vec<Mesh>,
    empty: usize,
    seconds: Option<f64>,
}

fn set(name: &'static str, grids: Vec<SdfGrid>, seconds: Option<f64>) -> Set {
    let count = grids.len();
    let meshes: Vec<Mesh> = grids.iter().filter_map(|grid| grid.to_mesh().ok()).collect();
    Set { name, empty: count - meshes.len(), meshes, seconds }
}

fn clouds(meshes: &[Mesh], seed: u64) -> Result<Clouds> {
    meshes.iter().enumerate().map(|(i, m)| Ok(sample_surface(m, POINTS, seed + i as u64)?.points)).collect()
}

fn dataset(count: usize, split: Split) -> Result<Vec<SdfGrid>> {
    let config = DatasetConfig { cache: Some("runs/cache".into()), ..Default::default() };
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
    Generator::new(generator.representation().clone(), stages.collect::<Result<_>>()?)
}

fn generated(name: &'static str, generator: &Generator) -> Result<Set> {
    let started = Instant::now();
    let grids = generator.generate(SHAPES, &GenerateOptions { seed: SEED, ..Default::default() })?;
    Ok(set(name, grids, Some(started.elapsed().as_secs_f64() / SHAPES as f64)))
}

fn nearest(matrix: &[Vec<f64>]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().copied().fold(f64::INFINITY, f64::min)).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn run(model: &Path, out: &Path) -> Result<()> {
    let generator = Generator::load(model, &Device::Cpu)?;
    let train = dataset(TRAINED_ON, Split::Train)?;
    let held_out = set("held-out", dataset(SHAPES, Split::HeldOut)?, None);
    let reference = clouds(&held_out.meshes, 1)?;
    let among_reference = chamfer_matrix(&reference, &reference)?;
    let train_set = set("training", train.clone(), None);
    let train_clouds = clouds(&train_set.meshes, 2)?;

    let floor: Vec<SdfGrid> = train.iter().take(SHAPES).cloned().collect();
    let normal = (0..SHAPES as u64).map(|i| gaussian(&train, SEED + i)).collect::<Result<_>>()?;
    let trained = generated("WaveMesh", &generator)?;
    contact_sheet(&trained.meshes, &out.join("generated.png"))?;
    let sets = [
        trained,
        set("training shapes (floor)", floor, None),
        set("PCA Gaussian", normal, None),
        generated("untrained network", &untrained(&generator)?)?,
    ];
    let mut table = String::from(
        "| 100 shapes of | 1-NNA | COV | MMD ×10³ | to nearest training shape ×10³ (median, least) | watertight | one part | no surface | s/sample |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Set { name, meshes, empty, seconds } in &sets {
        let points = clouds(meshes, 3)?;
        let row = if meshes.len() < 2 {
            "— | — | — | — | — | —".to_string()
        } else {
            let between = chamfer_matrix(&points, &reference)?;
            let score = SetComparison::new(&chamfer_matrix(&points, &points)?, &between, &among_reference)?;
            let copies = nearest(&chamfer_matrix(&points, &train_clouds)?);
            let least = copies.iter().copied().fold(f64::INFINITY, f64::min);
            let share = |test: &dyn Fn(&Mesh) -> bool| 100 * meshes.iter().filter(|m| test(m)).count() / meshes.len();
            format!(
                "{:.1}% | {:.0}% | {:.2} | {:.2}, {:.2} | {}% | {}%",
                100.0 * score.one_nna,
                100.0 * score.coverage,
                1e3 * score.mmd,
                1e3 * median(copies),
                1e3 * least,
                share(&|m| m.is_watertight()),
                share(&|m| m.components().len() == 1),
            )
        };
        let seconds = seconds.map_or("—".into(), |s| format!("{s:.2}"));
        let _ = writeln!(table, "| {name} | {row} | {empty} | {seconds} |"); // a String takes everything
    }
    let held_to_train = nearest(&chamfer_matrix(&reference, &train_clouds)?);
    let _ = writeln!(
        table,
        "\nHeld-out shapes lie {:.2}e-3 (median) and {:.2}e-3 (least) from their nearest training shape.",
        1e3 * median(held_to_train.clone()),
        1e3 * held_to_train.iter().copied().fold(f64::INFINITY, f64::min)
    );
    print!("{table}");
    let path = out.join("generation_table.md");
    std::fs::write(&path, table).map_err(Error::io(&path))
}

/// The first 40 meshes from the same side, shaded by their normals, 8 a row.
fn contact_sheet(meshes: &[Mesh], path: &Path) -> Result<()> {
    const TILE: usize = 128;
    const COLUMNS: usize = 8;
    let rows = meshes.len().min(40).div_ceil(COLUMNS);
    let (width, height) = (COLUMNS * TILE, rows * TILE);
    let mut pixels = vec![255u8; width * height * 3];
    for (i, mesh) in meshes.iter().take(40).enumerate() {
        let tile = shade(mesh, TILE);
        for (at, colour) in tile.iter().enumerate() {
            let (x, y) = (i % COLUMNS * TILE + at % TILE, i / COLUMNS * TILE + at / TILE);
            pixels[3 * (y * width + x)..][..3].copy_from_slice(colour);
        }
    }
    let file = std::fs::File::create(path).map_err(Error::io(path))?;
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
    written.map_err(|error| Error::io(path)(std::io::Error::other(error)))
}

/// A square picture of a mesh in the cube [-1, 1]³: parallel projection, depth buffer, one light.
fn shade(mesh: &Mesh, size: usize) -> Vec<[u8; 3]> {
    let (turn, tilt) = (0.6f32, 0.45f32);
    let view = |[x, y, z]: [f32; 3]| {
        let (u, depth) = (x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos());
        [u, z * tilt.cos() + depth * tilt.sin(), z * tilt.sin() - depth * tilt.cos()]
    };
    let mut picture = vec![[250u8, 250, 252]; size * size];
    let mut nearest = vec![f32::NEG_INFINITY; size * size];
    let scale = size as f32 / 2.9;
    for face in 0..mesh.faces().len() {
        let [a, b, c] = mesh.triangle(face).map(view);
        let edge = |p: [f32; 3], q: [f32; 3]| [q[0] - p[0], q[1] - p[1], q[2] - p[2]];
        let (e, f) = (edge(a, b), edge(a, c));
        let n = [e[1] * f[2] - e[2] * f[1], e[2] * f[0] - e[0] * f[2], e[0] * f[1] - e[1] * f[0]];
        let length = n.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
        let light = ((0.35 * n[0] + 0.5 * n[1] + 0.8 * n[2]) / length).clamp(0.0, 1.0);
        let colour = [70.0, 120.0, 190.0].map(|base: f32| (base * (0.35 + 0.75 * light)).min(255.0) as u8);
        let screen = |p: [f32; 3]| [p[0] * scale + size as f32 / 2.0, size as f32 / 2.0 - p[1] * scale];
        let [p, q, r] = [a, b, c].map(screen);
        let area = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]);
        if area.abs() < 1e-9 {
            continue;
        }
        let bounds = |axis: usize| {
            let low = p[axis].min(q[axis]).min(r[axis]).floor().max(0.0) as usize;
            let high = p[axis].max(q[axis]).max(r[axis]).ceil().clamp(0.0, size as f32 - 1.0) as usize;
            low..=high
        };
        for y in bounds(1) {
            for x in bounds(0) {
                let at = [x as f32 + 0.5, y as f32 + 0.5];
                let side = |s: [f32; 2], t: [f32; 2]| (t[0] - s[0]) * (at[1] - s[1]) - (t[1] - s[1]) * (at[0] - s[0]);
                let [wa, wb, wc] = [side(q, r) / area, side(r, p) / area, side(p, q) / area];
                let depth = wa * a[2] + wb * b[2] + wc * c[2];
                if wa >= 0.0 && wb >= 0.0 && wc >= 0.0 && depth > nearest[y * size + x] {
                    nearest[y * size + x] = depth;
                    picture[y * size + x] = colour;
                }
            }
        }
    }
    picture
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out] = arguments.as_slice() else {
        eprintln!("usage: evaluate GENERATOR FOLDER");
        return ExitCode::FAILURE;
    };
    match run(Path::new(model), Path::new(out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
