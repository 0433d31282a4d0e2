use aggregation::{Credential, IdentityKey};
use privacy::accountant::RdpCurve;
use proto::adapter::Class;
use proto::ids::DeviceId;
use proto::message::{Assignment, Charged, DeclineReason, Outcome, Published, Reply, Window};
use proto::metrics::{Metric, MetricName};
use proto::plan::{AdaptiveClipPlan, ClassPlan, Plan, RefreshPlan, vector_to_bytes};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::spending::Charge;

mod charges;
mod faults;
mod keeping;
mod log;
mod renewal;
mod windows;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const TASK: TaskId = TaskId([9; 16]);
const HOUR: u64 = 3_600_000;

fn session(policy: Policy, spending: Spending) -> Session {
    let identity = IdentityKey::from_seed(&[1; 32]);
    let authority = IdentityKey::from_seed(&[2; 32]);
    let credential = Credential::issue(&authority, [3; 16], identity.public(), u64::MAX);
    let base = Plan::example().base;
    let authority = authority.public();
    let bases = vec![Digest([4; 32]), base];
    let device = Device { device: DeviceId([3; 16]), identity, credential, authority, bases, policy };
    Session::new(Arc::new(device), spending, None, NOW)
}

/// Wakes the session and takes it through check-in and fetching a version of `plan`.
fn loaded(session: Session, plan: &Plan, clip_norm: f64) -> Session {
    loaded_at(session, plan, (1, clip_norm), None, None)
}

/// The same at any version; the first of `folded` is published, the second comes.
fn loaded_at(
    session: Session,
    plan: &Plan,
    (version, clip_norm): (u32, f64),
    published_folded: Option<&[f32]>,
    folded: Option<&[f32]>,
) -> Session {
    let published = Published {
        version,
        folded: published_folded.map(|folded| Digest::of(&vector_to_bytes(folded))),
        clip_norm,
        ..published(plan)
    };
    let session = given_plan(session, plan, published, 0);
    if matches!(session.action(), Action::Load { .. }) {
        let folded = folded.map(vector_to_bytes);
        return tell(session, Event::Loaded { adapter: adapter(plan), frozen: None, folded, before: None });
    }
    session
}

fn adapter(plan: &Plan) -> Vec<u8> {
    vector_to_bytes(&plan.adapter.initial(&plan.initial_seed, None))
}

/// A version of a plan, of which something was learned.
fn published(plan: &Plan) -> Published {
    Published {
        task: TASK,
        version: 1,
        plan: Digest::of(&plan.to_bytes().unwrap()),
        folded: None,
        adapter: Digest::of(&adapter(plan)),
        clip_norm: plan.privacy.clip_norm,
    }
}

/// Wakes the session and takes it through check-in, at which it hears how often it was charged, and gives it the plan.
fn given_plan(session: Session, plan: &Plan, published: Published, charged: u32) -> Session {
    let session = tell(session, Event::Woke);
    let charges = if charged > 0 { vec![Charged { published, rounds: charged }] } else { Vec::new() };
    let session =
        tell(session, Event::Replied(Reply::Assignment(Assignment { published, before: None, charges })));
    assert!(matches!(session.action(), Action::LoadPlan(version) if version.plan == published.plan));
    tell(session, Event::PlanLoaded(plan.to_bytes().unwrap()))
}

/// What a device has spent that took part in so many rounds of the plan, long ago.
fn spent(plan: &Plan, rounds: u64) -> Spending {
    let mut spending = Spending::new();
    for round in 0..rounds {
        let charge = Charge {
            task: TASK,
            version: 0,
            round,
            plan: Digest([1; 32]),
            cost: plan.participation_cost(),
            delta: 1e-5,
            bytes: 1,
            examples: 1,
        };
        spending.add(&charge, Timestamp(NOW.0 - 1000 * HOUR));
    }
    spending
}

/// A device that has trained and would join a round.
fn joining(session: Session) -> Session {
    let session = tell(loaded(session, &Plan::example(), 1.0), Event::Recorded);
    let Action::Train(work) = session.action() else { panic!("{session:?}") };
    let after: Vec<f32> = work.state.trained.iter().map(|x| x + 0.5).collect();
    let update = Update::between(&work.state.trained, &after, 1.0, 1).unwrap();
    tell(session, Event::Trained(update))
}

/// Milliseconds that the session sleeps.
fn sleeps(session: &Session) -> u64 {
    let Action::Sleep(until) = session.action() else { panic!("{session:?}") };
    until.millis_since(NOW)
}

fn tell(session: Session, event: Event) -> Session {
    session.handle(event, NOW, &mut ChaCha20Rng::seed_from_u64(1))
}

fn declines(session: &Session) -> Option<DeclineReason> {
    let Action::Send(Request::Decline { task: TASK, reason }) = session.action() else { return None };
    Some(reason)
}

#[test]
fn a_plan_against_the_policy_is_declined_before_training_and_the_numbers_stay_here() {
    let policy = Policy { smallest_cohort: 100, ..Policy::default() };
    let session = loaded(session(policy, Spending::new()), &Plan::example(), 1.0);
    assert_eq!(declines(&session), Some(DeclineReason::Cohort));
    let mut session = tell(session, Event::Replied(Reply::Received));
    let why = session.take_ended().unwrap().to_string();
    assert!(why.contains("at most 12 devices") && why.contains("at least 100"), "{why}");
    assert!(matches!(session.action(), Action::Sleep(until) if until == NOW.plus_millis(2_000)));
}

#[test]
fn a_device_does_not_insist_on_saying_no() {
    let policy = Policy { least_noise_multiplier: 5.0, ..Policy::default() };
    for answer in [Event::Unreachable, Event::Rejected(Rejection::UnknownTask)] {
        let session = loaded(session(policy.clone(), Spending::new()), &Plan::example(), 1.0);
        assert_eq!(declines(&session), Some(DeclineReason::Noise));
        let mut session = tell(session, answer);
        assert!(matches!(session.take_ended(), Some(Ended::Breach(Breach::Noise { .. }))));
        assert!(matches!(session.action(), Action::Sleep(until) if until == NOW.plus_millis(2_000)));
    }
}

#[test]
fn a_task_that_was_declined_is_in_the_way_of_no_other_and_is_declined_again_when_its_rest_is_over() {
    let policy = Policy { least_noise_multiplier: 5.0, ..Policy::default() };
    let plan = Plan::example();
    let session = loaded(session(policy, Spending::new()), &plan, 1.0);
    let session = tell(session, Event::Replied(Reply::Received));
    // It asks at once for what else there is; the same plan is answered by silence until its rest is over.
    assert_eq!(sleeps(&session), 2_000);
    let at = NOW.plus_millis(2_000);
    let assignment =
        Reply::Assignment(Assignment { published: published(&plan), before: None, charges: Vec::new() });
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let session = session.handle(Event::Woke, at, rng).handle(Event::Replied(assignment), at, rng);
    assert_eq!(sleeps(&session), 2_000 + HOUR / 4);
    let session = offered_again(session, &plan, NOW.plus_millis(5 * HOUR));
    assert_eq!(declines(&session), Some(DeclineReason::Noise));
}

#[test]
fn a_coordinator_that_makes_up_tasks_does_not_make_a_device_hurry() {
    let policy = Policy { least_noise_multiplier: 5.0, ..Policy::default() };
    let plan = Plan::example();
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let (mut session, mut now) = (session(policy, Spending::new()), NOW);
    let mut waits = Vec::new();
    for made_up in 0..40 {
        let published = Published { task: TaskId([100 + made_up; 16]), ..published(&plan) };
        let assignment = Reply::Assignment(Assignment { published, before: None, charges: Vec::new() });
        session = session.handle(Event::Woke, now, rng).handle(Event::Replied(assignment), now, rng);
        session = session.handle(Event::PlanLoaded(plan.to_bytes().unwrap()), now, rng);
        session = session.handle(Event::Replied(Reply::Received), now, rng);
        let Action::Sleep(until) = session.action() else { panic!("{session:?}") };
        waits.push(until.millis_since(now));
        now = until;
    }
    assert!(waits[..31].iter().all(|wait| *wait == 2_000), "{waits:?}");
    assert!(waits[31..].iter().all(|wait| *wait == HOUR / 4), "{waits:?}");
}

#[test]
fn a_version_with_a_clip_norm_that_the_plan_does_not_allow_is_declined() {
    let mut adapting = Plan::example();
    adapting.privacy.metrics = vec![Metric { name: MetricName::Clipped, most: 1.0 }];
    adapting.privacy.adaptive_clip = Some(AdaptiveClipPlan::around(1.0, 0.5));
    for (plan, clip_norm) in [(Plan::example(), 2.0), (adapting.clone(), 101.0), (adapting.clone(), f64::NAN)]
    {
        let session = loaded(session(Policy::default(), Spending::new()), &plan, clip_norm);
        assert_eq!(declines(&session), Some(DeclineReason::Plan), "{clip_norm}");
    }
    let session = loaded(session(Policy::default(), Spending::new()), &adapting, 7.0);
    let session = tell(session, Event::Recorded);
    let Action::Train(work) = session.action() else { panic!("{session:?}") };
    assert!((work.mechanism.params().clip_norm.get() - 7.0).abs() < f64::EPSILON);
}

#[test]
fn a_device_that_was_busy_today_rests_and_says_nothing() {
    let mut spending = Spending::new();
    for round in 0..2 {
        let charge = Charge {
            task: TASK,
            version: 0,
            round,
            plan: Digest([1; 32]),
            cost: RdpCurve::Unbounded,
            delta: 1e-5,
            bytes: 1,
            examples: 1,
        };
        spending.add(&charge, Timestamp(NOW.0 - (5 - round) * HOUR));
    }
    let policy = Policy { participations_a_day: 2, largest_epsilon: f64::INFINITY, ..Policy::default() };
    let session = loaded(session(policy, spending), &Plan::example(), 1.0);
    let mut session = tell(session, Event::Recorded);
    assert!(matches!(session.action(), Action::Sleep(until) if until == NOW.plus_millis(4 * HOUR)));
    assert!(
        matches!(session.take_ended(), Some(Ended::Breach(Breach::Resting { most: 2, until })) if until == NOW.plus_millis(19 * HOUR))
    );
}

#[test]
fn what_earlier_epochs_left_is_taken_only_as_it_was_published_and_where_there_is_some() {
    let mut plan = Plan::example();
    plan.refresh = Some(RefreshPlan { every: 1, accumulated_rank: 2, shipped_rank: 2 });
    // One layer, 64 × 8, of rank 2.
    let (good, other) = (vec![0.5; 144], vec![0.25; 144]);
    let session = || session(Policy::default(), Spending::new());
    let at = |version, published, came| loaded_at(session(), &plan, (version, 1.0), published, came);
    assert_eq!(at(1, Some(&good), Some(&good)).state(), SessionState::Installing);
    for (version, published, came) in [
        (1, Some(&good), Some(&other)),
        (1, Some(&good), None),
        (1, None, None),
        (0, Some(&good), Some(&good)),
        (1, Some(&vec![0.5; 143]), Some(&vec![0.5; 143])),
    ] {
        let mut refused = at(version, published.map(Vec::as_slice), came.map(Vec::as_slice));
        let why = refused.take_ended().unwrap().to_string();
        assert!(why.contains("change of earlier epochs"), "{why}");
        assert!(matches!(refused.action(), Action::Sleep(_)));
    }
}

#[test]
fn a_weak_device_trains_and_names_its_part_of_the_adapter() {
    let mut plan = Plan::example();
    (plan.adapter.rank, plan.classes) = (2, Some(ClassPlan { least_trainers: 2 }));
    plan.privacy.participations = 1;
    let plan = plan.with_recommended_scale().unwrap();
    let policy = Policy { largest_rank: Some(1), ..Policy::default() };
    let session = tell(loaded(session(policy.clone(), Spending::new()), &plan, 1.0), Event::Recorded);
    let Action::Train(work) = session.action() else { panic!("{session:?}") };
    let state = work.training().unwrap();
    assert_eq!((state.spec.rank, state.trained.len(), work.state.trained.len()), (1, 64, 128));
    let update = Update::between(&state.trained, &vec![0.5; 64], 1.0, 1).unwrap();
    let session = tell(session, Event::Trained(update));
    let Action::Send(Request::Join { class, .. }) = session.action() else { panic!("{session:?}") };
    assert_eq!(class, Some(Class { rank: 1, layers: 1 }));
    let Stage::Joining { trained } = &session.state else { panic!("{session:?}") };
    // The other column is there, and zero: half of 64 numbers is a norm of 4.
    let norm = trained.update.metrics(work.mechanism.params().clip_norm).norm;
    assert_eq!(trained.update.len(), 128);
    assert!((norm - 4.0).abs() < 1e-9, "{norm}");

    let whole = Plan { classes: None, ..plan };
    let session = tell(loaded(self::session(policy, Spending::new()), &whole, 1.0), Event::Recorded);
    assert_eq!(declines(&session), Some(DeclineReason::Size));
}

#[test]
fn the_policy_is_asked_before_anything_but_the_plan_is_fetched_or_built() {
    let policy = Policy { largest_tokens_a_round: 7, ..Policy::default() };
    let plan = Plan::example();
    let mut session = given_plan(session(policy, Spending::new()), &plan, published(&plan), 0);
    assert_eq!(declines(&session), Some(DeclineReason::Work), "{session:?}");
    session = tell(session, Event::Replied(Reply::Received));
    let why = session.take_ended().unwrap().to_string();
    assert!(why.contains("8 tokens") && why.contains("at most 7"), "{why}");
    assert_eq!(session.installed(TASK), None);
}

#[test]
fn a_device_that_took_part_keeps_new_versions_when_it_may_train_no_more() {
    let (plan, policy) = (Plan::example(), Policy { largest_epsilon: 1e9, ..Policy::default() });
    let spent = || session(policy.clone(), spent(&plan, 10));
    let session = loaded(spent(), &plan, 1.0);
    assert!(matches!(session.action(), Action::Install(_)), "{session:?}");
    let session = tell(session, Event::Recorded);
    assert_eq!(declines(&session), Some(DeclineReason::Participations));
    assert_eq!(session.installed(TASK), Some(published(&plan)));
    // Once it has the version there is nothing to fetch.
    let mut again = spent();
    again.installed.insert(TASK, published(&plan));
    let again = given_plan(again, &plan, published(&plan), 0);
    assert_eq!(declines(&again), Some(DeclineReason::Participations));
}

#[test]
fn a_version_of_a_base_that_the_device_does_not_hold_is_not_built_to_be_kept() {
    let plan = Plan::example();
    for (base, loads) in [(plan.base, true), (Digest([77; 32]), false)] {
        let plan = Plan { base, ..plan.clone() };
        let wait = Reply::Wait { retry: Window::at(9_000), latest: vec![published(&plan)], complete: true };
        let session = tell(session(Policy::default(), Spending::new()), Event::Woke);
        let session = tell(session, Event::Replied(wait));
        let mut session = tell(session, Event::PlanLoaded(plan.to_bytes().unwrap()));
        assert_eq!(matches!(session.action(), Action::Load { .. }), loads);
        if !loads {
            assert_eq!(sleeps(&session), 9_000);
            assert!(session.is_complete() && session.take_ended().is_none());
        }
    }
}

#[test]
fn a_device_without_the_memory_says_only_so_and_the_numbers_stay_here() {
    let session =
        tell(loaded(session(Policy::default(), Spending::new()), &Plan::example(), 1.0), Event::Recorded);
    let session = tell(session, Event::CannotTrain(Breach::FreeMemory { needed_mib: 9000, free_mib: 700 }));
    assert_eq!(declines(&session), Some(DeclineReason::Memory));
    let mut session = tell(session, Event::Replied(Reply::Received));
    let why = session.take_ended().unwrap().to_string();
    assert!(why.contains("9000 MiB") && why.contains("700 MiB are free"), "{why}");
    assert_eq!(sleeps(&session), 2_000);
}

#[test]
fn no_answer_makes_a_device_ask_again_at_once() {
    let fresh = || tell(session(Policy::default(), Spending::new()), Event::Woke);
    let hasty = || Reply::wait(0);
    assert_eq!(sleeps(&tell(fresh(), Event::Replied(hasty()))), LEAST_WAIT_MILLIS);
    let stale = || Event::Rejected(Rejection::Stale { found: 0, current: 1 });
    assert_eq!(sleeps(&tell(fresh(), stale())), LEAST_WAIT_MILLIS);
    let joining = || joining(session(Policy::default(), Spending::new()));
    assert_eq!(sleeps(&tell(joining(), Event::Replied(hasty()))), LEAST_WAIT_MILLIS);
    for rejection in [Rejection::UnknownTask, Rejection::LeftOut, Rejection::Stale { found: 0, current: 1 }] {
        assert_eq!(sleeps(&tell(joining(), Event::Rejected(rejection))), LEAST_WAIT_MILLIS);
    }
    let offer = Reply::Offer { session: proto::ids::SessionId([1; 32]), round: 1, log: None };
    let inside = || tell(joining(), Event::Replied(offer.clone()));
    assert_eq!(sleeps(&tell(inside(), Event::Replied(hasty()))), LEAST_WAIT_MILLIS);
    for outcome in [Outcome::Published, Outcome::TooFewJoined, Outcome::Stopped] {
        assert_eq!(sleeps(&tell(inside(), Event::Replied(Reply::Over(outcome)))), LEAST_WAIT_MILLIS);
    }
    assert_eq!(sleeps(&tell(inside(), Event::Rejected(Rejection::UnknownSession))), LEAST_WAIT_MILLIS);
}

#[test]
fn a_round_of_a_number_that_no_coordinator_comes_to_is_refused() {
    let signed = |round| Signed { task: TASK, round, statement: Digest([4; 32]) };
    for (last, round, taken) in [
        (None, MOST_ROUNDS_AHEAD, true),
        (None, MOST_ROUNDS_AHEAD + 1, false),
        (None, u64::MAX, false),
        (Some(7), MOST_ROUNDS_AHEAD + 7, true),
        (Some(7), MOST_ROUNDS_AHEAD + 8, false),
        (Some(u64::MAX - 1), u64::MAX, true),
    ] {
        let session = session(Policy::default(), Spending::new()).having_signed(last.map(signed));
        let offer = Reply::Offer { session: proto::ids::SessionId([1; 32]), round, log: None };
        let mut session = tell(joining(session), Event::Replied(offer));
        assert_eq!(session.state() == SessionState::Advertising, taken, "{round} after {last:?}");
        if !taken {
            let why = session.take_ended().unwrap().to_string();
            assert!(why.contains(&round.to_string()) && why.contains("no honest coordinator"), "{why}");
            assert_eq!(sleeps(&session), 60_000);
        }
    }
}

#[test]
fn a_device_in_a_round_is_at_work_on_its_version_and_one_that_waits_is_not() {
    let session = session(Policy::default(), Spending::new());
    assert_eq!(session.at_work_on(), None);
    assert_eq!(joining(session).at_work_on(), Some(published(&Plan::example())));
}

#[test]
fn a_task_that_its_user_left_is_declined_and_not_installed_until_they_take_it_back() {
    let plan = Plan::example();
    let assignment = || {
        Event::Replied(Reply::Assignment(Assignment {
            published: published(&plan),
            before: None,
            charges: Vec::new(),
        }))
    };
    let mut session = joining(session(Policy::default(), Spending::new()));
    session.forget(TaskId([8; 16]));
    assert!(
        session.at_work_on().is_some() && session.installed(TASK).is_some(),
        "another task's work goes on"
    );
    session.forget(TASK);
    assert_eq!((session.at_work_on(), session.installed(TASK)), (None, None));
    let session = tell(session, assignment());
    assert_eq!(declines(&session), Some(DeclineReason::NotAllowed));
    let mut session = tell(session, Event::Replied(Reply::Received));
    assert!(matches!(session.take_ended(), Some(Ended::Breach(Breach::Forgotten(TASK)))));
    let latest = vec![published(&plan)];
    let session = tell(session, Event::ClockStepped);
    let mut session =
        tell(session, Event::Replied(Reply::Wait { retry: Window::at(HOUR), latest, complete: false }));
    assert_eq!(sleeps(&session), HOUR);
    session.rejoin(TASK);
    let session = tell(session, assignment());
    assert!(matches!(session.action(), Action::LoadPlan(_)));
}

/// Wakes a session at `now` and takes it through another check-in with the plan.
fn offered_again(session: Session, plan: &Plan, now: Timestamp) -> Session {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let assignment =
        Reply::Assignment(Assignment { published: published(plan), before: None, charges: Vec::new() });
    let session = session.handle(Event::Woke, now, rng).handle(Event::Replied(assignment), now, rng);
    assert!(matches!(session.action(), Action::LoadPlan(_)), "{session:?}");
    session.handle(Event::PlanLoaded(plan.to_bytes().unwrap()), now, rng)
}
