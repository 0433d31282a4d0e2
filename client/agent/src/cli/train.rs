//! `nightshift-agent train`: a personal adapter, without any federation.
#![expect(clippy::disallowed_methods, reason = "IO shell: reads the clock for tokens a second")]

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use formats::{MANIFEST_FILE, Origin, Personal, name_of_base};
use indicatif::{ProgressBar, ProgressStyle};
use proto::adapter::{AdapterSpec, Factors, Method, Module, Slot};
use proto::counted::counted;
use proto::ids::Digest;
use proto::shown::message;
use proto::training::{LocalOptimizer, TrainingPlan};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::adapter::{AdapterArgs, ComputeArgs};
use super::local::{TextArgs, corpus, open};
use super::path;
use crate::config::source;
use client::adapter_files::{Adapter, read_peft, write_peft};
use engine::process::peak_bytes;
use engine::{Base, BatchShape, Job, Loss, Schedule, Source, Step, TrainError, Training};
use proto::files::{self, Audience, FileError};
use shell::cli::note;
use shell::stop;
use text::ReadOptions;

const CHECKPOINT: &str = "checkpoint.safetensors";

/// Steps where nobody says how many.
const USUAL_STEPS: u32 = 100;

/// What to train and how.
#[derive(Args, Debug)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    pub(super) text: TextArgs,
    /// Optimiser steps; 100 where left out
    #[arg(long, help_heading = "Training")]
    steps: Option<u32>,
    /// Sequences of one step
    #[arg(long, help_heading = "Training", default_value_t = 4)]
    batch: u32,
    /// Tokens of one sequence
    #[arg(long, help_heading = "Training", default_value_t = 256)]
    seq_len: u32,
    /// Highest step size
    #[arg(long, help_heading = "Training", default_value_t = 5e-4)]
    lr: f64,
    /// Steps over which the step size rises from zero
    #[arg(long, help_heading = "Training", default_value_t = 5)]
    warmup: u32,
    /// How the step size goes on: it falls to a tenth along a cosine, or it stays
    #[arg(long, help_heading = "Training", value_enum, default_value_t = ScheduleArg::Cosine)]
    schedule: ScheduleArg,
    /// The optimiser
    #[arg(long, help_heading = "Training", value_enum, default_value_t = OptimizerArg::Adamw)]
    optimizer: OptimizerArg,
    /// Decay of the adapter, as a fraction of the step size; only with `adamw`
    #[arg(long, help_heading = "Training", default_value_t = 0.0)]
    weight_decay: f64,
    /// A step's gradient is scaled down to this L2 norm
    #[arg(long, help_heading = "Training", default_value_t = 1.0)]
    max_grad_norm: f64,
    /// Of the adapter's first numbers and the batches
    #[arg(long, help_heading = "Training", default_value_t = 0)]
    seed: u64,
    /// Where the adapter is written, as PEFT loads it
    #[arg(long, help_heading = "Training", default_value = "nightshift-adapter", value_name = "DIR", value_parser = path())]
    out: PathBuf,
    /// Go on where a stopped training into the same folder left off, or, with --steps, for so many more from the adapter
    /// that a finished one left there
    #[arg(long, help_heading = "Training")]
    resume: bool,
    /// Replace a finished adapter that is in the folder
    #[arg(long, help_heading = "Training")]
    force: bool,
    /// Steps between two checkpoints
    #[arg(long, help_heading = "Training", default_value_t = 50, value_name = "STEPS")]
    checkpoint_every: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleArg {
    Cosine,
    Constant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OptimizerArg {
    Adamw,
    Sgd,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    finished: bool,
    steps: u32,
    tokens: u64,
    tokens_per_second: f64,
    peak_rss_bytes: Option<u64>,
    losses: Vec<f32>,
    held_out_tokens: u64,
    held_out_before: Option<f64>,
    held_out_after: Option<f64>,
    /// Steps of the adapter that it began with; 0 where it began with none.
    earlier_steps: u32,
    trained_parameters: usize,
    device: String,
    out: PathBuf,
}

/// Trains an adapter of `base` on `data`.
pub(super) fn train(
    base: &Path,
    data: &[PathBuf],
    reading: ReadOptions,
    args: &TrainArgs,
) -> anyhow::Result<Report> {
    let plan = plan(args);
    plan.check()?;
    let checkpoint = args.out.join(CHECKPOINT);
    refuse_finished(args)?;
    let seed = Digest::of(&args.seed.to_le_bytes());
    let batch = BatchShape { batch_size: args.batch as usize, sequence_len: args.seq_len as usize };
    let mut asked = None;
    let engine = open(base, args.compute, |base, compute| {
        let spec = args.adapter.spec(base, Factors::Seeded(seed));
        let len = spec.as_ref().map_or(0, AdapterSpec::trained_len);
        asked = Some(spec);
        compute.training_bytes(base, len, batch)
    })?;
    let Some(spec) = asked else { anyhow::bail!("the base was not opened") };
    let spec = spec?;
    let most = engine.base().config().max_positions;
    if args.seq_len as usize > most {
        return Err(TrainError::TooLong { found: args.seq_len as usize, most }.into());
    }
    let Start { frozen, trained: start, earlier } = Start::of(args, &spec, engine.base(), seed)?;
    // Other batches than those that it was trained on so far.
    let batches = match &earlier {
        None => seed,
        Some(earlier) => Digest::of(&[seed.0.as_slice(), &earlier.steps.to_le_bytes()].concat()),
    };
    let corpus = corpus(engine.base(), data, reading)?;
    let (blocks, held_out) = (corpus.train(args.seq_len), corpus.held_out(args.seq_len));
    let measure = |trained: &[f32]| -> Result<Option<Loss>, TrainError> {
        if held_out.is_empty() {
            return Ok(None);
        }
        engine.loss(&spec, &frozen, trained, &held_out).map(Some)
    };
    let schedule = match args.schedule {
        ScheduleArg::Cosine => Schedule::Cosine { floor: 0.1 },
        ScheduleArg::Constant => Schedule::Constant,
    };
    let job = Job {
        spec: &spec,
        frozen: &frozen,
        start: &start,
        blocks: &blocks,
        plan: &plan,
        schedule,
        seed: batches.0,
    };
    let mut training = engine.begin(job)?;
    std::fs::create_dir_all(&args.out).map_err(FileError::io("make", &args.out))?;
    if args.resume {
        resume(&mut training, args, &checkpoint, earlier.as_ref())?;
    }
    let before = measure(&start)?;
    let (finished, tokens_per_second) = steps(&mut training, args, &plan, &checkpoint)?;
    let (steps, trained) = (training.steps(), training.finish());
    let after = if finished { measure(&trained.parameters)? } else { None };
    if finished {
        let name = name_of(base)?;
        let steps = earlier.as_ref().map_or(steps, |earlier| earlier.steps.saturating_add(steps));
        let personal =
            Personal { seed: args.seed, steps, documents: corpus.documents(), tokens: blocks.targets() };
        let adapter = Adapter {
            spec: spec.clone(),
            frozen: frozen.clone(),
            trained: trained.parameters.clone(),
            origin: Origin::Personal(personal),
        };
        write_peft(&args.out, &adapter, engine.base().digest(), &name)?;
        if checkpoint.exists() {
            std::fs::remove_file(&checkpoint)?;
        }
    }
    Ok(Report {
        finished,
        steps,
        tokens: trained.tokens,
        tokens_per_second,
        peak_rss_bytes: peak_bytes(),
        losses: trained.losses,
        held_out_tokens: before.map_or(0, |loss| loss.tokens),
        held_out_before: before.map(|loss| loss.nats_per_token),
        held_out_after: after.map(|loss| loss.nats_per_token),
        earlier_steps: earlier.map_or(0, |earlier| earlier.steps),
        trained_parameters: spec.trained_len(),
        device: engine.compute().backend.to_string(),
        out: args.out.clone(),
    })
}

/// Fails where a finished adapter would be replaced that nobody said to replace or to go on from.
fn refuse_finished(args: &TrainArgs) -> anyhow::Result<()> {
    let is_stopped = args.out.join(CHECKPOINT).exists();
    if is_stopped && !args.resume && !args.force {
        anyhow::bail!(
            "{} holds a training that was stopped; say --resume to go on with it, or --force to start over",
            args.out.display()
        );
    }
    let goes_on = args.resume && (args.steps.is_some() || is_stopped);
    if args.force || goes_on || !args.out.join(MANIFEST_FILE).exists() {
        return Ok(());
    }
    anyhow::bail!(
        "{} holds a finished adapter; name another folder by --out, say --resume with --steps N to train it for N more, or \
         --force to replace it",
        args.out.display()
    )
}

/// What a training begins with.
struct Start {
    frozen: Vec<f32>,
    trained: Vec<f32>,
    /// How the adapter came to be that it goes on from.
    earlier: Option<Personal>,
}

impl Start {
    /// From nothing, or from the finished adapter in the folder where the user says to go on from it.
    fn of(args: &TrainArgs, spec: &AdapterSpec, base: &Base, seed: Digest) -> anyhow::Result<Self> {
        let (frozen, start) = (spec.seeded_factors(&seed), spec.initial(&seed, None));
        if !args.resume || args.force || !args.out.join(MANIFEST_FILE).exists() {
            return Ok(Self { frozen, trained: start, earlier: None });
        }
        let Adapter { spec: found, trained, origin, .. } = read_peft(&args.out, base)?;
        let folder = args.out.display();
        let Origin::Personal(earlier) = origin else {
            anyhow::bail!(
                "{folder} holds an adapter that was not trained by this command; name another folder by --out"
            )
        };
        // Files have layers in an order of their own.
        let slots = found.slots();
        let of_layer = |module: &Module| slots.iter().find(|slots| slots.module == module);
        let is_alike = found.rank == spec.rank
            && found.modules.len() == spec.modules.len()
            && spec.modules.iter().all(|module| of_layer(module).is_some())
            && (found.scale() - spec.scale()).abs() < 1e-6;
        if !is_alike {
            anyhow::bail!(
                "{folder} holds an adapter of rank {} on {}, scaled by {}, and this is one of rank {} on {}, scaled by {}; give \
                 the options that it was trained with",
                found.rank,
                counted(found.modules.len(), "layer", "layers"),
                found.scale(),
                spec.rank,
                spec.modules.len(),
                spec.scale()
            );
        }
        // A folder of PEFT's has both factors of each layer.
        let (mut a, mut b, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for slots in spec.modules.iter().filter_map(of_layer) {
            for (half, slot) in [(&mut a, &slots.a), (&mut b, &slots.b)] {
                let (Slot::Frozen(range) | Slot::Trained(range)) = slot.clone();
                let numbers = trained.get(range).unwrap_or_default();
                half.extend_from_slice(numbers);
                both.extend_from_slice(numbers);
            }
        }
        let (frozen, start) = match spec.method {
            Method::Both => (Vec::new(), both),
            Method::FrozenA if a == frozen => (a, b),
            Method::FrozenA => anyhow::bail!(
                "{folder} holds an adapter with other frozen factors; give the --seed and the --method that it was trained \
                 with"
            ),
            Method::Core | Method::FrozenB | Method::Alternate => anyhow::bail!(
                "an adapter that was trained with --method core has its small matrix multiplied in, and cannot be gone on \
                 from; train it on with --method both"
            ),
        };
        Ok(Self { frozen, trained: start, earlier: Some(earlier) })
    }
}

/// What other programs load the base by: the hub's name, or the place where it lies, from wherever they are started.
fn name_of(base: &Path) -> anyhow::Result<String> {
    Ok(match source(base)? {
        Source::Hub(repository) => repository.name().to_owned(),
        Source::Path(path) => name_of_base(&path)?,
    })
}

fn plan(args: &TrainArgs) -> TrainingPlan {
    TrainingPlan {
        local_steps: args.steps.unwrap_or(USUAL_STEPS),
        batch_size: args.batch,
        sequence_len: args.seq_len,
        learning_rate: args.lr,
        warmup_steps: args.warmup,
        max_grad_norm: args.max_grad_norm,
        optimizer: match args.optimizer {
            OptimizerArg::Adamw => LocalOptimizer::AdamW { weight_decay: args.weight_decay },
            OptimizerArg::Sgd => LocalOptimizer::Sgd,
        },
    }
}

/// Goes on from a checkpoint. Fails where it cannot be used, unless the user said to start over.
fn resume(
    training: &mut Training<'_>,
    args: &TrainArgs,
    checkpoint: &Path,
    earlier: Option<&Personal>,
) -> anyhow::Result<()> {
    let bytes = match files::read_regular(checkpoint, u64::MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && earlier.is_some() => {
            let steps = counted(earlier.map_or(0, |earlier| earlier.steps), "step", "steps");
            note(&format!("going on from the finished adapter, after {steps}"));
            return Ok(());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let absent =
                format!("there is no checkpoint in {}: training starts at step 1", checkpoint.display());
            note(&message(&absent).to_string());
            return Ok(());
        }
        Err(error) => return Err(FileError::io("read", checkpoint)(error).into()),
    };
    match training.resume(&bytes) {
        Ok(()) => note(&format!("going on after step {}", training.steps())),
        Err(error) if args.force => {
            note(&format!(
                "{}; training starts over",
                message(&format!("{}: {error}", checkpoint.display()))
            ));
        }
        Err(error) => anyhow::bail!(
            "{}: {error}; give the options of the training that was stopped, or --force to leave it and start over",
            checkpoint.display()
        ),
    }
    Ok(())
}

/// Trains to the end or until the user stops it; gives whether it ended, and tokens a second.
fn steps(
    training: &mut Training<'_>,
    args: &TrainArgs,
    plan: &TrainingPlan,
    checkpoint: &Path,
) -> anyhow::Result<(bool, f64)> {
    let stop = stopping()?;
    let bar = ProgressBar::new(u64::from(plan.local_steps));
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} steps, {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_position(u64::from(training.steps()));
    let (began, mut first_tokens, mut last_tokens) = (Instant::now(), None, 0);
    // A bar is for a terminal; elsewhere there is a line for each tenth.
    let (is_watched, each) = (std::io::stderr().is_terminal(), plan.local_steps.div_ceil(10).max(1));
    loop {
        let until = training.steps().saturating_add(args.checkpoint_every.max(1));
        let result = training.run(until, &mut |step: Step| {
            let before = *first_tokens.get_or_insert(if step.step == 1 { 0 } else { step.tokens });
            if step.is_whole() {
                last_tokens = step.tokens.saturating_sub(before);
                let rate = last_tokens as f64 / began.elapsed().as_secs_f64();
                bar.set_message(format!("loss {:.3}, {rate:.0} tokens/s", step.loss));
                bar.set_position(u64::from(step.step));
                if !is_watched && step.step.is_multiple_of(each) {
                    let left = bar.eta().as_secs();
                    let (at, of) = (step.step, plan.local_steps);
                    note(&format!(
                        "step {at} of {of}, loss {:.3}, {rate:.0} tokens/s, {left} s left",
                        step.loss
                    ));
                }
            }
            if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let rate = last_tokens as f64 / began.elapsed().as_secs_f64().max(1e-9);
        match result {
            Ok(()) if training.steps() >= plan.local_steps => {
                bar.finish_and_clear();
                return Ok((true, rate));
            }
            Ok(()) => files::write(checkpoint, &training.checkpoint()?, Audience::Owner)?,
            Err(TrainError::Stopped { .. }) => {
                bar.finish_and_clear();
                files::write(checkpoint, &training.checkpoint()?, Audience::Owner)?;
                return Ok((false, rate));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Canceled when the user or the system asks the program to end.
fn stopping() -> anyhow::Result<CancellationToken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = runtime.block_on(async { stop::on_signal() })?;
    let told = stop.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(told.cancelled());
        runtime.shutdown_timeout(Duration::ZERO);
    })?;
    Ok(stop)
}

impl Report {
    /// Where the user ended it before its end: what to do to go on.
    pub(super) fn stopped(&self) -> Option<String> {
        let steps = self.steps;
        let advice = format!("stopped after step {steps}; run the same command with --resume to go on");
        (!self.finished).then_some(advice)
    }

    /// What a person reads.
    pub(super) fn text(&self) -> String {
        let number = |x: Option<f64>| x.map_or("not measured".to_owned(), |x| format!("{x:.3}"));
        let memory = self.peak_rss_bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let held_out = format!(
            "held-out loss {} before, {} after, over {}",
            number(self.held_out_before),
            number(self.held_out_after),
            counted(self.held_out_tokens, "token", "tokens")
        );
        let what = if self.finished {
            format!("the adapter is in {}", self.out.display())
        } else {
            format!("stopped; the checkpoint is in {}", self.out.display())
        };
        let worse = match (self.held_out_before, self.held_out_after) {
            (Some(before), Some(after)) if after > before || !after.is_finite() => {
                let than = if self.earlier_steps > 0 { "it was before" } else { "the base alone" };
                format!("\nthe adapter is worse than {than}: try a smaller --lr, fewer --steps, or more text")
            }
            _ => String::new(),
        };
        format!(
            "{what}\n{}, {}, {:.0} tokens/s on {}, peak memory {memory}\n{held_out}{worse}",
            counted(self.steps, "step", "steps"),
            counted(self.tokens, "token", "tokens"),
            self.tokens_per_second,
            self.device
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_that_is_worse_than_its_base_is_said_to_be() {
        let report = |after: f64| Report {
            finished: true,
            steps: 20,
            tokens: 140,
            tokens_per_second: 1.0,
            peak_rss_bytes: None,
            losses: Vec::new(),
            held_out_tokens: 9,
            held_out_before: Some(2.5),
            held_out_after: Some(after),
            earlier_steps: 0,
            trained_parameters: 1,
            device: "cpu".to_owned(),
            out: PathBuf::from("out"),
        };
        for (after, is_worse) in [(2.4, false), (2.5, false), (2.6, true), (f64::NAN, true)] {
            assert_eq!(report(after).text().contains("worse than the base alone"), is_worse, "{after}");
        }
    }
}
