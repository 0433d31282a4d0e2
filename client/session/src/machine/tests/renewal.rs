use super::*;

const LIFE: u64 = 30 * 24 * 3600;

/// A device whose certificate was made so many seconds ago, and ends then by its clock.
fn certified(issued_secs_ago: u64) -> Session {
    let issued_unix_secs = NOW.as_secs() - issued_secs_ago;
    let lifetime = Lifetime { issued_unix_secs, expires_unix_secs: issued_unix_secs + LIFE };
    session(Policy::default(), Spending::new()).renewing(lifetime)
}

/// What comes for a renewal of now.
fn renewed(session: &Session) -> Event {
    let Device { device, identity, .. } = &*session.device;
    let authority = IdentityKey::from_seed(&[2; 32]);
    let ends = NOW.as_secs() + LIFE;
    let credential = Credential::issue(&authority, device.0, identity.public(), ends);
    Event::Renewed { credential, issued_unix_secs: NOW.as_secs() }
}

/// Wakes the session so many milliseconds from now; one that asks for work is told to wait until then.
fn waking_at(session: Session, millis: u64) -> Session {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let session = if asks_for_work(&session) {
        let retry = Reply::Wait { retry: Window::at(250), latest: Vec::new(), complete: false };
        session.handle(Event::Replied(retry), NOW.plus_millis(millis.saturating_sub(250)), &mut rng)
    } else {
        session
    };
    session.handle(Event::Woke, NOW.plus_millis(millis), &mut rng)
}

fn asks_for_work(session: &Session) -> bool {
    matches!(session.action(), Action::Send(Request::CheckIn(_)))
}

#[test]
fn a_device_renews_its_certificate_before_it_asks_for_work_and_shows_the_new_credential() {
    let session = tell(certified(LIFE / 3), Event::Woke);
    assert!(asks_for_work(&session), "too early: {session:?}");
    let session = tell(certified(LIFE * 2 / 3), Event::Woke);
    assert!(matches!(session.action(), Action::Renew { has_certificate: true }), "{session:?}");
    assert_eq!(session.state(), SessionState::Renewing);
    let event = renewed(&session);
    let session = tell(session, event);
    assert!(asks_for_work(&session), "{session:?}");
    assert_eq!(session.credential.expires_unix_secs, NOW.as_secs() + LIFE);
    // And not again at the next waking.
    let retry = Reply::Wait { retry: Window::at(1000), latest: Vec::new(), complete: false };
    let session = tell(session, Event::Replied(retry));
    let session = session.handle(Event::Woke, NOW.plus_millis(1000), &mut ChaCha20Rng::seed_from_u64(1));
    assert!(asks_for_work(&session), "{session:?}");
}

#[test]
fn a_device_that_cannot_be_renewed_yet_goes_on_with_what_it_has() {
    let unavailable = || Event::Rejected(Rejection::Unavailable("full".into()));
    for answer in [Event::Unreachable, unavailable()] {
        let session = tell(tell(certified(LIFE * 2 / 3), Event::Woke), answer);
        assert!(asks_for_work(&session), "{session:?}");
        let session = waking_at(session, 9 * 60_000);
        assert!(asks_for_work(&session), "{session:?}");
        assert!(matches!(waking_at(session, 10 * 60_000).action(), Action::Renew { has_certificate: true }));
    }
    let mut session =
        tell(tell(certified(LIFE * 2 / 3), Event::Woke), Event::Rejected(Rejection::NotEnrolled));
    assert!(asks_for_work(&session), "{session:?}");
    let why = session.take_ended().unwrap().to_string();
    assert!(why.contains("does not renew") && why.contains("nightshift-agent enroll"), "{why}");
}

/// Whether it tries again for the first time, half a second from now or so.
fn backs_off(session: &Session) -> bool {
    let window = Window::around(FIRST_BACKOFF_MILLIS);
    (window.least_millis..=window.most_millis).contains(&sleeps(session))
}

#[test]
fn a_device_whose_certificate_has_ended_asks_without_one_until_it_is_answered() {
    let session = tell(certified(LIFE + 1), Event::Woke);
    assert!(matches!(session.action(), Action::Renew { has_certificate: false }), "{session:?}");
    let session = tell(session, Event::Unreachable);
    assert!(backs_off(&session), "{session:?}");
    let later = NOW.plus_millis(2 * FIRST_BACKOFF_MILLIS);
    let session = session.handle(Event::Woke, later, &mut ChaCha20Rng::seed_from_u64(1));
    assert!(matches!(session.action(), Action::Renew { has_certificate: false }), "{session:?}");
    let event = renewed(&session);
    assert!(asks_for_work(&tell(session, event)));

    let why = Rejection::Unacceptable { request: "renew".into(), why: "too late".into() };
    let mut session = tell(tell(certified(LIFE + 1), Event::Woke), Event::Rejected(why));
    assert_eq!(sleeps(&session), 4 * HOUR);
    assert!(session.take_ended().unwrap().to_string().contains("too late"));
    // This clock may be wrong: what there is is shown once before it asks without again.
    let session = waking_at(session, 4 * HOUR);
    assert!(asks_for_work(&session), "{session:?}");
    let refused = NOW.plus_millis(4 * HOUR);
    let session = session.handle(Event::CertificateEnded, refused, &mut ChaCha20Rng::seed_from_u64(1));
    let session = waking_at(session, 5 * HOUR);
    assert!(matches!(session.action(), Action::Renew { has_certificate: false }), "{session:?}");
}

#[test]
fn a_coordinator_that_takes_the_certificate_no_more_costs_no_training() {
    let session = tell(joining(certified(0)), Event::CertificateEnded);
    assert!(backs_off(&session), "{session:?}");
    let later = NOW.plus_millis(2 * FIRST_BACKOFF_MILLIS);
    let session = session.handle(Event::Woke, later, &mut ChaCha20Rng::seed_from_u64(1));
    assert!(matches!(session.action(), Action::Renew { has_certificate: false }), "{session:?}");
    assert!(session.at_work_on().is_some_and(|published| published.task == TASK));
    let event = renewed(&session);
    let session = tell(session, event);
    assert!(matches!(session.action(), Action::Send(Request::Join { .. })), "{session:?}");
}

#[test]
fn a_round_goes_on_where_it_was_after_a_renewal_in_the_middle_of_it() {
    let session = joining(certified(0));
    let offer = Reply::Offer { session: proto::ids::SessionId([5; 32]), round: 1, log: None };
    let session = tell(session, Event::Replied(offer));
    let state = session.state();
    assert!(matches!(session.state, Stage::Round { .. }), "{session:?}");
    let session = tell(session, Event::CertificateEnded);
    let session = session.handle(Event::ClockStepped, NOW, &mut ChaCha20Rng::seed_from_u64(1));
    assert!(matches!(session.action(), Action::Renew { has_certificate: false }), "{session:?}");
    let event = renewed(&session);
    let session = tell(session, event);
    assert_eq!(session.state(), state);
}

#[test]
fn a_coordinator_that_refuses_what_it_has_just_given_is_asked_ever_more_seldom() {
    let mut session = tell(joining(certified(0)), Event::CertificateEnded);
    let (mut now, mut renewals) = (NOW, 0);
    for _ in 0..200 {
        let action = session.action();
        let event = if let Action::Sleep(until) = action {
            now = until;
            Event::Woke
        } else if matches!(action, Action::Renew { .. }) {
            renewals += 1;
            renewed(&session)
        } else {
            Event::CertificateEnded
        };
        session = session.handle(event, now, &mut ChaCha20Rng::seed_from_u64(1));
    }
    let minutes = now.millis_since(NOW) / 60_000;
    assert!(renewals <= 2 + minutes / 10, "{renewals} renewals in {minutes} minutes");
    assert!(minutes > 30, "{minutes}");
    assert!(session.at_work_on().is_some(), "what was trained is still there");
}

#[test]
fn a_coordinator_whose_certificates_end_when_they_are_made_is_not_asked_without_end() {
    let session = tell(certified(LIFE * 2 / 3), Event::Woke);
    let Event::Renewed { credential, .. } = renewed(&session) else { panic!() };
    let issued_unix_secs = credential.expires_unix_secs;
    let session = tell(session, Event::Renewed { credential, issued_unix_secs });
    let session = waking_at(session, 10 * 60_000 - 1);
    assert!(asks_for_work(&session), "{session:?}");
}

#[test]
fn a_clock_that_was_ahead_and_is_right_again_leaves_nothing_of_its_time() {
    let day = 24 * HOUR;
    let ahead = NOW.plus_millis(40 * day);
    let wake = |session: Session, now: Timestamp, event: Event| {
        session.handle(event, now, &mut ChaCha20Rng::seed_from_u64(1))
    };
    let session = wake(certified(0), ahead, Event::Woke);
    assert!(matches!(session.action(), Action::Renew { has_certificate: false }), "{session:?}");
    let event = renewed(&session);
    let session = wake(session, ahead, event);
    // Put right, it renews when it is time to by the right clock, and hears a refusal.
    let session = wake(session, NOW, Event::ClockStepped);
    assert!(asks_for_work(&session), "{session:?}");
    let session = wake(session, NOW, Event::CertificateEnded);
    let session = wake(session, NOW, Event::ClockStepped);
    assert!(matches!(session.action(), Action::Renew { has_certificate: false }), "{session:?}");
}

#[test]
fn a_clock_that_is_far_ahead_renews_once_a_day_and_no_more() {
    let session = tell(certified(LIFE * 2 / 3), Event::Woke);
    let event = renewed(&session);
    // Its clock says that what was made now is a month old.
    let ahead = 1000 * LIFE;
    let session = session.handle(event, NOW.plus_millis(ahead), &mut ChaCha20Rng::seed_from_u64(1));
    let session = waking_at(session, ahead + 24 * HOUR - 1);
    assert!(asks_for_work(&session), "{session:?}");
    assert!(matches!(waking_at(session, ahead + 24 * HOUR).action(), Action::Renew { .. }));
}

#[test]
fn where_no_certificate_ends_nothing_is_renewed() {
    let session = tell(session(Policy::default(), Spending::new()), Event::Woke);
    assert!(asks_for_work(&session));
    assert!(backs_off(&tell(session, Event::CertificateEnded)));
}
