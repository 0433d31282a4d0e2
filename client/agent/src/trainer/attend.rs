//! What the daemon makes of the messages of a training: checkpoints are sealed, the end is checked, everything else is a
//! fault.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use client::{TrainerError, TrainerFault, TrainingEnd, TrainingJob};
use proto::metrics::Gains;
use proto::plan::vector_to_bytes;
use proto::shown::shown;
use session::policy::Breach;
use session::update::Update;
use zeroize::Zeroizing;

use super::conversation::{Ended, Requests};
use super::message::{
    Asked, DeviceClass, Hello, Kind, Limit, Part, Read, ReadText, Refused, Said, Train, Trained,
    VersionBefore,
};
use super::parts::{Assembly, parts};
use super::{ChildTrainer, StartError, nonsense};

/// For a training that its trainer could not do.
const NOT_TRAINED: &str = "the trainer cannot train this with the base and the text that are there; `nightshift-agent train` says more";

/// For text that the trainer could not use, where all that is named is there.
const NO_TEXT: &str = "the text of `data` cannot be read, or nothing of it can be used; `nightshift-agent data check` says more";

/// How much longer than the user allows a trainer may take that does not see by itself that its time is over.
const OVERTIME: Duration = Duration::from_secs(10 * 60);

/// Trains in a child process, and says how that ended.
pub(super) fn attend(trainer: &ChildTrainer, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
    let task = match Attended::new(job) {
        Ok(attended) => attended.train(trainer),
        Err(why) => return Ok(TrainingEnd::NotTrained(why)),
    };
    match task {
        Ok(End::Training(end)) => Ok(end),
        Ok(End::NoText(why)) => {
            job.recorder.delete("its text cannot be read any more");
            Err(TrainerError::new(absent(&trainer.settings.data).unwrap_or(why)))
        }
        Err(fault) => Ok(TrainingEnd::Failed(fault)),
    }
}

impl ChildTrainer {
    /// Whether there is text to train on, as a trainer says that lives for this alone. Fails, in words without any text, where
    /// there is none.
    pub fn look_at_text(&self) -> Result<(), StartError> {
        let no_text = |why: String| StartError::NoText(absent(&self.settings.data).unwrap_or(why));
        let Some(base) = self.bases.first() else {
            return absent(&self.settings.data).map_or(Ok(()), |why| Err(no_text(why)));
        };
        let requests: Requests<'_> = Box::new(|send| send(Asked::ReadText(ReadText {})));
        let documents = self.ask(&base.path, None, requests, &|_| {}, |said| match said {
            Said::Read(read) => Some(read.documents),
            Said::NoText(_) => Some(0),
            Said::Hello(_)
            | Said::Alive(_)
            | Said::Described(_)
            | Said::Measured(_)
            | Said::Part(_)
            | Said::Forget(_)
            | Said::Trained(_)
            | Said::NotTrained(_)
            | Said::Refused(_)
            | Said::Left(_)
            | Said::Unusable(_)
            | Said::Probed(_)
            | Said::Unprotected(_) => None,
        })?;
        // What a process says that has read the user's text goes nowhere.
        if documents == 0 { Err(no_text(NO_TEXT.to_owned())) } else { Ok(()) }
    }
}

/// What is named and is not there, of the user's text: nothing of that is read here.
fn absent(data: &[PathBuf]) -> Option<String> {
    let gone = data.iter().filter(|path| path.try_exists().is_ok_and(|exists| !exists));
    let gone: Vec<String> = gone.map(|path| shown(&path.to_string_lossy()).to_string()).collect();
    let (one, verb) = (gone.join(", "), if gone.len() == 1 { "is" } else { "are" });
    (!gone.is_empty()).then(|| format!("{one} {verb} not there"))
}

/// How a training ended, or that there is no text for it.
enum End {
    Training(TrainingEnd),
    NoText(String),
}

/// A training, as the daemon sees it.
struct Attended<'a> {
    job: &'a TrainingJob<'a>,
    /// The parameters that it begins with.
    start: Vec<f32>,
    frozen: Vec<f32>,
    folded: Vec<f32>,
    plan: Vec<u8>,
    published: Vec<u8>,
    assembly: Assembly,
    /// The parameters after the last step, until it is said how they came to be.
    parameters: Option<Zeroizing<Vec<u8>>>,
    /// What a training that leaves has come to.
    newest: Option<Zeroizing<Vec<u8>>>,
    has_read: bool,
}

impl<'a> Attended<'a> {
    /// Fails, in words, where the work cannot be told to a trainer, which the plan's check rules out.
    fn new(job: &'a TrainingJob<'a>) -> Result<Self, String> {
        let work = job.work;
        let state = work.training().map_err(|error| error.to_string())?;
        Ok(Self {
            job,
            start: state.trained.clone(),
            frozen: work.state.frozen.clone(),
            folded: work.state.folded.to_vector(),
            plan: work.plan.to_bytes().map_err(|error| error.to_string())?,
            published: serde_json::to_vec(&work.published).map_err(|error| error.to_string())?,
            assembly: Assembly::default(),
            parameters: None,
            newest: None,
            has_read: false,
        })
    }

    fn train(mut self, trainer: &ChildTrainer) -> Result<End, TrainerFault> {
        let (job, plan) = (self.job, &self.job.work.plan.training);
        let checkpoint = job.recorder.open(&job.work.published);
        let train = self.request(checkpoint.as_deref());
        let mut vectors = vec![
            (Kind::Frozen, Zeroizing::new(vector_to_bytes(&self.frozen))),
            (Kind::Folded, Zeroizing::new(vector_to_bytes(&self.folded))),
            (Kind::Parameters, Zeroizing::new(vector_to_bytes(&job.work.state.trained))),
        ];
        if let Some(before) = &job.work.before {
            vectors.push((Kind::FrozenBefore, Zeroizing::new(vector_to_bytes(&before.frozen))));
            vectors.push((Kind::FoldedBefore, Zeroizing::new(vector_to_bytes(&before.folded.to_vector()))));
            vectors.push((Kind::ParametersBefore, Zeroizing::new(vector_to_bytes(&before.trained))));
        }
        let requests: Requests<'_> = Box::new(move |send| {
            send(Asked::Train(train))?;
            let mut in_parts = |kind, bytes: &[u8]| -> io::Result<()> {
                parts(kind, bytes).try_for_each(|part| send(Asked::Part(part)))
            };
            for (kind, bytes) in vectors {
                in_parts(kind, &bytes)?;
            }
            checkpoint.map_or(Ok(()), |clear| in_parts(Kind::Checkpoint, &clear))
        });
        let size = |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX);
        let base = self.job.work.plan.base;
        let beside = client::Trainer::training_bytes(
            trainer,
            base,
            self.start.len(),
            size(plan.batch_size),
            size(plan.sequence_len),
        );
        let must_leave = || job.must_leave() || is_overtime(job).is_err();
        let heard = |hello: &Hello| tracing::debug!(missing = hello.missing.len(), "the trainer is shut in");
        let most = trainer.most_memory(base, beside);
        let ended = trainer.converse(
            trainer.path(base)?,
            Some(most),
            requests,
            &must_leave,
            &heard,
            &mut |said| self.hear(said),
        )?;
        if let Err(breach) = is_overtime(job) {
            job.recorder.delete("its training is over");
            return Ok(End::Training(TrainingEnd::Refused(breach)));
        }
        match ended {
            Ended::Said(end) => Ok(end),
            Ended::Left => Ok(End::Training(TrainingEnd::NotTrained(
                "it was interrupted, and goes on from what was kept last".to_owned(),
            ))),
        }
    }

    fn request(&self, checkpoint: Option<&Vec<u8>>) -> Train {
        let (job, policy) = (self.job, self.job.policy);
        let size = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Train {
            plan: self.plan.clone(),
            published: self.published.clone(),
            class: job.work.class.map(|class| DeviceClass { rank: class.rank, layers: class.layers }),
            seed: job.seed.to_vec(),
            elapsed_millis: u64::try_from((job.elapsed)().as_millis()).unwrap_or(u64::MAX),
            longest_training_minutes: policy.longest_training_minutes,
            largest_memory_mib: policy.largest_memory_mib,
            frozen: size(self.frozen.len()),
            folded: size(self.folded.len()),
            trained: size(job.work.state.trained.len()),
            checkpoint: checkpoint.map(|clear| size(clear.len())),
            before: job.work.before.as_ref().map(|before| VersionBefore {
                turn: u32::from(before.spec.method != job.work.plan.adapter.method.at(0)),
                frozen: size(before.frozen.len()),
                folded: size(before.folded.to_vector().len()),
                trained: size(before.trained.len()),
            }),
        }
    }

    /// Takes a message; gives how the training ended where it did.
    fn hear(&mut self, said: Said) -> Result<ControlFlow<End>, TrainerFault> {
        if self.assembly.is_in_parts() && !matches!(said, Said::Part(_)) {
            return Err(nonsense("something else among the parts of one thing"));
        }
        let end = |end| Ok(ControlFlow::Break(End::Training(end)));
        match said {
            Said::Alive(alive) => {
                self.job.recorder.at_step(alive.step);
                Ok(ControlFlow::Continue(()))
            }
            Said::Read(read) if !self.has_read => {
                self.has_read = true;
                report(read);
                Ok(ControlFlow::Continue(()))
            }
            Said::Part(part) => self.take_part(part).map(ControlFlow::Continue),
            Said::Forget(_) => {
                self.job.recorder.delete("its trainer has no more use for it");
                Ok(ControlFlow::Continue(()))
            }
            Said::Trained(trained) => {
                let update = self.update(trained)?;
                self.job.recorder.delete("its training is over");
                end(TrainingEnd::Trained(update))
            }
            // What a process says that has read the user's text goes nowhere: it is said where to look.
            Said::NotTrained(_) | Said::Unusable(_) => end(TrainingEnd::NotTrained(NOT_TRAINED.to_owned())),
            Said::Refused(refused) => end(TrainingEnd::Refused(breach(refused)?)),
            Said::NoText(_) => Ok(ControlFlow::Break(End::NoText(NO_TEXT.to_owned()))),
            Said::Left(left) => {
                if let Some(clear) = self.newest.take() {
                    self.job.recorder.keep(&self.job.work.published, &clear);
                }
                end(TrainingEnd::NotTrained(match left.steps {
                    Some(step) => format!("it was interrupted after step {step} and goes on from there"),
                    None => "it was interrupted before its first step".to_owned(),
                }))
            }
            Said::Hello(_)
            | Said::Described(_)
            | Said::Measured(_)
            | Said::Read(_)
            | Said::Probed(_)
            | Said::Unprotected(_) => Err(nonsense("a message that does not belong to a training")),
        }
    }

    fn take_part(&mut self, part: Part) -> Result<(), TrainerFault> {
        let (found, expected) = (part.bytes.len() / 4, self.start.len());
        let is_of_parameters = part.kind == i32::from(Kind::Parameters);
        let numbers = u64::try_from(expected).unwrap_or(u64::MAX);
        let steps = u64::from(self.job.work.plan.training.local_steps);
        // Parameters, two moments, a gradient and what a base's checkpoint may add, a loss for each step, and a header.
        let checkpoint =
            numbers.saturating_mul(32).saturating_add(steps.saturating_mul(16)).saturating_add(1 << 20);
        let most = |kind| match kind {
            Kind::Parameters => Some(numbers.saturating_mul(4)),
            Kind::Checkpoint | Kind::Newest => Some(checkpoint),
            Kind::None
            | Kind::Frozen
            | Kind::Folded
            | Kind::FrozenBefore
            | Kind::FoldedBefore
            | Kind::ParametersBefore => None,
        };
        let whole = self.assembly.add(part, most).map_err(|error| {
            if is_of_parameters && found > expected {
                TrainerFault::WrongLength { found, expected }
            } else {
                TrainerFault::Nonsense(error.to_string())
            }
        })?;
        match whole {
            None => {}
            Some((Kind::Parameters, bytes)) => self.parameters = Some(bytes),
            Some((Kind::Newest, clear)) => self.newest = Some(clear),
            Some((_, clear)) => self.job.recorder.keep(&self.job.work.published, &clear),
        }
        Ok(())
    }

    /// The update that the parameters are; fails where they are none of this training.
    fn update(&mut self, trained: Trained) -> Result<Update, TrainerFault> {
        let Some(bytes) = self.parameters.take() else {
            return Err(nonsense("that it trained, without what came of it"));
        };
        let wrong = |found| TrainerFault::WrongLength { found, expected: self.start.len() };
        let (numbers, rest) = bytes.as_chunks::<4>();
        if numbers.len() != self.start.len() || !rest.is_empty() {
            return Err(wrong(bytes.len() / 4));
        }
        let parameters: Zeroizing<Vec<f32>> =
            Zeroizing::new(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect());
        let plan = &self.job.work.plan.training;
        if u64::from(trained.examples) > u64::from(plan.local_steps) * u64::from(plan.batch_size) {
            return Err(nonsense("more examples than the plan has"));
        }
        if !trained.loss.is_finite() {
            return Err(TrainerFault::NotFinite);
        }
        let Trained { over_before, over_base, .. } = trained;
        if [over_before, over_base].into_iter().flatten().any(|gain| !gain.is_finite()) {
            return Err(TrainerFault::NotFinite);
        }
        let update = Update::between(&self.start, &parameters, trained.loss, trained.examples);
        let update = update.ok_or(TrainerFault::NotFinite)?;
        Ok(update.with_gains(Gains { over_before, over_base }))
    }
}

/// Whether a training takes much longer than the user allows; its trainer should have seen it before.
fn is_overtime(job: &TrainingJob<'_>) -> Result<(), Breach> {
    job.policy.time((job.elapsed)().saturating_sub(OVERTIME))
}

fn breach(refused: Refused) -> Result<Breach, TrainerFault> {
    let Refused { limit, found, most } = refused;
    match Limit::try_from(limit) {
        Ok(Limit::Time) => Ok(Breach::Time {
            found,
            most: u32::try_from(most).map_err(|_| nonsense("a limit that is none"))?,
        }),
        Ok(Limit::Memory) => Ok(Breach::Memory { needed_mib: found, most_mib: most }),
        Ok(Limit::FreeMemory) => Ok(Breach::FreeMemory { needed_mib: found, free_mib: most }),
        Ok(Limit::None) | Err(_) => Err(nonsense("a limit that is none")),
    }
}

/// Says how much was read, by numbers only.
fn report(read: Read) {
    tracing::info!(
        files = read.files,
        documents = read.documents,
        with_roles = read.with_roles,
        duplicates = read.duplicates,
        surplus = read.surplus,
        secret_looking = read.secret_looking,
        skipped_lines = read.skipped_lines,
        unread_files = read.unread_files,
        "read the user's text"
    );
    if read.refused > 0 {
        tracing::warn!(
            conversations = read.refused,
            "conversations are left out, which `nightshift-agent data check` gives the reasons of"
        );
    }
    if read.as_letters > 0 {
        tracing::warn!(documents = read.as_letters, "control tokens in the text are read as letters");
    }
    if read.without_thoughts > 0 {
        let conversations = read.without_thoughts;
        tracing::info!(conversations, "the chat template leaves out the thoughts of earlier turns");
    }
}

#[cfg(test)]
mod tests;
