use aggregation::{Credential, IdentityKey};
use privacy::accountant::RdpCurve;
use proto::ids::DeviceId;
use proto::message::{DeclineReason, Published};
use proto::metrics::{Metric, MetricName};
use proto::plan::{AdaptiveClipPlan, ClassPlan, RefreshPlan, vector_to_bytes};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const TASK: TaskId = TaskId([9; 16]);
const HOUR: u64 = 3_600_000;

fn session(policy: Policy, spending: Spending) -> Session {
    let identity = IdentityKey::from_seed(&[1; 32]);
    let authority = IdentityKey::from_seed(&[2; 32]);
    let credential = Credential::issue(&authority, [3; 16], identity.public(), u64::MAX);
    let base = Plan::example().base;
    let authority = authority.public();
    let device = Device { device: DeviceId([3; 16]), identity, credential, authority, base, policy };
    Session::new(Arc::new(device), spending, None, NOW)
}

/// Wakes the session and takes it through check-in and fetching a version of `plan`.
fn loaded(session: Session, plan: &Plan, clip_norm: f64) -> Session {
    loaded_at(session, plan, (0, clip_norm), None, None)
}

/// The same at any version; the first of `folded` is published, the second comes.
fn loaded_at(
    session: Session,
    plan: &Plan,
    (version, clip_norm): (u32, f64),
    published_folded: Option<&[f32]>,
    folded: Option<&[f32]>,
) -> Session {
    let plan_bytes = plan.to_bytes().unwrap();
    let adapter = vector_to_bytes(&plan.adapter.initial(&plan.initial_seed, None));
    let published = Published {
        task: TASK,
        version,
        plan: Digest::of(&plan_bytes),
        folded: published_folded.map(|folded| Digest::of(&vector_to_bytes(folded))),
        adapter: Digest::of(&adapter),
        clip_norm,
    };
    let session = tell(session, Event::Woke);
    let session = tell(session, Event::Replied(Reply::Assignment(published)));
    tell(
        session,
        Event::Loaded { plan: plan_bytes, adapter, frozen: None, folded: folded.map(vector_to_bytes) },
    )
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
    assert_eq!(session.state(), "installing");
    let session = tell(session, Event::Recorded);
    assert_eq!(declines(&session), Some(DeclineReason::Cohort));
    let mut session = tell(session, Event::Replied(Reply::Received));
    let why = session.take_ended().unwrap().to_string();
    assert!(why.contains("at most 12 devices") && why.contains("at least 100"), "{why}");
    assert!(matches!(session.action(), Action::Sleep(until) if until == NOW.plus_millis(4 * HOUR)));
}

#[test]
fn a_device_does_not_insist_on_saying_no() {
    let policy = Policy { least_noise_multiplier: 5.0, ..Policy::default() };
    for answer in [Event::Unreachable, Event::Rejected(Rejection::UnknownTask)] {
        let session = loaded(session(policy.clone(), Spending::new()), &Plan::example(), 1.0);
        let session = tell(session, Event::Recorded);
        assert_eq!(declines(&session), Some(DeclineReason::Noise));
        let mut session = tell(session, answer);
        assert!(matches!(session.take_ended(), Some(Ended::Breach(Breach::Noise { .. }))));
        assert!(matches!(session.action(), Action::Sleep(until) if until == NOW.plus_millis(4 * HOUR)));
    }
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
    assert_eq!(at(1, Some(&good), Some(&good)).state(), "installing");
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
