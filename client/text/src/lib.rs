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
mod lines;
mod parse;
mod reading;
mod render;
mod secrets;
mod sources;
pub mod template;

use std::path::PathBuf;

pub use corpus::Corpus;
pub use document::{Document, Message, Role};
pub use gather::{ReadOptions, UserText};
pub use reading::{Reading, SkipReason, Skipped, Unread, UnreadReason};
pub use secrets::{SecretKind, SecretLines};
pub use template::{ChatTemplate, TemplateError};

use engine::EncodeError;

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
    #[error("no usable text: {}{}", reading.summary(), refusals(*refused))]
    NoText {
        /// What was read.
        reading: Box<Reading>,
        /// Conversations that the base's chat template refuses.
        refused: u64,
    },
    /// The base's chat template does not work.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer failed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

fn refusals(refused: u64) -> String {
    match refused {
        0 => String::new(),
        1 => ", 1 conversation refused by the chat template".to_owned(),
        more => format!(", {more} conversations refused by the chat template"),
    }
}
