//! What a run is repeated from: every setting, and what it read, by digest.

use std::path::PathBuf;

use engine::Blocks;
use proto::ids::Digest;
use serde::{Deserialize, Serialize};

use crate::inputs::{Inputs, User};
use crate::scenario::Scenario;

/// What stands in `summary.json` beside the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the program.
    pub program: String,
    /// Where base and text come from; nothing where the program made them up itself.
    pub files: Option<Files>,
    /// The digest of the base.
    pub base: Digest,
    /// The digest of all users' text as the base's tokens, those who take no part included.
    pub data: Digest,
    /// The digest of the public text as the base's tokens; `None` where there is none.
    pub public: Option<Digest>,
    /// Every setting.
    pub scenario: Scenario,
}

/// Base and text of somebody's own, as they were named on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The folder of the base.
    pub base: PathBuf,
    /// The folder of the users' text.
    pub data: PathBuf,
    /// The public text, where there is some.
    pub public: Option<PathBuf>,
}

/// What differs from a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {what} is not that of the record: its digest is {found}, recorded is {recorded}")]
pub struct Differs {
    what: &'static str,
    found: Digest,
    recorded: Digest,
}

impl Record {
    /// The record of a run on text that the program made up.
    pub fn of(scenario: &Scenario, inputs: &Inputs<'_>) -> Self {
        let len = scenario.training.sequence_len;
        Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            files: None,
            base: inputs.base.digest(),
            data: digest_of(inputs.users.iter().chain(inputs.newcomers), len),
            public: inputs.public.map(|public| digest([public.clone()])),
            scenario: scenario.clone(),
        }
    }

    /// Fails where another run would read something else.
    pub fn check(&self, other: &Self) -> Result<(), Differs> {
        let none = Digest::of(b"no text");
        for (what, recorded, found) in [
            ("base", self.base, other.base),
            ("users' text", self.data, other.data),
            ("public text", self.public.unwrap_or(none), other.public.unwrap_or(none)),
        ] {
            if recorded != found {
                return Err(Differs { what, found, recorded });
            }
        }
        Ok(())
    }
}

/// Of these users' text.
pub(crate) fn digest_of<'a>(users: impl Iterator<Item = &'a User>, sequence_len: u32) -> Digest {
    digest(users.flat_map(|user| parts(user, sequence_len)))
}

fn parts(user: &User, len: u32) -> [Blocks; 2] {
    [user.corpus.train(len), user.corpus.held_out(len)]
}

/// Of the tokens and of what is learned of them, each part after its number of blocks.
fn digest(parts: impl IntoIterator<Item = Blocks>) -> Digest {
    let mut bytes = Vec::new();
    for blocks in parts {
        bytes.extend_from_slice(&(blocks.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&blocks.to_bytes());
    }
    Digest::of(&bytes)
}
