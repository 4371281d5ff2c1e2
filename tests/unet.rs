//! WaveMeshUNet: the original's parameter counts, numbers and gradients, and its checkpoints.

mod folder;

use std::collections::HashMap;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use serde_json::Value;
use wavemesh::import::{ImportOptions, WeightFormat};
use wavemesh::sparse::{Backend, SparseConvTensor, with_backend};
use wavemesh::unet::{Precision, UNetConfig, WaveMeshUNet};

use folder::Folder;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

#[test]
fn parameter_counts_are_those_of_the_original() {
    let table: [(&[usize], &[usize], bool, usize); 6] = [
        (&[32, 64, 128, 256], &[256, 128, 64, 32], true, 6_898_945),
        (&[32, 64, 128, 256], &[256, 128, 64, 32], false, 6_510_529),
        (&[16, 32, 64], &[64, 32, 16], true, 472_449),
        (&[16, 32, 64], &[64, 32, 16], false, 395_873),
        (&[4, 8], &[8, 4], false, 5_977),
        (&[8, 16], &[256, 128, 64, 32], false, 2_961_081),
    ];
    for (encoder, decoder, use_attention, expected) in table {
        let config = UNetConfig::new()
            .encoder_channels(encoder.to_vec())
            .decoder_channels(decoder.to_vec())
            .use_attention(use_attention);
        let unet = WaveMeshUNet::seeded(&config, 0, &DEVICE).unwrap();
        assert_eq!(unet.num_parameters(), expected, "{encoder:?} {decoder:?} attention {use_attention}");
    }
}

/// A case of the fixture: its network with the fixture's weights, and its tensors by name.
struct Case {
    unet: WaveMeshUNet,
    x: SparseConvTensor,
    tensors: HashMap<String, Tensor>,
    config: UNetConfig,
}

impl Case {
    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the fixture has no {name}"))
    }

    fn context(&self) -> Option<&Tensor> {
        self.tensors.get("context")
    }
}

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn cases() -> Vec<Case> {
    let all = candle_core::safetensors::load("tests/fixtures/unet.safetensors", &DEVICE).unwrap();
    let described: Value = serde_json::from_str(include_str!("fixtures/unet.json")).unwrap();
    let described = described.as_array().unwrap();
    assert_eq!(described.len(), 2);
    let build = |case: &Value| {
        let number = |key: &str| case[key].as_u64().map(|n| n as usize);
        let config = UNetConfig::new()
            .in_channels(number("in_channels").unwrap())
            .out_channels(number("out_channels").unwrap())
            .encoder_channels(sizes(&case["encoder_channels"]))
            .encoder_strides(sizes(&case["encoder_strides"]))
            .decoder_channels(sizes(&case["decoder_channels"]))
            .time_emb_dim(number("time_emb_dim").unwrap())
            .use_attention(number("context_dim").is_some())
            .context_dim(number("context_dim").unwrap_or_default())
            .num_heads(number("num_heads").unwrap())
            .dropout(0.0);
        let prefix = format!("{}/", case["case"].as_str().unwrap());
        let tensors: HashMap<String, Tensor> =
            all.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?.to_string(), v.clone()))).collect();
        let state: HashMap<String, Tensor> =
            tensors.iter().filter_map(|(k, v)| Some((k.strip_prefix("state/")?.to_string(), v.clone()))).collect();
        let unet = WaveMeshUNet::new(&config, VarBuilder::from_tensors(state, DType::F32, &DEVICE)).unwrap();
        assert_eq!(unet.num_parameters(), number("parameters").unwrap());
        let shape = sizes(&case["spatial_shape"]);
        let features = Var::from_tensor(&tensors["features"]).unwrap();
        let indices = tensors["indices"].clone();
        let x = SparseConvTensor::new(
            features.as_tensor().clone(),
            indices,
            [shape[0], shape[1], shape[2]],
            number("batch_size").unwrap(),
        )
        .unwrap();
        Case { unet, x, tensors, config }
    };
    described.iter().map(build).collect()
}

/// The largest difference, relative to the largest expected value; for expected values below 0.01 it is absolute. The gradient of
/// `to_k.bias` is zero in exact arithmetic, because a softmax does not see a constant, so only rounding of 1e-7 is left to compare.
fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (got, expected) = (flat(got), flat(expected));
    let scale = expected.iter().fold(1e-2f64, |m, v| m.max(v.abs()));
    got.iter().zip(&expected).fold(0f64, |m, (g, e)| m.max((g - e).abs())) / scale
}

fn check_parity(backend: Backend, checkpointing: bool) {
    for mut case in cases() {
        case.unet.set_gradient_checkpointing(checkpointing);
        let (x, t) = (&case.x, case.tensor("timesteps"));
        with_backend(backend, || {
            let eval = case.unet.forward(x, t, case.context()).unwrap();
            let error = difference(eval.features(), case.tensor("eval_out"));
            assert!(error < 1e-4, "{backend:?} eval: {error:.1e}");
            assert!(eval.same_sites(x));

            let train = case.unet.forward_t(x, t, case.context(), true).unwrap();
            let error = difference(train.features(), case.tensor("train_out"));
            assert!(error < 1e-4, "{backend:?} train: {error:.1e}");

            let loss = (train.features() * case.tensor("grad_out")).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            let error = difference(grads.get(x.features()).unwrap(), case.tensor("grad_features"));
            assert!(error < 1e-4, "{backend:?} gradient of the features: {error:.1e}");
            let expected = case.tensors.keys().filter(|name| name.starts_with("grad/")).count();
            assert_eq!(case.unet.parameters().count(), expected);
            for (name, var) in case.unet.parameters() {
                let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
                let error = difference(grad, case.tensor(&format!("grad/{name}")));
                assert!(error < 1e-4, "{backend:?} gradient of {name}: {error:.1e}");
            }
        });
    }
}

#[test]
fn outputs_and_all_gradients_are_those_of_the_original_natively() {
    check_parity(Backend::for_device(&DEVICE).unwrap(), false);
}

#[test]
fn outputs_and_all_gradients_are_those_of_the_original_densely() {
    check_parity(Backend::Dense, false);
}

#[test]
fn gradient_checkpointing_changes_no_output_and_no_gradient() {
    check_parity(Backend::for_device(&DEVICE).unwrap(), true);
    // Running statistics change once per step, not again in the backward pass.
    for case in cases() {
        let mut other = WaveMeshUNet::seeded(&case.config, 0, &DEVICE).unwrap();
        other.set_gradient_checkpointing(true);
        let plain = WaveMeshUNet::seeded(&case.config, 0, &DEVICE).unwrap();
        for unet in [&plain, &other] {
            let y = unet.forward_t(&case.x, case.tensor("timesteps"), case.context(), true).unwrap();
            y.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        }
        for ((name, a), (_, b)) in plain.state().iter().zip(other.state()) {
            assert!(difference(a, b) < 1e-6, "{name} differs after one step");
        }
    }
}

/// The case's network with a copy of its weights and features of `precision`.
fn in_precision(case: &Case, precision: Precision) -> WaveMeshUNet {
    let config = case.config.clone().precision(precision);
    let state = case.unet.state().iter().map(|(name, var)| (name.clone(), var.as_tensor().copy().unwrap()));
    WaveMeshUNet::new(&config, VarBuilder::from_tensors(state.collect(), DType::F32, &DEVICE)).unwrap()
}

fn rms(t: &Tensor) -> f32 {
    t.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
}

#[test]
fn half_precision_stays_near_the_original() {
    for case in cases() {
        for precision in [Precision::F16, Precision::Bf16] {
            // In training nothing is rounded on the way to the output.
            for (train, largest) in [(false, 1e-2), (true, 1e-4)] {
                let half = in_precision(&case, precision);
                let y = half.forward_t(&case.x, case.tensor("timesteps"), case.context(), train).unwrap();
                assert_eq!(y.dtype(), DType::F32);
                let expected = case.tensor(if train { "train_out" } else { "eval_out" });
                let error = difference(y.features(), expected);
                let off = rms(&(y.features() - expected).unwrap()) / rms(expected);
                println!("{precision:?}, train {train}: largest {error:.1e}, mean {off:.1e}");
                assert!(error < largest, "{precision:?}, train {train}: largest {error:.1e}, mean {off:.1e}");
            }
        }
    }
}

/// All gradients of a case in one row: those of its parameters and of its input features.
fn all_gradients(case: &Case, unet: &WaveMeshUNet, train: bool) -> Tensor {
    let y = unet.forward_t(&case.x, case.tensor("timesteps"), case.context(), train).unwrap();
    let grads = (y.features() * case.tensor("grad_out")).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |tensor: &Tensor| grads.get(tensor).unwrap().flatten_all().unwrap();
    let mut all: Vec<Tensor> = unet.parameters().map(|(_, var)| of(var)).collect();
    all.push(of(case.x.features()));
    Tensor::cat(&all, 0).unwrap()
}

#[test]
fn gradients_in_half_precision_stay_near_those_in_single() {
    for case in cases() {
        for precision in [Precision::F16, Precision::Bf16] {
            for train in [false, true] {
                let expected = all_gradients(&case, &in_precision(&case, Precision::F32), train);
                let got = all_gradients(&case, &in_precision(&case, precision), train);
                let off = rms(&(got - &expected).unwrap()) / rms(&expected);
                println!("gradients in {precision:?}, train {train}: mean {off:.1e}");
                assert!(off < 1e-2, "gradients in {precision:?}, train {train}: mean {off:.1e}");
            }
        }
    }
}

#[test]
fn each_gradient_of_training_in_half_precision_stays_near_the_original() {
    for case in cases() {
        for precision in [Precision::F16, Precision::Bf16] {
            let unet = in_precision(&case, precision);
            let y = unet.forward_t(&case.x, case.tensor("timesteps"), case.context(), true).unwrap();
            let loss = (y.features() * case.tensor("grad_out")).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            let mut worst = difference(grads.get(case.x.features()).unwrap(), case.tensor("grad_features"));
            for (name, var) in unet.parameters() {
                let error = difference(grads.get(var).unwrap(), case.tensor(&format!("grad/{name}")));
                assert!(error < 1e-2, "{precision:?} gradient of {name}: {error:.1e}");
                worst = worst.max(error);
            }
            println!("{precision:?}: the largest error of a gradient is {worst:.1e} of the tensor's largest");
            assert!(worst < 1e-2, "{precision:?} gradient of the features: {worst:.1e}");

            // The first backward pass used up the kept values; another one computes them again.
            let again = loss.backward().unwrap();
            for (name, var) in unet.parameters() {
                assert_eq!(difference(again.get(var).unwrap(), grads.get(var).unwrap()), 0.0, "{name}, second time");
            }
        }
    }
}

#[test]
fn half_features_are_read_from_two_tensors_as_if_they_were_joined() {
    // The dense backend joins the features, and so does a training pass in its forward direction.
    for case in cases() {
        for precision in [Precision::F16, Precision::Bf16] {
            for train in [false, true] {
                let mut unet = in_precision(&case, precision);
                let plain = all_gradients(&case, &unet, train);
                let dense = with_backend(Backend::Dense, || all_gradients(&case, &unet, train));
                unet.set_gradient_checkpointing(true);
                let [dense, saved] = [&dense, &all_gradients(&case, &unet, train)].map(|got| difference(got, &plain));
                println!("{precision:?}, train {train}: dense {dense:.1e}, checkpointed {saved:.1e}");
                // On a GPU, the sums of the backends differ in their last bits, and some are rounded to another half.
                let near = if DEVICE.is_cuda() { 1e-4 } else { 1e-5 };
                assert!(dense < near && saved < 1e-5, "{precision:?}: {dense:.1e}, checkpointed {saved:.1e}");
            }
        }
    }
}

/// `count` sites of one batch element along a surface of a 16³ grid.
fn points(count: usize) -> SparseConvTensor {
    let coords = (0..count).map(|i| [0, (i % 5) as i32, (i / 5) as i32, ((i * 7) % 16) as i32]).collect();
    let features = (0..count).map(|i| (i as f32 * 0.7 + 0.3).sin()).collect::<Vec<_>>();
    SparseConvTensor::from_coords(Tensor::from_vec(features, (count, 1), &DEVICE).unwrap(), coords, [16, 16, 16], 1)
        .unwrap()
}

#[test]
fn twenty_points_go_in_and_twenty_come_out() {
    let unet = WaveMeshUNet::seeded(&UNetConfig::default(), 3, &DEVICE).unwrap();
    let y = unet.forward(&points(20), &Tensor::new(&[250f32], &DEVICE).unwrap(), None).unwrap();
    assert_eq!(y.features().dims(), [20, 1]);
    let values = y.features().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != values[0]));
}

#[test]
fn a_dense_input_is_its_sparse_form() {
    let unet = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 1, &DEVICE).unwrap();
    let t = Tensor::new(&[10i64], &DEVICE).unwrap();
    let x = points(30);
    let sparse = unet.forward(&x, &t, None).unwrap().dense().unwrap();
    let dense = unet.forward(&x.dense().unwrap(), &t, None).unwrap().dense().unwrap();
    assert!(difference(&dense, &sparse) < 1e-5);
}

#[test]
fn an_empty_input_gives_an_empty_output() {
    let unet = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 1, &DEVICE).unwrap();
    let empty = points(0);
    assert_eq!(unet.forward(&empty, &Tensor::new(&[1f32], &DEVICE).unwrap(), None).unwrap().features().dims(), [0, 1]);
}

/// Rows in any order are computed in another order, also in checkpointed and half-precision passes.
#[test]
fn the_order_of_the_sites_changes_no_result() {
    let count = 5000;
    let ascending: Vec<[i32; 4]> = (0..count).map(|i| [0, i / 400, i / 20 % 20, i % 20]).collect();
    let places: Vec<u32> = (0..count as u32).map(|i| i * 1601 % count as u32).collect(); // coprime: a permutation
    let shuffled: Vec<[i32; 4]> = places.iter().map(|&place| ascending[place as usize]).collect();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7 + 0.3).sin()).collect();
    let t = Tensor::new(&[250f32], &DEVICE).unwrap();
    for (precision, gradient_checkpointing, allowed) in
        [(Precision::F32, false, 1e-4), (Precision::F32, true, 1e-4), (Precision::F16, false, 2e-3)]
    {
        let config =
            UNetConfig::plain(1, 1, &[8, 16]).precision(precision).gradient_checkpointing(gradient_checkpointing);
        let results = |coords: &[[i32; 4]], order: Option<&[u32]>| {
            let unet = WaveMeshUNet::seeded(&config, 4, &DEVICE).unwrap();
            let row = |i: usize| order.map_or(i, |order| order[i] as usize);
            let features: Vec<f32> = (0..coords.len()).map(|i| values[row(i)]).collect();
            let features = Tensor::from_vec(features, (coords.len(), 1), &DEVICE).unwrap();
            let x = SparseConvTensor::from_coords(features, coords.to_vec(), [20; 3], 1).unwrap();
            let y = unet.forward_t(&x, &t, None, true).unwrap();
            let grads = y.features().sqr().unwrap().mean_all().unwrap().backward().unwrap();
            let mut found: Vec<Tensor> = unet.parameters().map(|(_, var)| grads.get(var).unwrap().clone()).collect();
            let mut output = vec![0f32; coords.len()];
            let rows = y.features().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            rows.iter().enumerate().for_each(|(i, value)| output[row(i)] = *value);
            found.push(Tensor::new(output, &DEVICE).unwrap());
            found
        };
        let (expected, got) = (results(&ascending, None), results(&shuffled, Some(&places)));
        for (expected, got) in expected.iter().zip(&got) {
            let error = difference(got, expected);
            assert!(error < allowed, "{precision:?}, checkpointing {gradient_checkpointing}: {error:.1e}");
        }
    }
}

#[test]
fn a_saved_network_is_rebuilt_from_its_file_alone() {
    let folder = Folder::new("unet");
    let unet = WaveMeshUNet::seeded(&UNetConfig::plain(1, 2, &[4, 8]), 5, &DEVICE).unwrap();
    let (x, t) = (points(25), Tensor::new(&[77f32], &DEVICE).unwrap());
    unet.forward_t(&x, &t, None, true).unwrap(); // moves the running statistics
    let expected = unet.forward(&x, &t, None).unwrap();
    for (dtype, allowed) in [(DType::F32, 0.0), (DType::F16, 1e-2)] {
        let path = folder.join(format!("{dtype:?}.safetensors"));
        unet.save(&path, dtype).unwrap();
        let again = WaveMeshUNet::load(&path, &DEVICE).unwrap();
        assert_eq!(again.config(), unet.config());
        let got = again.forward(&x, &t, None).unwrap();
        assert!(difference(got.features(), expected.features()) <= allowed);
    }
    let other = WaveMeshUNet::seeded(&UNetConfig::plain(1, 2, &[4, 6]), 5, &DEVICE).unwrap();
    let error = other.load_weights(folder.join("F32.safetensors"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("encoder.encoder_blocks.0.conv1.weight"), "{error}");
    assert!(error.contains("[8, 3, 3, 3, 4]") && error.contains("[6, 3, 3, 3, 4]"), "{error}");
}

#[test]
fn pytorch_checkpoints_load_in_both_key_styles() {
    // Written with torch by tests/fixtures/make_torch_checkpoints.py: the first fixture case as spconv would save it (1×1×1 weights in
    // spconv's memory layout), and as the dense fallback would.
    for case in cases().into_iter().take(1) {
        let t = case.tensor("timesteps");
        for (file, format, prefix) in [
            ("unet_spconv.pth", WeightFormat::Spconv2, ""),
            ("unet_dense.pth", WeightFormat::TorchDense, "model_state_dict.module."),
        ] {
            let unet = WaveMeshUNet::seeded(&case.config, 9, &DEVICE).unwrap();
            let report = unet.load_weights(format!("tests/fixtures/{file}"), &ImportOptions::default()).unwrap();
            assert_eq!((report.format, report.prefix.as_str()), (Some(format), prefix));
            let y = unet.forward(&case.x, t, case.context()).unwrap();
            let error = difference(y.features(), case.tensor("eval_out"));
            assert!(error < 1e-4, "{file}: {error:.1e}");
        }
    }
}

#[test]
fn a_summary_counts_what_the_network_does() {
    let unet = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[16, 32, 64]), 0, &DEVICE).unwrap();
    let summary = unet.summary(&points(20)).unwrap();
    assert_eq!(summary.parameters, 395_873);
    let time_mlp = 128 * 16 + 16 + 16 * 16 + 16;
    assert_eq!(summary.layers.iter().map(|layer| layer.parameters).sum::<usize>() + time_mlp, 395_873);
    let last = summary.layers.last().unwrap();
    assert_eq!((last.name.as_str(), last.sites, last.channels, last.mult_adds), ("output_conv", 20, 1, 20 * 16));
    assert!(summary.to_string().contains("395,873"));
}

/// Numbers between -1 and 1 without a pattern.
fn uneven(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i + 1) as f32 * 12.9898 + seed as f32 * 78.233).sin());
    Tensor::from_iter(values, &DEVICE).unwrap().reshape(shape).unwrap()
}

#[test]
fn a_context_reaches_its_own_element_and_zeros_are_none() {
    let config = UNetConfig::plain(1, 1, &[8, 12]).use_attention(true).attention_residual(true).dropout(0.0);
    let config = config.num_heads(2).context_dim(5).context_layers([7, 6]);
    let unet = WaveMeshUNet::seeded(&config, 3, &DEVICE).unwrap();
    let [t, context] = [&[2][..], &[2, 3, 5]].map(|shape| uneven(shape, 1));
    let x = |per_element: [usize; 2]| {
        let sites = (0..2).flat_map(|b| (0..per_element[b]).map(move |i| [b as i32, 0, i as i32 / 4, i as i32 % 4]));
        let sites: Vec<[i32; 4]> = sites.collect();
        let features = Tensor::ones((sites.len(), 1), DType::F32, &DEVICE).unwrap();
        SparseConvTensor::from_coords(features, sites, [4; 3], 2).unwrap()
    };
    let run = |x: &SparseConvTensor, context: Option<&Tensor>| {
        unet.forward(x, &t, context).unwrap().features().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let plain = run(&x([9, 9]), None);
    assert_eq!(run(&x([9, 9]), Some(&context)), plain, "attention begins at zero");
    for (at, (name, var)) in unet.parameters().enumerate() {
        if name.contains(".to_out.") || name.contains("context.summary.") {
            var.set(&uneven(var.dims(), at)).unwrap();
        }
    }
    let told = run(&x([9, 9]), Some(&context));
    assert_ne!(told, plain);
    // The first element does not depend on how many sites the second one has: one path takes elements together, the other one by one.
    let beside = run(&x([9, 13]), Some(&context));
    assert!(told[..9].iter().zip(&beside[..9]).all(|(a, b)| (a - b).abs() < 1e-5), "{told:?} {beside:?}");
    let half = Tensor::cat(&[context.get(0).unwrap(), context.get(1).unwrap().zeros_like().unwrap()], 0).unwrap();
    let half = half.reshape((2, 3, 5)).unwrap();
    for (sites, plain) in [([9, 9], &plain), ([9, 13], &run(&x([9, 13]), None))] {
        let got = run(&x(sites), Some(&half));
        assert_eq!(got[9..], plain[9..], "zeros are no context");
        assert!(got[..9].iter().zip(&told[..9]).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn bad_input_is_refused_with_its_name() {
    let mirrored = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 8]), 0, &DEVICE).unwrap();
    let t = Tensor::new(&[1f32], &DEVICE).unwrap();
    let x = points(6);
    let message = |unet: &WaveMeshUNet, x: &SparseConvTensor, t: &Tensor, context: Option<&Tensor>| {
        unet.forward(x, t, context).unwrap_err().to_string()
    };
    let wide = x.replace_feature(Tensor::zeros((6, 3), DType::F32, &DEVICE).unwrap()).unwrap();
    assert!(message(&mirrored, &wide, &t, None).contains("[6, 3]"));
    assert!(
        message(&mirrored, &x, &Tensor::new(&[1f32, 2.0], &DEVICE).unwrap(), None)
            .contains("the shape of timesteps is [2]")
    );
    let context = Tensor::zeros((1, 2, 768), DType::F32, &DEVICE).unwrap();
    assert!(message(&mirrored, &x, &t, Some(&context)).contains("use_attention"));
    let odd = UNetConfig::new().encoder_channels([8, 16]).use_attention(false);
    let odd = WaveMeshUNet::seeded(&odd, 0, &DEVICE).unwrap();
    assert!(message(&odd, &x, &t, None).contains("[16, 8]"));
    let attends = WaveMeshUNet::seeded(&UNetConfig::default(), 0, &DEVICE).unwrap();
    let narrow = Tensor::zeros((1, 2, 100), DType::F32, &DEVICE).unwrap();
    assert!(message(&attends, &x, &t, Some(&narrow)).contains("(1, views, 768)"));
    let heads = UNetConfig::new().num_heads(5);
    assert!(WaveMeshUNet::seeded(&heads, 0, &DEVICE).unwrap_err().to_string().contains("num_heads is 5 heads"));
    let missing = mirrored.load_weights("nowhere.safetensors", &ImportOptions::default()).unwrap_err().to_string();
    assert!(missing.contains("nowhere.safetensors"), "{missing}");
}

#[test]
fn a_modulated_network_hears_the_timestep_after_every_block() {
    let plain = UNetConfig::plain(2, 3, &[4, 6, 8]);
    let config = plain.clone().modulation(true);
    let unet = WaveMeshUNet::seeded(&config, 3, &DEVICE).unwrap();
    // A scale and a shift for each channel of the two encoder blocks (6, 8) and the two decoder levels (6, 4), from 4 numbers and a bias.
    let more = (6 + 8 + 6 + 4) * 2 * (4 + 1);
    let without = WaveMeshUNet::seeded(&plain, 3, &DEVICE).unwrap();
    assert_eq!(unet.num_parameters(), without.num_parameters() + more);

    let mut sites: Vec<[i32; 4]> = (0..40).map(|i| [i / 25, i % 3, i % 5, (7 * i) % 8]).collect();
    sites.sort();
    sites.dedup();
    let features: Vec<f32> = (0..2 * sites.len()).map(|i| ((i * 37 % 101) as f32 / 50.0) - 1.0).collect();
    let features = Var::from_vec(features, (sites.len(), 2), &DEVICE).unwrap();
    let x = SparseConvTensor::from_coords(features.as_tensor().clone(), sites, [8; 3], 2).unwrap();
    let times = Tensor::new(&[20f32, 700.0], &DEVICE).unwrap();

    // Every parameter gets a gradient, whether activations are kept, recomputed or rounded.
    let gradients = |unet: &WaveMeshUNet| -> Vec<Tensor> {
        let y = unet.forward_t(&x, &times, None, true).unwrap();
        let grads = y.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let mut all: Vec<Tensor> = unet.parameters().map(|(_, var)| grads.get(var).unwrap().clone()).collect();
        all.push(grads.get(&features).unwrap().clone());
        all
    };
    let kept = gradients(&unet);
    assert!(kept.iter().all(|grad| rms(grad) > 0.0));
    let copy = |config: &UNetConfig| {
        let state = unet.state().iter().map(|(name, var)| (name.clone(), var.as_tensor().copy().unwrap()));
        WaveMeshUNet::new(config, VarBuilder::from_tensors(state.collect(), DType::F32, &DEVICE)).unwrap()
    };
    for (config, largest) in
        [(config.clone().gradient_checkpointing(true), 1e-5), (config.clone().precision(Precision::F16), 2e-2)]
    {
        for (got, expected) in gradients(&copy(&config)).iter().zip(&kept) {
            let error = difference(got, expected);
            assert!(error < largest, "{:?}: {error}", config.precision);
        }
    }

    // Its file stores the setting.
    let folder = Folder::new("modulated");
    let path = folder.join("unet.safetensors");
    unet.save(&path, DType::F32).unwrap();
    let back = WaveMeshUNet::load(&path, &DEVICE).unwrap();
    assert!(back.config().modulation);
    let [a, b] = [&unet, &back].map(|unet| unet.forward(&x, &times, None).unwrap());
    assert_eq!(difference(a.features(), b.features()), 0.0);
}
