//! Looks at the machine for as long as a device runs, and tells when it may train and when it may use the network.
#![expect(clippy::disallowed_methods, reason = "IO shell: when the machine is looked at")]

use std::sync::Arc;
use std::time::Duration;

use proto::ids::Timestamp;
use rand_core::{Rng, UnwrapErr};
use session::conditions::{
    Conditions, Decision, Phase, Purpose, Snapshot, Uptime, Verdict, WindowState, decide, in_words, judge,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clock::{now, uptime};
use super::live::{Live, Preemption};
use super::meter::Meter;
use super::seen::Seen;
use crate::monitor::DeviceMonitor;

/// What a monitor may take for one look.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// What a look may take while the device may train.
const LONGEST_WHILE_OPEN: Duration = Duration::from_secs(1);

/// Between two looks while the device may train: whoever comes back is seen within a second.
const WHILE_OPEN: Duration = Duration::from_millis(500);

/// Between two times at which it is found that nobody looks any more.
const UNSEEN: Duration = Duration::from_secs(1);

/// Between two times at which what was used of the day is written down.
const KEPT_EVERY_MILLIS: u64 = 60_000;

/// What is seen of the machine while a device runs.
pub(super) struct Watching {
    seen: watch::Receiver<Seen>,
    looks: Looks,
}

/// The task that looks; it ends when this is dropped, and some moments later nothing of it holds the folder.
#[derive(Default)]
pub(super) struct Looks(Option<JoinHandle<()>>);

impl Looks {
    /// Ends the looks; when this returns, nothing of them holds the device's folder any more.
    pub(super) async fn end(mut self) {
        if let Some(looking) = &mut self.0 {
            looking.abort();
            drop(looking.await);
        }
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        if let Some(looking) = &self.0 {
            looking.abort();
        }
    }
}

impl Watching {
    /// Looks from now on.
    pub(super) fn begin(
        monitor: Arc<dyn DeviceMonitor>,
        limits: Conditions,
        overridden: bool,
        meter: Arc<Meter>,
        live: Arc<Live>,
    ) -> Self {
        let (tell, seen) = watch::channel(Seen::default());
        let state = WindowState::new(UnwrapErr(rand::rngs::SysRng).next_u64());
        let eyes = Eyes { monitor, limits, overridden, meter, live, state, kept: uptime(), looking: None };
        Self { seen, looks: Looks(Some(tokio::spawn(eyes.look_on(tell)))) }
    }

    /// What was seen last; nothing where nobody looks any more.
    pub(super) fn seen(&self) -> Seen {
        if self.seen.has_changed().is_err() { Seen::default() } else { self.seen.borrow().clone() }
    }

    /// What is seen from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// What is seen from the first look on; what was seen last where the looks have ended.
    pub(super) async fn first(&mut self) -> Seen {
        let seen = self.seen.wait_for(|seen| seen.looks > 0).await;
        seen.map_or_else(|_| Seen::default(), |seen| seen.clone())
    }

    /// The looks themselves, for who waits for their end.
    pub(super) fn take_looks(&mut self) -> Looks {
        std::mem::take(&mut self.looks)
    }

    /// Waits for the next look.
    pub(super) async fn next(&mut self) {
        if self.seen.changed().await.is_err() {
            // Nobody looks any more, so nothing will ever be known.
            tokio::time::sleep(UNSEEN).await;
        }
    }

    /// Waits until the device may not use the network any more.
    pub(super) async fn no_transfer(&mut self) {
        // Where nobody looks any more, that is now.
        drop(self.seen.wait_for(|seen| !seen.may_transfer).await);
    }

    /// Waits until the device may train.
    pub(super) fn open(&self) -> impl Future<Output = ()> + use<> {
        let mut seen = self.seen.clone();
        async move {
            if seen.wait_for(|seen| seen.may_train).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct Eyes {
    monitor: Arc<dyn DeviceMonitor>,
    limits: Conditions,
    overridden: bool,
    meter: Arc<Meter>,
    live: Arc<Live>,
    state: WindowState,
    kept: Uptime,
    /// A look that took too long: no other begins before it has ended.
    looking: Option<JoinHandle<Snapshot>>,
}

impl Eyes {
    async fn look_on(mut self, tell: watch::Sender<Seen>) {
        let changes = self.monitor.changes();
        let mut paused = self.live.paused();
        loop {
            let snapshot = self.look(&mut paused).await;
            let at = uptime();
            let decision = decide(&self.limits, &self.state, &snapshot, at);
            self.state = decision.state;
            let pause = self.pause(&decision, at);
            self.say(decision, &snapshot, &tell);
            if at.0.saturating_sub(self.kept.0) >= KEPT_EVERY_MILLIS {
                self.kept = at;
                self.meter.keep();
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed(changes.as_deref()) => {}
                _ = paused.changed() => {}
                () = tell.closed() => return,
            }
        }
    }

    /// What the monitor says, asked on a thread that no request waits for; nothing is known where it fails or takes too
    /// long, and what the user says meanwhile does not wait for it.
    async fn look(&mut self, paused: &mut watch::Receiver<Option<Timestamp>>) -> Snapshot {
        let open = matches!(self.state.phase(), Phase::Open { .. });
        let patience = if open { LONGEST_WHILE_OPEN } else { LONGEST_LOOK };
        let mut looking = self.looking.take().unwrap_or_else(|| {
            let monitor = Arc::clone(&self.monitor);
            tokio::task::spawn_blocking(move || monitor.look())
        });
        let machine = tokio::select! {
            looked = &mut looking => Some(looked.unwrap_or_default()),
            () = tokio::time::sleep(patience) => None,
            _ = paused.changed() => None,
        };
        let machine = machine.unwrap_or_else(|| {
            self.looking = Some(looking);
            Snapshot::default()
        });
        let paused_until = *self.live.paused().borrow();
        Snapshot { usage: self.meter.usage(now(), paused_until), ..machine }
    }

    fn pause(&self, decision: &Decision, at: Uptime) -> Duration {
        let check = Duration::from_secs(u64::from(self.limits.check_secs).max(1));
        match decision.verdict {
            Verdict::Train => WHILE_OPEN.min(check),
            Verdict::Wait { until: Some(until) } => {
                check.min(Duration::from_millis(until.0.saturating_sub(at.0).max(100)))
            }
            Verdict::Wait { until: None } | Verdict::Preempt => check,
        }
    }

    fn say(
        &self,
        Decision { state, verdict, judged }: Decision,
        snapshot: &Snapshot,
        tell: &watch::Sender<Seen>,
    ) {
        if verdict == Verdict::Preempt && !self.overridden {
            let blocking = in_words(&judged);
            let slept = || "the machine slept, or this program stood still".to_owned();
            let why = if blocking.is_empty() { slept() } else { blocking };
            self.live.preempted(Preemption { unix_millis: now().0, why });
        }
        let transfer = judge(snapshot, &self.limits, Purpose::Transfer);
        // Who overrides the conditions can still pause.
        let is_paused = snapshot.usage.paused_until.is_some();
        tell.send_modify(|seen| {
            let was = seen.phase;
            *seen = Seen {
                looks: seen.looks.saturating_add(1),
                may_train: if self.overridden { !is_paused } else { verdict == Verdict::Train },
                may_transfer: if self.overridden {
                    !is_paused
                } else {
                    transfer.iter().all(|row| !row.blocking)
                },
                phase: (!self.overridden).then(|| state.phase()),
                judged,
                transfer,
            };
            let opens =
                matches!(seen.phase, Some(Phase::Open { .. })) && !matches!(was, Some(Phase::Open { .. }));
            if opens {
                tracing::info!("a window for training opens");
            }
        });
        self.live.seen(&tell.borrow(), &snapshot.usage);
    }
}

async fn changed(changes: Option<&tokio::sync::Notify>) {
    match changes {
        Some(changes) => changes.notified().await,
        None => std::future::pending().await,
    }
}
