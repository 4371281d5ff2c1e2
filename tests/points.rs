//! Points and voxels: the results of spconv's PointToVoxel, torch's interpolation and numpy's unique.

mod folder;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use wavemesh::points::*;
use wavemesh::sparse::SparseConvTensor;

use folder::Folder;

fn saved() -> HashMap<String, Tensor> {
    let path = format!("{}/tests/fixtures/points.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn config() -> VoxelConfig {
    VoxelConfig::new().voxel_size([0.4, 0.4, 0.8]).range([0.0, -2.4, -1.6, 6.4, 2.4, 1.6])
}

#[test]
fn voxels_and_their_means_are_those_of_spconv() {
    let saved = saved();
    let limited = config().max_points_per_voxel(3).max_voxels(120);
    for (name, config) in [("all", config()), ("limited", limited)] {
        let get = |what: &str| &saved[&format!("{name}/{what}")];
        let voxels = Voxelizer::new(config).unwrap().voxelize(&[&saved["points"]]).unwrap();
        let sites: Vec<[i32; 4]> = get("indices")
            .to_dtype(DType::I64)
            .unwrap()
            .to_vec2::<i64>()
            .unwrap()
            .iter()
            .map(|s| [0, s[0] as i32, s[1] as i32, s[2] as i32])
            .collect();
        assert_eq!(voxels.tensor.coords(), sites, "{name}");
        assert_eq!(voxels.tensor.spatial_shape(), [4, 12, 16]);
        let counts: Vec<i64> = voxels.counts.iter().map(|&n| n.into()).collect();
        assert_eq!(counts, get("counts").to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap(), "{name}");
        assert!(difference(voxels.tensor.features(), get("mean")) < 1e-6, "{name}");
        // The voxel of a point contains the point.
        for (point, row) in saved["points"].to_vec2::<f32>().unwrap().iter().zip(&voxels.inverse) {
            let cell = [(point[2] + 1.6) / 0.8, (point[1] + 2.4) / 0.4, point[0] / 0.4].map(|v| v.floor() as i32);
            if let Some(row) = row {
                assert_eq!(voxels.tensor.coords()[*row as usize][1..], cell);
            }
        }
    }
}

#[test]
fn clouds_of_a_batch_keep_apart_and_come_back() {
    let points = &saved()["points"];
    let (a, b) = (points.narrow(0, 0, 300).unwrap(), points.narrow(0, 300, 600).unwrap());
    let voxelizer = Voxelizer::new(config().reduce(Reduce::First)).unwrap();
    let both = voxelizer.voxelize(&[&a, &b]).unwrap();
    let single = voxelizer.voxelize(&[&b]).unwrap();
    assert_eq!(both.tensor.batch_size(), 2);
    assert_eq!(both.tensor.batch_counts().unwrap()[1], single.tensor.len());
    let back = both.devoxelize(&both.tensor, Interpolation::Nearest).unwrap();
    assert_eq!(back.dims(), [900, 5]);
    // Each point gets the first point of its voxel, or zeros out of range.
    for (row, (point, voxel)) in back.to_vec2::<f32>().unwrap().iter().zip(&both.inverse).enumerate() {
        let first = both.inverse.iter().position(|other| other == voxel).unwrap();
        let expected = points.narrow(0, first, 1).unwrap().squeeze(0).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(point, &if voxel.is_some() { expected } else { vec![0.0; 5] }, "point {row}");
    }
    // An interpolated value lies between the smallest and the largest value.
    let blend = both.devoxelize(&both.tensor, Interpolation::TrilinearOccupied).unwrap();
    let [low, high] = [points.min(0).unwrap(), points.max(0).unwrap()].map(|v| v.to_vec1::<f32>().unwrap());
    for (row, voxel) in blend.to_vec2::<f32>().unwrap().iter().zip(&both.inverse) {
        let inside = row.iter().zip(low.iter().zip(&high)).all(|(v, (l, h))| (l - 1e-5..=h + 1e-5).contains(v));
        assert!(voxel.is_none() || inside, "{row:?}");
    }
    // A network's output may have another order of rows.
    let reversed =
        Tensor::from_vec((0..both.tensor.len() as i64).rev().collect(), both.tensor.len(), &Device::Cpu).unwrap();
    let reversed = both.tensor.select_by_index(&reversed).unwrap();
    assert_eq!(difference(&both.devoxelize(&reversed, Interpolation::Nearest).unwrap(), &back), 0.0);
}

#[test]
fn interpolation_has_torch_s_values_and_gradients() {
    let saved = saved();
    let features = Var::from_tensor(&saved["grid/features"]).unwrap();
    let x = SparseConvTensor::new(features.as_tensor().clone(), saved["grid/indices"].clone(), [5, 6, 7], 2).unwrap();
    for (name, interpolation) in
        [("trilinear", Interpolation::Trilinear), ("occupied", Interpolation::TrilinearOccupied)]
    {
        let y = devoxelize(&x, &saved["grid/positions"], interpolation).unwrap();
        assert!(difference(&y, &saved[&format!("{name}/output")]) < 2e-5, "{name}");
        let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert!(difference(grads.get(&features).unwrap(), &saved[&format!("{name}/grad")]) < 2e-4, "{name}");
    }
    // At a site, every method gives its features.
    let at = x.indices().unwrap().to_dtype(DType::F32).unwrap();
    for interpolation in [Interpolation::Nearest, Interpolation::Trilinear, Interpolation::TrilinearOccupied] {
        assert_eq!(difference(&devoxelize(&x, &at, interpolation).unwrap(), x.features()), 0.0);
    }
    let off =
        Tensor::new(&[[0f32, -9.0, 0.0, 0.0], [1.0, f32::NAN, 0.0, 0.0], [1.0, 1e12, 0.0, 0.0]], &Device::Cpu).unwrap();
    assert_eq!(devoxelize(&x, &off, Interpolation::Trilinear).unwrap().to_vec2::<f32>().unwrap(), [[0.0; 3]; 3]);
}

#[test]
fn quantizing_is_numpy_s_unique() {
    let saved = saved();
    let found = sparse_quantize(&saved["quantize/coords"], 0.7).unwrap();
    assert_eq!(found.tensor().unwrap().to_vec2::<i64>().unwrap(), saved["quantize/cells"].to_vec2::<i64>().unwrap());
    let wide = |list: &[u32]| list.iter().map(|&v| i64::from(v)).collect::<Vec<_>>();
    assert_eq!(wide(&found.index), saved["quantize/index"].to_vec1::<i64>().unwrap());
    assert_eq!(wide(&found.inverse), saved["quantize/inverse"].to_vec1::<i64>().unwrap());
}

#[test]
fn point_files_are_read() {
    let folder = Folder::new("points");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let rows: Vec<u8> = (0..40).flat_map(|v| (v as f32).to_le_bytes()).collect();
    let kitti = PointCloud::load(write("000000.bin", &rows)).unwrap();
    assert_eq!((kitti.len(), kitti.channels()), (10, &["intensity".to_string()][..]));
    assert_eq!(kitti.channel("intensity").unwrap().to_vec1::<f32>().unwrap()[..2], [3.0, 7.0]);
    let nuscenes = PointCloud::load(write("sweep.pcd.bin", &rows)).unwrap();
    assert_eq!((nuscenes.len(), nuscenes.channels().len()), (8, 2));
    let error = PointCloud::load(write("odd.bin", &rows[..36])).unwrap_err().to_string();
    assert!(error.contains("36 bytes") && error.contains("3 columns would fit"), "{error}");
    let ply = b"ply\nformat ascii 1.0\nelement vertex 2\nproperty uchar red\nproperty float x\nproperty float y\nproperty double z\nproperty int label\nend_header\n255 1 2 3 7\n0 4 5 6 8\n";
    let ply = PointCloud::load(write("scene.ply", ply)).unwrap();
    assert_eq!(ply.channels(), ["red", "label"]);
    assert_eq!(ply.points().to_vec2::<f32>().unwrap(), [[1.0, 2.0, 3.0, 255.0, 7.0], [4.0, 5.0, 6.0, 0.0, 8.0]]);
    assert_eq!(ply.bounds().unwrap(), Some([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]));
    let npy = folder.join("cloud.npy");
    kitti.points().write_npy(&npy).unwrap();
    assert_eq!(
        PointCloud::load(&npy).unwrap().points().to_vec2::<f32>().unwrap(),
        kitti.points().to_vec2::<f32>().unwrap()
    );
    // LAS 1.2, point format 2: two points with UTM coordinates, in millimetres.
    let mut las = vec![0u8; 227];
    las[..4].copy_from_slice(b"LASF");
    las[96..100].copy_from_slice(&227u32.to_le_bytes());
    las[104] = 2;
    las[105..107].copy_from_slice(&26u16.to_le_bytes());
    las[107..111].copy_from_slice(&2u32.to_le_bytes());
    for (at, value) in [(131, 0.001), (139, 0.001), (147, 0.001), (155, 450_000.0), (163, 5_400_000.0), (171, 0.0)] {
        las[at..at + 8].copy_from_slice(&f64::to_le_bytes(value));
    }
    for (x, class, red) in [(1000i32, 2u8, 10u16), (1250, 6, 20)] {
        let mut point = [0u8; 26];
        point[..4].copy_from_slice(&x.to_le_bytes());
        point[12..14].copy_from_slice(&500u16.to_le_bytes());
        point[15] = class;
        point[20..22].copy_from_slice(&red.to_le_bytes());
        las.extend(point);
    }
    let cloud = PointCloud::load(write("tile.las", &las)).unwrap();
    assert_eq!(cloud.channels(), ["intensity", "classification", "red", "green", "blue"]);
    let points = cloud.points().to_vec2::<f32>().unwrap();
    assert_eq!(
        points[1],
        [0.25, 0.0, 0.0, 500.0, 6.0, 20.0, 0.0, 0.0],
        "relative to the first point, exact to a millimetre"
    );
    for cut in [10, 226, 240] {
        assert!(PointCloud::load(write("cut.las", &las[..cut])).is_err());
    }
    assert!(PointCloud::load("scene.xyz").unwrap_err().to_string().contains("bin, ply, npy, las"));
}

#[test]
fn settings_and_shapes_that_do_not_fit_are_named() {
    let text = |config| Voxelizer::new(config).unwrap_err().to_string();
    assert!(text(VoxelConfig::new().voxel_size([0.1, 0.0, 0.1])).contains("voxel_size"));
    assert!(text(VoxelConfig::new().range([0.0, 0.0, 0.0, 1.0, -1.0, 1.0])).contains("range"));
    assert!(text(VoxelConfig::new().max_voxels(0)).contains("max_voxels"));
    let voxelizer = Voxelizer::new(VoxelConfig::default()).unwrap();
    assert!(voxelizer.voxelize(&[]).is_err());
    let flat = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
    assert!(voxelizer.voxelize(&[&flat]).unwrap_err().to_string().contains("(points, 3 + C)"));
    let huge = Tensor::new(&[[0f32, 0.0, 0.0], [1e9, 0.0, 0.0]], &Device::Cpu).unwrap();
    assert!(voxelizer.voxelize(&[&huge]).unwrap_err().to_string().contains("voxel_size"));
    // Without a range the grid follows the points; a point with NaN belongs to no voxel.
    let some = Tensor::new(&[[-0.12f32, 0.0, 3.0], [0.31, 0.2, 3.0], [f32::NAN, 0.0, 0.0]], &Device::Cpu).unwrap();
    let voxels = voxelizer.voxelize(&[&some]).unwrap();
    assert_eq!((voxels.tensor.len(), voxels.inverse[2]), (2, None));
}
