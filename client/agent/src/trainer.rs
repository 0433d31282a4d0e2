//! The trainer is a child process of the daemon: this program once more, by a hidden command.
//!
//! The daemon holds keys, talks to the network and must live; a trainer reads the user's text and a base that somebody
//! else made, with code that is written for speed. So the daemon opens no base and reads no text, and the trainer holds
//! no key: what it has come to goes in clear over its pipe, and is sealed here. A trainer that dies, hangs, runs out of
//! memory or says nonsense is a [`TrainerFault`], and the daemon goes on.
//!
//! | file | what it is |
//! | --- | --- |
//! | `process` | starts the process, stops it, and never leaves one behind |
//! | `conversation` | requests in, messages out, and the clock: silence, and being told to leave |
//! | `frame`, `message` | what goes over the pipe |
//! | `attend` | what the daemon makes of a training's messages |
//! | `cgroup` | a memory limit by the system's accounting, where the daemon may set one |
//! | `inside` | the trainer itself |
//! | `sandbox` | what the trainer does to itself first: priority, limits, and what it may not do any more |
//!
//! **When the user comes back** the trainer is stopped at once (`SIGSTOP`), and goes on only to send the newest of the
//! snapshots that it took after each micro-batch (`SIGTERM`, `SIGCONT`). It has two seconds for that, and is ended
//! (`SIGKILL`) after five at the latest. What is lost is the micro-batch that was under way.
//!
//! **A daemon that is stopped** sees no user; one that hangs is ended by its service manager's watchdog. It says once a second that the training may go on; ten seconds
//! after the last word the trainer holds still until the next.
//!
//! **Elsewhere than on Linux** the trainer is a process of its own too, with as many threads, and ends with the daemon,
//! because its pipe does. It has no idle priority, no limit of memory and no sandbox there, and on Windows it goes on to
//! use the CPU until it has sent what it had.

mod attend;
mod cgroup;
mod conversation;
mod frame;
pub(crate) mod inside;
mod message;
mod parts;
pub(crate) mod process;
mod sandbox;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use client::{NoData, Trainer, TrainerError, TrainerFault, TrainingEnd, TrainingJob};
use engine::DeviceRequest;
use engine::process::available_bytes;
use proto::ids::Digest;
use proto::shown::shown;
use text::ControlTokens;
use text::ReadOptions;
use text::SecretLines;

use crate::config::{Config, Dtype};
use cgroup::MemoryGroup;
use conversation::{Conversation, Ended, Requests};
use message::{Asked, Describe, Described, Hello, Measure, Probe, Said, Setup, VERSION};

/// The longest that a trainer may say nothing: it speaks after each file, document and micro-batch, but not while it reads
/// a base, which is the longest of these on a slow disk.
const LONGEST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// What a trainer has beside the weights and twice what a training is known to take: text and tokens of up to 64 MiB of
/// text several times over, tokenizer, earlier epochs' changes, a gibibyte that the allocator takes in one piece, stacks.
const MEMORY_BESIDE: u64 = 3 << 30;

/// What a trainer works with.
#[derive(Clone, Debug)]
pub struct TrainerSettings {
    /// The folder or file of each base.
    pub bases: Vec<PathBuf>,
    /// Where the user's text is.
    pub data: Vec<PathBuf>,
    /// How the user's text is read.
    pub reading: ReadOptions,
    /// Where training computes.
    pub device: DeviceRequest,
    /// In what numbers products with the base are computed.
    pub dtype: Dtype,
    /// Whether blocks are computed again on the way back.
    pub recompute: bool,
    /// The most threads that it uses.
    pub threads: usize,
}

impl TrainerSettings {
    /// As the configuration says, on the bases that lie there; without a number of threads, half of the cores.
    pub fn of(config: &Config, bases: Vec<PathBuf>) -> Self {
        Self {
            bases,
            data: config.data.clone(),
            reading: config.reading(),
            device: config.device,
            dtype: config.dtype,
            recompute: config.recompute,
            threads: config.threads_beside_the_user(),
        }
    }
}

/// Why there is no trainer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to train on.
    #[error(transparent)]
    NoData(#[from] NoData),
    /// What is named is not there, or nothing of it can be used.
    #[error("no text to train on: {0}")]
    NoText(String),
    /// The base, or the device to train on, cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The trainer itself broke.
    #[error("the trainer failed when it read the base: {0}")]
    Fault(#[from] TrainerFault),
}

/// What a trainer could do, of what it must not be able to do; [`ChildTrainer::probe`] asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protections {
    /// What it said of itself that protects others from it.
    pub held: Vec<String>,
    /// What it said of itself that does not hold here, and why.
    pub missing: Vec<String>,
    /// What it tried and could do.
    pub could: Vec<String>,
    /// What it tried and could not do.
    pub could_not: Vec<String>,
}

/// Trains in a child process; see the [module](self).
#[derive(Debug)]
pub struct ChildTrainer {
    program: PathBuf,
    settings: TrainerSettings,
    longest_silence: Duration,
    bases: Vec<Known>,
    /// Why the others are none.
    left_out: Vec<String>,
    device: String,
    /// What was asked once is not asked again: of a base, by its digest, and the shape of a batch.
    measured: Mutex<BTreeMap<(Digest, usize, usize), u64>>,
}

/// A base that a trainer has read.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    digest: Digest,
    layers: Vec<String>,
    weights_bytes: u64,
}

impl ChildTrainer {
    /// A trainer of this program's own file, once it has read the bases and said what they are. That takes as long as
    /// reading them does, so do not call it where others wait.
    ///
    /// A base that cannot be used is said and left out. Fails where none is left, where no text is named, where the device
    /// cannot be used, and where the trainer broke.
    pub fn start(settings: TrainerSettings) -> Result<Self, StartError> {
        let program = process::this_program()
            .map_err(|error| TrainerFault::NotStarted(format!("this program's own file: {error}")))?;
        Self::start_as(program, settings, LONGEST_SILENCE)
    }

    /// The same of any program that has this one's hidden command, and that is ended when it says nothing for so long.
    pub fn start_as(
        program: PathBuf,
        settings: TrainerSettings,
        longest_silence: Duration,
    ) -> Result<Self, StartError> {
        if settings.data.is_empty() {
            return Err(NoData.into());
        }
        let mut trainer = Self { program, longest_silence, ..Self::without_base(settings) };
        for path in trainer.settings.bases.clone() {
            match trainer.describe(&path) {
                Ok(described) => trainer.add(path, described)?,
                Err(StartError::Unusable(why)) => {
                    let why = format!("the base {} cannot be used: {why}", path.display());
                    tracing::warn!("{why}");
                    trainer.left_out.push(why);
                }
                Err(error) => return Err(error),
            }
        }
        match (trainer.bases.is_empty(), trainer.left_out.as_slice()) {
            (false, _) => Ok(trainer),
            (true, []) => Err(StartError::Unusable("no base is named; name one by `base`".to_owned())),
            (true, all) => Err(StartError::Unusable(all.join("; "))),
        }
    }

    /// A trainer that holds no base yet, for a device that is to fetch one.
    pub fn without_base(settings: TrainerSettings) -> Self {
        Self {
            program: PathBuf::new(),
            settings,
            longest_silence: LONGEST_SILENCE,
            bases: Vec::new(),
            left_out: Vec::new(),
            device: String::new(),
            measured: Mutex::default(),
        }
    }

    /// Why bases of the settings are none that it trains on.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn add(&mut self, path: PathBuf, described: Described) -> Result<(), TrainerFault> {
        let digest = described.digest.try_into().map_err(|_| nonsense("a digest that is none"))?;
        let digest = Digest(digest);
        if let Some(twin) = self.known(digest) {
            tracing::warn!("{} and {} are the same base", twin.path.display(), path.display());
            return Ok(());
        }
        tracing::info!(base = %digest, path = %path.display(), "holds the base");
        let Described { layers, weights_bytes, device, .. } = described;
        self.bases.push(Known { path, digest, layers, weights_bytes });
        self.device = shown(&device).to_string();
        Ok(())
    }

    fn known(&self, base: Digest) -> Option<&Known> {
        self.bases.iter().find(|known| known.digest == base)
    }

    /// Where a base lies that is trained; whoever asks for another one asks in vain.
    fn path(&self, base: Digest) -> Result<&Path, TrainerFault> {
        let known =
            self.known(base).ok_or_else(|| TrainerFault::NotStarted(format!("there is no base {base}")))?;
        Ok(&known.path)
    }

    /// The same with another program to train by, as a test has it.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Where it computes, as a person names it.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What protects others from a trainer here: what it says, and what comes of its trying, reading `outside` among
    /// other things.
    pub fn probe(&self, outside: &Path) -> Result<Protections, TrainerFault> {
        let outside = bytes_of(outside)?;
        let (held, missing) = (Mutex::default(), Mutex::default());
        let heard = |hello: &Hello| {
            put(&held, hello.protections.clone());
            put(&missing, hello.missing.clone());
        };
        let requests: Requests<'_> = Box::new(move |send| send(Asked::Probe(Probe { outside })));
        let base = self.bases.first().map(|known| (known.path.as_path(), known.digest));
        let (path, base) = base.ok_or_else(|| TrainerFault::NotStarted("there is no base".to_owned()))?;
        let most = self.most_memory(base, 0);
        let probed = self.ask(path, Some(most), requests, &heard, |said| {
            if let Said::Probed(probed) = said { Some(probed) } else { None }
        })?;
        let (held, missing) = (taken(held), taken(missing));
        Ok(Protections { held, missing, could: probed.could, could_not: probed.could_not })
    }

    /// Asks a trainer that lives for this alone what a base is.
    fn describe(&self, base: &Path) -> Result<Described, StartError> {
        let heard = |hello: &Hello| {
            for missing in &hello.missing {
                tracing::warn!("trainings go on without a protection: {}", shown(missing));
            }
            let protections = hello.protections.join(", ");
            tracing::info!(protections = %shown(&protections), "the trainer is shut in");
        };
        let requests: Requests<'_> = Box::new(|send| send(Asked::Describe(Describe {})));
        self.ask(base, available_bytes(), requests, &heard, |said| {
            if let Said::Described(described) = said {
                return Some(Ok(described));
            }
            if let Said::Unusable(why) = said { Some(Err(StartError::Unusable(why))) } else { None }
        })?
    }

    /// Asks a trainer that lives for this alone how much memory a training takes beside its base.
    fn measure(&self, base: Digest, batch: usize, length: usize) -> Result<u64, TrainerFault> {
        let size = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let measure = Measure { trained: 0, batch: size(batch), length: size(length) };
        let requests: Requests<'_> = Box::new(move |send| send(Asked::Measure(measure)));
        self.ask(self.path(base)?, available_bytes(), requests, &|_| {}, |said| {
            if let Said::Measured(measured) = said {
                return Some(Ok(measured.bytes));
            }
            if let Said::Unusable(why) = said { Some(Err(TrainerFault::NotStarted(why))) } else { None }
        })?
    }

    /// A conversation of one question and one answer, which `wanted` finds.
    fn ask<T>(
        &self,
        base: &Path,
        most_memory: Option<u64>,
        requests: Requests<'_>,
        heard: &dyn Fn(&Hello),
        mut wanted: impl FnMut(Said) -> Option<T>,
    ) -> Result<T, TrainerFault> {
        let ended = self.converse(base, most_memory, requests, &|| false, heard, &mut |said| {
            if matches!(said, Said::Alive(_)) {
                return Ok(ControlFlow::Continue(()));
            }
            let answer = wanted(said).ok_or_else(|| nonsense("an answer to what was not asked"))?;
            Ok(ControlFlow::Break(answer))
        })?;
        match ended {
            Ended::Said(answer) => Ok(answer),
            Ended::Left => Err(nonsense("it left, and nobody told it to")),
        }
    }

    /// A conversation with a trainer of these settings, on this base, that may have so much memory.
    fn converse<T>(
        &self,
        base: &Path,
        most_memory: Option<u64>,
        requests: Requests<'_>,
        must_leave: &dyn Fn() -> bool,
        heard: &dyn Fn(&Hello),
        said: &mut dyn FnMut(Said) -> Result<ControlFlow<T>, TrainerFault>,
    ) -> Result<Ended<T>, TrainerFault> {
        let group = most_memory.and_then(MemoryGroup::delegated);
        let setup = self.setup(base, most_memory.filter(|_| group.is_none()))?;
        let started = |id: u32| {
            if let Some(group) = &group
                && let Err(error) = group.take_in(id)
            {
                tracing::warn!("the trainer's memory is not limited by its control group: {error}");
            }
        };
        let conversation = Conversation {
            program: &self.program,
            setup,
            requests,
            must_leave,
            longest_silence: self.longest_silence,
            started: &started,
            heard,
        };
        let ended = conversation.hold(said);
        match (ended, group) {
            // The system ends who has used up the memory of a group.
            (Err(TrainerFault::Killed { signal: 9 }), Some(group)) if group.ran_out() => {
                Err(TrainerFault::OutOfMemory)
            }
            (ended, _) => ended,
        }
    }

    fn setup(&self, base: &Path, most_memory_bytes: Option<u64>) -> Result<Setup, TrainerFault> {
        let settings = &self.settings;
        let device = match settings.device {
            DeviceRequest::Auto => "auto".to_owned(),
            DeviceRequest::At(backend) => backend.to_string(),
        };
        Ok(Setup {
            version: VERSION,
            base: bytes_of(base)?,
            data: settings.data.iter().map(|path| bytes_of(path)).collect::<Result<_, _>>()?,
            keep_secret_looking_lines: settings.reading.secrets == SecretLines::Keep,
            read_control_tokens: settings.reading.control_tokens == ControlTokens::AsTokens,
            threads: u64::try_from(settings.threads).unwrap_or(u64::MAX),
            device,
            dtype: settings.dtype.as_str().to_owned(),
            recompute: settings.recompute,
            most_memory_bytes,
        })
    }

    /// The most memory of a trainer that needs so many bytes beside its base: generous, since a training that is ended for
    /// too little has cost a night, and no more than there is.
    fn most_memory(&self, base: Digest, beside: u64) -> u64 {
        let weights = self.known(base).map_or(0, |known| known.weights_bytes);
        let most = weights.saturating_add(beside.saturating_mul(2)).saturating_add(MEMORY_BESIDE);
        available_bytes().map_or(most, |available| most.min(available))
    }
}

impl Trainer for ChildTrainer {
    fn bases(&self) -> Vec<Digest> {
        self.bases.iter().map(|known| known.digest).collect()
    }

    fn layers(&self, base: Digest) -> Vec<String> {
        self.known(base).map(|known| known.layers.clone()).unwrap_or_default()
    }

    /// Asks a trainer, the first time for each base and shape of a batch. Where that one breaks, nothing is known, and the training
    /// is tried all the same: its trainer looks again, and its memory is limited.
    fn training_bytes(&self, base: Digest, trained: usize, batch: usize, length: usize) -> u64 {
        let shape = (base, batch, length);
        let known = self.measured.lock().ok().and_then(|known| known.get(&shape).copied());
        let beside = known.unwrap_or_else(|| match blocking(|| self.measure(base, batch, length)) {
            Ok(bytes) => {
                if let Ok(mut known) = self.measured.lock() {
                    known.insert(shape, bytes);
                }
                bytes
            }
            Err(fault) => {
                let fault = fault.to_string();
                tracing::warn!("it is not known how much memory a training takes: {}", shown(&fault));
                // It is not asked again and again, each time with all of the base read.
                if let Ok(mut known) = self.measured.lock() {
                    known.insert(shape, 0);
                }
                0
            }
        });
        // As the engine counts: value, gradient, two moments and what it began with.
        beside.saturating_add(20 * u64::try_from(trained).unwrap_or(u64::MAX / 20))
    }

    fn train(&self, job: &TrainingJob<'_>) -> Result<TrainingEnd, TrainerError> {
        attend::attend(self, job)
    }
}

/// Runs what waits for a process; on a thread of a runtime, so that others take over what else that thread has to do.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};

    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        Ok(_) | Err(_) => work(),
    }
}

fn nonsense(what: &str) -> TrainerFault {
    TrainerFault::Nonsense(what.to_owned())
}

fn put<T>(place: &Mutex<T>, value: T) {
    if let Ok(mut place) = place.lock() {
        *place = value;
    }
}

fn taken<T: Default>(place: Mutex<T>) -> T {
    place.into_inner().unwrap_or_default()
}

/// A path as it goes over the pipe.
#[cfg(unix)]
fn bytes_of(path: &Path) -> Result<Vec<u8>, TrainerFault> {
    use std::os::unix::ffi::OsStrExt;

    // The trainer's working folder is another.
    let path = std::path::absolute(path).map_err(|error| unusable_path(path, &error))?;
    Ok(path.as_os_str().as_bytes().to_vec())
}

/// A path as it goes over the pipe, where it is text.
#[cfg(not(unix))]
fn bytes_of(path: &Path) -> Result<Vec<u8>, TrainerFault> {
    let path = std::path::absolute(path).map_err(|error| unusable_path(path, &error))?;
    let text = path.to_str().ok_or_else(|| unusable_path(&path, &"it is no text; rename it"))?;
    Ok(text.as_bytes().to_vec())
}

/// A path as it came over the pipe; fails where it is none.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere not all bytes are a path")]
fn path_of(bytes: &[u8]) -> Result<PathBuf, std::str::Utf8Error> {
    use std::os::unix::ffi::OsStrExt;

    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

/// A path as it came over the pipe; fails where it is none.
#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> Result<PathBuf, std::str::Utf8Error> {
    std::str::from_utf8(bytes).map(PathBuf::from)
}

fn unusable_path(path: &Path, why: &dyn fmt::Display) -> TrainerFault {
    TrainerFault::NotStarted(format!("the path {} cannot be used: {why}", path.display()))
}
