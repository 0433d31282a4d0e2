//! Where the bases lie that the configuration names: in a folder or a file of the user's, or, where it names one of the
//! hub's, in the device's own folder, fetched when the network may be used.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Control, DeviceMonitor};
use engine::{Base, FetchError, Fetching, Hub, Repository, Source};
use proto::shown::shown;
use session::conditions::{Condition, Conditions, Purpose, Usage, in_words, judge};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// Between two looks at the network.
const LOOK: Duration = Duration::from_secs(5);

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
    pub(crate) monitor: Arc<dyn DeviceMonitor>,
    /// What is wanted of it.
    pub(crate) limits: Conditions,
    /// Whether the person at the keyboard said to use it whatever it is.
    pub(crate) overridden: bool,
}

/// The hub, and the folder of what comes from it to this device.
pub(crate) fn hub(state_dir: &Path) -> Hub {
    Hub::in_folder(state_dir.join("hub"))
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

/// Where those lie that are here, also such as another command, or another program of the user's, fetched.
pub(crate) fn fetched(sources: &[Source], state_dir: &Path) -> Vec<PathBuf> {
    let Bases { mut here, missing } = Bases::find(sources, &hub(state_dir));
    if let Ok(users) = Hub::from_env() {
        here.extend(missing.iter().filter_map(|repository| users.cached(repository)));
    }
    here
}

/// Fetches what is missing, one after the other, until all of it is here or `stop` is canceled; only while the conditions
/// of a transfer hold and the user did not pause the device. What came of a base before that is gone on from.
pub(crate) async fn fetch(
    missing: Vec<Repository>,
    hub: Hub,
    network: Network,
    control: Control,
    stop: CancellationToken,
) {
    let may = Arc::new(AtomicBool::new(false));
    let looks = tokio::spawn(look_on(Arc::clone(&may), network, control.clone(), stop.clone()));
    for repository in missing {
        let mut wait = FIRST;
        loop {
            while !may.load(Ordering::Relaxed) && !stop.is_cancelled() {
                pause(LOOK.min(Duration::from_secs(1)), &stop).await;
            }
            if stop.is_cancelled() {
                break;
            }
            tracing::info!(base = %repository, "fetching the base");
            let (hub, name, allowed, stopped) =
                (hub.clone(), repository.clone(), Arc::clone(&may), stop.clone());
            let fetched = spawn_blocking(move || {
                Base::fetch(&Source::Hub(name), &hub, &mut |_: Fetching| {
                    if allowed.load(Ordering::Relaxed) && !stopped.is_cancelled() {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })
            });
            match fetched.await {
                Ok(Ok(path)) => {
                    tracing::info!(base = %repository, path = %path.display(), "the base is here");
                    break;
                }
                Ok(Err(FetchError::Stopped { .. })) => {}
                Ok(Err(error)) => {
                    tell(&control, &error.to_string(), wait);
                    pause(wait, &stop).await;
                    wait = LONGEST.min(2 * wait);
                }
                Err(error) => {
                    tell(&control, &format!("the fetch of {repository} broke: {error}"), wait);
                    pause(wait, &stop).await;
                    wait = LONGEST.min(2 * wait);
                }
            }
        }
    }
    looks.abort();
}

fn tell(control: &Control, why: &str, wait: Duration) {
    let why = format!("{}; it is tried again in {} min", shown(why), wait.as_secs() / 60);
    tracing::warn!("{why}");
    control.failed(&why);
}

/// Tells whether the network may be used, for as long as a base is fetched.
async fn look_on(
    may: Arc<AtomicBool>,
    Network { monitor, limits, overridden }: Network,
    control: Control,
    stop: CancellationToken,
) {
    let mut said = String::new();
    while !stop.is_cancelled() {
        let monitor = Arc::clone(&monitor);
        let mut snapshot = spawn_blocking(move || monitor.look()).await.unwrap_or_default();
        // What is fetched of a base is fetched once, and does not count by the day.
        let paused_until = control.paused_until();
        snapshot.usage = Usage { paused_until, ..Usage::default() };
        let mut transfer = judge(&snapshot, &limits, Purpose::Transfer);
        // Who overrides the conditions can still pause.
        transfer.retain(|row| !overridden || row.condition == Condition::Resumed);
        let blocking = in_words(&transfer);
        may.store(blocking.is_empty(), Ordering::Relaxed);
        if blocking != said && !blocking.is_empty() {
            tracing::info!("a base is not fetched now: {blocking}");
        }
        said = blocking;
        pause(LOOK, &stop).await;
    }
}

async fn pause(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}
