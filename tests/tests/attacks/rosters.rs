//! Who is in the round: keys that are not theirs, and rosters that are not everybody.

use aggregation::{
    Advertised, Advertisement, AdvertisementError, Credential, CredentialError, IdentityKey, Refusal,
    RosterError,
};
use proto::message::{DeclineReason, Outcome, Rejection, Reply, Request};
use session::Ended;
use session::policy::{Breach, Policy};

use super::hand::{Answer, Gathered, Post, honest, wait};
use super::setting::{authority, context, id, identity, plan, policy, rng, signed};
use super::world::World;

/// Passes a request on, and changes the roster in the answer.
fn roster(post: &mut Post<'_>, change: impl Fn(&mut Vec<Advertisement>)) -> Answer {
    let mut answer = post.pass();
    if let Some(Ok(Reply::Roster { entries, .. })) = &mut answer {
        change(entries);
    }
    answer
}

/// A world whose devices were all given a changed roster; none of them must have shared anything.
fn with_roster(change: impl Fn(&mut Vec<Advertisement>)) -> World {
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| roster(post, &change));
    assert!((0..6).all(|place| world.log.left(place, "share keys") == 0));
    world.assert_nothing_published();
    world
}

#[test]
fn a_tiny_cohort_is_refused_whatever_its_plan_says() {
    // The plan gathers six; three are left of them, and then four, of which the device's own limit is five.
    let world = with_roster(|entries| entries.truncate(3));
    for place in 0..6 {
        assert_eq!(world.refusal(place), Refusal::SmallCohort { got: 3, need: 4 });
    }
    let strict = Policy { smallest_cohort: 5, ..policy() };
    let mut world = World::with_policy(&plan(6, 4), 4, &strict);
    world.run(honest);
    for place in 0..4 {
        assert_eq!(world.refusal(place), Refusal::SmallCohort { got: 4, need: 5 });
        assert_eq!(world.log.left(place, "share keys"), 0);
    }
}

#[test]
fn a_plan_for_a_tiny_cohort_or_a_tiny_sum_is_not_even_trained_for() {
    for (cohort, goal, least, most) in [(4, 4, (5, 3), "cohort"), (6, 4, (6, 5), "report goal")] {
        let strict = Policy { smallest_cohort: least.0, smallest_report_goal: least.1, ..policy() };
        let mut world = World::with_policy(&plan(cohort, goal), 6, &strict);
        world.run(honest);
        for place in 0..6 {
            let ended = world.ended(place);
            let is_it = match most {
                "cohort" => matches!(ended, Ended::Breach(Breach::Cohort { found: 4, least: 5 })),
                _ => matches!(ended, Ended::Breach(Breach::ReportGoal { found: 4, least: 5 })),
            };
            assert!(is_it, "{ended:?}");
            assert_eq!(world.log.left(place, "join"), 0);
        }
        let declined = world.coordinator.task.status().declined;
        assert_eq!(declined.len(), 1);
        assert_eq!((declined[0].reason, declined[0].devices), (DeclineReason::Cohort, 6));
    }
}

#[test]
fn a_roster_with_a_repeated_device_identity_or_key_is_refused() {
    type Change = fn(&mut Vec<Advertisement>);
    let cases: [(Change, RosterError); 4] = [
        (|entries| entries[4] = entries[3].clone(), RosterError::RepeatedDevice),
        (
            |entries| entries[4].credential.identity = entries[3].credential.identity,
            RosterError::RepeatedIdentity,
        ),
        (|entries| entries[4].masking_key = entries[3].masking_key, RosterError::RepeatedKey),
        (|entries| entries[4].sealing_key = entries[3].masking_key, RosterError::RepeatedKey),
    ];
    for (change, error) in cases {
        let world = with_roster(change);
        for place in 0..6 {
            let ended = world.ended(place);
            assert!(matches!(ended, Ended::Roster(found) if *found == error), "{ended:?}");
        }
    }
    let empty = with_roster(Vec::clear);
    assert!(
        matches!(empty.ended(0), Ended::Roster(RosterError::Size { got: 0, .. })),
        "{:?}",
        empty.ended(0)
    );
}

#[test]
fn a_key_that_is_put_in_place_of_a_device_s_is_refused() {
    // A key whose secret the coordinator has, in an entry of device 3 that only device 3 could sign.
    type Change = fn(&mut Advertisement);
    let changes: [Change; 4] = [
        |entry| entry.masking_key[5] ^= 1,
        |entry| entry.sealing_key[5] ^= 1,
        |entry| entry.key_commitment[5] ^= 1,
        |entry| entry.self_commitment[5] ^= 1,
    ];
    for change in changes {
        let world = with_roster(|entries| change(&mut entries[3]));
        for place in [0, 1, 2, 4, 5] {
            let source = AdvertisementError::Signature;
            assert_eq!(world.refusal(place), Refusal::Advertisement { index: 3.into(), source });
        }
        assert_eq!(world.refusal(3), Refusal::OwnEntryChanged);
    }
}

#[test]
fn a_device_that_the_coordinator_makes_up_is_refused() {
    // Its credential is the coordinator's own, or a true one with another name or a longer life.
    type Change = fn(&mut Credential);
    let cases: [(Change, CredentialError); 3] = [
        (
            |credential| {
                let own = IdentityKey::from_seed(&[9; 32]);
                *credential = Credential::issue(&own, id(5).0, own.public(), u64::MAX);
            },
            CredentialError::Signature,
        ),
        (|credential| credential.device = [99; 16], CredentialError::Signature),
        (|credential| credential.expires_unix_secs -= 1, CredentialError::Signature),
    ];
    for (change, source) in cases {
        let world = with_roster(|entries| change(&mut entries[5].credential));
        for place in 0..5 {
            let source = AdvertisementError::Credential(source);
            assert_eq!(world.refusal(place), Refusal::Advertisement { index: 5.into(), source });
        }
    }
}

#[test]
fn a_roster_that_leaves_a_device_out_is_refused_by_it() {
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        let whole = post.from != 2;
        roster(post, |entries| entries.retain(|entry| whole || entry.credential.device != id(2).0))
    });
    assert_eq!(world.refusal(2), Refusal::NotInRoster);
    assert_eq!(world.log.left(2, "share keys"), 0);
    // The others lose a device before it sent anything.
    world.assert_sum_of(&[0, 1, 3, 4, 5]);
}

#[test]
fn two_rosters_never_open_a_sum() {
    // Devices 0, 1, 2 are not told of device 5, so they seal shares for fewer than the others.
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        let whole = post.from > 2;
        roster(post, |entries| entries.truncate(if whole { 6 } else { 5 }))
    });
    world.assert_silent(0..6);
    world.assert_nothing_published();
}

#[test]
fn an_advertisement_of_an_earlier_round_is_refused() {
    let mut world = World::new(&plan(6, 4), 6);
    let mut earlier = Gathered::default();
    world.run(|post| {
        earlier.keep(post);
        post.pass()
    });
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    // The coordinator shows device 3 with the keys of the round before.
    world.run(|post| roster(post, |entries| entries[3] = earlier.entries[&3].clone()));
    for place in [0, 1, 2, 4, 5] {
        let source = AdvertisementError::Signature;
        assert_eq!(world.refusal(place), Refusal::Advertisement { index: 3.into(), source });
    }
    assert_eq!(world.refusal(3), Refusal::OwnEntryChanged);
    assert!((0..6).all(|place| world.log.left(place, "share keys") == 1), "those of the first round");
}

#[test]
fn an_honest_coordinator_turns_a_replayed_or_a_borrowed_advertisement_away() {
    let mut world = World::new(&plan(6, 4), 6);
    let mut earlier = Gathered::default();
    world.run(|post| {
        earlier.keep(post);
        post.pass()
    });
    // Who hears of the end of a round waits a moment: here all are awake again, and come in their order.
    world.coordinator.pass_time(world.coordinator.clock.plus_millis(1000));
    let mut turned_away = Vec::new();
    let mut current = Gathered::default();
    world.run(|post| {
        if let Request::Advertise { session, .. } = post.request
            && turned_away.len() == 2 * post.from
        {
            // Its own of the round before, and another device's of this round; the first device has none to borrow.
            let borrowed = current.entries.values().last().unwrap_or(&earlier.entries[&1]);
            for entry in [&earlier.entries[&post.from], borrowed] {
                let advertisement = Box::new(entry.clone());
                let forged = Request::Advertise { session, advertisement };
                turned_away.push(post.coordinator.serve(post.from, &forged).unwrap_err());
            }
        }
        current.keep(post);
        post.pass()
    });
    let unacceptable = |rejection: &Rejection| matches!(rejection, Rejection::Unacceptable { request, .. } if request == "advertise");
    assert!(turned_away.len() == 12 && turned_away.iter().all(unacceptable), "{turned_away:?}");
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

/// The advertisement in a request, changed and signed once more by device `of`.
fn resigned(post: &Post<'_>, of: usize, change: impl FnOnce(&mut Advertisement)) -> Request {
    let Request::Advertise { session, advertisement } = &post.request else { panic!("{:?}", post.request) };
    let context = context(&plan(6, 4), &post.coordinator.task.published(), *session, 1);
    let mut other = (**advertisement).clone();
    change(&mut other);
    let advertisement = Box::new(signed(other, &context, &identity(of)));
    Request::Advertise { session: *session, advertisement }
}

#[test]
fn a_second_advertisement_is_turned_away_once_the_roster_is_fixed() {
    let mut world = World::new(&plan(6, 4), 6);
    let (mut second, mut rejected) = (None, None);
    world.run(|post| {
        if post.from == 0 && post.is("advertise") && second.is_none() {
            second = Some(resigned(post, 0, |entry| entry.masking_key[5] ^= 1));
        }
        if post.from == 0 && post.is("share keys") && rejected.is_none() {
            rejected = Some(post.coordinator.serve(0, second.as_ref().unwrap()).unwrap_err());
        }
        post.pass()
    });
    assert_eq!(rejected, Some(Rejection::Equivocation("advertise".into())));
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_device_whose_keys_nobody_could_use_is_not_let_in() {
    type Change = fn(&mut Advertisement, &Advertisement);
    let changes: [Change; 6] = [
        |entry, _| entry.masking_key = [0; 32],
        |entry, _| entry.sealing_key = [0; 32],
        |entry, _| entry.sealing_key = entry.masking_key,
        |entry, other| entry.masking_key = other.masking_key,
        |entry, other| entry.masking_key = other.sealing_key,
        |entry, other| entry.sealing_key = other.masking_key,
    ];
    for change in changes {
        let mut world = World::new(&plan(6, 4), 6);
        let mut first = None;
        world.run(|post| {
            if let Request::Advertise { advertisement, .. } = &post.request {
                let first = first.get_or_insert_with(|| (**advertisement).clone()).clone();
                if post.from == 3 {
                    post.request = resigned(post, 3, |entry| change(entry, &first));
                }
            }
            post.pass()
        });
        let ended = world.ended(3);
        assert!(
            matches!(ended, Ended::Rejected(Rejection::Unacceptable { request, .. }) if request == "advertise"),
            "{ended:?}"
        );
        world.assert_sum_of(&[0, 1, 2, 4, 5]);
    }
}

#[test]
fn a_point_of_low_order_is_refused_although_its_device_signed_it() {
    // A device that works with the coordinator: what it agrees on with anybody is known to everybody.
    let plan = plan(6, 4);
    for sealing in [false, true] {
        let mut world = World::new(&plan, 6);
        let published = world.coordinator.task.published();
        world.run(|post| {
            let session = post.request.session();
            roster(post, |entries| {
                let context = context(&plan, &published, session.unwrap(), 1);
                let mut entry = entries[3].clone();
                *(if sealing { &mut entry.sealing_key } else { &mut entry.masking_key }) = [0; 32];
                entries[3] = signed(entry, &context, &identity(3));
            })
        });
        for place in [0, 1, 2, 4, 5] {
            assert_eq!(world.refusal(place), Refusal::LowOrderKey { index: 3.into() });
            assert_eq!(world.log.left(place, "share keys"), 0);
        }
        world.assert_nothing_published();
    }
}

#[test]
fn who_is_not_in_the_roster_is_not_let_in_later() {
    let mut world = World::new(&plan(6, 4), 7);
    let mut late = None;
    world.run(|post| {
        // Seven would join a round of six; the last one comes once the roster is full.
        if post.from == 6 && post.is("advertise") && late.is_none() {
            return wait();
        }
        if post.from == 0 && post.is("share keys") && late.is_none() {
            let Request::ShareKeys { session, shares } = &post.request else { panic!("{:?}", post.request) };
            let request = Request::ShareKeys { session: *session, shares: shares.clone() };
            late = Some(post.coordinator.serve(6, &request).unwrap_err());
        }
        post.pass()
    });
    assert_eq!(late, Some(Rejection::NotInRoster));
    // For it the round is over, and what it trained is for the next one.
    assert!(matches!(world.ended(6), Ended::Round(Outcome::Stopped)), "{:?}", world.ended(6));
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_roster_larger_than_the_plan_is_refused() {
    // Each device's noise is sized for the plan's cohort.
    let plan = plan(6, 4);
    let mut world = World::new(&plan, 6);
    let published = world.coordinator.task.published();
    world.run(|post| {
        let session = post.request.session();
        roster(post, |entries| {
            let identity = identity(6);
            let credential = Credential::issue(&authority(), id(6).0, identity.public(), u64::MAX);
            let context = context(&plan, &published, session.unwrap(), 1);
            entries.push(Advertised::new(context, &identity, credential, &mut rng(6)).1);
        })
    });
    for place in 0..6 {
        let ended = world.ended(place);
        assert!(matches!(ended, Ended::Refused(Refusal::LargeCohort { got: 7, most: 6 })), "{ended:?}");
        assert_eq!(world.log.left(place, "share keys"), 0);
    }
    world.assert_nothing_published();
}
