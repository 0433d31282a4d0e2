//! Windows to train in, and those in which a device asks again.

use super::*;

/// A device that holds the version and has been told that it may train from it.
fn assigned(session: Session, plan: &Plan) -> Session {
    let session = given_plan(session, plan, published(plan), 0);
    assert!(matches!(session.action(), Action::Load { trains: true, .. }));
    session
}

#[test]
fn without_a_window_a_version_is_fetched_for_the_user_and_not_trained() {
    let plan = Plan::example();
    let session = tell(assigned(session(Policy::default(), Spending::new()), &plan), Event::NoWindow);
    assert!(matches!(session.action(), Action::Load { trains: false, .. }));
    let session =
        tell(session, Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None });
    let session = tell(session, Event::Recorded);
    assert_eq!(session.installed(TASK), Some(published(&plan)));
    let session = leaves_its_place(session);
    // It holds the version: the next time it loads nothing until there is a window.
    let session = assigned(tell(session, Event::WindowOpened), &plan);
    let session = leaves_its_place(tell(session, Event::NoWindow));
    // Nothing but the opening of a window makes it ask for work.
    let session = woken_at(session, outside::AWAITED_MILLIS);
    let session = leaves_its_place(session);
    // One that gives it work all the same does not make it hurry.
    let session = assigned(woken_at(session, outside::AWAITED_MILLIS), &plan);
    let session = tell(session, Event::NoWindow);
    assert_eq!((session.state(), sleeps(&session)), (SessionState::AwaitingWindow, outside::AWAITED_MILLIS));
    let session = assigned(tell(session, Event::WindowOpened), &plan);
    let session =
        tell(session, Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None });
    assert!(matches!(session.action(), Action::Train(_)));
    // A window that closes meanwhile is no failure, and the user may be gone again soon: its place is kept.
    let mut session = tell(session, Event::NoWindow);
    assert_eq!((session.state(), sleeps(&session)), (SessionState::AwaitingWindow, outside::AWAITED_MILLIS));
    assert!(session.take_ended().is_none());
    let session = assigned(tell(session, Event::WindowOpened), &plan);
    assert!(matches!(session.action(), Action::Load { trains: true, .. }));
}

fn woken_at(session: Session, millis: u64) -> Session {
    session.handle(Event::Woke, NOW.plus_millis(millis), &mut ChaCha20Rng::seed_from_u64(1))
}

/// Tells the coordinator that it does not train now, so that another device may, and waits for a window.
fn leaves_its_place(session: Session) -> Session {
    let Action::Send(Request::CheckIn(asks)) = session.action() else { panic!("{session:?}") };
    assert!(asks.only_keeps);
    let session = tell(session, Event::Replied(Reply::wait(1_000)));
    assert_eq!((session.state(), sleeps(&session)), (SessionState::AwaitingWindow, outside::AWAITED_MILLIS));
    session
}

#[test]
fn a_device_says_what_it_declined_as_long_as_it_would_decline_it() {
    let policy = Policy { least_noise_multiplier: 5.0, ..Policy::default() };
    let session = loaded(session(policy, Spending::new()), &Plan::example(), 1.0);
    let session = woken_at(tell(session, Event::Replied(Reply::Received)), 2_000);
    let declined = |session: &Session| {
        let Action::Send(Request::CheckIn(asks)) = session.action() else { panic!("{session:?}") };
        asks.declined
    };
    assert_eq!(declined(&session), [TASK]);
    let session = tell(session, Event::Replied(Reply::wait(1_000)));
    assert_eq!(declined(&woken_at(session, 5 * HOUR)), []);
}

#[test]
fn who_was_not_heard_asks_again_within_the_window_that_it_was_told() {
    let told = Window { least_millis: HOUR / 4, most_millis: HOUR / 2 };
    let mut pauses: Vec<u64> = (0..200)
        .map(|seed| {
            let rng = &mut ChaCha20Rng::seed_from_u64(seed);
            let reply = Reply::Wait { retry: told, latest: Vec::new(), complete: false };
            let session = tell(session(Policy::default(), Spending::new()), Event::Woke);
            let session = session.handle(Event::Replied(reply), NOW, rng);
            let later = NOW.plus_millis(sleeps(&session));
            assert!((told.least_millis..=told.most_millis).contains(&sleeps(&session)));
            let session = session.handle(Event::Woke, later, rng).handle(Event::Unreachable, later, rng);
            let Action::Sleep(until) = session.action() else { panic!("{session:?}") };
            until.millis_since(later)
        })
        .collect();
    pauses.sort_unstable();
    assert!(pauses[199] <= told.most_millis && pauses[199] > told.most_millis * 9 / 10);
    // As many in each quarter of it.
    for quarter in 0..4 {
        let within = |millis: &&u64| **millis * 4 / told.most_millis == quarter;
        let devices = pauses.iter().filter(within).count();
        assert!((30..=70).contains(&devices), "{devices}");
    }
}

#[test]
fn a_window_that_opens_wakes_only_a_device_that_waits_for_one() {
    let session = tell(session(Policy::default(), Spending::new()), Event::Woke);
    let session = tell(
        session,
        Event::Replied(Reply::Wait { retry: Window::at(HOUR), latest: Vec::new(), complete: false }),
    );
    assert_eq!(sleeps(&session), HOUR);
    let session = tell(session, Event::WindowOpened);
    assert_eq!(sleeps(&session), HOUR);
    let session = tell(session, Event::ClockStepped);
    assert!(matches!(session.action(), Action::Send(Request::CheckIn(_))));
}
