//! The kernel's temporary folder and the variables of its environment, by which evcxr and rust-analyzer find our tools.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};

use super::shim;
use super::temporary::Folder;

/// What the evaluator finds around it.
pub struct Environment {
    pub folder: Folder,
    /// The PATH as it was when the kernel started, without our links.
    pub path: Option<OsString>,
}

impl Environment {
    /// Makes the folder and puts its links first on the PATH. To be called while the process has one thread.
    pub fn prepare() -> Result<Environment> {
        let folder = Folder::new().context("cannot make a temporary folder")?;
        let root = folder.path();
        let path = std::env::var_os("PATH");
        let bin = root.join("bin");
        let with_links = path.iter().flat_map(std::env::split_paths);
        let with_links = std::env::join_paths(std::iter::once(bin.clone()).chain(with_links))?;
        std::fs::create_dir_all(root.join("evcxr")).context("cannot make a temporary folder")?;
        let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        ensure!(threads == 1, "the environment was to be prepared before the kernel has threads; it has {threads}");
        for (name, value) in [
            ("PATH", with_links),
            ("CARGO", bin.join("cargo").into()),
            ("RUSTC", bin.join("rustc").into()),
            (shim::SOCKET, root.join("shim.sock").into()),
            ("EVCXR_TMPDIR", root.join("evcxr").into()),
        ] {
            // SAFETY: the process has this one thread, so nobody reads the environment meanwhile.
            unsafe { std::env::set_var(name, value) };
        }
        Ok(Environment { folder, path })
    }
}
