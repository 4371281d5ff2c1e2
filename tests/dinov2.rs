//! DINOv2: small networks compute what Hugging Face's transformers compute (fixtures/dinov2.py), from either writer's file.

mod folder;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{VarBuilder, VarMap};
use wavemesh::backbones::{DinoV2, DinoV2Config, FeedForward, resize_picture};
use wavemesh::prelude::{
    Checkpoint, Error, Representation, RepresentationConfig, StageData, UNetConfig, Viewpoint, WaveMeshUNet, shapes,
};
use wavemesh::train::{Augmentation, ContextData, TrainingData};

use folder::Folder;

const NETWORKS: [&str; 3] = ["plain", "registers", "swiglu"];

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/dinov2{name}", env!("CARGO_MANIFEST_DIR"))
}

fn saved() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(".safetensors"), &Device::Cpu).unwrap()
}

fn encoder(file: &str) -> DinoV2 {
    let weights = Checkpoint::open(fixture(file)).unwrap();
    let config = DinoV2Config::of(&weights).unwrap().num_heads(3);
    DinoV2::from_checkpoint(&weights, &config, &Device::Cpu).unwrap()
}

/// The largest difference, as a share of the largest expected value.
fn difference(got: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(got.dims(), expected.dims());
    let most = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    most(&(got - expected).unwrap()) / most(expected)
}

fn message<T>(result: wavemesh::Result<T>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn the_last_hidden_state_is_that_of_transformers_at_every_size() {
    let saved = saved();
    for network in NETWORKS {
        let encoder = encoder(&format!("_{network}.safetensors"));
        for size in ["native", "tall", "wide", "large", "same_count"] {
            let y = encoder.forward(&saved[&format!("pixels/{size}")]).unwrap();
            let off = difference(&y, &saved[&format!("{network}/{size}")]);
            assert!(off < 1e-5, "{network} {size}: {off}");
        }
    }
}

#[test]
fn meta_s_file_gives_the_same_numbers_as_hugging_face_s() {
    let pixels = &saved()["pixels/wide"];
    for network in NETWORKS {
        let [meta, hugging_face] = ["pth", "safetensors"].map(|ending| encoder(&format!("_{network}.{ending}")));
        assert_eq!(meta.config(), hugging_face.config());
        let [meta, hugging_face] = [meta, hugging_face].map(|encoder| encoder.forward(pixels).unwrap());
        assert_eq!(difference(&meta, &hugging_face), 0.0, "{network}");
    }
}

#[test]
fn shapes_in_the_file_tell_the_sizes() {
    let of = |network: &str| {
        DinoV2Config::of(&Checkpoint::open(fixture(&format!("_{network}.safetensors"))).unwrap()).unwrap()
    };
    let plain = DinoV2Config::new().hidden_size(24).num_layers(2).patch_size(4).grid_size(5);
    let plain = plain.feed_forward(FeedForward::Gelu(96));
    assert_eq!(of("plain"), plain);
    assert_eq!(of("registers"), plain.clone().num_registers(3));
    assert_eq!(of("swiglu"), plain.feed_forward(FeedForward::SwiGlu(32)));
}

#[test]
fn a_context_is_the_patches_of_the_normalised_picture() {
    let encoder = encoder("_registers.safetensors");
    let pixels = resize_picture(&saved()["picture"], [12, 20]).unwrap();
    let context = encoder.context(&pixels).unwrap();
    assert_eq!(context.dims(), [1, 3 * 5, 24]);
    let of = |values: &[f32; 3]| Tensor::new(values, &Device::Cpu).unwrap().reshape((1, 3, 1, 1)).unwrap();
    let centred = pixels.broadcast_sub(&of(&[0.485, 0.456, 0.406])).unwrap();
    let y = encoder.forward(&centred.broadcast_div(&of(&[0.229, 0.224, 0.225])).unwrap()).unwrap();
    assert_eq!(difference(&context, &y.i((.., 4..)).unwrap()), 0.0); // behind the class token and three registers
}

#[test]
fn a_training_sample_of_the_generator_has_a_picture_s_patches_and_the_network_reads_them() {
    /// The embedded picture of each shape.
    struct Pictures(Vec<Tensor>);
    impl ContextData for Pictures {
        fn dims(&self) -> [usize; 2] {
            [25, 24]
        }
        fn context(&self, item: usize, _seed: u64) -> wavemesh::Result<Vec<f32>> {
            Ok(self.0[item].flatten_all()?.to_vec1()?)
        }
    }
    let encoder = encoder("_plain.safetensors");
    let picture = |grid: &wavemesh::sdf::SdfGrid| {
        let image = grid.depth_image(Viewpoint { azimuth: 30.0, elevation: 20.0 }, 32).unwrap();
        let grey = Tensor::from_slice(image.pixels(), (1, 1, 32, 32), &Device::Cpu).unwrap();
        encoder.context(&resize_picture(&grey.repeat((1, 3, 1, 1)).unwrap(), [20, 20]).unwrap()).unwrap()
    };
    let grids: Arc<[_]> = [0.3, 0.6].map(|radius| shapes::sphere(radius).to_grid(16).unwrap()).to_vec().into();
    let pictures: Vec<Tensor> = grids.iter().map(picture).collect();
    let config = RepresentationConfig::new().resolution(16).levels(2);
    let representation = Representation::fit(&config, grids.iter()).unwrap();
    let data = StageData::new(&representation, 0, grids, Augmentation::default(), 0.0, &Device::Cpu).unwrap();
    let data = data.with_contexts(Arc::new(Pictures(pictures.clone())), 0.0).unwrap();
    let batch = data.batch(&[1, 0], &[0, 1]).unwrap();
    let context = batch.context.unwrap(); // (2, 25, 24)
    assert_eq!(difference(&context, &Tensor::cat(&[&pictures[1], &pictures[0]], 0).unwrap()), 0.0);

    let channels = batch.x0.channels();
    let config = UNetConfig::plain(channels, channels, &[8, 16]).use_attention(true).attention_residual(true);
    let config = config.num_heads(2).context_dim(24).context_layers([16]);
    let unet = WaveMeshUNet::seeded(&config, 0, &Device::Cpu).unwrap();
    let t = Tensor::new(&[10u32, 20], &Device::Cpu).unwrap();
    assert!(unet.forward(&batch.x0, &t, Some(&context)).unwrap().same_sites(&batch.x0));
}

#[test]
fn pictures_are_resized_as_by_pytorch_with_antialiasing() {
    let saved = saved();
    for (name, size) in [("smaller", [5, 8]), ("larger", [20, 24])] {
        let expected = saved[&format!("resized/{name}")].clamp(0f32, 1f32).unwrap();
        let off = difference(&resize_picture(&saved["picture"], size).unwrap(), &expected);
        assert!(off < 5e-6, "{name}: {off}");
    }
}

#[test]
fn networks_under_a_prefix_are_found_and_several_are_told_apart() {
    let folder = Folder::new("dinov2_prefix");
    let load = |prefixes: &[&str]| {
        let one = &candle_core::safetensors::load(fixture("_plain.safetensors"), &Device::Cpu).unwrap();
        let under = |prefix| {
            one.iter().map(move |(name, tensor): (&String, &Tensor)| (format!("{prefix}.{name}"), tensor.clone()))
        };
        let all = prefixes.iter().flat_map(under);
        let path = folder.join("weights.safetensors");
        candle_core::safetensors::save(&all.collect::<HashMap<_, _>>(), &path).unwrap();
        DinoV2Config::of(&Checkpoint::open(path).unwrap())
    };
    assert_eq!(load(&["dinov2"]).unwrap().num_layers, 2);
    let several = message(load(&["student", "teacher"]));
    assert!(several.contains("under `student` and `teacher`") && several.contains("Checkpoint::under"), "{several}");
}

#[test]
fn files_of_other_networks_are_refused_by_the_first_tensor_that_does_not_fit() {
    let folder = Folder::new("dinov2_refused");
    let path = folder.join("weights.safetensors");
    let changed = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut tensors = candle_core::safetensors::load(fixture("_plain.safetensors"), &Device::Cpu).unwrap();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let weights = Checkpoint::open(&path).unwrap();
        message(
            DinoV2Config::of(&weights)
                .and_then(|config| DinoV2::from_checkpoint(&weights, &config.num_heads(3), &Device::Cpu)),
        )
    };
    let without = |name: &str| changed(&|tensors| drop(tensors.remove(name).unwrap()));
    let with_shape = |name: &str, shape: &[usize]| {
        changed(&|tensors| drop(tensors.insert(name.into(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap())))
    };
    let place = path.display().to_string();
    for (problem, expected) in [
        (without("embeddings.cls_token"), "`embeddings.cls_token`"),
        (without("embeddings.position_embeddings"), "`embeddings.position_embeddings` is missing"),
        (
            without("encoder.layer.1.attention.attention.key.bias"),
            "`encoder.layer.1.attention.attention.key.bias` is missing",
        ),
        (without("encoder.layer.0.layer_scale2.lambda1"), "`encoder.layer.0.layer_scale2.lambda1` is missing"),
        (without("encoder.layer.0.mlp.fc1.weight"), "`encoder.layer.0.mlp.fc1.weight` is missing"),
        (
            with_shape("embeddings.position_embeddings", &[1, 25, 24]),
            "25 positions, expected one for the class token and a square",
        ),
        (with_shape("embeddings.position_embeddings", &[25, 24]), "shape [25, 24], expected 3 axes"),
        (
            with_shape("embeddings.patch_embeddings.projection.weight", &[24, 1, 4, 4]),
            "[24, 1, 4, 4], but [24, 3, 4, 4]",
        ),
        (
            with_shape("encoder.layer.1.attention.attention.value.weight", &[24, 12]),
            "shape [24, 12], but [24, 24] fits",
        ),
        (
            with_shape("encoder.layer.18446744073709551615.norm1.weight", &[24]),
            "`encoder.layer.2.norm1.weight` is missing",
        ),
    ] {
        assert!(problem.contains(expected) && problem.contains(&place), "{problem}");
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_an_error() {
    let folder = Folder::new("dinov2_cut");
    for (ending, step) in [("safetensors", 1013), ("pth", 1511)] {
        let bytes = std::fs::read(fixture(&format!("_plain.{ending}"))).unwrap();
        let path = folder.join(format!("cut.{ending}"));
        for length in (0..bytes.len()).step_by(step) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = DinoV2::load(&path, &Device::Cpu).unwrap_err();
            assert!(matches!(&error, Error::Format { path: named, .. } if named == Path::new(&path)), "{error}");
        }
    }
    assert!(matches!(DinoV2::load("no/such/file", &Device::Cpu), Err(Error::Io { .. })));
}

#[test]
fn heads_are_asked_for_where_the_width_does_not_tell_them() {
    let problem = message(DinoV2::load(fixture("_plain.safetensors"), &Device::Cpu));
    assert!(problem.contains("hidden_size of 24") && problem.contains("from_checkpoint"), "{problem}");
    let built = |config: DinoV2Config| DinoV2::new(&config, VarBuilder::zeros(DType::F32, &Device::Cpu));
    let tiny = DinoV2Config::new().hidden_size(128).num_layers(1).patch_size(4).grid_size(5);
    assert!(built(tiny.clone()).is_ok());
    assert!(message(built(tiny.clone().num_heads(3))).contains("a divisor of hidden_size 128"));
    assert!(message(built(tiny.clone().num_heads(0))).contains("num_heads is 0"));
    assert!(message(built(tiny.clone().patch_size(0))).contains("patch_size is 0"));
    assert!(message(built(tiny.feed_forward(FeedForward::SwiGlu(0)))).contains("feed_forward is 0"));
}

#[test]
fn pictures_that_do_not_fit_are_refused() {
    let encoder = encoder("_plain.safetensors");
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    for shape in [&[1, 3, 20, 21][..], &[1, 3, 0, 20], &[0, 3, 20, 20], &[1, 1, 20, 20], &[3, 20, 20]] {
        let problem = message(encoder.forward(&zeros(shape)));
        assert!(problem.contains("multiples of the patch size 4"), "{problem}");
        assert!(encoder.context(&zeros(shape)).is_err());
    }
    let bytes = Tensor::full(255u8, (1, 3, 20, 20), &Device::Cpu).unwrap();
    assert!(message(encoder.context(&bytes)).contains("255.0"));
    let unscaled = bytes.to_dtype(DType::F32).unwrap();
    assert!(message(encoder.context(&unscaled)).contains("a pixel is 255"));
    assert!(encoder.context(&(unscaled / 255.0).unwrap().to_dtype(DType::F64).unwrap()).is_ok());
    // A view of one pixel that is as large as a poster: its attention would need 10 TB.
    let poster = zeros(&[1, 3, 1, 1]).broadcast_as((1, 3, 4000, 4000)).unwrap();
    assert!(matches!(encoder.forward(&poster), Err(Error::Memory { .. })));
    assert!(matches!(resize_picture(&zeros(&[3, 4, 4]), [4, 4]), Err(Error::Shape { .. })));
    assert!(matches!(resize_picture(&zeros(&[1, 3, 4, 4]), [0, 4]), Err(Error::Argument { .. })));
    assert!(matches!(resize_picture(&zeros(&[1, 3, 4, 4]), [usize::MAX, 4]), Err(Error::Memory { .. })));
}

#[test]
fn no_gradient_passes_through_it() {
    let tiny = DinoV2Config::new().hidden_size(64).num_layers(1).patch_size(4).grid_size(5);
    let variables = VarMap::new();
    let encoder = DinoV2::new(&tiny, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    let pixels = candle_core::Var::zeros((1, 3, 20, 20), DType::F32, &Device::Cpu).unwrap();
    assert!(!encoder.forward(&pixels).unwrap().track_op());
}
