//! Measures what thresholds cost; its output is docs/quality.md.
//!
//!     cargo run --release --example quality > docs/quality.md

use std::path::Path;

use wavemesh::mesh::Mesh;
use wavemesh::mesh::metrics::MeshComparison;
use wavemesh::sdf::SdfGrid;
use wavemesh::sdf::iou_of_grids;
use wavemesh::wavelet::{Threshold, WaveletConfig};

const NEAR: f32 = 0.01;

fn main() -> wavemesh::Result<()> {
    println!(
        "# Quality against size\n\n\
         Written by `cargo run --release --example quality > docs/quality.md`.\n\n\
         A mesh becomes a signed distance grid (cube of side 2, the mesh's largest extent 2 / 1.1), three levels of wavelet coefficients, \
         and those above the threshold (`Threshold::Plain`, periodization, plain distances: `.truncation(None)`) become a grid and a mesh again. *Bytes*: 20 for each kept \
         coefficient, its place counted; *of grid*: relative to 4 bytes a sample, so above 100 % the sparse form is the larger. *MSE* and *max \
         error*: of the decoded grid. *IoU*: of its samples inside with the original grid's. *Chamfer* (there plus back) and *F-score* (at \
         {NEAR}): of the decoded surface against the original mesh, 20,000 points each, in units of the cube. The row *grid itself* is what \
         the grid's resolution alone costs.\n"
    );
    println!(
        "| mesh | grid | wavelet | threshold | coefficients | bytes | of grid | MSE | max error | IoU | Chamfer | F-score |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks/meshes");
    for (name, file) in [("bunny", "bunny.obj"), ("gearwheel", "gearwheel.bin.stl")] {
        let mesh = Mesh::load(folder.join(file))?;
        for resolution in [32, 64, 128] {
            let grid = SdfGrid::from_mesh(&mesh, resolution)?;
            let scale = grid.scale();
            // All distances are in units of the cube.
            let surface = |decoded: &SdfGrid| -> wavemesh::Result<String> {
                let [a, b] = [decoded.to_mesh()?, mesh.clone()].map(|m| m.map_vertices(|v| v.map(|c| c * scale)));
                let compared = MeshComparison::new(&a?, &b?, 20_000, 0)?;
                Ok(format!("{:.4} | {:.3}", compared.chamfer(), compared.f_score(NEAR)))
            };
            println!(
                "| {name} | {resolution}³ | grid itself | | | {} | 100 % | 0 | 0 | 1 | {} |",
                4 * grid.values().len(),
                surface(&grid)?
            );
            for wavelet in ["haar", "bior2.2", "bior4.4", "bior6.8"] {
                for threshold in [0.001, 0.01, 0.1] {
                    let config =
                        WaveletConfig::new().wavelet(wavelet).truncation(None).threshold(Threshold::Plain(threshold));
                    let coeffs = grid.encode(&config)?;
                    let stats = coeffs.stats();
                    let decoded = coeffs.decode()?;
                    let errors = || grid.values().iter().zip(decoded.values()).map(|(a, b)| f64::from((a - b).abs()));
                    let mse = errors().map(|e| e * e).sum::<f64>() / grid.values().len() as f64;
                    println!(
                        "| {name} | {resolution}³ | {wavelet} | {threshold} | {} | {} | {:.1} % | {mse:.1e} | {:.1e} | {:.4} | {} |",
                        stats.nonzero,
                        stats.memory_sparse,
                        100.0 / stats.compression_ratio,
                        errors().fold(0.0, f64::max),
                        iou_of_grids(&grid, &decoded)?,
                        surface(&decoded)?,
                    );
                }
            }
        }
    }
    Ok(())
}
