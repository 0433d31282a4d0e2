//! Inputs that come late or in part.

use aggregation::{EvidenceError, Refusal, Signature};
use proto::adapter::Module;
use proto::ids::{DeviceId, Digest};
use proto::message::{CHUNK_COORDINATES, Rejection, Reply, Request, input_digest};
use session::Ended;
use task::TaskEffect;

use super::hand::{Gathered, wait};
use super::setting::{id, plan, set};
use super::world::World;

/// Whom the coordinator charged for the first round.
fn charged(world: &World) -> Vec<DeviceId> {
    let devices = |effect: &TaskEffect| match effect {
        TaskEffect::Charge { round: 1, devices } => devices.iter().map(|(device, _)| *device).collect(),
        TaskEffect::Charge { .. }
        | TaskEffect::FixSurvivors { .. }
        | TaskEffect::Excluded { .. }
        | TaskEffect::Gathered { .. }
        | TaskEffect::Commit { .. }
        | TaskEffect::Aborted { .. }
        | TaskEffect::Paused { .. }
        | TaskEffect::End(_) => Vec::new(),
    };
    world.coordinator.effects.iter().flat_map(devices).collect()
}

#[test]
fn an_input_that_comes_after_its_device_was_called_missing_is_left_out() {
    for held in ["masked chunk", "masked done"] {
        let mut world = World::new(&plan(6, 4), 6);
        let mut fixed = false;
        world.run(|post| {
            if post.from == 5 && post.is(held) && !fixed {
                return wait();
            }
            let answer = post.pass();
            fixed |= matches!(answer, Some(Ok(Reply::Survivors(_))));
            answer
        });
        assert!(matches!(world.ended(5), Ended::Rejected(Rejection::LeftOut)), "{:?}", world.ended(5));
        world.assert_silent([5]);
        world.assert_sum_of(&[0, 1, 2, 3, 4]);
        // With its masked input in hand, what is missing to read it is the seed of its own mask.
        let entry = world.nodes[0].roster[5].clone();
        assert!(!world.log.opens(&entry));
        assert!(world.log.opens(&world.nodes[0].roster[4]));
    }
}

#[test]
fn a_late_device_that_is_told_that_it_survived_does_not_answer() {
    let mut world = World::new(&plan(6, 4), 6);
    let mut gathered = Gathered::default();
    let mut fixed = false;
    world.run(|post| {
        gathered.keep(post);
        if post.from == 5 && post.is("masked done") {
            return if fixed { Some(Ok(Reply::Survivors(set(6, &[0, 1, 2, 3, 4, 5])))) } else { wait() };
        }
        if post.from == 5 && post.is("agree") {
            // What the others signed is the only quorum that there is.
            return if gathered.signatures.len() == 6 {
                Some(Ok(gathered.evidence(&set(6, &[0, 1, 2, 3, 4, 5]), &[0, 1, 2, 3])))
            } else {
                wait()
            };
        }
        let answer = post.pass();
        fixed |= matches!(answer, Some(Ok(Reply::Survivors(_))));
        answer
    });
    assert_eq!(world.refusal(5), Refusal::Evidence(EvidenceError::Transcript { index: 0.into() }));
    world.assert_silent([5]);
    world.assert_sum_of(&[0, 1, 2, 3, 4]);
}

#[test]
fn an_input_that_came_in_part_is_not_in_the_sum_and_is_charged() {
    let mut plan = plan(6, 4);
    let outputs = u32::try_from(CHUNK_COORDINATES + 100).unwrap();
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 3, outputs }];
    let plan = plan.with_recommended_scale().unwrap();
    let mut world = World::new(&plan, 6);
    let mut early = None;
    world.run(|post| {
        let Request::MaskedChunk { session, offset, packed } = &post.request else { return post.pass() };
        if post.from != 5 {
            return post.pass();
        }
        if *offset > 0 {
            return None;
        }
        // It says that it is done after its first chunk, with the hash of what it sent.
        let digest = input_digest(&[Digest::of(packed)]);
        let done = Request::MaskedDone { session: *session, digest, sharing: Signature([0; 64]) };
        let answer = post.pass();
        early = Some(post.coordinator.serve(5, &done).unwrap_err());
        answer
    });
    assert!(
        matches!(&early, Some(Rejection::Unacceptable { request, .. }) if request == "masked done"),
        "{early:?}"
    );
    assert_eq!(world.coordinator.fixed(1), [vec![0, 1, 2, 3, 4]]);
    assert_eq!(charged(&world), (0..6).map(id).collect::<Vec<_>>());
    world.assert_silent([5]);
    world.assert_sum_of(&[0, 1, 2, 3, 4]);
}
