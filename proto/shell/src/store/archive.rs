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
use std::ops::ControlFlow;

use proto::files::FileError;
use ring::digest::{Context, Digest, SHA256, digest};

use super::{FillError, Raw, Store, StoreError, frame};

/// What the first line says.
const HEAD: &str = "nightshift-store\t1";

/// Records of an import that are in memory at the same time.
const RECORDS_A_TIME: usize = 1_000;

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
        let mut visited = Ok(());
        self.engine.all(&mut |raw| {
            let Raw { tree, key, record } = raw;
            visited = visit(tree, key, frame::decode(tree, key, record));
            if visited.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        visited
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

    /// Puts the records of a file into a store that has none, and gives how many there are. Where it fails, a store in a folder may
    /// have some of them already, and is to be thrown away; a database has none.
    pub fn import(&self, file: &mut dyn BufRead) -> Result<u64, ArchiveError> {
        let mut reading =
            Reading { lines: Lines { file, number: 0, hash: Context::new(&SHA256) }, records: 0 };
        reading.head()?;
        let (mut is_over, mut wrong) = (false, None);
        let filled = self.engine.fill(&mut || {
            if is_over {
                return Some(Vec::new());
            }
            match reading.some() {
                Ok((records, last)) => {
                    is_over = last;
                    Some(records)
                }
                Err(error) => {
                    wrong = Some(error);
                    None
                }
            }
        });
        filled.map_err(|error| match (error, wrong) {
            (FillError::BrokeOff, Some(wrong)) => wrong,
            (FillError::BrokeOff, None) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            (FillError::NotEmpty, _) => ArchiveError::NotEmpty,
            (FillError::Store(error), _) => error.into(),
        })
    }
}

/// A file that is read.
struct Reading<'a> {
    lines: Lines<'a>,
    records: u64,
}

impl Reading<'_> {
    fn head(&mut self) -> Result<(), ArchiveError> {
        if self.lines.next()? == HEAD {
            return Ok(());
        }
        let expected = format!("expected `{HEAD}`, the beginning of a store of this version's form");
        Err(self.lines.wrong(&expected))
    }

    /// Some of the records, and whether the file ends with them.
    fn some(&mut self) -> Result<(Vec<Raw>, bool), ArchiveError> {
        let mut some = Vec::new();
        while some.len() < RECORDS_A_TIME {
            let before = self.lines.hash.clone().finish();
            let line = self.lines.next()?;
            if let Some(end) = line.strip_prefix("end\t") {
                check_end(end, self.records, &before).map_err(|why| self.lines.wrong(&why))?;
                self.lines.is_over()?;
                return Ok((some, true));
            }
            some.push(record(&line).map_err(|why| self.lines.wrong(&why))?);
            self.records += 1;
        }
        Ok((some, false))
    }
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
