//! The kernelspec: the folder through which Jupyter finds this kernel.
//!
//! Its name is not `rust`, because evcxr_jupyter writes a kernelspec of that name whenever it starts. A notebook that asks for another,
//! missing Rust kernel still opens with this one in frontends that go by the language, as JupyterLab does.
//!
//! It is written beside its final place and then renamed, so that Jupyter never sees half of it. It has a mark by which `install` and
//! `uninstall` recognise their own.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Place;

/// The name by which notebooks refer to the kernel.
pub const NAME: &str = "wavemesh";
/// The name that people see.
pub const DISPLAY_NAME: &str = "Rust (WaveMesh)";
/// The key in the kernelspec's metadata that marks it as ours.
const MARK: &str = "wavemesh";

const LOGOS: [(&str, &[u8]); 3] = [
    ("logo-32x32.png", include_bytes!("logo/logo-32x32.png")),
    ("logo-64x64.png", include_bytes!("logo/logo-64x64.png")),
    ("logo-svg.svg", include_bytes!("logo/logo-svg.svg")),
];

/// The file `kernel.json`.
#[derive(Serialize, Deserialize)]
pub struct Kernelspec {
    #[serde(default)]
    pub argv: Vec<String>,
    pub display_name: String,
    pub language: String,
    pub interrupt_mode: Option<String>,
    pub env: Option<HashMap<String, String>>,
    pub metadata: Option<HashMap<String, Value>>,
}

/// Writes the kernelspec.
pub fn install(place: &Place, replace: bool) -> Result<()> {
    check_name(&place.name)?;
    write(&kernels_folder(place)?, &place.name, replace)
}

/// Installs the kernelspec in the place where Jupyter finds it first, whoever wrote the one there. If there is none, installs it for the
/// user.
pub fn mend() -> Result<()> {
    let first = find_all().into_iter().next().and_then(|found| Some(found.folder.parent()?.to_owned()));
    let kernels = first.map_or_else(|| user_folder().map(|jupyter| jupyter.join("kernels")), Ok)?;
    write(&kernels, NAME, true)
}

fn write(kernels: &Path, name: &str, replace: bool) -> Result<()> {
    let target = kernels.join(name);
    if target.exists() && !replace && !read(&target).is_ok_and(|spec| is_ours(&spec)) {
        let theirs = read(&target).map_or_else(|_| "unreadable".to_string(), |spec| format!("{:?}", spec.display_name));
        bail!(
            "there is a kernelspec `{}` already that this program did not install ({theirs}, in {}); \
             use --replace to put this kernel in its place, or --name to install under another name",
            name,
            target.display()
        );
    }
    let program =
        std::env::current_exe().and_then(fs::canonicalize).context("cannot find out where this program is")?;
    let program =
        program.to_str().ok_or_else(|| anyhow!("the path of this program is not UTF-8: {}", program.display()))?;
    let spec = Kernelspec {
        argv: [program, "run", "--connection-file", "{connection_file}"].map(String::from).to_vec(),
        display_name: DISPLAY_NAME.into(),
        language: "rust".into(),
        metadata: Some(HashMap::from([
            (MARK.to_string(), json!({ "version": env!("CARGO_PKG_VERSION") })),
            ("debugger".to_string(), json!(false)),
        ])),
        interrupt_mode: Some("message".into()),
        env: Some(HashMap::new()),
    };

    fs::create_dir_all(kernels).with_context(|| format!("cannot create {}", kernels.display()))?;
    let staging = tempfile::Builder::new()
        .prefix(".wavemesh-")
        .tempdir_in(kernels)
        .with_context(|| format!("cannot write to {}", kernels.display()))?;
    let new = staging.path().join("new");
    let written = || -> std::io::Result<()> {
        fs::create_dir(&new)?;
        fs::write(new.join("kernel.json"), serde_json::to_string_pretty(&spec)? + "\n")?;
        LOGOS.iter().try_for_each(|(name, content)| fs::write(new.join(name), content))
    };
    written().with_context(|| format!("cannot write to {}", staging.path().display()))?;
    exchange(&new, &target, &staging.path().join("old"))
        .with_context(|| format!("cannot put the kernelspec at {}", target.display()))?;
    println!("Installed the kernel \"{DISPLAY_NAME}\" as `{name}` in {}", target.display());
    Ok(())
}

/// Removes the kernelspec if it is ours.
pub fn uninstall(place: &Place) -> Result<()> {
    check_name(&place.name)?;
    let target = kernels_folder(place)?.join(&place.name);
    if !target.exists() {
        println!("There is no kernelspec `{}` in {}; nothing to remove there.", place.name, target.display());
        return Ok(());
    }
    if !read(&target).is_ok_and(|spec| is_ours(&spec)) {
        bail!("the kernelspec in {} was not installed by this program; it stays", target.display());
    }
    // Hide it from Jupyter in one step, then remove it.
    let doomed = target.with_file_name(format!(".wavemesh-removed-{}", std::process::id()));
    fs::rename(&target, &doomed)
        .and_then(|()| fs::remove_dir_all(&doomed))
        .with_context(|| format!("cannot remove {}", target.display()))?;
    println!("Removed the kernelspec in {}", target.display());
    Ok(())
}

/// A kernelspec with our name, as Jupyter would find it.
pub struct Found {
    pub folder: PathBuf,
    pub spec: Kernelspec,
    pub is_ours: bool,
}

/// The kernelspecs with our name, in the order in which Jupyter looks; it starts the first.
pub fn find_all() -> Vec<Found> {
    let folders = known_folders().into_iter().map(|kernels| kernels.join(NAME));
    let found = folders.filter_map(|folder| {
        let spec = read(&folder).ok()?;
        Some(Found { is_ours: is_ours(&spec), folder, spec })
    });
    found.collect()
}

/// The folder of a kernelspec with our mark, of any name, that Jupyter would find or that is at `place`.
pub fn find_any(place: &Place) -> Option<PathBuf> {
    let entries = known_folders().into_iter().chain(kernels_folder(place)).flat_map(std::fs::read_dir);
    entries.flatten().flatten().map(|entry| entry.path()).find(|folder| read(folder).is_ok_and(|spec| is_ours(&spec)))
}

/// The folders where Jupyter looks for kernelspecs, in its order: an active environment comes before the user's folder.
fn known_folders() -> Vec<PathBuf> {
    let user = user_folder().ok();
    let environment = environment_prefix().map(|prefix| prefix.join("share/jupyter"));
    let environment_first = match std::env::var("JUPYTER_PREFER_ENV_PATH") {
        Ok(wanted) => !["", "0", "false", "no", "n", "off"].contains(&wanted.to_lowercase().as_str()),
        Err(_) => std::env::var_os("VIRTUAL_ENV").is_some(),
    };
    let both = if environment_first { [environment, user] } else { [user, environment] };
    let system = ["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from);
    let extra = std::env::var_os("JUPYTER_PATH").unwrap_or_default();
    let folders = std::env::split_paths(&extra).chain(both.into_iter().flatten()).chain(system);
    folders.map(|folder| folder.join("kernels")).collect()
}

/// Moves `new` to `target`. What was there goes to `old`, or back if the move fails.
fn exchange(new: &Path, target: &Path, old: &Path) -> std::io::Result<()> {
    let replaced = target.symlink_metadata().is_ok();
    if replaced {
        fs::rename(target, old)?;
    }
    fs::rename(new, target).inspect_err(|_| {
        if replaced {
            let _ = fs::rename(old, target);
        }
    })
}

fn read(folder: &Path) -> Result<Kernelspec> {
    Ok(serde_json::from_slice(&fs::read(folder.join("kernel.json"))?)?)
}

fn is_ours(spec: &Kernelspec) -> bool {
    spec.metadata.as_ref().is_some_and(|metadata| metadata.contains_key(MARK))
}

/// Jupyter's rule for names, which also keeps them inside the folder.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        bail!("{name:?} cannot name a kernelspec: use letters, digits, '-', '_' and '.', not '.' first");
    }
    Ok(())
}

fn kernels_folder(place: &Place) -> Result<PathBuf> {
    let jupyter = if let Some(prefix) = &place.prefix {
        std::path::absolute(prefix)?.join("share/jupyter")
    } else if place.sys_prefix {
        let prefix = environment_prefix().ok_or_else(|| {
            anyhow!("--sys-prefix needs a Python environment: activate one, or put its python3 first on PATH")
        })?;
        prefix.join("share/jupyter")
    } else {
        user_folder()?
    };
    Ok(jupyter.join("kernels"))
}

fn user_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("JUPYTER_DATA_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let folder = if cfg!(target_os = "macos") {
        dirs::home_dir().map(|home| home.join("Library/Jupyter"))
    } else {
        dirs::data_dir().map(|data| data.join("jupyter"))
    };
    folder.ok_or_else(|| anyhow!("there is no home folder; set HOME, or say where with --prefix"))
}

/// What Python calls `sys.prefix`.
fn environment_prefix() -> Option<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().find_map(std::env::var_os);
    active.map(PathBuf::from).or_else(|| {
        let answer = Command::new("python3").args(["-c", "import sys; print(sys.prefix)"]).output().ok()?;
        let prefix = String::from_utf8(answer.stdout).ok()?;
        (answer.status.success() && !prefix.trim().is_empty()).then(|| PathBuf::from(prefix.trim()))
    })
}
