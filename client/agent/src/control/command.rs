//! The command's end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, MOST_ANSWER_BYTES, Request, socket};

/// How long a daemon may take to answer: it may be in the middle of a request of its own.
const PATIENCE: Duration = Duration::from_secs(100);

/// Why a daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It took the connection and then not the request, or gave no answer in time.
    #[error("the agent that runs at {} does not answer: {source}; `nightshift-agent service status` says how it is", path.display())]
    Silent {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What it answered is nothing that this version knows.
    #[error("the agent that runs at {} answers what this version does not know ({source}); restart it", path.display())]
    Answer {
        /// Its socket.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It says why not.
    #[error("{0}")]
    Failed(String),
}

/// Asks the daemon of the device below `state_dir`; `None` where none runs.
pub fn ask(state_dir: &Path, request: &Request) -> Result<Option<Answer>, ControlError> {
    let path = socket(state_dir);
    let Ok(stream) = UnixStream::connect(&path) else { return Ok(None) };
    let line =
        talk(&stream, request).map_err(|source| ControlError::Silent { path: path.clone(), source })?;
    match serde_json::from_str(&line) {
        Ok(Answer::Failed(why)) => Err(ControlError::Failed(why)),
        Ok(answer) => Ok(Some(answer)),
        Err(source) => Err(ControlError::Answer { path, source }),
    }
}

fn talk(mut stream: &UnixStream, request: &Request) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = serde_json::to_vec(request)?;
    request.push(b'\n');
    stream.write_all(&request)?;
    let mut line = String::new();
    BufReader::new(stream.take(MOST_ANSWER_BYTES)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::other("it ended, or was busy for too long; what was asked may still be done"));
    }
    Ok(line)
}
