//! What a daemon tells the service manager that started it: that it is ready, that it lives, that it stops.
//!
//! The protocol is systemd's [sd_notify(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html): a
//! datagram of lines to the socket that `NOTIFY_SOCKET` names. Where there is no such variable nobody waits for anything
//! and nothing is sent. The variables stay as they are, so a process that this one starts inherits them; managers listen
//! to the main process only (`NotifyAccess=main`).
//!
//! A watchdog is fed by [`Notifier::served`] from the task that runs the daemon itself, and only after a pulse of the
//! daemon's: one that no longer gets anywhere feeds nobody, and is started again.
#![expect(clippy::disallowed_methods, reason = "IO shell: a pulse is a task of the runtime")]

use std::env;
use std::ffi::OsString;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Why nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A variable does not hold what it should.
    #[error(
        "the environment's {variable} is {value:?}, which is not {expected}; start this program without it, or by a \
         service manager"
    )]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: OsString,
        /// What it should hold.
        expected: &'static str,
    },
    /// The system gives no socket.
    #[error("no socket to the service manager: {0}")]
    Socket(#[from] io::Error),
}

/// The way to the service manager; where there is none, whatever is told is told to nobody.
#[derive(Debug, Default)]
pub struct Notifier {
    line: Option<line::Line>,
    /// How long a manager waits for a sign of life before it starts the daemon again.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The manager that the environment names. Fails when it names none that can be.
    pub fn from_env() -> Result<Self, NotifyError> {
        let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return Ok(Self::default()) };
        let (limit, process) = (env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"));
        Self::new(socket, limit, process)
    }

    /// The manager at `socket`, a path, or a name that begins with `@`, which waits for so many microseconds of the
    /// process with this id, or of any.
    pub fn new(
        socket: OsString,
        limit: Option<OsString>,
        process: Option<OsString>,
    ) -> Result<Self, NotifyError> {
        let line = line::Line::to(socket)?;
        let limit = limit.map(|limit| number("WATCHDOG_USEC", limit)).transpose()?;
        let process = process.map(|process| number("WATCHDOG_PID", process)).transpose()?;
        let own = process.is_none_or(|process| process == u64::from(std::process::id()));
        let watchdog = limit.filter(|_| own).map(Duration::from_micros);
        Ok(Self { line: Some(line), watchdog })
    }

    /// Runs a daemon to its end. The manager is told that it is ready, with a word on what it does, once `daemon` has
    /// been polled and goes on; that it stops, once `stop` is canceled; and, where it watches, that it lives, twice in the
    /// time that it waits, whenever a `pulse` came to its end as a task of the runtime's own.
    pub async fn served<D, P>(
        &self,
        status: &str,
        stop: &CancellationToken,
        pulse: impl Fn() -> P,
        daemon: D,
    ) -> D::Output
    where
        D: Future,
        P: Future<Output = ()> + Send + 'static,
    {
        let mut daemon = pin!(daemon);
        let began = tokio::select! {
            biased;
            output = &mut daemon => Err(output),
            () = std::future::ready(()) => Ok(()),
        };
        if let Err(output) = began {
            return output;
        }
        self.tell(&format!("READY=1\nSTATUS={}", status.replace('\n', " ")));
        let mut told_to_stop = false;
        let mut beat = pin!(self.beat(&pulse));
        loop {
            tokio::select! {
                // Before the daemon, which may end at once.
                biased;
                () = stop.cancelled(), if !told_to_stop => {
                    told_to_stop = true;
                    self.tell("STOPPING=1\nSTATUS=stops");
                }
                output = &mut daemon => return output,
                () = beat.as_mut() => {
                    self.tell("WATCHDOG=1");
                    beat.set(self.beat(&pulse));
                }
            }
        }
    }

    /// Ends when the manager should hear from the daemon, and its pulse was felt.
    async fn beat<P>(&self, pulse: &impl Fn() -> P)
    where
        P: Future<Output = ()> + Send + 'static,
    {
        let (Some(_), Some(limit)) = (&self.line, self.watchdog) else { return std::future::pending().await };
        tokio::time::sleep(limit / 2).await;
        if tokio::spawn(pulse()).await.is_err() {
            // A pulse that panicked is none.
            std::future::pending::<()>().await;
        }
    }

    fn tell(&self, message: &str) {
        let Some(line) = &self.line else { return };
        if let Err(error) = line.send(message) {
            let what = message.lines().next().unwrap_or_default();
            tracing::warn!(what, "the service manager cannot be told: {error}");
        }
    }
}

fn number(variable: &'static str, value: OsString) -> Result<u64, NotifyError> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.ok_or(NotifyError::Variable { variable, value, expected: "a whole number" })
}

#[cfg(unix)]
mod line {
    use std::ffi::OsString;
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::NotifyError;

    /// A socket, and whom it leads to.
    #[derive(Debug)]
    pub(super) struct Line {
        socket: UnixDatagram,
        manager: SocketAddr,
    }

    impl Line {
        pub(super) fn to(name: OsString) -> Result<Self, NotifyError> {
            let manager = match name.as_bytes() {
                [b'/', ..] => SocketAddr::from_pathname(&name).ok(),
                [b'@', name @ ..] => abstract_address(name),
                _ => None,
            };
            let manager = manager.ok_or(NotifyError::Variable {
                variable: "NOTIFY_SOCKET",
                value: name,
                expected: "the path of a socket, or its name behind @",
            })?;
            let socket = UnixDatagram::unbound()?;
            // A manager that does not listen must not keep the daemon.
            socket.set_nonblocking(true)?;
            Ok(Self { socket, manager })
        }

        pub(super) fn send(&self, message: &str) -> io::Result<()> {
            self.socket.send_to_addr(message.as_bytes(), &self.manager).map(drop)
        }
    }

    #[cfg(target_os = "linux")]
    fn abstract_address(name: &[u8]) -> Option<SocketAddr> {
        use std::os::linux::net::SocketAddrExt;

        SocketAddr::from_abstract_name(name).ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn abstract_address(_name: &[u8]) -> Option<SocketAddr> {
        None
    }
}

#[cfg(not(unix))]
mod line {
    use std::ffi::OsString;
    use std::io;

    use super::NotifyError;

    /// This system has no such managers.
    #[derive(Debug)]
    pub(super) struct Line;

    impl Line {
        pub(super) fn to(name: OsString) -> Result<Self, NotifyError> {
            Err(NotifyError::Variable {
                variable: "NOTIFY_SOCKET",
                value: name,
                expected: "of any use on this system",
            })
        }

        pub(super) fn send(&self, _message: &str) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::future::{pending, ready};
    use std::os::unix::net::UnixDatagram;

    use tokio::sync::oneshot;

    use super::*;

    /// Stands in for systemd.
    struct Manager {
        socket: UnixDatagram,
        _folder: tempfile::TempDir,
    }

    impl Manager {
        fn new() -> (Self, OsString) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            (Self { socket, _folder: folder }, path.into())
        }

        /// What it is told next.
        fn hears(&self) -> String {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        }

        fn hears_nothing_more(&self) -> bool {
            self.socket.set_nonblocking(true).unwrap();
            self.socket.recv(&mut [0; 16]).is_err()
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn a_daemon_is_ready_then_lives_then_stops() {
        let (manager, socket) = Manager::new();
        let notifier = Notifier::new(socket, Some("20000".into()), None).unwrap();
        let stop = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let served = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let daemon = async { ended.await.unwrap() };
                runtime().block_on(notifier.served("takes\npart", &stop, || ready(()), daemon))
            }
        });
        assert_eq!(manager.hears(), "READY=1\nSTATUS=takes part");
        assert_eq!(manager.hears(), "WATCHDOG=1");
        assert_eq!(manager.hears(), "WATCHDOG=1");
        stop.cancel();
        while manager.hears() != "STOPPING=1\nSTATUS=stops" {}
        // It lives while it stops.
        assert_eq!(manager.hears(), "WATCHDOG=1");
        end.send(7).unwrap();
        assert_eq!(served.join().unwrap(), 7);
    }

    #[test]
    fn a_daemon_that_ends_at_once_was_never_ready() {
        let (manager, socket) = Manager::new();
        let notifier = Notifier::new(socket, None, None).unwrap();
        let stop = CancellationToken::new();
        let output =
            runtime().block_on(notifier.served("never", &stop, || ready(()), async { Err::<(), u8>(3) }));
        assert_eq!(output, Err(3));
        assert!(manager.hears_nothing_more());
    }

    #[test]
    fn a_daemon_without_a_pulse_is_not_said_to_live() {
        let (manager, socket) = Manager::new();
        let notifier = Notifier::new(socket, Some("2000".into()), None).unwrap();
        let stop = CancellationToken::new();
        let daemon = async { tokio::time::sleep(Duration::from_millis(100)).await };
        runtime().block_on(notifier.served("stands still", &stop, pending, daemon));
        assert_eq!(manager.hears(), "READY=1\nSTATUS=stands still");
        assert!(manager.hears_nothing_more());
    }

    #[test]
    fn a_daemon_that_blocks_its_own_task_is_not_said_to_live() {
        let (manager, socket) = Manager::new();
        let notifier = Notifier::new(socket, Some("2000".into()), None).unwrap();
        let stop = CancellationToken::new();
        let mut polls = 0;
        let daemon = std::future::poll_fn(|context| {
            polls += 1;
            if polls == 1 {
                context.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::thread::sleep(Duration::from_millis(100));
            std::task::Poll::Ready(())
        });
        runtime().block_on(notifier.served("blocks", &stop, || ready(()), daemon));
        assert_eq!(manager.hears(), "READY=1\nSTATUS=blocks");
        assert!(manager.hears_nothing_more());
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_fed() {
        let (_manager, socket) = Manager::new();
        let of = |process: &str| {
            Notifier::new(socket.clone(), Some("5".into()), Some(process.into())).unwrap().watchdog
        };
        assert_eq!(of(&std::process::id().to_string()), Some(Duration::from_micros(5)));
        assert_eq!(of("1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_in_no_folder_is_a_socket_too() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;

        let name = format!("nightshift-test-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        Notifier::new(format!("@{name}").into(), None, None).unwrap().tell("READY=1");
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
    }

    #[test]
    fn variables_that_hold_something_else_are_named() {
        let (_manager, socket) = Manager::new();
        let message = Notifier::new("elsewhere".into(), None, None).unwrap_err().to_string();
        assert!(message.contains("NOTIFY_SOCKET") && message.contains("elsewhere"), "{message}");
        let message = Notifier::new(socket, Some("soon".into()), None).unwrap_err().to_string();
        assert!(message.contains("WATCHDOG_USEC") && message.contains("soon"), "{message}");
    }
}
