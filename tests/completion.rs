//! Completion and interpolation: known parts stay, drawn parts agree with them, and the ends of an interpolation are the shapes of their
//! seeds.

use candle_core::{Device, Tensor};
use wavemesh::Result;
use wavemesh::diffusion::{
    BetaSchedule, DiffusionConfig, GaussianDiffusion, InpaintOptions, Prediction, Sampler, TimestepSpacing,
};
use wavemesh::sdf::SdfGrid;
use wavemesh::sparse::SparseConvTensor;
use wavemesh::train::{
    Family, GenerateOptions, Generator, ProceduralShape, Representation, RepresentationConfig, StageModel,
};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};

fn diffusion(prediction: Prediction) -> GaussianDiffusion {
    let config = DiffusionConfig::new().schedule(BetaSchedule::Cosine).prediction(prediction);
    GaussianDiffusion::new(&config, &Device::Cpu).unwrap()
}

/// Mean and variance of the second of two sites with a joint Gaussian distribution of correlation 0.8, if the first is known to be 1.5.
fn completed(turns: usize) -> (f32, f32) {
    const PAIRS: usize = 2000;
    const RHO: f64 = 0.8;
    let diffusion = diffusion(Prediction::X0);
    let exact = |x: &SparseConvTensor, t: &Tensor, _: Option<&Tensor>, _: bool| -> Result<SparseConvTensor> {
        // E[x0 | xt], along the sum and the difference of the pair, whose variances are 1 ± ρ.
        let level = diffusion.schedule().alpha_cumprod(t.to_vec1::<f32>()?[0] as i64);
        let gain = |variance: f64| level.sqrt() * variance / (level * variance + 1.0 - level);
        let (sum, difference) = (gain(1.0 + RHO), gain(1.0 - RHO));
        let pairs = x.features().reshape((PAIRS, 2))?;
        let swapped = pairs.index_select(&Tensor::new(&[1u32, 0], &Device::Cpu)?, 1)?;
        let x0 = ((pairs * ((sum + difference) / 2.0))? + (swapped * ((sum - difference) / 2.0))?)?;
        x.replace_feature(x0.reshape((2 * PAIRS, 1))?)
    };
    let coords = (0..2 * PAIRS as i32).map(|i| [i / 2, 0, 0, i % 2]).collect();
    let features = Tensor::full(1.5f32, (2 * PAIRS, 1), &Device::Cpu).unwrap();
    let known = SparseConvTensor::from_coords(features, coords, [1, 1, 2], PAIRS).unwrap();
    let mask: Vec<bool> = (0..2 * PAIRS).map(|i| i % 2 == 0).collect();
    let whole = diffusion.inpaint(&exact, &known, &mask, &InpaintOptions::new().turns(turns)).unwrap();
    let values: Vec<f32> = whole.features().flatten_all().unwrap().to_vec1().unwrap();
    assert!(values.iter().step_by(2).all(|&v| v == 1.5), "what is known is kept");
    let drawn: Vec<f32> = values.into_iter().skip(1).step_by(2).collect();
    let mean = drawn.iter().sum::<f32>() / PAIRS as f32;
    (mean, drawn.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / PAIRS as f32)
}

#[test]
fn turns_bring_a_completion_to_the_posterior() {
    // Given the first, the second has mean 0.8 · 1.5 = 1.2 and variance 0.36.
    let [alone, some, many] = [1, 5, 20].map(completed);
    assert!(alone.0 < 0.7, "without turns it does not agree: {alone:?}");
    assert!(some.0 > alone.0 + 0.2 && many.0 > some.0, "{alone:?} {some:?} {many:?}");
    assert!((many.0 - 1.2).abs() < 0.06 && (many.1 - 0.36).abs() < 0.06, "{many:?}");
}

/// Two untrained stages, for properties that hold for any network.
fn untrained(shapes: &[SdfGrid], classes: usize) -> Generator {
    let config = RepresentationConfig::new().resolution(shapes[0].shape()[0]);
    let representation = Representation::fit(&config, shapes).unwrap();
    let stages = (0..2).map(|stage| {
        let [inputs, outputs] = Generator::channels_of(stage, classes);
        let network = WaveMeshUNet::seeded(&UNetConfig::plain(inputs, outputs, &[8, 12]), 3, &Device::Cpu).unwrap();
        StageModel { network, diffusion: diffusion(Prediction::V) }
    });
    let names = (0..classes).map(|i| format!("class {i}")).collect();
    Generator::new(representation, stages.collect(), names).unwrap()
}

fn shapes(resolution: usize) -> Vec<SdfGrid> {
    Family::PLAIN.into_iter().map(|family| ProceduralShape::new(family, 2).sdf(resolution).unwrap()).collect()
}

fn few_steps() -> GenerateOptions {
    GenerateOptions::new()
        .sampler(Sampler::Ddim { steps: 4, eta: 0.0 })
        .detail_sampler(Sampler::Ddim { steps: 3, eta: 0.0 })
        .turns(2)
}

fn near(a: &SdfGrid, b: &SdfGrid, tolerance: f32) -> bool {
    a.values().iter().zip(b.values()).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn a_completion_keeps_what_is_known() {
    let shapes = shapes(32);
    let generator = untrained(&shapes, 2);
    let part = &shapes[3];
    let options = few_steps().class("class 1");
    // If everything is known, the shape comes back.
    let whole = generator.complete(part, |_| true, 1, &options).unwrap();
    let kept = generator.representation().decode(&generator.representation().encode(part).unwrap()).unwrap();
    assert!(near(&whole[0], &kept, 1e-3));
    // If nothing is known, another seed draws another shape, and the result does not depend on the part.
    let drawn = generator.complete(part, |_| false, 2, &options).unwrap();
    assert!(!near(&drawn[0], &drawn[1], 1e-3));
    assert_eq!(generator.complete(&shapes[0], |_| false, 1, &options).unwrap()[0].values(), drawn[0].values());
    // Everything except the middle is known.
    let half = generator.complete(part, |[_, _, z]| z.abs() > 0.2, 1, &options).unwrap();
    // The two lowest layers, near the surface: no filter reaches them from the drawn part.
    let low = kept.values().iter().zip(half[0].values()).enumerate().filter(|(i, (d, _))| i % 32 < 2 && d.abs() < 0.15);
    let differences: Vec<f32> = low.map(|(_, (a, b))| (a - b).abs()).collect();
    let off = differences.iter().copied().fold(0f32, f32::max);
    assert!(differences.len() > 10);
    assert!(off < 0.02, "{off}");
    let wrong = SdfGrid::from_fn([8; 3], |p| p[0]).unwrap();
    assert!(generator.complete(&wrong, |_| true, 1, &options).unwrap_err().to_string().contains("[32, 32, 32]"));
}

#[test]
fn an_interpolation_goes_from_one_seeds_shape_to_the_others() {
    let generator = untrained(&shapes(16), 0);
    let options = few_steps();
    let way = generator.interpolate([5, 9], 5, &options).unwrap();
    let of = |seed: u64| generator.generate(1, &few_steps().seed(seed)).unwrap().remove(0);
    assert_eq!(way[0].values(), of(5).values());
    assert_eq!(way[4].values(), of(9).values());
    assert!(!near(&way[2], &way[0], 1e-3) && !near(&way[2], &way[4], 1e-3));
    assert!(generator.interpolate([5, 9], 1, &options).unwrap_err().to_string().contains("two ends"));
}

#[test]
fn batches_and_given_stages_change_no_shape() {
    let shapes = shapes(16);
    let generator = untrained(&shapes, 0);
    let one_by_one = generator.generate(3, &few_steps().seed(4)).unwrap();
    let together = generator.generate(3, &few_steps().seed(4).batch_size(2)).unwrap();
    for (a, b) in one_by_one.iter().zip(&together) {
        assert!(near(a, b, 1e-4));
    }
    // Nor if samplers add noise.
    let noisy = few_steps()
        .sampler(Sampler::Ddim { steps: 4, eta: 1.0 })
        .detail_sampler(Sampler::Ddpm { steps: 3 })
        .spacing(TimestepSpacing::Leading)
        .seed(4);
    let one_by_one = generator.generate_watched(3, &noisy, |_, _, _| Ok(())).unwrap();
    for (a, b) in one_by_one.iter().zip(&generator.generate(3, &noisy.clone().batch_size(2)).unwrap()) {
        assert!(near(a, b, 1e-4));
    }
    assert!(!near(&one_by_one[0], &together[0], 1e-2));
    assert_ne!(one_by_one[0], generator.generate(1, &noisy.clone().spacing(TimestepSpacing::Trailing)).unwrap()[0]);
    assert!(generator.generate(1, &noisy.spacing(TimestepSpacing::Karras)).is_err()); // only for DPM-Solver++
    let mut codes: Vec<_> = shapes.iter().map(|shape| generator.representation().encode(shape).unwrap()).collect();
    let whole = generator.refine(codes.clone(), &few_steps()).unwrap();
    assert_eq!(whole[0].values(), generator.representation().decode(&codes[0]).unwrap().values());
    codes.iter_mut().for_each(|stages| stages.truncate(1));
    let refined = generator.refine(codes.clone(), &few_steps().batch_size(5)).unwrap();
    assert_eq!(refined.len(), 5);
    codes[1].clear();
    assert!(generator.refine(codes, &few_steps()).unwrap_err().to_string().contains("same number of stages"));
}

#[test]
fn noise_before_a_stage_moves_its_condition_and_sites_alone() {
    let shape = &shapes(16)[3];
    let representation = Representation::fit(&RepresentationConfig::new().resolution(16), [shape]).unwrap();
    let exact = representation.encode(shape).unwrap().remove(1);
    let off = |noise: f32| {
        let noised = representation.encode_noised(shape, 1, noise, 7).unwrap();
        let mut sum = 0f32;
        let mut shared = 0;
        for (site, (condition, row)) in noised.sites.iter().zip(noised.condition.iter().zip(noised.features.chunks(7)))
        {
            if let Ok(at) = exact.sites.binary_search(site) {
                shared += 1;
                sum += (condition - exact.condition[at]).abs();
                assert_eq!(row, &exact.features[7 * at..7 * at + 7], "details are the shape's own");
            }
        }
        assert!(shared * 2 > exact.sites.len());
        sum / shared as f32
    };
    let [none, little, more] = [off(0.0), off(0.05), off(0.2)];
    assert!(none < 1e-4 && little > none && more > 2.0 * little, "{none} {little} {more}");
    assert_eq!(
        representation.encode_noised(shape, 0, 0.5, 1).unwrap(),
        representation.encode(shape).unwrap().remove(0),
        "nothing comes before stage 0"
    );
}
