//! The noise of whole rounds: what reaches the published adapter is what was planned, and never less; and what
//! adapts by a noised number adapts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proto::adapter::Module;
use proto::metrics::{Metric, MetricName};
use proto::plan::{AdaptiveClipPlan, Mode, Plan, RoundPlan};
use session::policy::Policy;
use session::update::Update;
use session::{SessionState, Work};
use sim::faults::{Faults, Vanish};
use sim::world::{Trainer, World};

const DEVICES: u32 = 8;
const GOAL: u32 = 6;
const COORDINATES: u32 = 256;
const VERSIONS: u32 = 40;

/// Every device's update is `0[device]` in one coordinate of its own.
struct Known(Vec<f32>);

impl Trainer for Known {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        batch
            .iter()
            .map(|(device, work)| {
                let mut after = work.adapter.clone();
                after[*device] += self.0[*device];
                Ok(Update::between(&work.adapter, &after, 5.0, 1).unwrap())
            })
            .collect()
    }
}

fn plan(mode: Mode, versions: u32) -> Plan {
    let mut plan = Plan::example();
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 3, outputs: COORDINATES }];
    plan.privacy.mode = mode;
    plan.privacy.noise_multiplier = if mode == Mode::Off { 0.0 } else { 1.0 };
    plan.privacy.participations = 10_000;
    plan.privacy.metrics =
        [MetricName::Loss, MetricName::Clipped].map(|name| Metric::of(name, &plan.training)).to_vec();
    plan.round = RoundPlan {
        versions,
        cohort: DEVICES,
        report_goal: GOAL,
        join_millis: 20_000,
        step_millis: 20_000,
        grace_millis: 2_000,
        rounds: 1,
        min_rounds: 1,
        missing_permille: 300,
    };
    plan.with_recommended_scale().unwrap()
}

fn policy() -> Policy {
    Policy {
        smallest_cohort: 2,
        smallest_corrupt: 0,
        smallest_report_goal: 2,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        participations: u32::MAX,
        participations_a_day: u32::MAX,
        allow_without_noise: true,
        ..Policy::default()
    }
}

/// The mean squares of the adapter's change and of the loss's distance from the truth, each over its planned
/// variance, over many versions of which each has `survivors` devices.
fn noise_over_planned(mode: Mode, missing: u32) -> (f64, f64) {
    let versions = VERSIONS;
    let plan = plan(mode, versions);
    let vanish = (0..versions)
        .flat_map(|version| {
            (0..missing as usize).map(move |i| Vanish {
                version,
                device: 1 + 3 * i,
                state: SessionState::Charging,
            })
        })
        .collect();
    let faults = Faults { vanish, ..Faults::default() };
    let mut world =
        World::new(&plan, None, &policy(), DEVICES as usize, faults, [u8::try_from(missing).unwrap(); 32])
            .unwrap();
    let mechanism = plan.mechanism().unwrap();
    let (mut squares, mut loss_squares) = (0.0, 0.0);
    let mut before = world.adapter().to_vec();
    while world.run_to_next_version(&mut Known(vec![0.0; DEVICES as usize])).unwrap() {
        let status = world.seen().last().unwrap().status.clone();
        assert_eq!(status.survivors, DEVICES - missing);
        // What the plan promises for these survivors: never less than z·c in the sum.
        let per_device = match mode {
            Mode::Distributed => mechanism.device_variance() * f64::from(status.survivors),
            Mode::Off | Mode::Central => mechanism.guaranteed_variance(),
        };
        assert!(per_device >= mechanism.guaranteed_variance() * (1.0 - 1e-12));
        let deviation = per_device.sqrt() / (plan.privacy.scale * f64::from(status.survivors));
        for (after, before) in world.adapter().iter().zip(&before) {
            squares += (f64::from(after - before) / deviation).powi(2);
        }
        let loss = status.metrics[0];
        loss_squares += ((loss.mean - 5.0) / loss.standard_deviation).powi(2);
        before = world.adapter().to_vec();
    }
    assert_eq!(world.status().version, versions);
    (squares / f64::from(versions * COORDINATES), loss_squares / f64::from(versions))
}

#[test]
fn the_noise_of_whole_rounds_is_what_was_planned_with_and_without_missing_devices() {
    for (mode, missing) in
        [(Mode::Distributed, 0), (Mode::Distributed, 2), (Mode::Central, 0), (Mode::Central, 2)]
    {
        let (coordinates, loss) = noise_over_planned(mode, missing);
        println!("{mode:?}, {missing} missing: {coordinates:.3} of the planned variance, the loss {loss:.3}");
        // 4.5 standard deviations of a mean of squares of normal variables.
        assert!(
            (coordinates - 1.0).abs() < 4.5 * (2.0 / f64::from(VERSIONS * COORDINATES)).sqrt(),
            "{coordinates}"
        );
        assert!((loss - 1.0).abs() < 4.5 * (2.0 / f64::from(VERSIONS)).sqrt(), "{loss}");
    }
}

#[test]
fn a_clip_norm_that_adapts_finds_the_median_of_the_updates() {
    for mode in [Mode::Off, Mode::Distributed] {
        let mut plan = plan(mode, 50);
        // A hundred times too large at first; the noise goes down with it.
        plan.privacy.clip_norm = 100.0;
        plan.privacy.noise_multiplier = if mode == Mode::Off { 0.0 } else { 0.5 };
        plan.privacy.metrics_weight = 1.0;
        plan.privacy.adaptive_clip =
            Some(AdaptiveClipPlan { rate: 0.5, ..AdaptiveClipPlan::around(100.0, 0.5) });
        let plan = plan.with_recommended_scale().unwrap();
        plan.check().unwrap();
        let faults = Faults { lost_permille: 20, crash_per_100k: 200, ..Faults::default() };
        let mut world = World::new(&plan, None, &policy(), DEVICES as usize, faults, [3; 32]).unwrap();
        let norms = [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0];
        while world.run_to_next_version(&mut Known(norms.to_vec())).unwrap() {}
        let status = world.status();
        let last: Vec<f64> = status.versions.iter().rev().take(20).map(|version| version.clip_norm).collect();
        let mean = last.iter().sum::<f64>() / 20.0;
        println!(
            "{mode:?}: the clip norm went from 100 to {mean:.2}, {} coordinator crashes",
            world.coordinator_crashes()
        );
        assert!((3.5..6.5).contains(&mean), "{mode:?}: {last:?}");
        assert_eq!(world.up_to_date(), DEVICES as usize);
    }
}
