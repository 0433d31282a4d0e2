//! All records of a store, looked at one by one, and as one file from which another store is made.
//!
//! The file is text, a line each:
//!
//! | line | parts, with tabs between them |
//! | --- | --- |
//! | the first | `nightshift-store`, the version of the form, which is 1 |
//! | one for each record, by tree and key | checksum, tree, key in hex, value as JSON |
//! | the last | `end`, how many records there are, SHA-256 of all bytes before this line in hex |
//!
//! A checksum is the first 16 hex digits of the SHA-256 of what stands behind its tab. JSON without spaces has neither tabs nor
//! line breaks in it. A file that was cut off has no last line.

use std::io::{self, BufRead, Write};

use proto::files::FileError;
use ring::digest::{Context, Digest, SHA256, digest};

use super::{Store, StoreError, frame};

/// What the first line says.
const HEAD: &str = "nightshift-store\t1";

/// Records in one transaction of an import.
const RECORDS_A_COMMIT: usize = 1_000;

/// The longest line: a record, its key and its tree's name, with room.
const LONGEST_LINE: u64 = 16 << 10;

/// What [`Store::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Records read.
    pub records: u64,
    /// Tree and key (in hex) of each damaged record.
    pub damaged: Vec<(String, String)>,
}

/// Why a store was not written to a file, or made from one.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed, or has a damaged record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read or written.
    #[error("cannot read or write the file: {0}")]
    Io(#[from] io::Error),
    /// The file cannot be made or replaced.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The store has records already.
    #[error("the store has records already; import into one that is empty")]
    NotEmpty,
}

impl Store {
    /// Reads every record of every tree and says which are damaged. Fails when the engine cannot read on.
    pub fn check(&self) -> Result<Check, StoreError> {
        let mut check = Check::default();
        self.each::<StoreError>(|tree, key, payload| {
            check.records += 1;
            if payload.is_none() {
                check.damaged.push((tree.to_owned(), hex::encode(key)));
            }
            Ok(())
        })?;
        Ok(check)
    }

    /// Gives each record with its tree and key, in their order; a damaged one without its payload. Stops at what `visit` fails
    /// with, and fails when the engine cannot read on.
    pub fn each<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(&str, &[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut names = self.inner.engine.tree_names();
        names.sort();
        for name in names {
            let tree_name = String::from_utf8_lossy(&name).into_owned();
            let tree = self.inner.engine.open_tree(&name).map_err(|source| self.engine_error(source))?;
            for item in &tree {
                let (key, record) = item.map_err(|source| self.engine_error(source))?;
                visit(&tree_name, &key, frame::decode(&tree_name, &key, &record))?;
            }
        }
        Ok(())
    }

    /// Writes all records to a file, and gives how many there are. Fails at a damaged one: it would be lost without a word.
    pub fn export(&self, out: &mut dyn Write) -> Result<u64, ArchiveError> {
        let mut out = Hashed { out, hash: Context::new(&SHA256) };
        out.line(HEAD)?;
        let mut records = 0;
        self.each::<ArchiveError>(|tree, key, payload| {
            let damaged = || StoreError::Damaged { tree: tree.to_owned(), key: hex::encode(key) };
            let payload = std::str::from_utf8(payload.ok_or_else(damaged)?).map_err(|_| damaged())?;
            let rest = format!("{tree}\t{}\t{payload}", hex::encode(key));
            out.line(&format!("{}\t{rest}", checksum(&rest)))?;
            records += 1;
            Ok(())
        })?;
        let hash = hex::encode(out.hash.clone().finish());
        out.line(&format!("end\t{records}\t{hash}"))?;
        out.out.flush()?;
        Ok(records)
    }

    /// Puts the records of a file into a store that has none, and gives how many there are. Where it fails, some may be there
    /// already: the store is to be thrown away.
    pub fn import(&self, file: &mut dyn BufRead) -> Result<u64, ArchiveError> {
        let mut is_empty = true;
        self.each::<StoreError>(|_, _, _| {
            is_empty = false;
            Ok(())
        })?;
        if !is_empty {
            return Err(ArchiveError::NotEmpty);
        }
        let mut lines = Lines { file, number: 0, hash: Context::new(&SHA256) };
        let head = lines.next()?;
        if head != HEAD {
            return Err(
                lines.wrong(&format!("expected `{HEAD}`, the beginning of a store of this version's form"))
            );
        }
        let (mut records, mut pending) = (0_u64, Vec::new());
        loop {
            let before = lines.hash.clone().finish();
            let line = lines.next()?;
            if let Some(end) = line.strip_prefix("end\t") {
                check_end(end, records, &before).map_err(|why| lines.wrong(&why))?;
                lines.is_over()?;
                break;
            }
            pending.push(record(&line).map_err(|why| lines.wrong(&why))?);
            records += 1;
            if pending.len() == RECORDS_A_COMMIT {
                self.put_raw(&std::mem::take(&mut pending))?;
            }
        }
        self.put_raw(&pending)?;
        self.sync()?;
        Ok(records)
    }

    /// Puts framed records, without a transaction over them all.
    fn put_raw(&self, records: &[Raw]) -> Result<(), StoreError> {
        self.check_room()?;
        for Raw { tree, key, record } in records {
            let tree = self.inner.engine.open_tree(tree).map_err(|source| self.engine_error(source))?;
            tree.insert(key.as_slice(), record.as_slice()).map_err(|source| self.engine_error(source))?;
        }
        Ok(())
    }
}

/// A record as it lies in a tree.
struct Raw {
    tree: String,
    key: Vec<u8>,
    record: Vec<u8>,
}

/// The record of a line.
fn record(line: &str) -> Result<Raw, String> {
    let (sum, rest) = line.split_once('\t').ok_or("expected a checksum and a record")?;
    if sum != checksum(rest) {
        return Err("its checksum does not hold".to_owned());
    }
    let mut parts = rest.splitn(3, '\t');
    let (Some(tree), Some(key), Some(payload)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("expected a tree, a key and a value".to_owned());
    };
    let key = hex::decode(key).map_err(|error| format!("its key is not hexadecimal: {error}"))?;
    serde_json::from_str::<serde::de::IgnoredAny>(payload)
        .map_err(|error| format!("its value is no JSON: {error}"))?;
    let record = frame::encode(tree, &key, payload.as_bytes()).ok_or("its value is larger than a record")?;
    Ok(Raw { tree: tree.to_owned(), key, record })
}

fn check_end(end: &str, records: u64, before: &Digest) -> Result<(), String> {
    if end == format!("{records}\t{}", hex::encode(before)) {
        return Ok(());
    }
    Err(format!("the file is not the one that was written: {records} records came, and `{end}` is said"))
}

fn checksum(rest: &str) -> String {
    hex::encode(digest(&SHA256, rest.as_bytes()).as_ref().iter().take(8).copied().collect::<Vec<u8>>())
}

struct Hashed<'a> {
    out: &'a mut dyn Write,
    hash: Context,
}

impl Hashed<'_> {
    fn line(&mut self, line: &str) -> io::Result<()> {
        for bytes in [line.as_bytes(), b"\n"] {
            self.hash.update(bytes);
            self.out.write_all(bytes)?;
        }
        Ok(())
    }
}

struct Lines<'a> {
    file: &'a mut dyn BufRead,
    number: u64,
    hash: Context,
}

impl Lines<'_> {
    /// The next line, which must be whole.
    fn next(&mut self) -> Result<String, ArchiveError> {
        self.number += 1;
        let mut bytes = Vec::new();
        io::Read::take(&mut *self.file, LONGEST_LINE).read_until(b'\n', &mut bytes)?;
        self.hash.update(&bytes);
        if bytes.pop() != Some(b'\n') {
            return Err(
                self.wrong("the file ends here, or the line is too long: it was cut off, or is no export")
            );
        }
        String::from_utf8(bytes).map_err(|_| self.wrong("it is not UTF-8"))
    }

    /// Fails where anything follows the last line.
    fn is_over(&mut self) -> Result<(), ArchiveError> {
        self.number += 1;
        let is_over = self.file.fill_buf()?.is_empty();
        if is_over {
            Ok(())
        } else {
            Err(self
                .wrong("something follows the end of the records: the file is not the one that was written"))
        }
    }

    fn wrong(&self, why: &str) -> ArchiveError {
        ArchiveError::Line { line: self.number, why: why.to_owned() }
    }
}
