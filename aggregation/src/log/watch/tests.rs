use super::*;
use crate::{
    credential::{Credential, Logged},
    identity::{IdentityKey, Signature},
    log::{Book, Leaf},
};

const NOW: u64 = 1_700_000_000;

fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

/// Enrolls one more device at a time, and gives its advertisement.
fn enroll(book: &mut Book, id: u8, enrolled_unix_secs: u64) -> Advertisement {
    let identity = IdentityKey::from_seed(&[id; 32]).public();
    let logged = Logged { place: book.size(), enrolled_unix_secs, label: [0; 16], attested: [0; 32] };
    let credential = Credential::issue_logged(&authority(), [id; 16], identity, NOW + 9_999_999, logged);
    let (place, leaf) = credential.leaf().unwrap();
    assert_eq!(book.append(&leaf), place);
    Advertisement {
        credential,
        masking_key: [id; 32],
        sealing_key: [id; 32],
        key_commitment: [0; 32],
        self_commitment: [0; 32],
        draw_commitment: [0; 32],
        signature: Signature([0; 64]),
    }
}

fn book(devices: u8) -> Book {
    let mut book = Book::default();
    for id in 0..devices {
        enroll(&mut book, id, NOW - 50 * DAY_SECS);
    }
    book
}

fn head(book: &mut Book, at: u64) -> SignedHead {
    let head = book.next_head(&authority(), at);
    book.set_head(head.clone()).unwrap();
    head
}

fn watch() -> Watch {
    Watch { longest_age_secs: DAY_SECS, ..Watch::default() }
}

fn path(book: &Book, old: u64, new: u64) -> Vec<TreeHash> {
    book.tree().consistency(old, new).unwrap()
}

#[test]
fn a_log_that_goes_on_is_followed_and_an_earlier_head_of_it_changes_nothing() {
    let mut book = book(3);
    let first = head(&mut book, NOW);
    let seen = watch().accept(None, &first, &[], NOW).unwrap();
    assert_eq!(seen, Seen { head: *first.head(), day: (NOW, 3) });
    enroll(&mut book, 7, NOW);
    let second = head(&mut book, NOW + 60);
    assert_eq!(second.head().previous, first.head().digest());
    let seen = watch().accept(Some(&seen), &second, &path(&book, 3, 4), NOW + 60).unwrap();
    assert_eq!(seen.head, *second.head());
    let again = watch().accept(Some(&seen), &first, &path(&book, 3, 4), NOW + 70).unwrap();
    assert_eq!(again, seen);
    assert_eq!(watch().accept(Some(&seen), &second, &[], NOW + 70), Ok(seen));
}

#[test]
fn a_forked_log_is_refused() {
    let mut own = book(5);
    let seen = watch().accept(None, &head(&mut own, NOW), &[], NOW).unwrap();
    // Another fifth device, and others after it.
    let mut forked = book(4);
    for id in 20..30 {
        enroll(&mut forked, id, NOW);
    }
    let signed = head(&mut forked, NOW + 60);
    for path in [path(&forked, 5, 14), path(&forked, 4, 14), vec![]] {
        let refused = watch().accept(Some(&seen), &signed, &path, NOW + 60);
        assert_eq!(refused, Err(HeadRefusal::Forked { seen: 5 }));
    }
    // Of the same length, and another root.
    let mut other = book(4);
    enroll(&mut other, 20, NOW);
    let refused = watch().accept(Some(&seen), &head(&mut other, NOW), &[], NOW);
    assert_eq!(refused, Err(HeadRefusal::Forked { seen: 5 }));
}

#[test]
fn a_log_that_was_rolled_back_is_refused() {
    let mut long = book(9);
    let seen = watch().accept(None, &head(&mut long, NOW), &[], NOW).unwrap();
    let mut short = book(5);
    enroll(&mut short, 77, NOW);
    let signed = head(&mut short, NOW + 60);
    let refused = Err(HeadRefusal::RolledBack { size: 6, seen: 9 });
    assert_eq!(watch().accept(Some(&seen), &signed, &[], NOW + 60), refused);
    assert_eq!(watch().accept(Some(&seen), &signed, &path(&long, 6, 9), NOW + 60), refused);
}

#[test]
fn a_head_is_taken_for_a_day_and_not_from_the_future() {
    let signed = head(&mut book(3), NOW);
    let at = |now| watch().accept(None, &signed, &[], now);
    assert!(at(NOW + DAY_SECS).is_ok());
    assert_eq!(at(NOW + DAY_SECS + 1), Err(HeadRefusal::Old { hours: 25, most: 24 }));
    assert!(at(NOW - DAY_SECS).is_ok());
    assert_eq!(at(NOW - DAY_SECS - 3600), Err(HeadRefusal::Ahead { hours: 25 }));
}

#[test]
fn as_many_witnesses_as_asked_for_must_have_signed() {
    let keys = [5, 6].map(|seed| IdentityKey::from_seed(&[seed; 32]));
    let witness = |name: &str, key: &IdentityKey| Witness::new(name, key.public()).unwrap();
    let witnesses = vec![witness("a", &keys[0]), witness("b", &keys[1])];
    let watch = Watch { witnesses, least_witnesses: 2, ..watch() };
    let signed = head(&mut book(3), NOW);
    let refused = |got| Err(HeadRefusal::Witnesses { got, need: 2 });
    assert_eq!(watch.accept(None, &signed, &[], NOW), refused(0));
    let signed = signed.witnessed("a", &keys[0], NOW);
    assert_eq!(watch.accept(None, &signed, &[], NOW), refused(1));
    assert!(watch.accept(None, &signed.witnessed("b", &keys[1], NOW), &[], NOW).is_ok());
}

#[test]
fn a_burst_of_fresh_devices_is_refused_and_slow_growth_is_not() {
    let watch = Watch { most_enrolled_a_day: Some(10), ..watch() };
    let mut book = book(20);
    let mut seen = watch.accept(None, &head(&mut book, NOW), &[], NOW).unwrap();
    // Ten a day for five days, in two steps a day.
    for half_day in 1..=10_u8 {
        let at = NOW + u64::from(half_day) * DAY_SECS / 2;
        for id in 0..5 {
            enroll(&mut book, 20 + 5 * (half_day - 1) + id, at);
        }
        let path = path(&book, seen.head.size, book.size());
        seen = watch.accept(Some(&seen), &head(&mut book, at), &path, at).unwrap();
    }
    let at = NOW + 5 * DAY_SECS + 60;
    for fresh in 0..300_u16 {
        let [high, low] = fresh.to_be_bytes();
        let device = [0xff, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let identity = IdentityKey::from_seed(&[3; 32]).public();
        let (label, attested) = ([0; 16], [0; 32]);
        book.append(&Leaf::Credential {
            device,
            identity,
            expires_unix_secs: at,
            enrolled_unix_secs: at,
            label,
            attested,
        });
    }
    let path = path(&book, seen.head.size, book.size());
    let refused = watch.accept(Some(&seen), &head(&mut book, at), &path, at);
    assert_eq!(refused, Err(HeadRefusal::Growth { got: 300, days: 1, most: 10 }));
}

#[test]
fn a_roster_of_the_log_is_taken_in_any_order_and_no_other() {
    let mut book = Book::default();
    let entries: Vec<Advertisement> = (0..20).map(|id| enroll(&mut book, id, NOW - DAY_SECS)).collect();
    let signed = head(&mut book, NOW);
    let late = enroll(&mut book, 99, NOW);
    let head = signed.head();
    let roster = [entries[4].clone(), entries[17].clone(), entries[9].clone()];
    let nodes = book.list(&roster, head).unwrap();
    let check =
        |entries: &[Advertisement], nodes: &[TreeHash]| watch().check_listed(head, entries, nodes, 0, NOW);
    assert_eq!(check(&roster, &nodes), Ok(()));
    assert!(roster.iter().all(|entry| book.has(&entry.credential, head)));

    // Enrolled after the head.
    let with = |entry: Advertisement| [roster[0].clone(), roster[1].clone(), entry];
    assert_eq!(book.list(&with(late.clone()), head), None);
    assert_eq!(check(&with(late.clone()), &nodes), Err(ListedError::Proof(ProofError::Place)));
    assert!(!book.has(&late.credential, head));
    // Signed by the authority, and not in its log.
    let mut secret = Book::default();
    for id in 0..9 {
        enroll(&mut secret, id, NOW);
    }
    let invented = enroll(&mut secret, 200, NOW - DAY_SECS);
    assert_eq!(check(&with(invented.clone()), &nodes), Err(ListedError::Proof(ProofError::Root)));
    assert!(!book.has(&invented.credential, head));
    // Twice, without a place, without proof.
    let twice = with(roster[0].clone());
    assert_eq!(check(&twice, &nodes), Err(ListedError::Proof(ProofError::Place)));
    let mut unlogged = roster.clone();
    unlogged[1].credential.logged = None;
    assert_eq!(check(&unlogged, &nodes), Err(ListedError::NoPlace { index: 1.into() }));
    assert_eq!(check(&roster, &nodes[1..]), Err(ListedError::Proof(ProofError::Length)));
    assert_eq!(check(&roster, &[]), Err(ListedError::Proof(ProofError::Length)));
}

#[test]
fn a_roster_with_more_young_devices_than_may_be_corrupt_is_refused() {
    let mut book = Book::default();
    let old = NOW - 3 * 3600;
    let entries: Vec<Advertisement> =
        (0..20).map(|id| enroll(&mut book, id, if id < 3 { NOW - 3600 } else { old })).collect();
    let signed = head(&mut book, NOW);
    let nodes = book.list(&entries, signed.head()).unwrap();
    let watch = Watch { least_age_secs: 2 * 3600, ..watch() };
    let check = |most_young| watch.check_listed(signed.head(), &entries, &nodes, most_young, NOW);
    assert_eq!(check(3), Ok(()));
    assert_eq!(check(2), Err(ListedError::Young { got: 3, most: 2, hours: 2 }));
}

#[test]
fn a_roster_with_a_device_that_was_attested_otherwise_is_refused() {
    let mut book = Book::default();
    let entries: Vec<Advertisement> = (0..4).map(|id| enroll(&mut book, id, NOW)).collect();
    let signed = head(&mut book, NOW);
    let nodes = book.list(&entries, signed.head()).unwrap();
    let check = |attested| {
        let watch = Watch { attested, ..watch() };
        watch.check_listed(signed.head(), &entries, &nodes, 0, NOW)
    };
    assert_eq!((check(None), check(Some([0; 32]))), (Ok(()), Ok(())));
    assert_eq!(check(Some([1; 32])), Err(ListedError::Unattested { index: 0.into() }));
}

#[test]
fn an_entry_that_was_taken_back_leaves_nothing() {
    for size in 0..20 {
        let (mut book, same) = (book(size), book(size));
        enroll(&mut book, 99, NOW);
        book.take_back();
        assert_eq!(book.next_head(&authority(), NOW), same.next_head(&authority(), NOW), "{size}");
        // Of a device that is there already nothing but the entry is taken back.
        if size > 0 {
            enroll(&mut book, 0, NOW);
            book.take_back();
            assert_eq!(book.next_head(&authority(), NOW), same.next_head(&authority(), NOW), "{size}");
        }
        let below = head(&mut book, NOW);
        book.take_back();
        assert_eq!(book.next_head(&authority(), NOW).head().size, below.head().size);
    }
}

#[test]
fn a_book_says_how_many_devices_enrolled_lately() {
    let mut book = book(3);
    enroll(&mut book, 50, NOW + 10);
    // Whoever renews is no newer by it.
    enroll(&mut book, 50, NOW + 20);
    let since = |book: &Book, secs| (book.devices(), book.enrolled_since(secs));
    assert_eq!((since(&book, NOW + 10), since(&book, NOW + 11)), ((4, 1), (4, 0)));
    enroll(&mut book, 51, NOW + 30);
    assert_eq!(since(&book, NOW + 11), (5, 1));
    book.take_back();
    assert_eq!(since(&book, NOW + 11), (4, 0));
}

#[test]
fn a_head_of_other_leaves_is_none_of_a_book() {
    let mut own = book(5);
    let mut longer = book(6);
    let signed = head(&mut longer, NOW);
    assert_eq!(own.set_head(signed), Err(crate::log::BookError::Short { size: 6, have: 5 }));
    let mut other = book(4);
    enroll(&mut other, 20, NOW);
    let signed = head(&mut other, NOW);
    assert_eq!(own.set_head(signed), Err(crate::log::BookError::Other { size: 5 }));
    assert!(own.head().is_none());
}
