//! Vectors, sets of places and shares, as bytes.

use std::collections::BTreeSet;

use aggregation::{DeviceIndex, IndexSet, MAX_COHORT, SHARE_BYTES, Seed, Share, packing, shamir};
use proto::plan::{vector_from_bytes, vector_to_bytes};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use task::optimizer::OptimizerState;

use super::tape::Tape;

/// A packed vector, a set of places, a share or a plain vector.
pub fn numbers(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    match tape.byte() % 4 {
        0 => packed(tape),
        1 => {
            let places = tape.below(2 * MAX_COHORT);
            if let Ok(set) = IndexSet::from_bytes(tape.rest(), places) {
                assert_eq!(set.to_bytes(), tape.rest());
                assert_eq!(set.iter().count(), set.len());
                assert!(set.iter().all(|place| usize::from(place) < places && set.contains(place)));
                assert!(set.is_subset_of(&IndexSet::full(places)));
                assert!(IndexSet::full(places).without(&set).iter().all(|place| !set.contains(place)));
            }
        }
        2 => {
            if let Ok(share) = Share::from_bytes(tape.rest()) {
                assert_eq!(share.to_bytes(), tape.rest());
            }
        }
        _ => {
            let len = tape.below(1 << 10);
            if let Some(vector) = vector_from_bytes(tape.rest()) {
                assert_eq!(vector_to_bytes(&vector), tape.rest());
                if let Some(state) = OptimizerState::from_vector(&vector, len) {
                    assert_eq!(vector_to_bytes(&state.to_vector()), tape.rest());
                }
            }
        }
    }
}

fn packed(mut tape: Tape<'_>) {
    let (bits, len) = (u32::from(tape.byte() % 40), tape.number());
    if let Ok(values) = packing::unpack(tape.rest(), bits, len) {
        assert_eq!(values.len(), len);
        assert_eq!(packing::pack(&values, bits), tape.rest());
    }
    let bits = bits.clamp(1, 32);
    let low = u32::MAX >> (32 - bits);
    let (words, _) = tape.rest().as_chunks::<4>();
    let values: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word) & low).collect();
    let packed = packing::pack(&values, bits);
    assert_eq!(packed.len(), packing::packed_len(values.len(), bits));
    assert_eq!(packing::unpack(&packed, bits, values.len()), Ok(values));
}

/// Shares of a seed, of which some are changed, repeated or left out.
pub fn shares(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let count = 1 + tape.byte() % 24;
    let threshold = usize::from(1 + tape.byte() % count);
    let mut rng = ChaCha20Rng::from_seed([tape.byte(); 32]);
    let seed = Seed::from_bytes([tape.byte(); 32]);
    let holders: Vec<DeviceIndex> = (0..u16::from(count)).map(DeviceIndex::from).collect();
    let whole = shamir::split(&seed, threshold, &holders, &mut rng);
    let mut given: Vec<(DeviceIndex, Share)> = holders.into_iter().zip(whole).collect();
    let mut wrong = BTreeSet::new();
    let mut distinct = true;
    while let Some(operation) = tape.next() {
        let at = tape.below(given.len());
        let Some((place, share)) = given.get_mut(at) else { break };
        match operation % 4 {
            0 => {
                wrong.remove(&place.get());
                given.remove(at);
            }
            1 => {
                let word = tape.below(SHARE_BYTES);
                let mut changed = share.to_bytes();
                changed[word] ^= tape.byte();
                if let Ok(changed) = Share::from_bytes(&changed)
                    && changed != *share
                {
                    *share = changed;
                    wrong.insert(place.get());
                }
            }
            2 => {
                // A place that a roster of this size does not have, or one that is there already.
                let other = u16::from(tape.byte());
                distinct &= given.iter().all(|(place, _)| *place != other) && other >= u16::from(count);
                wrong.insert(other);
                let share = given[at].1.clone();
                given.push((other.into(), share));
            }
            _ => given.swap(0, at),
        }
    }
    rebuild(&given, threshold, &seed, distinct.then_some(wrong.len()));
}

/// `wrong` is how many shares are not the seed's, where that is known.
fn rebuild(given: &[(DeviceIndex, Share)], threshold: usize, seed: &Seed, wrong: Option<usize>) {
    let places: Vec<DeviceIndex> = given.iter().map(|(place, _)| *place).collect();
    let borrowed: Vec<_> = given.iter().map(|(place, share)| (*place, share)).collect();
    let decoded = shamir::decode(&borrowed, threshold);
    let spare = given.len().checked_sub(threshold);
    if let Some((_, wrong)) = &decoded {
        assert!(wrong.iter().all(|place| places.contains(place)));
    }
    if let (Some(wrong), Some(spare)) = (wrong, spare)
        && wrong <= spare / 2
    {
        let found = decoded.map(|(found, _)| read(&found));
        assert_eq!(found, Some(read(seed)), "{wrong} of {} shares are wrong", given.len());
    }
    if let Some(rebuilder) = shamir::Rebuilder::new(&places) {
        let rebuilt = rebuilder.rebuild(given.iter().map(|(_, share)| share));
        if wrong == Some(0) && spare.is_some() {
            assert_eq!(rebuilt.map(|found| read(&found)), Some(read(seed)));
        }
    }
}

/// What stands for a seed: the only share of it that is not shared with anybody.
fn read(seed: &Seed) -> [u8; SHARE_BYTES] {
    shamir::split(seed, 1, &[DeviceIndex::from(0)], &mut ChaCha20Rng::from_seed([0; 32]))[0].to_bytes()
}
