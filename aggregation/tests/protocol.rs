//! Whole sessions in memory, against the plain sum of the survivors' inputs.

#[path = "support/world.rs"]
mod world;

use nightshift_aggregation::{Context, UnmaskError};
use proptest::prelude::*;
use world::{Fate, World, context, low};

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Stays),
        1 => Just(Fate::BeforeSharing),
        1 => Just(Fate::BeforeSubmitting),
        1 => Just(Fate::BeforeSigning),
        1 => Just(Fate::BeforeUnmasking),
    ]
}

fn one_hot(devices: usize, len: usize) -> Vec<Vec<u32>> {
    let hot = |device| (0..len).map(|place| u32::from(place == device)).collect();
    (0..devices).map(hot).collect()
}

#[test]
fn a_cohort_of_one_gets_back_its_own_input() {
    let world = World::new(1, &Context { len: 3, ..context() });
    let run = world.run(&[Fate::Stays], &[vec![1, 2, 3]]);
    assert_eq!(run.sum, Some(vec![1, 2, 3]));
}

#[test]
fn one_hot_inputs_show_every_survivor_exactly_once() {
    let ctx = Context { len: 8, ring_bits: 7, ..context() };
    let mut fates = [Fate::Stays; 8];
    fates[1] = Fate::BeforeSharing;
    fates[4] = Fate::BeforeSubmitting;
    fates[6] = Fate::BeforeUnmasking;
    let run = World::new(8, &ctx).run(&fates, &one_hot(8, 8));
    assert_eq!(run.sum, Some(vec![1, 0, 1, 1, 0, 1, 1, 1]));
}

#[test]
fn a_large_cohort_loses_a_third_and_still_sums() {
    let fates: Vec<Fate> =
        (0..48).map(|device| if device % 3 == 1 { Fate::BeforeSubmitting } else { Fate::Stays }).collect();
    let ctx = Context { len: 48, ..context() };
    let run = World::new(48, &ctx).run(&fates, &one_hot(48, 48));
    let expected = (0..48).map(|device| u32::from(device % 3 != 1)).collect();
    assert_eq!(run.sum, Some(expected));
}

#[test]
fn a_vector_longer_than_a_chunk_sums_exactly() {
    let len = nightshift_aggregation::prg::CHUNK_COORDINATES + 5;
    let inputs: Vec<Vec<u32>> =
        (1..=3_u32).map(|factor| (0..len).map(|place| low(place) * factor).collect()).collect();
    let ctx = Context { len, ring_bits: 32, ..context() };
    let run = World::new(3, &ctx).run(&[Fate::Stays; 3], &inputs);
    assert_eq!(run.sum, Some((0..len).map(|place| low(place) * 6).collect()));
}

#[test]
fn masked_inputs_do_not_show_the_input() {
    let ctx = Context { len: 64, ring_bits: 16, ..context() };
    let run = World::new(3, &ctx).run(&[Fate::Stays; 3], &vec![vec![0; 64]; 3]);
    for masked in &run.masked {
        let zeros = masked.iter().filter(|coordinate| **coordinate == 0).count();
        assert!(zeros < 4, "{zeros} of 64 coordinates show");
        assert!(masked.iter().all(|coordinate| *coordinate < 1 << 16));
    }
    assert_eq!(run.sum, Some(vec![0; 64]));
}

#[test]
fn threshold_answers_unmask_and_one_fewer_do_not() {
    let ctx = Context { len: 7, ..context() };
    let mut fates = [Fate::Stays; 7];
    for late in &mut fates[..3] {
        *late = Fate::BeforeUnmasking;
    }
    let world = World::new(7, &ctx);
    assert_eq!(world.run(&fates, &one_hot(7, 7)).sum, Some(vec![1; 7]));
    fates[3] = Fate::BeforeUnmasking;
    let run = world.run(&fates, &one_hot(7, 7));
    assert_eq!(run.sum, None);
    let too_few = UnmaskError::TooFewAnswers { owner: 0.into(), got: 3, need: 6 };
    assert_eq!(run.error, Some(too_few));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The session gives the plain sum of the survivors exactly when every
    /// step has enough devices, and gives nothing otherwise.
    #[test]
    fn the_sum_is_the_plain_sum_of_the_survivors(
        (fates, inputs) in (1_usize..=12, 0_usize..20).prop_flat_map(|(devices, len)| {
            let inputs = proptest::collection::vec(any::<u32>(), len);
            (
                proptest::collection::vec(fate(), devices),
                proptest::collection::vec(inputs, devices),
            )
        }),
        ring_bits in 1_u32..=32,
        report_goal in 1_usize..4,
        corrupt_permille in 0_u16..200,
    ) {
        let ctx = Context {
            len: inputs[0].len(),
            ring_bits,
            report_goal: report_goal.min(fates.len()),
            cohort: fates.len(),
            corrupt: nightshift_aggregation::corrupt_devices(fates.len(), corrupt_permille),
            ..context()
        };
        let world = World::new(fates.len(), &ctx);
        let run = world.run(&fates, &inputs);

        let after = |step: Fate| fates.iter().filter(|fate| **fate > step).count();
        let enough = world.roster.threshold().max(ctx.report_goal);
        let quorum = nightshift_aggregation::quorum(world.len(), ctx.corrupt);
        let succeeds = after(Fate::BeforeSubmitting) >= enough
            && after(Fate::BeforeSigning) >= quorum
            && after(Fate::BeforeUnmasking) >= world.roster.threshold();
        let expected = succeeds.then(|| {
            let mut sum = vec![0_u32; ctx.len];
            let survivors = fates.iter().zip(&inputs);
            for (_, input) in survivors.filter(|(fate, _)| **fate > Fate::BeforeSubmitting) {
                for (total, value) in sum.iter_mut().zip(input) {
                    *total = total.wrapping_add(*value) & (u32::MAX >> (32 - ring_bits));
                }
            }
            sum
        });
        prop_assert_eq!(run.sum, expected);
    }
}
