//! Who trains and when devices ask, of many devices over many versions: the machines of both sides, in virtual time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proto::message::Window;
use proto::plan::{Mode, Plan, RoundPlan};
use session::Work;
use session::update::Update;
use sim::faults::Faults;
use sim::world::{Trainer, World};

#[expect(dead_code, reason = "what other tests need of it")]
#[path = "common/dense.rs"]
mod common;

use common::policy;

/// Updates of the right length, which is all that matters here.
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

fn plan(versions: u32, cohort: u32) -> Plan {
    let mut plan = Plan::example();
    plan.privacy.mode = Mode::Off;
    plan.privacy.noise_multiplier = 0.0;
    plan.privacy.participations = 100;
    let (join_millis, step_millis, grace_millis) = (120_000, 30_000, 2_000);
    let report_goal = cohort * 4 / 5;
    plan.round =
        RoundPlan { versions, cohort, report_goal, join_millis, step_millis, grace_millis, ..plan.round };
    let plan = plan.with_recommended_scale().unwrap();
    plan.check().unwrap();
    plan
}

/// Devices that train half a minute to a minute and a half, one in ten of which is gone before it is done.
fn world(devices: usize, versions: u32, cohort: u32) -> World {
    let faults = Faults { broken_permille: 100, ..Faults::default() };
    let world = World::new(&plan(versions, cohort), None, &policy(), devices, faults, [7; 32]).unwrap();
    world.with_training_times(Window { least_millis: 30_000, most_millis: 90_000 })
}

/// What came of a federation.
#[derive(Debug)]
struct Came {
    trainings: usize,
    /// Contributions in the sums of its versions.
    used: usize,
    /// Check-ins a minute before the coordinator was started again, and after.
    rates: [f64; 2],
    /// How often each device took part, in order.
    took_part: Vec<u32>,
}

/// Runs to the last version, and starts the coordinator again after half of them.
fn run(mut world: World, versions: u32) -> Came {
    let mut restarted = 0;
    for version in 1..=versions {
        assert!(world.run_to_next_version(&mut Zeros).unwrap(), "version {version}");
        if version == versions / 2 {
            restarted = world.minutes();
            world.restart_coordinator(60_000).unwrap();
        }
    }
    let rate = |from: u64, to: u64| {
        let minutes = to.saturating_sub(from);
        let asked: u32 = world.check_ins().range(from..to).map(|(_, asked)| asked).sum();
        f64::from(asked) / minutes as f64
    };
    let rates = [rate(restarted / 2, restarted), rate(restarted, world.minutes())];
    let used = world.seen().iter().map(|seen| seen.status.survivors as usize).sum();
    let mut took_part: Vec<u32> = (0..world.nodes.len()).map(|node| world.participations(node)).collect();
    took_part.sort_unstable();
    Came { trainings: world.trainings(), used, rates, took_part }
}

fn trainings_are_used(came: &Came) {
    let times = came.trainings as f64 / came.used as f64;
    assert!(times <= 1.4, "{times:.2} trainings for each that was used: {came:?}");
}

/// Where nobody is chosen, the same federation trains some thirty times for each that is used.
#[test]
fn a_version_is_trained_by_about_as_many_as_it_uses_and_a_restart_is_not_felt() {
    let came = run(world(600, 30, 30), 30);
    trainings_are_used(&came);
    is_steady(&came);
}

#[test]
fn nobody_takes_part_ten_times_before_another_did_once() {
    let came = run(world(60, 40, 12), 40);
    trainings_are_used(&came);
    // 40 versions of some eleven for sixty.
    let (least, most) = (came.took_part[0], came.took_part[59]);
    assert!(least >= 4 && most <= 12, "{:?}", came.took_part);
}

/// Who took part most often, and who least.
fn is_fair(came: &Came, versions: u32) {
    let used = came.took_part.iter().sum::<u32>();
    let mean = f64::from(used) / came.took_part.len() as f64;
    let (least, most) = (came.took_part[0], came.took_part[came.took_part.len() - 1]);
    // Nobody again and again while others never do.
    assert!(
        f64::from(most) <= mean.ceil() + 2.0,
        "{least} to {most} of {versions} versions, {mean:.2} in the mean"
    );
}

#[expect(clippy::print_stdout, reason = "a measurement says what it found")]
fn print(devices: usize, cohort: u32, came: &Came) {
    let [before, after] = came.rates;
    let part = |times: u32| came.took_part.iter().filter(|took| **took == times).count();
    let times: Vec<String> =
        (0..=came.took_part[devices - 1]).map(|times| format!("{}: {}", times, part(times))).collect();
    println!(
        "{devices} devices, cohorts of {cohort}: {} trainings, {} used ({:.2} for each); {before:.0} check-ins a minute before \
         the coordinator is started again, {after:.0} after ({:+.0} %); times that a device took part: {}",
        came.trainings,
        came.used,
        came.trainings as f64 / came.used as f64,
        (after / before - 1.0) * 100.0,
        times.join(", ")
    );
}

fn is_steady(came: &Came) {
    let [before, after] = came.rates;
    assert!((after / before - 1.0).abs() <= 0.2, "{before:.0} then {after:.0} check-ins a minute");
}

#[test]
fn of_two_thousand_devices_few_train_for_nothing_and_none_again_and_again() {
    let came = run(world(2000, 16, 60), 16);
    print(2000, 60, &came);
    trainings_are_used(&came);
    is_steady(&came);
    is_fair(&came, 16);
}

/// The same at full size, for whoever wants the figures:
/// `cargo test -p nightshift-tests --test pacing -- --ignored --nocapture`.
#[test]
#[ignore = "minutes"]
fn ten_thousand_devices() {
    let came = run(world(10_000, 20, 500), 20);
    print(10_000, 500, &came);
    trainings_are_used(&came);
    is_steady(&came);
    is_fair(&came, 20);
}
