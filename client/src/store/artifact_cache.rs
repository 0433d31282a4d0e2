//! Artefacts that were fetched before, on disk: as many as the user gives room to, those used last.
#![expect(clippy::disallowed_methods, reason = "IO shell: when a file was used last")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use proto::ids::Digest;

use crate::files::{self, Audience, FileError};

/// The room that artefacts have where nobody says otherwise, in MiB.
pub const DEFAULT_CACHE_MIB: u64 = 2048;

/// The free space of the disk that artefacts leave alone.
const FLOOR_BYTES: u64 = 256 << 20;

/// Artefacts in a folder, by their hash.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most_bytes: u64,
    /// Free space of the disk that stays free.
    floor_bytes: u64,
}

/// One file of the folder.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// The artefacts below the device's folder, up to `most_mib` MiB of them.
    pub(super) fn below(folder: &Path, most_mib: u64) -> Self {
        let (folder, most_bytes) = (folder.join("artefacts"), most_mib.saturating_mul(1 << 20));
        Self { folder, most_bytes, floor_bytes: FLOOR_BYTES }
    }

    /// An artefact that was fetched before. One that is damaged is removed.
    pub(super) fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let bytes = files::read(&path).ok()?;
        if Digest::of(&bytes) != digest {
            tracing::warn!(file = %path.display(), "a fetched artefact is damaged and is fetched again");
            remove(&path);
            return None;
        }
        // One that cannot be touched goes sooner than it should: nothing else depends on it.
        let touched =
            File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(file = %path.display(), "cannot be touched: {error}");
        }
        Some(bytes)
    }

    /// Keeps an artefact, so that it is fetched once, where there is room: others that were not used for longest make
    /// it. Returns whether it is kept.
    pub(super) fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<bool, FileError> {
        let needed = bytes.len() as u64;
        if needed > self.most_bytes {
            return Ok(false);
        }
        files::create_folder(&self.folder)?;
        self.make_room(needed, &self.path(digest))?;
        let free = fs4::available_space(&self.folder)
            .map_err(FileError::io("ask for the free space of", &self.folder))?;
        if free < needed.saturating_add(self.floor_bytes) {
            tracing::warn!(
                free_mib = free >> 20,
                "the disk is almost full, so a fetched artefact is not kept"
            );
            return Ok(false);
        }
        files::write(&self.path(digest), bytes, Audience::Owner)?;
        Ok(true)
    }

    /// What came of an artefact before its connection broke.
    pub(super) fn partial(&self, digest: Digest) -> Vec<u8> {
        files::read(&self.partial_path(digest)).unwrap_or_default()
    }

    /// Keeps what came of an artefact, where there is room; with nothing, what was kept is deleted.
    pub(super) fn keep_partial(&self, digest: Digest, bytes: &[u8]) -> Result<(), FileError> {
        let path = self.partial_path(digest);
        // One at a time: of others nothing more comes.
        let is_part = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "part");
        self.paths().iter().filter(|path| is_part(path)).for_each(|path| remove(path));
        if bytes.is_empty() || bytes.len() as u64 > self.most_bytes {
            return Ok(());
        }
        files::create_folder(&self.folder)?;
        self.make_room(bytes.len() as u64, &path)?;
        let free = fs4::available_space(&self.folder)
            .map_err(FileError::io("ask for the free space of", &self.folder))?;
        if free < self.floor_bytes.saturating_add(bytes.len() as u64) {
            return Ok(());
        }
        files::write(&path, bytes, Audience::Owner)
    }

    fn partial_path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.part"))
    }

    /// The files that are there.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let Ok(list) = fs::read_dir(&self.folder) else { return Vec::new() };
        list.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect()
    }

    /// Removes what was not used for longest until `needed` bytes at `path` have room, and what a crash left half
    /// written.
    fn make_room(&self, needed: u64, path: &Path) -> Result<(), FileError> {
        let mut kept = Vec::new();
        let failed = |error| FileError::io("list the folder", &self.folder)(error);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (found, name) = (entry.path(), entry.file_name());
            if found.extension().is_some_and(|extension| extension == "aside") {
                remove(&found);
            } else if name.to_str().is_some_and(|name| name.parse::<Digest>().is_ok()) && found != path {
                let data = entry.metadata().map_err(FileError::io("inspect", &found))?;
                let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                kept.push(Kept { path: found, bytes: data.len(), used });
            }
        }
        kept.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.path.cmp(&b.path)));
        let mut held: u64 = kept.iter().map(|file| file.bytes).sum();
        for oldest in kept {
            if held.saturating_add(needed) <= self.most_bytes {
                break;
            }
            remove(&oldest.path);
            held = held.saturating_sub(oldest.bytes);
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("cannot remove {}: {error}; delete it by hand", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: usize = 1 << 20;

    fn artifact(number: u8) -> (Digest, Vec<u8>) {
        let bytes = vec![number; MIB];
        (Digest::of(&bytes), bytes)
    }

    /// As if it was used last so many seconds after the beginning of time.
    fn used_at(cache: &Cache, digest: Digest, secs: u64) {
        let file = File::options().write(true).open(cache.path(digest)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
    }

    fn files(cache: &Cache) -> usize {
        fs::read_dir(&cache.folder).unwrap().count()
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(folder.path(), 3);
        let all: Vec<(Digest, Vec<u8>)> = (1..=4).map(artifact).collect();
        for (at, (digest, bytes)) in all.iter().take(3).enumerate() {
            assert!(cache.keep(*digest, bytes).unwrap());
            used_at(&cache, *digest, 10 + at as u64);
        }
        // The first is used again, so the second is the oldest.
        assert_eq!(cache.get(all[0].0).as_ref(), Some(&all[0].1));
        assert!(cache.keep(all[3].0, &all[3].1).unwrap());
        assert_eq!(cache.get(all[1].0), None);
        for (digest, bytes) in [&all[0], &all[2], &all[3]] {
            assert_eq!(cache.get(*digest).as_ref(), Some(bytes));
        }
        assert_eq!(files(&cache), 3);
    }

    #[test]
    fn what_is_larger_than_all_the_room_is_not_kept_and_nothing_goes_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(folder.path(), 1);
        let (digest, bytes) = artifact(1);
        assert!(cache.keep(digest, &bytes).unwrap());
        let large = vec![2; MIB + 1];
        assert!(!cache.keep(Digest::of(&large), &large).unwrap());
        assert_eq!(cache.get(digest), Some(bytes));
        // No room at all is a way to keep nothing.
        let none = Cache::below(&folder.path().join("none"), 0);
        assert!(!none.keep(digest, &[1]).unwrap());
    }

    #[test]
    fn a_disk_that_is_almost_full_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (digest, bytes) = artifact(1);
        let full = Cache { floor_bytes: u64::MAX, ..Cache::below(folder.path(), 8) };
        assert!(!full.keep(digest, &bytes).unwrap());
        assert_eq!((full.get(digest), files(&full)), (None, 0));
    }

    #[test]
    fn a_damaged_artifact_and_what_a_crash_left_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(folder.path(), 8);
        let (digest, bytes) = artifact(1);
        assert!(cache.keep(digest, &bytes).unwrap());
        fs::write(cache.path(digest), b"something else").unwrap();
        assert_eq!(cache.get(digest), None);
        assert_eq!(files(&cache), 0);
        fs::write(cache.folder.join(format!("{digest}.aside")), b"half").unwrap();
        let (other, bytes) = artifact(2);
        assert!(cache.keep(other, &bytes).unwrap());
        assert_eq!(files(&cache), 1);
    }

    #[test]
    fn what_came_of_an_artifact_is_gone_on_with_and_goes_when_nothing_is_left_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(folder.path(), 1);
        let (digest, bytes) = artifact(1);
        assert!(cache.partial(digest).is_empty());
        cache.keep_partial(digest, &bytes).unwrap();
        assert_eq!(cache.partial(digest), bytes);
        assert!(cache.get(digest).is_none(), "a part is not the whole");
        cache.keep_partial(digest, &[]).unwrap();
        assert!(cache.partial(digest).is_empty() && cache.paths().is_empty());
        let none = Cache::below(folder.path(), 0);
        none.keep_partial(digest, &bytes).unwrap();
        assert!(none.partial(digest).is_empty(), "a user who gives no room keeps nothing");
    }
}
