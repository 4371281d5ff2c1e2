//! From a mesh file to sparse wavelet coefficients and back, on the bunny.

mod folder;

use std::path::{Path, PathBuf};

use candle_core::Device;
use rand::{Rng, SeedableRng, rngs::StdRng};
use wavemesh::Error;
use wavemesh::mesh::Mesh;
use wavemesh::mesh::metrics::MeshComparison;
use wavemesh::sdf::{Frame, SdfGrid, iou, shapes};
use wavemesh::sparse::SparseConvTensor;
use wavemesh::wavelet::{
    BandNormalization, Mode, SparseWavelet, Threshold, Wavelet, WaveletConfig, WaveletLayout, decode_features,
    wavedecn, waverecn,
};

use folder::Folder;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn bunny() -> Mesh {
    Mesh::load(root().join("notebooks/meshes/bunny.obj")).unwrap()
}

#[test]
fn the_bunny_is_read_whole() {
    let mesh = bunny();
    assert_eq!((mesh.vertices().len(), mesh.faces().len()), (1839, 3674));
    assert!(mesh.is_watertight() && mesh.volume() > 0.0);
    assert_eq!(mesh.components().len(), 1);
}

#[test]
fn the_distance_of_the_bunny_is_that_of_libigl() {
    let wanted = candle_core::Tensor::read_npy(root().join("tests/fixtures/bunny_sdf_32.npy")).unwrap();
    let wanted: Vec<f32> = wanted.flatten_all().unwrap().to_vec1().unwrap();
    let sdf = SdfGrid::from_mesh(&bunny(), 32).unwrap();
    let worst = sdf.values().iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!(sdf.values().len(), wanted.len());
    println!("largest difference from libigl: {worst:e}");
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn marching_cubes_gives_the_bunny_back_where_it_was() {
    let mesh = bunny();
    let back = SdfGrid::from_mesh(&mesh, 64).unwrap().to_mesh().unwrap();
    assert!(back.is_watertight());
    assert!(MeshComparison::new(&back, &mesh, usize::MAX, 0).unwrap_err().to_string().contains("room"));
    let compared = MeshComparison::new(&back, &mesh, 5000, 0).unwrap();
    let [lo, hi] = mesh.bounds();
    let size = (0..3).map(|a| hi[a] - lo[a]).fold(0.0, f32::max);
    println!(
        "chamfer {} of size {size}, normals {}, iou {}",
        compared.chamfer(),
        compared.normal_consistency(),
        iou(&back, &mesh, 64).unwrap()
    );
    assert!(compared.chamfer() < 0.01 * f64::from(size));
    assert!(compared.normal_consistency() > 0.9);
    assert!(iou(&back, &mesh, 64).unwrap() > 0.95);
}

#[test]
fn lossless_coefficients_give_the_grid_back_through_the_network_tensor() {
    let sdf = SdfGrid::from_mesh(&bunny(), 32).unwrap();
    let config = WaveletConfig::new().threshold(Threshold::Lossless);
    let coeffs = sdf.encode(&config).unwrap();
    assert_eq!(coeffs.len(), 32 * 32 * 32);
    let packed = coeffs.to_sparse_tensor(&Device::Cpu).unwrap();
    assert_eq!((packed.channels(), packed.spatial_shape()), (22, [16, 16, 16]));
    let back = SparseWavelet::from_sparse_tensor(&packed, 0, coeffs.layout()).unwrap().decode().unwrap();
    let worst = sdf.values().iter().zip(back.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("largest round trip error: {worst:e}");
    assert!(worst < 2e-6, "{worst}");
    assert_eq!(back.frame(), sdf.frame());
}

fn largest_difference(a: &SdfGrid, b: &SdfGrid) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.values().iter().zip(b.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// An anisotropic grid of odd sizes around a cone.
fn odd_grid() -> SdfGrid {
    let cone = shapes::cone(0.6, 0.5);
    SdfGrid::from_fn([21, 18, 15], |p| cone.distance(p)).unwrap()
}

#[test]
fn every_mode_and_odd_shape_survives_packing() {
    let sdf = odd_grid();
    for mode in Mode::ALL {
        let config = WaveletConfig::new().wavelet("bior2.2").level(2).mode(mode).threshold(Threshold::Lossless);
        let coeffs = sdf.encode(&config).unwrap();
        let packed = coeffs.to_sparse_tensor(&Device::Cpu).unwrap();
        let back = SparseWavelet::from_sparse_tensor(&packed, 0, coeffs.layout()).unwrap().decode().unwrap();
        let worst = largest_difference(&sdf, &back);
        assert!(worst < 5e-6, "{}: {worst}", mode.name());
    }
}

#[test]
fn thresholds_keep_what_they_say() {
    let sdf = SdfGrid::from_mesh(&bunny(), 32).unwrap();
    let config = WaveletConfig::new().level(2).truncation(None);
    let encode = |threshold| sdf.encode(&config.clone().threshold(threshold)).unwrap();
    let all = encode(Threshold::Lossless);
    let count = |t_approx: f32, t: f32| {
        let kept = |(row, v): (&[i32; 4], &f32)| v.abs() > if row[3] == 0 { t_approx } else { t };
        all.indices().iter().zip(all.values()).filter(|&pair| kept(pair)).count()
    };
    assert_eq!(encode(Threshold::Plain(0.05)).len(), count(0.05, 0.05));
    assert_eq!(encode(Threshold::Adaptive(0.5)).len(), count(0.05, 0.5));
    assert_eq!(encode(Threshold::KeepApproximation(0.05)).len(), count(0.0, 0.05));
    let largest = encode(Threshold::Largest(500));
    assert_eq!(largest.len(), 500);
    let least = largest.values().iter().fold(f32::INFINITY, |m, v| m.min(v.abs()));
    assert!(count(least, least) < 500, "500 of the largest are larger than the least kept");
    // A flat grid has 64 equal coefficients and 448 zeros. Even with ties, exactly the requested number is kept.
    let flat = SdfGrid::from_fn([8; 3], |_| 0.5).unwrap();
    for k in [0, 1, 3, 64, 100, 512, 1000] {
        let config = WaveletConfig::new().wavelet("haar").level(1).threshold(Threshold::Largest(k));
        assert_eq!(flat.encode(&config).unwrap().len(), k.min(512));
    }
    for (threshold, tolerance) in [(Threshold::MaxError(0.02), 0.02), (Threshold::RmsError(0.002), 0.002)] {
        let coeffs = encode(threshold);
        let decoded = coeffs.decode().unwrap();
        let differences = sdf.values().iter().zip(decoded.values()).map(|(a, b)| f64::from(a - b));
        let error = match threshold {
            Threshold::MaxError(_) => differences.map(f64::abs).fold(0.0, f64::max),
            _ => (differences.map(|d| d * d).sum::<f64>() / sdf.values().len() as f64).sqrt(),
        };
        assert!(error <= tolerance && error > 0.5 * tolerance, "{threshold:?} gave {error}");
        let stats = coeffs.stats();
        assert_eq!(
            (stats.nonzero, stats.memory_sparse, stats.memory_dense),
            (coeffs.len(), 20 * coeffs.len(), 4 << 15)
        );
    }
    for bad in [f32::NAN, -1.0] {
        assert!(sdf.encode(&WaveletConfig::new().threshold(Threshold::Plain(bad))).is_err());
    }
}

#[test]
fn encoding_and_decoding_are_the_transforms_with_a_threshold_between() {
    // Large enough to be cut into ranges, with odd and different lengths.
    let shape = [71, 38, 45];
    let noise = |v: f32| ((v * 12.9898).sin() * 43758.547).fract();
    let grid =
        SdfGrid::from_fn(shape, |[x, y, z]| (x * x + y * y + z * z).sqrt() - 0.7 + 0.02 * noise(x + 3.0 * y - z));
    let grid = grid.unwrap();
    for (mode, name) in Mode::ALL.into_iter().flat_map(|mode| ["haar", "bior4.4"].map(|name| (mode, name))) {
        let mut wanted = wavedecn(grid.values(), &shape, &Wavelet::from_name(name).unwrap(), mode, 3).unwrap();
        let mut rows = Vec::new();
        let bands = std::iter::once(&mut wanted.approx).chain(wanted.details.iter_mut().flatten());
        for (id, band) in bands.enumerate() {
            for (at, value) in band.data.iter_mut().enumerate() {
                if value.abs() > 0.01 {
                    let (line, z) = (at / band.shape[2], at % band.shape[2]);
                    let place = [line / band.shape[1], line % band.shape[1], z, id];
                    rows.push((place.map(|c| c as i32), *value));
                } else {
                    *value = 0.0;
                }
            }
        }
        let (indices, values): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let config = WaveletConfig::new().wavelet(name).mode(mode).threshold(Threshold::Plain(0.01)).truncation(None);
        let coeffs = grid.encode(&config).unwrap();
        assert!(!values.is_empty() && coeffs.indices() == indices && coeffs.values() == values, "{mode:?} {name}");
        let (got, wanted) = (coeffs.decode().unwrap(), waverecn(&wanted).unwrap());
        for (row, line) in got.values().chunks_exact(shape[2]).enumerate() {
            let start = (row / shape[1] * wanted.shape[1] + row % shape[1]) * wanted.shape[2];
            assert_eq!(line, &wanted.data[start..start + shape[2]], "{mode:?} {name}, line {row}");
        }
    }
}

#[test]
fn distances_that_level_off_spend_coefficients_on_the_surface() {
    let mesh = bunny();
    let sdf = SdfGrid::from_mesh(&mesh, 64).unwrap();
    let encode = |truncation| {
        let coeffs = sdf.encode(&WaveletConfig::new().level(2).truncation(truncation)).unwrap();
        let surface = coeffs.decode().unwrap().to_mesh().unwrap();
        let chamfer = MeshComparison::new(&surface, &mesh, 20_000, 0).unwrap().chamfer();
        (coeffs, chamfer)
    };
    assert_eq!(WaveletConfig::default().truncation, Some(0.2));
    let ((levelled, near), (plain, far)) = (encode(Some(0.2)), encode(None));
    println!("levelled off: {} coefficients, Chamfer {near}; plain: {}, {far}", levelled.len(), plain.len());
    assert!(3 * levelled.len() < 2 * plain.len(), "{} and {}", levelled.len(), plain.len());
    assert!(near < 1.05 * far, "{near} and {far}");
    // The constant is stored with the coefficients, also in their file, and decoding inverts it.
    let nothing_lost = sdf.encode(&WaveletConfig::new().threshold(Threshold::Plain(0.0))).unwrap();
    let decoded = nothing_lost.decode().unwrap();
    let worst = sdf.values().iter().zip(decoded.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{worst}");
    let path = std::env::temp_dir().join(format!("wavemesh-levelled-{}.safetensors", std::process::id()));
    levelled.save(&path).unwrap();
    let back = SparseWavelet::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((back.layout().truncation(), &back), (Some(0.2), &levelled));
    // Older files have no such entry: they hold plain distances.
    let stored = serde_json::to_string(plain.layout()).unwrap();
    assert!(!stored.contains("truncation"));
    assert_eq!(serde_json::from_str::<WaveletLayout>(&stored).unwrap().truncation(), None);
    // Thresholds that promise something about the grid store it plainly.
    for threshold in [Threshold::Lossless, Threshold::MaxError(0.05), Threshold::RmsError(0.05)] {
        let coeffs = sdf.encode(&WaveletConfig::new().threshold(threshold)).unwrap();
        assert_eq!(coeffs.layout().truncation(), None, "{threshold:?}");
    }
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(sdf.encode(&WaveletConfig::new().truncation(Some(bad))).is_err());
    }
}

#[test]
fn a_band_is_asked_for_by_name_and_bands_add_up_to_the_grid() {
    let config = WaveletConfig::new().level(1).truncation(None);
    let coeffs = SdfGrid::from_mesh(&bunny(), 32).unwrap().encode(&config).unwrap();
    let whole = coeffs.decode().unwrap();
    let mut sum = vec![0f32; whole.values().len()];
    for id in 0..coeffs.layout().bands() as i32 {
        let name = coeffs.band_name(id);
        assert_eq!(coeffs.layout().band(&name).unwrap(), id);
        let part = coeffs.band(&name).unwrap().decode().unwrap();
        sum.iter_mut().zip(part.values()).for_each(|(sum, part)| *sum += part);
    }
    let worst = whole.values().iter().zip(&sum).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
    let error = coeffs.band("daa7").unwrap_err().to_string();
    assert!(error.contains("daa7") && error.contains("aaa1, aad1"), "{error}");
}

#[test]
fn rows_may_come_in_any_order_but_once() {
    let coeffs = odd_grid().encode(&WaveletConfig::new().level(1)).unwrap();
    let mut rows: Vec<_> = coeffs.indices().iter().copied().zip(coeffs.values().iter().copied()).rev().collect();
    let build = |rows: &[([i32; 4], f32)]| {
        let (indices, values) = rows.iter().copied().unzip();
        SparseWavelet::new(coeffs.layout().clone(), indices, values)
    };
    assert_eq!(build(&rows).unwrap(), coeffs);
    rows.push(rows[7]);
    assert!(build(&rows).unwrap_err().to_string().contains("twice"));
    rows.pop();
    rows[7].0[1] = 1000;
    assert!(build(&rows).unwrap_err().to_string().contains("1000"));
}

#[test]
fn normalised_features_have_unit_scale_and_come_back() {
    let sdf = SdfGrid::from_mesh(&bunny(), 32).unwrap();
    let coeffs = sdf.encode(&WaveletConfig::new().level(2).truncation(None)).unwrap();
    let norm = BandNormalization::fit([&coeffs]).unwrap();
    assert!(norm.mean[0].abs() > 1.0, "the approximation is far from unit scale to begin with");
    let normalised = coeffs.clone().with_normalization(norm).unwrap();
    let packed = normalised.to_sparse_tensor(&Device::Cpu).unwrap();
    let features = packed.features().to_vec2::<f32>().unwrap();
    let own: Vec<f32> = coeffs
        .indices()
        .iter()
        .filter(|row| row[3] == 0)
        .map(|row| {
            let site = packed.coords().iter().position(|c| c[1..] == [2 * row[2], 2 * row[1], 2 * row[0]]).unwrap();
            features[site][0]
        })
        .collect();
    let mean = own.iter().sum::<f32>() / own.len() as f32;
    let variance = own.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / own.len() as f32;
    assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
    let back = SparseWavelet::from_sparse_tensor(&packed, 0, normalised.layout()).unwrap();
    assert_eq!(back.indices(), coeffs.indices());
    assert!(back.values().iter().zip(coeffs.values()).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn coefficients_are_saved_with_all_that_decoding_needs() {
    let folder = Folder::new("coefficients");
    let coeffs = SdfGrid::from_mesh(&bunny(), 24).unwrap().encode(&WaveletConfig::new().level(1)).unwrap();
    let norm = BandNormalization::fit([&coeffs]).unwrap();
    let coeffs = coeffs.with_normalization(norm).unwrap();
    for name in ["bunny.safetensors", "bunny.npz"] {
        let path = folder.join(name);
        coeffs.save(&path).unwrap();
        assert_eq!(SparseWavelet::load(&path).unwrap(), coeffs, "{name}");
        // A file that is cut short or has a changed byte gives an error or valid coefficients, never a panic.
        let bytes = std::fs::read(&path).unwrap();
        for cut in (0..bytes.len()).step_by(bytes.len() / 50) {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(SparseWavelet::load(&path).is_err(), "{name} cut to {cut} bytes");
        }
        for at in (0..bytes.len().min(2000)).step_by(7) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x5f;
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(read) = SparseWavelet::load(&path) {
                read.decode().ok();
            }
        }
    }
    assert!(coeffs.save("bunny.zip").unwrap_err().to_string().contains("safetensors, npz"));
    assert!(SparseWavelet::load("missing.npz").is_err());
}

#[test]
fn a_file_that_announces_a_grid_beyond_memory_is_an_error_to_decode_and_to_pack() {
    // With this wavelet one sample along an axis has 20 coefficients, so a grid of 17 GB would take 30 TB on the way.
    let frame = Frame { shape: [1, 1, u32::MAX as usize], ..odd_grid().frame() };
    let layout = WaveletLayout::new(frame, Wavelet::from_name("db20").unwrap(), Mode::Zero, 1).unwrap();
    let huge = SparseWavelet::new(layout, vec![[0; 4]], vec![1.0]).unwrap();
    let folder = Folder::new("huge");
    for name in ["huge.safetensors", "huge.npz"] {
        let path = folder.join(name);
        huge.save(&path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 2000, "{name} is small");
        let read = SparseWavelet::load(&path).unwrap();
        let refused = read.decode().unwrap_err();
        assert!(matches!(refused, Error::Memory { op: "decode", needed: 30_000_000_000_000.., .. }), "{refused}");
        assert!(refused.to_string().contains("a grid of [1, 1, 4294967295] samples needs"), "{refused}");
        let refused = read.to_sparse_tensor(&Device::Cpu).unwrap_err();
        assert!(
            matches!(refused, Error::Memory { op: "to_sparse_tensor", needed: 3_000_000_000_000.., .. }),
            "{refused}"
        );
    }
}

#[test]
fn the_gradient_of_a_decoded_grid_is_the_transpose() {
    for (mode, normalise) in [(Mode::Periodization, true), (Mode::Symmetric, false)] {
        let config = WaveletConfig::new().level(2).mode(mode).truncation(None);
        let coeffs = odd_grid().encode(&config).unwrap();
        let norm = BandNormalization::fit([&coeffs]).unwrap();
        let coeffs = if normalise { coeffs.with_normalization(norm).unwrap() } else { coeffs };
        let one = coeffs.to_sparse_tensor(&Device::Cpu).unwrap();
        let batch = SparseConvTensor::cat_batch(&[one.clone(), one]).unwrap();
        let features = candle_core::Var::from_tensor(batch.features()).unwrap();
        let batch = batch.replace_feature(features.as_tensor().clone()).unwrap();
        let grids = decode_features(&batch, coeffs.layout()).unwrap();
        assert_eq!(grids.dims(), [2, 21, 18, 15]);
        let decoded = coeffs.decode().unwrap();
        let second: Vec<f32> = grids.get(1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(second.iter().zip(decoded.values()).all(|(a, b)| (a - b).abs() < 1e-5));
        // The grid is linear in the features, so a step along any direction changes a weighted sum by exactly gradient · direction.
        let mut rng = StdRng::seed_from_u64(7);
        let mut random = |shape: &candle_core::Shape| {
            let values: Vec<f32> = (0..shape.elem_count()).map(|_| rng.random_range(-1.7..1.7)).collect();
            candle_core::Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let weights = random(grids.shape());
        let loss = |grids: &candle_core::Tensor| (grids * &weights).unwrap().sum_all().unwrap();
        let gradient = loss(&grids).backward().unwrap().get(features.as_tensor()).unwrap().clone();
        let direction = random(features.shape());
        let moved = batch.replace_feature((features.as_tensor() + &direction).unwrap()).unwrap();
        let moved = loss(&decode_features(&moved, coeffs.layout()).unwrap()).to_scalar::<f32>().unwrap();
        let step = moved - loss(&grids).to_scalar::<f32>().unwrap();
        let along = (gradient * direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((step - along).abs() < 1e-3 * step.abs().max(10.0), "{}: {step} against {along}", mode.name());
    }
}

#[test]
fn signs_hold_for_holes_overlaps_and_inside_out_meshes() {
    let ball = shapes::sphere(0.5).to_mesh(24).unwrap();
    let wanted = SdfGrid::from_mesh(&ball, 32).unwrap();
    assert_eq!(wanted.sign_report().unwrap().guessed, 0);
    // The mesh is inside out.
    let flipped =
        Mesh::new(ball.vertices().to_vec(), ball.faces().iter().map(|&[a, b, c]| [a, c, b]).collect()).unwrap();
    assert!(largest_difference(&SdfGrid::from_mesh(&flipped, 32).unwrap(), &wanted) < 1e-6);
    // A few triangles are missing: the middle is still inside, and some samples near the hole are marked as guesses.
    let holed = Mesh::new(ball.vertices().to_vec(), ball.faces()[20..].to_vec()).unwrap();
    assert!(!holed.is_closed() && !holed.boundary_edges().is_empty());
    let holed = SdfGrid::from_mesh(&holed, 32).unwrap();
    let report = holed.sign_report().unwrap();
    assert!(!report.closed && report.guessed > 0 && report.guessed < 1000, "{report:?}");
    let differing = holed.values().iter().zip(wanted.values()).filter(|(a, b)| (**a < 0.0) != (**b < 0.0)).count();
    assert!(differing < 100, "{differing} signs changed by a hole of twenty triangles");
    // Two overlapping copies: the lens they share is inside too.
    let shifted = ball.map_vertices(|[x, y, z]| [x + 0.4, y, z]).unwrap();
    let n = ball.vertices().len() as u32;
    let both = Mesh::new(
        [ball.vertices(), shifted.vertices()].concat(),
        ball.faces().iter().copied().chain(shifted.faces().iter().map(|f| f.map(|v| v + n))).collect(),
    )
    .unwrap();
    assert_eq!(both.components().len(), 2);
    let sdf = SdfGrid::from_mesh(&both, 33).unwrap();
    let middle = (16 * 33 + 16) * 33 + 16;
    assert!(sdf.values()[middle] < 0.0, "the lens is inside");
}

#[test]
fn grids_keep_their_place_and_truncation() {
    let mesh = bunny();
    let config = wavemesh::sdf::SdfConfig::new().shape([40, 24, 33]).truncation(0.1);
    let sdf = SdfGrid::from_mesh_with(&mesh, &config).unwrap();
    assert_eq!(sdf.shape(), [40, 24, 33]);
    assert!(sdf.values().iter().all(|v| v.abs() <= 0.1) && sdf.values().contains(&0.1));
    let compared = MeshComparison::new(&sdf.to_mesh().unwrap(), &mesh, 2000, 1).unwrap();
    assert!(compared.chamfer() < 0.3 && compared.hausdorff() < 1.5, "{} {}", compared.chamfer(), compared.hausdorff());
    for shape in [[1, 8, 8], [0, 8, 8], [usize::MAX, 2, 2]] {
        assert!(SdfGrid::from_mesh_with(&mesh, &wavemesh::sdf::SdfConfig::new().shape(shape)).is_err());
    }
}

#[test]
fn marching_cubes_is_watertight_on_noise() {
    // Noise inside a border of positive values contains all 256 cases, also the ambiguous ones.
    let mut state = 1u64;
    let mut values = vec![1.0f32; 24 * 24 * 24];
    for (place, value) in values.iter_mut().enumerate() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let inner = [place / 576, place / 24 % 24, place % 24].iter().all(|&c| c > 0 && c < 23);
        *value = if inner { (state >> 40) as f32 / (1 << 23) as f32 - 1.0 } else { 1.0 };
    }
    let mesh = SdfGrid::from_values(values, [24; 3]).unwrap().to_mesh().unwrap();
    assert!(mesh.faces().len() > 10_000);
    assert!(mesh.is_closed());
    assert!(mesh.is_watertight(), "an edge is used by more than two triangles");
}

#[test]
fn solids_have_their_volumes() {
    use std::f32::consts::PI;
    use wavemesh::sdf::shapes::*;
    let close = |solid: Solid, volume: f32, what: &str| {
        let mesh = solid.to_mesh(96).unwrap();
        assert!(mesh.is_watertight(), "{what}");
        let got = mesh.volume();
        assert!((got - volume).abs() < 0.02 * volume, "{what}: {got}, expected {volume}");
    };
    close(sphere(0.7), 4.0 / 3.0 * PI * 0.343, "sphere");
    close(cuboid([0.6, 0.4, 0.5]), 8.0 * 0.12, "cuboid");
    close(torus(0.6, 0.2), 2.0 * PI * PI * 0.6 * 0.04, "torus");
    close(cylinder(0.5, 0.6), PI * 0.25 * 1.2, "cylinder");
    close(capsule([0.0, 0.0, -0.4], [0.0, 0.0, 0.4], 0.3), PI * 0.09 * 0.8 + 4.0 / 3.0 * PI * 0.027, "capsule");
    close(cone(0.6, 0.7), PI * 0.36 * 1.4 / 3.0, "cone");
    let round = Superformula { m: 0.0, n1: 1.0, n2: 1.0, n3: 1.0 };
    close(supershape(round, round, 0.7), 4.0 / 3.0 * PI * 0.343, "a supershape that is a ball");
    close(cuboid([0.5; 3]).difference(cuboid([0.25, 0.25, 1.0])), 1.0 - 0.25, "a box with a hole");
    close(cuboid([0.5; 3]).union(cuboid([0.2; 3]).translate([0.5, 0.0, 0.0])), 1.0 + 0.032, "a box with a bump");
    close(
        cuboid([0.6, 0.2, 0.2]).rotate(wavemesh::mesh::Axis::Z, PI / 2.0).intersection(cuboid([0.2, 0.6, 0.3])),
        8.0 * 0.024,
        "a turned box",
    );
    close(sphere(0.35).scale(2.0), 4.0 / 3.0 * PI * 0.343, "a scaled ball");
}
