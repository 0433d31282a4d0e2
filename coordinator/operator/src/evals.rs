//! The operator's own text for each task, and what versions came to on it.
//!
//! It is kept in the operator's folder, and told to nobody: neither the text nor where it lies leaves this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto::files::{self, Audience, FileError};
use proto::ids::{Digest, TaskId};
use serde::{Deserialize, Serialize};

const FILE: &str = "evals.json";

/// What is known of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Own {
    /// The text that is measured where none is named.
    pub(crate) text: Option<PathBuf>,
    /// What was measured on one text.
    pub(crate) measured: Option<Measured>,
}

/// Losses on one text, in nats a token: they are comparable with each other and with nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// The text as the base's tokens, in blocks.
    pub(crate) text: Digest,
    /// Tokens that count.
    pub(crate) tokens: u64,
    /// The base alone.
    pub(crate) base: f64,
    /// Versions.
    pub(crate) versions: BTreeMap<u32, f64>,
}

impl Measured {
    /// By how much a version is better than the base.
    pub(crate) fn gain(&self, version: u32) -> Option<f64> {
        self.versions.get(&version).map(|loss| self.base - loss)
    }

    /// The same with what was measured of the same text before.
    pub(crate) fn and(mut self, before: Option<Self>) -> Self {
        if let Some(before) = before.filter(|before| before.text == self.text) {
            for (version, loss) in before.versions {
                self.versions.entry(version).or_insert(loss);
            }
        }
        self
    }
}

/// What is remembered of a task.
pub(crate) fn of(dir: &Path, task: TaskId) -> Own {
    read(dir).remove(&task).unwrap_or_default()
}

/// Remembers it.
pub(crate) fn remember(dir: &Path, task: TaskId, own: Own) -> Result<(), FileError> {
    let mut known = read(dir);
    known.insert(task, own);
    let json = serde_json::to_vec_pretty(&known).unwrap_or_default();
    files::write(&dir.join(FILE), &json, Audience::Owner)
}

/// What is remembered; a file that is not there or cannot be read is nothing, for it can be measured again.
fn read(dir: &Path) -> BTreeMap<TaskId, Own> {
    let bytes = files::read(&dir.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(text: u8, versions: &[(u32, f64)]) -> Measured {
        Measured {
            text: Digest([text; 32]),
            tokens: 9,
            base: 3.0,
            versions: versions.iter().copied().collect(),
        }
    }

    #[test]
    fn what_was_measured_is_remembered_by_task() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (TaskId([1; 16]), TaskId([2; 16]));
        let own = Own { text: Some("/srv/text".into()), measured: Some(measured(1, &[(2, 2.5)])) };
        remember(dir.path(), one, own.clone()).unwrap();
        remember(dir.path(), two, Own::default()).unwrap();
        assert_eq!((of(dir.path(), one), of(dir.path(), two)), (own, Own::default()));
        std::fs::write(dir.path().join(FILE), "damaged").unwrap();
        assert_eq!(of(dir.path(), one), Own::default());
    }

    #[test]
    fn losses_on_another_text_are_not_put_beside_these() {
        let now = measured(1, &[(3, 2.0)]);
        assert_eq!(now.clone().and(Some(measured(1, &[(2, 2.5)]))), measured(1, &[(2, 2.5), (3, 2.0)]));
        assert_eq!(now.clone().and(Some(measured(2, &[(2, 2.5)]))), now);
        assert_eq!((now.gain(3), now.gain(2)), (Some(1.0), None));
    }
}
