//! What services on the bus say, kept up to date by their signals.
//!
//! A task asks each service once, then again whatever signals; nothing is asked at a look. Once a minute everything is
//! asked, which notices a bus or a service that hangs. No service is ever started by being asked.

mod line;
mod services;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};

use self::line::{Failure, Line};
use self::services::Service;
use super::super::BusAddress;
use super::known::Services;

/// The longest wait between two tries to reach the bus.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Everything is asked again after that long.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Signals that come so soon after each other are answered together.
const GATHER: Duration = Duration::from_millis(100);

/// What the services told last, as long as somebody follows them.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    /// Whoever follows the bus ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Services>,
    changes: Arc<Notify>,
}

impl Watch {
    /// Follows the bus: on the runtime that this is called in, if it has threads to spare, or else on a thread of its own. `began` is when
    /// the time that the device counts began.
    pub(super) fn start(address: BusAddress, retry: Duration, began: Instant) -> Self {
        let why = match &address {
            BusAddress::None => "no bus is asked",
            BusAddress::System | BusAddress::At(_) => "the bus has not answered yet",
        };
        let told = Mutex::new(Services::absent(why));
        let shared = Arc::new(Shared { told, changes: Arc::default() });
        let (stop, stopped) = oneshot::channel();
        let watch = Self { shared: Arc::clone(&shared), _stop: stop };
        if address == BusAddress::None {
            return watch;
        }
        let followed = follow(address, retry, began, Following(Arc::clone(&shared)));
        let followed = async move {
            tokio::select! {
                () = followed => {}
                // Nothing is ever sent; it ends when the sender is gone.
                _ = stopped => {}
            }
        };
        // A runtime of one thread stands still while that thread looks.
        let shared_runtime = Handle::try_current().ok();
        if let Some(runtime) =
            shared_runtime.filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
        {
            runtime.spawn(followed);
            return watch;
        }
        let run = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(followed),
            Err(error) => tracing::warn!("the bus is not followed: {error}"),
        };
        if let Err(error) = std::thread::Builder::new().name("bus".to_owned()).spawn(run) {
            tracing::warn!("the bus is not followed: {error}");
        }
        watch
    }

    /// What the services told last.
    pub(super) fn told(&self) -> Services {
        self.shared.read()
    }

    /// Notified when one of them tells something else.
    pub(super) fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.changes)
    }
}

impl Shared {
    fn read(&self) -> Services {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, change: impl FnOnce(Services) -> Services) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(told.clone());
        if *told != changed {
            *told = changed;
            self.stir();
        }
    }

    /// With a permit for whoever waits next, so that a change between two waits is not lost.
    fn stir(&self) {
        self.changes.notify_one();
    }

    fn lose(&self, why: &str) {
        self.put(|told| told.after_loss(why));
    }
}

/// Says that what was told is no longer so when whoever follows the bus ends, however that is.
struct Following(Arc<Shared>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.lose("the bus is no longer followed");
    }
}

/// Follows the bus and comes back to it whenever it is lost.
async fn follow(address: BusAddress, retry: Duration, began: Instant, following: Following) {
    let shared = &following.0;
    let mut wait = retry;
    let mut said = false;
    loop {
        let Attended { reached, why } = attend(&address, began, shared).await;
        if reached {
            (wait, said) = (retry, false);
        }
        shared.lose(&why);
        if !said {
            // What is unknown for want of it is told by who looks, with this reason.
            tracing::debug!(
                why,
                "the system bus is not there; what its services tell is unknown until it is"
            );
            said = true;
        }
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(LONGEST_WAIT);
    }
}

/// How it ended to attend to the bus.
struct Attended {
    /// Whether a service was asked.
    reached: bool,
    why: String,
}

/// Attends to the bus until it is lost. Each service is asked by itself, so that one that hangs holds up no other.
async fn attend(address: &BusAddress, began: Instant, shared: &Shared) -> Attended {
    let line = match Line::open(address).await {
        Ok(line) => line,
        Err(why) => return Attended { reached: false, why },
    };
    let attention =
        Attention { line: &line, began, shared, due: Due::default(), reached: AtomicBool::new(false) };
    let why = tokio::select! {
        why = attention.listen() => why,
        why = attention.keep(Service::UPower) => why,
        why = attention.keep(Service::Logind) => why,
        why = attention.keep(Service::NetworkManager) => why,
        why = attention.keep(Service::PowerProfiles) => why,
    };
    Attended { reached: attention.reached.load(Ordering::Relaxed), why }
}

struct Attention<'a> {
    line: &'a Line,
    began: Instant,
    shared: &'a Shared,
    due: Due,
    reached: AtomicBool,
}

/// Which services are to be asked again.
#[derive(Debug, Default)]
struct Due {
    upower: Notify,
    logind: Notify,
    network_manager: Notify,
    power_profiles: Notify,
}

impl Due {
    fn of(&self, service: Service) -> &Notify {
        match service {
            Service::UPower => &self.upower,
            Service::Logind => &self.logind,
            Service::NetworkManager => &self.network_manager,
            Service::PowerProfiles => &self.power_profiles,
        }
    }
}

impl Attention<'_> {
    /// Hears signals until the bus is gone.
    async fn listen(&self) -> String {
        let mut signals = self.line.signals();
        while let Some(signal) = poll_fn(|context| Pin::new(&mut signals).poll_next(context)).await {
            let message = match signal {
                Ok(message) => message,
                Err(error) => return format!("the bus is gone: {error}"),
            };
            if let Some(service) = services::concerned(&message) {
                self.due.of(service).notify_one();
            }
            if services::is_about_sleep(&message) {
                // The services may say the same as before, and the machine has slept.
                self.shared.stir();
            }
        }
        "the bus closed the connection".to_owned()
    }

    /// Asks a service whenever that is due, until the bus does not answer.
    async fn keep(&self, service: Service) -> String {
        for rule in services::rules(service) {
            if let Err(Failure::Bus(why) | Failure::Service(why)) = self.line.add_match(&rule).await {
                return why;
            }
        }
        loop {
            match services::ask(self.line, service, &self.shared.read(), self.began).await {
                Ok(news) => self.shared.put(|told| told.with(news)),
                Err(Failure::Bus(why) | Failure::Service(why)) => return why,
            }
            self.reached.store(true, Ordering::Relaxed);
            tokio::time::sleep(GATHER).await;
            // Due or not, it is asked after that long.
            let due = tokio::time::timeout(ASK_AGAIN, self.due.of(service).notified()).await;
            tracing::trace!(?service, signaled = due.is_ok(), "a service is asked");
        }
    }
}
