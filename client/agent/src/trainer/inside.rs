//! The trainer itself: shuts itself in, and then does what it is asked for, once.
//!
//! The order is the point. First it sees to it that it ends with the daemon; then it reads what it is to work with, paths
//! and numbers of the daemon's own; then it gives up what it does not need; and only then does it read anything that
//! somebody else wrote, the base and the user's text. It holds no key and touches no disk but to read those.
#![expect(clippy::disallowed_methods, reason = "IO shell: the time since the trainer was started")]

mod pipe;
mod probe;

use std::fs::File;
use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use client::{InProcess, LocalEnd, TrainingJob};
use engine::process::available_bytes;
use engine::{Base, BatchShape, Compute, DeviceRequest, Engine, Projection, check_vectors};
use proto::adapter::{Class, Folded, State};
use proto::message::Published;
use proto::plan::{Plan, vector_from_bytes};
use proto::shown::message;
use session::Work;
use session::policy::{Breach, Policy};
use text::{Reading, UserText};
use zeroize::Zeroizing;

use super::message::{
    Asked, Described, Kind, Limit, Measure, Measured, Read, Refused, Said, Setup, ToTrainer, Train, Trained,
    VERSION, VersionBefore,
};
use super::parts::Assembly;
use super::{frame, path_of, process, sandbox};
use crate::config::{Config, Dtype};
use pipe::Pipe;

/// Who started the trainer.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct TrainerArgs {
    /// The process that started it
    #[arg(long, value_name = "PID")]
    parent: u32,
}

/// What ends a trainer at once: the daemon is gone, or says nonsense.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the pipe to the daemon is broken: {0}")]
    Pipe(#[from] io::Error),
    #[error("the pipe from the daemon is broken: {0}")]
    Frame(#[from] frame::FrameError),
    #[error("a path from the daemon is no text")]
    Path(#[from] std::str::Utf8Error),
    #[error("the daemon asked for what does not belong here")]
    Asked,
}

/// Runs a trainer to its end. Nobody but the daemon calls it.
pub(crate) fn main(args: TrainerArgs) -> ExitCode {
    // What a panic says could quote the user's text; where it was is the program's own.
    panic::set_hook(Box::new(|panicked| {
        let place = panicked.location().map(ToString::to_string).unwrap_or_default();
        // Where stderr is closed there is nobody to tell.
        drop(writeln!(io::stderr().lock(), "{} at {place}", process::PANICKED));
    }));
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: TrainerArgs) -> Result<(), Broken> {
    // Nothing is done for a daemon that is gone already.
    if !sandbox::end_with(args.parent) {
        return Ok(());
    }
    sandbox::close_what_was_inherited();
    let mut first = sandbox::step_back();
    let (mut input, pipe) = (pipe::input()?, Arc::new(Pipe::new()));
    let Some(Asked::Setup(setup)) = ask(&mut input)? else { return Err(Broken::Asked) };
    if setup.version != VERSION {
        return Err(Broken::Asked);
    }
    // It has a pipe of its own, made before that is forbidden.
    let signals = pipe::Signals::new()?;
    let Inside { config, paths } = Inside::of(&setup)?;
    match sandbox::shut_in(&paths, setup.most_memory_bytes, may_use_gpu(config.device)) {
        Ok(then) => first.add(then),
        Err(why) => {
            pipe.say(Said::Unprotected(why));
            return Ok(());
        }
    }
    pipe.say(Said::Hello(first.into_hello()));
    signals.leave_by(&pipe)?;
    match ask(&mut input)?.ok_or(Broken::Asked)? {
        Asked::Describe(_) => answer(&pipe, describe(&config)),
        Asked::ReadText(_) => answer(&pipe, Ok(read_text(&config))),
        Asked::Measure(measure) => answer(&pipe, measured(&config, measure)),
        Asked::Probe(probe) => pipe.say(Said::Probed(probe::probe(&path_of(&probe.outside)?, args.parent))),
        Asked::Train(train) => {
            let elapsed = Duration::from_millis(train.elapsed_millis);
            let work = receive(&train, &mut input, &pipe)?;
            pipe.leave_when_told(input);
            let begun = Instant::now();
            let elapsed = || elapsed.saturating_add(begun.elapsed());
            answer(&pipe, train_now(config, &train, &work, &elapsed, &pipe));
        }
        Asked::Setup(_) | Asked::Part(_) | Asked::Leave(_) | Asked::GoOn(_) => return Err(Broken::Asked),
    }
    Ok(())
}

/// The next request.
fn ask(input: &mut File) -> Result<Option<Asked>, frame::FrameError> {
    let asked = frame::read::<ToTrainer>(input)?;
    Ok(asked.and_then(|asked| asked.asked))
}

/// Says what came of it; that it cannot be is an answer too.
fn answer(pipe: &Pipe, said: Result<Said, String>) {
    // What is quoted is of the base, or of its own settings.
    pipe.say(said.unwrap_or_else(|why| Said::Unusable(message(&why).to_string())));
}

/// What a trainer works with.
struct Inside {
    config: Config,
    /// All that it may read.
    paths: Vec<PathBuf>,
}

impl Inside {
    fn of(setup: &Setup) -> Result<Self, Broken> {
        let base = path_of(&setup.base)?;
        let data: Vec<PathBuf> = setup.data.iter().map(|path| path_of(path)).collect::<Result<_, _>>()?;
        let device = DeviceRequest::from_str(&setup.device).map_err(|_| Broken::Asked)?;
        let dtype = Dtype::from_str(&setup.dtype, false).map_err(|_| Broken::Asked)?;
        let paths = sandbox::files_of_base(&base).into_iter().chain(data.clone()).collect();
        let config = Config {
            base,
            data,
            keep_secret_looking_lines: setup.keep_secret_looking_lines,
            read_control_tokens: setup.read_control_tokens,
            threads: usize::try_from(setup.threads).unwrap_or(1).max(1),
            device,
            dtype,
            recompute: setup.recompute,
            ..Config::default()
        };
        Ok(Self { config, paths })
    }
}

/// Whether a GPU's driver may have to be reached.
fn may_use_gpu(device: DeviceRequest) -> bool {
    use engine::{Backend, CandleDevice};

    match device {
        DeviceRequest::Auto => cfg!(any(feature = "cuda", feature = "metal")),
        DeviceRequest::At(Backend::Candle(CandleDevice::Cuda(_) | CandleDevice::Metal(_))) => true,
        DeviceRequest::At(Backend::Cpu | Backend::Candle(CandleDevice::Cpu)) => false,
    }
}

/// Reads the base, where there is memory for it; fails with what is wrong and what to do.
fn read_base(config: &Config) -> Result<(Base, Compute), String> {
    check_vectors().map_err(|error| error.to_string())?;
    let compute = config.compute().map_err(|error| error.to_string())?;
    let options = config.dtype.options();
    let needed = Base::needed_bytes(&config.base, options).map_err(|error| error.to_string())?;
    if let Some(free) = available_bytes().filter(|free| needed > *free) {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(format!(
            "the base needs {} MiB of memory and {} MiB are free; use a smaller or a quantised base, or another dtype \
             than f32",
            mib(needed),
            mib(free)
        ));
    }
    let base = Base::open_with(&config.base, options).map_err(|error| error.to_string())?;
    Ok((base, compute))
}

fn describe(config: &Config) -> Result<Said, String> {
    let (base, compute) = read_base(config)?;
    let weights =
        Base::needed_bytes(&config.base, config.dtype.options()).map_err(|error| error.to_string())?;
    let layers = base.modules(&Projection::ALL).into_iter().map(|module| module.name).collect();
    Ok(Said::Described(Described {
        digest: base.digest().0.to_vec(),
        layers,
        weights_bytes: weights.saturating_add(compute.copied_bytes(base.config())),
        device: compute.backend.to_string(),
    }))
}

/// Whether there is text to train on; no base is read for it.
fn read_text(config: &Config) -> Said {
    match UserText::read(&config.data, &config.reading()) {
        Ok(text) => {
            let Reading { files, documents, .. } = *text.reading();
            Said::Read(Read { files, documents, ..Read::default() })
        }
        Err(error) => Said::NoText(message(&error.to_string()).to_string()),
    }
}

fn measured(config: &Config, measure: Measure) -> Result<Said, String> {
    let (base, compute) = read_base(config)?;
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let shape = BatchShape { batch_size: size(measure.batch), sequence_len: size(measure.length) };
    Ok(Said::Measured(Measured { bytes: compute.training_bytes(&base, size(measure.trained), shape) }))
}

/// Receives what is to be trained. The daemon made it of what it checked, so what does not fit is the daemon's mistake.
fn receive(train: &Train, input: &mut File, pipe: &Pipe) -> Result<Work, Broken> {
    let mut vector = |kind: Kind, numbers: u64| -> Result<Vec<f32>, Broken> {
        let bytes = receive_parts(input, kind, numbers.saturating_mul(4))?;
        vector_from_bytes(&bytes).ok_or(Broken::Asked)
    };
    let frozen = vector(Kind::Frozen, train.frozen)?;
    let folded = vector(Kind::Folded, train.folded)?;
    let trained = vector(Kind::Parameters, train.trained)?;
    let before = match train.before {
        None => None,
        Some(VersionBefore { turn, frozen, folded, trained }) => Some((
            turn,
            vector(Kind::FrozenBefore, frozen)?,
            vector(Kind::FoldedBefore, folded)?,
            vector(Kind::ParametersBefore, trained)?,
        )),
    };
    if let Some(bytes) = train.checkpoint {
        pipe.found(receive_parts(input, Kind::Checkpoint, bytes)?);
    }
    let published: Published = serde_json::from_slice(&train.published).map_err(|_| Broken::Asked)?;
    let plan = Plan::parse(&train.plan).map_err(|_| Broken::Asked)?;
    let mechanism = plan.mechanism_at(published.version, published.clip_norm).map_err(|_| Broken::Asked)?;
    let state = |version, frozen, folded: Vec<f32>, trained| {
        let folded = if folded.is_empty() {
            Folded::default()
        } else {
            Folded::from_vector(&plan.adapter.modules, &folded, u32::MAX).map_err(|_| Broken::Asked)?
        };
        Ok::<_, Broken>(State { spec: plan.adapter.at(version), frozen, folded, trained })
    };
    let before =
        before.map(|(turn, frozen, folded, trained)| state(turn, frozen, folded, trained)).transpose()?;
    let state = state(published.version, frozen, folded, trained)?;
    let class = train.class.map(|class| Class { rank: class.rank, layers: class.layers });
    // What is published of the other half, where there is one, is not trained.
    let adapter = Vec::new();
    // The daemon holds it, which alone takes part in rounds.
    let against = None;
    Ok(Work { published, plan, mechanism, state, adapter, class, before, against })
}

fn receive_parts(input: &mut File, expected: Kind, bytes: u64) -> Result<Zeroizing<Vec<u8>>, Broken> {
    let mut assembly = Assembly::default();
    loop {
        let Some(Asked::Part(part)) = ask(input)? else { return Err(Broken::Asked) };
        let added = assembly.add(part, |kind| (kind == expected).then_some(bytes));
        if let Some((_, whole)) = added.map_err(|_| Broken::Asked)? {
            return Ok(whole);
        }
    }
}

fn train_now(
    config: Config,
    train: &Train,
    work: &Work,
    elapsed: &(dyn Fn() -> Duration + Sync),
    pipe: &Pipe,
) -> Result<Said, String> {
    let (base, compute) = read_base(&config)?;
    if base.digest() != work.plan.base {
        return Err(format!(
            "the base in {} has changed: it is {}, the training is of {}; start the agent again",
            config.base.display(),
            base.digest(),
            work.plan.base
        ));
    }
    let policy = Policy {
        longest_training_minutes: train.longest_training_minutes,
        largest_memory_mib: train.largest_memory_mib,
        ..Policy::default()
    };
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let shape = BatchShape {
        batch_size: size(work.plan.training.batch_size),
        sequence_len: size(work.plan.training.sequence_len),
    };
    let trained = work.training().map_or(work.state.trained.len(), |state| state.trained.len());
    let needed = compute.training_bytes(&base, trained, shape);
    let needed = needed.saturating_add(compute.copied_bytes(base.config()));
    if let Err(breach) = policy.memory(needed, available_bytes()) {
        return Ok(refused(&breach));
    }
    let (reading, data) = (config.reading(), config.data);
    let engine = Engine::new(Arc::new(base)).with_compute(compute);
    let trainer = InProcess::new(engine, data, reading).map_err(|error| error.to_string())?;
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
        train.seed.as_slice().try_into().map_err(|_| "the seed is not of 32 bytes".to_owned())?,
    );
    // It is never told so: who tells a trainer to leave ends it.
    let leave = AtomicBool::new(false);
    let job = TrainingJob::new(work, *seed, &policy, elapsed, pipe, &leave);
    match trainer.train_parameters(&job) {
        Ok(LocalEnd::Trained(trained, gains)) => {
            let said = Trained {
                loss: trained.mean_loss(),
                examples: trained.examples,
                over_before: gains.over_before,
                over_base: gains.over_base,
            };
            pipe.give(&Zeroizing::new(proto::plan::vector_to_bytes(&trained.parameters)));
            Ok(Said::Trained(said))
        }
        Ok(LocalEnd::NotTrained(why)) => Ok(Said::NotTrained(why)),
        Ok(LocalEnd::Refused(breach)) => Ok(refused(&breach)),
        Err(error) => Ok(Said::NoText(message(&error.to_string()).to_string())),
    }
}

/// The limits that a training can meet.
fn refused(breach: &Breach) -> Said {
    let (limit, found, most) = match *breach {
        Breach::Time { found, most } => (Limit::Time, found, u64::from(most)),
        Breach::Memory { needed_mib, most_mib } => (Limit::Memory, needed_mib, most_mib),
        Breach::FreeMemory { needed_mib, free_mib } => (Limit::FreeMemory, needed_mib, free_mib),
        ref other @ (Breach::Task(_)
        | Breach::Forgotten(_)
        | Breach::BaseNotAllowed(_)
        | Breach::Base { .. }
        | Breach::WithoutNoise(_)
        | Breach::Noise { .. }
        | Breach::Cohort { .. }
        | Breach::ReportGoal { .. }
        | Breach::Corrupt { .. }
        | Breach::CorruptDevices { .. }
        | Breach::Epsilon { .. }
        | Breach::EpsilonInTotal { .. }
        | Breach::Delta { .. }
        | Breach::Participations(_)
        | Breach::InTotal(_)
        | Breach::Size { .. }
        | Breach::Layer(_)
        | Breach::NotKept(_)
        | Breach::Tokens { .. }
        | Breach::Resting { .. }) => return Said::NotTrained(other.to_string()),
    };
    Said::Refused(Refused { limit: limit.into(), found, most })
}
