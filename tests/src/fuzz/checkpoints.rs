//! The checkpoint of a training that was stopped, as a device finds it on its disk.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use engine::{Base, Blocks, Engine, Job, Projection, Schedule, Training};
use proto::adapter::{AdapterSpec, Factors, Method};
use proto::ids::Digest;
use proto::training::{LocalOptimizer, TrainingPlan};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::bases::gguf_file;
use super::folder::with_folder;
use super::tape::Tape;

const STEPS: u32 = 3;

const VECTORS: [&str; 4] = ["losses", "moments.first", "moments.second", "parameters"];

const NUMBERS: [&str; 4] = ["tokens", "examples", "optimizer_step", "rng_position"];

/// A checkpoint of any bytes, one with a part that is not as it was written, or one with any numbers whose hash is
/// right. A training goes on from it, or refuses it and is as it was.
pub fn checkpoint(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    with_training(|training| {
        let before = training.checkpoint().unwrap();
        let kind = tape.byte() % 3;
        let file = match kind {
            0 => tape.rest().to_vec(),
            1 => damaged(training, &before, &mut tape),
            _ => forged(&before, &mut tape),
        };
        if training.resume(&file).is_err() {
            let left = contents(&training.checkpoint().unwrap());
            assert_eq!(left, contents(&before), "a refused checkpoint left something");
            return;
        }
        assert!(training.steps() <= STEPS);
        let kept = training.checkpoint().unwrap();
        if training.run(STEPS, &mut |_| ControlFlow::Continue(())).is_ok() {
            assert_eq!(training.steps(), STEPS);
            training.checkpoint().unwrap();
        }
        training.resume(&kept).unwrap();
        assert_eq!(contents(&training.checkpoint().unwrap()), contents(&kept));
    });
}

/// The hash of all that is in a checkpoint; how it is put in order is the writer's.
fn contents(file: &[u8]) -> String {
    let (_, header) = SafeTensors::read_metadata(file).unwrap();
    header.metadata().as_ref().unwrap()["contents"].clone()
}

/// What a training writes after so many of its steps, its header in order.
pub(super) fn after(steps: u32) -> Vec<u8> {
    let file = with_training(|training| {
        training.run(steps, &mut |_| ControlFlow::Continue(())).unwrap();
        training.checkpoint().unwrap()
    });
    let (len, _) = SafeTensors::read_metadata(&file).unwrap();
    let (header, data) = file[8..].split_at(len);
    let sorted: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_slice(header).unwrap();
    let mut header = serde_json::to_vec(&sorted).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat()
}

/// A checkpoint after some steps, cut or with other bytes; `training` is as before.
fn damaged(training: &mut Training<'_>, before: &[u8], tape: &mut Tape<'_>) -> Vec<u8> {
    let steps = u32::from(tape.byte()) % (STEPS + 1);
    training.run(steps, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut file = training.checkpoint().unwrap();
    training.resume(before).unwrap();
    if tape.byte().is_multiple_of(4) {
        file.truncate(tape.below(file.len() + 1));
    }
    while let Some(byte) = tape.next() {
        let at = tape.below(file.len());
        if let Some(place) = file.get_mut(at) {
            *place ^= byte;
        }
    }
    file
}

/// The same job's, with numbers from the tape behind the hash of all of it.
fn forged(own: &[u8], tape: &mut Tape<'_>) -> Vec<u8> {
    let (_, header) = SafeTensors::read_metadata(own).unwrap();
    let mut metadata: HashMap<String, String> = header.metadata().clone().unwrap();
    metadata.remove("contents");
    for name in NUMBERS {
        let mut number = [0; 16];
        for byte in &mut number[..usize::from(tape.byte()).min(16)] {
            *byte = tape.byte();
        }
        metadata.insert(name.to_owned(), u128::from_le_bytes(number).to_string());
    }
    let parameters = SafeTensors::deserialize(own).unwrap().tensor("parameters").unwrap().data().len();
    let vectors = VECTORS.map(|_| {
        // As long as the parameters, or as the tape says.
        let len = match tape.byte() {
            0 => parameters,
            len => 4 * usize::from(len - 1),
        };
        (0..len).map(|_| tape.byte()).collect::<Vec<u8>>()
    });
    let sorted: BTreeMap<&String, &String> = metadata.iter().collect();
    let mut all = format!("{sorted:?}").into_bytes();
    for vector in &vectors {
        all.extend((vector.len() as u64).to_le_bytes());
        all.extend_from_slice(vector);
    }
    metadata.insert("contents".to_owned(), Digest::of(&all).to_string());
    let views = VECTORS
        .iter()
        .zip(&vectors)
        .map(|(name, vector)| (*name, TensorView::new(Dtype::F32, vec![vector.len() / 4], vector).unwrap()));
    safetensors::serialize(views.collect::<BTreeMap<_, _>>(), Some(metadata)).unwrap()
}

/// Runs `body` with a training that has not begun.
fn with_training<T>(body: impl FnOnce(&mut Training<'_>) -> T) -> T {
    thread_local! {
        static ENGINE: Engine = engine();
    }
    ENGINE.with(|engine| {
        let spec = AdapterSpec {
            method: Method::FrozenA,
            rank: 1,
            alpha: 2.0,
            factors: Factors::Seeded(Digest([3; 32])),
            modules: engine.base().modules(&[Projection::Q]),
        };
        let frozen = spec.seeded_factors(&Digest([3; 32]));
        let start = vec![0.0; spec.trained_len()];
        let plan = TrainingPlan {
            local_steps: STEPS,
            batch_size: 1,
            sequence_len: 4,
            learning_rate: 1e-2,
            warmup_steps: 1,
            max_grad_norm: 1.0,
            optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
        };
        let blocks = Blocks::new(&[vec![1, 2, 3, 1, 2, 0, 3]], 0, plan.sequence_len);
        let job = Job {
            spec: &spec,
            frozen: &frozen,
            start: &start,
            blocks: &blocks,
            plan: &plan,
            schedule: Schedule::Constant,
            seed: [7; 32],
        };
        body(&mut engine.begin(job).unwrap())
    })
}

fn engine() -> Engine {
    let base = with_folder(|folder| {
        let path = folder.join("model.gguf");
        std::fs::write(&path, gguf_file(false, false)).unwrap();
        Base::open(&path).unwrap()
    });
    Engine::new(std::sync::Arc::new(base))
}
