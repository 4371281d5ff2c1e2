//! The example `train` as a program: stages that train at the same time give the same generator, and stop together.

mod example;
mod folder;

use std::process::Command;

use serde_json::json;

use example::example;
use folder::Folder;

#[test]
fn stages_that_train_together_are_those_that_train_one_after_the_other() {
    let (folder, train) = (Folder::new("train-together"), example("train"));
    let run = |name: &str, arguments: &[&str]| {
        let into = folder.join(name);
        let config = json!({
            "shapes": 6,
            "dataset": { "resolution": 16, "levels": 1 },
            "representation": { "resolution": 16 },
            "channels": [[8, 12], [4, 6]],
            "training": [{ "steps": 6, "batch_size": 3 }, { "steps": 9, "batch_size": 2 }],
            "folder": into,
        });
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, config.to_string()).unwrap();
        let output = Command::new(&train).arg("--config").arg(&path).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(into.join("generator.safetensors")).unwrap()
    };
    assert!(run("in-turn", &[]) == run("together", &["--together"]));
}

#[test]
fn the_first_stage_that_fails_is_told_and_the_others_stop() {
    let (folder, train) = (Folder::new("train-fails"), example("train"));
    let config = json!({
        "shapes": 6,
        "dataset": { "resolution": 16, "levels": 1 },
        "representation": { "resolution": 16 },
        "channels": [[8, 12], [4, 6]],
        "training": [{ "steps": 1_000_000, "batch_size": 3 }, { "steps": 9, "batch_size": 0 }],
        "folder": *folder,
    });
    let path = folder.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let output = Command::new(&train).arg("--config").arg(&path).arg("--together").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("batch_size"), "{said}");
}
