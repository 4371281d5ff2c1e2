//! No argument ends the process: values that are too large or make no sense give an error, also when memory is short.

use std::fmt::Debug;
use std::io::Write;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use rand::{Rng, SeedableRng};
use wavemesh::Result;
use wavemesh::diffusion::{BetaSchedule, LossHistory, NoiseSchedule};
use wavemesh::mesh::MeshFormat;
use wavemesh::prelude::*;
use wavemesh::sdf::{DistanceQuery, Frame, SdfSign};
use wavemesh::train::chamfer_matrix;
use wavemesh::wavelet::{NdArray, WaveletCoeffs};

/// The variable that tells the test's child process that memory is short.
const SHORT: &str = "WAVEMESH_TEST_SHORT_OF_MEMORY";

fn refused<T: Debug>(what: &str, result: Result<T>) {
    match result {
        Err(Error::Argument { .. } | Error::Memory { .. } | Error::Shape { .. } | Error::Unknown { .. }) => {}
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => panic!("{what} is accepted"),
    }
}

fn vb() -> VarBuilder<'static> {
    VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu)
}

fn cube() -> Mesh {
    shapes::cuboid([0.5; 3]).to_mesh(16).unwrap()
}

#[test]
fn sizes_beyond_any_machine_are_refused() {
    for n in [1 << 20, usize::MAX / 4, usize::MAX] {
        refused("from_mesh", SdfGrid::from_mesh(&cube(), n));
        refused("from_fn", SdfGrid::from_fn([n; 3], |_| 1.0));
        refused("to_grid", shapes::sphere(0.5).to_grid(n).map(|grid| grid.shape()));
    }
    for n in [1 << 60, usize::MAX] {
        refused("NoiseSchedule", NoiseSchedule::new(BetaSchedule::Linear, n, 1e-4, 0.02));
        refused("GaussianDiffusion", GaussianDiffusion::new(&DiffusionConfig::new().timesteps(n), &Device::Cpu));
        refused("LossHistory", LossHistory::new(n));
        refused("BatchNorm", BatchNorm::new(n, vb()));
        refused("UNetConfig", WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[n]), 0, &Device::Cpu).map(drop));
        refused("UNetConfig", WaveMeshUNet::seeded(&UNetConfig::plain(n, 1, &[8]), 0, &Device::Cpu).map(drop));
    }
    refused("SubMConv3d", SubMConv3d::new(1 << 30, 1 << 30, 3, ConvConfig::default(), vb()).map(drop));
    refused("SparseConv3d", SparseConv3d::new(1, usize::MAX, 3, ConvConfig::default(), vb()).map(drop));
    let haar = Wavelet::from_name("haar").unwrap();
    refused("thirty axes", wavedecn(&[1f32], &[1; 30], &haar, Mode::Periodization, 1));
    let long = Wavelet::from_name("bior6.8").unwrap();
    refused("sixteen axes that grow", wavedecn(&[1f32], &[1; 16], &long, Mode::Symmetric, 1));
    refused("a picture", wavemesh::notebook::Picture::from_rgb(u32::MAX, u32::MAX, vec![0; 3]));
    let layout = shapes::sphere(0.5).to_grid(16).unwrap().encode(&WaveletConfig::default()).unwrap().layout().clone();
    assert_eq!(layout.band_level(i32::MIN), layout.level());
    assert_eq!(layout.band_name(i32::MAX), "no band 2147483647");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for eps in [f64::NAN, -1.0, f64::INFINITY] {
        refused("eps", BatchNorm::with_config(4, BatchNormConfig { eps, ..Default::default() }, vb()).map(drop));
    }
    refused("channels", BatchNorm::new(0, vb()).map(drop));
    refused("timesteps", LossHistory::new(0));
    let var = || vec![candle_core::Var::zeros(3, DType::F32, &Device::Cpu).unwrap()];
    refused("no parameters", AdamW::new(AdamWConfig::default(), Vec::new()));
    for beta in [f64::NAN, 1.0, -0.1] {
        refused("beta", AdamW::new(AdamWConfig::new().beta2(beta), var()));
    }
    refused("a NaN point", chamfer_matrix(&[vec![[0.0; 3], [f32::NAN, 0.0, 0.0]]], &[vec![[0.0; 3]]]));
    let frame = SdfGrid::from_fn([4; 3], |[x, _, _]| x).unwrap().frame();
    let spoilt: [fn(&mut Frame); 4] =
        [|f| f.origin[1] = f32::NAN, |f| f.spacing[0] = 0.0, |f| f.scale = f32::NAN, |f| f.spacing[2] = f32::INFINITY];
    for spoil in spoilt {
        let mut frame = frame;
        spoil(&mut frame);
        refused("a frame", SdfGrid::with_frame(vec![0.0; 64], frame));
    }
    let array = |shape: &[usize]| NdArray { shape: shape.to_vec(), data: vec![0f32; shape.iter().product()] };
    let haar = Wavelet::from_name("haar").unwrap();
    let coeffs = |shape: Vec<usize>| WaveletCoeffs {
        shape,
        wavelet: haar.clone(),
        mode: Mode::Periodization,
        axes: vec![0],
        approx: array(&[4]),
        details: vec![vec![array(&[4])]],
    };
    assert_eq!(waverecn(&coeffs(vec![7])).unwrap().shape, [8], "an odd length comes back with one sample more");
    for shape in [vec![6], vec![9], vec![8, 1], vec![]] {
        refused("another shape", waverecn(&coeffs(shape)));
    }
    let picture = wavemesh::notebook::Picture::from_rgb(1, 1, vec![0; 3]).unwrap();
    refused("a picture's extension", picture.save(std::env::temp_dir().join("wavemesh-picture.jpg")));
}

#[test]
fn a_message_says_what_was_met_first_and_what_was_expected_then() {
    let haar = Wavelet::from_name("haar").unwrap();
    let error = wavedecn(&[0f32; 10], &[3, 4], &haar, Mode::Periodization, 1).unwrap_err();
    assert!(matches!(&error, Error::Shape { got, .. } if *got == [10]), "{error}");
    assert!(error.to_string().contains("[3, 4]"), "{error}");
}

/// Runs in the child process of the next test: a machine with 4 GB would give the same result, and the requests need more.
#[test]
fn where_memory_is_short_the_error_says_how_much_was_asked() {
    if std::env::var_os(SHORT).is_none() {
        return;
    }
    let needs = |what: &str, result: Result<()>| match result {
        Err(error @ Error::Memory { .. }) => assert!(error.to_string().contains("GB of memory"), "{error}"),
        other => panic!("{what}: {other:?}"),
    };
    needs("from_mesh", SdfGrid::from_mesh(&cube(), 1200).map(drop));
    needs("from_fn", SdfGrid::from_fn([1200; 3], |_| 1.0).map(drop));
    let site = |grid: [usize; 3], batch| {
        let features = Tensor::ones((1, 8), DType::F32, &Device::Cpu).unwrap();
        SparseConvTensor::from_coords(features, vec![[0, 5, 5, 5]], grid, batch).unwrap()
    };
    needs("dense", site([600; 3], 1).dense().map(drop));
    needs("batch_counts", site([8; 3], i32::MAX as usize).batch_counts().map(drop));
    needs("NoiseSchedule", NoiseSchedule::new(BetaSchedule::Cosine, 1 << 30, 1e-4, 0.02).map(drop));
    needs("SubMConv3d", SubMConv3d::new(1 << 14, 1 << 14, 3, ConvConfig::default(), vb()).map(drop));
    let wide = UNetConfig::plain(1, 1, &[1 << 12, 1 << 14]);
    needs("WaveMeshUNet", WaveMeshUNet::seeded(&wide, 0, &Device::Cpu).map(drop));
}

#[test]
#[cfg(target_os = "linux")]
fn a_limit_on_memory_ends_no_process() {
    let test = "where_memory_is_short_the_error_says_how_much_was_asked";
    let limited = format!("ulimit -v 5000000 && exec \"$0\" --exact {test} --test-threads 1");
    let own = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh").args(["-c", &limited]).arg(own).env(SHORT, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}\n{text}", output.status);
}

/// Triangles that lie across each other at nearly the same place: no tree separates them.
fn tangle(count: u32) -> Mesh {
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let mut corner = |at: [f32; 3]| at.map(|c| c + rng.random_range(-1e-3..1e-3));
    let corners = (0..count).flat_map(|_| [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.]].map(&mut corner)).collect();
    Mesh::new(corners, (0..count).map(|i| [3 * i, 3 * i + 1, 3 * i + 2]).collect()).unwrap()
}

#[test]
fn a_tangle_of_triangles_is_an_error_and_not_hours_of_work() {
    let mesh = tangle(100_000);
    let says =
        |what: &str, error: Error| assert!(error.to_string().contains("overlapping triangles"), "{what}: {error}");
    for sign in [SdfSign::Signed, SdfSign::Unsigned] {
        let config = SdfConfig::new().shape([8; 3]).sign(sign);
        says("from_mesh", SdfGrid::from_mesh_with(&mesh, &config).unwrap_err());
    }
    let union = SdfConfig::new().shape([8; 3]).union(true);
    says("union", SdfGrid::from_mesh_with(&mesh, &union).unwrap_err());
    let points: Vec<[f32; 3]> = (0..2000).map(|i| [i as f32 * 1e-3 - 1.0, -0.4, -0.6]).collect();
    let query = DistanceQuery::new(&mesh);
    says("distance", query.distance(&points).unwrap_err());
    says("signed_distance", query.signed_distance(&points).unwrap_err());
    says("MeshComparison", MeshComparison::new(&mesh, &cube(), 2000, 0).unwrap_err());
}

#[test]
fn triangles_that_stand_there_any_number_of_times_count_as_one() {
    let corners = vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [0., 0., 1.]];
    let faces = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]];
    let mesh = |times: usize| Mesh::new(corners.clone(), faces.repeat(times)).unwrap();
    for sign in [SdfSign::Signed, SdfSign::Unsigned] {
        let grid = |times| SdfGrid::from_mesh_with(&mesh(times), &SdfConfig::new().shape([17; 3]).sign(sign)).unwrap();
        assert_eq!(grid(1).values(), grid(50_000).values(), "{sign:?}");
    }
    let compared = MeshComparison::new(&mesh(1), &mesh(50_000), 500, 0).unwrap();
    assert!(compared.chamfer() < 1e-6, "{}", compared.chamfer());
}

#[test]
fn a_face_of_many_corners_is_a_disk_of_triangles() {
    let n = 20_000;
    let mut text = String::new();
    for i in 0..n {
        let (sin, cos) = (std::f64::consts::TAU * f64::from(i) / f64::from(n)).sin_cos();
        text += &format!("v {cos} {sin} 0\n");
    }
    text += &format!("f{}\n", (1..=n).map(|i| format!(" {i}")).collect::<String>());
    let disk = Mesh::from_bytes(text.as_bytes(), MeshFormat::Obj).unwrap();
    assert_eq!(disk.faces().len(), n as usize - 2);
    assert!((disk.area() - std::f32::consts::PI).abs() < 1e-4 && disk.notes().is_empty());
    let grid = SdfGrid::from_mesh_with(&disk, &SdfConfig::new().shape([9; 3]).sign(SdfSign::Unsigned)).unwrap();
    assert!(grid.values()[4 * 81 + 4 * 9 + 4].abs() < 1e-6, "the middle lies on it");
}

/// A glTF with one buffer of zeros; its accessors (count, sparse count) read them as bytes, and its primitives are strips of the first
/// accessor.
fn strips(bytes: usize, accessors: &str, primitives: usize) -> Vec<u8> {
    let primitive = r#"{"attributes":{"POSITION":1},"indices":0,"mode":5}"#;
    let primitives = vec![primitive; primitives].join(",");
    let data = "A".repeat(bytes / 3 * 4);
    format!(
        r#"{{"asset":{{"version":"2.0"}},"meshes":[{{"primitives":[{primitives}]}}],"accessors":[{accessors}],
        "bufferViews":[{{"buffer":0,"byteLength":{bytes}}}],
        "buffers":[{{"byteLength":{bytes},"uri":"data:application/octet-stream;base64,{data}"}}]}}"#
    )
    .into_bytes()
}

#[test]
fn small_files_that_stand_for_endless_work_are_refused() {
    let says = |bytes: &[u8], format, part: &str| {
        let error = Mesh::from_bytes(bytes, format).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let position = r#"{"bufferView":0,"componentType":5126,"count":1,"type":"VEC3"}"#;
    let bytes = 999_999;
    let indices = format!(r#"{{"bufferView":0,"componentType":5121,"count":{bytes},"type":"SCALAR"}},{position}"#);
    says(&strips(bytes, &indices, 10), MeshFormat::Gltf, "without triangles");
    says(&strips(bytes, &indices, 200), MeshFormat::Gltf, "the same numbers too often");
    let part = r#"{"bufferView":0,"componentType":5121}"#;
    let sparse = format!(
        r#"{{"componentType":5121,"count":1,"type":"SCALAR","sparse":{{"count":9,"indices":{part},"values":{part}}}}},{position}"#
    );
    says(&strips(bytes, &sparse, 1), MeshFormat::Gltf, "has 9 sparse values");

    // A hundred megabytes of line ends.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..100).for_each(|_| packed.write_all(&[b'\n'; 1 << 20]).unwrap());
    says(&packed.finish().unwrap(), MeshFormat::Obj, "decompress it by hand");
}
