//! A small plan.

use super::{Mode, Plan, PrivacyPlan, RoundPlan};
use crate::adapter::{AdapterSpec, Factors, Method, Module};
use crate::ids::Digest;
use crate::training::{LocalOptimizer, ServerOptimizer, TrainingPlan};

impl Plan {
    /// A small plan that can be followed: one module of 64 trained parameters, 12 devices, noise from the
    /// devices. What is tried out begins here and changes what it is about.
    pub fn example() -> Self {
        Self {
            name: "example".into(),
            base: Digest([1; 32]),
            initial_seed: Digest([2; 32]),
            adapter: AdapterSpec {
                method: Method::FrozenA,
                rank: 1,
                alpha: 1.0,
                factors: Factors::Seeded(Digest([3; 32])),
                modules: vec![Module { name: "m".into(), inputs: 8, outputs: 64 }],
            },
            refresh: None,
            classes: None,
            training: TrainingPlan {
                local_steps: 1,
                batch_size: 1,
                sequence_len: 8,
                learning_rate: 0.1,
                warmup_steps: 0,
                max_grad_norm: 1.0,
                optimizer: LocalOptimizer::Sgd,
            },
            privacy: PrivacyPlan {
                mode: Mode::Distributed,
                clip_norm: 1.0,
                adaptive_clip: None,
                noise_multiplier: 2.0,
                scale: 4096.0,
                metrics: Vec::new(),
                metrics_weight: 0.25,
                delta: 1e-5,
                corrupt_permille: 100,
                participations: 10,
                epsilon_budget: None,
            },
            round: RoundPlan {
                versions: 3,
                cohort: 12,
                report_goal: 10,
                rounds: 1,
                min_rounds: 1,
                join_millis: 1000,
                step_millis: 1000,
                grace_millis: 0,
                missing_permille: 300,
            },
            server: ServerOptimizer::FedAvg { rate: 1.0 },
        }
    }
}
