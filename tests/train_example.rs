//! The example `train` as a person uses it: Ctrl-C, then the same command again.
#![cfg(unix)]

mod example;
mod folder;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use example::example;
use folder::Folder;

/// The command that trains into `folder`: two small networks, of which the first takes some seconds.
fn train(example: &Path, folder: &Path) -> Command {
    let stage = |steps: usize| {
        serde_json::json!({
            "steps": steps, "batch_size": 2, "warmup": 2, "validate_every": 50, "checkpoint_every": 1000, "keep": 2
        })
    };
    let config = serde_json::json!({
        "shapes": 10,
        "dataset": { "resolution": 16, "levels": 1 },
        "representation": { "resolution": 16 },
        "channels": [[8, 12], [4, 6]],
        "training": [stage(200), stage(3)],
        "folder": folder,
    });
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(example);
    command.arg("--config").arg(path).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Step, loss, gradient norm and learning rate of every step in the first stage.
fn steps(folder: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(folder.join("stage-0/log.csv")).unwrap_or_default();
    log.lines().skip(1).map(|line| line.splitn(5, ',').take(4).collect::<Vec<_>>().join(",")).collect()
}

/// Waits until a condition holds. It fails after two minutes.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ctrl_c(running: &Child) {
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
}

/// A child process that ends with the test, whatever happens to the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_training_that_ctrl_c_stopped_goes_on_as_if_it_had_not_been() {
    let folder = Folder::new("ctrl-c");
    let example = example("train");
    let (whole, parts) = (folder.join("whole"), folder.join("parts"));
    let done = train(&example, &whole).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(steps(&whole).len(), 200);

    let running = train(&example, &parts).spawn().unwrap();
    wait_for("five steps", || steps(&parts).len() >= 5);
    ctrl_c(&running);
    let stopped = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stopped.stderr);
    assert_eq!(stopped.status.code(), Some(130), "{said}");
    assert!(said.contains("run the same command to go on"), "{said}");
    let before = steps(&parts).len();
    assert!((5..200).contains(&before), "stopped after {before} steps");

    let resumed = train(&example, &parts).stdout(Stdio::piped()).output().unwrap();
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    let said = String::from_utf8_lossy(&resumed.stdout);
    assert!(said.contains(&format!("at step {before}")), "no step was lost: {said}");
    assert_eq!(steps(&parts), steps(&whole), "bit for bit");
    assert!(parts.join("generator.safetensors").is_file());
}

#[test]
fn a_second_ctrl_c_ends_at_once_what_cannot_heed_the_first() {
    let folder = Folder::new("ctrl-c-twice");
    // A configuration that never ends blocks the program for as long as the test needs, however slow the machine is.
    let (config, errors) = (folder.join("config.json"), folder.join("errors.txt"));
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    let mut command = Command::new(example("train"));
    command.arg("--config").arg(&config).stdout(Stdio::null()).stderr(File::create(&errors).unwrap());
    let mut running = Running(command.spawn().unwrap());
    let writer = std::thread::spawn(move || File::options().write(true).open(config));
    wait_for("the program reads its configuration", || writer.is_finished());
    let _unwritten = writer.join().unwrap().unwrap();
    let said = || std::fs::read_to_string(&errors).unwrap();

    ctrl_c(&running.0);
    wait_for("the first is heard", || said().ends_with('\n'));
    assert_eq!(running.0.try_wait().unwrap(), None, "{}", said());
    ctrl_c(&running.0);
    wait_for("the second ends it", || running.0.try_wait().unwrap().is_some());
    assert_eq!(running.0.wait().unwrap().code(), Some(130));
    assert_eq!(said(), "stopping after this step; Ctrl-C again ends at once\n");
}

#[test]
fn stages_that_train_together_are_those_that_train_one_after_the_other_even_if_they_were_stopped() {
    let folder = Folder::new("together");
    let example = example("train");
    let generator = |into: &Path, arguments: &[&str]| {
        let done = train(&example, into).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::read(into.join("generator.safetensors")).unwrap()
    };
    let in_turn = generator(&folder.join("in-turn"), &[]);
    assert!(generator(&folder.join("together"), &["--together"]) == in_turn);

    let parts = folder.join("parts");
    let running = train(&example, &parts).arg("--together").spawn().unwrap();
    wait_for("five steps", || steps(&parts).len() >= 5);
    ctrl_c(&running);
    assert_eq!(running.wait_with_output().unwrap().status.code(), Some(130));
    assert!(generator(&parts, &["--together"]) == in_turn);
}

#[test]
fn a_stage_that_fails_is_told_and_stops_those_that_train_with_it() {
    let folder = Folder::new("together-fails");
    let mut command = train(&example("train"), &folder);
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["training"][0]["steps"] = 1_000_000.into();
    config["training"][1]["batch_size"] = 0.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let failed = command.arg("--together").output().unwrap();
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && said.contains("batch_size"), "{said}");
}
