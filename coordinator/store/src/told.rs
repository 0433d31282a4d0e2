//! What a commit says to all who listen, as the text of one notification.
//!
//! A line for each change: the name of a tree, or that, a tab, and a key in hex. Where that is too long, only trees are named; where
//! those are too many, nothing is said but that something changed.

use shell::store::{Change, Key};

/// The channel.
pub(crate) const CHANNEL: &str = "nightshift";

/// PostgreSQL takes less than 8,000 bytes.
const LONGEST: usize = 7_900;

/// What says that anything may have changed.
pub(crate) const ANYTHING: &str = "*";

/// The text of a notification.
pub(crate) fn said(changes: &[Change]) -> String {
    let line = |change: &Change| match change {
        Change::Record { tree, key } => format!("{tree}\t{}", hex::encode(key.as_bytes())),
        Change::Tree(tree) => tree.clone(),
        Change::Everything => ANYTHING.to_owned(),
    };
    let tree = |change: &Change| match change {
        Change::Record { tree, .. } | Change::Tree(tree) => tree.clone(),
        Change::Everything => ANYTHING.to_owned(),
    };
    let all = changes.iter().map(line).collect::<Vec<_>>().join("\n");
    if all.len() <= LONGEST {
        return all;
    }
    let mut trees: Vec<String> = changes.iter().map(tree).collect();
    trees.dedup();
    let trees = trees.join("\n");
    if trees.len() <= LONGEST { trees } else { ANYTHING.to_owned() }
}

/// What a text says. One that this version does not understand may say anything.
pub(crate) fn heard(text: &str) -> Vec<Change> {
    let change = |line: &str| match line.split_once('\t') {
        Some((tree, key)) => {
            let key = hex::decode(key).ok()?;
            Some(Change::Record { tree: tree.to_owned(), key: Key::from(key.as_slice()) })
        }
        None if line == ANYTHING || line.is_empty() => None,
        None => Some(Change::Tree(line.to_owned())),
    };
    let changes: Option<Vec<Change>> = text.split('\n').map(change).collect();
    changes.unwrap_or_else(|| vec![Change::Everything])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tree: &str, key: &[u8]) -> Change {
        Change::Record { tree: tree.to_owned(), key: Key::from(key) }
    }

    #[test]
    fn what_is_said_is_heard() {
        let changes =
            [record("tasks", &[]), record("tasks", &[255; 255]), Change::Tree("devices".to_owned())];
        assert_eq!(heard(&said(&changes)), changes);
        assert_eq!(heard(&said(&[Change::Everything])), [Change::Everything]);
    }

    #[test]
    fn what_is_too_long_is_said_by_trees_and_then_as_anything() {
        let long: Vec<Change> = (0..40).map(|key| record("tasks", &[key; 200])).collect();
        assert_eq!(heard(&said(&long)), [Change::Tree("tasks".to_owned())]);
        let longer: Vec<Change> = (0..100).map(|tree| Change::Tree(format!("{tree:0100}"))).collect();
        assert_eq!(heard(&said(&longer)), [Change::Everything]);
    }

    #[test]
    fn what_is_not_understood_may_be_anything() {
        for text in ["", "tasks\tnothex", "*", "tasks\n\n"] {
            assert_eq!(heard(text), [Change::Everything], "{text:?}");
        }
    }
}
