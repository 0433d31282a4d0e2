//! Attacks on a sum, each on the machines that run in production: a coordinator that lies, or devices that do, with
//! one thing changed. The honest side refuses by name, before anything is revealed; and what leaves the devices is
//! watched in every test, see [`log::Log`].
//!
//! | attack | in |
//! | --- | --- |
//! | split survivor views, own id listed missing, id both alive and missing, second unmask request | `views` |
//! | repeated or unknown ids | `rosters`, `inboxes`, `views`, `inputs` |
//! | tiny cohort, survivors below the report goal | `rosters`, `views` |
//! | key substitution, replayed advertisement, low-order point | `rosters` |
//! | model given differently to two devices | `models` |
//! | same round run again with one device fewer, coordinator restarted before unmasking | `again` |
//! | late input after "missing", partial upload | `late` |
//! | out-of-range chunk, wrong length, wrong hash, bad share, wrong commitment | `inputs`, `inboxes` |
//! | drop-outs that cut the graph, graph seed chosen by one side | `ring` |
//! | a log of enrollments that was forked, rolled back, or is old; a device that is not in it; a burst of fresh ones | `enrolling` |
//! | two views of who shared, a device of another roster counted as survivor | `sharers` |
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use proto::message::{Outcome, Reply};

use hand::{honest, wait};
use setting::plan;
use world::World;

#[path = "attacks/again.rs"]
mod again;
#[path = "attacks/enrolling.rs"]
mod enrolling;
#[path = "attacks/hand.rs"]
mod hand;
#[path = "attacks/inboxes.rs"]
mod inboxes;
#[path = "attacks/inputs.rs"]
mod inputs;
#[path = "attacks/late.rs"]
mod late;
#[path = "attacks/log.rs"]
mod log;
#[path = "attacks/models.rs"]
mod models;
#[path = "attacks/ring.rs"]
mod ring;
#[path = "attacks/rosters.rs"]
mod rosters;
#[path = "attacks/setting.rs"]
mod setting;
#[path = "attacks/sharers.rs"]
mod sharers;
#[path = "attacks/views.rs"]
mod views;
#[path = "attacks/world.rs"]
mod world;

#[test]
fn without_a_change_the_sum_of_all_is_published_again_and_again() {
    let mut world = World::new(&plan(6, 4), 6).on_disk();
    for version in 1..4 {
        world.run(honest);
        world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
        assert_eq!(world.coordinator.task.version(), version);
    }
    assert!(world.nodes.iter().all(|node| node.ended.is_empty()));
}

#[test]
fn without_a_change_but_two_devices_that_vanish_the_sum_of_the_others_is_published() {
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        let gone = post.from == 2 && post.is("masked chunk") || post.from == 5 && post.is("share keys");
        if gone { None } else { post.pass() }
    });
    world.assert_sum_of(&[0, 1, 3, 4]);
    assert_eq!(world.coordinator.fixed(1), [vec![0, 1, 3, 4]]);
}

#[test]
fn without_a_change_but_lost_and_repeated_messages_everybody_says_the_same_again() {
    // With a report goal of all, the step waits for who is slow.
    let mut world = World::new(&plan(6, 6), 6);
    let mut sent = 0;
    world.run(|post| {
        if post.request.session().is_none() {
            return post.pass();
        }
        sent += 1;
        let answer = match sent % 5 {
            0 => return None,
            1 => {
                drop(post.pass());
                post.pass()
            }
            _ => post.pass(),
        };
        // An answer that is lost, and one that comes late.
        match sent % 7 {
            0 => None,
            1 if !matches!(answer, Some(Ok(Reply::Over(Outcome::Published)))) => wait(),
            _ => answer,
        }
    });
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}
