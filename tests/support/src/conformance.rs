//! What every engine of a store does, whichever it is.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shell::store::{ArchiveError, Batch, Change, Changes, Key, Raw, Store, StoreError};

const TASKS: &str = "tasks";
const DEVICES: &str = "devices";

/// What is needed of an engine: stores that have no records.
pub type Fresh<'a> = dyn Fn() -> Store + 'a;

/// Holds an engine to all that is asked of one. Panics with what it does otherwise.
pub fn conforms(fresh: &Fresh<'_>) {
    let store = fresh;
    values(&store());
    expectations(&store());
    ranges(&store());
    extremes(&store());
    many_trees(&store());
    async_reads(&store());
    counts(&store(), 8, 25);
    no_write_skew(&store());
    changes(&store());
    time(&store());
    damage(&store());
    archives(&store(), &store(), &store());
    model(&store(), 24);
}

fn put(store: &Store, tree: &'static str, key: impl Into<Key>, value: &str) {
    let mut batch = Batch::new();
    batch.put(tree, key, &value).unwrap();
    store.commit_blocking(&batch).unwrap();
}

fn text(store: &Store, tree: &'static str, key: impl Into<Key>) -> Option<String> {
    store.get(tree, key).unwrap()
}

fn values(store: &Store) {
    assert_eq!(text(store, TASKS, 1), None, "a tree that nobody wrote");
    store.commit_blocking(&Batch::new()).unwrap();
    put(store, TASKS, 1, "one");
    put(store, DEVICES, 1, "other");
    assert_eq!(text(store, TASKS, 1).as_deref(), Some("one"));
    assert_eq!(text(store, DEVICES, 1).as_deref(), Some("other"));
    put(store, TASKS, 1, "uno");
    assert_eq!(text(store, TASKS, 1).as_deref(), Some("uno"));
    let mut batch = Batch::new();
    batch.remove(TASKS, 1).remove(TASKS, 2);
    batch.put(DEVICES, 2, &"two").unwrap();
    store.commit_blocking(&batch).unwrap();
    assert_eq!(text(store, TASKS, 1), None);
    assert_eq!(text(store, DEVICES, 2).as_deref(), Some("two"));
    let other: Result<Option<u64>, StoreError> = store.get(DEVICES, 2);
    assert!(matches!(other, Err(StoreError::Unreadable { .. })), "{other:?}");
    assert!(!store.is_stopped());
    store.check_room().unwrap();
}

/// Fails by this key, and changes nothing.
fn refused(store: &Store, batch: &Batch, tree: &str, key: u64) {
    let before = everything(store);
    match store.commit_blocking(batch) {
        Err(StoreError::Conflict { tree: named, key: hex }) => {
            assert_eq!((named.as_str(), hex), (tree, format!("{key:016x}")));
        }
        other => panic!("expected a conflict at {tree} {key}, got {other:?}"),
    }
    assert_eq!(everything(store), before, "a batch that was refused changed something");
}

fn everything(store: &Store) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let read = store.each::<StoreError>(|tree, key, payload| {
        all.push((tree.to_owned(), key.to_vec(), payload.unwrap().to_vec()));
        Ok(())
    });
    read.unwrap();
    assert!(all.is_sorted(), "records are not in the order of trees and keys");
    all
}

fn expectations(store: &Store) {
    let batch = |change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        // A change in another tree, before and behind: all or nothing.
        batch.put(DEVICES, 0, &"before").unwrap();
        change(&mut batch);
        batch.put("zones", 0, &"behind").unwrap();
        batch
    };
    let insert = batch(&|batch| _ = batch.insert(TASKS, 7, &"one").unwrap());
    store.commit_blocking(&insert).unwrap();
    assert_eq!(text(store, "zones", 0).as_deref(), Some("behind"));
    refused(store, &insert, TASKS, 7);
    refused(store, &batch(&|batch| _ = batch.expect_absent(TASKS, 7)), TASKS, 7);
    refused(store, &batch(&|batch| _ = batch.expect(TASKS, 7, &"two").unwrap()), TASKS, 7);
    refused(store, &batch(&|batch| _ = batch.expect(TASKS, 8, &"one").unwrap()), TASKS, 8);
    refused(store, &batch(&|batch| _ = batch.replace(TASKS, 7, &"two", &"three").unwrap()), TASKS, 7);
    refused(store, &batch(&|batch| _ = batch.expect_absent(TASKS, 7).remove(TASKS, 7)), TASKS, 7);
    let mut only = Batch::new();
    only.expect_absent(TASKS, 7);
    refused(store, &only, TASKS, 7);
    let mut only = Batch::new();
    only.expect_absent(TASKS, 9).expect(TASKS, 7, &"one").unwrap();
    store.commit_blocking(&only).unwrap();
    let replace = batch(&|batch| _ = batch.replace(TASKS, 7, &"one", &"two").unwrap());
    store.commit_blocking(&replace).unwrap();
    assert_eq!(text(store, TASKS, 7).as_deref(), Some("two"));
    refused(store, &replace, TASKS, 7);
    let taken = batch(&|batch| _ = batch.expect(TASKS, 7, &"two").unwrap().remove(TASKS, 7));
    store.commit_blocking(&taken).unwrap();
    assert_eq!(text(store, TASKS, 7), None);
    refused(store, &taken, TASKS, 7);
}

fn ranges(store: &Store) {
    const KEYS: u64 = 1_500;
    let mut batch = Batch::new();
    for key in 0..KEYS {
        batch.put(TASKS, 2 * key, &key).unwrap();
    }
    // What lies beside is not in it.
    batch.put("task", 3, &3).unwrap().put("taskt", 3, &3).unwrap();
    store.commit_blocking(&batch).unwrap();
    let model: BTreeMap<u64, u64> = (0..KEYS).map(|key| (2 * key, key)).collect();
    let bounds = |at: u64| [Bound::Included(at), Bound::Excluded(at)];
    let ends = [0, 1, 62, 64, 1_000, 2 * KEYS - 2, 2 * KEYS];
    let all: Vec<Bound<u64>> = ends.into_iter().flat_map(bounds).chain([Bound::Unbounded]).collect();
    for from in &all {
        for to in &all {
            let scanned = store.scan::<u64>(TASKS, (from.map(Key::from), to.map(Key::from))).unwrap();
            let scanned: Vec<(Key, u64)> = scanned.map(Result::unwrap).collect();
            let is_in = |key: &u64| std::ops::RangeBounds::contains(&(*from, *to), key);
            let expected = model.iter().filter(|(key, _)| is_in(key));
            let expected: Vec<(Key, u64)> = expected.map(|(key, value)| (Key::from(*key), *value)).collect();
            assert!(scanned == expected, "{from:?} to {to:?}: {} of {}", scanned.len(), expected.len());
        }
    }
    // What is put and taken away while somebody reads stops nobody.
    let mut reading = store.scan::<u64>(TASKS, (Bound::Unbounded, Bound::Unbounded)).unwrap();
    assert_eq!(reading.next().unwrap().unwrap().1, 0);
    let mut batch = Batch::new();
    batch.remove(TASKS, 2 * KEYS - 2).put(TASKS, 2 * KEYS + 2, &KEYS).unwrap();
    store.commit_blocking(&batch).unwrap();
    let rest: Vec<u64> = reading.map(|item| item.unwrap().1).collect();
    assert_eq!(rest, (1..KEYS - 1).chain([KEYS]).collect::<Vec<_>>());
}

fn extremes(store: &Store) {
    // What a record of 4,096 bytes holds: nine for its frame, two for the quotes.
    let largest = "x".repeat(4_096 - 9 - 2);
    let keys: [&[u8]; 6] = [&[], &[0], &[0; 255], &[127; 3], &[255], &[255; 255]];
    let mut batch = Batch::new();
    for key in keys {
        batch.put(TASKS, key, &largest).unwrap();
    }
    let too_large = Batch::new().put(TASKS, 1, &format!("{largest}x")).map(drop);
    assert!(matches!(too_large, Err(StoreError::TooLarge { limit_bytes: 4_096, .. })));
    store.commit_blocking(&batch).unwrap();
    for key in keys {
        assert_eq!(text(store, TASKS, key).as_ref(), Some(&largest), "a key of {} bytes", key.len());
    }
    let of = |prefix: &[u8]| -> Vec<usize> {
        let found = store.scan_prefix::<String>(TASKS, &Key::from(prefix)).unwrap();
        found.map(|item| item.unwrap().0.as_bytes().len()).collect()
    };
    assert_eq!(of(&[]), [0, 1, 255, 3, 1, 255]);
    assert_eq!(of(&[0]), [1, 255]);
    assert_eq!(of(&[255]), [1, 255]);
    assert_eq!(of(&[127, 127]), [3]);
    let mut batch = Batch::new();
    batch.expect(TASKS, [], &largest).unwrap().remove(TASKS, []);
    store.commit_blocking(&batch).unwrap();
    assert_eq!(of(&[]), [1, 255, 3, 1, 255]);
}

fn many_trees(store: &Store) {
    const TREES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "B", "a-b", "a_b", "\u{e9}"];
    let mut batch = Batch::new();
    for (at, tree) in TREES.into_iter().enumerate() {
        for key in 0..=at as u64 {
            batch.put(tree, key, &tree).unwrap();
        }
    }
    store.commit_blocking(&batch).unwrap();
    for (at, tree) in TREES.into_iter().enumerate() {
        let found = store.scan_prefix::<String>(tree, &Key::default()).unwrap();
        assert!(found.map(|item| item.unwrap().1).eq(std::iter::repeat_n(tree.to_owned(), at + 1)));
    }
    let records = (1..=TREES.len()).sum::<usize>();
    assert_eq!(everything(store).len(), records);
    assert_eq!(store.check().unwrap().records, records as u64);
}

fn async_reads(store: &Store) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut batch = Batch::new();
        batch.put(TASKS, 1, &"one").unwrap().put(TASKS, 2, &"two").unwrap();
        store.commit(batch.clone()).await.unwrap();
        assert_eq!(store.read::<String>(TASKS, 1).await.unwrap().as_deref(), Some("one"));
        assert_eq!(store.read::<String>(TASKS, 3).await.unwrap(), None);
        let all = store.read_prefix::<String>(TASKS, Key::default()).await.unwrap();
        assert_eq!(all, [(Key::from(1), "one".to_owned()), (Key::from(2), "two".to_owned())]);
        let range = (Bound::Excluded(Key::from(1)), Bound::Unbounded);
        assert_eq!(store.read_range::<String>(TASKS, range).await.unwrap(), all[1..]);
        // On a thread of a runtime too, for those who look quickly.
        assert_eq!(text(store, TASKS, 2).as_deref(), Some("two"));
        assert!(store.now().await.unwrap() > 0);
        batch.expect_absent(TASKS, 1);
        assert!(matches!(store.commit(batch).await, Err(StoreError::Conflict { .. })));
    });
}

/// Adds one to a counter by compare-and-set, until it was added once and not twice.
pub fn add_one(store: &Store, tree: &'static str, key: u64) {
    loop {
        let found: Option<u64> = store.get(tree, key).unwrap();
        let mut batch = Batch::new();
        match &found {
            None => batch.insert(tree, key, &1_u64).unwrap(),
            Some(count) => batch.replace(tree, key, count, &(count + 1)).unwrap(),
        };
        match store.commit_blocking(&batch) {
            Ok(()) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// Counts on many threads, exactly.
pub fn counts(store: &Store, threads: u64, each: u64) {
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for _ in 0..each {
                    add_one(store, TASKS, 0);
                    // What nobody else writes is in nobody's way.
                    add_one(store, DEVICES, thread);
                }
            });
        }
    });
    assert_eq!(store.get::<u64>(TASKS, 0).unwrap(), Some(threads * each));
    for thread in 0..threads {
        assert_eq!(store.get::<u64>(DEVICES, thread).unwrap(), Some(each));
    }
}

/// Two that each expect the other's record to be absent are never both taken.
fn no_write_skew(store: &Store) {
    for turn in 0..40_u64 {
        let taken: usize = thread::scope(|scope| {
            let one = |own: u64, other: u64| {
                scope.spawn(move || {
                    let mut batch = Batch::new();
                    batch.expect_absent(TASKS, other).put(TASKS, own, &own).unwrap();
                    match store.commit_blocking(&batch) {
                        Ok(()) => 1,
                        Err(StoreError::Conflict { .. }) => 0,
                        Err(other) => panic!("{other}"),
                    }
                })
            };
            let both = [one(2 * turn, 2 * turn + 1), one(2 * turn + 1, 2 * turn)];
            both.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(taken, 1, "turn {turn}");
    }
}

/// The next change, which comes within seconds.
pub fn next(changes: &mut Changes) -> Change {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let soon = async { tokio::time::timeout(Duration::from_secs(20), changes.next()).await };
    runtime.block_on(soon).expect("no change is told")
}

fn changes(store: &Store) {
    let record = |tree: &str, key: u64| Change::Record { tree: tree.to_owned(), key: Key::from(key) };
    let (mut tasks, mut all) = (store.changes(&[TASKS]), store.changes(&[]));
    put(store, DEVICES, 1, "one");
    put(&store.clone(), TASKS, 2, "two");
    let mut refused = Batch::new();
    refused.insert(TASKS, 2, &"again").unwrap();
    store.commit_blocking(&refused).unwrap_err();
    let mut removal = Batch::new();
    removal.expect_absent(DEVICES, 5).remove(TASKS, 2);
    store.commit_blocking(&removal).unwrap();
    assert_eq!([next(&mut tasks), next(&mut tasks)], [record(TASKS, 2), record(TASKS, 2)]);
    let told = [next(&mut all), next(&mut all), next(&mut all)];
    assert_eq!(told, [record(DEVICES, 1), record(TASKS, 2), record(TASKS, 2)]);
    let mut many = Batch::new();
    for key in 0..1_000 {
        many.put(TASKS, key, &key).unwrap();
    }
    store.commit_blocking(&many).unwrap();
    assert_eq!(next(&mut tasks), Change::Tree(TASKS.to_owned()));
    // Who is slow reads all again.
    for _ in 0..40 {
        let mut some = Batch::new();
        for key in 0..50 {
            some.put(TASKS, key, &key).unwrap();
        }
        store.commit_blocking(&some).unwrap();
    }
    let mut devices = store.changes(&[DEVICES]);
    put(store, DEVICES, 9, "last");
    assert_eq!(next(&mut devices), record(DEVICES, 9));
    assert_eq!(next(&mut tasks), Change::Everything);
}

fn time(store: &Store) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = store.now_millis().unwrap();
                assert!(last > 1_600_000_000_000, "{last}");
                for _ in 0..50 {
                    let now = store.now_millis().unwrap();
                    assert!(now >= last, "{now} came after {last}");
                    last = now;
                }
            });
        }
    });
}

fn damage(store: &Store) {
    let engine = store.engine();
    put(store, TASKS, 1, "one");
    let mut raw = Vec::new();
    engine
        .all(&mut |record| {
            raw.push(record.clone());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let mut batch = Batch::new();
    batch.remove(TASKS, 1);
    store.commit_blocking(&batch).unwrap();
    // The same record at its own place, at one that is not its own, with a bit turned, and cut.
    let at = |key: u64, record: Vec<u8>| Raw {
        tree: TASKS.to_owned(),
        key: Key::from(key).as_bytes().to_vec(),
        record,
    };
    let whole = raw[0].record.clone();
    let mut turned = whole.clone();
    *turned.last_mut().unwrap() ^= 1;
    let mut pages =
        vec![vec![at(1, whole.clone()), at(2, whole)], vec![at(3, turned), at(4, vec![1])]].into_iter();
    engine.fill(&mut || Some(pages.next().unwrap_or_default())).unwrap();
    assert_eq!(text(store, TASKS, 1).as_deref(), Some("one"));
    let damaged = store.get::<String>(TASKS, 2).unwrap_err();
    assert!(
        matches!(&damaged, StoreError::Damaged { tree, key } if tree == TASKS && key == "0000000000000002")
    );
    let scanned: Vec<bool> =
        store.scan_prefix::<String>(TASKS, &Key::default()).unwrap().map(|item| item.is_ok()).collect();
    assert_eq!(scanned, [true, false, false, false]);
    let check = store.check().unwrap();
    assert_eq!((check.records, check.damaged.len()), (4, 3));
    assert!(matches!(store.export(&mut Vec::new()), Err(ArchiveError::Store(StoreError::Damaged { .. }))));
}

fn archives(first: &Store, second: &Store, third: &Store) {
    let mut batch = Batch::new();
    for key in 0..2_500 {
        batch.put(TASKS, key, &format!("{key}\t\n\u{e9}")).unwrap();
    }
    batch.put(DEVICES, [], &"no key").unwrap().put("Z", [255; 255], &[1, 2]).unwrap();
    first.commit_blocking(&batch).unwrap();
    let (mut file, mut again) = (Vec::new(), Vec::new());
    assert_eq!(first.export(&mut file).unwrap(), 2_502);
    // One that was cut off, one that was changed: what is in a folder is thrown away then, and a database has nothing.
    let cut = third.import(&mut &file[..file.len() / 2]).unwrap_err();
    assert!(matches!(cut, ArchiveError::Line { .. }), "{cut}");
    assert_eq!(second.import(&mut file.as_slice()).unwrap(), 2_502);
    second.export(&mut again).unwrap();
    assert!(file == again, "what was imported is exported otherwise");
    let refused = second.import(&mut file.as_slice());
    assert!(matches!(refused, Err(ArchiveError::NotEmpty)), "{refused:?}");
    assert_eq!(everything(first), everything(second));
    let mut batch = Batch::new();
    batch.replace(TASKS, 7, &"7\t\n\u{e9}", &"seven").unwrap();
    second.commit_blocking(&batch).unwrap();
}

/// What happens to a key in a batch of the model: what is expected of it, and what is put or removed.
#[derive(Clone, Debug)]
struct Turn {
    tree: &'static str,
    key: Vec<u8>,
    expected: Said,
    put: Said,
}

/// What is said of a key.
#[derive(Clone, Copy, Debug)]
enum Said {
    Nothing,
    Absent,
    Value(u8),
}

impl Said {
    /// A later word replaces an earlier one.
    fn then(self, later: Self) -> Self {
        match later {
            Self::Nothing => self,
            Self::Absent | Self::Value(_) => later,
        }
    }
}

fn turns() -> impl Strategy<Value = Vec<Vec<Turn>>> {
    let tree = prop_oneof![Just("a"), Just("b"), Just("ab")];
    let key = prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..3);
    let value = || prop_oneof![Just(Said::Nothing), Just(Said::Absent), (0_u8..3).prop_map(Said::Value)];
    let turn = (tree, key, value(), value()).prop_map(|(tree, key, expected, put)| Turn {
        tree,
        key,
        expected,
        put,
    });
    prop::collection::vec(prop::collection::vec(turn, 0..5), 0..12)
}

/// A store and a map, which are given the same batches, hold the same.
fn model(store: &Store, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&turns(), |batches| {
        let mut batch = Batch::new();
        for tree in ["a", "b", "ab"] {
            for item in store.scan_prefix::<u8>(tree, &Key::default()).unwrap() {
                batch.remove(tree, item.unwrap().0);
            }
        }
        store.commit_blocking(&batch).unwrap();
        let mut model = BTreeMap::new();
        for turns in &batches {
            let mut batch = Batch::new();
            let mut last = BTreeMap::new();
            for Turn { tree, key, expected, put } in turns {
                let (expects, puts) =
                    last.entry((*tree, key.clone())).or_insert((Said::Nothing, Said::Nothing));
                let name = || Key::from(key.as_slice());
                match expected {
                    Said::Nothing => {}
                    Said::Absent => _ = batch.expect_absent(tree, name()),
                    Said::Value(value) => _ = batch.expect(tree, name(), value).unwrap(),
                }
                match put {
                    Said::Nothing => {}
                    Said::Absent => _ = batch.remove(tree, name()),
                    Said::Value(value) => _ = batch.put(tree, name(), value).unwrap(),
                }
                *expects = expects.then(*expected);
                *puts = puts.then(*put);
            }
            let holds = last.iter().all(|(at, (expects, _))| match expects {
                Said::Nothing => true,
                Said::Absent => !model.contains_key(at),
                Said::Value(value) => model.get(at) == Some(value),
            });
            let outcome = store.commit_blocking(&batch);
            prop_assert_eq!(outcome.is_ok(), holds, "{:?}", outcome);
            if holds {
                for (at, (_, puts)) in last {
                    match puts {
                        Said::Nothing => {}
                        Said::Absent => _ = model.remove(&at),
                        Said::Value(value) => _ = model.insert(at, value),
                    }
                }
            }
            for tree in ["a", "b", "ab"] {
                let found = store.scan_prefix::<u8>(tree, &Key::default()).unwrap();
                let found: Vec<_> = found
                    .map(|item| item.map(|(key, value)| (key.as_bytes().to_vec(), value)).unwrap())
                    .collect();
                let expected = model.iter().filter(|((of, _), _)| *of == tree);
                let expected: Vec<_> = expected.map(|((_, key), value)| (key.clone(), *value)).collect();
                prop_assert_eq!(found, expected);
            }
        }
        Ok(())
    });
    ran.unwrap();
}
