//! Two models in one round: what a device trained from is in everything that it signs.

use aggregation::{AdvertisementError, Refusal};
use proto::ids::Digest;
use proto::message::{Published, Rejection, Reply};
use proto::plan::{Plan, vector_to_bytes};
use session::Ended;

use super::hand::{Answer, Gathered, Post, honest, unlisted, wait};
use super::setting::plan;
use super::world::World;

/// The round as an honest coordinator plays it, in which device 3 is told of another version.
fn tell_of(post: &mut Post<'_>, other: Published) -> Answer {
    let mut answer = post.pass();
    if let Some(Ok(Reply::Assignment(assignment))) = &mut answer
        && post.from == 3
    {
        assignment.published = other;
    }
    answer
}

/// Another adapter, and another plan, that can be fetched; none of them is what the others have.
fn others(world: &mut World, plan: &Plan) -> [Published; 2] {
    let published = world.coordinator.task.published();
    let adapter = vector_to_bytes(&[0.5; 16]);
    let mut gentler = plan.clone();
    gentler.training.learning_rate /= 2.0;
    let gentler = gentler.to_bytes().unwrap();
    let told = [
        Published { adapter: Digest::of(&adapter), ..published },
        Published { plan: Digest::of(&gentler), ..published },
    ];
    for bytes in [adapter, gentler] {
        world.coordinator.artifacts.insert(Digest::of(&bytes), bytes);
    }
    told
}

#[test]
fn a_device_with_another_model_or_plan_is_turned_away_by_an_honest_coordinator() {
    let plan = plan(6, 4);
    for which in 0..2 {
        let mut world = World::new(&plan, 6);
        let other = others(&mut world, &plan)[which];
        world.run(|post| tell_of(post, other));
        let ended = world.ended(3);
        assert!(
            matches!(ended, Ended::Rejected(Rejection::Unacceptable { request, .. }) if request == "advertise"),
            "{ended:?}"
        );
        world.assert_silent([3]);
        world.assert_sum_of(&[0, 1, 2, 4, 5]);
    }
}

#[test]
fn devices_with_two_models_or_plans_refuse_each_other() {
    // A coordinator that lies puts them into one roster all the same.
    let plan = plan(6, 4);
    for which in 0..2 {
        let mut world = World::new(&plan, 6);
        let other = others(&mut world, &plan)[which];
        let mut gathered = Gathered::default();
        world.run(|post| {
            gathered.keep(post);
            match (post.is("advertise"), gathered.entries.len()) {
                (true, 6) => Some(Ok(unlisted(gathered.roster()))),
                (true, _) => wait(),
                (false, _) => tell_of(post, other),
            }
        });
        for place in [0, 1, 2, 4, 5] {
            let source = AdvertisementError::Signature;
            assert_eq!(world.refusal(place), Refusal::Advertisement { index: 3.into(), source });
        }
        let source = AdvertisementError::Signature;
        assert_eq!(world.refusal(3), Refusal::Advertisement { index: 0.into(), source });
        assert!((0..6).all(|place| world.log.left(place, "share keys") == 0));
    }
}

#[test]
fn bytes_that_are_not_what_was_published_are_not_trained_from() {
    for adapter in [true, false] {
        let mut world = World::new(&plan(6, 4), 6);
        let published = world.coordinator.task.published();
        let digest = if adapter { published.adapter } else { published.plan };
        world.coordinator.artifacts.get_mut(&digest).unwrap()[20] ^= 1;
        world.run(honest);
        for place in 0..6 {
            let wanted = if adapter { "adapter" } else { "plan" };
            let ended = world.ended(place);
            assert!(matches!(ended, Ended::WrongArtifact(what) if *what == wanted), "{ended:?}");
            assert_eq!(world.log.left(place, "join"), 0);
        }
    }
}
