//! The example `train` under `mpirun`: real processes train the same weights as one process. If one dies, hangs or was started with other
//! arguments, all others name it, and training continues from the written files.
//!
//!     cargo test --release --features mpi --test mpi
#![cfg(all(unix, feature = "mpi"))]

mod example;
mod folder;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use example::example;
use folder::Folder;

/// A configuration of two small networks; the first takes `steps` steps.
fn config(folder: &Path, steps: usize) -> Value {
    // With a large eps, a gradient that is only rounding causes no step.
    let stage = |steps: usize| {
        json!({
            "steps": steps, "batch_size": 4, "warmup": 1, "validate_every": 4, "checkpoint_every": 2, "keep": 2,
            "learning_rate": 0.05, "ema_decay": 0.5, "adamw": { "eps": 1e-3 }
        })
    };
    json!({
        "shapes": 10,
        "dataset": { "resolution": 16, "levels": 1, "cache": folder.join("cache") },
        "representation": { "resolution": 16 },
        "channels": [[8, 12], [4, 6]],
        "training": [stage(steps), stage(3)],
        "folder": folder,
    })
}

fn write(config: &Value, path: &Path) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, config.to_string()).unwrap();
    path.to_path_buf()
}

/// `mpirun` with the options for fewer processors than processes, and for root.
fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]);
    command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn network(folder: &Path, stage: usize) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join(format!("stage-{stage}.safetensors")), &Device::Cpu).unwrap()
}

/// The largest difference of all weights.
fn distance(a: &HashMap<String, Tensor>, b: &HashMap<String, Tensor>) -> f64 {
    assert_eq!(a.len(), b.len());
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let pairs = a.iter().flat_map(|(name, a)| values(a).into_iter().zip(values(&b[name])));
    pairs.fold(0.0, |most, (a, b)| most.max(f64::from((a - b).abs())))
}

#[test]
fn two_and_four_processes_train_the_weights_of_one_with_the_whole_batch() {
    let (folder, example) = (Folder::new("mpi-same"), example("train"));
    let run = |name: &str, mut command: Command, steps: usize| {
        let into = folder.join(name);
        let config = write(&config(&into, steps), &into.join("config.json"));
        let said = succeeded(&command.arg("--config").arg(config).output().unwrap());
        (into, said)
    };
    let (alone, _) = run("alone", Command::new(&example), 6);
    for count in [1, 2, 4] {
        let mut command = mpirun();
        // On request, the engine is used with one process too.
        command.args(["-n", &count.to_string(), "-x", "WAVEMESH_ENGINE=mpi"]).arg(&example);
        let (several, said) = run(&format!("of-{count}"), command, 6);
        assert!(said.contains(&format!("{count} processes train together over mpi")), "{said}");
        assert_eq!(said.matches("wrote ").count(), 1, "one process speaks:\n{said}");
        for stage in [0, 1] {
            let apart = distance(&network(&several, stage), &network(&alone, stage));
            assert!(apart < 2e-4, "stage {stage} of {count} processes: {apart}");
        }
        assert!(several.join("generator.safetensors").is_file());
        let rows = |folder: &Path| std::fs::read_to_string(folder.join("stage-0/log.csv")).unwrap().lines().count();
        assert_eq!(rows(&several), rows(&alone));
    }
    // The change by one step, which shows that the bound above means something.
    let (longer, _) = run("longer", Command::new(&example), 7);
    let apart = distance(&network(&alone, 0), &network(&longer, 0));
    assert!(apart > 1e-2, "a training of one step more comes out {apart} away");
}

#[test]
fn two_processes_say_of_a_generator_what_one_says() {
    let (folder, example) = (Folder::new("mpi-evaluate"), example("evaluate"));
    let run = |mut command: Command| -> Vec<String> {
        command.arg("notebooks/models/shapes.safetensors").arg(&*folder).args(["10", "64", "10"]);
        let said = succeeded(&command.output().unwrap());
        // The last cell of a row may hold seconds.
        let row = |line: &str| line.strip_suffix(" |")?.rsplit_once('|').map(|(row, _)| row.to_owned());
        said.lines().filter_map(row).collect()
    };
    let alone = run(Command::new(&example));
    let mut two = mpirun();
    two.args(["-n", "2"]).arg(&example);
    assert!(alone.len() > 15, "{alone:#?}");
    assert_eq!(run(two), alone);
    assert!(folder.join("generated.png").is_file());
}

/// Waits until a condition holds. It fails after two minutes.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process.trim()]).status().unwrap().success());
}

fn newest(folder: &Path) -> Option<PathBuf> {
    wavemesh::train::checkpoints(folder.join("stage-0")).ok()?.pop()
}

#[test]
fn a_process_that_dies_or_hangs_is_named_by_all_others_and_the_training_goes_on_with_fewer() {
    let (folder, example) = (Folder::new("mpi-faults"), example("train"));
    for (sign, victim, words) in [("-KILL", 2, "its process ended"), ("-STOP", 1, "hang")] {
        let into = folder.join(sign);
        let endless = write(&config(&into, 1_000_000), &into.join("config.json"));
        let mut command = mpirun();
        // Each process writes its process number to a file.
        let script = r#"echo $$ > "$2/rank-$OMPI_COMM_WORLD_RANK" && exec "$1" --config "$3""#;
        command.args(["-n", "4", "sh", "-c", script, "sh"]).arg(&example).arg(&into).arg(endless);
        command.env("WAVEMESH_GROUP_TIMEOUT", "3");
        let running = command.spawn().unwrap();
        wait_for("two checkpoints", || newest(&into).is_some_and(|path| path.ends_with("step-0000004.safetensors")));
        signal(sign, &std::fs::read_to_string(into.join(format!("rank-{victim}"))).unwrap());
        let ended = running.wait_with_output().unwrap();
        let said = text(&ended.stderr);
        assert!(!ended.status.success(), "{said}");
        for rank in (0..4).filter(|rank| *rank != victim) {
            let own = said.lines().find(|line| line.contains(&format!("error in rank {rank}:")));
            let own = own.unwrap_or_else(|| panic!("rank {rank} says nothing of it:\n{said}"));
            assert!(own.contains(&format!("rank {victim}: ")) && own.contains(words), "{own}");
        }

        // The last checkpoint is complete, and two processes continue from it.
        let step = newest(&into).unwrap();
        let step: usize = step.file_stem().unwrap().to_str().unwrap()["step-".len()..].parse().unwrap();
        let rest = write(&config(&into, step + 2), &into.join("config.json"));
        let said = succeeded(&mpirun().args(["-n", "2"]).arg(&example).arg("--config").arg(rest).output().unwrap());
        assert!(said.contains(&format!("at step {step}")), "{said}");
    }
}

#[test]
fn processes_with_other_configurations_or_programs_are_refused_by_name() {
    let (folder, example) = (Folder::new("mpi-differ"), example("train"));
    let own = config(&folder, 4);
    let mut other = own.clone();
    other["training"][0]["batch_size"] = json!(6);
    let mut fewer = own.clone();
    fewer["shapes"] = json!(9);
    let rebuilt = folder.join("rebuilt");
    // A copy is as executable as the original.
    std::fs::copy(&example, &rebuilt).unwrap();
    std::fs::OpenOptions::new().append(true).open(&rebuilt).unwrap().write_all(b"another build").unwrap();
    let cases = [
        (&other, &example, "`model.config.batch_size` of the training is 6, and rank 0 has 4"),
        (&fewer, &example, "`model.data` of the training is 9 samples"),
        (&own, &rebuilt, "`sha256` of the program is"),
    ];
    // Files that both processes read exist before.
    let own = write(&own, &folder.join("own.json"));
    succeeded(&Command::new(&example).arg("--config").arg(&own).arg("--prepare").output().unwrap());
    for (config, program, expected) in cases {
        let odd = write(config, &folder.join("odd.json"));
        let mut command = mpirun();
        command.args(["-n", "1"]).arg(&example).arg("--config").arg(&own);
        command.args([":", "-n", "1"]).arg(program).arg("--config").arg(odd);
        let ended = command.output().unwrap();
        let said = text(&ended.stderr);
        assert!(!ended.status.success(), "{said}");
        for rank in 0..2 {
            let line = said.lines().find(|line| line.contains(&format!("error in rank {rank}:")));
            assert!(
                line.is_some_and(|line| line.contains("rank 1: ") && line.contains(expected)),
                "{expected}:\n{said}"
            );
        }
    }
}
