//! The compiled library for cells: WaveMesh as one dynamic library, with the metadata that rustc needs to link with it.
//!
//! It is in `$XDG_DATA_HOME/wavemesh/<version>-<rustc release>-<rustc commit>/`, and consists of `bundle.json` (what it was built with) and
//! `lib/` (`libwavemesh_dylib.so`, the `.rmeta` of every crate under it, the procedural macros). The library for NVIDIA GPUs is beside it
//! in a folder whose name ends in `-cuda`; it is used where it can be loaded. A library appears there complete or not at all. The cell
//! runtime is kept beside it, since it needs the same toolchain.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gpu::{Gpu, System};
use super::toolchain::Toolchain;

/// The runtime's source, compiled on the user's machine.
const RUNTIME: [(&str, &str); 19] = [
    ("lib.rs", include_str!("../../runtime/lib.rs")),
    ("advice.rs", include_str!("../../runtime/advice.rs")),
    ("backtrace.rs", include_str!("../../runtime/backtrace.rs")),
    ("channel.rs", include_str!("../../runtime/channel.rs")),
    ("comm.rs", include_str!("../../runtime/comm.rs")),
    ("crash.rs", include_str!("../../runtime/crash.rs")),
    ("describe.rs", include_str!("../../runtime/describe.rs")),
    ("frames.rs", include_str!("../../runtime/frames.rs")),
    ("leave.rs", include_str!("../../runtime/leave.rs")),
    ("output.rs", include_str!("../../runtime/output.rs")),
    ("protocol.rs", include_str!("../../runtime/protocol.rs")),
    ("redirect.rs", include_str!("../../runtime/redirect.rs")),
    ("residual.rs", include_str!("../../runtime/residual.rs")),
    ("stop.rs", include_str!("../../runtime/stop.rs")),
    ("store.rs", include_str!("../../runtime/store.rs")),
    ("show.rs", include_str!("../../runtime/show.rs")),
    ("testing.rs", include_str!("../../runtime/testing.rs")),
    ("timing.rs", include_str!("../../runtime/timing.rs")),
    ("wait.rs", include_str!("../../runtime/wait.rs")),
];

/// A compiled library on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bundle {
    pub toolchain: Toolchain,
    /// Where its source was, for completion and documentation.
    pub source: PathBuf,
    /// The dynamic library's file name in `lib/`.
    file: String,
    /// Crates that cells reach through the prelude, with their versions. `:dep` need not build these.
    pub provides: Vec<(String, String)>,
    /// Whether it can compute on NVIDIA GPUs.
    #[serde(default)]
    pub cuda: bool,
    /// The NVIDIA libraries without which it cannot be loaded.
    #[serde(default)]
    pub needs: Vec<String>,
    /// All crates that are in the library.
    #[serde(default)]
    pub crates: Vec<Held>,
    #[serde(skip)]
    folder: PathBuf,
}

/// A crate that is in the library.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Held {
    pub name: String,
    pub version: String,
    pub features: Vec<String>,
    /// Whether it was built with all of its default features; true if it has none.
    #[serde(default = "yes")]
    pub defaults: bool,
    /// Its metadata file in `lib/`.
    pub file: String,
}

impl Held {
    /// Checks that this crate fits a line of `[dependencies]`; the error says why it does not.
    pub fn serves(&self, value: &str) -> std::result::Result<(), String> {
        let line: toml::Table =
            format!("value = {value}").parse().map_err(|_| "its line is not understood".to_owned())?;
        let value = &line["value"];
        let version = value.as_str().or_else(|| value.get("version").and_then(toml::Value::as_str)).unwrap_or("*");
        for other in ["path", "git", "registry", "package"] {
            if value.get(other).is_some() {
                return Err(format!("its line names a {other}"));
            }
        }
        let (wanted, here) = (semver::VersionReq::parse(version), semver::Version::parse(&self.version));
        if !wanted.is_ok_and(|wanted| here.is_ok_and(|here| wanted.matches(&here))) {
            return Err(format!("version {version} is asked for and the library holds {}", self.version));
        }
        let defaults = value.get("default-features").and_then(toml::Value::as_bool).unwrap_or(true);
        let listed = value.get("features").and_then(toml::Value::as_array).into_iter().flatten();
        let mut asked: Vec<&str> = listed.filter_map(toml::Value::as_str).collect();
        // A crate without `std` was built as the library needs it, and the rest of its default features is rarely meant.
        if defaults && !self.defaults && self.features.iter().any(|feature| feature == "std") {
            asked.push("default");
        }
        let missing: Vec<&str> =
            asked.into_iter().filter(|feature| !self.features.iter().any(|known| known == feature)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("the library holds it without its feature {}", missing.join(", ")))
        }
    }
}

impl Bundle {
    /// The crate of this name that is in the library.
    pub fn held(&self, name: &str) -> Option<&Held> {
        self.crates.iter().find(|held| held.name.replace('-', "_") == name.replace('-', "_"))
    }

    /// The folder that rustc searches.
    pub fn lib_dir(&self) -> PathBuf {
        self.folder.join("lib")
    }

    /// The dynamic library.
    pub fn file(&self) -> PathBuf {
        self.lib_dir().join(&self.file)
    }

    /// The newest library of this version whose compiler is still installed: the one for GPUs if it can be loaded, otherwise the other.
    pub fn find() -> Option<Bundle> {
        let (mut for_gpus, mut plain): (Vec<_>, Vec<_>) = Bundle::all().into_iter().partition(|bundle| bundle.cuda);
        let newest = for_gpus.pop();
        let loads = newest.as_ref().is_some_and(|bundle| matches!(bundle.examine(), Gpu::Ready(_)));
        // If the only library cannot be loaded, the loader's message is better than no library.
        if loads { newest } else { plain.pop().or(newest) }
    }

    /// The newest library for GPUs, whether or not it can be loaded here.
    pub fn for_gpus() -> Option<Bundle> {
        Bundle::all().into_iter().rfind(|bundle| bundle.cuda)
    }

    /// Whether the NVIDIA libraries that it needs are on this machine.
    pub fn examine(&self) -> Gpu {
        System::here().examine(&self.needs)
    }

    /// The libraries of this version whose compiler is still installed, newest last.
    fn all() -> Vec<Bundle> {
        let entries = data_home().into_iter().flat_map(std::fs::read_dir).flatten().flatten();
        let mut found: Vec<Bundle> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(concat!(env!("CARGO_PKG_VERSION"), "-")))
            .filter_map(|entry| Bundle::read(&entry.path()))
            .filter(|bundle| bundle.toolchain.is_current())
            .collect();
        found.sort_by_key(|bundle| std::fs::metadata(bundle.file()).and_then(|file| file.modified()).ok());
        found
    }

    fn read(folder: &Path) -> Option<Bundle> {
        let text = std::fs::read_to_string(folder.join("bundle.json")).ok()?;
        let mut bundle: Bundle = serde_json::from_str(&text).ok()?;
        bundle.folder = folder.to_owned();
        bundle.file().exists().then_some(bundle)
    }
}

/// `$XDG_DATA_HOME/wavemesh`.
pub fn data_home() -> Option<PathBuf> {
    base("XDG_DATA_HOME", ".local/share")
}

/// `$XDG_CACHE_HOME/wavemesh`.
pub fn cache_home() -> Option<PathBuf> {
    base("XDG_CACHE_HOME", ".cache")
}

fn base(variable: &str, default: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| Some(std::env::home_dir()?.join(default))).map(|path| path.join("wavemesh"))
}

fn folder_for(toolchain: &Toolchain, cuda: bool) -> Result<PathBuf> {
    let home = data_home().context("there is no home folder; set XDG_DATA_HOME")?;
    let kind = if cuda { "-cuda" } else { "" };
    Ok(home.join(format!("{}-{}{kind}", env!("CARGO_PKG_VERSION"), toolchain.id())))
}

/// Fills a temporary folder beside `folder` with `fill` and then renames it, so that `folder` is never seen half-made.
fn make_whole(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = folder.parent().context("a folder without a parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let beside = |what: &str| parent.join(format!(".{what}-{}", std::process::id()));
    let (new, old) = (beside("new"), beside("old"));
    let _ = std::fs::remove_dir_all(&new);
    std::fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let filled = fill(&new).and_then(|()| {
        if folder.exists() {
            std::fs::rename(folder, &old).with_context(|| format!("cannot move {} aside", folder.display()))?;
        }
        std::fs::rename(&new, folder).with_context(|| format!("cannot put {} in place", folder.display()))
    });
    let _ = std::fs::remove_dir_all(&new);
    let _ = std::fs::remove_dir_all(&old);
    filled
}

/// Compiles the library in `source` (the folder of WaveMesh's `Cargo.toml`) and puts it in place. Returns its folder. With `cuda` it also
/// computes on NVIDIA GPUs, and can be loaded only where the driver and CUDA's libraries are installed.
pub fn build(source: &Path, cuda: bool) -> Result<PathBuf> {
    let source = source.canonicalize().with_context(|| format!("there is no folder {}", source.display()))?;
    let manifest = source.join("kernel/dylib/Cargo.toml");
    ensure!(manifest.exists(), "{} is not WaveMesh's source: it has no kernel/dylib", source.display());
    let toolchain = Toolchain::discover()?;
    let features: &[&str] = if cuda { &["--features", "cuda"] } else { &[] };
    let output = Command::new(&toolchain.cargo)
        .args(["rustc", "--release", "-p", "wavemesh-dylib", "--message-format=json-render-diagnostics"])
        .args(features)
        // Cells, the runtime and the library must share one standard library.
        .args(["--", "-Cprefer-dynamic"])
        .args(cuda_folders(cuda).iter().map(|folder| format!("-Clink-arg=-Wl,-rpath,{folder}")))
        .current_dir(&source)
        .env("RUSTC", &toolchain.rustc)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", toolchain.cargo.display()))?;
    ensure!(output.status.success(), "the library did not compile; see the messages above");
    let tree = Command::new(&toolchain.cargo)
        .args(["tree", "-p", "wavemesh-dylib", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(&source)
        .env("RUSTC", &toolchain.rustc)
        .output()?;
    ensure!(tree.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&tree.stderr));
    let linked: HashSet<String> = String::from_utf8(tree.stdout)?
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();

    let folder = folder_for(&toolchain, cuda)?;
    let mut file = None;
    let mut provides = Vec::new();
    let mut crates: Vec<Held> = Vec::new();
    make_whole(&folder, |new| {
        std::fs::create_dir(new.join("lib"))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(artifact) = serde_json::from_str::<Value>(line) else { continue };
            if cuda {
                stand_ins(&artifact, &new.join("lib"))?;
            }
            if artifact["reason"] != "compiler-artifact" {
                continue;
            }
            let (name, version) = package(&artifact);
            if !linked.contains(&name) {
                continue;
            }
            if PROVIDED.contains(&name.as_str()) && !provides.iter().any(|(known, _)| *known == name) {
                provides.push((name.clone(), version.clone()));
            }
            crates.extend(held(&artifact, &name, &version));
            let paths = artifact["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(Path::new);
            for path in paths.filter(|path| path.extension().is_some_and(|end| end == "rmeta" || end == "so")) {
                let Some(base) = path.file_name() else { continue };
                std::fs::copy(path, new.join("lib").join(base))
                    .with_context(|| format!("cannot copy {}", path.display()))?;
                if name == "wavemesh-dylib" && path.extension().is_some_and(|end| end == "so") {
                    file = Some(base.to_string_lossy().into_owned());
                }
            }
        }
        let file = file.clone().context("cargo did not say where the dynamic library is")?;
        let needs = if cuda { nvidia_libraries(&new.join("lib").join(&file))? } else { Vec::new() };
        let bundle = Bundle {
            toolchain: toolchain.clone(),
            source: source.clone(),
            file,
            provides: provides.clone(),
            cuda,
            needs,
            crates: crates.clone(),
            folder: PathBuf::new(),
        };
        std::fs::write(new.join("bundle.json"), serde_json::to_string_pretty(&bundle)?)?;
        Ok(())
    })?;
    runtime(&toolchain)?;
    Ok(folder)
}

/// The metadata of crates names the C libraries with which they were linked, and rustc passes these names to the linker for each cell. The
/// dynamic library contains or loads them already, so empty archives with these names satisfy the linker.
fn stand_ins(message: &Value, folder: &Path) -> Result<()> {
    /// The C++ compiler brings it, so it is on every machine that has a linker.
    const EVERYWHERE: &str = "stdc++";
    const EMPTY_ARCHIVE: &str = "!<arch>\n";
    for name in message["linked_libs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let name = name.rsplit('=').next().unwrap_or(name);
        if name != EVERYWHERE {
            std::fs::write(folder.join(format!("lib{name}.a")), EMPTY_ARCHIVE)?;
        }
    }
    Ok(())
}

/// The NVIDIA libraries that a dynamic library needs, as `readelf` lists them.
fn nvidia_libraries(file: &Path) -> Result<Vec<String>> {
    let output = Command::new("readelf").arg("-d").arg(file).output().context("cannot run readelf, of binutils")?;
    ensure!(output.status.success(), "readelf failed: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = names.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| line.split(['[', ']']).nth(1));
    Ok(names.filter(|name| name.starts_with("libcu") || name.starts_with("libnv")).map(str::to_owned).collect())
}

/// Where the linker finds CUDA's libraries: those of the toolkit, and the driver's in Colab's folder.
fn cuda_folders(cuda: bool) -> Vec<String> {
    if !cuda {
        return Vec::new();
    }
    let home = std::env::var("CUDA_HOME").unwrap_or("/usr/local/cuda".into());
    vec![format!("{home}/lib64"), format!("{home}/lib"), "/usr/lib64-nvidia".into()]
}

/// Installs a library that the same compiler made on another machine. Returns its folder. `from` is a folder like those in [`data_home`];
/// `source` is where WaveMesh's source is on this machine.
pub fn import(from: &Path, source: &Path) -> Result<PathBuf> {
    let toolchain = Toolchain::discover()?;
    let theirs = Bundle::read(from).with_context(|| format!("there is no compiled library in {}", from.display()))?;
    ensure!(
        theirs.toolchain.version == toolchain.version,
        "the library in {} serves another compiler; compile it with `wavemesh-kernel library build`\n  its compiler: {}\n  here: {}",
        from.display(),
        theirs.toolchain.id(),
        toolchain.id()
    );
    let source = source.canonicalize().with_context(|| format!("there is no folder {}", source.display()))?;
    let folder = folder_for(&toolchain, theirs.cuda)?;
    make_whole(&folder, |new| {
        std::fs::create_dir(new.join("lib"))?;
        for entry in std::fs::read_dir(theirs.lib_dir())? {
            let entry = entry?;
            std::fs::copy(entry.path(), new.join("lib").join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
        let ours = Bundle { toolchain: toolchain.clone(), source, ..theirs.clone() };
        std::fs::write(new.join("bundle.json"), serde_json::to_string_pretty(&ours)?)?;
        Ok(())
    })?;
    runtime(&toolchain)?;
    Ok(folder)
}

/// Crates that a cell may use without `:dep`.
const PROVIDED: [&str; 5] = ["wavemesh", "candle-core", "candle-nn", "plotters", "serde_json"];

/// The crate of a cargo artifact, unless it is a procedural macro or a build script.
fn held(artifact: &Value, name: &str, version: &str) -> Option<Held> {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if !strings(&artifact["target"]["kind"]).iter().any(|kind| kind == "lib" || kind == "rlib") {
        return None;
    }
    let files = strings(&artifact["filenames"]);
    let file = files.iter().find(|file| file.ends_with(".rmeta"))?;
    let file = Path::new(file).file_name()?.to_string_lossy().into_owned();
    let features = strings(&artifact["features"]);
    let defaults = features.iter().any(|feature| feature == "default")
        || !has_defaults(artifact["manifest_path"].as_str().map(Path::new));
    Some(Held { name: name.to_owned(), version: version.to_owned(), features, defaults, file })
}

/// Whether the manifest lists default features.
fn has_defaults(manifest: Option<&Path>) -> bool {
    let text = manifest.and_then(|manifest| std::fs::read_to_string(manifest).ok()).unwrap_or_default();
    let manifest: toml::Table = text.parse().unwrap_or_default();
    manifest.get("features").and_then(|features| features.get("default")).is_some()
}

fn yes() -> bool {
    true
}

/// The name and version of an artifact's package.
pub fn package(artifact: &Value) -> (String, String) {
    // `registry+https://…#name@1.2.3`, `path+file:///…/folder#name@1.2.3` or `path+file:///…/name#1.2.3`.
    let id = artifact["package_id"].as_str().unwrap_or_default();
    let (place, tail) = id.rsplit_once('#').unwrap_or(("", id));
    match tail.split_once('@') {
        Some((name, version)) => (name.to_owned(), version.to_owned()),
        None => (place.rsplit('/').next().unwrap_or_default().to_owned(), tail.to_owned()),
    }
}

/// The dynamic library of the cell runtime for `toolchain`. It is compiled now if it does not exist.
pub fn runtime(toolchain: &Toolchain) -> Result<PathBuf> {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&RUNTIME, &mut hasher);
    let name = format!("cell-{}-{:016x}", toolchain.id(), std::hash::Hasher::finish(&hasher));
    let home = data_home().context("there is no home folder; set XDG_DATA_HOME")?;
    let library = home.join(&name).join("libwavemesh_cell.so");
    if library.exists() {
        return Ok(library);
    }
    make_whole(&home.join(&name), |new| {
        for (file, text) in RUNTIME {
            std::fs::write(new.join(file), text)?;
        }
        let mut command = Command::new(&toolchain.rustc);
        command
            .args([
                "--crate-name=wavemesh_cell",
                "--edition=2024",
                "--crate-type=dylib",
                "-Cprefer-dynamic",
                "-Copt-level=2",
            ])
            .args(["-Cmetadata=wavemesh_cell", "--cap-lints=allow", "--cfg=wavemesh_cells", "lib.rs"])
            // `?` in cells needs unstable features.
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(new);
        let output = command.output().with_context(|| format!("cannot run {}", toolchain.rustc.display()))?;
        ensure!(
            output.status.success(),
            "the cell runtime did not compile (is there a C linker?): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    })
    .or_else(|error| if library.exists() { Ok(()) } else { Err(error) })?;
    Ok(library)
}

/// Checks that the installed library can serve cells; an error says how to mend it.
pub fn check() -> Result<Bundle> {
    let Some(bundle) = Bundle::find() else {
        bail!(
            "there is no compiled library for this version and toolchain: run `wavemesh-kernel library build --source FOLDER`"
        );
    };
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("lib.rs"), "use wavemesh::prelude::*;\npub fn cell() {}\n")?;
    let output = Command::new(&bundle.toolchain.rustc)
        .args(["--crate-name=check", "--edition=2024", "--crate-type=cdylib", "-Cprefer-dynamic", "lib.rs"])
        .args(link_args(&bundle))
        .current_dir(folder.path())
        .output()?;
    if !output.status.success() {
        bail!(
            "a cell does not compile against the library in {}: run `wavemesh-kernel library build --source FOLDER`\n{}",
            bundle.folder.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(bundle)
}

/// rustc's arguments for a cell that uses the library.
pub fn link_args(bundle: &Bundle) -> Vec<String> {
    let lib = bundle.lib_dir();
    let mut args = vec![
        format!("-Ldependency={}", lib.display()),
        format!("--extern=wavemesh={}", bundle.file().display()),
        format!("-Clink-arg=-Wl,-rpath,{}", lib.display()),
    ];
    if bundle.cuda {
        args.push(format!("-Lnative={}", lib.display()));
    }
    args
}

/// `wavemesh-kernel library …`
#[derive(clap::Subcommand, Debug)]
pub enum LibraryCommand {
    /// Compile the library for cells from WaveMesh's source and put it in place
    Build {
        /// The folder of WaveMesh's Cargo.toml
        #[arg(long, default_value = ".")]
        source: PathBuf,
        /// Compute on NVIDIA GPUs too; needs nvcc
        #[arg(long)]
        cuda: bool,
    },
    /// Put a library in place that the same compiler made on another machine
    Import {
        /// A folder with `bundle.json` and `lib`
        folder: PathBuf,
        /// Where the library's source is here
        #[arg(long)]
        source: PathBuf,
    },
    /// Print where the compiled library is
    Path,
    /// Compile a cell against the library
    Check,
}

impl LibraryCommand {
    /// Runs the command; its messages go to standard output.
    pub fn run(self) -> Result<()> {
        let folder = match self {
            LibraryCommand::Build { source, cuda } => build(&source, cuda)?,
            LibraryCommand::Import { folder, source } => import(&folder, &source)?,
            LibraryCommand::Path => {
                Bundle::find().context("there is no compiled library; run `wavemesh-kernel library build`")?.folder
            }
            LibraryCommand::Check => check()?.folder,
        };
        println!("{}", folder.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_of_the_library_serves_when_version_and_features_allow() {
        let features = ["default", "std", "derive"].map(str::to_owned).to_vec();
        let defaults = true;
        let held = Held { name: "serde".into(), version: "1.0.229".into(), features, defaults, file: String::new() };
        for value in ["\"1\"", "\"*\"", "{ version = \"1\", features = [\"derive\"] }"] {
            assert_eq!(held.serves(value), Ok(()), "{value}");
        }
        for (value, why) in [
            ("\"2\"", "version 2 is asked for and the library holds 1.0.229"),
            ("{ version = \"1\", features = [\"rc\"] }", "the library holds it without its feature rc"),
            ("{ path = \"/x\" }", "its line names a path"),
        ] {
            assert_eq!(held.serves(value), Err(why.to_owned()), "{value}");
        }
        let bare = Held { features: vec!["std".to_owned()], defaults: false, ..held };
        assert_eq!(bare.serves("{ version = \"1\", default-features = false }"), Ok(()));
        assert_eq!(bare.serves("\"1\""), Err("the library holds it without its feature default".to_owned()));
    }

    #[test]
    fn a_crate_without_default_features_has_all_that_it_has_by_default() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let manifest = folder.path().join("Cargo.toml");
        let artifact = serde_json::json!({
            "target": { "kind": ["lib"] }, "filenames": ["/x/libbitflags-1.rmeta"], "features": ["std"], "manifest_path": manifest,
        });
        for (text, defaults) in
            [("[features]\nstd = []", true), ("[features]\ndefault = [\"std\"]\nstd = []", false), ("", true)]
        {
            std::fs::write(&manifest, text)?;
            let held = held(&artifact, "bitflags", "2.13.2");
            assert_eq!(held.map(|held| held.defaults), Some(defaults), "{text}");
        }
        Ok(())
    }
}
