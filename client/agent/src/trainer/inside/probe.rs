//! Tries what a trainer must not be able to do, harmlessly, and says what it could.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use super::super::message::Probed;

/// Tries all of it; `outside` is a file that is neither of the base nor of the text.
pub(super) fn probe(outside: &Path, parent: u32) -> Probed {
    let mut probed = Probed::default();
    let mut tried = |what: &str, done: io::Result<()>| {
        let place = if done.is_ok() { &mut probed.could } else { &mut probed.could_not };
        place.push(what.to_owned());
    };
    tried("listen for connections", TcpListener::bind("127.0.0.1:0").map(drop));
    tried("open a datagram socket", UdpSocket::bind("127.0.0.1:0").map(drop));
    tried("start a program", start_a_program());
    tried("read a file of the user's", fs::read(outside).map(drop));
    tried("write a file", write_a_file());
    tried("open the daemon's memory", File::open(format!("/proc/{parent}/mem")).map(drop));
    #[cfg(unix)]
    {
        tried("open a local socket", std::os::unix::net::UnixStream::pair().map(drop));
        tried("signal the daemon", signal(parent));
        tried("have more memory", more_memory());
    }
    #[cfg(target_os = "linux")]
    tried("have more of the CPU", more_cpu());
    probed
}

fn start_a_program() -> io::Result<()> {
    let mut program = Command::new(std::env::current_exe()?);
    program.arg("--version").stdout(std::process::Stdio::null()).spawn()?.wait().map(drop)
}

fn write_a_file() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("nightshift-probe-{}", std::process::id()));
    drop(File::create_new(&path)?);
    fs::remove_file(path)
}

/// Whether a signal could be sent; none is.
#[cfg(unix)]
fn signal(parent: u32) -> io::Result<()> {
    let parent = i32::try_from(parent).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::test_kill_process(parent.ok_or(io::ErrorKind::InvalidInput)?).map_err(io::Error::from)
}

#[cfg(unix)]
fn more_memory() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let all = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Data, all).map_err(io::Error::from)
}

#[cfg(target_os = "linux")]
fn more_cpu() -> io::Result<()> {
    use thread_priority::unix::{
        NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
    };

    let usual = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    set_thread_priority_and_policy(thread_native_id(), thread_priority::ThreadPriority::Min, usual)
        .map_err(|_| io::ErrorKind::PermissionDenied.into())
}
