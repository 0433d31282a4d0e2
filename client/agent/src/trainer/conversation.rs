//! One conversation with a trainer, from its start to its end: requests in, messages out, and a clock beside them.
#![expect(clippy::disallowed_methods, reason = "IO shell: how long the trainer was silent")]

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use client::TrainerFault;

use super::frame::{self, FrameError};
use super::message::{Asked, FromTrainer, GO_ON_EVERY, GoOn, Hello, Leave, Said, Setup, ToTrainer, VERSION};
use super::process::{Pipes, TrainerProcess, read_stderr};

/// How often it is looked whether the trainer must leave.
const LOOK: Duration = Duration::from_millis(20);

/// What a trainer that must leave has to send what it has.
const TO_SEND: Duration = Duration::from_secs(2);

/// When a trainer that must leave is ended, though it still sends.
const AT_THE_LATEST: Duration = Duration::from_secs(5);

/// What a trainer that closed its pipe has to end.
const TO_END: Duration = Duration::from_secs(5);

/// Messages of the trainer that wait to be looked at; each is at most a frame.
const WAITING: usize = 4;

/// What a trainer is asked for, in order; the message to leave may follow.
pub(super) type Requests<'a> =
    Box<dyn FnOnce(&mut dyn FnMut(Asked) -> io::Result<()>) -> io::Result<()> + Send + 'a>;

/// How a conversation ended that did not fail.
#[derive(Debug, PartialEq)]
pub(super) enum Ended<T> {
    /// The trainer said what it had to say.
    Said(T),
    /// It was told to leave, and is gone without a word.
    Left,
}

/// What a conversation needs.
pub(super) struct Conversation<'a> {
    /// The program that is the trainer.
    pub(super) program: &'a Path,
    /// The first message to it.
    pub(super) setup: Setup,
    /// What it is asked for then.
    pub(super) requests: Requests<'a>,
    /// Whether it must leave.
    pub(super) must_leave: &'a dyn Fn() -> bool,
    /// The longest that it may say nothing.
    pub(super) longest_silence: Duration,
    /// Told of the number of the process, before it is asked for anything.
    pub(super) started: &'a dyn Fn(u32),
    /// Told what the trainer did to protect itself.
    pub(super) heard: &'a dyn Fn(&Hello),
}

impl Conversation<'_> {
    /// Starts the trainer, asks, and gives each message to `said` until that has what it wants. The trainer is gone when
    /// this returns, whatever it returns.
    pub(super) fn hold<T>(
        self,
        said: &mut dyn FnMut(Said) -> Result<ControlFlow<T>, TrainerFault>,
    ) -> Result<Ended<T>, TrainerFault> {
        let (mut process, Pipes { stdin, stdout, stderr }) = TrainerProcess::start(self.program)?;
        (self.started)(process.id());
        let (setup, requests) = (self.setup, self.requests);
        let watch =
            Watch { must_leave: self.must_leave, longest_silence: self.longest_silence, heard: self.heard };
        thread::scope(|scope| {
            let (to_main, messages) = mpsc::sync_channel(WAITING);
            let (leave, leaves) = mpsc::channel::<()>();
            let start = |name: &str| thread::Builder::new().name(name.to_owned());
            let cannot =
                |error: io::Error| TrainerFault::NotStarted(format!("no thread for its pipe: {error}"));
            let outcome = (|| {
                let read =
                    start("trainer-stdout").spawn_scoped(scope, move || read_messages(stdout, &to_main));
                read.map_err(cannot)?;
                let asks = move || ask(stdin, setup, requests, &leaves);
                start("trainer-stdin").spawn_scoped(scope, asks).map_err(cannot)?;
                let errors = start("trainer-stderr").spawn_scoped(scope, move || read_stderr(stderr));
                let errors = errors.map_err(cannot)?;
                match watch.until_it_ends(&mut process, &messages, &leave, said) {
                    Watched::Done(outcome) => outcome,
                    Watched::Closed => {
                        let since = Instant::now();
                        let patience = || {
                            thread::sleep(LOOK);
                            since.elapsed() < TO_END
                        };
                        // Whoever closed one pipe and lives may hold the other: it ends before that is read to its end.
                        let status = process.fault(patience, &[]);
                        let stderr = errors.join().unwrap_or_default();
                        Err(if stderr.is_empty() { status } else { process.fault(patience, &stderr) })
                    }
                }
            })();
            // The threads end with the pipes, and those with the process.
            process.end();
            outcome
        })
    }
}

/// What there is to watch.
struct Watch<'a> {
    must_leave: &'a dyn Fn() -> bool,
    longest_silence: Duration,
    heard: &'a dyn Fn(&Hello),
}

enum Watched<T> {
    /// It is over, as this says.
    Done(Result<Ended<T>, TrainerFault>),
    /// The trainer closed its pipe, which nobody expected.
    Closed,
}

impl Watch<'_> {
    fn until_it_ends<T>(
        &self,
        process: &mut TrainerProcess,
        messages: &Receiver<Result<Said, FrameError>>,
        leave: &mpsc::Sender<()>,
        said: &mut dyn FnMut(Said) -> Result<ControlFlow<T>, TrainerFault>,
    ) -> Watched<T> {
        let mut last_heard = Instant::now();
        let mut has_greeted = false;
        let mut leaves: Option<Instant> = None;
        loop {
            let message = messages.recv_timeout(LOOK);
            match message {
                Ok(Ok(message)) => {
                    last_heard = Instant::now();
                    match self.take(message, &mut has_greeted, said) {
                        Ok(ControlFlow::Continue(())) => {}
                        Ok(ControlFlow::Break(value)) => return Watched::Done(Ok(Ended::Said(value))),
                        Err(fault) => return Watched::Done(Err(fault)),
                    }
                }
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) if leaves.is_some() => {
                    return Watched::Done(Ok(Ended::Left));
                }
                Ok(Err(FrameError::BrokenOff)) | Err(RecvTimeoutError::Disconnected) => {
                    return Watched::Closed;
                }
                Ok(Err(error)) => {
                    return Watched::Done(Err(TrainerFault::Nonsense(error.to_string())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            match leaves {
                Some(since) => {
                    let is_silent = since.elapsed() > TO_SEND && last_heard.elapsed() > LOOK * 10;
                    if is_silent || since.elapsed() > AT_THE_LATEST {
                        return Watched::Done(Ok(Ended::Left));
                    }
                }
                None if (self.must_leave)() => {
                    process.tell_to_leave();
                    // Where there are no signals, this message tells it.
                    leave.send(()).unwrap_or_default();
                    leaves = Some(Instant::now());
                }
                None if last_heard.elapsed() > self.longest_silence => {
                    let secs = self.longest_silence.as_secs();
                    return Watched::Done(Err(TrainerFault::Silent { secs }));
                }
                None => {}
            }
        }
    }

    /// Takes a message, of which the first must be a greeting of the same version.
    fn take<T>(
        &self,
        message: Said,
        has_greeted: &mut bool,
        said: &mut dyn FnMut(Said) -> Result<ControlFlow<T>, TrainerFault>,
    ) -> Result<ControlFlow<T>, TrainerFault> {
        match (message, *has_greeted) {
            (Said::Hello(hello), false) if hello.version == VERSION => {
                *has_greeted = true;
                (self.heard)(&hello);
                Ok(ControlFlow::Continue(()))
            }
            (Said::Hello(hello), false) => Err(TrainerFault::Nonsense(format!(
                "it speaks version {} where this daemon speaks {VERSION}; start the agent again",
                hello.version
            ))),
            (Said::Unprotected(why), _) => Err(TrainerFault::Unprotected(why)),
            (Said::Unusable(why), false) => Err(TrainerFault::NotStarted(why)),
            (Said::Hello(_), true) => Err(TrainerFault::Nonsense("a second greeting".to_owned())),
            (_, false) => Err(TrainerFault::Nonsense("a message before its greeting".to_owned())),
            (message, true) => said(message),
        }
    }
}

/// Reads messages until the pipe ends, is broken, or nobody wants them any more.
fn read_messages(stdout: ChildStdout, to_main: &SyncSender<Result<Said, FrameError>>) {
    // Without a buffer of its own: it would not be wiped.
    let mut stdout = stdout;
    loop {
        let message = match frame::read::<FromTrainer>(&mut stdout) {
            Ok(Some(FromTrainer { said: Some(said) })) => Ok(said),
            Ok(Some(FromTrainer { said: None })) => Err(FrameError::NoMessage),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let is_broken = message.is_err();
        if to_main.send(message).is_err() || is_broken {
            return;
        }
    }
}

/// Asks for everything, and then waits: the pipe stays open as long as there is a daemon, which is how a trainer knows on
/// every system that there is one.
fn ask(stdin: ChildStdin, setup: Setup, requests: Requests<'_>, leaves: &Receiver<()>) {
    let mut stdin = stdin;
    let mut send = |asked: Asked| frame::write(&mut stdin, &ToTrainer { asked: Some(asked) });
    // A trainer that takes nothing any more has ended, or is about to be: its other pipe says which.
    if send(Asked::Setup(setup)).and_then(|()| requests(&mut send)).is_err() {
        return;
    }
    loop {
        match leaves.recv_timeout(GO_ON_EVERY) {
            Err(RecvTimeoutError::Timeout) if send(Asked::GoOn(GoOn {})).is_ok() => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            Ok(()) => break,
        }
    }
    drop(send(Asked::Leave(Leave {})));
    // Until the conversation is over.
    leaves.recv().unwrap_or_default();
}
