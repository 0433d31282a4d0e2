//! One user's text: from files and folders to blocks of tokens.
//!
//! [`UserText::read`] finds the files, takes documents out of them, and leaves out what was there before or looks
//! like a secret; [`Reading`] says how much of each, and nothing of what was in it. [`Corpus`] turns the documents
//! into tokens of one base, conversations through the base's chat template, and holds a fixed part of them out.
//! Blocks, which are the engine's, are what is trained on.
//!
//! It deliberately does not know what is learned from the text, or for whom: no adapter, no task, no network, and no
//! clock, since a chat template that asks for the day is told a fixed one. Nothing here writes, and no text is in a log,
//! an error or a `Debug`. Start at [`UserText::read`], then [`Corpus::new`].

mod chunks;
mod control;
mod corpus;
mod document;
mod encode;
mod gather;
mod json;
mod lines;
mod notes;
mod opened;
mod parse;
mod reading;
mod render;
mod samples;
mod secrets;
mod sources;
mod table;
pub mod template;
mod values;

use std::path::PathBuf;

pub use corpus::Corpus;
pub use document::{Conversation, Document, Message, Role, Tools};
pub use encode::ControlTokens;
pub use gather::{ReadOptions, UserText};
pub use json::{Fields, Json};
pub use notes::Notes;
pub use reading::{Form, Reading, SkipReason, Skipped, Taken, Unread, UnreadReason};
pub use render::LeftOut;
pub use samples::{Run, samples};
pub use secrets::{SecretKind, SecretLines};
pub use template::{ChatTemplate, TemplateError};

use engine::{DecodeError, EncodeError};

/// Text that cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file or folder that the user named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What the user named is a socket, a pipe or a device.
    #[error("cannot read {}: it is neither a file nor a folder", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Nothing to train on.
    #[error("no usable text: {}{}", reading.summary(), listed(notes))]
    NoText {
        /// What was read.
        reading: Box<Reading>,
        /// What became of it with this base.
        notes: Box<Notes>,
    },
    /// The base's chat template does not work.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer failed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The tokenizer failed the other way.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

fn listed(notes: &Notes) -> String {
    notes.lines().iter().flat_map(|line| [", ", line]).collect()
}
