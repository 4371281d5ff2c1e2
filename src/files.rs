//! Writes files so that a kill at any moment leaves either the old content or the new, never half of it.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;

use crate::{Error, Result};

/// Writes `bytes` to `path`, completely or not at all.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; an older file is then unchanged.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |temporary| fs::write(temporary, bytes).map_err(Error::io(path)))
}

/// Lets `write` fill a new file in the same folder, flushes it to disk and renames it to `path`. Every call has its own temporary file, so
/// threads and processes may write to one path at the same time; the last one to finish stays.
///
/// # Errors
/// The error of `write`, or [`Error::Io`] if the file cannot be moved; an older file is then unchanged.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::io(path)(ErrorKind::IsADirectory.into()));
    }
    let unique = RandomState::new().build_hasher().finish();
    let temporary = path.with_file_name(format!(".{unique:016x}.tmp"));
    let written = write(&temporary).and_then(|()| {
        let flushed = File::open(&temporary).and_then(|file| file.sync_all());
        flushed.and_then(|()| fs::rename(&temporary, path)).map_err(Error::io(path))
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // the first error is the one to report
    }
    written
}

/// Creates the folder of `path` if it does not exist.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be created.
pub(crate) fn create_folder_of(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::create_dir_all(folder).map_err(Error::io(folder)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_write_one_path_all_succeed_and_leave_one_whole_file() {
        let folder = std::env::temp_dir().join(format!("wavemesh-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("shared.bin");
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| write_atomically(path, &[thread; 5000]).unwrap()));
            }
        });
        let found = fs::read(&path).unwrap();
        assert!(found.len() == 5000 && found.iter().all(|&byte| byte == found[0]));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = std::env::temp_dir().join(format!("wavemesh-files-kept-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("kept");
        write_atomically(&path, b"old").unwrap();
        let failed = replace(&path, |temporary| {
            fs::write(temporary, b"half").unwrap();
            Err(Error::Interrupted)
        });
        assert!(matches!(failed, Err(Error::Interrupted)));
        assert_eq!((fs::read(&path).unwrap(), fs::read_dir(&folder).unwrap().count()), (b"old".to_vec(), 1));
        assert!(matches!(write_atomically(&folder.join(".."), b""), Err(Error::Io { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }
}
