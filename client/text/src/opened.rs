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
    if is_packed(head) {
        return Err(Unusable::Content(UnreadReason::Packed));
    }
    if head.starts_with(b"%PDF-") || head.starts_with(b"{\\rtf") {
        return Err(Unusable::Content(UnreadReason::Laid));
    }
    if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(Unusable::Content(UnreadReason::LfsPointer));
    }
    // Of UTF-32 the first two letters are these and two zeros.
    let is_wide = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
    if is_wide && head.get(2..4) != Some(&[0, 0]) {
        return Err(Unusable::Content(UnreadReason::Utf16));
    }
    if head.contains(&0) || is_wide {
        return Err(Unusable::Content(UnreadReason::NotText));
    }
    let first = head.strip_prefix(MARK).unwrap_or(head).trim_ascii_start().first().copied();
    Ok(Opened { reader, first })
}

/// Whether a file begins as those of zip, zstd, xz, lz4, 7-Zip, RAR or bzip2 do.
fn is_packed(head: &[u8]) -> bool {
    let magics =
        [&b"PK\x03\x04"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"\x04\x22\x4d\x18", b"7z\xbc\xaf", b"Rar!"];
    let is_bzip =
        head.starts_with(b"BZh") && head.get(3).is_some_and(u8::is_ascii_digit) && head.get(4) == Some(&b'1');
    is_bzip || magics.iter().any(|magic| head.starts_with(magic))
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
