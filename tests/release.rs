//! The sources keep the promise of RELEASING.md: the same version everywhere.

use std::path::Path;

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
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.lines().any(|found| found.trim() == line), "{file} has no line `{line}`");
    }
}
