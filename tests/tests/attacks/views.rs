//! Two stories about who survived: who is told what in the steps of consistency and unmasking.

use aggregation::{Evidence, EvidenceError, IndexSet, Refusal, Signature};
use prost::Message;
use proto::convert::{reply_from_wire, reply_to_wire};
use proto::message::{Outcome, Rejection, Reply, Request};
use proto::wire;
use session::Ended;

use super::hand::{Answer, Gathered, Post, unlisted, wait};
use super::setting::{identity, plan, set};
use super::world::World;

/// Tells each device a set of its own, and gives nobody a quorum before all have signed.
fn split(
    world: &mut World,
    told: impl Fn(usize) -> IndexSet,
    quorum: impl Fn(&Gathered, usize) -> Reply,
) -> Gathered {
    let devices = world.nodes.len();
    let mut gathered = Gathered::default();
    world.run(|post| {
        gathered.keep(post);
        if !post.is("agree") {
            return survivors(post, &told);
        }
        if gathered.signatures.len() < devices { wait() } else { Some(Ok(quorum(&gathered, post.from))) }
    });
    gathered
}

/// Passes a request on, and puts other survivors into the answer.
fn survivors(post: &mut Post<'_>, told: impl Fn(usize) -> IndexSet) -> Answer {
    match post.pass() {
        Some(Ok(Reply::Survivors(_))) => Some(Ok(Reply::Survivors(told(post.from)))),
        other => other,
    }
}

#[test]
fn two_views_of_the_survivors_have_no_quorum_between_them() {
    let views = [set(6, &[0, 1, 2, 3, 4, 5]), set(6, &[1, 2, 3, 4, 5])];
    let told = |place: usize| views[place / 3].clone();
    // With the signatures of one side there are too few, with those of the other side they do not hold.
    let mut world = World::new(&plan(6, 4), 6);
    split(&mut world, told, |gathered, place| {
        gathered.evidence(&told(place), if place < 3 { &[0, 1, 2] } else { &[3, 4, 5] })
    });
    for place in 0..6 {
        assert_eq!(world.refusal(place), Refusal::Evidence(EvidenceError::TooFew { got: 3, need: 4 }));
    }
    world.assert_silent(0..6);
    let mut world = World::new(&plan(6, 4), 6);
    split(&mut world, told, |gathered, place| gathered.evidence(&told(place), &[0, 1, 2, 3, 4, 5]));
    for place in 0..6 {
        let index = if place < 3 { 3 } else { 0 };
        let refusal = if place < 3 {
            EvidenceError::Transcript { index: index.into() }
        } else {
            EvidenceError::NotASurvivor { index: index.into() }
        };
        assert_eq!(world.refusal(place), Refusal::Evidence(refusal));
    }
    world.assert_silent(0..6);
    world.assert_nothing_published();
}

#[test]
fn of_two_views_at_most_one_is_opened() {
    let views = [set(7, &[0, 1, 2, 3, 4, 5, 6]), set(7, &[1, 2, 3, 4, 5, 6])];
    let mut world = World::new(&plan(7, 4), 7);
    // Four are a quorum of seven, so the first view can be opened; then the other one never.
    let told = |place: usize| views[place / 4].clone();
    split(&mut world, told, |gathered, place| {
        gathered.evidence(&told(place), if place < 4 { &[0, 1, 2, 3] } else { &[4, 5, 6] })
    });
    for place in 0..4 {
        assert_eq!(world.log.left(place, "unmask"), 1);
    }
    for place in 4..7 {
        assert_eq!(world.refusal(place), Refusal::Evidence(EvidenceError::TooFew { got: 3, need: 4 }));
    }
    world.assert_silent(4..7);
}

#[test]
fn a_signature_on_another_view_is_turned_away_by_an_honest_coordinator() {
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        survivors(post, |place| set(6, if place == 2 { &[1, 2, 3, 4, 5] } else { &[0, 1, 2, 3, 4, 5] }))
    });
    let Ended::Rejected(Rejection::Unacceptable { request, .. }) = world.ended(2) else {
        panic!("{:?}", world.ended(2));
    };
    assert_eq!(request, "agree");
    world.assert_silent([2]);
    // The others go on, and its input is in the sum that they open.
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_device_that_is_listed_missing_refuses() {
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        survivors(post, |place| set(6, if place == 2 { &[0, 1, 3, 4, 5] } else { &[0, 1, 2, 3, 4, 5] }))
    });
    assert_eq!(world.refusal(2), Refusal::ListedMissing);
    assert_eq!(world.log.left(2, "agree"), 0);
    world.assert_silent([2]);
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

#[test]
fn no_message_says_alive_and_missing_of_one_device() {
    // A set of places is a bitmap: two of them in one message leave the later one.
    let (all, fewer) = (set(6, &[0, 1, 2, 3, 4, 5]), set(6, &[0, 1, 2, 4, 5]));
    let mut bytes = reply_to_wire(Reply::Survivors(all)).encode_to_vec();
    bytes.extend(reply_to_wire(Reply::Survivors(fewer.clone())).encode_to_vec());
    let read = reply_from_wire(wire::Reply::decode(bytes.as_slice()).unwrap()).unwrap();
    let Reply::Survivors(read) = read else { panic!("{read:?}") };
    assert_eq!(read, fewer);
}

#[test]
fn a_second_set_of_survivors_for_one_device_gives_nothing() {
    // Device 3 is alive in what the others sign first, and missing in what they are told then.
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| {
        if post.is("agree") { Some(Ok(Reply::Survivors(set(6, &[0, 1, 2, 4, 5])))) } else { post.pass() }
    });
    for place in 0..6 {
        let ended = world.ended(place);
        assert!(matches!(ended, Ended::WrongReply { request: "agree", reply: "survivors" }), "{ended:?}");
    }
    world.assert_silent(0..6);
    assert_eq!(world.coordinator.aborted(), [Outcome::NoQuorum]);
}

#[test]
fn a_quorum_on_another_set_than_the_device_signed_gives_nothing() {
    // All but device 2 sign a set without device 3; it is shown their signatures.
    let mut world = World::new(&plan(6, 4), 6);
    let told = |place| set(6, if place == 2 || place == 3 { &[0, 1, 2, 3, 4, 5] } else { &[0, 1, 2, 4, 5] });
    let gathered = {
        let mut gathered = Gathered::default();
        world.run(|post| {
            gathered.keep(post);
            match (post.is("agree"), post.from) {
                // Device 3 is told that it survived, and signs that; its signature is not used.
                (_, 3) if post.is("masked done") => post.pass(),
                (true, _) if gathered.signatures.len() < 6 => wait(),
                (true, _) => Some(Ok(gathered.evidence(&told(post.from), &[0, 1, 4, 5]))),
                (false, _) => survivors(post, told),
            }
        });
        gathered
    };
    assert_eq!(gathered.signatures.len(), 6);
    for place in [2, 3] {
        let refusal = Refusal::Evidence(EvidenceError::Transcript { index: 0.into() });
        assert_eq!(world.refusal(place), refusal);
    }
    world.assert_silent([2, 3]);
}

#[test]
fn survivors_that_are_unknown_never_shared_or_too_few_are_refused() {
    // Device 5 never shares its seeds, so it cannot have survived; place 6 does not exist.
    let cases = [
        (set(6, &[0, 1, 2, 3, 4, 5]), Refusal::UnknownSurvivor { index: 5.into() }),
        (set(7, &[0, 1, 2, 3, 6]), Refusal::Places { got: 7, expected: 6 }),
        (set(5, &[0, 1, 2, 3, 4]), Refusal::Places { got: 5, expected: 6 }),
        (set(6, &[0, 1, 2]), Refusal::FewSurvivors { got: 3, need: 4 }),
    ];
    for (told, refusal) in cases {
        let mut world = World::new(&plan(6, 4), 6);
        world.run(|post| {
            if post.from == 5 && post.is("share keys") {
                return None;
            }
            survivors(post, |_| told.clone())
        });
        for place in 0..3 {
            assert_eq!(world.refusal(place), refusal);
        }
        assert_eq!((0..6).map(|place| world.log.left(place, "agree")).sum::<usize>(), 0);
        world.assert_silent(0..6);
        world.assert_nothing_published();
    }
}

#[test]
fn survivors_below_the_report_goal_are_not_opened() {
    // Threshold and quorum of six are four; the report goal is five.
    let mut world = World::new(&plan(6, 5), 6);
    world.run(|post| survivors(post, |_| set(6, &[0, 1, 2, 3])));
    for place in 0..4 {
        assert_eq!(world.refusal(place), Refusal::FewSurvivors { got: 4, need: 5 });
    }
    world.assert_silent(0..6);
    // An honest coordinator does not even ask.
    let mut world = World::new(&plan(6, 5), 6);
    world.run(|post| if post.from > 3 && post.is("masked chunk") { None } else { post.pass() });
    assert_eq!(world.coordinator.aborted()[0], Outcome::TooFewSurvivors);
    assert_eq!(world.coordinator.fixed(1), Vec::<Vec<usize>>::new());
    assert!((0..6).all(|place| world.log.left(place, "agree") == 0));
    world.assert_nothing_published();
}

#[test]
fn evidence_that_is_not_of_every_survivor_or_of_no_quorum_is_refused() {
    type Change = fn(&mut Evidence, Signature);
    let cases: [(Change, EvidenceError); 9] = [
        (|evidence, _| evidence.agreed = IndexSet::full(7), EvidenceError::Places { got: 7, expected: 6 }),
        (|evidence, _| evidence.agreed = set(6, &[0, 1, 2]), EvidenceError::TooFew { got: 3, need: 4 }),
        (
            |evidence, _| evidence.signatures.truncate(5),
            EvidenceError::NotEverySurvivor { got: 5, survivors: 6 },
        ),
        (
            |evidence, sharing| evidence.signatures.push(sharing),
            EvidenceError::NotEverySurvivor { got: 7, survivors: 6 },
        ),
        (|evidence, _| evidence.signatures[1].0[9] ^= 1, EvidenceError::Transcript { index: 1.into() }),
        (
            |evidence, _| evidence.signatures[1] = evidence.signatures[0],
            EvidenceError::Transcript { index: 1.into() },
        ),
        // A signature of one kind is none of the other.
        (
            |evidence, _| evidence.agreed = set(6, &[0, 1, 2, 3, 4]),
            EvidenceError::Sharing { index: 5.into() },
        ),
        (|evidence, sharing| evidence.signatures[5] = sharing, EvidenceError::Transcript { index: 5.into() }),
        (
            |evidence, sharing| {
                evidence.agreed.remove(4);
                evidence.signatures[4] = sharing;
            },
            EvidenceError::Sharing { index: 4.into() },
        ),
    ];
    for (change, refusal) in cases {
        let mut world = World::new(&plan(6, 4), 6);
        let mut gathered = Gathered::default();
        world.run(|post| {
            gathered.keep(post);
            let mut answer = post.pass();
            if let Some(Ok(Reply::Evidence(evidence))) = &mut answer {
                change(evidence, gathered.sharing[&5]);
            }
            answer
        });
        for place in 0..6 {
            assert_eq!(world.refusal(place), Refusal::Evidence(refusal));
        }
        world.assert_silent(0..6);
        world.assert_nothing_published();
    }
    // The control: of one survivor the signature over the sharers, as where it vanishes before it signs who survived.
    let mut world = World::new(&plan(6, 4), 6);
    world.run(|post| if post.from == 5 && post.is("agree") { None } else { post.pass() });
    world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_second_request_to_unmask_gets_the_first_answer_or_none() {
    // The same device is shown other evidence, other survivors, or its seeds' shares again, once it has answered.
    let seconds = |evidence: &Reply| {
        [evidence.clone(), Reply::Survivors(set(6, &[0, 1, 2, 4, 5])), unlisted(Vec::new()), Reply::Received]
    };
    for which in 0..4 {
        let mut world = World::new(&plan(6, 4), 6);
        let mut gathered = Gathered::default();
        world.run(|post| {
            gathered.keep(post);
            if post.from == 1 && post.is("unmask") {
                // It differs from the first, and holds.
                let second = gathered.evidence(&IndexSet::full(6), &[1, 2, 3, 4]);
                Some(Ok(seconds(&second)[which].clone()))
            } else {
                post.pass()
            }
        });
        let ended = world.ended(1);
        let Ended::WrongReply { request: "unmask", reply } = ended else { panic!("{ended:?}") };
        assert_eq!(*reply, ["evidence", "survivors", "roster", "received"][which]);
        assert_eq!(world.log.left(1, "unmask"), 1);
        world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_device_that_signs_or_answers_twice_is_turned_away() {
    for name in ["agree", "unmask"] {
        let mut world = World::new(&plan(6, 4), 6);
        let mut second = None;
        world.run(|post| {
            let answer = post.pass();
            if post.from == 0 && post.is(name) && second.is_none() {
                let mut other = post.request.clone();
                if let Request::Agree { signature, .. } = &mut other {
                    *signature = identity(0).sign("other", &[]);
                }
                if let Request::Unmask { shares, .. } = &mut other {
                    shares.self_mask.swap(0, 1);
                }
                second = Some(post.coordinator.serve(0, &other).unwrap_err());
            }
            answer
        });
        assert_eq!(second, Some(Rejection::Equivocation(name.into())));
        world.assert_sum_of(&[0, 1, 2, 3, 4, 5]);
    }
}
