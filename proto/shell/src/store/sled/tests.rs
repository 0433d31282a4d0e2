use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::store::{ArchiveError, DEFAULT_TREE, Key, Store};

const TASKS: &str = "tasks";

/// A store in a folder, and what it lies on.
fn opened(path: &Path) -> (Store, Arc<Sled>) {
    let engine = Arc::new(Sled::open(path, Options::default()).unwrap());
    (Store::over(Arc::clone(&engine) as Arc<dyn Engine>), engine)
}

#[test]
fn the_default_tree_is_the_engine_s_and_is_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let (store, engine) = opened(folder.path());
    let mut batch = Batch::new();
    batch.put(DEFAULT_TREE, "installed", &1).unwrap();
    batch.put(DEFAULT_TREE, "moved", &1).unwrap();
    store.commit_blocking(&batch).unwrap();
    let engine = &engine.db;
    assert_eq!(engine.name(), DEFAULT_TREE.as_bytes());
    let record = engine.get("installed").unwrap().unwrap();
    engine.insert("moved", record).unwrap();

    assert_eq!(store.get(DEFAULT_TREE, "installed").unwrap(), Some(1));
    let check = store.check().unwrap();
    assert_eq!((check.records, check.damaged), (2, vec![(DEFAULT_TREE.to_owned(), hex::encode("moved"))]));
}

#[test]
fn a_damaged_record_is_named_by_tree_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let (store, engine) = opened(folder.path());
    let mut batch = Batch::new();
    batch.put(TASKS, 1, &"night").unwrap();
    batch.put(TASKS, 2, &"night").unwrap();
    store.commit_blocking(&batch).unwrap();

    let tree = engine.db.open_tree(TASKS).unwrap();
    let key = Key::from(2);
    let mut record = tree.get(key.as_bytes()).unwrap().unwrap().to_vec();
    *record.last_mut().unwrap() ^= 1;
    tree.insert(key.as_bytes(), record).unwrap();

    let error = store.get::<String>(TASKS, 2).unwrap_err();
    let named = ("tasks".to_owned(), "0000000000000002".to_owned());
    assert!(matches!(&error, StoreError::Damaged { tree, key } if (tree, key) == (&named.0, &named.1)));
    let check = store.check().unwrap();
    assert_eq!(check.records, 2);
    assert_eq!(check.damaged, [named]);
}

#[test]
fn a_stopped_store_takes_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (store, engine) = opened(folder.path());
    engine.stopped.store(true, Ordering::Release);
    let mut batch = Batch::new();
    batch.put(TASKS, 1, &1).unwrap();
    let error = store.commit_blocking(&batch).unwrap_err();
    assert!(matches!(error, StoreError::Stopped { .. }));
}

#[test]
fn a_damaged_record_is_not_exported_as_if_it_were_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (store, engine) = opened(folder.path());
    let mut batch = Batch::new();
    batch.put(DEFAULT_TREE, "installed", &1).unwrap().put(TASKS, 1, &1).unwrap();
    store.commit_blocking(&batch).unwrap();
    engine.db.insert("installed", b"damaged").unwrap();
    assert!(matches!(store.export(&mut Vec::new()), Err(ArchiveError::Store(StoreError::Damaged { .. }))));
    assert_eq!(store.check().unwrap().damaged.len(), 1);
}

/// ```text
/// cargo test -p nightshift-shell --lib -- --ignored --nocapture commits_a_second
/// ```
#[test]
#[ignore = "a measurement"]
fn commits_a_second_of_one_and_of_many_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for committers in [1_u64, 4, 16] {
        let begun = Instant::now();
        let commits: u64 = thread::scope(|scope| {
            let committers: Vec<_> = (0..committers)
                .map(|committer| {
                    let store = store.clone();
                    scope.spawn(move || {
                        let mut commits = 0;
                        while begun.elapsed() < Duration::from_secs(3) {
                            let mut batch = Batch::new();
                            batch.put(TASKS, committer, &commits).unwrap();
                            store.commit_blocking(&batch).unwrap();
                            commits += 1;
                        }
                        commits
                    })
                })
                .collect();
            committers.into_iter().map(|committer| committer.join().unwrap()).sum()
        });
        println!("{committers} at a time: {:.0} commits/s", commits as f64 / begun.elapsed().as_secs_f64());
    }
}
