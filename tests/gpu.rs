//! Tests of a GPU besides those that run on any device: the processor's numbers, the same bits on every run, and errors that say what to
//! do. `bash tests/gpu.sh` builds this file without a GPU and runs it on a machine with one.

#![cfg(feature = "cuda")]

use candle_core::{DType, Device, DeviceLocation, Tensor, Var};
use candle_nn::VarBuilder;
use rand::{Rng, SeedableRng, rngs::StdRng};
use wavemesh::device::{best_device, gpu_info, reset_gpu_memory_peak, trim_gpu_memory};
use wavemesh::diffusion::{Denoiser, DiffusionConfig, GaussianDiffusion, SampleOptions, Sampler};
use wavemesh::notebook::Rich;
use wavemesh::sparse::*;
use wavemesh::train::{AdamW, AdamWConfig, Ema};
use wavemesh::unet::{Precision, UNetConfig, WaveMeshUNet};
use wavemesh::{Error, Result};

fn gpu() -> Device {
    let device = best_device().unwrap();
    assert!(device.is_cuda(), "these tests need an NVIDIA GPU; WAVEMESH_DEVICE and CUDA_VISIBLE_DEVICES choose it");
    device
}

fn numbers(rng: &mut StdRng, dims: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// The sites of a sphere's surface in a grid of 2·`radius` + 4 cells, in random order.
fn shell(radius: f64, batch: usize, rng: &mut StdRng) -> (Vec<[i32; 4]>, usize) {
    use rand::seq::SliceRandom;
    let size = 2 * radius as usize + 4;
    let (centre, mut coords) = (size as f64 / 2.0 - 0.5, Vec::new());
    for b in 0..batch {
        for z in 0..size {
            for y in 0..size {
                for x in 0..size {
                    let [dz, dy, dx] = [z, y, x].map(|c| c as f64 - centre);
                    if ((dz * dz + dy * dy + dx * dx).sqrt() - radius).abs() < 0.9 {
                        coords.push([b, z, y, x].map(|c| c as i32));
                    }
                }
            }
        }
    }
    coords.shuffle(rng);
    (coords, size)
}

/// ‖a − b‖ / ‖b‖.
fn off(a: &Tensor, b: &Tensor) -> f64 {
    let wide = |t: &Tensor| -> Vec<f64> {
        t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let (a, b) = (wide(a), wide(b));
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let size = norm(&mut b.iter().copied());
    let error = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    if size == 0.0 { error } else { error / size }
}

fn bits(t: &Tensor) -> Vec<u8> {
    let t = t.to_device(&Device::Cpu).unwrap().flatten_all().unwrap();
    let mut bytes = Vec::new();
    t.write_bytes(&mut bytes).unwrap();
    bytes
}

#[derive(Clone, Copy, Debug)]
enum Layer {
    Sub([usize; 3], usize),
    Strided([usize; 3], OutputSites),
    Transposed,
    Max,
    Avg,
}

/// A layer with the same parameters on any device, its output, and the gradients of sum(y · direction).
fn pass(
    layer: Layer,
    [inputs, outputs]: [usize; 2],
    coords: &[[i32; 4]],
    size: usize,
    batch: usize,
    device: &Device,
    dtype: DType,
) -> (SparseConvTensor, Vec<Tensor>) {
    let mut rng = StdRng::seed_from_u64(11);
    let on = |t: Tensor| t.to_dtype(dtype).unwrap().to_device(device).unwrap();
    let x = Var::from_tensor(&on(numbers(&mut rng, &[coords.len(), inputs]))).unwrap();
    let kernel = match layer {
        Layer::Sub(kernel, _) | Layer::Strided(kernel, _) => kernel,
        _ => [2; 3],
    };
    let weight = Var::from_tensor(&on(numbers(&mut rng, &[outputs, kernel[0], kernel[1], kernel[2], inputs]))).unwrap();
    let bias = Var::from_tensor(&on(numbers(&mut rng, &[outputs]))).unwrap();
    let tensors = [("weight", &weight), ("bias", &bias)];
    let tensors = tensors.map(|(name, var)| (name.to_string(), var.as_tensor().clone())).into_iter().collect();
    let vb = VarBuilder::from_tensors(tensors, dtype, device);
    let sparse = SparseConvTensor::from_coords(x.as_tensor().clone(), coords.to_vec(), [size; 3], batch).unwrap();
    let stride = [2; 3];
    let pool = || PoolConfig::new().stride(stride);
    let y = match layer {
        Layer::Sub(kernel, dilation) => {
            let config = ConvConfig::new().dilation(dilation);
            SubMConv3d::new(inputs, outputs, kernel, config, vb).unwrap().forward(&sparse)
        }
        Layer::Strided(kernel, output_sites) => {
            let padding = kernel.map(|k| k / 2);
            let config = ConvConfig::new().stride(stride).padding(padding).output_sites(output_sites);
            SparseConv3d::new(inputs, outputs, kernel, config, vb).unwrap().forward(&sparse)
        }
        Layer::Transposed => {
            let config = ConvConfig::new().stride(stride);
            SparseConvTranspose3d::new(inputs, outputs, kernel, config, vb).unwrap().forward(&sparse)
        }
        Layer::Max => SparseMaxPool3d::new(3, pool()).unwrap().forward(&sparse),
        Layer::Avg => SparseAvgPool3d::new(3, pool()).unwrap().forward(&sparse),
    };
    let y = y.unwrap();
    let direction = on(numbers(&mut rng, &[y.len(), y.channels()]));
    let grads = (y.features() * direction).unwrap().sum_all().unwrap().backward().unwrap();
    let parameters: &[&Var] = if matches!(layer, Layer::Max | Layer::Avg) { &[&x] } else { &[&x, &weight, &bias] };
    let grads = parameters.iter().map(|var| grads.get(var).unwrap().clone()).collect();
    (y, grads)
}

/// Every kind of map, on 7,000 to 70,000 sites in random order, compared with the native backend in f32: f32 agrees to 1e-5, halves to
/// their rounding, and two runs give the same bits.
#[test]
fn layers_give_the_processors_numbers_and_the_same_bits_twice() {
    let device = gpu();
    let mut rng = StdRng::seed_from_u64(3);
    let halves: &[(DType, f64)] = &[(DType::F16, 1.5e-3), (DType::BF16, 1.2e-2)];
    for (layer, channels, radius, batch) in [
        (Layer::Sub([3; 3], 1), [32, 32], 50.0, 1),
        (Layer::Sub([3; 3], 1), [16, 48], 16.0, 2),
        (Layer::Sub([3; 3], 1), [64, 128], 20.0, 1),
        (Layer::Sub([3; 3], 1), [1, 16], 16.0, 2),
        (Layer::Sub([3; 3], 1), [11, 5], 16.0, 1),
        (Layer::Sub([3, 1, 3], 1), [32, 16], 16.0, 2),
        (Layer::Sub([3; 3], 2), [16, 16], 16.0, 1),
        (Layer::Sub([5; 3], 1), [16, 8], 16.0, 1),
        (Layer::Sub([1; 3], 1), [32, 64], 16.0, 1),
        (Layer::Strided([3; 3], OutputSites::Reachable), [16, 32], 20.0, 2),
        (Layer::Strided([3; 3], OutputSites::Strided), [32, 64], 20.0, 2),
        (Layer::Strided([2; 3], OutputSites::Reachable), [16, 32], 20.0, 1),
        (Layer::Transposed, [32, 16], 16.0, 1),
        (Layer::Max, [32, 32], 20.0, 2),
        (Layer::Avg, [32, 32], 20.0, 2),
    ] {
        let (coords, size) = shell(radius, batch, &mut rng);
        let (want, want_grads) = pass(layer, channels, &coords, size, batch, &Device::Cpu, DType::F32);
        for &(dtype, tolerance) in [(DType::F32, 1e-5)].iter().chain(halves) {
            // Halves round inputs and weights too, and the maximum of rounded values can be another value.
            if matches!(layer, Layer::Max) && dtype != DType::F32 {
                continue;
            }
            let what = format!("{layer:?} {channels:?} {dtype:?} on {} sites", coords.len());
            let (got, grads) = pass(layer, channels, &coords, size, batch, &device, dtype);
            assert_eq!(got.coords(), want.coords(), "{what}");
            let errors: Vec<f64> = std::iter::once(off(got.features(), want.features()))
                .chain(grads.iter().zip(&want_grads).map(|(got, want)| off(got, want)))
                .collect();
            println!("{what}: errors of the output and the gradients {errors:.7?}");
            assert!(errors.iter().all(|&error| error <= tolerance), "{what}: {errors:?}");
            let (again, grads_again) = pass(layer, channels, &coords, size, batch, &device, dtype);
            assert_eq!(bits(got.features()), bits(again.features()), "{what}: another run");
            assert!(grads.iter().zip(&grads_again).all(|(a, b)| bits(a) == bits(b)), "{what}: another run's gradients");
        }
    }
}

#[test]
fn an_inverse_convolution_goes_back_over_the_map_of_its_key() {
    let (coords, size) = shell(16.0, 2, &mut StdRng::seed_from_u64(4));
    let run = |device: &Device| {
        let mut rng = StdRng::seed_from_u64(5);
        let x = Var::from_tensor(&numbers(&mut rng, &[coords.len(), 8]).to_device(device).unwrap()).unwrap();
        let mut layer = |outputs: usize, inputs: usize| {
            let weight = numbers(&mut rng, &[outputs, 3, 3, 3, inputs]).to_device(device).unwrap();
            VarBuilder::from_tensors([("weight".to_string(), weight)].into(), DType::F32, device)
        };
        let config = || ConvConfig::new().bias(false).key("down");
        let down = config().stride(2).padding(1);
        let down = SparseConv3d::new(8, 16, 3, down, layer(16, 8)).unwrap();
        let up = SparseInverseConv3d::new(16, 8, 3, config(), layer(8, 16)).unwrap();
        let sparse = SparseConvTensor::from_coords(x.as_tensor().clone(), coords.clone(), [size; 3], 2).unwrap();
        let y = up.forward(&down.forward(&sparse).unwrap()).unwrap();
        assert_eq!(y.coords(), coords);
        let grads = y.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        (y.features().clone(), grads.get(&x).unwrap().clone())
    };
    let ((want, want_grad), (got, got_grad)) = (run(&Device::Cpu), run(&gpu()));
    assert!(off(&got, &want) <= 1e-5 && off(&got_grad, &want_grad) <= 1e-5);
}

fn network(precision: Precision, gradient_checkpointing: bool, device: &Device) -> WaveMeshUNet {
    let config =
        UNetConfig::plain(4, 3, &[16, 24, 32]).precision(precision).gradient_checkpointing(gradient_checkpointing);
    WaveMeshUNet::seeded(&config, 7, device).unwrap()
}

/// The output in evaluation, and loss and gradients in training.
fn passes(precision: Precision, checkpointing: bool, device: &Device) -> (Tensor, Vec<Tensor>) {
    let mut rng = StdRng::seed_from_u64(9);
    let (coords, size) = shell(12.0, 2, &mut rng);
    let features = numbers(&mut rng, &[coords.len(), 4]).to_device(device).unwrap();
    let x = SparseConvTensor::from_coords(features, coords, [size; 3], 2).unwrap();
    let unet = network(precision, checkpointing, device);
    let times = Tensor::new(&[3f32, 500.0], device).unwrap();
    let y = unet.forward(&x, &times, None).unwrap().features().clone();
    let trained = unet.forward_t(&x, &times, None, true).unwrap();
    let grads = trained.features().sqr().unwrap().mean_all().unwrap().backward().unwrap();
    let grads = unet.parameters().map(|(_, var)| grads.get(var).unwrap().clone()).collect();
    (y, grads)
}

#[test]
fn the_network_gives_the_processors_numbers_in_every_precision() {
    let device = gpu();
    for (precision, checkpointing, tolerance) in [
        (Precision::F32, false, 2e-5),
        (Precision::F32, true, 2e-5),
        (Precision::F16, false, 1e-2),
        (Precision::Bf16, false, 1e-2),
    ] {
        let (want, want_grads) = passes(precision, checkpointing, &Device::Cpu);
        let (got, grads) = passes(precision, checkpointing, &device);
        let worst = grads.iter().zip(&want_grads).map(|(a, b)| off(a, b)).fold(0.0, f64::max);
        let output = off(&got, &want);
        println!("{precision:?}, checkpointing {checkpointing}: output off by {output:.1e}, gradients by {worst:.1e}");
        assert!(output <= tolerance && worst <= 10.0 * tolerance, "{precision:?}: {output} {worst}");
        let (again, grads_again) = passes(precision, checkpointing, &device);
        assert_eq!(bits(&got), bits(&again));
        assert!(grads.iter().zip(&grads_again).all(|(a, b)| bits(a) == bits(b)), "{precision:?}: another run");
    }
}

#[test]
fn sampling_gives_the_processors_sample() {
    let (coords, size) = shell(8.0, 1, &mut StdRng::seed_from_u64(2));
    let sample = |device: &Device| {
        let like = Tensor::zeros((coords.len(), 3), DType::F32, device).unwrap();
        let like = SparseConvTensor::from_coords(like, coords.clone(), [size; 3], 1).unwrap();
        let unet = WaveMeshUNet::seeded(&UNetConfig::plain(3, 3, &[16, 24]), 1, device).unwrap();
        let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), device).unwrap();
        let model: &dyn Denoiser = &unet;
        let options = SampleOptions::new().seed(6);
        diffusion.sample(model, &like, Sampler::Ddim { steps: 10, eta: 0.0 }, options).unwrap().features().clone()
    };
    let error = off(&sample(&gpu()), &sample(&Device::Cpu));
    println!("sample off by {error:.1e}");
    assert!(error <= 1e-3, "{error}");
}

#[test]
fn a_network_is_saved_on_one_device_and_loaded_on_another() {
    let path = std::env::temp_dir().join(format!("wavemesh-gpu-{}.safetensors", std::process::id()));
    let there = network(Precision::F32, false, &gpu());
    there.save(&path, DType::F32).unwrap();
    let here = WaveMeshUNet::load(&path, &Device::Cpu).unwrap();
    let back = WaveMeshUNet::load(&path, &gpu()).unwrap();
    std::fs::remove_file(&path).unwrap();
    for (((_, a), (_, b)), (name, c)) in there.state().iter().zip(here.state()).zip(back.state()) {
        assert!(bits(a) == bits(b) && bits(a) == bits(c), "{name}");
        assert!(!b.device().is_cuda() && c.device().is_cuda());
    }
}

#[test]
fn tensors_on_two_devices_are_an_error_that_names_both() {
    let features = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
    let x = SparseConvTensor::from_coords(features, vec![[0; 4]], [2; 3], 1).unwrap();
    let conv = SubMConv3d::new(2, 2, 3, ConvConfig::default(), VarBuilder::zeros(DType::F32, &gpu())).unwrap();
    let error = conv.forward(&x).unwrap_err();
    assert!(matches!(error, Error::Device { expected: DeviceLocation::Cuda { .. }, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("cpu") && text.contains("cuda:0") && text.contains("to_device"), "{text}");
    let norm = BatchNorm::new(2, VarBuilder::zeros(DType::F32, &gpu())).unwrap();
    assert!(matches!(norm.forward(&x).unwrap_err(), Error::Device { .. }));
    let unet = WaveMeshUNet::seeded(&UNetConfig::plain(2, 2, &[4, 8]), 0, &gpu()).unwrap();
    let text = unet.forward(&x, &Tensor::zeros(1, DType::F32, &gpu()).unwrap(), None).unwrap_err().to_string();
    assert!(text.contains("cpu") && text.contains("cuda:0"), "{text}");
}

#[test]
fn no_sites_are_fine() {
    let device = gpu();
    let x = Tensor::zeros((0, 4), DType::F32, &device).unwrap();
    let x = SparseConvTensor::from_coords(x, Vec::new(), [8; 3], 2).unwrap();
    let vb = || VarBuilder::zeros(DType::F32, &device);
    let y = SubMConv3d::new(4, 8, 3, ConvConfig::default(), vb()).unwrap().forward(&x).unwrap();
    let config = ConvConfig::new().stride(2).padding(1);
    let z = SparseConv3d::new(8, 4, 3, config, vb()).unwrap().forward(&y).unwrap();
    let z = BatchNorm::new(4, vb()).unwrap().forward(&z).unwrap();
    assert_eq!((y.features().dims(), z.features().dims()), ([0, 8].as_slice(), [0, 4].as_slice()));
}

/// Asks for more memory than the card has: the error gives the numbers, and everything continues to work.
#[test]
fn too_much_memory_is_an_error_with_figures_and_nothing_is_lost() {
    let device = gpu();
    let total = gpu_info(&device).unwrap().total;
    let mut rng = StdRng::seed_from_u64(1);
    let (coords, size) = shell(20.0, 1, &mut rng);
    let kept = numbers(&mut rng, &[coords.len(), 4]).to_device(&device).unwrap();
    // A convolution with an output that is larger than the card's memory.
    let outputs = (total as usize / 4 / coords.len() + 1).next_multiple_of(1024);
    let x = SparseConvTensor::from_coords(kept.clone(), coords, [size; 3], 1).unwrap();
    let conv = SubMConv3d::new(4, outputs, 1, ConvConfig::default(), VarBuilder::zeros(DType::F32, &device)).unwrap();
    let error = conv.forward(&x).unwrap_err();
    let text = error.to_string();
    println!("{text}");
    assert!(text.contains("MB") && text.contains("free") && text.contains("GB"), "{text}");
    assert_eq!(
        bits(&kept.affine(2.0, 0.0).unwrap()),
        bits(&kept.to_device(&Device::Cpu).unwrap().affine(2.0, 0.0).unwrap())
    );
}

#[test]
fn freed_memory_stays_in_the_pool_until_it_is_trimmed() {
    let device = gpu();
    drop(Tensor::zeros((64 << 20,), DType::F32, &device).unwrap());
    device.synchronize().unwrap();
    assert!(gpu_info(&device).unwrap().held >= 256 << 20);
    assert!(gpu_info(&device).unwrap().peak >= 256 << 20);
    trim_gpu_memory(&device).unwrap();
    reset_gpu_memory_peak(&device).unwrap();
    let info = gpu_info(&device).unwrap();
    println!("{info:?}");
    assert!(info.held < 256 << 20 || info.used >= 128 << 20, "{info:?}");
}

#[test]
fn displays_take_tensors_of_the_gpu() -> Result<()> {
    let device = gpu();
    let tensor = Tensor::arange(0f32, 24.0, &device)?.reshape((2, 3, 4))?;
    let card = format!("{:?}", tensor.rich());
    assert!(card.contains("cuda:0"), "{card}");
    let x = SparseConvTensor::from_coords(Tensor::zeros((1, 2), DType::F32, &device)?, vec![[0; 4]], [2; 3], 1)?;
    assert!(format!("{:?}", x.rich()).contains("Sparse"));
    let gpu = gpu_info(&device)?.rich();
    assert!(gpu.plain().starts_with("cuda:0 | ") && gpu.plain().contains("tensors use"), "{}", gpu.plain());
    let info = backend_info();
    println!("{info}");
    assert!(info.backend == "cuda" && info.device.contains("cuda:0"), "{info}");
    Ok(())
}

/// The card of a tensor that is too large to copy has the same content as the card of a copy.
#[test]
fn cards_of_large_tensors_are_computed_on_the_gpu() -> Result<()> {
    let mut rng = StdRng::seed_from_u64(21);
    let mut values: Vec<f32> = (0..1 << 19).map(|_| rng.random_range(-3.0..5.0)).collect();
    (values[7], values[8], values[9], values[10]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0);
    let x = Tensor::from_vec(values, (64, 128, 64), &Device::Cpu)?;
    let whole: Vec<f32> = (0..1 << 19).map(|_| f32::from(rng.random_range(0..200u8))).collect();
    let whole = Tensor::from_vec(whole, (64, 128, 64), &Device::Cpu)?;
    for dtype in [DType::F32, DType::F16, DType::F64, DType::I64, DType::U8] {
        let here = if dtype.is_float() { x.to_dtype(dtype)? } else { whole.to_dtype(dtype)? };
        let there = here.to_device(&gpu())?;
        for (here, there) in [(here.clone(), there.clone()), (here.transpose(0, 2)?, there.transpose(0, 2)?)] {
            let (here, there) = (here.rich(), there.rich());
            assert_eq!(there.plain().replace("cuda:0", "cpu").lines().next(), here.plain().lines().next(), "{dtype:?}");
            assert!(there.plain().contains("cuda:0"), "{dtype:?}");
        }
    }
    Ok(())
}

/// More variables than one launch takes, with sizes from one to several blocks.
#[test]
fn many_variables_are_trained_as_on_the_processor() -> Result<()> {
    let run = |device: &Device| -> Result<Vec<Tensor>> {
        let mut rng = StdRng::seed_from_u64(22);
        let sizes: Vec<usize> = (0..170).map(|i| 1 + (i * i * 7) % 9001).collect();
        let draw = |rng: &mut StdRng| -> Result<Vec<Tensor>> {
            sizes.iter().map(|&size| Ok(numbers(rng, &[size, 1]).to_device(device)?)).collect()
        };
        let vars = draw(&mut rng)?.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
        let named: Vec<(String, Var)> = vars.iter().enumerate().map(|(i, var)| (i.to_string(), var.clone())).collect();
        let mut average = Ema::new(&named, 0.9)?;
        let mut optimizer = AdamW::new(AdamWConfig::default(), vars.clone())?;
        for _ in 0..3 {
            optimizer.step(&draw(&mut rng)?, 1e-2, 0.5)?;
            average.update()?;
        }
        let averages = average.variables().iter().map(|(_, var)| var);
        Ok(vars.iter().chain(averages).map(|var| var.as_detached_tensor()).collect())
    };
    for (got, want) in run(&gpu())?.iter().zip(&run(&Device::Cpu)?) {
        assert!(off(got, want) <= 1e-6, "{:?}", want.dims());
    }
    Ok(())
}

/// A device made by candle differs from `best_device`; it runs on candle's own stream.
#[test]
fn devices_that_candle_makes_serve_as_well() -> Result<()> {
    let (coords, size) = shell(16.0, 2, &mut StdRng::seed_from_u64(41));
    let device = Device::new_cuda(0)?;
    for layer in [Layer::Sub([3; 3], 1), Layer::Strided([3; 3], OutputSites::Reachable), Layer::Max] {
        let (want, want_grads) = pass(layer, [16, 16], &coords, size, 2, &Device::Cpu, DType::F32);
        let (got, grads) = pass(layer, [16, 16], &coords, size, 2, &device, DType::F32);
        assert!(got.device().same_device(&device) && off(got.features(), want.features()) <= 1e-5, "{layer:?}");
        assert!(grads.iter().zip(&want_grads).all(|(got, want)| off(got, want) <= 1e-5), "{layer:?}");
    }
    let var = Var::from_tensor(&numbers(&mut StdRng::seed_from_u64(42), &[300, 3]).to_device(&device)?)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), vec![var.clone()])?;
    optimizer.backward_step(&var.sqr()?.sum_all()?, 1e-2)?;
    assert!(var.device().same_device(&device) && gpu_info(&device)?.total > 0);
    Ok(())
}

#[test]
fn packed_coefficients_are_decoded_where_they_are() -> Result<()> {
    let grid = wavemesh::sdf::SdfGrid::from_fn([21, 18, 15], |[x, y, z]| x * y - 0.3 * z.sin())?;
    let config = wavemesh::wavelet::WaveletConfig::new().level(2).truncation(None);
    let coefficients = grid.encode(&config)?;
    let run = |device: &Device| -> Result<[Tensor; 2]> {
        let packed = coefficients.to_sparse_tensor(device)?;
        let features = Var::from_tensor(packed.features())?;
        let packed = packed.replace_feature(features.as_tensor().clone())?;
        let grids = wavemesh::wavelet::decode_features(&packed, coefficients.layout())?;
        let grads = grids.sqr()?.sum_all()?.backward()?;
        Ok([grids.clone(), grads.get(&features).unwrap().clone()])
    };
    let (want, got) = (run(&Device::Cpu)?, run(&gpu())?);
    assert!(got[0].device().is_cuda());
    assert!(off(&got[0], &want[0]) <= 1e-5 && off(&got[1], &want[1]) <= 1e-5);
    Ok(())
}

#[test]
fn tensors_are_decomposed_where_they_are() -> Result<()> {
    use wavemesh::wavelet::{Mode, Wavelet, wavedecn_tensor, waverecn_tensor};
    let grids = numbers(&mut StdRng::seed_from_u64(31), &[2, 21, 18, 15]);
    let run = |device: &Device, dtype: DType| -> Result<(Vec<Tensor>, Tensor, Tensor)> {
        let data = Var::from_tensor(&grids.to_dtype(dtype)?.to_device(device)?)?;
        let wavelet = Wavelet::from_name("bior4.4")?;
        let coeffs = wavedecn_tensor(data.as_tensor(), &[1, 2, 3], &wavelet, Mode::Symmetric, 1)?;
        let back = waverecn_tensor(&coeffs)?;
        let bands: Vec<Tensor> = std::iter::once(coeffs.approx).chain(coeffs.details.concat()).collect();
        let gradients = bands[3].sqr()?.sum_all()?.backward()?;
        let gradient = gradients.get(&data).expect("the band depends on the data").clone();
        Ok((bands, back, gradient))
    };
    for (dtype, most) in [(DType::F32, 1e-5), (DType::F64, 1e-12), (DType::F16, 2e-3)] {
        let ((want, whole, wanted), (got, back, gradient)) = (run(&Device::Cpu, DType::F64)?, run(&gpu(), dtype)?);
        assert!(got.iter().all(|band| band.device().is_cuda() && band.dtype() == dtype));
        for (got, want) in got.iter().zip(&want) {
            assert!(off(got, want) <= most, "{dtype:?}");
        }
        let errors = (off(&back, &whole), off(&gradient, &wanted));
        assert!(errors.0 <= most && errors.1 <= most, "{dtype:?}: {errors:?}");
    }
    Ok(())
}

#[test]
fn the_live_curve_of_a_training_tells_the_memory_of_the_gpu() -> Result<()> {
    let held = Tensor::zeros(64 << 20, DType::U8, &gpu())?;
    let mut curve = wavemesh::notebook::LivePlot::new("training");
    curve.record(&wavemesh::train::StepRecord {
        step: 1,
        loss: 0.5,
        grad_norm: 0.0,
        learning_rate: 0.0,
        validation: None,
        seconds: 0.0,
        processor_seconds: None,
    });
    let told = curve.rich().plain().to_string();
    println!("{told}");
    let (_, used) = told.split_once("training · cuda:0 ").expect("it names the GPU");
    assert!(used.contains("MB |") || used.contains("GB |"), "{told}");
    drop(held);
    Ok(())
}

/// Threads that run layers of different sizes on one GPU: the same kernels with different amounts of shared memory.
#[test]
fn threads_may_compute_at_the_same_time() {
    let device = gpu();
    let (coords, size) = shell(24.0, 1, &mut StdRng::seed_from_u64(17));
    let layer = Layer::Sub([3; 3], 1);
    let run = |channels: usize| bits(pass(layer, [channels; 2], &coords, size, 1, &device, DType::F32).0.features());
    let sizes = [16, 32, 64, 128];
    let alone = sizes.map(run);
    std::thread::scope(|scope| {
        for (channels, alone) in sizes.into_iter().zip(&alone) {
            scope.spawn(move || (0..20).for_each(|_| assert!(run(channels) == *alone, "{channels} channels")));
        }
    });
}

/// SpUNet, fifty layers deep. The output and the gradients of the last layer agree with f64 to f32's rounding. Gradients below the first
/// ReLU do not, not even on the processor: a value that rounding moves to the other side of zero changes a whole term, so a few of a
/// million values make 10⁻³.
#[test]
fn gradients_of_a_deep_network_are_those_of_f64_but_for_its_relus() -> Result<()> {
    use wavemesh::backbones::{SpUNet, SpUNetConfig};
    use wavemesh::train::{Initialization, seeded_builder};
    let mut rng = StdRng::seed_from_u64(51);
    let (coords, size) = shell(20.0, 1, &mut rng);
    let config = SpUNetConfig::new().in_channels(4).num_classes(8);
    let weights = candle_nn::VarMap::new();
    let kaiming = Initialization::KaimingNormal { fan_out: false };
    SpUNet::new(&config, seeded_builder(&weights, 0, kaiming, DType::F32, &Device::Cpu))?;
    let weights: Vec<(String, Var)> =
        weights.data().lock().unwrap().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    let (input, direction) = (numbers(&mut rng, &[coords.len(), 4]), numbers(&mut rng, &[coords.len(), 8]));
    let run = |device: &Device, dtype: DType| -> Result<Vec<(String, Tensor)>> {
        let there = |tensor: &Tensor| tensor.to_dtype(dtype)?.to_device(device);
        let own = weights.iter().map(|(name, var)| Ok((name.clone(), Var::from_tensor(&there(var)?)?)));
        let own = own.collect::<Result<Vec<_>>>()?;
        let tensors = own.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let network = SpUNet::new(&config, VarBuilder::from_tensors(tensors, dtype, device))?;
        let x = SparseConvTensor::from_coords(there(&input)?, coords.clone(), [size; 3], 1)?;
        let y = network.forward_t(&x, true)?;
        let grads = (y.features() * there(&direction)?)?.sum_all()?.backward()?;
        let mut found = vec![("output".to_string(), y.features().clone())];
        found.extend(own.iter().filter_map(|(name, var)| Some((name.clone(), grads.get(var)?.clone()))));
        Ok(found)
    };
    let want = run(&Device::Cpu, DType::F64)?;
    let errors = |found: Vec<(String, Tensor)>| -> Vec<f64> {
        found
            .iter()
            .zip(&want)
            .map(|((name, got), (same, want))| {
                assert_eq!(name, same);
                off(got, want)
            })
            .collect()
    };
    let (here, there) = (errors(run(&Device::Cpu, DType::F32)?), errors(run(&gpu(), DType::F32)?));
    for ((name, _), (here, there)) in want.iter().zip(here.iter().zip(&there)) {
        println!("{name}: off by {here:.1e} on the processor, {there:.1e} on the GPU");
    }
    for ((name, _), &error) in want.iter().zip(&there) {
        let exact = name == "output" || name.starts_with("final.");
        assert!(error <= if exact { 1e-5 } else { 3e-2 }, "{name}: {error}");
    }
    let middle = |mut errors: Vec<f64>| -> f64 {
        errors.sort_by(f64::total_cmp);
        errors[errors.len() / 2]
    };
    let (here, there) = (middle(here), middle(there));
    assert!(there <= 10.0 * here, "{there} on the GPU, {here} on the processor");
    Ok(())
}
