//! How a device trains, and how the coordinator applies the mean update: both part of the plan.

use serde::{Deserialize, Serialize};

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
    /// Whether a device can follow the plan.
    pub fn check(&self) -> Result<(), PlanValueError> {
        at_least_one("local_steps", self.local_steps)?;
        at_least_one("batch_size", self.batch_size)?;
        if self.sequence_len < 2 {
            let found = f64::from(self.sequence_len);
            return Err(PlanValueError { name: "sequence_len", wanted: "at least 2", found });
        }
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
