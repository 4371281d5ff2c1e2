//! Tests that need a GPU for themselves, or that change how the whole process computes: recordings, which give the same numbers as the work
//! itself and errors for work that cannot be recorded, and exact products. These tests run one at a time.

#![cfg(feature = "cuda")]

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use rand::{Rng, SeedableRng, rngs::StdRng};
use wavemesh::device::{Recording, allow_tf32, best_device};
use wavemesh::diffusion::{Denoiser, DiffusionConfig, GaussianDiffusion, Recorded, SampleOptions, Sampler};
use wavemesh::sparse::*;
use wavemesh::train::{AdamW, AdamWConfig};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};
use wavemesh::{Error, Result};

fn gpu() -> (Device, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = best_device().unwrap();
    assert!(device.is_cuda(), "these tests need an NVIDIA GPU; WAVEMESH_DEVICE and CUDA_VISIBLE_DEVICES choose it");
    (device, turn)
}

fn numbers(rng: &mut StdRng, dims: &[usize], device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Ok(Tensor::from_vec(values, dims, device)?)
}

/// The cells of the surface of a cube, `side` cells long.
fn box_of(side: i32, batch: usize) -> Vec<[i32; 4]> {
    let cells = 0..batch as i32 * side * side * side;
    let cell = |i: i32| [i / (side * side * side), i / (side * side) % side, i / side % side, i % side];
    cells.map(cell).filter(|cell| cell[1..].iter().any(|&c| c == 0 || c == side - 1)).collect()
}

/// ‖a − b‖ / ‖b‖.
fn off(a: &Tensor, b: &Tensor) -> Result<f64> {
    let wide = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let (a, b) = (wide(a)?, wide(b)?);
    let norm = |t: Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    Ok(norm((a - &b)?)? / norm(b)?)
}

fn bits(t: &Tensor) -> Vec<u8> {
    let mut bytes = Vec::new();
    t.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().write_bytes(&mut bytes).unwrap();
    bytes
}

/// A recording gives the same numbers as the work itself for new inputs in the old places, and running statistics continue.
#[test]
fn a_recording_repeats_the_work() -> Result<()> {
    let (device, _turn) = gpu();
    let mut rng = StdRng::seed_from_u64(31);
    let coords = box_of(20, 2);
    let draws: Vec<Tensor> = (0..3).map(|_| numbers(&mut rng, &[coords.len(), 4], &device)).collect::<Result<_>>()?;
    let times = Tensor::new(&[3f32, 500.0], &device)?;
    let run = |recorded: bool| -> Result<Vec<Vec<u8>>> {
        let unet = WaveMeshUNet::seeded(&UNetConfig::plain(4, 3, &[16, 24, 32]), 7, &device)?;
        let input = Var::from_tensor(&draws[0])?;
        let x = SparseConvTensor::from_coords(input.as_detached_tensor(), coords.clone(), [20; 3], 2)?;
        let vars: Vec<Var> = unet.parameters().map(|(_, var)| var.clone()).collect();
        let mut optimizer = AdamW::new(AdamWConfig::default(), vars.clone())?;
        let step = || -> Result<Vec<Tensor>> {
            let loss = unet.forward_t(&x, &times, None, true)?.features().sqr()?.mean_all()?;
            let grads = loss.backward()?;
            let mut found: Vec<Tensor> = vars.iter().filter_map(|var| grads.get(var).cloned()).collect();
            found.push(loss);
            Ok(found)
        };
        let mut recording = if recorded { Some(Recording::new(&device, step)?) } else { None };
        let mut all = Vec::new();
        for (i, draw) in draws.iter().enumerate() {
            input.set(draw)?;
            let found = match &mut recording {
                Some(recording) if i == 0 => recording.results().to_vec(),
                Some(recording) => recording.run()?.to_vec(),
                None => step()?,
            };
            assert_eq!(found.len(), vars.len() + 1);
            all.extend(found.iter().map(bits));
            optimizer.step(&found[..vars.len()], 1e-2, 1.0)?;
        }
        all.extend(unet.state().iter().map(|(_, var)| bits(var)));
        Ok(all)
    };
    assert!(run(false)? == run(true)?, "a recorded step is another one");
    Ok(())
}

#[test]
fn what_cannot_be_recorded_is_an_error_and_everything_goes_on() -> Result<()> {
    let (device, _turn) = gpu();
    let x = Tensor::arange(0f32, 6.0, &device)?;
    let kept = RefCell::new(Vec::new());
    type Attempt<'a> = (&'a str, &'a dyn Fn() -> Result<Vec<Tensor>>);
    let attempts: [Attempt; 4] = [
        ("reads a number", &|| Ok(vec![(&x * f64::from(x.sum_all()?.to_scalar::<f32>()?))?])),
        ("large numbers from the computer's memory", &|| {
            Ok(vec![Tensor::from_vec(vec![1f32; 4096], 4096, &Device::Cpu)?.to_device(&device)?])
        }),
        ("keeps memory", &|| {
            kept.borrow_mut().push(x.sqr()?);
            Ok(vec![x.sqr()?])
        }),
        ("a result elsewhere", &|| Ok(vec![Tensor::zeros(1, DType::F32, &Device::Cpu)?, x.sqr()?])),
    ];
    for (what, work) in attempts {
        let error = Recording::new(&device, work).unwrap_err();
        println!("{what}: {error}");
        assert!(matches!(error, Error::Argument { op: "Recording", .. }), "{what}: {error:?}");
        assert_eq!(x.sqr()?.to_vec1::<f32>()?, [0.0, 1.0, 4.0, 9.0, 16.0, 25.0], "{what}");
    }
    let error = Recording::new(&device, || Err(Error::Interrupted)).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error:?}");
    let mut square = Recording::new(&device, || Ok(vec![x.sqr()?]))?;
    assert_eq!(square.run()?[0].to_vec1::<f32>()?[5], 25.0);
    Ok(())
}

/// Samples over two sets of sites one after the other, and then over the first again.
#[test]
fn a_recorded_network_samples_the_same() -> Result<()> {
    let (device, _turn) = gpu();
    let unet = WaveMeshUNet::seeded(&UNetConfig::plain(3, 3, &[16, 24]), 1, &device)?;
    let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &device)?;
    let recorded = Recorded::new(&unet);
    for side in [16, 12, 16] {
        let coords = box_of(side, 1);
        let like = Tensor::zeros((coords.len(), 3), DType::F32, &device)?;
        let like = SparseConvTensor::from_coords(like, coords, [side as usize; 3], 1)?;
        let sample = |network: &dyn Denoiser| -> Result<Vec<u8>> {
            let ddim = Sampler::Ddim { steps: 6, eta: 0.0 };
            Ok(bits(diffusion.sample(network, &like, ddim, SampleOptions::new().seed(6))?.features()))
        };
        assert!(sample(&unet)? == sample(&recorded)?, "{side}");
    }
    Ok(())
}

/// Compares forward and both gradients with the reference backend's f64.
#[test]
fn exact_products_are_those_of_f32() -> Result<()> {
    let (device, _turn) = gpu();
    let coords = box_of(24, 2);
    for (channels, stride) in [([16, 32], 1), ([48, 96], 1), ([64, 64], 1), ([32, 64], 2)] {
        let pass = |device: &Device, dtype: DType| -> Result<Vec<Tensor>> {
            let mut rng = StdRng::seed_from_u64(33);
            let mut draw = |dims: &[usize]| -> Result<Var> {
                Ok(Var::from_tensor(&numbers(&mut rng, dims, &Device::Cpu)?.to_device(device)?.to_dtype(dtype)?)?)
            };
            let (x, weight) = (draw(&[coords.len(), channels[0]])?, draw(&[channels[1], 3, 3, 3, channels[0]])?);
            let vb = VarBuilder::from_tensors([("weight".into(), weight.as_tensor().clone())].into(), dtype, device);
            let sparse = SparseConvTensor::from_coords(x.as_tensor().clone(), coords.clone(), [24; 3], 2)?;
            let config = ConvConfig::new().bias(false).stride(stride).padding(1);
            let y = match stride {
                1 => SubMConv3d::new(channels[0], channels[1], 3, config, vb)?.forward(&sparse)?,
                _ => SparseConv3d::new(channels[0], channels[1], 3, config, vb)?.forward(&sparse)?,
            };
            let y = y.features();
            let direction = draw(y.dims())?;
            let grads = (y * direction.as_tensor())?.sum_all()?.backward()?;
            Ok([y, grads.get(&x).unwrap(), grads.get(&weight).unwrap()].map(Tensor::clone).to_vec())
        };
        let want = with_backend(Backend::Dense, || pass(&Device::Cpu, DType::F64))?;
        let errors = |exact: bool| -> Result<Vec<f64>> {
            set_exact_f32(exact);
            let found = pass(&device, DType::F32);
            let again = pass(&device, DType::F32);
            set_exact_f32(false);
            let (found, again) = (found?, again?);
            assert!(found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b)), "another run");
            found.iter().zip(&want).map(|(got, want)| off(got, want)).collect()
        };
        let (exact, parts) = (errors(true)?, errors(false)?);
        println!("{channels:?}, stride {stride}: off by {exact:.8?}, TF32 parts by {parts:.8?}");
        assert!(exact.iter().all(|&error| error < 1e-6), "{channels:?}, stride {stride}: {exact:?}");
        assert!(exact != parts, "{channels:?}, stride {stride}: they take the same way");
    }
    Ok(())
}

/// Few rows are multiplied as TF32 numbers, many as scaled halves of eleven bits: forward with a bias, and both gradients, beside f32.
#[test]
fn tf32_products_keep_eleven_bits_at_any_scale() -> Result<()> {
    let (device, _turn) = gpu();
    for (side, channels, scale) in [(24, [64, 64], 1.0), (54, [64, 64], 1.0), (54, [64, 48], 1e-25)] {
        let coords = box_of(side, 2);
        let pass = || -> Result<Vec<Tensor>> {
            let mut rng = StdRng::seed_from_u64(34);
            let mut draw = |dims: &[usize], scale: f64| Var::from_tensor(&(numbers(&mut rng, dims, &device)? * scale)?);
            let x = draw(&[coords.len(), channels[0]], scale)?;
            let (weight, bias) = (draw(&[channels[1], 3, 3, 3, channels[0]], 1.0)?, draw(&[channels[1]], scale)?);
            let named = [("weight".into(), weight.as_tensor().clone()), ("bias".into(), bias.as_tensor().clone())];
            let vb = VarBuilder::from_tensors(named.into(), DType::F32, &device);
            let sparse = SparseConvTensor::from_coords(x.as_tensor().clone(), coords.clone(), [side as usize; 3], 2)?;
            let y = SubMConv3d::new(channels[0], channels[1], 3, ConvConfig::new(), vb)?.forward(&sparse)?;
            let direction = draw(y.features().dims(), 1.0)?;
            let grads = (y.features() * direction.as_tensor())?.sum_all()?.backward()?;
            let found = [y.features(), grads.get(&x).unwrap(), grads.get(&weight).unwrap()];
            let factors = [1.0 / scale, 1.0, 1.0 / scale];
            found.into_iter().zip(factors).map(|(t, factor)| Ok(t.to_dtype(DType::F64)?.affine(factor, 0.0)?)).collect()
        };
        let want = pass()?;
        allow_tf32(true);
        let (found, again) = (pass(), pass());
        allow_tf32(false);
        let (found, again) = (found?, again?);
        assert!(found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b)), "another run");
        let errors: Vec<f64> = found.iter().zip(&want).map(|(got, want)| off(got, want)).collect::<Result<_>>()?;
        println!("{} rows, {channels:?}, scale {scale:e}: off by {errors:.6?}", coords.len());
        assert!(errors.iter().all(|&error| (1e-5..6e-4).contains(&error)), "{errors:?}");
    }
    Ok(())
}
