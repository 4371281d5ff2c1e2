//! Compresses meshes: a signed distance grid, its wavelet coefficients in few bytes, and back.
//!
//!     cargo run --release --example compress -- encode bunny.obj bunny.wmz --resolution 64 --max-error 0.005
//!     cargo run --release --example compress -- decode bunny.wmz bunny.ply
//!     cargo run --release --example compress -- table notebooks/meshes/bunny.obj
//!
//! The error is the largest at any sample of the grid, in units of the cube of side 2 that the mesh is scaled into. `table` writes the
//! rows of docs/compression.md.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wavemesh::Result;
use wavemesh::mesh::metrics::MeshComparison;
use wavemesh::prelude::*;

const USAGE: &str = "usage: compress encode MESH FILE.wmz [--resolution N] [--max-error E]
       compress decode FILE.wmz MESH
       compress table MESH";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["encode", mesh, file, options @ ..] => match parse(options) {
            Ok((resolution, max_error)) => encode(mesh.as_ref(), file.as_ref(), resolution, max_error),
            Err(problem) => return usage(&problem),
        },
        ["decode", file, mesh] => decode(file.as_ref(), mesh.as_ref()),
        ["table", mesh] => table(mesh.as_ref()),
        _ => return usage("one of encode, decode and table is needed"),
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

/// All coefficients: what does not matter rounds to zero when they are compressed.
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

/// Bytes and distances for several bounds, beside the exact file of the same error.
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
