//! A base that comes from the coordinator: which files it has, what of them is here, and what is asked for next.

use std::time::Duration;

use proto::base::BaseFile;
use proto::ids::Timestamp;
use session::LackingBase;

use super::clock::now;
use crate::store::{FetchedBaseError, FetchedBases};
use crate::transport::{Transport, TransportError};

/// First wait after something failed; doubled up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(4 * 3600);

/// A base that is coming.
#[derive(Debug)]
pub(super) struct ComingBase {
    /// Which, and for which task.
    pub(super) of: LackingBase,
    /// Its files, once the coordinator has said which they are, and how much of each is here.
    pub(super) files: Option<Vec<(BaseFile, u64)>>,
    /// Nothing is asked before then.
    next: Timestamp,
    wait: Duration,
}

/// What the next step of a base came to.
#[derive(Debug)]
pub(super) enum Step {
    /// Its files are known.
    Listed(Vec<BaseFile>),
    /// Bytes of the first file that is not whole.
    Part { name: String, bytes: Vec<u8> },
    /// It is whole, in its place.
    Whole,
}

/// Why a base does not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Kept(#[from] FetchedBaseError),
    #[error("the coordinator sent {found} bytes of `{name}`, which it said has {expected}")]
    Length { name: String, expected: u64, found: u64 },
    #[error("a thread that compares the digest of a base did not come to its end: {0}")]
    Thread(String),
}

impl ComingBase {
    /// Nothing of it is asked for yet.
    pub(super) fn new(of: LackingBase) -> Self {
        Self { of, files: None, next: now(), wait: FIRST_WAIT }
    }

    /// How long nothing is to be asked.
    pub(super) fn rests(&self) -> Option<Duration> {
        let left = self.next.millis_since(now());
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Something came, so the next trouble is a first one.
    pub(super) fn goes_on(&mut self) {
        self.wait = FIRST_WAIT;
    }

    /// Tries all of it again later, each time twice as much later. Returns how much.
    ///
    /// What its files are is asked again too: they may be others, and what of them is here is looked at anew.
    pub(super) fn put_off(&mut self) -> Duration {
        let wait = self.wait;
        self.files = None;
        self.next = now().plus_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self.wait = LONGEST_WAIT.min(2 * wait);
        wait
    }

    /// Bytes that are here, and all.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let files = self.files.as_ref()?;
        let sum = |of: fn(&(BaseFile, u64)) -> u64| files.iter().map(of).fold(0, u64::saturating_add);
        Some((sum(|(_, there)| *there), sum(|(file, _)| file.bytes)))
    }

    /// Asks for what comes next. Whoever drops this loses no more than one part.
    pub(super) async fn step(
        &self,
        mut transport: Transport,
        bases: FetchedBases,
        held: impl Send + 'static,
    ) -> Result<Step, Trouble> {
        let base = self.of.base;
        let Some(files) = &self.files else {
            return Ok(Step::Listed(transport.describe_base(base).await?));
        };
        let Some((file, there)) = files.iter().find(|(file, there)| *there < file.bytes) else {
            let listed: Vec<BaseFile> = files.iter().map(|(file, _)| file.clone()).collect();
            let complete = move || {
                let completed = bases.complete(base, &listed);
                drop(held);
                completed
            };
            let completed = tokio::task::spawn_blocking(complete).await;
            completed.map_err(|error| Trouble::Thread(error.to_string()))??;
            return Ok(Step::Whole);
        };
        let chunk = transport.part(file.digest, *there).await?;
        if chunk.total_bytes != file.bytes {
            let (name, expected, found) = (file.name.clone(), file.bytes, chunk.total_bytes);
            return Err(Trouble::Length { name, expected, found });
        }
        Ok(Step::Part { name: file.name.clone(), bytes: chunk.bytes })
    }
}
