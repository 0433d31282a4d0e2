//! The whole authority: its folder, its certificates and its service, until it is told to stop.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module runs the service")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::files::{self, Audience, FileError};
use ring::rand::SystemRandom;
use rustls::ServerConfig;
use serving::listener::{self, Admits, Limits};
use serving::pki::{Authority, PkiError, Validity, is_due};
use serving::tls::{self, Knows, TlsError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::clock::now_unix_secs;
use crate::config::{Certificates, Config};
use crate::keeper::peers::PeersError;
use crate::keeper::{Keeper, KeeperError, OURS, SEED_FILE};
use crate::service;
use crate::witnesses::{WitnessOpenError, Witnesses};

/// The file that says where the authority listens, `host:port`.
pub const ADDRESS_FILE: &str = "authority.address";

/// Between two looks at the clock: a machine that slept, or a clock that was set, is noticed.
const LOOK: Duration = Duration::from_secs(10);

/// How long calls under way are given to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Messages of coordinators are small, and answers few.
const MESSAGE_MEMORY_BYTES: usize = 16 << 20;

/// Why the authority cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS cannot use one.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operator has none.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// A witness cannot be asked.
    #[error(transparent)]
    Witness(#[from] WitnessOpenError),
    /// There is no key.
    #[error("{} holds no enrollment authority; make one by `nightshift-authority init`", .0.display())]
    NotThere(PathBuf),
    /// There is a key already.
    #[error("{} holds an enrollment authority already; nothing was changed", .0.display())]
    There(PathBuf),
    /// The listener has no address.
    #[error("the listener has no address: {0}")]
    Listener(std::io::Error),
    /// The service ended by itself.
    #[error("the service failed: {0}")]
    Service(String),
    /// The store failed while serving.
    #[error("the store in {} failed while serving; mend the disk and start again to recover", .0.display())]
    Stopped(PathBuf),
}

/// Makes an authority in its folder, with a key of its own and an operator's certificate; gives the key that verifies what it
/// will state. Fails where there is one already. Blocks.
pub fn init(config: &Config) -> Result<aggregation::IdentityPublic, ServerError> {
    let folder = &config.state_dir;
    own(folder)?;
    if folder.join(SEED_FILE).exists() {
        return Err(ServerError::There(folder.clone()));
    }
    let keeper = keeper(config)?;
    ensure_operator(config, &keeper, now_unix_secs())?;
    Ok(keeper.public())
}

/// An authority that has its folder, but does not serve yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    keeper: Arc<Keeper>,
    listener: TcpListener,
    address: SocketAddr,
    shown: Arc<Shown>,
    witnesses: Arc<Witnesses>,
}

/// The certificate that the authority shows.
#[derive(Debug)]
struct Shown {
    names: Vec<String>,
    server_secs: u64,
    expires_unix_secs: AtomicU64,
    sender: watch::Sender<Arc<ServerConfig>>,
}

impl Server {
    /// Opens the folder. Fails where there is no authority in it, its store is in use or damaged, or a key cannot be used.
    pub fn open(config: Config, listener: TcpListener) -> Result<Self, ServerError> {
        let folder = config.state_dir.clone();
        if !folder.join(SEED_FILE).exists() {
            return Err(ServerError::NotThere(folder));
        }
        own(&folder)?;
        let keeper = Arc::new(keeper(&config)?);
        let now = now_unix_secs();
        ensure_operator(&config, &keeper, now)?;
        let log = keeper.log();
        let witnesses = Witnesses::open(&config.witness, config.least_witnesses, (&keeper.public(), &log))?;
        let address = listener.local_addr().map_err(ServerError::Listener)?;
        let mut names = config.public_names.clone();
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        let server_secs = Certificates::secs(config.certificates.server_days);
        let made = server_config(&keeper, &names, server_secs, now)?;
        let (sender, expires_unix_secs) = (watch::Sender::new(made), AtomicU64::new(now + server_secs));
        let local = if address.ip().is_unspecified() {
            format!("localhost:{}\n", address.port())
        } else {
            format!("{address}\n")
        };
        files::write(&folder.join(ADDRESS_FILE), local.as_bytes(), Audience::Anyone)?;
        let shown = Arc::new(Shown { names, server_secs, expires_unix_secs, sender });
        Ok(Self { config, keeper, listener, address, shown, witnesses: Arc::new(witnesses) })
    }

    /// Where coordinators and operators connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key that verifies what it states of devices.
    pub fn public(&self) -> aggregation::IdentityPublic {
        self.keeper.public()
    }

    /// What signs its log, as witnesses know it.
    pub fn log_key(&self) -> String {
        self.witnesses.log_key().to_string()
    }

    /// What shows that it lives: nobody keeps the records for ever.
    pub fn keeper(&self) -> Arc<Keeper> {
        Arc::clone(&self.keeper)
    }

    /// Serves until `shutdown` is canceled, or the store fails. Calls under way are given a moment to end.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let Self { config, keeper, listener, shown, witnesses, address: _ } = self;
        let stop = CancellationToken::new();
        // Whoever drops this future stops the service too.
        let _dropped = stop.clone().drop_guard();
        let peers = Arc::clone(&keeper);
        let admits: Admits = Arc::new(move |info| {
            info.serial.is_some_and(|serial| peers.peers.part(&info.peer, serial).is_some())
        });
        let limits = Limits {
            handshakes: 32,
            anonymous: 0,
            connections: 64,
            message_memory_bytes: MESSAGE_MEMORY_BYTES,
            ..Limits::default()
        };
        let coordinator_secs = Certificates::secs(config.certificates.coordinator_days);
        let routes =
            Routes::new(service::service(Arc::clone(&keeper), coordinator_secs, Arc::clone(&witnesses)))
                .prepare();
        let asking = tokio::spawn(witnesses.keep(keeper.log()));
        let tls = shown.sender.subscribe();
        let mut served = tokio::spawn(listener::serve(
            listener,
            tls,
            (limits, Arc::default(), admits),
            routes,
            stop.clone(),
        ));
        tracing::info!("serving");
        let outcome = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            failed = look_after(config, keeper, shown) => Err(failed),
            ended = &mut served => {
                return Err(ServerError::Service(match ended {
                    Ok(()) => "it ended by itself".to_owned(),
                    Err(error) => error.to_string(),
                }));
            }
        };
        tracing::info!("stopping");
        asking.abort();
        stop.cancel();
        if timeout(CLOSE_LIMIT, &mut served).await.is_err() {
            served.abort();
        }
        tracing::info!("stopped");
        outcome
    }
}

/// Makes certificates, and the head of the log, anew when they are due, for ever; ends when the store has failed.
async fn look_after(config: Config, keeper: Arc<Keeper>, shown: Arc<Shown>) -> ServerError {
    loop {
        sleep(LOOK).await;
        if keeper.is_stopped() {
            return ServerError::Stopped(config.state_dir.clone());
        }
        let (config, keeper, shown) = (config.clone(), Arc::clone(&keeper), Arc::clone(&shown));
        let looked = spawn_blocking(move || look(&config, &keeper, &shown)).await;
        let error = match looked {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            error,
            "the next certificate of the authority or its operator, or the next head of its log, could not be made"
        );
    }
}

fn look(config: &Config, keeper: &Arc<Keeper>, shown: &Shown) -> Result<(), ServerError> {
    let now = now_unix_secs();
    keeper.refresh_head(now).map_err(KeeperError::from)?;
    if is_due(shown.expires_unix_secs.load(Ordering::Relaxed), shown.server_secs, now) {
        shown.sender.send_replace(server_config(keeper, &shown.names, shown.server_secs, now)?);
        shown.expires_unix_secs.store(now + shown.server_secs, Ordering::Relaxed);
        tracing::info!("the authority's certificate was made anew");
    }
    ensure_operator(config, keeper, now)
}

fn own(folder: &Path) -> Result<(), ServerError> {
    if let Some(closed) = files::own_folder(folder, &OURS)? {
        tracing::warn!("{closed}");
    }
    Ok(())
}

fn keeper(config: &Config) -> Result<Keeper, ServerError> {
    let folder = &config.state_dir;
    let validity = Validity::lasting(Certificates::secs(config.certificates.authority_days), now_unix_secs());
    let authority = Authority::open_or_create(folder, validity)?;
    let keeper = Keeper::open(folder, config.terms(), authority)?;
    keeper.refresh_head(now_unix_secs()).map_err(KeeperError::from)?;
    Ok(keeper)
}

fn ensure_operator(config: &Config, keeper: &Keeper, now: u64) -> Result<(), ServerError> {
    let secs = Certificates::secs(config.certificates.operator_days);
    let due = |expires| is_due(expires, secs, now);
    Ok(keeper.peers.ensure_operator(&config.state_dir, (Validity::lasting(secs, now), &due))?)
}

fn server_config(
    keeper: &Arc<Keeper>,
    names: &[String],
    secs: u64,
    now: u64,
) -> Result<Arc<ServerConfig>, ServerError> {
    let authority = keeper.peers.authority();
    let identity = authority.issue_server(names, Validity::lasting(secs, now), &SystemRandom::new())?;
    let peers = Arc::clone(keeper);
    let knows: Knows = Arc::new(move |peer, serial| peers.peers.part(peer, serial).is_some());
    Ok(tls::server_config(&identity, authority.certificate(), tls::Audience::Known(knows))?)
}
