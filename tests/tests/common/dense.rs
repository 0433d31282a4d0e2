//! Small federations over the production machines, and the change of an adapter as dense matrices.

use proto::adapter::{AdapterSpec, Factors, Method, Module, State};
use proto::ids::Digest;
use proto::plan::{Mode, Plan, RefreshPlan, RoundPlan};
use session::policy::Policy;
use sim::faults::Faults;
use sim::world::World;

pub(crate) const DEVICES: usize = 4;
pub(crate) const RANK: u32 = 2;

pub(crate) fn plan(method: Method, versions: u32, refresh: Option<RefreshPlan>) -> Plan {
    let mut plan = Plan::example();
    let module = |name: &str, inputs, outputs| Module { name: name.into(), inputs, outputs };
    plan.adapter = AdapterSpec {
        method,
        rank: RANK,
        alpha: 3.0,
        factors: Factors::Seeded(Digest([9; 32])),
        modules: vec![module("first", 5, 4), module("second", 3, 6)],
    };
    plan.refresh = refresh;
    plan.privacy.mode = Mode::Off;
    plan.privacy.clip_norm = 8.0;
    plan.privacy.noise_multiplier = 0.0;
    plan.privacy.participations = 100;
    let devices = u32::try_from(DEVICES).unwrap();
    plan.round = RoundPlan { versions, cohort: devices, report_goal: devices, ..plan.round };
    let plan = plan.with_recommended_scale().unwrap();
    plan.check().unwrap();
    plan
}

/// All of the change, module by module: `W + folded + s · B · A` less `W`.
pub(crate) fn dense(state: &State) -> Vec<f64> {
    let mut out = Vec::new();
    for pair in state.spec.pairs(&state.frozen, &state.trained).unwrap() {
        let mut change = product(&pair.a, &pair.b, pair.module, f64::from(state.spec.scale()));
        if let Some(known) = state.folded.pairs().iter().find(|known| known.module == *pair.module) {
            let folded = product(&known.a, &known.b, &known.module, 1.0);
            change.iter_mut().zip(folded).for_each(|(x, y)| *x += y);
        }
        out.extend(change);
    }
    out
}

pub(crate) fn product(a: &[f32], b: &[f32], module: &Module, scale: f64) -> Vec<f64> {
    let (inputs, outputs) = (module.inputs as usize, module.outputs as usize);
    let rank = a.len() / inputs;
    let at = |i: usize, j: usize| -> f64 {
        (0..rank).map(|k| f64::from(b[i * rank + k]) * f64::from(a[k * inputs + j])).sum()
    };
    (0..outputs * inputs).map(|ij| scale * at(ij / inputs, ij % inputs)).collect()
}

pub(crate) fn policy() -> Policy {
    Policy {
        allow_without_noise: true,
        smallest_cohort: 2,
        smallest_corrupt: 0,
        smallest_report_goal: 2,
        participations_a_day: 1000,
        least_noise_multiplier: 0.0,
        largest_epsilon: f64::INFINITY,
        ..Policy::default()
    }
}

pub(crate) fn world(plan: &Plan, given: Option<&[f32]>, faults: Faults, seed: u64) -> World {
    World::new(plan, given, &policy(), DEVICES, faults, bytes(seed)).unwrap()
}

pub(crate) fn bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}
