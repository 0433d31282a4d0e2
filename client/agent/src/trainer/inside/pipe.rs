//! The trainer's end of the pipe: what it says, and how it leaves.
#![expect(clippy::disallowed_methods, reason = "IO shell: the time since it said last that it is alive")]

use std::fs::File;
use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client::Recorder;
use engine::Step;
use proto::message::Published;
use text::{Notes, Reading};
use zeroize::Zeroizing;

use super::super::frame;
use super::super::message::{Alive, Asked, Forget, FromTrainer, Kind, Left, Read, Said, ToTrainer};
use super::super::parts::parts;

/// How often it says that it is alive, at most.
const ALIVE_EVERY: Duration = Duration::from_millis(100);

/// How long a training goes on without a word of the daemon's: one that is stopped, or hangs, does not see that the user is
/// back.
const UNHEARD: Duration = Duration::from_secs(10);

/// What a training has come to after so many steps.
type Snapshot = (u32, Zeroizing<Vec<u8>>);

/// The trainer's end of the pipe. It is the recorder of the training too: what is to be kept goes to the daemon, and the
/// newest snapshot waits here for the case that the trainer must leave.
pub(super) struct Pipe {
    out: Mutex<Option<File>>,
    newest: Mutex<Option<Snapshot>>,
    /// What the daemon found on its disk, until the training asks for it.
    found: Mutex<Option<Zeroizing<Vec<u8>>>>,
    said_alive: Mutex<Option<Instant>>,
    /// When the daemon said last that the training may go on.
    heard: Mutex<Instant>,
    /// The step that is under way.
    step: AtomicU32,
    leaving: AtomicBool,
}

impl Pipe {
    pub(super) fn new() -> Self {
        Self {
            // Where there is no stdout, the first message ends it.
            out: Mutex::new(output().ok()),
            newest: Mutex::default(),
            found: Mutex::default(),
            said_alive: Mutex::default(),
            heard: Mutex::new(Instant::now()),
            step: AtomicU32::new(0),
            leaving: AtomicBool::new(false),
        }
    }

    /// Says this. Where nobody listens any more, that is the trainer's end.
    pub(super) fn say(&self, said: Said) {
        self.say_all([said]);
    }

    /// The parameters after the last step, which belong to the message that follows.
    pub(super) fn give(&self, parameters: &[u8]) {
        self.say_all(parts(Kind::Parameters, parameters).map(Said::Part));
    }

    /// Takes what the daemon found on its disk.
    pub(super) fn found(&self, clear: Zeroizing<Vec<u8>>) {
        *lock(&self.found) = Some(clear);
    }

    /// Leaves when the daemon says so, and ends when the daemon is gone, which closes the pipe. Where no thread can be
    /// had for that, signals do the first and the system, on Linux, the second.
    pub(super) fn leave_when_told(self: &Arc<Self>, mut input: File) {
        let pipe = Arc::clone(self);
        *lock(&self.heard) = Instant::now();
        let listen = move || loop {
            match frame::read::<ToTrainer>(&mut input) {
                Ok(Some(ToTrainer { asked: Some(Asked::GoOn(_)) })) => *lock(&pipe.heard) = Instant::now(),
                Ok(Some(ToTrainer { asked: Some(Asked::Leave(_)) })) => pipe.leave(),
                Ok(_) | Err(_) => process::exit(1),
            }
        };
        drop(thread::Builder::new().name("leave-when-told".to_owned()).spawn(listen));
    }

    /// Sends the newest snapshot and ends the process, without waiting for the step that is under way.
    fn leave(&self) -> ! {
        self.leaving.store(true, Ordering::Relaxed);
        // A message under way is finished first; none begins after that, because this lock is never given back.
        let mut out = lock(&self.out);
        let newest = lock(&self.newest).take();
        let steps = newest.as_ref().map(|(steps, _)| *steps);
        let clear = newest.iter().flat_map(|(_, clear)| parts(Kind::Newest, clear)).map(Said::Part);
        for said in clear.chain([Said::Left(Left { steps })]) {
            write(&mut out, said);
        }
        process::exit(0)
    }

    fn say_all(&self, all: impl IntoIterator<Item = Said>) {
        self.wait_if_leaving();
        let mut out = lock(&self.out);
        for said in all {
            write(&mut out, said);
        }
    }

    /// A training that is about to be ended uses no more CPU.
    fn wait_if_leaving(&self) {
        while self.leaving.load(Ordering::Relaxed) {
            thread::park();
        }
    }
}

impl Recorder for Pipe {
    fn open(&self, _published: &Published) -> Option<Zeroizing<Vec<u8>>> {
        lock(&self.found).take()
    }

    fn keep(&self, _published: &Published, clear: &Zeroizing<Vec<u8>>) {
        self.say_all(parts(Kind::Checkpoint, clear).map(Said::Part));
    }

    fn delete(&self, _why: &'static str) {
        *lock(&self.newest) = None;
        self.say(Said::Forget(Forget {}));
    }

    fn has_read(&self, reading: &Reading, notes: &Notes) {
        self.say(Said::Read(Read {
            files: reading.files,
            documents: reading.documents,
            with_roles: reading.with_roles,
            duplicates: reading.duplicates,
            surplus: reading.surplus,
            secret_looking: reading.secret_looking(),
            skipped_lines: reading.skipped_lines(),
            unread_files: reading.unread_files(),
            refused: notes.refused(),
            as_letters: notes.as_letters(),
            without_thoughts: notes.without_thoughts,
        }));
    }

    fn goes_on(&self) {
        self.wait_if_leaving();
        while lock(&self.heard).elapsed() > UNHEARD {
            thread::sleep(Duration::from_millis(100));
            self.wait_if_leaving();
        }
        let mut said = lock(&self.said_alive);
        if said.is_none_or(|said| said.elapsed() >= ALIVE_EVERY) {
            *said = Some(Instant::now());
            drop(said);
            self.say(Said::Alive(Alive { step: self.step.load(Ordering::Relaxed) }));
        }
    }

    fn did_micro_batch(&self, step: Step, clear: &dyn Fn() -> Option<Zeroizing<Vec<u8>>>) {
        if let Some(clear) = clear() {
            let whole = if step.is_whole() { step.step } else { step.step.saturating_sub(1) };
            *lock(&self.newest) = Some((whole, clear));
        }
        self.step.store(step.step, Ordering::Relaxed);
    }
}

/// The signals that tell a trainer to leave, caught from the moment that this exists.
#[cfg(unix)]
pub(super) struct Signals(signal_hook::iterator::Signals);

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};

        signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map(Self)
    }

    /// Leaves at the first of them, on a thread that nothing else waits for.
    pub(super) fn leave_by(self, pipe: &Arc<Pipe>) -> io::Result<()> {
        let (mut signals, pipe) = (self.0, Arc::clone(pipe));
        let wait = move || {
            if signals.forever().next().is_some() {
                pipe.leave();
            }
        };
        thread::Builder::new().name("leave-by-signal".to_owned()).spawn(wait).map(drop)
    }
}

/// There are no signals here: a message tells it.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn leave_by(self, _pipe: &Arc<Pipe>) -> io::Result<()> {
        Ok(())
    }
}

/// The process's stdin, without the standard library's buffer: that would not be wiped.
#[cfg(unix)]
pub(super) fn input() -> io::Result<File> {
    use std::os::fd::AsFd;

    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// The process's stdout, likewise.
#[cfg(unix)]
fn output() -> io::Result<File> {
    use std::os::fd::AsFd;

    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

/// The process's stdin, without the standard library's buffer: that would not be wiped.
#[cfg(windows)]
pub(super) fn input() -> io::Result<File> {
    use std::os::windows::io::AsHandle;

    io::stdin().as_handle().try_clone_to_owned().map(File::from)
}

/// The process's stdout, likewise.
#[cfg(windows)]
fn output() -> io::Result<File> {
    use std::os::windows::io::AsHandle;

    io::stdout().as_handle().try_clone_to_owned().map(File::from)
}

fn write(out: &mut Option<File>, said: Said) {
    let written = out.as_mut().map(|out| frame::write(out, &FromTrainer { said: Some(said) }));
    if !matches!(written, Some(Ok(()))) {
        process::exit(1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
