//! Training alone: an adapter of a base, on this machine's text, without any federation.
//!
//! ```text
//! cargo run --release -p nightshift-client --example train_alone -- BASE TEXT
//! ```
#![expect(clippy::print_stdout, reason = "a program prints what it found")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nightshift_client::engine::{Base, Engine, Job, Loss, Projection, Schedule};
use nightshift_client::text::{Corpus, ReadOptions, UserText};
use nightshift_client::words::adapter::{AdapterSpec, Factors, Method};
use nightshift_client::words::ids::Digest;
use nightshift_client::words::training::{LocalOptimizer, TrainingPlan};

/// Losses on text that was held out, before and after.
#[derive(Debug)]
pub struct Learned {
    /// Of the base with an adapter that changes nothing.
    pub before: Loss,
    /// Of the base with the trained adapter.
    pub after: Loss,
}

/// Trains LoRA of rank 4 on the query and value projections for so many steps.
pub fn train(base: &Path, text: PathBuf, steps: u32) -> Result<Learned, Box<dyn Error>> {
    let engine = Engine::new(Arc::new(Base::open(base)?));
    let base = engine.base();
    let corpus = Corpus::new(base, &UserText::read(&[text], &ReadOptions::default())?)?;
    let length = 16;
    let (blocks, held_out) = (corpus.train(length), corpus.held_out(length));

    let seed = Digest::of(b"train_alone");
    let modules = base.modules(&[Projection::Q, Projection::V]);
    let spec =
        AdapterSpec { method: Method::Both, rank: 4, alpha: 8.0, factors: Factors::Seeded(seed), modules };
    let (frozen, start) = (spec.seeded_factors(&seed), spec.initial(&seed, None));
    let plan = TrainingPlan {
        local_steps: steps,
        batch_size: 4,
        sequence_len: length,
        learning_rate: 2e-2,
        warmup_steps: 0,
        max_grad_norm: 1.0,
        optimizer: LocalOptimizer::AdamW { weight_decay: 0.0 },
    };
    let job = Job {
        spec: &spec,
        frozen: &frozen,
        start: &start,
        blocks: &blocks,
        plan: &plan,
        schedule: Schedule::Constant,
        seed: seed.0,
    };
    let mut training = engine.begin(job)?;
    training.run(steps, &mut |step| {
        if step.is_whole() {
            println!("step {} of {}: {:.4} nats a token", step.step, step.of, step.loss);
        }
        ControlFlow::Continue(())
    })?;
    let trained = training.finish();
    Ok(Learned {
        before: engine.loss(&spec, &frozen, &start, &held_out)?,
        after: engine.loss(&spec, &frozen, &trained.parameters, &held_out)?,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, text] = arguments.as_slice() else {
        return Err("usage: train_alone BASE TEXT".into());
    };
    let Learned { before, after } = train(base.as_ref(), text.into(), 50)?;
    println!(
        "held-out text: {:.4} nats a token before, {:.4} after",
        before.nats_per_token, after.nats_per_token
    );
    Ok(())
}
