//! Training: a network learns one shape by heart, a resumed run equals an uninterrupted one, learning rates are PyTorch's, data survive
//! damage, and errors name the mistake.

mod folder;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device, Tensor};
use wavemesh::diffusion::{BetaSchedule, DiffusionConfig, GaussianDiffusion, Prediction};
use wavemesh::mesh::Mesh;
use wavemesh::sdf::{DepthImage, SdfGrid, Viewpoint, iou_of_grids};
use wavemesh::sparse::SparseConvTensor;
use wavemesh::train::{
    Augmentation, ContextData, DatasetConfig, Family, GenerateOptions, Generator, LearningRate, ProceduralShape,
    Representation, RepresentationConfig, SetComparison, ShapeDataset, ShapeViews, Split, StageData, StageModel,
    Topology, TrainConfig, Trainer, TrainingBatch, TrainingData, checkpoints,
};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};
use wavemesh::{Error, Result};

use folder::Folder;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

fn small() -> RepresentationConfig {
    RepresentationConfig::new().resolution(16)
}

fn cosine_v() -> GaussianDiffusion {
    let config = DiffusionConfig::new().schedule(BetaSchedule::Cosine).prediction(Prediction::V);
    GaussianDiffusion::new(&config, &DEVICE).unwrap()
}

fn shapes(count: usize, resolution: usize) -> Vec<SdfGrid> {
    (0..count as u64).map(|i| ProceduralShape::new(Family::PLAIN[i as usize % 5], i).sdf(resolution).unwrap()).collect()
}

fn trainer(config: TrainConfig, seed: u64) -> Trainer {
    let grids = shapes(6, 16);
    let representation = Representation::fit(&small(), &grids).unwrap();
    let data = |grids: Vec<SdfGrid>| {
        let data = StageData::new(&representation, 0, grids, Augmentation::default(), 0.0, &DEVICE).unwrap();
        Arc::new(data) as Arc<dyn TrainingData>
    };
    let network = WaveMeshUNet::seeded(&UNetConfig::plain(11, 8, &[8, 12]), seed, &DEVICE).unwrap();
    Trainer::new(network, cosine_v(), data(grids.clone()), Some(data(shapes(4, 16))), config).unwrap()
}

#[test]
fn one_shape_is_learnt_by_heart() {
    let shape = ProceduralShape::new(Family::Torus, 3).sdf(16).unwrap();
    // Uses the statistics of several shapes: with those of one shape alone, every channel would be unit noise.
    let config = small().shell(Some(3.0));
    let representation = Representation::fit(&config, &shapes(10, 16)).unwrap();
    let mut stages = Vec::new();
    for stage in 0..2 {
        let [inputs, outputs] = Generator::channels_of(stage, 0);
        let unet = UNetConfig::plain(inputs, outputs, &[24, 48]);
        let data =
            StageData::new(&representation, stage, vec![shape.clone()], Augmentation::default(), 0.0, &DEVICE).unwrap();
        let config = TrainConfig::new()
            .steps(500)
            .batch_size(8)
            .learning_rate(4e-3)
            .warmup(20)
            .final_learning_rate(0.0)
            .ema_decay(0.98)
            .validate_every(0);
        let diffusion = GaussianDiffusion::new(
            &DiffusionConfig::new().schedule(BetaSchedule::Cosine).prediction(Prediction::X0),
            &DEVICE,
        )
        .unwrap();
        let network = WaveMeshUNet::seeded(&unet, 1, &DEVICE).unwrap();
        let mut trainer = Trainer::new(network, diffusion.clone(), Arc::new(data), None, config).unwrap();
        trainer.run(|_, _| Ok(())).unwrap();
        let losses: Vec<f64> = trainer.history().iter().map(|record| record.loss).collect();
        let last = losses[losses.len() - 20..].iter().sum::<f64>() / 20.0;
        assert!(losses[0] / last >= 100.0, "stage {stage}: the loss fell from {} to {last} only", losses[0]);
        stages.push(StageModel { network: trainer.into_ema(), diffusion });
    }
    let generator = Generator::new(representation, stages, Vec::new()).unwrap();
    let sample = generator.generate(1, &GenerateOptions::new().seed(5)).unwrap().remove(0);
    let iou = iou_of_grids(&sample, &shape).unwrap();
    assert!(iou >= 0.9, "IoU of the sample with the one shape it was trained on: {iou}");
}

fn quick(folder: Option<PathBuf>, steps: usize) -> TrainConfig {
    let mut config = TrainConfig::new().steps(steps).batch_size(2).accumulation(2).learning_rate(1e-3).warmup(2);
    config = config.validate_every(3).checkpoint_every(4).importance_sampling(true);
    config.folder = folder;
    config
}

/// The error that ends a training abruptly, as a full disk would.
fn cut_short() -> Error {
    Error::io("somewhere")(std::io::Error::other("no space left"))
}

#[test]
fn a_resumed_run_takes_the_steps_of_an_uninterrupted_one() {
    let folder = Folder::new("resume");
    let mut whole = trainer(quick(None, 10), 3);
    whole.run(|_, _| Ok(())).unwrap();

    let mut first = trainer(quick(Some(folder.to_path_buf()), 10), 3);
    let killed = first.run(|_, record| if record.step == 6 { Err(cut_short()) } else { Ok(()) });
    assert!(matches!(killed, Err(Error::Io { .. })));

    // Another process with another initial network: everything must come from the file. The kill came after step 6 and the last checkpoint
    // is of step 4, so steps 5 and 6 are taken again.
    let mut second = trainer(quick(Some(folder.to_path_buf()), 10), 99);
    second.resume(checkpoints(&folder).unwrap().last().unwrap()).unwrap();
    assert_eq!(second.step_count(), 4);
    let stopped = second.run(|_, record| if record.step == 7 { Err(Error::Interrupted) } else { Ok(()) });
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_eq!(second.step_count(), 7, "an interrupted training keeps what it has done");

    // A stop, unlike a kill, has written its own checkpoint.
    let mut second = trainer(quick(Some(folder.to_path_buf()), 10), 98);
    second.resume(checkpoints(&folder).unwrap().last().unwrap()).unwrap();
    assert_eq!(second.step_count(), 7);
    second.run(|_, _| Ok(())).unwrap();

    let losses = |trainer: &Trainer| trainer.history().iter().map(|r| (r.loss, r.grad_norm)).collect::<Vec<_>>();
    assert_eq!(losses(&second), losses(&whole), "bit for bit");
    for ((name, a), (_, b)) in whole.ema().state().iter().zip(second.ema().state()) {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(a), flat(b), "{name}");
    }

    let kept = checkpoints(&folder).unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(folder.join("best.safetensors").is_file());
    let log = std::fs::read_to_string(folder.join("log.csv")).unwrap();
    assert_eq!(log.lines().count(), 11, "a header and a row a step, none twice:\n{log}");
    let leftovers = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(leftovers.count(), 0);

    let mut bytes = std::fs::read(&kept[0]).unwrap();
    let version = br#"\"version\":2"#;
    let at = bytes.windows(version.len()).position(|window| window == version).unwrap();
    bytes[at + version.len() - 1] = b'9';
    let newer = folder.join("newer.safetensors");
    std::fs::write(&newer, bytes).unwrap();
    let error = second.resume(&newer).unwrap_err().to_string();
    assert!(error.contains("version 9; this program reads version 2"), "{error}");

    let network = WaveMeshUNet::seeded(&UNetConfig::plain(11, 8, &[8, 10]), 0, &DEVICE).unwrap();
    let representation = Representation::fit(&small(), &shapes(2, 16)).unwrap();
    let data = StageData::new(&representation, 0, shapes(2, 16), Augmentation::default(), 0.0, &DEVICE).unwrap();
    let mut other = Trainer::new(network, cosine_v(), Arc::new(data), None, quick(None, 10)).unwrap();
    let error = other.resume(&kept[0]).unwrap_err().to_string();
    assert!(error.contains("encoder.encoder_blocks.0.conv1.weight"), "{error}");
    assert!(error.contains("[12, 3, 3, 3, 8]") && error.contains("[10, 3, 3, 3, 8]"), "{error}");
}

#[test]
fn a_training_whose_time_is_over_ends_without_an_error_and_can_go_on() {
    let folder = Folder::new("seconds");
    let mut first = trainer(quick(Some(folder.to_path_buf()), 3).seconds(1e-9), 3);
    first.run(|_, _| Ok(())).unwrap();
    assert_eq!(first.step_count(), 1);
    let kept = checkpoints(&folder).unwrap();
    assert!(kept.len() == 1 && kept[0].ends_with("step-0000001.safetensors"), "{kept:?}");

    let mut second = trainer(quick(Some(folder.to_path_buf()), 3).seconds(1e9), 99);
    assert!(second.resume_latest().unwrap());
    second.run(|_, _| Ok(())).unwrap();
    let mut whole = trainer(quick(None, 3), 3);
    whole.run(|_, _| Ok(())).unwrap();
    let losses = |trainer: &Trainer| trainer.history().iter().map(|record| record.loss).collect::<Vec<_>>();
    assert_eq!(losses(&second), losses(&whole), "bit for bit");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_training_and_leaves_the_network() {
    struct Poisoned;
    impl TrainingData for Poisoned {
        fn len(&self) -> usize {
            1
        }
        fn batch(&self, items: &[usize], _seeds: &[u64]) -> Result<TrainingBatch> {
            let rows = 2 * items.len();
            let coords = (0..items.len() as i32).flat_map(|b| [[b, 0, 0, 0], [b, 0, 0, 1]]).collect();
            let features = Tensor::full(f32::NAN, (rows, 1), &DEVICE)?;
            let x0 = SparseConvTensor::from_coords(features, coords, [2, 2, 2], items.len())?;
            Ok(TrainingBatch { x0, condition: None, labels: None, context: None })
        }
    }
    let network = WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[4, 6]), 0, &DEVICE).unwrap();
    let before: Vec<f32> = network.parameters().next().unwrap().1.flatten_all().unwrap().to_vec1().unwrap();
    let mut trainer = Trainer::new(network, cosine_v(), Arc::new(Poisoned), None, quick(None, 5)).unwrap();
    let error = trainer.run(|_, _| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Diverged { what: "loss", step: 1, .. }), "{error}");
    let after: Vec<f32> = trainer.network().parameters().next().unwrap().1.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(before, after);
}

#[test]
fn without_a_shell_the_representation_is_exact_and_with_one_it_keeps_the_surface() {
    let grids = shapes(10, 32);
    let whole = RepresentationConfig::new().shell(None);
    let levelled = Representation::fit(&whole, &grids).unwrap();
    let exact = Representation::fit(&whole.truncation(None), &grids).unwrap();
    let shelled = Representation::fit(&RepresentationConfig::default(), &grids).unwrap();
    for grid in &grids {
        let back = exact.decode(&exact.encode(grid).unwrap()).unwrap();
        let error = back.values().iter().zip(grid.values()).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error < 1e-5, "largest error without a shell: {error}");
        // Saturated distances are restored too, with rounding that grows as the curve flattens: compare up to half the cube.
        let back = levelled.decode(&levelled.encode(grid).unwrap()).unwrap();
        let near = back.values().iter().zip(grid.values()).filter(|(_, distance)| distance.abs() < 1.0);
        let error = near.fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error < 1e-3, "largest error of levelled distances: {error}");
        let codes = shelled.encode(grid).unwrap();
        let all = shelled.grid_of(1).pow(3);
        assert!(codes[1].sites.len() < all, "a shell leaves sites out");
        // As a generator does: the sites of stage 1 come from stage 0 alone.
        let predicted = shelled.next_sites(&codes[..1]).unwrap();
        // Normalising and back rounds, so a site right at the shell's edge may end up on the other side.
        let at: std::collections::BTreeMap<_, _> = predicted.sites.iter().zip(&predicted.condition).collect();
        for (site, condition) in codes[1].sites.iter().zip(&codes[1].condition) {
            match at.get(site) {
                Some(found) => assert!((*found - condition).abs() < 1e-4, "{site:?}: {found} and {condition}"),
                None => assert!(condition.abs() > 1.4999, "{site:?} is missing, {condition} sites from the surface"),
            }
        }
        assert!(predicted.sites.len() <= codes[1].sites.len() + codes[1].sites.len() / 100);
        let iou = iou_of_grids(&shelled.decode(&codes).unwrap(), grid).unwrap();
        // Filters reach a little beyond the shell: thin parts lose some details.
        assert!(iou > 0.9, "IoU with the details near the surface alone: {iou}");
    }
}

#[test]
fn finer_stages_grow_with_the_surface() {
    let shape = ProceduralShape::new(Family::Mug, 3).sdf(128).unwrap();
    let config = RepresentationConfig::new().resolution(128).levels(4).shell(Some(2.5));
    let representation = Representation::fit(&config, [&shape]).unwrap();
    let codes = representation.encode(&shape).unwrap();
    let sites: Vec<usize> = codes.iter().map(|code| code.sites.len()).collect();
    assert_eq!(sites[0], 8 * 8 * 8);
    // Four times the sites at each step are a surface, eight times a cube.
    assert!(sites[1..].windows(2).all(|pair| pair[1] < 5 * pair[0]), "{sites:?}");
    let iou = iou_of_grids(&representation.decode(&codes).unwrap(), &shape).unwrap();
    assert!(iou > 0.995, "{iou}");
}

#[test]
fn splits_share_no_shape_and_seeds_fix_them() {
    let config = DatasetConfig::new().resolution(16).levels(1);
    let names = |seed, split| {
        let set = ShapeDataset::procedural(&Family::PLAIN, 300, seed, split, &config).unwrap();
        set.items().iter().map(|item| item.name.clone()).collect::<Vec<_>>()
    };
    let (train, held_out) = (names(1, Split::Train), names(1, Split::HeldOut));
    assert_eq!(train, names(1, Split::Train));
    assert_ne!(train, names(2, Split::Train));
    let mut all: Vec<_> = train.into_iter().chain(held_out).chain(names(1, Split::Validation)).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 900);
}

#[test]
fn six_hundred_shapes_differ() {
    let config = DatasetConfig::new().resolution(16).levels(1);
    let set = ShapeDataset::procedural(&Family::PLAIN, 600, 4, Split::Train, &config).unwrap();
    let grids = set.grids().unwrap();
    let mut bits: Vec<Vec<u32>> = grids.iter().map(|g| g.values().iter().map(|v| v.to_bits()).collect()).collect();
    bits.sort();
    bits.dedup();
    assert_eq!(bits.len(), 600);
    assert!(grids.iter().all(|grid| grid.to_mesh().is_ok_and(|mesh| mesh.is_watertight())));
}

#[test]
fn a_damaged_cache_entry_is_noticed_and_rebuilt() {
    let folder = Folder::new("cache");
    let config = DatasetConfig::new().resolution(16).levels(1).cache(folder.to_path_buf());
    let make = |config: &DatasetConfig| ShapeDataset::procedural(&Family::PLAIN, 8, 1, Split::Train, config).unwrap();
    let first = make(&config);
    assert_eq!((first.rebuilt(), make(&config).rebuilt()), (8, 0));
    let mut entries: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    let bytes = std::fs::read(&entries[0]).unwrap();
    std::fs::write(&entries[0], &bytes[..bytes.len() / 2]).unwrap(); // cut short
    let mut flipped = std::fs::read(&entries[1]).unwrap();
    let last = flipped.len() - 1;
    flipped[last] ^= 1; // one bit of one value
    std::fs::write(&entries[1], flipped).unwrap();
    let again = make(&config);
    assert_eq!(again.rebuilt(), 2);
    for (a, b) in first.items().iter().zip(again.items()) {
        assert_eq!((&a.name, a.coefficients.values()), (&b.name, b.coefficients.values()));
    }
    assert_eq!(make(&config.threshold(0.01)).rebuilt(), 8, "another way of encoding, another key");
}

#[test]
fn unreadable_meshes_are_skipped_and_named() {
    let folder = Folder::new("meshes");
    let config = DatasetConfig::new().resolution(16).levels(1);
    let empty = ShapeDataset::from_folder(&folder, &config).unwrap_err().to_string();
    assert!(empty.contains("no mesh in"), "{empty}");
    ProceduralShape::new(Family::Torus, 1).sdf(16).unwrap().to_mesh().unwrap().save(folder.join("a.obj")).unwrap();
    std::fs::write(folder.join("b.obj"), "this is no mesh").unwrap();
    std::fs::write(folder.join("notes.txt"), "nor is this").unwrap();
    let set = ShapeDataset::from_folder(&folder, &config).unwrap();
    assert_eq!((set.len(), set.skipped().len()), (1, 1));
    assert!(set.skipped()[0].0.ends_with("b.obj") && !set.skipped()[0].1.is_empty());
    assert!(ShapeDataset::from_folder(folder.join("nowhere"), &config).unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn shapes_of_a_folder_stand_in_the_frame_of_generated_ones() {
    let folder = Folder::new("frames");
    let config = DatasetConfig::new().resolution(16).levels(1);
    let shapes = ShapeDataset::procedural(&[Family::Box, Family::Capsule], 6, 1, Split::Train, &config).unwrap();
    for (i, grid) in shapes.grids().unwrap().iter().enumerate() {
        // Like real meshes: in another unit and at another place.
        let mesh = grid.to_mesh().unwrap().map_vertices(|v| v.map(|c| 40.0 * c + 300.0)).unwrap();
        mesh.save(folder.join(format!("{i}.obj"))).unwrap();
    }
    let of_folder = ShapeDataset::from_folder(&folder, &config).unwrap().grids().unwrap();
    let cube = [[-1.0; 3], [1.0; 3]];
    assert!(of_folder.iter().all(|grid| grid.corners() == cube));
    let (ours, theirs) = (&shapes.grids().unwrap(), &of_folder);
    let score = SetComparison::of_grids(ours, theirs, 256, 0).unwrap();
    assert!(score.mmd < 0.2 && score.coverage > 0.0, "{score:?}");
    // With separate frames they cannot be compared, and the message names both frames.
    let own = |i: usize| SdfGrid::from_mesh(&Mesh::load(folder.join(format!("{i}.obj"))).unwrap(), 16).unwrap();
    let own: Vec<SdfGrid> = (0..6).map(own).collect();
    let error = SetComparison::of_grids(ours, &own, 256, 0).unwrap_err().to_string();
    assert!(error.contains("-1.0") && error.contains("2"), "{error}");
    let meshes = |grids: &[SdfGrid]| grids.iter().map(|grid| grid.to_mesh().unwrap()).collect::<Vec<_>>();
    let error = SetComparison::of_meshes(&meshes(ours), &meshes(&own), 256, 0).unwrap_err().to_string();
    assert!(error.contains("one frame"), "{error}");
}

#[test]
fn augmented_views_are_the_shape_itself_turned() {
    let grid = ProceduralShape::new(Family::PlainChair, 1).sdf(16).unwrap();
    let both = Augmentation { flips: true, rotations: true };
    let sorted = |grid: &SdfGrid| {
        let mut values: Vec<u32> = grid.values().iter().map(|v| v.to_bits()).collect();
        values.sort_unstable();
        values
    };
    let views: Vec<SdfGrid> = (0..40).map(|seed| both.apply(&grid, seed).unwrap()).collect();
    assert!(views.iter().all(|view| sorted(view) == sorted(&grid)), "a view has the same values elsewhere");
    let mut distinct: Vec<Vec<u32>> = views.iter().map(|v| v.values().iter().map(|v| v.to_bits()).collect()).collect();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() >= 4, "{} views of a shape with one mirror plane", distinct.len());
    assert_eq!(Augmentation::default().apply(&grid, 3).unwrap(), grid);
}

#[test]
fn a_generator_survives_its_file() {
    let folder = Folder::new("generator");
    let generator = untrained_generator();
    let asked = GenerateOptions::new().class("chair");
    assert!(generator.generate(1, &asked).unwrap_err().to_string().contains("chair"), "it knows no classes");
    let path = folder.join("generator.safetensors");
    generator.save(&path, DType::F32).unwrap();
    let again = Generator::load(&path, &DEVICE).unwrap();
    let options = GenerateOptions::new().sampler(wavemesh::diffusion::Sampler::Ddim { steps: 3, eta: 0.0 }).seed(1);
    let values = |generator: &Generator| generator.generate(2, &options).unwrap()[1].values().to_vec();
    assert_eq!(values(&generator), values(&again));
    std::fs::write(&path, b"nothing").unwrap();
    assert!(matches!(Generator::load(&path, &DEVICE), Err(Error::Format { .. })));
    let representation = generator.representation().clone();
    let swapped = Generator::new(representation, vec![untrained(1), untrained(0)], Vec::new()).unwrap_err().to_string();
    assert!(swapped.contains("[[11, 7], [11, 8]]"), "{swapped}");
}

#[test]
fn labels_reach_the_network_and_guidance_stretches_them() {
    let names = ["box", "torus"].map(String::from);
    let grids = shapes(2, 16);
    let representation = Representation::fit(&small(), &grids).unwrap();
    let data = || StageData::new(&representation, 0, grids.clone(), Augmentation::default(), 0.0, &DEVICE).unwrap();
    let rows = |dropout| {
        let labelled = data().with_labels(vec![0, 1], 2, dropout).unwrap();
        labelled.batch(&[1, 0], &[5, 6]).unwrap().labels.unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(rows(0.0), [[0.0, 1.0], [1.0, 0.0]]);
    assert_eq!(rows(1.0), [[0.0, 0.0], [0.0, 0.0]]);
    for (labels, classes, problem) in [(vec![0], 2, "each of 2 shapes"), (vec![0, 2], 2, "below the 2 classes")] {
        assert!(data().with_labels(labels, classes, 0.0).err().unwrap().to_string().contains(problem));
    }
    let stage = |stage: usize| {
        let [inputs, outputs] = Generator::channels_of(stage, 2);
        let unet = UNetConfig::plain(inputs, outputs, &[4, 6]);
        StageModel { network: WaveMeshUNet::seeded(&unet, 2, &DEVICE).unwrap(), diffusion: cosine_v() }
    };
    let generator = Generator::new(representation.clone(), vec![stage(0), stage(1)], names.to_vec()).unwrap();
    let values = |class: Option<&str>, guidance_scale: Option<f64>| {
        let sampler = wavemesh::diffusion::Sampler::Ddim { steps: 3, eta: 0.0 };
        let mut options = GenerateOptions::new().sampler(sampler).guidance_scale(guidance_scale);
        options.class = class.map(Into::into);
        generator.generate(1, &options).unwrap()[0].values().to_vec()
    };
    assert_ne!(values(Some("box"), None), values(Some("torus"), None));
    assert_ne!(values(Some("box"), None), values(None, None));
    assert_ne!(values(Some("box"), Some(3.0)), values(Some("box"), None));
    let options = GenerateOptions::new().class("sofa");
    assert!(generator.generate(1, &options).unwrap_err().to_string().contains("box, torus"));
}

#[test]
fn a_picture_decides_what_is_drawn() {
    let grids: Arc<[SdfGrid]> =
        [0.35, 0.65].map(|radius| wavemesh::sdf::shapes::sphere(radius).to_grid(16).unwrap()).to_vec().into();
    let representation = Representation::fit(&small(), grids.iter()).unwrap();
    let views = Arc::new(ShapeViews::new(grids.clone(), 4));
    let data = StageData::new(&representation, 0, grids.clone(), Augmentation::default(), 0.0, &DEVICE).unwrap();
    assert!(data.batch(&[0], &[0]).unwrap().context.is_none());
    let data = data.with_contexts(views.clone(), 0.2).unwrap();
    let [_, width] = views.dims();
    let unet = |stage: usize| {
        let [inputs, outputs] = Generator::channels_of(stage, 0);
        UNetConfig::plain(inputs, outputs, &[16, 24])
    };
    let told = unet(0).use_attention(true).attention_residual(true).dropout(0.0).num_heads(4);
    let told = told.context_dim(width).context_layers([16]);
    let config = TrainConfig::new().steps(300).batch_size(8).learning_rate(4e-3).ema_decay(0.98).validate_every(0);
    let network = WaveMeshUNet::seeded(&told, 1, &DEVICE).unwrap();
    let mut trainer = Trainer::new(network, cosine_v(), Arc::new(data), None, config).unwrap();
    trainer.run(|_, _| Ok(())).unwrap();
    let fine = StageModel { network: WaveMeshUNet::seeded(&unet(1), 2, &DEVICE).unwrap(), diffusion: cosine_v() };
    let coarse = StageModel { network: trainer.into_ema(), diffusion: cosine_v() };
    let generator = Generator::new(representation, vec![coarse, fine], Vec::new()).unwrap();

    let from = Viewpoint { azimuth: 77.0, elevation: 20.0 }; // no viewpoint of the training
    let shown = |at: usize| grids[at].depth_image(from, ShapeViews::SIZE).unwrap();
    let patches = |image: &DepthImage| image.patches(ShapeViews::PATCHES).unwrap();
    let ddim = wavemesh::diffusion::Sampler::Ddim { steps: 20, eta: 0.0 };
    let options = GenerateOptions::new().sampler(ddim).detail_sampler(ddim).batch_size(2);
    let inside = |grid: &SdfGrid| grid.values().iter().filter(|&&distance| distance < 0.0).count();
    let both = Tensor::stack(&[patches(&shown(0)), patches(&shown(1).silhouette())], 0).unwrap();
    // Six balls of each picture, whose volumes differ by a factor of six.
    let mut drawn = Vec::new();
    for seed in (0..12).step_by(2) {
        drawn.extend(generator.generate(2, &options.clone().seed(seed).context(both.clone())).unwrap());
    }
    let mean = |at: usize| drawn.iter().skip(at).step_by(2).map(inside).sum::<usize>() as f64 / 6.0;
    let got = [mean(0), mean(1)];
    assert!(
        got[1] > 3.0 * got[0],
        "{got:?} samples inside, {} and {} in those shown",
        inside(&grids[0]),
        inside(&grids[1])
    );
    // One picture for all, and shape by shape, are the same.
    let alone = generator.generate(1, &options.clone().seed(0).context(patches(&shown(0)))).unwrap();
    assert!(alone[0].values().iter().zip(drawn[0].values()).all(|(a, b)| (a - b).abs() < 1e-3));

    let problem = |options: GenerateOptions| generator.generate(3, &options).unwrap_err().to_string();
    assert!(problem(options.clone().context(both)).contains("(3, views, 76)"));
    assert!(problem(options.clone().guidance_scale(2.0)).contains("without a class or a context"));
    let plain = untrained_generator();
    let refused = plain.generate(1, &options.context(patches(&shown(0)))).unwrap_err().to_string();
    assert!(refused.contains("trained without contexts"), "{refused}");
}

/// A small generator with random weights that knows neither classes nor contexts.
fn untrained_generator() -> Generator {
    let representation = Representation::fit(&small(), &shapes(5, 16)).unwrap();
    Generator::new(representation, vec![untrained(0), untrained(1)], Vec::new()).unwrap()
}

/// A small network with random weights for a stage.
fn untrained(stage: usize) -> StageModel {
    let [inputs, outputs] = Generator::channels_of(stage, 0);
    let unet = UNetConfig::plain(inputs, outputs, &[4, 6]);
    StageModel { network: WaveMeshUNet::seeded(&unet, 2, &DEVICE).unwrap(), diffusion: cosine_v() }
}

#[test]
fn generated_shapes_lose_what_training_shapes_do_not_have() {
    let ball = wavemesh::sdf::shapes::sphere(0.6);
    let solid = ball.clone().to_grid(16).unwrap();
    let hollow = ball.difference(wavemesh::sdf::shapes::sphere(0.3)).to_grid(16).unwrap();
    let topology = |grids: &[SdfGrid]| Representation::fit(&small(), grids).unwrap().topology().unwrap();
    assert_eq!(topology(&[solid.clone(), hollow.clone()]).with_hollows, 0.5);
    assert_eq!(topology(std::slice::from_ref(&solid)), Topology { with_hollows: 0.0, in_parts: 0.0 });
    // Noise of an untrained network is full of hollows and specks.
    let generator = untrained_generator();
    let options = GenerateOptions::new().seed(2);
    let [tidy, raw] = [true, false].map(|tidy| generator.generate(1, &options.clone().tidy(tidy)).unwrap().remove(0));
    assert!(raw.count_hollows() + raw.count_parts() > 1, "{} {}", raw.count_hollows(), raw.count_parts());
    assert_eq!(tidy.count_hollows(), 0);
    assert!(tidy.count_parts() <= raw.count_parts());
}

#[test]
fn every_course_of_the_learning_rate_is_that_of_pytorch_s_scheduler() {
    let saved: HashMap<String, Vec<f64>> = serde_json::from_str(include_str!("fixtures/schedules.json")).unwrap();
    let (rate, total) = (0.1, 30);
    for (name, course) in [
        ("step", LearningRate::Step { rate, every: 7, gamma: 0.5 }),
        ("multistep", LearningRate::MultiStep { rate, milestones: vec![5, 12, 20], gamma: 0.1 }),
        ("exponential", LearningRate::Exponential { rate, gamma: 0.9 }),
        ("polynomial", LearningRate::Polynomial { rate, total: 25, power: 0.9 }),
        ("cosine", LearningRate::Cosine { rate, total: 29, least: 0.001 }),
        ("onecycle", LearningRate::OneCycle { rate, total, rise: 0.3, div: 25.0, final_div: 1e4 }),
        ("onecycle_openpcdet", LearningRate::OneCycle { rate: 0.003, total, rise: 0.4, div: 10.0, final_div: 1e4 }),
    ] {
        for (step, expected) in saved[name].iter().enumerate() {
            let found = course.at(step);
            assert!((found - expected).abs() < 1e-12, "{name}, step {step}: {found}, not {expected}");
        }
    }
}

#[test]
fn set_metrics_of_known_sets() {
    // Generated shapes at 0 and 10 on a line, references at 1 and 11: each one's nearest neighbour is in the other set.
    let at = |a: &[f64], b: &[f64]| -> Vec<Vec<f64>> {
        a.iter().map(|x| b.iter().map(|y| (x - y).abs()).collect()).collect()
    };
    let compare = |a: &[f64], b: &[f64]| SetComparison::new(&at(a, a), &at(a, b), &at(b, b)).unwrap();
    let mixed = compare(&[0.0, 10.0], &[1.0, 11.0]);
    assert_eq!((mixed.one_nna, mixed.coverage, mixed.mmd), (0.0, 1.0, 1.0));
    // Two clusters far apart: they are always told apart, and one reference is covered.
    let apart = compare(&[0.0, 1.0], &[100.0, 102.0]);
    assert_eq!((apart.one_nna, apart.coverage, apart.mmd), (1.0, 0.5, 100.0));
    assert!(SetComparison::new(&at(&[0.0], &[0.0]), &at(&[0.0], &[1.0]), &at(&[1.0], &[1.0])).is_err());
}

#[test]
fn mistakes_in_configurations_are_named() {
    let error = |config: RepresentationConfig| Representation::new(&config).unwrap_err().to_string();
    assert!(error(RepresentationConfig::new().resolution(30)).contains("a multiple of 4"));
    assert!(error(RepresentationConfig::new().wavelet("bior99")).contains("bior99"));
    assert!(error(RepresentationConfig::new().shell(Some(0.0))).contains("shell"));
    assert!(error(RepresentationConfig::new().whitening(2.0)).contains("whitening"));
    let representation = Representation::new(&small()).unwrap();
    assert!(representation.encode(&shapes(1, 32)[0]).unwrap_err().to_string().contains("[32, 32, 32]"));
    let none = StageData::new(&representation, 0, Vec::new(), Augmentation::default(), 0.0, &DEVICE);
    assert!(none.err().unwrap().to_string().contains("at least one"));
    assert!(serde_json::from_str::<TrainConfig>(r#"{"stepz": 3}"#).unwrap_err().to_string().contains("stepz"));
    let error = |config: TrainConfig| {
        let network = WaveMeshUNet::seeded(&UNetConfig::plain(11, 8, &[4, 6]), 0, &DEVICE).unwrap();
        let data = StageData::new(&representation, 0, shapes(2, 16), Augmentation::default(), 0.0, &DEVICE).unwrap();
        Trainer::new(network, cosine_v(), Arc::new(data), None, config).err().unwrap().to_string()
    };
    assert!(error(quick(None, 5).adamw(wavemesh::train::AdamWConfig::new().beta2(1.0))).contains("beta2"));
    assert!(error(quick(None, 5).seconds(0.0)).contains("seconds is 0"));
    assert!(error(quick(None, 5).seconds(f64::NAN)).contains("seconds is NaN"));
    assert!(Family::from_name("sofa").unwrap_err().to_string().contains("chair"));
}
