//! A place for files that are read from a path.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Runs `body` with the path of an empty folder, in memory where the system has one there.
pub(super) fn with_folder<T>(body: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FOLDER: TempDir = make();
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("input");
        clear(&path);
        std::fs::create_dir(&path).unwrap();
        body(&path)
    })
}

fn make() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

fn clear(path: &Path) {
    if path.exists() {
        std::fs::remove_dir_all(path).unwrap();
    }
}
