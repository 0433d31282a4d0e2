//! Versions of several rounds: each is the mean over the survivors of all its rounds, each of whom is in one of them, whatever
//! is lost and whoever crashes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proto::adapter::Module;
use proto::admin::TaskState;
use proto::message::Window;
use proto::metrics::{Metric, MetricName};
use proto::plan::{Mode, Plan, RoundPlan};
use session::policy::Policy;
use session::update::Update;
use session::{SessionState, Work};
use sim::faults::{Faults, Vanish};
use sim::world::{Trainer, World};

const CLIP: f64 = 4.0;

fn plan(
    mode: Mode,
    (cohort, report_goal): (u32, u32),
    (rounds, min_rounds): (u32, u32),
    outputs: u32,
) -> Plan {
    let mut plan = Plan::example();
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 3, outputs }];
    plan.privacy.mode = mode;
    plan.privacy.clip_norm = CLIP;
    plan.privacy.noise_multiplier = if mode == Mode::Off { 0.0 } else { 1.0 };
    plan.privacy.participations = 100;
    plan.privacy.metrics = vec![Metric::of(MetricName::Loss, &plan.training)];
    plan.round = RoundPlan {
        versions: 3,
        cohort,
        report_goal,
        rounds,
        min_rounds,
        join_millis: 60_000,
        step_millis: 20_000,
        grace_millis: 5_000,
        missing_permille: 300,
    };
    let plan = plan.with_recommended_scale().unwrap();
    plan.check().unwrap();
    plan
}

fn policy() -> Policy {
    Policy {
        allow_without_noise: true,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        participations_a_day: 1000,
        smallest_cohort: 2,
        smallest_corrupt: 0,
        smallest_corrupt_permille: 0,
        smallest_report_goal: 2,
        ..Policy::default()
    }
}

/// Each device moves a number of its own, by another amount in each version.
fn update(device: usize, version: u32, len: usize) -> Vec<f32> {
    let mut update = vec![0.0; len];
    update[device % len] = 1.0 + 0.5 * version as f32;
    update
}

/// What a device says that it lost.
fn loss(device: usize) -> f64 {
    1.0 + (device % 50) as f64 / 10.0
}

struct Known;

impl Trainer for Known {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let train = |(device, work): &(usize, Arc<Work>)| {
            let update = update(*device, work.published.version, work.adapter.len());
            let after: Vec<f32> = work.adapter.iter().zip(&update).map(|(x, y)| x + y).collect();
            Ok(Update::between(&work.adapter, &after, loss(*device), 1).unwrap())
        };
        batch.iter().map(train).collect()
    }
}

fn world(plan: &Plan, devices: usize, faults: Faults, seed: u64) -> World {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    World::new(plan, None, &policy(), devices, faults, bytes).unwrap()
}

/// The devices of the newest version, each of which is in one of its rounds.
fn contributors(world: &World, plan: &Plan) -> BTreeSet<usize> {
    let status = &world.seen().last().unwrap().status;
    let rounds = world.rounds();
    let (goal, cohort) = (plan.round.report_goal as usize, plan.round.cohort as usize);
    assert!((plan.round.min_rounds..=plan.round.rounds).contains(&status.rounds), "{status:?}");
    assert_eq!((rounds.len(), rounds.iter().max()), (status.rounds as usize, Some(&status.round)));
    let mut devices = BTreeSet::new();
    for round in rounds {
        let survivors = world.survivors(*round);
        assert!((goal..=cohort).contains(&survivors.len()), "round {round}");
        for device in survivors {
            assert!(devices.insert(device), "device {device} is in two rounds of version {}", status.version);
            let charged = world.nodes[device].charges.iter().any(|(_, charge)| charge.round == *round);
            assert!(charged, "device {device} is in round {round} and was not charged");
        }
    }
    assert_eq!(devices.len(), status.survivors as usize);
    devices
}

/// The newest version is the mean of its devices' updates, and so is what they measured.
fn is_their_mean(world: &World, before: &[f32], devices: &BTreeSet<usize>) {
    let status = &world.seen().last().unwrap().status;
    let mut mean = vec![0.0_f64; before.len()];
    for device in devices {
        for (x, y) in mean.iter_mut().zip(update(*device, status.version - 1, before.len())) {
            *x += f64::from(y) / devices.len() as f64;
        }
    }
    for (i, (after, before)) in world.adapter().iter().zip(before).enumerate() {
        let (found, expected) = (f64::from(after - before), mean[i]);
        assert!((found - expected).abs() < 1e-3, "coordinate {i}: {found} is not {expected}");
    }
    let loss = devices.iter().copied().map(loss).sum::<f64>() / devices.len() as f64;
    assert!((status.metrics[0].mean - loss).abs() < 0.02, "{:?} is not {loss}", status.metrics);
}

fn run_and_check(world: &mut World, plan: &Plan) -> Vec<BTreeSet<usize>> {
    let mut versions = Vec::new();
    let mut before = world.adapter().to_vec();
    while world.run_to_next_version(&mut Known).unwrap() {
        let devices = contributors(world, plan);
        is_their_mean(world, &before, &devices);
        before = world.adapter().to_vec();
        versions.push(devices);
    }
    let status = world.status();
    assert_eq!((status.state, status.version), (TaskState::Complete, plan.round.versions));
    assert_eq!((world.signed_twice(), status.gathering), (0, None));
    for (index, node) in world.nodes.iter().enumerate() {
        assert!(node.charges.len() >= world.participations(index) as usize, "device {index}");
    }
    versions
}

#[test]
fn three_rounds_beside_each_other_make_one_version() {
    let plan = plan(Mode::Off, (4, 3), (3, 3), 12);
    let mut world = world(&plan, 12, Faults::default(), 1);
    for devices in run_and_check(&mut world, &plan) {
        assert_eq!(devices.len(), 12);
    }
    // Nobody was charged for more than there are versions.
    assert!((0..12).all(|index| world.participations(index) == 3));
}

/// Of eleven devices the third round has three, which are too few.
#[test]
fn enough_rounds_make_a_version_and_one_that_lacks_devices_is_not_waited_for() {
    let plan = plan(Mode::Off, (4, 4), (3, 2), 12);
    let mut world = world(&plan, 11, Faults::default(), 2);
    for devices in run_and_check(&mut world, &plan) {
        assert_eq!(devices.len(), 8);
    }
    let joined = plan.round.join_millis;
    assert!(world.counts().millis < joined * u64::from(plan.round.versions), "{:?}", world.counts());
}

#[test]
fn fewer_devices_than_a_version_needs_wait_for_more() {
    let plan = plan(Mode::Off, (4, 3), (3, 3), 12);
    let mut world = world(&plan, 8, Faults::default(), 3).with_patience(3_600_000);
    let error = world.run_to_next_version(&mut Known).unwrap_err().to_string();
    assert!(error.contains("waited") && error.contains('9'), "{error}");
    let gathering = world.status().gathering.unwrap();
    assert_eq!((gathering.least, gathering.most, gathering.sums), (3, 3, 2), "{gathering:?}");
    assert!(gathering.devices >= 6);
}

/// Devices that train at different times: the sums of the first rounds are there long before the last one is.
#[test]
fn sums_that_are_there_outlive_a_coordinator_that_is_started_again() {
    let plan = plan(Mode::Off, (4, 4), (3, 3), 12);
    let slow = Window { least_millis: 1_000, most_millis: 600_000 };
    let mut world = world(&plan, 12, Faults::default(), 4).with_training_times(slow);
    let before = world.adapter().to_vec();
    let mut crashes = 0;
    while world.status().version == 0 {
        let sums = world.status().gathering.map_or(0, |gathering| gathering.sums);
        if sums > crashes {
            world.restart_coordinator(1_000).unwrap();
            let again = world.status().gathering.unwrap();
            assert_eq!(again.sums, sums, "{again:?}");
            crashes = sums;
        }
        world.run_one_step(&mut Known).unwrap();
    }
    assert_eq!(crashes, 2, "it was started again after each sum but the last");
    let devices = contributors(&world, &plan);
    assert_eq!(devices.len(), 12);
    is_their_mean(&world, &before, &devices);
}

#[test]
fn whoever_vanishes_from_one_round_holds_up_no_other() {
    let plan = plan(Mode::Off, (5, 4), (3, 2), 15);
    let vanish = |device, state| Vanish { version: 1, device, state };
    let vanish = vec![
        vanish(2, SessionState::Charging),
        vanish(7, SessionState::Submitting),
        vanish(11, SessionState::Sharing),
    ];
    let mut world = world(&plan, 15, Faults { vanish, ..Faults::default() }, 5);
    let versions = run_and_check(&mut world, &plan);
    assert!(versions[1].len() >= 8, "{versions:?}");
}

/// The noise of K sums is √K times that of one, what their devices teach K times.
#[test]
fn the_noise_in_the_mean_falls_as_the_root_of_the_rounds() {
    let deviation = |rounds: u32| {
        let plan = plan(Mode::Distributed, (8, 8), (rounds, rounds), 400);
        let mut world = world(&plan, 8 * rounds as usize, Faults::default(), 6);
        assert!(world.run_to_next_version(&mut Known).unwrap());
        let devices = contributors(&world, &plan);
        let mut noise: Vec<f64> = world.adapter().iter().copied().map(f64::from).collect();
        for device in &devices {
            for (x, y) in noise.iter_mut().zip(update(*device, 0, plan.adapter.trained_len())) {
                *x -= f64::from(y) / devices.len() as f64;
            }
        }
        let measured = (noise.iter().map(|x| x * x).sum::<f64>() / noise.len() as f64).sqrt();
        (measured, task::worth::worth(&plan).unwrap().snr)
    };
    let (one, snr_of_one) = deviation(1);
    let (four, snr_of_four) = deviation(4);
    // 400 numbers tell a deviation to about 4 %.
    assert!((one / four / 2.0 - 1.0).abs() < 0.15, "{one} of one round, {four} of four");
    assert!((snr_of_four / snr_of_one - 2.0).abs() < 1e-9, "{snr_of_one} {snr_of_four}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_and_whoever_crashes_each_version_is_the_mean_of_its_devices(
        seed in any::<u64>(),
        rounds in 2_u32..5,
        lost_permille in 0_u32..60,
        crash_per_100k in 0_u32..800,
    ) {
        let plan = plan(Mode::Off, (4, 3), (rounds, rounds.div_ceil(2)), 24);
        let faults =
            Faults { lost_permille, repeated_permille: lost_permille, crash_per_100k, ..Faults::default() };
        let mut world = world(&plan, 4 * rounds as usize + 2, faults, seed);
        run_and_check(&mut world, &plan);
    }
}

/// `CONTRIBUTING.md` has the command.
#[test]
#[ignore = "minutes"]
fn ten_thousand_devices_make_one_version() {
    let mut plan = plan(Mode::Off, (1_000, 800), (10, 10), 4_000);
    plan.round.versions = 1;
    (plan.round.join_millis, plan.round.step_millis) = (600_000, 600_000);
    let plan = plan.with_recommended_scale().unwrap();
    let mut world = world(&plan, 10_000, Faults::default(), 7);
    let before = world.adapter().to_vec();
    assert!(world.run_to_next_version(&mut Known).unwrap());
    let devices = contributors(&world, &plan);
    is_their_mean(&world, &before, &devices);
    let traffic: u64 = world.nodes.iter().map(|node| node.traffic.up).sum();
    println!(
        "{} devices in one version of {} rounds; {} bytes up a device",
        devices.len(),
        world.rounds().len(),
        traffic / 10_000
    );
    let snr = |rounds| {
        let mut noisy = plan.clone();
        (noisy.privacy.mode, noisy.privacy.noise_multiplier) = (Mode::Distributed, 1.0);
        (noisy.round.rounds, noisy.round.min_rounds) = (rounds, rounds);
        task::worth::worth(&noisy.with_recommended_scale().unwrap()).unwrap().snr
    };
    println!(
        "signal to noise {:.3} of one round, {:.3} of ten, by the plan with a noise multiplier of 1",
        snr(1),
        snr(10)
    );
}
