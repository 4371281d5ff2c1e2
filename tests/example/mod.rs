//! Finds an example of the library, as a program that a test starts.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The path of the example `name`, built like this test.
pub fn example(name: &str) -> PathBuf {
    let features: &[&str] = if cfg!(feature = "mpi") { &["--features", "mpi"] } else { &[] };
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--example", name]).args(features);
    assert!(build.status().unwrap().success(), "the example does not build");
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}
