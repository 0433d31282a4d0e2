//! The trainer's process, as the daemon sees it: started, stopped, told to leave, ended, and never left behind.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use client::TrainerFault;

/// The hidden command of this program that a trainer runs.
pub(crate) const COMMAND: &str = "inside-trainer";

/// What of the environment a trainer gets: which vector instructions it may use, which GPUs, and where the libraries of
/// either are. Nothing else, so no token, no address and no home.
const ENVIRONMENT: [&str; 6] = [
    "NIGHTSHIFT_VECTORS",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "SystemRoot",
];

/// Bytes of what a trainer writes on stderr that are looked at. The rest is read and forgotten, so that it never waits.
const MOST_STDERR: u64 = 4096;

/// How a program's standard library begins to say that there is no memory.
const NO_MEMORY: &[u8] = b"memory allocation of ";

/// How the trainer begins to say that it has a mistake.
pub(super) const PANICKED: &str = "the trainer panicked";

/// The file of this very program.
///
/// On Linux that is the file that runs, whatever has its name by now: an upgrade replaces the name, and daemon and
/// trainer must be one version. `/proc/self` is the process that is about to become the trainer, which still runs the
/// same file then.
pub(crate) fn this_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && running.try_exists().unwrap_or(false) {
        return Ok(running.to_owned());
    }
    std::env::current_exe()
}

/// A trainer's process. Dropped, it is ended and waited for.
///
/// On Linux the system ends it when the *thread* that started it ends (`PR_SET_PDEATHSIG`), so whoever starts one stays
/// with it until it has ended.
#[derive(Debug)]
pub(super) struct TrainerProcess {
    child: Child,
    ended: Option<ExitStatus>,
}

/// Its pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl TrainerProcess {
    /// Starts a trainer of `program`, which has nothing but its three pipes, an empty environment, and a process group of
    /// its own, so that a key pressed at the daemon's terminal does not reach it.
    pub(super) fn start(program: &Path) -> Result<(Self, Pipes), TrainerFault> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg("--parent").arg(std::process::id().to_string());
        command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Nothing is meant by a path from here.
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;

            command.arg0("nightshift-agent").process_group(0).current_dir("/");
        }
        let not_started = |why: String| TrainerFault::NotStarted(format!("{}: {why}", program.display()));
        let mut child = command.spawn().map_err(|error| not_started(error.to_string()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let process = Self { child, ended: None };
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(not_started("the system gave no pipes".to_owned()));
        };
        Ok((process, Pipes { stdin, stdout, stderr }))
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is, tells it to leave, and lets it go on for that alone.
    ///
    /// It uses no more CPU from the first of these signals on; what it does after the last is to send what it has.
    #[cfg(unix)]
    pub(super) fn tell_to_leave(&self) {
        use rustix::process::Signal;

        for signal in [Signal::STOP, Signal::TERM, Signal::CONT] {
            self.signal(signal);
        }
    }

    /// Nothing: the message [`super::message::Leave`] tells it.
    #[cfg(not(unix))]
    pub(super) fn tell_to_leave(&self) {}

    /// Ends it at once, with whatever it started, and waits until it is gone.
    pub(super) fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        #[cfg(unix)]
        if let Some(group) = self.pid() {
            // It has a group of its own; what is in it beside the trainer can only be what it started. That nobody is in
            // it any more is as well.
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap_or_default();
        }
        drop(self.child.kill());
        self.wait();
    }

    /// Waits for a trainer that closed its pipe, and says how it ended. One that does not end is ended.
    pub(super) fn fault(&mut self, patience: impl Fn() -> bool, stderr: &[u8]) -> TrainerFault {
        while self.ended.is_none() && !self.has_exited() {
            if !patience() {
                self.end();
                return TrainerFault::Nonsense("it closed its pipe and did not end".to_owned());
            }
        }
        self.end();
        self.ended.map_or(TrainerFault::Exited { code: -1 }, |status| fault_of(status, stderr))
    }

    /// Whether it has ended by itself. It is not waited for yet, so that its number and its group stay its own.
    #[cfg(unix)]
    fn has_exited(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};

        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.pid().is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
    }

    #[cfg(not(unix))]
    fn has_exited(&mut self) -> bool {
        self.ended = self.child.try_wait().unwrap_or_default();
        self.ended.is_some()
    }

    fn wait(&mut self) {
        if let Ok(status) = self.child.wait() {
            self.ended = Some(status);
        }
    }

    #[cfg(unix)]
    fn pid(&self) -> Option<rustix::process::Pid> {
        rustix::process::Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Sends a signal to it. It was not waited for, so the number is still its own.
    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        if self.ended.is_none()
            && let Some(pid) = self.pid()
            && let Err(error) = rustix::process::kill_process(pid, signal)
        {
            tracing::debug!(%error, "the trainer takes no signal");
        }
    }
}

impl Drop for TrainerProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a trainer wrote on stderr, up to [`MOST_STDERR`] bytes; it returns when nobody writes any more.
///
/// It is never shown or logged, since a library's message could quote the user's text: it only serves to tell one end
/// from another.
pub(super) fn read_stderr(mut stderr: ChildStderr) -> Vec<u8> {
    let mut first = Vec::new();
    if (&mut stderr).take(MOST_STDERR).read_to_end(&mut first).is_ok() {
        drop(io::copy(&mut stderr, &mut io::sink()));
    }
    first
}

/// What the way in which a trainer ended means.
fn fault_of(status: ExitStatus, stderr: &[u8]) -> TrainerFault {
    if stderr.split(|byte| *byte == b'\n').any(|line| line.starts_with(NO_MEMORY)) {
        return TrainerFault::OutOfMemory;
    }
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return TrainerFault::Killed { signal };
    }
    if stderr.starts_with(PANICKED.as_bytes()) {
        return TrainerFault::Panicked;
    }
    TrainerFault::Exited { code: status.code().unwrap_or(-1) }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_known_beginnings_of_what_it_wrote_give_a_reason() {
        let aborted = ExitStatus::from_raw(6);
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let no_memory = b"memory allocation of 4294967296 bytes failed\n";
        assert_eq!(fault_of(aborted, no_memory), TrainerFault::OutOfMemory);
        assert_eq!(fault_of(aborted, b"my diary"), TrainerFault::Killed { signal: 6 });
        assert_eq!(fault_of(exited(101), PANICKED.as_bytes()), TrainerFault::Panicked);
        assert_eq!(fault_of(exited(101), b"my diary"), TrainerFault::Exited { code: 101 });
        for fault in [fault_of(exited(3), b"my diary"), fault_of(aborted, b"my diary")] {
            assert!(!fault.to_string().contains("diary"), "{fault}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_a_fault_that_names_it() {
        let fault = TrainerProcess::start(Path::new("/nowhere/nightshift-agent")).unwrap_err();
        assert!(matches!(fault, TrainerFault::NotStarted(_)));
        assert!(fault.to_string().contains("/nowhere/nightshift-agent"), "{fault}");
    }
}
