//! `uninstall`: the kernelspec goes, and with the last one what kernels made in the folders of the user's data and cache.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Place, kernelspec};
use crate::engine::library;

/// Removes the kernelspec, and what kernels made unless another kernelspec of ours is left, which may need it.
///
/// What `kernel/setup.sh` and the pip package put beside it, the program and Python's environment, stays.
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

/// Whether a kernel of this version made what has a name: its libraries, and, unless those of another version are there, what
/// versions share.
fn made(data: &Path) -> impl Fn(&str) -> bool {
    let ours = |name: &str| name.starts_with(concat!(env!("CARGO_PKG_VERSION"), "-"));
    let others = names(data).any(|name| !ours(&name) && data.join(name).join("bundle.json").exists());
    let shared = |name: &str| {
        name == "history.jsonl" || ["cell-", "names-", ".new-", ".old-"].iter().any(|start| name.starts_with(start))
    };
    move |name| ours(name) || (!others && shared(name))
}

/// Removes the files and folders in `folder` of which `doomed` is true, and `folder` itself if nothing is left in it.
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
