//! The example `train` as a person uses it: Ctrl-C, and the same command again.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The example, built as this test was.
fn example() -> PathBuf {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--release", "--example", "train"]).status();
    assert!(built.unwrap().success(), "the example does not build");
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples/train")
}

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

/// Step, loss, gradient norm and learning rate of every step of the first stage.
fn steps(folder: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(folder.join("stage-0/log.csv")).unwrap_or_default();
    log.lines().skip(1).map(|line| line.splitn(5, ',').take(4).collect::<Vec<_>>().join(",")).collect()
}

#[test]
fn a_training_that_ctrl_c_stopped_goes_on_as_if_it_had_not_been() {
    let folder = Folder(std::env::temp_dir().join(format!("wavemesh-ctrl-c-{}", std::process::id())));
    let example = example();
    let (whole, parts) = (folder.0.join("whole"), folder.0.join("parts"));
    let done = train(&example, &whole).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(steps(&whole).len(), 200);

    let running = train(&example, &parts).spawn().unwrap();
    let started = Instant::now();
    while steps(&parts).len() < 5 {
        assert!(started.elapsed() < Duration::from_secs(120), "five steps take two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
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
