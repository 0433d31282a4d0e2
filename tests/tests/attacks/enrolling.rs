//! A log of enrollments that lies: another one for one device, a shorter one, an old one, and rosters that are not in it.

use std::cell::Cell;

use aggregation::log::{Book, HeadRefusal, ListedError, ProofError};
use aggregation::{Advertised, Credential, Logged};
use proto::message::{LogOffer, Reply, Request};
use session::policy::Policy;
use session::{Ended, LogPolicy};
use task::EnrollmentLog;

use super::hand::{Answer, DAWN, Post, honest};
use super::setting::{authority, context, id, identity, plan, policy, rng};
use super::world::World;

const DEVICES: usize = 6;
const DAY_MILLIS: u64 = 24 * 3_600_000;

/// When the devices of these tests enrolled: ten days before everything begins.
fn long_ago() -> u64 {
    DAWN.as_secs() - 10 * 24 * 3600
}

fn credential(place: usize, leaf: u64, enrolled_unix_secs: u64) -> Credential {
    let logged = Logged { place: leaf, enrolled_unix_secs, label: [0; 16], attested: [0; 32] };
    Credential::issue_logged(&authority(), id(place).0, identity(place).public(), u64::MAX, logged)
}

/// A log of these devices, in this order, with a head of then.
fn log(places: impl IntoIterator<Item = usize>, at: u64) -> EnrollmentLog {
    let mut book = Book::default();
    for place in places {
        add(&mut book, place, long_ago());
    }
    sign(&mut book, at);
    EnrollmentLog::new(book)
}

fn add(book: &mut Book, place: usize, enrolled_unix_secs: u64) {
    let (_, leaf) = credential(place, book.size(), enrolled_unix_secs).leaf().unwrap();
    book.append(&leaf);
}

fn sign(book: &mut Book, at: u64) {
    book.sign(&authority(), at);
}

/// Six devices that are the first six leaves of a log.
fn world(log_policy: LogPolicy) -> World {
    let policy = Policy { log: log_policy, ..policy() };
    let mut world = World::with_credentials(&plan(DEVICES, 4), DEVICES, &policy, |place| {
        credential(place, place as u64, long_ago())
    });
    world.coordinator.goes_by(log(0..DEVICES, DAWN.as_secs()));
    world
}

/// A world that made one version, so that its devices have seen the log.
fn seen() -> World {
    let mut world = world(LogPolicy::default());
    world.run(honest);
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    assert!(world.nodes.iter().all(|node| node.log_seen.unwrap().head.size == DEVICES as u64));
    world
}

/// None of the devices took part: nothing but what asks for a place left them since `before`.
fn assert_left_nothing(world: &World, before: usize) {
    for place in 0..DEVICES {
        assert_eq!(world.log.left(place, "advertise"), before, "device {place}");
    }
}

/// Shows another log in each offer.
fn offering(post: &mut Post<'_>, shown: impl Fn(u64) -> Option<LogOffer>) -> Answer {
    let seen = if let Request::Join { log_seen, .. } = &post.request { *log_seen } else { 0 };
    let mut answer = post.pass();
    if let Some(Ok(Reply::Offer { log, .. })) = &mut answer {
        *log = shown(seen);
    }
    answer
}

fn shown(log: &EnrollmentLog, seen: u64) -> LogOffer {
    log.look(|book| {
        let size = book.head().unwrap().head().size;
        let consistency = book.tree().consistency(size.min(seen), size.max(seen)).unwrap_or_default();
        LogOffer { head: book.head().unwrap().to_string(), consistency }
    })
}

#[test]
fn rounds_about_a_log_that_grows_are_taken_part_in() {
    let mut world = seen();
    {
        let log = world.coordinator.enrolled.clone().unwrap();
        let mut book = log.write();
        for place in 10..20 {
            add(&mut book, place, DAWN.as_secs());
        }
        sign(&mut book, DAWN.as_secs() + 60);
    }
    world.run(honest);
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    assert!(world.nodes.iter().all(|node| node.log_seen.unwrap().head.size == 16));
    assert!(world.nodes.iter().all(|node| node.ended.is_empty()));
}

#[test]
fn a_round_about_no_log_is_not_taken_part_in() {
    let mut world = seen();
    world.run(|post| offering(post, |_| None));
    assert!((0..DEVICES).all(|place| matches!(world.ended(place), Ended::NoLog)));
    assert_left_nothing(&world, 1);
}

#[test]
fn a_forked_log_is_refused_whatever_is_said_to_lead_to_it() {
    let mut world = seen();
    // The sixth device is another one, and ten more came.
    let forked = log((0..5).chain(30..41), DAWN.as_secs() + 60);
    world.run(|post| offering(post, |seen| Some(shown(&forked, seen))));
    let refused = HeadRefusal::Forked { seen: 6 };
    assert!((0..DEVICES).all(|place| matches!(world.ended(place), Ended::Log(why) if *why == refused)));
    assert_left_nothing(&world, 1);
}

#[test]
fn a_log_that_was_rolled_back_is_refused() {
    let mut world = seen();
    let rolled_back = log((0..3).chain([50]), DAWN.as_secs() + 60);
    world.run(|post| offering(post, |seen| Some(shown(&rolled_back, seen))));
    let refused = HeadRefusal::RolledBack { size: 4, seen: 6 };
    assert!((0..DEVICES).all(|place| matches!(world.ended(place), Ended::Log(why) if *why == refused)));
    assert_left_nothing(&world, 1);
}

#[test]
fn a_head_that_is_more_than_a_day_old_is_refused() {
    let mut world = seen();
    world.coordinator.pass_time(DAWN.plus_millis(DAY_MILLIS + 3_600_000));
    world.run(honest);
    let refused = HeadRefusal::Old { hours: 25, most: 24 };
    for place in 0..DEVICES {
        let ended = world.ended(place);
        assert!(matches!(ended, Ended::Log(why) if *why == refused), "{ended:?}");
    }
    assert_left_nothing(&world, 1);
}

#[test]
fn a_head_of_somebody_else_is_refused() {
    let mut world = seen();
    let mut book = Book::default();
    for place in 0..9 {
        add(&mut book, place, long_ago());
    }
    let head = book.next_head(&identity(3), DAWN.as_secs());
    world.run(|post| offering(post, |_| Some(LogOffer { head: head.to_string(), consistency: Vec::new() })));
    for place in 0..DEVICES {
        let ended = world.ended(place);
        assert!(matches!(ended, Ended::Log(HeadRefusal::Head(_))), "{ended:?}");
    }
    assert_left_nothing(&world, 1);
}

#[test]
fn a_burst_of_three_hundred_fresh_devices_ends_the_rounds_of_who_limits_them() {
    let mut world = world(LogPolicy { most_enrolled_a_day: Some(100), ..LogPolicy::default() });
    world.run(honest);
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    {
        let log = world.coordinator.enrolled.clone().unwrap();
        let mut book = log.write();
        for place in 100..400 {
            add(&mut book, place, DAWN.as_secs() + 60);
        }
        sign(&mut book, DAWN.as_secs() + 60);
    }
    world.run(honest);
    let refused = HeadRefusal::Growth { got: 300, days: 1, most: 100 };
    assert!((0..DEVICES).all(|place| matches!(world.ended(place), Ended::Log(why) if *why == refused)));
    assert_left_nothing(&world, 1);
}

/// Puts an advertisement of a device that nobody has in the place of device 5's, in what every device is given.
fn with_invented(world: &mut World, leaf: u64, enrolled_unix_secs: u64) {
    let (plan, published) = (plan(DEVICES, 4), world.coordinator.task.published());
    let head = world.coordinator.enrolled.as_ref().unwrap().look(|book| *book.head().unwrap().head());
    let session = Cell::new(None);
    world.run(|post| {
        let mut answer = post.pass();
        if let Some(Ok(Reply::Offer { session: offered, round, .. })) = &answer {
            session.set(Some((*offered, *round)));
        }
        if let Some(Ok(Reply::Roster { entries, .. })) = &mut answer {
            let (offered, round) = session.get().unwrap();
            let mut about = context(&plan, &published, offered, round);
            about.log = Some(head);
            // By the authority's own key: it, or whoever has its key, lies.
            let credential = credential(77, leaf, enrolled_unix_secs);
            let (_, entry) = Advertised::new(about, &identity(77), credential, &mut rng(9));
            entries[5] = entry;
        }
        answer
    });
}

#[test]
fn a_device_that_the_authority_made_up_and_logged_nowhere_is_refused() {
    for leaf in [5, 6, u64::MAX] {
        let mut world = world(LogPolicy::default());
        with_invented(&mut world, leaf, long_ago());
        for place in 0..5 {
            let ended = world.ended(place);
            let refused = matches!(
                ended,
                Ended::Listed(ListedError::Proof(ProofError::Root | ProofError::Place | ProofError::Length))
            );
            assert!(refused, "leaf {leaf}, device {place}: {ended:?}");
            assert_eq!(world.log.left(place, "share keys"), 0);
        }
        world.assert_nothing_published();
    }
}

#[test]
fn a_roster_whose_proof_is_kept_back_is_refused() {
    let mut world = world(LogPolicy::default());
    world.run(|post| {
        let mut answer = post.pass();
        if let Some(Ok(Reply::Roster { listed, entries })) = &mut answer {
            entries.truncate(5);
            listed.clear();
        }
        answer
    });
    for place in 0..5 {
        let ended = world.ended(place);
        assert!(matches!(ended, Ended::Listed(ListedError::Proof(ProofError::Length))), "{ended:?}");
        assert_eq!(world.log.left(place, "share keys"), 0);
    }
}

#[test]
fn a_roster_with_more_fresh_devices_than_may_be_corrupt_is_refused() {
    let policy = LogPolicy { least_age_hours: 24 * 11, ..LogPolicy::default() };
    let mut world = world(policy);
    world.run(honest);
    // Of six devices none counts as corrupt, or one: all are fresh.
    let most = plan(DEVICES, 4).corrupt_devices();
    let refused = ListedError::Young { got: 6, most, hours: 24 * 11 };
    for place in 0..DEVICES {
        let ended = world.ended(place);
        assert!(matches!(ended, Ended::Listed(why) if *why == refused), "{ended:?}");
        assert_eq!(world.log.left(place, "share keys"), 0);
    }
}

#[test]
fn devices_that_are_shown_two_heads_are_not_in_one_round() {
    let mut world = seen();
    let older = shown(world.coordinator.enrolled.as_ref().unwrap(), 6);
    {
        let log = world.coordinator.enrolled.clone().unwrap();
        let mut book = log.write();
        add(&mut book, 10, DAWN.as_secs());
        sign(&mut book, DAWN.as_secs() + 60);
    }
    let before = world.log.left(0, "share keys");
    world.run(|post| {
        let victim = post.from == 0;
        offering(post, |seen| {
            let log = log((0..DEVICES).chain([10]), DAWN.as_secs() + 60);
            Some(if victim { older.clone() } else { shown(&log, seen) })
        })
    });
    // Its keys are for another context, so nobody takes them.
    assert_eq!(world.log.left(0, "share keys"), before);
    assert!(matches!(world.ended(0), Ended::Rejected(_)), "{:?}", world.ended(0));
}
