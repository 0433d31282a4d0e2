//! A base's files, read once from the first byte to the last and hashed as they pass.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use proto::files::{open_regular, read_regular};
use proto::ids::Digest;

use crate::base::error::BaseError;

/// Bytes that are read at a time.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// The most bytes of a base's small file of this name; files of weights are never read whole.
pub(super) fn most_bytes(name: &str) -> u64 {
    match name {
        "tokenizer.json" => 64 << 20,
        "model.safetensors.index.json" => 8 << 20,
        "tokenizer_config.json" => 4 << 20,
        _ => 1 << 20,
    }
}

/// Bytes that are read at least, where a header is.
const AHEAD_BYTES: usize = 1 << 16;

/// A file of which only the beginning is known so far.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    file: File,
    len: u64,
    /// The file's first bytes.
    read: Vec<u8>,
    /// How many of them were asked for.
    taken: usize,
}

impl Opened {
    /// Opens a file; fails where it cannot be read.
    pub(super) fn new(path: &Path) -> Result<Self, BaseError> {
        let fail = |source| BaseError::Read { path: path.to_owned(), source };
        let file = open_regular(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        Ok(Self { path: path.to_owned(), file, len, read: Vec::new(), taken: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How much of it was taken.
    pub(super) fn position(&self) -> u64 {
        self.taken as u64
    }

    /// The next `count` bytes; fails where the file is shorter.
    pub(super) fn take(&mut self, count: u64) -> Result<&[u8], BaseError> {
        let end = self.position().checked_add(count).filter(|end| *end <= self.len);
        let Some(end) = end.and_then(|end| usize::try_from(end).ok()) else {
            return Err(damaged(&self.path, format!("its {} bytes end within the header", self.len)));
        };
        if end > self.read.len() {
            // Ahead of what was asked for, because what is asked for is often a few bytes.
            let more = (end - self.read.len()).max(AHEAD_BYTES) as u64;
            let fail = |source| BaseError::Read { path: self.path.clone(), source };
            self.file.by_ref().take(more).read_to_end(&mut self.read).map_err(fail)?;
        }
        let bytes = self.read.get(self.taken..end).ok_or_else(|| changed(&self.path))?;
        self.taken = end;
        Ok(bytes)
    }
}

pub(super) fn damaged(path: &Path, reason: String) -> BaseError {
    BaseError::Damaged { path: path.to_owned(), reason }
}

fn changed(path: &Path) -> BaseError {
    damaged(path, "its length changed while it was read".to_owned())
}

/// The rest of an [`Opened`] file, hashed as it is read.
pub(super) struct Stream<'a> {
    opened: Opened,
    position: u64,
    hasher: &'a mut Hasher,
}

impl<'a> Stream<'a> {
    /// Hashes what was taken of the file and goes on from there.
    pub(super) fn new(opened: Opened, hasher: &'a mut Hasher) -> Self {
        hasher.begin(&opened.path, opened.len);
        hasher.0.update(opened.read.get(..opened.taken).unwrap_or_default());
        let position = opened.position();
        Self { opened, position, hasher }
    }

    pub(super) fn path(&self) -> &Path {
        &self.opened.path
    }

    /// Fills `block` with the next bytes; fails where there are fewer.
    pub(super) fn fill(&mut self, block: &mut [u8]) -> Result<(), BaseError> {
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
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(changed(&self.opened.path))
            }
            Err(source) => Err(BaseError::Read { path: self.opened.path.clone(), source }),
        }
    }

    /// Goes to `position`, which must not be behind.
    pub(super) fn skim_to(&mut self, position: u64) -> Result<(), BaseError> {
        let mut block = Vec::new();
        while self.position < position {
            let count = usize::try_from(position - self.position).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            block.resize(count, 0);
            self.fill(&mut block)?;
        }
        Ok(())
    }

    /// Hashes what is left; fails when the file is not as long as it was.
    pub(super) fn finish(mut self) -> Result<(), BaseError> {
        self.skim_to(self.opened.len)?;
        match self.opened.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(changed(&self.opened.path)),
            Err(source) => Err(BaseError::Read { path: self.opened.path, source }),
        }
    }
}

/// A small file: its path and its bytes.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Small {
    /// Reads a file whole; fails on one that is too large to be what it should be.
    pub(super) fn read(path: PathBuf) -> Result<Self, BaseError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match read_regular(&path, most_bytes(name)) {
            Ok(bytes) => Ok(Self { path, bytes }),
            Err(source) => Err(BaseError::Read { path, source }),
        }
    }

    /// Reads a file whole, if there is one.
    pub(super) fn read_if_there(path: PathBuf) -> Result<Option<Self>, BaseError> {
        if path.exists() { Self::read(path).map(Some) } else { Ok(None) }
    }
}

/// The digest of a base under way; what goes into it is said at [`crate::base::Base::digest`].
pub(super) struct Hasher(ring::digest::Context);

impl Hasher {
    pub(super) fn new() -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(b"nightshift base v1");
        Self(context)
    }

    pub(super) fn add(&mut self, file: &Small) {
        self.begin(&file.path, file.bytes.len() as u64);
        self.0.update(&file.bytes);
    }

    fn begin(&mut self, path: &Path, len: u64) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&len.to_le_bytes());
    }

    pub(super) fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}
