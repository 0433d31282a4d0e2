//! The metrics, as OpenMetrics text. What is not counted as it happens is looked up now.

use std::path::PathBuf;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry as Metrics, Unit};
use proto::admin::{LogStatus, TaskState};
use tokio::task::spawn_blocking;

use super::Readiness;
use super::process::Process;
use crate::driver::{self, Driver};
use crate::enroller::Apart;
use crate::enrollment::Registry;
use crate::metrics::Labels;
use crate::server_certificates::ServerCertificates;
use crate::service::BothTurnedAway;

mod enrollment;
mod gauges;

use gauges::{gauge, whole};

/// Where everything is looked up.
#[derive(Clone, Debug)]
pub(crate) struct Scrape {
    pub(crate) driver: Driver,
    pub(crate) registry: Arc<Registry>,
    pub(crate) certificates: Arc<ServerCertificates>,
    pub(crate) turned_away: BothTurnedAway,
    pub(crate) readiness: Readiness,
    /// The folder of artifacts.
    pub(crate) artifacts: PathBuf,
}

/// What is looked up on a thread that may block.
struct Looked {
    /// How many are enrolled, and how many are shut out.
    devices: (usize, usize),
    artifacts: Option<(u64, u64)>,
    process: Process,
    audit_entries: u64,
    takes_writes: bool,
    log: LogStatus,
}

impl Scrape {
    /// The text.
    pub(crate) async fn text(self) -> Result<String, String> {
        let tasks = self.driver.list().await;
        let states = tasks.iter().map(|task| (task.state, task.versions.len())).collect::<Vec<_>>();
        let here = self.clone();
        let looked = spawn_blocking(move || here.look()).await.map_err(|error| error.to_string())?;
        let mut metrics = Metrics::default();
        about_itself(&mut metrics);
        self.driver.metrics().register(&mut metrics);
        if let Some(traces) = self.driver.traces() {
            traces.register(&mut metrics);
        }
        self.tasks(&mut metrics, &states);
        self.listeners(&mut metrics);
        self.state(&mut metrics, &looked);
        let authority = self.registry.enroller.apart().map(Apart::status);
        enrollment::register(&mut metrics, &looked.log, authority.as_ref());
        of_process(&mut metrics, looked.process);
        let mut text = String::new();
        encode(&mut text, &metrics).map_err(|error| error.to_string())?;
        Ok(text)
    }

    fn look(&self) -> Looked {
        Looked {
            devices: self.driver.known().counts(),
            artifacts: artifacts(&self.artifacts),
            process: Process::now(),
            audit_entries: self.registry.audit.entries(),
            log: self.registry.log_status(),
            takes_writes: self.driver.trouble().is_none() && self.registry.store.check_room().is_ok(),
        }
    }

    fn tasks(&self, metrics: &mut Metrics, tasks: &[(TaskState, usize)]) {
        let by_state = Family::<Labels<1>, Gauge>::default();
        for state in [
            TaskState::Active,
            TaskState::Complete,
            TaskState::BudgetSpent,
            TaskState::Stopped,
            TaskState::Paused,
        ] {
            let count = tasks.iter().filter(|(known, _)| *known == state).count();
            by_state.get_or_create(&[("state", of_state(state))]).set(number(count));
        }
        metrics.register("nightshift_tasks", "Tasks, by where they stand", by_state);
        let versions = Gauge::<i64>::default();
        versions.set(number(tasks.iter().map(|(_, versions)| versions).sum()));
        metrics.register("nightshift_versions", "Versions of all tasks that came out of rounds", versions);
        let open = Family::<Labels<1>, Gauge>::default();
        for (step, count) in self.driver.metrics().open_rounds() {
            open.get_or_create(&[("step", step)]).set(count);
        }
        metrics.register("nightshift_open_rounds", "Rounds that are open, by their step", open);
    }

    fn listeners(&self, metrics: &mut Metrics) {
        let (connections, named) =
            (Family::<Labels<1>, Gauge>::default(), Family::<Labels<1>, Gauge>::default());
        let calls = Family::<Labels<1>, Counter>::default();
        let (received, sent) =
            (Family::<Labels<1>, Counter>::default(), Family::<Labels<1>, Counter>::default());
        let turned_away = Family::<Labels<2>, Counter>::default();
        let listeners = [("devices", &self.turned_away.devices), ("operators", &self.turned_away.operators)];
        for (listener, counts) in listeners {
            let label = [("listener", listener)];
            let counted = counts.traffic.counted();
            connections.get_or_create(&label).set(whole(counted.connections));
            named.get_or_create(&label).set(whole(counted.named));
            calls.get_or_create(&label).inc_by(counted.calls);
            received.get_or_create(&label).inc_by(counted.received_bytes);
            sent.get_or_create(&label).inc_by(counted.sent_bytes);
            for (reason, times) in counts.by_reason() {
                turned_away.get_or_create(&[("listener", listener), ("reason", reason)]).inc_by(times);
            }
        }
        metrics.register("nightshift_connections", "Connections that are open", connections);
        metrics.register(
            "nightshift_named_connections",
            "Connections that are open and showed a certificate that is good",
            named,
        );
        metrics.register("nightshift_calls", "Calls whose message was read", calls);
        metrics.register_with_unit("nightshift_received", "Bytes of messages", Unit::Bytes, received);
        metrics.register_with_unit("nightshift_sent", "Bytes of answers", Unit::Bytes, sent);
        metrics.register(
            "nightshift_turned_away",
            "Peers and calls that were turned away, by why",
            turned_away,
        );
    }

    fn state(&self, metrics: &mut Metrics, looked: &Looked) {
        let (enrolled, revoked) = looked.devices;
        let devices = Family::<Labels<1>, Gauge>::default();
        devices.get_or_create(&[("state", "enrolled")]).set(number(enrolled));
        devices.get_or_create(&[("state", "revoked")]).set(number(revoked));
        metrics.register("nightshift_devices", "Devices, by whether they are shut out", devices);
        if let Some((files, bytes)) = looked.artifacts {
            metrics.register("nightshift_artifacts", "Artifacts on disk", gauge(files));
            let bytes = gauge(bytes);
            metrics.register_with_unit(
                "nightshift_artifact",
                "What artifacts take on disk",
                Unit::Bytes,
                bytes,
            );
        }
        let ends = Family::<Labels<1>, Gauge>::default();
        let apart = self.registry.enroller.apart().map(|apart| apart.status().certificate_expires_unix_secs);
        for (certificate, end) in [
            ("server", Some(self.certificates.expires_unix_secs())),
            ("authority", Some(self.registry.authority.expires_unix_secs())),
            ("issuer", self.registry.hooks.issuer.roots_end_unix_secs()),
            ("authority_file", apart),
        ] {
            let Some(end) = end else { continue };
            ends.get_or_create(&[("certificate", certificate)]).set(whole(end));
        }
        metrics.register_with_unit(
            "nightshift_certificate_end_timestamp",
            "When certificates end, since 1970",
            Unit::Seconds,
            ends,
        );
        let ready = self.readiness.why_not().is_none();
        metrics.register(
            "nightshift_ready",
            "1 while it takes on work, 0 while it stops",
            gauge(ready.into()),
        );
        metrics.register(
            "nightshift_disk_trouble",
            "1 while nothing can be written, 0 otherwise",
            gauge((!looked.takes_writes).into()),
        );
        metrics.register(
            "nightshift_audit_entries",
            "The number of the newest entry of the audit log",
            gauge(looked.audit_entries),
        );
        let clock = gauge(driver::now().as_secs());
        metrics.register_with_unit(
            "nightshift_clock_timestamp",
            "Its clock, since 1970",
            Unit::Seconds,
            clock,
        );
    }
}

fn about_itself(metrics: &mut Metrics) {
    let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("os", std::env::consts::OS)]);
    metrics.register("nightshift_build", "Which coordinator this is", build);
}

fn of_process(metrics: &mut Metrics, process: Process) {
    let Process { resident_bytes, open_descriptors } = process;
    if let Some(bytes) = resident_bytes {
        let bytes = gauge(bytes);
        metrics.register_with_unit("process_resident_memory", "Memory that is resident", Unit::Bytes, bytes);
    }
    if let Some(open) = open_descriptors {
        metrics.register("process_open_fds", "Descriptors that are open", gauge(open));
    }
    let most = crate::descriptors::granted();
    metrics.register("process_max_fds", "Descriptors that the system gives", gauge(most));
}

/// How many files are in a folder, and what they take.
fn artifacts(folder: &std::path::Path) -> Option<(u64, u64)> {
    let mut total = (0, 0);
    for entry in std::fs::read_dir(folder).ok()? {
        // One that is gone again was being written.
        let Ok(metadata) = entry.and_then(|entry| entry.metadata()) else { continue };
        total = (total.0 + 1, total.1 + metadata.len());
    }
    Some(total)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn of_state(state: TaskState) -> &'static str {
    match state {
        TaskState::Active => "active",
        TaskState::Complete => "complete",
        TaskState::BudgetSpent => "budget_spent",
        TaskState::Stopped => "stopped",
        TaskState::Paused => "paused",
    }
}
