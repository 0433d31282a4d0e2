//! One user's text: from lines of JSON to blocks of tokens.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::base::Base;
use super::tokens::EncodeError;

/// What could be read of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserText {
    /// One document for each usable line, in the file's order.
    pub lines: Vec<String>,
    /// The lines that were left out.
    pub skipped: Vec<Skipped>,
}

/// A line that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its number in the file; the first is 1.
    pub line: u64,
    /// Why.
    pub reason: SkipReason,
}

/// Why a line was left out; says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// Bytes that are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Text that is no JSON.
    #[error("not JSON at column {column}")]
    NotJson {
        /// Where reading stopped.
        column: usize,
    },
    /// JSON without `text`, `messages`, or `prompt` and `completion`.
    #[error("no `text`, `messages`, or `prompt` and `completion`")]
    NoText,
    /// A text without a single visible character.
    #[error("an empty text")]
    Empty,
}

/// Text that cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No usable line.
    #[error("no usable text ({skipped} lines were skipped)")]
    NoText {
        /// Lines that were left out.
        skipped: usize,
    },
    /// The tokenizer failed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Reads one document a line: `{"text"}`, `{"messages": [{"content"}]}` or `{"prompt", "completion"}`.
///
/// A line that cannot be used is recorded and skipped; blank lines are passed over. Fails only when the
/// file itself cannot be read.
pub fn read_jsonl(path: &Path) -> Result<UserText, TextError> {
    let fail = |source| TextError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(fail)?);
    let (mut text, mut bytes) = (UserText::default(), Vec::new());
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(fail)? == 0 {
            break;
        }
        let content = if line == 1 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
        if content.trim_ascii().is_empty() {
            continue;
        }
        match document(content) {
            Ok(document) => text.lines.push(document),
            Err(reason) => text.skipped.push(Skipped { line, reason }),
        }
    }
    Ok(text)
}

fn document(line: &[u8]) -> Result<String, SkipReason> {
    let line = str::from_utf8(line).map_err(|_| SkipReason::NotUtf8)?;
    let value: Value =
        serde_json::from_str(line).map_err(|error| SkipReason::NotJson { column: error.column() })?;
    let field = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let text = if let Some(text) = field(&value, "text") {
        text
    } else if let Some(messages) = value.get("messages").and_then(Value::as_array) {
        let contents: Option<Vec<String>> =
            messages.iter().map(|message| field(message, "content")).collect();
        contents.ok_or(SkipReason::NoText)?.join("\n")
    } else {
        let prompt = field(&value, "prompt").ok_or(SkipReason::NoText)?;
        prompt + &field(&value, "completion").ok_or(SkipReason::NoText)?
    };
    if text.trim().is_empty() { Err(SkipReason::Empty) } else { Ok(text) }
}

/// One user's documents as tokens, the last tenth held out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    bos: u32,
    train: Vec<Vec<u32>>,
    held_out: Vec<Vec<u32>>,
}

impl Corpus {
    /// Splits `text` into tokens of `base`; fails when it has no usable line.
    ///
    /// The last `max(1, lines / 10)` lines are held out; a single line is trained on and nothing is held out.
    pub fn new(base: &Base, text: &UserText) -> Result<Self, TextError> {
        if text.lines.is_empty() {
            return Err(TextError::NoText { skipped: text.skipped.len() });
        }
        let mut train = text.lines.iter().map(|line| base.encode(line)).collect::<Result<Vec<_>, _>>()?;
        let kept = if train.len() == 1 { 1 } else { train.len() - (train.len() / 10).max(1) };
        let held_out = train.split_off(kept);
        Ok(Self { bos: base.bos(), train, held_out })
    }

    /// The documents to train on, in blocks.
    pub fn train(&self, sequence_len: u32) -> Blocks {
        Blocks::new(&self.train, self.bos, sequence_len)
    }

    /// The documents held out, in blocks; empty for a user with a single line.
    pub fn held_out(&self, sequence_len: u32) -> Blocks {
        Blocks::new(&self.held_out, self.bos, sequence_len)
    }
}

/// A sequence of tokens to train on, and which of them are learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    tokens: Vec<u32>,
    learned: Vec<bool>,
}

impl Block {
    fn all(tokens: Vec<u32>) -> Self {
        let learned = (0..tokens.len()).map(|at| at > 0).collect();
        Self { tokens, learned }
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// For each token, whether it is predicted and counts in the loss; the first never is.
    pub fn learned(&self) -> &[bool] {
        &self.learned
    }
}

/// Token sequences of one length, cut from joined documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    blocks: Vec<Block>,
}

impl Blocks {
    /// Joins `bos` and each document's tokens, and cuts the whole into blocks of `sequence_len`.
    ///
    /// The rest that fills no block is left out, and so is a last block that ends exactly with the text;
    /// a text of at most one block is a single, shorter block.
    pub fn new(documents: &[Vec<u32>], bos: u32, sequence_len: u32) -> Self {
        let length = usize::try_from(sequence_len).unwrap_or(usize::MAX).max(2);
        let mut ids = Vec::with_capacity(documents.iter().map(|document| document.len() + 1).sum());
        for document in documents {
            ids.push(bos);
            ids.extend_from_slice(document);
        }
        if ids.len() > length {
            let starts = (0..(ids.len() - length).max(1)).step_by(length);
            Self { blocks: starts.map(|at| Block::all(ids[at..at + length].to_vec())).collect() }
        } else {
            Self { blocks: if ids.len() < 2 { Vec::new() } else { vec![Block::all(ids)] } }
        }
    }

    /// How many blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Tokens that are predicted: all but the first of each block.
    pub fn targets(&self) -> u64 {
        self.blocks.iter().map(|block| block.learned.iter().filter(|learned| **learned).count() as u64).sum()
    }

    /// The blocks of both, in order.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.blocks.extend(other.blocks);
        self
    }

    /// The blocks themselves.
    pub fn as_slice(&self) -> &[Block] {
        &self.blocks
    }
}
