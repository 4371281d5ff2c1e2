//! Checkpoints of other libraries: from each of their files, the same network computes what spconv computed.

mod folder;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use wavemesh::import::{Checkpoint, ImportOptions, Pointwise, WeightFormat};
use wavemesh::notebook::Rich;
use wavemesh::sparse::*;

use folder::Folder;

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The network of fixtures/import.py.
fn network(variables: &VarMap) -> SparseSequential {
    let vb = VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu);
    let plain = ConvConfig::new().bias(false);
    let key = |key: &str| plain.clone().key(key);
    let down = key("down").stride(2);
    SparseSequential::new()
        .add(SubMConv3d::new(3, 6, 3, key("a"), vb.pp("stem")).unwrap())
        .add(BatchNorm::new(6, vb.pp("norm")).unwrap())
        .add(SubMConv3d::new(6, 6, 1, plain.clone(), vb.pp("skip")).unwrap())
        .add(SparseConv3d::new(6, 8, 2, down, vb.pp("down")).unwrap())
        .add(SparseConv3d::new(8, 8, 1, plain.clone(), vb.pp("point")).unwrap())
        .add(SparseInverseConv3d::new(8, 5, 2, key("down"), vb.pp("up")).unwrap())
        .add(SparseConv3d::new(5, 5, 1, plain.stride(2), vb.pp("thin")).unwrap())
        .add(candle_nn::linear(5, 4, vb.pp("head")).unwrap())
}

/// The largest difference from spconv's output.
fn difference(net: &SparseSequential) -> f32 {
    let saved = Checkpoint::open(fixture("import.safetensors")).unwrap();
    let get = |name| saved.get(name).unwrap().clone();
    let x = SparseConvTensor::new(get("features"), get("indices"), [8, 10, 6], 2).unwrap();
    let y = net.forward(&x).unwrap();
    assert_eq!(
        y.indices().unwrap().to_vec2::<i64>().unwrap(),
        get("output_indices").to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap()
    );
    (y.features() - get("output")).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn every_library_s_file_gives_spconv_s_numbers() {
    let (known, even) = (ImportOptions::default(), |format| ImportOptions::new().format(format));
    for (file, options, format, turned, tolerance) in [
        ("import_spconv2.pth", known.clone(), WeightFormat::Spconv2, 2, 2e-6),
        ("import_old.pth", known.clone(), WeightFormat::Spconv2, 2, 2e-3), // its weights are halves
        ("import_spconv1.pth", known.clone(), WeightFormat::Spconv1, 0, 2e-6),
        ("import_rskc.pth", known.clone(), WeightFormat::Spconv2Rskc, 2, 2e-6),
        ("import_dense.pth", known, WeightFormat::TorchDense, 0, 2e-6),
        ("import_torchsparse.pth", even(WeightFormat::TorchSparse), WeightFormat::TorchSparse, 0, 2e-6),
        ("import_minkowski.pth", even(WeightFormat::Minkowski), WeightFormat::Minkowski, 0, 2e-6),
    ] {
        let variables = VarMap::new();
        let net = network(&variables);
        let report = Checkpoint::open(fixture(file)).unwrap().load_into(&variables, &options).unwrap();
        assert_eq!(report.format, Some(format), "{file}");
        assert_eq!((report.read.len(), report.missing.len(), report.unread.len()), (12, 0, 0), "{file}: {report}");
        assert_eq!(report.turned().count(), turned, "{file}");
        let off = difference(&net);
        assert!(off < tolerance, "{file}: {off}");
    }
}

#[test]
fn a_square_pointwise_weight_that_is_not_turned_is_far_off() {
    let variables = VarMap::new();
    let net = network(&variables);
    let as_shaped = ImportOptions::new().pointwise(vec![("*".into(), Pointwise::OutIn)]);
    let report = Checkpoint::open(fixture("import_spconv2.pth")).unwrap().load_into(&variables, &as_shaped).unwrap();
    assert_eq!(report.turned().count(), 0);
    let off = difference(&net);
    assert!(off > 1e-3, "the fixture tells the two readings apart: {off}");
}

#[test]
fn a_rule_names_the_layers_that_are_meant_otherwise() {
    let variables = VarMap::new();
    let _net = network(&variables);
    let options = ImportOptions::new().pointwise(vec![("sk*".into(), Pointwise::OutIn)]);
    let report = Checkpoint::open(fixture("import_spconv2.pth")).unwrap().load_into(&variables, &options).unwrap();
    assert_eq!(report.turned().collect::<Vec<_>>(), ["point.weight"]);
}

#[test]
fn the_report_says_where_things_were_found() {
    let checkpoint = Checkpoint::open(fixture("import_old.pth")).unwrap();
    assert_eq!(checkpoint.groups(), [("optimizer", 1), ("state_dict", 13)]);
    assert_eq!(checkpoint.get("state_dict.stem.weight").unwrap().dtype(), DType::F16);
    let variables = VarMap::new();
    let _net = network(&variables);
    let report = checkpoint.load_into(&variables, &ImportOptions::default()).unwrap();
    assert_eq!((report.prefix.as_str(), report.elsewhere), ("state_dict.", 1));
    let card = report.rich();
    assert!(card.plain().starts_with("Import | read 12 · turned 2 · missing 0 · unread 0"), "{}", card.plain());
    assert!(card.plain().contains("skip.weight"));
    let nested = Checkpoint::open(fixture("import_spconv2.pth")).unwrap();
    assert_eq!(nested.load_into(&variables, &ImportOptions::default()).unwrap().prefix, "model_state.module.");
    assert!(nested.under("model_state.module").unwrap().get("stem.weight").is_some());
}

#[test]
fn what_does_not_fit_is_named_and_changes_nothing() {
    let file = Checkpoint::open(fixture("import_spconv1.pth")).unwrap();
    let text = |variables: &VarMap, file: &Checkpoint, options: &ImportOptions| {
        file.load_into(variables, options).unwrap_err().to_string()
    };
    let plain = ConvConfig::new().bias(false);
    let build = |channels, name: &str| {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let layers = (
            SubMConv3d::new(3, channels, 3, plain.clone(), vb.pp(name)).unwrap(),
            SparseConv3d::new(6, 8, 2, plain.clone(), vb.pp("down")).unwrap(),
        );
        (variables, layers)
    };
    // Another width than in the file.
    let (variables, layers) = build(7, "stem");
    let before = layers.1.weight().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let error = text(&variables, &file, &ImportOptions::default());
    assert!(error.contains("stem.weight") && error.contains("spconv 1") && error.contains("(3 → 7"), "{error}");
    // A name that is not in the file.
    let (missing, _layers) = build(6, "trunk");
    let error = text(&missing, &file, &ImportOptions::default());
    assert!(error.contains("1 of 2") && error.contains("`trunk.weight`") && error.contains("stem.weight"), "{error}");
    let renames = vec![("trunk".to_string(), "stem".to_string())];
    file.load_into(&missing, &ImportOptions::new().renames(renames)).unwrap();
    let kept = ImportOptions::new().allow_missing(true);
    let (partly, _partly) = build(6, "trunk");
    assert_eq!(file.load_into(&partly, &kept).unwrap().missing, ["trunk.weight"]);
    assert_eq!(before, layers.1.weight().flatten_all().unwrap().to_vec1::<f32>().unwrap());
    // torchsparse and MinkowskiEngine differ in even kernels, and the file does not say which wrote it.
    let variables = VarMap::new();
    let _net = network(&variables);
    let error =
        text(&variables, &Checkpoint::open(fixture("import_minkowski.pth")).unwrap(), &ImportOptions::default());
    assert!(
        error.contains("torchsparse") && error.contains("MinkowskiEngine") && error.contains("ImportOptions::format"),
        "{error}"
    );
    // The same weights twice in the same file.
    let twice = Checkpoint::open(fixture("import_spconv1.pth")).unwrap();
    let both = |name: &str| Some(format!("{}.{name}", if name.starts_with("norm") { "ema" } else { "net" }));
    let error = text(&variables, &twice.renamed(both).unwrap(), &ImportOptions::default());
    assert!(error.contains("have no tensor"), "{error}");
    // Without its layers, a variable does not tell how to read a pointwise weight.
    let orphan = VarMap::new();
    drop(network(&orphan));
    let error = text(&orphan, &Checkpoint::open(fixture("import_spconv2.pth")).unwrap(), &ImportOptions::default());
    assert!(error.contains("belongs to no layer that lives"), "{error}");
    assert!(text(&VarMap::new(), &file, &ImportOptions::default()).contains("empty VarMap"));
}

#[test]
fn safetensors_with_pointwise_layers_ask_who_wrote_them() {
    let variables = VarMap::new();
    let net = network(&variables);
    let folder = Folder::new("import");
    let path = folder.join("net.safetensors");
    variables.save(&path).unwrap();
    let file = Checkpoint::open(&path).unwrap();
    let error = file.load_into(&variables, &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("WaveMesh") && error.contains("spconv 2"), "{error}");
    let ours = ImportOptions::new().format(WeightFormat::WaveMesh);
    let copy = VarMap::new();
    let twin = network(&copy);
    file.load_into(&copy, &ours).unwrap();
    let x = SparseConvTensor::from_coords(
        Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap(),
        vec![[0, 2, 2, 2], [0, 4, 4, 4]],
        [8, 8, 8],
        1,
    )
    .unwrap();
    let [a, b] = [&net, &twin].map(|net| net.forward(&x).unwrap().features().to_vec2::<f32>().unwrap());
    assert_eq!(a, b);
}

#[test]
fn damaged_files_are_errors() {
    let good = std::fs::read(fixture("import_spconv2.pth")).unwrap();
    let old = std::fs::read(fixture("import_old.pth")).unwrap();
    for bytes in [&good, &old] {
        for cut in (0..bytes.len()).step_by(97) {
            assert!(Checkpoint::from_bytes("cut.pth", &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
    let text = |bytes: &[u8]| Checkpoint::from_bytes("x.pth", bytes).unwrap_err().to_string();
    assert!(text(b"hello, world").contains("x.pth"));
    assert!(Checkpoint::open("nowhere.pth").unwrap_err().to_string().contains("nowhere.pth"));
    // If any byte changes, the result is an error or another value, never a panic.
    for at in (0..good.len()).step_by(13) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        let _ = Checkpoint::from_bytes("flipped.pth", &bytes);
    }
    for at in (0..old.len()).step_by(7) {
        let mut bytes = old.clone();
        bytes[at] ^= 0x55;
        let _ = Checkpoint::from_bytes("flipped.pth", &bytes);
    }
}

#[test]
fn a_layer_that_ran_on_another_kernel_s_pairs_is_loaded_by_its_offsets() {
    // Cylinder3D with spconv 1: a (3, 1, 3) layer shares the key of a (1, 3, 3) layer and runs on the pairs of that one.
    let weight = Tensor::arange(0f32, 18.0, &Device::Cpu).unwrap().reshape((3, 1, 3, 2, 1)).unwrap(); // (z, y, x, in, out)
    let bytes = candle_core::safetensors::save(
        &[("conv1_2.weight".to_string(), weight)].into(),
        std::env::temp_dir().join("wavemesh-cylinder.safetensors"),
    );
    bytes.unwrap();
    let file = Checkpoint::open(std::env::temp_dir().join("wavemesh-cylinder.safetensors")).unwrap();
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let config = ConvConfig::new().bias(false).key("bef");
    let conv = SubMConv3d::new(2, 1, [1, 3, 3], config, vb.pp("conv1_2")).unwrap();
    assert!(file.load_into(&variables, &ImportOptions::default()).unwrap_err().to_string().contains("[3, 1, 3, 2, 1]"));
    let file = file.mapped(|_, weight| Ok(weight.reshape((1, 3, 3, 2, 1))?)).unwrap();
    file.load_into(&variables, &ImportOptions::default()).unwrap();
    // Offset (y, x) of the layer reads the file's offset (z, x).
    let loaded = conv.weight().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(loaded, (0..18).map(|v| v as f32).collect::<Vec<_>>());
    std::fs::remove_file(file.path()).unwrap();
}
