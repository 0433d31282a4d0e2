use aggregation::Logged;
use aggregation::log::{Book, HeadRefusal, Leaf, Seen};
use proto::ids::SessionId;
use proto::message::LogOffer;

use super::super::log::{OTHER_HEAD_MILLIS, WITNESSES_MILLIS};
use super::*;
use crate::log_policy::LogPolicy;

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
    assert!(sleeps(&session) >= OTHER_HEAD_MILLIS / 2);
}

#[test]
fn a_renewal_never_takes_the_place_away_and_no_round_without_a_log_is_joined() {
    let (book, Credential { device, identity, .. }) = log();
    let (_, credential) = log();
    let lifetime = Lifetime { issued_unix_secs: NOW.as_secs() - 60, expires_unix_secs: NOW.as_secs() + LIFE };
    let mut session = session(Policy::default(), Spending::new()).renewing(lifetime);
    session.credential = credential;
    let session = tell(tell(joining(session), offer(&book, 1, 0)), Event::Recorded);
    // The coordinator says that the certificate ended, and renews without a place.
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let later = NOW.plus_millis(5000);
    let session = tell(session, Event::CertificateEnded).handle(Event::Woke, later, &mut rng);
    let credential = Credential::issue(&authority(), device, identity, NOW.as_secs() + LIFE);
    let bare = Event::Renewed { credential, issued_unix_secs: NOW.as_secs() };
    let mut session = session.handle(bare, later, &mut rng);
    assert!(session.credential.logged.is_some());
    assert!(matches!(session.take_ended(), Some(Ended::NotRenewed { .. })));
    // Nor is one joined by a device that has no place and saw a log.
    let mut bare = joining(self::session(Policy::default(), Spending::new()));
    bare = bare.having_seen(Some(Seen { head: *book.head().unwrap().head(), day: (0, 0) }));
    let nothing = Reply::Offer { session: SessionId([4; 32]), round: 1, log: None };
    let mut bare = tell(bare, Event::Replied(nothing));
    assert!(matches!(bare.take_ended(), Some(Ended::NoLog)));
}

#[test]
fn a_device_without_a_place_asks_for_one_once_in_ten_minutes_and_keeps_what_it_trained() {
    let (book, _) = log();
    let lifetime = Lifetime { issued_unix_secs: NOW.as_secs() - 60, expires_unix_secs: NOW.as_secs() + LIFE };
    let unavailable = || Event::Rejected(Rejection::Unavailable("within the last minute".into()));
    let refused = || Event::Rejected(Rejection::Unacceptable { request: "renew".into(), why: "no".into() });
    for answer in [unavailable(), refused(), Event::Unreachable] {
        let mut session = joining(session(Policy::default(), Spending::new()).renewing(lifetime));
        session = tell(tell(session, offer(&book, 1, 0)), answer);
        // It goes on with what it has, and is shown the log again.
        session = tell(session, offer(&book, 1, 0));
        assert!(session.at_work_on().is_some(), "{session:?}");
        assert!(sleeps(&session) >= OTHER_HEAD_MILLIS / 2, "{session:?}");
    }
}

#[test]
fn a_device_that_is_not_in_the_rounds_log_yet_waits_for_the_next_round_with_what_it_trained() {
    let (mut book, _) = log();
    let identity = IdentityKey::from_seed(&[1; 32]).public();
    let logged = Logged { place: 2, enrolled_unix_secs: 1, label: [0; 16], attested: [0; 32] };
    let credential = Credential::issue_logged(&authority(), [3; 16], identity, NOW.as_secs() + LIFE, logged);
    let session = joining(enrolled(credential.clone()));
    let mut session = tell(session, offer(&book, 1, 0));
    assert!(matches!(session.take_ended(), Some(Ended::NotInRoundsLog)));
    assert!(session.at_work_on().is_some() && sleeps(&session) <= 15_000, "{session:?}");
    book.append(&credential.leaf().unwrap().1);
    sign(&mut book);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let session = session.handle(Event::Woke, NOW.plus_millis(15_000), &mut rng);
    assert!(matches!(tell(session, offer(&book, 2, 0)).action(), Action::RecordLog(_)));
}

#[test]
fn a_device_trains_for_no_round_about_a_log_that_it_refuses() {
    let (book, credential) = log();
    let mut forked = Book::default();
    for id in 10..19 {
        forked.append(&Leaf::Revocation { device: [id; 16], unix_secs: 1 });
    }
    sign(&mut forked);
    let session = joining(enrolled(credential));
    let seen = Seen { head: *forked.head().unwrap().head(), day: (NOW.as_secs(), 0) };
    let mut session = tell(session.having_seen(Some(seen)), offer(&book, 1, 0));
    assert!(matches!(session.take_ended(), Some(Ended::Log(HeadRefusal::RolledBack { size: 2, seen: 9 }))));
    assert_eq!(sleeps(&session), outside::REFUSED_MILLIS);
}

/// Witnesses are asked while a round is waiting: the device comes again soon, with what it trained.
#[test]
fn a_head_that_too_few_witnesses_signed_is_waited_for_with_what_was_trained() {
    let (book, credential) = log();
    let log = LogPolicy { least_witnesses: 1, ..LogPolicy::default() };
    let mut session = session(Policy { log, ..Policy::default() }, Spending::new());
    session.credential = credential;
    let mut session = tell(joining(session), offer(&book, 1, 0));
    assert!(matches!(session.take_ended(), Some(Ended::Log(HeadRefusal::Witnesses { .. }))));
    assert!(session.at_work_on().is_some(), "{session:?}");
    let waits = sleeps(&session);
    assert!((WITNESSES_MILLIS / 2..=2 * WITNESSES_MILLIS).contains(&waits), "{waits}");
}
