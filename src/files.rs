//! Writing files so that a kill at any moment leaves the old content or the new, never half of either.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;

use crate::{Error, Result};

/// Puts `bytes` at `path`: whole, or not at all.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written; an older file is then as it was.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |temporary| fs::write(temporary, bytes).map_err(Error::io(path)))
}

/// Lets `write` fill a new file in the same folder, flushes it to disk and renames it to `path`. Every call has a file of its
/// own, so threads and processes may write one path at once; the last one to finish stays.
///
/// # Errors
/// What `write` returns, and [`Error::Io`] when the file cannot be moved; an older file is then as it was.
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

/// Creates the folder that `path` lies in, unless it is there.
///
/// # Errors
/// [`Error::Io`] when it cannot be made.
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
