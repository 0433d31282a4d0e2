//! Spools to files: one folder for each round, one file for each unfinished input.
//!
//! What is spooled is masked, and a round does not outlive its process, so nothing is synced, and what a crash
//! leaves behind is deleted at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Spool, Spooler};
use aggregation::DeviceIndex;
use proto::files::{self, FileError};
use proto::ids::SessionId;

/// Opens spools below a folder.
#[derive(Clone, Debug)]
pub struct FolderSpooler {
    root: PathBuf,
}

impl FolderSpooler {
    /// Spools below `root`, which is emptied.
    pub fn new(root: &Path) -> Result<Self, FileError> {
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::io("empty", root)(error));
            }
            Err(_) | Ok(()) => files::create_folder(root)?,
        }
        Ok(Self { root: root.to_owned() })
    }
}

impl Spooler for FolderSpooler {
    fn open(&self, session: SessionId) -> io::Result<Box<dyn Spool>> {
        let folder = self.root.join(session.to_string());
        fs::create_dir_all(&folder)?;
        Ok(Box::new(FolderSpool { folder }))
    }
}

#[derive(Debug)]
struct FolderSpool {
    folder: PathBuf,
}

impl FolderSpool {
    /// A file is opened for each chunk: a thousand open files would be more than many systems allow.
    fn file(&self, index: DeviceIndex, at: u64, options: &OpenOptions) -> io::Result<File> {
        let mut file = options.open(self.path(index))?;
        file.seek(SeekFrom::Start(at))?;
        Ok(file)
    }

    fn path(&self, index: DeviceIndex) -> PathBuf {
        self.folder.join(index.to_string())
    }
}

impl Spool for FolderSpool {
    fn write(&mut self, index: DeviceIndex, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(index, at, OpenOptions::new().write(true).create(true).truncate(false))?.write_all(bytes)
    }

    fn read(&mut self, index: DeviceIndex, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file(index, at, OpenOptions::new().read(true))?.read_exact(bytes)
    }

    fn remove(&mut self, index: DeviceIndex) {
        // What cannot be removed now is removed with the folder, or at the next start.
        drop(fs::remove_file(self.path(index)));
    }
}

impl Drop for FolderSpool {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

#[cfg(test)]
mod tests {
    use super::super::InMemory;

    use super::*;

    #[test]
    fn both_spools_give_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let on_disk = FolderSpooler::new(&folder.path().join("spool")).unwrap();
        let spoolers: [&dyn Spooler; 2] = [&on_disk, &InMemory];
        for spooler in spoolers {
            let mut spool = spooler.open(SessionId([1; 32])).unwrap();
            spool.write(3.into(), 0, b"abc").unwrap();
            spool.write(7.into(), 0, b"xyz").unwrap();
            spool.write(3.into(), 3, b"broken").unwrap();
            spool.write(3.into(), 3, b"defghi").unwrap();
            let mut bytes = [0; 5];
            spool.read(3.into(), 2, &mut bytes).unwrap();
            assert_eq!(&bytes, b"cdefg");
            assert!(spool.read(3.into(), 5, &mut bytes).is_err(), "only four are left");
            spool.remove(3.into());
            assert!(spool.read(3.into(), 0, &mut bytes).is_err());
            spool.read(7.into(), 0, &mut bytes[..3]).unwrap();
        }
    }

    #[test]
    fn nothing_is_left_of_a_round_or_of_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("spool");
        let spooler = FolderSpooler::new(&root).unwrap();
        let mut spool = spooler.open(SessionId([1; 32])).unwrap();
        spool.write(0.into(), 0, b"abc").unwrap();
        drop(spool);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);

        let mut spool = spooler.open(SessionId([2; 32])).unwrap();
        spool.write(0.into(), 0, b"abc").unwrap();
        drop(FolderSpooler::new(&root).unwrap());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }
}
