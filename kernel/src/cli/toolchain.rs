//! Finds the Rust toolchain. Jupyter is often started without the shell's profile, so rustup's folder is not on `PATH`.

use std::path::PathBuf;

/// Adds cargo's own folder to `PATH` if `PATH` has no `cargo`. Must be called before the process has other threads.
pub fn put_on_path() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("cargo").is_file()) {
        return;
    }
    let home = || dirs::home_dir().map(|home| home.join(".cargo"));
    let Some(folder) = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).map(|cargo| cargo.join("bin"))
    else {
        return;
    };
    if folder.join("cargo").is_file()
        && let Ok(extended) = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path)))
    {
        // SAFETY: `main` calls this before any other thread exists, so nothing reads the environment at the same time.
        unsafe { std::env::set_var("PATH", extended) };
    }
}
