//! Training of an adapter: it can be stopped and resumed after any micro-batch.
//!
//! Start reading at [`Training::run`]; [`job`] is what it is given and returns, [`optimizer`] the update,
//! [`checkpoint`] its state on disk.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::backend::executor::Executor;
use crate::backend::partial_step::PartialStep;
use crate::backend::setup::Setup;
use crate::checks::check_blocks;
use crate::error::TrainError;
use crate::lora::layout::AdapterLayout;
use crate::model::sample::draw;
use crate::training::checkpoint::{CheckpointError, Progress, Subject};
use crate::training::job::{Job, Step, Trained};
use crate::training::optimizer::Optimizer;
use crate::training::threads::on_threads;

pub mod checkpoint;
pub mod job;
pub mod optimizer;
#[cfg(feature = "pretrain")]
pub mod pretrain;
pub(crate) mod threads;

/// A training in progress; between two calls it is at the end of a step, or between two micro-batches of one.
#[derive(Debug)]
pub struct Training<'a> {
    setup: Setup<'a>,
    job: Job<'a>,
    places: AdapterLayout<'a>,
    executor: Executor<'a>,
    /// As it was after the last whole step: the batch of a partial one is drawn again when that goes on.
    rng: ChaCha20Rng,
    optimizer: Optimizer,
    done: Trained,
    /// The step after those of `done`.
    partial: PartialStep,
    subject: OnceLock<Subject>,
}

impl<'a> Training<'a> {
    /// A training before its first step; fails if the plan is invalid, if adapter, vectors or blocks do not fit
    /// the base, or if the device cannot be used.
    pub(crate) fn new(setup: Setup<'a>, job: Job<'a>) -> Result<Self, TrainError> {
        job.plan.check()?;
        let longest = check_blocks(setup.base, job.blocks)?;
        let places = AdapterLayout::new(setup.base, job.spec)?;
        job.spec.check_frozen(job.frozen)?;
        job.spec.check_trained(job.start)?;
        setup.resident.get(setup.base, setup.compute)?;
        Ok(Self {
            setup,
            job,
            places,
            executor: Executor::new(setup, longest),
            rng: ChaCha20Rng::from_seed(job.seed),
            optimizer: Optimizer::new(job.plan, job.start.len()).with_schedule(job.schedule),
            done: Trained { parameters: job.start.to_vec(), losses: Vec::new(), tokens: 0, examples: 0 },
            partial: PartialStep::default(),
            subject: OnceLock::new(),
        })
    }

    /// Restores the state of a checkpoint: parameters, losses, optimizer state, RNG position, and the sums of a
    /// step's micro-batches. The result then has the same bits as that of a training that never stopped.
    ///
    /// Fails if the checkpoint is damaged, or of another job: the error names what differs.
    pub fn resume(&mut self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        let progress = Progress::read(checkpoint, self.subject())?;
        let Progress { done, optimizer_step, moments, rng_position, partial } = progress;
        let (steps, all) = (u32::try_from(done.losses.len()).unwrap_or(u32::MAX), self.job.plan.local_steps);
        let mut rng = self.rng.clone();
        rng.set_word_pos(rng_position);
        let fits = steps <= all && steps == optimizer_step && done.parameters.len() == self.job.start.len();
        let is_partial = partial != PartialStep::default();
        if !fits || (is_partial && (steps == all || !self.fits(&partial, &mut rng.clone()))) {
            return Err(CheckpointError::Damaged("its numbers do not fit the plan".to_owned()));
        }
        self.optimizer.restore(optimizer_step, moments).map_err(CheckpointError::Damaged)?;
        (self.rng, self.done, self.partial) = (rng, done, partial);
        Ok(())
    }

    /// Whether a partial step can be one of the batch that `rng` draws next.
    fn fits(&self, partial: &PartialStep, rng: &mut ChaCha20Rng) -> bool {
        let batch = draw(rng, self.job.blocks, self.job.plan.batch_size).len();
        let micro_batches = usize::try_from(partial.micro_batches).unwrap_or(usize::MAX);
        let of_all = partial.gradient.is_empty() || partial.gradient.len() == self.job.start.len();
        (1..=partial.sequences).contains(&micro_batches) && partial.sequences < batch && of_all
    }

    /// Serializes the training's state, to resume it in this process or another: as it is after the last
    /// micro-batch or, if a pass failed since, as it was after the last whole step.
    pub fn checkpoint(&self) -> Result<Vec<u8>, CheckpointError> {
        let (optimizer_step, moments) = self.optimizer.state();
        let rng_position = self.rng.get_word_pos();
        let (done, partial) = (self.done.clone(), self.partial.clone());
        Progress { done, optimizer_step, moments, rng_position, partial }.write(self.subject())
    }

    /// Hashes of everything that this job depends on, computed on the first call.
    pub(super) fn subject(&self) -> &Subject {
        self.subject.get_or_init(|| Subject::new(self.setup, &self.job))
    }

    /// Number of whole steps done.
    pub fn steps(&self) -> u32 {
        u32::try_from(self.done.losses.len()).unwrap_or(u32::MAX)
    }

    /// Number of micro-batches done of the step after those of [`Self::steps`]; 0 at the end of a step.
    pub fn micro_batches(&self) -> u32 {
        self.partial.micro_batches
    }

    /// Trains until `steps` steps are done in all, or those of the plan.
    ///
    /// `progress` is called after every micro-batch and may end the training, which then fails with
    /// [`TrainError::Stopped`]; the next call goes on with the next micro-batch. Fails with
    /// [`TrainError::Diverged`] if loss, gradient or adapter are not finite.
    pub fn run(
        &mut self,
        steps: u32,
        progress: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        let last = steps.min(self.job.plan.local_steps);
        on_threads(self.setup.compute.threads, progress, |report| {
            while self.steps() < last {
                self.step(report)?;
            }
            Ok(())
        })
    }

    /// Trains one micro-batch, so that each can be followed by a checkpoint; `None` if the plan's steps are done.
    /// Fails like [`Self::run`], but is not stopped.
    ///
    /// It does a little more than a micro-batch of [`Self::run`]: threads are started, and the adapter is put on
    /// the device.
    pub fn advance(&mut self) -> Result<Option<Step>, TrainError> {
        let mut done = None;
        let mut stop = |step| {
            done = Some(step);
            ControlFlow::Break(())
        };
        match self.run(u32::MAX, &mut stop) {
            Ok(()) | Err(TrainError::Stopped { .. }) => Ok(done),
            Err(error) => Err(error),
        }
    }

    fn step(&mut self, report: &mut (dyn FnMut(Step) -> ControlFlow<()> + Send)) -> Result<(), TrainError> {
        let (job, before) = (self.job, self.steps());
        let (step, tokens) = (before + 1, self.done.tokens);
        let said = |micro_batch, micro_batches, loss, tokens| {
            let of = job.plan.local_steps;
            Step { step, of, micro_batch, micro_batches, loss, tokens }
        };
        let mut rng = self.rng.clone();
        let batch = draw(&mut rng, job.blocks, job.plan.batch_size);
        // Not of every micro-batch: they may be folded into weights, or copied to a device.
        let deltas = self.executor.deltas(&self.places, job.frozen, &self.done.parameters)?;
        let last_loss = self.done.losses.last().copied().unwrap_or(f32::NAN);
        let (mut partial, len) = (std::mem::take(&mut self.partial), self.places.trained_len());
        let computed = self.executor.gradient(&deltas, len, &batch, &mut partial, |done, of| {
            report(said(done, of, last_loss, tokens)).is_continue()
        })?;
        let Some((loss, mut gradient)) = computed else {
            self.partial = partial;
            return Err(TrainError::Stopped { steps: before });
        };
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step, what: "loss" });
        }
        drop(deltas);
        let diverged = |what| TrainError::Diverged { step, what };
        self.optimizer.step(&mut self.done.parameters, &mut gradient).map_err(diverged)?;
        self.rng = rng;
        self.done.losses.push(loss);
        let targets = batch.iter().map(|sequence| sequence.targets() as u64).sum();
        self.done.tokens = self.done.tokens.saturating_add(targets);
        let examples = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.done.examples = self.done.examples.saturating_add(examples);
        let all = partial.micro_batches;
        if report(said(all, all, loss, self.done.tokens)).is_break() && step < job.plan.local_steps {
            return Err(TrainError::Stopped { steps: step });
        }
        Ok(())
    }

    /// The result of the whole steps so far.
    pub fn finish(self) -> Trained {
        self.done
    }
}
