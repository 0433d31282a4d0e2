//! What a world does with time: questions are held, and a device that is switched off says nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use nightshift_sim::faults::Faults;
use nightshift_sim::world::{Habits, Stay, Trainer, World, WorldError};
use proto::plan::{Mode, Plan, RoundPlan};
use rand_chacha::ChaCha20Rng;
use session::Work;
use session::policy::Policy;
use session::update::Update;

struct Zeros;

impl Trainer for Zeros {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let zeros = |(_, work): &(usize, Arc<Work>)| {
            let trained = &work.training().unwrap().trained;
            Ok(Update::between(trained, trained, 1.0, 1).unwrap())
        };
        batch.iter().map(zeros).collect()
    }
}

fn world(devices: usize) -> World {
    let mut plan = Plan::example();
    plan.privacy.mode = Mode::Off;
    plan.privacy.noise_multiplier = 0.0;
    let (join_millis, step_millis, grace_millis) = (120_000, 30_000, 2_000);
    plan.round = RoundPlan {
        versions: 2,
        cohort: 3,
        report_goal: 3,
        join_millis,
        step_millis,
        grace_millis,
        ..plan.round
    };
    let plan = plan.with_recommended_scale().unwrap();
    let policy = Policy {
        allow_without_noise: true,
        smallest_cohort: 2,
        smallest_corrupt: 0,
        smallest_report_goal: 2,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        ..Policy::default()
    };
    World::new(&plan, None, &policy, devices, Faults::default(), [5; 32]).unwrap()
}

/// A question that is held costs its device nothing; asked again each quarter of a second it would be some 400 of them.
#[test]
fn a_device_that_waits_for_others_asks_three_times_a_minute() {
    let mut world = world(2).with_patience(100_000);
    let error = world.run_to_next_version(&mut Zeros).unwrap_err();
    assert!(matches!(error, WorldError::Waited { version: 1, most_there: 2, wanted: 3, .. }), "{error}");
    for node in &world.nodes {
        // A check-in, a question to join, and some six advertisements.
        assert!((1000..4000).contains(&node.traffic.up), "{:?}", node.traffic);
    }
}

/// A world in which nobody waits passes from event to event, whatever the steps may last.
#[test]
fn a_version_takes_no_longer_than_its_devices() {
    let mut world = world(3);
    assert!(world.run_to_next_version(&mut Zeros).unwrap());
    assert_eq!(world.counts().millis, 0);
    assert!(world.run_to_next_version(&mut Zeros).unwrap());
    assert!(world.counts().millis < 5_000, "{:?}", world.counts());
}

/// The last device is there for ten seconds, and again from the second minute on.
#[derive(Debug)]
struct Leaves;

impl Habits for Leaves {
    fn stays(&self, device: usize, after_millis: u64) -> Option<Stay> {
        match (device, after_millis) {
            (0 | 1, _) => Some(Stay::ALWAYS),
            (_, 0..10_000) => Some(Stay { from_millis: 0, until_millis: 10_000 }),
            (_, _) => Some(Stay { from_millis: 120_000, ..Stay::ALWAYS }),
        }
    }

    fn trains_millis(&self, _: usize, _: &mut ChaCha20Rng) -> u64 {
        20_000
    }
}

#[test]
fn a_device_that_is_switched_off_while_it_trains_begins_anew_when_it_comes() {
    let mut world = world(3).with_habits(Box::new(Leaves));
    assert!(world.run_to_next_version(&mut Zeros).unwrap());
    let counts = world.counts();
    assert!((140_000..200_000).contains(&counts.millis), "{counts:?}");
    // The two that stayed trained once: what they had trained was good for a later round.
    assert_eq!((counts.trainings, counts.left, counts.there), (4, 1, 3), "{counts:?}");
}
