//! Trains a generator of shapes, stage by stage, from a terminal.
//!
//!     cargo run --release --example train -- --config FILE
//!
//! Without `--config` it uses the defaults printed by `--print-config`. Run again, it resumes from the last checkpoint in
//! its folder; stages that are done are read, not trained. `--stage K` trains one stage alone: stages do not depend on each other, so
//! several processes can train them at a time, after a run with `--prepare`, which makes the shapes, and before a last one without either,
//! which puts the stages together. It computes on the best device
//! there is (`WAVEMESH_DEVICE` chooses another). Ctrl-C stops after the step and writes a checkpoint, so that nothing is lost; a second one ends at once.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use wavemesh::device::best_device;
use wavemesh::diffusion::{BetaSchedule, DiffusionConfig, GaussianDiffusion, Prediction};
use wavemesh::sdf::SdfGrid;
use wavemesh::train::{
    Augmentation, DatasetConfig, Family, Generator, Representation, RepresentationConfig, ShapeDataset, Split,
    StageData, StageModel, StepRecord, TrainConfig, Trainer, TrainingData, checkpoints,
};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};
use wavemesh::{Error, Result};

/// Everything that a run depends on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// A folder of meshes; without one, procedural shapes.
    meshes: Option<PathBuf>,
    /// Procedural families.
    families: Vec<Family>,
    /// Procedural shapes to train on; a tenth as many validate.
    shapes: usize,
    /// Seed of the procedural shapes.
    data_seed: u64,
    dataset: DatasetConfig,
    augmentation: Augmentation,
    representation: RepresentationConfig,
    diffusion: DiffusionConfig,
    /// Channels of each stage's network.
    channels: Vec<Vec<usize>>,
    /// Strides between them; where none are given, 1, 2, 2, …
    strides: Vec<Vec<usize>>,
    /// Share of samples from which stage 0 is not told the family, so that it can also be asked for any; 1 for never
    /// telling. Meshes of a folder have no family.
    label_dropout: f64,
    /// Deviation of the noise on conditions, in sites.
    condition_noise: f64,
    /// Largest deviation of the noise on the features of the stages before, in theirs.
    coarse_noise: f64,
    /// How each stage is trained; the last entry serves the stages after it.
    training: Vec<TrainConfig>,
    /// Stops each stage after this many minutes, whatever its steps; 0 for never. With a stage's `steps` at 0 it takes as many as fit,
    /// by the time of its first ones.
    minutes: Vec<f64>,
    /// Where checkpoints, logs and the finished generator go.
    folder: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        let coarse = TrainConfig::new()
            .steps(2800)
            .batch_size(16)
            .learning_rate(2e-3)
            .warmup(100)
            .final_learning_rate(0.02)
            .ema_decay(0.998)
            .validate_every(250)
            .checkpoint_every(250);
        let detail = coarse.clone().steps(500).batch_size(8).ema_decay(0.99);
        Self {
            meshes: None,
            families: Family::PLAIN.to_vec(),
            shapes: 800,
            data_seed: 1,
            dataset: DatasetConfig::new().cache("runs/cache"),
            augmentation: Augmentation::default(),
            representation: RepresentationConfig::default(),
            diffusion: DiffusionConfig::new().schedule(BetaSchedule::Cosine).prediction(Prediction::V),
            channels: vec![vec![32, 48, 80], vec![16, 24]],
            strides: Vec::new(),
            label_dropout: 0.2,
            condition_noise: 0.05,
            coarse_noise: 0.1,
            training: vec![coarse, detail],
            minutes: vec![0.0],
            folder: "runs/shapes".into(),
        }
    }
}

fn main() -> ExitCode {
    wavemesh::keep_freed_memory();
    if let Err(error) = stop_on_ctrl_c() {
        eprintln!("Ctrl-C will end the program at once: {error}");
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => {
            eprintln!("stopped; run the same command to go on from here");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut config, mut only, mut prepare) = (Config::default(), None, false);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut list = arguments.iter().map(String::as_str);
    while let Some(flag) = list.next() {
        if flag == "--prepare" {
            prepare = true;
            continue;
        }
        match (flag, list.next()) {
            ("--print-config", None) => {
                println!("{}", serde_json::to_string_pretty(&Config::default()).map_err(candle_core::Error::wrap)?);
                return Ok(());
            }
            ("--config", Some(path)) => config = read_config(Path::new(path))?,
            ("--stage", Some(stage)) if stage.parse::<usize>().is_ok() => only = stage.parse().ok(),
            _ => {
                return Err(Error::Argument {
                    op: "train",
                    name: "the arguments",
                    got: arguments.join(" "),
                    expected: "any of --config FILE, --prepare and --stage NUMBER, or --print-config".into(),
                });
            }
        }
    }
    let run = Run { device: best_device()?, data: OnceCell::new(), config };
    if prepare {
        return run.representation().map(|_| ());
    }
    if let Some(stage) = only {
        return run.stage(stage).map(|_| ());
    }
    let stages = (0..run.config.representation.levels).map(|stage| run.stage(stage)).collect::<Result<_>>()?;
    let generator = Generator::new(run.representation()?, stages, run.config.classes())?;
    let path = run.config.folder.join("generator.safetensors");
    generator.save(&path, DType::F16)?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Shapes and, if there are classes, the class of each.
type Labelled = (Arc<[SdfGrid]>, Vec<usize>);

struct Data {
    train: Labelled,
    validation: Labelled,
}

impl Config {
    /// The classes that stage 0 is told of.
    fn classes(&self) -> Vec<String> {
        let told = self.meshes.is_none() && self.label_dropout < 1.0;
        self.families.iter().filter(|_| told).map(|family| family.name().to_string()).collect()
    }
}

impl Data {
    fn new(config: &Config) -> Result<Self> {
        if let Some(folder) = &config.meshes {
            let all = ShapeDataset::from_folder(folder, &config.dataset)?;
            for (path, reason) in all.skipped() {
                eprintln!("skipped {}: {reason}", path.display());
            }
            let mut grids = all.grids()?;
            let rest = grids.split_off(grids.len() - grids.len() / 10);
            return Ok(Self { train: (grids.into(), Vec::new()), validation: (rest.into(), Vec::new()) });
        }
        let of = |count, split| -> Result<Labelled> {
            let set = ShapeDataset::procedural(&config.families, count, config.data_seed, split, &config.dataset)?;
            Ok((set.grids()?.into(), set.labels(&config.families).unwrap_or_default()))
        };
        let validation = of((config.shapes / 10).clamp(1, 100), Split::Validation)?;
        Ok(Self { train: of(config.shapes, Split::Train)?, validation })
    }
}

/// A configuration, where it computes, and the shapes once they are needed.
struct Run {
    config: Config,
    device: Device,
    data: OnceCell<Data>,
}

impl Run {
    fn data(&self) -> Result<&Data> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let started = Instant::now();
        let data = Data::new(&self.config)?;
        let [train, validation] = [&data.train, &data.validation].map(|(shapes, _)| shapes.len());
        println!("{train} shapes to train on, {validation} to validate, in {:.0} s", started.elapsed().as_secs_f64());
        Ok(self.data.get_or_init(|| data))
    }

    /// How shapes are written: fitted once, and kept in the folder for the runs after.
    fn representation(&self) -> Result<Representation> {
        let path = self.config.folder.join("representation.json");
        if let Ok(text) = std::fs::read_to_string(&path) {
            return serde_json::from_str(&text).map_err(|error| invalid(&path, &error));
        }
        let fitted = Representation::fit(&self.config.representation, self.data()?.train.0.iter())?;
        std::fs::create_dir_all(&self.config.folder).map_err(Error::io(&self.config.folder))?;
        let text = serde_json::to_string(&fitted).map_err(candle_core::Error::wrap)?;
        std::fs::write(&path, text).map_err(Error::io(&path))?;
        Ok(fitted)
    }

    /// A stage's network: read if it is done, else trained.
    fn stage(&self, stage: usize) -> Result<StageModel> {
        let path = self.config.folder.join(format!("stage-{stage}.safetensors"));
        let diffusion = GaussianDiffusion::new(&self.config.diffusion, &self.device)?;
        if path.is_file() {
            return Ok(StageModel { network: WaveMeshUNet::load(path, &self.device)?, diffusion });
        }
        let network = self.train(stage, diffusion.clone())?;
        network.save(path, DType::F32)?;
        Ok(StageModel { network, diffusion })
    }

    fn train(&self, stage: usize, diffusion: GaussianDiffusion) -> Result<WaveMeshUNet> {
        let (config, data) = (&self.config, self.data()?);
        let folder = config.folder.join(format!("stage-{stage}"));
        let mut training = of(&config.training, stage).unwrap_or_default().folder(folder.clone());
        let widths = of(&config.channels, stage).unwrap_or_default();
        let classes = config.classes().len();
        let [inputs, outputs] = Generator::channels_of(stage, classes);
        let mut unet = UNetConfig::plain(inputs, outputs, &widths);
        if let Some(strides) = config.strides.get(stage) {
            unet = unet.encoder_strides(strides.as_slice());
        }
        let representation = self.representation()?;
        let source =
            |(shapes, labels): &Labelled, augmentation, noises: [f64; 2], dropout| -> Result<Arc<dyn TrainingData>> {
                let shapes = Arc::clone(shapes);
                let data = StageData::new(&representation, stage, shapes, augmentation, noises[0], &self.device)?;
                let data = data.with_coarse_noise(noises[1]);
                let told = stage == 0 && classes > 0;
                Ok(Arc::new(if told { data.with_labels(labels.clone(), classes, dropout)? } else { data }))
            };
        let noises = [config.condition_noise, config.coarse_noise];
        let train = source(&data.train, config.augmentation, noises, config.label_dropout)?;
        let validation = match data.validation.0.is_empty() {
            true => None,
            false => Some(source(&data.validation, Augmentation::default(), [0.0; 2], 0.0)?),
        };
        let minutes = of(&config.minutes, stage).unwrap_or_default();
        let network = || WaveMeshUNet::seeded(&unet, training.seed, &self.device);
        if training.steps == 0 {
            let probe = |steps| {
                let mut training = training.clone().steps(steps).validate_every(0);
                training.folder = None;
                Trainer::new(network()?, diffusion.clone(), Arc::clone(&train), None, training)
            };
            training.steps = self.steps_in(stage, minutes, probe)?;
        }
        let network = network()?;
        println!("stage {stage}: {} parameters, channels {widths:?}", network.num_parameters());
        let mut trainer = Trainer::new(network, diffusion, train, validation, training)?;
        if folder.is_dir()
            && let Some(last) = checkpoints(&folder)?.last()
        {
            trainer.resume(last)?;
            println!("resumed from {} at step {}", last.display(), trainer.step_count());
        }
        follow(&mut trainer, stage, minutes)?;
        report(stage, trainer.history());
        Ok(trainer.into_ema())
    }

    /// How many steps fit into `minutes`: measured once, and kept in the folder, so that a training that goes on keeps its course.
    fn steps_in(&self, stage: usize, minutes: f64, probe: impl FnOnce(usize) -> Result<Trainer>) -> Result<usize> {
        /// Steps until the first ones' preparations are over, and in all.
        const PROBE: [usize; 2] = [20, 60];
        let path = self.config.folder.join(format!("stage-{stage}.steps"));
        if let Some(steps) = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
            return Ok(steps);
        }
        let mut trainer = probe(PROBE[1])?;
        trainer.run(|_, _| Ok(()))?;
        let seconds: f64 = trainer.history()[PROBE[0]..].iter().map(|record| record.seconds).sum();
        let all: f64 = trainer.history().iter().map(|record| record.seconds).sum();
        // A tenth is for checkpoints, validation and slower stretches.
        let steps = 0.9 * (60.0 * minutes - all) / (seconds / (PROBE[1] - PROBE[0]) as f64);
        let steps = (steps as usize).max(1);
        println!("stage {stage}: {steps} steps in {minutes:.1} minutes");
        std::fs::create_dir_all(&self.config.folder).map_err(Error::io(&self.config.folder))?;
        std::fs::write(&path, steps.to_string()).map_err(Error::io(&path))?;
        Ok(steps)
    }
}

/// The entry of a stage; the last one serves the stages after it.
fn of<T: Clone>(list: &[T], stage: usize) -> Option<T> {
    list.get(stage).or(list.last()).cloned()
}

/// Trains until the steps are taken or the minutes are over, and says how far it is.
fn follow(trainer: &mut Trainer, stage: usize, minutes: f64) -> Result<()> {
    let before: f64 = trainer.history().iter().map(|record| record.seconds).sum();
    let started = Instant::now();
    let mut shown = Instant::now();
    let out_of_time = || minutes > 0.0 && before + started.elapsed().as_secs_f64() > 60.0 * minutes;
    while trainer.step_count() < trainer.config().steps {
        let result = trainer.run(|trainer, record| {
            if record.validation.is_some() || shown.elapsed() > Duration::from_secs(10) {
                shown = Instant::now();
                let recent = &trainer.history()[trainer.history().len().saturating_sub(50)..];
                let step = recent.iter().map(|record| record.seconds).sum::<f64>() / recent.len() as f64;
                let left = (trainer.config().steps - record.step) as f64 * step;
                let validation = record.validation.map(|v| format!("  validation {v:.4}")).unwrap_or_default();
                println!(
                    "stage {stage} step {:>6}  loss {:.4}{validation}  lr {:.2e}  {:.3} s/step  {:.0} s left",
                    record.step, record.loss, record.learning_rate, step, left
                );
            }
            if out_of_time() { Err(Error::Interrupted) } else { Ok(()) }
        });
        match result {
            Err(Error::Interrupted) if out_of_time() => {
                println!("stage {stage}: {minutes} minutes are over at step {}", trainer.step_count());
                break;
            }
            other => other?,
        }
    }
    Ok(())
}

/// What the stage took: on the clock, and of computing alone.
fn report(stage: usize, history: &[StepRecord]) {
    let clock: f64 = history.iter().map(|record| record.seconds).sum();
    let computed: Option<f64> = history.iter().map(|record| record.processor_seconds).sum();
    let computed = computed.map(|s| format!(", {:.1} min of processor time", s / 60.0)).unwrap_or_default();
    let mut steps: Vec<f64> = history.iter().map(|record| record.seconds).collect();
    steps.sort_by(f64::total_cmp);
    let quick = steps.get(steps.len() / 10).copied().unwrap_or_default();
    println!(
        "stage {stage}: {} steps in {:.1} min on the clock{computed}; the quickest tenth under {quick:.3} s a step",
        history.len(),
        clock / 60.0
    );
}

fn read_config(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| invalid(path, &error))
}

fn invalid(path: &Path, error: &serde_json::Error) -> Error {
    Error::Format { path: path.to_path_buf(), format: "training configuration", problem: error.to_string() }
}

/// Lets Ctrl-C stop the work between two steps, and a second one at once.
fn stop_on_ctrl_c() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT])?;
    std::thread::spawn(move || {
        for (earlier, _) in signals.forever().enumerate() {
            if earlier > 0 {
                std::process::exit(130);
            }
            eprintln!("stopping after this step; Ctrl-C again ends at once");
            wavemesh::task::interrupt();
        }
    });
    Ok(())
}
