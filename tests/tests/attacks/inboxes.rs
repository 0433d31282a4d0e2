//! Shares that are not one from each sharer for each: what is sealed, and who is said to have sealed.

use aggregation::{Refusal, SealedShare};
use proto::message::{Outcome, Rejection, Reply, Request};
use session::Ended;

use super::hand::Post;
use super::setting::{plan, set};
use super::world::World;

/// Runs a round in which device 5 shares nothing, with this change in the inbox of device 1.
fn with_inbox(change: impl Fn(&mut Vec<SealedShare>)) -> World {
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        if post.from == 5 && post.is("share keys") {
            return None;
        }
        let mut answer = post.pass();
        if let Some(Ok(Reply::Inbox { shares, .. })) = &mut answer
            && post.from == 1
        {
            change(shares);
        }
        answer
    });
    world
}

#[test]
fn an_inbox_that_is_not_one_share_from_each_sharer_is_refused() {
    type Change = fn(&mut Vec<SealedShare>);
    let cases: [(Change, Refusal); 6] = [
        (|inbox| inbox.push(inbox[0].clone()), Refusal::RepeatedShare { from: 0.into() }),
        (|inbox| drop(inbox.pop()), Refusal::MissingShare { from: 4.into() }),
        (|inbox| inbox[0].from = 5, Refusal::UnexpectedShare { from: 5.into() }),
        (|inbox| inbox[0].from = 1, Refusal::UnexpectedShare { from: 1.into() }),
        (|inbox| inbox[0].from = 77, Refusal::UnexpectedShare { from: 77.into() }),
        (|inbox| inbox[0].to = 2, Refusal::Misdelivered { to: 2.into(), own: 1.into() }),
    ];
    for (change, refusal) in cases {
        let world = with_inbox(change);
        assert_eq!(world.refusal(1), refusal);
        assert_eq!(world.log.left(1, "masked chunk"), 0);
        world.assert_silent([1]);
        world.assert_sum_of(&[0, 2, 3, 4]);
    }
    with_inbox(|_| {}).assert_sum_of(&[0, 1, 2, 3, 4]);
}

#[test]
fn a_share_that_does_not_open_ends_nothing() {
    let changes: [fn(&mut Vec<SealedShare>); 2] =
        [|inbox| inbox[0].bytes[5] ^= 1, |inbox| inbox[0].bytes = inbox[1].bytes.clone()];
    for change in changes {
        with_inbox(change).assert_sum_of(&[0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_device_that_deals_nonsense_to_everybody_ends_one_round_and_joins_no_more() {
    let mut world = World::new(&plan(6, 4), 6);
    let spoil = |post: &mut Post<'_>| {
        if let Request::ShareKeys { shares, .. } = &mut post.request
            && post.from == 3
        {
            for share in shares {
                share.bytes[5] ^= 1;
            }
        }
        post.pass()
    };
    world.run(spoil);
    world.assert_nothing_published();
    assert_eq!(world.coordinator.aborted(), [Outcome::NotRecovered]);
    world.run(spoil);
    let ended = world.ended(3);
    assert!(matches!(ended, Ended::Rejected(Rejection::Unacceptable { request, .. }) if request == "join"));
    world.assert_sum_of(&[0, 1, 2, 4, 5]);
}

#[test]
fn sharers_that_are_too_few_or_leave_the_device_out_are_refused() {
    let cases = [
        (set(6, &[0, 1, 2]), Refusal::FewSharers { got: 3, need: 4 }),
        (set(6, &[0, 2, 3, 4, 5]), Refusal::NotASharer),
        (set(8, &[0, 1, 2, 3, 4, 5]), Refusal::Places { got: 8, expected: 6 }),
    ];
    for (told, refusal) in cases {
        let mut world = World::new(&plan(6, 4), 6);
        world.run(|post| {
            let mut answer = post.pass();
            if let Some(Ok(Reply::Inbox { sharers, .. })) = &mut answer {
                *sharers = told.clone();
            }
            answer
        });
        assert_eq!(world.refusal(1), refusal);
        assert!((0..6).all(|place| world.log.left(place, "agree") == 0));
        world.assert_silent(0..6);
        world.assert_nothing_published();
    }
}

#[test]
fn shares_that_are_not_one_for_each_other_device_are_turned_away() {
    type Change = fn(&mut Vec<SealedShare>);
    let changes: [Change; 5] = [
        |shares| drop(shares.pop()),
        |shares| shares.push(shares[0].clone()),
        |shares| shares[0].to = shares[1].to,
        |shares| shares[0].to = 9,
        |shares| shares[0].from = 4,
    ];
    let mut world = World::new(&plan(6, 4), 6);
    let mut turned_away = 0;
    world.run(|post| {
        if let Request::ShareKeys { session, shares } = &post.request
            && post.from == 3
            && turned_away == 0
        {
            for change in changes {
                let mut shares = shares.clone();
                change(&mut shares);
                let request = Request::ShareKeys { session: *session, shares };
                let rejection = post.coordinator.serve(3, &request).unwrap_err();
                assert!(
                    matches!(&rejection, Rejection::Unacceptable { request, .. } if request == "share keys")
                );
                turned_away += 1;
            }
        }
        post.pass()
    });
    assert_eq!(turned_away, 5);
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}
