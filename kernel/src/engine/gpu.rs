//! Finds NVIDIA's driver and CUDA's libraries, which a compiled library for GPUs needs, or tells which one is missing.

use std::path::{Path, PathBuf};

/// Folders that the loader searches by itself.
const USUAL: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// Where else the driver and CUDA's toolkit put libraries: Google Colab, containers, WSL, the toolkit's own installer.
const PLACES: [&str; 4] = ["/usr/lib64-nvidia", "/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/usr/local/cuda/lib64"];

/// What the machine has, as far as GPUs need it.
pub struct System {
    /// The file in which the driver describes its version.
    version: PathBuf,
    /// Where libraries are looked for.
    folders: Vec<PathBuf>,
}

/// Whether the library for GPUs can be loaded.
#[derive(Debug, PartialEq)]
pub enum Gpu {
    /// It can, if these folders are added to the loader's own.
    Ready(Vec<PathBuf>),
    /// There is no driver, so there is no GPU to use.
    Absent,
    /// There is a driver, but something is wrong. The text says what, and how to mend it.
    Unusable(String),
}

impl System {
    /// This machine.
    pub fn here() -> System {
        let listed = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&listed).filter(|folder| folder.is_absolute()).collect();
        if let Some(home) = std::env::var_os("CUDA_HOME").map(PathBuf::from) {
            folders.extend([home.join("lib64"), home.join("lib")]);
        }
        folders.extend(PLACES.iter().chain(&USUAL).map(PathBuf::from));
        for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(std::env::var_os) {
            folders.extend(below_python(Path::new(&environment)));
        }
        System { version: "/proc/driver/nvidia/version".into(), folders }
    }

    /// The first line of the driver's description of itself, if the driver is loaded.
    pub fn driver(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.version).ok()?;
        Some(text.lines().next()?.trim_start_matches("NVRM version: ").to_owned())
    }

    /// The folder of the library with this name.
    pub fn find(&self, library: &str) -> Option<&Path> {
        self.folders.iter().map(PathBuf::as_path).find(|folder| folder.join(library).exists())
    }

    /// Whether a compiled library that needs these NVIDIA libraries loads and runs.
    pub fn examine(&self, needs: &[String]) -> Gpu {
        let driver = self.driver();
        if driver.is_none() && self.find("libcuda.so.1").is_none() {
            return Gpu::Absent;
        }
        let mut folders: Vec<PathBuf> = Vec::new();
        for library in needs {
            match self.find(library) {
                None => return Gpu::Unusable(missing(library)),
                Some(folder) if USUAL.iter().any(|usual| folder == Path::new(usual)) => {}
                Some(folder) if folders.iter().any(|known| known == folder) => {}
                Some(folder) => folders.push(folder.to_owned()),
            }
        }
        let wanted = needs.iter().filter_map(|library| oldest_driver(library)).max();
        match (driver.as_deref().and_then(major), wanted) {
            (Some(has), Some(wanted)) if has < wanted => Gpu::Unusable(format!(
                "NVIDIA's driver is {has} and the compiled library needs {wanted} or newer: install a newer driver"
            )),
            _ => Gpu::Ready(folders),
        }
    }
}

/// Where pip puts CUDA's libraries in a Python environment.
fn below_python(environment: &Path) -> Vec<PathBuf> {
    let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let pythons = entries(environment.join("lib")).filter(|path| path.join("site-packages/nvidia").is_dir());
    pythons.flat_map(|python| entries(python.join("site-packages/nvidia"))).map(|part| part.join("lib")).collect()
}

/// How to install a library that is missing.
fn missing(library: &str) -> String {
    let version = library.rsplit('.').next().unwrap_or_default();
    let package = match library.split('.').next().unwrap_or_default() {
        "libcuda" => return format!("{library} is missing: it comes with NVIDIA's driver"),
        "libcublas" | "libcublasLt" => "nvidia-cublas",
        "libcurand" => "nvidia-curand",
        "libnvrtc" => "nvidia-cuda-nvrtc",
        "libcudart" => "nvidia-cuda-runtime",
        _ => return format!("{library} of CUDA's toolkit is missing: install the toolkit"),
    };
    format!("{library} of CUDA is missing: `pip install \"{package}=={version}.*\"` or CUDA's toolkit brings it")
}

/// The oldest driver for the CUDA version with which the library's name ends.
fn oldest_driver(library: &str) -> Option<u32> {
    match library.rsplit_once(".so.")? {
        ("libcublas" | "libcudart" | "libnvrtc", "12") => Some(525),
        ("libcublas" | "libcudart" | "libnvrtc", "13") => Some(580),
        _ => None,
    }
}

/// The major version: 580 for `NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build`.
fn major(driver: &str) -> Option<u32> {
    let version = driver
        .split_whitespace()
        .find(|word| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these libraries, each in a folder of its own, and a driver of this version.
    fn machine(driver: Option<&str>, libraries: &[&str]) -> (tempfile::TempDir, System) {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("version");
        if let Some(driver) = driver {
            let text =
                format!("NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Release Build\nGCC version: 12\n");
            std::fs::write(&version, text).unwrap();
        }
        let mut folders = Vec::new();
        for library in libraries {
            let place = folder.path().join(library.split('.').next().unwrap());
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join(library), "").unwrap();
            folders.push(place);
        }
        (folder, System { version, folders })
    }

    fn needs() -> Vec<String> {
        ["libcuda.so.1", "libcublas.so.13", "libcurand.so.10"].map(str::to_owned).to_vec()
    }

    #[test]
    fn with_driver_and_libraries_it_loads_from_their_folders() {
        let (folder, system) =
            machine(Some("580.159.03"), &["libcuda.so.1", "libcublas.so.13", "libcurand.so.10", "libother.so.1"]);
        let expected = ["libcuda", "libcublas", "libcurand"].map(|name| folder.path().join(name)).to_vec();
        assert_eq!(system.examine(&needs()), Gpu::Ready(expected));
        assert_eq!(system.driver().unwrap(), "NVIDIA UNIX x86_64 Kernel Module  580.159.03  Release Build");
    }

    #[test]
    fn without_a_driver_there_is_no_gpu() {
        let (_folder, system) = machine(None, &["libcublas.so.13", "libcurand.so.10"]);
        assert_eq!(system.examine(&needs()), Gpu::Absent);
        assert_eq!(system.driver(), None);
    }

    #[test]
    fn a_driver_that_is_too_old_is_told_with_what_it_should_be() {
        let (_folder, system) = machine(Some("535.86.10"), &["libcuda.so.1", "libcublas.so.13", "libcurand.so.10"]);
        let Gpu::Unusable(why) = system.examine(&needs()) else { panic!("a driver of 535 runs no CUDA 13") };
        assert!(why.contains("535") && why.contains("580 or newer"), "{why}");
    }

    #[test]
    fn a_library_that_is_missing_is_named_with_what_brings_it() {
        for (there, words) in [
            (&["libcuda.so.1", "libcurand.so.10"][..], ["libcublas.so.13", "nvidia-cublas==13.*"]),
            (&["libcuda.so.1", "libcublas.so.13"], ["libcurand.so.10", "nvidia-curand==10.*"]),
            (&["libcublas.so.13", "libcurand.so.10"], ["libcuda.so.1", "driver"]),
        ] {
            let (_folder, system) = machine(Some("580.82"), there);
            let Gpu::Unusable(why) = system.examine(&needs()) else { panic!("{there:?} are not enough") };
            assert!(words.iter().all(|word| why.contains(word)), "{why}");
        }
    }

    #[test]
    fn libraries_of_pip_are_found_in_an_environment() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("lib/python3.12/site-packages/nvidia/cu13/lib");
        std::fs::create_dir_all(&lib).unwrap();
        assert_eq!(below_python(folder.path()), [lib]);
    }
}
