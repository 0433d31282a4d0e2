//! What is too large for a record: files named by the SHA-256 of their bytes.
//!
//! A file is complete or absent, never changes, and is verified whenever it is
//! read: as a whole, or in parts (`artefacts/parts.rs`). Who refers to which artefact is written in the [store](shell::store),
//! after the artefact is on disk.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use proto::files::{self, Audience, FileError};
use ring::digest::{SHA256, digest};
use shell::store::FREE_SPACE_FLOOR_BYTES;

pub(crate) mod parts;

/// Why an artefact could not be kept or given back.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no artefact with this hash.
    #[error("artefact {hash} is not there")]
    Absent {
        /// The hash, in hex.
        hash: String,
    },
    /// The bytes on disk are not the ones that were kept.
    #[error("artefact {hash} is damaged: its bytes hash to {actual}")]
    Damaged {
        /// The hash that was asked for, in hex.
        hash: String,
        /// The hash of what is there, in hex.
        actual: String,
    },
}

/// A folder of artefacts.
#[derive(Debug)]
pub struct Artifacts {
    folder: PathBuf,
    /// What is written now, by its hash, and how many bytes of it. One writer of the same bytes at a time, because two
    /// would share an aside file; others do not wait for each other.
    writing: Mutex<BTreeMap<[u8; 32], u64>>,
    written: Condvar,
}

/// The turn to write one artefact.
struct Turn<'a> {
    artifacts: &'a Artifacts,
    hash: [u8; 32],
}

impl Artifacts {
    /// Opens a folder of artefacts, making it where there is none, and removes
    /// what an interrupted write left behind.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        files::create_folder(folder)?;
        for entry in fs::read_dir(folder).map_err(FileError::io("list", folder))? {
            let path = entry.map_err(FileError::io("list", folder))?.path();
            if path.extension().is_some_and(|end| end == "aside") {
                fs::remove_file(&path).map_err(FileError::io("remove", &path))?;
            }
        }
        files::sync_folder_of(folder)?;
        Ok(Self { folder: folder.to_owned(), writing: Mutex::default(), written: Condvar::new() })
    }

    /// Keeps bytes durably and returns their hash; what is there already (and
    /// whole) is not written again.
    pub fn put(&self, bytes: &[u8]) -> Result<[u8; 32], FileError> {
        let hash = sha256(bytes);
        let path = self.path(&hash);
        let turn = self.turn(hash);
        match files::read(&path) {
            Ok(there) if there == bytes => return Ok(hash),
            Ok(_) => {}
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
        self.check_room(turn.begins(bytes.len() as u64), &path)?;
        files::write(&path, bytes, Audience::Anyone)?;
        Ok(hash)
    }

    /// Waits until nobody else writes the same bytes.
    fn turn(&self, hash: [u8; 32]) -> Turn<'_> {
        let mut writing = self.lock();
        while writing.contains_key(&hash) {
            writing = self.written.wait(writing).unwrap_or_else(PoisonError::into_inner);
        }
        writing.insert(hash, 0);
        Turn { artifacts: self, hash }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], u64>> {
        // The map is whole after each change.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where so many bytes would leave too little room for the store, which breaks on a full disk.
    fn check_room(&self, bytes: u64, path: &Path) -> Result<(), FileError> {
        let free = fs4::available_space(&self.folder)
            .map_err(FileError::io("ask for the free space of", &self.folder))?;
        let needed = bytes.saturating_add(2 * FREE_SPACE_FLOOR_BYTES);
        if free >= needed {
            return Ok(());
        }
        let why = format!("{free} bytes are free, {needed} are needed; make room on that disk");
        Err(FileError::io("write", path)(io::Error::new(io::ErrorKind::StorageFull, why)))
    }

    /// The bytes with this hash. Fails when they are absent or damaged.
    pub fn get(&self, hash: &[u8; 32]) -> Result<Vec<u8>, ArtifactError> {
        let bytes = files::read(&self.path(hash)).map_err(|error| refusal(hash, error))?;
        let actual = sha256(&bytes);
        if actual == *hash {
            Ok(bytes)
        } else {
            Err(ArtifactError::Damaged { hash: hex::encode(hash), actual: hex::encode(actual) })
        }
    }

    /// Removes what nobody refers to any more. That it is absent is no failure.
    pub fn remove(&self, hash: &[u8; 32]) -> Result<(), FileError> {
        let _turn = self.turn(*hash);
        let path = self.path(hash);
        match fs::remove_file(&path).map_err(FileError::io("remove", &path)) {
            Err(error) if !error.is_absent() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The hashes that the names of the files are, and how large they are; what is in them is not read.
    pub fn list(&self) -> Result<Vec<([u8; 32], u64)>, FileError> {
        let failed = |error| FileError::io("list", &self.folder)(error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let mut hash = [0; 32];
            if hex::decode_to_slice(entry.file_name().as_encoded_bytes(), &mut hash).is_ok() {
                found.push((hash, entry.metadata().map_err(failed)?.len()));
            }
        }
        Ok(found)
    }

    /// The file with this hash, not verified.
    fn open_file(&self, hash: &[u8; 32]) -> Result<File, ArtifactError> {
        File::open(self.path(hash)).map_err(|source| self.io(hash, source))
    }

    /// What a failure to read an artefact means.
    fn io(&self, hash: &[u8; 32], source: io::Error) -> ArtifactError {
        refusal(hash, FileError::io("read", &self.path(hash))(source))
    }

    fn path(&self, hash: &[u8; 32]) -> PathBuf {
        self.folder.join(hex::encode(hash))
    }
}

impl Turn<'_> {
    /// So many bytes are written from now on. Returns how many are, by all who write.
    fn begins(&self, bytes: u64) -> u64 {
        let mut writing = self.artifacts.lock();
        writing.insert(self.hash, bytes);
        writing.values().sum()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.artifacts.lock().remove(&self.hash);
        self.artifacts.written.notify_all();
    }
}

fn refusal(hash: &[u8; 32], error: FileError) -> ArtifactError {
    if error.is_absent() {
        ArtifactError::Absent { hash: hex::encode(hash) }
    } else {
        ArtifactError::File(error)
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back_under_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let hash = artifacts.put(b"abc").unwrap();
        // FIPS 180-4's example.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(hash), known);
        assert_eq!(artifacts.put(b"abc").unwrap(), hash);
        assert_eq!(artifacts.get(&hash).unwrap(), b"abc");
    }

    #[test]
    fn damaged_bytes_are_refused_and_putting_them_again_mends_them() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let hash = artifacts.put(b"abc").unwrap();
        fs::write(folder.path().join(hex::encode(hash)), b"abd").unwrap();
        let error = artifacts.get(&hash).unwrap_err();
        assert!(matches!(error, ArtifactError::Damaged { .. }));
        artifacts.put(b"abc").unwrap();
        assert_eq!(artifacts.get(&hash).unwrap(), b"abc");
    }

    #[test]
    fn who_writes_the_same_waits_and_who_writes_something_else_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let turn = artifacts.turn(sha256(b"abc"));
        assert_eq!(turn.begins(7), 7);
        artifacts.put(b"abd").unwrap();
        std::thread::scope(|scope| {
            let same = scope.spawn(|| artifacts.put(b"abc").unwrap());
            assert!(artifacts.get(&sha256(b"abc")).is_err());
            drop(turn);
            assert_eq!(artifacts.get(&same.join().unwrap()).unwrap(), b"abc");
        });
        assert!(artifacts.lock().is_empty());
    }

    #[test]
    fn an_unknown_hash_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let error = artifacts.get(&[7; 32]).unwrap_err();
        assert!(matches!(error, ArtifactError::Absent { .. }));
    }

    #[test]
    fn an_interrupted_write_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("{}.aside", "00".repeat(32)));
        fs::write(&path, b"half").unwrap();
        Artifacts::open(folder.path()).unwrap();
        assert!(!path.exists());
    }
}
