//! The audit log: who changed what, and when, in a chain of signed entries (`audit/chain.rs`) in files of the state folder.
//!
//! A change is written down before it is done, as an *intent*, and again when it is known what came of it, before whoever
//! asked is answered. So nothing is done of which nothing is written: where the intent cannot be written, because the disk is
//! full, the change is refused as every other is then. A coordinator that dies between the two writes at its next start that
//! it is unknown what came of the intent.
//!
//! The newest entry's head is kept in the store with each entry, and where the operator says so in a file elsewhere. The key
//! is one of its own: the enrollment key may one day lie on another machine, and this one signs with each change.
//!
//! No text of anybody's stands in an entry but names and labels as [`shown`](proto::shown::shown) writes them; plans and
//! requests are there by their hashes, and reasons of refusals by their kinds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proto::admin::AuditPart;
use proto::files::{self, Audience, FileError};
use proto::ids::{DeviceId, Serial, Timestamp};
use proto::role::Role;
use ring::rand::SecureRandom;
use shell::keys::{KeyFileError, SEED_BYTES, load_or_create_seed};
use shell::store::{Batch, Store, StoreError};
use zeroize::Zeroizing;

use crate::peer::AdminName;

pub mod chain;
mod change;
mod folder;
mod refusals;
mod words;

pub use folder::{File, lines};
pub use words::{What, With, came_of};

use chain::{AuditKey, BEFORE, End, Entry, FOUND, Fault, Head, OLDEST, Outcome, REMOVE, Said, Verifier};
use folder::Folder;
use refusals::Refusals;

/// The file of the log's folder with the public key, for whoever verifies a copy.
pub const KEY_FILE: &str = "key.txt";

/// The tree of its newest head.
pub(crate) const TREE: &str = "audit";
const HEAD: &str = "head";

/// A head goes to the file elsewhere after so many entries, at each start and each end.
const ELSEWHERE_EVERY: u64 = 16;

/// Where a log is, and how large it may grow.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder of the log.
    pub folder: PathBuf,
    /// The file of its key's seed.
    pub seed: PathBuf,
    /// A file for the newest head, elsewhere; none where this is empty.
    pub head: PathBuf,
    /// What all files may take, in bytes; the oldest are removed beyond it.
    pub most_bytes: u64,
}

/// Who does what is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// An operator.
    Operator {
        /// Their name.
        name: AdminName,
        /// Their certificate.
        serial: Serial,
        /// What they may do.
        role: Role,
    },
    /// A device.
    Device(DeviceId),
    /// The coordinator by itself.
    Coordinator,
}

/// Why an entry could not be written, or the log not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The head could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The log is not what was written.
    #[error(
        "the audit log in {} does not hold: {fault}; keep a copy for whoever looks into it, then move the folder away and \
         start again: a log begins that says so", path.display()
    )]
    Fault {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
    /// An entry has no form as JSON, which none of ours has not.
    #[error("an entry of the audit log cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// An intent that is written down, until it is known what came of it.
#[derive(Debug)]
#[must_use = "what came of it is to be written down"]
pub struct Intent {
    n: u64,
    said: Said,
}

/// The log, open. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: AuditKey,
    store: Store,
    elsewhere: Option<PathBuf>,
    most_bytes: u64,
    state: Mutex<State>,
    /// The number of the newest entry, for who does not wait for the disk.
    newest: AtomicU64,
}

#[derive(Debug)]
struct State {
    folder: Folder,
    end: End,
    /// What the disk has not taken yet; nothing else is written before it.
    unsaid: Vec<Said>,
    refusals: Refusals,
    kept_elsewhere: u64,
}

impl Audit {
    /// Opens the log, or begins one, and writes that the coordinator starts, and of which intents it is not known what came of
    /// them. Fails where the newest entries are not those that were written. Blocks.
    ///
    /// A log that ends before the head that was kept, as after a restore of an older state folder, goes on and says so.
    pub fn open(
        place: &Place,
        store: Store,
        rng: &dyn SecureRandom,
        now: Timestamp,
    ) -> Result<Self, AuditError> {
        let key = key(&place.seed, rng)?;
        let elsewhere = (!place.head.as_os_str().is_empty()).then(|| place.head.clone());
        let mut heads: Vec<Head> = store.get::<Head>(TREE, HEAD)?.into_iter().collect();
        heads.extend(elsewhere.as_deref().map(read_head).transpose()?.flatten());
        let folder = Folder::open(&place.folder, place.most_bytes)?;
        let opened = look(&folder, &key, &heads)?;
        let Opened { end, open, shorter } = opened.map_err(|fault| {
            let path = place.folder.clone();
            AuditError::Fault { path, fault }
        })?;
        publish(&place.folder.join(KEY_FILE), &key);
        let mut unsaid = Vec::new();
        if let Some(head) = shorter {
            tracing::error!(
                last = end.n,
                head = head.n,
                "the audit log ends before a head that was kept: an older state folder was put in the place of a newer one"
            );
            let with = [("head", head.n.to_string()), ("hash", head.hash.to_string())];
            unsaid.push(Said::of(&Who::Coordinator, &What::new(FOUND, with), Outcome::Done, now));
        }
        for entry in open {
            unsaid.push(Said::unknown(&entry, now));
        }
        let start = What::new("start", [("program", env!("CARGO_PKG_VERSION").to_owned())]);
        unsaid.push(Said::of(&Who::Coordinator, &start, Outcome::Done, now));
        let (refusals, kept_elsewhere) = (Refusals::default(), 0);
        let (newest, most_bytes) = (AtomicU64::new(end.n), place.most_bytes);
        let state = Mutex::new(State { folder, end, unsaid, refusals, kept_elsewhere });
        let audit = Self(Arc::new(Inner { key, store, elsewhere, most_bytes, state, newest }));
        // A full disk is no reason not to start: it is written before anything else is.
        if let Err(error) = audit.flush(&mut audit.lock()) {
            tracing::warn!(%error, "the start is not in the audit log yet");
        }
        Ok(audit)
    }

    /// Writes down what is about to be done; on disk when this returns. Where it fails, it must not be done. Blocks.
    pub fn intent(&self, who: &Who, what: &What, now: Timestamp) -> Result<Intent, AuditError> {
        // As every commit asks.
        self.0.store.check_room()?;
        let mut state = self.lock();
        self.flush(&mut state)?;
        let said = Said::of(who, what, Outcome::Intent, now);
        match self.append(&mut state, &said) {
            Ok(n) => Ok(Intent { n, said }),
            Err(Failed { written: None, error }) => Err(error),
            // It stands there, and is not done.
            Err(Failed { written: Some(n), error }) => {
                state.unsaid.push(Said::came(&Intent { n, said }, Err("unavailable"), With::new(), now));
                Err(error)
            }
        }
    }

    /// Writes down what came of an intent: done, or refused by a kind of rejection. Where it fails, it is written before
    /// anything else is. Blocks.
    pub fn outcome(
        &self,
        intent: &Intent,
        (came, with): (Result<(), &'static str>, With),
        now: Timestamp,
    ) -> Result<(), AuditError> {
        let mut state = self.lock();
        state.unsaid.push(Said::came(intent, came, with, now));
        match self.flush(&mut state) {
            // The entry is on disk, and its head comes with the next one.
            Err(AuditError::Store(
                error @ (StoreError::DiskFull { .. } | StoreError::Unavailable { .. }),
            )) if state.unsaid.is_empty() => {
                tracing::warn!(%error, "the head of the audit log is not kept yet");
                Ok(())
            }
            other => other,
        }
    }

    /// Writes down what was refused before it was begun, a few of each operator's an hour. That it cannot be written is
    /// logged, since nothing was done. Blocks.
    pub fn refused(&self, who: &Who, what: &What, why: &'static str, now: Timestamp) {
        let mut state = self.lock();
        let Who::Operator { serial, .. } = who else { return };
        let Some(unwritten) = state.refusals.may_write(*serial, now) else { return };
        let mut said = Said::of(who, what, Outcome::Refused, now);
        said.why = Some(why.to_owned());
        if unwritten > 0 {
            said.with.insert("refused_before_and_not_written".to_owned(), unwritten.to_string());
        }
        let written = self.flush(&mut state).and_then(|()| Ok(self.append(&mut state, &said).map(drop)?));
        if let Err(error) = written {
            tracing::warn!(%error, "a refusal is not in the audit log");
        }
    }

    /// Writes down what the coordinator does by itself. Where the disk does not take it, it is written before anything else
    /// is. Blocks.
    pub fn note(&self, what: &What, now: Timestamp) {
        let mut state = self.lock();
        state.unsaid.push(Said::of(&Who::Coordinator, what, Outcome::Done, now));
        if let Err(error) = self.flush(&mut state) {
            tracing::warn!(%error, "an entry of the audit log waits for the disk");
        }
    }

    /// Writes that the coordinator ends. Blocks.
    pub fn close(&self, now: Timestamp) {
        self.note(&What::new("stop", []), now);
        let mut state = self.lock();
        self.keep_elsewhere(&mut state);
    }

    /// The number of the newest entry. Waits for nobody: it is asked for most when the disk is slow.
    pub fn entries(&self) -> u64 {
        self.0.newest.load(Ordering::Acquire)
    }

    /// Entries from number `from` on, as many as fit into an answer. Blocks.
    pub fn read(&self, from: u64) -> Result<AuditPart, AuditError> {
        let state = self.lock();
        let lines = state.folder.read(from.max(1), state.end.n)?;
        let head = self.0.store.get::<Head>(TREE, HEAD)?;
        let head = head.map(|head| serde_json::to_string(&head)).transpose()?.unwrap_or_default();
        Ok(AuditPart { lines, last: state.end.n, head, key: self.0.key.public().0 })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The chain goes on after a line is on disk, so it is whole after each change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what has waited, in order.
    fn flush(&self, state: &mut State) -> Result<(), AuditError> {
        while let Some(said) = state.unsaid.first().cloned() {
            let written = self.append(state, &said);
            if !matches!(written, Err(Failed { written: None, .. })) {
                state.unsaid.remove(0);
            }
            written?;
        }
        Ok(())
    }

    /// Adds an entry, keeps its head, and makes room where the log has grown too large.
    fn append(&self, state: &mut State, said: &Said) -> Result<u64, Failed> {
        let n = self.write(state, said)?;
        if let Err(error) = self.make_room(state, Timestamp(said.at_unix_millis)) {
            tracing::warn!(%error, "the oldest file of the audit log could not be removed");
        }
        if state.end.n >= state.kept_elsewhere + ELSEWHERE_EVERY || said.what == "start" {
            self.keep_elsewhere(state);
        }
        Ok(n)
    }

    fn write(&self, state: &mut State, said: &Said) -> Result<u64, Failed> {
        let (line, end) = state.end.next(said, &self.0.key)?;
        state.folder.append(&line, end.n)?;
        state.end = end;
        self.0.newest.store(end.n, Ordering::Release);
        let mut batch = Batch::new();
        let kept = batch.put(TREE, HEAD, &self.0.key.head(end));
        let kept = kept.map(drop).and_then(|()| self.0.store.commit_blocking(&batch));
        match kept {
            Ok(()) => Ok(end.n),
            Err(error) => Err(Failed { written: Some(end.n), error: error.into() }),
        }
    }

    /// Removes the oldest files while all of them take too much, each after an entry says so.
    fn make_room(&self, state: &mut State, now: Timestamp) -> Result<(), AuditError> {
        while state.folder.bytes() > self.0.most_bytes
            && let Some((oldest, before)) = state.folder.without_the_oldest()?
        {
            let with = [(OLDEST, oldest.to_string()), (BEFORE, before.to_string())];
            let said = Said::of(&Who::Coordinator, &What::new(REMOVE, with), Outcome::Done, now);
            self.write(state, &said)?;
            state.folder.remove_the_oldest()?;
        }
        Ok(())
    }

    fn keep_elsewhere(&self, state: &mut State) {
        let Some(path) = &self.0.elsewhere else { return };
        let head = serde_json::to_vec(&self.0.key.head(state.end));
        let kept = head.map_err(AuditError::from).and_then(|mut head| {
            head.push(b'\n');
            Ok(files::write(path, &head, Audience::Owner)?)
        });
        match kept {
            Ok(()) => state.kept_elsewhere = state.end.n,
            Err(error) => tracing::warn!(%error, "the head of the audit log could not be kept elsewhere"),
        }
    }
}

/// Why an entry is not as it should be, and its number where it is on disk nevertheless.
struct Failed {
    written: Option<u64>,
    error: AuditError,
}

impl From<Failed> for AuditError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<FileError> for Failed {
    fn from(error: FileError) -> Self {
        Self { written: None, error: error.into() }
    }
}

impl From<serde_json::Error> for Failed {
    fn from(error: serde_json::Error) -> Self {
        Self { written: None, error: error.into() }
    }
}

/// What the newest files of a log are found to be.
struct Opened {
    end: End,
    /// Intents of which it is not known what came of them.
    open: Vec<Entry>,
    /// A head that is later than the log.
    shorter: Option<Head>,
}

/// Reads the newest two files: an intent and what came of it are never farther apart.
fn look(folder: &Folder, key: &AuditKey, heads: &[Head]) -> Result<Result<Opened, Fault>, AuditError> {
    let newest = folder.newest(2)?;
    let (latest, oldest) =
        (heads.iter().max_by_key(|head| head.n).copied(), newest.first().map(|file| file.first));
    let mut verifier = match Verifier::new(key.public(), heads) {
        Ok(verifier) => verifier,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut intents = Vec::new();
    for line in newest.iter().flat_map(File::lines) {
        match verifier.line(line) {
            Ok(entry) if entry.outcome == Outcome::Intent => intents.push(entry),
            Ok(_) => {}
            Err(fault) => return Ok(Err(fault)),
        }
    }
    let end = verifier.end();
    let open: BTreeSet<u64> = verifier.open().clone();
    intents.retain(|entry| open.contains(&entry.n));
    let shorter = latest.filter(|head| head.n > end.n);
    Ok(Ok(match (shorter, oldest) {
        // The folder was moved away, or was lost: the numbers go on.
        (Some(head), None) => Opened { end: (&head).into(), open: intents, shorter: Some(head) },
        (shorter, _) => Opened { end, open: intents, shorter },
    }))
}

fn key(path: &Path, rng: &dyn SecureRandom) -> Result<AuditKey, AuditError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    load_or_create_seed(path, rng, &mut seed)?;
    let malformed = || KeyFileError::Malformed { path: path.to_owned(), expected: "a seed of a key" };
    Ok(AuditKey::from_seed(&seed).ok_or_else(malformed)?)
}

/// Writes the public key where it is not there; nothing depends on it.
fn publish(path: &Path, key: &AuditKey) {
    let text = format!("{}\n", key.public());
    if files::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return;
    }
    if let Err(error) = files::write(path, text.as_bytes(), Audience::Anyone) {
        tracing::warn!(%error, "the audit log's public key could not be written");
    }
}

/// The head in a file; none where there is no file. One that is damaged is none, and that is said.
fn read_head(path: &Path) -> Result<Option<Head>, FileError> {
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    let head = serde_json::from_slice(&bytes);
    if let Err(error) = &head {
        tracing::error!(path = %path.display(), %error, "the file does not hold a head of the audit log");
    }
    Ok(head.ok())
}

impl Said {
    fn of(who: &Who, what: &What, outcome: Outcome, now: Timestamp) -> Self {
        let (serial, role) = match who {
            Who::Operator { serial, role, .. } => (Some(*serial), Some(*role)),
            Who::Device(_) | Who::Coordinator => (None, None),
        };
        Self {
            at_unix_millis: now.0,
            who: match who {
                Who::Operator { name, .. } => format!("operator {name}"),
                Who::Device(device) => format!("device {device}"),
                Who::Coordinator => "coordinator".to_owned(),
            },
            serial,
            role,
            what: what.name.to_owned(),
            with: what.with.clone(),
            outcome,
            why: None,
            of: None,
        }
    }

    fn came(intent: &Intent, came: Result<(), &'static str>, with: With, now: Timestamp) -> Self {
        let outcome = if came.is_ok() { Outcome::Done } else { Outcome::Refused };
        let why = came.err().map(str::to_owned);
        let said = intent.said.clone();
        Self { at_unix_millis: now.0, with, outcome, why, of: Some(intent.n), ..said }
    }

    fn unknown(intent: &Entry, now: Timestamp) -> Self {
        let Entry {
            n,
            at_unix_millis: _,
            who,
            serial,
            role,
            what,
            with: _,
            outcome: _,
            why: _,
            of: _,
            before: _,
        } = intent.clone();
        let with = With::new();
        let (outcome, of) = (Outcome::Unknown, Some(n));
        Self { at_unix_millis: now.0, who, serial, role, what, with, outcome, why: None, of }
    }
}

#[cfg(test)]
mod tests;
