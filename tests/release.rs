//! The sources keep the promises of RELEASING.md: the same version everywhere, and a published crate that is whole.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_file_has_the_same_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("Cargo.toml", format!("version = \"{version}\"")),
        ("kernel/Cargo.toml", format!("version = \"{version}\"")),
        ("kernel/dylib/Cargo.toml", format!("wavemesh = {{ path = \"../..\", version = \"{version}\" }}")),
        ("kernel/python/src/wavemesh_kernel/__init__.py", format!("__version__ = \"{version}\"")),
        ("kernel/python-cuda/src/wavemesh_kernel_cuda/__init__.py", format!("__version__ = \"{version}\"")),
        ("kernel/python-cuda/pyproject.toml", format!("\"wavemesh-kernel=={version}\",")),
        ("CITATION.cff", format!("version: {version}")),
    ] {
        let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        assert!(text.lines().any(|found| found.trim() == line), "{file} has no line `{line}`");
    }
}

/// The file that `name` means in a source of the folder `folder`.
fn meant(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).components().fold(PathBuf::new(), |mut path, part| {
        if part == Component::ParentDir {
            path.pop();
        } else {
            path.push(part);
        }
        path
    })
}

#[test]
fn the_published_crate_has_every_file_that_its_sources_include() {
    let mut list = Command::new(env!("CARGO"));
    let output =
        list.args(["package", "--list", "--allow-dirty", "--package", "wavemesh"]).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let published: BTreeSet<PathBuf> = String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect();
    let mut missing = Vec::new();
    for source in published.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(Path::new(ROOT).join(source)).unwrap();
        for name in ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|start| text.split(start).skip(1)) {
            let file = meant(source.parent().unwrap(), name.split('"').next().unwrap());
            if !published.contains(&file) {
                missing.push(format!("{} includes {}", source.display(), file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "give Cargo.toml's `include` these files: {missing:#?}");
}
