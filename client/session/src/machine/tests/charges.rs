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

/// Why there is no plan of a charged task, as it comes: bytes of another, none, and no answer until it is given up.
fn without_a_plan(session: Session, way: usize, now: Timestamp) -> (Session, Timestamp) {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    match way {
        0 => (session.handle(Event::PlanLoaded(b"{}".to_vec()), now, rng), now),
        1 => (session.handle(Event::Rejected(Rejection::UnknownArtifact), now, rng), now),
        _ => {
            let (mut session, mut now) = (session, now);
            for _ in 0..20 {
                if !matches!(session.action(), Action::LoadPlan(_)) {
                    break;
                }
                let event = if way == 2 {
                    Event::Unreachable
                } else {
                    Event::Rejected(Rejection::Unavailable("its disk is full".to_owned()))
                };
                session = session.handle(event, now, rng);
                let Action::Sleep(until) = session.action() else { panic!("{session:?}") };
                now = until;
                session = session.handle(Event::Woke, now, rng);
            }
            (session, now)
        }
    }
}

/// Gives a session that asks for work this version and these charges.
fn charges_at(session: Session, published: Published, charges: Vec<Charged>, now: Timestamp) -> Session {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let assignment = Assignment { published, before: None, charges };
    let session = session.handle(Event::Woke, now, rng);
    session.handle(Event::Replied(Reply::Assignment(assignment)), now, rng)
}

fn elsewhere(plan: &Plan) -> Charged {
    Charged { published: Published { task: TaskId([8; 16]), ..published(plan) }, rounds: 2 }
}

#[test]
fn a_charge_that_cannot_be_counted_is_in_the_way_of_no_other_task_and_is_looked_at_again() {
    let (plan, other) = (Plan::example(), Plan { name: "another".into(), ..Plan::example() });
    for way in 0..4 {
        let session = session(Policy::default(), spent(&plan, 1));
        let session = charges_at(session, published(&plan), vec![elsewhere(&other)], NOW);
        assert!(matches!(session.action(), Action::LoadPlan(of) if of == elsewhere(&other).published));
        let (mut session, now) = without_a_plan(session, way, NOW);
        assert!(now <= NOW.plus_millis(5 * 60_000), "{way}: it is given up within minutes");
        let ended = session.take_ended();
        assert!(matches!(ended, Some(Ended::Uncounted { withheld: Withheld::Nothing, .. })), "{ended:?}");
        if way > 1 {
            // It asks anew, because what it was given may be old by now.
            assert!(matches!(session.action(), Action::Send(Request::CheckIn(_))), "{way}: {session:?}");
            session = charges_at(session, published(&plan), vec![elsewhere(&other)], now);
        }
        assert!(matches!(session.action(), Action::LoadPlan(of) if of == published(&plan)), "{way}");
        assert_eq!(session.spending.participations(elsewhere(&other).published.task), 0);
        // A quarter of an hour later its plan is there again, and it is counted.
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let later = now.plus_millis(HOUR / 4);
        let session = session.handle(Event::Rejected(Rejection::UnknownArtifact), now, rng);
        let session = charges_at(session, published(&plan), vec![elsewhere(&other)], later);
        assert!(matches!(session.action(), Action::LoadPlan(of) if of == elsewhere(&other).published));
        let session = session.handle(Event::PlanLoaded(other.to_bytes().unwrap()), later, rng);
        assert!(matches!(session.action(), Action::RecordFound(found) if found.times == 2), "{way}");
    }
}

#[test]
fn a_task_whose_own_charge_cannot_be_counted_is_declined_and_others_go_on() {
    let plan = Plan::example();
    let charged = vec![Charged { published: published(&plan), rounds: 3 }];
    let session = charges_at(session(Policy::default(), spent(&plan, 1)), published(&plan), charged, NOW);
    let session = tell(session, Event::Rejected(Rejection::UnknownArtifact));
    assert_eq!(declines(&session), Some(DeclineReason::Plan));
    let mut session = tell(session, Event::Replied(Reply::Received));
    let why = session.take_ended().unwrap().to_string();
    assert!(why.contains(&TASK.to_string()) && why.contains("nothing is trained of this task"), "{why}");
    assert_eq!(sleeps(&session), 2_000);
    let next = Published { task: TaskId([8; 16]), ..published(&plan) };
    let session = charges_at(session, next, Vec::new(), NOW.plus_millis(2_000));
    assert!(matches!(session.action(), Action::LoadPlan(of) if of == next), "{session:?}");
}

#[test]
fn where_all_tasks_together_have_a_limit_nothing_is_spent_before_every_charge_is_counted() {
    let (plan, other) = (Plan::example(), Plan { name: "another".into(), ..Plan::example() });
    for policy in [
        Policy { participations_in_total: Some(4), ..Policy::default() },
        Policy { largest_epsilon_in_total: Some(8.0), ..Policy::default() },
    ] {
        let session = session(policy, spent(&plan, 1));
        let session = charges_at(session, published(&plan), vec![elsewhere(&other)], NOW);
        let mut session = tell(session, Event::Rejected(Rejection::UnknownArtifact));
        let why = session.take_ended().unwrap().to_string();
        assert!(why.contains("your limits on all tasks together cannot be kept so"), "{why}");
        assert_eq!(sleeps(&session), HOUR / 4);
        let session =
            charges_at(session, published(&plan), vec![elsewhere(&other)], NOW.plus_millis(HOUR / 4));
        assert!(matches!(session.action(), Action::LoadPlan(of) if of == elsewhere(&other).published));
    }
}

#[test]
fn who_is_not_known_any_more_while_charges_are_counted_waits_as_who_is_not_known() {
    let (plan, other) = (Plan::example(), Plan { name: "another".into(), ..Plan::example() });
    let session = session(Policy::default(), spent(&plan, 1));
    let session = charges_at(session, published(&plan), vec![elsewhere(&other)], NOW);
    let mut session = tell(session, Event::Rejected(Rejection::NotEnrolled));
    assert!(matches!(session.take_ended(), Some(Ended::Rejected(Rejection::NotEnrolled))));
    assert_eq!(sleeps(&session), 4 * HOUR);
}
