//! Why nothing was trained or measured.

use proto::adapter::AdapterError;
use proto::training::PlanValueError;

use crate::backend::device::DeviceError;
use crate::backend::error::ComputeError;
use crate::kernels::error::ShapeError;
use crate::lora::layout::ModuleError;

/// Why nothing was trained or measured.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The spec cannot exist, or a vector is not one of it.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The plan cannot be followed.
    #[error(transparent)]
    Plan(#[from] PlanValueError),
    /// The adapter does not fit the base.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// There is no token to predict.
    #[error("there is no text of two tokens or more")]
    NoBlocks,
    /// A block is longer than the base can read.
    #[error("a block has {found} tokens, the base reads at most {most}")]
    TooLong {
        /// Its tokens.
        found: usize,
        /// The base's limit.
        most: usize,
    },
    /// A token that the base does not know.
    #[error("token {found} is not below the base's vocabulary of {vocab}")]
    Token {
        /// The token.
        found: u32,
        /// The base's vocabulary.
        vocab: usize,
    },
    /// The loss or a gradient is no longer a number.
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
        /// Whole steps that were done.
        steps: u32,
    },
    /// The thread to compute on could not be started.
    #[error("cannot start the training thread: {0}")]
    Thread(String),
    /// A pass was not computed.
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
