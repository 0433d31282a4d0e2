//! A trainer that fails, and text that is not there.

use super::*;

/// Lets the trainer of a session that trains fail.
fn trainer_fails(session: Session) -> Session {
    assert!(matches!(session.action(), Action::Train(_)), "{session:?}");
    tell(session, Event::TrainerFailed("it was killed by signal 9".to_owned()))
}

#[test]
fn text_that_is_not_there_is_looked_for_again_and_again_and_is_no_failure_of_the_trainer() {
    let plan = Plan::example();
    let load = |session: Session| {
        let adapter = adapter(&plan);
        tell(session, Event::Loaded { adapter, frozen: None, folded: None, before: None })
    };
    let session = loaded(session(Policy::default(), Spending::new()), &plan, 1.0);
    let mut session = tell(session, Event::Recorded);
    let mut now = NOW;
    // More often than a trainer may fail, and each time later, up to a quarter of an hour.
    for secs in [10, 20, 40, 80, 160, 320, 640, 900, 900] {
        assert!(matches!(session.action(), Action::Train(_)), "{session:?}");
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        session = session.handle(Event::NoText("/media/notes is not there".to_owned()), now, rng);
        let ended = session.take_ended().unwrap();
        assert_eq!(ended.to_string(), "waiting for text to train on: /media/notes is not there");
        let Action::Sleep(until) = session.action() else { panic!("{session:?}") };
        assert_eq!(until.millis_since(now), secs * 1000);
        now = until;
        session = load(offered_again(session, &plan, now));
    }
    assert!(matches!(session.action(), Action::Train(_)), "{session:?}");
}

#[test]
fn a_trainer_that_fails_is_tried_again_and_after_three_times_in_a_row_its_task_rests() {
    let plan = Plan::example();
    let session = loaded(session(Policy::default(), Spending::new()), &plan, 1.0);
    let mut session = tell(session, Event::Recorded);
    let mut now = NOW;
    for _ in 0..2 {
        session = trainer_fails(session);
        assert!(matches!(session.take_ended(), Some(Ended::TrainerFailed(_))));
        now = now.plus_millis(60_000);
        assert!(matches!(session.action(), Action::Sleep(until) if until <= now));
        session = offered_again(session, &plan, now);
        assert!(matches!(session.action(), Action::Load { trains: true, .. }), "{session:?}");
        session = tell(
            session,
            Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None },
        );
    }
    session = trainer_fails(session);
    let ended = session.take_ended().unwrap();
    assert!(matches!(ended, Ended::TrainerRests { task: TASK, failed: 3, .. }), "{ended:?}");
    assert!(ended.to_string().contains("killed by signal 9"), "{ended}");
    // It holds the version already, so there is nothing to do but to ask again.
    let rests = sleeps(&session);
    assert_eq!(rests, 15 * 60_000);
    session = offered_again(session, &plan, NOW.plus_millis(rests));
    assert!(matches!(session.action(), Action::Sleep(until) if until == NOW.plus_millis(2 * rests)));
    assert!(session.take_ended().is_none());
    // A version that is new is fetched and kept, and not trained.
    let newer = Published { version: 2, ..published(&plan) };
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let now = NOW.plus_millis(2 * rests);
    session = session.handle(Event::Woke, now, rng);
    let assignment = Reply::Assignment(Assignment { published: newer, before: None, charges: Vec::new() });
    session = session.handle(Event::Replied(assignment), now, rng);
    session = session.handle(Event::PlanLoaded(plan.to_bytes().unwrap()), now, rng);
    assert!(matches!(session.action(), Action::Load { trains: false, .. }), "{session:?}");
    let loaded = Event::Loaded { adapter: adapter(&plan), frozen: None, folded: None, before: None };
    session = session.handle(loaded, now, rng);
    assert!(matches!(session.action(), Action::Install(_)), "{session:?}");
    session = session.handle(Event::Recorded, now, rng);
    assert!(matches!(session.action(), Action::Sleep(_)), "{session:?}");
    // Six hours later it is trained again.
    session = offered_again(session, &plan, NOW.plus_millis(6 * HOUR));
    assert!(matches!(session.action(), Action::Load { trains: true, .. }), "{session:?}");
}

#[test]
fn a_round_whose_steps_cannot_be_written_is_left_and_the_update_goes_to_another_one() {
    let offer = || {
        let session = proto::ids::SessionId([4; 32]);
        Event::Replied(Reply::Offer { session, round: 7, log: None })
    };
    let inside = tell(joining(session(Policy::default(), Spending::new())), offer());
    assert_eq!(inside.state(), SessionState::Advertising);
    let mut left = tell(inside, Event::LeavesRound);
    // Nobody ended the round, and nothing is wrong with anybody.
    assert!(left.take_ended().is_none());
    assert_eq!(sleeps(&left), LEAST_WAIT_MILLIS);
    left = left.handle(Event::Woke, NOW.plus_millis(LEAST_WAIT_MILLIS), &mut ChaCha20Rng::seed_from_u64(1));
    assert!(matches!(left.action(), Action::Send(Request::Join { task: TASK, .. })), "{left:?}");
    // Outside a round it means nothing.
    let left = tell(left, Event::LeavesRound);
    assert!(matches!(left.action(), Action::Send(Request::Join { .. })), "{left:?}");
    let waits = tell(session(Policy::default(), Spending::new()), Event::LeavesRound);
    assert!(matches!(waits.action(), Action::Sleep(until) if until == NOW));
    // A device that may take no further part does not join another one.
    let once = Policy { participations: 1, ..Policy::default() };
    let mut inside = tell(joining(session(once, Spending::new())), offer());
    inside.spending = spent(&Plan::example(), 1);
    let mut left = tell(inside, Event::LeavesRound);
    assert!(matches!(left.take_ended(), Some(Ended::Breach(Breach::Participations(1)))));
}
