use aggregation::Logged;
use aggregation::log::{Book, Leaf};
use proto::ids::SessionId;
use proto::message::LogOffer;

use super::*;

const LIFE: u64 = 30 * 24 * 3600;

fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[2; 32])
}

/// A log in which the device is the first of two leaves, and its credential.
fn log() -> (Book, Credential) {
    let identity = IdentityKey::from_seed(&[1; 32]).public();
    let logged = Logged { place: 0, enrolled_unix_secs: 1, label: [0; 16], attested: [0; 32] };
    let credential = Credential::issue_logged(&authority(), [3; 16], identity, NOW.as_secs() + LIFE, logged);
    let mut book = Book::default();
    book.append(&credential.leaf().unwrap().1);
    book.append(&Leaf::Revocation { device: [8; 16], unix_secs: 1 });
    sign(&mut book);
    (book, credential)
}

fn sign(book: &mut Book) {
    book.sign(&authority(), NOW.as_secs());
}

/// A place in a round about this log, for a device that saw so many leaves.
fn offer(book: &Book, round: u64, seen: u64) -> Event {
    let head = book.head().unwrap();
    let consistency = book.tree().consistency(seen, head.head().size).unwrap();
    let log = Some(LogOffer { head: head.to_string(), consistency });
    Event::Replied(Reply::Offer { session: SessionId([4; 32]), round, log })
}

/// The device, enrolled with this credential.
fn enrolled(credential: Credential) -> Session {
    let mut session = session(Policy::default(), Spending::new());
    session.credential = credential;
    session
}

fn log_seen(session: &Session) -> u64 {
    let Action::Send(Request::Join { log_seen, .. }) = session.action() else { panic!("{session:?}") };
    log_seen
}

#[test]
fn what_a_device_saw_is_written_down_before_it_signs_about_it_and_once() {
    let (mut book, credential) = log();
    let session = joining(enrolled(credential));
    assert_eq!(log_seen(&session), 0);
    let session = tell(session, offer(&book, 1, 0));
    let Action::RecordLog(seen) = session.action() else { panic!("{session:?}") };
    assert_eq!((seen.head, session.state()), (*book.head().unwrap().head(), SessionState::RecordingLog));
    let session = tell(session, Event::Recorded);
    assert!(matches!(session.action(), Action::Send(Request::Advertise { .. })), "{session:?}");
    // The same head again, in the next round.
    let session = tell(tell(session, Event::LeavesRound), Event::Woke);
    let session = session.handle(Event::Woke, NOW.plus_millis(250), &mut ChaCha20Rng::seed_from_u64(1));
    assert_eq!(log_seen(&session), 2);
    let session = tell(session, offer(&book, 2, 2));
    assert_eq!(session.state(), SessionState::Advertising);
    // And one that goes on from it.
    book.append(&Leaf::Revocation { device: [9; 16], unix_secs: 2 });
    sign(&mut book);
    let session =
        session.handle(Event::LeavesRound, NOW.plus_millis(300), &mut ChaCha20Rng::seed_from_u64(1));
    let session = session.handle(Event::Woke, NOW.plus_millis(600), &mut ChaCha20Rng::seed_from_u64(1));
    let session = tell(session, offer(&book, 3, 2));
    assert!(matches!(session.action(), Action::RecordLog(seen) if seen.head.size == 3), "{session:?}");
}

#[test]
fn a_device_from_before_there_was_a_log_asks_for_its_place_in_it_and_loses_nothing() {
    let (book, credential) = log();
    let lifetime = Lifetime { issued_unix_secs: NOW.as_secs() - 60, expires_unix_secs: NOW.as_secs() + LIFE };
    let mut session = joining(session(Policy::default(), Spending::new()).renewing(lifetime));
    session = tell(session, offer(&book, 1, 0));
    assert!(matches!(session.action(), Action::Renew { has_certificate: true }), "{session:?}");
    assert!(matches!(session.take_ended(), Some(Ended::NotInLog)));
    let session = tell(session, Event::Renewed { credential, issued_unix_secs: NOW.as_secs() });
    assert_eq!(log_seen(&session), 0);
    assert!(matches!(tell(session, offer(&book, 1, 0)).action(), Action::RecordLog(_)));
}

#[test]
fn a_coordinator_that_renews_without_a_place_is_not_asked_for_ever() {
    let (book, Credential { device, identity, expires_unix_secs, .. }) = log();
    let lifetime = Lifetime { issued_unix_secs: NOW.as_secs() - 60, expires_unix_secs: NOW.as_secs() + LIFE };
    let session = joining(session(Policy::default(), Spending::new()).renewing(lifetime));
    let session = tell(session, offer(&book, 1, 0));
    let credential = Credential::issue(&authority(), device, identity, expires_unix_secs);
    let session = tell(session, Event::Renewed { credential, issued_unix_secs: NOW.as_secs() });
    let mut session = tell(session, offer(&book, 1, 0));
    assert!(matches!(session.take_ended(), Some(Ended::NotInLog)));
    assert_eq!(sleeps(&session), 60_000);
}
