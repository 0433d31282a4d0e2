//! What a server's command line has around its commands: what they fail with, where they listen, how they end.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use shell::cli;
use tokio::net::{TcpListener, TcpSocket};

use crate::listener::BACKLOG;

mod error;

pub use error::CliError;

/// What is logged where nobody says otherwise by `RUST_LOG`. What libraries say of a connection is not: a peer could have
/// them say it as often as it likes.
pub const LOGGED: &str =
    "info,h2=off,hyper=off,hyper_util=off,rustls=off,tokio_rustls=off,tonic=off,tower=off";

/// Listens on an address that the file `path` gives by `key`.
pub fn bind(address: SocketAddr, key: &str, path: &Path) -> Result<TcpListener, CliError> {
    listen(address).map_err(|error| {
        let path = path.display();
        CliError::Network(if error.kind() == io::ErrorKind::AddrInUse {
            format!(
                "{address} is in use by another program; stop that one, or give `{key}` in {path} another port"
            )
        } else {
            format!("cannot listen on {address}: {error}; change `{key}` in {path}")
        })
    })
}

/// Listens on an address. For use in a runtime only.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait for connections of the process before it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Runs a program of these arguments, the program's name first: parses them, gives `command` a runtime, and says what
/// failed and by which code.
pub fn program<A, F>(arguments: impl IntoIterator<Item = OsString>, command: impl FnOnce(A) -> F) -> ExitCode
where
    A: Parser,
    F: Future<Output = Result<(), CliError>>,
{
    forbid_dumps();
    match A::try_parse_from(arguments) {
        Ok(arguments) => run(command(arguments)),
        Err(error) => cli::usage(&error),
    }
}

/// Before anything that is secret is read.
fn forbid_dumps() {
    if let Err(error) = proto::dumps::forbid() {
        cli::note(&format!("warning: {error}; what this program holds could be written to disk"));
    }
}

fn run(main: impl Future<Output = Result<(), CliError>>) -> ExitCode {
    let outcome = cli::block_on(None, main)
        .unwrap_or_else(|error| Err(CliError::Internal(format!("cannot start: {error}"))));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failed("error", &error, error.code()),
    }
}
