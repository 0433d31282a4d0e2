//! A program on this machine that is asked: no shell, no environment but what it is told, bounded time and output.
#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: a program is waited for, and ended when its time is over"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proto::shown::shown;

use crate::failure::HookError;
use crate::talk::Talk;

/// The most bytes that a program may say.
pub(crate) const MOST_BYTES: usize = 64 << 10;

/// The most bytes of its errors that are looked at.
const MOST_ERROR_BYTES: usize = 4 << 10;

/// How often it is looked whether it says something, and whether it has ended.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A program and what it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

/// A program that runs, and is ended with its process group when this is dropped, or when it ends by itself.
struct Running {
    child: Child,
    is_over: bool,
}

impl Program {
    /// Runs it: `variables` are its whole environment, `input` comes on its standard input. Gives what it said on its standard
    /// output. Blocks, for at most `limit`.
    ///
    /// Fails where it cannot be run, says too much, ends with another code than 0, or takes longer; it does not go on then, nor does
    /// what it started in its process group. Whoever left that may go on, and holds nothing of this process.
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
        let talk = Talk::new(&mut child, input, (MOST_BYTES, MOST_ERROR_BYTES));
        let mut running = Running { child, is_over: false };
        let mut talk = talk.map_err(failed)?;
        while !talk.has_said_all() || !running.has_ended()? {
            let has_moved = talk.step().map_err(failed)?;
            if talk.said().len() > MOST_BYTES {
                return Err(HookError::TooMuch { most: MOST_BYTES });
            }
            if Instant::now() >= ends {
                return Err(HookError::Slow { millis: limit.as_millis() });
            }
            if !has_moved {
                thread::sleep(BETWEEN_LOOKS);
            }
        }
        let status = running.end().map_err(failed)?;
        // What it complained of at last.
        while talk.complaint().len() < MOST_ERROR_BYTES && Instant::now() < ends {
            if !talk.step().unwrap_or(false) {
                break;
            }
        }
        if !status.success() {
            // It may name a device, so it is for whoever looks closely.
            let complaint = String::from_utf8_lossy(talk.complaint()).into_owned();
            tracing::debug!(program = %self.path.display(), stderr = %shown(&complaint), "a hook failed");
            return Err(HookError::Failed { why: format!("{} ended with {status}", self.path.display()) });
        }
        Ok(std::mem::take(talk.said()))
    }
}

impl Running {
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

    /// A program may start another one that leaves its group and holds its output: nobody of ours waits for that one.
    #[test]
    fn a_child_that_holds_the_output_keeps_no_thread_and_no_file_of_ours() {
        let held =
            || ["fd", "task"].map(|what| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count());
        let folder = tempfile::tempdir().unwrap();
        let started = folder.path().join("started");
        let script = format!("/usr/bin/setsid /bin/sleep 60 & echo $! >> {}; echo ok", started.display());
        let before = held();
        for _ in 0..50 {
            let slow = shell(&script).run(&[], b"request", Duration::from_millis(40)).unwrap_err();
            assert_eq!(slow.word(), "slow");
        }
        let after = held();
        let sleepers = std::fs::read_to_string(&started).unwrap_or_default();
        for process in sleepers.lines().filter_map(|line| line.parse().ok()) {
            if let Some(process) = rustix::process::Pid::from_raw(process) {
                let killed = rustix::process::kill_process(process, rustix::process::Signal::KILL);
                assert!(matches!(killed, Ok(()) | Err(rustix::io::Errno::SRCH)), "{killed:?}");
            }
        }
        // Other tests have some for a moment.
        assert!(after[0] < before[0] + 30 && after[1] < before[1] + 30, "{before:?} {after:?}");
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
