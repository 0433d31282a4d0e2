//! What a device did, for its user: one line of JSON for each event, the newest of them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::FileError;

/// A journal of this length is put aside and a new one begun; of those put aside only the last is kept.
const MOST_BYTES: u64 = 512 << 10;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When, in milliseconds since 1970.
    pub unix_millis: u64,
    /// What kind: `enrolled`, `preempted`, `trained`, ….
    pub event: String,
    /// What happened, in words.
    pub what: String,
}

/// The journal of a device, in its folder.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// Of the device whose state is below `folder`.
    pub fn below(folder: &Path) -> Self {
        Self { path: folder.join("journal.jsonl") }
    }

    /// Adds an event. It is for the user only, so that it cannot be written is said and ends nothing.
    pub fn note(&self, note: &Note) {
        if let Err(error) = self.append(note) {
            tracing::warn!("the journal cannot be written: {error}");
        }
    }

    /// The events that are kept, oldest first. A line that cannot be read, as one that a crash cut off, is left out.
    pub fn notes(&self) -> Result<Vec<Note>, FileError> {
        let mut notes = Vec::new();
        for path in [self.aside(), self.path.clone()] {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(FileError::io("read", &path)(error)),
            };
            notes.extend(text.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok()));
        }
        Ok(notes)
    }

    fn aside(&self) -> PathBuf {
        self.path.with_extension("1.jsonl")
    }

    fn append(&self, note: &Note) -> Result<(), FileError> {
        let mut line = serde_json::to_vec(note).unwrap_or_default();
        line.push(b'\n');
        let write = FileError::io("write", &self.path);
        let too_long = fs::metadata(&self.path).is_ok_and(|file| file.len() > MOST_BYTES);
        if too_long && let Err(error) = fs::rename(&self.path, self.aside()) {
            return Err(write(error));
        }
        let file = File::options().append(true).create(true).open(&self.path);
        file.and_then(|mut file| file.write_all(&line)).map_err(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(unix_millis: u64, what: &str) -> Note {
        Note { unix_millis, event: "trained".to_owned(), what: what.to_owned() }
    }

    #[test]
    fn the_newest_events_are_kept_in_order_and_a_torn_line_costs_itself() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::below(folder.path());
        assert_eq!(journal.notes().unwrap(), []);
        journal.note(&note(1, "a"));
        let path = folder.path().join("journal.jsonl");
        let mut torn = fs::read(&path).unwrap();
        torn.extend(b"{\"unix_mil\n");
        fs::write(&path, torn).unwrap();
        journal.note(&note(2, "b"));
        assert_eq!(journal.notes().unwrap(), [note(1, "a"), note(2, "b")]);
        let long = "x".repeat(100_000);
        (3..30).for_each(|at| journal.note(&note(at, &long)));
        let kept = journal.notes().unwrap();
        assert!((6..=13).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last().map(|note| note.unix_millis), Some(29));
        assert!(kept.is_sorted_by_key(|note| note.unix_millis));
    }
}
