//! The ready-made backbones compute the same as their originals, from the originals' files.

use std::collections::HashMap;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use wavemesh::backbones::*;
use wavemesh::import::{Checkpoint, ImportOptions, ImportReport, WeightFormat};
use wavemesh::sparse::*;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/backbones{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Saved tensors of one network.
struct Saved(HashMap<String, Tensor>, &'static str);

impl Saved {
    fn of(network: &'static str) -> Self {
        Self(candle_core::safetensors::load(fixture(".safetensors"), &DEVICE).unwrap(), network)
    }

    fn get(&self, what: &str) -> Tensor {
        self.0[&format!("{}/{what}", self.1)].clone()
    }

    fn input(&self, shape: [usize; 3]) -> SparseConvTensor {
        SparseConvTensor::new(self.get("features"), self.get("indices"), shape, 2).unwrap()
    }

    /// The largest difference from the saved output, as a share of its largest value.
    fn difference(&self, y: &Tensor) -> f32 {
        let expected = self.get("output");
        assert_eq!(y.dims(), expected.dims());
        let most = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        most(&(y - &expected).unwrap()) / most(&expected)
    }
}

/// A network on variables, with the weights of a file.
fn loaded<N>(
    build: impl FnOnce(VarBuilder) -> wavemesh::Result<N>,
    file: &str,
    format: Option<WeightFormat>,
) -> (N, ImportReport) {
    let variables = VarMap::new();
    let net = build(VarBuilder::from_varmap(&variables, DType::F32, &DEVICE)).unwrap();
    let mut options = ImportOptions::new();
    options.format = format;
    let report = Checkpoint::open(fixture(file)).unwrap().load_into(&variables, &options).unwrap();
    assert!(report.unread.is_empty(), "{report}");
    (net, report)
}

fn sites(indices: &Tensor) -> Vec<[i32; 4]> {
    let rows = indices.to_device(&Device::Cpu).unwrap().to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap();
    rows.iter().map(|row| [row[0] as i32, row[1] as i32, row[2] as i32, row[3] as i32]).collect()
}

#[test]
fn voxel_res_backbone_8x_is_that_of_spconv() {
    let saved = Saved::of("voxel_res");
    let config = VoxelResConfig::new().in_channels(3).channels([4, 4, 6, 6]).out_channels(8).last_pad(0);
    let (net, report) = loaded(|vb| VoxelResBackBone8x::new(&config, vb), "_voxel_res.pth", None);
    assert_eq!(report.prefix, "model_state.backbone_3d.");
    let found = net.features(&saved.input([41, 32, 28]), false).unwrap();
    assert_eq!(found.encoded.spatial_shape(), [2, 4, 4]);
    assert_eq!(found.scales.each_ref().map(|x| x.spatial_shape()[0]), [41, 21, 11, 5]);
    assert_eq!(found.encoded.coords(), sites(&saved.get("output_indices")));
    let off = saved.difference(found.encoded.features());
    assert!(off < 2e-6, "{off}");
}

#[test]
fn spunet_is_that_of_spconv_in_values_and_turned_weights() {
    let saved = Saved::of("spunet");
    let config = SpUNetConfig::new()
        .in_channels(3)
        .num_classes(5)
        .base_channels(4)
        .channels([4, 6, 6, 8, 8, 6, 4, 4])
        .layers([1, 1, 2, 1, 1, 1, 1, 1]);
    let (net, report) = loaded(|vb| SpUNet::new(&config, vb), "_spunet.pth", None);
    let turned: Vec<_> = report.turned().collect();
    assert_eq!(turned.len(), 5, "four shortcuts of the decoder and the last layer: {turned:?}");
    let x = saved.input([25, 30, 27]);
    let y = net.forward(&x).unwrap();
    assert!(y.same_sites(&x));
    // The saved rows are in ascending order.
    let y = SparseConvTensor::coalesce(y.features(), &y.indices().unwrap(), [25, 30, 27], 2).unwrap();
    let off = saved.difference(y.features());
    assert!(off < 2e-6, "{off}");
    assert!(SpUNet::new(&config.layers([1; 3]), VarBuilder::zeros(DType::F32, &DEVICE)).is_err());
}

#[test]
fn minkunet_is_that_of_minkowski_engine_s_definitions_at_negative_coordinates_too() {
    let saved = Saved::of("minkunet");
    let planes = [4, 6, 6, 8, 8, 6, 4, 4];
    let config = MinkUNetConfig::new().in_channels(3).num_classes(5).init_dim(4).planes(planes).layers([1; 8]);
    let (net, _) = loaded(|vb| MinkUNet::new(&config, vb), "_minkunet.pth", Some(WeightFormat::Minkowski));
    let (x, origin) = SparseConvTensor::from_signed(saved.get("features"), &saved.get("indices"), 16).unwrap();
    assert_eq!(origin, [-16, -16, -16]);
    let off = saved.difference(net.forward(&x).unwrap().features());
    assert!(off < 2e-6, "{off}");
}

#[test]
fn a_training_pass_reaches_every_parameter() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &DEVICE);
    let planes = [4, 4, 4, 4, 4, 4, 4, 4];
    let config = MinkUNetConfig::new().in_channels(3).num_classes(2).init_dim(4).planes(planes).layers([1; 8]);
    let net = MinkUNet::new(&config, vb).unwrap();
    let saved = Saved::of("spunet");
    let y = net.forward_t(&saved.input([25, 30, 27]), true).unwrap();
    let grads = y.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for (name, var) in variables.data().lock().unwrap().iter() {
        let trained = !name.contains("running_");
        assert_eq!(grads.get(var).is_some(), trained, "{name}");
    }
    // The same pass without a tape.
    let y = no_grad(|| net.forward(&saved.input([25, 30, 27]))).unwrap();
    assert!(!y.features().track_op());
}

#[test]
fn the_configurations_count_the_parameters_of_their_originals() {
    let count = |build: &dyn Fn(VarBuilder)| {
        let variables = VarMap::new();
        build(VarBuilder::from_varmap(&variables, DType::F32, &DEVICE));
        let data = variables.data().lock().unwrap();
        data.iter().filter(|(name, _)| !name.contains("running_")).map(|(_, var)| var.elem_count()).sum::<usize>()
    };
    // Counts computed in Python from the originals' definitions: see fixtures/backbones.py.
    let counts: HashMap<String, usize> =
        serde_json::from_str(&std::fs::read_to_string(fixture("_counts.json")).unwrap()).unwrap();
    let found = count(&|vb| drop(VoxelResBackBone8x::new(&VoxelResConfig::default(), vb).unwrap()));
    assert_eq!(found, counts["VoxelResBackBone8x"]);
    let found = count(&|vb| drop(SpUNet::new(&SpUNetConfig::default(), vb).unwrap()));
    assert_eq!(found, counts["SpUNet"]);
}
