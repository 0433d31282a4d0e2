//! From files to documents, each once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::json::Json;
use proto::ids::Digest;
use proto::loose;

use crate::chunks::Chunks;
use crate::encode::ControlTokens;
use crate::lines::{Lines, Piece, Pieces};
use crate::opened::{Unusable, open};
use crate::reading::Form;
use crate::secrets::{Scanner, Verdict, find};
use crate::sources::{Shape, Source, files};
use crate::values::{Top, each, top};
use crate::{Document, Reading, SecretLines, SkipReason, TextError, UnreadReason, parse, table};

/// Bytes of text that are used at once. A training draws a few hundred blocks; what is more than this only takes
/// memory.
const MOST_TEXT: usize = 64 << 20;

/// A plain document that is longer becomes several, so that splitting one into tokens takes little memory.
const LONGEST_PLAIN: usize = 64 << 10;

/// A document with roles that is longer is left out: its tokens would not be trained on in one piece.
const LONGEST_WITH_ROLES: usize = 4 << 20;

/// So many bytes on both sides of where a long line was cut are looked at together.
const SEAM: usize = 512;

/// How files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// What happens to lines that look like secrets.
    pub secrets: SecretLines,
    /// What becomes of control tokens that are spelled in documents without turns.
    pub control_tokens: ControlTokens,
}

/// A user's documents and what was left out. Its `Debug` shows no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserText {
    documents: Vec<(Digest, Document)>,
    reading: Reading,
    control_tokens: ControlTokens,
}

impl UserText {
    /// Reads files and folders, these with their folders, in the order given and there by name.
    ///
    /// A file's name says how it is read: `.jsonl` and `.ndjson` have an object a line, `.json` objects one after the
    /// other or a list of them, which may be within an object, `.csv` and `.tsv` a row a line below the names of the columns, `.txt`, `.text`, `.md` and
    /// `.markdown` are text, cut into documents of up to 4 KiB at its paragraphs; each may be packed by gzip, as `.gz`.
    /// A file of another name is read only if it was named itself, as what its first byte says.
    /// Hidden files in folders are passed over. Everything else that is not used is counted in [`Reading`]. Of more
    /// than 64 MiB of text a part is used, chosen by the documents' digests.
    ///
    /// Fails when a path that was named itself cannot be read.
    pub fn read(paths: &[PathBuf], options: &ReadOptions) -> Result<Self, TextError> {
        let read = Self::read_while(paths, options, &|| true)?;
        // It was told to go on with every file.
        Ok(read.unwrap_or_else(|| Self::of([], options)))
    }

    /// [`UserText::read`] that asks before each file whether to go on; nothing where it was told not to.
    pub fn read_while(
        paths: &[PathBuf],
        options: &ReadOptions,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, TextError> {
        let mut gatherer = Gatherer::new(*options, MOST_TEXT);
        for source in files(paths, &mut gatherer.reading)? {
            if !go_on() {
                return Ok(None);
            }
            let before = gatherer.reading.taken.len();
            let Err(error) = gatherer.file(&source) else { continue };
            gatherer.reading.taken.truncate(before);
            match error {
                Unusable::Read(source_error) if source.named => {
                    return Err(TextError::Read { path: source.path, source: source_error });
                }
                Unusable::Read(error) => {
                    gatherer.reading.leave(source.path, UnreadReason::Refused(error.kind()));
                }
                Unusable::Content(reason) => gatherer.reading.leave(source.path, reason),
            }
        }
        Ok(Some(gatherer.finish()))
    }

    /// The text of documents that are there already.
    pub fn of(documents: impl IntoIterator<Item = Document>, options: &ReadOptions) -> Self {
        let mut gatherer = Gatherer::new(*options, MOST_TEXT);
        for document in documents {
            gatherer.add(document);
        }
        gatherer.finish()
    }

    /// The documents, in the order in which they were read.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = &Document> {
        self.documents.iter().map(|(_, document)| document)
    }

    /// The same with what each is known by.
    pub(super) fn identified(&self) -> &[(Digest, Document)] {
        &self.documents
    }

    /// What becomes of control tokens that are spelled in documents without turns.
    pub(super) fn control_tokens(&self) -> ControlTokens {
        self.control_tokens
    }

    /// How much was read and left out.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }
}

/// Takes documents in, each once.
struct Gatherer {
    secrets: SecretLines,
    control_tokens: ControlTokens,
    most: usize,
    bytes: usize,
    /// By digest, back to front: the first bytes of a digest say what is held out, and which documents are surplus
    /// must not depend on that.
    kept: BTreeMap<[u8; 32], (u64, Document)>,
    added: u64,
    reading: Reading,
}

impl Gatherer {
    fn new(options: ReadOptions, most: usize) -> Self {
        let (kept, reading) = (BTreeMap::new(), Reading::default());
        let ReadOptions { secrets, control_tokens } = options;
        Self { secrets, control_tokens, most, bytes: 0, kept, added: 0, reading }
    }

    fn file(&mut self, source: &Source) -> Result<(), Unusable> {
        let path = source.path.as_path();
        let first = open(path)?.first;
        self.reading.begin(path);
        match (source.shape, first) {
            (Shape::Values, _) => self.values(path)?,
            // A list over several lines, or lines of which each is a list.
            (Shape::Lines | Shape::Unknown, Some(b'[')) => {
                if first_row(path)? == Err(SkipReason::NotJson) {
                    self.values(path)?;
                } else {
                    self.lines(path)?;
                }
            }
            // Objects over several lines, or one behind the other in one.
            (Shape::Lines | Shape::Unknown, Some(b'{'))
                if first_row(path)? == Err(SkipReason::NotJson) && top(path).is_ok() =>
            {
                self.values(path)?;
            }
            (Shape::Lines, _) | (Shape::Unknown, Some(b'{')) => self.lines(path)?,
            // Rows that were saved under the name of a text.
            (Shape::Text, Some(b'{')) if first_row(path)?.is_ok_and(|row| parse::document(&row).is_ok()) => {
                self.lines(path)?;
            }
            (Shape::Table { delimiter }, _) => self.table(path, delimiter)?,
            (Shape::Text | Shape::Unknown, _) => self.text(path)?,
        }
        self.reading.files += 1;
        Ok(())
    }

    fn values(&mut self, path: &Path) -> Result<(), Unusable> {
        // Once to see that it is whole, once to use it, so that no more than one object is in memory.
        let top = top(path)?;
        match top {
            Top::Values | Top::Rows => {
                each(path, &top, &mut |number, value| self.value(path, number, &value))
            }
            Top::Within { key: _, others } => {
                each(path, &top, &mut |number, value| self.value(path, number, &value))?;
                (1..=others).for_each(|number| self.reading.skip(path, number, SkipReason::OtherPart));
                Ok(())
            }
            Top::Turns => {
                let mut turns = Vec::new();
                each(path, &top, &mut |_, turn: Json| turns.push(turn))?;
                self.row(path, 1, &Json::Array(turns));
                Ok(())
            }
        }
    }

    fn lines(&mut self, path: &Path) -> Result<(), Unusable> {
        let mut lines = Lines::new(open(path)?.reader);
        while let Some((number, line)) = lines.read()? {
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => match json(line) {
                    Ok(value) => self.value(path, number, &value),
                    Err(reason) => self.reading.skip(path, number, reason),
                },
                Err(reason) => self.reading.skip(path, number, reason),
            }
        }
        Ok(())
    }

    fn table(&mut self, path: &Path, delimiter: u8) -> Result<(), Unusable> {
        table::rows(path, delimiter, &mut |number, row| match row {
            Ok(row) => self.row(path, number, &row),
            Err(reason) => self.reading.skip(path, number, reason),
        })
    }

    /// Takes what is in a line: a row, or a list of rows.
    fn value(&mut self, path: &Path, number: u64, value: &Json) {
        let rows = value.as_array().filter(|list| !list.is_empty() && !list.iter().all(parse::is_turn));
        match rows {
            Some(rows) => {
                for row in rows {
                    self.row(path, number, row);
                }
            }
            None => self.row(path, number, value),
        }
    }

    fn row(&mut self, path: &Path, number: u64, row: &Json) {
        match parse::document(row) {
            Ok((_, document)) if document.has_roles() && document.len() > LONGEST_WITH_ROLES => {
                self.reading.skip(path, number, SkipReason::LongDocument);
            }
            Ok((form, document)) => {
                self.reading.take(form);
                self.add(document);
            }
            Err(reason) => self.reading.skip(path, number, reason),
        }
    }

    fn text(&mut self, path: &Path) -> Result<(), Unusable> {
        let mut pieces = Pieces::new(open(path)?.reader);
        let (mut scanner, mut chunks) = (Scanner::default(), Chunks::default());
        // The piece before in the same line: a secret may begin in it and end in the next.
        let mut before: Option<String> = None;
        while let Some(Piece { number, text, goes_on }) = pieces.read()? {
            match text {
                Ok(text) => {
                    let held = before.take();
                    let is_seam = held.as_ref().is_some_and(|held| self.has_seam(held, text));
                    if let Some(held) = held.filter(|_| !is_seam) {
                        chunks.push_piece(&held, "");
                    }
                    let may_stay = self.may_stay(&mut scanner, text) && !is_seam;
                    if goes_on {
                        before = may_stay.then(|| text.to_owned());
                    } else if may_stay {
                        chunks.push(text);
                    }
                }
                Err(reason) => {
                    if let Some(held) = before.take() {
                        chunks.push_piece(&held, "");
                    }
                    self.reading.skip(path, number, reason);
                }
            }
            self.keep_all(chunks.take());
        }
        if let Some(held) = before {
            chunks.push_piece(&held, "");
        }
        self.keep_all(chunks.finish());
        Ok(())
    }

    fn keep_all(&mut self, chunks: Vec<String>) {
        for chunk in chunks {
            self.reading.take(Form::Paragraphs);
            self.keep(Document::Plain(chunk));
        }
    }

    /// Whether a secret goes from one piece of a line into the next; counts it.
    fn has_seam(&mut self, before: &str, after: &str) -> bool {
        let start = (0..=before.len().saturating_sub(SEAM)).rev().find(|at| before.is_char_boundary(*at));
        let end = (0..=SEAM.min(after.len())).rev().find(|at| after.is_char_boundary(*at));
        let (left, right) = (&before[start.unwrap_or(0)..], &after[..end.unwrap_or(0)]);
        let found = match self.secrets {
            SecretLines::Keep => None,
            SecretLines::LeaveOut if find(left).is_some() || find(right).is_some() => None,
            SecretLines::LeaveOut => find(&format!("{left}{right}")),
        };
        if let Some(kind) = found {
            *self.reading.secrets.entry(kind).or_default() += 1;
        }
        found.is_some()
    }

    /// Takes a document without its secrets: a plain one without the lines, one with roles not at all. An answer
    /// often says again what the question said, and one that lost a line answers another question.
    fn add(&mut self, document: Document) {
        match document {
            Document::Plain(text) => {
                let mut scanner = Scanner::default();
                let lines: Vec<&str> = text.split_inclusive('\n').collect();
                let count = lines.len();
                let left: Vec<&str> =
                    lines.into_iter().filter(|line| self.may_stay(&mut scanner, line)).collect();
                let text = if left.len() == count { text } else { left.concat() };
                if text.len() <= LONGEST_PLAIN {
                    self.keep(Document::Plain(text));
                    return;
                }
                let mut chunks = Chunks::default();
                text.lines().for_each(|line| chunks.push(line));
                chunks.finish().into_iter().for_each(|chunk| self.keep(Document::Plain(chunk)));
            }
            Document::Completion { .. } | Document::Conversation(_) => {
                let looks = |secrets| match secrets {
                    SecretLines::Keep => None,
                    SecretLines::LeaveOut => document.parts().into_iter().find_map(|(_, text)| find(&text)),
                };
                match looks(self.secrets) {
                    Some(kind) => *self.reading.secrets.entry(kind).or_default() += 1,
                    None => self.keep(document),
                }
            }
        }
    }

    /// Whether a line of plain text is used; counts it if not.
    fn may_stay(&mut self, scanner: &mut Scanner, line: &str) -> bool {
        match self.secrets {
            SecretLines::Keep => true,
            SecretLines::LeaveOut => match scanner.look(line) {
                Verdict::Clean => true,
                Verdict::Secret(kind) => {
                    *self.reading.secrets.entry(kind).or_default() += 1;
                    false
                }
                Verdict::Same => false,
            },
        }
    }

    fn keep(&mut self, document: Document) {
        let len = document.len();
        if document.parts().iter().all(|(_, text)| text.trim().is_empty()) {
            return;
        }
        let mut key = document.digest().0;
        key.reverse();
        if self.kept.contains_key(&key) {
            self.reading.duplicates += 1;
            return;
        }
        self.kept.insert(key, (self.added, document));
        self.added += 1;
        self.bytes += len;
        while self.bytes > self.most
            && let Some((_, (_, document))) = self.kept.pop_last()
        {
            self.bytes -= document.len();
            self.reading.surplus += 1;
        }
    }

    fn finish(mut self) -> UserText {
        let mut kept: Vec<(u64, Digest, Document)> = self
            .kept
            .into_iter()
            .map(|(mut key, (place, document))| {
                key.reverse();
                (place, Digest(key), document)
            })
            .collect();
        kept.sort_by_key(|(place, _, _)| *place);
        let documents: Vec<_> = kept.into_iter().map(|(_, digest, document)| (digest, document)).collect();
        self.reading.documents = documents.len() as u64;
        self.reading.with_roles =
            documents.iter().filter(|(_, document)| document.has_roles()).count() as u64;
        UserText { documents, reading: self.reading, control_tokens: self.control_tokens }
    }
}

/// The JSON of a line; a comma behind it, as behind the entries of a list, is not of it.
fn json(line: &str) -> Result<Json, SkipReason> {
    let entry = line.trim_end().strip_suffix(',');
    loose::from_slice(line.as_bytes())
        .or_else(|error| entry.and_then(|entry| loose::from_slice(entry.as_bytes()).ok()).ok_or(error))
        .map_err(|error| {
            let is_deep = error.to_string().starts_with("recursion limit");
            if is_deep { SkipReason::Deep } else { SkipReason::NotJson }
        })
}

/// What is in a file's first line that is not blank, or why there is nothing.
fn first_row(path: &Path) -> Result<Result<Json, SkipReason>, Unusable> {
    let mut lines = Lines::new(open(path)?.reader);
    while let Some((_, line)) = lines.read()? {
        match line {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => return Ok(json(line)),
            // A line that is longer than is read may be all of a list.
            Err(SkipReason::TooLong) => return Ok(Err(SkipReason::NotJson)),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    Ok(Err(SkipReason::Empty))
}

#[cfg(test)]
mod tests;
