//! One program at a time writes into a folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use super::FolderError;

/// The file that is locked. It stays, empty, where nobody writes.
pub(super) const LOCK: &str = "lock";

/// A folder is this program's alone for as long as this lives.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes it, or fails and names who has it.
    pub(super) fn take(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(LOCK);
        let refuse = |source| FolderError::Write { path: path.clone(), source };
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let mut file = opened.map_err(refuse)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Who has it may be about to write who it is.
                let number = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
                let who = number.map_or_else(
                    || "another process".to_owned(),
                    |number| format!("another process ({number})"),
                );
                return Err(FolderError::Busy { path: folder.to_path_buf(), who });
            }
            Err(TryLockError::Error(source)) => return Err(refuse(source)),
        }
        file.set_len(0).map_err(refuse)?;
        writeln!(file, "{}", std::process::id()).map_err(refuse)?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The number of a process that has ended says nothing; where it stays, the next one writes over it.
        drop(self.0.set_len(0));
    }
}
