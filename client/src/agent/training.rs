//! Training of a version: step by step, kept when it is interrupted, gone on with when it may go on.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::adapter::State;

use crate::files::{self, Audience};
use crate::session::{Event, Work};
use crate::train::text::Corpus;
use crate::train::{Engine, Job, Schedule, Step, TrainError, Trained, Training};

/// Steps between two checkpoints, so that a crash costs no more.
const KEPT_EVERY: u32 = 20;

/// Trains on this thread; what is the user's stays in here, and in the checkpoint, which is its owner's alone.
pub(super) fn train(
    engine: &Engine,
    work: &Work,
    corpus: &Corpus,
    seed: [u8; 32],
    leave: &AtomicBool,
    checkpoint: &Path,
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
        steps(Training::new(&engine, job)?, plan.local_steps, leave, checkpoint)
    });
    match trained {
        Ok(trained) => match trained.update_from(start) {
            Some(update) => Event::Trained(update),
            None => Event::NotTrained("the training gave no finite update".to_owned()),
        },
        Err(TrainError::Stopped { steps }) => {
            Event::NotTrained(format!("it was interrupted after step {steps} and goes on from there"))
        }
        Err(error) => Event::NotTrained(error.to_string()),
    }
}

/// All steps from the checkpoint on, or those until the agent must leave.
fn steps(
    mut training: Training<'_>,
    all: u32,
    leave: &AtomicBool,
    checkpoint: &Path,
) -> Result<Trained, TrainError> {
    match files::read(checkpoint) {
        Ok(bytes) => match training.resume(&bytes) {
            Ok(()) => tracing::info!(steps = training.steps(), "training goes on"),
            Err(error) => tracing::info!("{error}; training starts over"),
        },
        Err(error) if error.is_absent() => {}
        Err(error) => tracing::warn!("{error}; training starts over"),
    }
    let keep = |training: &Training<'_>| match training.checkpoint() {
        Ok(bytes) => {
            if let Err(error) = files::write(checkpoint, &bytes, Audience::Owner) {
                tracing::warn!("{error}; an interruption would cost this training");
            }
        }
        Err(error) => tracing::warn!("{error}"),
    };
    let mut step = |_: Step| {
        let leave = leave.load(Ordering::Relaxed);
        if leave { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    while training.steps() < all {
        let until = training.steps().saturating_add(KEPT_EVERY);
        let result = training.run(until, &mut step);
        if matches!(result, Err(TrainError::Stopped { .. })) || training.steps() < all {
            keep(&training);
        }
        result?;
    }
    // What is left of an earlier training, or of this one, is of no use any more.
    if checkpoint.exists()
        && let Err(error) = std::fs::remove_file(checkpoint)
    {
        tracing::warn!("cannot remove {}: {error}", checkpoint.display());
    }
    Ok(training.finish())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::adapter::{AdapterSpec, Factors, Folded, Method};
    use proto::ids::{Digest, TaskId};
    use proto::message::Published;
    use proto::plan::Plan;

    use super::*;
    use crate::train::text::{Document, ReadOptions, UserText};
    use crate::train::{Base, Projection};

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

    #[test]
    fn an_interrupted_training_goes_on_and_gives_the_same_update() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/base");
        let engine = Engine::new(Arc::new(Base::open(&folder).unwrap()));
        let work = work(engine.base());
        let lines = (3..40).map(|i| Document::Plain(format!("w{i} w{} w{}", i + 7, 60 - i)));
        let text = UserText::of(lines, &ReadOptions::default());
        let corpus = Corpus::new(engine.base(), &text).unwrap();
        let state = tempfile::tempdir().unwrap();
        let checkpoint = state.path().join("training.checkpoint");
        let run = |leave: bool, seed: u8, checkpoint: &Path| {
            train(&engine, &work, &corpus, [seed; 32], &AtomicBool::new(leave), checkpoint)
        };
        let Event::Trained(whole) = run(false, 1, &state.path().join("other")) else {
            panic!("nothing was trained")
        };
        let Event::NotTrained(why) = run(true, 1, &checkpoint) else { panic!("it did not leave") };
        assert_eq!(why, "it was interrupted after step 1 and goes on from there");
        let kept = std::fs::read(&checkpoint).unwrap();
        let Event::Trained(rest) = run(false, 1, &checkpoint) else { panic!("it did not go on") };
        assert_eq!(rest, whole);
        assert!(!checkpoint.exists(), "what is done is not kept");
        // Another version's checkpoint, and a damaged one, cost only themselves.
        for bad in [kept.clone(), kept[..kept.len() / 2].to_vec()] {
            std::fs::write(&checkpoint, bad).unwrap();
            let Event::Trained(other) = run(false, 2, &checkpoint) else { panic!("it did not start over") };
            assert_ne!(other, whole);
        }
    }
}
