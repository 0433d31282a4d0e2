//! The whole coordinator: store, keys and services over two listeners, until it is told to stop.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module runs the services")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use authority::witnesses::{WitnessOpenError, Witnesses};
use hooks::OpenError;
use proto::files::{self, Audience, FileError};
use proto::ids::DeviceId;
use ring::rand::{SecureRandom, SystemRandom};
use shell::store::{Batch, Store, StoreError};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::artifacts::Artifacts;
use crate::audit::{Audit, AuditError, Place, What};
use crate::bases::{ServedBaseError, ServedBases};
use crate::config::{Certificates, Config};
use crate::dashboard;
use crate::descriptors::{self, Shares, TooFew};
use crate::driver::{self, Driver, DriverError, Enrolling};
use crate::enroller::{Enroller, EnrollerError};
use crate::enrollment::{CLOCK_SLACK_SECS, Registry, keeping};
use crate::kept_log::{KeptLog, LogError};
use crate::last_seen::{LastSeen, WRITTEN_EVERY_SECS};
use crate::listener::turned_away::TurnedAway;
use crate::listener::{self, Admits, Limits};
use crate::observe::scrape::Scrape;
use crate::observe::{Readiness, endpoint, health};
use crate::offline;
use crate::operators::{Operators, OperatorsError};
use crate::outside::Hooks;
use crate::peer::{AdminNameError, Peer};
use crate::pki::{Authority, PkiError, Validity};
use crate::records;
use crate::revocations::{Revocations, RevocationsError, Revoked, check_place};
pub use crate::server_certificates::ServerCertificatesError;
use crate::server_certificates::{ServerCertificates, Terms};
use crate::service::{self, BothTurnedAway};
use crate::stored::{CLUSTER, open_store};
use crate::traces::{Traces, TracesError};
use task::spool::FolderSpooler;

mod names;

use names::{certified_names, public_names};

/// Name of the operator's certificate and key in the state folder: `operator.pem`, `operator.key`.
pub const OPERATOR: &str = "operator";

/// The file that says where the admin listener is, `host:port`.
pub const ADMIN_ADDRESS_FILE: &str = "admin.address";

/// What of a folder shows that it was given to a coordinator, and no other purpose.
pub const OURS: [&str; 6] = ["store", CLUSTER, "ca.key", "ca.pem", "coordinator.toml", "base"];

/// How long connections are given to close after the rounds are over, all at the same time.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long the last entries may take: a disk that does not answer keeps no process.
const LAST_WRITES: Duration = Duration::from_secs(2);

const DAY_SECS: u64 = 24 * 3600;
const HOUR_SECS: u64 = 3600;

/// Why the coordinator cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be served.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key or a certificate cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The coordinator's own certificate, or its operator's, cannot be made or used.
    #[error(transparent)]
    Certificates(#[from] ServerCertificatesError),
    /// It cannot be said who enrolls devices.
    #[error(transparent)]
    Enroller(#[from] EnrollerError),
    /// The list of revocations cannot be used.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// The audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The enrollment log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The operator has no certificate.
    #[error(transparent)]
    Operators(#[from] OperatorsError),
    /// The operator's name is none.
    #[error(transparent)]
    Operator(#[from] AdminNameError),
    /// The system gives too few file descriptors.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// A base that is to be served is not there.
    #[error(transparent)]
    Bases(#[from] ServedBaseError),
    /// Who else is asked when a device enrolls cannot be.
    #[error(transparent)]
    Hooks(#[from] OpenError),
    /// A witness of the enrollment log cannot be asked.
    #[error(transparent)]
    Witness(#[from] WitnessOpenError),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// A listener has no address.
    #[error("a listener has no address: {0}")]
    Listener(std::io::Error),
    /// A service ended by itself.
    #[error("a service failed: {0}")]
    Service(String),
    /// The store or the disk failed while serving.
    #[error("the store in {} failed while serving; mend the disk, or its database, and start again to recover", .0.display())]
    Stopped(PathBuf),
}

/// Where the coordinator is reached; bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// For devices.
    pub device: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

/// A coordinator that has its store, its keys and its tasks, but does not serve yet.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    shares: Shares,
    driver: Driver,
    bases: ServedBases,
    registry: Arc<Registry>,
    certificates: Arc<ServerCertificates>,
    listeners: Listeners,
    addresses: (SocketAddr, SocketAddr),
    metrics: Option<TcpListener>,
}

/// Opens the store and serves until `shutdown` is canceled; then no round is opened any more, open ones are given
/// `drain_secs`, and what is left is aborted. At most five seconds later it ends, whatever peers do.
///
/// Fails when the store is in use or damaged, when a key cannot be used, and when the disk fails later on.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    Coordinator::open(config, listeners)?.serve(shutdown).await
}

impl Coordinator {
    /// Opens the store, the keys and the tasks, and writes what an operator on this machine needs into the
    /// state folder, which is closed to others. Fails when it cannot be closed, when the store is in use or damaged,
    /// or a key cannot be used.
    pub fn open(config: Config, listeners: Listeners) -> Result<Self, ServerError> {
        let shares = shares(&config)?;
        let folder = &config.state_dir;
        let bases = ServedBases::find(&config.bases)?;
        let hooks = Hooks::open(&config.issuer, &config.attestation)?;
        let traces = Traces::open(&config.traces)?;
        if let Some(closed) = files::own_folder(folder, &OURS)? {
            tracing::warn!("{closed}");
        }
        let store = open_store(&config.store, folder)?;
        let artifacts = Artifacts::open(&folder.join(offline::ARTIFACTS))?;
        let Certificates { authority_days, server_days, device_hours, renewal_grace_days, admin_days } =
            config.certificates;
        let rng = SystemRandom::new();
        let authority = Authority::open_or_create(folder, days(authority_days))?;
        let clock = (&rng as &dyn SecureRandom, driver::now().as_secs());
        let enroller = Enroller::open(folder, &config.authority.file, &store, clock)?;
        let operators = Arc::new(Operators::open(store.clone())?);
        check_place(&config.revocations)?;
        let (revocations, revoked) = Revocations::open(&config.revocations)?;
        let place = Place {
            folder: folder.join("audit"),
            seed: folder.join("audit.seed"),
            head: config.audit_head.clone(),
            most_bytes: u64::from(config.audit_mib) << 20,
        };
        let audit = Audit::open(&place, store.clone(), &rng, driver::now())?;
        let log = Arc::new(enroller.open_log(&store)?);
        let public = enroller.public();
        let witnesses = Witnesses::open(&config.witness, config.least_witnesses, (&public, &log))?;
        if let Some(key) = enroller.here() {
            // A full disk is no reason not to start: it is tried again every few seconds.
            keeping::write(&log, key, &store).unwrap_or_else(|error| {
                tracing::warn!(%error, "the enrollment log is not written on yet");
            });
        }
        revoke_again(&revoked, &store, (&log, &enroller), &operators, &audit)?;
        records::index_identities(&store).map_err(OperatorsError::Record)?;
        let admin = listeners.admin.local_addr().map_err(ServerError::Listener)?;
        write_address(&folder.join(ADMIN_ADDRESS_FILE), &format!("{}\n", reachable(admin)))?;

        let device = listeners.device.local_addr().map_err(ServerError::Listener)?;
        let names = public_names(&config.public_names, device.ip());
        let host = names.first().map_or("localhost", String::as_str);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let spooler = Arc::new(FolderSpooler::new(&folder.join("spool"))?);
        let enrolling = Enrolling { authority: enroller.public(), log: Some(log.log()) };
        let driver = Driver::open(store.clone(), artifacts, enrolling, spooler)?;
        driver.trace(traces);
        let seen = LastSeen::open(&store)?;
        let registry = Arc::new(Registry {
            store,
            authority,
            enroller,
            log,
            witnesses: Arc::new(witnesses),
            address: format!("{host}:{}", device.port()),
            device_secs: u64::from(device_hours) * HOUR_SECS,
            renewal_grace_secs: u64::from(renewal_grace_days) * DAY_SECS,
            operators,
            operator_secs: u64::from(admin_days) * DAY_SECS,
            revocations,
            driver: driver.clone(),
            audit,
            seen,
            hooks,
        });
        let terms = Terms {
            folder: folder.clone(),
            operator: OPERATOR.parse()?,
            names: certified_names(names, admin.ip()),
            server_secs: u64::from(server_days) * DAY_SECS,
            operator_secs: u64::from(admin_days) * DAY_SECS,
        };
        let certificates = Arc::new(ServerCertificates::make(Arc::clone(&registry), terms)?);
        Ok(Self {
            config,
            shares,
            driver,
            bases,
            registry,
            certificates,
            listeners,
            addresses: (device, admin),
            metrics: None,
        })
    }

    /// Answers for metrics on this listener too, if there is one.
    #[must_use]
    pub fn observed(self, metrics: Option<TcpListener>) -> Self {
        Self { metrics, ..self }
    }

    /// Where devices and operators connect.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        self.addresses
    }

    /// Who enrolls its devices, in one line.
    pub fn enroller(&self) -> String {
        self.registry.enroller.says()
    }

    /// What owns its tasks.
    pub fn driver(&self) -> Driver {
        self.driver.clone()
    }

    /// Serves until `shutdown` is canceled, or the store fails.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let Self { config, shares, driver, bases, registry, certificates, listeners, addresses: _, metrics } =
            self;
        let readiness = Readiness::new(driver.clone());
        let stop = CancellationToken::new();
        // Whoever drops this future stops the services too.
        let _dropped = stop.clone().drop_guard();
        let turned_away = BothTurnedAway::default();
        let scrape = Scrape {
            driver: driver.clone(),
            registry: Arc::clone(&registry),
            certificates: Arc::clone(&certificates),
            turned_away: turned_away.clone(),
            readiness: readiness.clone(),
            artifacts: config.state_dir.join(offline::ARTIFACTS),
        };
        let observers = metrics
            .map(|listener| tokio::spawn(endpoint::serve(listener, scrape, readiness.clone(), stop.clone())));
        let serve = |listener, tls, limits: (Limits, Arc<TurnedAway>, Admits), services: Routes| {
            tokio::spawn(listener::serve(listener, tls, limits, services.prepare(), stop.clone()))
        };
        let (known, operators) = (Arc::clone(&registry), Arc::clone(&registry.operators));
        let audit = registry.audit.clone();
        let admits_device: Admits = Arc::new(move |info| match &info.peer {
            Peer::Anonymous => true,
            Peer::Device(id) => known.check(DeviceId(*id)).is_ok(),
            Peer::Admin(_) | Peer::Coordinator(_) => false,
        });
        let admits_operator: Admits = Arc::new(move |info| {
            let holds = info.not_after_unix_secs.is_some_and(|end| driver::now().as_secs() <= end);
            holds && info.serial.is_some_and(|serial| operators.admits(serial))
        });
        let device = service::device_service(Arc::clone(&registry), driver.clone(), bases.clone());
        let admin = service::admin_service(
            Arc::clone(&registry),
            driver.clone(),
            bases.clone(),
            Arc::clone(&certificates),
            (turned_away.clone(), readiness.clone()),
        );
        let mut devices = serve(
            listeners.device,
            certificates.for_devices(),
            (shares.devices, turned_away.devices, admits_device),
            Routes::new(device).add_service(health::service(readiness.clone())),
        );
        let mut admins = serve(
            listeners.admin,
            certificates.for_operators(),
            (shares.operators, turned_away.operators, admits_operator),
            Routes::from(
                Routes::new(service::admin_server(admin.clone()))
                    .add_service(health::service(readiness.clone()))
                    .into_axum_router()
                    .merge(dashboard::router(admin)),
            ),
        );
        let timers = tokio::spawn({
            let driver = driver.clone();
            async move { driver.run_timers().await }
        });
        let renewals = tokio::spawn(certificates.keep());
        let calls = tokio::spawn(write_calls(Arc::clone(&registry)));
        let heads = tokio::spawn(keeping::keep(Arc::clone(&registry)));
        let reading = tokio::spawn(bases.read());
        let touch = tokio::spawn(Arc::clone(&registry).keep_in_touch());
        tracing::info!("serving");

        let outcome = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = driver.failed() => Err(ServerError::Stopped(config.state_dir.clone())),
            ended = &mut devices => Err(service_error(ended)),
            ended = &mut admins => Err(service_error(ended)),
        };
        if outcome.is_ok() {
            readiness.stops();
            tracing::info!(drain_secs = config.drain_secs, "stopping");
            driver.drain(Duration::from_secs(config.drain_secs.into())).await;
        }
        timers.abort();
        renewals.abort();
        calls.abort();
        heads.abort();
        reading.abort();
        touch.abort();
        stop.cancel();
        let closing = [devices, admins].into_iter().chain(observers).map(close).collect::<JoinSet<()>>();
        let traces = driver.traces().cloned().unwrap_or_default();
        tokio::join!(closing.join_all(), traces.close());
        let is_stopped = outcome.is_ok();
        let last = async {
            drop(spawn_blocking(move || audit.close(driver::now())).await);
            if is_stopped && let Err(error) = registry.seen.write(&registry.store).await {
                tracing::warn!(%error, "when devices called last is not written down");
            }
        };
        if timeout(LAST_WRITES, last).await.is_err() {
            tracing::error!(
                "the disk does not take the end of the audit log, and when devices called last; nothing else was open"
            );
        }
        tracing::info!("stopped");
        outcome
    }
}

/// Writes down now and then when devices called last, for ever.
async fn write_calls(registry: Arc<Registry>) {
    loop {
        sleep(Duration::from_secs(WRITTEN_EVERY_SECS)).await;
        if let Err(error) = registry.seen.write(&registry.store).await {
            tracing::warn!(%error, "when devices called last is not written down yet");
            if registry.store.is_stopped() {
                registry.driver.fail(&error.into());
            }
        }
    }
}

/// Revokes what the store does not know of: it is older than the list.
fn revoke_again(
    revoked: &[Revoked],
    store: &Store,
    (log, enroller): (&KeptLog, &Enroller),
    operators: &Operators,
    audit: &Audit,
) -> Result<(), ServerError> {
    for one in revoked {
        let forgotten = match *one {
            Revoked::Device(device) => match enroller.here() {
                Some(key) => log.revoke(device, key.key(), driver::now().as_secs(), |also| {
                    records::revoke(store, device, also)
                })?,
                None => records::revoke(store, device, Batch::new())?,
            },
            Revoked::Operator(serial) => operators.revoke(serial)?,
        };
        if forgotten {
            let whom = match *one {
                Revoked::Device(device) => ("device", device.to_string()),
                Revoked::Operator(serial) => ("certificate", serial.to_string()),
            };
            audit.note(&What::new("revoke again", [whom]), driver::now());
            tracing::warn!(
                ?one,
                "revoked again: the state folder did not know it, as after a restore from a backup"
            );
        }
    }
    Ok(())
}

/// Says where operators connect. What is there already is not written again, so that a full disk is no reason not to
/// start.
fn write_address(path: &Path, address: &str) -> Result<(), FileError> {
    match files::read(path) {
        Ok(there) if there == address.as_bytes() => Ok(()),
        Ok(_) | Err(_) => files::write(path, address.as_bytes(), Audience::Anyone),
    }
}

/// The limits of both listeners, as far as the system has descriptors for them.
fn shares(config: &Config) -> Result<Shares, TooFew> {
    let wanted = Shares { devices: config.limits.devices(), operators: config.limits.operators() };
    let granted = descriptors::raise();
    let shares = wanted.fit(granted)?;
    if shares != wanted {
        let (wanted, connections) = (wanted.devices.connections, shares.devices.connections);
        tracing::warn!(
            granted,
            wanted,
            connections,
            "the system lets this process open too few files for limits.connections, which is lowered; raise \
             LimitNOFILE (systemd) or `ulimit -n`"
        );
    }
    Ok(shares)
}

/// Waits for a service to close its connections, but not for long.
async fn close<T>(mut service: JoinHandle<T>) {
    if service.is_finished() {
        return;
    }
    if timeout(CLOSE_LIMIT, &mut service).await.is_err() {
        service.abort();
    }
}

fn service_error(ended: Result<(), tokio::task::JoinError>) -> ServerError {
    ServerError::Service(match ended {
        Ok(()) => "it ended by itself".to_owned(),
        Err(error) => error.to_string(),
    })
}

fn days(days: u32) -> Validity {
    let now = driver::now().as_secs();
    Validity {
        not_before_unix_secs: now.saturating_sub(CLOCK_SLACK_SECS),
        not_after_unix_secs: now + u64::from(days) * DAY_SECS,
    }
}

/// Where a listener is reached from this machine.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}
