//! Bases that came from the coordinator, or are coming.
//!
//! `bases/DIGEST/` holds the files of a base that is whole, `bases/DIGEST.part/` what came so far of one. A file is gone on
//! with from its end. When the last byte is there, the digest over all files is compared with that of the base, and the
//! folder is renamed. Nothing of a base is understood here.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use formats::{BaseFiles, FormatError};
use proto::base::BaseFile;
use proto::ids::Digest;
use ring::digest::{Context, SHA256};

use crate::files::{self, FileError};

/// The free space of the disk that a base leaves alone.
const FLOOR_BYTES: u64 = 256 << 20;

/// Bytes of a file after which what was written of it is on the disk.
const SYNCED_EVERY: u64 = 64 << 20;

/// Why a base, or a part of one, cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum FetchedBaseError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The user gave less room.
    #[error(
        "the base {base} has {needed_mib} MiB, and policy.coordinator_bases_mib gives {most_mib}, of which bases that are \
         needed, or coming, take {held_mib}"
    )]
    NoRoom {
        /// The base.
        base: Digest,
        /// What it takes.
        needed_mib: u64,
        /// The user's limit.
        most_mib: u64,
        /// What others take that are needed or coming.
        held_mib: u64,
    },
    /// The disk is too full.
    #[error(
        "the base {base} needs {needed_mib} MiB more, and of the disk {free_mib} MiB are free, of which {} are left alone",
        FLOOR_BYTES >> 20
    )]
    DiskFull {
        /// The base.
        base: Digest,
        /// What is still to come.
        needed_mib: u64,
        /// What is free.
        free_mib: u64,
    },
    /// What came cannot be read.
    #[error(transparent)]
    Read(#[from] FormatError),
    /// A file that came is another.
    #[error("`{name}` of the base {base} came as another file than the list says; it was deleted")]
    AnotherFile {
        /// The base.
        base: Digest,
        /// The file.
        name: String,
    },
    /// It was told to stop meanwhile.
    #[error("it was told to stop")]
    Stopped,
    /// What came is not the base.
    #[error("what came as the base {base} has the digest {found} and was deleted")]
    Another {
        /// The base.
        base: Digest,
        /// The digest of what came.
        found: Digest,
    },
}

/// The bases below a device's folder.
#[derive(Clone, Debug)]
pub struct FetchedBases {
    folder: PathBuf,
}

impl FetchedBases {
    /// Those of the device whose folder this is.
    pub fn below(folder: &Path) -> Self {
        Self { folder: folder.join("bases") }
    }

    /// Those that are whole, in the order of their digests.
    pub fn whole(&self) -> Vec<Digest> {
        let mut whole: Vec<Digest> = self.names().iter().filter_map(|name| name.parse().ok()).collect();
        whole.sort_unstable();
        whole
    }

    /// The folder of a base that is whole.
    pub fn path(&self, base: Digest) -> PathBuf {
        self.folder.join(base.to_string())
    }

    /// Makes room for a base of these files: what came that is none of them is deleted, and so are bases that nothing needs,
    /// until all fit into so many MiB with what else is coming. Returns the bases that were deleted.
    ///
    /// Fails where the user's limit or the disk forbids it.
    pub(crate) fn make_room(
        &self,
        (base, listed): (Digest, &[BaseFile]),
        needed: &[Digest],
        most_mib: u64,
    ) -> Result<Vec<Digest>, FetchedBaseError> {
        files::create_folder(&self.folder)?;
        let part = self.part(base);
        // What is coming for others counts, and what came of what nobody waits for any more is deleted.
        let mut beside = 0_u64;
        for name in self.names() {
            let (Some(other), path) = (name.strip_suffix(PART), self.folder.join(&name)) else { continue };
            if path == part {
                continue;
            }
            if other.parse().is_ok_and(|other| needed.contains(&other)) {
                beside = beside.saturating_add(bytes_in(&path));
            } else {
                remove(&path)?;
            }
        }
        for name in names_in(&part) {
            if !listed.iter().any(|file| file.name == name) {
                let path = part.join(name);
                fs::remove_file(&path).map_err(FileError::io("delete", &path))?;
            }
        }
        let total = listed.iter().fold(0_u64, |total, file| total.saturating_add(file.bytes));
        let most = most_mib.saturating_mul(1 << 20);
        let sizes: Vec<(Digest, u64)> =
            self.whole().into_iter().map(|other| (other, bytes_in(&self.path(other)))).collect();
        let whole = sizes.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let (mut held, mut deleted) = (whole.saturating_add(beside), Vec::new());
        for (other, bytes) in sizes {
            if held.saturating_add(total) <= most {
                break;
            }
            if !needed.contains(&other) {
                remove(&self.path(other))?;
                held = held.saturating_sub(bytes);
                deleted.push(other);
            }
        }
        if held.saturating_add(total) > most {
            let (needed_mib, held_mib) = (total.div_ceil(1 << 20), held.div_ceil(1 << 20));
            return Err(FetchedBaseError::NoRoom { base, needed_mib, most_mib, held_mib });
        }
        let left = total.saturating_sub(bytes_in(&part));
        let free = fs4::available_space(&self.folder)
            .map_err(FileError::io("ask for the free space of", &self.folder))?;
        if free < left.saturating_add(FLOOR_BYTES) {
            let (needed_mib, free_mib) = (left.div_ceil(1 << 20), free >> 20);
            return Err(FetchedBaseError::DiskFull { base, needed_mib, free_mib });
        }
        files::create_folder(&part)?;
        Ok(deleted)
    }

    /// How much of a file is there. What is longer than the file is deleted.
    pub(crate) fn there(&self, base: Digest, file: &BaseFile) -> Result<u64, FetchedBaseError> {
        let path = self.part(base).join(&file.name);
        let there = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(FileError::io("inspect", &path)(error).into()),
        };
        if there > file.bytes {
            fs::remove_file(&path).map_err(FileError::io("delete", &path))?;
            return Ok(0);
        }
        Ok(there)
    }

    /// Adds bytes to the end of a file, which is at `there`. Fails where the disk is too full.
    pub(crate) fn append(
        &self,
        base: Digest,
        name: &str,
        there: u64,
        bytes: &[u8],
    ) -> Result<(), FetchedBaseError> {
        let path = self.part(base).join(name);
        let free = fs4::available_space(&self.folder)
            .map_err(FileError::io("ask for the free space of", &self.folder))?;
        if free < FLOOR_BYTES.saturating_add(bytes.len() as u64) {
            return Err(FetchedBaseError::DiskFull { base, needed_mib: 1, free_mib: free >> 20 });
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(FileError::io("open", &path))?;
        file.write_all(bytes).map_err(FileError::io("write", &path))?;
        // Now and then, so that the end of it takes no long time.
        let end = there.saturating_add(bytes.len() as u64);
        if there / SYNCED_EVERY != end / SYNCED_EVERY {
            file.sync_data().map_err(FileError::io("sync", &path))?;
        }
        Ok(())
    }

    /// Compares the hash of a file of which every byte has come; one that is another is deleted.
    pub(crate) fn check(
        &self,
        base: Digest,
        file: &BaseFile,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), FetchedBaseError> {
        let path = self.part(base).join(&file.name);
        let mut opened = files::open_regular(&path).map_err(FileError::io("open", &path))?;
        let (mut hash, mut block) = (Context::new(&SHA256), vec![0; 1 << 20]);
        loop {
            if !go_on() {
                return Err(FetchedBaseError::Stopped);
            }
            let read = opened.read(&mut block).map_err(FileError::io("read", &path))?;
            if read == 0 {
                break;
            }
            hash.update(block.get(..read).unwrap_or_default());
        }
        let mut found = Digest([0; 32]);
        found.0.copy_from_slice(hash.finish().as_ref());
        if found == file.digest {
            return Ok(());
        }
        fs::remove_file(&path).map_err(FileError::io("delete", &path))?;
        Err(FetchedBaseError::AnotherFile { base, name: file.name.clone() })
    }

    /// Compares the digest of a base of which every byte has come, and gives it its place. What is something else is
    /// deleted.
    pub(crate) fn complete(
        &self,
        base: Digest,
        listed: &[BaseFile],
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), FetchedBaseError> {
        let part = self.part(base);
        let paths: Vec<PathBuf> = listed.iter().map(|file| part.join(&file.name)).collect();
        for path in &paths {
            let synced = files::open_regular(path).and_then(|file| file.sync_all());
            synced.map_err(FileError::io("sync", path))?;
        }
        let found = BaseFiles::digest_of(&paths, go_on)?.ok_or(FetchedBaseError::Stopped)?;
        if found != base {
            remove(&part)?;
            return Err(FetchedBaseError::Another { base, found });
        }
        files::sync_folder(&part)?;
        let place = self.path(base);
        fs::rename(&part, &place).map_err(FileError::io("rename", &part))?;
        Ok(files::sync_folder(&self.folder)?)
    }

    /// Deletes a base, whole or not. Returns its folders that were there.
    pub(crate) fn delete(&self, base: Digest) -> Result<Vec<PathBuf>, FetchedBaseError> {
        let mut there = vec![self.path(base), self.part(base)];
        there.retain(|path| path.exists());
        there.iter().try_for_each(|path| remove(path))?;
        Ok(there)
    }

    fn part(&self, base: Digest) -> PathBuf {
        self.folder.join(format!("{base}{PART}"))
    }

    fn names(&self) -> Vec<String> {
        names_in(&self.folder)
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    list.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// What the name of a folder ends in while its base is coming.
const PART: &str = ".part";

fn remove(folder: &Path) -> Result<(), FileError> {
    fs::remove_dir_all(folder).map_err(FileError::io("delete", folder))
}

/// What the files of a folder take.
fn bytes_in(folder: &Path) -> u64 {
    let list = fs::read_dir(folder).into_iter().flatten();
    list.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A base of one small file each.
    fn fetched(folder: &Path, bases: &[(u8, usize)]) -> FetchedBases {
        let bases_of = FetchedBases::below(folder);
        for (name, bytes) in bases {
            let path = bases_of.path(Digest([*name; 32]));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("model.gguf"), vec![1; *bytes]).unwrap();
        }
        bases_of
    }

    fn file(name: &str, bytes: u64) -> BaseFile {
        BaseFile { name: name.to_owned(), bytes, digest: Digest([9; 32]) }
    }

    #[test]
    fn room_is_made_by_bases_that_no_version_needs_and_never_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let bases = fetched(folder.path(), &[(1, 1 << 20), (2, 1 << 20), (3, 1 << 20)]);
        let (new, used) = (Digest([7; 32]), Digest([1; 32]));
        let listed = [file("config.json", 1 << 20)];
        assert_eq!(bases.make_room((new, &listed), &[used], 4).unwrap(), []);
        assert_eq!(bases.make_room((new, &listed), &[used], 3).unwrap(), [Digest([2; 32])]);
        let error = bases.make_room((new, &listed), &[used], 1).unwrap_err().to_string();
        assert!(
            error.contains("has 1 MiB") && error.contains("gives 1, of which") && error.ends_with("take 1")
        );
        assert_eq!(bases.whole(), [used]);
    }

    #[test]
    fn what_came_of_another_base_is_deleted_when_one_begins_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let bases = fetched(folder.path(), &[]);
        let (first, second) = (Digest([1; 32]), Digest([2; 32]));
        let listed = [file("config.json", 5)];
        bases.make_room((first, &listed), &[], 1).unwrap();
        bases.append(first, "config.json", 0, b"ab").unwrap();
        bases.make_room((first, &listed), &[], 1).unwrap();
        assert_eq!(bases.there(first, &listed[0]).unwrap(), 2);
        bases.make_room((second, &listed), &[], 1).unwrap();
        assert_eq!(bases.there(first, &listed[0]).unwrap(), 0);
    }

    #[test]
    fn what_is_not_listed_is_deleted_and_what_comes_for_others_counts() {
        let folder = tempfile::tempdir().unwrap();
        let bases = fetched(folder.path(), &[]);
        let (base, other) = (Digest([1; 32]), Digest([2; 32]));
        let long = vec![7; (1 << 20) - 5];
        // Whoever names another file each time fills nothing.
        for name in ["a.bin", "b.bin", "c.bin"] {
            let listed = [file(name, 1 << 20)];
            bases.make_room((base, &listed), &[base], 1).unwrap();
            assert_eq!(bases.there(base, &listed[0]).unwrap(), 0);
            bases.append(base, name, 0, &long).unwrap();
        }
        assert_eq!(names_in(&bases.part(base)), ["c.bin"]);
        let listed = [file("config.json", 1 << 20)];
        let error = bases.make_room((other, &listed), &[base, other], 1).unwrap_err();
        assert!(matches!(error, FetchedBaseError::NoRoom { .. }), "{error}");
        assert!(bases.make_room((other, &listed), &[base, other], 2).is_ok());
    }

    #[test]
    fn a_file_that_came_as_another_is_deleted_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (bases, base) = (fetched(folder.path(), &[]), Digest([1; 32]));
        let good = BaseFile { digest: Digest::of(b"ab"), ..file("config.json", 2) };
        let bad = file("model.safetensors", 2);
        bases.make_room((base, &[good.clone(), bad.clone()]), &[], 1).unwrap();
        for of in [&good, &bad] {
            bases.append(base, &of.name, 0, b"ab").unwrap();
        }
        assert!(matches!(bases.check(base, &good, &|| false), Err(FetchedBaseError::Stopped)));
        bases.check(base, &good, &|| true).unwrap();
        let error = bases.check(base, &bad, &|| true).unwrap_err().to_string();
        assert!(error.contains("`model.safetensors`") && error.contains("it was deleted"), "{error}");
        assert_eq!((bases.there(base, &good).unwrap(), bases.there(base, &bad).unwrap()), (2, 0));
    }

    #[test]
    fn a_file_that_is_longer_than_it_should_be_begins_anew_and_what_is_another_base_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (bases, base) = (fetched(folder.path(), &[]), Digest([1; 32]));
        let listed = [file("config.json", 2)];
        bases.make_room((base, &listed), &[], 1).unwrap();
        bases.append(base, "config.json", 0, b"abc").unwrap();
        assert_eq!(bases.there(base, &listed[0]).unwrap(), 0);
        bases.append(base, "config.json", 0, b"{}").unwrap();
        let error = bases.complete(base, &listed, &|| true).unwrap_err();
        let FetchedBaseError::Another { found, .. } = error else { panic!("{error}") };
        assert_eq!(bases.delete(base).unwrap(), Vec::<PathBuf>::new());
        // Whoever expected that has it.
        bases.make_room((found, &listed), &[], 1).unwrap();
        bases.append(found, "config.json", 0, b"{}").unwrap();
        bases.complete(found, &listed, &|| true).unwrap();
        assert_eq!(bases.whole(), [found]);
        assert_eq!(fs::read(bases.path(found).join("config.json")).unwrap(), b"{}");
    }
}
