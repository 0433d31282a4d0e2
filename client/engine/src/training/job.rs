//! Input, progress reports and result of a training.

use proto::adapter::AdapterSpec;
use proto::training::TrainingPlan;

use crate::model::blocks::Blocks;
use crate::training::optimizer::Schedule;

/// A training job: the adapter, the text, and how to train.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The adapter.
    pub spec: &'a AdapterSpec,
    /// Its frozen factors.
    pub frozen: &'a [f32],
    /// Initial value of its trained vector.
    pub start: &'a [f32],
    /// The user's text.
    pub blocks: &'a Blocks,
    /// Steps, batches and optimizer.
    pub plan: &'a TrainingPlan,
    /// Learning-rate schedule after the warmup.
    pub schedule: Schedule,
    /// Seed for sampling the batches.
    pub seed: [u8; 32],
}

/// A progress report: a micro-batch, or with it the whole step, is done.
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
    /// Mean loss of the last whole batch, before the update, in nats per token; NaN before the first.
    pub loss: f32,
    /// Target tokens of all whole steps so far.
    pub tokens: u64,
}

impl Step {
    /// Whether the whole step is done.
    pub fn is_whole(&self) -> bool {
        self.micro_batch == self.micro_batches
    }
}

/// The result of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The trained vector after the last step.
    pub parameters: Vec<f32>,
    /// Mean loss of each step's batch, before the update, in nats per token.
    pub losses: Vec<f32>,
    /// Target tokens of all steps.
    pub tokens: u64,
    /// Sequences of all steps.
    pub examples: u32,
}

impl Trained {
    /// Mean of the steps' losses, in nats per token; 0 where no step was done.
    pub fn mean_loss(&self) -> f64 {
        let steps = self.losses.len().max(1) as f64;
        self.losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / steps
    }
}
