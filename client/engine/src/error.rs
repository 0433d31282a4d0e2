//! Why a training, evaluation or generation failed.

use proto::adapter::AdapterError;
use proto::training::PlanValueError;

use crate::backend::device::DeviceError;
use crate::backend::error::ComputeError;
use crate::kernels::error::ShapeError;
use crate::lora::layout::ModuleError;

/// Why a training, evaluation or generation failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The adapter's spec is invalid, or a vector does not fit it.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The training plan is invalid.
    #[error(transparent)]
    Plan(#[from] PlanValueError),
    /// The adapter does not fit the base.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// There is no token to predict.
    #[error("there is no text of two tokens or more")]
    NoBlocks,
    /// A sequence is longer than the base's longest.
    #[error("a block has {found} tokens, the base reads at most {most}")]
    TooLong {
        /// Its length in tokens.
        found: usize,
        /// The base's limit.
        most: usize,
    },
    /// A token outside the base's vocabulary.
    #[error("token {found} is not below the base's vocabulary of {vocab}")]
    Token {
        /// The token.
        found: u32,
        /// Size of the base's vocabulary.
        vocab: usize,
    },
    /// The loss, the gradient or the adapter is no longer finite.
    #[error("training diverged in step {step}: the {what} is not finite")]
    Diverged {
        /// The step.
        step: u32,
        /// Which quantity.
        what: &'static str,
    },
    /// The caller asked to stop.
    #[error("stopped after {steps} steps")]
    Stopped {
        /// Whole steps done.
        steps: u32,
    },
    /// The threads to compute on could not be started.
    #[error("cannot start the training thread: {0}")]
    Thread(String),
    /// A forward or backward pass failed.
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

impl From<ShapeError> for TrainError {
    fn from(error: ShapeError) -> Self {
        Self::Compute(error.into())
    }
}

impl From<DeviceError> for TrainError {
    fn from(error: DeviceError) -> Self {
        Self::Compute(error.into())
    }
}
