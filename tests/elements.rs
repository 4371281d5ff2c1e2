//! Layers that treat the elements of a batch separately: torch's values and gradients, element by element.

use std::collections::HashMap;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use wavemesh::sparse::*;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

fn saved() -> HashMap<String, Tensor> {
    let path = format!("{}/tests/fixtures/elements.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &DEVICE).unwrap()
}

fn on_sites(features: &Tensor, saved: &HashMap<String, Tensor>) -> SparseConvTensor {
    SparseConvTensor::new(features.clone(), saved["indices"].clone(), [6, 9, 7], 3).unwrap()
}

fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let off: f32 = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
    assert!(off <= tolerance, "{what}: {off}");
}

#[test]
fn norms_have_torch_s_values_and_gradients_for_each_element() {
    let saved = saved();
    let parameters =
        HashMap::from([("weight".to_string(), saved["weight"].clone()), ("bias".into(), saved["bias"].clone())]);
    let vb = VarBuilder::from_tensors(parameters, DType::F32, &DEVICE);
    let norms: [(&str, Box<dyn SparseModule>); 3] = [
        ("group", Box::new(GroupNorm::new(3, 6, 1e-5, vb.clone()).unwrap())),
        ("instance", Box::new(InstanceNorm::without_affine(6, 1e-5).unwrap())),
        ("layer", Box::new(LayerNorm::new(6, 1e-5, vb).unwrap())),
    ];
    for (name, norm) in norms {
        let x = Var::from_tensor(&saved["x"]).unwrap();
        let y = norm.forward(&on_sites(x.as_tensor(), &saved)).unwrap();
        assert_close(name, y.features(), &saved[&format!("{name}/y")], 5e-6);
        let grads = (y.features() * &saved["direction"]).unwrap().sum_all().unwrap().backward().unwrap();
        assert_close(name, grads.get(&x).unwrap(), &saved[&format!("{name}/grad0")], 2e-5);
    }
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &DEVICE);
    assert!(GroupNorm::new(4, 6, 1e-5, vb.clone()).unwrap_err().to_string().contains("4 groups of 6 channels"));
    let narrow = LayerNorm::new(5, 1e-5, vb).unwrap().forward(&on_sites(&saved["x"], &saved));
    assert!(narrow.unwrap_err().to_string().contains("(sites, 5)"));
}

#[test]
fn attention_has_torch_s_values_and_gradients_in_every_kind_of_group() {
    let saved = saved();
    let x = on_sites(&saved["x"], &saved);
    for (name, groups) in [
        ("full", AttentionGroups::Full),
        ("windowed", AttentionGroups::Windowed { size: [4, 4, 3], shift: [1, 2, 0] }),
        ("serialized", AttentionGroups::Serialized { curve: Curve::ZOrder, length: 16 }),
    ] {
        let inputs = ["q", "k", "v"].map(|name| Var::from_tensor(&saved[name]).unwrap());
        let [q, k, v] = inputs.each_ref();
        let y = sparse_attention(&x, q, k, v, &groups).unwrap();
        assert_close(name, &y, &saved[&format!("{name}/y")], 5e-6);
        let alone = no_grad(|| sparse_attention(&x, q, k, v, &groups)).unwrap();
        assert_close(name, &alone, &saved[&format!("{name}/y")], 5e-6);
        assert!(!alone.track_op());
        let grads = (&y * &saved["towards"]).unwrap().sum_all().unwrap().backward().unwrap();
        for (i, input) in inputs.iter().enumerate() {
            assert_close(
                &format!("{name}, input {i}"),
                grads.get(input).unwrap(),
                &saved[&format!("{name}/grad{i}")],
                1e-5,
            );
        }
        let mut rows = groups.rows(&x).unwrap().concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..x.len() as u32).collect::<Vec<_>>(), "every row is in one group");
    }
    let q = &saved["q"];
    let text =
        |q: &Tensor, k: &Tensor, groups| sparse_attention(&x, q, k, &saved["v"], &groups).unwrap_err().to_string();
    assert!(text(&q.narrow(0, 0, 3).unwrap(), q, AttentionGroups::Full).contains("queries"));
    assert!(text(q, &q.narrow(2, 0, 3).unwrap(), AttentionGroups::Full).contains("keys"));
    assert!(text(q, q, AttentionGroups::Windowed { size: [4, 0, 4], shift: [0; 3] }).contains("size"));
    assert!(text(q, q, AttentionGroups::Serialized { curve: Curve::Hilbert, length: 0 }).contains("length"));
}

#[test]
fn hilbert_groups_are_as_long_as_asked_and_stay_in_their_element() {
    let saved = saved();
    let x = on_sites(&saved["x"], &saved);
    for rows in (AttentionGroups::Serialized { curve: Curve::Hilbert, length: 10 }).rows(&x).unwrap() {
        assert!((5..=10).contains(&rows.len()));
        assert!(rows.iter().all(|&row| x.coords()[row as usize][0] == x.coords()[rows[0] as usize][0]));
    }
}

#[test]
fn encodings_are_trellis_s() {
    let saved = saved();
    let x = on_sites(&saved["x"], &saved);
    assert_close("encoding", &x.position_encoding(20).unwrap(), &saved["encoding"], 1e-6);
    assert_close("rotary", &x.rotate(&saved["wide"]).unwrap(), &saved["turned"], 2e-6);
    assert!(x.position_encoding(5).is_err() && x.rotate(&saved["x"]).is_err());
}

#[test]
fn sums_and_broadcasts_know_empty_elements() {
    let saved = saved();
    let x = on_sites(&saved["x"], &saved);
    assert_eq!(x.batch_counts().unwrap()[1], 0);
    let sums = x.reduce_elements(x.features(), Reduce::Sum).unwrap();
    assert_close("sums", &sums, &SparseGlobalSumPool.forward(&x).unwrap(), 0.0);
    assert_eq!(sums.to_vec2::<f32>().unwrap()[1], [0.0; 6]);
    let total = sums.sum(0).unwrap();
    assert_close("total", &total, &x.features().sum(0).unwrap(), 1e-4);
    let back = x.broadcast_elements(&sums).unwrap();
    let rows = x.element_rows();
    for (b, rows) in rows.iter().enumerate() {
        for &row in rows {
            assert_eq!(
                back.get(row as usize).unwrap().to_vec1::<f32>().unwrap(),
                sums.get(b).unwrap().to_vec1::<f32>().unwrap()
            );
        }
    }
    assert!(x.broadcast_elements(&sums.narrow(0, 0, 2).unwrap()).is_err());
    // As modules, global pools can be part of a sequence.
    let net = SparseSequential::new().add(SparseGlobalAvgPool).add(|features: &Tensor| features * 2.0);
    let pooled = net.forward(&x).unwrap();
    assert_eq!(pooled.coords(), [[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]]);
}

#[test]
fn max_pool_gives_the_window_s_maximum_and_spconv_s_when_asked() {
    let saved = saved();
    let x = on_sites(&saved["x"], &saved);
    let ours = SparseMaxPool3d::new(2, PoolConfig::default()).unwrap().forward(&x).unwrap();
    let spconv = PoolConfig::new().from_zero(true);
    let theirs = SparseMaxPool3d::new(2, spconv).unwrap().forward(&x).unwrap();
    assert_eq!(
        theirs.indices().unwrap().to_vec2::<i64>().unwrap(),
        saved["pool/indices"].to_device(&Device::Cpu).unwrap().to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap()
    );
    assert_close("spconv", theirs.features(), &saved["pool/y"], 0.0);
    assert_close("both", &ours.features().relu().unwrap(), theirs.features(), 0.0);
    let least: f32 = ours.features().min_all().unwrap().to_scalar().unwrap();
    assert!(least < 0.0, "a window of negative values keeps its maximum");
}
