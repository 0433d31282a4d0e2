//! A round that is run again: with one device fewer, the difference of two sums would be that device's input.

use aggregation::{EvidenceError, Refusal};
use proto::message::{Outcome, Reply};
use session::Ended;
use task::TaskRecord;

use super::hand::{Gathered, honest, wait};
use super::setting::{plan, set};
use super::world::World;

/// Panics unless these devices refused, by what they or their disks remember, to join the first round again.
fn assert_signed_once(world: &World, places: impl IntoIterator<Item = usize>) {
    for place in places {
        let ended = world.ended(place);
        assert!(matches!(ended, Ended::SignedBefore { round: 1, .. }), "{ended:?}");
        assert_eq!(world.log.left(place, "advertise"), 1);
        assert_eq!(world.log.left(place, "masked done"), 1);
    }
}

/// The coordinator goes on from what it knew before the round, some devices from what is on their disks; panics unless
/// the round is not run again without device 5.
fn assert_not_run_again(mut world: World, before: TaskRecord) {
    world.coordinator.restore(before);
    for place in 0..3 {
        world.restart(place);
    }
    world.run(|post| if post.from == 5 { None } else { post.pass() });
    assert_signed_once(&world, 0..5);
    world.assert_silent(0..6);
    world.assert_nothing_published();
}

#[test]
fn a_round_that_was_opened_is_not_run_again_with_one_device_fewer() {
    let mut world = World::new(&plan(6, 4), 6).on_disk();
    let before = world.coordinator.record.clone();
    // The sum is opened, and the devices are told that it was not: they keep their updates for the next round.
    world.run(|post| match post.pass() {
        Some(Ok(Reply::Over(Outcome::Published))) => Some(Ok(Reply::Over(Outcome::Stopped))),
        other => other,
    });
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    assert!((0..6).all(|place| matches!(world.ended(place), Ended::Round(Outcome::Stopped))));
    let revealed: Vec<usize> = (0..6).map(|place| world.log.left(place, "unmask")).collect();

    // The coordinator forgets the round, and opens one of the same number without device 5. Some devices were
    // restarted meanwhile, so that only their disks know.
    world.coordinator.restore(before);
    for place in [1, 3] {
        world.restart(place);
    }
    world.run(|post| if post.from == 5 { None } else { post.pass() });
    assert_signed_once(&world, 0..5);
    let now: Vec<usize> = (0..6).map(|place| world.log.left(place, "unmask")).collect();
    assert_eq!(now, revealed, "a device answered once more");
    world.assert_nothing_published();
}

#[test]
fn a_round_that_was_signed_and_not_opened_is_not_run_again_either() {
    let mut world = World::new(&plan(6, 4), 6).on_disk();
    let before = world.coordinator.record.clone();
    world.run(|post| if post.is("agree") { Some(Ok(Reply::Over(Outcome::NoQuorum))) } else { post.pass() });
    assert_not_run_again(world, before);
}

#[test]
fn a_round_whose_inputs_are_signed_is_not_run_again_either() {
    // With whom it masked a device signs before anybody signs who survived. Restarted in between, it would be in two
    // sums of one round.
    let mut world = World::new(&plan(6, 4), 6).on_disk();
    let before = world.coordinator.record.clone();
    let mut done = 0;
    world.run(|post| {
        done += usize::from(post.is("masked done"));
        if post.is("masked done") { Some(Ok(Reply::Over(Outcome::TooFewSurvivors))) } else { post.pass() }
    });
    assert_eq!(done, 6);
    assert_not_run_again(world, before);
}

#[test]
fn a_round_that_nobody_signed_may_be_run_again() {
    // The control of the three above: it is the signature that binds.
    let mut world = World::new(&plan(6, 4), 6).on_disk();
    let before = world.coordinator.record.clone();
    world.run(|post| {
        if post.is("masked chunk") { Some(Ok(Reply::Over(Outcome::TooFewSurvivors))) } else { post.pass() }
    });
    world.coordinator.restore(before);
    for place in 0..3 {
        world.restart(place);
    }
    world.run(|post| if post.from == 5 { None } else { post.pass() });
    world.assert_sum_of(&[0, 1, 2, 3, 4]);
}

#[test]
fn a_coordinator_that_restarts_between_fixing_the_survivors_and_unmasking_abandons_the_round() {
    for name in ["agree", "unmask"] {
        let mut world = World::new(&plan(6, 4), 6).on_disk();
        let mut came = 0;
        world.run(|post| {
            // It dies with the second such request, once the first one was answered.
            came += usize::from(post.is(name));
            if post.is(name) && came == 2 {
                post.coordinator.crash();
            }
            post.pass()
        });
        let of_the_round = world.coordinator.fixed(1);
        assert_eq!(of_the_round, [vec![0, 1, 2, 3, 4, 5]]);
        assert!((0..6).all(|place| matches!(world.ended(place), Ended::Round(Outcome::Stopped))));
        world.assert_nothing_published();

        // What it does next has another number, and fresh keys.
        world.run(honest);
        world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
        assert_eq!(world.coordinator.fixed(1), of_the_round, "fixed once, and never changed");
        assert_eq!(world.coordinator.record.versions[0].round, 2);
        assert!((0..6).all(|place| world.log.left(place, "agree") == 2));
    }
}

#[test]
fn a_coordinator_that_restarts_and_lies_about_the_survivors_opens_nothing() {
    // Three have signed when it dies; to the other three it says, in the same session, that device 0 is missing.
    let mut world = World::new(&plan(6, 4), 6).on_disk();
    let mut gathered = Gathered::default();
    let (all, fewer) = (set(6, &[0, 1, 2, 3, 4, 5]), set(6, &[1, 2, 3, 4, 5]));
    world.run(|post| {
        gathered.keep(post);
        let first = post.from < 3;
        if post.is("agree") {
            let (told, side) = if first { (&all, [0, 1, 2]) } else { (&fewer, [3, 4, 5]) };
            return if gathered.signatures.len() < 6 {
                wait()
            } else {
                Some(Ok(gathered.evidence(told, &side)))
            };
        }
        let answer = post.pass();
        if first || !post.is("masked done") {
            return answer;
        }
        if gathered.signatures.len() < 3 {
            return wait();
        }
        post.coordinator.crash();
        Some(Ok(Reply::Survivors(fewer.clone())))
    });
    for place in 0..6 {
        assert_eq!(world.refusal(place), Refusal::Evidence(EvidenceError::TooFew { got: 3, need: 4 }));
    }
    world.assert_silent(0..6);
    world.assert_nothing_published();
}
