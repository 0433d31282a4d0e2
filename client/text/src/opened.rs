//! A file of text, unpacked, and what its first bytes say of it.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::UnreadReason;

/// Why a file, or the rest of it, cannot be used.
pub(super) enum Unusable {
    /// The system refused, or what is packed is broken.
    Read(std::io::Error),
    /// What is in it.
    Content(UnreadReason),
}

impl From<std::io::Error> for Unusable {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error)
    }
}

/// A file of text and its first byte that is no space.
pub(super) struct Opened {
    /// From its first byte on.
    pub(super) reader: Box<dyn BufRead>,
    /// Where there is any.
    pub(super) first: Option<u8>,
}

/// What some programs write before UTF-8 text.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

/// Opens a file that begins like UTF-8 text, or like that packed by gzip, whatever its name; fails for another one.
pub(super) fn open(path: &Path) -> Result<Opened, Unusable> {
    let mut reader: Box<dyn BufRead> = Box::new(BufReader::new(proto::files::open_regular(path)?));
    if head(&mut *reader)?.starts_with(b"\x1f\x8b") {
        reader = Box::new(BufReader::new(MultiGzDecoder::new(reader)));
    }
    let head = head(&mut *reader)?;
    if head.starts_with(b"PAR1") {
        return Err(Unusable::Content(UnreadReason::Parquet));
    }
    if [&b"PK\x03\x04"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh9"]
        .iter()
        .any(|magic| head.starts_with(magic))
    {
        return Err(Unusable::Content(UnreadReason::Packed));
    }
    if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(Unusable::Content(UnreadReason::LfsPointer));
    }
    if head.contains(&0) || head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(Unusable::Content(UnreadReason::NotText));
    }
    let first = head.strip_prefix(MARK).unwrap_or(head).trim_ascii_start().first().copied();
    Ok(Opened { reader, first })
}

/// What is next to read, empty at the end only.
fn head(reader: &mut dyn BufRead) -> std::io::Result<&[u8]> {
    while let Err(error) = reader.fill_buf() {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    reader.fill_buf()
}
