//! From files to documents, each once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use proto::ids::Digest;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use crate::chunks::Chunks;
use crate::lines::{LONGEST, Lines};
use crate::secrets::{Scanner, Verdict, find};
use crate::sources::{Shape, Source, files};
use crate::{Document, Reading, SecretLines, SkipReason, TextError, UnreadReason, parse};

/// Bytes of text that are used at once. A training draws a few hundred blocks; what is more than this only takes
/// memory.
const MOST_TEXT: usize = 64 << 20;

/// A plain document that is longer becomes several, so that splitting one into tokens takes little memory.
const LONGEST_PLAIN: usize = 64 << 10;

/// How files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// What happens to lines that look like secrets.
    pub secrets: SecretLines,
}

/// A user's documents and what was left out. Its `Debug` shows no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserText {
    documents: Vec<(Digest, Document)>,
    reading: Reading,
}

impl UserText {
    /// Reads files and folders, these with their folders, in the order given and there by name.
    ///
    /// A file's name says how it is read: `.jsonl` and `.ndjson` have an object a line, `.json` objects one after the
    /// other or a list of them, `.txt`, `.text`, `.md` and `.markdown` are text, cut into documents of up to 4 KiB at
    /// its paragraphs. A file of another name is read only if it was named itself, as what its first byte says.
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
            let Err(error) = gatherer.file(&source) else { continue };
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

    /// How much was read and left out.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }
}

/// Why a file, or the rest of it, cannot be used.
enum Unusable {
    Read(std::io::Error),
    Content(UnreadReason),
}

impl From<std::io::Error> for Unusable {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<serde_json::Error> for Unusable {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        match error.io_error_kind() {
            Some(kind) => Self::Read(kind.into()),
            None => Self::Content(UnreadReason::NotJson { line, column }),
        }
    }
}

/// Takes documents in, each once.
struct Gatherer {
    secrets: SecretLines,
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
        Self { secrets: options.secrets, most, bytes: 0, kept, added: 0, reading }
    }

    fn file(&mut self, source: &Source) -> Result<(), Unusable> {
        let path = source.path.as_path();
        let first = open(path)?.first;
        match (source.shape, first) {
            (Shape::Values | Shape::Lines | Shape::Unknown, Some(b'[')) | (Shape::Values, _) => {
                // Once to see that it is whole, once to use it, so that no more than one object is in memory.
                each::<IgnoredAny>(path, &mut |_, _| ())?;
                each(path, &mut |number, value| self.value(path, number, &value))?;
            }
            (Shape::Lines, _) | (Shape::Unknown, Some(b'{')) => self.lines(path)?,
            (Shape::Text | Shape::Unknown, _) => self.text(path)?,
        }
        self.reading.files += 1;
        Ok(())
    }

    fn lines(&mut self, path: &Path) -> Result<(), Unusable> {
        let mut lines = Lines::new(open(path)?.reader);
        while let Some((number, line)) = lines.read()? {
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => match serde_json::from_str(line) {
                    Ok(value) => self.value(path, number, &value),
                    Err(_) => self.reading.skip(path, number, SkipReason::NotJson),
                },
                Err(reason) => self.reading.skip(path, number, reason),
            }
        }
        Ok(())
    }

    fn value(&mut self, path: &Path, number: u64, value: &Value) {
        match parse::document(value) {
            Ok(document) if document.len() as u64 > LONGEST => {
                self.reading.skip(path, number, SkipReason::TooLong);
            }
            Ok(document) => self.add(document),
            Err(reason) => self.reading.skip(path, number, reason),
        }
    }

    fn text(&mut self, path: &Path) -> Result<(), Unusable> {
        let mut lines = Lines::new(open(path)?.reader);
        let (mut scanner, mut chunks) = (Scanner::default(), Chunks::default());
        while let Some((number, line)) = lines.read()? {
            match line {
                Ok(line) => {
                    if self.may_stay(&mut scanner, line) {
                        chunks.push(line);
                    }
                }
                Err(reason) => self.reading.skip(path, number, reason),
            }
            for chunk in chunks.take() {
                self.keep(Document::Plain(chunk));
            }
        }
        for chunk in chunks.finish() {
            self.keep(Document::Plain(chunk));
        }
        Ok(())
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
                    SecretLines::LeaveOut => document.parts().into_iter().find_map(|(_, text)| find(text)),
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
        UserText { documents, reading: self.reading }
    }
}

/// A file of text and its first byte that is no space.
struct Opened {
    reader: BufReader<File>,
    first: Option<u8>,
}

/// Opens a file that begins like UTF-8 text; fails for one that does not.
fn open(path: &Path) -> Result<Opened, Unusable> {
    let mut reader = BufReader::new(proto::files::open_regular(path)?);
    let head = loop {
        match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
            Ok(head) => break head,
        }
    };
    if head.contains(&0) || head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(Unusable::Content(UnreadReason::NotText));
    }
    let first = head.strip_prefix(MARK).unwrap_or(head).trim_ascii_start().first().copied();
    Ok(Opened { reader, first })
}

/// What some programs write before UTF-8 text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Calls `take` with each value of a file of values and its number, from 1. Fails at the first that is no JSON.
fn each<T: DeserializeOwned>(path: &Path, take: &mut dyn FnMut(u64, T)) -> Result<(), Unusable> {
    let Opened { mut reader, first } = open(path)?;
    if reader.buffer().starts_with(MARK) {
        reader.consume(MARK.len());
    }
    let mut json = serde_json::Deserializer::from_reader(reader);
    if first == Some(b'[') {
        json.deserialize_seq(Each(take, std::marker::PhantomData))?;
        json.end()?;
        return Ok(());
    }
    for (number, value) in (1..).zip(json.into_iter()) {
        take(number, value?);
    }
    Ok(())
}

/// Gives the values of a list away one by one.
struct Each<'a, T>(&'a mut dyn FnMut(u64, T), std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = list.next_element()? {
            number += 1;
            (self.0)(number, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
