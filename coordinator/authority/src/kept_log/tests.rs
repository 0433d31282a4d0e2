use aggregation::IdentityPublic;
use aggregation::log::{Book, check_consistency};

use super::*;

const NOW: u64 = 1_700_000_000;

fn key() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

fn leaf(id: u8) -> Leaf {
    Leaf::Credential {
        device: [id; 16],
        identity: IdentityPublic([id; 32]),
        expires_unix_secs: NOW,
        enrolled_unix_secs: NOW,
        label: [0; 16],
        attested: [0; 32],
    }
}

fn add(log: &KeptLog, store: &Store, leaf: &Leaf) {
    let mut turn = log.turn();
    let mut batch = Batch::new();
    turn.write(&mut batch, leaf, &key(), NOW).unwrap();
    store.commit_blocking(&batch).unwrap();
    turn.kept();
}

fn root(log: &KeptLog) -> (u64, [u8; 32], u64) {
    log.log().look(|book| {
        let head = book.head().unwrap().head();
        (head.size, head.root, head.devices)
    })
}

#[test]
fn a_log_is_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    log.refresh(&key(), NOW).unwrap();
    assert_eq!(root(&log).0, 0);
    for id in 1..=5 {
        add(&log, &store, &leaf(id));
    }
    let revoked =
        log.revoke(DeviceId([2; 16]), &key(), NOW, |also| store.commit_blocking(&also).map(|()| true));
    assert!(revoked.unwrap());
    let (size, hash, devices) = root(&log);
    assert_eq!((size, devices), (6, 5));
    drop(log);
    let log = KeptLog::open(store, key().public()).unwrap();
    assert_eq!(root(&log), (size, hash, devices));
}

#[test]
fn what_was_not_kept_is_not_there_and_the_next_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    add(&log, &store, &leaf(1));
    let before = root(&log);
    let mut turn = log.turn();
    assert_eq!(turn.place(), 1);
    turn.write(&mut Batch::new(), &leaf(9), &key(), NOW).unwrap();
    drop(turn);
    let nothing = log.revoke(DeviceId([2; 16]), &key(), NOW, |_| Ok::<_, StoreError>(false));
    assert!(!nothing.unwrap());
    assert_eq!((root(&log), log.log().look(Book::size)), (before, 1));
    add(&log, &store, &leaf(2));
    assert_eq!(root(&KeptLog::open(store, key().public()).unwrap()), root(&log));
}

#[test]
fn a_head_is_signed_anew_before_it_is_a_day_old_and_not_all_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    let signed = || log.log().look(|book| book.head().map(|head| head.head().unix_secs));
    log.refresh(&key(), NOW).unwrap();
    log.refresh(&key(), NOW + HEAD_SECS - 1).unwrap();
    assert_eq!(signed(), Some(NOW));
    log.refresh(&key(), NOW + HEAD_SECS).unwrap();
    assert_eq!(signed(), Some(NOW + HEAD_SECS));
}

#[test]
fn a_head_from_the_future_is_signed_anew_by_the_right_clock() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    let signed = || log.log().look(|book| book.head().map(|head| head.head().unix_secs));
    log.refresh(&key(), NOW + 400 * 24 * 3600).unwrap();
    log.refresh(&key(), NOW).unwrap();
    assert_eq!(signed(), Some(NOW));
    log.refresh(&key(), NOW - 1).unwrap();
    assert_eq!(signed(), Some(NOW - 1));
}

#[test]
fn a_log_that_went_back_or_took_another_branch_is_refused_until_it_is_taken_anew() {
    let folders: [tempfile::TempDir; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [store, restored_store, theirs] = folders.each_ref().map(|at| Store::open(at.path()).unwrap());
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    let restored = KeptLog::open(restored_store.clone(), key().public()).unwrap();
    for id in 1..=2 {
        add(&log, &store, &leaf(id));
        add(&restored, &restored_store, &leaf(id));
    }
    for id in 3..=4 {
        add(&log, &store, &leaf(id));
    }
    let copy = KeptLog::open_copy(theirs.clone(), key().public()).unwrap();
    let all = log.part(0).unwrap();
    copy.follow(&all.entries, &all.head).unwrap();
    let whole = root(&copy);
    let follow = |copy: &KeptLog| {
        let part = restored.part(copy.log().look(Book::size)).unwrap();
        copy.follow(&part.entries, &part.head)
    };
    let mut refused = Vec::new();
    // A beginning of what was there, as long on another branch, and longer.
    for id in [None, Some(8), Some(9), Some(10)] {
        if let Some(id) = id {
            add(&restored, &restored_store, &leaf(id));
        }
        refused.push(follow(&copy).unwrap_err());
        assert_eq!(root(&copy), whole);
        let again = KeptLog::open_copy(theirs.clone(), key().public()).unwrap();
        assert!(follow(&again).is_err(), "after a restart");
    }
    assert!(matches!(refused[0], FollowError::Shorter { size: 2, here: 4 }), "{}", refused[0]);
    for (refused, length) in refused[1..].iter().zip(3..) {
        assert!(
            matches!(refused, FollowError::OtherBranch { size, here: 4 } if *size == length),
            "{refused}"
        );
        assert!(refused.to_string().contains("`nightshift store forget-log`"), "{refused}");
    }
    let mut batch = Batch::new();
    assert_eq!(KeptLog::forget(&theirs, &mut batch).unwrap(), 4);
    theirs.commit_blocking(&batch).unwrap();
    let copy = KeptLog::open_copy(theirs.clone(), key().public()).unwrap();
    follow(&copy).unwrap();
    assert_eq!(root(&copy), root(&restored));
    assert_eq!(root(&KeptLog::open_copy(theirs, key().public()).unwrap()), root(&restored));
}

#[test]
fn a_log_with_a_hole_a_change_or_another_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    for id in 1..=3 {
        add(&log, &store, &leaf(id));
    }
    drop(log);
    let other = KeptLog::open(store.clone(), IdentityKey::from_seed(&[2; 32]).public()).unwrap_err();
    assert!(matches!(other, LogError::Head(HeadError::OtherLog)), "{other}");
    let place = |place| Key::default().and_u64(place);
    let change = |place: Key, leaf: Option<&Leaf>| {
        let mut batch = Batch::new();
        match leaf {
            Some(leaf) => batch.put(ENTRIES, place, &hex::encode(leaf.to_bytes())).unwrap(),
            None => batch.remove(ENTRIES, place),
        };
        store.commit_blocking(&batch).unwrap();
        KeptLog::open(store.clone(), key().public())
    };
    let changed = change(place(1), Some(&leaf(9))).unwrap_err();
    assert!(matches!(changed, LogError::Book(BookError::Other { size: 3 })), "{changed}");
    change(place(1), Some(&leaf(2))).unwrap();
    let more = change(place(3), Some(&leaf(9))).unwrap_err();
    assert!(matches!(more, LogError::Book(BookError::Other { size: 3 })), "{more}");
    let fewer = change(place(3), None).and_then(|_| change(place(2), None)).unwrap_err();
    assert!(matches!(fewer, LogError::Book(BookError::Short { size: 3, have: 2 })), "{fewer}");
    let hole = change(place(0), None).unwrap_err();
    assert!(matches!(hole, LogError::Entry { place: 0 }), "{hole}");
}

#[test]
fn a_log_goes_on_from_each_of_its_heads() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    let mut heads = Vec::new();
    for id in 1..=9 {
        add(&log, &store, &leaf(id));
        heads.push(root(&log));
    }
    let last = root(&log);
    for (size, root, _) in heads {
        let path = log.log().look(|book| book.tree().consistency(size, last.0)).unwrap();
        check_consistency((size, &root), (last.0, &last.1), &path).unwrap();
    }
}

#[test]
fn a_copy_follows_and_goes_on_after_a_break() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    for id in 1..=3 {
        add(&log, &store, &leaf(id));
    }
    let theirs = Store::open(elsewhere.path()).unwrap();
    let copy = KeptLog::open_copy(theirs.clone(), key().public()).unwrap();
    let follow = |copy: &KeptLog| {
        let part = log.part(copy.log().look(Book::size)).unwrap();
        copy.follow(&part.entries, &part.head)
    };
    follow(&copy).unwrap();
    assert_eq!(root(&copy), root(&log));
    add(&log, &store, &leaf(4));
    // The entries came, the head did not.
    let mut batch = Batch::new();
    batch.put(ENTRIES, Key::default().and_u64(3), &hex::encode(leaf(9).to_bytes())).unwrap();
    theirs.commit_blocking(&batch).unwrap();
    let copy = KeptLog::open_copy(theirs.clone(), key().public()).unwrap();
    assert_eq!(root(&copy).0, 3);
    follow(&copy).unwrap();
    assert_eq!(root(&copy), root(&log));
    assert_eq!(root(&KeptLog::open_copy(theirs, key().public()).unwrap()), root(&log));
    // Another log, a head alone, and one of another authority are not followed.
    let part = log.part(0).unwrap();
    let other = copy.follow(&[leaf(7).to_bytes()], &part.head);
    assert!(other.is_ok(), "the head is known");
    add(&log, &store, &leaf(5));
    let newer = log.part(4).unwrap();
    let other = copy.follow(&[leaf(7).to_bytes()], &newer.head).unwrap_err();
    assert!(matches!(other, FollowError::OtherBranch { size: 5, here: 4 }), "{other}");
    let short = copy.follow(&[], &newer.head).unwrap_err();
    assert!(matches!(short, FollowError::Incomplete { size: 5, have: 4 }), "{short}");
    let signed = log.log().look(|book| book.next_head(&IdentityKey::from_seed(&[2; 32]), NOW)).to_string();
    assert!(matches!(copy.follow(&newer.entries, &signed), Err(FollowError::Head(HeadError::OtherLog))));
    assert_eq!(root(&copy).0, 4);
}

/// A version that cannot be read, and one that is none, keep no other one waiting.
#[test]
fn versions_that_are_damaged_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let log = KeptLog::open(store.clone(), key().public()).unwrap();
    let version = |number| Leaf::Version {
        task: [9; 16],
        version: number,
        survivors: 3,
        unix_secs: NOW,
        plan: [1; 32],
        adapter: [2; 32],
        roster: [3; 32],
    };
    let mut batch = Batch::new();
    batch.put(UNLOGGED, Key::from([0; 16]).and_u64(1), &"00").unwrap();
    batch.put(UNLOGGED, Key::from([0; 16]).and_u64(2), &7).unwrap();
    batch.put(UNLOGGED, Key::from([0; 16]).and_u64(3), &hex::encode(leaf(1).to_bytes())).unwrap();
    batch.put(UNLOGGED, Key::from([9; 16]).and_u64(4), &hex::encode(version(4).to_bytes())).unwrap();
    store.commit_blocking(&batch).unwrap();
    let waiting: Vec<Leaf> = log.waiting_versions().unwrap().into_iter().map(|(_, leaf)| leaf).collect();
    assert_eq!(waiting, [version(4)]);
    log.log_versions(&key(), NOW).unwrap();
    assert_eq!((root(&log).0, log.waiting_versions().unwrap().len()), (1, 0));
}
