//! The folder in which the devices of a load are kept: their keys, by what they are enrolled, and what they remember.
//!
//! It is its owner's alone, as the folder of any device is, and so are the files in it. A device is a folder of its number.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use client::enrollment::Membership;
use proto::files::{self, Audience, FileError, own_folder, read_regular};
use proto::ids::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::memory::Memory;
use crate::shard::Shard;

const DEVICES: &str = "devices";
const LOCKS: &str = "locks";
const BASES: &str = "bases.json";
const ENROLLED: &str = "enrolled.json";
const MEMORY: &str = "memory.json";

/// What of a folder shows that it was given to a load, and no other purpose.
const OURS: [&str; 3] = [DEVICES, LOCKS, BASES];

/// The longest file that is read.
const MOST_BYTES: u64 = 16 << 20;

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("{} does not hold what this program wrote: {why}; delete it, and the device enrolls anew with a new token", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        why: serde_json::Error,
    },
    /// Another process plays these devices.
    #[error("the devices of shard {shard} in {} are played by another process", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Whose.
        shard: Shard,
    },
    /// Another process plays some of these devices.
    #[error(
        "another process plays devices of {} as one of {other} shards, and this one is one of {count}: they would play the same \
         devices",
        folder.display()
    )]
    OtherShards {
        /// The folder.
        folder: PathBuf,
        /// How many it says that there are.
        other: u32,
        /// How many there are here.
        count: u32,
    },
}

/// The folder, held as long as this is.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    _lock: File,
}

impl Place {
    /// Opens the folder, or makes it, for the devices of one shard. Fails where another process plays any of them.
    pub(crate) fn open(folder: &Path, shard: Shard) -> Result<Self, PlaceError> {
        if let Some(closed) = own_folder(folder, &OURS)? {
            tracing::warn!("{closed}");
        }
        files::create_folder(&folder.join(DEVICES))?;
        let locks = folder.join(LOCKS);
        files::create_folder(&locks)?;
        let _door = door(&locks)?;
        let path = locks.join(format!("{}-of-{}", shard.index, shard.count));
        let lock = lock_file(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PlaceError::InUse { folder: folder.to_owned(), shard });
            }
            Err(TryLockError::Error(error)) => return Err(FileError::io("lock", &path)(error).into()),
        }
        for (count, path) in others(&locks)? {
            let is_held = || -> Result<bool, FileError> {
                Ok(matches!(lock_file(&path)?.try_lock(), Err(TryLockError::WouldBlock)))
            };
            if count != shard.count && is_held()? {
                let folder = folder.to_owned();
                return Err(PlaceError::OtherShards { folder, other: count, count: shard.count });
            }
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// What is kept of a device.
    pub(crate) fn device(&self, number: u32) -> DevicePlace {
        DevicePlace { folder: self.folder.join(DEVICES).join(format!("{number:06}")) }
    }

    /// The bases that tasks of the coordinator were about.
    pub(crate) fn bases(&self) -> Result<BTreeSet<Digest>, PlaceError> {
        Ok(read(&self.folder.join(BASES))?.unwrap_or_default())
    }

    /// The same for the next run, with what other shards learned of them meanwhile.
    pub(crate) fn keep_bases(&self, bases: &BTreeSet<Digest>) -> Result<(), PlaceError> {
        let _door = door(&self.folder.join(LOCKS))?;
        let all: BTreeSet<Digest> = self.bases()?.union(bases).copied().collect();
        write(&self.folder.join(BASES), &all)
    }
}

/// Whoever holds it is alone in looking at what all shards share.
fn door(locks: &Path) -> Result<File, FileError> {
    let door = lock_file(&locks.join("door"))?;
    door.lock().map_err(FileError::io("lock", locks))?;
    Ok(door)
}

/// How many shards the locks beside this one are of, with their files.
fn others(locks: &Path) -> Result<Vec<(u32, PathBuf)>, FileError> {
    let mut others = Vec::new();
    for entry in fs::read_dir(locks).map_err(FileError::io("list", locks))? {
        let path = entry.map_err(FileError::io("list", locks))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(count) = name.split_once("-of-").and_then(|(_, count)| count.parse().ok()) {
            others.push((count, path));
        }
    }
    Ok(others)
}

fn lock_file(path: &Path) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.open(path).map_err(FileError::io("open", path))
}

/// What is kept of one device.
#[derive(Clone, Debug)]
pub(crate) struct DevicePlace {
    folder: PathBuf,
}

impl DevicePlace {
    /// Where its keys are, which `client::keys` makes and guards.
    pub(crate) fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// By what it is enrolled; none where it is not.
    pub(crate) fn membership(&self) -> Result<Option<Membership>, PlaceError> {
        read(&self.folder.join(ENROLLED))
    }

    pub(crate) fn keep_membership(&self, membership: &Membership) -> Result<(), PlaceError> {
        write(&self.folder.join(ENROLLED), membership)
    }

    /// What it remembers.
    pub(crate) fn memory(&self) -> Result<Memory, PlaceError> {
        Ok(read(&self.folder.join(MEMORY))?.unwrap_or_default())
    }

    pub(crate) fn keep_memory(&self, memory: &Memory) -> Result<(), PlaceError> {
        write(&self.folder.join(MEMORY), memory)
    }

    /// Takes away what was made of a device that its coordinator does not take.
    pub(crate) fn remove(&self) -> Result<(), PlaceError> {
        match fs::remove_dir_all(&self.folder) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(FileError::io("remove", &self.folder)(error).into()),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PlaceError> {
    let bytes = match read_regular(path, MOST_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::io("read", path)(error).into()),
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|why| PlaceError::Damaged { path: path.to_owned(), why })
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), PlaceError> {
    let bytes = serde_json::to_vec(value);
    let bytes = bytes.map_err(|why| PlaceError::Damaged { path: path.to_owned(), why })?;
    Ok(files::write(path, &bytes, Audience::Owner)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_processes_play_one_device() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("load");
        let open = |shard: &str| Place::open(&path, shard.parse().unwrap());
        let first = open("0/2").unwrap();
        let second = open("1/2").unwrap();
        assert!(matches!(open("0/2"), Err(PlaceError::InUse { .. })));
        let said = open("0/1").unwrap_err().to_string();
        assert!(said.contains("one of 2 shards, and this one is one of 1"), "{said}");
        drop((first, second));
        open("0/1").unwrap();
    }

    #[test]
    fn what_shards_keep_at_the_same_time_is_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = |index| Place::open(folder.path(), Shard { index, count: 4 }).unwrap();
        let places: Vec<Place> = (0..4).map(place).collect();
        std::thread::scope(|scope| {
            for (index, place) in (0..).zip(&places) {
                scope.spawn(move || {
                    for number in 0..10 {
                        place.keep_bases(&BTreeSet::from([Digest([index * 10 + number; 32])])).unwrap();
                    }
                });
            }
        });
        assert_eq!(places[0].bases().unwrap(), (0..40).map(|number| Digest([number; 32])).collect());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_its_owners_alone_and_so_is_what_a_device_remembers() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("load");
        let place = Place::open(&path, Shard::WHOLE).unwrap();
        let device = place.device(7);
        assert!(device.membership().unwrap().is_none());
        files::create_folder(&device.folder).unwrap();
        device.keep_memory(&Memory::default()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&device.folder.join(MEMORY)), 0o600);
        place.keep_bases(&BTreeSet::from([Digest([1; 32])])).unwrap();
        assert_eq!(place.bases().unwrap(), BTreeSet::from([Digest([1; 32])]));
        fs::write(device.folder.join(MEMORY), "{}x").unwrap();
        let said = device.memory().unwrap_err().to_string();
        assert!(said.contains("memory.json does not hold"), "{said}");
        device.remove().unwrap();
        device.remove().unwrap();
        assert!(!device.folder.exists());
    }
}
