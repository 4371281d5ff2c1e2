//! Gradient checkpointing and half precision save memory; the allocator counts it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use wavemesh::diffusion::Denoiser;
use wavemesh::sparse::SparseConvTensor;
use wavemesh::unet::{Precision, UNetConfig, WaveMeshUNet};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the counters are atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `work` held at once, above the memory that was held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed) - before)
}

/// A hollow ball in a 64³ grid: 14,480 sites.
fn shell() -> SparseConvTensor {
    let axis = |i: i32| f64::from(i) - 31.5;
    let near = |&[_, z, y, x]: &[i32; 4]| {
        let r = (axis(z).powi(2) + axis(y).powi(2) + axis(x).powi(2)).sqrt();
        (r - 25.6).abs() < 0.9
    };
    let all = (0..64).flat_map(|z| (0..64).flat_map(move |y| (0..64).map(move |x| [0, z, y, x])));
    let coords: Vec<[i32; 4]> = all.filter(near).collect();
    assert_eq!(coords.len(), 14_480);
    let features: Vec<f32> = (0..coords.len()).map(|i| (i as f32 * 0.37).sin()).collect();
    let features = Tensor::from_vec(features, (coords.len(), 1), &Device::Cpu).unwrap();
    SparseConvTensor::from_coords(features, coords, [64; 3], 1).unwrap()
}

// Only one test, so that nothing else allocates while it counts.
#[test]
fn a_training_step_at_64_takes_three_quarters_of_the_memory_with_checkpointing_or_in_half_precision() {
    let x = shell();
    let t = Tensor::new(&[500f32], &Device::Cpu).unwrap();
    let step = |checkpointing: bool| {
        let config = UNetConfig::plain(1, 1, &[16, 32, 64]).gradient_checkpointing(checkpointing);
        let unet = WaveMeshUNet::seeded(&config, 0, &Device::Cpu).unwrap();
        unet.forward(&x, &t, None).unwrap(); // builds the kernel maps, which both share
        let (grads, peak) = peak_of(|| {
            let y = unet.forward_t(&x, &t, None, true).unwrap();
            y.features().sqr().unwrap().mean_all().unwrap().backward().unwrap()
        });
        let grads: Vec<Vec<f32>> = unet
            .parameters()
            .map(|(_, var)| grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap())
            .collect();
        (grads, peak)
    };
    let (plain_grads, plain) = step(false);
    let (saved_grads, saved) = step(true);
    for (a, b) in plain_grads.iter().zip(&saved_grads) {
        let scale = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let error = a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / scale;
        assert!(error < 1e-3, "gradients differ by {error:.1e} of the largest");
    }
    println!("peak of a training step: {plain} bytes, with checkpointing {saved} bytes");
    // If the tape kept every layer, it would be 24 MB.
    assert!(plain <= 15_000_000, "peak of a training step: {plain} bytes");
    assert!(10 * saved <= 7 * plain, "peak of a training step: {plain} bytes, with checkpointing {saved} bytes");

    let steps = [Precision::F32, Precision::F16, Precision::Bf16].map(|precision| {
        let config = UNetConfig::plain(1, 1, &[16, 32, 64]).precision(precision);
        let unet = WaveMeshUNet::seeded(&config, 0, &Device::Cpu).unwrap();
        let (_, taped) = peak_of(|| unet.forward(&x, &t, None).unwrap());
        let (_, untaped) = peak_of(|| unet.predict(&x, &t, None, false).unwrap());
        println!("{precision:?}: a pass in evaluation {taped} bytes, without gradient {untaped} bytes");
        assert!(2 * untaped <= taped, "{taped} bytes, without gradient {untaped} bytes");
        let (_, step) = peak_of(|| {
            let y = unet.forward_t(&x, &t, None, true).unwrap();
            y.features().sqr().unwrap().mean_all().unwrap().backward().unwrap()
        });
        step
    });
    println!("peak of a training step in f32, f16, bf16: {steps:?} bytes");
    assert!(4 * steps[1] <= 3 * steps[0] && 4 * steps[2] <= 3 * steps[0], "{steps:?} bytes");

    let summary = |precision: Precision| {
        let config = UNetConfig::plain(1, 1, &[16, 32, 64]).precision(precision);
        WaveMeshUNet::seeded(&config, 0, &Device::Cpu).unwrap().summary(&x).unwrap()
    };
    // The ends of blocks are still f32.
    let (full, half) = (summary(Precision::F32), summary(Precision::F16));
    let is_end = |name: &str| name.ends_with("bn2") || ["encoder.input_conv.1", "output_conv"].contains(&name);
    let ends: usize = full.layers.iter().filter(|layer| is_end(&layer.name)).map(|layer| layer.bytes).sum();
    assert!(ends > 0);
    assert_eq!(half.activation_bytes(), (full.activation_bytes() + ends) / 2);
}
