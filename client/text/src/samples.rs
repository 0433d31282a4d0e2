//! The first documents as a training would read them, for their user to look at.

use std::fmt;

use crate::corpus::encoder;
use crate::encode::EncodedDocument;
use crate::{LeftOut, TextError, UserText};
use engine::base::Tokens;

/// Tokens of a document that follow each other and are all learned or all given. Its `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Run {
    /// Whether they are learned.
    pub learned: bool,
    /// How many they are.
    pub tokens: u64,
    /// What they say, control tokens as they are written.
    pub text: String,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({} tokens, learned: {})", self.tokens, self.learned)
    }
}

/// The first `most` documents of a text, each as the runs of its tokens, or why it is left out.
///
/// A character whose bytes are in two runs is U+FFFD in both. Fails where there are conversations and the base's template
/// does not work, and where the tokenizer fails.
pub fn samples(
    tokens: &Tokens,
    text: &UserText,
    most: usize,
) -> Result<Vec<Result<Vec<Run>, LeftOut>>, TextError> {
    let encoder = encoder(tokens, text)?;
    let mut samples = Vec::new();
    for document in text.documents().take(most) {
        let sample = match encoder.encode(document)? {
            Ok(EncodedDocument { encoded, .. }) => Ok(runs(tokens, encoded.tokens(), encoded.learned())?),
            Err(why) => Err(why),
        };
        samples.push(sample);
    }
    Ok(samples)
}

fn runs(tokens: &Tokens, ids: &[u32], learned: &[bool]) -> Result<Vec<Run>, TextError> {
    let mut runs = Vec::new();
    let mut start = 0;
    for same in learned.chunk_by(|left, right| left == right) {
        let text = tokens.decode_whole(&ids[start..start + same.len()])?;
        runs.push(Run { learned: same[0], tokens: same.len() as u64, text });
        start += same.len();
    }
    Ok(runs)
}
