//! The folder of one repository, laid out as the hub's other programs do: `blobs` by their content, `snapshots` of
//! commits that link to them, and `refs`, which say what commit a revision was.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use formats::HubCache;

/// What is kept of a repository.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder of `owner/name` below the cache.
    pub(super) fn new(cache: &Path, name: &str) -> Self {
        Self { root: HubCache::new(cache.to_owned()).repository(name) }
    }

    /// Writes down what commit a revision is.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.root.join("refs").join(revision);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::create(path)?;
        file.write_all(commit.as_bytes())?;
        file.sync_all()
    }

    /// The files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Bytes, by the name that the hub has for them.
    pub(super) fn blob(&self, content: &str) -> PathBuf {
        self.root.join("blobs").join(content)
    }

    /// Makes the bytes a file of the commit, in the place of whatever has its name.
    pub(super) fn link(&self, commit: &str, file: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.snapshot(commit).join(file);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        #[cfg(unix)]
        {
            // From the folder of the file to that of the repository: past `snapshots` and the commit.
            let up = "../".repeat(Path::new(file).components().count() + 1);
            std::os::unix::fs::symlink(format!("{up}blobs/{content}"), &path)?;
        }
        #[cfg(not(unix))]
        fs::rename(self.blob(content), &path)?;
        Ok(path)
    }
}

/// Keeps other programs from writing the same bytes for as long as it is held; none where one does.
pub(super) fn lock(blob: &Path) -> io::Result<Option<File>> {
    blob.parent().map_or(Ok(()), fs::create_dir_all)?;
    let file = File::create(blob.with_extension("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
