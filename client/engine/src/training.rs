//! Training of an adapter, step by step: it can be stopped and resumed after any of them.
//!
//! Start reading at [`Training::run`]; [`job`] is what it is given and returns, [`optimizer`] the update,
//! [`checkpoint`] its state on disk.

use std::ops::ControlFlow;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::backend::executor::Executor;
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

/// A training in progress; between two calls it is always at the end of a whole step.
#[derive(Debug)]
pub struct Training<'a> {
    setup: Setup<'a>,
    job: Job<'a>,
    places: AdapterLayout<'a>,
    executor: Executor<'a>,
    rng: ChaCha20Rng,
    optimizer: Optimizer,
    done: Trained,
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
        })
    }

    /// Restores the state of a checkpoint: parameters, losses, optimizer state and RNG position. The result
    /// then has the same bits as that of a training that never stopped.
    ///
    /// Fails if the checkpoint is damaged, or of another job: the error names what differs.
    pub fn resume(&mut self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        let progress = Progress::read(checkpoint, &self.subject())?;
        let Progress { done, optimizer_step, moments, rng_position } = progress;
        let steps = u32::try_from(done.losses.len()).unwrap_or(u32::MAX);
        let fits = steps <= self.job.plan.local_steps && steps == optimizer_step;
        if !fits || done.parameters.len() != self.job.start.len() {
            return Err(CheckpointError::Damaged("its numbers do not fit the plan".to_owned()));
        }
        self.optimizer.restore(optimizer_step, moments).map_err(CheckpointError::Damaged)?;
        self.rng.set_word_pos(rng_position);
        self.done = done;
        Ok(())
    }

    /// Serializes the training's state, to resume it in this process or another.
    pub fn checkpoint(&self) -> Result<Vec<u8>, CheckpointError> {
        let (optimizer_step, moments) = self.optimizer.state();
        let rng_position = self.rng.get_word_pos();
        let progress = Progress { done: self.done.clone(), optimizer_step, moments, rng_position };
        progress.write(&self.subject())
    }

    /// Hashes of everything that this job depends on.
    pub(super) fn subject(&self) -> Subject {
        Subject::new(self.setup, &self.job)
    }

    /// Number of steps done.
    pub fn steps(&self) -> u32 {
        u32::try_from(self.done.losses.len()).unwrap_or(u32::MAX)
    }

    /// Trains until `steps` steps are done in all, or those of the plan.
    ///
    /// `progress` is called after every micro-batch and may end the training, which then fails with
    /// [`TrainError::Stopped`] and can continue from its last whole step. Fails with [`TrainError::Diverged`]
    /// if loss, gradient or adapter are not finite.
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

    fn step(&mut self, report: &mut (dyn FnMut(Step) -> ControlFlow<()> + Send)) -> Result<(), TrainError> {
        let (job, before) = (self.job, self.steps());
        let (step, tokens) = (before + 1, self.done.tokens);
        let said = |micro_batch, micro_batches, loss, tokens| {
            let of = job.plan.local_steps;
            Step { step, of, micro_batch, micro_batches, loss, tokens }
        };
        let position = self.rng.get_word_pos();
        let batch = draw(&mut self.rng, job.blocks, job.plan.batch_size);
        let deltas = self.executor.deltas(&self.places, job.frozen, &self.done.parameters)?;
        let last_loss = self.done.losses.last().copied().unwrap_or(f32::NAN);
        let mut parts = 1;
        let computed = self.executor.gradient(&deltas, self.places.trained_len(), &batch, |done, of| {
            parts = of;
            report(said(done, of, last_loss, tokens)).is_continue()
        })?;
        let Some((loss, mut gradient)) = computed else {
            self.rng.set_word_pos(position);
            return Err(TrainError::Stopped { steps: before });
        };
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step, what: "loss" });
        }
        drop(deltas);
        let diverged = |what| TrainError::Diverged { step, what };
        self.optimizer.step(&mut self.done.parameters, &mut gradient).map_err(diverged)?;
        self.done.losses.push(loss);
        let targets = batch.iter().map(|sequence| sequence.targets() as u64).sum();
        self.done.tokens = self.done.tokens.saturating_add(targets);
        let examples = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.done.examples = self.done.examples.saturating_add(examples);
        if report(said(parts, parts, loss, self.done.tokens)).is_break() && step < job.plan.local_steps {
            return Err(TrainError::Stopped { steps: step });
        }
        Ok(())
    }

    /// The result so far.
    pub fn finish(self) -> Trained {
        self.done
    }
}
