use std::thread;

use serde::{Deserialize, Serialize};

use super::*;

const TASKS: &str = "tasks";
const DEVICES: &str = "devices";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Task {
    name: String,
    version: u64,
}

fn task(version: u64) -> Task {
    Task { name: "night".to_owned(), version }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut batch = Batch::new();
    batch.put(TASKS, 7, &task(1)).unwrap();
    batch.put(DEVICES, [9; 16], &"phone").unwrap();
    store.commit(batch).await.unwrap();
    drop(store);

    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.get::<Task>(TASKS, 7).unwrap(), Some(task(1)));
    let device: Option<String> = store.get(DEVICES, [9; 16]).unwrap();
    assert_eq!(device.as_deref(), Some("phone"));
    assert_eq!(store.get::<Task>(TASKS, 8).unwrap(), None);
}

#[test]
fn a_store_that_keeps_no_room_lays_no_ballast_and_asks_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { cache_bytes: 4 << 20, room: Room::NotKept };
    let store = Store::open_with(folder.path(), options).unwrap();
    assert!(!folder.path().join("ballast").exists());
    store.check_room().unwrap();
    store.set_free_space_floor(u64::MAX);
    assert!(matches!(store.check_room(), Err(StoreError::DiskFull { .. })));
}

#[test]
fn a_second_opening_names_the_path_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(&error, StoreError::InUse { path } if path == folder.path()));
    let message = error.to_string();
    assert!(message.contains(&folder.path().display().to_string()));
    assert!(message.contains("another process holds"));
    drop(store);
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_batch_that_expects_something_else_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut first = Batch::new();
    first.insert(TASKS, 7, &task(1)).unwrap();
    store.commit_blocking(&first).unwrap();

    let again = store.commit_blocking(&first).unwrap_err();
    assert!(matches!(again, StoreError::Conflict { tree, .. } if tree == TASKS));

    let mut stale = Batch::new();
    stale.put(DEVICES, 1, &"phone").unwrap();
    stale.replace(TASKS, 7, &task(0), &task(2)).unwrap();
    let error = store.commit_blocking(&stale).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }));
    assert_eq!(store.get::<Task>(TASKS, 7).unwrap(), Some(task(1)));
    assert_eq!(store.get::<String>(DEVICES, 1).unwrap(), None);

    let mut fresh = Batch::new();
    fresh.replace(TASKS, 7, &task(1), &task(2)).unwrap();
    store.commit_blocking(&fresh).unwrap();
    assert_eq!(store.get::<Task>(TASKS, 7).unwrap(), Some(task(2)));
}

#[test]
fn of_many_that_race_for_one_key_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let wins: usize = thread::scope(|scope| {
        let racers: Vec<_> = (0..8_u64)
            .map(|racer| {
                let store = store.clone();
                scope.spawn(move || {
                    let mut batch = Batch::new();
                    batch.insert(TASKS, 0, &racer).unwrap();
                    usize::from(store.commit_blocking(&batch).is_ok())
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
}

#[test]
fn a_scan_is_in_the_order_of_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut batch = Batch::new();
    for number in [256, 1, 65_536, 2, 255] {
        batch.put(TASKS, number, &number).unwrap();
    }
    store.commit_blocking(&batch).unwrap();

    let keys = |range: (Bound<Key>, Bound<Key>)| -> Vec<u64> {
        let items = store.scan::<u64>(TASKS, range).unwrap();
        items.map(|item| item.unwrap().1).collect()
    };
    let all = keys((Bound::Unbounded, Bound::Unbounded));
    assert_eq!(all, [1, 2, 255, 256, 65_536]);
    let some = keys((Bound::Included(2.into()), Bound::Excluded(256.into())));
    assert_eq!(some, [2, 255]);
}

#[test]
fn a_prefix_scan_sees_only_its_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut batch = Batch::new();
    for (task, version) in [(1, 0), (1, 1), (2, 0)] {
        let key = Key::from(task).and_u64(version);
        batch.put(TASKS, key, &(task, version)).unwrap();
    }
    store.commit_blocking(&batch).unwrap();
    let items = store.scan_prefix::<(u64, u64)>(TASKS, &1.into()).unwrap();
    let items: Vec<_> = items.map(|item| item.unwrap()).collect();
    let expected_keys = [0, 1].map(|version| Key::from(1).and_u64(version));
    let [first, second] = expected_keys;
    assert_eq!(items, [(first, (1, 0)), (second, (1, 1))]);
}

#[test]
fn a_removed_value_is_gone_and_a_later_change_replaces_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut batch = Batch::new();
    batch.put(TASKS, 1, &1).unwrap().put(TASKS, 1, &2).unwrap();
    store.commit_blocking(&batch).unwrap();
    assert_eq!(store.get::<u64>(TASKS, 1).unwrap(), Some(2));
    let mut removal = Batch::new();
    removal.remove(TASKS, 1);
    store.commit_blocking(&removal).unwrap();
    assert_eq!(store.get::<u64>(TASKS, 1).unwrap(), None);
}

#[test]
fn a_value_over_four_kibibytes_is_refused() {
    let mut batch = Batch::new();
    let error = batch.put(TASKS, 1, &"x".repeat(5000)).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { limit_bytes: 4096, .. }));
    assert!(batch.is_empty());
}

#[test]
fn a_record_of_another_type_is_not_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut batch = Batch::new();
    batch.put(TASKS, 1, &"text").unwrap();
    store.commit_blocking(&batch).unwrap();
    let error = store.get::<Task>(TASKS, 1).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }));
}

/// All records, as they are.
fn all(store: &Store) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let read = store.each::<StoreError>(|tree, key, payload| {
        all.push((tree.to_owned(), key.to_vec(), payload.unwrap().to_vec()));
        Ok(())
    });
    read.unwrap();
    all
}

fn filled(path: &Path) -> Store {
    let store = Store::open(path).unwrap();
    let mut batch = Batch::new();
    for version in 0..2_500 {
        batch.put(TASKS, version, &task(version)).unwrap();
    }
    batch.put(DEVICES, [9; 16], &"a label\twith\nbreaks and \u{e9}").unwrap();
    batch.put(DEFAULT_TREE, "installed", &1).unwrap();
    store.commit_blocking(&batch).unwrap();
    store
}

#[test]
fn a_store_that_was_exported_and_imported_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (filled(&folder.path().join("a")), Store::open(&folder.path().join("b")).unwrap());
    let mut file = Vec::new();
    assert_eq!(first.export(&mut file).unwrap(), 2_502);
    assert_eq!(second.import(&mut file.as_slice()).unwrap(), 2_502);
    drop(second);
    let second = Store::open(&folder.path().join("b")).unwrap();
    assert_eq!(all(&first), all(&second));
    // It is written the same again, and compared with what is stored as any other.
    let mut again = Vec::new();
    second.export(&mut again).unwrap();
    assert!(file == again);
    let mut batch = Batch::new();
    batch.replace(TASKS, 7, &task(7), &task(8)).unwrap();
    second.commit_blocking(&batch).unwrap();
    let refused = second.import(&mut file.as_slice());
    assert!(matches!(refused, Err(ArchiveError::NotEmpty)), "{refused:?}");
}

#[test]
fn a_file_that_was_cut_off_or_changed_makes_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Vec::new();
    filled(&folder.path().join("a")).export(&mut file).unwrap();
    let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    let imported = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).unwrap().import(&mut &*bytes).map_err(|error| error.to_string())
    };
    let cut = imported(&file[..file.len() / 2]).unwrap_err();
    assert!(cut.contains("cut off"), "{cut}");
    let without_end = imported(&lines[..lines.len() - 1].concat()).unwrap_err();
    assert!(without_end.contains("cut off"), "{without_end}");
    let without_one = [&lines[..7], &lines[8..]].concat().concat();
    let without_one = imported(&without_one).unwrap_err();
    assert!(without_one.contains("not the one that was written: 2501 records"), "{without_one}");
    let mut changed = file.clone();
    let at = changed.windows(5).rposition(|bytes| bytes == b"night").unwrap();
    assert!(at > lines[0].len(), "not in the first line");
    changed[at] = b'l';
    let changed = imported(&changed).unwrap_err();
    assert!(changed.ends_with("its checksum does not hold"), "{changed}");
    let other = imported(b"nightshift-store\t2\n").unwrap_err();
    assert!(other.starts_with("line 1: expected `nightshift-store\t1`"), "{other}");
}
