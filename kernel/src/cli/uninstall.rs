//! `uninstall`: removes the kernelspec and, with the last one, what kernels made in the user's data and cache folders.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Place, kernelspec};
use crate::engine::library;

/// Removes the kernelspec. Removes what kernels made too, unless another of our kernelspecs is left, which may need it.
///
/// The program and the Python environment, which `kernel/setup.sh` and the pip package installed, stay.
pub fn run(place: &Place) -> Result<()> {
    kernelspec::uninstall(place)?;
    if let Some(other) = kernelspec::find_any(place) {
        println!("The compiled library stays: the kernelspec in {} may need it.", other.display());
        return Ok(());
    }
    if let Some(data) = library::data_home() {
        remove_below(&data, made(&data))?;
    }
    if let Some(cache) = library::cache_home() {
        remove_below(&cache, |name| name == "target")?; // crates that cells asked for
    }
    Ok(())
}

/// Whether a file or folder of this name was made by a kernel of this version: its libraries and, unless another version's are there, what
/// versions share.
fn made(data: &Path) -> impl Fn(&str) -> bool {
    let ours = |name: &str| name.starts_with(concat!(env!("CARGO_PKG_VERSION"), "-"));
    let others = names(data).any(|name| !ours(&name) && data.join(name).join("bundle.json").exists());
    let shared = |name: &str| {
        name == "history.jsonl" || ["cell-", "names-", ".new-", ".old-"].iter().any(|start| name.starts_with(start))
    };
    move |name| ours(name) || (!others && shared(name))
}

/// Removes the entries of `folder` whose name `doomed` accepts, and `folder` itself if it is then empty.
fn remove_below(folder: &Path, doomed: impl Fn(&str) -> bool) -> Result<()> {
    for path in names(folder).filter(|name| doomed(name)).map(|name| folder.join(name)) {
        let is_folder = path.symlink_metadata().is_ok_and(|entry| entry.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
        println!("Removed {}", path.display());
    }
    let _ = fs::remove_dir(folder);
    Ok(())
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}
