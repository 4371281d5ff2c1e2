//! Random grids, densities, kernels and channels: the native backend, the dense backend and finite differences agree.

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use wavemesh::sparse::*;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

const SEEDS: std::ops::Range<u64> = 0..60;

struct Random(StdRng);

impl Random {
    fn triple(&mut self, range: std::ops::RangeInclusive<usize>) -> [usize; 3] {
        std::array::from_fn(|_| self.0.random_range(range.clone()))
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Tensor {
        let values: Vec<f32> = (0..rows * columns).map(|_| self.0.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(values, (rows, columns), &DEVICE).unwrap()
    }

    /// Sets every variable to values from this seed, in the order of names: candle's initial values have no seed.
    fn settle(&mut self, variables: &VarMap) {
        let mut named: Vec<(String, Var)> = variables.data().lock().unwrap().clone().into_iter().collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, var) in named {
            let values = (self.matrix(1, var.elem_count()) * 0.3).unwrap();
            var.set(&values.reshape(var.shape()).unwrap()).unwrap();
        }
    }

    /// Distinct sites in random order: none, a few, or up to every cell.
    fn sites(&mut self, batch: usize, shape: [usize; 3]) -> Vec<[i32; 4]> {
        let cells = batch * shape.iter().product::<usize>();
        let share = [0.0, 0.02, 0.3, 1.0][self.0.random_range(0..4)];
        let mut keys: Vec<usize> = (0..cells).filter(|_| self.0.random_bool(share)).collect();
        keys.shuffle(&mut self.0);
        let [d, h, w] = shape;
        keys.iter().map(|k| [k / (d * h * w), k / (h * w) % d, k / w % h, k % w].map(|v| v as i32)).collect()
    }
}

enum Layer {
    Sub(SubMConv3d),
    Regular(SparseConv3d),
    Transposed(SparseConvTranspose3d),
    Max(SparseMaxPool3d),
    Avg(SparseAvgPool3d),
}

impl Layer {
    fn random(random: &mut Random, channels: [usize; 2], vb: VarBuilder) -> wavemesh::Result<Self> {
        let [inputs, outputs] = channels;
        let kind = random.0.random_range(0..5);
        let mut kernel = random.triple(1..=4);
        let mut config = ConvConfig::new()
            .stride(random.triple(1..=3))
            .padding(random.triple(0..=2))
            .dilation(random.triple(1..=2))
            .bias(random.0.random_bool(0.5));
        let mut pool = PoolConfig::new().padding(config.padding).dilation(config.dilation);
        pool.stride = random.0.random_bool(0.5).then_some(config.stride);
        Ok(match kind {
            0 => {
                kernel = kernel.map(|k| k / 2 * 2 + 1);
                Self::Sub(SubMConv3d::new(inputs, outputs, kernel, config, vb)?)
            }
            1 => {
                if random.0.random_bool(0.4) {
                    config.output_sites = OutputSites::Strided;
                }
                Self::Regular(SparseConv3d::new(inputs, outputs, kernel, config, vb)?)
            }
            2 => Self::Transposed(SparseConvTranspose3d::new(inputs, outputs, kernel, config, vb)?),
            3 => Self::Max(SparseMaxPool3d::new(kernel, pool)?),
            _ => Self::Avg(SparseAvgPool3d::new(kernel, pool)?),
        })
    }

    fn module(&self) -> &dyn SparseModule {
        match self {
            Self::Sub(layer) => layer,
            Self::Regular(layer) => layer,
            Self::Transposed(layer) => layer,
            Self::Max(layer) => layer,
            Self::Avg(layer) => layer,
        }
    }

    fn is_linear(&self) -> bool {
        !matches!(self, Self::Max(_))
    }
}

fn peak(t: &Tensor) -> f32 {
    if t.elem_count() == 0 { 0.0 } else { t.abs().unwrap().max_all().unwrap().to_scalar().unwrap() }
}

fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let off = peak(&(a - b).unwrap());
    assert!(off <= tolerance * peak(b).max(1e-3), "{what}: {off} of {}", peak(b));
}

struct Run {
    y: SparseConvTensor,
    x_grad: Tensor,
    parameter_grads: Vec<Tensor>,
}

/// Output, and the gradients of sum(y · direction).
fn run(layer: &Layer, x: &Var, on: &SparseConvTensor, parameters: &[Var], direction: &Tensor) -> Run {
    // A fresh tensor, so that each backend finds its own output sites.
    let fresh =
        SparseConvTensor::from_coords(x.as_tensor().clone(), on.coords().to_vec(), on.spatial_shape(), on.batch_size());
    let y = layer.module().forward(&fresh.unwrap()).unwrap();
    let direction = direction.narrow(0, 0, y.len()).unwrap().narrow(1, 0, y.channels()).unwrap();
    let grads = (y.features() * direction).unwrap().sum_all().unwrap().backward().unwrap();
    let grad = |v: &Var| grads.get(v).cloned().unwrap_or_else(|| v.zeros_like().unwrap());
    Run { y, x_grad: grad(x), parameter_grads: parameters.iter().map(grad).collect() }
}

#[test]
fn native_dense_and_finite_differences_agree() {
    let mut compared = 0;
    for seed in SEEDS {
        let mut random = Random(StdRng::seed_from_u64(seed));
        let (batch, shape) = (random.0.random_range(1..=3), random.triple(1..=9));
        let channels: [usize; 2] = std::array::from_fn(|_| random.0.random_range(1..=37));
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &DEVICE);
        let layer = Layer::random(&mut random, channels, vb).unwrap();
        random.settle(&variables);
        let coords = random.sites(batch, shape);
        let x = Var::from_tensor(&random.matrix(coords.len(), channels[0])).unwrap();
        let on = SparseConvTensor::from_coords(x.as_tensor().clone(), coords, shape, batch).unwrap();
        let parameters = variables.all_vars();
        // A kernel larger than the padded grid has no output: both backends must say so.
        let shapes: Vec<_> = [Backend::for_device(&DEVICE).unwrap(), Backend::Dense]
            .map(|backend| with_backend(backend, || layer.module().forward(&on).map(|y| y.len())))
            .into();
        // candle refuses empty tensors on a GPU, and the dense backend uses candle's operations.
        if DEVICE.is_cuda() && (on.is_empty() || matches!(shapes[0], Ok(0))) {
            continue;
        }
        let rows = match (&shapes[0], &shapes[1]) {
            (Ok(a), Ok(b)) => {
                assert_eq!(a, b, "seed {seed}");
                *a
            }
            (Err(a), Err(b)) => {
                assert_eq!(a.to_string(), b.to_string(), "seed {seed}");
                assert!(a.to_string().contains("kernel"), "{a}");
                continue;
            }
            _ => panic!("seed {seed}: the backends disagree: {shapes:?}"),
        };
        let direction = random.matrix(rows, channels[0].max(channels[1]));
        let [native, dense] = [Backend::for_device(&DEVICE).unwrap(), Backend::Dense]
            .map(|backend| with_backend(backend, || run(&layer, &x, &on, &parameters, &direction)));
        assert_eq!(native.y.coords(), dense.y.coords(), "seed {seed}");
        assert_close(&format!("seed {seed}: output"), native.y.features(), dense.y.features(), 1e-4);
        assert_close(&format!("seed {seed}: input gradient"), &native.x_grad, &dense.x_grad, 1e-4);
        for (a, b) in native.parameter_grads.iter().zip(&dense.parameter_grads) {
            assert_close(&format!("seed {seed}: parameter gradient"), a, b, 1e-4);
        }
        // The layer is linear in x and in its parameters, so a central difference with any step is exact up to rounding.
        if layer.is_linear() && rows > 0 && !on.is_empty() {
            let inputs = std::iter::once((&x, &native.x_grad)).chain(parameters.iter().zip(&native.parameter_grads));
            for (variable, grad) in inputs {
                let step = variable.rand_like(-0.5, 0.5).unwrap();
                let value = |sign: f64| -> f64 {
                    let before = variable.as_detached_tensor().copy().unwrap();
                    variable.set(&(&before + (&step * sign).unwrap()).unwrap()).unwrap();
                    let y = run(&layer, &x, &on, &parameters, &direction).y;
                    variable.set(&before).unwrap();
                    let y = y.features().to_dtype(DType::F64).unwrap();
                    let direction = direction.narrow(1, 0, y.dims()[1]).unwrap().to_dtype(DType::F64).unwrap();
                    (y * direction).unwrap().sum_all().unwrap().to_scalar().unwrap()
                };
                let difference = (value(1.0) - value(-1.0)) / 2.0;
                let slope = (grad * &step).unwrap().to_dtype(DType::F64).unwrap().sum_all().unwrap();
                let slope: f64 = slope.to_scalar().unwrap();
                let scale = peak(grad) as f64 * (grad.elem_count() as f64).sqrt() + 1e-2;
                assert!((difference - slope).abs() <= 1e-3 * scale, "seed {seed}: {difference} against {slope}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 40, "only {compared} gradients met a finite difference");
}

/// Batch normalisation as it is defined, with candle's operations in double precision.
fn normalized(x: &Tensor, weight: &Tensor, bias: &Tensor, statistics: Option<[&Tensor; 2]>) -> Tensor {
    let [x, weight, bias] = [x, weight, bias].map(|t| t.to_dtype(DType::F64).unwrap());
    let [mean, variance] = match statistics {
        Some(running) => running.map(|t| t.detach().unsqueeze(0).unwrap().to_dtype(DType::F64).unwrap()),
        None => {
            let mean = x.mean_keepdim(0).unwrap();
            let variance = x.broadcast_sub(&mean).unwrap().sqr().unwrap().mean_keepdim(0).unwrap();
            [mean, variance]
        }
    };
    let scale = (variance + 1e-5).unwrap().sqrt().unwrap();
    let x = x.broadcast_sub(&mean).unwrap().broadcast_div(&scale).unwrap();
    x.broadcast_mul(&weight).unwrap().broadcast_add(&bias).unwrap().to_dtype(DType::F32).unwrap()
}

#[test]
fn batch_norm_and_its_gradients_are_those_of_its_definition() {
    for (seed, rows, channels) in [(1, 5, 1), (2, 37, 3), (3, 3000, 16), (4, 700, 70)] {
        let mut random = Random(StdRng::seed_from_u64(seed));
        // The mean is far from zero, where a variance computed from squares would lose its precision.
        let x = Var::from_tensor(&(random.matrix(rows, channels) + 50.0).unwrap()).unwrap();
        let direction = random.matrix(rows, channels);
        let coords = (0..rows as i32).map(|i| [0, i / 400, i / 20 % 20, i % 20]).collect();
        let on = SparseConvTensor::from_coords(x.as_tensor().clone(), coords, [20; 3], 1).unwrap();
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &DEVICE);
        let norm = BatchNorm::new(channels, vb).unwrap();
        let named: Vec<(String, Var)> = variables.data().lock().unwrap().clone().into_iter().collect();
        let var = |name: &str| named.iter().find(|(n, _)| n == name).unwrap().1.clone();
        let [weight, bias] = ["weight", "bias"].map(var);
        weight.set(&random.matrix(1, channels).squeeze(0).unwrap()).unwrap();
        bias.set(&random.matrix(1, channels).squeeze(0).unwrap()).unwrap();
        for train in [true, false] {
            let running = [norm.running_mean().copy().unwrap(), norm.running_var().copy().unwrap()];
            let got = norm.forward_t(&on, train).unwrap().features().clone();
            let statistics = (!train).then_some([&running[0], &running[1]]);
            let expected = normalized(&x, &weight, &bias, statistics);
            assert_close("output", &got, &expected, 1e-4);
            let grads = |y: &Tensor| (y * &direction).unwrap().sum_all().unwrap().backward().unwrap();
            let (got, expected) = (grads(&got), grads(&expected));
            for (what, var) in [("x", &x), ("weight", &weight), ("bias", &bias)] {
                assert_close(what, got.get(var).unwrap(), expected.get(var).unwrap(), 1e-3);
            }
        }
    }
}

/// Enough sites and channels for every way to divide the work.
#[test]
fn results_are_those_of_the_dense_backend_and_do_not_depend_on_the_number_of_threads() {
    let mut random = Random(StdRng::seed_from_u64(7));
    let shape = [24, 24, 24];
    let mut coords = random.sites(2, shape);
    while coords.len() < 2000 {
        coords = random.sites(2, shape);
    }
    for [inputs, outputs] in [[19, 21], [67, 21]] {
        let x = Var::from_tensor(&random.matrix(coords.len(), inputs)).unwrap();
        let on = SparseConvTensor::from_coords(x.as_tensor().clone(), coords.clone(), shape, 2).unwrap();
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &DEVICE);
        let layer = Layer::Sub(SubMConv3d::new(inputs, outputs, 3, ConvConfig::default(), vb).unwrap());
        random.settle(&variables);
        let direction = random.matrix(on.len(), outputs);
        let run = || -> Vec<Tensor> {
            let run = run(&layer, &x, &on, &variables.all_vars(), &direction);
            run.parameter_grads.into_iter().chain([run.y.features().clone(), run.x_grad]).collect()
        };
        let bits = |threads: usize| -> Vec<Vec<u32>> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            pool.install(run).iter().map(|t| flat(t).into_iter().map(f32::to_bits).collect()).collect()
        };
        let one = bits(1);
        for threads in [1, 2, 3, 8] {
            assert!(bits(threads) == one, "{threads} threads give other bits");
        }
        for (native, dense) in run().iter().zip(with_backend(Backend::Dense, run)) {
            assert_close(&format!("{inputs} to {outputs} channels"), native, &dense, 1e-4);
        }
    }
}

/// Rows in any order are computed in another order than rows by ascending site.
#[test]
fn the_order_of_rows_changes_no_bit_of_a_result() {
    let mut random = Random(StdRng::seed_from_u64(11));
    let shape = [20, 22, 24];
    let cells: Vec<usize> = (0..shape.iter().product()).filter(|_| random.0.random_bool(0.4)).collect();
    let site = |k: usize| [0, k / (22 * 24), k / 24 % 22, k % 24].map(|v| v as i32);
    let mut shuffled: Vec<u32> = (0..cells.len() as u32).collect();
    shuffled.shuffle(&mut random.0);
    assert!(cells.len() > 4000);

    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &DEVICE);
    let config = |key: &str| ConvConfig::new().stride(2).padding(1).key(key);
    let down = || SparseConv3d::new(6, 5, 3, config("down"), vb.pp("down")).unwrap();
    let strided = config("strided").output_sites(OutputSites::Strided);
    let up = ConvConfig::new().stride(2);
    let layers: [(&str, Box<dyn SparseModule>); 6] = [
        ("submanifold", Box::new(SubMConv3d::new(6, 5, 3, ConvConfig::default(), vb.pp("sub")).unwrap())),
        ("strided", Box::new(SparseConv3d::new(6, 5, 3, strided, vb.pp("strided")).unwrap())),
        (
            "there and back",
            Box::new(
                SparseSequential::new()
                    .add(down())
                    .add(SparseInverseConv3d::new(5, 4, 3, config("down"), vb.pp("back")).unwrap()),
            ),
        ),
        ("transposed", Box::new(SparseConvTranspose3d::new(6, 3, 2, up, vb.pp("up")).unwrap())),
        ("maximum", Box::new(SparseMaxPool3d::new(2, PoolConfig::default()).unwrap())),
        ("mean", Box::new(SparseAvgPool3d::new(3, PoolConfig::new().padding(1)).unwrap())),
    ];
    random.settle(&variables);
    let features = random.matrix(cells.len(), 6);
    let table = random.matrix(50_000, 6);
    let rows = |t: &Tensor, rows: &[u32]| t.index_select(&Tensor::new(rows, &DEVICE).unwrap(), 0).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        for (name, layer) in &layers {
            // The output and the gradient of the features by ascending site, and the gradients of the parameters.
            let results = |order: &[u32]| -> Vec<Vec<f32>> {
                let x = Var::from_tensor(&rows(&features, order).to_dtype(dtype).unwrap()).unwrap();
                let coords = order.iter().map(|&row| site(cells[row as usize])).collect();
                let on = SparseConvTensor::from_coords(x.as_tensor().clone(), coords, shape, 1).unwrap();
                let y = layer.forward(&on).unwrap();
                let [_, height, width] = y.spatial_shape().map(|n| n as u32);
                let keys: Vec<u32> =
                    y.coords().iter().map(|c| (c[1] as u32 * height + c[2] as u32) * width + c[3] as u32).collect();
                let mut ascending: Vec<u32> = (0..keys.len() as u32).collect();
                ascending.sort_by_key(|&row| keys[row as usize]);
                let picks: Vec<u32> = keys.iter().map(|key| key % 50_000).collect();
                let direction = rows(&table, &picks).narrow(1, 0, y.channels()).unwrap();
                let loss = (y.features().to_dtype(DType::F32).unwrap() * direction).unwrap().sum_all().unwrap();
                let grads = loss.backward().unwrap();
                let mut place = vec![0u32; order.len()];
                order.iter().zip(0..).for_each(|(&row, at)| place[row as usize] = at);
                let mut found = vec![rows(y.features(), &ascending), rows(grads.get(&x).unwrap(), &place)];
                found.extend(variables.all_vars().iter().filter_map(|var| grads.get(var)).cloned());
                let flat = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                found.iter().map(flat).collect()
            };
            let ascending: Vec<u32> = (0..cells.len() as u32).collect();
            let (expected, got) = (results(&ascending), results(&shuffled));
            assert!(expected.len() >= 2 && expected.iter().all(|values| values.iter().any(|v| *v != 0.0)), "{name}");
            for (i, (expected, got)) in expected.iter().zip(&got).enumerate() {
                // The gradient of a bias is a sum over the rows in their own order, so it agrees to f32's rounding; so do those of weights
                // on a GPU.
                let peak = expected.iter().fold(0f32, |peak, e| peak.max(e.abs()));
                let near = |(e, g): (&f32, &f32)| match i {
                    2.. if expected.len() <= 6 => (e - g).abs() < 1e-3 * e.abs().max(1.0),
                    2.. if DEVICE.is_cuda() => (e - g).abs() <= 1e-5 * peak,
                    _ => e == g,
                };
                assert!(expected.iter().zip(got).all(near), "{dtype:?} {name}: result {i} differs");
            }
        }
    }
}

#[test]
fn half_precision_features_agree_with_f32_to_one_percent() {
    for dtype in [DType::F16, DType::BF16] {
        let mut random = Random(StdRng::seed_from_u64(3));
        let coords: Vec<_> = (0..400).map(|i| [0, i / 50, i / 5 % 10, i % 5]).collect();
        let full = Var::from_tensor(&random.matrix(coords.len(), 24)).unwrap();
        let half = Var::from_tensor(&full.to_dtype(dtype).unwrap()).unwrap();
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &DEVICE);
        let layer = SubMConv3d::new(24, 16, 3, ConvConfig::default(), vb).unwrap();
        random.settle(&variables);
        let run = |x: &Var| {
            let x_on = SparseConvTensor::from_coords(x.as_tensor().clone(), coords.clone(), [8, 10, 5], 1).unwrap();
            let y = layer.forward(&x_on).unwrap().features().clone();
            let grads = y.to_dtype(DType::F32).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
            (y, grads.get(x).unwrap().clone(), grads.get(layer.weight()).unwrap().clone())
        };
        let (full, half) = (run(&full), run(&half));
        assert_eq!((half.0.dtype(), half.1.dtype(), half.2.dtype()), (dtype, dtype, DType::F32));
        let wide = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        assert_close("output", &wide(&half.0), &full.0, 1e-2);
        assert_close("input gradient", &wide(&half.1), &full.1, 1e-2);
        assert_close("weight gradient", &half.2, &full.2, 1e-2);
    }
}
