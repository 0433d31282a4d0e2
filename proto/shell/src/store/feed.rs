//! Who is told of what was committed.
//!
//! Each who follows has an inbox with a bounded number of changes. Where more wait, they give place to one,
//! [`Change::Everything`]: whoever is slow reads all again, and nobody's memory grows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::{Batch, Key};

/// How many changes wait for one who follows.
const MOST_WAITING: usize = 1_024;

/// A batch that changes more keys of one tree than this is told by the tree.
const MOST_KEYS: usize = 64;

/// What was committed, by somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The record under a key was put or removed.
    Record {
        /// The tree.
        tree: String,
        /// The key.
        key: Key,
    },
    /// Any records of a tree.
    Tree(String),
    /// Something may have been missed: whatever was read is to be read again.
    Everything,
}

impl Change {
    fn tree(&self) -> Option<&str> {
        match self {
            Self::Record { tree, .. } | Self::Tree(tree) => Some(tree),
            Self::Everything => None,
        }
    }

    /// What a batch changes, in order: keys, or whole trees of which it changes many. What it only expects is no change.
    pub fn of(batch: &Batch) -> Vec<Self> {
        let mut trees: BTreeMap<&str, Vec<&Key>> = BTreeMap::new();
        for (tree, key, _) in batch.steps().filter(|(.., step)| step.write.is_some()) {
            trees.entry(tree).or_default().push(key);
        }
        let told = |(tree, keys): (&str, Vec<&Key>)| {
            if keys.len() > MOST_KEYS {
                return vec![Self::Tree(tree.to_owned())];
            }
            keys.into_iter().map(|key| Self::Record { tree: tree.to_owned(), key: key.clone() }).collect()
        };
        trees.into_iter().flat_map(told).collect()
    }
}

/// The inboxes of all who follow one store.
#[derive(Debug, Default)]
pub struct Feed {
    inboxes: Mutex<Vec<Weak<Inbox>>>,
}

impl Feed {
    /// Follows what is committed to these trees from now on; to all where none is named.
    pub fn follow(&self, trees: &[&'static str]) -> Changes {
        let inbox = Arc::new(Inbox { trees: trees.to_vec(), waiting: Mutex::default(), came: Notify::new() });
        lock(&self.inboxes).push(Arc::downgrade(&inbox));
        Changes { inbox }
    }

    /// Tells who follows what a batch changed. For engines that hear of no other process.
    pub fn committed(&self, batch: &Batch) {
        if !lock(&self.inboxes).is_empty() {
            self.tell(&Change::of(batch));
        }
    }

    /// Tells who follows.
    pub fn tell(&self, changes: &[Change]) {
        lock(&self.inboxes).retain(|inbox| {
            let Some(inbox) = inbox.upgrade() else { return false };
            inbox.put(changes);
            true
        });
    }
}

#[derive(Debug)]
struct Inbox {
    trees: Vec<&'static str>,
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<Change>,
    /// In the place of all that waited.
    everything: bool,
}

impl Inbox {
    fn put(&self, changes: &[Change]) {
        let mut waiting = lock(&self.waiting);
        let mut has_come = false;
        for change in changes {
            let concerns = |tree| self.trees.is_empty() || self.trees.contains(&tree);
            if waiting.everything || !change.tree().is_none_or(concerns) {
                continue;
            }
            has_come = true;
            if *change == Change::Everything || waiting.changes.len() == MOST_WAITING {
                *waiting = Waiting { changes: VecDeque::new(), everything: true };
            } else {
                waiting.changes.push_back(change.clone());
            }
        }
        drop(waiting);
        if has_come {
            self.came.notify_one();
        }
    }

    fn take(&self) -> Option<Change> {
        let mut waiting = lock(&self.waiting);
        if std::mem::take(&mut waiting.everything) {
            return Some(Change::Everything);
        }
        waiting.changes.pop_front()
    }
}

/// What is committed, as it is: a stream without an end. It holds no store open, and waits for ever where nobody has it open.
#[derive(Debug)]
pub struct Changes {
    inbox: Arc<Inbox>,
}

impl Changes {
    /// The next change. Whoever drops this future misses nothing.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.inbox.take() {
                return change;
            }
            // What comes between the look and this leaves a permit.
            self.inbox.came.notified().await;
        }
    }

    /// The next change, if one waits.
    pub fn waiting(&mut self) -> Option<Change> {
        self.inbox.take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is whole after each change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: &str = "tasks";

    fn batch(keys: u64) -> Batch {
        let mut batch = Batch::new();
        for key in 0..keys {
            batch.put(TASKS, key, &key).unwrap();
        }
        batch.put("devices", 7, &7).unwrap();
        batch.expect_absent("tokens", 1);
        batch
    }

    fn record(tree: &str, key: u64) -> Change {
        Change::Record { tree: tree.to_owned(), key: key.into() }
    }

    #[tokio::test]
    async fn who_follows_a_tree_is_told_of_its_keys_and_of_no_others() {
        let feed = Feed::default();
        let (mut tasks, mut all) = (feed.follow(&[TASKS]), feed.follow(&[]));
        feed.committed(&batch(2));
        assert_eq!([tasks.next().await, tasks.next().await], [record(TASKS, 0), record(TASKS, 1)]);
        assert_eq!(tasks.waiting(), None);
        assert_eq!(all.next().await, record("devices", 7));
    }

    #[test]
    fn a_batch_of_many_keys_is_told_by_its_tree() {
        let told = Change::of(&batch(MOST_KEYS as u64 + 1));
        assert_eq!(told, [record("devices", 7), Change::Tree(TASKS.to_owned())]);
    }

    #[tokio::test]
    async fn who_is_slow_is_told_to_read_all_again_and_hears_on_then() {
        let feed = Feed::default();
        let mut changes = feed.follow(&[TASKS]);
        for _ in 0..MOST_WAITING {
            feed.committed(&batch(2));
        }
        assert_eq!(changes.next().await, Change::Everything);
        assert_eq!(changes.waiting(), None);
        feed.committed(&batch(1));
        assert_eq!(changes.next().await, record(TASKS, 0));
    }

    #[test]
    fn who_follows_no_longer_has_no_inbox() {
        let feed = Feed::default();
        drop(feed.follow(&[]));
        feed.tell(&[Change::Everything]);
        assert!(lock(&feed.inboxes).is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let feed = Feed::default();
        let mut changes = feed.follow(&[]);
        let tells = async {
            tokio::task::yield_now().await;
            feed.tell(&[Change::Everything]);
        };
        assert_eq!(tokio::join!(changes.next(), tells).0, Change::Everything);
    }
}
