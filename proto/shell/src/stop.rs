//! How a process is told to stop.
#![expect(clippy::disallowed_methods, reason = "IO shell: a task waits for signals")]

use std::io;

use tokio_util::sync::CancellationToken;

/// A token that is canceled when the process is told to stop: by ctrl-c, and on Unix by SIGTERM. Neither ends the process
/// by itself from then on. Fails when the system gives no signals. For use in a runtime only.
pub fn on_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let told = told()?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            told.await;
            stop.cancel();
        }
    });
    Ok(stop)
}

#[cfg(unix)]
fn told() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn told() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
