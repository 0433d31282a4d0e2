//! Dishonest devices: inputs and shares that are not what they should be. The coordinator names what is wrong, and the
//! sum of the others is right or is not opened.

use aggregation::packing::packed_len;
use aggregation::{DeviceIndex, SHARE_BYTES, Seed, Share, Signature, UnmaskShares, shamir};
use proto::ids::Digest;
use proto::message::{Outcome, Rejection, Request};

use super::setting::{plan, rng};
use super::world::World;

/// Sends `forged` in the name of device 3, in front of each of its requests of this name, and then what it meant.
fn forge(name: &'static str, mut forged: impl FnMut(&Request) -> Vec<Request>) -> (World, Vec<Rejection>) {
    let mut world = World::new(&plan(6, 4), 6);
    let mut turned_away = Vec::new();
    world.run(|post| {
        if post.from == 3 && post.is(name) && turned_away.is_empty() {
            for request in forged(&post.request) {
                turned_away.push(post.coordinator.serve(3, &request).unwrap_err());
            }
        }
        post.pass()
    });
    (world, turned_away)
}

fn is_unacceptable(rejection: &Rejection, name: &str) -> bool {
    matches!(rejection, Rejection::Unacceptable { request, .. } if request == name)
}

#[test]
fn chunks_out_of_range_of_a_wrong_length_or_not_canonical_are_turned_away() {
    let (world, turned_away) = forge("masked chunk", |honest| {
        let Request::MaskedChunk { session, packed, .. } = honest else { panic!("{honest:?}") };
        let mut long = packed.clone();
        long.push(0);
        let short = packed[1..].to_vec();
        let mechanism = plan(6, 4).mechanism().unwrap();
        let rest = packed_len(mechanism.contribution_len() - 1, mechanism.ring_bits());
        [
            // All but the first coordinate, and more than there are.
            (1, vec![0; rest]),
            (1, packed.clone()),
            (1 << 15, packed.clone()),
            (u64::MAX, packed.clone()),
            (0, long),
            (0, short),
            (0, Vec::new()),
        ]
        .map(|(offset, packed)| Request::MaskedChunk { session: *session, offset, packed })
        .to_vec()
    });
    assert_eq!(turned_away.len(), 7);
    assert!(
        turned_away.iter().all(|rejection| is_unacceptable(rejection, "masked chunk")),
        "{turned_away:?}"
    );
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_wrong_hash_or_signature_is_turned_away_and_so_is_an_input_that_changes() {
    let (world, turned_away) = forge("masked done", |honest| {
        let Request::MaskedDone { session, digest, sharing } = honest else { panic!("{honest:?}") };
        let mut other = *digest;
        other.0[0] ^= 1;
        let mut changed = *sharing;
        changed.0[40] ^= 1;
        vec![
            Request::MaskedDone { session: *session, digest: other, sharing: *sharing },
            Request::MaskedDone { session: *session, digest: *digest, sharing: changed },
            // Another first chunk than the one that came.
            Request::MaskedChunk { session: *session, offset: 0, packed: vec![0; 3] },
        ]
    });
    assert!(turned_away[..2].iter().all(|why| is_unacceptable(why, "masked done")), "{turned_away:?}");
    assert_eq!(turned_away[2], Rejection::Equivocation("masked chunk".into()));
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);

    // Once it is done, neither the hash nor a chunk can be another one.
    let mut world = World::new(&plan(6, 4), 6);
    let mut second = Vec::new();
    world.run(|post| {
        let answer = post.pass();
        if let Request::MaskedDone { session, digest, sharing } = post.request
            && post.from == 3
            && second.is_empty()
        {
            for request in [
                Request::MaskedDone { session, digest: Digest([1; 32]), sharing },
                Request::MaskedDone { session, digest, sharing: Signature([1; 64]) },
                Request::MaskedChunk { session, offset: 0, packed: vec![0; 3] },
            ] {
                second.push(post.coordinator.serve(3, &request).unwrap_err());
            }
        }
        answer
    });
    let equivocation = |what: &'static str| Rejection::Equivocation(what.into());
    assert_eq!(second, ["masked done", "masked done", "masked chunk"].map(equivocation));
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

#[test]
fn shares_of_the_wrong_kind_number_or_place_are_turned_away() {
    let (world, turned_away) = forge("unmask", |honest| {
        let Request::Unmask { session, shares } = honest else { panic!("{honest:?}") };
        let changed = |change: fn(&mut UnmaskShares)| {
            let mut shares = shares.clone();
            change(&mut shares);
            Request::Unmask { session: *session, shares }
        };
        vec![
            // In the name of one that answered, of one that did not yet, and of nobody.
            changed(|shares| shares.from = 2),
            changed(|shares| shares.from = 4),
            changed(|shares| shares.from = 17),
            changed(|shares| shares.self_mask.push(shares.self_mask[0].clone())),
            // The second kind of share of a device that survived.
            changed(|shares| shares.key.push(shares.self_mask[0].clone())),
            changed(|shares| shares.self_mask[0].0 = 6),
        ]
    });
    assert_eq!(turned_away.len(), 6);
    assert!(turned_away.iter().all(|rejection| is_unacceptable(rejection, "unmask")), "{turned_away:?}");
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

/// A round of six in which the first `liars` devices send other shares than they hold.
fn with_liars(liars: usize, lie: impl Fn(usize, &mut UnmaskShares)) -> World {
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        let from = post.from;
        if let Request::Unmask { shares, .. } = &mut post.request
            && from < liars
        {
            lie(from, shares);
        }
        post.pass()
    });
    world
}

#[test]
fn one_bad_share_does_not_keep_the_sum_from_being_opened() {
    let spoil = |from: usize, shares: &mut UnmaskShares| {
        let bytes = [u8::try_from(from).unwrap() + 1; SHARE_BYTES];
        shares.self_mask[4].1 = Share::from_bytes(&bytes).unwrap();
    };
    with_liars(1, spoil).assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    // With more of them than the rest can outvote nothing is opened, instead of something wrong.
    let world = with_liars(3, spoil);
    world.assert_nothing_published();
    assert_eq!(world.coordinator.aborted(), [Outcome::NotRecovered]);
}

#[test]
fn a_seed_that_a_majority_makes_up_is_not_the_one_that_was_committed_to() {
    // Four of six, as many as rebuild a seed, hold consistent shares of another seed for device 4.
    let other = Seed::from_bytes([66; 32]);
    let holders: Vec<DeviceIndex> = (0..6).map(DeviceIndex::from).collect();
    let shares = shamir::split(&other, 4, &holders, &mut rng(5));
    let lie = |from: usize, revealed: &mut UnmaskShares| revealed.self_mask[4].1 = shares[from].clone();
    let world = with_liars(4, lie);
    world.assert_nothing_published();
    assert_eq!(world.coordinator.aborted(), [Outcome::NotRecovered]);
}
