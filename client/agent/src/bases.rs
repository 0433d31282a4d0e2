//! Where the bases lie that the configuration names: in a folder or a file of the user's, or, where it names one of the
//! hub's, in the device's own folder, fetched when the network may be used. What a coordinator serves, the device fetches.
//!
//! The user's word in the configuration is their consent: nothing is fetched that they did not name. What is here is not
//! asked for again, so a base never changes under a task because its repository did.
#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: a task that looks at the network while a base is fetched"
)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::store::FetchedBases;
use client::{Control, DeviceMonitor, uptime};
use engine::{Base, FetchError, Fetching, Hub, Repository, Source};
use proto::shown::shown;
use session::conditions::{Condition, Conditions, Purpose, Uptime, in_words, judge};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::monitor::ThisMachine;

/// Between two looks at the network.
const LOOK: Duration = Duration::from_secs(5);

/// What a monitor may take for one look.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// First wait after a fetch that failed; doubled up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// The bases of a configuration: those that are here, and those that are to be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bases {
    /// Where they lie.
    pub(crate) here: Vec<PathBuf>,
    /// In the order of the configuration.
    pub(crate) missing: Vec<Repository>,
}

/// What says whether the network may be used.
#[derive(Clone)]
pub(crate) struct Network {
    /// What looks at it.
    pub(crate) monitor: Arc<ThisMachine>,
    /// What is wanted of it.
    pub(crate) limits: Conditions,
    /// Whether the person at the keyboard said to use it whatever it is.
    pub(crate) overridden: bool,
}

/// The hub, and the folder of what comes from it to this device. A token for what the hub does not give to everybody lies in
/// `hub/token`.
pub(crate) fn hub(state_dir: &Path) -> Hub {
    Hub::in_folder(state_dir.join("hub").join("models"))
}

impl Bases {
    /// Looks for them, without any network. Whether a path leads to a base is for whoever reads it.
    pub(crate) fn find(sources: &[Source], hub: &Hub) -> Self {
        let mut bases = Self::default();
        for source in sources {
            match source {
                Source::Path(path) => bases.here.push(path.clone()),
                Source::Hub(repository) => match hub.cached(repository) {
                    Some(path) => bases.here.push(path),
                    None => bases.missing.push(repository.clone()),
                },
            }
        }
        bases
    }
}

/// Which of these are not there: there is nothing of the name, or an empty folder, as where a disk is not mounted yet.
pub(crate) fn absent(paths: &[PathBuf]) -> Vec<PathBuf> {
    let is_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let is_absent = |path: &Path| path.try_exists().is_ok_and(|exists| !exists) || is_empty(path);
    paths.iter().filter(|path| is_absent(path)).cloned().collect()
}

/// Why the bases of a configuration are not here, in words; nothing of those that are.
pub(crate) fn wanting(config: &Config) -> Vec<String> {
    let Bases { here, missing } = Bases::find(&config.sources(), &hub(&config.state_dir));
    let absent = absent(&here).into_iter().map(|path| {
        format!(
            "the base {} is not there: put it there, or name another by `base`",
            shown(&path.to_string_lossy())
        )
    });
    let missing = missing.into_iter().map(|repository| {
        format!(
            "the base {repository} is not here yet: an agent that runs fetches it when it may use the network"
        )
    });
    absent.chain(missing).collect()
}

/// Why there is no text to train on, by the names that a configuration gives, or which of them leads nowhere.
pub(crate) fn text_wanting(config: &Config) -> Vec<String> {
    if config.data.is_empty() {
        return vec![
            "there is no text: name files or folders by `data` in agent.toml, or by --data".to_owned(),
        ];
    }
    let missing = config.data.iter().filter(|path| path.try_exists().is_ok_and(|exists| !exists));
    missing.map(|path| format!("the text {} is not there", shown(&path.to_string_lossy()))).collect()
}

/// Waits until one of these is there; for ever where there is none.
pub(crate) async fn appear(paths: &[PathBuf]) {
    if paths.is_empty() {
        return std::future::pending().await;
    }
    while absent(paths).len() == paths.len() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Where those lie that are here, also such as another command, or another program of the user's, fetched, and those that
/// came from the coordinator.
pub(crate) fn fetched(sources: &[Source], state_dir: &Path) -> Vec<PathBuf> {
    let Bases { mut here, missing } = Bases::find(sources, &hub(state_dir));
    if let Ok(users) = Hub::from_env() {
        here.extend(missing.iter().filter_map(|repository| users.cached(repository)));
    }
    let fetched = FetchedBases::below(state_dir);
    here.extend(fetched.whole().into_iter().map(|base| fetched.path(base)));
    here
}

/// How a base is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Come {
    /// While the device takes part with others.
    Beside,
    /// While the device does nothing else, and says so.
    Alone,
    /// The same, by somebody who does not wait: what stands in the way is an error.
    AtOnce,
}

/// Fetches what is missing until one base has come, which is given, or `stop` is canceled; only while the conditions of a
/// transfer hold and the user did not pause the device. They have turns: one that cannot be had keeps no other from coming.
/// What has come of a base is gone on from.
///
/// Fails only where nobody waits.
pub(crate) async fn fetch(
    missing: Vec<Repository>,
    hub: Hub,
    (network, how): (&Network, Come),
    control: Control,
    stop: CancellationToken,
) -> Result<Option<Repository>, CannotCome> {
    let (allowed, looks) = watch::channel(Err("nobody has looked yet".to_owned()));
    let looking = tokio::spawn(look_on(allowed, network.clone(), control.clone(), stop.clone()));
    let _looking = AbortOnDrop(looking);
    let mut turns: Vec<Wanted> = missing.into_iter().map(Wanted::new).collect();
    loop {
        for wanted in &mut turns {
            if stop.is_cancelled() {
                return Ok(None);
            }
            if wanted.next > uptime() {
                continue;
            }
            let mut looks = looks.clone();
            // The first look takes a moment.
            let blocking = tokio::select! {
                seen = async { looks.changed().await.ok().and_then(|()| looks.borrow().clone().err()) } => seen,
                () = stop.cancelled() => return Ok(None),
            };
            if let Some(blocking) = blocking {
                match how {
                    Come::AtOnce => return Err(CannotCome::Conditions(blocking)),
                    Come::Alone => control.prepares(&format!("waiting to fetch its base: {blocking}")),
                    Come::Beside => {}
                }
                break;
            }
            if how != Come::Beside {
                control.prepares(&format!("fetching its base {}", wanted.repository));
            }
            let come = one(&wanted.repository, &hub, (&looks, &control), &stop).await;
            control.keep_usage();
            match come {
                Ok(()) => return Ok(Some(wanted.repository.clone())),
                Err(FetchError::Stopped { .. }) => {}
                Err(error) if how == Come::AtOnce => return Err(error.into()),
                Err(error) => wanted.put_off(&control, &error),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Why a base cannot come now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotCome {
    /// The network may not be used.
    #[error("the base may not be fetched now: {0}")]
    Conditions(String),
    /// The hub does not give it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// A base that is to come.
struct Wanted {
    repository: Repository,
    /// By a clock that counts the time in which the machine sleeps.
    next: Uptime,
    wait: Duration,
}

impl Wanted {
    fn new(repository: Repository) -> Self {
        Self { repository, next: uptime(), wait: FIRST }
    }

    fn put_off(&mut self, control: &Control, error: &FetchError) {
        // What broke off has brought something, and goes on from there.
        if matches!(error, FetchError::Interrupted { .. }) {
            self.wait = FIRST;
        }
        let why =
            format!("{}; it is tried again in {} min", shown(&error.to_string()), self.wait.as_secs() / 60);
        tracing::warn!("{why}");
        control.failed(&why);
        let wait = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        self.next = Uptime(uptime().0.saturating_add(wait));
        self.wait = LONGEST.min(2 * self.wait);
    }
}

/// Fetches one base, for as long as the network may be used.
async fn one(
    repository: &Repository,
    hub: &Hub,
    (looks, control): (&watch::Receiver<Look>, &Control),
    stop: &CancellationToken,
) -> Result<(), FetchError> {
    tracing::info!(base = %repository, "fetching the base");
    let (source, hub, looks, stopped) =
        (Source::Hub(repository.clone()), hub.clone(), looks.clone(), stop.clone());
    let (control, mut counter) = (control.clone(), Counter::default());
    let fetching = spawn_blocking(move || {
        Base::fetch(&source, &hub, &mut |fetching: Fetching| {
            control.transferred(counter.since(&fetching));
            if looks.borrow().is_ok() && !stopped.is_cancelled() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
    });
    let stopped = || FetchError::Stopped { base: repository.to_string() };
    let path = tokio::select! {
        fetched = fetching => fetched.unwrap_or_else(|error| Err(broke(repository, &error)))?,
        // It ends at its next block.
        () = stop.cancelled() => return Err(stopped()),
    };
    tracing::info!(base = %repository, path = %path.display(), "the base is here");
    Ok(())
}

/// Counts the bytes of files as they come.
#[derive(Debug, Default)]
struct Counter {
    file: String,
    bytes: u64,
}

impl Counter {
    /// Bytes that have come since the last call; what was here of a file before it was asked for is none of them.
    fn since(&mut self, Fetching { file, bytes, .. }: &Fetching) -> u64 {
        let is_new = *file != self.file;
        let before = if is_new { *bytes } else { self.bytes };
        if is_new {
            self.file.clone_from(file);
        }
        self.bytes = *bytes;
        bytes.saturating_sub(before)
    }
}

/// A thread that did not come to its end.
fn broke(repository: &Repository, error: &JoinError) -> FetchError {
    let reason = format!("what it sent could not be taken: {error}");
    FetchError::Answer { base: repository.to_string(), endpoint: "the hub".to_owned(), reason }
}

/// Whether the network may be used, and else why not.
type Look = Result<(), String>;

/// Looks at the network for as long as a base is fetched.
async fn look_on(
    allowed: watch::Sender<Look>,
    Network { monitor, limits, overridden }: Network,
    control: Control,
    stop: CancellationToken,
) {
    let mut said = String::new();
    while !stop.is_cancelled() {
        let monitor = Arc::clone(&monitor);
        let looked = timeout(LONGEST_LOOK, spawn_blocking(move || monitor.look())).await;
        // What is not known keeps the device from the network.
        let mut snapshot = looked.ok().and_then(Result::ok).unwrap_or_default();
        snapshot.usage = control.usage();
        let mut transfer = judge(&snapshot, &limits, Purpose::Transfer);
        // Who overrides the conditions can still pause.
        transfer.retain(|row| !overridden || row.condition == Condition::Resumed);
        let blocking = in_words(&transfer);
        if blocking != said && !blocking.is_empty() {
            tracing::info!("a base is not fetched now: {blocking}");
        }
        said.clone_from(&blocking);
        let look = if blocking.is_empty() { Ok(()) } else { Err(blocking) };
        drop(allowed.send_replace(look));
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// A task that ends with whoever waits for what it tells.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_come_are_counted_and_those_that_were_here_are_not() {
        let mut counter = Counter::default();
        let mut at =
            |file: &str, bytes| counter.since(&Fetching { file: file.to_owned(), bytes, of_bytes: 1000 });
        // The first file is gone on with, the second begins, and is begun again.
        let counted =
            [at("a", 600), at("a", 800), at("a", 1000), at("b", 0), at("b", 300), at("c", 0), at("c", 50)];
        assert_eq!(counted, [0, 200, 200, 0, 300, 0, 50]);
    }
}
