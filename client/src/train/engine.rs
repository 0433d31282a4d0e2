//! Training and measuring an adapter on blocks of tokens.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::adapter::{AdapterError, AdapterSpec, Folded, Slot};
use proto::training::{PlanValueError, TrainingPlan};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::base::Base;
use super::decoder::{Changes, Pass, Weights};
use super::optimizer::Optimizer;
use super::places::{self, Places};
use super::singular::top_factors;
use super::text::Blocks;
use super::thread::on_one_thread;
use crate::update::Update;

/// Trains and measures adapters of one base; cheap to share between threads.
///
/// One call computes on one thread, and its bits do not depend on how many run beside it.
#[derive(Clone, Debug)]
pub struct Engine {
    base: Arc<Base>,
    /// The base's, or changed by what earlier epochs left.
    weights: Weights,
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
    /// Sequences of all steps.
    pub examples: u32,
}

impl Trained {
    /// What was learned from `before` on; `None` where its length differs.
    pub fn update_from(&self, before: &[f32]) -> Option<Update> {
        let steps = self.losses.len().max(1) as f64;
        let loss = self.losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / steps;
        Update::between(before, &self.parameters, loss, self.examples)
    }
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
        expected: (usize, usize),
        /// Outputs and inputs in the adapter.
        found: (usize, usize),
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
        Self { weights: base.weights().clone(), base }
    }

    /// An engine of the same base, each of whose layers in `folded` is changed to `W + B · A`. Fails where the base
    /// has no such layer, or one of another shape.
    pub fn with_folded(&self, folded: &Folded) -> Result<Self, TrainError> {
        Ok(Self { base: Arc::clone(&self.base), weights: places::folded(&self.base, folded)? })
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
        plan.check()?;
        self.check_blocks(blocks)?;
        let mut places = Places::new(&self.base, spec)?;
        spec.check_frozen(frozen)?;
        spec.check_trained(start)?;
        on_one_thread(progress, |report| {
            let mut rng = ChaCha20Rng::from_seed(seed);
            let mut optimizer = Optimizer::new(plan, start.len());
            let mut parameters = start.to_vec();
            let (mut losses, mut tokens, mut examples) = (Vec::new(), 0, 0_u32);
            for step in 1..=plan.local_steps {
                let batch = draw(&mut rng, blocks, plan.batch_size);
                let (loss, mut gradient) = self.gradient(&mut places, frozen, &parameters, &batch)?;
                if !loss.is_finite() {
                    return Err(TrainError::Diverged { step, what: "loss" });
                }
                optimizer
                    .step(&mut parameters, &mut gradient)
                    .map_err(|what| TrainError::Diverged { step, what })?;
                losses.push(loss);
                tokens += targets(&batch);
                examples = examples.saturating_add(u32::try_from(batch.len()).unwrap_or(u32::MAX));
                if report(Step { step, of: plan.local_steps, loss, tokens }).is_break() {
                    return Err(TrainError::Stopped { steps: step });
                }
            }
            Ok(Trained { parameters, losses, tokens, examples })
        })
    }

    /// The adapter's mean loss over the predicted tokens of `blocks`.
    pub fn loss(
        &self,
        spec: &AdapterSpec,
        frozen: &[f32],
        trained: &[f32],
        blocks: &Blocks,
    ) -> Result<Loss, TrainError> {
        self.check_blocks(blocks)?;
        let places = Places::new(&self.base, spec)?;
        spec.check_frozen(frozen)?;
        spec.check_trained(trained)?;
        on_one_thread(&mut |_| ControlFlow::Continue(()), |_| {
            let changes = places.constants(frozen, trained)?;
            let (mut total, mut tokens) = (0.0, 0);
            for batch in uniform(blocks.as_slice()) {
                let loss = Pass::new(self.base.config(), &self.weights, &changes, &batch).loss()?;
                let targets = targets(&batch);
                total += f64::from(loss.to_scalar::<f32>()?) * targets as f64;
                tokens += targets;
            }
            Ok(Loss { nats_per_token: total / tokens as f64, tokens })
        })
    }

    /// Frozen factors from public text: the leading right (rows of `A`) and left (columns of `B`) singular
    /// vectors of the gradient of each module's weight, in the layout of [`AdapterSpec::slots`].
    ///
    /// The gradient is a sum over up to eight batches of sixteen blocks drawn by `seed`.
    pub fn gradient_factors(
        &self,
        spec: &AdapterSpec,
        public: &Blocks,
        seed: [u8; 32],
    ) -> Result<Vec<f32>, TrainError> {
        self.check_blocks(public)?;
        let places = Places::new(&self.base, spec)?;
        on_one_thread(&mut |_| ControlFlow::Continue(()), |_| {
            let mut rng = ChaCha20Rng::from_seed(seed);
            let (weights, vars) = places.track_weights(&self.weights)?;
            let mut sums: Vec<Vec<f64>> = vars.iter().map(|var| vec![0.0; var.elem_count()]).collect();
            for _ in 0..8 {
                let drawn = draw(&mut rng, public, 16);
                for batch in uniform(&drawn) {
                    let changes = Changes::default();
                    let (_, gradients) =
                        Pass::new(self.base.config(), &weights, &changes, &batch).gradients()?;
                    for (sum, var) in sums.iter_mut().zip(&vars) {
                        let Some(gradient) = gradients.get(var) else { continue };
                        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
                        sum.iter_mut().zip(&gradient).for_each(|(sum, x)| *sum += f64::from(*x));
                    }
                }
            }
            let mut factors = Vec::with_capacity(spec.frozen_len());
            for (slots, gradient) in spec.slots().into_iter().zip(&sums) {
                let (outputs, inputs) = (slots.module.outputs as usize, slots.module.inputs as usize);
                let top = top_factors(gradient, outputs, inputs, spec.rank as usize, &mut rng);
                if matches!(slots.a, Slot::Frozen(_)) {
                    factors.extend(top.right);
                }
                if matches!(slots.b, Slot::Frozen(_)) {
                    factors.extend(top.left);
                }
            }
            Ok(factors)
        })
    }

    /// The batch's mean loss and its gradient with respect to the trained vector.
    pub(crate) fn gradient(
        &self,
        places: &mut Places<'_>,
        frozen: &[f32],
        trained: &[f32],
        batch: &[&[u32]],
    ) -> Result<(f32, Vec<f32>), TrainError> {
        let changes = places.variables(frozen, trained)?;
        let pass = Pass::new(self.base.config(), &self.weights, &changes, batch);
        let (loss, gradients) = pass.gradients()?;
        Ok((loss, places.gather(&gradients, trained.len())?))
    }

    fn check_blocks(&self, blocks: &Blocks) -> Result<(), TrainError> {
        if blocks.is_empty() {
            return Err(TrainError::NoBlocks);
        }
        let (most, vocab) = (self.base.config().max_positions, self.base.config().vocab_size);
        for block in blocks.as_slice() {
            if block.len() > most {
                return Err(TrainError::TooLong { found: block.len(), most });
            }
            if let Some(&found) = block.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocab))
            {
                return Err(TrainError::Token { found, vocab });
            }
        }
        Ok(())
    }
}

/// Blocks drawn with replacement, all as long as the first.
fn draw<'a>(rng: &mut ChaCha20Rng, blocks: &'a Blocks, count: u32) -> Vec<&'a [u32]> {
    let blocks = blocks.as_slice();
    let pick = |rng: &mut ChaCha20Rng| blocks[below(rng, blocks.len())].as_slice();
    let mut batch = vec![pick(rng)];
    for _ in 1..count {
        let next = pick(rng);
        if next.len() == batch[0].len() {
            batch.push(next);
        }
    }
    batch
}

/// A number below `bound`; the bias is below `bound / 2⁶⁴`.
pub(crate) fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    let scaled = (u128::from(rng.next_u64()) * bound as u128) >> 64;
    usize::try_from(scaled).unwrap_or(0) // Below `bound`, which is a `usize`.
}

fn targets(batch: &[&[u32]]) -> u64 {
    batch.iter().map(|block| block.len() as u64 - 1).sum()
}

/// Neighbouring blocks of one length, up to sixteen at a time.
fn uniform<B: AsRef<[u32]>>(blocks: &[B]) -> impl Iterator<Item = Vec<&[u32]>> {
    let runs = blocks.chunk_by(|left, right| left.as_ref().len() == right.as_ref().len());
    runs.flat_map(|run| run.chunks(16)).map(|batch| batch.iter().map(AsRef::as_ref).collect())
}
