//! How a device trains, and how the coordinator applies the mean update: both part of the plan.

use serde::{Deserialize, Serialize};

/// The most optimizer steps of one assignment: far above the tens or hundreds of a real round.
pub const MAX_LOCAL_STEPS: u32 = 100_000;

/// The most sequences of one step.
pub const MAX_BATCH_SIZE: u32 = 16_384;

/// The most tokens of one sequence: as many as the context of Llama 3.1.
pub const MAX_SEQUENCE_LEN: u32 = 131_072;

/// The most tokens of one step, which are drawn and held at once: more than the 3.2 million of GPT-3.
pub const MAX_STEP_TOKENS: u64 = 1 << 22;

/// The most tokens of one assignment: with a base of 135 million parameters 19 days at half a teraflop a second.
pub const MAX_ASSIGNMENT_TOKENS: u64 = 1_000_000_000;

/// A number of a plan that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} must be {wanted}, found {found}")]
pub struct PlanValueError {
    /// The value's name in the plan.
    pub name: &'static str,
    /// What it must be.
    pub wanted: &'static str,
    /// What came.
    pub found: f64,
}

/// The optimiser that a device runs from a fresh state in every assignment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LocalOptimizer {
    /// Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), betas 0.9 and 0.999.
    AdamW {
        /// Decay of the parameters, as a fraction of the learning rate.
        weight_decay: f64,
    },
    /// Plain stochastic gradient descent.
    Sgd,
}

/// What a device does with its user's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingPlan {
    /// Optimiser steps of one assignment.
    pub local_steps: u32,
    /// Sequences of one step.
    pub batch_size: u32,
    /// Tokens of one sequence.
    pub sequence_len: u32,
    /// Step size.
    pub learning_rate: f64,
    /// Steps over which the step size rises from zero.
    pub warmup_steps: u32,
    /// The gradient of a step is scaled down to this L2 norm.
    pub max_grad_norm: f64,
    /// Optimiser.
    pub optimizer: LocalOptimizer,
}

impl TrainingPlan {
    /// Tokens that a device reads in one step.
    pub fn step_tokens(&self) -> u64 {
        u64::from(self.batch_size) * u64::from(self.sequence_len)
    }

    /// Tokens that a device reads in all steps.
    pub fn assignment_tokens(&self) -> u64 {
        self.step_tokens().saturating_mul(u64::from(self.local_steps))
    }

    /// Whether a device can follow the plan, and nobody would need it to do less.
    pub fn check(&self) -> Result<(), PlanValueError> {
        at_least_one("local_steps", self.local_steps)?;
        at_least_one("batch_size", self.batch_size)?;
        if self.sequence_len < 2 {
            let found = f64::from(self.sequence_len);
            return Err(PlanValueError { name: "sequence_len", wanted: "at least 2", found });
        }
        let (steps, batch, length) = (self.local_steps, self.batch_size, self.sequence_len);
        at_most("local_steps", steps.into(), MAX_LOCAL_STEPS.into(), "at most 100000")?;
        at_most("batch_size", batch.into(), MAX_BATCH_SIZE.into(), "at most 16384")?;
        at_most("sequence_len", length.into(), MAX_SEQUENCE_LEN.into(), "at most 131072")?;
        at_most("warmup_steps", self.warmup_steps.into(), MAX_LOCAL_STEPS.into(), "at most 100000")?;
        let name = "batch_size times sequence_len";
        at_most(name, self.step_tokens(), MAX_STEP_TOKENS, "at most 4194304 tokens")?;
        let name = "local_steps times batch_size times sequence_len";
        at_most(name, self.assignment_tokens(), MAX_ASSIGNMENT_TOKENS, "at most 1000000000 tokens")?;
        positive("learning_rate", self.learning_rate)?;
        positive("max_grad_norm", self.max_grad_norm)?;
        match self.optimizer {
            LocalOptimizer::AdamW { weight_decay } => not_negative("weight_decay", weight_decay),
            LocalOptimizer::Sgd => Ok(()),
        }
    }
}

/// How a mean update becomes the next version (Reddi et al. 2021, arXiv 2003.00295).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ServerOptimizer {
    /// `x ← x + rate · Δ`.
    FedAvg {
        /// Server step size; one is plain averaging.
        rate: f64,
    },
    /// `m ← momentum · m + Δ`, `x ← x + rate · m`.
    FedAvgM {
        /// Server step size.
        rate: f64,
        /// Weight of the earlier updates.
        momentum: f64,
    },
    /// Adam on the mean update, without bias correction, as in Algorithm 2 of the paper.
    FedAdam {
        /// Server step size.
        rate: f64,
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        tau: f64,
    },
}

impl ServerOptimizer {
    /// Whether the numbers make an optimiser.
    pub fn check(&self) -> Result<(), PlanValueError> {
        match *self {
            Self::FedAvg { rate } => positive("rate", rate),
            Self::FedAvgM { rate, momentum } => {
                positive("rate", rate)?;
                fraction("momentum", momentum)
            }
            Self::FedAdam { rate, beta1, beta2, tau } => {
                positive("rate", rate)?;
                fraction("beta1", beta1)?;
                fraction("beta2", beta2)?;
                positive("tau", tau)
            }
        }
    }
}

fn at_least_one(name: &'static str, found: u32) -> Result<(), PlanValueError> {
    if found >= 1 { Ok(()) } else { Err(PlanValueError { name, wanted: "at least 1", found: 0.0 }) }
}

fn at_most(name: &'static str, found: u64, most: u64, wanted: &'static str) -> Result<(), PlanValueError> {
    if found <= most { Ok(()) } else { Err(PlanValueError { name, wanted, found: found as f64 }) }
}

fn positive(name: &'static str, found: f64) -> Result<(), PlanValueError> {
    let good = found.is_finite() && found > 0.0;
    if good { Ok(()) } else { Err(PlanValueError { name, wanted: "a number above 0", found }) }
}

fn not_negative(name: &'static str, found: f64) -> Result<(), PlanValueError> {
    let good = found.is_finite() && found >= 0.0;
    if good { Ok(()) } else { Err(PlanValueError { name, wanted: "0 or more", found }) }
}

fn fraction(name: &'static str, found: f64) -> Result<(), PlanValueError> {
    let good = (0.0..1.0).contains(&found);
    if good { Ok(()) } else { Err(PlanValueError { name, wanted: "at least 0 and below 1", found }) }
}
