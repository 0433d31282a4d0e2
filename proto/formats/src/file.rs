//! One file of a base: read once from the first byte to the last, and hashed as it passes.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use proto::files::{open_regular, read_regular};
use proto::ids::Digest;
use ring::digest::{Context, SHA256};

use crate::error::FormatError;

/// Bytes of a file of weights that are read at a time.
pub const BLOCK_BYTES: usize = 1 << 20;

/// What a pointer of git-lfs begins with.
pub(crate) const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The fewest bytes that are read of a header at a time.
const AHEAD_BYTES: usize = 1 << 16;

/// A file of weights that was opened and read up to the end of its header.
#[derive(Debug)]
pub struct OpenedFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// The file's first bytes.
    read: Vec<u8>,
    /// How many of them were asked for.
    taken: usize,
}

impl OpenedFile {
    /// Opens a file and reads nothing of it. Returns an error where it cannot be opened or is not a regular file.
    pub(crate) fn new(path: &Path) -> Result<Self, FormatError> {
        let file = open_regular(path).map_err(FormatError::read(path))?;
        let len = file.metadata().map_err(FormatError::read(path))?.len();
        Ok(Self { path: path.to_owned(), file, len, read: Vec::new(), taken: 0 })
    }

    /// Returns an error for a pointer of git-lfs, which is a text of some 130 bytes; takes nothing.
    pub(crate) fn refuse_pointer(&mut self) -> Result<(), FormatError> {
        if self.len < POINTER.len() as u64 {
            return Ok(());
        }
        let is_pointer = self.take(POINTER.len() as u64)? == POINTER;
        self.taken = 0;
        if is_pointer { Err(FormatError::LfsPointer(self.path.clone())) } else { Ok(()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The offset of the next byte that [`Self::take`] gives.
    pub(crate) fn position(&self) -> u64 {
        self.taken as u64
    }

    /// The next `count` bytes. Returns an error where the file is shorter, before memory is allocated for them.
    pub(crate) fn take(&mut self, count: u64) -> Result<&[u8], FormatError> {
        let end = self.position().checked_add(count).filter(|end| *end <= self.len);
        let Some(end) = end.and_then(|end| usize::try_from(end).ok()) else {
            let reason = format!("its {} bytes end within the header", self.len);
            return Err(FormatError::damaged(&self.path, reason));
        };
        if end > self.read.len() {
            // Ahead of what was asked for, because what is asked for is often a few bytes.
            let more = (end - self.read.len()).max(AHEAD_BYTES) as u64;
            let mut file = self.file.by_ref().take(more);
            file.read_to_end(&mut self.read).map_err(FormatError::read(&self.path))?;
        }
        let bytes = self.read.get(self.taken..end).ok_or_else(|| FormatError::length_changed(&self.path))?;
        self.taken = end;
        Ok(bytes)
    }
}

/// What follows the header of an [`OpenedFile`], hashed as it is read.
#[derive(Debug)]
pub struct FileStream<'a> {
    opened: OpenedFile,
    position: u64,
    hasher: &'a mut Hasher,
}

impl<'a> FileStream<'a> {
    /// Hashes what was taken of the file, and goes on from there.
    pub(crate) fn new(opened: OpenedFile, hasher: &'a mut Hasher) -> Self {
        hasher.begin(&opened.path, opened.len);
        hasher.0.update(opened.read.get(..opened.taken).unwrap_or_default());
        let position = opened.position();
        Self { opened, position, hasher }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.opened.path
    }

    /// Fills `block` with the next bytes. Returns an error where there are fewer.
    pub fn fill(&mut self, block: &mut [u8]) -> Result<(), FormatError> {
        let ahead = self.opened.read.get(self.opened.taken..).unwrap_or_default();
        let (from_memory, from_file) = block.split_at_mut(ahead.len().min(block.len()));
        from_memory.copy_from_slice(&ahead[..from_memory.len()]);
        self.opened.taken += from_memory.len();
        match self.opened.file.read_exact(from_file) {
            Ok(()) => {
                self.hasher.0.update(block);
                self.position += block.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(FormatError::length_changed(&self.opened.path))
            }
            Err(error) => Err(FormatError::read(&self.opened.path)(error)),
        }
    }

    /// Reads on up to the offset `position`; does nothing where that was passed already.
    pub fn skim_to(&mut self, position: u64) -> Result<(), FormatError> {
        let mut block = Vec::new();
        while self.position < position {
            let count = usize::try_from(position - self.position).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            block.resize(count, 0);
            self.fill(&mut block)?;
        }
        Ok(())
    }

    /// Hashes what is left. Returns an error where the file is not as long as it was.
    pub(crate) fn finish(mut self) -> Result<(), FormatError> {
        self.skim_to(self.opened.len)?;
        match self.opened.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(FormatError::length_changed(&self.opened.path)),
            Err(error) => Err(FormatError::read(&self.opened.path)(error)),
        }
    }
}

/// A small file of a base, read whole.
#[derive(Debug)]
pub struct SmallFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl SmallFile {
    /// Reads a file. Returns an error where it is not a regular file or has more than `most_bytes`.
    pub(crate) fn read(path: PathBuf, most_bytes: u64) -> Result<Self, FormatError> {
        match read_regular(&path, most_bytes) {
            Ok(bytes) if bytes.starts_with(POINTER) => Err(FormatError::LfsPointer(path)),
            Ok(bytes) => Ok(Self { path, bytes }),
            Err(source) => Err(FormatError::Read { path, source }),
        }
    }
}

/// The digest of a base under way; [`crate::BaseFiles::read`] says what goes into it.
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"nightshift base v1");
        Self(context)
    }

    pub(crate) fn add(&mut self, file: &SmallFile) {
        self.begin(&file.path, file.bytes.len() as u64);
        self.0.update(&file.bytes);
    }

    fn begin(&mut self, path: &Path, len: u64) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&len.to_le_bytes());
    }

    pub(crate) fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}
