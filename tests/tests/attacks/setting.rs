//! Who takes part, and in what: the plan, the devices' limits, names and keys.

use aggregation::{Advertisement, Context, IdentityKey, IndexSet};
use proto::adapter::Module;
use proto::ids::{DeviceId, SessionId, TaskId};
use proto::message::Published;
use proto::plan::{Mode, Plan, RoundPlan, model_digest};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use session::policy::Policy;

/// The one task.
pub(crate) const TASK: TaskId = TaskId([7; 16]);

/// The coordinates of an update; with fewer devices, each has one of its own.
pub(crate) const COORDINATES: u32 = 16;

/// A plan without noise, so that a sum can be seen to be exact.
pub(crate) fn plan(cohort: usize, report_goal: usize) -> Plan {
    let mut plan = Plan::example();
    plan.adapter.modules = vec![Module { name: "m".into(), inputs: 3, outputs: COORDINATES }];
    plan.privacy.mode = Mode::Off;
    plan.privacy.clip_norm = 4.0;
    plan.privacy.noise_multiplier = 0.0;
    plan.privacy.participations = 100;
    plan.privacy.corrupt_permille = 50;
    plan.round = RoundPlan {
        versions: 100,
        cohort: u32::try_from(cohort).unwrap(),
        report_goal: u32::try_from(report_goal).unwrap(),
        join_millis: 20_000,
        step_millis: 20_000,
        grace_millis: 2_000,
        rounds: 1,
        min_rounds: 1,
        missing_permille: 300,
    };
    plan.with_recommended_scale().unwrap()
}

/// Limits that a plan of [`plan`] keeps to.
pub(crate) fn policy() -> Policy {
    Policy {
        allow_without_noise: true,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        participations_a_day: 1000,
        smallest_cohort: 3,
        smallest_corrupt: 0,
        smallest_report_goal: 3,
        ..Policy::default()
    }
}

/// Bytes that begin with a place and are those of one kind of name.
fn named<const LEN: usize>(kind: u8, place: usize) -> [u8; LEN] {
    let mut bytes = [kind; LEN];
    bytes[..2].copy_from_slice(&u16::try_from(place).unwrap().to_be_bytes());
    bytes
}

/// The place in a device's name.
pub(crate) fn place_of(device: DeviceId) -> usize {
    u16::from_be_bytes([device.0[0], device.0[1]]).into()
}

/// The name of the device in this place of the roster, where all join.
pub(crate) fn id(place: usize) -> DeviceId {
    DeviceId(named(1, place))
}

/// Its identity key: a dishonest device gives it to the hand.
pub(crate) fn identity(place: usize) -> IdentityKey {
    IdentityKey::from_seed(&named(2, place))
}

/// The enrolment authority's key.
pub(crate) fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[100; 32])
}

/// These places of a roster of `places`.
pub(crate) fn set(places: usize, members: &[u16]) -> IndexSet {
    let mut set = IndexSet::new(places);
    for member in members {
        set.insert(*member).unwrap();
    }
    set
}

/// A generator for what the hand makes.
pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// The same advertisement as another one would be, signed by this identity for this context.
pub(crate) fn signed(mut entry: Advertisement, context: &Context, identity: &IdentityKey) -> Advertisement {
    let digest = context.digest();
    let parts: [&[u8]; 7] = [
        &digest,
        &entry.credential.device,
        &entry.masking_key,
        &entry.sealing_key,
        &entry.key_commitment,
        &entry.self_commitment,
        &entry.draw_commitment,
    ];
    entry.signature = identity.sign("advertisement", &parts);
    entry
}

/// The context of a round of this plan at this version.
pub(crate) fn context(plan: &Plan, published: &Published, session: SessionId, round: u64) -> Context {
    let mechanism = plan.mechanism().unwrap();
    Context {
        session: aggregation::SessionId(session.0),
        task: aggregation::TaskId(TASK.0),
        round,
        model_digest: aggregation::ModelDigest(model_digest(plan, published, None).0),
        plan_digest: aggregation::PlanDigest(published.plan.0),
        len: mechanism.contribution_len(),
        ring_bits: mechanism.ring_bits(),
        report_goal: plan.round.report_goal as usize,
        cohort: plan.round.cohort as usize,
        corrupt: plan.corrupt_devices(),
        missing_fraction_permille: plan.round.missing_permille,
        log: None,
    }
}
