//! Plans and adapters, which a device reads from whoever gives it work.

use proto::adapter::{AdapterSpec, Folded, State};
use proto::plan::{MAX_COORDINATES, Plan};

/// Parameters up to which an adapter is laid out here.
const SMALL: u128 = 1 << 16;

/// A plan's JSON.
pub fn plan(bytes: &[u8]) {
    let Ok(plan) = Plan::parse(bytes) else { return };
    assert!(plan.adapter.trained_len() <= MAX_COORDINATES);
    let again = Plan::parse(&plan.to_bytes().unwrap()).unwrap();
    assert_eq!(plan, again);
    let mechanism = plan.mechanism_at(0, plan.privacy.clip_norm).unwrap();
    assert!(mechanism.contribution_len() >= plan.adapter.update_len(0));
    assert!((1..=32).contains(&mechanism.ring_bits()));
    lay_out(&plan.adapter);
    for version in [1, plan.round.versions - 1, plan.round.versions, u32::MAX] {
        let mechanism = plan.mechanism_at(version, plan.privacy.clip_norm).unwrap();
        assert!(mechanism.params().coordinates <= plan.mechanism().unwrap().params().coordinates);
        assert!(plan.epoch(version) >= plan.epoch(version.saturating_sub(1)));
    }
}

/// An adapter's JSON.
pub fn adapter(bytes: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<AdapterSpec>(bytes) else { return };
    let again: AdapterSpec = serde_json::from_slice(&serde_json::to_vec(&spec).unwrap()).unwrap();
    assert_eq!(format!("{spec:?}"), format!("{again:?}"));
    if spec.check().is_ok() {
        lay_out(&spec);
    }
}

/// All that is made of an adapter that is not large.
fn lay_out(spec: &AdapterSpec) {
    let side = |module: &proto::adapter::Module| u128::from(module.inputs) + u128::from(module.outputs);
    let numbers = spec.modules.iter().map(|module| u128::from(spec.rank) * side(module)).sum::<u128>();
    if numbers > SMALL {
        return;
    }
    let (seed, slots) = (proto::ids::Digest([3; 32]), spec.slots());
    assert_eq!(slots.len(), spec.modules.len());
    let (frozen, trained) = (spec.seeded_factors(&seed), spec.initial(&seed, None));
    spec.check_frozen(&frozen).unwrap();
    spec.check_trained(&trained).unwrap();
    assert_eq!((frozen.len(), trained.len()), (spec.frozen_len(), spec.trained_len()));
    for version in [0, 1] {
        let len: usize = spec.update_places(version).into_iter().map(|range| range.len()).sum();
        assert_eq!(len, spec.update_len(version));
        let state = State::at(spec, version, frozen.clone(), Folded::default(), &trained).unwrap();
        let (shipped, parameters) = state.shipped(spec.rank).unwrap();
        shipped.check_trained(&parameters).unwrap();
    }
    for pair in spec.pairs(&frozen, &trained).unwrap() {
        assert_eq!(pair.a.len(), spec.rank as usize * pair.module.inputs as usize);
        assert_eq!(pair.b.len(), spec.rank as usize * pair.module.outputs as usize);
    }
}
