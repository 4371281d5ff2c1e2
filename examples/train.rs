//! Trains a generator of shapes, stage by stage, from a terminal.
//!
//!     cargo run --release --example train -- --config FILE
//!
//! Without `--config` it uses the defaults printed by `--print-config`. Run again, it resumes from the last checkpoint in
//! its folder. Ctrl-C stops after the step and writes a checkpoint, so that nothing is lost; a second one ends at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
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
    /// Share of samples from which stage 0 is not told the family, so that it can also be asked for any; 1 for never
    /// telling. Meshes of a folder have no family.
    label_dropout: f64,
    /// Deviation of the noise on conditions, in sites.
    condition_noise: f64,
    /// How each stage is trained; the last entry serves the stages after it.
    training: Vec<TrainConfig>,
    /// Stops each stage after this many minutes, whatever its steps; 0 for never.
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
            families: Family::ALL.to_vec(),
            shapes: 800,
            data_seed: 1,
            dataset: DatasetConfig::new().cache("runs/cache"),
            augmentation: Augmentation::default(),
            representation: RepresentationConfig::default(),
            diffusion: DiffusionConfig::new().schedule(BetaSchedule::Cosine).prediction(Prediction::V),
            channels: vec![vec![32, 48, 80], vec![16, 24]],
            label_dropout: 0.2,
            condition_noise: 0.05,
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
    let config = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => Config::default(),
        [flag] if flag == "--print-config" => {
            println!("{}", serde_json::to_string_pretty(&Config::default()).map_err(candle_core::Error::wrap)?);
            return Ok(());
        }
        [flag, path] if flag == "--config" => read_config(Path::new(path))?,
        other => {
            return Err(Error::Argument {
                op: "train",
                name: "the arguments",
                got: other.join(" "),
                expected: "nothing, --config FILE, or --print-config".into(),
            });
        }
    };
    let device = Device::Cpu;
    let data = Data::new(&config)?;
    println!("{} shapes to train on, {} to validate", data.train.0.len(), data.validation.0.len());
    let representation = Representation::fit(&config.representation, &data.train.0)?;
    let mut stages = Vec::new();
    for stage in 0..representation.stages() {
        stages.push(train_stage(&config, &representation, stage, &data, &device)?);
    }
    let generator = Generator::new(representation, stages, data.classes)?;
    let path = config.folder.join("generator.safetensors");
    generator.save(&path, DType::F16)?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Shapes and, if there are classes, the class of each.
type Labelled = (Vec<SdfGrid>, Vec<usize>);

struct Data {
    train: Labelled,
    validation: Labelled,
    classes: Vec<String>,
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
            return Ok(Self { train: (grids, Vec::new()), validation: (rest, Vec::new()), classes: Vec::new() });
        }
        let of = |count, split| -> Result<Labelled> {
            let set = ShapeDataset::procedural(&config.families, count, config.data_seed, split, &config.dataset)?;
            Ok((set.grids()?, set.labels(&config.families).unwrap_or_default()))
        };
        let told = config.label_dropout < 1.0;
        Ok(Self {
            train: of(config.shapes, Split::Train)?,
            validation: of((config.shapes / 10).max(1), Split::Validation)?,
            classes: config.families.iter().filter(|_| told).map(|family| family.name().to_string()).collect(),
        })
    }
}

fn train_stage(
    config: &Config,
    representation: &Representation,
    stage: usize,
    data: &Data,
    device: &Device,
) -> Result<StageModel> {
    let of = |list: &[TrainConfig]| list.get(stage).or(list.last()).cloned().unwrap_or_default();
    let folder = config.folder.join(format!("stage-{stage}"));
    let training = of(&config.training).folder(folder.clone());
    let widths = config.channels.get(stage).or(config.channels.last()).cloned().unwrap_or_default();
    let classes = data.classes.len();
    let [inputs, outputs] = Generator::channels_of(stage, classes);
    let unet = UNetConfig::plain(inputs, outputs, &widths);
    let source = |(shapes, labels): &Labelled, augmentation, noise, dropout| -> Result<Arc<dyn TrainingData>> {
        let data = StageData::new(representation, stage, shapes.clone(), augmentation, noise, device)?;
        let told = stage == 0 && classes > 0;
        Ok(Arc::new(if told { data.with_labels(labels.clone(), classes, dropout)? } else { data }))
    };
    let train = source(&data.train, config.augmentation, config.condition_noise, config.label_dropout)?;
    let validation = match data.validation.0.is_empty() {
        true => None,
        false => Some(source(&data.validation, Augmentation::default(), 0.0, 0.0)?),
    };
    let network = WaveMeshUNet::seeded(&unet, training.seed, device)?;
    println!("stage {stage}: {} parameters, channels {widths:?}", network.num_parameters());
    let diffusion = GaussianDiffusion::new(&config.diffusion, device)?;
    let mut trainer = Trainer::new(network, diffusion.clone(), train, validation, training)?;
    if folder.is_dir()
        && let Some(last) = checkpoints(&folder)?.last()
    {
        trainer.resume(last)?;
        println!("resumed from {} at step {}", last.display(), trainer.step_count());
    }
    let minutes = config.minutes.get(stage).or(config.minutes.last()).copied().unwrap_or_default();
    let before: f64 = trainer.history().iter().map(|record| record.seconds).sum();
    let started = Instant::now();
    let mut shown = Instant::now();
    let out_of_time = || minutes > 0.0 && before + started.elapsed().as_secs_f64() > 60.0 * minutes;
    let mut stopped = false;
    while !stopped && trainer.step_count() < trainer.config().steps {
        let result = trainer.run(|trainer, record| {
            if record.validation.is_some() || shown.elapsed() > Duration::from_secs(10) {
                shown = Instant::now();
                let recent = &trainer.history()[trainer.history().len().saturating_sub(50)..];
                let step = recent.iter().map(|record| record.seconds).sum::<f64>() / recent.len() as f64;
                let left = (trainer.config().steps - record.step) as f64 * step;
                let validation = record.validation.map(|v| format!("  validation {v:.4}")).unwrap_or_default();
                println!(
                    "step {:>6}  loss {:.4}{validation}  lr {:.2e}  {:.2} s/step  {:.0} s left",
                    record.step, record.loss, record.learning_rate, step, left
                );
            }
            if out_of_time() { Err(Error::Interrupted) } else { Ok(()) }
        });
        match result {
            Err(Error::Interrupted) if out_of_time() => {
                println!("stage {stage}: {minutes} minutes are over at step {}", trainer.step_count());
                stopped = true;
            }
            other => other?,
        }
    }
    report(stage, trainer.history());
    Ok(StageModel { network: trainer.into_ema(), diffusion })
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
    serde_json::from_str(&text).map_err(|error| Error::Format {
        path: path.to_path_buf(),
        format: "training configuration",
        problem: error.to_string(),
    })
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
