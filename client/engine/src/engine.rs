//! The engine: trains and evaluates adapters of one base, and generates with them.
//!
//! Start reading at [`Engine::train`].

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::adapter::{AdapterSpec, Folded, Slot, State};
use proto::metrics::Gains;
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

/// Trains and evaluates adapters of one base, and generates with them; cheap to clone and share between
/// threads.
///
/// With our own kernels the result of a call has the same bits for any number of threads and whatever runs
/// beside it.
#[derive(Clone, Debug)]
pub struct Engine {
    base: Arc<Base>,
    /// Folded LoRA deltas of a task's earlier epochs.
    folded_deltas: Arc<FoldedDeltas>,
    compute: Compute,
    resident: Resident,
}

/// A mean loss, and the number of its tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Mean cross-entropy over the target tokens, in nats.
    pub nats_per_token: f64,
    /// Target tokens, those that count in the loss.
    pub tokens: u64,
}

impl Engine {
    /// An engine for adapters of `base`, with our own kernels on one thread.
    pub fn new(base: Arc<Base>) -> Self {
        Self {
            base,
            folded_deltas: Arc::default(),
            compute: Compute::default(),
            resident: Resident::default(),
        }
    }

    /// The same engine with other compute settings. A device that cannot be used fails in the first call that
    /// computes, or in [`Self::prepare`].
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Self { compute, resident: Resident::default(), ..self }
    }

    /// Opens the device and copies the base's weights to it, once for this engine and those made from it; does
    /// nothing with our own kernels. Fails if the device cannot be opened, or the base does not fit it.
    pub fn prepare(&self) -> Result<(), TrainError> {
        self.resident.get(&self.base, self.compute)?;
        Ok(())
    }

    /// What an executor needs of this engine.
    pub(crate) fn setup(&self) -> Setup<'_> {
        Setup {
            base: &self.base,
            folded_deltas: &self.folded_deltas,
            compute: self.compute,
            resident: &self.resident,
        }
    }

    /// An engine of the same base with folded LoRA deltas: each layer in `folded` becomes `W + B · A`. Fails if
    /// the base lacks a layer, or has it in another shape.
    pub fn with_folded(&self, folded: &Folded) -> Result<Self, TrainError> {
        let folded_deltas = Arc::new(folded_deltas(&self.base, folded)?);
        Ok(Self { folded_deltas, ..self.clone() })
    }

    /// The compute settings.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// The base whose adapters it trains.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// A training before its first step; fails if the job does not fit the base, or the device cannot be used.
    pub fn begin<'a>(&'a self, job: Job<'a>) -> Result<Training<'a>, TrainError> {
        Training::new(self.setup(), job)
    }

    /// Trains an adapter by `plan` from `start`, on batches sampled from `blocks` with `seed`; same arguments,
    /// same bits.
    ///
    /// `progress` is called after every micro-batch and may end the training, which then fails with
    /// [`TrainError::Stopped`]. Fails otherwise like [`Self::begin`] and [`Training::run`].
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

    /// The adapter's mean loss over the target tokens of `blocks`; fails if adapter, vectors or blocks do not
    /// fit the base.
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

    /// By how much an adapter's mean loss over the target tokens of `blocks` is lower than that of the version `before`,
    /// and, where `over_base`, than that of the base, in nats a token. `blocks` should be text that none was trained on;
    /// where there is none, nothing is told.
    ///
    /// `go_on` is asked before each sequence of each model, and told no, nothing is measured (`None`). Fails if an adapter or
    /// the blocks do not fit the base. The engine must have nothing folded in.
    pub fn gains(
        &self,
        now: &State,
        before: Option<&State>,
        over_base: bool,
        blocks: &Blocks,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Gains>, TrainError> {
        if blocks.is_empty() || !(over_base || before.is_some()) {
            return Ok(Some(Gains::default()));
        }
        let mean = |state: Option<&State>| -> Result<Option<f64>, TrainError> {
            let engine = state.map(|state| self.with_folded(&state.folded)).transpose()?;
            let (mut sum, mut tokens) = (0.0, 0);
            for at in 0..blocks.len() {
                if !go_on() {
                    return Ok(None);
                }
                let one = blocks.some(at, 1);
                let loss = match (&engine, state) {
                    (Some(engine), Some(state)) => {
                        engine.loss(&state.spec, &state.frozen, &state.trained, &one)?
                    }
                    (Some(_) | None, _) => self.base_loss(&one)?,
                };
                sum += loss.nats_per_token * loss.tokens as f64;
                tokens += loss.tokens;
            }
            Ok(Some(sum / tokens.max(1) as f64))
        };
        let Some(now) = mean(Some(now))? else { return Ok(None) };
        // An adapter whose loss is no number is worse than any.
        let over = |loss: f64| match (now.is_finite(), loss.is_finite()) {
            (true, true) => loss - now,
            (false, _) => f64::MIN,
            (true, false) => f64::MAX,
        };
        let mut gains = Gains::default();
        if let Some(before) = before {
            let Some(loss) = mean(Some(before))? else { return Ok(None) };
            gains.over_before = Some(over(loss));
        }
        if over_base {
            let Some(loss) = mean(None)? else { return Ok(None) };
            gains.over_base = Some(over(loss));
        }
        Ok(Some(gains))
    }

    /// The base's own mean loss over the target tokens of `blocks`; fails if they do not fit the base.
    pub fn base_loss(&self, blocks: &Blocks) -> Result<Loss, TrainError> {
        let longest = check_blocks(&self.base, blocks)?;
        self.prepare()?;
        on_threads(self.compute.threads, &mut go_on, |_| {
            let mut executor = Executor::new(self.setup(), longest);
            let deltas = executor.no_deltas()?;
            mean(&mut executor, &deltas, blocks)
        })
    }

    /// The base's logits after each of `tokens`: (tokens, vocab); fails if the tokens do not fit the base.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
        check_tokens(&self.base, tokens)?;
        self.prepare()?;
        on_threads(self.compute.threads, &mut go_on, |_| {
            let mut executor = Executor::new(self.setup(), tokens.len());
            let deltas = executor.no_deltas()?;
            Ok(DecodeSession::new(&mut executor, &deltas)?.logits(tokens, LogitsFor::All)?)
        })
    }

    /// Generates tokens after `prompt` with the base and an adapter, at most `most` and at most to the base's
    /// longest sequence. `choose` picks each from the logits after the last token, (vocab), or ends generation
    /// with `None`. Fails if the prompt is empty, or prompt or adapter do not fit the base.
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
    /// The gradient is a sum over eight batches of at most sixteen blocks, sampled with `seed`. Our own kernels
    /// compute it on any backend: it is that of whole weights, and computed once for a task.
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
