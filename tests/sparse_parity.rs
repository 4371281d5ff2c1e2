//! Every sparse convolution of the fixtures, with values and gradients, on every backend.
//!
//! PyTorch 2.13 computed `tests/fixtures/sparse_conv.*` with dense convolutions in float64; they are stored as float32.

use std::collections::HashMap;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use serde::Deserialize;
use wavemesh::sparse::*;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

#[derive(Deserialize)]
struct Case {
    case: String,
    layer: String,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: usize,
    output_rule: String,
    in_spatial_shape: [usize; 3],
    #[serde(default)]
    out_spatial_shape: [usize; 3],
    #[serde(default)]
    mid_spatial_shape: [usize; 3],
    batch_size: usize,
    #[serde(default)]
    bias: bool,
}

impl Case {
    fn config(&self) -> ConvConfig {
        ConvConfig::new()
            .stride(self.stride)
            .padding(self.padding)
            .dilation([self.dilation; 3])
            .bias(self.bias)
            .key("key")
            .output_sites(match self.output_rule.as_str() {
                "reachable" => OutputSites::Reachable,
                "strided" => OutputSites::Strided,
                other => panic!("fixture names an unknown rule `{other}`"),
            })
    }
}

struct Arrays {
    arrays: HashMap<String, Tensor>,
    case: String,
}

impl Arrays {
    fn get(&self, name: &str) -> Tensor {
        self.arrays[&format!("{}/{name}", self.case)].clone()
    }

    fn input(&self, case: &Case) -> (Var, SparseConvTensor) {
        let features = Var::from_tensor(&self.get("features")).unwrap();
        let indices = self.get("indices");
        let x = SparseConvTensor::new(features.as_tensor().clone(), indices, case.in_spatial_shape, case.batch_size);
        (features, x.unwrap())
    }

    /// A layer's parameters, as variables.
    fn parameters(&self, weight: &str, bias: Option<&str>) -> (HashMap<String, Tensor>, VarBuilder<'static>) {
        let mut tensors = HashMap::new();
        for (name, array) in [("weight", Some(weight)), ("bias", bias)] {
            if let Some(array) = array {
                tensors.insert(name.to_string(), Var::from_tensor(&self.get(array)).unwrap().into_inner());
            }
        }
        (tensors.clone(), VarBuilder::from_tensors(tensors, DType::F32, &DEVICE))
    }
}

fn fixtures() -> Vec<(Case, Arrays)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let cases: Vec<Case> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("sparse_conv.json")).unwrap()).unwrap();
    let arrays = candle_core::safetensors::load(folder.join("sparse_conv.safetensors"), &DEVICE).unwrap();
    cases
        .into_iter()
        .map(|case| {
            let name = case.case.clone();
            (case, Arrays { arrays: arrays.clone(), case: name })
        })
        .collect()
}

/// Asserts |got − want| ≤ 1e-4 · max|want|.
fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let peak = want.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let off = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(peak > 0.0 && off <= 1e-4 * peak, "{what}: off by {off}, values up to {peak}");
}

fn sites(indices: &Tensor) -> Vec<[i32; 4]> {
    let rows = indices.to_device(&Device::Cpu).unwrap().to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap();
    rows.iter().map(|row| std::array::from_fn(|i| row[i] as i32)).collect()
}

fn on_every_backend(test: impl Fn(Backend)) {
    for backend in [Backend::Dense, Backend::for_device(&DEVICE).unwrap()] {
        with_backend(backend, || test(backend));
    }
}

#[test]
fn convolutions_agree_with_pytorch() {
    let cases = fixtures();
    assert_eq!(cases.len(), 18);
    on_every_backend(|backend| {
        for (case, arrays) in cases.iter().filter(|(case, _)| case.layer != "SparseInverseConv3d") {
            let what = format!("{} ({}) on {backend}", case.case, case.layer);
            let (features, x) = arrays.input(case);
            let (parameters, vb) = arrays.parameters("weight_krsc", case.bias.then_some("bias"));
            let (inputs, outputs) = (x.channels(), parameters["weight"].dims()[0]);
            let y = match case.layer.as_str() {
                "SubMConv3d" => SubMConv3d::new(inputs, outputs, case.kernel, case.config(), vb).unwrap().forward(&x),
                "SparseConv3d" => {
                    SparseConv3d::new(inputs, outputs, case.kernel, case.config(), vb).unwrap().forward(&x)
                }
                "SparseConvTranspose3d" => {
                    SparseConvTranspose3d::new(inputs, outputs, case.kernel, case.config(), vb).unwrap().forward(&x)
                }
                other => panic!("fixture names an unknown layer `{other}`"),
            }
            .unwrap();
            let indices = arrays.get("out_indices");
            if case.output_rule == "strided" {
                // The fixture has the sites on PyTorch's grid; the rule also has sites beyond its border.
                let grid = std::array::from_fn(|a| case.in_spatial_shape[a].div_ceil(case.stride[a]));
                assert_eq!(y.spatial_shape(), grid, "{what}");
                assert!(sites(&indices).into_iter().all(|site| y.find(site).is_some()), "{what}");
            } else {
                assert_eq!(y.spatial_shape(), case.out_spatial_shape, "{what}");
                assert_eq!(y.coords(), sites(&indices), "{what}");
            }
            let features_out = y.sample_at_indices(&indices).unwrap();
            assert_close(&what, &features_out, &arrays.get("out_features"));
            let grad_out = arrays.get("grad_out");
            let grads = (features_out * &grad_out).unwrap().sum_all().unwrap().backward().unwrap();
            assert_close(&what, grads.get(&features).unwrap(), &arrays.get("grad_features"));
            assert_close(&what, grads.get(&parameters["weight"]).unwrap(), &arrays.get("grad_weight_krsc"));
            if case.bias {
                assert_close(&what, grads.get(&parameters["bias"]).unwrap(), &grad_out.sum(0).unwrap());
            }
        }
    });
}

#[test]
fn inverse_conv_restores_the_sites_of_its_pair() {
    let cases = fixtures();
    // Computed pair by pair in float64, by sparse_conv.py.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/inverse_conv_gradients.safetensors");
    let gradients = candle_core::safetensors::load(path, &DEVICE).unwrap();
    on_every_backend(|backend| {
        for (case, arrays) in cases.iter().filter(|(case, _)| case.layer == "SparseInverseConv3d") {
            let what = format!("{} on {backend}", case.case);
            let (_, x) = arrays.input(case);
            let (conv, vb) = arrays.parameters("conv_weight_krsc", None);
            let middle_channels = conv["weight"].dims()[0];
            let down = SparseConv3d::new(x.channels(), middle_channels, case.kernel, case.config(), vb).unwrap();
            let (inverse, vb) = arrays.parameters("inverse_weight_krsc", None);
            let outputs = inverse["weight"].dims()[0];
            let up = SparseInverseConv3d::new(middle_channels, outputs, case.kernel, case.config(), vb).unwrap();
            let middle = down.forward(&x).unwrap();
            assert_eq!(middle.spatial_shape(), case.mid_spatial_shape, "{what}");
            assert_eq!(middle.coords(), sites(&arrays.get("mid_indices")), "{what}");
            assert_close(&what, middle.features(), &arrays.get("mid_features"));
            let features = Var::from_tensor(middle.features()).unwrap();
            let y = up.forward(&middle.replace_feature(features.as_tensor().clone()).unwrap()).unwrap();
            assert!(y.same_sites(&x), "{what}");
            assert_close(&what, y.features(), &arrays.get("out_features"));
            let reference = |name: &str| &gradients[&format!("{}/{name}", case.case)];
            let grads = (y.features() * reference("grad_out")).unwrap().sum_all().unwrap().backward().unwrap();
            assert_close(&what, grads.get(&features).unwrap(), reference("grad_mid_features"));
            assert_close(&what, grads.get(&inverse["weight"]).unwrap(), reference("grad_weight_krsc"));
        }
    });
}
