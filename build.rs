//! Compiles the GPU kernels, if the feature `cuda` is on: each `.cu` file to one file of machine code for every architecture.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

/// Folders of kernels, and where what they compile to goes; headers of the first are seen from all.
const FOLDERS: [(&str, &str); 3] = [
    ("src/gpu/kernels", "gpu"),
    ("src/sparse/backend/cuda/plain", "plain"),
    ("src/sparse/backend/cuda/kernels", "fast"),
];

/// Machine code for the cards that there are, and PTX, which a driver compiles for later ones.
const TARGETS: [&str; 5] = [
    "arch=compute_75,code=sm_75",
    "arch=compute_80,code=[sm_80,compute_80]",
    "arch=compute_89,code=sm_89",
    "arch=compute_90a,code=sm_90a",
    "arch=compute_75,code=compute_75",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "WAVEMESH_CUDA_TARGETS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder for output"));
    let mut work = Vec::new();
    for (folder, name) in FOLDERS {
        let target = out.join(name);
        std::fs::create_dir_all(&target).expect("cargo's folder for output can be written");
        work.extend(sources(Path::new(folder)).into_iter().map(|source| (source, target.clone())));
    }
    let work = Mutex::new(work);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((source, target)) = next(&work) {
                    compile(&source, &target);
                }
            });
        }
    });
}

fn next(work: &Mutex<Vec<(PathBuf, PathBuf)>>) -> Option<(PathBuf, PathBuf)> {
    work.lock().ok()?.pop()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    println!("cargo::rerun-if-changed={}", folder.display());
    files(folder, "cu")
}

/// The files of a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == end));
    found.sort();
    found
}

/// All that the machine code of a source depends on.
fn recipe(source: &Path, targets: &[String]) -> String {
    let folder = source.parent().expect("a source lies in a folder");
    let mut texts = vec![source.to_path_buf()];
    for folder in [folder, Path::new(FOLDERS[0].0)] {
        texts.extend(files(folder, "cuh"));
    }
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    format!("{}\n{}\n{}", nvcc().display(), targets.join("\n"), texts.iter().map(text).collect::<String>())
}

fn compile(source: &Path, out: &Path) {
    let target = out.join(source.with_extension("fatbin").file_name().expect("a source has a name"));
    let targets = match std::env::var("WAVEMESH_CUDA_TARGETS") {
        Ok(targets) => targets.split(';').map(str::to_owned).collect(),
        Err(_) => TARGETS.map(str::to_owned).to_vec(),
    };
    // nvcc takes minutes; what was compiled from the same is kept.
    let (recipe, known) = (recipe(source, &targets), target.with_extension("recipe"));
    if target.exists() && std::fs::read_to_string(&known).is_ok_and(|known| known == recipe) {
        return;
    }
    let mut command = Command::new(nvcc());
    command.args(["-std=c++17", "-O3", "-fatbin", "-I", FOLDERS[0].0, "-o"]).arg(&target).arg(source);
    command.args(targets.iter().flat_map(|target| ["-gencode", target]));
    let needs = "the feature `cuda` needs NVIDIA's compiler: put nvcc in PATH, or see kernel/cuda_toolkit.sh";
    let status = command.status().unwrap_or_else(|error| panic!("{}: {error}; {needs}", nvcc().display()));
    assert!(status.success(), "nvcc refused {}", source.display());
    std::fs::write(&known, recipe).expect("cargo's folder for output can be written");
}

/// The compiler that candle's build takes too.
fn nvcc() -> PathBuf {
    match (std::env::var_os("NVCC"), std::env::var_os("CUDA_HOME")) {
        (Some(nvcc), _) => nvcc.into(),
        (None, Some(home)) => Path::new(&home).join("bin/nvcc"),
        (None, None) => "nvcc".into(),
    }
}
