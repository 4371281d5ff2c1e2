//! From a mesh file to sparse wavelet coefficients and back, on the bunny.

use std::path::{Path, PathBuf};

use candle_core::Device;
use wavemesh::mesh::Mesh;
use wavemesh::mesh::metrics::{MeshComparison, iou};
use wavemesh::sdf::SdfGrid;
use wavemesh::wavelet::{SparseWavelet, Threshold, WaveletConfig};

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
    let config = WaveletConfig { threshold: Threshold::Lossless, ..Default::default() };
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
