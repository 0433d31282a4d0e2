//! Plans: what cannot be followed is refused with the value's name.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proto::adapter::{AdapterSpec, Factors, Method, Module};
use proto::ids::Digest;
use proto::plan::{Mode, Plan, PrivacyPlan, RoundPlan};
use proto::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};

fn plan() -> Plan {
    Plan {
        name: "a plan".into(),
        base: Digest([1; 32]),
        initial_seed: Digest([2; 32]),
        adapter: AdapterSpec {
            method: Method::FrozenA,
            rank: 2,
            alpha: 4.0,
            factors: Factors::Seeded(Digest([3; 32])),
            modules: vec![Module { name: "m".into(), inputs: 8, outputs: 64 }],
        },
        training: TrainingPlan {
            local_steps: 1,
            batch_size: 1,
            sequence_len: 8,
            learning_rate: 0.1,
            warmup_steps: 0,
            max_grad_norm: 1.0,
            optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
        },
        privacy: PrivacyPlan {
            mode: Mode::Distributed,
            clip_norm: 1.0,
            noise_multiplier: 1.0,
            scale: 4096.0,
            delta: 1e-5,
            corrupt_permille: 50,
            participations: 10,
            epsilon_budget: None,
        },
        round: RoundPlan {
            versions: 3,
            cohort: 10,
            report_goal: 8,
            join_millis: 1000,
            step_millis: 1000,
            grace_millis: 0,
        },
        server: ServerOptimizer::FedAvg { rate: 1.0 },
    }
}

fn refused(change: impl FnOnce(&mut Plan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    Plan::parse(&plan.to_bytes().unwrap()).unwrap_err().to_string()
}

#[test]
fn a_plan_reads_back_from_its_bytes() {
    assert_eq!(Plan::parse(&plan().to_bytes().unwrap()).unwrap(), plan());
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let text = String::from_utf8(plan().to_bytes().unwrap()).unwrap();
    let error = Plan::parse(text.replace("\"name\"", "\"nam\"").as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown field `nam`"), "{error}");
}

#[test]
fn values_that_cannot_be_used_are_named() {
    let error = refused(|plan| plan.training.learning_rate = -1.0);
    assert_eq!(error, "learning_rate must be a number above 0, found -1");
    let error = refused(|plan| plan.round.versions = 0);
    assert_eq!(error, "versions must be at least 1, found 0");
    let error = refused(|plan| plan.privacy.epsilon_budget = Some(0.0));
    assert_eq!(error, "epsilon_budget must be a number above 0, found 0");
    let error = refused(|plan| plan.adapter.rank = 9);
    assert_eq!(error, "rank 9 does not fit `m` (64 × 8); use 1 to 8");
    assert!(refused(|plan| plan.privacy.delta = 1.0).contains('1'));
    assert!(refused(|plan| plan.privacy.clip_norm = 0.0).contains('0'));
    assert!(refused(|plan| plan.privacy.noise_multiplier = -2.0).contains("-2"));
    assert!(refused(|plan| plan.round.cohort = 300).contains("300"));
}

#[test]
fn a_report_goal_below_the_quorum_is_refused_with_both() {
    let error = refused(|plan| plan.round.report_goal = 5);
    assert_eq!(
        error,
        "a report goal of 5 in a cohort of 10 cannot reach a quorum of 6; raise it or lower the cohort"
    );
}

#[test]
fn a_report_goal_above_the_cohort_is_refused() {
    assert!(refused(|plan| plan.round.report_goal = 11).contains("11"));
}
