//! What a trainer does to itself before it reads anything that somebody else wrote.
//!
//! On Linux, in this order:
//!
//! 1. **It ends with the daemon**: `PR_SET_PDEATHSIG` with `SIGKILL`, and then a look whether the parent is still the one
//!    that started it, since that may have ended just before. The pipe from the daemon is a second way to notice.
//! 2. **It keeps nothing that it inherited** but its three pipes: what a shell or a service manager left open is closed.
//! 3. **It steps back**: `SCHED_IDLE`, by which it gets what CPU nobody else wants. A task that has no priority for IO of
//!    its own and is `SCHED_IDLE` has the idle class for IO too (`task_nice_ioclass` in `include/linux/ioprio.h`), so
//!    there is nothing more to set. It offers itself first when memory runs out (`oom_score_adj` 1000), and leaves no
//!    dump. The score is written first: the files of a process that is not dumpable are root's.
//! 4. **Its memory is limited**: by a control group where the daemon may make one (`cgroup`), else by `RLIMIT_DATA`.
//!    That counts what can be written and is the process's own: heap and anonymous maps, and stacks of threads.
//!    `RLIMIT_AS` would count address space too, of which an allocator reserves more than it uses, and a GPU's driver far
//!    more than there is. Where mimalloc is refused a large piece it asks for smaller ones, and where it is refused those,
//!    the process ends with a message that the daemon knows. Weights are read into memory, not mapped, so they count.
//! 5. **It reads the base and the user's text and nothing else on disk, and writes nothing** (`files`, by Landlock).
//!    A kernel may lack that; then it is said, and the training goes on: what is left to a trainer is to read other files
//!    of the user, which it cannot send anywhere.
//! 6. **It opens no socket, starts no program, and reads no other process** (`calls`, by seccomp). Without that it does not
//!    train: this is what keeps the user's text on the machine if the code that reads it is subverted, and every kernel
//!    of the last ten years has it. Where it is missing something is wrong, such as an emulator that pretends.
//!
//! A trainer that may need a GPU reads and writes `/dev`, reads the system's libraries, and has no limit of memory: a
//! driver maps more than there is.
//!
//! Elsewhere nothing of this is done, and that is said once in the log: the daemon runs on macOS and Windows for those who
//! try it out.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod limits;

use std::fs;
use std::path::{Path, PathBuf};

use super::message::{Hello, VERSION};

/// Which protections hold and which do not, in words.
#[derive(Debug, Default)]
pub(super) struct Notes {
    held: Vec<String>,
    missing: Vec<String>,
}

impl Notes {
    /// Notes whether a protection holds.
    fn note(&mut self, what: &str, done: Result<(), String>) {
        match done {
            Ok(()) => self.held.push(what.to_owned()),
            Err(why) => self.missing.push(format!("{what}: {why}")),
        }
    }

    /// These and those.
    pub(super) fn add(&mut self, mut other: Self) {
        self.held.append(&mut other.held);
        self.missing.append(&mut other.missing);
    }

    /// The greeting that says so.
    pub(super) fn into_hello(self) -> Hello {
        Hello { version: VERSION, protections: self.held, missing: self.missing }
    }
}

/// The files of a base: what it is named by, and what the links in it lead to, as a cache of downloads has them.
pub(super) fn files_of_base(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    let linked = entries.filter(|path| path.is_symlink()).filter_map(|path| path.canonicalize().ok());
    std::iter::once(base.to_owned()).chain(linked).collect()
}

/// Sees to it that this process ends with its parent; says whether that is still the one that started it.
#[cfg(target_os = "linux")]
pub(super) fn end_with(parent: u32) -> bool {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return false;
    }
    getppid().is_some_and(|found| u32::try_from(found.as_raw_nonzero().get()) == Ok(parent))
}

/// Nothing of the kind is known here: the pipe ends with the daemon.
#[cfg(not(target_os = "linux"))]
pub(super) fn end_with(_parent: u32) -> bool {
    true
}

/// Closes every descriptor but stdin, stdout and stderr.
#[cfg(target_os = "linux")]
pub(super) fn close_what_was_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // Nothing of this process is open yet but the folder that was listed, which is closed by now.
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        nix::unistd::close(descriptor).unwrap_or_default();
    }
}

/// Nothing: what a program opens by this language's library is not inherited.
#[cfg(not(target_os = "linux"))]
pub(super) fn close_what_was_inherited() {}

/// Lets everybody else go first, and leaves no dump.
#[cfg(target_os = "linux")]
pub(super) fn step_back() -> Notes {
    let mut notes = Notes::default();
    notes.note("first to go when memory runs out", limits::offer_to_go());
    notes.note("idle priority", limits::be_idle());
    notes.note("no dumps", proto::dumps::forbid().map_err(|error| error.to_string()));
    notes
}

/// Leaves no dump.
#[cfg(not(target_os = "linux"))]
pub(super) fn step_back() -> Notes {
    let mut notes = Notes::default();
    notes.note("no dumps", proto::dumps::forbid().map_err(|error| error.to_string()));
    notes.note("idle priority", Err("not on this system".to_owned()));
    notes
}

/// Gives up everything but to read `paths`; fails, in words, where it must not go on.
#[cfg(target_os = "linux")]
pub(super) fn shut_in(paths: &[PathBuf], most_memory: Option<u64>, gpu: bool) -> Result<Notes, String> {
    let mut notes = Notes::default();
    if gpu {
        notes.note("a limit of memory", Err("a GPU's driver maps more than there is".to_owned()));
    } else if let Some(bytes) = most_memory {
        notes.note("a limit of memory", limits::limit_memory(bytes));
    }
    notes.note("reads the base and the text only", files::shut(paths, gpu));
    calls::forbid()?;
    notes.note("no sockets, no programs", Ok(()));
    Ok(notes)
}

/// Nothing can be given up here.
#[cfg(not(target_os = "linux"))]
pub(super) fn shut_in(_paths: &[PathBuf], _most_memory: Option<u64>, _gpu: bool) -> Result<Notes, String> {
    let mut notes = Notes::default();
    notes.note("a sandbox", Err("not on this system".to_owned()));
    Ok(notes)
}
