//! A table: a row a line, cells with one byte between them, below a line of the columns' names.

use std::io::{BufRead, Read};
use std::path::Path;

use crate::json::{Fields, Json};
use crate::opened::{MARK, Opened, Unusable, open};
use crate::{SkipReason, UnreadReason, parse};

/// What stands between cells in files of both names, the one that a name promises before the others.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// The longest first line that is looked at.
const LONGEST_HEAD: u64 = 1 << 20;

/// What programs write for a cell that has no value; pandas reads them so.
const NOTHING: [&str; 8] = ["NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "NaT"];

/// Takes a table's rows as objects with its columns' names in small letters, each with its number below the first line, or
/// why it is none.
///
/// `delimiter` is what the file's name promises. Another one counts where the first line names a known column only with
/// that, or says which it is, as Excel does by `sep=;`. Fails where no known column is named.
pub(super) fn rows(
    path: &Path,
    delimiter: u8,
    take: &mut dyn FnMut(u64, Result<Json, SkipReason>),
) -> Result<(), Unusable> {
    let mut first = Vec::new();
    opened(path)?.take(LONGEST_HEAD).read_until(b'\n', &mut first)?;
    let told = first.strip_prefix(b"sep=").and_then(|rest| rest.first().copied());
    let delimiter = match told {
        Some(told) => told,
        None => delimiter_of(&first, delimiter),
    };
    let mut reader = opened(path)?;
    if told.is_some() {
        reader.skip_until(b'\n')?;
    }
    let mut table = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(reader);
    let broken = |error: csv::Error| Unusable::Read(error.into());
    let names = names(table.byte_headers().map_err(broken)?);
    if !names.iter().any(|name| parse::is_column(name)) {
        return Err(Unusable::Content(UnreadReason::NoColumns));
    }
    let (mut cells, mut number, mut last) = (csv::ByteRecord::new(), 0, None);
    while table.read_byte_record(&mut cells).map_err(broken)? {
        // One row is held back: only the last can be one that goes on to the end because a quote is open.
        let start = cells.position().map_or(0, csv::Position::byte);
        if let Some((row, _)) = last.replace((row(&names, &cells), start)) {
            number += 1;
            take(number, row);
        }
    }
    if let Some((row, start)) = last {
        let before = if told.is_some() { first.len() as u64 } else { 0 };
        let is_open = is_open(path, before + start)?;
        take(number + 1, if is_open { Err(SkipReason::OpenQuote) } else { row });
    }
    Ok(())
}

/// The file without its mark.
fn opened(path: &Path) -> Result<Box<dyn BufRead>, Unusable> {
    let Opened { mut reader, .. } = open(path)?;
    if reader.fill_buf()?.starts_with(MARK) {
        reader.consume(MARK.len());
    }
    Ok(reader)
}

fn names(head: &csv::ByteRecord) -> Vec<String> {
    head.iter().map(|name| String::from_utf8_lossy(name).trim().to_lowercase()).collect()
}

/// What is between the names of the first line: what was promised, unless only another one finds a known column.
fn delimiter_of(first: &[u8], promised: u8) -> u8 {
    let has_column = |delimiter: &u8| {
        let mut table = csv::ReaderBuilder::new().delimiter(*delimiter).from_reader(first);
        table.byte_headers().is_ok_and(|head| names(head).iter().any(|name| parse::is_column(name)))
    };
    [promised].into_iter().chain(DELIMITERS).find(has_column).unwrap_or(promised)
}

fn row(names: &[String], cells: &csv::ByteRecord) -> Result<Json, SkipReason> {
    if cells.len() != names.len() {
        return Err(SkipReason::NotARow);
    }
    let cells: Result<Vec<&str>, _> = cells.iter().map(str::from_utf8).collect();
    let cells = cells.map_err(|_| SkipReason::NotUtf8)?;
    let value = |cell: &str| if NOTHING.contains(&cell.trim()) { Json::Null } else { Json::text(cell) };
    let row: Fields = names.iter().cloned().zip(cells.into_iter().map(value)).collect();
    Ok(Json::Object(row))
}

/// Whether the row that begins at `start` is over several lines and has an odd number of quotes, so that one is open.
fn is_open(path: &Path, start: u64) -> Result<bool, Unusable> {
    let mut reader = opened(path)?;
    std::io::copy(&mut reader.by_ref().take(start), &mut std::io::sink())?;
    let (mut quotes, mut lines, mut is_after_end, mut has_begun) = (0_u64, 0_u64, false, false);
    let mut block = [0; 1 << 13];
    loop {
        let count = reader.read(&mut block)?;
        if count == 0 {
            return Ok(lines > 0 && !quotes.is_multiple_of(2));
        }
        for byte in &block[..count] {
            // A line end at the very end begins no line, nor does one before the row.
            has_begun = has_begun || !b"\r\n".contains(byte);
            if !has_begun {
                continue;
            }
            lines += u64::from(is_after_end);
            is_after_end = *byte == b'\n';
            quotes += u64::from(*byte == b'"');
        }
    }
}
