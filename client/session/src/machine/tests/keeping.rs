//! Which versions a device keeps for its user.

use super::*;

fn fresh() -> Session {
    session(Policy::default(), Spending::new())
}

#[test]
fn nobody_keeps_a_version_of_which_nothing_was_learned_or_that_is_older_than_theirs() {
    let plan = Plan::example();
    let of = |version| Published { version, ..published(&plan) };
    let offered = |held: Vec<Published>, latest: Vec<Published>| {
        let mut session = fresh();
        session.installed = held.into_iter().map(|held| (held.task, held)).collect();
        let wait = Reply::Wait { retry: Window::at(HOUR), latest, complete: true };
        tell(tell(session, Event::Woke), Event::Replied(wait))
    };
    let asks_for = |session: &Session| {
        if let Action::LoadPlan(published) = session.action() { Some(published.version) } else { None }
    };
    assert_eq!(asks_for(&offered(vec![], vec![of(0)])), None);
    assert_eq!(asks_for(&offered(vec![], vec![of(2)])), Some(2));
    assert_eq!(asks_for(&offered(vec![of(2)], vec![of(2)])), None);
    // As of a coordinator that was restored from a backup.
    assert_eq!(asks_for(&offered(vec![of(2)], vec![of(1)])), None);
    assert_eq!(asks_for(&offered(vec![of(2)], vec![of(3)])), Some(3));

    // Whoever trains from version 0 has nothing to install.
    let session = given_plan(fresh(), &plan, of(0), 0);
    let session =
        tell(session, Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None });
    assert!(matches!(session.action(), Action::Train(_)), "{session:?}");
    assert_eq!(session.installed(TASK), None);
}

#[test]
fn what_came_of_several_tasks_is_kept_one_after_another() {
    let plan = Plan::example();
    let other = Published { task: TaskId([8; 16]), ..published(&plan) };
    let latest = vec![other, published(&plan)];
    let wait =
        || Event::Replied(Reply::Wait { retry: Window::at(HOUR), latest: latest.clone(), complete: true });
    let mut session = fresh();
    for (kept, sleeps_for) in [(other.task, LEAST_WAIT_MILLIS), (TASK, HOUR)] {
        session = tell(tell(session, Event::Woke), wait());
        session = tell(session, Event::PlanLoaded(plan.to_bytes().unwrap()));
        session = tell(
            session,
            Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None },
        );
        assert!(matches!(session.action(), Action::Install(_)), "{session:?}");
        session = tell(session, Event::Recorded);
        assert!(session.installed(kept).is_some());
        assert_eq!(sleeps(&session), sleeps_for);
        session = tell(session, Event::ClockStepped);
    }
    assert!(session.is_complete() || matches!(session.action(), Action::Send(Request::CheckIn(_))));
}
