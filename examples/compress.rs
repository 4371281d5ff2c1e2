//! Compresses meshes: makes a signed distance grid, stores its wavelet coefficients in few bytes, and turns them back into a mesh.
//!
//!     cargo run --release --example compress -- encode bunny.obj bunny.wmz --resolution 64 --max-error 0.005
//!     cargo run --release --example compress -- decode bunny.wmz bunny.ply
//!     cargo run --release --example compress -- table notebooks/meshes/bunny.obj
//!     cargo run --release --example compress -- large 1500000 10000000
//!
//! The error is the largest at any sample of the grid, in units of the cube of side 2 that the mesh is scaled into. `table` and `large`
//! (with the number of triangles and of points) write the tables of docs/compression.md.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use wavemesh::Result;
use wavemesh::mesh::metrics::MeshComparison;
use wavemesh::prelude::*;
use wavemesh::sdf::DistanceQuery;

const USAGE: &str = "usage: compress encode MESH FILE.wmz [--resolution N] [--max-error E]
       compress decode FILE.wmz MESH
       compress table MESH
       compress large TRIANGLES POINTS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["encode", mesh, file, options @ ..] => match parse(options) {
            Ok((resolution, max_error)) => encode(mesh.as_ref(), file.as_ref(), resolution, max_error),
            Err(problem) => return usage(&problem),
        },
        ["decode", file, mesh] => decode(file.as_ref(), mesh.as_ref()),
        ["table", mesh] => table(mesh.as_ref()),
        ["large", triangles, points] => match (triangles.parse(), points.parse()) {
            (Ok(triangles), Ok(points)) => large(triangles, points),
            _ => return usage("large takes two numbers"),
        },
        _ => return usage("one of encode, decode, table and large is needed"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compress: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("compress: {problem}\n{USAGE}");
    ExitCode::from(2)
}

fn parse(options: &[&str]) -> Result<(usize, f32), String> {
    let (mut resolution, mut max_error) = (64, 0.005);
    for option in options.chunks(2) {
        let bad = || format!("{} is not a number", option.get(1).unwrap_or(&"nothing"));
        match option {
            ["--resolution", n] => resolution = n.parse().map_err(|_| bad())?,
            ["--max-error", e] => max_error = e.parse().map_err(|_| bad())?,
            [name, ..] => return Err(format!("unknown option {name}")),
            [] => {}
        }
    }
    Ok((resolution, max_error))
}

/// Keeps all coefficients: compression rounds the unimportant ones to zero.
fn coefficients(grid: &SdfGrid) -> Result<SparseWavelet> {
    grid.encode(&WaveletConfig::new().threshold(Threshold::Lossless))
}

fn encode(mesh: &Path, file: &Path, resolution: usize, max_error: f32) -> Result<()> {
    let grid = SdfGrid::from_mesh(&Mesh::load(mesh)?, resolution)?;
    coefficients(&grid)?.save_compressed(file, max_error)?;
    let bytes = std::fs::metadata(file).map_err(Error::io(file))?.len();
    println!("{}: {bytes} bytes, {resolution}³ samples within {max_error}", file.display());
    Ok(())
}

fn decode(file: &Path, mesh: &Path) -> Result<()> {
    let surface = SparseWavelet::load(file)?.decode()?.to_mesh()?;
    surface.save(mesh)?;
    println!("{}: {} triangles", mesh.display(), surface.faces().len());
    Ok(())
}

/// Prints bytes and distances for several bounds, beside the exact file with the same error.
fn table(path: &Path) -> Result<()> {
    let mesh = Mesh::load(path)?;
    println!("| grid | max error | exact file | wmz file | Chamfer to the mesh |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    for resolution in [64, 128] {
        let grid = SdfGrid::from_mesh(&mesh, resolution)?;
        let all = coefficients(&grid)?;
        for max_error in [0.02, 0.005, 0.002] {
            let exact = grid.encode(&WaveletConfig::new().threshold(Threshold::MaxError(max_error)))?;
            let [exact_file, small_file] = ["safetensors", "wmz"]
                .map(|kind| std::env::temp_dir().join(format!("wavemesh-compress-{}.{kind}", std::process::id())));
            exact.save(&exact_file)?;
            all.save_compressed(&small_file, max_error)?;
            let size = |path: &PathBuf| std::fs::metadata(path).map(|file| file.len()).map_err(Error::io(path));
            let sizes = (size(&exact_file)?, size(&small_file)?);
            let back = SparseWavelet::load(&small_file)?.decode()?.to_mesh()?;
            let scaled = |mesh: &Mesh| mesh.map_vertices(|v| v.map(|c| c * grid.scale()));
            let chamfer = MeshComparison::new(&scaled(&back)?, &scaled(&mesh)?, 20_000, 0)?.chamfer();
            println!("| {resolution}³ | {max_error} | {} | {} | {chamfer:.4} |", sizes.0, sizes.1);
            for path in [exact_file, small_file] {
                std::fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
    }
    Ok(())
}

/// A ball with bumps, of about `triangles` triangles, nearly all of them well shaped.
fn bumpy(triangles: usize) -> Result<Mesh> {
    let rows = ((triangles as f64 / 4.0).sqrt() as usize).max(3);
    let columns = 2 * rows;
    let place = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        let polar = std::f32::consts::PI * (row as f32 + 0.5) / rows as f32;
        let turn = std::f32::consts::TAU * column as f32 / columns as f32;
        let radius = 0.8 + 0.05 * (12.0 * polar).sin() * (10.0 * turn).sin() * polar.sin();
        [radius * polar.sin() * turn.cos(), radius * polar.sin() * turn.sin(), radius * polar.cos()]
    };
    let mut vertices: Vec<[f32; 3]> = (0..rows * columns).map(place).collect();
    let poles = vertices.len() as u32;
    vertices.extend([[0.0, 0.0, 0.8], [0.0, 0.0, -0.8]]);
    let at = |row: usize, column: usize| (row * columns + column % columns) as u32;
    let mut faces = Vec::new();
    for column in 0..columns {
        faces.push([poles, at(0, column), at(0, column + 1)]);
        faces.push([poles + 1, at(rows - 1, column + 1), at(rows - 1, column)]);
        for row in 1..rows {
            let [a, b] = [at(row - 1, column), at(row - 1, column + 1)];
            let [c, d] = [at(row, column), at(row, column + 1)];
            faces.extend([[a, c, b], [b, c, d]]);
        }
    }
    Mesh::new(vertices, faces)
}

/// The most memory that this process has held, if the system tells it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: Option<f64> = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kilobytes.map_or("–".into(), |kilobytes| format!("{:.2} GB", kilobytes / 1e6))
}

/// Prints seconds and memory for a mesh of many triangles, and for distances at many points.
fn large(triangles: usize, points: usize) -> Result<()> {
    println!("| step | result | seconds | most memory so far |\n| --- | --- | ---: | ---: |");
    let mut began = Instant::now();
    let mut row = |step: &str, result: String| {
        println!("| {step} | {result} | {:.1} | {} |", began.elapsed().as_secs_f64(), peak_memory());
        began = Instant::now();
    };
    let mesh = bumpy(triangles)?;
    row("the mesh", format!("{} triangles", mesh.faces().len()));
    let grid = SdfGrid::from_mesh(&mesh, 128)?;
    row("its grid", "128³ samples".into());
    let bytes = coefficients(&grid)?.compress(0.005)?;
    row("compressed to 0.005", format!("{} bytes", bytes.len()));
    let back = SparseWavelet::decompress(&bytes)?.decode()?.to_mesh()?;
    row("and back", format!("{} triangles", back.faces().len()));
    let compared = MeshComparison::new(&back, &mesh, points, 0)?;
    row("compared", format!("Chamfer {:.5} by {points} points each way", compared.chamfer()));
    drop(compared);
    let side = (points as f64).cbrt().ceil() as usize;
    let spread = |i: usize| [i % side, i / side % side, i / side / side].map(|k| 2.0 * k as f32 / side as f32 - 1.0);
    let cube: Vec<[f32; 3]> = (0..points).map(spread).collect();
    let distances = DistanceQuery::new(&mesh).distance(&cube)?;
    let mean = distances.iter().map(|&d| f64::from(d)).sum::<f64>() / points as f64;
    row("distances in the cube", format!("mean {mean:.5} of {points} points"));
    Ok(())
}
