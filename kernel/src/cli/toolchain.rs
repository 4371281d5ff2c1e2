//! Finding the Rust toolchain. Jupyter is often started where the shell's profile, and so rustup's folder, is not on `PATH`.

use std::path::PathBuf;

/// Puts cargo's own folder on `PATH` when there is no `cargo` on it. Must be called before the process has other threads.
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
        // SAFETY: called from `main` before any other thread exists, so nothing reads the environment meanwhile.
        unsafe { std::env::set_var("PATH", extended) };
    }
}
