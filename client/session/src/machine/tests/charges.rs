//! What the coordinator's books say of a device, and its own do not.

use super::*;

#[test]
fn charges_that_only_the_coordinator_knows_are_recorded_before_the_policy_is_asked() {
    let (plan, policy) = (Plan::example(), Policy { participations: 3, ..Policy::default() });
    let checked_in = |own, charged| {
        given_plan(session(policy.clone(), spent(&plan, own)), &plan, published(&plan), charged)
    };
    let session = checked_in(1, 3);
    let Action::RecordFound(found) = session.action() else { panic!("{session:?}") };
    let (plan_digest, cost) = (published(&plan).plan, plan.participation_cost());
    assert_eq!(found, Found { task: TASK, times: 2, plan: plan_digest, cost, delta: plan.privacy.delta });
    // It took part three times in all, and keeps the version, but trains no more.
    let session = tell(session, Event::Recorded);
    assert_eq!(session.spending.participations(TASK), 3);
    let session = tell(session, Event::PlanLoaded(plan.to_bytes().unwrap()));
    assert!(matches!(session.action(), Action::Load { .. }), "{session:?}");
    let loaded = Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None };
    let session = tell(tell(session, loaded), Event::Recorded);
    assert_eq!(declines(&session), Some(DeclineReason::Participations));
    // A coordinator that lies adds no more than the plan allows anybody.
    let Action::RecordFound(found) = checked_in(1, u32::MAX).action() else { panic!() };
    assert_eq!(found.times, plan.privacy.participations - 1);
    // A device is charged before its input leaves: it may know of more.
    for charged in [0, 1, 2] {
        assert!(matches!(checked_in(2, charged).action(), Action::Load { .. }), "{charged}");
    }
}

#[test]
fn charges_of_other_tasks_are_recorded_too_before_anything_is_spent_on_this_one() {
    let (plan, other) = (Plan::example(), Plan { name: "another".into(), ..Plan::example() });
    let policy = Policy { participations_in_total: Some(4), ..Policy::default() };
    let elsewhere = |task| Published { task: TaskId([task; 16]), ..published(&other) };
    let charged = |task, rounds| Charged { published: elsewhere(task), rounds };
    let assigned = |own, charges| {
        let session = tell(session(policy.clone(), spent(&plan, own)), Event::Woke);
        let assignment = Assignment { published: published(&plan), before: None, charges };
        tell(session, Event::Replied(Reply::Assignment(assignment)))
    };
    let plan_of = |plan: &Plan| Event::PlanLoaded(plan.to_bytes().unwrap());
    // Three rounds in two tasks that its ledger does not have, one after the other, at what their plan says.
    let mut session = assigned(1, vec![charged(8, 2), charged(7, 1)]);
    for (task, times) in [(8, 2), (7, 1)] {
        assert_eq!(session.at_work_on(), Some(published(&plan)));
        assert!(matches!(session.action(), Action::LoadPlan(version) if version == elsewhere(task)));
        session = tell(session, plan_of(&other));
        let Action::RecordFound(found) = session.action() else { panic!("{session:?}") };
        assert_eq!((found.task, found.times), (TaskId([task; 16]), times));
        assert_eq!(found.cost, other.participation_cost());
        session = tell(session, Event::Recorded);
    }
    let session = tell(session, plan_of(&plan));
    let session =
        tell(session, Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None });
    let session = tell(session, Event::Recorded);
    assert_eq!(declines(&session), Some(DeclineReason::Participations), "four are spent in all");
    // Without them it would have gone on.
    assert!(matches!(tell(assigned(1, vec![]), plan_of(&plan)).action(), Action::Load { trains: true, .. }));

    // What they cost is not known where the plan is another one, or not to be had: then nothing is spent.
    let mut lied = tell(assigned(1, vec![charged(8, 2)]), plan_of(&plan));
    assert!(matches!(lied.take_ended(), Some(Ended::WrongArtifact("plan"))));
    assert_eq!(sleeps(&lied), HOUR / 4);
    let mut gone = tell(assigned(1, vec![charged(8, 2)]), Event::Rejected(Rejection::UnknownArtifact));
    assert!(matches!(gone.take_ended(), Some(Ended::Rejected(Rejection::UnknownArtifact))));
    assert_eq!(sleeps(&gone), HOUR / 4);
    // A number that no plan allows is no more than what it allows, and is not asked for again and again.
    let most = other.privacy.participations;
    let session = tell(assigned(0, vec![charged(8, u32::MAX)]), plan_of(&other));
    let Action::RecordFound(found) = session.action() else { panic!("{session:?}") };
    assert_eq!(found.times, most);
    let session = tell(session, Event::Recorded);
    assert!(matches!(session.action(), Action::LoadPlan(version) if version == published(&plan)));
    // What a coordinator makes up is not kept without end: a device that knows of many tasks takes no part.
    let mut many = spent(&plan, 1);
    let cost = other.participation_cost();
    for task in 1..1024_u32 {
        let (mut id, cost) = ([0; 16], cost.clone());
        id[..4].copy_from_slice(&task.to_be_bytes());
        let found = Found { task: TaskId(id), times: u32::MAX, plan: Digest([1; 32]), cost, delta: 1e-5 };
        many.add_found(&found, Timestamp(1));
    }
    let session = tell(self::session(policy.clone(), many), Event::Woke);
    let charges = vec![charged(8, 1)];
    let assignment = Assignment { published: published(&plan), before: None, charges };
    let mut session = tell(session, Event::Replied(Reply::Assignment(assignment)));
    assert!(matches!(session.take_ended(), Some(Ended::TooManyTasks)));
    assert_eq!(sleeps(&session), 4 * HOUR);
}
