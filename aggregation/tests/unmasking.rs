//! One test for each attack on the sum: inputs, and the answers that unmask it.
#![expect(clippy::unwrap_used, reason = "helpers of tests; only their bodies are exempt by configuration")]

#[path = "support/world.rs"]
mod world;

use nightshift_aggregation::{
    BadShares, DeviceIndex, Evidence, Further, IndexSet, Refusal, RunningSum, SHARE_BYTES, SealedShare,
    Share, Shared, SumError, UnmaskError, UnmaskShares,
};
use world::{World, context, inbox, set};

fn place(index: u16) -> DeviceIndex {
    DeviceIndex::from(index)
}

fn zeros(share: &mut Share) {
    *share = Share::from_bytes(&[0; SHARE_BYTES]).unwrap();
}

/// The sum of the survivors' masked zeros, which unmasks to zeros.
fn masked_sum(world: &World, survivors: &IndexSet) -> RunningSum {
    let mut sum = world.empty_sum();
    for state in world.masking(&world.all()) {
        if survivors.contains(state.index()) {
            let mut input = vec![0; world.ctx.len];
            state.mask(&mut input).unwrap();
            sum.add_chunk(0, &input).unwrap();
        }
    }
    sum
}

#[test]
fn an_input_of_another_length_is_refused() {
    let world = World::new(2, &context());
    let state = world.masking(&world.all()).remove(0);
    let refusal = state.mask(&mut [0; 3]).unwrap_err();
    assert_eq!(refusal, Refusal::Length { got: 3, expected: 4 });
}

#[test]
fn a_chunk_that_ends_behind_the_last_coordinate_is_refused() {
    let world = World::new(2, &context());
    let state = world.masking(&world.all()).remove(0);
    for offset in [3, usize::MAX] {
        let refusal = state.mask_chunk(offset, &mut [0; 2]).unwrap_err();
        assert_eq!(refusal, Refusal::ChunkOutOfRange { offset, chunk: 2, len: 4 });
    }
    assert_eq!(state.mask_chunk(2, &mut [0; 2]), Ok(()));
}

#[test]
fn a_sum_with_part_of_an_input_is_not_unmasked() {
    let world = World::new(2, &context());
    let mut recovery = world.recovery(&world.all());
    for shares in world.revealed(&world.all()) {
        recovery.accept(shares).unwrap();
    }
    let mut sum = masked_sum(&world, &world.all());
    sum.add_chunk(0, &[1, 2, 3]).unwrap();
    assert_eq!(sum.inputs(), 2);
    assert_eq!(sum.add_chunk(0, &[4]), Err(SumError::Offset { got: 0, expected: 3 }));
    let expected = UnmaskError::Inputs { got: 3, expected: 2 };
    assert_eq!(recovery.finish(sum), Err(expected));
}

/// What the devices in a cohort of 5 reveal after the sealed shares of device
/// 1 for `spoilt` were changed on their way by `change`.
fn revealed_after(spoilt: &[u16], change: fn(&mut SealedShare)) -> Vec<UnmaskShares> {
    let world = World::new(5, &context());
    let (states, mut sealed) = world.shared(&world.all());
    for share in sealed.iter_mut().filter(|share| share.from == 1 && spoilt.contains(&share.to)) {
        change(share);
    }
    let agree = |state: Shared| {
        let index = state.index();
        let masking = state.receive(world.all(), inbox(&sealed, index.get())).unwrap();
        let identity = &world.identities[usize::from(index)];
        world.submit(masking, &mut [0; 4]).0.agree(world.all(), identity).unwrap()
    };
    let (agreed, signatures): (Vec<_>, Vec<_>) = states.into_iter().map(agree).unzip();
    let evidence = Evidence { agreed: world.all(), signatures };
    agreed.into_iter().map(|state| state.unmask(&evidence).unwrap()).collect()
}

#[test]
fn a_share_that_does_not_open_is_not_held_and_ends_nothing() {
    let changes: [fn(&mut SealedShare); 2] = [|share| share.bytes[5] ^= 1, |share| share.bytes.truncate(3)];
    for change in changes {
        let world = World::new(5, &context());
        let mut recovery = world.recovery(&world.all());
        for shares in revealed_after(&[0, 2], change) {
            let owners: Vec<u16> = shares.self_mask.iter().map(|(owner, _)| *owner).collect();
            let lacks = [0, 2].contains(&shares.from);
            assert_eq!(owners, if lacks { vec![0, 2, 3, 4] } else { vec![0, 1, 2, 3, 4] });
            recovery.accept(shares).unwrap();
        }
        assert!(recovery.is_ready());
        assert_eq!(recovery.finish(masked_sum(&world, &world.all())), Ok(vec![0; 4]));
    }
}

#[test]
fn a_device_that_seals_nonsense_for_everybody_is_named() {
    let world = World::new(5, &context());
    let mut recovery = world.recovery(&world.all());
    for shares in revealed_after(&[0, 2, 3, 4], |share| share.bytes[5] ^= 1) {
        recovery.accept(shares).unwrap();
    }
    assert!(!recovery.is_ready());
    let error = recovery.finish(masked_sum(&world, &world.all())).unwrap_err();
    assert_eq!(error, UnmaskError::TooManyBadShares { owner: place(1), got: 1, need: 3 });
    assert_eq!(error.culprit(), Some(place(1)));
}

#[test]
fn a_sum_without_one_survivor_or_with_a_late_input_is_not_unmasked() {
    let world = World::new(4, &context());
    let survivors = set(4, &[0, 1, 2]);
    for inputs in [vec![0, 1], vec![0, 1, 2, 3]] {
        let mut recovery = world.recovery(&survivors);
        for shares in world.revealed(&survivors) {
            recovery.accept(shares).unwrap();
        }
        let sum = masked_sum(&world, &set(4, &inputs));
        let expected = UnmaskError::Inputs { got: inputs.len(), expected: 3 };
        assert_eq!(recovery.finish(sum), Err(expected));
    }
}

#[test]
fn an_answer_with_both_kinds_for_one_device_is_turned_away() {
    let world = World::new(4, &context());
    let survivors = set(4, &[0, 1, 2]);
    let answer = || world.revealed(&survivors).remove(0);
    let mut recovery = world.recovery(&survivors);

    let mut survivor_key = answer();
    survivor_key.key.push(survivor_key.self_mask[1].clone());
    let unwanted = BadShares::Unwanted { owner: place(1) };
    assert_eq!(recovery.accept(survivor_key), Err(unwanted));

    let mut missing_mask = answer();
    missing_mask.self_mask.push(missing_mask.key[0].clone());
    let unwanted = BadShares::Unwanted { owner: place(3) };
    assert_eq!(recovery.accept(missing_mask), Err(unwanted));

    assert_eq!(recovery.accept(answer()), Ok(()));
}

#[test]
fn an_answer_that_is_repeated_or_not_a_survivors_is_turned_away() {
    let world = World::new(4, &context());
    let survivors = set(4, &[0, 1, 2]);
    let answer = || world.revealed(&survivors).remove(0);
    let mut recovery = world.recovery(&survivors);

    let mut twice = answer();
    twice.self_mask.push(twice.self_mask[0].clone());
    let repeated = BadShares::RepeatedOwner { owner: place(0) };
    assert_eq!(recovery.accept(twice), Err(repeated));

    for from in [3, 400] {
        let mut stranger = answer();
        stranger.from = from;
        let expected = BadShares::NotASurvivor { from: place(from) };
        assert_eq!(recovery.accept(stranger), Err(expected));
    }
    assert_eq!(recovery.answer(0), None);

    assert_eq!(recovery.accept(answer()), Ok(()));
    let again = BadShares::Repeated { from: place(0) };
    assert_eq!(recovery.accept(answer()), Err(again));
    assert_eq!(recovery.answer(0), Some(&answer()));
    assert!(!recovery.is_ready() && !recovery.is_complete());
}

#[test]
fn a_wrong_share_is_found_by_the_commitment_and_another_subset_used() {
    let world = World::new(6, &context());
    let survivors = set(6, &[0, 1, 2, 3, 4]);
    for liar in 0..5 {
        let mut recovery = world.recovery(&survivors);
        for mut shares in world.revealed(&survivors) {
            if shares.from == liar {
                shares.self_mask.iter_mut().for_each(|(_, share)| zeros(share));
                shares.key.iter_mut().for_each(|(_, share)| zeros(share));
            }
            recovery.accept(shares).unwrap();
        }
        let sum = masked_sum(&world, &survivors);
        assert_eq!(recovery.finish(sum), Ok(vec![0; 4]));
    }
}

#[test]
fn answers_that_come_during_an_attempt_help_the_next_one() {
    let world = World::new(9, &context());
    let mut recovery = world.recovery(&world.all());
    let mut answers = world.revealed(&world.all()).into_iter();
    for mut shares in answers.by_ref().take(5) {
        if shares.from == 1 {
            shares.self_mask.iter_mut().skip(4).for_each(|(_, share)| zeros(share));
        }
        recovery.accept(shares).unwrap();
    }
    assert!(recovery.is_ready());
    let attempt = recovery.attempt();
    for shares in answers.by_ref().take(2) {
        recovery.accept(shares).unwrap();
    }
    let failed = attempt.make(Further::MayCome).unwrap_err();
    let lacking = failed.lacking.unwrap();
    assert_eq!((lacking.owner, lacking.spare, recovery.spare(lacking.owner)), (place(4), 0, 2));
    recovery.keep(lacking.found);
    let unmasking = recovery.attempt().make(Further::MayCome).unwrap();
    assert_eq!(unmasking.unmask(masked_sum(&world, &world.all())), Ok(vec![0; 4]));
}

#[test]
fn wrong_shares_of_as_many_as_may_be_corrupt_do_not_blame_their_owner() {
    let world = World::new(6, &context());
    let survivors = set(6, &[0, 1, 2, 3, 4]);
    let mut recovery = world.recovery(&survivors);
    for mut shares in world.revealed(&survivors) {
        if shares.from < 2 {
            zeros(&mut shares.key[0].1);
        }
        recovery.accept(shares).unwrap();
    }
    let sum = masked_sum(&world, &survivors);
    // Of 6 one may be corrupt, so 4 and twice as many are sure to rebuild.
    let expected = UnmaskError::TooFewAnswers { owner: place(5), got: 5, need: 6 };
    assert_eq!(recovery.finish(sum), Err(expected));
    assert_eq!(expected.culprit(), None);
}

#[test]
fn a_sum_of_another_shape_is_not_unmasked() {
    let world = World::new(2, &context());
    for (len, bits) in [(3, 20), (4, 21)] {
        let mut recovery = world.recovery(&world.all());
        for shares in world.revealed(&world.all()) {
            recovery.accept(shares).unwrap();
        }
        let sum = RunningSum::new(len, bits).unwrap();
        let refused = recovery.finish(sum).unwrap_err();
        assert!(matches!(refused, UnmaskError::OtherSum { .. }));
    }
}
