//! The kernel's temporary folder, for this user only. It is removed when the kernel ends, or at the next start if the kernel was killed.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const PREFIX: &str = "wavemesh-kernel-";
const LOCK: &str = "lock";
/// How many folders are tried: another kernel that starts may take a new folder for an abandoned one and remove it.
const ATTEMPTS: u32 = 100;

/// A folder that exists as long as this value. A lock inside tells other kernels that it is in use; the system releases the lock however
/// the process ends.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder, and removes those that dead kernels of this user left.
    pub fn new() -> std::io::Result<Folder> {
        let base = std::env::temp_dir();
        remove_abandoned(&base);
        for _ in 0..ATTEMPTS {
            let unique = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
            let path = base.join(format!("{PREFIX}{}-{unique:x}", std::process::id()));
            DirBuilder::new().mode(0o700).create(&path)?;
            if let Some(lock) = hold(&path.join(LOCK))? {
                return Ok(Folder { path: path.canonicalize()?, _lock: lock });
            }
        }
        Err(std::io::Error::other("other kernels remove each temporary folder that is made"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a file and locks it. `None` if another kernel took the folder for an abandoned one in between.
fn hold(file: &Path) -> std::io::Result<Option<File>> {
    let lock = File::create(file)?;
    let is_held = lock.try_lock().is_ok() && lock.metadata()?.nlink() > 0;
    Ok(is_held.then_some(lock))
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn remove_abandoned(base: &Path) {
    let me = rustix::process::getuid().as_raw();
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && std::fs::symlink_metadata(entry.path()).is_ok_and(|meta| meta.is_dir() && meta.uid() == me);
        if ours
            && let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_another_kernel_has_taken_is_not_held() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(LOCK);
        let other = File::create(&file)?;
        other.try_lock()?;
        assert!(hold(&file)?.is_none());
        drop(other);
        assert!(hold(&file)?.is_some());
        Ok(())
    }

    #[test]
    fn kernels_that_start_at_once_have_a_folder_each() {
        let starts: Vec<_> =
            (0..8).map(|_| std::thread::spawn(|| (0..20).map(|_| Folder::new()).collect::<Vec<_>>())).collect();
        for start in starts {
            for folder in start.join().unwrap() {
                assert!(folder.unwrap().path().join(LOCK).exists());
            }
        }
    }

    #[test]
    fn a_folder_in_use_stays_and_an_abandoned_one_goes() -> std::io::Result<()> {
        let base = tempfile::tempdir()?;
        let used = base.path().join(format!("{PREFIX}used"));
        let left = base.path().join(format!("{PREFIX}left"));
        for folder in [&used, &left] {
            std::fs::create_dir(folder)?;
            File::create(folder.join(LOCK))?;
        }
        let lock = File::open(used.join(LOCK))?;
        lock.try_lock()?;
        remove_abandoned(base.path());
        assert!(used.exists() && !left.exists());
        Ok(())
    }
}
