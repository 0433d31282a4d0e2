use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use client::Recorder;
use proptest::prelude::*;
use proto::adapter::{Folded, State};
use proto::ids::{Digest, TaskId};
use proto::message::Published;
use proto::plan::Plan;
use session::Work;
use session::policy::Policy;

use super::super::message::{Alive, Forget, Left, Probed};
use super::*;

/// What was kept, and how often it was deleted.
#[derive(Default)]
struct Kept {
    clear: Mutex<Vec<Vec<u8>>>,
    deleted: Mutex<u32>,
}

impl Recorder for Kept {
    fn open(&self, _: &Published) -> Option<Zeroizing<Vec<u8>>> {
        None
    }

    fn keep(&self, _: &Published, clear: &Zeroizing<Vec<u8>>) {
        self.clear.lock().unwrap().push(clear.to_vec());
    }

    fn delete(&self, _: &'static str) {
        *self.deleted.lock().unwrap() += 1;
    }
}

/// A training of 64 parameters that begins with ones.
fn work() -> Work {
    let plan = Plan::example();
    let spec = plan.adapter.clone();
    let frozen = spec.seeded_factors(&Digest([3; 32]));
    let start = vec![1.0; spec.trained_len()];
    let state = State::at(&spec, 0, frozen, Folded::default(), &start).unwrap();
    let (digest, clip_norm) = (Digest([2; 32]), plan.privacy.clip_norm);
    let published = Published {
        task: TaskId([1; 16]),
        version: 0,
        plan: digest,
        adapter: digest,
        folded: None,
        clip_norm,
    };
    let mechanism = plan.mechanism().unwrap();
    Work { published, plan, mechanism, state, adapter: start, class: None, before: None, against: None }
}

/// What becomes of a training in which the trainer says this, and what was kept.
fn after(said: impl IntoIterator<Item = Said>) -> (Result<Option<TrainingEnd>, TrainerFault>, Kept) {
    let (work, policy, kept, leave) = (work(), Policy::default(), Kept::default(), AtomicBool::new(false));
    let elapsed = || Duration::ZERO;
    let job = TrainingJob::new(&work, [1; 32], &policy, &elapsed, &kept, &leave);
    let mut attended = Attended::new(&job).unwrap();
    let mut end = Ok(None);
    for said in said {
        match attended.hear(said) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(End::Training(training))) => end = Ok(Some(training)),
            Ok(ControlFlow::Break(End::NoText(why))) => panic!("{why}"),
            Err(fault) => return (Err(fault), kept),
        }
    }
    (end, kept)
}

fn parameters(numbers: &[f32]) -> Vec<Said> {
    parts(Kind::Parameters, &vector_to_bytes(numbers)).map(Said::Part).collect()
}

fn trained(loss: f64, examples: u32) -> Said {
    Said::Trained(Trained { loss, examples, over_before: None, over_base: None })
}

fn fault_after(said: impl IntoIterator<Item = Said>) -> TrainerFault {
    let (end, kept) = after(said);
    assert!(kept.clear.lock().unwrap().is_empty());
    end.unwrap_err()
}

#[test]
fn parameters_of_the_training_are_its_update_and_the_checkpoint_goes() {
    let said = [vec![Said::Alive(Alive { step: 0 })], parameters(&[3.0; 64]), vec![trained(1.5, 1)]].concat();
    let (end, kept) = after(said);
    let Ok(Some(TrainingEnd::Trained(update))) = end else { panic!("{end:?}") };
    assert!(update == Update::between(&[1.0; 64], &[3.0; 64], 1.5, 1).unwrap());
    assert_eq!(*kept.deleted.lock().unwrap(), 1);
}

#[test]
fn an_update_that_is_none_of_the_training_is_refused() {
    for found in [63, 65, 0] {
        let wrong = [parameters(&vec![3.0; found]), vec![trained(1.5, 1)]].concat();
        assert_eq!(fault_after(wrong), TrainerFault::WrongLength { found, expected: 64 });
    }
    for number in [f32::NAN, f32::INFINITY] {
        let mut numbers = [3.0; 64];
        numbers[63] = number;
        assert_eq!(
            fault_after([parameters(&numbers), vec![trained(1.5, 1)]].concat()),
            TrainerFault::NotFinite
        );
    }
    assert_eq!(
        fault_after([parameters(&[3.0; 64]), vec![trained(f64::NAN, 1)]].concat()),
        TrainerFault::NotFinite
    );
    let many = fault_after([parameters(&[3.0; 64]), vec![trained(1.5, 2)]].concat());
    assert!(matches!(many, TrainerFault::Nonsense(_)), "the plan has one step of one sequence: {many}");
}

#[test]
fn messages_in_an_order_that_is_none_are_refused() {
    let begun = Said::Part(Part { kind: Kind::Newest.into(), bytes: vec![1; 9], is_last: false });
    let read = Said::Read(Read::default());
    for said in [
        vec![trained(1.5, 1)],
        vec![begun.clone(), Said::Alive(Alive { step: 0 })],
        vec![begun, trained(1.5, 1)],
        vec![read.clone(), read],
        vec![Said::Probed(Probed::default())],
        vec![Said::Hello(Hello::default())],
        parts(Kind::Frozen, &[1]).map(Said::Part).collect(),
        parts(Kind::Checkpoint, &vec![0; 2 << 20]).map(Said::Part).collect(),
        vec![Said::Refused(Refused { limit: 9, found: 1, most: 1 })],
        vec![Said::Refused(Refused { limit: Limit::Time.into(), found: 1, most: u64::MAX })],
    ] {
        let shown = format!("{said:?}");
        let fault = fault_after(said);
        assert!(matches!(fault, TrainerFault::Nonsense(_)), "{shown}: {fault}");
    }
}

#[test]
fn what_is_to_be_kept_is_kept_and_what_it_leaves_with_too() {
    let all = |kind, bytes: &[u8]| parts(kind, bytes).map(Said::Part).collect::<Vec<_>>();
    let (end, kept) = after(all(Kind::Checkpoint, b"first"));
    assert!(matches!(end, Ok(None)), "it goes on");
    assert_eq!(*kept.clear.lock().unwrap(), [b"first".to_vec()]);
    let left = Said::Left(Left { steps: Some(7) });
    let (end, kept) = after([all(Kind::Newest, b"newest"), vec![left]].concat());
    let Ok(Some(TrainingEnd::NotTrained(why))) = end else { panic!("{end:?}") };
    assert_eq!(why, "it was interrupted after step 7 and goes on from there");
    assert_eq!(*kept.clear.lock().unwrap(), [b"newest".to_vec()]);
    let (end, kept) = after([Said::Left(Left { steps: None })]);
    let Ok(Some(TrainingEnd::NotTrained(why))) = end else { panic!("{end:?}") };
    assert_eq!(why, "it was interrupted before its first step");
    assert!(kept.clear.lock().unwrap().is_empty());
    // Of itself, the newest is not kept: only one that leaves says that it is whole.
    let (_, kept) = after(all(Kind::Newest, b"newest"));
    assert!(kept.clear.lock().unwrap().is_empty());
    let (_, kept) = after([Said::Forget(Forget {})]);
    assert_eq!(*kept.deleted.lock().unwrap(), 1);
}

#[test]
fn limits_come_back_with_their_numbers() {
    let refused = |limit: Limit| Said::Refused(Refused { limit: limit.into(), found: 5, most: 4 });
    for (limit, expected) in [
        (Limit::Time, Breach::Time { found: 5, most: 4 }),
        (Limit::Memory, Breach::Memory { needed_mib: 5, most_mib: 4 }),
        (Limit::FreeMemory, Breach::FreeMemory { needed_mib: 5, free_mib: 4 }),
    ] {
        let (end, _) = after([refused(limit)]);
        let Ok(Some(TrainingEnd::Refused(breach))) = end else { panic!("{end:?}") };
        assert_eq!(breach, expected);
    }
}

#[test]
fn a_reason_is_cut_and_orders_no_terminal() {
    let (end, _) = after([Said::NotTrained(format!("\u{1b}[2J{}", "a".repeat(100_000)))]);
    let Ok(Some(TrainingEnd::NotTrained(why))) = end else { panic!("{end:?}") };
    assert!(why.len() < 1000 && !why.contains('\u{1b}'), "{why}");
}

proptest! {
    #[test]
    fn no_parts_of_whatever_kind_and_length_make_it_panic(
        all in prop::collection::vec((-1_i32..9, 0_usize..400, any::<bool>()), 0..6),
    ) {
        let parts = all.into_iter().map(|(kind, len, is_last)| {
            Said::Part(Part { kind, bytes: vec![0x7f; len], is_last })
        });
        drop(after(parts.chain([trained(1.0, 1)])));
    }
}
