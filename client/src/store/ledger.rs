//! An append-only file of records, each chained by its hash to all before it.
//!
//! A record is: format version (1 byte) ‖ payload length (4, big-endian) ‖
//! header check (4) ‖ payload ‖ hash (32), with
//!
//! - hash = SHA-256("nightshift ledger v1" ‖ hash before ‖ length ‖ payload),
//! - header check = the first bytes of SHA-256("nightshift ledger header v1" ‖
//!   version ‖ length).
//!
//! A record is on disk before [`Ledger::append`] returns. A crash can leave
//! the last one torn: the file ends inside it, or its end was never written
//! and reads as zeros. Such a record was never acknowledged and is cut off at
//! the next opening. Anything else that does not verify is damage, and refused.
//! The chain alone cannot show that whole records were cut off the end;
//! [`Ledger::head`] is what to compare for that.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};
use serde::{Serialize, de::DeserializeOwned};

use crate::files::{self, FileError};

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 9;
const HASH_BYTES: usize = 32;
const PAYLOAD_LIMIT_BYTES: usize = 4096;

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process has the ledger open.
    #[error("the ledger {} is in use by another process; stop that process first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A record does not verify.
    #[error(
        "the ledger {} is damaged at record {record}, byte {offset}, and no backup of it knows what was spent since; keep \
         the folder for inquiry and enroll anew in an empty folder",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The record's number, from 0.
        record: u64,
        /// Where it begins.
        offset: u64,
    },
    /// A record is whole but not of the type that was asked for.
    #[error("record {record} of the ledger is not of the expected form: {source}")]
    Unreadable {
        /// The record's number, from 0.
        record: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An entry cannot be written as JSON.
    #[error("the ledger entry cannot be written: {0}")]
    Unwritable(serde_json::Error),
    /// An entry does not fit into one record.
    #[error("the ledger entry takes {bytes} bytes, a record has at most {PAYLOAD_LIMIT_BYTES}")]
    TooLarge {
        /// What it would take.
        bytes: usize,
    },
    /// An earlier append failed half-way, so nobody knows what is on disk.
    #[error("the ledger {} cannot be written since a write failed", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}

impl LedgerError {
    /// Whether it may pass: the disk is full or was read-only.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::File(_) | Self::Stopped { .. } => true,
            Self::InUse { .. }
            | Self::Damaged { .. }
            | Self::Unreadable { .. }
            | Self::Unwritable(_)
            | Self::TooLarge { .. } => false,
        }
    }
}

/// The ledger, open; this process alone has it.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    path: PathBuf,
    payloads: Vec<Vec<u8>>,
    /// The hash after each record.
    hashes: Vec<[u8; HASH_BYTES]>,
    length_bytes: u64,
    stopped: bool,
}

/// A ledger that was opened, and what opening it did.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// Bytes of a torn last record that were cut off; 0 after an orderly end.
    pub torn_bytes: u64,
}

impl Ledger {
    /// Opens the ledger in a file, making it where there is none, verifies the
    /// whole chain, and cuts a torn last record off. Fails when another
    /// process has it open, or when it is damaged.
    pub fn open(path: &Path) -> Result<Opened, LedgerError> {
        let mut file = open_file(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LedgerError::InUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(FileError::io("lock", path)(source).into());
            }
        }
        let (chain, torn_bytes) = read_whole(&mut file, path)?;
        files::sync_folder_of(path)?;
        let ledger = Self {
            file,
            path: path.to_owned(),
            payloads: chain.payloads,
            hashes: chain.hashes,
            length_bytes: chain.length_bytes,
            stopped: false,
        };
        Ok(Opened { ledger, torn_bytes })
    }

    /// Appends an entry; when this returns, it outlives a power loss. After a
    /// failed write the ledger takes no further entry.
    pub fn append<T: Serialize>(&mut self, entry: &T) -> Result<(), LedgerError> {
        if self.stopped {
            return Err(LedgerError::Stopped { path: self.path.clone() });
        }
        let payload = serde_json::to_vec(entry).map_err(LedgerError::Unwritable)?;
        let too_large = || LedgerError::TooLarge { bytes: payload.len() };
        if payload.len() > PAYLOAD_LIMIT_BYTES {
            return Err(too_large());
        }
        let length = u32::try_from(payload.len()).map_err(|_| too_large())?;
        let head = chained(&self.head().1, length, &payload);
        let record = [header(length).as_slice(), &payload, &head].concat();
        self.stopped = true;
        self.file
            .write_all(&record)
            .and_then(|()| self.file.sync_data())
            .map_err(FileError::io("append to", &self.path))?;
        self.stopped = false;
        self.length_bytes += byte_count(record.len());
        self.hashes.push(head);
        self.payloads.push(payload);
        Ok(())
    }

    /// Whether an append failed half-way, so that nobody knows what is on disk.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Reads what is on disk after an append that failed half-way, and takes entries again. What was acknowledged is
    /// there; the one that failed is there whole, or is cut off. Fails where what is on disk is anything else, and where
    /// the disk still fails.
    pub fn recover(&mut self) -> Result<(), LedgerError> {
        if !self.stopped {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(0)).map_err(FileError::io("seek in", &self.path))?;
        let (chain, _torn) = read_whole(&mut self.file, &self.path)?;
        if !chain.hashes.starts_with(&self.hashes) {
            return Err(LedgerError::Damaged {
                path: self.path.clone(),
                record: record_count(&chain.payloads),
                offset: chain.length_bytes,
            });
        }
        (self.payloads, self.hashes, self.length_bytes) = (chain.payloads, chain.hashes, chain.length_bytes);
        self.stopped = false;
        Ok(())
    }

    /// All entries, the oldest first. Fails when one is not a `T`.
    pub fn entries<T: DeserializeOwned>(&self) -> Result<Vec<T>, LedgerError> {
        self.payloads
            .iter()
            .zip(0..)
            .map(|(payload, record)| {
                serde_json::from_slice(payload).map_err(|source| LedgerError::Unreadable { record, source })
            })
            .collect()
    }

    /// How many entries there are, and the hash that stands for all of them.
    pub fn head(&self) -> (usize, [u8; 32]) {
        (self.payloads.len(), self.hashes.last().copied().unwrap_or_default())
    }

    /// The hash that stands for the first `records` entries; `None` where there are fewer.
    pub fn hash_of_first(&self, records: usize) -> Option<[u8; 32]> {
        match records.checked_sub(1) {
            None => Some([0; HASH_BYTES]),
            Some(last) => self.hashes.get(last).copied(),
        }
    }

    /// Reads the file again and walks the chain. Fails when it is not what was
    /// written, whole.
    pub fn verify(&self) -> Result<(), LedgerError> {
        let bytes = files::read(&self.path)?;
        let chain = walk(&bytes, &self.path)?;
        if chain.hashes == self.hashes && byte_count(bytes.len()) == self.length_bytes {
            Ok(())
        } else {
            Err(LedgerError::Damaged {
                path: self.path.clone(),
                record: record_count(&chain.payloads),
                offset: chain.length_bytes,
            })
        }
    }
}

struct Chain {
    payloads: Vec<Vec<u8>>,
    /// The hash after each record.
    hashes: Vec<[u8; HASH_BYTES]>,
    length_bytes: u64,
}

enum Next<'a> {
    Record { payload: &'a [u8], head: [u8; HASH_BYTES], rest: &'a [u8] },
    Torn,
    Damaged,
}

/// Walks the file from its beginning and cuts a torn last record off; how many bytes that was. What is written next comes
/// after what is left.
fn read_whole(file: &mut File, path: &Path) -> Result<(Chain, u64), LedgerError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    let chain = walk(&bytes, path)?;
    let torn_bytes = byte_count(bytes.len()) - chain.length_bytes;
    if torn_bytes > 0 {
        file.set_len(chain.length_bytes).map_err(FileError::io("cut", path))?;
        tracing::warn!(torn_bytes, "the ledger's last record was torn and is cut off");
    }
    file.seek(SeekFrom::Start(chain.length_bytes)).map_err(FileError::io("seek in", path))?;
    file.sync_all().map_err(FileError::io("sync", path))?;
    Ok((chain, torn_bytes))
}

/// Walks the chain from its beginning up to its end or a torn record.
fn walk(bytes: &[u8], path: &Path) -> Result<Chain, LedgerError> {
    let mut chain = Chain { payloads: Vec::new(), hashes: Vec::new(), length_bytes: 0 };
    let mut rest = bytes;
    while !rest.is_empty() {
        match next(rest, &chain.hashes.last().copied().unwrap_or_default()) {
            Next::Record { payload, head, rest: behind } => {
                chain.payloads.push(payload.to_vec());
                chain.hashes.push(head);
                chain.length_bytes += byte_count(rest.len() - behind.len());
                rest = behind;
            }
            Next::Torn => break,
            Next::Damaged => {
                return Err(LedgerError::Damaged {
                    path: path.to_owned(),
                    record: record_count(&chain.payloads),
                    offset: chain.length_bytes,
                });
            }
        }
    }
    Ok(chain)
}

fn next<'a>(bytes: &'a [u8], before: &[u8; HASH_BYTES]) -> Next<'a> {
    let Some((head_bytes, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Next::Torn;
    };
    let [_, a, b, c, d, ..] = *head_bytes;
    let length = u32::from_be_bytes([a, b, c, d]);
    if header(length) != *head_bytes {
        // A part of the header, then nothing but zeros to the end of the file.
        return if bytes.iter().skip(HEADER_BYTES).all(|byte| *byte == 0) && head_bytes.ends_with(&[0]) {
            Next::Torn
        } else {
            Next::Damaged
        };
    }
    let Ok(length_bytes) = usize::try_from(length) else {
        return Next::Damaged;
    };
    if length_bytes > PAYLOAD_LIMIT_BYTES {
        return Next::Damaged;
    }
    let Some((payload, behind)) = body.split_at_checked(length_bytes) else {
        return Next::Torn;
    };
    let Some((hash, rest)) = behind.split_first_chunk::<HASH_BYTES>() else {
        return Next::Torn;
    };
    let head = chained(before, length, payload);
    if head == *hash {
        Next::Record { payload, head, rest }
    } else if ends_in_zeros(behind, &head) {
        Next::Torn
    } else {
        Next::Damaged
    }
}

/// Whether the end of the file holds a hash up to some byte, and zeros behind.
fn ends_in_zeros(end: &[u8], hash: &[u8; HASH_BYTES]) -> bool {
    let written = end.iter().zip(hash).take_while(|(a, b)| a == b).count();
    end.iter().skip(written).all(|byte| *byte == 0)
}

fn header(length: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    let mut context = Context::new(&SHA256);
    context.update(b"nightshift ledger header v1");
    context.update(&[FORMAT, a, b, c, d]);
    let digest = context.finish();
    let mut header = [FORMAT, a, b, c, d, 0, 0, 0, 0];
    for (to, from) in header.iter_mut().skip(5).zip(digest.as_ref()) {
        *to = *from;
    }
    header
}

fn chained(before: &[u8; HASH_BYTES], length: u32, payload: &[u8]) -> [u8; HASH_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(b"nightshift ledger v1");
    context.update(before);
    context.update(&length.to_be_bytes());
    context.update(payload);
    let mut hash = [0; HASH_BYTES];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}

fn open_file(path: &Path) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    // A named pipe would keep the program waiting.
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        let why = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(FileError::io("open", path)(why));
    }
    options.open(path).map_err(FileError::io("open", path))
}

/// Lossless: `usize` is at most 64 bits on every platform that Rust supports.
fn byte_count(length: usize) -> u64 {
    length as u64
}

fn record_count(payloads: &[Vec<u8>]) -> u64 {
    byte_count(payloads.len())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn entries_are_there_after_a_restart_in_order() {
        let (_folder, path) = ledger_of(&["one", "two", "three"]);
        let opened = Ledger::open(&path).unwrap();
        assert_eq!(opened.torn_bytes, 0);
        let entries: Vec<String> = opened.ledger.entries().unwrap();
        assert_eq!(entries, ["one", "two", "three"]);
        opened.ledger.verify().unwrap();
    }

    #[test]
    fn a_torn_last_record_is_cut_off_wherever_it_is_torn() {
        let (_folder, path) = ledger_of(&["one", "two"]);
        let whole = fs::read(&path).unwrap();
        let first_bytes = whole.len() / 2;
        for length in first_bytes + 1..whole.len() {
            for zeros in [0, whole.len() - length] {
                let mut torn = whole[..length].to_vec();
                torn.resize(length + zeros, 0);
                if torn == whole {
                    continue;
                }
                fs::write(&path, &torn).unwrap();
                let mut opened = Ledger::open(&path).unwrap();
                assert_eq!(opened.torn_bytes, (torn.len() - first_bytes) as u64);
                opened.ledger.append(&"again").unwrap();
                opened.ledger.verify().unwrap();
                let entries: Vec<String> = opened.ledger.entries().unwrap();
                assert_eq!(entries, ["one", "again"]);
            }
        }
    }

    #[test]
    fn after_an_append_that_failed_half_way_what_is_on_disk_is_found_out() {
        let (_two, longer) = ledger_of(&["one", "two"]);
        let longer = fs::read(longer).unwrap();
        for (there, expected) in
            [(longer.len(), vec!["one", "two", "three"]), (longer.len() - 1, vec!["one", "three"])]
        {
            let (_folder, path) = ledger_of(&["one"]);
            let mut ledger = Ledger::open(&path).unwrap().ledger;
            fs::write(&path, &longer[..there]).unwrap();
            ledger.stopped = true;
            assert!(matches!(ledger.append(&"no"), Err(LedgerError::Stopped { .. })));
            ledger.recover().unwrap();
            ledger.append(&"three").unwrap();
            assert_eq!(ledger.entries::<String>().unwrap(), expected);
            ledger.verify().unwrap();
        }
        // What was acknowledged is gone: that is no failed write.
        let (_folder, path) = ledger_of(&["one", "two"]);
        let mut ledger = Ledger::open(&path).unwrap().ledger;
        fs::write(&path, &longer[..longer.len() / 2]).unwrap();
        ledger.stopped = true;
        assert!(matches!(ledger.recover(), Err(LedgerError::Damaged { .. })));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage_and_nothing_is_cut() {
        let (_folder, path) = ledger_of(&["one", "two"]);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let error = Ledger::open(&path).unwrap_err();
            assert!(matches!(error, LedgerError::Damaged { .. }), "{at}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn records_that_changed_places_are_damage() {
        let (_folder, path) = ledger_of(&["one", "two"]);
        let whole = fs::read(&path).unwrap();
        let (first, second) = whole.split_at(whole.len() / 2);
        fs::write(&path, [second, first].concat()).unwrap();
        let error = Ledger::open(&path).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { record: 0, .. }));
    }

    #[test]
    fn verifying_sees_what_happened_to_the_file_meanwhile() {
        let (_folder, path) = ledger_of(&["one", "two"]);
        let ledger = Ledger::open(&path).unwrap().ledger;
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = ledger.verify().unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { record: 1, .. }));
    }

    #[test]
    fn the_head_counts_and_differs_with_each_entry() {
        let (_folder, path) = ledger_of(&["one"]);
        let mut ledger = Ledger::open(&path).unwrap().ledger;
        let (count, before) = ledger.head();
        ledger.append(&"two").unwrap();
        assert_eq!((count, ledger.head().0), (1, 2));
        assert_ne!(before, ledger.head().1);
    }

    #[test]
    fn the_hash_of_the_first_records_is_the_head_that_they_had() {
        let (_folder, path) = ledger_of(&["one"]);
        let mut ledger = Ledger::open(&path).unwrap().ledger;
        let (_, one) = ledger.head();
        ledger.append(&"two").unwrap();
        drop(ledger);
        let ledger = Ledger::open(&path).unwrap().ledger;
        let hashes = [Some([0; 32]), Some(one), Some(ledger.head().1), None];
        assert_eq!([0, 1, 2, 3].map(|records| ledger.hash_of_first(records)), hashes);
    }

    #[test]
    fn a_second_opening_is_refused() {
        let (_folder, path) = ledger_of(&["one"]);
        let _first = Ledger::open(&path).unwrap();
        let error = Ledger::open(&path).unwrap_err();
        assert!(matches!(error, LedgerError::InUse { .. }));
    }

    #[test]
    fn an_entry_over_the_limit_is_refused_and_the_ledger_goes_on() {
        let (_folder, path) = ledger_of(&["one"]);
        let mut ledger = Ledger::open(&path).unwrap().ledger;
        let error = ledger.append(&"x".repeat(PAYLOAD_LIMIT_BYTES)).unwrap_err();
        assert!(matches!(error, LedgerError::TooLarge { bytes: 4098 }));
        ledger.append(&"two").unwrap();
        ledger.verify().unwrap();
    }

    #[test]
    fn an_entry_of_another_type_is_named() {
        let (_folder, path) = ledger_of(&["one"]);
        let ledger = Ledger::open(&path).unwrap().ledger;
        let error = ledger.entries::<u64>().unwrap_err();
        assert!(matches!(error, LedgerError::Unreadable { record: 0, .. }));
    }

    fn ledger_of(entries: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = Ledger::open(&path).unwrap().ledger;
        for entry in entries {
            ledger.append(entry).unwrap();
        }
        (folder, path)
    }
}
