//! A witness of logs of others ([tlog-witness]): it signs a head that goes on from all that it saw of the log, and no other.
//!
//! It has a key of its own and knows nothing of devices. It belongs on a machine of somebody else than whoever runs the
//! coordinator or the authority; it is in this program because whoever has that has all that it needs. Of each log that it is told
//! to watch it keeps how long it was and its root, durably, before it signs. [`Submission`] says what it may sign.
//!
//! | tree | key | record |
//! | --- | --- | --- |
//! | `watched logs` | hash of the log's name | `Watched` |
//!
//! [tlog-witness]: https://c2sp.org/tlog-witness

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aggregation::IdentityKey;
use aggregation::log::{LogKey, Submission, Unsigned, Witness, WitnessError};
use http::{Method, StatusCode};
use proto::files::{self, Audience, FileError};
use proto::ids::{Digest, Timestamp};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use serving::plain::{self, Answer, Asked, Bounds, respond, text};
use serving::seldom::Seldom;
use shell::keys::{KeyFileError, SEED_BYTES, load_or_create_seed};
use shell::store::{Batch, Store, StoreError};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::clock::now_unix_secs;

const WATCHED: &str = "watched logs";
const SEED_FILE: &str = "witness.seed";
const KEY_FILE: &str = "witness.key";

/// The folder of the store.
const STORE: &str = "store";

/// What of a folder shows that it was given to a witness, and no other purpose.
const OURS: [&str; 3] = [STORE, SEED_FILE, KEY_FILE];

/// What others may cost: a head with its proof takes a few KiB.
const BOUNDS: Bounds = Bounds {
    connections: 32,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(20),
    body_bytes: 64 << 10,
};

/// Why there is no witness.
#[derive(Debug, thiserror::Error)]
pub enum WitnessingError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What it is to be called.
    #[error("{0:?} is no name of a witness: it is one word without a plus, as a host's name and a path")]
    Name(String),
    /// There is none.
    #[error("{} holds no witness; make one by `nightshift-authority witness init --dir {} --name NAME`", .0.display(), .0.display())]
    NotThere(PathBuf),
    /// A part of it is not there.
    #[error(
        "{} is missing: put the whole folder back from its newest backup, or make a new witness in another folder; without it \
         nobody knows what was signed", .0.display()
    )]
    Missing(PathBuf),
    /// There is one already.
    #[error("{} holds a witness already; nothing was changed", .0.display())]
    There(PathBuf),
    /// The files do not fit together.
    #[error("{} is not the key of the witness whose secret lies beside it: {why}; put both back from a backup", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Two logs have one name.
    #[error("the log {0} is named twice")]
    Twice(String),
}

/// What was seen of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    log: String,
    size: u64,
    root: Digest,
    signed_unix_secs: u64,
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum Declined {
    /// It is no log that is watched.
    #[error("this witness does not watch that log")]
    Unknown,
    /// What was submitted is not to be signed.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// What was seen cannot be kept.
    #[error("the store of this witness fails")]
    Store(#[from] StoreError),
}

/// A witness.
#[derive(Debug)]
pub struct Witnessing {
    store: Store,
    key: IdentityKey,
    witness: Witness,
    logs: Vec<LogKey>,
    /// Held from what is read to what is written.
    deciding: Mutex<()>,
    /// What others bring about is said seldom.
    said: Lines,
}

/// Makes a witness in a folder, with a key of its own; gives the key by which others verify what it signs. Blocks.
pub fn init(folder: &Path, name: &str) -> Result<Witness, WitnessingError> {
    if let Some(closed) = files::own_folder(folder, &OURS)? {
        tracing::warn!("{closed}");
    }
    if folder.join(KEY_FILE).exists() {
        return Err(WitnessingError::There(folder.to_owned()));
    }
    let key = seed(folder)?;
    let unfit = |WitnessError| WitnessingError::Name(name.to_owned());
    let witness = Witness::new(name, key.public()).map_err(unfit)?;
    drop(Store::open(&folder.join(STORE))?);
    files::write(&folder.join(KEY_FILE), format!("{witness}\n").as_bytes(), Audience::Anyone)?;
    Ok(witness)
}

fn seed(folder: &Path) -> Result<IdentityKey, WitnessingError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    load_or_create_seed(&folder.join(SEED_FILE), &SystemRandom::new(), &mut seed)?;
    Ok(IdentityKey::from_seed(&seed))
}

/// What is said once a minute each: what a stranger can bring about takes no line of what only the log's own key can.
#[derive(Debug, Default)]
struct Lines {
    forked: Seldom,
    store: Seldom,
    inconsistent: Seldom,
}

impl Witnessing {
    /// Tells whoever runs the witness.
    fn say(&self, declined: &Declined, now: Timestamp) {
        match declined {
            Declined::Unsigned(Unsigned::Forked { .. }) if self.said.forked.may_say(now) => tracing::error!(
                "two heads of one log were signed by its key over as many entries: whoever keeps it shows different logs, or \
                 came back from a backup; {declined}"
            ),
            Declined::Store(error) if self.said.store.may_say(now) => {
                tracing::error!(%error, "the store failed: nothing is signed");
            }
            Declined::Unsigned(Unsigned::Inconsistent { .. }) if self.said.inconsistent.may_say(now) => {
                tracing::warn!("a head was not signed: {declined}");
            }
            // It was said a moment ago, or whoever asks may not know better.
            Declined::Store(_)
            | Declined::Unknown
            | Declined::Unsigned(
                Unsigned::Forked { .. }
                | Unsigned::Inconsistent { .. }
                | Unsigned::Malformed(_)
                | Unsigned::NotByLog
                | Unsigned::Other { .. },
            ) => tracing::debug!("a head was not signed: {declined}"),
        }
    }

    /// Forgets what was seen of a log, so that any head of it is signed once more. Says whether anything was. Fails where the
    /// witness runs. Blocks.
    pub fn forget(folder: &Path, log: &LogKey) -> Result<bool, WitnessingError> {
        let witness = Self::open(folder, vec![log.clone()])?;
        let place = Digest::of(log.name().as_bytes()).0;
        let seen = witness.store.get::<Watched>(WATCHED, place)?.is_some();
        let mut batch = Batch::new();
        batch.remove(WATCHED, place);
        witness.store.commit_blocking(&batch)?;
        Ok(seen)
    }

    /// Opens the witness of a folder, for these logs. Blocks.
    pub fn open(folder: &Path, logs: Vec<LogKey>) -> Result<Self, WitnessingError> {
        let path = folder.join(KEY_FILE);
        if !path.exists() {
            return Err(WitnessingError::NotThere(folder.to_owned()));
        }
        if let Some(closed) = files::own_folder(folder, &OURS)? {
            tracing::warn!("{closed}");
        }
        for (number, log) in logs.iter().enumerate() {
            if logs.iter().take(number).any(|other| other.name() == log.name()) {
                return Err(WitnessingError::Twice(log.name().to_owned()));
            }
        }
        let written = files::read(&path)?;
        let written: Result<Witness, _> = String::from_utf8_lossy(&written).parse();
        let other = |why: String| WitnessingError::OtherKey { path: path.clone(), why };
        let witness = written.map_err(|error: WitnessError| other(error.to_string()))?;
        // What is missing is not made anew: a witness that knows nothing of what it saw signs the other log.
        for name in [SEED_FILE, STORE] {
            let path = folder.join(name);
            if !path.exists() {
                return Err(WitnessingError::Missing(path));
            }
        }
        let key = seed(folder)?;
        if *witness.key() != key.public() {
            return Err(other("it is of another secret".to_owned()));
        }
        let store = Store::open(&folder.join(STORE))?;
        Ok(Self { store, key, witness, logs, deciding: Mutex::new(()), said: Lines::default() })
    }

    /// The key by which others verify what it signs.
    pub const fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Signs a head where it goes on from what was seen, which is durable before; gives the line. Blocks.
    pub fn sign(&self, submitted: &str, now_unix_secs: u64) -> Result<String, Declined> {
        let submission = Submission::parse(submitted)?;
        let log = self.logs.iter().find(|log| log.name() == submission.log()).ok_or(Declined::Unknown)?;
        let place = Digest::of(log.name().as_bytes()).0;
        // The lock guards no data, so a poisoned one is as good as another.
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let watched: Option<Watched> = self.store.get(WATCHED, place)?;
        let seen = watched.as_ref().map(|watched| (watched.size, watched.root.0));
        let (size, root) = submission.judge(log, seen)?;
        if seen != Some((size, root)) {
            let (log, root) = (log.name().to_owned(), Digest(root));
            let mut batch = Batch::new();
            batch.put(WATCHED, place, &Watched { log, size, root, signed_unix_secs: now_unix_secs })?;
            self.store.commit_blocking(&batch)?;
        }
        Ok(submission.sign(self.witness.name(), &self.key, now_unix_secs))
    }

    /// Answers on a listener, in clear, until `stop` is canceled: what comes and goes is public, and signed.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let answered = move |asked: Asked| {
            let own = Arc::clone(&self);
            async move { own.answer(asked).await }
        };
        plain::serve(listener, BOUNDS, stop, answered).await;
    }

    async fn answer(self: Arc<Self>, asked: Asked) -> Answer {
        let Asked { method, path, body } = asked;
        if path != "/add-checkpoint" {
            return text(StatusCode::NOT_FOUND, "there is /add-checkpoint\n".to_owned());
        }
        if method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only POST is answered\n".to_owned());
        }
        let signed = spawn_blocking(move || {
            let malformed = Unsigned::Malformed("it is no text");
            let submitted = std::str::from_utf8(&body).map_err(|_| malformed)?;
            let now = now_unix_secs();
            let signed = self.sign(submitted, now);
            if let Err(declined) = &signed {
                self.say(declined, Timestamp(now.saturating_mul(1000)));
            }
            signed
        });
        match signed.await {
            Ok(Ok(line)) => text(StatusCode::OK, line),
            Ok(Err(declined)) => decline(&declined),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

/// What is answered where nothing is signed.
fn decline(declined: &Declined) -> Answer {
    let words = format!("{declined}\n");
    let unsigned = match declined {
        Declined::Unknown => return text(StatusCode::NOT_FOUND, words),
        Declined::Store(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, words),
        Declined::Unsigned(unsigned) => unsigned,
    };
    match unsigned {
        Unsigned::Malformed(_) => text(StatusCode::BAD_REQUEST, words),
        Unsigned::NotByLog => text(StatusCode::FORBIDDEN, words),
        Unsigned::Other { size } => respond(StatusCode::CONFLICT, "text/x.tlog.size", format!("{size}\n")),
        Unsigned::Forked { .. } => text(StatusCode::CONFLICT, words),
        Unsigned::Inconsistent { .. } => text(StatusCode::UNPROCESSABLE_ENTITY, words),
    }
}

#[cfg(test)]
mod tests;
