//! Both sides' machines against a reference model: the plain mean of the survivors' known updates.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;
use proto::adapter::Module;
use proto::admin::{TaskState, VersionStatus};
use proto::message::DeclineReason;
use proto::metrics::{Metric, MetricName};
use proto::plan::{Mode, Plan, RoundPlan};
use session::policy::Policy;
use session::update::Update;
use session::{SessionState, Work};
use sim::faults::{Faults, Vanish};
use sim::world::{Trainer, World};

const CLIP: f64 = 4.0;

/// The states in which a device can vanish, by their names in the session.
const STATES: [SessionState; 10] = [
    SessionState::Loading,
    SessionState::Training,
    SessionState::Joining,
    SessionState::Advertising,
    SessionState::Sharing,
    SessionState::Charging,
    SessionState::Submitting,
    SessionState::RecordingSignature,
    SessionState::Agreeing,
    SessionState::Unmasking,
];

fn plan(mode: Mode, devices: usize, report_goal: usize, versions: u32, outputs: u32) -> Plan {
    let mut plan = Plan::example();
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 3, outputs }];
    plan.privacy.mode = mode;
    plan.privacy.clip_norm = CLIP;
    plan.privacy.noise_multiplier = if mode == Mode::Off { 0.0 } else { 0.5 };
    plan.privacy.participations = 100;
    plan.privacy.metrics = [MetricName::Loss, MetricName::Examples, MetricName::Norm, MetricName::Clipped]
        .map(|name| Metric::of(name, &plan.training))
        .to_vec();
    plan.round = RoundPlan {
        versions,
        cohort: u32::try_from(devices).unwrap(),
        report_goal: u32::try_from(report_goal).unwrap(),
        join_millis: 20_000,
        step_millis: 20_000,
        grace_millis: 2_000,
        rounds: 1,
        min_rounds: 1,
        missing_permille: 300,
    };
    let plan = plan.with_recommended_scale().unwrap();
    plan.check().unwrap();
    plan
}

/// The update of one device at one version: known to the test, with a one of its own where there is room.
fn known_update(device: usize, version: u32, len: usize) -> Vec<f32> {
    let mut update = vec![0.0; len];
    update[device % len] = 1.0;
    update[(device + 7 * version as usize + 1) % len] += 0.25 * (1 + version) as f32;
    update
}

/// The loss that one device says it trained with.
fn known_loss(device: usize) -> f64 {
    1.0 + 0.5 * device as f64
}

struct Known;

impl Trainer for Known {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        batch
            .iter()
            .map(|(device, work)| {
                let update = known_update(*device, work.published.version, work.adapter.len());
                let after: Vec<f32> = work.adapter.iter().zip(&update).map(|(x, y)| x + y).collect();
                Ok(Update::between(&work.adapter, &after, known_loss(*device), 1).unwrap())
            })
            .collect()
    }
}

fn policy() -> Policy {
    Policy {
        allow_without_noise: true,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        participations_a_day: 1000,
        smallest_cohort: 2,
        smallest_corrupt: 0,
        smallest_report_goal: 2,
        ..Policy::default()
    }
}

/// Runs a world to its end and checks every version against the reference model.
fn run_and_check(plan: &Plan, devices: usize, faults: Faults, seed: u64) -> World {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut world = World::new(plan, None, &policy(), devices, faults, bytes).unwrap();
    let len = plan.adapter.trained_len();
    let mut before = world.adapter().to_vec();
    while world.run_to_next_version(&mut Known).unwrap() {
        let seen = world.seen().last().unwrap().clone();
        let survivors = world.survivors(seen.status.round);
        assert_eq!(survivors.len(), seen.status.survivors as usize);
        assert!(survivors.len() >= plan.round.report_goal as usize);
        let mut mean = vec![0.0_f64; len];
        for device in &survivors {
            for (x, y) in mean.iter_mut().zip(known_update(*device, seen.status.version - 1, len)) {
                *x += f64::from(y) / survivors.len() as f64;
            }
            let charged =
                world.nodes[*device].charges.iter().any(|(_, charge)| charge.round == seen.status.round);
            assert!(charged, "device {device} is in round {} and was not charged", seen.status.round);
        }
        if plan.privacy.mode == Mode::Off {
            check_metrics(&seen.status, &survivors, len);
            for (i, (after, before)) in world.adapter().iter().zip(&before).enumerate() {
                let (found, expected) = (f64::from(after - before), mean[i]);
                assert!((found - expected).abs() < 1e-3, "coordinate {i}: {found} is not {expected}");
            }
        }
        before = world.adapter().to_vec();
    }
    let status = world.status();
    assert_eq!(status.state, TaskState::Complete);
    let numbers: Vec<u32> = status.versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers, (1..=plan.round.versions).collect::<Vec<_>>());
    assert_eq!(world.up_to_date(), devices, "every device holds the last version");
    assert_eq!(world.signed_twice(), 0);
    for index in 0..devices {
        let (own, theirs) = (world.nodes[index].charges.len(), world.participations(index) as usize);
        assert!(own >= theirs, "device {index} was charged {own} times, the coordinator says {theirs}");
    }
    world
}

/// The means that the sum gives are those of the devices in it.
fn check_metrics(status: &VersionStatus, survivors: &[usize], len: usize) {
    let mean = |of: &dyn Fn(usize) -> f64| {
        survivors.iter().map(|device| of(*device)).sum::<f64>() / survivors.len() as f64
    };
    let norm = |device| {
        let update = known_update(device, status.version - 1, len);
        update.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt() / CLIP
    };
    for metric in &status.metrics {
        let (expected, tolerance) = match metric.name {
            MetricName::Loss => (mean(&known_loss), 0.01),
            MetricName::Examples => (1.0, 0.01),
            MetricName::Norm => (mean(&norm), 0.01),
            MetricName::Clipped => (mean(&|device| f64::from(u8::from(norm(device) > 1.0))), 0.01),
            // Nobody measured any.
            MetricName::Gain | MetricName::BaseGain => (0.0, 0.01),
        };
        assert!((metric.mean - expected).abs() < tolerance, "{metric:?} is not {expected}");
        assert!(metric.standard_deviation.abs() < f64::EPSILON);
    }
    assert_eq!(status.metrics.len(), 4);
}

#[test]
fn two_devices_that_vanish_after_sharing_leave_an_exact_sum() {
    let plan = plan(Mode::Off, 7, 5, 3, 16);
    let vanish = |device, state| Vanish { version: 1, device, state };
    let faults = Faults {
        vanish: vec![vanish(2, SessionState::Charging), vanish(5, SessionState::Submitting)],
        ..Faults::default()
    };
    let world = run_and_check(&plan, 7, faults, 1);
    let survivors: Vec<u32> = world.seen().iter().map(|seen| seen.status.survivors).collect();
    assert_eq!(survivors, [7, 5, 7]);
    // Who left before sending anything is charged by nobody; who had been charged stays charged.
    assert_eq!(world.nodes[2].charges.len(), 2);
    assert_eq!(world.nodes[5].charges.len(), 3);
}

#[test]
fn a_device_restored_from_a_backup_learns_what_it_was_charged_before_it_takes_part_again() {
    let plan = plan(Mode::Off, 5, 4, 4, 16);
    let gone = Vanish { version: 2, device: 3, state: SessionState::Training };
    let faults = Faults { vanish: vec![gone], ..Faults::default() };
    let mut world = World::new(&plan, None, &policy(), 5, faults, [11; 32]).unwrap();
    for _ in 0..2 {
        assert!(world.run_to_next_version(&mut Known).unwrap());
    }
    assert_eq!(world.nodes[3].charges.len(), 2);
    // It comes back with the ledger of the first night.
    world.nodes[3].charges.truncate(1);
    while world.run_to_next_version(&mut Known).unwrap() {}
    let found: Vec<u32> = world.nodes[3].found.iter().map(|(_, found)| found.times).collect();
    assert_eq!((found, world.nodes[3].charges.len(), world.participations(3)), (vec![1], 2, 3));
    assert!((0..5).filter(|other| *other != 3).all(|other| world.nodes[other].found.is_empty()));
}

#[test]
fn an_input_of_several_chunks_is_added_whole() {
    let plan = plan(Mode::Off, 3, 2, 1, 70_000);
    run_and_check(&plan, 3, Faults { lost_permille: 100, ..Faults::default() }, 2);
}

#[test]
fn noise_reaches_the_published_sum() {
    let plan = plan(Mode::Distributed, 8, 7, 2, 64);
    let world = run_and_check(&plan, 8, Faults::default(), 3);
    let mean = known_mean(8, 1, 64);
    let before: Vec<f32> = vec![0.0; 64];
    let first = world.seen()[0].status.clone();
    assert!(first.epsilon.is_finite() && first.epsilon > 0.0);
    let distance: f64 = world
        .adapter()
        .iter()
        .zip(&before)
        .zip(mean.iter().zip(known_mean(8, 0, 64)))
        .map(|((after, before), (one, zero))| (f64::from(after - before) - one - zero).powi(2))
        .sum();
    // Two rounds of deviation 0.5 · 4 · √(8 / 7) / 8 in each of 64 coordinates.
    let deviation = (distance / 128.0).sqrt();
    assert!((0.19..0.35).contains(&deviation), "{deviation}");
}

fn known_mean(devices: usize, version: u32, len: usize) -> Vec<f64> {
    let mut mean = vec![0.0; len];
    for device in 0..devices {
        for (x, y) in mean.iter_mut().zip(known_update(device, version, len)) {
            *x += f64::from(y) / devices as f64;
        }
    }
    mean
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let plan = plan(Mode::Distributed, 5, 4, 2, 16);
    let faults = Faults { lost_permille: 50, repeated_permille: 50, ..Faults::default() };
    let first = run_and_check(&plan, 5, faults.clone(), 9);
    let second = run_and_check(&plan, 5, faults, 9);
    assert_eq!(first.adapter(), second.adapter());
    assert_eq!(first.status(), second.status());
}

#[test]
fn a_task_ends_before_its_budget_is_passed() {
    let mut plan = plan(Mode::Distributed, 5, 4, 50, 16);
    let three = plan.mechanism().unwrap().epsilon(3, plan.delta().unwrap()).epsilon;
    plan.privacy.epsilon_budget = Some(three * 1.001);
    let mut world = World::new(&plan, None, &policy(), 5, Faults::default(), [4; 32]).unwrap();
    while world.run_to_next_version(&mut Known).unwrap() {}
    assert_eq!(world.status().state, TaskState::BudgetSpent);
    assert_eq!(world.status().version, 3);
    assert!(world.status().epsilon <= three * 1.001);
}

#[test]
fn devices_that_have_not_taken_part_yet_keep_a_task_from_ending() {
    // Ten devices, of which a round takes five, and none may take part twice.
    let mut plan = plan(Mode::Distributed, 5, 4, 50, 16);
    let one = plan.mechanism().unwrap().epsilon(1, plan.delta().unwrap()).epsilon;
    plan.privacy.epsilon_budget = Some(one * 1.001);
    let mut world = World::new(&plan, None, &policy(), 10, Faults::default(), [6; 32]).unwrap();
    while world.run_to_next_version(&mut Known).unwrap() {}
    assert_eq!(world.status().state, TaskState::BudgetSpent);
    // The five that are spent after the first version do not end it while the other five are there.
    assert_eq!(world.status().version, 2);
}

#[test]
fn an_aborted_round_is_not_tried_again_beyond_the_device_s_limit() {
    let plan = plan(Mode::Distributed, 3, 3, 2, 16);
    let strict = Policy { participations: 1, ..policy() };
    // One device goes in the middle of its input: the others are charged for a round that gives nothing.
    let vanish = vec![Vanish { version: 0, device: 1, state: SessionState::Submitting }];
    let faults = Faults { vanish, ..Faults::default() };
    let mut world = World::new(&plan, None, &strict, 3, faults, [8; 32]).unwrap();
    let error = world.run_to_next_version(&mut Known).unwrap_err().to_string();
    assert!(error.contains("took part in 1 round of"), "{error}");
    assert!(world.nodes.iter().all(|node| node.charges.len() == 1));
    let declined = world.status().declined;
    assert_eq!(declined.len(), 1);
    assert_eq!((declined[0].reason, declined[0].devices), (DeclineReason::Participations, 3));
}

#[test]
fn a_device_whose_policy_forbids_it_never_trains() {
    let plan = plan(Mode::Off, 5, 4, 1, 16);
    let strict =
        Policy { smallest_cohort: 2, smallest_report_goal: 2, smallest_corrupt: 0, ..Policy::default() };
    let mut world = World::new(&plan, None, &strict, 5, Faults::default(), [5; 32]).unwrap();
    let error = world.run_to_next_version(&mut Known).unwrap_err().to_string();
    assert!(error.contains("only contributes with noise of its own"), "{error}");
    assert!(world.nodes.iter().all(|node| node.charges.is_empty()));
    let declined = world.status().declined;
    assert_eq!(declined.len(), 1);
    assert_eq!((declined[0].reason, declined[0].devices), (DeclineReason::Noise, 5));
}

fn faults(devices: usize) -> impl Strategy<Value = Faults> {
    let vanish = (0..3_u32, 0..devices, 0..STATES.len()).prop_map(|(version, device, state)| Vanish {
        version,
        device,
        state: STATES[state],
    });
    (proptest::collection::vec(vanish, 0..6), 0..150_u32, 0..200_u32, 0..400_u32).prop_map(
        |(vanish, lost_permille, repeated_permille, crash_per_100k)| Faults {
            vanish,
            lost_permille,
            repeated_permille,
            crash_per_100k,
            ..Faults::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_version_is_the_mean_of_its_survivors(
        (devices, spare, versions, seed, faults) in (3..9_usize)
            .prop_flat_map(|n| (Just(n), 0..=n / 3, 1..4_u32, any::<u64>(), faults(n))),
    ) {
        let report_goal = (devices - spare).max(aggregation::quorum(devices, aggregation::corrupt_devices(devices, 50))).max(2);
        let plan = plan(Mode::Off, devices, report_goal, versions, 16);
        run_and_check(&plan, devices, faults, seed);
    }
}
