//! Training and measuring an adapter on blocks of tokens.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::adapter::{AdapterError, AdapterSpec};
use proto::training::{PlanValueError, TrainingPlan};

use super::base::Base;
use super::text::Blocks;

/// Trains and measures adapters of one base; cheap to share between threads.
///
/// One call computes on one thread, and its bits do not depend on how many run beside it.
#[derive(Clone, Debug)]
pub struct Engine {
    base: Arc<Base>,
}

/// One optimiser step that is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its number; the first is 1.
    pub step: u32,
    /// Steps of the plan.
    pub of: u32,
    /// Loss of its batch before the step, in nats a token.
    pub loss: f32,
    /// Tokens predicted so far.
    pub tokens: u64,
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
}

/// A mean loss and what it is a mean of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Mean over the predicted tokens.
    pub nats_per_token: f64,
    /// Predicted tokens.
    pub tokens: u64,
}

/// Why nothing was trained or measured.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The spec cannot exist, or a vector is not one of it.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The plan cannot be followed.
    #[error(transparent)]
    Plan(#[from] PlanValueError),
    /// The adapter changes a layer that the base does not have.
    #[error("the base has no layer `{0}`")]
    NoSuchModule(String),
    /// The adapter names one layer twice.
    #[error("the adapter names `{0}` twice")]
    RepeatedModule(String),
    /// The adapter's layer has another shape than the base's.
    #[error("the base's `{name}` is {expected:?} (outputs, inputs), the adapter's {found:?}")]
    ModuleShape {
        /// The layer.
        name: String,
        /// Outputs and inputs in the base.
        expected: (u32, u32),
        /// Outputs and inputs in the adapter.
        found: (u32, u32),
    },
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
    /// The caller asked to stop; nothing is kept.
    #[error("stopped after {steps} steps")]
    Stopped {
        /// Steps that were done.
        steps: u32,
    },
    /// The thread to compute on could not be started.
    #[error("cannot start the training thread: {0}")]
    Thread(String),
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Engine {
    /// An engine for adapters of `base`.
    pub fn new(base: Arc<Base>) -> Self {
        Self { base }
    }

    /// The base that it trains on.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Follows `plan` from `start` on batches drawn from `blocks` by `seed`; same arguments, same bits.
    ///
    /// `progress` hears of every step and may end the training, which then fails with
    /// [`TrainError::Stopped`].
    #[expect(clippy::too_many_arguments, reason = "each is a different thing, and none has a default")]
    pub fn train(
        &self,
        spec: &AdapterSpec,
        frozen: &[f32],
        start: &[f32],
        blocks: &Blocks,
        plan: &TrainingPlan,
        seed: [u8; 32],
        progress: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Trained, TrainError> {
        let _ = (spec, frozen, start, blocks, plan, seed, progress);
        Err(TrainError::Stopped { steps: 0 })
    }

    /// The adapter's mean loss over the predicted tokens of `blocks`.
    pub fn loss(
        &self,
        spec: &AdapterSpec,
        frozen: &[f32],
        trained: &[f32],
        blocks: &Blocks,
    ) -> Result<Loss, TrainError> {
        let _ = (spec, frozen, trained, blocks);
        Err(TrainError::NoBlocks)
    }

    /// Frozen factors from public text: the leading right (`A`) and left (`B`) singular vectors of the
    /// gradient of the base's weights, in the layout of [`AdapterSpec::slots`].
    pub fn gradient_factors(
        &self,
        spec: &AdapterSpec,
        public: &Blocks,
        seed: [u8; 32],
    ) -> Result<Vec<f32>, TrainError> {
        let _ = (spec, public, seed);
        Err(TrainError::NoBlocks)
    }
}
