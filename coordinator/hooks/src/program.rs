//! A program on this machine that is asked: no shell, no environment but what it is told, bounded time and output.
#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: a program is waited for, and ended when its time is over"
)]

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use proto::shown::shown;

use crate::failure::HookError;

/// The most bytes that a program may say.
pub(crate) const MOST_BYTES: usize = 64 << 10;

/// The most bytes of its errors that are looked at.
const MOST_ERROR_BYTES: usize = 4 << 10;

/// How often it is asked whether it has ended, after it has said everything.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A program and what it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

/// A program that runs, and is ended with all that it started when this is dropped, or when it ends by itself.
struct Running {
    child: Child,
    is_over: bool,
}

impl Program {
    /// Runs it: `variables` are its whole environment, `input` comes on its standard input. Gives what it said on its standard
    /// output. Blocks, for at most `limit`.
    ///
    /// Fails where it cannot be run, says too much, ends with another code than 0, or takes longer; nothing of it goes on
    /// then.
    pub(crate) fn run(
        &self,
        variables: &[(&str, String)],
        input: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, HookError> {
        let ends = Instant::now() + limit;
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .current_dir(self.path.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| HookError::Unreachable {
            why: format!("{} cannot be run: {error}", self.path.display()),
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut running = Running { child, is_over: false };
        let input = input.to_vec();
        // It ends when the program closes its input, or has gone; one that does not read is no fault yet.
        thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let said = reading(stdout, MOST_BYTES);
        let complained = reading(stderr, MOST_ERROR_BYTES);
        let slow = || HookError::Slow { millis: limit.as_millis() };
        let said = match said.recv_timeout(ends.saturating_duration_since(Instant::now())) {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => return Err(HookError::Failed { why: error.to_string() }),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(slow()),
        };
        if said.len() > MOST_BYTES {
            return Err(HookError::TooMuch { most: MOST_BYTES });
        }
        let status = running.wait(ends)?.ok_or_else(slow)?;
        if !status.success() {
            // It may name a device, so it is for whoever looks closely.
            let complaint =
                complained.recv_timeout(BETWEEN_LOOKS).ok().and_then(Result::ok).unwrap_or_default();
            let complaint = String::from_utf8_lossy(&complaint).into_owned();
            tracing::debug!(program = %self.path.display(), stderr = %shown(&complaint), "a hook failed");
            return Err(HookError::Failed { why: format!("{} ended with {status}", self.path.display()) });
        }
        Ok(said)
    }
}

/// Reads in a thread of its own: up to one byte more than `most`, and for errors the rest, which is thrown away.
fn reading(from: Option<impl Read + Send + 'static>, most: usize) -> Receiver<io::Result<Vec<u8>>> {
    let (send, receive) = sync_channel(1);
    thread::spawn(move || {
        let Some(mut from) = from else { return };
        let mut bytes = Vec::new();
        let read = from.by_ref().take(most as u64 + 1).read_to_end(&mut bytes);
        // Nobody waits any more where the time is over.
        drop(send.send(read.map(|_| bytes)));
        drop(io::copy(&mut from, &mut io::sink()));
    });
    receive
}

impl Running {
    /// How it ended; `None` where it has not by then.
    fn wait(&mut self, ends: Instant) -> Result<Option<ExitStatus>, HookError> {
        while !self.has_ended()? {
            if Instant::now() >= ends {
                return Ok(None);
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        self.end().map(Some).map_err(failed)
    }

    /// Whether it has ended. It is not waited for yet: until it is, nobody else has its number, nor its group.
    #[cfg(unix)]
    fn has_ended(&self) -> Result<bool, HookError> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};

        let Some(process) = self.process() else { return Ok(true) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(process), options)
            .map(|ended| ended.is_some())
            .map_err(|error| failed(error.into()))
    }

    #[cfg(not(unix))]
    fn has_ended(&mut self) -> Result<bool, HookError> {
        self.child.try_wait().map(|ended| ended.is_some()).map_err(failed)
    }

    #[cfg(unix)]
    fn process(&self) -> Option<rustix::process::Pid> {
        i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
    }

    /// Ends it and what it started, and waits for it.
    fn end(&mut self) -> io::Result<ExitStatus> {
        #[cfg(unix)]
        if let Some(group) = self.process() {
            let killed = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            if let Err(error) = killed {
                tracing::debug!(%error, "nothing is left of a hook's program");
            }
        }
        drop(self.child.kill());
        self.is_over = true;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            drop(self.end());
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn failed(error: io::Error) -> HookError {
    HookError::Failed { why: error.to_string() }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Program {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Program { path: PathBuf::from("/bin/sh"), arguments }
    }

    #[test]
    fn it_is_told_by_its_input_and_by_the_variables_and_nothing_else() {
        let variables = [("NIGHTSHIFT_DEVICE", "ab".to_owned())];
        let said = shell("/bin/cat; echo; /usr/bin/env").run(&variables, b"request", LIMIT).unwrap();
        let said = String::from_utf8(said).unwrap();
        let (input, environment) = said.split_once('\n').unwrap();
        assert_eq!(input, "request");
        assert!(environment.contains("NIGHTSHIFT_DEVICE=ab"), "{environment}");
        for name in ["HOME=", "CARGO", "USER="] {
            assert!(!environment.contains(name), "{environment}");
        }
    }

    #[test]
    fn a_program_that_fails_is_not_there_or_says_too_much_gives_nothing() {
        let run = |script: &str| shell(script).run(&[], b"", LIMIT);
        let failed = run("echo certificate; echo why >&2; exit 3").unwrap_err();
        assert_eq!(failed.word(), "failed");
        assert!(failed.to_string().contains('3') && !failed.to_string().contains("why"), "{failed}");
        let too_much = run("/usr/bin/yes").unwrap_err();
        assert_eq!(too_much, HookError::TooMuch { most: MOST_BYTES });
        let absent = Program { path: "/nonexistent/sign".into(), arguments: Vec::new() };
        let absent = absent.run(&[], b"", LIMIT).unwrap_err();
        assert!(absent.to_string().contains("/nonexistent/sign"), "{absent}");
        // Errors without end, and an input that nobody reads, keep nothing waiting.
        assert_eq!(run("/usr/bin/yes | /usr/bin/head -c 1000000 >&2; echo ok").unwrap(), b"ok\n");
        assert_eq!(shell("echo ok").run(&[], &vec![0; 1 << 20], LIMIT).unwrap(), b"ok\n");
    }

    #[test]
    fn a_program_that_is_slow_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let started = folder.path().join("started");
        // It sleeps, it leaves a sleeper that holds its output, it says all and does not end.
        for script in [
            "/bin/sleep 600 & echo $! > STARTED; wait",
            "/bin/sleep 600 & echo $! > STARTED",
            "exec >&- 2>&-; echo $$ > STARTED; exec /bin/sleep 600",
        ] {
            let script = script.replace("STARTED", started.to_str().unwrap());
            let began = Instant::now();
            let slow = shell(&script).run(&[], b"", Duration::from_millis(700)).unwrap_err();
            assert_eq!(slow.word(), "slow", "{script}");
            assert!(began.elapsed() < LIMIT, "{script}");
            let process = std::fs::read_to_string(&started).unwrap();
            is_gone(process.trim());
        }
        // One that ended well leaves nobody either.
        let script = format!("/bin/sleep 600 > /dev/null 2>&1 & echo $! > {}; echo ok", started.display());
        assert_eq!(shell(&script).run(&[], b"", LIMIT).unwrap(), b"ok\n");
        is_gone(std::fs::read_to_string(&started).unwrap().trim());
    }

    /// Whoever adopted it may not have waited for it yet, but it does nothing any more.
    fn is_gone(process: &str) {
        let ends = Instant::now() + LIMIT;
        loop {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"));
            if status.is_err() || status.is_ok_and(|status| status.contains("State:\tZ")) {
                return;
            }
            assert!(Instant::now() < ends, "{process} runs on");
            thread::sleep(BETWEEN_LOOKS);
        }
    }
}
