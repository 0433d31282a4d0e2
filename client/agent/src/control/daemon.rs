//! The daemon's end.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{Control, Status};
use proto::ids::Timestamp;
use proto::shown::shown;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Answer, MOST_REQUEST_BYTES, Request, socket};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 8;

/// What a command may take to ask.
const TO_ASK: Duration = Duration::from_secs(10);

/// What the device may take to do what it was asked: it answers between two requests of its own, which take a minute at
/// most; and the command, to take the answer.
const TO_ANSWER: Duration = Duration::from_secs(90);

/// Answers commands about the device below `state_dir` until `stop` is canceled; then the socket is gone.
///
/// Fails where no socket can be made there, as where its path is longer than the system allows.
pub fn serve(
    state_dir: &Path,
    control: Control,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + use<>> {
    let path = socket(state_dir);
    // Whoever has the folder is its only daemon: a socket that is there is of one that was killed.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // They end with this: whoever is still asking holds no handle of the device any more.
        let mut answering = JoinSet::new();
        loop {
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                () = stop.cancelled() => break,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) if is_ours(&stream) => {
                    let control = control.clone();
                    while answering.try_join_next().is_some() {}
                    answering.spawn(async move {
                        // Who does not ask, or does not listen, is left alone.
                        let _asked = timeout(TO_ANSWER, answer(stream, &control)).await;
                        drop(place);
                    });
                }
                Ok(_) => {
                    tracing::warn!("another user's program asked this device something; it got no answer");
                }
                Err(error) => {
                    tracing::warn!("a command could not be taken: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        answering.shutdown().await;
        drop(std::fs::remove_file(&path));
    })
}

/// Whether the other end is of the same user, or root.
fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn answer(stream: UnixStream, control: &Control) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    timeout(TO_ASK, BufReader::new(read.take(MOST_REQUEST_BYTES)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => perform(request, control).await,
        Err(error) => Answer::Failed(format!("not a request: {error}")),
    };
    let mut answer = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    answer.push(b'\n');
    write.write_all(&answer).await?;
    write.shutdown().await
}

async fn perform(request: Request, control: &Control) -> Answer {
    let done = match request {
        Request::Now => Ok(Answer::Now(Box::new(control.now()))),
        Request::Ledger => Ok(Answer::Ledger(control.entries().to_vec())),
        Request::Journal => control.journal().map(Answer::Journal),
        Request::Status => Ok(Answer::Status(Box::new(Status::clone(&control.status())))),
        Request::Pause { until } => control.pause(until.map(Timestamp)).map(|()| Answer::Done),
        Request::Resume => control.resume().map(|()| Answer::Done),
        Request::Forget { task } => control.forget(task).await.map(Answer::Forgotten),
        Request::Rejoin { task } => control.rejoin(task).await.map(Answer::Rejoined),
    };
    done.unwrap_or_else(|error| Answer::Failed(shown(&error.to_string()).to_string()))
}
