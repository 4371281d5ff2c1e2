//! Trains a generator of shapes, stage by stage, from a terminal.
//!
//!     cargo run --release --example train -- --config FILE
//!
//! Without `--config` it uses the defaults that `--print-config` prints. When it runs again, it resumes from the last checkpoint in its
//! folder; it reads finished stages and does not train them. Stages do not depend on each other: `--together` trains all of them at the same
//! time, and makes the shapes once. `--stage K` trains one stage alone, so that several processes can train them: first run it
//! with `--prepare`, which fits the representation of the shapes, and finally run it without options, which assembles the stages. It
//! computes on the best device (`WAVEMESH_DEVICE` chooses another).
//! `start` in the configuration names a generator from which the networks start; a stage without steps and minutes is taken from it as it is.
//!
//! Ctrl-C, or the end of a job (SIGTERM), stops it after the current step and writes a checkpoint, so nothing is lost; a second Ctrl-C ends
//! it at once.
//!
//! If `mpirun`, `srun` or torchrun starts it (features `mpi` and `nccl`), all processes train one generator together: see docs/scale.md.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use wavemesh::device::allow_tf32;
use wavemesh::diffusion::{BetaSchedule, DiffusionConfig, GaussianDiffusion, Prediction};
use wavemesh::distributed::ProcessGroup;
use wavemesh::sdf::SdfGrid;
use wavemesh::train::{
    Augmentation, DatasetConfig, Family, Generator, Representation, RepresentationConfig, ShapeDataset, ShapeViews,
    Split, StageData, StageModel, StepRecord, TrainConfig, Trainer, TrainingData,
};
use wavemesh::unet::{Precision, UNetConfig, WaveMeshUNet};
use wavemesh::{Error, Result};

/// The full configuration of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// A generator from whose networks training starts. Its representation is used (but for the width of the shell), unless the shapes here
    /// have more levels: then each is fitted to its own shapes, and only the stages that the generator lacks start from nothing.
    start: Option<PathBuf>,
    /// A folder of meshes; without one, procedural shapes are used.
    meshes: Option<PathBuf>,
    /// Procedural families.
    families: Vec<Family>,
    /// Number of procedural shapes for training; a tenth as many are used for validation.
    shapes: usize,
    /// Seed of the procedural shapes.
    data_seed: u64,
    /// How meshes of a folder are encoded and cached; for procedural shapes only the resolution counts.
    dataset: DatasetConfig,
    augmentation: Augmentation,
    representation: RepresentationConfig,
    diffusion: DiffusionConfig,
    /// Channels of each stage's network.
    channels: Vec<Vec<usize>>,
    /// Strides between levels; without an entry they are 1, 2, 2, …
    strides: Vec<Vec<usize>>,
    /// Whether the timestep scales and shifts the output of every block, for each stage: see `UNetConfig`. The last entry also counts for
    /// later stages.
    modulation: Vec<bool>,
    /// The type in which networks keep features, during and after training.
    precision: Precision,
    /// Whether a GPU may round the factors of products to TF32.
    tf32: bool,
    /// Share of samples for which stage 0 is not told the family, so that it can also generate any family; 1 means that it is never told.
    /// Meshes of a folder have no family.
    label_dropout: f64,
    /// Number of depth images of each shape to which stage 0 attends; 0 for a generator that is not told by pictures.
    views: usize,
    /// Share of samples for which stage 0 gets no picture.
    view_dropout: f64,
    /// Widths of the layers that read a picture's patches, and the number of attention heads.
    view_layers: Vec<usize>,
    view_heads: usize,
    /// Standard deviation of the noise on conditions, in sites.
    condition_noise: f64,
    /// Largest noise on the features of earlier stages, in standard deviations of these features.
    coarse_noise: f64,
    /// The training of each stage; the last entry also counts for later stages.
    training: Vec<TrainConfig>,
    /// Stops each stage after this many minutes, whatever its steps; 0 means no limit. If a stage's `steps` are 0, it takes as many steps
    /// as fit, estimated from the time of its first ones.
    minutes: Vec<f64>,
    /// The folder for checkpoints, logs and the finished generator.
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
            start: None,
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
            modulation: vec![false],
            precision: Precision::F32,
            tf32: false,
            label_dropout: 0.2,
            views: 0,
            view_dropout: 0.5,
            view_layers: vec![128, 48],
            view_heads: 4,
            condition_noise: 0.05,
            coarse_noise: 0.1,
            training: vec![coarse, detail],
            minutes: vec![0.0],
            folder: "runs/shapes".into(),
        }
    }
}

fn main() -> ExitCode {
    wavemesh::let_candle_rest();
    wavemesh::keep_freed_memory();
    if let Err(error) = stop_on_ctrl_c() {
        eprintln!("Ctrl-C will end the program at once: {error}");
    }
    let group = match ProcessGroup::from_environment() {
        Ok(group) => group,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = run(&group);
    if let Err(error) = &done {
        group.fail(error);
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => {
            eprintln!("stopped; run the same command to go on from here");
            ExitCode::from(130)
        }
        Err(error) => {
            // Written in one piece, because other processes write to the same terminal.
            let line = format!("error{}: {error}\n", of_rank(&group));
            eprint!("{line}");
            ExitCode::FAILURE
        }
    }
}

/// Names the rank of the process, if there are several.
fn of_rank(group: &ProcessGroup) -> String {
    if group.is_alone() { String::new() } else { format!(" in rank {}", group.rank()) }
}

fn run(group: &Arc<ProcessGroup>) -> Result<()> {
    let (mut config, mut only, mut prepare, mut together) = (Config::default(), None, false, false);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut list = arguments.iter().map(String::as_str);
    while let Some(flag) = list.next() {
        if let Some(switch) = match flag {
            "--prepare" => Some(&mut prepare),
            "--together" => Some(&mut together),
            _ => None,
        } {
            *switch = true;
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
                    expected: "any of --config FILE, --prepare, --together and --stage NUMBER, or --print-config"
                        .into(),
                });
            }
        }
    }
    if config.views > 0 && config.augmentation != Augmentation::default() {
        let expected = "no augmentation: pictures show the shapes as they are";
        return Err(Error::argument("train", "augmentation", "some, with views", expected));
    }
    allow_tf32(config.tf32);
    let device = group.local_device()?;
    let start = config.start.as_ref().map(|path| Generator::load(path, &device)).transpose()?;
    let run = Run { device, start, data: OnceLock::new(), config, together, group: Arc::clone(group) };
    if together && !group.is_alone() {
        let expected = "one process: those of a group train one stage after the other";
        return Err(Error::argument("train", "--together", format!("{} processes", group.world_size()), expected));
    }
    if !group.is_alone() {
        let engine = group.engine().unwrap_or_default();
        run.say(format_args!("{} processes train together over {engine}", group.world_size()));
    }
    if prepare {
        return run.representation().map(|_| ());
    }
    if let Some(stage) = only {
        return run.stage(stage).map(|_| ());
    }
    let stages = run.stages()?;
    let (path, representation) = (run.config.folder.join("generator.safetensors"), run.representation()?);
    if group.is_first() {
        let stages = stages.into_iter().flatten().collect();
        Generator::new(representation, stages, run.config.classes())?.save(&path, DType::F16)?;
    }
    run.say(format_args!("wrote {}", path.display()));
    Ok(())
}

/// Shapes and, if there are classes, the class of each shape.
type Labelled = (Arc<[SdfGrid]>, Vec<usize>);

struct Data {
    train: Labelled,
    validation: Labelled,
}

impl Config {
    /// The classes that stage 0 knows.
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
            let (families, resolution) = (&config.families, config.dataset.resolution);
            let grids = ShapeDataset::procedural_grids(families, count, config.data_seed, split, resolution)?;
            let labels = (0..grids.len()).map(|i| i % families.len()).collect();
            Ok((grids.into(), labels))
        };
        let validation = of((config.shapes / 10).clamp(1, 100), Split::Validation)?;
        Ok(Self { train: of(config.shapes, Split::Train)?, validation })
    }
}

/// A configuration, its device, and the shapes once they are needed.
struct Run {
    config: Config,
    start: Option<Generator>,
    device: Device,
    data: OnceLock<Data>,
    /// Whether all stages train at the same time.
    together: bool,
    /// The processes that train together.
    group: Arc<ProcessGroup>,
}

/// How long the others wait for the process that makes the shapes.
const PREPARATION: Duration = Duration::from_secs(6 * 3600);

impl Run {
    /// Prints a line once for all processes.
    fn say(&self, words: std::fmt::Arguments) {
        if self.group.is_first() {
            println!("{words}");
        }
    }

    fn data(&self) -> Result<&Data> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let started = Instant::now();
        // One process of each machine makes the shapes; the others find them in its cache.
        let data = self.group.first_on_each_machine(PREPARATION, || Data::new(&self.config))?;
        let [train, validation] = [&data.train, &data.validation].map(|(shapes, _)| shapes.len());
        let seconds = started.elapsed().as_secs_f64();
        self.say(format_args!("{train} shapes to train on, {validation} to validate, in {seconds:.0} s"));
        Ok(self.data.get_or_init(|| data))
    }

    /// The representation of the shapes: fitted once, and kept in the folder for later runs.
    fn representation(&self) -> Result<Representation> {
        let path = self.config.folder.join("representation.json");
        let kept = std::fs::read(&path).ok();
        // The file of rank 0 counts; if it has none, all processes load the data together.
        if self.group.any(self.group.is_first() && kept.is_none())? {
            self.data()?;
        }
        let text = self.group.broadcast(|| {
            if let Some(text) = kept {
                return Ok(text);
            }
            let shapes = self.data()?.train.0.iter();
            let levels = self.config.representation.levels;
            let fitted = match &self.start {
                Some(start) if start.stages().len() == levels => {
                    let own = start.representation().clone().with_shell(self.config.representation.shell)?;
                    own.with_topology_of(shapes)
                }
                _ => Representation::fit(&self.config.representation, shapes)?,
            };
            let text = serde_json::to_vec(&fitted).map_err(candle_core::Error::wrap)?;
            std::fs::create_dir_all(&self.config.folder).map_err(Error::io(&self.config.folder))?;
            std::fs::write(&path, &text).map_err(Error::io(&path))?;
            Ok(text)
        })?;
        serde_json::from_slice(&text).map_err(|error| invalid(&path, &error))
    }

    /// The network from which a stage starts, if there is one.
    fn start_of(&self, stage: usize) -> Option<&WaveMeshUNet> {
        Some(&self.start.as_ref()?.stages().get(stage)?.network)
    }

    /// All stages' networks.
    fn stages(&self) -> Result<Vec<Option<StageModel>>> {
        let numbers = 0..self.config.representation.levels;
        if !self.together {
            return numbers.map(|stage| self.stage(stage)).collect();
        }
        // What all of them need is made once, before they start.
        self.representation()?;
        self.data()?;
        thread::scope(|scope| {
            let train = |stage| {
                // If one fails, the others stop and keep what they have.
                move || self.stage(stage).inspect_err(|_| wavemesh::task::interrupt())
            };
            let threads: Vec<_> = numbers.map(|stage| scope.spawn(train(stage))).collect();
            let ended: Vec<_> =
                threads.into_iter().map(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic))).collect();
            let is_own = |outcome: &Result<_>| matches!(outcome, Err(error) if !matches!(error, Error::Interrupted));
            match ended.iter().position(is_own) {
                Some(failed) => ended.into_iter().skip(failed).take(1).collect(),
                None => ended.into_iter().collect(),
            }
        })
    }

    /// A stage's network: read if the stage is done (by rank 0 alone), trained otherwise.
    fn stage(&self, stage: usize) -> Result<Option<StageModel>> {
        let path = self.config.folder.join(format!("stage-{stage}.safetensors"));
        let diffusion = GaussianDiffusion::new(&self.config.diffusion, &self.device)?;
        if self.group.any(self.group.is_first() && path.is_file())? {
            // Rank 0 assembles the generator.
            let network = if self.group.is_first() { Some(WaveMeshUNet::load(path, &self.device)?) } else { None };
            return Ok(network.map(|network| StageModel { network, diffusion }));
        }
        let untrained = |training: TrainConfig| training.steps == 0;
        let is_kept = of(&self.config.training, stage).is_none_or(untrained)
            && of(&self.config.minutes, stage).unwrap_or_default() == 0.0;
        if let (Some(kept), true) = (self.start_of(stage), is_kept) {
            let network = WaveMeshUNet::seeded(kept.config(), 0, &self.device)?;
            network.start_from(kept)?;
            return Ok(self.group.is_first().then_some(StageModel { network, diffusion }));
        }
        let network = self.train(stage, diffusion.clone())?;
        if self.group.is_first() {
            network.save(path, DType::F32)?;
        }
        Ok(Some(StageModel { network, diffusion }))
    }

    fn train(&self, stage: usize, diffusion: GaussianDiffusion) -> Result<WaveMeshUNet> {
        let (config, data) = (&self.config, self.data()?);
        let folder = config.folder.join(format!("stage-{stage}"));
        let mut training = of(&config.training, stage).unwrap_or_default().folder(folder.clone());
        let widths = of(&config.channels, stage).unwrap_or_default();
        let classes = config.classes().len();
        let [inputs, outputs] = Generator::channels_of(stage, classes);
        let modulation = of(&config.modulation, stage).unwrap_or_default();
        let mut unet = UNetConfig::plain(inputs, outputs, &widths).modulation(modulation).precision(config.precision);
        if let Some(strides) = config.strides.get(stage) {
            unet = unet.encoder_strides(strides.as_slice());
        }
        let is_shown = stage == 0 && config.views > 0;
        if is_shown {
            unet = unet.use_attention(true).attention_residual(true).dropout(0.0).num_heads(config.view_heads);
            unet = unet.context_dim(ShapeViews::WIDTH).context_layers(config.view_layers.as_slice());
        }
        let representation = self.representation()?;
        let source =
            |set: &Labelled, augmentation, noises: [f64; 2], dropout: [f64; 2]| -> Result<Arc<dyn TrainingData>> {
                let (shapes, labels) = set;
                let shapes = Arc::clone(shapes);
                let data = StageData::new(&representation, stage, shapes, augmentation, noises[0], &self.device)?;
                let mut data = data.with_coarse_noise(noises[1]);
                if stage == 0 && classes > 0 {
                    data = data.with_labels(labels.clone(), classes, dropout[0])?;
                }
                if is_shown {
                    let views = ShapeViews::new(Arc::clone(&set.0), config.views);
                    views.prepare()?;
                    data = data.with_contexts(Arc::new(views), dropout[1])?;
                }
                Ok(Arc::new(data))
            };
        let noises = [config.condition_noise, config.coarse_noise];
        let train = source(&data.train, config.augmentation, noises, [config.label_dropout, config.view_dropout])?;
        let validation = match data.validation.0.is_empty() {
            true => None,
            false => Some(source(&data.validation, Augmentation::default(), [0.0; 2], [0.0, config.view_dropout])?),
        };
        let minutes = of(&config.minutes, stage).unwrap_or_default();
        let network = || -> Result<WaveMeshUNet> {
            let network = WaveMeshUNet::seeded(&unet, training.seed, &self.device)?;
            if let Some(start) = self.start_of(stage) {
                network.start_from(start)?;
            }
            Ok(network)
        };
        if training.steps == 0 {
            if stage == 0 && config.augmentation == Augmentation::default() {
                // Shapes are encoded at their first use. Encode them now, so that this time does not count as that of a step.
                let all: Vec<usize> = (0..train.len()).collect();
                all.chunks(256).try_for_each(|items| train.batch(items, &vec![0; items.len()]).map(|_| ()))?;
            }
            let probe = |steps| {
                let mut training = training.clone().steps(steps).validate_every(0);
                training.folder = None;
                Trainer::new(network()?, diffusion.clone(), Arc::clone(&train), None, training)
            };
            training.steps = self.steps_in(stage, minutes, probe)?;
        }
        let network = network()?;
        self.say(format_args!("stage {stage}: {} parameters, channels {widths:?}", network.num_parameters()));
        let mut trainer = Trainer::new(network, diffusion, train, validation, training)?.in_group(&self.group)?;
        if trainer.resume_latest()? {
            self.say(format_args!("resumed from {} at step {}", folder.display(), trainer.step_count()));
        }
        let (started, before) = (Instant::now(), self.group.traffic());
        self.follow(&mut trainer, stage, minutes)?;
        self.report(stage, trainer.history());
        if !self.group.is_alone() {
            let (seconds, after) = (started.elapsed().as_secs_f64(), self.group.traffic());
            self.say(format_args!(
                "stage {stage}: {:.3} s of {seconds:.3} s in {} operations of the group, {:.1} MB",
                after.seconds - before.seconds,
                after.operations - before.operations,
                (after.bytes - before.bytes) as f64 / 1e6
            ));
        }
        Ok(trainer.into_ema())
    }

    /// How many steps fit into `minutes`: measured once, and kept in the folder, so that a resumed training keeps the same schedule.
    fn steps_in(&self, stage: usize, minutes: f64, probe: impl FnOnce(usize) -> Result<Trainer>) -> Result<usize> {
        /// The number of steps until the first preparations are over, and the number of steps in all.
        const PROBE: [usize; 2] = [20, 60];
        let path = self.config.folder.join(format!("stage-{stage}.steps"));
        let kept: Option<usize> = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        let agreed = |steps: Option<usize>| -> Result<usize> {
            let mut first = [steps.filter(|_| self.group.is_first()).unwrap_or(0) as f64];
            self.group.sum(&mut first)?;
            Ok(first[0] as usize)
        };
        match agreed(kept)? {
            0 => {}
            steps => return Ok(steps),
        }
        let mut trainer = probe(PROBE[1])?.in_group(&self.group)?;
        trainer.run(|_, _| Ok(()))?;
        let seconds: f64 = trainer.history()[PROBE[0]..].iter().map(|record| record.seconds).sum();
        let all: f64 = trainer.history().iter().map(|record| record.seconds).sum();
        // A tenth is left for checkpoints, validation and slower periods.
        let steps = 0.9 * (60.0 * minutes - all) / (seconds / (PROBE[1] - PROBE[0]) as f64);
        let steps = agreed(Some((steps as usize).max(1)))?;
        self.say(format_args!("stage {stage}: {steps} steps in {minutes:.1} minutes"));
        if self.group.is_first() {
            std::fs::create_dir_all(&self.config.folder).map_err(Error::io(&self.config.folder))?;
            std::fs::write(&path, steps.to_string()).map_err(Error::io(&path))?;
        }
        Ok(steps)
    }

    /// Trains until the steps are taken or the minutes are over, and prints the progress.
    fn follow(&self, trainer: &mut Trainer, stage: usize, minutes: f64) -> Result<()> {
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
                    self.say(format_args!(
                        "stage {stage} step {:>6}  loss {:.4}{validation}  lr {:.2e}  {:.3} s/step  {:.0} s left",
                        record.step, record.loss, record.learning_rate, step, left
                    ));
                }
                if out_of_time() { Err(Error::Interrupted) } else { Ok(()) }
            });
            match result {
                // All processes have stopped together, no matter whose time was over.
                Err(Error::Interrupted) if self.group.any(out_of_time())? => {
                    self.say(format_args!(
                        "stage {stage}: {minutes} minutes are over at step {}",
                        trainer.step_count()
                    ));
                    break;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Prints the time of the stage: total, and computing alone.
    fn report(&self, stage: usize, history: &[StepRecord]) {
        let clock: f64 = history.iter().map(|record| record.seconds).sum();
        let computed: Option<f64> = history.iter().map(|record| record.processor_seconds).sum();
        // The processor's time is that of the whole process.
        let computed = computed.filter(|_| !self.together);
        let computed = computed.map(|s| format!(", {:.1} min of processor time", s / 60.0)).unwrap_or_default();
        let mut steps: Vec<f64> = history.iter().map(|record| record.seconds).collect();
        steps.sort_by(f64::total_cmp);
        let quick = steps.get(steps.len() / 10).copied().unwrap_or_default();
        self.say(format_args!(
            "stage {stage}: {} steps in {:.1} min on the clock{computed}; the quickest tenth under {quick:.3} s a step",
            history.len(),
            clock / 60.0
        ));
        #[cfg(feature = "cuda")]
        if let Ok(gpu) = wavemesh::device::gpu_info(&self.device) {
            self.say(format_args!("stage {stage}: {:.2} GB of GPU memory held", gpu.held as f64 / 1e9));
        }
    }
}

/// The entry of a stage; the last one also counts for later stages.
fn of<T: Clone>(list: &[T], stage: usize) -> Option<T> {
    list.get(stage).or(list.last()).cloned()
}

fn read_config(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| invalid(path, &error))
}

fn invalid(path: &Path, error: &serde_json::Error) -> Error {
    Error::Format { path: path.to_path_buf(), format: "training configuration", problem: error.to_string() }
}

/// Makes Ctrl-C stop the work between two steps, and a second Ctrl-C stop it at once.
fn stop_on_ctrl_c() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
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
