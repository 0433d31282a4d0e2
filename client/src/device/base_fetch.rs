//! Fetches one base from the coordinator: its list of files, then each file part by part, then the digest over all.
//!
//! It goes on beside whatever the device does, asks only while the network may be used, and ends when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::base::BaseFile;
use proto::ids::Digest;
use proto::message::Rejection;
use session::LackingBase;
use session::conditions::{Uptime, in_words};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::live::Live;
use super::seen::Seen;
use super::waits::{TRIED, is_in_vain};
use crate::store::{FetchedBaseError, FetchedBases};
use crate::transport::{Transport, TransportError};

/// Waits after something failed, and how often it may fail in a row without a byte that came.
#[derive(Clone, Copy, Debug)]
struct Patience {
    first: Duration,
    longest: Duration,
    tries: u32,
    /// How long it may take in all that no byte comes.
    in_all: Option<Duration>,
}

/// Of a device that runs for days.
const LONG: Patience = Patience {
    first: Duration::from_secs(60),
    longest: Duration::from_secs(4 * 3600),
    tries: 8,
    in_all: None,
};

/// Of one that runs once, whose user waits: half a minute.
const SHORT: Patience = Patience {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(16),
    tries: 5,
    in_all: Some(TRIED),
};

/// What a fetch works with.
pub(super) struct BaseFetch {
    pub(super) of: LackingBase,
    pub(super) bases: FetchedBases,
    /// The bases that others need: they make no room.
    pub(super) needed: Vec<Digest>,
    pub(super) most_mib: u64,
    /// How the coordinator is reached now.
    pub(super) transport: watch::Receiver<Transport>,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) live: Arc<Live>,
    /// Whether somebody waits for it.
    pub(super) once: bool,
    pub(super) stop: CancellationToken,
    /// Whether what came of it is to be deleted when it stops: its task was forgotten.
    pub(super) is_forgotten: Arc<AtomicBool>,
}

/// How a fetch ended.
#[derive(Debug)]
pub(super) enum Fetched {
    /// The base is in its place. These were deleted for it.
    Whole,
    /// It was told to stop.
    Stopped,
    /// It does not come, for this reason.
    InVain(InVain),
}

/// Why a base does not come.
#[derive(Debug)]
pub(super) enum InVain {
    /// The coordinator gives it not, or the user's limits or the disk forbid it.
    Refused(String),
    /// What came is something else than the base: it is not asked for again for a day.
    Another(String),
    /// The network may not be used, and somebody waits.
    Network(String),
}

/// Why a try ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Kept(#[from] FetchedBaseError),
    #[error("the coordinator sent {found} bytes of `{name}`, which it said has {expected}")]
    Length { name: String, expected: u64, found: u64 },
    #[error("the network may not be used: {0}")]
    Network(String),
    #[error("a thread that reads what came did not come to its end: {0}")]
    Thread(String),
    #[error("the coordinator does not answer")]
    Silent,
    #[error("it was told to stop")]
    Stopped,
}

impl Trouble {
    /// Why there is no use in another try, if there is none.
    fn in_vain(&self, base: Digest) -> Option<InVain> {
        let why = format!("the base {base} does not come: {self}");
        match self {
            Self::Transport(TransportError::Rejected(Rejection::UnknownArtifact)) => {
                Some(InVain::Refused(format!(
                    "the coordinator does not serve the base {base}; name where it is by `base` or `further_bases`"
                )))
            }
            Self::Kept(FetchedBaseError::NoRoom { .. }) => Some(InVain::Refused(why)),
            Self::Kept(FetchedBaseError::Another { .. } | FetchedBaseError::AnotherFile { .. })
            | Self::Length { .. } => Some(InVain::Another(why)),
            Self::Network(why) => Some(InVain::Network(why.clone())),
            Self::Transport(_)
            | Self::Kept(
                FetchedBaseError::DiskFull { .. }
                | FetchedBaseError::File(_)
                | FetchedBaseError::Read(_)
                | FetchedBaseError::Stopped,
            )
            | Self::Thread(_)
            | Self::Silent
            | Self::Stopped => None,
        }
    }
}

impl BaseFetch {
    /// Fetches until the base is whole, it is in vain, or it is told to stop. When this returns, nothing of it touches the
    /// device's folder any more.
    pub(super) async fn run(self) -> Fetched {
        let base = self.of.base;
        let patience = if self.once { SHORT } else { LONG };
        let (mut failed, mut wait, mut since) = (0, patience.first, clock::uptime());
        let fetched = loop {
            let mut came = false;
            let trouble = match self.try_once(&mut came, since).await {
                Ok(()) => break Fetched::Whole,
                Err(_) if self.stop.is_cancelled() => break Fetched::Stopped,
                Err(trouble) => trouble,
            };
            if came {
                (failed, wait, since) = (0, patience.first, clock::uptime());
            }
            failed += 1;
            if let Some(in_vain) = trouble.in_vain(base) {
                break Fetched::InVain(in_vain);
            }
            let why = format!("the base {base} does not come: {trouble}");
            let left = patience.in_all.map(|all| all.saturating_sub(clock::passed(since)));
            if failed >= patience.tries || left.is_some_and(|left| left.is_zero()) {
                break Fetched::InVain(InVain::Refused(why));
            }
            let wait_now = left.map_or(wait, |left| wait.min(left));
            self.live.problem(&format!("{why}; it is tried again in {} s", wait_now.as_secs()));
            tokio::select! {
                () = clock::wait(wait_now) => {}
                () = self.stop.cancelled() => break Fetched::Stopped,
            }
            wait = patience.longest.min(2 * wait);
        };
        self.live.fetches(base, None);
        if self.is_forgotten.load(Ordering::Relaxed)
            && let Err(error) = self.bases.delete(base)
        {
            self.live.problem(&format!("what came of the base {base} cannot be deleted: {error}"));
        }
        fetched
    }

    /// All of it, from what is here; says in `came` whether any byte came.
    async fn try_once(&self, came: &mut bool, since: Uptime) -> Result<(), Trouble> {
        let base = self.of.base;
        self.permitted().await?;
        let mut transport = self.transport.borrow().clone();
        let in_vain = self.in_vain(&transport, since);
        let files = tokio::select! {
            files = transport.describe_base(base) => files?,
            () = in_vain => return Err(Trouble::Silent),
            () = self.stop.cancelled() => return Err(Trouble::Stopped),
        };
        let (bases, listed, needed, most) =
            (self.bases.clone(), files.clone(), self.needed.clone(), self.most_mib);
        let gone = self.on_thread(move |_| bases.make_room((base, &listed), &needed, most)).await?;
        for gone in &gone {
            self.live.note("deleted", &format!("the base {gone}, which nothing here needs"));
        }
        // A trainer that held one of them must not be asked to train on it.
        if !gone.is_empty() {
            self.live.leave();
        }
        let total = files.iter().fold(0_u64, |total, file| total.saturating_add(file.bytes));
        let mut before = 0;
        for file in &files {
            self.file((&mut transport, since), file, (before, total), came).await?;
            before += file.bytes;
        }
        let (bases, listed) = (self.bases.clone(), files);
        self.on_thread(move |go_on| bases.complete(base, &listed, go_on)).await
    }

    /// One file, from its end on; `before` bytes of all came before it.
    async fn file(
        &self,
        (transport, since): (&mut Transport, Uptime),
        file: &BaseFile,
        (before, total): (u64, u64),
        came: &mut bool,
    ) -> Result<(), Trouble> {
        let base = self.of.base;
        let mut there = self.bases.there(base, file)?;
        let mut is_new = false;
        while there < file.bytes {
            self.live.fetches(base, Some((before + there, total)));
            self.permitted().await?;
            let mut seen = self.seen.clone();
            let in_vain = self.in_vain(transport, since);
            let chunk = tokio::select! {
                chunk = transport.part(file.digest, there) => chunk?,
                () = in_vain => return Err(Trouble::Silent),
                // What was on its way is asked for again.
                _ = seen.wait_for(|seen| !seen.may_transfer) => continue,
                () = self.stop.cancelled() => return Err(Trouble::Stopped),
            };
            if chunk.total_bytes != file.bytes {
                let (name, expected, found) = (file.name.clone(), file.bytes, chunk.total_bytes);
                return Err(Trouble::Length { name, expected, found });
            }
            self.bases.append(base, &file.name, there, &chunk.bytes)?;
            there = there.saturating_add(chunk.bytes.len() as u64);
            (*came, is_new) = (true, true);
        }
        if is_new {
            let (bases, file) = (self.bases.clone(), file.clone());
            self.on_thread(move |go_on| bases.check(base, &file, go_on)).await?;
        }
        Ok(())
    }

    /// Ends when somebody waits, and nothing has come since then for too long.
    fn in_vain(&self, transport: &Transport, since: Uptime) -> impl Future<Output = ()> + use<> {
        is_in_vain(transport.clone(), self.once.then_some(since))
    }

    /// Waits until the network may be used; whoever is waited for does not.
    async fn permitted(&self) -> Result<(), Trouble> {
        let mut seen = self.seen.clone();
        tokio::select! {
            now = seen.wait_for(|seen| seen.looks > 0 && (seen.may_transfer || self.once)) => match now {
                Ok(now) if now.may_transfer => Ok(()),
                Ok(now) => Err(Trouble::Network(in_words(&now.transfer))),
                // Nobody looks any more.
                Err(_) => Err(Trouble::Stopped),
            },
            () = self.stop.cancelled() => Err(Trouble::Stopped),
        }
    }

    /// What reads or deletes large files, on a thread that nobody else waits for; it is asked whether to go on.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, FetchedBaseError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let stop = self.stop.clone();
        let done = spawn_blocking(move || work(&|| !stop.is_cancelled())).await;
        Ok(done.map_err(|error| Trouble::Thread(error.to_string()))??)
    }
}
