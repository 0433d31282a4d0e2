//! What a training is told, what it reports and what it gives.

use proto::adapter::AdapterSpec;
use proto::training::TrainingPlan;

use crate::model::blocks::Blocks;
use crate::training::optimizer::Schedule;

/// What is trained, on what, and how.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The adapter.
    pub spec: &'a AdapterSpec,
    /// Its frozen factors.
    pub frozen: &'a [f32],
    /// Where its trained vector starts.
    pub start: &'a [f32],
    /// The user's text.
    pub blocks: &'a Blocks,
    /// Steps, batches and optimiser.
    pub plan: &'a TrainingPlan,
    /// How the step size goes on after its warm-up.
    pub schedule: Schedule,
    /// Which batches are drawn.
    pub seed: [u8; 32],
}

/// A report of a training: a step or a part of it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its number; the first is 1.
    pub step: u32,
    /// Steps of the plan.
    pub of: u32,
    /// Micro-batches of the step that are done.
    pub micro_batch: u32,
    /// Micro-batches of the step.
    pub micro_batches: u32,
    /// Loss of the last whole batch before its step, in nats a token; not a number before the first.
    pub loss: f32,
    /// Tokens predicted in whole steps so far.
    pub tokens: u64,
}

impl Step {
    /// Whether the step itself is done.
    pub fn is_whole(&self) -> bool {
        self.micro_batch == self.micro_batches
    }
}

/// What a training gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The trained vector after the last step.
    pub parameters: Vec<f32>,
    /// The loss of each step's batch before the step, in nats a token.
    pub losses: Vec<f32>,
    /// Tokens predicted in all steps.
    pub tokens: u64,
    /// Sequences of all steps.
    pub examples: u32,
}

impl Trained {
    /// Mean of the steps' losses, in nats a token; 0 where no step was done.
    pub fn mean_loss(&self) -> f64 {
        let steps = self.losses.len().max(1) as f64;
        self.losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / steps
    }
}
