use aggregation::log::{Head, Tree};

use super::*;

const NOW: u64 = 1_800_000_000;

fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

fn log() -> LogKey {
    aggregation::log::log_key(&authority().public())
}

/// What is submitted of a log of so many entries, for a witness that saw so many.
fn submitted(old: u64, entries: std::ops::Range<u8>) -> String {
    let mut tree = Tree::default();
    for entry in entries {
        tree.append([entry; 32]);
    }
    let size = tree.size();
    let root = tree.root(size).unwrap();
    let head = Head { size, root, devices: 0, unix_secs: NOW, previous: [0; 32] }.sign(&authority());
    head.submission(old, &tree.consistency(old, size).unwrap_or_default())
}

fn status(declined: &Declined) -> (u16, String) {
    let answer = decline(declined);
    let kind = answer.headers()[http::header::CONTENT_TYPE].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind)
}

#[test]
fn what_was_seen_is_there_again_after_a_restart_and_no_other_log_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let witness = init(folder.path(), "owl.example/w").unwrap();
    assert!(witness.to_string().starts_with("owl.example/w+"));
    let open = || Witnessing::open(folder.path(), vec![log()]).unwrap();
    let first = open();
    assert_eq!(*first.witness(), witness);
    assert!(first.sign(&submitted(0, 0..3), NOW).unwrap().starts_with("\u{2014} owl.example/w "));
    drop(first);
    let again = open();
    let of = |text: &str| status(&again.sign(text, NOW).unwrap_err());
    let plain = |code: u16| (code, plain::TEXT.to_owned());
    assert_eq!(of(&submitted(0, 0..5)), (409, "text/x.tlog.size".to_owned()));
    // Rolled back.
    assert_eq!(of(&submitted(2, 0..2)).0, 409);
    // Forked: as many entries, and more.
    assert_eq!(of(&submitted(3, 1..4)), plain(409));
    assert_eq!(of(&submitted(3, 1..6)), plain(422));
    assert!(again.sign(&submitted(3, 0..5), NOW).is_ok());
    assert!(again.sign(&submitted(5, 0..5), NOW).is_ok(), "the same is signed again");
    assert_eq!(of("old 5\n\n"), plain(400));
    let stranger = submitted(5, 0..6).replace("devices 0", "devices 1");
    assert_eq!(of(&stranger), plain(403));
    drop(again);
    let other = aggregation::log::log_key(&IdentityKey::from_seed(&[2; 32]).public());
    let of_other = Witnessing::open(folder.path(), vec![other]).unwrap();
    assert_eq!(status(&of_other.sign(&submitted(5, 0..6), NOW).unwrap_err()), plain(404));
}

#[test]
fn a_witness_is_made_once_and_opened_with_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Witnessing::open(folder.path(), vec![log()]), Err(WitnessingError::NotThere(_))));
    assert!(matches!(init(folder.path(), "two words"), Err(WitnessingError::Name(_))));
    init(folder.path(), "owl").unwrap();
    assert!(matches!(init(folder.path(), "owl"), Err(WitnessingError::There(_))));
    let twice = Witnessing::open(folder.path(), vec![log(), log()]);
    assert!(matches!(twice, Err(WitnessingError::Twice(_))));
    let other = tempfile::tempdir().unwrap();
    init(other.path(), "owl").unwrap();
    std::fs::copy(other.path().join(SEED_FILE), folder.path().join(SEED_FILE)).unwrap();
    assert!(matches!(Witnessing::open(folder.path(), vec![log()]), Err(WitnessingError::OtherKey { .. })));
}

#[test]
fn a_store_that_fails_signs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), "owl").unwrap();
    let witness = Witnessing::open(folder.path(), vec![log()]).unwrap();
    let place = Digest::of(log().name().as_bytes()).0;
    let mut batch = Batch::new();
    batch.put(WATCHED, place, &"what is no record").unwrap();
    witness.store.commit_blocking(&batch).unwrap();
    let declined = witness.sign(&submitted(0, 0..3), NOW).unwrap_err();
    assert!(matches!(declined, Declined::Store(_)));
    assert_eq!(status(&declined).0, 500);
}

#[test]
fn what_is_missing_of_a_witness_is_not_made_anew() {
    for missing in [SEED_FILE, STORE] {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "owl.example/w").unwrap();
        let path = folder.path().join(missing);
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.unwrap();
        let refused = Witnessing::open(folder.path(), vec![log()]).unwrap_err();
        assert!(matches!(&refused, WitnessingError::Missing(of) if *of == path), "{refused}");
        assert!(!path.exists(), "{missing}");
    }
}

#[test]
fn a_log_that_is_forgotten_is_signed_anew_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), "owl.example/w").unwrap();
    let open = || Witnessing::open(folder.path(), vec![log()]).unwrap();
    open().sign(&submitted(0, 1..6), NOW).unwrap();
    assert!(open().sign(&submitted(0, 11..14), NOW).is_err());
    assert!(Witnessing::forget(folder.path(), &log()).unwrap());
    assert!(!Witnessing::forget(folder.path(), &log()).unwrap());
    open().sign(&submitted(0, 11..14), NOW).unwrap();
}
