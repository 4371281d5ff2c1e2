//! Training by several processes, replaced here by threads with their own engine: the weights are those of one process, and a process that
//! fails, hangs or differs is named to all. tests/mpi.rs does the same with MPI and real processes.

mod folder;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, VarBuilder, VarMap};
use wavemesh::diffusion::{BetaSchedule, DiffusionConfig, GaussianDiffusion, Prediction};
use wavemesh::distributed::{Engine, Place, ProcessGroup, Waiting};
use wavemesh::sdf::SdfGrid;
use wavemesh::train::{
    AdamWConfig, Augmentation, Family, FitConfig, LearningRate, ProceduralShape, Representation, RepresentationConfig,
    StageData, TrainConfig, Trainer, TrainingData, checkpoints,
};
use wavemesh::unet::{UNetConfig, WaveMeshUNet};
use wavemesh::{Error, Result};

use folder::Folder;

/// Where threads combine their numbers.
#[derive(Default)]
struct Table {
    state: Mutex<Round>,
    changed: Condvar,
}

#[derive(Default)]
struct Round {
    number: usize,
    arrived: usize,
    sums: Vec<f64>,
    result: Vec<f64>,
}

struct Threads {
    table: Arc<Table>,
    rank: usize,
    count: usize,
}

impl Threads {
    fn meet(&self, values: &[f64], waiting: Waiting) -> Result<Vec<f64>> {
        let mut round = self.table.state.lock().unwrap();
        round.sums.resize(values.len(), 0.0);
        round.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        round.arrived += 1;
        if round.arrived == self.count {
            round.result = std::mem::take(&mut round.sums);
            (round.arrived, round.number) = (0, round.number + 1);
            self.table.changed.notify_all();
            return Ok(round.result.clone());
        }
        let number = round.number;
        while round.number == number {
            round = self.table.changed.wait_timeout(round, Duration::from_millis(5)).unwrap().0;
            waiting()?;
        }
        Ok(round.result.clone())
    }
}

impl Engine for Threads {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn sum(&self, values: &mut [f64], waiting: Waiting) -> Result<()> {
        values.copy_from_slice(&self.meet(values, waiting)?);
        Ok(())
    }

    fn sum_f32(&self, values: &mut [f32], waiting: Waiting) -> Result<()> {
        let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        let sums = self.meet(&wide, waiting)?;
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum as f32);
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8], waiting: Waiting) -> Result<()> {
        let own = |&byte: &u8| if self.rank == 0 { f64::from(byte) } else { 0.0 };
        let first = self.meet(&bytes.iter().map(own).collect::<Vec<_>>(), waiting)?;
        bytes.iter_mut().zip(first).for_each(|(byte, value)| *byte = value as u8);
        Ok(())
    }
}

/// A port where nobody listens.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Runs `body` in a group of `count` threads; returns their results by rank.
fn in_group_for<T: Send>(
    count: usize,
    timeout: Duration,
    body: impl Fn(&Arc<ProcessGroup>) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let (table, port) = (Arc::new(Table::default()), free_port());
    std::thread::scope(|scope| {
        let member = |rank| {
            let (table, body) = (table.clone(), &body);
            scope.spawn(move || {
                let place = Place { rank, local_rank: rank, world_size: count };
                let engine = Box::new(Threads { table, rank, count });
                let group = ProcessGroup::with_engine(place, engine, ("127.0.0.1", port), Some(timeout))?;
                body(&group)
            })
        };
        let members: Vec<_> = (0..count).map(member).collect();
        members.into_iter().map(|member| member.join().unwrap()).collect()
    })
}

/// Like [`in_group_for`], for members that all succeed.
fn in_group<T: Send>(count: usize, body: impl Fn(&Arc<ProcessGroup>) -> Result<T> + Sync) -> Vec<T> {
    let done = in_group_for(count, Duration::from_secs(120), body);
    done.into_iter().map(|result| result.unwrap_or_else(|error| panic!("{error}"))).collect()
}

fn shapes(count: usize) -> Vec<SdfGrid> {
    (0..count as u64).map(|i| ProceduralShape::new(Family::PLAIN[i as usize % 5], i).sdf(16).unwrap()).collect()
}

fn config(batch_size: usize) -> TrainConfig {
    // With a large eps, a gradient that is only rounding causes no step.
    let adamw = AdamWConfig::new().eps(1e-3);
    let config = TrainConfig::new().steps(6).batch_size(batch_size).accumulation(2).learning_rate(5e-2).warmup(1);
    config.adamw(adamw).ema_decay(0.5).validate_every(3).checkpoint_every(3)
}

fn trainer(config: TrainConfig, grids: &[SdfGrid]) -> Trainer {
    let representation = Representation::fit(&RepresentationConfig::new().resolution(16), grids).unwrap();
    let augmentation = Augmentation { rotations: true, flips: true };
    let data = |grids: &[SdfGrid], augmentation| -> Arc<dyn TrainingData> {
        let data = StageData::new(&representation, 1, grids.to_vec(), augmentation, 0.05, &Device::Cpu).unwrap();
        Arc::new(data.with_coarse_noise(0.1))
    };
    let [inputs, outputs] = wavemesh::train::Generator::channels_of(1, 0);
    let network = WaveMeshUNet::seeded(&UNetConfig::plain(inputs, outputs, &[4, 6]), 7, &Device::Cpu).unwrap();
    let diffusion = DiffusionConfig::new().schedule(BetaSchedule::Cosine).prediction(Prediction::V);
    let diffusion = GaussianDiffusion::new(&diffusion, &Device::Cpu).unwrap();
    let validation = data(&grids[..3], Augmentation::default());
    Trainer::new(network, diffusion, data(grids, augmentation), Some(validation), config).unwrap()
}

type Weights = Vec<(String, Vec<f32>)>;

fn weights(network: &WaveMeshUNet) -> Weights {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
    network.state().iter().map(|(name, var)| (name.clone(), values(var))).collect()
}

/// The result of a training: loss and gradient of every step, validations, the network and its average.
#[derive(Debug, PartialEq)]
struct Outcome {
    losses: Vec<f64>,
    norms: Vec<f64>,
    validations: Vec<f64>,
    network: Weights,
    average: Weights,
}

fn outcome(trainer: &Trainer) -> Outcome {
    let history = trainer.history();
    Outcome {
        losses: history.iter().map(|record| record.loss).collect(),
        norms: history.iter().map(|record| record.grad_norm).collect(),
        validations: history.iter().filter_map(|record| record.validation).collect(),
        network: weights(trainer.network()),
        average: weights(trainer.ema()),
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, value| most.max(value.abs()))
}

/// Checks that two results are equal except for rounding: their difference is a small part of the change by training.
fn assert_same(found: &Outcome, expected: &Outcome, start: &Weights, what: &str) {
    for (found, expected) in [
        (&found.losses, &expected.losses),
        (&found.norms, &expected.norms),
        (&found.validations, &expected.validations),
    ] {
        assert_eq!(found.len(), expected.len(), "{what}");
        let apart = largest(found.iter().zip(expected).map(|(a, b)| (a - b) / b));
        assert!(apart < 1e-4, "{what}: {found:?}, expected {expected:?}");
    }
    for (found, expected) in [(&found.network, &expected.network), (&found.average, &expected.average)] {
        let distance = |a: &Weights, b: &Weights| {
            let pairs = a.iter().zip(b).flat_map(|((_, a), (_, b))| a.iter().zip(b));
            largest(pairs.map(|(a, b)| f64::from(a - b)))
        };
        let (apart, moved) = (distance(found, expected), distance(expected, start));
        assert!(moved > 1e-2, "{what}: training moved the weights by {moved} only");
        assert!(apart < 1e-3 * moved, "{what}: weights are {apart} apart, and training moved them by {moved}");
    }
}

#[test]
fn several_processes_train_the_weights_of_one_with_the_whole_batch() {
    let grids = shapes(8);
    for (batch, counts) in [(4, vec![2, 4]), (5, vec![2, 3])] {
        for importance in [false, true] {
            let config = || config(batch).importance_sampling(importance);
            let mut alone = trainer(config(), &grids);
            let start = weights(alone.network());
            alone.run(|_, _| Ok(())).unwrap();
            let expected = outcome(&alone);
            for count in &counts {
                let found = in_group(*count, |group| {
                    let mut trainer = trainer(config(), &grids).in_group(group)?;
                    trainer.run(|_, _| Ok(()))?;
                    Ok(outcome(&trainer))
                });
                let what = format!("batch {batch}, {count} processes, importance {importance}");
                assert_same(&found[0], &expected, &start, &what);
                assert!(found.iter().all(|other| *other == found[0]), "{what}: all hold the same");
            }
        }
    }
}

#[test]
fn without_synchronised_norms_all_processes_hold_the_same_network_too() {
    let grids = shapes(6);
    let found = in_group(2, |group| {
        let mut trainer = trainer(config(4).sync_batch_norm(false), &grids).in_group(group)?;
        let operations = group.traffic().operations;
        trainer.step()?;
        Ok((weights(trainer.network()), group.traffic().operations - operations))
    });
    assert_eq!(found[0].0, found[1].0);
    // One operation for the loss of each micro-batch, one for the gradients.
    assert_eq!(found[0].1, 3, "operations of a step");
}

/// Learns the slope and height of a line from seven points, in parts of unequal size.
fn line(group: &Arc<ProcessGroup>, weighted: bool) -> Result<Vec<f32>> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let [slope, height] = ["slope", "height"].map(|name| vb.get_with_hints(1, name, Init::Const(0.5)).unwrap());
    let own = group.share(7);
    let loss = |_| {
        let x = Tensor::arange(own.start as f32, own.end as f32, &Device::Cpu)?;
        let y = (x.sqr()? * 0.3)?;
        Ok((x.broadcast_mul(&slope)?.broadcast_add(&height)? - y)?.sqr()?.mean_all()?)
    };
    let config = FitConfig::new().steps(20).learning_rate(LearningRate::Constant(0.05)).clip_norm(Some(1.0));
    let samples = || if weighted { own.len() as f64 } else { 1.0 };
    let mut trainer = Trainer::fit(&variables, config, loss)?.weighted_by(samples).in_group(group)?;
    trainer.run(|_, _| Ok(()))?;
    Ok([&slope, &height].into_iter().map(|var| var.to_vec1::<f32>().unwrap()[0]).collect())
}

#[test]
fn unequal_parts_are_weighted_by_their_samples() {
    let expected = line(&ProcessGroup::alone(), true).unwrap();
    let apart = |found: &[f32]| largest(found.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
    for found in in_group(3, |group| line(group, true)) {
        assert!(apart(&found) < 1e-5, "{found:?}, expected {expected:?}");
    }
    assert!(apart(&in_group(3, |group| line(group, false))[0]) > 1e-3, "the mean of means is another one");
}

/// The columns of a log that do not depend on the clock.
fn log_rows(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("log.csv")).unwrap().lines().count() - 1
}

#[test]
fn a_training_goes_on_with_another_number_of_processes() {
    let grids = shapes(6);
    let mut alone = trainer(config(4), &grids);
    let start = weights(alone.network());
    alone.run(|_, _| Ok(())).unwrap();
    let expected = outcome(&alone);

    let folder = Folder::new("group-resume");
    let config = || config(4).folder(folder.to_path_buf());
    // All processes are told to write; one does.
    in_group(2, |group| {
        let mut trainer = trainer(config(), &grids).in_group(group)?;
        let ended = trainer.run_until(|_, record| {
            Ok(if record.step == 3 && !group.is_first() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        assert_eq!(trainer.step_count(), 3, "one that ends ends all, after the same step");
        ended
    });
    assert_eq!((checkpoints(&folder).unwrap().len(), log_rows(&folder)), (1, 3));
    let kept = std::fs::read(&checkpoints(&folder).unwrap()[0]).unwrap();

    for count in [3, 1] {
        std::fs::remove_dir_all(&*folder).unwrap();
        std::fs::create_dir_all(&*folder).unwrap();
        std::fs::write(folder.join("step-0000003.safetensors"), &kept).unwrap();
        let go_on = |group: &Arc<ProcessGroup>| {
            let mut trainer = trainer(config(), &grids).in_group(group)?;
            assert!(trainer.resume_latest()?);
            assert_eq!(trainer.step_count(), 3);
            trainer.run(|_, _| Ok(()))?;
            Ok(outcome(&trainer))
        };
        let found = match count {
            1 => vec![go_on(&ProcessGroup::alone()).unwrap()],
            _ => in_group(count, go_on),
        };
        assert_same(&found[0], &expected, &start, &format!("resumed with {count}"));
        assert_eq!(log_rows(&folder), 6, "no row twice");
    }
}

/// The rank and the problem in each process's error.
fn told<T>(results: Vec<Result<T>>) -> Vec<(Option<usize>, String)> {
    let told = |result: Result<T>| match result.err() {
        Some(Error::Group { rank, problem }) => (rank, problem),
        Some(other) => (None, format!("another error: {other}")),
        None => (None, "no error".into()),
    };
    results.into_iter().map(told).collect()
}

#[test]
fn whoever_is_started_with_something_else_is_named_to_all_before_a_step() {
    let grids = shapes(6);
    let differing = |other: fn(TrainConfig) -> TrainConfig, skipped: usize| {
        told(in_group_for(3, Duration::from_secs(60), |group| {
            let odd = group.rank() == 2;
            let config = if odd { other(config(3)) } else { config(3) };
            let grids = if odd { &grids[skipped..] } else { &grids };
            trainer(config, grids).in_group(group).map(drop)
        }))
    };
    /// A different configuration of one process, how many of its shapes are missing, and the message that all get.
    type Case = (fn(TrainConfig) -> TrainConfig, usize, &'static str);
    let cases: [Case; 3] = [
        (|config| config.seed(5), 0, "`model.config.seed` of the training is 5, and rank 0 has 0"),
        (|config| config.learning_rate(1e-3), 0, "`model.config.learning_rate` of the training is 0.001"),
        (|config| config, 1, "`model.data` of the training is 5 samples"),
    ];
    for (other, skipped, expected) in cases {
        for (rank, problem) in differing(other, skipped) {
            assert!(rank == Some(2) && problem.contains(expected), "rank {rank:?}: {problem}");
        }
    }
    let few = in_group_for(2, Duration::from_secs(60), |group| trainer(config(1), &grids).in_group(group).map(drop));
    for error in few.into_iter().map(|result| result.unwrap_err().to_string()) {
        assert!(error.contains("batch_size is 1") && error.contains("2 processes"), "{error}");
    }
}

#[test]
fn an_error_of_one_process_ends_all_with_its_rank_and_its_words() {
    let grids = shapes(4);
    let results = in_group_for(3, Duration::from_secs(60), |group| {
        let mut trainer = trainer(config(3), &grids).in_group(group)?;
        trainer.run(|_, record| {
            if record.step == 2 && group.rank() == 1 {
                return Err(Error::io("somewhere")(std::io::Error::other("no space left")));
            }
            Ok(())
        })
    });
    assert!(matches!(results[1], Err(Error::Io { .. })), "its own error");
    let (rank, problem) = told(results).swap_remove(0);
    assert!(rank == Some(1) && problem.contains("no space left"), "rank {rank:?}: {problem}");
}

#[test]
fn a_process_that_hangs_or_leaves_is_named_to_all() {
    let (patience, grids) = (Duration::from_secs(3), shapes(4));
    for hangs in [true, false] {
        let results = in_group_for(3, patience, |group| {
            let mut trainer = trainer(config(3), &grids).in_group(group)?;
            trainer.step()?;
            if group.rank() == 1 {
                if hangs {
                    // Until the others have given up this process.
                    while group.check().is_ok() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                return Err(Error::Interrupted);
            }
            trainer.step().map(drop)
        });
        let told = told(results);
        for rank in [0, 2] {
            let (named, problem) = &told[rank];
            assert_eq!(*named, Some(1), "{problem}");
            assert!(problem.contains(if hangs { "it hangs" } else { "it left" }), "{problem}");
        }
    }
    let late = told(in_group_for(3, patience, |group| {
        if group.rank() == 2 {
            while group.check().is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        group.barrier(Duration::from_millis(300))
    }));
    assert!(late.iter().all(|(rank, problem)| *rank == Some(2) && problem.contains("a barrier")), "{late:?}");
}

#[test]
fn who_is_through_may_leave_before_the_others_are() {
    for _ in 0..40 {
        let table = Arc::new(Table::default());
        let port = free_port();
        std::thread::scope(|scope| {
            let member = |rank: usize| {
                let engine = Box::new(Threads { table: table.clone(), rank, count: 3 });
                let place = Place { rank, local_rank: rank, world_size: 3 };
                let group =
                    ProcessGroup::with_engine(place, engine, ("127.0.0.1", port), Some(Duration::from_secs(60)));
                group.and_then(|group| group.barrier(Duration::from_secs(60)))
            };
            let members = [0, 1, 2].map(|rank| scope.spawn(move || member(rank)));
            members.into_iter().for_each(|member| member.join().unwrap().unwrap());
        });
    }
}

#[test]
fn who_does_not_come_is_named_and_strangers_are_sent_away() {
    let (table, port) = (Arc::new(Table::default()), free_port());
    let start_within = |rank: usize, world_size: usize, limit| {
        let engine = Box::new(Threads { table: table.clone(), rank, count: world_size });
        let place = Place { rank, local_rank: rank, world_size };
        ProcessGroup::with_engine(place, engine, ("127.0.0.1", port), Some(limit))
    };
    let start = |rank, world_size| start_within(rank, world_size, Duration::from_millis(600));
    let patient = |rank, world_size| start_within(rank, world_size, Duration::from_secs(60));
    let missing = start(0, 3).err().unwrap().to_string();
    assert!(missing.contains("ranks [1, 2] of 3 did not start within 1 s"), "{missing}");
    let nobody = start(1, 2).err().unwrap().to_string();
    assert!(nobody.contains(&format!("127.0.0.1:{port}")), "{nobody}");
    assert!(start(2, 2).err().unwrap().to_string().contains("rank is 2, expected below the 2 processes"));

    std::thread::scope(|scope| {
        let first = scope.spawn(|| patient(0, 2).and_then(|group| group.barrier(Duration::from_secs(60))));
        // A program that connects to every port arrives before the awaited member.
        while TcpStream::connect(("127.0.0.1", port))
            .and_then(|mut stream| stream.write_all(b"GET / HTTP/1.0\n"))
            .is_err()
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        let second = scope.spawn(|| patient(1, 2).and_then(|group| group.barrier(Duration::from_secs(60))));
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    let other = told(std::thread::scope(|scope| {
        let members = [scope.spawn(|| patient(0, 2)), scope.spawn(|| start(1, 3))];
        members.map(|member| member.join().unwrap()).into_iter().take(1).collect()
    }));
    assert!(other[0].0 == Some(1) && other[0].1.contains("one of 3 processes, rank 0 as one of 2"), "{other:?}");
}

#[test]
fn shares_cover_everything_once() {
    for count in [0, 1, 5, 8, 13] {
        let shares = in_group(3, |group| Ok(group.share(count)));
        let all: Vec<usize> = shares.into_iter().flatten().collect();
        assert_eq!(all, (0..count).collect::<Vec<_>>());
    }
    let alone = ProcessGroup::alone();
    assert_eq!((alone.share(5), alone.is_first(), alone.engine()), (0..5, true, None));
    let bytes = in_group(3, |group| group.broadcast(|| Ok(vec![group.rank() as u8 + 7; 5])));
    assert!(bytes.iter().all(|bytes| bytes == &[7; 5]));
    let votes = in_group(2, |group| group.any(group.rank() == 1));
    assert_eq!(votes, [true, true]);
}
