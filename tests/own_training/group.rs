//! Normalisation over a group.

use std::sync::{Arc, Barrier, Mutex};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{BatchNormConfig, VarBuilder, VarMap};
use wavemesh::Result;
use wavemesh::backbones::{MinkUNet, MinkUNetConfig, SpUNet, SpUNetConfig, VoxelResBackBone8x, VoxelResConfig};
use wavemesh::sparse::*;

use super::{input, tensor, variables_of};

/// Threads that meet for each sum.
struct Threads {
    barrier: Barrier,
    sums: Mutex<Vec<f64>>,
}

impl AllReduce for Threads {
    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        self.sums.lock().unwrap().resize(values.len(), 0.0);
        self.barrier.wait();
        self.sums.lock().unwrap().iter_mut().zip(&*values).for_each(|(sum, value)| *sum += value);
        self.barrier.wait();
        values.copy_from_slice(&self.sums.lock().unwrap());
        if self.barrier.wait().is_leader() {
            self.sums.lock().unwrap().clear();
        }
        self.barrier.wait();
        Ok(())
    }
}

/// The results of a normalisation's pass: values, gradients of features, weight and bias, running mean and variance.
fn normalized(norm: &dyn SparseModule, variables: &VarMap, x: &SparseConvTensor, direction: &Tensor) -> Vec<Vec<f64>> {
    let features = Var::from_tensor(x.features()).unwrap();
    let y = norm.forward_t(&x.replace_feature(features.as_tensor().clone()).unwrap(), true).unwrap();
    let grads = (y.features() * direction).unwrap().sum_all().unwrap().backward().unwrap();
    let data = variables.data().lock().unwrap();
    let values = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    vec![
        values(y.features()),
        values(grads.get(&features).unwrap()),
        values(grads.get(&data["weight"]).unwrap()),
        values(grads.get(&data["bias"]).unwrap()),
        values(&data["running_mean"]),
        values(&data["running_var"]),
    ]
}

#[test]
fn sync_batch_norm_over_three_threads_is_batch_norm_over_all_their_sites() {
    let x = input(3, DType::F64);
    // Far from zero, where a sum of squares would lose its precision.
    let x = x.replace_feature((x.features() * 2.0).unwrap().affine(1.0, 1e4).unwrap()).unwrap();
    let direction = tensor(&[x.len(), 3], 4);
    let (whole, variables) = variables_of(DType::F64, 1, |vb| BatchNorm::new(3, vb));
    let expected = normalized(&whole, &variables, &x, &direction);

    let group: Arc<dyn AllReduce> = Arc::new(Threads { barrier: Barrier::new(3), sums: Mutex::default() });
    // One member has no site at all.
    let parts = [0..17, 17..17, 17..x.len()];
    let found: Vec<Vec<Vec<f64>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(i, rows)| {
                let (x, direction, group) = (&x, &direction, &group);
                scope.spawn(move || {
                    let part = |t: &Tensor| t.narrow(0, rows.start, rows.len()).unwrap().contiguous().unwrap();
                    let own = SparseConvTensor::from_coords(
                        part(x.features()),
                        x.coords()[rows.clone()].to_vec(),
                        [6, 5, 7],
                        2,
                    )
                    .unwrap();
                    let (norm, variables): (Box<dyn SparseModule>, _) = if i == 0 {
                        let (norm, variables) = variables_of(DType::F64, 1, |vb| SyncBatchNorm::new(3, group, vb));
                        (Box::new(norm), variables)
                    } else {
                        let (norm, variables) =
                            variables_of(DType::F64, 1, |vb| Ok(SparseSequential::new().add(BatchNorm::new(3, vb)?)));
                        norm.convert_sync_batchnorm(group);
                        (Box::new(norm), variables)
                    };
                    normalized(&*norm, &variables, &own, &part(direction))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let close = |what: &str, a: &[f64], b: &[f64]| {
        let most = b.iter().fold(1e-3f64, |most, v| most.max(v.abs()));
        assert_eq!(a.len(), b.len(), "{what}");
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-8 * most, "{what}: {a}, not {b}"));
    };
    for (i, what) in ["values", "features' gradient"].into_iter().enumerate() {
        close(what, &found.iter().flat_map(|part| part[i].clone()).collect::<Vec<_>>(), &expected[i]);
    }
    for (i, what) in [(2, "weight's gradient"), (3, "bias' gradient")] {
        let sum: Vec<f64> = (0..3).map(|c| found.iter().map(|part| part[i][c]).sum()).collect();
        close(what, &sum, &expected[i]);
    }
    for (i, what) in [(4, "running mean"), (5, "running variance")] {
        found.iter().for_each(|part| close(what, &part[i], &expected[i]));
    }
}

#[test]
fn backbones_convert_all_their_normalisations() {
    struct Counted(Mutex<usize>);
    impl AllReduce for Counted {
        fn all_reduce(&self, _: &mut [f64]) -> Result<()> {
            *self.0.lock().unwrap() += 1;
            Ok(())
        }
    }
    let check = |name: &str, build: &dyn Fn(VarBuilder) -> Result<Box<dyn SparseModule>>| {
        let x = SparseConvTensor::from_coords(
            tensor(&[1200, 4], 1).to_dtype(DType::F32).unwrap(),
            (0..1200).map(|i| [0, 4 + i / 400, i / 20 % 20, i % 20]).collect(),
            [41, 32, 32],
            1,
        )
        .unwrap();
        let (plain, _) = variables_of(DType::F32, 2, build);
        let (converted, variables) = variables_of(DType::F32, 2, build);
        let counted = Arc::new(Counted(Mutex::new(0)));
        let group: Arc<dyn AllReduce> = counted.clone();
        converted.convert_sync_batchnorm(&group);
        let [expected, found] = [&plain, &converted].map(|net| net.forward_t(&x, true).unwrap());
        // In a group of one, sums go another way, through f64; values are equal except for rounding.
        let off = (expected.features() - found.features()).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-4, "{name}: {off}");
        let norms = variables.data().lock().unwrap().keys().filter(|name| name.ends_with("running_mean")).count();
        assert_eq!(*counted.0.lock().unwrap(), 2 * norms, "{name}: two rounds for each normalisation");
    };
    let (channels, layers) = (vec![4, 8, 8, 4], vec![1; 4]);
    let spunet = SpUNetConfig::new().in_channels(4).num_classes(3).base_channels(4).channels(channels).layers(layers);
    check("SpUNet", &|vb| Ok(Box::new(SpUNet::new(&spunet, vb)?)));
    let minkunet = MinkUNetConfig::new().in_channels(4).num_classes(3).init_dim(4).planes([4; 8]).layers([1; 8]);
    check("MinkUNet", &|vb| Ok(Box::new(MinkUNet::new(&minkunet, vb)?)));
    let voxel_res = VoxelResConfig::new().in_channels(4).channels([4; 4]).out_channels(4).last_pad(0);
    check("VoxelResBackBone8x", &|vb| Ok(Box::new(VoxelResBackBone8x::new(&voxel_res, vb)?)));
}

#[test]
fn one_site_of_a_group_of_one_has_no_variance() {
    struct Alone;
    impl AllReduce for Alone {
        fn all_reduce(&self, _: &mut [f64]) -> Result<()> {
            Ok(())
        }
    }
    let group: Arc<dyn AllReduce> = Arc::new(Alone);
    let config = BatchNormConfig { momentum: 0.3, ..Default::default() };
    let (norm, _) = variables_of(DType::F32, 1, |vb| SyncBatchNorm::with_config(1, config, &group, vb));
    let one =
        SparseConvTensor::from_coords(Tensor::ones((1, 1), DType::F32, &Device::Cpu).unwrap(), vec![[0; 4]], [1; 3], 1);
    let error = norm.forward_t(&one.unwrap(), true).unwrap_err().to_string();
    assert!(error.contains("one site in training mode"), "{error}");
    assert_eq!(norm.describe().kind, "SyncBatchNorm(1)");
}
