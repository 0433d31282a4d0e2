//! Training and measuring adapters of one base.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::adapter::{AdapterSpec, Folded, Slot};
use proto::training::TrainingPlan;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::backend::compute::Compute;
use crate::backend::executor::Executor;
use crate::backend::resident::Resident;
use crate::backend::setup::Setup;
use crate::base::Base;
use crate::checks::{check_blocks, check_tokens};
use crate::error::TrainError;
use crate::generation::DecodeSession;
use crate::kernels::pool::Team;
use crate::lora::layout::{AdapterLayout, folded_deltas};
use crate::lora::svd::top_factors;
use crate::model::batch::Sequence;
use crate::model::blocks::Blocks;
use crate::model::delta::{FoldedDeltas, LoraDeltas};
use crate::model::gradient_target::{GradientTarget, WeightGradients};
use crate::model::kv_cache::LogitsFor;
use crate::model::sample::draw;
use crate::model::workspace::Workspace;
use crate::training::Training;
use crate::training::job::{Job, Step, Trained};
use crate::training::optimizer::Schedule;
use crate::training::threads::on_threads;

/// Trains and measures adapters of one base; cheap to share between threads.
///
/// What a call computes does not depend on how many threads it has, nor on what runs beside it, to the bit, as long as
/// our own kernels compute it.
#[derive(Clone, Debug)]
pub struct Engine {
    base: Arc<Base>,
    /// What earlier epochs of a task left.
    folded_deltas: Arc<FoldedDeltas>,
    compute: Compute,
    resident: Resident,
}

/// A mean loss and what it is a mean of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Mean over the predicted tokens.
    pub nats_per_token: f64,
    /// Predicted tokens.
    pub tokens: u64,
}

impl Engine {
    /// An engine for adapters of `base`, on one thread.
    pub fn new(base: Arc<Base>) -> Self {
        Self {
            base,
            folded_deltas: Arc::default(),
            compute: Compute::default(),
            resident: Resident::default(),
        }
    }

    /// The same engine, computing in another way or at another place; whether that is there shows with the first call
    /// that computes, or with [`Self::prepare`].
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Self { compute, resident: Resident::default(), ..self }
    }

    /// Opens the place where it computes and puts the base there, which is done once for this engine and those made of
    /// it. Fails where there is no such place, or the base does not fit it.
    pub fn prepare(&self) -> Result<(), TrainError> {
        self.resident.get(&self.base, self.compute)?;
        Ok(())
    }

    /// What it computes with.
    pub(crate) fn setup(&self) -> Setup<'_> {
        Setup {
            base: &self.base,
            folded_deltas: &self.folded_deltas,
            compute: self.compute,
            resident: &self.resident,
        }
    }

    /// An engine of the same base, each of whose layers in `folded` is changed to `W + B · A`. Fails where the base
    /// has no such layer, or one of another shape.
    pub fn with_folded(&self, folded: &Folded) -> Result<Self, TrainError> {
        let folded_deltas = Arc::new(folded_deltas(&self.base, folded)?);
        Ok(Self { folded_deltas, ..self.clone() })
    }

    /// How it computes.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// The base that it trains on.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// A training before its first step; fails when the job cannot be done.
    pub fn begin<'a>(&'a self, job: Job<'a>) -> Result<Training<'a>, TrainError> {
        Training::new(self.setup(), job)
    }

    /// Follows `plan` from `start` on batches drawn from `blocks` by `seed`; same arguments, same bits.
    ///
    /// `progress` hears of every micro-batch and may end the training, which then fails with
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
        let job = Job { spec, frozen, start, blocks, plan, schedule: Schedule::Constant, seed };
        let mut training = self.begin(job)?;
        training.run(u32::MAX, progress)?;
        Ok(training.finish())
    }

    /// The adapter's mean loss over the learned tokens of `blocks`.
    pub fn loss(
        &self,
        spec: &AdapterSpec,
        frozen: &[f32],
        trained: &[f32],
        blocks: &Blocks,
    ) -> Result<Loss, TrainError> {
        let longest = check_blocks(&self.base, blocks)?;
        let places = AdapterLayout::new(&self.base, spec)?;
        spec.check_frozen(frozen)?;
        spec.check_trained(trained)?;
        self.prepare()?;
        on_threads(self.compute.threads, &mut go_on, |_| {
            let mut executor = Executor::new(self.setup(), longest);
            let deltas = executor.deltas(&places, frozen, trained)?;
            mean(&mut executor, &deltas, blocks)
        })
    }

    /// The base's own mean loss over the learned tokens of `blocks`.
    pub fn base_loss(&self, blocks: &Blocks) -> Result<Loss, TrainError> {
        let longest = check_blocks(&self.base, blocks)?;
        self.prepare()?;
        on_threads(self.compute.threads, &mut go_on, |_| {
            let mut executor = Executor::new(self.setup(), longest);
            let deltas = executor.no_deltas()?;
            mean(&mut executor, &deltas, blocks)
        })
    }

    /// The base's logits after each of `tokens`: (tokens, vocab).
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
        check_tokens(&self.base, tokens)?;
        self.prepare()?;
        on_threads(self.compute.threads, &mut go_on, |_| {
            let mut executor = Executor::new(self.setup(), tokens.len());
            let deltas = executor.no_deltas()?;
            Ok(DecodeSession::new(&mut executor, &deltas)?.logits(tokens, LogitsFor::All)?)
        })
    }

    /// Tokens that the base with an adapter writes after `prompt`: `choose` picks each from the logits after the
    /// last one, or ends it.
    pub fn generate(
        &self,
        adapter: Option<(&AdapterSpec, &[f32], &[f32])>,
        prompt: &[u32],
        most: usize,
        mut choose: impl FnMut(&[f32]) -> Option<u32> + Send,
    ) -> Result<Vec<u32>, TrainError> {
        check_tokens(&self.base, prompt)?;
        let limit = self.base.config().max_positions;
        if prompt.is_empty() {
            return Err(TrainError::NoBlocks);
        }
        let most = most.min(limit - prompt.len());
        let places = match adapter {
            Some((spec, frozen, trained)) => {
                spec.check_frozen(frozen)?;
                spec.check_trained(trained)?;
                Some((AdapterLayout::new(&self.base, spec)?, frozen, trained))
            }
            None => None,
        };
        self.prepare()?;
        on_threads(self.compute.threads, &mut go_on, |_| {
            let mut executor = Executor::new(self.setup(), prompt.len() + most);
            let deltas = match &places {
                Some((places, frozen, trained)) => executor.deltas(places, frozen, trained)?,
                None => executor.no_deltas()?,
            };
            let mut reader = DecodeSession::new(&mut executor, &deltas)?;
            let (mut read, mut written) = (prompt.to_vec(), Vec::new());
            while written.len() < most {
                let logits = reader.logits(&read, LogitsFor::Last)?;
                let Some(next) = choose(&logits) else { break };
                written.push(next);
                read = vec![next];
            }
            Ok(written)
        })
    }

    /// Frozen factors from public text: the leading right (rows of `A`) and left (columns of `B`) singular
    /// vectors of the gradient of each module's weight, in the layout of [`AdapterSpec::slots`].
    ///
    /// The gradient is a sum over up to eight batches of sixteen blocks drawn by `seed`. Our own kernels compute it,
    /// wherever the engine does: it is that of whole weights, and made once for a task.
    pub fn gradient_factors(
        &self,
        spec: &AdapterSpec,
        public: &Blocks,
        seed: [u8; 32],
    ) -> Result<Vec<f32>, TrainError> {
        let longest = check_blocks(&self.base, public)?;
        let places = AdapterLayout::new(&self.base, spec)?;
        on_threads(self.compute.threads, &mut go_on, |_| {
            let mut rng = ChaCha20Rng::from_seed(seed);
            let mut gradients = WeightGradients::default();
            for (at, slots) in places.layers().zip(spec.slots()) {
                let len = slots.module.outputs as usize * slots.module.inputs as usize;
                gradients.linears.insert(at, vec![0.0; len]);
            }
            let executor = Executor::new(self.setup(), longest);
            let deltas = executor.no_deltas()?;
            let (decoder, mut space) = (executor.decoder(&deltas, Team::current()), Workspace::default());
            for _ in 0..8 {
                let batch = draw(&mut rng, public, 16);
                let targets: usize = batch.iter().map(Sequence::targets).sum();
                let share = 1.0 / targets.max(1) as f32;
                for part in batch.chunks(4) {
                    decoder.gradient(&mut space, part, share, GradientTarget::Weights(&mut gradients))?;
                }
            }
            let mut factors = Vec::with_capacity(spec.frozen_len());
            for (at, slots) in places.layers().zip(spec.slots()) {
                let (outputs, inputs) = (slots.module.outputs as usize, slots.module.inputs as usize);
                let gradient: Vec<f64> = match gradients.linears.remove(&at) {
                    Some(gradient) => gradient.into_iter().map(f64::from).collect(),
                    None => vec![0.0; outputs * inputs],
                };
                let top = top_factors(&gradient, outputs, inputs, spec.rank as usize, &mut rng);
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
}

fn go_on(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn mean(executor: &mut Executor<'_>, deltas: &LoraDeltas<'_>, blocks: &Blocks) -> Result<Loss, TrainError> {
    let (mut total, mut tokens) = (0.0, 0);
    for some in blocks.as_slice().chunks(16) {
        let batch: Vec<Sequence<'_>> = some.iter().map(Sequence::of).collect();
        total += executor.loss(deltas, &batch)?;
        tokens += batch.iter().map(|sequence| sequence.targets() as u64).sum::<u64>();
    }
    Ok(Loss { nats_per_token: total / tokens as f64, tokens })
}
