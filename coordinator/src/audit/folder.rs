//! The files of the audit log: each is called by the number of its first entry, and a line of it is an entry.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use proto::files::{self, FileError};
use proto::ids::Digest;
use serde::Deserialize;

/// What a file takes at most, and one entry more; then another begins. A log that may take less than four of them has smaller
/// ones.
const FILE_BYTES: u64 = 4 << 20;

/// What of the log goes into one answer, and one entry more.
const PART_BYTES: usize = 1 << 20;

const END: &str = ".jsonl";

/// The folder, open for more.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The first entry of each file and its bytes, the oldest first.
    files: Vec<(u64, u64)>,
    open: Option<fs::File>,
    file_bytes: u64,
    /// Whether half a line may be at the end that could not be taken away again.
    is_torn: bool,
}

/// A file of the log, read.
#[derive(Clone, Debug)]
pub struct File {
    /// Its first entry's number, as its name says.
    pub first: u64,
    bytes: Vec<u8>,
}

/// What is read of a line without verifying it.
#[derive(Deserialize)]
struct Glance {
    entry: Numbered,
}

#[derive(Deserialize)]
struct Numbered {
    n: u64,
    before: Digest,
}

/// The files of a log, the oldest first; fails where one cannot be read.
pub fn lines(folder: &Path) -> Result<Vec<File>, FileError> {
    list(folder)?.into_iter().map(|(first, _)| File::read(folder, first)).collect()
}

impl File {
    fn read(folder: &Path, first: u64) -> Result<Self, FileError> {
        Ok(Self { first, bytes: files::read(&path_of(folder, first))? })
    }

    /// Its lines, without their ends. What follows the last end is no line: it was never finished.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
    }
}

impl Folder {
    /// Opens it, making it where there is none, and takes a last line away that was never finished.
    pub(super) fn open(path: &Path, most_bytes: u64) -> Result<Self, FileError> {
        files::create_folder(path)?;
        files::sync_folder_of(path)?;
        let file_bytes = FILE_BYTES.min(most_bytes / 4);
        let files = list(path)?;
        let mut folder = Self { path: path.to_owned(), files, open: None, file_bytes, is_torn: false };
        if let Some((first, bytes)) = folder.files.last().copied() {
            let whole: u64 = File::read(path, first)?.lines().map(|line| line.len() as u64 + 1).sum();
            folder.reopen(first)?;
            if whole < bytes {
                folder.cut(whole)?;
            }
        }
        Ok(folder)
    }

    /// The newest files, the oldest of them first.
    pub(super) fn newest(&self, count: usize) -> Result<Vec<File>, FileError> {
        let from = self.files.len().saturating_sub(count);
        self.files.iter().skip(from).map(|(first, _)| File::read(&self.path, *first)).collect()
    }

    /// What all files take.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Adds the line of entry `n`; on disk when this returns, or else not there at all.
    pub(super) fn append(&mut self, line: &[u8], n: u64) -> Result<(), FileError> {
        match self.files.last().copied() {
            Some((first, bytes)) if bytes < self.file_bytes => {
                if self.is_torn {
                    self.reopen(first)?;
                    self.cut(bytes)?;
                }
            }
            Some(_) | None => self.begin(n)?,
        }
        let Some(((first, bytes), file)) = self.files.last_mut().zip(self.open.as_mut()) else {
            let none = io::Error::other("no file is open");
            return Err(FileError::io("append to", &self.path)(none));
        };
        let written = file.write_all(line).and_then(|()| file.sync_data());
        if let Err(error) = written {
            let path = path_of(&self.path, *first);
            // Half a line would make the next one unreadable.
            self.is_torn = file.set_len(*bytes).and_then(|()| file.sync_data()).is_err();
            return Err(FileError::io("append to", &path)(error));
        }
        *bytes += line.len() as u64;
        Ok(())
    }

    /// Lines from entry `from` on; none where there is none so late.
    pub(super) fn read(&self, from: u64, last: u64) -> Result<Vec<u8>, FileError> {
        let mut part = Vec::new();
        if from > last {
            return Ok(part);
        }
        // The last one that begins at it or before; the oldest where all begin later.
        let at = self.files.partition_point(|(first, _)| *first <= from).saturating_sub(1);
        for (first, _) in self.files.iter().skip(at) {
            let file = File::read(&self.path, *first)?;
            for line in file.lines() {
                let wanted = serde_json::from_slice::<Glance>(line).is_ok_and(|line| line.entry.n >= from);
                if part.is_empty() && !wanted {
                    continue;
                }
                part.extend_from_slice(line);
                part.push(b'\n');
                if part.len() >= PART_BYTES {
                    return Ok(part);
                }
            }
        }
        Ok(part)
    }

    /// The number of the first entry that is left when the oldest file is removed, and the hash of the one before it; none
    /// where there is only one file.
    pub(super) fn without_the_oldest(&self) -> Result<Option<(u64, Digest)>, FileError> {
        let Some((second, _)) = self.files.get(1) else { return Ok(None) };
        let file = File::read(&self.path, *second)?;
        let first = file.lines().next().and_then(|line| serde_json::from_slice::<Glance>(line).ok());
        Ok(first.map(|line| (line.entry.n, line.entry.before)))
    }

    pub(super) fn remove_the_oldest(&mut self) -> Result<(), FileError> {
        let Some((first, _)) = self.files.first().copied() else { return Ok(()) };
        let path = path_of(&self.path, first);
        fs::remove_file(&path).map_err(FileError::io("remove", &path))?;
        self.files.remove(0);
        files::sync_folder(&self.path)
    }

    /// Begins another file.
    fn begin(&mut self, first: u64) -> Result<(), FileError> {
        let path = path_of(&self.path, first);
        let mut options = OpenOptions::new();
        // One that is there was begun, and nothing was written to it.
        options.create(true).append(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(&path).map_err(FileError::io("create", &path))?;
        files::sync_folder(&self.path)?;
        self.open = Some(file);
        self.files.retain(|(known, _)| *known != first);
        self.files.push((first, 0));
        self.is_torn = false;
        Ok(())
    }

    /// Another handle of the file that is written to, so that a test can have one that takes nothing.
    #[cfg(test)]
    pub(super) fn exchange(&mut self, file: fs::File) -> fs::File {
        self.open.replace(file).unwrap()
    }

    fn reopen(&mut self, first: u64) -> Result<(), FileError> {
        let path = path_of(&self.path, first);
        self.open = Some(OpenOptions::new().append(true).open(&path).map_err(FileError::io("open", &path))?);
        Ok(())
    }

    /// Takes away what follows the last whole line.
    fn cut(&mut self, whole: u64) -> Result<(), FileError> {
        let Some(((first, bytes), file)) = self.files.last_mut().zip(self.open.as_mut()) else {
            return Ok(());
        };
        let path = path_of(&self.path, *first);
        file.set_len(whole).and_then(|()| file.sync_data()).map_err(FileError::io("cut", &path))?;
        (*bytes, self.is_torn) = (whole, false);
        Ok(())
    }
}

fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}{END}"))
}

/// The files of a log, each by its first entry and its bytes; others are none of ours.
fn list(folder: &Path) -> Result<Vec<(u64, u64)>, FileError> {
    let failed = || FileError::io("read the folder", folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        let Some(digits) = name.to_str().and_then(|name| name.strip_suffix(END)) else { continue };
        let (Ok(first), 20) = (digits.parse(), digits.len()) else { continue };
        files.push((first, entry.metadata().map_err(failed())?.len()));
    }
    files.sort_unstable();
    Ok(files)
}
