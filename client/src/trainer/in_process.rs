//! Training in this process: step by step, kept when it is interrupted, gone on with when it may go on.

use std::path::PathBuf;
use std::time::Duration;

use engine::{BatchShape, Engine, Job, Projection, Schedule, TrainError, Trained, Training};
use proto::adapter::State;
use proto::ids::Digest;
use proto::metrics::Gains;
use proto::shown::shown;
use session::policy::Breach;
use session::update::Update;
use text::{Corpus, ReadOptions, TextError, UserText};
use zeroize::Zeroizing;

use super::{Trainer, TrainerError, TrainingEnd, TrainingJob, measured};

/// Steps between two checkpoints, so that a crash costs no more.
const KEPT_EVERY: u32 = 20;

/// Steps after which the time of all of them is estimated: the first of them also warms caches.
const ESTIMATED_AFTER: u32 = 3;

/// An engine in this process, and where the user's text is.
#[derive(Clone, Debug)]
pub struct InProcess {
    engine: Engine,
    data: Vec<PathBuf>,
    reading: ReadOptions,
}

impl InProcess {
    /// Trains with `engine` on the text of these files and folders; what is in them is read anew for each training.
    ///
    /// Fails with [`NoData`] where none is named.
    pub fn new(engine: Engine, data: Vec<PathBuf>, reading: ReadOptions) -> Result<Self, NoData> {
        if data.is_empty() { Err(NoData) } else { Ok(Self { engine, data, reading }) }
    }

    /// Trains like [`Trainer::train`], and gives the parameters themselves: for a process that trains for another one,
    /// which makes the update of them.
    pub fn train_parameters(&self, job: &TrainingJob<'_>) -> Result<LocalEnd, TrainerError> {
        let text = Text { data: &self.data, reading: &self.reading };
        read_and_train(&self.engine, &text, job).map_err(TrainerError::new)
    }
}

/// How a training in this process ended.
#[derive(Clone, Debug)]
pub enum LocalEnd {
    /// All steps are done; and what the version that it began with gained, where the plan asks.
    Trained(Trained, Gains),
    /// Nothing came of it, for this reason; it may be tried again.
    NotTrained(String),
    /// The user's limits forbid it.
    Refused(Breach),
}

impl LocalEnd {
    /// The same with the update that the parameters are.
    fn with_update(self, job: &TrainingJob<'_>) -> TrainingEnd {
        match self {
            Self::Trained(trained, gains) => match job.work.training() {
                Ok(state) => {
                    let loss = trained.mean_loss();
                    match Update::between(&state.trained, &trained.parameters, loss, trained.examples) {
                        Some(update) => TrainingEnd::Trained(update.with_gains(gains)),
                        None => TrainingEnd::NotTrained("the training gave no finite update".to_owned()),
                    }
                }
                Err(error) => TrainingEnd::NotTrained(error.to_string()),
            },
            Self::NotTrained(why) => TrainingEnd::NotTrained(why),
            Self::Refused(breach) => TrainingEnd::Refused(breach),
        }
    }
}

/// There is nothing to train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no text: name files or folders by `data` in the configuration or by --data")]
pub struct NoData;

impl Trainer for InProcess {
    fn bases(&self) -> Vec<Digest> {
        vec![self.engine.base().digest()]
    }

    fn layers(&self, _: Digest) -> Vec<String> {
        self.engine.base().modules(&Projection::ALL).into_iter().map(|module| module.name).collect()
    }

    fn training_bytes(&self, _: Digest, trained: usize, batch: usize, length: usize) -> u64 {
        self.engine.compute().training_bytes(
            self.engine.base(),
            trained,
            BatchShape { batch_size: batch, sequence_len: length },
        )
    }

    fn train(&self, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
        Ok(self.train_parameters(job)?.with_update(job))
    }
}

/// Where the user's text is, and how it is read.
#[derive(Clone, Copy, Debug)]
struct Text<'a> {
    data: &'a [PathBuf],
    reading: &'a ReadOptions,
}

/// Reads the text and trains on it, all on this thread, until the agent must leave. Fails where there is no text that
/// can be used; what was trained on it before is then not kept any longer.
fn read_and_train(engine: &Engine, text: &Text<'_>, job: &TrainingJob<'_>) -> Result<LocalEnd, TextError> {
    let done = read_then_train(engine, text, job);
    if done.is_err() {
        job.recorder.delete("its text cannot be read any more");
    }
    done
}

fn read_then_train(engine: &Engine, text: &Text<'_>, job: &TrainingJob<'_>) -> Result<LocalEnd, TextError> {
    // What is written by the chat template of a base counts as the training does: a template can be slow on purpose.
    let go_on = || {
        job.recorder.goes_on();
        !job.must_leave() && job.policy.time((job.elapsed)()).is_ok()
    };
    let left = || match job.policy.time((job.elapsed)()) {
        Err(breach) => LocalEnd::Refused(breach),
        Ok(()) => LocalEnd::NotTrained("it was interrupted before its first step".to_owned()),
    };
    let Some(read) = UserText::read_while(text.data, text.reading, &go_on)? else { return Ok(left()) };
    let Some(corpus) = Corpus::new_while(engine.base(), &read, &go_on)? else { return Ok(left()) };
    job.recorder.has_read(read.reading(), corpus.notes());
    Ok(train(engine, &corpus, job))
}

/// Trains on this thread; what is the user's stays in here, and sealed in the checkpoint.
fn train(engine: &Engine, corpus: &Corpus, job: &TrainingJob<'_>) -> LocalEnd {
    let TrainingJob { work, seed, recorder, .. } = *job;
    let state = match work.training() {
        Ok(state) => state,
        Err(error) => return LocalEnd::NotTrained(error.to_string()),
    };
    let kept = recorder.open(&work.published);
    let (kept, measured) = kept.as_deref().map_or((None, None), |kept| {
        let (training, gains) = measured::split(kept);
        (Some(training), gains)
    });
    // What was measured before the training was interrupted is not measured again.
    let Some(gains) = measured.or_else(|| gains(engine, corpus, job)) else {
        return LocalEnd::NotTrained("it was interrupted before its first step".to_owned());
    };
    // What was measured counts as the training does.
    if measured.is_none()
        && gains != Gains::default()
        && let Err(breach) = job.policy.time((job.elapsed)())
    {
        return LocalEnd::Refused(breach);
    }
    let State { spec, frozen, folded, trained: start } = state.as_ref();
    let (plan, blocks) = (&work.plan.training, corpus.train(work.plan.training.sequence_len));
    let trained = engine.with_folded(folded).and_then(|engine| {
        let schedule = Schedule::Constant;
        let what = Job { spec, frozen, start, blocks: &blocks, plan, schedule, seed };
        steps(engine.begin(what)?, plan.local_steps, job, (kept, gains))
    });
    if matches!(trained, Ok(_) | Err(TrainError::Diverged { .. })) {
        // What diverged would diverge again, and what takes too long would take as long again.
        recorder.delete("its training is over");
    }
    match trained {
        Ok(Ran::TooLong(breach)) => LocalEnd::Refused(breach),
        Ok(Ran::Whole(trained)) => LocalEnd::Trained(trained, gains),
        Err(TrainError::Stopped { steps }) => {
            LocalEnd::NotTrained(format!("it was interrupted after step {steps} and goes on from there"))
        }
        // A version from which nobody can train is judged all the same: nothing was learned, and this was measured.
        Err(TrainError::Diverged { .. }) if gains.over_before.is_some() => {
            let parameters = start.clone();
            LocalEnd::Trained(Trained { parameters, losses: vec![f32::MAX], examples: 0, tokens: 0 }, gains)
        }
        Err(error) => LocalEnd::NotTrained(error.to_string()),
    }
}

/// What the version gained on text that is held out, where the plan asks; each time others of it. `None` where the agent must
/// leave meanwhile. A device that cannot measure it says nothing of it.
fn gains(engine: &Engine, corpus: &Corpus, job: &TrainingJob<'_>) -> Option<Gains> {
    let work = job.work;
    let over_base = work.is_measured_against_base();
    if work.before.is_none() && !over_base {
        return Some(Gains::default());
    }
    let (from, most) = work.measured();
    let held_out = corpus.held_out(work.plan.training.sequence_len).some(from, most);
    let go_on = || {
        job.recorder.goes_on();
        !job.must_leave()
    };
    let measured = engine.gains(&work.state, work.before.as_ref(), over_base, &held_out, &go_on);
    measured.unwrap_or_else(|error| {
        tracing::warn!("what the version gained cannot be measured: {}", shown(&error.to_string()));
        Some(Gains::default())
    })
}

/// What came of the steps of a training.
enum Ran {
    /// All of them.
    Whole(Trained),
    /// They take longer than the user allows.
    TooLong(Breach),
}

/// The time of a training of so many steps, watched from its steps on.
struct Watch<'a> {
    job: &'a TrainingJob<'a>,
    all: u32,
    /// Steps that were done, and the time that had passed, when the watch began.
    begun: (u32, Duration),
}

impl Watch<'_> {
    /// Whether it takes too long, after so many steps: once by an estimate from the mean of the first steps, and, when
    /// the time is over, by what it took.
    fn check(&self, step: u32, is_whole: bool) -> Result<(), Breach> {
        let (policy, (before, begun)) = (self.job.policy, self.begun);
        let (took, done) = ((self.job.elapsed)().saturating_sub(begun), step.saturating_sub(before));
        if is_whole && done == ESTIMATED_AFTER {
            policy.time(took.saturating_mul(self.all) / done)?;
        }
        policy.time(took).map_err(|breach| match policy.time(took.saturating_mul(self.all) / done.max(1)) {
            Err(estimated) => estimated,
            Ok(()) => breach,
        })
    }
}

/// All steps from what was kept on, or those until the agent must leave; what the version gained is kept with them.
fn steps(
    mut training: Training<'_>,
    all: u32,
    job: &TrainingJob<'_>,
    (kept, gains): (Option<&[u8]>, Gains),
) -> Result<Ran, TrainError> {
    let (recorder, published) = (job.recorder, &job.work.published);
    if let Some(kept) = kept {
        match training.resume(kept) {
            Ok(()) => tracing::info!(steps = training.steps(), "training goes on"),
            Err(error) => {
                tracing::info!("{}; training starts over", shown(&error.to_string()));
                recorder.delete("it cannot be gone on from");
            }
        }
    }
    let clear = |training: &Training<'_>| match training.checkpoint().map(Zeroizing::new) {
        Ok(clear) => Some(measured::with(clear, gains)),
        Err(error) => {
            tracing::warn!("{}", shown(&error.to_string()));
            None
        }
    };
    let watch = Watch { job, all, begun: (training.steps(), (job.elapsed)()) };
    let mut kept_at = training.steps();
    // One micro-batch at a time, so that whoever records it can have each.
    while let Some(said) = training.advance()? {
        recorder.goes_on();
        if let Err(breach) = watch.check(said.step, said.is_whole()) {
            return Ok(Ran::TooLong(breach));
        }
        let done = training.steps();
        if done >= all {
            break;
        }
        let leaves = job.must_leave();
        let is_due = said.is_whole() && done.saturating_sub(kept_at) >= KEPT_EVERY;
        if (leaves || is_due)
            && let Some(clear) = clear(&training)
        {
            recorder.keep(published, &clear);
            kept_at = done;
        }
        if leaves {
            return Err(TrainError::Stopped { steps: done });
        }
        recorder.at_step(said.step);
        recorder.did_micro_batch(said, &|| clear(&training));
    }
    Ok(Ran::Whole(training.finish()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use proto::adapter::{AdapterSpec, Factors, Folded, Method};
    use proto::ids::{Digest, TaskId};
    use proto::message::Published;
    use proto::plan::Plan;
    use proto::training::LocalOptimizer;

    use super::*;
    use crate::store::Checkpoint;
    use engine::{Base, Projection};
    use session::Work;
    use session::policy::Policy;
    use std::sync::atomic::AtomicBool;
    use text::Document;

    fn work(base: &Base) -> Work {
        let modules = base.modules(&Projection::ALL);
        let factors = Factors::Seeded(Digest([4; 32]));
        let spec = AdapterSpec { method: Method::FrozenA, rank: 2, alpha: 4.0, factors, modules };
        let mut plan = Plan { base: base.digest(), adapter: spec.clone(), ..Plan::example() };
        (plan.training.local_steps, plan.training.sequence_len) = (45, 8);
        let frozen = spec.seeded_factors(&Digest([4; 32]));
        let start = vec![0.0; spec.trained_len()];
        let state = State::at(&spec, 0, frozen, Folded::default(), &start).unwrap();
        let digest = Digest([2; 32]);
        let published = Published {
            task: TaskId([1; 16]),
            version: 0,
            plan: digest,
            adapter: digest,
            folded: None,
            clip_norm: 1.0,
        };
        let mechanism = Plan::example().mechanism().unwrap();
        Work { published, plan, mechanism, state, adapter: start, class: None, before: None, against: None }
    }

    fn engine() -> Engine {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/reference/base");
        Engine::new(Arc::new(Base::open(&folder).unwrap()))
    }

    #[test]
    fn an_agent_that_must_leave_while_it_reads_trains_nothing_and_leaves_a_checkpoint_as_it_is() {
        let (engine, state) = (engine(), tempfile::tempdir().unwrap());
        let (file, checkpoint) = (state.path().join("text.txt"), Checkpoint::below(state.path()));
        let lines: Vec<String> = (3..40).map(|i| format!("w{i} w{} w{}\n\n", i + 7, 60 - i)).collect();
        std::fs::write(&file, lines.concat()).unwrap();
        let work = work(engine.base());
        let earlier = Zeroizing::new(b"of an earlier night".to_vec());
        checkpoint.keep(&work.published, &earlier).unwrap();
        let run = |data: &Path, leaves: bool| {
            let data = [data.to_owned()];
            let text = Text { data: &data, reading: &ReadOptions::default() };
            let (leave, policy) = (AtomicBool::new(leaves), Policy::default());
            let elapsed = || Duration::ZERO;
            let job = TrainingJob::new(&work, [1; 32], &policy, &elapsed, &checkpoint, &leave);
            read_and_train(&engine, &text, &job)
        };
        let LocalEnd::NotTrained(why) = run(&file, true).unwrap() else { panic!("it did not leave") };
        assert_eq!(why, "it was interrupted before its first step");
        assert_eq!(checkpoint.open(&work.published), Some(earlier));
        let text = UserText::read(std::slice::from_ref(&file), &ReadOptions::default()).unwrap();
        assert!(Corpus::new_while(engine.base(), &text, &|| false).unwrap().is_none());
        assert!(matches!(run(&state.path().join("absent.txt"), false), Err(TextError::Read { .. })));
        assert_eq!(checkpoint.open(&work.published), None, "what is gone is not trained on any more");
        assert!(matches!(run(&file, false).unwrap(), LocalEnd::Trained(..)));
    }

    /// What comes of a training that has all the time there is.
    fn trained(
        engine: &Engine,
        work: &Work,
        corpus: &Corpus,
        seed: u8,
        leaves: bool,
        checkpoint: &Checkpoint,
    ) -> TrainingEnd {
        let (leave, policy) = (AtomicBool::new(leaves), Policy::default());
        let job = TrainingJob::new(work, [seed; 32], &policy, &|| Duration::ZERO, checkpoint, &leave);
        train(engine, corpus, &job).with_update(&job)
    }

    /// What comes of a training of 45 steps that may take a minute, where the clock goes on by so much whenever it is
    /// looked at, once a step; and how often it was looked at.
    fn timed(a_look: Duration) -> (TrainingEnd, u32) {
        let engine = engine();
        let (work, corpus) = (work(engine.base()), corpus(&engine));
        let state = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::below(state.path());
        let (leave, policy) =
            (AtomicBool::new(false), Policy { longest_training_minutes: 1, ..Policy::default() });
        let looks = std::cell::Cell::new(0);
        let elapsed = || {
            looks.set(looks.get() + 1);
            a_look * looks.get()
        };
        let job = TrainingJob::new(&work, [1; 32], &policy, &elapsed, &checkpoint, &leave);
        let event = train(&engine, &corpus, &job).with_update(&job);
        assert!(checkpoint.open(&work.published).is_none(), "what takes too long is not gone on with");
        (event, looks.get())
    }

    #[test]
    fn a_training_that_would_take_too_long_by_its_first_steps_is_declined_with_both_numbers() {
        let (event, looks) = timed(Duration::from_secs(1));
        assert!(matches!(event, TrainingEnd::Trained(_)), "45 seconds are less than a minute: {event:?}");
        assert!(looks >= 45);
        let (event, looks) = timed(Duration::from_secs(2));
        let TrainingEnd::Refused(breach) = event else { panic!("{event:?}") };
        assert_eq!((breach, looks), (Breach::Time { found: 2, most: 1 }, 1 + ESTIMATED_AFTER));
    }

    #[test]
    fn the_time_of_all_steps_is_estimated_once_and_measured_always() {
        let engine = engine();
        let work = work(engine.base());
        let hold = |policy: &Policy, secs: u64, step: u32, is_whole: bool| {
            let elapsed = move || Duration::from_secs(secs);
            let leave = AtomicBool::new(false);
            let checkpoint = Checkpoint::below(Path::new("nowhere"));
            let job = TrainingJob::new(&work, [1; 32], policy, &elapsed, &checkpoint, &leave);
            Watch { job: &job, all: work.plan.training.local_steps, begun: (10, Duration::ZERO) }
                .check(step, is_whole)
        };
        let policy = Policy { longest_training_minutes: 2, ..Policy::default() };
        // By the mean of three steps, of which the first ten are none: 8 s of 3 are 120 s of 45, 9 s are 135.
        assert_eq!(hold(&policy, 8, 13, true), Ok(()));
        assert_eq!(hold(&policy, 9, 13, true), Err(Breach::Time { found: 3, most: 2 }));
        // It is estimated once, after a whole step; later the time itself decides.
        for (secs, step, is_whole) in [(9, 13, false), (9, 12, true), (119, 14, true)] {
            assert_eq!(hold(&policy, secs, step, is_whole), Ok(()), "{secs} s, step {step}");
        }
        assert_eq!(hold(&policy, 121, 30, true), Err(Breach::Time { found: 5, most: 2 }));
        // Even before its first step is whole.
        assert_eq!(hold(&policy, 121, 10, false), Err(Breach::Time { found: 91, most: 2 }));
    }

    #[test]
    fn a_training_in_full_swing_ends_when_its_time_is_over() {
        let engine = engine();
        let (work, corpus) = (work(engine.base()), corpus(&engine));
        let state = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::below(state.path());
        let (leave, policy) =
            (AtomicBool::new(false), Policy { longest_training_minutes: 1, ..Policy::default() });
        // The first looks say that it is quick; then the machine is busy with other things.
        let looks = std::cell::Cell::new(0);
        let elapsed = || {
            looks.set(looks.get() + 1);
            if looks.get() < 20 { Duration::ZERO } else { Duration::from_secs(61) }
        };
        let job = TrainingJob::new(&work, [1; 32], &policy, &elapsed, &checkpoint, &leave);
        let event = train(&engine, &corpus, &job).with_update(&job);
        let TrainingEnd::Refused(breach @ Breach::Time { most: 1, .. }) = event else { panic!("{event:?}") };
        assert_eq!(breach.reason(), proto::message::DeclineReason::Work);
        assert_eq!(looks.get(), 20);
    }

    #[test]
    fn text_that_takes_too_long_to_be_read_ends_the_training() {
        let engine = engine();
        let work = work(engine.base());
        let folder = tempfile::tempdir().unwrap();
        let data = [folder.path().join("text.txt")];
        std::fs::write(&data[0], "one two three\n\nfour five six\n\n").unwrap();
        let reading = ReadOptions::default();
        let text = Text { data: &data, reading: &reading };
        let read = |elapsed: Duration, leaves| {
            let (leave, policy) =
                (AtomicBool::new(leaves), Policy { longest_training_minutes: 1, ..Policy::default() });
            let (elapsed, checkpoint) = (move || elapsed, Checkpoint::below(Path::new("nowhere")));
            let job = TrainingJob::new(&work, [1; 32], &policy, &elapsed, &checkpoint, &leave);
            read_and_train(&engine, &text, &job).unwrap().with_update(&job)
        };
        let over = read(Duration::from_secs(61), false);
        assert!(matches!(over, TrainingEnd::Refused(Breach::Time { found: 2, most: 1 })), "{over:?}");
        let left = read(Duration::ZERO, true);
        assert!(
            matches!(&left, TrainingEnd::NotTrained(why) if why.contains("before its first")),
            "{left:?}"
        );
    }

    #[test]
    fn the_memory_of_a_training_is_known_before_it_begins() {
        let trainer = InProcess::new(engine(), vec!["text".into()], ReadOptions::default()).unwrap();
        let one = trainer.training_bytes(trainer.bases()[0], 100, 1, 8);
        assert!(trainer.training_bytes(trainer.bases()[0], 100, 1, 16) > one);
        let passes = trainer
            .engine
            .compute()
            .needed_bytes(trainer.engine.base(), BatchShape { batch_size: 1, sequence_len: 8 });
        assert_eq!(one, passes + 2000);
        assert_eq!(InProcess::new(engine(), Vec::new(), ReadOptions::default()).unwrap_err(), NoData);
    }

    /// A state folder with the checkpoint of a training that was interrupted after its first step.
    fn interrupted(engine: &Engine, work: &Work, corpus: &Corpus) -> (tempfile::TempDir, Checkpoint) {
        let state = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::below(state.path());
        let event = trained(engine, work, corpus, 1, true, &checkpoint);
        let TrainingEnd::NotTrained(why) = event else { panic!("it did not leave") };
        assert_eq!(why, "it was interrupted after step 1 and goes on from there");
        (state, checkpoint)
    }

    fn corpus(engine: &Engine) -> Corpus {
        let lines = (3..40).map(|i| Document::Plain(format!("w{i} w{} w{}", i + 7, 60 - i)));
        Corpus::new(engine.base(), &UserText::of(lines, &ReadOptions::default())).unwrap()
    }

    #[test]
    fn an_interrupted_training_goes_on_and_gives_the_same_update() {
        let engine = engine();
        let (work, corpus) = (work(engine.base()), corpus(&engine));
        let run = |seed: u8, checkpoint: &Checkpoint| {
            let event = trained(&engine, &work, &corpus, seed, false, checkpoint);
            let TrainingEnd::Trained(update) = event else { panic!("it did not end") };
            update
        };
        let elsewhere = tempfile::tempdir().unwrap();
        let whole = run(1, &Checkpoint::below(elsewhere.path()));
        let (state, checkpoint) = interrupted(&engine, &work, &corpus);
        let file = state.path().join("training.checkpoint");
        let kept = std::fs::read(&file).unwrap();
        assert_eq!(run(1, &checkpoint), whole);
        assert!(!file.exists(), "what is done is not kept");
        assert!(!state.path().join("keys/checkpoint.key").exists(), "nor is its key");
        // One of another training (by its seed here), one whose key is gone, and a damaged one cost only themselves.
        let (state, foreign) = interrupted(&engine, &work, &corpus);
        assert_ne!(run(2, &foreign), whole);
        for bad in [kept.clone(), kept[..kept.len() / 2].to_vec()] {
            std::fs::write(state.path().join("training.checkpoint"), bad).unwrap();
            assert_eq!(run(1, &foreign), whole);
        }
    }

    #[test]
    fn what_was_measured_before_an_interruption_is_not_measured_again() {
        let engine = engine();
        let (work, corpus) = (work(engine.base()), corpus(&engine));
        let (_state, checkpoint) = interrupted(&engine, &work, &corpus);
        let training = checkpoint.open(&work.published).unwrap();
        // Nothing is measured of this version: what comes out is what was kept.
        let gains = Gains { over_before: Some(0.125), over_base: None };
        checkpoint.keep(&work.published, &measured::with(training, gains)).unwrap();
        let (leave, policy) = (AtomicBool::new(true), Policy::default());
        let job = TrainingJob::new(&work, [1; 32], &policy, &|| Duration::ZERO, &checkpoint, &leave);
        assert!(matches!(train(&engine, &corpus, &job), LocalEnd::NotTrained(_)));
        let leave = AtomicBool::new(false);
        let job = TrainingJob::new(&work, [1; 32], &policy, &|| Duration::ZERO, &checkpoint, &leave);
        let LocalEnd::Trained(_, found) = train(&engine, &corpus, &job) else { panic!("it did not end") };
        assert!(found == gains);
    }

    #[test]
    fn a_checkpoint_on_disk_shows_nothing_of_what_was_trained() {
        let engine = engine();
        let (mut work, corpus) = (work(engine.base()), corpus(&engine));
        work.plan.training.optimizer = LocalOptimizer::AdamW { weight_decay: 0.0 };
        let (state, checkpoint) = interrupted(&engine, &work, &corpus);
        let file = std::fs::read(state.path().join("training.checkpoint")).unwrap();
        let clear = checkpoint.open(&work.published).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&clear).unwrap();
        for name in ["parameters", "moments.first", "moments.second", "losses"] {
            let numbers = tensors.tensor(name).unwrap();
            // Two numbers side by side: of one alone, a cipher's bytes may be some by chance.
            let pairs = numbers.data().chunks_exact(numbers.data().len().min(8));
            let trained: Vec<&[u8]> = pairs.filter(|pair| pair.iter().any(|byte| *byte != 0)).collect();
            assert!(!trained.is_empty(), "{name}: nothing was trained that could be found");
            for bytes in trained {
                assert!(!file.windows(bytes.len()).any(|window| window == bytes), "{name}: {bytes:?}");
            }
        }
        for word in ["parameters", "moments", "losses", "tokens", "seed"] {
            assert!(!file.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
        let mut names: Vec<_> =
            std::fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["keys", "training.checkpoint"], "nothing else lies beside it");
    }
}
