//! The answers of sparse layers to bad input, and the behaviour of `indice_key`s, backends and sequences.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use wavemesh::sparse::*;

fn vb() -> VarBuilder<'static> {
    VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu)
}

fn ones(rows: usize, channels: usize) -> Tensor {
    Tensor::ones((rows, channels), DType::F32, &Device::Cpu).unwrap()
}

fn tensor(coords: &[[i32; 4]], channels: usize) -> SparseConvTensor {
    SparseConvTensor::from_coords(ones(coords.len(), channels), coords.to_vec(), [6, 6, 6], 2).unwrap()
}

fn keyed(key: &str) -> ConvConfig {
    ConvConfig::new().key(key)
}

fn strided(key: &str) -> ConvConfig {
    keyed(key).stride(2).padding(1)
}

const SITES: [[i32; 4]; 3] = [[0, 1, 2, 3], [0, 1, 2, 4], [1, 5, 5, 5]];

#[test]
fn a_chain_shares_its_kernel_maps() {
    let x = tensor(&SITES, 2);
    let first = SubMConv3d::new(2, 3, 3, keyed("a"), vb().pp("first")).unwrap();
    let second = SubMConv3d::new(3, 4, 3, keyed("a"), vb().pp("second")).unwrap();
    let y = second.forward(&first.forward(&x).unwrap()).unwrap();
    assert!(x.indice_dict().is_empty(), "a layer does not change its input");
    assert_eq!(y.indice_dict().keys().collect::<Vec<_>>(), ["a"]);
    assert!(y.indice_dict()["a"].made_by().contains("`first`"));
    assert!(y.replace_feature(ones(3, 9)).unwrap().indice_dict().contains_key("a"));
    let map = y.indice_dict()["a"].map();
    assert_eq!(map.num_pairs(), 5, "three centres and one pair of neighbours, seen from both sides");
    assert_eq!(map.pairs(13), [(0, 0), (1, 1), (2, 2)]);
    assert_eq!((map.pairs(12), map.pairs(14)), (vec![(0, 1)], vec![(1, 0)]));
}

#[test]
fn misuse_of_a_key_names_both_layers() {
    let x = tensor(&SITES, 2);
    let first = SubMConv3d::new(2, 2, 3, keyed("a"), vb().pp("enc.first")).unwrap();
    let y = first.forward(&x).unwrap();
    let wide = SubMConv3d::new(2, 2, 5, keyed("a"), vb().pp("enc.wide")).unwrap();
    let text = wide.forward(&y).unwrap_err().to_string();
    assert!(text.contains("`enc.first`") && text.contains("`enc.wide`") && text.contains("`a`"), "{text}");

    let down = SparseConv3d::new(2, 2, 3, strided("down"), vb().pp("down")).unwrap();
    let low = down.forward(&y).unwrap();
    let text = first.forward(&low).unwrap_err().to_string();
    assert!(text.contains("`enc.first`") && text.contains("not the same"), "{text}");

    let up = |key: &str, kernel: usize| SparseInverseConv3d::new(2, 2, kernel, keyed(key), vb().pp("up")).unwrap();
    assert!(up("down", 3).forward(&low).unwrap().same_sites(&x));
    let text = up("missing", 3).forward(&low).unwrap_err().to_string();
    assert!(text.contains("missing") && text.contains("one of a, down") && text.contains("`up`"), "{text}");
    assert!(up("down", 2).forward(&low).unwrap_err().to_string().contains("kernel"));
    assert!(up("a", 3).forward(&low).unwrap_err().to_string().contains("submanifold"));
    let lower = SparseConv3d::new(2, 2, 3, strided("lower"), vb()).unwrap().forward(&low).unwrap();
    assert!(up("down", 3).forward(&lower).unwrap_err().to_string().contains("not the same"));
    assert!(SparseInverseConv3d::new(2, 2, 3, ConvConfig::default(), vb()).is_err());
}

#[test]
fn bad_arguments_are_named() {
    let even = SubMConv3d::new(1, 1, 2, ConvConfig::default(), vb()).unwrap_err().to_string();
    assert!(even.contains("odd") && even.contains("[2, 2, 2]"), "{even}");
    let zero = ConvConfig::new().stride([1, 0, 1]);
    assert!(SparseConv3d::new(1, 1, 3, zero, vb()).unwrap_err().to_string().contains("stride"));
    assert!(SparseConv3d::new(0, 1, 3, ConvConfig::default(), vb()).unwrap_err().to_string().contains("in_channels"));
    let rule = ConvConfig::new().output_sites(OutputSites::Strided);
    assert!(SparseConvTranspose3d::new(1, 1, 3, rule, vb()).is_err());
    let large = SparseConv3d::new(1, 1, 7, ConvConfig::default(), vb()).unwrap();
    let text = large.forward(&tensor(&SITES, 1)).unwrap_err().to_string();
    assert!(text.contains("[7, 7, 7]") && text.contains("[6, 6, 6]"), "{text}");
    // A submanifold kernel larger than the grid is valid: every neighbour outside is empty.
    let y = SubMConv3d::new(1, 1, 15, ConvConfig::default(), vb()).unwrap().forward(&tensor(&SITES, 1)).unwrap();
    assert_eq!(y.len(), 3);
    let conv = SubMConv3d::new(4, 1, 3, ConvConfig::default(), vb().pp("stem")).unwrap();
    let text = conv.forward(&tensor(&SITES, 2)).unwrap_err().to_string();
    assert!(text.contains("[3, 2]") && text.contains("`stem`"), "{text}");
    let double = tensor(&SITES, 4);
    let double = double.replace_feature(double.features().to_dtype(DType::F64).unwrap()).unwrap();
    assert!(conv.forward(&double).unwrap_err().to_string().contains("F64"));
}

#[test]
fn layers_run_on_zero_sites_and_on_batches_with_gaps() {
    for backend in [Backend::Native, Backend::Dense] {
        with_backend(backend, || {
            for coords in [&[][..], &[[1, 0, 0, 0]][..]] {
                let x = tensor(coords, 2);
                let net = SparseSequential::new()
                    .add(SubMConv3d::new(2, 4, 3, keyed("a"), vb()).unwrap())
                    .add(BatchNorm::new(4, vb()).unwrap())
                    .add(Activation::Relu)
                    .add(SparseConv3d::new(4, 4, 3, strided("down"), vb()).unwrap())
                    .add(SparseInverseConv3d::new(4, 3, 3, keyed("down"), vb()).unwrap())
                    .add(SparseMaxPool3d::new(2, PoolConfig::default()).unwrap())
                    .add(SparseAvgPool3d::new(2, PoolConfig::default()).unwrap())
                    .add(SparseConvTranspose3d::new(3, 5, 2, ConvConfig::default(), vb()).unwrap());
                let y = net.forward(&x).unwrap();
                assert_eq!(y.channels(), 5);
                assert_eq!(y.is_empty(), x.is_empty());
                let (max, avg) = (SparseGlobalMaxPool.forward(&y).unwrap(), SparseGlobalAvgPool.forward(&y).unwrap());
                assert_eq!((max.dims(), avg.dims()), (&[2, 5][..], &[2, 5][..]));
                assert_eq!(avg.to_vec2::<f32>().unwrap()[0], [0.0; 5], "an element without sites has zeros");
            }
        });
    }
}

#[test]
fn a_nan_reaches_its_neighbours_and_nobody_else() {
    for backend in [Backend::Native, Backend::Dense] {
        with_backend(backend, || {
            let x = tensor(&SITES, 1);
            let nan = Tensor::new(&[[f32::NAN], [1.0], [1.0]], &Device::Cpu).unwrap();
            let conv = SubMConv3d::new(1, 1, 3, ConvConfig::default(), vb()).unwrap();
            let y = conv.forward(&x.replace_feature(nan).unwrap()).unwrap().features().to_vec2::<f32>().unwrap();
            assert!(y[0][0].is_nan() && y[1][0].is_nan() && !y[2][0].is_nan());
        });
    }
}

#[test]
fn pools_agree_with_their_definitions() {
    for backend in [Backend::Native, Backend::Dense] {
        with_backend(backend, || {
            let coords = vec![[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 2, 2]];
            let values = candle_core::Var::new(&[[1f32, -5.0], [1.0, -7.0], [-3.0, 2.0]], &Device::Cpu).unwrap();
            let x = SparseConvTensor::from_coords(values.as_tensor().clone(), coords, [4, 4, 4], 1).unwrap();
            let y = SparseMaxPool3d::new(2, PoolConfig::default()).unwrap().forward(&x).unwrap();
            assert_eq!(y.coords(), [[0, 0, 0, 0], [0, 1, 1, 1]]);
            assert_eq!(y.features().to_vec2::<f32>().unwrap(), [[1.0, -5.0], [-3.0, 2.0]]);
            let grads = y.features().sum_all().unwrap().backward().unwrap();
            let grad = grads.get(&values).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(grad, [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]], "both tied sites receive the gradient");
            let y = SparseAvgPool3d::new(2, PoolConfig::default()).unwrap().forward(&x).unwrap();
            assert_eq!(y.features().to_vec2::<f32>().unwrap(), [[1.0, -6.0], [-3.0, 2.0]], "empty cells do not count");
            let max = SparseGlobalMaxPool.forward(&x).unwrap().to_vec2::<f32>().unwrap();
            let avg = SparseGlobalAvgPool.forward(&x).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(max, [[1.0, 2.0]]);
            assert!((avg[0][0] + 1.0 / 3.0).abs() < 1e-6 && (avg[0][1] + 10.0 / 3.0).abs() < 1e-6);
        });
    }
}

#[test]
fn batch_norm_agrees_with_its_definition_and_moves_its_statistics() {
    let variables = VarMap::new();
    let norm = BatchNorm::new(1, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    let x = tensor(&SITES, 1).replace_feature(Tensor::new(&[[1f32], [2.0], [6.0]], &Device::Cpu).unwrap()).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let close = |a: Vec<f32>, b: &[f32]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    let y = norm.forward_t(&x, true).unwrap();
    // mean 3, biased variance 14/3, unbiased variance 7
    let scale = (14f32 / 3.0 + 1e-5).sqrt();
    close(flat(y.features()), &[-2.0 / scale, -1.0 / scale, 3.0 / scale]);
    close(flat(norm.running_mean()), &[0.3]);
    close(flat(norm.running_var()), &[0.9 + 0.7]);
    let y = norm.forward(&x).unwrap();
    close(flat(y.features()), &[0.7, 1.7, 5.7].map(|v: f32| v / (1.6f32 + 1e-5).sqrt()));
    let text = norm.forward_t(&tensor(&SITES[..1], 1), true).unwrap_err().to_string();
    assert!(text.contains("one site"), "{text}");
}

#[test]
fn backends_are_chosen_by_scope_and_by_name() {
    with_backend(Backend::Dense, || {
        assert_eq!(Backend::current().unwrap(), Backend::Dense);
        with_backend(Backend::Native, || assert_eq!(backend_info().backend, "native"));
        assert!(backend_info().note.unwrap().contains("native"), "the slow backend says what is faster");
    });
    assert!("Native".parse::<Backend>().is_ok());
    let text = "spconv".parse::<Backend>().unwrap_err().to_string();
    assert!(text.contains("spconv") && text.contains("native, dense"), "{text}");
    let conv = SubMConv3d::new(1, 1, 3, ConvConfig::default(), vb()).unwrap();
    let text = with_backend(Backend::Cuda, || conv.forward(&tensor(&SITES, 1))).unwrap_err().to_string();
    assert!(text.contains("cuda") && text.contains("native"), "{text}");
    let info = with_backend(Backend::Cuda, backend_info);
    assert!(info.backend == "unavailable" && info.note.unwrap().contains("cuda"));
    let info = backend_info();
    assert!(info.to_string().contains(&info.simd) && info.threads >= 1);
}

#[test]
fn a_sequence_takes_candle_modules_and_closures() {
    let net = SparseSequential::new()
        .add(SubMConv3d::new(2, 4, 3, ConvConfig::default(), vb()).unwrap())
        .add(candle_nn::linear(4, 3, vb()).unwrap())
        .add(candle_nn::Activation::Gelu)
        .add(candle_nn::Dropout::new(0.5))
        .add(|features: &Tensor| features.affine(0.0, 2.0));
    assert_eq!(net.len(), 5);
    let y = net.forward(&tensor(&SITES, 2)).unwrap();
    assert_eq!(y.features().to_vec2::<f32>().unwrap(), [[2.0; 3]; 3]);
}

#[test]
fn a_sequence_names_lists_and_indexes_its_layers() {
    let net = SparseSequential::new()
        .add_named("conv", SubMConv3d::new(2, 3, 3, keyed("a"), vb().pp("conv")).unwrap())
        .add(Activation::Relu)
        .add(SparseSequential::new().add(SparseMaxPool3d::new(2, PoolConfig::default()).unwrap()));
    let text = format!("{net:?}");
    let lines = [
        "SparseSequential(",
        "  (conv): SubMConv3d `conv`(2 → 3, kernel [3, 3, 3]",
        "  (1): Relu",
        "  (2): SparseSequential(1 layers)",
        ")",
    ];
    for (line, start) in text.lines().zip(lines) {
        assert!(line.starts_with(start), "{line}");
    }
    let x = tensor(&SITES, 2);
    assert_eq!(net.names().collect::<Vec<_>>(), ["conv", "1", "2"]);
    assert!(net[0].forward(&x).unwrap().same_sites(&x) && net.get("2").is_some() && net.get("3").is_none());
    assert!(net.forward_to("1", &x).unwrap().same_sites(&x));
    assert!(net.forward_to("head", &x).unwrap_err().to_string().contains("conv, 1, 2"));
}
