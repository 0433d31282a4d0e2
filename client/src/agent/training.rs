//! Training of a version on the user's text: step by step, kept when it is interrupted, gone on with when it may go on.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::adapter::State;
use proto::message::Published;
use proto::plan::Plan;
use proto::shown::shown;
use zeroize::Zeroizing;

use crate::agent::checkpoint::Checkpoint;
use crate::policy::{Breach, Policy};
use crate::session::{Event, Work};
use crate::update::Update;
use engine::{Engine, Job, Schedule, Step, TrainError, Trained, Training};
use text::{Corpus, ReadOptions, Reading, TextError, UserText};

/// Steps between two checkpoints, so that a crash costs no more.
const KEPT_EVERY: u32 = 20;

/// Steps after which the time of all of them is estimated: the first of them also warms caches.
const ESTIMATED_AFTER: u32 = 3;

/// What holds a training back.
#[derive(Clone, Copy)]
pub(super) struct Hold<'a> {
    /// Whether the agent must leave.
    pub(super) leave: &'a AtomicBool,
    /// The user's limits.
    pub(super) policy: &'a Policy,
    /// How long this goes on.
    pub(super) elapsed: &'a dyn Fn() -> Duration,
}

/// Bytes that the training of a version needs beside the base.
pub(super) fn needed_bytes(engine: &Engine, work: &Work) -> u64 {
    let size = |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX);
    let plan = &work.plan.training;
    // A part that does not fit the adapter is refused when it is trained.
    let trained = work.training().map_or(work.state.trained.len(), |state| state.trained.len());
    engine.compute().training_bytes(engine.base(), trained, (size(plan.batch_size), size(plan.sequence_len)))
}

/// Bytes that a plan makes a device hold beside the base: frozen and trained parameters, and what is made of them for the
/// user; and what the training takes, where it trains.
pub(super) fn planned_bytes(engine: &Engine, plan: &Plan, trains: bool) -> u64 {
    let size = |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX);
    let (frozen, trained) = (plan.adapter.frozen_len(), plan.adapter.trained_len());
    let held = 4 * (frozen as u64).saturating_add(3 * trained as u64);
    if !trains {
        return held;
    }
    let batch = (size(plan.training.batch_size), size(plan.training.sequence_len));
    held.saturating_add(engine.compute().training_bytes(engine.base(), trained, batch))
}

/// Where the user's text is, and how it is read.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) data: Vec<PathBuf>,
    pub(super) reading: ReadOptions,
}

/// Reads the text and trains on it, all on this thread, until the agent must leave. Fails where there is no text that
/// can be used; what was trained on it before is then not kept any longer.
pub(super) fn read_and_train(
    engine: &Engine,
    work: &Work,
    text: &Text,
    seed: [u8; 32],
    hold: Hold<'_>,
    checkpoint: &Checkpoint,
) -> Result<Event, TextError> {
    let done = read_then_train(engine, work, text, seed, hold, checkpoint);
    if done.is_err() {
        checkpoint.delete("its text cannot be read any more");
    }
    done
}

fn read_then_train(
    engine: &Engine,
    work: &Work,
    text: &Text,
    seed: [u8; 32],
    hold: Hold<'_>,
    checkpoint: &Checkpoint,
) -> Result<Event, TextError> {
    let go_on = || !hold.leave.load(Ordering::Relaxed);
    let left = || Event::NotTrained("it was interrupted before its first step".to_owned());
    let Some(read) = UserText::read_while(&text.data, &text.reading, &go_on)? else { return Ok(left()) };
    report_reading(read.reading());
    let Some(corpus) = Corpus::new_while(engine.base(), &read, &go_on)? else { return Ok(left()) };
    if corpus.refused() > 0 {
        tracing::warn!(conversations = corpus.refused(), "the chat template refuses conversations");
    }
    Ok(train(engine, work, &corpus, seed, hold, checkpoint))
}

/// Trains on this thread; what is the user's stays in here, and sealed in the checkpoint.
fn train(
    engine: &Engine,
    work: &Work,
    corpus: &Corpus,
    seed: [u8; 32],
    hold: Hold<'_>,
    checkpoint: &Checkpoint,
) -> Event {
    let state = match work.training() {
        Ok(state) => state,
        Err(error) => return Event::NotTrained(error.to_string()),
    };
    let State { spec, frozen, folded, trained: start } = state.as_ref();
    let (plan, blocks) = (&work.plan.training, corpus.train(work.plan.training.sequence_len));
    let trained = engine.with_folded(folded).and_then(|engine| {
        let schedule = Schedule::Constant;
        let job = Job { spec, frozen, start, blocks: &blocks, plan, schedule, seed };
        steps(engine.begin(job)?, plan.local_steps, hold, (checkpoint, &work.published))
    });
    if matches!(trained, Ok(_) | Err(TrainError::Diverged { .. })) {
        // What diverged would diverge again, and what takes too long would take as long again.
        checkpoint.delete("its training is over");
    }
    match trained {
        Ok(Ran::TooLong(breach)) => Event::CannotTrain(breach),
        Ok(Ran::Whole(trained)) => {
            match Update::between(start, &trained.parameters, trained.mean_loss(), trained.examples) {
                Some(update) => Event::Trained(update),
                None => Event::NotTrained("the training gave no finite update".to_owned()),
            }
        }
        Err(TrainError::Stopped { steps }) => {
            Event::NotTrained(format!("it was interrupted after step {steps} and goes on from there"))
        }
        Err(error) => Event::NotTrained(error.to_string()),
    }
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
    hold: Hold<'a>,
    all: u32,
    /// Steps that were done, and the time that had passed, when the watch began.
    begun: (u32, Duration),
}

impl Watch<'_> {
    /// Whether it takes too long, after so many steps: once by an estimate from the mean of the first steps, and, when
    /// the time is over, by what it took.
    fn check(&self, step: u32, is_whole: bool) -> Result<(), Breach> {
        let (policy, (before, begun)) = (self.hold.policy, self.begun);
        let (took, done) = ((self.hold.elapsed)().saturating_sub(begun), step.saturating_sub(before));
        if is_whole && done == ESTIMATED_AFTER {
            policy.time(took.saturating_mul(self.all) / done)?;
        }
        policy.time(took).map_err(|breach| match policy.time(took.saturating_mul(self.all) / done.max(1)) {
            Err(estimated) => estimated,
            Ok(()) => breach,
        })
    }
}

/// All steps from the checkpoint on, or those until the agent must leave.
fn steps(
    mut training: Training<'_>,
    all: u32,
    hold: Hold<'_>,
    (checkpoint, published): (&Checkpoint, &Published),
) -> Result<Ran, TrainError> {
    if let Some(clear) = checkpoint.open(published) {
        match training.resume(&clear) {
            Ok(()) => tracing::info!(steps = training.steps(), "training goes on"),
            Err(error) => {
                tracing::info!("{}; training starts over", shown(&error.to_string()));
                checkpoint.delete("it cannot be gone on from");
            }
        }
    }
    let keep = |training: &Training<'_>| match training.checkpoint().map(Zeroizing::new) {
        Ok(clear) => {
            if let Err(error) = checkpoint.keep(published, &clear) {
                tracing::warn!("no checkpoint was kept: {error}; an interruption would cost this training");
            }
        }
        Err(error) => tracing::warn!("{}", shown(&error.to_string())),
    };
    let watch = Watch { hold, all, begun: (training.steps(), (hold.elapsed)()) };
    let mut too_long = None;
    while training.steps() < all {
        let until = training.steps().saturating_add(KEPT_EVERY);
        let mut step = |said: Step| {
            let is_whole = said.micro_batch == said.micro_batches;
            too_long = watch.check(said.step, is_whole).err();
            let leave = too_long.is_some() || hold.leave.load(Ordering::Relaxed);
            if leave { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = training.run(until, &mut step);
        let stopped = matches!(result, Err(TrainError::Stopped { .. }));
        if stopped && let Some(breach) = too_long.take() {
            return Ok(Ran::TooLong(breach));
        }
        // What diverged is not worth going on from.
        if stopped || (result.is_ok() && training.steps() < all) {
            keep(&training);
        }
        result?;
    }
    Ok(Ran::Whole(training.finish()))
}

/// Says how much was read, by numbers only; which files were left out is for developers.
fn report_reading(reading: &Reading) {
    tracing::info!(
        files = reading.files,
        documents = reading.documents,
        with_roles = reading.with_roles,
        duplicates = reading.duplicates,
        surplus = reading.surplus,
        secret_looking = reading.secret_looking(),
        skipped_lines = reading.skipped_lines(),
        unread_files = reading.unread_files(),
        "read the user's text"
    );
    for (kind, count) in &reading.secrets {
        tracing::info!(?kind, count, "left out what looks like a secret");
    }
    for skipped in &reading.skipped {
        tracing::debug!(file = %shown(&skipped.file.to_string_lossy()), reason = %skipped.reason, lines = skipped.count, "skipped");
    }
    for (reason, unread) in &reading.unread {
        for file in &unread.named {
            tracing::debug!(file = %shown(&file.to_string_lossy()), %reason, "not read");
        }
    }
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
    use engine::{Base, Projection};
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
        Work { published, plan, mechanism, state, adapter: start, class: None }
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
        let run = |data: &Path, leave: bool| {
            let text = Text { data: vec![data.to_owned()], reading: ReadOptions::default() };
            let (leave, policy) = (AtomicBool::new(leave), Policy::default());
            let hold = Hold { leave: &leave, policy: &policy, elapsed: &|| Duration::ZERO };
            read_and_train(&engine, &work, &text, [1; 32], hold, &checkpoint)
        };
        let Event::NotTrained(why) = run(&file, true).unwrap() else { panic!("it did not leave") };
        assert_eq!(why, "it was interrupted before its first step");
        assert_eq!(checkpoint.open(&work.published), Some(earlier));
        let text = UserText::read(std::slice::from_ref(&file), &ReadOptions::default()).unwrap();
        assert!(Corpus::new_while(engine.base(), &text, &|| false).unwrap().is_none());
        assert!(matches!(run(&state.path().join("absent.txt"), false), Err(TextError::Read { .. })));
        assert_eq!(checkpoint.open(&work.published), None, "what is gone is not trained on any more");
        assert!(matches!(run(&file, false).unwrap(), Event::Trained(_)));
    }

    /// What comes of a training that has all the time there is.
    fn trained(
        engine: &Engine,
        work: &Work,
        corpus: &Corpus,
        seed: u8,
        leaves: bool,
        checkpoint: &Checkpoint,
    ) -> Event {
        let (leave, policy) = (AtomicBool::new(leaves), Policy::default());
        let hold = Hold { leave: &leave, policy: &policy, elapsed: &|| Duration::ZERO };
        train(engine, work, corpus, [seed; 32], hold, checkpoint)
    }

    /// What comes of a training of 45 steps that may take a minute, where the clock goes on by so much whenever it is
    /// looked at, once a step; and how often it was looked at.
    fn timed(a_look: Duration) -> (Event, u32) {
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
        let hold = Hold { leave: &leave, policy: &policy, elapsed: &elapsed };
        let event = train(&engine, &work, &corpus, [1; 32], hold, &checkpoint);
        assert!(checkpoint.open(&work.published).is_none(), "what takes too long is not gone on with");
        (event, looks.get())
    }

    #[test]
    fn a_training_that_would_take_too_long_by_its_first_steps_is_declined_with_both_numbers() {
        let (event, looks) = timed(Duration::from_secs(1));
        assert!(matches!(event, Event::Trained(_)), "45 seconds are less than a minute: {event:?}");
        assert!(looks >= 45);
        let (event, looks) = timed(Duration::from_secs(2));
        let Event::CannotTrain(breach) = event else { panic!("{event:?}") };
        assert_eq!((breach, looks), (Breach::Time { found: 2, most: 1 }, 1 + ESTIMATED_AFTER));
    }

    #[test]
    fn the_time_of_all_steps_is_estimated_once_and_measured_always() {
        let engine = engine();
        let work = work(engine.base());
        let hold = |policy: &Policy, secs: u64, step: u32, is_whole: bool| {
            let elapsed = move || Duration::from_secs(secs);
            let leave = AtomicBool::new(false);
            let hold = Hold { leave: &leave, policy, elapsed: &elapsed };
            Watch { hold, all: work.plan.training.local_steps, begun: (10, Duration::ZERO) }
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
        let hold = Hold { leave: &leave, policy: &policy, elapsed: &elapsed };
        let event = train(&engine, &work, &corpus, [1; 32], hold, &checkpoint);
        let Event::CannotTrain(breach @ Breach::Time { most: 1, .. }) = event else { panic!("{event:?}") };
        assert_eq!(breach.reason(), proto::message::DeclineReason::Work);
        assert_eq!(looks.get(), 20);
    }

    #[test]
    fn the_memory_of_a_training_is_known_before_it_begins() {
        let engine = engine();
        let mut work = work(engine.base());
        let one = needed_bytes(&engine, &work);
        work.plan.training.sequence_len *= 2;
        assert!(needed_bytes(&engine, &work) > one);
        work.plan.training.sequence_len /= 2;
        let passes = engine.compute().needed_bytes(engine.base(), 1, 8);
        assert_eq!(one, passes + 20 * work.state.trained.len() as u64);
    }

    /// A state folder with the checkpoint of a training that was interrupted after its first step.
    fn interrupted(engine: &Engine, work: &Work, corpus: &Corpus) -> (tempfile::TempDir, Checkpoint) {
        let state = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::below(state.path());
        let event = trained(engine, work, corpus, 1, true, &checkpoint);
        let Event::NotTrained(why) = event else { panic!("it did not leave") };
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
            let Event::Trained(update) = event else { panic!("it did not end") };
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
