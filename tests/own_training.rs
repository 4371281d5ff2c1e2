//! What a training of one's own network stands on: gradients of every layer in f64, gradient checkpointing, mixed precision,
//! normalisation over a group, and the trainer.

mod folder;

use std::ops::ControlFlow;
use std::sync::{Arc, Barrier, Mutex};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{BatchNormConfig, VarBuilder, VarMap};
use wavemesh::backbones::{MinkUNet, MinkUNetConfig, SpUNet, SpUNetConfig, VoxelResBackBone8x, VoxelResConfig};
use wavemesh::sparse::*;
use wavemesh::train::{FitConfig, Initialization, LearningRate, LossScale, Trainer, seeded_builder};
use wavemesh::{Error, Result};

use folder::Folder;

/// Numbers between -1 and 1 that `seed` decides, well spread.
fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729 + 13) as f64 * 0.618_033_988_75).fract() * 2.0 - 1.0).collect()
}

fn tensor(shape: &[usize], seed: usize) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
}

/// Sites of two batch elements, about a third of a 6 × 5 × 7 grid.
fn sites() -> Vec<[i32; 4]> {
    let cells = (0..2 * 6 * 5 * 7).map(|i| [i / 210, i / 35 % 6, i / 7 % 5, i % 7]);
    cells.enumerate().filter(|(i, _)| ((i * 2_654_435_761) >> 7) % 3 == 0).map(|(_, site)| site).collect()
}

fn input(channels: usize, dtype: DType) -> SparseConvTensor {
    let sites = sites();
    let features = tensor(&[sites.len(), channels], 1).to_dtype(dtype).unwrap();
    SparseConvTensor::from_coords(features, sites, [6, 5, 7], 2).unwrap()
}

fn variables_of<T>(dtype: DType, seed: u64, build: impl FnOnce(VarBuilder) -> Result<T>) -> (T, VarMap) {
    let variables = VarMap::new();
    let built =
        build(seeded_builder(&variables, seed, Initialization::KaimingNormal { fan_out: false }, dtype, &Device::Cpu))
            .unwrap();
    (built, variables)
}

/// The variables of a network by name, without running statistics.
fn parameters(variables: &VarMap) -> Vec<(String, Var)> {
    let data = variables.data().lock().unwrap();
    let mut all: Vec<_> = data
        .iter()
        .filter(|(name, _)| !name.contains("running"))
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

fn scalar(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

/// `torch.autograd.gradcheck`: the slope along a direction by central differences, and by the gradient, of every variable.
fn gradcheck(name: &str, vars: &[(String, Var)], value: impl Fn() -> Tensor) {
    let grads = value().backward().unwrap();
    for (i, (var_name, var)) in vars.iter().enumerate() {
        let direction = tensor(var.dims(), 50 + i);
        let grad = grads.get(var).unwrap_or_else(|| panic!("{name}: {var_name} has no gradient"));
        let slope = scalar(&(grad * &direction).unwrap());
        let own = var.as_detached_tensor().copy().unwrap();
        // So small that hardly a ReLU changes its side.
        let step = 1e-7;
        let at = |sign: f64| {
            var.set(&(&own + (&direction * (sign * step)).unwrap()).unwrap()).unwrap();
            scalar(&value())
        };
        let found = (at(1.0) - at(-1.0)) / (2.0 * step);
        var.set(&own).unwrap();
        let size = scalar(&(grad.abs().unwrap() * direction.abs().unwrap()).unwrap()).max(1.0);
        assert!(
            (found - slope).abs() <= 1e-6 * size,
            "{name}, {var_name}: {found} by differences, {slope} by the gradient"
        );
    }
}

/// Gradcheck of a layer from `channels` channels in training mode: of its features and of its parameters.
fn check_layer<M: SparseModule>(name: &str, channels: usize, build: impl FnOnce(VarBuilder) -> Result<M>) {
    let (layer, variables) = variables_of(DType::F64, 3, build);
    let x = input(channels, DType::F64);
    let features = Var::from_tensor(x.features()).unwrap();
    let mut vars = parameters(&variables);
    vars.push(("features".into(), features.clone()));
    gradcheck(name, &vars, || {
        let x = x.replace_feature(features.as_tensor().clone()).unwrap();
        let y = layer.forward_t(&x, true).unwrap();
        let weights = tensor(y.features().dims(), 9);
        (y.features() * weights).unwrap().sum_all().unwrap()
    });
}

#[test]
fn every_layer_has_the_gradients_of_finite_differences_in_f64() {
    let keyed = |key: &str| ConvConfig::new().key(key);
    check_layer("SubMConv3d", 3, |vb| SubMConv3d::new(3, 4, 3, ConvConfig::new(), vb));
    check_layer("SubMConv3d 1x1x1", 3, |vb| SubMConv3d::new(3, 4, 1, ConvConfig::new(), vb));
    check_layer("SparseConv3d", 3, |vb| SparseConv3d::new(3, 4, 3, ConvConfig::new().stride(2).padding(1), vb));
    let strided = ConvConfig::new().stride(2).output_sites(OutputSites::Strided);
    check_layer("SparseConv3d, strided sites", 3, |vb| SparseConv3d::new(3, 4, 2, strided, vb));
    check_layer("SparseConvTranspose3d", 3, |vb| SparseConvTranspose3d::new(3, 2, 2, ConvConfig::new().stride(2), vb));
    check_layer("SparseInverseConv3d", 3, |vb| {
        Ok(SparseSequential::new()
            .add(SparseConv3d::new(3, 4, 3, keyed("down").stride(2).padding(1), vb.pp(0))?)
            .add(SparseInverseConv3d::new(4, 2, 3, keyed("down"), vb.pp(1))?))
    });
    let overlapping = || PoolConfig::new().stride(2).padding(1);
    check_layer("SparseMaxPool3d", 3, |_| SparseMaxPool3d::new(3, overlapping()));
    check_layer("SparseAvgPool3d", 3, |_| SparseAvgPool3d::new(3, overlapping()));
    check_layer("SparseSumPool3d", 3, |_| SparseSumPool3d::new(3, overlapping()));
    check_layer("SparseInversePool3d", 3, |_| {
        Ok(SparseSequential::new()
            .add(SparseAvgPool3d::new(2, PoolConfig::new().key("pool"))?)
            .add(SparseInversePool3d::new(2, "pool")))
    });
    check_layer("BatchNorm", 3, |vb| BatchNorm::new(3, vb));
    check_layer("GroupNorm", 6, |vb| GroupNorm::new(2, 6, 1e-5, vb));
    check_layer("InstanceNorm", 3, |vb| InstanceNorm::new(3, 1e-5, vb));
    check_layer("LayerNorm", 3, |vb| LayerNorm::new(3, 1e-5, vb));
    check_layer("Linear and SiLU", 3, |vb| {
        Ok(SparseSequential::new()
            .add(candle_nn::linear(3, 5, vb)?)
            .add(Activation::Silu)
            .add(Activation::LeakyRelu(0.1)))
    });
    check_layer("SparseGlobalAvgPool", 3, |_| Ok(SparseSequential::new().add(SparseGlobalAvgPool)));
    check_layer("SparseGlobalMaxPool", 3, |_| Ok(SparseSequential::new().add(SparseGlobalMaxPool)));
    let (channels, layers) = (vec![4, 4], vec![1, 1]);
    check_layer("SpUNet", 2, |vb| {
        SpUNet::new(
            &SpUNetConfig::new().in_channels(2).num_classes(3).base_channels(4).channels(channels).layers(layers),
            vb,
        )
    });
}

#[test]
fn layers_of_two_axes_have_builders_and_gradients_too() {
    let (layer, variables) = variables_of(DType::F64, 5, |vb| {
        let down = ConvConfig::new().stride([2, 1]).padding((1, 1)).key("down");
        Ok(SparseSequential::new()
            .add(SubMConv2d::new(2, 3, 3, ConvConfig::new().key("a").bias(false), vb.pp(0))?)
            .add(SparseConv2d::new(3, 4, 3, down, vb.pp(1))?)
            .add(SparseMaxPool2d::new(2, PoolConfig::new().stride(1).from_zero(false))?))
    });
    let sites: Vec<i64> = (0..30).filter(|i| i % 4 != 3).flat_map(|i| [0, i / 6, i % 6]).collect();
    let rows = sites.len() / 3;
    let sites = Tensor::from_vec(sites, (rows, 3), &Device::Cpu).unwrap();
    let features = Var::from_tensor(&tensor(&[rows, 2], 2)).unwrap();
    let mut vars = parameters(&variables);
    vars.push(("features".into(), features.clone()));
    gradcheck("2-D", &vars, || {
        let x = SparseConvTensor::new(features.as_tensor().clone(), sites.clone(), [5, 6], 1).unwrap();
        let y = layer.forward_t(&x, true).unwrap();
        (y.features() * tensor(y.features().dims(), 9)).unwrap().sum_all().unwrap()
    });
    let line = SparseConv1d::new(2, 3, 3, ConvConfig::new().stride(2), VarBuilder::zeros(DType::F64, &Device::Cpu));
    assert_eq!(line.unwrap().kernel_size(), [3]);
}

#[test]
fn attention_has_the_gradients_of_finite_differences_in_f64() {
    let x = input(1, DType::F64);
    let vars: Vec<(String, Var)> = ["queries", "keys", "values"]
        .iter()
        .enumerate()
        .map(|(i, name)| (name.to_string(), Var::from_tensor(&tensor(&[x.len(), 2, 3], 20 + i)).unwrap()))
        .collect();
    for groups in [AttentionGroups::Full, AttentionGroups::Serialized { curve: Curve::Hilbert, length: 8 }] {
        gradcheck("attention", &vars, || {
            let y = sparse_attention(&x, &vars[0].1, &vars[1].1, &vars[2].1, &groups).unwrap();
            (&y * tensor(y.dims(), 9)).unwrap().sum_all().unwrap()
        });
    }
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Blocks of a network, each in a wrapping of the caller's.
fn blocks<M: SparseModule + Send + Sync + 'static>(
    vb: &VarBuilder,
    wrap: impl Fn(SparseSequential) -> M,
) -> Result<SparseSequential> {
    let keyed = |key: &str| ConvConfig::new().bias(false).key(key);
    let first = SparseSequential::new()
        .add(SubMConv3d::new(3, 8, 3, keyed("a"), vb.pp("0"))?)
        .add(BatchNorm::new(8, vb.pp("1"))?)
        .add(Activation::Relu)
        .add(candle_nn::linear(8, 8, vb.pp("2"))?);
    let second = SparseSequential::new()
        .add(SparseConv3d::new(8, 8, 3, keyed("down").stride(2).padding(1), vb.pp("3"))?)
        .add(BatchNorm::new(8, vb.pp("4"))?)
        .add(Activation::Relu);
    let third = SparseSequential::new()
        .add(SparseInverseConv3d::new(8, 4, 3, keyed("down"), vb.pp("5"))?)
        .add(SubMConv3d::new(4, 2, 3, keyed("a"), vb.pp("6"))?);
    Ok(SparseSequential::new().add(wrap(first)).add(wrap(second)).add(wrap(third)))
}

#[test]
fn checkpoints_give_the_values_gradients_and_statistics_of_the_module_bit_for_bit() {
    let run = |checkpoints: u32| {
        let (network, variables) = variables_of(DType::F32, 7, |vb| match checkpoints {
            0 => blocks(&vb, |block| block),
            1 => blocks(&vb, GradientCheckpoint::new),
            _ => Ok(SparseSequential::new().add(GradientCheckpoint::new(blocks(&vb, GradientCheckpoint::new)?))),
        });
        let x = input(3, DType::F32);
        let features = Var::from_tensor(x.features()).unwrap();
        let y = network.forward_t(&x.replace_feature(features.as_tensor().clone()).unwrap(), true).unwrap();
        let grads = (y.features() * tensor(y.features().dims(), 4).to_dtype(DType::F32).unwrap())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        let mut found = vec![("y".to_string(), bits(y.features())), ("x".into(), bits(grads.get(&features).unwrap()))];
        for (name, var) in parameters(&variables) {
            found.push((name, bits(grads.get(&var).unwrap())));
        }
        let data = variables.data().lock().unwrap();
        let mut running: Vec<_> = data.iter().filter(|(name, _)| name.contains("running")).collect();
        running.sort_by_key(|(name, _)| *name);
        found.extend(running.into_iter().map(|(name, var)| (name.clone(), bits(var))));
        found
    };
    let plain = run(0);
    assert_eq!(plain.len(), 2 + 10 + 4);
    for depth in [1, 2] {
        for ((name, expected), (_, found)) in plain.iter().zip(run(depth)) {
            assert!(*expected == found, "{name} at depth {depth}");
        }
    }
}

#[test]
fn a_checkpoint_leaves_no_tape_within_itself() {
    let (block, _variables) = variables_of(DType::F32, 7, |vb| blocks(&vb, |block| block));
    let x = input(3, DType::F32);
    let nodes = |block: &dyn SparseModule| block.forward_t(&x, true).unwrap().features().sorted_nodes().len();
    let plain = nodes(&block);
    let checkpoint = GradientCheckpoint::new(block);
    // A stub for each parameter, the parameters, their concatenation, and the operation itself.
    assert!(nodes(&checkpoint) <= 2 * 10 + 2, "{} of {plain}", nodes(&checkpoint));
    assert!(!no_grad(|| checkpoint.forward(&x)).unwrap().features().track_op());
    assert!(format!("{:?}", SparseSequential::new().add(checkpoint)).contains("GradientCheckpoint(SparseSequential"));
}

/// Layers in f64 whose outputs, and the gradients of these, are rounded to half precision: what mixed precision is to compute.
struct Rounded(SparseSequential, DType);

impl SparseModule for Rounded {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let round = |x: SparseConvTensor| x.replace_feature(x.features().to_dtype(self.1)?.to_dtype(DType::F64)?);
        self.0.layers().try_fold(round(x.clone())?, |x, layer| round(layer.forward_t(&x, train)?))
    }
}

/// The output of a network of these parameters in training, and the gradient of each.
fn output_and_gradients(network: &SparseSequential, variables: &VarMap, dtype: DType) -> Vec<(String, Tensor)> {
    let y = network.forward_t(&input(3, dtype), true).unwrap();
    assert_eq!(y.dtype(), dtype);
    let direction = tensor(y.features().dims(), 4).to_dtype(dtype).unwrap();
    let grads = (y.features() * direction).unwrap().sum_all().unwrap().backward().unwrap();
    let mut found = vec![("y".to_string(), y.features().detach())];
    for (name, var) in parameters(variables) {
        let grad = grads.get(&var).unwrap().clone();
        assert_eq!(grad.dtype(), dtype, "{name}");
        found.push((name, grad));
    }
    found
}

#[test]
fn mixed_precision_rounds_features_and_nothing_else() {
    let (_, drawn) = variables_of(DType::F32, 7, |vb| blocks(&vb, |block| block));
    // Networks of the same parameters.
    let with = |dtype, wrap: &dyn Fn(VarBuilder) -> Result<SparseSequential>| {
        let (network, variables) = variables_of(dtype, 7, wrap);
        for (name, var) in parameters(&variables) {
            let drawn = drawn.data().lock().unwrap()[&name].to_dtype(dtype).unwrap();
            var.set(&drawn).unwrap();
        }
        output_and_gradients(&network, &variables, dtype)
    };
    let length = |t: &Tensor| scalar(&t.to_dtype(DType::F64).unwrap().sqr().unwrap()).sqrt();
    let off = |a: &Tensor, b: &Tensor| length(&(a.to_dtype(DType::F64).unwrap() - b).unwrap()) / length(b);
    let exact = with(DType::F64, &|vb| blocks(&vb, |block| block));
    for dtype in [DType::F16, DType::BF16] {
        let rounded = with(DType::F64, &|vb| blocks(&vb, |block| Rounded(block, dtype)));
        let mixed = with(DType::F32, &|vb| {
            Ok(SparseSequential::new().add(MixedPrecision::new(blocks(&vb, |block| block)?, dtype)?))
        });
        for (((name, mixed), (_, rounded)), (_, exact)) in mixed.iter().zip(&rounded).zip(&exact) {
            let (rounding, difference) = (off(rounded, exact), off(mixed, rounded));
            println!("{name} in {dtype:?}: rounding {rounding:.1e}, difference {difference:.1e}");
            assert!(rounding > 0.0 && difference < rounding, "{name} in {dtype:?}: {difference:.1e} of {rounding:.1e}");
        }
    }
    let (conv, _) = variables_of(DType::F32, 7, |vb| SubMConv3d::new(1, 1, 1, ConvConfig::new(), vb));
    assert!(MixedPrecision::new(conv, DType::F64).unwrap_err().to_string().contains("f16 or bf16"));
}

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

/// What a pass of a normalisation finds: values, gradients of features, weight and bias, running mean and variance.
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
    // Far from zero, where a sum of squares would be of no use.
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
        // In a group of one the sums go another way, over f64, and the values are the same but for rounding.
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

/// A segmentation of two crossing planes by a small SpUNet: the loss of micro-batch n.
struct Planes {
    network: SpUNet,
    variables: VarMap,
    scenes: Vec<(SparseConvTensor, Tensor)>,
}

impl Planes {
    fn new(seed: u64) -> Self {
        let (channels, layers) = (vec![4, 4], vec![1, 1]);
        let config =
            SpUNetConfig::new().in_channels(1).num_classes(2).base_channels(4).channels(channels).layers(layers);
        let (network, variables) = variables_of(DType::F32, seed, |vb| SpUNet::new(&config, vb));
        let scenes = (0..3).map(|shift| {
            let floor = (0..64).map(|i| ([0, 2 + shift, i / 8, i % 8], 0u32));
            let wall = (0..64).map(|i| ([0, i / 8, 3 + shift, i % 8], 1));
            let mut all: Vec<([i32; 4], u32)> = floor.chain(wall).collect();
            all.sort_unstable();
            all.dedup_by_key(|(site, _)| *site);
            let (sites, labels): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            let n = sites.len();
            let x = Tensor::ones((n, 1), DType::F32, &Device::Cpu).unwrap();
            let x = SparseConvTensor::from_coords(x, sites, [8; 3], 1).unwrap();
            (x, Tensor::from_vec(labels, n, &Device::Cpu).unwrap())
        });
        Self { network, variables, scenes: scenes.collect() }
    }

    fn loss(&self, n: usize, train: bool) -> Result<Tensor> {
        let (x, labels) = &self.scenes[n % 2];
        Ok(candle_nn::loss::cross_entropy(self.network.forward_t(x, train)?.features(), labels)?)
    }

    /// Of a scene that is not trained on.
    fn held_out(&self) -> Result<f64> {
        let (x, labels) = &self.scenes[2];
        let scores = no_grad(|| self.network.forward(x))?;
        Ok(f64::from(candle_nn::loss::cross_entropy(scores.features(), labels)?.to_scalar::<f32>()?))
    }

    fn weights(&self) -> Vec<Vec<u32>> {
        let data = self.variables.data().lock().unwrap();
        let mut all: Vec<_> = data.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        all.into_iter().map(|(_, var)| bits(var)).collect()
    }
}

#[test]
fn a_training_of_any_network_goes_on_from_its_checkpoint_bit_for_bit() {
    let folder = Folder::new("fit");
    let config = |folder: Option<&Folder>| {
        let rate = LearningRate::Cosine { rate: 0.02, total: 12, least: 1e-3 };
        let mut config = FitConfig::new().steps(12).accumulation(2).learning_rate(rate).ema_decay(0.9);
        config = config.validate_every(4).checkpoint_every(3);
        config.folder = folder.map(|folder| folder.to_path_buf());
        config
    };
    let run = |planes: &Planes, folder, until: usize, resume: bool| {
        let mut trainer = Trainer::fit(&planes.variables, config(folder), |n| planes.loss(n, true))
            .unwrap()
            .validated_by(|| planes.held_out());
        assert_eq!(trainer.resume_latest().unwrap(), resume);
        trainer
            .run_until(|_, record| {
                Ok(if record.step == until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .unwrap();
        let average: Vec<_> = trainer.average().unwrap().variables().iter().map(|(_, var)| bits(var)).collect();
        let losses: Vec<_> =
            trainer.history().iter().map(|record| (record.loss, record.grad_norm, record.validation)).collect();
        (losses, average, trainer.best_validation())
    };
    let whole = Planes::new(3);
    let expected = run(&whole, None, 12, false);
    assert!(expected.0[11].0 < expected.0[0].0, "{:?}", expected.0);
    assert_eq!(expected.0.iter().filter(|(_, _, validation)| validation.is_some()).count(), 3);

    let first = Planes::new(3);
    run(&first, Some(&folder), 8, false); // the newest checkpoint is that of step 6
    let second = Planes::new(99);
    let found = run(&second, Some(&folder), 12, true);
    assert_eq!(found.0, expected.0);
    assert_eq!(found.1, expected.1);
    assert_eq!(second.weights(), whole.weights());
    assert!(folder.join("best.safetensors").is_file() && found.2.is_some());
    let log = std::fs::read_to_string(folder.join("log.csv")).unwrap();
    assert_eq!(log.lines().count(), 13, "{log}");
}

#[test]
fn validation_sees_the_average_and_the_training_keeps_its_own() {
    let planes = Planes::new(3);
    let seen = Mutex::new(Vec::new());
    let config = FitConfig::new().steps(3).ema_decay(0.5).validate_every(3).learning_rate(LearningRate::Constant(0.05));
    let mut trainer = Trainer::fit(&planes.variables, config, |n| planes.loss(n, true)).unwrap().validated_by(|| {
        *seen.lock().unwrap() = planes.weights();
        Ok(1.0)
    });
    trainer.run(|_, _| Ok(())).unwrap();
    let average: Vec<_> = trainer.average().unwrap().variables().iter().map(|(_, var)| bits(var)).collect();
    assert_eq!(*seen.lock().unwrap(), average);
    assert_ne!(planes.weights(), average);
}

#[test]
fn training_stops_early_when_validation_gets_no_better() {
    let planes = Planes::new(3);
    let validations = Mutex::new([5.0, 3.0, 4.0, 3.5, 1.0].into_iter());
    let config = FitConfig::new().steps(50).validate_every(2).patience(2);
    let mut trainer = Trainer::fit(&planes.variables, config, |n| planes.loss(n, true))
        .unwrap()
        .validated_by(|| Ok(validations.lock().unwrap().next().unwrap()));
    trainer.run(|_, _| Ok(())).unwrap();
    assert_eq!(trainer.step_count(), 8, "the fourth validation is the second without a better one");
    let wrong = Trainer::fit(&planes.variables, FitConfig::new().patience(1), |n| planes.loss(n, true)).err().unwrap();
    assert!(wrong.to_string().contains("validate_every"), "{wrong}");
}

#[test]
fn a_scaled_loss_takes_the_same_steps_and_skips_those_that_overflow() {
    let run = |loss_scale: Option<LossScale>| {
        let planes = Planes::new(3);
        let mut config = FitConfig::new().steps(6).learning_rate(LearningRate::Constant(0.02));
        config.loss_scale = loss_scale;
        let mut trainer = Trainer::fit(&planes.variables, config, |n| planes.loss(n, true)).unwrap();
        trainer.run(|_, _| Ok(())).unwrap();
        let norms: Vec<f64> = trainer.history().iter().map(|record| record.grad_norm).collect();
        (planes.weights(), norms)
    };
    let (expected, _) = run(None);
    // A power of two scales every gradient exactly.
    let scaled = LossScale::new().initial(1024.0);
    let (found, norms) = run(Some(scaled));
    assert!(norms.iter().all(|norm| norm.is_finite()));
    assert_eq!(found, expected);

    // f16 features overflow at this scale, until it has been halved often enough.
    let planes = Planes::new(3);
    let half = MixedPrecision::new(&planes.network, DType::F16).unwrap();
    let (x, labels) = &planes.scenes[0];
    let before = planes.weights();
    let config = FitConfig::new().steps(1).loss_scale(LossScale::new().initial(2f64.powi(40)));
    let loss = |_| Ok(candle_nn::loss::cross_entropy(half.forward_t(x, true)?.features(), labels)?);
    let mut trainer = Trainer::fit(&planes.variables, config.clone(), loss).unwrap();
    let record = trainer.step().unwrap();
    assert!(!record.grad_norm.is_finite() && record.loss.is_finite());
    let after = planes.weights();
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    let running = planes.variables.data().lock().unwrap().keys().filter(|name| name.contains("running")).count();
    assert!(moved <= running, "a skipped step moved {moved} variables, of which {running} are running statistics");
    while !trainer.step().unwrap().grad_norm.is_finite() {}
    assert!(trainer.step_count() < 40);
    assert_ne!(planes.weights(), after);

    // Without scaling, or where the loss itself is infinite, it is an error.
    let infinite = |_| Ok(Tensor::new(f32::INFINITY, &Device::Cpu)?);
    let mut trainer = Trainer::fit(&planes.variables, config, infinite).unwrap();
    assert!(matches!(trainer.step(), Err(Error::Diverged { what: "loss", .. })));
}
