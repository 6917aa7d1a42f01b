//! One process alone writes to a journal's folder: two would fork its chain.

use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For one that is just ending.
const TRIES: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(50);

/// On the folder itself. Held as long as it lives, and by the system no longer than the process.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    folder: File,
}

impl Lock {
    /// None where the file system knows no locks. An error of the kind `ResourceBusy` is another process.
    pub fn take(directory: &Path) -> std::io::Result<Option<Self>> {
        std::fs::create_dir_all(directory)?;
        let folder = File::open(directory)?;
        for _ in 0..TRIES {
            match folder.try_lock() {
                Ok(()) => return Ok(Some(Self { path: directory.to_owned(), folder })),
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN),
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(%error, "the audit journal's folder can't be locked");
                    return Ok(None);
                }
            }
        }
        let why = "another process writes its journal there: give each a folder of its own";
        Err(Error::new(ErrorKind::ResourceBusy, why))
    }

    /// Whether it still is the folder of that name, which may have been replaced.
    pub fn is_of_folder(&self) -> bool {
        let ids = |found: std::fs::Metadata| (found.dev(), found.ino());
        let there = self.path.metadata().map(ids).ok();
        there.is_some() && there == self.folder.metadata().map(ids).ok()
    }
}
