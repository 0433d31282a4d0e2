use aggregation::{Credential, IdentityKey};
use privacy::accountant::RdpCurve;
use proto::ids::DeviceId;
use proto::message::{DeclineReason, Published};
use proto::metrics::{Metric, MetricName};
use proto::plan::{AdaptiveClipPlan, vector_to_bytes};
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

/// Wakes the session and takes it through check-in, fetching and installing a version of `plan`.
fn loaded(session: Session, plan: &Plan, clip_norm: f64) -> Session {
    let plan_bytes = plan.to_bytes().unwrap();
    let adapter = vector_to_bytes(&plan.adapter.initial(&plan.initial_seed, None));
    let published = Published {
        task: TASK,
        version: 0,
        plan: Digest::of(&plan_bytes),
        folded: None,
        adapter: Digest::of(&adapter),
        clip_norm,
    };
    let session = tell(session, Event::Woke);
    let session = tell(session, Event::Replied(Reply::Assignment(published)));
    tell(session, Event::Loaded { plan: plan_bytes, adapter, frozen: None, folded: None })
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
