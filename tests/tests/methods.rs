//! What is averaged, over whole federations: the change of each device is computed densely, and their mean is
//! compared with the change that the coordinator publishes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proto::adapter::{Class, Factors, Folded, Method, State};
use proto::ids::Digest;
use proto::message::DeclineReason;
use proto::plan::{ClassPlan, Mode, Plan, RefreshPlan, vector_to_bytes};
use proto::training::ServerOptimizer;
use session::Work;
use session::policy::Policy;
use session::update::Update;
use sim::faults::Faults;
use sim::world::{Trainer, World};

#[path = "common/dense.rs"]
mod common;

use common::{DEVICES, RANK, bytes, dense, plan, policy, world};

/// Federations whose average of changes is the change of the average.
const EXACT: [Method; 4] = [Method::FrozenA, Method::FrozenB, Method::Alternate, Method::Core];

fn distance(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt()
}

fn mean(of: &[Vec<f64>]) -> Vec<f64> {
    (0..of[0].len()).map(|i| of.iter().map(|x| x[i]).sum::<f64>() / of.len() as f64).collect()
}

/// A number that looks random and is the same each time.
fn number(seed: u64, device: usize, version: u32, at: usize) -> f32 {
    let digest = Digest::of(format!("{seed} {device} {version} {at}").as_bytes());
    f32::from(i16::from_be_bytes([digest.0[0], digest.0[1]])) / 32768.0
}

/// Trains by moving every trained number, and keeps what each device trained last, and its change as a matrix.
struct Dense {
    seed: u64,
    last: BTreeMap<usize, (Vec<f32>, Vec<f64>)>,
}

impl Dense {
    fn new(seed: u64) -> Self {
        Self { seed, last: BTreeMap::new() }
    }

    fn mean(&self) -> Vec<f64> {
        assert_eq!(self.last.len(), DEVICES);
        mean(&self.last.values().map(|(_, change)| change.clone()).collect::<Vec<_>>())
    }
}

impl Trainer for Dense {
    fn train(&mut self, batch: &[(usize, Arc<Work>)]) -> Vec<Result<Update, String>> {
        let train = |(device, work): &(usize, Arc<Work>)| {
            let state = work.training().unwrap();
            let before = &state.trained;
            let moved = |(at, x): (usize, &f32)| x + number(self.seed, *device, work.published.version, at);
            let after: Vec<f32> = before.iter().enumerate().map(moved).collect();
            let change = dense(&State { trained: after.clone(), ..state.as_ref().clone() });
            let update = Update::between(before, &after, 1.0, 1).unwrap();
            self.last.insert(*device, (after, change));
            Ok(update)
        };
        batch.iter().map(train).collect()
    }
}

/// The distance of what is published from the mean of the devices' changes, version by version.
fn distances(plan: &Plan, given: Option<&[f32]>, seed: u64) -> Vec<f64> {
    let (mut world, mut found) = (world(plan, given, Faults::default(), seed), Vec::new());
    let mut trainer = Dense::new(seed);
    while world.run_to_next_version(&mut trainer).unwrap() {
        found.push(distance(&dense(&world.state().unwrap()), &trainer.mean()));
    }
    assert_eq!(world.up_to_date(), DEVICES);
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn the_published_change_is_the_average_of_the_devices_changes(seed in any::<u64>()) {
        for method in EXACT {
            for (version, distance) in (1..).zip(distances(&plan(method, 4, None), None, seed)) {
                prop_assert!(distance < 1e-4, "{method:?}, version {version}: {distance}");
            }
        }
    }

    #[test]
    fn the_end_of_an_epoch_changes_nothing_as_long_as_the_rank_holds_it(seed in any::<u64>()) {
        let refresh = RefreshPlan { every: 2, accumulated_rank: 2 * RANK, shipped_rank: 3 };
        for method in [Method::FrozenA, Method::FrozenB, Method::Core] {
            // Six versions: epochs of two end with the second and the fourth, none with the last.
            for (version, distance) in (1..).zip(distances(&plan(method, 6, Some(refresh)), None, seed)) {
                prop_assert!(distance < 1e-4, "{method:?}, version {version}: {distance}");
            }
        }
    }
}

#[test]
fn the_average_of_both_factors_is_off_by_their_covariance() {
    let plan = plan(Method::Both, 1, None);
    let mut world = world(&plan, None, Faults::default(), 5);
    let mut trainer = Dense::new(5);
    assert!(world.run_to_next_version(&mut trainer).unwrap());
    let average = trainer.mean();
    let off: Vec<f64> =
        dense(&world.state().unwrap()).iter().zip(&average).map(|(found, mean)| found - mean).collect();
    // B̄·Ā − mean(B·A) = −mean((B − B̄)·(A − Ā)).
    let state = world.state().unwrap();
    let centered = |trained: &Vec<f32>| {
        let trained = trained.iter().zip(&state.trained).map(|(x, mean)| x - mean).collect();
        dense(&State { trained, ..state.clone() })
    };
    let covariance = mean(&trainer.last.values().map(|(trained, _)| centered(trained)).collect::<Vec<_>>());
    let opposite: Vec<f64> = covariance.iter().map(|x| -x).collect();
    assert!(distance(&off, &opposite) < 1e-4);
    let share = distance(&off, &vec![0.0; off.len()]) / distance(&average, &vec![0.0; off.len()]);
    assert!(share > 0.2, "the average of factors is off by only {share} of the average");
}

#[test]
fn each_version_of_an_alternating_task_moves_one_half_and_sums_no_more() {
    let plan = plan(Method::Alternate, 4, None);
    let mut world = world(&plan, None, Faults::default(), 3);
    let mut trainer = Dense::new(3);
    let mut before = world.adapter().to_vec();
    for version in 0..4 {
        assert!(world.run_to_next_version(&mut trainer).unwrap());
        let moved = plan.adapter.update_places(version);
        for (i, (x, y)) in world.adapter().iter().zip(&before).enumerate() {
            let trained = moved.iter().any(|range| range.contains(&i));
            assert_eq!((x - y).abs() > 0.0, trained, "number {i} of the state, version {}", version + 1);
        }
        assert_eq!(trainer.last[&0].0.len(), plan.adapter.update_len(version));
        before = world.adapter().to_vec();
    }
    assert_ne!(plan.adapter.update_len(0), plan.adapter.update_len(1));
}

#[test]
fn crashes_at_any_moment_fold_no_epoch_twice() {
    let refresh = RefreshPlan { every: 1, accumulated_rank: 8, shipped_rank: 3 };
    let plan = plan(Method::FrozenA, 5, Some(refresh));
    let mut crashes = 0;
    for seed in 0..4 {
        let faults = Faults { crash_per_100k: 3000, lost_permille: 20, ..Faults::default() };
        let mut world = world(&plan, None, faults, seed);
        let mut trainer = Dense::new(seed);
        let mut expected = vec![0.0; 4 * 5 + 3 * 6];
        let mut before = dense(&world.state().unwrap());
        while world.run_to_next_version(&mut trainer).unwrap() {
            let after = dense(&world.state().unwrap());
            let version = world.status().version;
            let change = known_change(&plan, version - 1, seed);
            expected.iter_mut().zip(&change).for_each(|(x, y)| *x += y);
            let off = distance(&after, &expected);
            // Five roundings of four devices; an epoch that is folded twice is off by a hundred times as much.
            assert!(off < 1e-3, "version {version} of seed {seed}: {off}");
            assert!(distance(&after, &before) > 1e-2);
            before = after;
        }
        crashes += world.coordinator_crashes();
    }
    assert!(crashes > 4, "only {crashes} crashes");
}

/// The mean change of one epoch of one version, in which every device moves `B` from zero.
fn known_change(plan: &Plan, version: u32, seed: u64) -> Vec<f64> {
    let frozen = plan.factors_at(version, None).unwrap();
    let change = |device| {
        let trained = (0..plan.adapter.trained_len()).map(|at| number(seed, device, version, at)).collect();
        let (spec, frozen) = (plan.adapter.clone(), frozen.clone());
        dense(&State { spec, frozen, folded: Folded::default(), trained })
    };
    mean(&(0..DEVICES).map(change).collect::<Vec<_>>())
}

#[test]
fn epochs_take_the_operator_s_factors_in_order_and_then_draw_their_own() {
    let mut plan =
        plan(Method::FrozenA, 6, Some(RefreshPlan { every: 2, accumulated_rank: 6, shipped_rank: 3 }));
    let one = plan.adapter.given_len();
    let given: Vec<f32> = (0..2 * one).map(|i| number(1, 0, 0, i)).collect();
    plan.adapter.factors = Factors::Given(Digest::of(&vector_to_bytes(&given)));
    let at = |version| plan.factors_at(version, Some(&given)).unwrap();
    assert_eq!((at(0), at(3)), (given[..one].to_vec(), given[one..].to_vec()));
    assert_eq!(at(1), at(0));
    let third = at(4);
    assert!(third != at(0) && third != at(3));
    assert_eq!(at(6), third, "the last version ends no epoch");
    for (version, distance) in (1..).zip(distances(&plan, Some(&given), 8)) {
        assert!(distance < 1e-4, "version {version}: {distance}");
    }
}

#[test]
fn moments_are_forgotten_at_the_end_of_an_epoch() {
    let mut plan =
        plan(Method::FrozenA, 3, Some(RefreshPlan { every: 1, accumulated_rank: 6, shipped_rank: 3 }));
    plan.server = ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.9 };
    // With moments that went on, the second version's change would hold nine tenths of the first's.
    for (version, distance) in (1..).zip(distances(&plan, None, 8)) {
        assert!(distance < 1e-4, "version {version}: {distance}");
    }
}

#[test]
fn what_comes_out_is_exact_where_its_rank_holds_it_and_else_the_nearest() {
    let plan = plan(Method::FrozenA, 2, Some(RefreshPlan { every: 1, accumulated_rank: 4, shipped_rank: 3 }));
    let mut world = world(&plan, None, Faults::default(), 2);
    let mut trainer = Dense::new(2);
    while world.run_to_next_version(&mut trainer).unwrap() {}
    let (state, whole) = (world.state().unwrap(), dense(&world.state().unwrap()));
    let lost = |rank| {
        let (spec, trained) = state.shipped(rank).unwrap();
        assert_eq!((spec.method, spec.rank), (Method::Both, rank));
        distance(&dense(&State { spec, frozen: Vec::new(), folded: Folded::default(), trained }), &whole)
    };
    // Rank 2 of the epoch that ended, and 2 of this one.
    assert!(lost(4) < 1e-5, "{}", lost(4));
    assert!(lost(3) > 1e-3 && lost(2) > lost(3) && lost(1) > lost(2));
}

/// A task of two layers whose devices add next to no noise, and train as their limits say.
fn plan_of_classes(versions: u32) -> Plan {
    let mut plan = plan(Method::FrozenA, versions, None);
    for (layer, module) in plan.adapter.modules.iter_mut().enumerate() {
        module.name = format!("layers.{layer}.q");
    }
    plan.classes = Some(ClassPlan { least_trainers: 2 });
    (plan.privacy.mode, plan.privacy.noise_multiplier) = (Mode::Distributed, 1e-3);
    let plan = plan.with_recommended_scale().unwrap();
    plan.check().unwrap();
    plan
}

#[test]
fn each_number_is_the_mean_of_the_devices_that_train_it_and_few_move_nothing() {
    let plan = plan_of_classes(2);
    let limits = [(None, None), (Some(1), None), (None, Some(1)), (Some(1), Some(1))];
    let policies = limits.map(|(largest_rank, top_layers)| Policy { largest_rank, top_layers, ..policy() });
    let mut world = World::with_policies(&plan, None, &policies, Faults::default(), bytes(4)).unwrap();
    let mut trainer = Dense::new(4);
    let mut before = world.adapter().to_vec();
    for version in 0..2 {
        assert!(world.run_to_next_version(&mut trainer).unwrap());
        let mut sums = vec![(0.0_f32, 0.0_f32); before.len()];
        for (device, policy) in policies.iter().enumerate() {
            let class = policy.class(&plan.adapter).unwrap_or(Class::whole(&plan.adapter));
            for (at, place) in class.places(&plan.adapter).into_iter().flatten().enumerate() {
                sums[place].0 += number(4, device, version, at);
                sums[place].1 += 1.0;
            }
        }
        for (i, ((x, y), (sum, trainers))) in world.adapter().iter().zip(&before).zip(&sums).enumerate() {
            let expected = if *trainers < 2.0 { 0.0 } else { sum / trainers };
            assert!((x - y - expected).abs() < 0.05, "number {i}: {} is not {expected}", x - y);
            assert!(*trainers >= 2.0 || (x - y).abs() < f32::MIN_POSITIVE, "number {i} moved");
        }
        assert!(sums.iter().any(|(_, trainers)| *trainers < 2.0));
        before = world.adapter().to_vec();
    }
    assert!(!world.run_to_next_version(&mut trainer).unwrap());
    assert_eq!(world.up_to_date(), DEVICES);
}

#[test]
fn a_device_that_trains_less_takes_no_part_where_the_plan_takes_no_part_of_an_adapter() {
    let mut plan = plan_of_classes(1);
    plan.classes = None;
    plan.round.report_goal = 3;
    let policies = [None, None, None, Some(1)].map(|largest_rank| Policy { largest_rank, ..policy() });
    let mut world = World::with_policies(&plan, None, &policies, Faults::default(), bytes(4)).unwrap();
    let mut trainer = Dense::new(4);
    assert!(world.run_to_next_version(&mut trainer).unwrap());
    assert_eq!(world.status().versions[0].survivors, 3);
    let declined = world.status().declined;
    assert_eq!(declined.len(), 1);
    assert_eq!((declined[0].reason, declined[0].devices), (DeclineReason::Size, 1));
}
