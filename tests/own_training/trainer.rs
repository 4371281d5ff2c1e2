//! The trainer, with any network.

use std::ops::ControlFlow;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use wavemesh::backbones::{SpUNet, SpUNetConfig};
use wavemesh::sparse::*;
use wavemesh::train::{FitConfig, LearningRate, LossScale, Trainer};
use wavemesh::{Error, Result};

use super::folder::Folder;
use super::{bits, variables_of};

/// Segments two crossing planes with a small SpUNet; gives the loss of micro-batch n.
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

    /// The loss on a scene that is not in the training set.
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
